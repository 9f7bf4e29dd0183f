import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m2vsl.metrics.overlap import (
    Absolute,
    Area,
    Matched,
    MinMax,
    binarise,
    bound,
    consensus_iou,
    success_auc,
    success_rate,
)

HEAT = torch.tensor([[9, 8, 1, 0], [7, 6, 2, 3], [5, 4, 10, 11], [12, 13, 14, 15]]).float()  # every rank once
TRUTH = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]).float()
seeds = st.integers(0, 2**31 - 1)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def tie_free(seed, *shape):
    """Maps whose pixels are all different."""
    count = math.prod(shape[-2:])
    ranks = torch.rand(*shape, generator=generator(seed)).flatten(-2).argsort(-1)
    return ((ranks - count / 2) / 7).view(shape)


def blobs(seed, *shape):
    """Random truths of any size, the empty and the full one included."""
    level = torch.rand(*shape[:-2], 1, 1, generator=generator(seed)) * 1.4 - 0.2
    return (torch.rand(*shape, generator=generator(seed + 1)) < level).float()


def slow_iou(predicted, truth):
    """Consensus IoU from its definition, pixel by pixel."""
    shared = outside = total = 0.0
    for row in range(truth.shape[0]):
        for column in range(truth.shape[1]):
            p, g = bool(predicted[row, column]), float(truth[row, column])
            shared += p * g
            total += g
            outside += p * (g == 0)
    return shared / (total + outside) if total + outside else math.nan


def slow_area(heat, fraction=0.5):
    """The published threshold: an element of the ascending sort, at least."""
    ascending = sorted(float(value) for value in heat.flatten())
    return heat >= ascending[int((1 - fraction) * len(ascending))]


# binarise ------------------------------------------------------------------------------------------------------------


def test_area_keeps_the_hotter_half_of_a_4x4_map():
    expected = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]]).bool()
    assert torch.equal(binarise(HEAT, Area(0.5)), expected)
    assert float(consensus_iou(expected, TRUTH)) == 2 / (8 + 2)


@pytest.mark.parametrize("shape", [(4, 4), (3, 3), (5, 7), (2, 9)])
@pytest.mark.parametrize("fraction", [0.5, 0.25, 0.125])
def test_area_is_the_published_threshold(shape, fraction):
    heat = tie_free(1, *shape)
    assert torch.equal(binarise(heat, Area(fraction)), slow_area(heat, fraction))


@pytest.mark.parametrize(("fraction", "pixels"), [(0.5, 50), (0.25, 25), (0.1, 10), (0.07, 7), (1.0, 100), (1e-9, 1)])
def test_area_is_the_share_of_the_picture_predicted(fraction, pixels):
    assert int(binarise(tie_free(2, 10, 10), Area(fraction)).sum()) == pixels


def test_a_saturated_map_escapes_the_area_rule():
    saturated = HEAT.clamp(min=6)  # seven pixels tie at the bottom
    assert int(binarise(saturated, Area(0.5)).sum()) == 8
    assert int(binarise(HEAT.clamp(max=5), Area(0.5)).sum()) == 11, "everything that ties with the threshold stays"


@pytest.mark.parametrize("value", [0.0, -2.0, 0.9])
def test_a_constant_predicts_everything_under_area(value):
    assert binarise(torch.full((1, 4, 4), value), Area(0.5)).all()
    ripples = torch.full((1, 4, 4), value) + 1e-8 * torch.rand(1, 4, 4, generator=generator(0))
    assert binarise(ripples, Area(0.5)).all()


def test_min_max_is_relative_to_the_map():
    assert torch.equal(binarise(HEAT, MinMax(0.5)), HEAT >= 7.5)
    assert torch.equal(binarise(HEAT * 1e-3 - 40, MinMax(0.18)), HEAT >= 3)
    assert binarise(torch.full((2, 2), 0.5), MinMax(0.5)).all(), "a constant is compared as it is"
    assert not binarise(torch.full((2, 2), 0.4), MinMax(0.5)).any()


def test_absolute_can_say_that_nothing_sounds():
    assert torch.equal(binarise(HEAT, Absolute(12.0)), HEAT >= 12)
    assert not binarise(HEAT, Absolute(16.0)).any()


def test_matched_predicts_as_many_pixels_as_the_truth_has():
    predicted = binarise(HEAT, Matched(), TRUTH)
    assert torch.equal(predicted, HEAT >= 12)


def test_matched_breaks_ties_in_reading_order():
    heat = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    truth = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    assert torch.equal(binarise(heat, Matched(), truth), torch.tensor([[False, True], [True, False]]))
    assert torch.equal(binarise(torch.zeros(2, 2), Matched(), truth), truth.bool())


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 5))
def test_matched_has_the_area_of_the_truth_whatever_the_ties(seed, levels):
    heat = torch.randint(0, levels, (3, 2, 5, 6), generator=generator(seed)).float()
    truth = blobs(seed, 3, 2, 5, 6) * 0.5  # votes count by being there
    predicted = binarise(heat, Matched(), truth)
    assert torch.equal(predicted.sum((-2, -1)), (truth > 0).sum((-2, -1)))
    coldest_kept = torch.where(predicted, heat, 9).amin((-2, -1))
    assert (coldest_kept >= torch.where(predicted, -9, heat).amax((-2, -1))).all()


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([Area(0.5), Area(0.3), Matched()]))
def test_area_rules_see_the_ranking_alone(seed, rule):
    heat, truth = tie_free(seed, 2, 6, 8).double(), blobs(seed, 2, 6, 8)
    for monotone in (lambda h: 3 * h - 40, torch.exp, torch.atan, lambda h: h**3):
        assert torch.equal(binarise(monotone(heat), rule, truth), binarise(heat, rule, truth))


def test_leading_axes_are_free():
    heat = tie_free(3, 2, 3, 4, 6)
    assert binarise(heat, Area()).shape == heat.shape
    assert consensus_iou(binarise(heat, Area()), blobs(3, 2, 3, 4, 6)).shape == (2, 3)
    assert binarise(torch.zeros(0, 4, 4), Area()).shape == (0, 4, 4)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="1 NaN and 0 infinite"):
        binarise(torch.tensor([[0.0, float("nan")]]), Area())
    with pytest.raises(ValueError, match="expected a truth, got None"):
        binarise(HEAT, Matched())
    with pytest.raises(ValueError, match=r"shape \(4, 4\), got \(2, 4\)"):
        binarise(HEAT, Matched(), TRUTH[:2])
    with pytest.raises(ValueError, match=r"\(0, 1\], got 0"):
        Area(0)
    with pytest.raises(TypeError, match="expected a rule"):
        binarise(HEAT, 0.5)
    with pytest.raises(ValueError, match="binary prediction"):
        consensus_iou(HEAT, TRUTH)
    with pytest.raises(ValueError, match=r"got \[0, 2\]"):
        consensus_iou(HEAT > 3, TRUTH * 2)


# IoU -----------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_iou_is_its_definition(seed):
    votes = torch.tensor([0.0, 0.0, 0.5, 1.0])
    truth = votes[torch.randint(0, 4, (2, 5, 6), generator=generator(seed))]
    predicted = blobs(seed, 2, 5, 6).bool()
    expected = [slow_iou(p, g) for p, g in zip(predicted, truth, strict=True)]
    torch.testing.assert_close(consensus_iou(predicted, truth), torch.tensor(expected).double(), equal_nan=True)


def test_votes_are_weights():
    truth = torch.tensor([[1.0, 0.5], [0.0, 0.0]])
    predicted = torch.tensor([[False, True], [True, False]])
    assert float(consensus_iou(predicted, truth)) == 0.5 / (1.5 + 1)


def test_empties():
    nothing, everything = torch.zeros(4, 4), torch.ones(4, 4, dtype=torch.bool)
    assert float(consensus_iou(everything, nothing)) == 0
    assert math.isnan(float(consensus_iou(~everything, nothing)))
    assert float(consensus_iou(~everything, TRUTH)) == 0


def test_perfect_is_one_for_every_size():
    for coldest in range(16):
        truth = HEAT.ge(coldest).float()
        assert float(consensus_iou(binarise(HEAT, Matched(), truth), truth)) == 1


# success -------------------------------------------------------------------------------------------------------------


def test_a_full_picture_is_just_found_at_half():
    iou = consensus_iou(binarise(tie_free(4, 1, 224, 224), Area(0.5)), torch.ones(1, 224, 224))
    assert float(iou) == 0.5
    assert success_rate(iou, 0.5) == 1


def test_success_rate_and_curve_by_hand():
    iou = torch.tensor([0.0, 0.12, 0.5, 1.0], dtype=torch.float64)
    assert [success_rate(iou, at) for at in (0.0, 0.1, 0.5, 0.51, 1.0)] == [1, 0.75, 0.5, 0.25, 0.25]
    rates = [success_rate(iou, 0.05 * k) for k in range(21)]
    assert success_auc(iou) == pytest.approx(sum((a + b) / 2 * 0.05 for a, b in pairwise(rates)))


def test_levels_of_the_curve_are_floats():
    iou = torch.tensor([0.3], dtype=torch.float64)
    assert success_rate(iou, 0.3) == 1
    assert success_auc(iou) == pytest.approx(0.275), "0.3 < 0.05 * 6, so the seventh node fails"


def test_nan_fails_and_nothing_is_nan():
    assert success_rate(torch.tensor([math.nan, 1.0]), 0.0) == 0.5
    assert success_auc(torch.tensor([math.nan, 1.0])) == pytest.approx(0.5)
    assert math.isnan(success_rate(torch.tensor([]), 0.5))
    assert math.isnan(success_auc(torch.tensor([])))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 20))
def test_area_under_the_curve_is_bounded_by_each_of_its_points(values, k):
    iou, level = torch.tensor(values, dtype=torch.float64), 0.05 * k
    rate = success_rate(iou, level)
    assert level * rate - 1e-9 <= success_auc(iou) <= level + (1 - level) * rate + 1e-9


# bounds --------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([Area(0.5), Area(0.2), MinMax(0.5), Absolute(0.0), Matched()]))
def test_no_map_exceeds_the_bound(seed, rule):
    heat, truth = tie_free(seed, 4, 5, 6), blobs(seed, 4, 5, 6)
    weights = torch.tensor([0.5, 1.0])[torch.randint(0, 2, truth.shape, generator=generator(seed + 2))]
    for weighted in (truth, truth * weights):
        best = heat / 1e3 + weighted  # the truth, ties broken
        for candidate in (heat, best):
            iou = consensus_iou(binarise(candidate, rule, weighted), weighted).nan_to_num(0)
            assert (iou <= bound(weighted, rule) + 1e-12).all()


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([Area(0.5), Area(0.2), Matched()]))
def test_the_truth_itself_reaches_the_bound(seed, rule):
    truth = blobs(seed, 4, 5, 6) * torch.tensor([0.5, 1.0])[torch.randint(0, 2, (4, 5, 6), generator=generator(seed))]
    best = truth + torch.arange(30).view(5, 6) / 1e3
    iou = consensus_iou(binarise(best, rule, truth), truth).nan_to_num(0)
    torch.testing.assert_close(iou, bound(truth, rule))


@pytest.mark.parametrize(("area", "best"), [(5, 0.1), (10, 0.2), (25, 0.5), (50, 1.0), (75, 2 / 3), (0, 0.0)])
def test_what_half_the_picture_allows(area, best):
    truth = (torch.arange(100) < area).float().view(10, 10)
    assert float(bound(truth, Area(0.5))) == pytest.approx(best)
    assert float(bound(truth, Matched())) == (area > 0)
