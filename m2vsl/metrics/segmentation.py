r"""How well logits segment the frames of a video: the two numbers of AVSBench.

Source: protocol 2.5, after the code of AVSBench (ECCV 2022). Ledger 37-39.

Conventions
-----------
- logits, truth: (N, H, W), N frames in the order of their videos; truth is pixels above 0.
- Foreground is a probability *above* 0.5 for the IoU (a logit of 0 is background) and *at least* the threshold for F.
- A frame with an empty truth stays in the mean IoU as the share of pixels left as background (empty on empty = 1) and
  is left out of F. The authors want it so (issue 22 of their repository).
- "F1" in papers is F with beta^2 = 0.3, at the best of 255 thresholds. The published code maximises per test batch and
  averages the maxima, so its number depends on the batch size (0.201 / 0.292 / 0.271 for 1 / 2 / 4 videos per call on
  the same data). Here one curve is maximised once, unless `frames_per_call` asks for the published way.
- No frames: NaN. No frame with a truth: F is 0, as published.

Metrics
-------
- `mean_iou`, `frame_iou`: foreground Jaccard; no mean over classes despite its usual name mIoU.
- `f_score`, `frame_f_curves`: F at the best threshold; F of each frame at every threshold.
- `frame_curves`: the same F, and the IoU of each frame at every threshold.
- `to_logits`: what turns a heat map into logits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from m2vsl.metrics import fast
from m2vsl.metrics.heat import normalise, validated, validated_truth

BETA_SQUARED = 0.3  # weight of recall against precision, dimensionless
THRESHOLDS = 255


def to_logits(heat: Tensor) -> Tensor:
    """Heat maps (..., H, W) as logits whose sign is the 0.5-of-min-max rule.

    Ledger 39: logit of the normalised map, clipped to [1e-4, 1 - 1e-4].

    >>> to_logits(torch.tensor([[0.0, 5.0], [7.5, 10.0]])) > 0
    tensor([[False, False],
            [ True,  True]])
    """
    return torch.logit(normalise(heat), eps=1e-4)


def mean_iou(logits: Tensor, truth: Tensor) -> float:
    """Mean of `frame_iou` over all frames; the published mean over batches is the same if batches are equally large.

    >>> logits = torch.tensor([[[2.0, 1.0], [-1.0, -2.0]]]).expand(2, 2, 2)
    >>> truth = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    >>> round(mean_iou(logits, truth), 4)  # 1 of 2 pixels; 2 of 4 left empty
    0.5
    """
    return float(frame_iou(logits, truth).mean())


def frame_iou(logits: Tensor, truth: Tensor) -> Tensor:
    r"""Foreground IoU of each frame.

    .. math:: \frac{\sum P y}{\sum \max(P, y) + 10^{-7}}, \quad P = [\sigma(l) > 0.5]

    logits, truth: (N, H, W). Returns float64 (N,); for an empty truth the share of background pixels in P.

    >>> frame_iou(torch.tensor([[[2.0, 1.0], [-1.0, -2.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    tensor([0.5000], dtype=torch.float64)
    """
    logits, real = _checked(logits, truth)
    predicted = torch.sigmoid(logits) > 0.5
    true, chosen, shared = (found.count_nonzero((-2, -1)).double() for found in (real, predicted, predicted & real))
    pixels = real.shape[-2] * real.shape[-1]
    return torch.where(true > 0, shared / (true + chosen - shared + 1e-7), (pixels - chosen) / pixels)


def f_score(logits: Tensor, truth: Tensor, frames_per_call: int | None = None) -> float:
    """F with beta^2 = 0.3 at its best threshold.

    logits, truth: (N, H, W).
    frames_per_call: None averages the curves of all frames with a truth and takes one maximum; n does so for n
    consecutive frames at a time and averages the maxima, as the published code does (5 per video and call).

    >>> logits, truth = torch.tensor([[[2.0, 1.0], [-1.0, -2.0]]]), torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    >>> round(f_score(logits, truth), 4)  # precision 1/2, recall 1: 1.3 * 0.5 / (0.3 * 0.5 + 1)
    0.5652
    """
    if frames_per_call is not None and frames_per_call < 1:
        raise ValueError(f"expected calls of at least one frame, got {frames_per_call}")
    curves, real = frame_f_curves(logits, truth), (truth > 0).flatten(1).any(1)
    if not len(curves):
        return float("nan")
    calls = range(0, len(curves), frames_per_call or len(curves))
    step = frames_per_call or len(curves)
    best = [_best_of_mean(curves[i : i + step][real[i : i + step]]) for i in calls]
    return sum(best) / len(best)


def _best_of_mean(curves: Tensor) -> float:
    """Maximum of the mean curve; 0 without a curve, as published."""
    return float(curves.mean(0).max()) if len(curves) else 0.0


def frame_f_curves(logits: Tensor, truth: Tensor) -> Tensor:
    """F of each frame at every threshold, (N, H, W) -> (N, 255): the first of `frame_curves`.

    >>> logits, truth = torch.tensor([[[2.0, 1.0], [-1.0, -2.0]]]), torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    >>> frame_f_curves(logits, truth)[0, [0, 127, 254]]  # thresholds 0, 0.5 and 1
    tensor([0.3023, 0.5652, 0.0000], dtype=torch.float64)
    """
    return frame_curves(logits, truth)[0]


def frame_curves(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    r"""F and IoU of each frame at the thresholds k / 254, k = 0 ... 254: foreground is at least the threshold.

    .. math:: F = \frac{(1 + \beta^2) P R}{\beta^2 P + R}, \quad \beta^2 = 0.3

    logits, truth: (N, H, W). Returns float64 (N, 255) twice: F, 0 where precision and recall are 0, as for an empty
    truth; and what `frame_iou` is at its own cut, for an empty truth the share of background pixels.

    >>> logits, truth = torch.tensor([[[2.0, 1.0], [-1.0, -2.0]]]), torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    >>> frame_curves(logits, truth)[1][0, [0, 127, 254]]  # of everything, of half of the pixels, of none
    tensor([0.2500, 0.5000, 0.0000], dtype=torch.float64)
    """
    logits, real = _checked(logits, truth)
    thresholds = torch.linspace(0, 1, THRESHOLDS, device=logits.device)
    predicted, hit = _reaching(thresholds, torch.sigmoid(logits.float()).flatten(1), real.flatten(1))
    true, pixels = real.flatten(1).sum(1, keepdim=True).double(), real.shape[-2] * real.shape[-1]
    precision, recall = hit / (predicted + 1e-20), hit / (true + 1e-20)
    f = ((1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)).nan_to_num(0)
    return f, torch.where(true > 0, hit / (true + predicted - hit + 1e-7), (pixels - predicted) / pixels)


def _reaching(thresholds: Tensor, probability: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """How many pixels of each frame reach each threshold, and how many of them are true: (N, P) -> (N, 255)."""
    if probability.numel() and fast.on_cpu(probability, real):
        table = fast.reaching(probability.detach().numpy(), real.numpy(), thresholds.numpy())
        predicted, hit = torch.from_numpy(table).double().unbind(1)
        return predicted, hit
    level = torch.searchsorted(thresholds, probability, right=True) - 1  # the last one reached
    histogram = torch.zeros(2, len(level), THRESHOLDS, dtype=torch.float64, device=level.device)
    histogram[0].scatter_add_(1, level, torch.ones_like(real).double())
    histogram[1].scatter_add_(1, level, real.double())
    predicted, hit = histogram.flip(-1).cumsum(-1).flip(-1)
    return predicted, hit


def _checked(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    if logits.ndim != 3:
        raise ValueError(f"expected logits of shape (N, H, W), got {tuple(logits.shape)}")
    logits = validated(logits)
    return logits, validated_truth(truth, logits.shape) > 0
