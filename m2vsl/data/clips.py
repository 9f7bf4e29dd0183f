"""What is asked of the maps of a clip: which of them answers for which source of its truth.

Conventions
-----------
``roles`` says what several maps of a clip are.

- "auto": maps named by classes answer for these classes. Maps without names answer for whichever source they fit best,
  which reads the truth: the best of several, and to be told as such.
- "sources": map s is of source s, in the order of the list; named maps are put in this order by their names.
- "turns": map s is what was found when source s alone sounded. The clip is scored once per source, the others silent.

Classes are written as in the lists or in words (`class_name`). Named maps with presence.csv have a predicted choice,
and then all of them need it; without it they have the oracle's alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from m2vsl.data.heatmaps import ClipMaps
from m2vsl.data.lists import class_name
from m2vsl.types import Truth

Roles = Literal["auto", "sources", "turns"]
LARGEST = 1e37  # heat beyond it would be infinite once interpolated in float32


@dataclass(frozen=True)
class Clip:
    """One picture to score."""

    key: str  # the id; "<id>/<s>" of a turn
    heat: Tensor  # (M, h, w)
    classes: tuple[int, ...]  # (M,) the class of each map, -1 = no name
    presence: tuple[float, ...] | None
    truth: Truth
    labels: tuple[int, ...]  # (S,) the class of each source; `truth` may have places in its stead

    @property
    def kin(self) -> tuple[object, ...]:
        """What clips of a batch have in common."""
        return self.heat.shape, self.heat.dtype, self.classes, self.presence is None, self.truth.mask.shape


def clips(id: str, given: ClipMaps, truth: Truth, names: Sequence[str], roles: Roles, heard: bool) -> list[Clip]:
    """The pictures that a clip makes: one, or one per turn.

    names: of the classes of `truth`. heard: other clips say which classes they hear, so this one has to.
    ValueError if the maps are not what their role asks for.
    """
    height, width = truth.mask.shape[-2:]
    if width != height and given.heat.shape[-1] * height != given.heat.shape[-2] * width:
        shape = tuple(given.heat.shape)
        raise ValueError(f"expected maps of the whole canvas, {width // height} wide to 1 high, got {shape}")
    if float(given.heat.abs().max()) > LARGEST:
        raise ValueError(f"expected heat within {LARGEST:g} of 0, got {float(given.heat.abs().max()):g}")
    labels = tuple(truth.classes.tolist())
    known = [_class(name, names) for name in given.names]
    if known and (lost := [names[label] for label in labels if label not in known]):
        raise ValueError(f"expected a map for every class that sounds, got none for {', '.join(lost)}")
    heat = given.heat[[known.index(label) for label in labels]] if known else given.heat
    if roles != "auto":
        if len(heat) != len(labels):
            raise ValueError(f"expected a map for each of {len(labels)} sources, got {len(heat)}")
        turns = [None] if roles == "sources" else range(len(labels))
        return [_placed(id if turn is None else f"{id}/{turn}", heat, truth, labels, turn) for turn in turns]
    if not known:
        return [Clip(id, heat, (-1,) * len(heat), None, truth, labels)]
    if given.presence is not None:
        return [Clip(id, given.heat, tuple(known), given.presence, truth, labels)]
    if heard:
        raise ValueError("expected the presence of its classes in presence.csv, as other clips have, got none")
    return [_placed(id, heat, truth, labels, None)]


def _class(name: str, names: Sequence[str]) -> int:
    written = class_name(name)
    if written not in names:
        raise ValueError(f"expected maps named by classes of the truths, got {name!r}")
    return names.index(written)


def _placed(key: str, heat: Tensor, truth: Truth, labels: tuple[int, ...], turn: int | None) -> Clip:
    """A clip whose map s is of source s: places stand for classes, so that clips of other classes can share a batch.

    Sources of one class share the first one's place. turn: the source that sounds alone.
    """
    slots = [labels.index(label) if label >= 0 else s for s, label in enumerate(labels)]
    present = truth.present if turn is None else torch.arange(len(labels)) == turn
    if turn is not None:  # merging would make a silent source of one class sound
        slots = list(range(len(labels)))
        heat = heat[turn].expand(len(labels), *heat.shape[1:])
    classes = tuple(range(len(labels)))
    return Clip(key, heat, classes, None, Truth(truth.mask, torch.tensor(slots), present), labels)


def alike(every: Iterator[Clip], most: int) -> Iterator[list[Clip]]:
    """Clips in their order, as many together as are alike, `most` at most."""
    batch: list[Clip] = []
    for clip in every:
        if batch and (clip.kin != batch[0].kin or len(batch) == most):
            yield batch
            batch = []
        batch.append(clip)
    if batch:
        yield batch
