"""The published benchmarks: VGGSound-Single and -Duet, VGG-Instruments, Flickr-SoundNet, over the public lists.

`benchmarks` says which lists they consist of, `lists` how those are read, `shelf` how the clips lie, `boxes` and
`pickles` how truths are read.

Conventions
-----------
- Tasks, each frame ``size`` pixels a side: single, one clip; duet, two clips side by side, size x 2 size, the sum of
  their sounds, source s in frame s (ledger 21-23). Test duets are the published pairs (ledger 52). A training duet
  joins a clip with any clip whose class differs or is not known; if its own is not known, with any other.
- A picture and its own sound stay together. In training clip and partner of sample i are a function of
  (seed, epoch, i), and every clip comes first once before any does again. Validation, a share of the training list by a
  hash of the id (ledger 44), and test are fixed.
- Training and validation have no truths (empty masks); a clip whose class is not known has class -1, and ``heard``,
  ``seen`` and ``labels`` are zero: methods that need no labels do not mind.
- A clip is never replaced by another. What is not there, or listed wrongly, is in ``skipped`` by name. Clips of a test
  list are decoded beforehand, so that none fails half-way; one of a training list that is broken ends the training,
  and is named.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from m2vsl import audio as sound_files
from m2vsl import frame
from m2vsl.audio import AUDIO, AudioConfig
from m2vsl.data.benchmarks import BENCHMARKS, OPEN_SETS, Clip, Contents, read_tests, read_training
from m2vsl.data.folder import SPLITS, Cache, expect_among, heard
from m2vsl.data.layout import DataError, Item, Problem
from m2vsl.data.loader import seeded
from m2vsl.data.pairing import Scene
from m2vsl.data.shelf import Shelf
from m2vsl.types import Sample

ADVICE = 'missing="list" (data.missing=list) leaves out what cannot be used, and lists it'


@dataclass(frozen=True)
class VGGSoundConfig:
    """Which benchmark, where it lies, what is trained on, and how frames are cut."""

    root: str  # folder with frames/, audio/ and, but for VGG-SS, anno/
    benchmark: str = "vggsound"  # or "instruments", "flickr"
    size: int = 224  # pixels per side of a frame
    lists: str = ""  # folder of the lists; "" = metadata/ in root
    train: str = ""  # training list: "144k" (the default), "10k", ..., or a .txt or .csv; ledger 29, 30
    part: str = ""  # open set of VGG-SS that is tested, "heard" or "unheard"; "" = all
    allow_leak: bool = False  # train on clips that are tested, for parity with published runs; ledger 31
    missing: str = "list"  # left out, listed by name, the test marked a subset; or "refuse"
    val_share: float = 0.05  # of the training clips, held out to validate; 0 = none; ledger 44
    length: int = 0  # training samples per epoch; 0 = as many as training clips
    margin: float = 1.1  # training: FrameConfig.margin; ledger 41
    flip: float = 0.5  # training: FrameConfig.flip; ledger 41
    solo_share: float = 0.0  # training: share of pictures of which one source, any, sounds alone
    cache_mb: int = 1024  # memory for decoded files, megabytes per split; the rest is decoded anew each time

    def __post_init__(self) -> None:
        expect_among("benchmark", self.benchmark, tuple(BENCHMARKS))
        expect_among("missing", self.missing, ("list", "refuse"))
        BENCHMARKS[self.benchmark].train_list(self.train)
        if self.part:
            expect_among("part", self.part, tuple(OPEN_SETS))
            expect_among("benchmark with a part", self.benchmark, ("vggsound",))
        if not 0 <= self.val_share < 1 or not 0 <= self.solo_share <= 1:
            raise ValueError(f"expected val_share in [0, 1), solo_share in [0, 1], got {self}")
        if min(self.length, self.cache_mb) < 0 or self.size < 2:
            raise ValueError(f"expected length, cache_mb >= 0 and size >= 2, got {self}")

    @property
    def lists_dir(self) -> Path:
        """The folder of the lists."""
        return Path(self.lists) if self.lists else Path(self.root) / "metadata"

    @property
    def validates(self) -> bool:
        """Whether there is a validation list."""
        return self.val_share > 0

    def placeless(self) -> dict[str, str | int]:
        """What its places are called in records and hashes, wherever they lie."""
        return {"root": self.benchmark, "lists": "", "cache_mb": 0}

    def source(self, task: str) -> str:
        """The test as records and tables call it: ``vggsound-duet``, ``vggsound-heard-single``, ``flickr-single``."""
        return "-".join(filter(None, (self.benchmark, self.part, task)))

    def contents(self, split: str, task: str) -> Contents:
        """What the lists say is in a split, whatever lies on disk. FileNotFoundError for a list that is not there."""
        expect_among("task", task, tuple(BENCHMARKS[self.benchmark].tests))
        if self.part:
            expect_among(f"task of the part {self.part}", task, ("single",))
        where = (self.lists_dir, self.benchmark)
        if split == "test":
            return read_tests(*where, task, train=self.train, part=self.part)
        how = {"allow_leak": self.allow_leak, "val_share": self.val_share, "val": split == "val"}
        return read_training(*where, train=self.train, **how)  # type: ignore[arg-type]


class VGGSoundDataset:
    """Samples of one split and task of a benchmark.

    config, split ("train", "val", "test"), task ("single", "duet").
    sound: "mixture", or "one" (not in training): each picture comes once per sounding source, which sounds alone.
    seed: of the training samples; the val and test lists do not depend on it.

    Beside `classes` and `skipped`: ``full``, how many samples the whole published list makes, present or not;
    ``leaked``, the training clips that are tested, taken out or (``allow_leak``) kept; ``labelled``, whether classes of
    training clips are known.
    Raises FileNotFoundError for a folder or a list that is not there, ValueError if too little can be used, `DataError`
    with the list of problems if ``missing`` is "refuse".
    """

    def __init__(
        self,
        config: VGGSoundConfig,
        split: str,
        task: str = "duet",
        *,
        sound: str = "mixture",
        seed: int = 0,
        audio: AudioConfig = AUDIO["paper300"],
    ) -> None:
        expect_among("split", split, SPLITS)
        expect_among("sound", sound, ("mixture",) if split == "train" else ("mixture", "one"))
        if split == "val" and config.val_share == 0:
            raise ValueError("expected a val_share above 0 for the val split, got 0 (no validation)")
        self.config, self.split, self.task, self.seed, self.audio, self.epoch = config, split, task, seed, audio, 0
        self.frame = frame.FrameConfig(config.size, config.margin, config.flip)
        listed = config.contents(split, task)
        self.classes, self.name = listed.classes, config.source(task)
        self.leaked, self.labelled = listed.leaked, listed.labelled
        self.full = listed.full * (len(listed.scenes[0]) if sound == "one" and listed.scenes else 1)
        self._shelf = Shelf(Path(config.root), config.lists_dir, config.benchmark, truths=split == "test")
        self._cache = Cache(config.cache_mb * 2**20)
        self.skipped: tuple[Problem, ...] = ()
        usable = self._usable(listed)
        self._clips = sorted({clip for clips in usable for clip in clips}, key=lambda clip: (clip.label, clip.id))
        self._labels = [clip.label for clip in self._clips]
        self._expect_enough(listed)
        self._length = config.length or len(self._clips)
        scenes = map(self._scene, usable) if split == "test" else map(self._fixed, range(len(self._clips)))
        self._scenes = [] if split == "train" else list(scenes)
        if sound == "one":
            self._scenes = [alone for scene in self._scenes for alone in scene.alone()]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that training samples are drawn from."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._length if self.split == "train" else len(self._scenes)

    def ids(self) -> list[str]:
        """The keys of the val or test list; in training, where pairs are endless, the ids of the clips."""
        return [clip.id for clip in self._clips] if self.split == "train" else [scene.key for scene in self._scenes]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"expected a sample from 0 to {len(self) - 1}, got {index}")
        if self.split != "train":
            return self._sample(index, self._scenes[index], None)
        generator = seeded("vggsound", self.seed, self.epoch, index)
        turn, place = divmod(self.epoch * self._length + index, len(self._clips))
        scene = self._paired(int(_order(len(self._clips), self.seed, turn)[place]), generator)
        return self._sample(index, scene.perhaps_alone(self.config.solo_share, generator), generator)

    def _usable(self, listed: Contents) -> list[tuple[Clip, ...]]:
        """The scenes of which every clip is there and, of a test list, can be decoded; all else becomes a problem."""
        clips = {clip.id: clip for clips in listed.scenes for clip in clips}
        lost = self._shelf.missing(clips.values(), listed.classes)
        if self.split == "test":
            lost |= {id: wrong for id in clips if id not in lost and (wrong := self._broken(id))}
        problems = [*listed.problems, *(problem for of_clip in lost.values() for problem in of_clip)]
        if problems and self.config.missing == "refuse":
            raise DataError(Path(self.config.root), problems, ADVICE)
        self.skipped = tuple(problems)
        return [clips for clips in listed.scenes if not any(clip.id in lost for clip in clips)]

    def _broken(self, id: str) -> list[Problem]:
        photo, sound = Item(-1, id, self._shelf.frame(id), 0), Item(-1, id, self._shelf.sound(id), 0)
        return self._shelf.broken(id, lambda: self._photo(photo), lambda: self._sound(sound))

    def _expect_enough(self, listed: Contents) -> None:
        several = len(set(self._labels)) > 1 or (len(self._clips) > 1 and self._labels[0] < 0)
        if not self._clips or (self.task == "duet" and self.split != "test" and not several):
            need = "a clip" if self.task == "single" or self.split == "test" else "clips of two classes"
            raise ValueError(
                f"expected {need} of {listed.path.name} in {self.split} of {self.config.root}, "
                f"got {len(self._clips)} usable of {len(listed.scenes)}"
                + "".join(f"\n  {problem}" for problem in self.skipped[:20])
            )

    def _scene(self, clips: Iterable[Clip]) -> Scene:
        clips = list(clips)
        photos = tuple(Item(clip.label, clip.id, self._shelf.frame(clip.id), 0) for clip in clips)
        sounds = tuple(Item(clip.label, clip.id, self._shelf.sound(clip.id), 0) for clip in clips)
        sounding = (True,) * len(clips)
        return Scene(photos, sounds, sounding, tuple(range(len(clips))), sounding)

    def _fixed(self, place: int) -> Scene:
        """The validation scene of a clip."""
        return self._paired(place, seeded("vggsound", "val", self._clips[place].id))

    def _paired(self, place: int, generator: torch.Generator) -> Scene:
        """A clip with, in a duet, its partner: any of another class, or any other if its own is not known."""
        clips = [self._clips[place]]
        if self.task == "duet":
            label = self._labels[place]
            first, end = place, place + 1
            if label >= 0:
                first, end = bisect_left(self._labels, label), bisect_right(self._labels, label)
            drawn = int(torch.randint(len(self._clips) - (end - first), (), generator=generator))
            clips.append(self._clips[drawn if drawn < first else drawn + end - first])
        return self._scene(clips)

    def _photo(self, item: Item) -> Image.Image:
        """The still, as far as no chance is involved."""

        def make() -> Image.Image:
            image = frame.load(item.path)
            cut = frame.shrink if self.split == "train" else frame.squash
            return cut(image, Image.new("L", image.size), self.frame)[0]

        return self._cache(("photo", item.name), make, lambda image: 3 * image.width * image.height)

    def _sound(self, item: Item) -> Tensor:
        """The waveform to cut from: all of it where the cut is left to chance."""

        def make() -> Tensor:
            wave = sound_files.decode(item.path, self.audio)
            by_chance = self.audio.crop == "random" and self.split == "train"
            return wave if by_chance else sound_files.cut(wave, self.audio).clone()

        return self._cache(("sound", item.name), make, lambda wave: wave.numel() * wave.element_size())

    def _mask(self, item: Item) -> Tensor:
        """The truth of a still, (size, size); empty where there is none."""
        size = self.config.size
        return self._shelf.truth(item.name, size) if self.split == "test" else torch.zeros(size, size)

    def _sample(self, index: int, scene: Scene, generator: torch.Generator | None) -> Sample:
        photos = [self._photo(photo) for photo in scene.photos]
        if generator is not None:
            empty = [Image.new("L", photo.size) for photo in photos]
            photos = [frame.augment(*pair, self.frame, generator)[0] for pair in zip(photos, empty, strict=True)]
        wave = heard(scene, self._sound, self.audio, generator)
        image = torch.cat([frame.to_tensor(photo) for photo in photos], -1)
        masks = _side_by_side([self._mask(photo) for photo in scene.photos])
        return scene.sample(index, None if generator is None else self.epoch, image, masks, wave, len(self.classes))


def _side_by_side(masks: Sequence[Tensor]) -> Tensor:
    """Masks of S frames, each (H, W) -> (S, H, S W), each in its own frame."""
    width = masks[0].shape[-1]
    return torch.stack([F.pad(mask, (s * width, (len(masks) - 1 - s) * width)) for s, mask in enumerate(masks)])


@lru_cache(maxsize=4)
def _order(n: int, seed: int, turn: int) -> Tensor:
    """The order in which n clips come first."""
    return torch.randperm(n, generator=seeded("vggsound order", seed, turn))
