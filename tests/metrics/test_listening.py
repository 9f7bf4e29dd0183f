"""The same picture under two sounds: what stays, what goes quiet, and whether one threshold can tell."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from m2vsl.metrics.listening import quieter, remaining, separability
from m2vsl.metrics.overlap import Area, binarise


def drawn(*shape: int, seed: int = 0, values: int | None = None) -> Tensor:
    """Noise; with `values`, whole numbers below it, which tie."""
    generator = torch.Generator().manual_seed(seed)
    if values is None:
        return torch.rand(*shape, generator=generator)
    return torch.randint(values, shape, generator=generator).float()


def disc(side: int) -> Tensor:
    """Minus the distance to the centre: every value comes four or eight times."""
    place = torch.arange(side) - (side - 1) / 2
    return -(place[:, None] ** 2 + place**2).sqrt()


def slow_remaining(own: Tensor, other: Tensor, fraction: float) -> float:
    """Own's pixels from the hottest down until `fraction` of the picture is full, equal ones in equal shares."""
    full = fraction * own.numel()
    kept: dict[float, float] = {}  # value -> the share of its pixels that is taken
    for value in sorted(set(own.flatten().tolist()), reverse=True):
        alike = own.flatten().tolist().count(value)
        kept[value] = min(1.0, full / alike)
        full -= alike * kept[value]
        if full <= 1e-9:
            break
    level = min(kept)
    total = sum(1.0 if v > level else kept[level] if v == level else 0.0 for v in other.flatten().tolist())
    return total / own.numel()


@pytest.mark.parametrize("fraction", [0.5, 0.3, 0.05, 1.0])
@pytest.mark.parametrize("values", [None, 2, 5])
def test_remaining_is_the_slow_loop(values: int | None, fraction: float) -> None:
    own, other = drawn(4, 3, 5, 7, values=values), drawn(4, 3, 5, 7, seed=1, values=values)
    found = remaining(own, other, fraction)
    assert found.shape == (4, 3) and found.dtype == torch.float64
    slow = [slow_remaining(a, b, fraction) for a, b in zip(own.flatten(0, 1), other.flatten(0, 1), strict=True)]
    assert found.flatten().tolist() == pytest.approx(slow)


@pytest.mark.parametrize("own", [disc(224), disc(15), drawn(7, 7, values=2), torch.ones(3, 3), drawn(1, 1)])
def test_a_map_that_stays_keeps_the_half_to_the_last_bit(own: Tensor) -> None:
    assert float(remaining(own, own)) == float(quieter(own, own)) == 0.5
    assert float(remaining(own, own.flip(-1))) == 0.5, "the same values elsewhere"
    for fraction in (0.1, 0.3, 1.0):
        assert float(remaining(own, own, fraction)) == pytest.approx(fraction)


def test_the_area_rule_alone_would_keep_more_than_the_half_of_a_disc() -> None:
    assert int(binarise(disc(224), Area(0.5)).sum()) > 224 * 224 / 2


def test_a_map_that_goes_quiet_and_one_that_becomes_hotter() -> None:
    own = drawn(2, 16, 16) + 1
    assert remaining(own, torch.zeros(2, 16, 16)).tolist() == [0, 0]
    assert remaining(own, own + 1).tolist() == [1, 1]
    assert quieter(own, own * 0.9).tolist() == [1, 1]
    assert quieter(own, own * 1.1).tolist() == [0, 0]


def test_the_hotter_the_other_the_more_remains() -> None:
    own, other = drawn(20, 9, 9, values=6), drawn(20, 9, 9, seed=1, values=6)
    shares = torch.stack([remaining(own, other + shift) for shift in (-6, -1, 0, 1, 6)])
    assert bool((shares.diff(dim=0) >= 0).all()) and bool((shares[0] <= 0.2).all() and (shares[-1] == 1).all())


def test_where_own_is_flat_below_the_smaller_fraction_tells() -> None:
    own = torch.zeros(10, 10)
    own[0] = 1  # clipped: the level of the half is 0
    silent = torch.zeros(10, 10)
    assert float(remaining(own, silent)) == pytest.approx(0.4 / 0.9)
    assert float(remaining(own, silent, 0.1)) == 0
    assert float(quieter(own, silent)) == 1


@pytest.mark.parametrize("rise", [lambda h: 3 * h - 7, torch.exp, lambda h: h**3, lambda h: -1 / (h + 1)])
def test_one_increasing_map_applied_to_both_changes_nothing(rise: Callable[[Tensor], Tensor]) -> None:
    own, other = drawn(6, 8, 8, values=9).double(), drawn(6, 8, 8, seed=1, values=11).double()
    assert torch.equal(remaining(own, other), remaining(rise(own), rise(other)))
    assert torch.equal(quieter(own, other), quieter(rise(own), rise(other)))
    peaks = [maps.flatten(1).amax(1) for maps in (own, other)]
    assert separability(*peaks) == separability(*map(rise, peaks))


def test_a_map_applied_to_one_of_them_is_what_is_measured() -> None:
    own = drawn(6, 8, 8)
    assert bool((remaining(own, own - 0.2) < 0.5).all() and (quieter(own, own - 0.2) == 1).all())


def test_quieter_compares_the_peaks() -> None:
    own, other = drawn(50, 4, 4, values=20), drawn(50, 4, 4, seed=1, values=20)
    slow = []
    for a, b in zip(own, other, strict=True):
        before, after = max(a.flatten().tolist()), max(b.flatten().tolist())
        slow.append(1.0 if after < before else 0.5 if after == before else 0.0)
    assert quieter(own, other).tolist() == slow and set(slow) == {0, 0.5, 1}


@pytest.mark.parametrize("values", [None, 4])
def test_separability_is_the_share_of_pairs(values: int | None) -> None:
    own, other = drawn(31, values=values).tolist(), drawn(17, seed=1, values=values).tolist()
    won = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in own for b in other)
    assert separability(own, other) == pytest.approx(won / (31 * 17))
    assert separability(own, other) + separability(other, own) == pytest.approx(1)


def test_edges_of_separability() -> None:
    assert separability([2.0, 3.0], [1.0]) == 1 and separability([1.0], [2.0, 3.0]) == 0
    same = drawn(1001)
    assert separability(same, same.flip(0)) == separability([5.0], [5.0]) == 0.5
    assert separability([1 + 1e-12], [1.0]) == 1, "in float64"
    far = drawn(100) * 10  # each quieter than its own, and no threshold for all
    assert 0.5 < separability(far, far - 0.01) < 0.51
    assert bool((quieter(far[:, None, None], far[:, None, None] - 0.01) == 1).all())


def test_no_maps_and_half_precision() -> None:
    assert remaining(torch.zeros(0, 4, 4), torch.zeros(0, 4, 4)).shape == (0,)
    assert quieter(torch.zeros(0, 4, 4), torch.zeros(0, 4, 4)).shape == (0,)
    own = drawn(4, 4).bfloat16()
    assert float(remaining(own, own)) == 0.5


def test_what_is_no_pair_of_maps_is_refused() -> None:
    own = drawn(2, 4, 4)
    for measure in (remaining, quieter):
        with pytest.raises(ValueError, match=r"got shapes \(2, 4, 4\) and \(4, 4\)"):
            measure(own, own[0])
        with pytest.raises(ValueError, match=r"with at least one pixel, got \(2, 0, 4\)"):
            measure(own[:, :0], own[:, :0])
        for odd in (math.nan, math.inf):
            with pytest.raises(ValueError, match="expected finite heat"):
                measure(own, torch.full_like(own, odd))
    for fraction in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"in \(0, 1\], got"):
            remaining(own, own, fraction)


def test_what_is_no_row_of_peaks_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"expected own_peaks of shape \(n,\), n > 0, got shape \(0,\)"):
        separability([], [1.0])
    with pytest.raises(ValueError, match=r"expected other_peaks .* got shape \(2, 1\)"):
        separability([1.0], [[1.0], [2.0]])
    with pytest.raises(ValueError, match=r"expected other_peaks .* 1 not finite"):
        separability([1.0], [1.0, math.nan])
