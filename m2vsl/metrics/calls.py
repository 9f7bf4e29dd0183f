"""AVSBench's two numbers for maps that come a batch at a time: what is kept is sums, never curves.

The published F is maximised per call of the evaluator and then averaged, so it depends on how many frames a call
holds (5, one video, by the script's default; 20 in the shell script). Here frames come in the order of the list, in
batches of any size, and every call size is scored beside the global curve.

Source: protocol 2.5; ledger 24 (class choice), 38 (calls), 39 (heat to logits).

Conventions
-----------
- What maps hold (``reads``) decides where their foreground begins: "heat", at half of the range of each map;
  "positive", at half of its maximum, as CAM has it; "area50", at the median, half of the pixels; "logits", at 0;
  "probabilities", at 0.5.
- The last call holds what is left over, as with a loader that drops nothing.
- A call without any truth counts as 0, as published; without any frame there is no score.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor

from m2vsl.metrics.heat import validated
from m2vsl.metrics.matching import Choice
from m2vsl.metrics.protocols import Protocol, digest_of
from m2vsl.metrics.segmentation import THRESHOLDS, to_logits


@dataclass(frozen=True)
class Segmentation:
    """How maps are read as masks, and per how many frames the published F is maximised: a named, frozen bundle."""

    name: str = "avsbench"
    reads: Literal["heat", "positive", "area50", "logits", "probabilities"] = "heat"  # see the conventions; ledger 39
    calls: tuple[int, ...] = (5, 20)  # frames per call of the published F; ledger 38
    choice: Choice = "oracle"  # whose class maps are united: of what sounds, or of what is heard; ledger 24

    def __post_init__(self) -> None:
        if not all(size > 0 for size in self.calls):
            raise ValueError(f"expected calls of at least one frame, got {self.calls}")

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change when any field does; `choice` counts where it is not the oracle's."""
        kept = asdict(self)
        return digest_of({name: value for name, value in kept.items() if (name, value) != ("choice", "oracle")})

    def logits(self, heat: Tensor) -> Tensor:
        """Maps (N, H, W) as logits; ValueError for probabilities outside of [0, 1]."""
        if self.reads == "heat":
            return to_logits(heat)
        heat = validated(heat)
        if self.reads == "logits":
            return heat
        if self.reads == "positive":
            return torch.logit(heat.relu() / heat.amax((-2, -1), keepdim=True).clamp(min=1e-12), eps=1e-4)
        if self.reads == "area50":
            return torch.logit(_share_below(heat), eps=1e-7)
        if heat.numel() and not (float(heat.min()) >= 0 and float(heat.max()) <= 1):
            raise ValueError(f"expected probabilities in [0, 1], got [{float(heat.min()):g}, {float(heat.max()):g}]")
        return torch.logit(heat, eps=1e-7)


def _share_below(heat: Tensor) -> Tensor:
    """Which share of the pixels of its map is no warmer than each pixel: (N, H, W) -> (N, H, W), in (0, 1]."""
    flat = heat.flatten(1)
    return (torch.searchsorted(flat.sort(1).values, flat, right=True) / flat.shape[1]).view_as(heat)


AVSBENCH = Segmentation()
PREDICTED = Segmentation("avsbench-predicted", choice="predicted")


def described(protocols: Iterable[Protocol], *segmentations: Segmentation) -> dict[str, dict[str, object]]:
    """What a record says of the protocols behind its numbers: their fields and their hashes, by name."""
    told = {p.name: asdict(p) | {"rule": repr(p.rule), "digest": p.digest} for p in protocols}
    told |= {one.name: asdict(one) | {"digest": one.digest} for one in segmentations}
    return told


class Calls:
    """The F score of frames that come in order, per call and over all, and their mean IoU at every cut.

    >>> calls = Calls((1,))  # two frames, best at different thresholds; with a call each, each has its own
    >>> curves = torch.eye(255)[:2].double()
    >>> calls.add(curves, curves, torch.tensor([True, True]))
    >>> calls.scores()
    {'f': 0.5, 'f@call1': 1.0}
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.iou = torch.zeros(THRESHOLDS, dtype=torch.float64)  # sum over all frames
        self.open = {size: _Call() for size in sizes}
        self.best: dict[int, list[float]] = {size: [0.0, 0] for size in sizes}  # sum of maxima, number of calls
        self.all = _Call()

    def add(self, curves: Tensor, ious: Tensor, real: Tensor) -> None:
        """Take in the next frames: curves, ious (N, 255) of `frame_curves`; real (N,) bool: it has a truth."""
        self.all.add(curves, real)
        self.iou += ious.sum(0).cpu()
        for size in self.best:
            room = size - self.open[size].frames
            cuts = tuple(range(room, len(curves), size))
            for part in zip(curves.tensor_split(cuts), real.tensor_split(cuts), strict=True):
                self.open[size].add(*part)
                if self.open[size].frames == size:
                    self._close(size)

    def scores(self) -> dict[str, float]:
        """``f`` of the global curve and ``f@call<n>``; empty without a frame. More frames may follow afterwards."""
        if not self.all.frames:
            return {}
        found = {"f": self.all.maximum()}
        for size, (total, count) in self.best.items():
            left = self.open[size]
            last = (left.maximum(), 1) if left.frames else (0.0, 0)
            found[f"f@call{size}"] = (total + last[0]) / (count + last[1])
        return found

    def ious(self) -> Tensor:
        """Mean IoU of all frames so far at each threshold, (255,); NaN without a frame."""
        return self.iou / self.all.frames if self.all.frames else torch.full_like(self.iou, torch.nan)

    def _close(self, size: int) -> None:
        self.best[size][0] += self.open[size].maximum()
        self.best[size][1] += 1
        self.open[size] = _Call()


class _Call:
    """Sums over some frames."""

    def __init__(self) -> None:
        self.frames, self.real = 0, 0
        self.curve = torch.zeros(THRESHOLDS, dtype=torch.float64)

    def add(self, curves: Tensor, real: Tensor) -> None:
        self.frames += len(curves)
        self.real += int(real.sum())
        self.curve += curves[real].sum(0).cpu()

    def maximum(self) -> float:
        return float(self.curve.max()) / self.real if self.real else 0.0
