r"""Whether a method knows when it is right: precision and recall over pictures, from sure to unsure.

A method that finds nothing should say so. Each picture has a confidence, an IoU, and boxes or none; a picture is
*called* where its confidence reaches a threshold.

Source: protocol 2.2, after the evaluator of SLAVC (NeurIPS 2022), which AVGN took over.

Conventions
-----------
- Called: right (TP) with boxes and IoU >= `at`, else wrong (FP). Not called: missed (FN) if there are boxes. A picture
  that is called in the wrong place is *not* missed, so recall is not a share of the pictures with boxes.
- Precision is 1 where nothing is called, recall 1 where nothing is right or missed.
- NaN and infinities are refused, by name; no picture at all: ValueError.

Metrics
-------
- `confidence`: of a map. `detection_ap`: area under precision and recall. `f1_at`: F1 at one threshold.
- `detection_ap_as_released_slavc`: what SLAVC's code prints, which is not 1 for perfect answers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from m2vsl.metrics.heat import validated


def confidence(heat: Tensor) -> Tensor:
    """Mean of the hottest quarter of the pixels, rounded up: (..., H, W) -> float64 (...), in the heat's own unit.

    SLAVC takes it of cosines brought from [-1, 1] to [0, 1]; a threshold means nothing in another unit. ValueError for
    NaN, infinities and maps without a pixel.

    >>> confidence(torch.tensor([[0.0, 0.5], [1.0, 0.0], [0.25, 0.0]]))  # 2 of 6 pixels
    tensor(0.7500, dtype=torch.float64)
    """
    flat = validated(heat).flatten(-2)
    return flat.topk(-(-flat.shape[-1] // 4), sorted=False).values.mean(-1, dtype=torch.float64)


def detection_ap(iou: Tensor, confidence: Tensor, boxed: Tensor, at: float) -> float:
    r"""Average precision of pictures, precision made to fall; perfect answers score 1.

    .. math:: \mathrm{AP} = \sum_i \max_{j \ge i} P_j\, (R_i - R_{i-1})

    iou, confidence: (n,). boxed: bool (n,), the picture has boxes. Thresholds are all confidences from high to low,
    recall begins at 0.

    >>> iou, sure, boxed = torch.ones(3), torch.tensor([0.1, 0.2, 0.3]), torch.ones(3, dtype=torch.bool)
    >>> detection_ap(iou, sure, boxed, 0.5), round(detection_ap_as_released_slavc(iou, sure, boxed, 0.5), 4)
    (1.0, 0.3333)
    """
    iou, confidence, boxed = _checked(iou, confidence, boxed)
    precision, recall = _precision_recall(iou, confidence, boxed, at, confidence.sort().values.flip(0))
    return float((_falling(precision) * recall.diff(prepend=recall.new_zeros(1))).sum())


def detection_ap_as_released_slavc(iou: Tensor, confidence: Tensor, boxed: Tensor, at: float) -> float:
    """`detection_ap` as SLAVC's code has it: without the highest confidence, and every max(1, n // 200)-th of the rest.

    The first step of recall is lost with it, and precision is that before a step: perfect answers score 0 for n = 2,
    0.8 for 10, 0.995 for 1000, and fewer than three pictures 0.
    """
    iou, confidence, boxed = _checked(iou, confidence, boxed)
    thresholds = confidence.sort().values[:-1].flip(0)[:: max(1, len(confidence) // 200)]
    precision, recall = _precision_recall(iou, confidence, boxed, at, thresholds)
    return float((_falling(precision)[:-1] * recall.diff()).sum())


def _falling(precision: Tensor) -> Tensor:
    """At each threshold the highest precision from there on."""
    return precision.flip(0).cummax(0).values.flip(0) if len(precision) else precision


def f1_at(iou: Tensor, confidence: Tensor, boxed: Tensor, at: float, threshold: float = 0.5) -> float:
    """F1 of the pictures whose confidence is at least `threshold`; 0 where precision and recall are both 0.

    iou, confidence, boxed as in `detection_ap`. SLAVC's threshold is 0.5 of a map in [0, 1]; AVGN's evaluator of maps
    that an object map guides has 0, which calls every picture.

    >>> sure = torch.tensor([0.9, 0.8, 0.1])
    >>> f1_at(torch.tensor([0.6, 0.2, 0.6]), sure, torch.ones(3, dtype=torch.bool), 0.5)  # one right, wrong, missed
    0.5
    """
    iou, confidence, boxed = _checked(iou, confidence, boxed)
    at_threshold = torch.tensor([threshold], dtype=torch.float64)
    precision, recall = (float(values) for values in _precision_recall(iou, confidence, boxed, at, at_threshold))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _precision_recall(
    iou: Tensor, confidence: Tensor, boxed: Tensor, at: float, thresholds: Tensor
) -> tuple[Tensor, Tensor]:
    """Precision and recall (t,) at each threshold (t,)."""
    right = _called(confidence[boxed & (iou >= at)], thresholds)
    called, with_boxes = _called(confidence, thresholds), _called(confidence[boxed], thresholds)
    found_or_missed = right + int(boxed.sum()) - with_boxes
    precision = torch.where(called > 0, right / called, 1.0)
    return precision, torch.where(found_or_missed > 0, right / found_or_missed, 1.0)


def _called(confidence: Tensor, thresholds: Tensor) -> Tensor:
    """How many of `confidence` (n,) are at least each threshold (t,): float64 (t,)."""
    return (len(confidence) - torch.searchsorted(confidence.sort().values, thresholds.contiguous())).double()


def _checked(iou: Tensor, confidence: Tensor, boxed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three on the CPU, the first two float64; ValueError for what is not finite, not (n,), or empty."""
    if boxed.dtype != torch.bool or boxed.ndim != 1 or not len(boxed):
        raise ValueError(f"expected boxed as bool of shape (n,), n > 0, got {boxed.dtype} {tuple(boxed.shape)}")
    for name, values in {"iou": iou, "confidence": confidence}.items():
        if values.shape != boxed.shape:
            raise ValueError(f"expected {name} of shape {tuple(boxed.shape)}, got {tuple(values.shape)}")
        if odd := int((~values.isfinite()).sum()):
            raise ValueError(f"expected finite {name}, got {odd} of {len(values)} that are not")
    return iou.detach().cpu().double(), confidence.detach().cpu().double(), boxed.cpu()
