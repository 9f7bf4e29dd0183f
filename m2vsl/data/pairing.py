"""Which photographs are shown together, and which recordings are heard with them: no file is opened here.

Conventions
-----------
A photograph and a recording belong together if they are of one class. In training the pairs are drawn anew all the
time: scene i is a function of (seed, epoch, i); classes take turns, and within a class every photograph and every
recording comes once before any comes again. Validation and test are fixed lists, the same for every seed, in which
every photograph comes first in ``rounds`` scenes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from m2vsl.data.layout import Item
from m2vsl.data.loader import seeded
from m2vsl.types import Sample, Truth

TASKS = ("single", "duet", "multi")


@dataclass(frozen=True)
class Scene:
    """What is shown and what is heard; entry s of each field belongs to source s, sounding sources first."""

    photos: tuple[Item, ...]
    sounds: tuple[Item, ...]
    sounding: tuple[bool, ...]
    cells: tuple[int, ...]  # where each photograph lies on the canvas, row by row
    labelled: tuple[bool, ...]  # those that sound, or would, had not one been chosen to sound alone
    round: int = 0  # of a fixed list

    @property
    def key(self) -> str:
        """The names of what is shown, then of what is heard, then the round unless it is the first."""
        heard = "+".join(sound.name for sound, on in zip(self.sounds, self.sounding, strict=True) if on)
        shown = "+".join(photo.name for photo in self.photos)
        return f"{shown}|{heard}" + (f"|{self.round}" if self.round else "")

    def alone(self) -> list[Scene]:
        """This picture once per sounding source, which sounds alone."""
        n = len(self.sounding)
        loud = [s for s in range(n) if self.sounding[s]]
        return [replace(self, sounding=tuple(s == one for s in range(n))) for one in loud]

    def perhaps_alone(self, share: float, generator: torch.Generator) -> Scene:
        """In a `share` of the draws one source, any, sounds alone; draws nothing for a share of 0."""
        if not share or float(torch.rand((), generator=generator)) >= share:
            return self
        alone = self.alone()
        return alone[int(torch.randint(len(alone), (), generator=generator))]

    def sample(self, index: int, epoch: int | None, image: Tensor, masks: Tensor, wave: Tensor, classes: int) -> Sample:
        """This scene as a sample: picture (3, H, W), masks (S, H, W), waveform (n,), of a set of so many classes.

        index: its place in the list or the epoch; epoch: that it was drawn in, None of a fixed list.
        """
        labels, present = torch.tensor([photo.label for photo in self.photos]), torch.tensor(self.sounding)
        known = labels >= 0

        def hot(chosen: Tensor) -> Tensor:
            return torch.zeros(classes).index_fill_(0, labels[chosen & known], 1)

        return Sample(
            key=self.key if epoch is None else f"{epoch}:{index}:{self.key}",
            image=image,
            waveform=wave,
            heard=hot(present),
            seen=hot(known),
            labels=hot(torch.tensor(self.labelled)),
            mixture=index,
            truth=Truth(masks, labels, present),
        )


@dataclass(frozen=True)
class Pairing:
    """Draws the scenes of one task from photographs and recordings by class."""

    photos: Mapping[int, Sequence[Item]]  # label -> at least one
    sounds: Mapping[int, Sequence[Item]]
    task: str  # "single", "duet" or "multi"
    seed: int | str  # the seed of training; the name of a fixed list

    @property
    def labels(self) -> list[int]:
        """The classes that can be both seen and heard."""
        return sorted(set(self.photos) & set(self.sounds))

    def drawn(self, epoch: int, index: int, length: int, generator: torch.Generator) -> Scene:
        """Training scene `index` of an epoch of `length`: a function of (seed, epoch, index)."""
        labels = self.labels
        turn, place = divmod(index, len(labels))
        turns = -(-(length - place) // len(labels))  # per epoch
        return self.scene(labels[place], epoch * turns + turn, generator)

    def fixed(self, rounds: int) -> list[Scene]:
        """Every photograph first in `rounds` scenes; each class spread evenly over the list: mixed batches."""
        scenes = []
        for label in self.labels:
            photos = len(self.photos[label])
            for count in range(rounds * photos):
                scene = self.scene(label, count, seeded("folder", self.seed, label, count))
                scenes.append(((count + 0.5) / photos, label, replace(scene, round=count // photos)))
        return [scene for _, _, scene in sorted(scenes, key=lambda placed: placed[:2])]

    def scene(self, label: int, count: int, generator: torch.Generator) -> Scene:
        """The `count`-th photograph and recording of a class, with the company that the task asks for."""
        others = [other for other in self.labels if other != label]
        company = {"single": 0, "duet": 1, "multi": min(3, len(others))}[self.task]
        chosen = [others[i] for i in torch.randperm(len(others), generator=generator)[:company].tolist()]
        photos = [self._nth("photo", label, count), *(_any(self.photos[c], generator) for c in chosen)]
        sounds = [self._nth("sound", label, count), *(_any(self.sounds[c], generator) for c in chosen)]
        loud, cells = len(photos), list(range(len(photos)))
        if self.task == "multi":
            loud = 2 + int(torch.randint(2, (), generator=generator))
            cells = torch.randperm(4, generator=generator).tolist()[: len(photos)]
        sounding = tuple(s < loud for s in range(len(photos)))
        return Scene(tuple(photos), tuple(sounds), sounding, tuple(cells), sounding)

    def _nth(self, kind: str, label: int, count: int) -> Item:
        items = (self.photos if kind == "photo" else self.sounds)[label]
        turn, place = divmod(count, len(items))
        return items[_permutation(len(items), kind, self.seed, label, turn)[place]]


@lru_cache(maxsize=4096)
def _permutation(n: int, *key: object) -> tuple[int, ...]:
    return tuple(torch.randperm(n, generator=seeded("turn", *key)).tolist())


def _any(items: Sequence[Item], generator: torch.Generator) -> Item:
    return items[int(torch.randint(len(items), (), generator=generator))]
