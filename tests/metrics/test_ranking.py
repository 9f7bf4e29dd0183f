import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from m2vsl.metrics.overlap import Area, binarise
from m2vsl.metrics.ranking import (
    average_precision,
    average_precision_as_released_avgn,
    average_precision_matrix,
    best_assignment,
    class_aware_ap,
    permutation_invariant_ap,
)

seeds = st.integers(0, 2**31 - 1)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def case(seed, *shape, levels=None):
    """Maps (with ties if `levels` is given) and truths with at least one pixel."""
    source = generator(seed)
    heat = torch.rand(*shape, generator=source) if levels is None else torch.randint(0, levels, shape, generator=source)
    truth = (torch.rand(*shape, generator=source) < 0.3).float()
    truth[..., 0, 0] = 1
    return heat.float(), truth


def slow_ap(heat, truth):
    """Sum over thresholds of precision times the step in recall."""
    pixels = sorted(zip(heat.flatten().tolist(), (truth > 0).flatten().tolist(), strict=True), reverse=True)
    total, found, ap, recall = sum(hit for _, hit in pixels), 0, 0.0, 0.0
    for rank, (value, hit) in enumerate(pixels, start=1):
        found += hit
        if rank == len(pixels) or pixels[rank][0] != value:
            ap += (found / total - recall) * found / rank
            recall = found / total
    return ap


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([None, 2, 5]))
def test_average_precision_is_its_definition_and_scikit_learns(seed, levels):
    heat, truth = case(seed, 3, 6, 7, levels=levels)
    ap = average_precision(heat, truth)
    for value, h, g in zip(ap, heat, truth, strict=True):
        assert float(value) == pytest.approx(slow_ap(h, g), abs=1e-12)
        assert float(value) == pytest.approx(average_precision_score(g.flatten(), h.flatten()), abs=1e-12)


def test_a_4x4_map_by_hand():
    heat = torch.tensor([[9, 0, 0, 0], [8, 0, 0, 0], [7, 0, 0, 0], [6, 0, 0, 0]]).float()
    truth = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]).float()
    expected = (1 / 1 + 2 / 3 + 3 / 16) / 3  # the last pixel ties with eleven others
    assert float(average_precision(heat, truth)) == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_perfect_is_one_for_every_size_and_scale(scale):
    for side in (1, 2, 5):
        for pixels in range(1, side * side + 1):
            truth = (torch.arange(side * side) < pixels).float().view(side, side)
            assert float(average_precision(scale * truth - 3, truth)) == 1


def test_twice_the_area_scores_half():
    truth = (torch.arange(16) < 4).float().view(4, 4)
    twice = (torch.arange(16) < 8).float().view(4, 4)
    assert float(average_precision(twice, truth)) == 0.5 * 1.0


def test_a_constant_scores_the_area_of_the_truth():
    _, truth = case(5, 2, 8, 8)
    area = truth.double().mean((-2, -1))
    torch.testing.assert_close(average_precision(torch.full_like(truth, -0.4), truth), area)
    ripples = 1e-8 * truth
    torch.testing.assert_close(average_precision(ripples, truth), area)


def test_an_empty_truth_has_no_average_precision():
    heat, truth = case(6, 2, 4, 4)
    truth[1] = 0
    ap = average_precision(heat, truth)
    assert ap.isnan().tolist() == [False, True]


def test_votes_count_by_being_there():
    heat, truth = case(7, 2, 4, 4)
    torch.testing.assert_close(average_precision(heat, truth * 0.5), average_precision(heat, truth))


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_the_ranking_alone_counts(seed):
    heat, truth = case(seed, 2, 5, 6, levels=7)
    heat = heat.double()
    for monotone in (lambda h: 3 * h - 40, torch.exp, torch.atan):
        torch.testing.assert_close(average_precision(monotone(heat), truth), average_precision(heat, truth))


def test_matrix_is_every_map_against_every_truth():
    heat, _ = case(8, 2, 3, 5, 5)
    _, truth = case(9, 2, 2, 5, 5)
    matrix = average_precision_matrix(heat, truth)
    assert matrix.shape == (2, 3, 2)
    for b in range(2):
        for k in range(3):
            for s in range(2):
                assert float(matrix[b, k, s]) == pytest.approx(slow_ap(heat[b, k], truth[b, s]))
    assert average_precision_matrix(heat, truth[:, :0]).shape == (2, 3, 0)


# several sources -----------------------------------------------------------------------------------------------------


def test_swapped_maps_are_wrong_for_cap_and_right_for_piap():
    truth = torch.zeros(1, 2, 4, 8)
    truth[0, 0, 1:3, 1:3], truth[0, 1, :, 5:7] = 1, 1
    swapped = truth.flip(1)
    assert float(class_aware_ap(truth, truth)) == 1
    assert float(class_aware_ap(swapped, truth)) == pytest.approx((4 / 32 + 8 / 32) / 2)
    assert float(permutation_invariant_ap(swapped, truth)) == 1


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 3), st.integers(0, 2))
def test_piap_is_the_best_permutation_and_at_least_cap(seed, sources, further):
    heat, _ = case(seed, 3, sources + further, 4, 6, levels=9)
    _, truth = case(seed + 1, 3, sources, 4, 6)
    table = average_precision_matrix(heat, truth)
    piap = permutation_invariant_ap(heat, truth)
    for b in range(3):
        orders = permutations(range(sources + further), sources) if sources + further > 1 else [(0,) * sources]
        best = max(sum(float(table[b, k, s]) for s, k in enumerate(order)) / sources for order in orders)
        assert float(piap[b]) == pytest.approx(best)
    assert (piap >= class_aware_ap(heat[:, :sources], truth) - 1e-12).all()


def test_one_map_answers_for_all_and_two_maps_for_two_of_three():
    heat, truth = case(10, 2, 3, 4, 4)
    alone = permutation_invariant_ap(heat[:, :1], truth)
    torch.testing.assert_close(alone, average_precision(heat[:, :1].expand_as(truth), truth).mean(-1))
    two = permutation_invariant_ap(truth[:, :2], truth)
    choice = best_assignment(average_precision_matrix(truth[:, :2], truth))
    assert (choice == -1).sum(-1).tolist() == [1, 1]
    torch.testing.assert_close(two, torch.full((2,), 2 / 3, dtype=torch.float64))


def test_sources_without_truth_are_left_out():
    heat, truth = case(11, 2, 2, 4, 4)
    truth[0, 1], truth[1] = 0, 0
    expected = average_precision(heat[0, 0], truth[0, 0])
    assert float(class_aware_ap(heat, truth)[0]) == float(expected)
    assert float(permutation_invariant_ap(heat, truth)[0]) >= float(expected)
    assert class_aware_ap(heat, truth)[1].isnan()
    assert permutation_invariant_ap(heat, truth)[1].isnan()


# as released ---------------------------------------------------------------------------------------------------------


def test_avgns_number_swaps_the_arguments():
    heat, truth = case(12, 3, 6, 6)
    released = average_precision_as_released_avgn(heat, truth)
    predicted = binarise(heat, Area(0.5))
    for value, p, g in zip(released, predicted, truth, strict=True):
        assert float(value) == pytest.approx(average_precision_score(p.flatten(), g.flatten()))
        shared, share = float((g * p).sum()), float(p.float().mean())
        precision, recall = shared / float(p.sum()), shared / float(g.sum())
        swapped = float((g * p).sum() / g.sum()), float((g * p).sum() / p.sum())  # of the truth as a prediction of P
        assert swapped == pytest.approx((recall, precision))
        assert float(value) == pytest.approx(precision * recall + (1 - precision) * share)


def test_avgns_number_is_blind():
    _, truth = case(13, 1, 6, 6)
    assert float(average_precision_as_released_avgn(torch.zeros(1, 6, 6), truth)) == 1
    assert float(average_precision_as_released_avgn(torch.rand(1, 6, 6), torch.zeros(1, 6, 6))) == pytest.approx(0.5)
    heat = torch.rand(1, 6, 6, generator=generator(1))
    sharpened = torch.where(binarise(heat, Area(0.5)), 1 - heat, -heat)  # another ranking, the same half
    torch.testing.assert_close(
        average_precision_as_released_avgn(heat, truth), average_precision_as_released_avgn(sharpened, truth)
    )


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="1 NaN and 0 infinite of 4"):
        average_precision(torch.tensor([[0.0, math.nan], [0, 0]]), torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"\(2, 2\), got \(2, 3\)"):
        average_precision(torch.zeros(2, 2), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"of the same pictures, got \(2, 3, 4, 4\) and \(1, 3, 4, 4\)"):
        permutation_invariant_ap(torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4))
