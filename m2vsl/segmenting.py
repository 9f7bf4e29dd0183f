"""A method as a segmenter: one mask for each frame, scored by AVSBench's two numbers, in all the ways that tables show.

One pass over a list. Every picture is scored with the classes told and with those that the method names itself
(`m2vsl.metrics.calls.AVSBENCH`, `PREDICTED`), as its map comes and refined with the picture (`m2vsl.refine`), over the
whole list and over parts of it.

Source: section 4.1, "Evaluation Metrics"; protocol 2.5; ledger 24, 38, 39; rivals 17 (the cut), 18 (the class).

Scalars
-------
Names are ``[<part>/][refined/]<segmentation>/<score>``; a score is one of

- ``miou``: at the fixed cut, half of the range of a map, or what else its method ``reads``.
- ``miou@val``: at the threshold ``k / 254`` that was best on the validation list. Absent without one.
- ``f``, ``f@call<n>``: see `m2vsl.metrics.calls`; they need no cut.

``<part>/n`` is the number of frames in a part, ``area`` the mean share of a frame that sounds, ``empty`` the number of
frames in which nothing does.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum

import torch
from torch import Tensor
from torch.nn import functional as F

from m2vsl.evaluate import rows_of
from m2vsl.localizer import Localizer, device_of, evaluating
from m2vsl.metrics import matching
from m2vsl.metrics.calls import AVSBENCH, PREDICTED, Calls, Segmentation
from m2vsl.metrics.columns import Segmented, segments, sounding, sounds_where
from m2vsl.metrics.tally import Row
from m2vsl.refine import refined
from m2vsl.types import Batch, Maps, Truth

REFINED = "refined/"


@dataclass(frozen=True)
class Masks:
    """What the masks of a method score on a list."""

    scalars: Mapping[str, float]  # see the conventions
    ious: Mapping[str, Tensor]  # "[refined/]<segmentation>" -> mean IoU at each threshold, (255,)
    frames: tuple[Row, ...]  # key, area, and columns of each frame of the whole list
    heat: Tensor  # (n, h, w) probabilities of the masks, the classes told; (0,) if they were not asked for

    @property
    def cuts(self) -> dict[str, int]:
        """The threshold k at which the mean IoU is highest, the lowest of several; to be used on another list."""
        return {name: int(curve.argmax()) for name, curve in self.ious.items()}


def ways(localizer: Localizer) -> tuple[Segmentation, Segmentation]:
    """The classes told and the classes heard, for maps as `localizer` makes them."""
    return replace(AVSBENCH, reads=localizer.reads), replace(PREDICTED, reads=localizer.reads)


def segmented(
    localizer: Localizer,
    loader: Iterable[Batch],
    *,
    parts: Mapping[str, Container[str]] | None = None,
    cuts: Mapping[str, int] | None = None,
    side: int = 0,
) -> Masks:
    """The masks of `localizer` on every frame of `loader`, in its order.

    parts: name -> keys of the frames that are scored apart, too. cuts: of a validation list, `Masks.cuts`.
    side: keep the masks, averaged over squares of this many pixels; 0 = do not.
    Runs on the device of its parameters in evaluation mode. ValueError for a loader without frames and for maps that
    `m2vsl.metrics.matching.match` refuses.
    """
    sums = _Sums({"": None, **(parts or {})}, cuts or {})
    frames, heat = list[Row](), list[Tensor]()
    with evaluating(localizer):
        for batch in loader:
            batch = batch.to(device_of(localizer))
            maps, truth = localizer.localize(batch), matching.merge_same_class(batch.truth)
            columns: dict[str, Tensor] = {"area": (sounds_where(truth) > 0).double().mean((1, 2))}
            finer = refined(maps, batch.image, localizer.reads, only=_read(maps, truth))
            for prefix, each in (("", maps), (REFINED, finer)):
                found = matching.match(each, truth)
                for way in ways(localizer):
                    if (masks := segments(found, each, truth, way)) is None:
                        continue
                    sums.add(f"{prefix}{way.name}", masks, batch.keys)
                    columns |= masks.columns(f"{prefix}{way.name}")
                    if side and not prefix and way.choice == "oracle":
                        heat.append(F.avg_pool2d(torch.sigmoid(masks.logits), side).cpu())
            frames += rows_of(batch.keys, columns)
    if not frames:
        raise ValueError("expected at least one frame to segment, got none")
    areas = [float(str(frame["area"])) for frame in frames]
    about = {"area": fsum(areas) / len(areas), "empty": float(sum(area == 0 for area in areas))}
    return Masks(sums.scalars() | about, sums.ious(), tuple(frames), torch.cat(heat) if heat else torch.zeros(0))


def _read(maps: Maps, truth: Truth) -> Tensor | None:
    """The maps, (B, K) bool, that are read where classes are told or heard; None = all."""
    if not matching.is_named(maps):
        return None
    told = (truth.classes[..., None] == maps.classes).any(1)
    return told if maps.presence is None else told | sounding(maps.presence)


class _Sums:
    """All frames, and those of each part, in every way: segmentations by name, ``refined/`` before them or not."""

    def __init__(self, parts: Mapping[str, Container[str] | None], cuts: Mapping[str, int]) -> None:
        self.parts, self.cuts = parts, cuts
        self.calls: dict[tuple[str, str], Calls] = {}
        self.frame_ious: dict[tuple[str, str], list[float]] = {}

    def add(self, name: str, masks: Segmented, keys: Sequence[str]) -> None:
        for part, among in self.parts.items():
            chosen = torch.tensor([among is None or key in among for key in keys], device=masks.real.device)
            f, iou = masks.curves
            self.calls.setdefault((part, name), Calls(AVSBENCH.calls)).add(f[chosen], iou[chosen], masks.real[chosen])
            self.frame_ious.setdefault((part, name), []).extend(masks.iou[chosen].tolist())

    def ious(self) -> dict[str, Tensor]:
        return {name: calls.ious() for (part, name), calls in self.calls.items() if not part}

    def scalars(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for (part, name), calls in self.calls.items():
            if not (ious := self.frame_ious[part, name]):
                continue
            start = f"{part}/" if part else ""
            scores = {"miou": fsum(ious) / len(ious), **calls.scores()}
            if name in self.cuts:
                scores["miou@val"] = float(calls.ious()[self.cuts[name]])
            found |= {f"{start}{name}/{score}": value for score, value in scores.items()}
            found |= {f"{part}/n": float(len(ious))} if part else {}
        return found
