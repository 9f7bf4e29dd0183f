r"""How well a predicted area covers the true one.

Which pixels does a heat map call sounding (`binarise`), how much do they share with the truth (`consensus_iou`), and in
how many pictures is that enough (`success_rate`, `success_auc`)? `bound` says what the rule allows at best.

Source: protocol 2.1-2.2, after the evaluators of EZ-VSL (ECCV 2022) and LVS (CVPR 2021). Ledger 26.

Conventions
-----------
- Maps and truths are (..., H, W); one value per map comes back, in float64. Thresholds keep what equals them: >=.
- Ties: `Area` keeps every pixel that ties with its threshold, so a map saturated over more than its fraction predicts
  more than its fraction, and a constant map predicts everything. `Matched` breaks ties in reading order.
- A constant map (see `m2vsl.metrics.heat`): `Area` everything; `Matched` the first pixels in reading order; `MinMax`
  compares the value itself with the level, everything or nothing, as in the published norm.
- An empty truth has IoU 0 with any prediction, and NaN with an empty one (0/0). NaN fails every success test, that of
  level 0 too; whoever averages IoU decides about NaN (`m2vsl.evaluate` counts a failure).
- No IoU at all: success rate and area under the curve are NaN.

Metrics
-------
- `consensus_iou`: intersection over union, weighted where annotators disagree.
- `success_rate`: share of pictures whose IoU reaches a level ("IoU@0.5", "CIoU@0.3" in tables).
- `success_auc`: area under the success curve over the levels 0, 0.05, ..., 1.
- `bound`: the IoU that no map can exceed under a rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from m2vsl.metrics import fast
from m2vsl.metrics.heat import is_constant, nearly_equal, normalise, settled, validated, validated_truth

CURVE = tuple(0.05 * k for k in range(21))  # levels of the success curve, as published: floats, see `success_auc`


@dataclass(frozen=True)
class Area:
    """The hottest `fraction` of the picture, whatever its heat: "the 50 % rule"."""

    fraction: float = 0.5  # of H * W pixels, in (0, 1]

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"expected a fraction of the picture in (0, 1], got {self.fraction}")

    def pixels(self, total: int) -> int:
        """How many of `total` pixels a map without ties predicts: total - int(total / 2) for one half."""
        return max(1, math.ceil(self.fraction * total - 1e-9))


@dataclass(frozen=True)
class Above(Area):
    """`Area` without the pixel that is its threshold: strictly hotter (LVS, NoPrior). The maximum always stays.

    So a map saturated on more than its fraction predicts just what is saturated, where `Area` would predict all that
    ties. A constant map predicts everything if it is 0 or more, nothing below.
    """

    def pixels(self, total: int) -> int:
        """One fewer than `Area`: 25,087 of 50,176 for one half."""
        return max(1, super().pixels(total) - 1)


@dataclass(frozen=True)
class OfMax:
    """Hotter than a share of the map's own maximum (DSOL); a map that is nowhere above 0 predicts nothing."""

    share: float  # in [0, 1)

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"expected a share of the maximum in [0, 1), got {self.share}")


@dataclass(frozen=True)
class MinMax:
    """Heat of at least `level` once the map is spread over [0, 1]."""

    level: float = 0.5  # in [0, 1]

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 1:
            raise ValueError(f"expected a level of the range in [0, 1], got {self.level}")


@dataclass(frozen=True)
class Absolute:
    """Heat of at least `threshold` as it is: the only rule that can say that nothing sounds."""

    threshold: float  # in the method's own unit

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise ValueError(f"expected a finite threshold, got {self.threshold}")


@dataclass(frozen=True)
class Matched:
    """As many of the hottest pixels as the truth has: the size is given, the place is measured."""


Rule = Area | Above | OfMax | MinMax | Absolute | Matched


def binarise(heat: Tensor, rule: Rule, truth: Tensor | None = None) -> Tensor:
    """The pixels that count as sounding: (..., H, W) -> bool (..., H, W).

    truth: (..., H, W), read by `Matched` alone, which takes its area from it (pixels above 0).

    `Area` compares with the element at 0-based index int(H * W / 2) (for one half) of the ascending sort.

    >>> heat = torch.tensor([[9.0, 7.0], [5.0, 0.0]])
    >>> rules = Area(0.5), Above(0.5), OfMax(0.5), MinMax(0.75), Absolute(8.0)
    >>> [binarise(heat, rule).int().tolist() for rule in rules]
    [[[1, 1], [0, 0]], [[1, 0], [0, 0]], [[1, 1], [1, 0]], [[1, 1], [0, 0]], [[1, 0], [0, 0]]]
    >>> binarise(heat, Matched(), torch.tensor([[0.0, 1.0], [1.0, 1.0]])).int().tolist()
    [[1, 1], [1, 0]]
    """
    heat = validated(heat)
    match rule:
        case Above():
            return _strictly_hottest(settled(heat), rule)
        case OfMax(share):
            return heat > share * heat.amax((-2, -1), keepdim=True)
        case Area():
            heat = settled(heat)
            pixels = rule.pixels(heat.shape[-2] * heat.shape[-1])
            return heat >= _nth_largest(heat.flatten(-2), pixels)[..., None, None]
        case MinMax(level):
            return normalise(heat) >= level
        case Absolute(threshold):
            return heat >= threshold
        case Matched():
            if truth is None:
                raise ValueError("the rule Matched() takes its area from the truth: expected a truth, got None")
            return _hottest(settled(heat), (validated_truth(truth, heat.shape) > 0).count_nonzero((-2, -1)))
    raise TypeError(f"expected a rule (Area, Above, OfMax, MinMax, Absolute or Matched), got {rule!r}")


def _strictly_hottest(heat: Tensor, rule: Above) -> Tensor:
    """Pixels above the element that `Area` compares with, and those at the maximum; see `Above` for constant maps."""
    flat = heat.flatten(-2)
    threshold, top = _nth_largest(flat, Area.pixels(rule, flat.shape[-1])), flat.amax(-1)
    threshold = torch.where(threshold == top, threshold.nextafter(top.new_tensor(-math.inf)), threshold)
    threshold[is_constant(heat) & (top < 0)] = math.inf
    return heat > threshold[..., None, None]


def _fast(heat: Tensor) -> bool:
    return heat.numel() > 0 and heat.is_floating_point() and fast.on_cpu(heat)


def _nth_largest(flat: Tensor, n: int) -> Tensor:
    """The n-th largest value (1 = the largest): (..., P) -> (...)."""
    if not _fast(flat):
        return flat.kthvalue(flat.shape[-1] - n + 1).values
    heat = fast.rows(flat[..., None, :])
    return torch.from_numpy(fast.nth_largest(heat, np.full(len(heat), n))).view(flat.shape[:-1])


def _hottest(heat: Tensor, pixels: Tensor) -> Tensor:
    """Exactly `pixels` (...) hottest pixels of each map (..., H, W); ties in reading order."""
    flat, counts = heat.reshape(-1, heat.shape[-2] * heat.shape[-1]), pixels.reshape(-1)
    threshold = flat.new_full((len(flat), 1), math.inf)  # stays where no pixel is asked for
    if _fast(flat):
        threshold[:, 0] = torch.from_numpy(fast.nth_largest(fast.rows(heat), counts.numpy()))
    else:
        for row, count in enumerate(counts.tolist()):
            if count:
                threshold[row] = _nth_largest(flat[row], count)
    kept = flat >= threshold
    over = kept.sum(-1) > counts  # more pixels tie than are asked for
    if bool(over.any()):
        above, tied = flat[over] > threshold[over], flat[over] == threshold[over]
        spare = counts[over, None] - above.sum(-1, keepdim=True)
        kept[over] = above | (tied & (tied.cumsum(-1) <= spare))
    return kept.view(heat.shape)


def consensus_iou(predicted: Tensor, truth: Tensor) -> Tensor:
    r"""Consensus intersection over union.

    .. math:: \mathrm{cIoU}(P, g) = \frac{\sum P g}{\sum g + \sum P\,[g = 0]}

    predicted: bool (..., H, W). truth: (..., H, W) in [0, 1]; for a truth of 0 and 1 this is the plain IoU.
    Returns float64 (...): 0 for an empty truth, NaN if both are empty.

    >>> predicted = torch.tensor([[True, True], [False, False]])
    >>> consensus_iou(predicted, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))  # 1 of 3 pixels
    tensor(0.3333, dtype=torch.float64)
    >>> consensus_iou(predicted, torch.tensor([[1.0, 0.0], [0.5, 0.0]]))  # half of the annotators: 1 / (1.5 + 1)
    tensor(0.4000, dtype=torch.float64)
    """
    if predicted.dtype != torch.bool:
        raise ValueError(f"expected a binary prediction (see binarise), got {predicted.dtype}")
    if predicted.numel() and predicted.shape == truth.shape and fast.on_cpu(predicted, truth):
        counts = fast.counts(fast.rows(predicted), fast.rows(truth))
        if counts is not None:
            return _iou(counts).view(truth.shape[:-2])
    truth = validated_truth(truth, predicted.shape)
    shared, total = (truth * predicted).sum((-2, -1)).double(), truth.sum((-2, -1)).double()  # exact for halves
    outside = (predicted & (truth == 0)).count_nonzero((-2, -1))
    return shared / (total + outside)


def heat_iou(heat: Tensor, truth: Tensor, rule: Rule) -> Tensor:
    """``consensus_iou(binarise(heat, rule, truth), truth)``, several times as fast for `Area` on the CPU.

    heat, truth: (..., H, W). Returns float64 (...).

    >>> heat_iou(torch.tensor([[9.0, 7.0], [5.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]), Area(0.5))
    tensor(0.3333, dtype=torch.float64)
    """
    if type(rule) is Area and heat.shape == truth.shape and heat.ndim > 1 and _fast(heat) and fast.on_cpu(truth):
        pixels = heat.shape[-2] * heat.shape[-1]
        found = fast.hottest_counts(fast.rows(heat), fast.rows(truth), rule.pixels(pixels))
        if found is not None:
            counts, low, high = found
            constant = nearly_equal(low, high)  # predicts everything
            counts.predicted[constant], counts.shared[constant] = pixels, counts.true[constant]
            return _iou(counts).view(truth.shape[:-2])
    return consensus_iou(binarise(heat, rule, truth), truth)


def _iou(counts: fast.Counts) -> Tensor:
    return counts.shared / (counts.true + counts.predicted - counts.shared)


def success_rate(iou: Tensor, at: float, *, strict: bool = False) -> float:
    """Share of `iou` (n,) that is at least `at`, or with `strict` above it; NaN fails. Without any IoU: NaN.

    >>> iou = torch.tensor([0.2, 0.5, 0.9, torch.nan])
    >>> success_rate(iou, 0.5), success_rate(iou, 0.5, strict=True)
    (0.5, 0.25)
    """
    if math.isnan(at):
        raise ValueError("expected a level of IoU, got NaN")
    return float((iou.double() > at if strict else iou.double() >= at).double().mean())


def success_auc(iou: Tensor) -> float:
    """Area under success rate against level, by trapezoids over 0.05 k, k = 0 ... 20.

    The levels are floats as published: 0.05 * 6 is a little more than 0.3, so an IoU of exactly 0.3 passes
    ``success_rate(iou, 0.3)`` and fails the seventh node here.

    >>> success_auc(torch.tensor([1.0])), round(success_auc(torch.tensor([0.5, 0.5])), 4)
    (1.0, 0.525)
    """
    levels = torch.tensor(CURVE, dtype=torch.float64)
    reached = (iou.detach().cpu().double().reshape(-1, 1) >= levels).double().mean(0)  # (21,)
    return float(torch.trapezoid(reached, levels))


def bound(truth: Tensor, rule: Rule) -> Tensor:
    r"""The IoU that no map without ties can exceed: float64 (...), 0 for an empty truth.

    .. math:: \max_{|P| = k} \mathrm{cIoU}(P, g) = \frac{\sum_{k\ \text{largest}} g}{\sum g + \max(0, k - |g > 0|)}

    `Area` fixes k; the other rules let the right map predict just the truth: 1. Protocol 2.6 has what this means for
    VGG-SS: AUC 0.4947 under `Area(0.5)`. A map with ties can escape `Area`, see the conventions above.

    >>> truth = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    >>> bound(truth, Area(0.5)), bound(truth, MinMax(0.5))  # two pixels have to be predicted, one is true
    (tensor(0.5000, dtype=torch.float64), tensor(1., dtype=torch.float64))
    """
    truth = validated_truth(truth, truth.shape)
    total, support = truth.sum((-2, -1), dtype=torch.float64), (truth > 0).count_nonzero((-2, -1))
    if not isinstance(rule, Area):
        return (support > 0).double()
    pixels = rule.pixels(truth.shape[-2] * truth.shape[-1])
    larger, shared = support > pixels, total.clone()
    if bool(larger.any()):
        shared[larger] = _sum_of_largest(truth[larger], pixels)
    return shared / (total + (pixels - support).clamp(min=0))


def _sum_of_largest(values: Tensor, count: int) -> Tensor:
    """Sum of the `count` largest values of each map: (..., H, W) -> (...)."""
    flat = values.flatten(-2)
    threshold = _nth_largest(flat, count)
    above = flat > threshold[..., None]
    return torch.where(above, flat, 0).sum(-1, dtype=torch.float64) + (count - above.sum(-1)) * threshold.double()
