r"""What released evaluators print that is not what its name says, each under its own name and never by default.

A comparison with printed numbers may need them. They are written from what the code does, in our own words.

Source: protocol 2.2-2.3; the code of AVGN (CVPR 2023) and of NoPrior (CVPR 2024). Ledger 25, 27.

Conventions
-----------
- Maps and truths as in `m2vsl.metrics.ranking`; float64 comes back; an empty truth has no average precision: NaN.
- `ranking.average_precision_as_released_avgn` belongs here too, and is beside what it is mistaken for.

Functions
---------
- `average_precision_as_released_noprior`: "CAP", of a map that was cut in half first.
- `permutation_invariant_ap_as_released_noprior`: "PIAP", of the sum of all maps; nothing is permuted.
- `consensus_iou_as_released_avgn`: overlapping boxes count as often as they overlap.
- `pairs_as_released_avgn`: whose boxes a duet is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from m2vsl.metrics.canvas import frame_count
from m2vsl.metrics.overlap import Above, binarise


def average_precision_as_released_noprior(heat: Tensor, truth: Tensor) -> Tensor:
    r"""Average precision of the hottest half as labels of 0 and 1, all ranking inside of it gone.

    .. math:: r p + (1 - r) a

    with precision p and recall r of the half and the area a of the truth. heat, truth: (..., H, W). Returns (...).

    >>> truth = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    >>> average_precision_as_released_noprior(torch.tensor([[3.0, 2.0], [1.0, 0.0]]), truth)  # a perfect ranking
    tensor(1., dtype=torch.float64)
    """
    return _of_binary(binarise(heat, Above(0.5)), truth)


def permutation_invariant_ap_as_released_noprior(heat: Tensor, used: Tensor, truth: Tensor) -> Tensor:
    """AP of the sum of all maps, cut in half frame by frame, against the union of the truths.

    heat: (B, M, H, W), of which `used` (B, M) count. truth: (B, S, H, W). Returns (B,); NaN where no map is used.

    >>> heat = torch.tensor([[[[3.0, 2.0], [1.0, 0.0]]]])
    >>> permutation_invariant_ap_as_released_noprior(heat, torch.tensor([[True]]), (heat > 2).float())
    tensor([1.], dtype=torch.float64)
    """
    total = (heat * used[..., None, None]).sum(1)
    frames = total.chunk(frame_count(*total.shape[-2:]), -1)
    half = torch.cat([binarise(frame, Above(0.5)) for frame in frames], -1)
    return _of_binary(half, truth.amax(1)).masked_fill(~used.any(-1), torch.nan)


def _of_binary(predicted: Tensor, truth: Tensor) -> Tensor:
    """Average precision where the score of a pixel is 0 or 1."""
    real = truth > 0
    shared, support, kept = (pixels.count_nonzero((-2, -1)).double() for pixels in (predicted & real, real, predicted))
    recall, area = shared / support, support / (real.shape[-2] * real.shape[-1])
    precision = torch.where(kept > 0, shared / kept, 0)
    return recall * precision + (1 - recall) * area


def consensus_iou_as_released_avgn(predicted: Tensor, counts: Tensor) -> Tensor:
    r"""Overlap with boxes that were added up instead of united: :math:`\sum P g / (\sum g + \sum P [g = 0])`.

    predicted: bool (..., H, W). counts: (..., H, W), in how many boxes a pixel lies: up to 3 in 144 pictures of VGG-SS.
    Returns float64 (...), as `overlap.consensus_iou` where no boxes overlap.

    >>> predicted, counts = torch.tensor([[True, False]]), torch.tensor([[2.0, 1.0]])
    >>> consensus_iou_as_released_avgn(predicted, counts)  # one of two pixels, one of them in two boxes
    tensor(0.6667, dtype=torch.float64)
    """
    if predicted.dtype != torch.bool or predicted.shape != counts.shape:
        raise ValueError(
            f"expected a bool prediction and counts of its shape, got {predicted.dtype} {tuple(predicted.shape)} "
            f"and {tuple(counts.shape)}"
        )
    shared, total = (counts * predicted).sum((-2, -1)).double(), counts.sum((-2, -1)).double()
    return shared / (total + (predicted & (counts == 0)).sum((-2, -1)))


def pairs_as_released_avgn(partners: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The clips whose boxes AVGN compares the two maps of a duet with: the partner's, and those of *its* partner.

    partners: clip -> partner, as VGGSound-Duet lists them. Of 5,158 pairs none is right: in the two that are symmetric
    the truths are swapped, in all others a third clip is involved. KeyError for a partner that is not listed itself.

    >>> pairs_as_released_avgn({"a": "b", "b": "c", "c": "a"})["a"]
    ('b', 'c')
    """
    return {clip: (partner, partners[partner]) for clip, partner in partners.items()}
