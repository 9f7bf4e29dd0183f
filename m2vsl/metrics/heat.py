"""What every metric asks of a heat map before it measures anything.

Source: protocol 2.1 (norm) and 2.7 (constant maps).

Conventions
-----------
- A heat map is (..., H, W), any number of leading axes; row 0 is the top, column 0 the left. Larger is hotter, the unit
  is the method's own.
- A truth is (..., H, W) in [0, 1]: 0 is background, fractions are votes of annotators. Values above 1 (overlapping
  boxes added up, as one published loader does) are refused.
- NaN and infinities are refused, never ranked.
- **Constant**: ``max - min < 1e-6 * max(1, |max|)``. Bicubic interpolation of a constant leaves ripples of 1e-7, which
  normalising would blow up to the whole range: such a map is measured as the constant it was meant to be.
"""

from __future__ import annotations

import torch
from torch import Tensor

from m2vsl import ops

FLAT = 1e-6  # relative to max(1, |max|), dimensionless
_WHOLE = (torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64)


def validated(heat: Tensor) -> Tensor:
    """`heat` in float32 or float64; ValueError if it is no map or holds values that cannot be ranked.

    >>> validated(torch.tensor([[1, 0]]))
    tensor([[1., 0.]], dtype=torch.float64)
    >>> validated(torch.tensor([[torch.nan, 0.0]]))
    Traceback (most recent call last):
        ...
    ValueError: expected finite heat, got 1 NaN and 0 infinite of 2 values
    """
    _expect_map("heat", heat)
    if heat.dtype not in (torch.float32, torch.float64):
        heat = heat.double() if heat.dtype in _WHOLE else heat.float()  # float32 would make large whole numbers tie
    if heat.numel() and not all(bool(end.isfinite()) for end in heat.aminmax()):  # a NaN is both ends
        nan, infinite = int(heat.isnan().sum()), int(heat.isinf().sum())
        raise ValueError(f"expected finite heat, got {nan} NaN and {infinite} infinite of {heat.numel()} values")
    return heat


def validated_truth(truth: Tensor, shape: torch.Size) -> Tensor:
    """`truth` as a floating tensor; ValueError unless it has `shape` and lies in [0, 1].

    >>> validated_truth(torch.tensor([[True, False]]), torch.Size([1, 2]))
    tensor([[1., 0.]])
    """
    _expect_map("truth", truth)
    if truth.shape != shape:
        raise ValueError(f"expected truth of the heat's shape {tuple(shape)}, got {tuple(truth.shape)}")
    truth = truth.detach()
    truth = truth if truth.dtype in (torch.float32, torch.float64) else truth.float()
    if truth.numel():
        low, high = (float(value) for value in truth.aminmax())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"expected truth in [0, 1], got [{low:g}, {high:g}]")
    return truth


def _expect_map(what: str, given: Tensor) -> None:
    if not isinstance(given, Tensor):
        raise TypeError(f"expected {what} as a tensor (..., H, W), got {type(given).__name__}")
    if given.ndim < 2 or not min(given.shape[-2:]) or given.is_complex():
        got = f"{tuple(given.shape)} of {given.dtype}"
        raise ValueError(f"expected {what} of shape (..., H, W), real, with at least one pixel, got {got}")


def is_constant(heat: Tensor) -> Tensor:
    """Which maps say nothing: (..., H, W) -> (...) bool.

    >>> is_constant(torch.tensor([[[0.3, 0.3 + 1e-7]], [[0.3, 0.4]]]))
    tensor([ True, False])
    """
    flat = heat.flatten(-2)
    return nearly_equal(flat.amin(-1), flat.amax(-1))


def nearly_equal(low: Tensor, high: Tensor) -> Tensor:
    """Whether maps whose values reach from `low` to `high` are constant: (...), (...) -> (...) bool."""
    return high - low < FLAT * high.abs().clamp(min=1)


def settled(heat: Tensor) -> Tensor:
    """`heat` with every constant map made exactly so, that its pixels tie.

    >>> len(settled(torch.tensor([[0.3, 0.3 + 1e-7]])).unique())
    1
    """
    constant = is_constant(heat)
    if not bool(constant.any()):
        return heat
    return torch.where(constant[..., None, None], heat[..., :1, :1], heat)


def normalise(heat: Tensor) -> Tensor:
    r"""Each map on [0, 1].

    .. math:: \operatorname{norm}(h) = \frac{h - \min h}{\max h - \min h}

    heat: (..., H, W). A constant map comes back with the value it has, as in the published evaluators.

    >>> normalise(torch.tensor([[-2.0, 0.0], [1.0, 2.0]]))
    tensor([[0.0000, 0.5000],
            [0.7500, 1.0000]])
    >>> normalise(torch.tensor([[5.0, 5.0]]))
    tensor([[5., 5.]])
    """
    heat = settled(validated(heat))
    if heat.numel() and bool((heat.amax() - heat.amin()).isinf()):  # a range that the type cannot hold
        heat = heat / 2
    return ops.min_max(heat)
