"""Anybody's own photographs and recordings, by class: `layout` says how they lie, `pairing` what is combined.

Conventions
-----------
Tasks, each frame ``size`` pixels a side:

- single: one photograph, its own sound.
- duet: two photographs of different classes side by side, size x 2 size, both sounding (ledger 21, 23).
- multi: a mosaic in one frame. Four photographs of different classes in a 2 x 2 grid, two or three of them sounding,
  the others seen but silent. With fewer than four classes the cells that remain are plain grey. Sources come sounding
  first.

A photograph without mask is fine in training (its truth is an empty mask); validation and test refuse it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from m2vsl import audio as sound_files
from m2vsl import frame
from m2vsl.audio import AUDIO, AudioConfig
from m2vsl.data.layout import DataError, Item, Problem, lacking, read_layout, read_mask, read_sound
from m2vsl.data.loader import seeded
from m2vsl.data.pairing import TASKS, Pairing, Scene
from m2vsl.types import Sample

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class FolderConfig:
    """Which folder, which part of it, and how frames are cut."""

    root: str  # folder with images/, audio/ and masks/
    size: int = 224  # pixels per side of a frame
    fold: int = 5  # the test fold
    val_fold: int = 4  # the validation fold; 0 = none, train on every fold but the test fold; ledger 44
    folds: int = 5  # how many folds are dealt out where no index names them
    length: int = 0  # training samples per epoch; 0 = as many as training photographs
    rounds: int = 1  # how often every held-out photograph comes first in the val and test lists
    margin: float = 1.1  # training: FrameConfig.margin; ledger 41
    flip: float = 0.5  # training: FrameConfig.flip; ledger 41
    solo_share: float = 0.0  # training: share of pictures of which one source, any, sounds alone (ours: 0.5)
    skip_bad: bool = False  # leave out files with problems, count and list them, rather than refuse
    cache_mb: int = 1024  # memory for decoded files, megabytes per split; the rest is decoded anew each time

    def __post_init__(self) -> None:
        if self.fold < 1 or self.val_fold < 0 or self.fold == self.val_fold:
            raise ValueError(f"expected two different folds from 1, got fold={self.fold}, val_fold={self.val_fold}")
        if not 0 <= self.solo_share <= 1:
            raise ValueError(f"expected solo_share in [0, 1], got {self.solo_share}")
        if min(self.length, self.cache_mb) < 0 or self.rounds < 1 or self.folds < 2 or self.size < 2:
            raise ValueError(f"expected length, cache_mb >= 0, rounds >= 1, folds, size >= 2, got {self}")

    @property
    def validates(self) -> bool:
        """Whether there is a validation list."""
        return self.val_fold > 0

    @property
    def val_masks(self) -> bool:
        """Whether it has truths: always, where there is one."""
        return self.validates

    def source(self, task: str) -> str:
        """What is tested as records call it: the name of the folder."""
        return Path(self.root).resolve().name

    def placeless(self) -> dict[str, str | int]:
        """What its place is called in records and hashes, wherever it lies."""
        return {"root": Path(self.root).resolve().name, "cache_mb": 0}

    def holds(self, split: str, fold: int) -> bool:
        """Whether a file of `fold` belongs to `split`."""
        if split == "train":
            return fold not in (self.fold, self.val_fold)
        return fold == (self.fold if split == "test" else self.val_fold)


class FolderDataset:
    """Samples of one split and task. Every file of the split is decoded once, here, and what is wrong is listed.

    config, split ("train", "val", "test"), task ("single", "duet", "multi").
    sound: "mixture", or "one" (not in training): each picture comes once per sounding source, which sounds alone.
    seed: of the training pairs; the val and test lists do not depend on it.
    Raises FileNotFoundError without folder, `DataError` with the list of problems (unless ``skip_bad``: ``skipped``).
    """

    def __init__(
        self,
        config: FolderConfig,
        split: str,
        task: str = "duet",
        *,
        sound: str = "mixture",
        seed: int = 0,
        audio: AudioConfig = AUDIO["paper300"],
    ) -> None:
        expect_among("split", split, SPLITS)
        expect_among("task", task, TASKS)
        expect_among("sound", sound, ("mixture",) if split == "train" else ("mixture", "one"))
        if split == "val" and config.val_fold == 0:
            raise ValueError("expected a val_fold from 1 for the val split, got 0 (no validation)")
        self.config, self.split, self.task, self.seed, self.audio, self.epoch = config, split, task, seed, audio, 0
        self.frame = frame.FrameConfig(config.size // (2 if task == "multi" else 1), config.margin, config.flip)
        self.layout = read_layout(Path(config.root), config.folds)
        self.classes, self.name = self.layout.classes, self.layout.root.resolve().name
        self.skipped: tuple[Problem, ...] = ()
        self._cache = Cache(config.cache_mb * 2**20)
        photos, sounds = self._usable()
        self._files = sorted(item.name for some in (photos, sounds) for items in some.values() for item in items)
        self._pairing = Pairing(photos, sounds, task, seed if split == "train" else split)
        need, got = 1 if task == "single" else 2, len(self._pairing.labels)
        if got < need:
            raise ValueError(
                f"expected {need} classes or more for {task} in {split} of {config.root}, got {got} usable"
            )
        self._length = config.length or sum(len(photos[label]) for label in self._pairing.labels)
        self._scenes = [] if split == "train" else self._pairing.fixed(config.rounds)
        if sound == "one":
            self._scenes = [alone for scene in self._scenes for alone in scene.alone()]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that training samples are drawn from."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._length if self.split == "train" else len(self._scenes)

    def ids(self) -> list[str]:
        """The keys of the val or test list; in training, where pairs are endless, the names of the files."""
        return self._files if self.split == "train" else [scene.key for scene in self._scenes]

    def parts(self) -> dict[str, set[str]]:
        """Keys of the val or test list by the kind of all masks that count, where image_index.csv tells of several."""
        kinds, found = self.layout.mask_kinds, dict[str, set[str]]()
        for scene in self._scenes:
            loud = [photo.name for photo, on in zip(scene.photos, scene.sounding, strict=True) if on]
            if len(of := {kinds[name] for name in loud if name in kinds}) == 1 and len(set(kinds.values())) > 1:
                found.setdefault(of.pop(), set()).add(scene.key)
        return found

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"expected a sample from 0 to {len(self) - 1}, got {index}")
        if self.split != "train":
            return self._sample(index, self._scenes[index], None)
        generator = seeded("folder", self.seed, self.epoch, index)
        scene = self._pairing.drawn(self.epoch, index, self._length, generator)
        return self._sample(index, scene.perhaps_alone(self.config.solo_share, generator), generator)

    def _usable(self) -> tuple[dict[int, list[Item]], dict[int, list[Item]]]:
        """Photographs and recordings of the split by class; decodes, and thereby checks, each of them."""
        problems = list(self.layout.problems)
        if any(problem.kind == "folder" for problem in problems):
            raise FileNotFoundError(str(problems[0]))
        photos = self._readable(self.layout.photos, self._photo, "photo", problems)
        sounds = self._readable(self.layout.sounds, self._sound, "sound", problems)
        if problems and not self.config.skip_bad:
            raise DataError(self.layout.root, problems)
        self.skipped = tuple(problems)
        return photos, sounds

    def _readable(
        self, items: Iterable[Item], read: Callable[[Item], Any], kind: str, problems: list[Problem]
    ) -> dict[int, list[Item]]:
        good: dict[int, list[Item]] = {}
        for item in items:
            if self.config.holds(self.split, item.fold):
                try:
                    read(item)
                    good.setdefault(item.label, []).append(item)
                except (OSError, ValueError) as error:
                    problems.append(Problem(item.path, kind, str(error).removeprefix(f"{item.path}: ")))
        place = self.layout.root / ("images" if kind == "photo" else "audio")
        known = {problem.path for problem in problems}
        found = [items[0] for items in good.values()]
        message = f"no usable {kind} in the {self.split} split"
        problems += [p for p in lacking(place, self.classes, found, message) if p.path not in known]
        return good

    def _photo(self, item: Item) -> tuple[Image.Image, Image.Image]:
        """Photograph and mask, as far as no chance is involved."""

        def make() -> tuple[Image.Image, Image.Image]:
            image, place = frame.load(item.path), self.layout.mask(item)
            if self.split == "train":
                mask = read_mask(place, image.size) if place.is_file() else Image.new("L", image.size)
                return frame.shrink(image, mask, self.frame)
            if not place.is_file():
                raise ValueError(f"{item.path}: expected a mask at {place} to score against, got none")
            return frame.squash(image, read_mask(place, image.size), self.frame)

        return self._cache(item, make, lambda pair: 4 * pair[0].width * pair[0].height)

    def _sound(self, item: Item) -> Tensor:
        """The waveform to cut from: all of it where the cut is left to chance."""

        def make() -> Tensor:
            wave = read_sound(item.path, self.audio)
            by_chance = self.audio.crop == "random" and self.split == "train"
            return wave if by_chance else sound_files.cut(wave, self.audio).clone()

        return self._cache(item, make, lambda wave: wave.numel() * wave.element_size())

    def _sample(self, index: int, scene: Scene, generator: torch.Generator | None) -> Sample:
        pairs = [self._photo(photo) for photo in scene.photos]
        if generator is not None:
            pairs = [frame.augment(*pair, self.frame, generator) for pair in pairs]
        wave = heard(scene, self._sound, self.audio, generator)
        epoch = None if generator is None else self.epoch
        return scene.sample(index, epoch, *self._canvas(pairs, scene.cells), wave, len(self.classes))

    def _canvas(self, pairs: Sequence[tuple[Image.Image, Image.Image]], cells: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Photographs on one canvas, (3, H, W), and the mask of each on it, (S, H, W)."""
        side, (down, across) = self.frame.size, {"single": (1, 1), "duet": (1, 2), "multi": (2, 2)}[self.task]
        canvas = Image.new("RGB", (across * side, down * side), frame.GREY)
        masks = []
        for (photo, mask), cell in zip(pairs, cells, strict=True):
            corner = (cell % across * side, cell // across * side)
            canvas.paste(photo, corner)
            masks.append(Image.new("L", canvas.size))
            masks[-1].paste(mask, corner)
        return frame.to_tensor(canvas), torch.stack([frame.mask_tensor(mask) for mask in masks])


def heard(
    scene: Scene, read: Callable[[Item], Tensor], audio: AudioConfig, generator: torch.Generator | None
) -> Tensor:
    """The sounds of a scene mixed, (n,); with a generator, in training, each cut and varied first."""
    waves = [read(sound) for sound, on in zip(scene.sounds, scene.sounding, strict=True) if on]
    if generator is not None:
        waves = [sound_files.cut(wave, audio, generator) for wave in waves]
        waves = [sound_files.augment(wave, audio, generator) for wave in waves]
    return sound_files.mix(waves, audio.mixing)


class Cache:
    """Keeps what was made until `limit` bytes are full; what comes later is made anew each time."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._kept: dict[Any, Any] = {}

    def __call__(self, key: object, make: Callable[[], Any], size: Callable[[Any], int]) -> Any:
        """The kept value of `key`, else a new one, kept if its `size` in bytes fits."""
        if key in self._kept:
            return self._kept[key]
        value = make()
        if self.used + size(value) <= self.limit:
            self._kept[key] = value
            self.used += size(value)
        return value


def expect_among(what: str, got: str, among: Sequence[str]) -> None:
    """ValueError, naming the valid ones, unless `got` is one of them."""
    if got not in among:
        raise ValueError(f"expected {what} among {', '.join(among)}, got {got!r}")
