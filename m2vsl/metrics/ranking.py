r"""How high a heat map ranks the pixels of the truth above the others, without any threshold.

Average precision reads the map as a ranking of pixels. With several sources there are two questions: does the map *of
each class* rank its own source (`class_aware_ap`, CAP), and do the maps separate the sources *in whichever order*
(`permutation_invariant_ap`, PIAP)?

Source: protocol 2.2-2.3. No published code computes CAP or a permutation-invariant AP, so both are written from the
sentences of Mix-and-Localize (CVPR 2022) and AVGN (CVPR 2023). Average precision is scikit-learn's. Ledger 25, 27, 57.

Conventions
-----------
- Maps and truths are (..., H, W) for one source, (..., K, H, W) and (..., S, H, W) for several; float64 comes back.
- The truth is pixels above 0; the heat is continuous, never binarised or normalised first.
- Ties share one threshold, as in scikit-learn; a constant map (see `m2vsl.metrics.heat`) scores the area of the truth.
- An empty truth has no average precision: NaN. Means over sources leave it out; without any source they are NaN.
- PIAP with a single map: it answers for every source. With fewer maps than sources, but more than one: the sources
  left over score 0. PIAP >= CAP always.

Metrics
-------
- `average_precision`, `average_precision_matrix`: one map against one truth; every map against every truth.
- `class_aware_ap`, `permutation_invariant_ap`: per picture, mean over its sources.
- `average_precision_as_released_avgn`: what AVGN's code prints under the name of PIAP.
"""

from __future__ import annotations

import torch
from torch import Tensor

from m2vsl.metrics import fast
from m2vsl.metrics.heat import settled, validated, validated_truth
from m2vsl.metrics.overlap import Area, binarise


def average_precision(heat: Tensor, truth: Tensor) -> Tensor:
    r"""Average precision of the pixels, thresholds from hot to cold.

    .. math:: \mathrm{AP} = \sum_n (R_n - R_{n-1})\, P_n

    heat, truth: (..., H, W). Returns (...): NaN where the truth is empty.

    >>> heat = torch.tensor([[9.0, 8.0], [7.0, 6.0]])
    >>> average_precision(heat, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))  # (1/1 + 2/4) / 2
    tensor(0.7500, dtype=torch.float64)
    """
    validated_truth(truth, heat.shape)
    return average_precision_matrix(heat.unsqueeze(-3), truth.unsqueeze(-3))[..., 0, 0]


def average_precision_matrix(heat: Tensor, truth: Tensor) -> Tensor:
    """Average precision of every map against every truth of the same picture.

    heat: (..., K, H, W). truth: (..., S, H, W). Returns (..., K, S), NaN where the truth is empty. Each map is sorted
    once.

    >>> truth = torch.eye(4).view(4, 2, 2)[:2]  # two sources of a pixel each
    >>> average_precision_matrix(truth.flip(0), truth)  # swapped; a true pixel that ties with the last: 1/4
    tensor([[0.2500, 1.0000],
            [1.0000, 0.2500]], dtype=torch.float64)
    """
    heat = validated(heat)
    _check_pictures(heat, truth)
    truth = validated_truth(truth, truth.shape)
    heat = settled(heat)
    if heat.dtype == torch.float32 and heat.numel() and fast.on_cpu(heat, truth) and truth.shape[-3] in fast.TRUTHS:
        (maps, sources), size = (heat.shape[-3], truth.shape[-3]), heat.shape[-2] * heat.shape[-1]
        table = fast.precisions(fast.rows(heat).reshape(-1, maps, size), fast.rows(truth).reshape(-1, sources, size))
        return torch.from_numpy(table).view(*heat.shape[:-2], sources)
    values, order = heat.flatten(-2).sort(-1, descending=True)  # (..., K, P)
    threshold_end = _last_of_ties(values)
    positives = (truth > 0).flatten(-2)  # (..., S, P)
    columns = [_ranked_precision(positives[..., s : s + 1, :], order, threshold_end) for s in range(truth.shape[-3])]
    return torch.stack(columns, -1) if columns else heat.new_zeros((*heat.shape[:-2], 0), dtype=torch.float64)


def _last_of_ties(values: Tensor) -> Tensor:
    """For each position of a descending sort (..., P) the last position of the same value."""
    pixels = values.shape[-1]
    position = torch.arange(pixels, device=values.device)
    ends = torch.where(values[..., 1:] != values[..., :-1], position[:-1], pixels - 1)
    ends = torch.cat([ends, ends.new_full((*ends.shape[:-1], 1), pixels - 1)], -1)
    return ends.flip(-1).cummin(-1).values.flip(-1)


def _ranked_precision(positive: Tensor, order: Tensor, end: Tensor) -> Tensor:
    """Mean over the positive pixels of the precision at their threshold: (..., 1 or K, P) -> (..., K)."""
    hits = positive.expand(order.shape).gather(-1, order)
    precision = hits.cumsum(-1).gather(-1, end) / (end + 1).double()
    return torch.where(hits, precision, 0).sum(-1) / hits.sum(-1)


def class_aware_ap(heat: Tensor, truth: Tensor) -> Tensor:
    r"""CAP of each picture: map s is the one of the class of source s.

    .. math:: \mathrm{CAP} = \frac1S \sum_s \mathrm{AP}(m_{c_s}, y_s)

    heat, truth: (..., S, H, W). Returns (...): the mean over sources with a truth, NaN if there is none.

    >>> truth = torch.eye(4).view(4, 2, 2)[:2]
    >>> class_aware_ap(truth, truth), class_aware_ap(truth.flip(0), truth)
    (tensor(1., dtype=torch.float64), tensor(0.2500, dtype=torch.float64))
    """
    return average_precision(heat, truth).nanmean(-1)


def permutation_invariant_ap(heat: Tensor, truth: Tensor) -> Tensor:
    r"""PIAP of each picture: whichever map answers for whichever source, as long as it is one each.

    .. math:: \mathrm{PIAP} = \max_\pi \frac1S \sum_s \mathrm{AP}(m_{\pi(s)}, y_s)

    heat: (B, K, H, W); truth: (B, S, H, W). Returns (B,): the mean over sources with a truth, NaN if there is none.

    >>> truth = torch.eye(4).view(1, 4, 2, 2)[:, :2]
    >>> permutation_invariant_ap(truth.flip(1), truth)
    tensor([1.], dtype=torch.float64)
    """
    if heat.ndim != 4 or not heat.shape[1]:
        raise ValueError(f"expected heat of shape (B, K, H, W) with at least one map, got {tuple(heat.shape)}")
    return assigned_mean(average_precision_matrix(heat, truth))


def assigned_mean(scores: Tensor) -> Tensor:
    """Mean score of each picture's sources under the best assignment: (B, K, S) -> (B,). NaN columns are left out.

    >>> assigned_mean(torch.tensor([[[0.2, 0.9], [0.5, 0.8]]]))  # (0.9 + 0.5) / 2
    tensor([0.7000])
    """
    choice = best_assignment(scores)
    chosen = scores.gather(1, choice.clamp(min=0)[:, None])[:, 0]  # (B, S)
    return torch.where((choice < 0) & ~chosen.isnan(), 0, chosen).nanmean(-1)


def best_assignment(scores: Tensor) -> Tensor:
    """Which map answers for which source, so that the sum of scores is largest (the Hungarian method).

    scores: (B, K, S), NaN counting 0. Returns (B, S) in 0 ... K - 1, each map at most once; -1 where none is left. A
    single map (K = 1) answers for every source.

    >>> best_assignment(torch.tensor([[[0.2, 0.9], [0.5, 0.8]]]))
    tensor([[1, 0]])
    """
    from scipy.optimize import linear_sum_assignment

    batch, maps, sources = scores.shape
    choice = torch.zeros(batch, sources, dtype=torch.int64) if maps == 1 else torch.full((batch, sources), -1)
    if maps > 1:
        for picture, table in enumerate(scores.detach().nan_to_num(0).cpu().numpy()):
            chosen, answered = linear_sum_assignment(table, maximize=True)
            choice[picture, torch.from_numpy(answered)] = torch.from_numpy(chosen)
    return choice.to(scores.device)


def average_precision_as_released_avgn(heat: Tensor, truth: Tensor) -> Tensor:
    r"""What AVGN's ``piap`` prints: AP with its arguments swapped, after binarising the map by the 50 % rule.

    The pixels of the prediction P are the labels and the truth is the score, which comes to
    :math:`p r + (1 - p) |P| / HW` with precision p and recall r of P: 1 for a constant map, never below 0.41 without
    ties, blind to the ranking, and never permuted. Not comparable with `average_precision`.

    heat, truth: (..., H, W). Returns (...); for an empty truth the predicted share of the picture.

    >>> heat, truth = torch.tensor([[9.0, 8.0], [7.0, 6.0]]), torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    >>> average_precision_as_released_avgn(heat, truth), average_precision(heat, truth)
    (tensor(0.7500, dtype=torch.float64), tensor(0.5000, dtype=torch.float64))
    """
    heat = validated(heat)
    truth = validated_truth(truth, heat.shape)
    return average_precision(truth, binarise(heat, Area(0.5)).float())


def _check_pictures(heat: Tensor, truth: Tensor) -> None:
    same = heat.ndim == truth.ndim >= 3 and heat.shape[:-3] == truth.shape[:-3] and heat.shape[-2:] == truth.shape[-2:]
    if not same:
        raise ValueError(
            f"expected heat (..., K, H, W) and truth (..., S, H, W) of the same pictures, "
            f"got {tuple(heat.shape)} and {tuple(truth.shape)}"
        )
