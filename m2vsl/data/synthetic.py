"""The embedded data set: pictures drawn and sounds played on the fly, nothing to download, nothing ever the same twice.

A class is a look (shape and texture, any colours; `drawing`) and a timbre (any pitch, rhythm, envelope and loudness;
`sounding`). Things that sound stand beside silent things of other classes before cluttered grounds (`scenery`), so that
neither the only salient thing nor the centre of the frame answers the question.

Tasks
    single: one thing sounds, none to three are silent.
    duet: two frames side by side, H x 2W, one sounding thing of another class in each; silent things of neither class.
    multi: two or three sounding things of different classes in one frame, none or one silent.

Conventions
    Sources come sounding first (left, then right in a duet), then silent; masks are 0 or 1 on the whole canvas.
    ``heard`` names the classes that sound, ``seen`` all that are visible, ``labels`` those that sound or were muted.
    A training sample is a function of (seed, epoch, index) and the index may be any whole number from 0; ``val`` and
    ``test`` are fixed lists, functions of (split, index). The scene does not depend on the size in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from numpy.random import Generator, SeedSequence
from torch import Tensor

from m2vsl.audio import AUDIO, AudioConfig, mix
from m2vsl.data.drawing import LOOKS, Thing, arrange
from m2vsl.data.scenery import paint
from m2vsl.data.sounding import TIMBRES, sound
from m2vsl.frame import MEAN, STD
from m2vsl.types import Sample, Truth

TASKS = ("single", "duet", "multi")
SOUNDS = ("mixture", "one")
SPLITS = ("train", "val", "test")
CLASSES = tuple(f"{texture} {shape} ({t.name})" for (shape, texture), t in zip(LOOKS, TIMBRES, strict=True))
LARGEST = 0.40  # of the frame: the roundest circle around the leanest shape still fits
CROWDED = 0.25  # of the frame: as much can be placed at random without overlap, whatever the shapes


@dataclass(frozen=True)
class SyntheticConfig:
    """How many of what, and how large."""

    classes: int = 12  # the first so many of the 12
    size: int = 224  # pixels per side of one frame
    train_length: int = 2000  # samples called one epoch; fresh ones in each
    val_length: int = 200  # pictures
    test_length: int = 500  # pictures
    distractors: tuple[int, int] = (0, 3)  # silent things per frame of a single or a duet, least and most
    sources: tuple[int, int] = (2, 3)  # sounding things of a multi-source frame, least and most
    multi_distractors: tuple[int, int] = (0, 1)  # silent things of a multi-source frame, least and most
    areas: tuple[float, float] = (0.04, 0.40)  # of a thing, share of the frame, least and most; log-uniform
    solo_share: float = 0.0  # training: share of pictures of which one source, any, sounds alone (ours: 0.5)

    def __post_init__(self) -> None:
        if not 1 <= self.classes <= len(CLASSES):
            raise ValueError(f"expected classes from 1 to {len(CLASSES)}, got {self.classes}")
        if self.size < 32:
            raise ValueError(f"expected a size of at least 32 pixels, got {self.size}")
        if min(self.train_length, self.val_length, self.test_length) < 1:
            raise ValueError(f"expected at least one sample per split, got {self}")
        for name, least in (("distractors", 0), ("sources", 1), ("multi_distractors", 0)):
            few, many = getattr(self, name)
            if not least <= few <= many:
                raise ValueError(f"expected {name} (least, most) with {least} <= least <= most, got {(few, many)}")
        if not 0 <= self.solo_share <= 1:
            raise ValueError(f"expected solo_share in [0, 1], got {self.solo_share}")
        if not 0.005 <= self.areas[0] <= self.areas[1] <= LARGEST:
            raise ValueError(f"expected areas (least, most) between 0.005 and {LARGEST} of the frame, got {self.areas}")

    def cast(self, task: str) -> tuple[tuple[int, int], tuple[int, int]]:
        """(least, most) sounding things of the whole picture and silent things per frame.

        Raises ValueError if the task is unknown, or the classes or the room do not suffice for it.
        """
        if task not in TASKS:
            raise ValueError(f"expected a task among {', '.join(TASKS)}, got {task!r}")
        sounding = {"single": (1, 1), "duet": (2, 2), "multi": self.sources}[task]
        silent = self.multi_distractors if task == "multi" else self.distractors
        needed = sounding[1] + silent[1]
        if needed > self.classes:
            raise ValueError(f"expected at least {needed} classes for {task} with {silent} silent, got {self.classes}")
        things = needed - (task == "duet")
        if things > 1 and things * self.areas[0] > CROWDED:
            raise ValueError(
                f"expected areas to start at {CROWDED / things:.3f} or less for {task} with up to {things} things in a"
                f" frame, got {self.areas}"
            )
        return sounding, silent

    validates = True  # there is a validation list
    val_masks = True  # and it has truths

    def source(self, task: str) -> str:
        """What is tested as records call it."""
        return "synthetic"

    def placeless(self) -> dict[str, str | int]:
        """Nothing of it depends on a place."""
        return {}


@dataclass(frozen=True)
class Cast:
    """Who is in a picture: classes that sound, and classes that are silent in each of its frames."""

    sounding: tuple[int, ...]
    silent: tuple[tuple[int, ...], ...]  # one per frame


class SyntheticDataset(torch.utils.data.Dataset[Sample]):
    """Samples of one split and task; see the module's text.

    sound: "mixture" = all sources of a picture sound together (ledger 22); "one" = evaluation only: each picture is
    used once per source, which sounds alone, and the others stay in the truth as silent.
    """

    name = "synthetic"

    def __init__(
        self,
        config: SyntheticConfig,
        split: str,
        *,
        task: str = "single",
        sound: str = "mixture",
        seed: int = 0,
        audio: AudioConfig = AUDIO["paper300"],
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"expected a split among {', '.join(SPLITS)}, got {split!r}")
        if sound not in SOUNDS:
            raise ValueError(f"expected sound among {', '.join(SOUNDS)}, got {sound!r}")
        if sound == "one" and split == "train":
            raise ValueError("expected sound='mixture' for training, got 'one', which is for val and test alone")
        self._counts = config.cast(task)
        self.config, self.split, self.task, self.sound = config, split, task, sound
        self.seed, self.audio, self.epoch = seed, audio, 0
        self.classes = CLASSES[: config.classes]

    def set_epoch(self, epoch: int) -> None:
        """Training samples from now on are those of `epoch`; the other splits stay as they are."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._firsts[-1] if self.sound == "one" else self._pictures

    def __iter__(self) -> Iterator[Sample]:
        """One epoch, in order."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`: at or above 0, and below ``len`` unless the split is training, which never ends."""
        if index < 0 or (self.split != "train" and index >= len(self)):
            raise IndexError(f"expected an index from 0 to {len(self) - 1} of {self.split}, got {index}")
        picture, source = self._used(index)
        streams = self._streams(picture)
        rng = next(streams)
        cast = self._cast(rng)
        if self.split == "train" and rng.random() < self.config.solo_share:
            source = int(rng.integers(len(cast.sounding)))
        image, things, masks = self._draw(cast, (next(streams), next(streams)))
        present = np.arange(len(things)) < len(cast.sounding)
        if source is not None:
            present = np.arange(len(things)) == source
        waves = [self._play(look, rng) for look, rng, on in zip(cast.sounding, streams, present, strict=False) if on]
        return Sample(
            key=self._key(index),
            image=image,
            waveform=mix(waves, self.audio.mixing),
            heard=self._multi_hot([thing.look for thing, on in zip(things, present, strict=True) if on]),
            seen=self._multi_hot([thing.look for thing in things]),
            labels=self._multi_hot(cast.sounding),
            mixture=index,
            truth=Truth(masks, torch.tensor([thing.look for thing in things]), torch.from_numpy(present)),
        )

    def ids(self) -> list[str]:
        """Keys of the split (of this epoch, in training), in order."""
        return [self._key(i) for i in range(len(self))]

    @property
    def _pictures(self) -> int:
        return int(getattr(self.config, f"{self.split}_length"))

    @cached_property
    def _firsts(self) -> list[int]:
        """Where each picture's samples begin if every source sounds alone, and their total."""
        sources = (len(self._cast(next(self._streams(picture))).sounding) for picture in range(self._pictures))
        return list(accumulate(sources, initial=0))

    def _used(self, index: int) -> tuple[int, int | None]:
        """The picture of a sample, and the source that alone sounds in it (None: all do)."""
        if self.sound == "mixture":
            return index, None
        picture = int(np.searchsorted(self._firsts, index, side="right")) - 1
        return picture, index - self._firsts[picture]

    def _key(self, index: int) -> str:
        picture, source = self._used(index)
        where = f"train-{self.seed}-{self.epoch}" if self.split == "train" else self.split
        return f"{where}-{self.task}-{picture:06d}" + ("" if source is None else f"-{source}")

    def _streams(self, picture: int) -> Iterator[Generator]:
        """Unrelated generators for the cast, the left and right frame, and each sound; the same whichever are used."""
        place = (self.seed, self.epoch) if self.split == "train" else (0, 0)
        key = (TASKS.index(self.task), SPLITS.index(self.split), *place, picture)
        return (np.random.default_rng(SeedSequence(key, spawn_key=(n,))) for n in range(3 + self._counts[0][1]))

    def _cast(self, rng: Generator) -> Cast:
        sounding, silent = (tuple(int(n) for n in rng.integers(low, high + 1, 2)) for low, high in self._counts)
        classes = rng.permutation(self.config.classes).tolist()
        chosen, others = classes[: sounding[0]], classes[sounding[0] :]
        frames = [others[: silent[0]]]
        if self.task == "duet":
            frames.append(rng.permutation(others).tolist()[: silent[1]])
        return Cast(tuple(chosen), tuple(tuple(frame) for frame in frames))

    def _draw(self, cast: Cast, streams: Sequence[Generator]) -> tuple[Tensor, list[Thing], Tensor]:
        """The normalised picture (3, H, W), its things, and their masks (S, H, W), sounding ones first."""
        size, frames = self.config.size, len(cast.silent)
        image = np.empty((3, size, frames * size), np.float32)
        sounding, silent = [], []  # (thing, mask on the whole canvas)
        for n, rng in zip(range(frames), streams, strict=False):
            loud = cast.sounding[n : n + 1] if self.task == "duet" else cast.sounding
            things = arrange(rng, [*loud, *cast.silent[n]], self.config.areas)
            columns = slice(n * size, (n + 1) * size)
            image[:, :, columns], masks = paint(rng, things, size)
            canvas = np.zeros((len(things), size, frames * size), np.float32)
            canvas[:, :, columns] = masks
            shown = list(zip(things, canvas, strict=True))
            sounding += shown[: len(loud)]
            silent += shown[len(loud) :]
        image -= np.array(MEAN, np.float32)[:, None, None]
        image /= np.array(STD, np.float32)[:, None, None]
        everything = sounding + silent
        masks = np.stack([mask for _, mask in everything])
        return torch.from_numpy(image), [thing for thing, _ in everything], torch.from_numpy(masks)

    def _play(self, look: int, rng: Generator) -> Tensor:
        return torch.from_numpy(sound(rng, look, self.audio.rate, self.audio.samples))

    def _multi_hot(self, classes: Sequence[int]) -> Tensor:
        return torch.zeros(self.config.classes).index_fill_(0, torch.tensor(classes, dtype=torch.int64), 1)
