import csv

import pytest
import torch
from sklearn.metrics import average_precision_score

from m2vsl.metrics.overlap import Above, binarise, consensus_iou
from m2vsl.metrics.released import (
    average_precision_as_released_noprior,
    consensus_iou_as_released_avgn,
    pairs_as_released_avgn,
    permutation_invariant_ap_as_released_noprior,
)


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_an_ap_of_two_levels_is_scikit_learns():
    heat, truth = noise(5, 6, 6), (noise(5, 6, 6).flip(0) > 0.7).float()
    found = average_precision_as_released_noprior(heat, truth)
    for h, y, value in zip(heat, truth, found, strict=True):
        labels = binarise(h, Above(0.5)).flatten().int().numpy()
        assert float(value) == pytest.approx(average_precision_score(y.flatten().int().numpy(), labels))


def test_a_perfect_ranking_gains_nothing_over_a_perfect_half():
    truth = torch.zeros(1, 4, 4)
    truth[0, 0] = 1
    perfect = truth + noise(1, 4, 4) / 9
    assert float(average_precision_as_released_noprior(perfect, truth)) == pytest.approx(4 / 7)  # a half less one pixel


def test_an_empty_truth_has_none_and_unused_maps_are_no_part_of_the_sum():
    heat, truth = noise(2, 2, 4, 8), torch.zeros(2, 2, 4, 8)
    truth[0, 0, :2, :3] = 1
    used = torch.tensor([[True, False], [False, False]])
    found = permutation_invariant_ap_as_released_noprior(heat, used, truth)
    again = heat.clone()
    again[0, 1] += 100
    assert found[0] == permutation_invariant_ap_as_released_noprior(again, used, truth)[0]
    assert bool(found[1].isnan())
    assert bool(average_precision_as_released_noprior(heat[0, 0], truth[1, 0]).isnan())


def test_boxes_that_are_added_up_count_twice():
    predicted = torch.tensor([[True, True], [False, False]])
    counts = torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    assert float(consensus_iou_as_released_avgn(predicted, counts)) == 2 / (3 + 1)
    once = counts.clamp(max=1)
    assert float(consensus_iou(predicted, once)) == 1 / 3
    assert float(consensus_iou_as_released_avgn(predicted, once)) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="expected a bool prediction"):
        consensus_iou_as_released_avgn(counts, counts)


def test_no_published_pair_is_compared_with_its_own_boxes(shared):
    path = shared / "metadata" / "vggsound_duet_test.csv"
    with path.open(newline="") as file:
        partners = {row[0]: row[2] for row in csv.reader(file) if len(row) == 4}
    while lost := {partner for partner in partners.values() if partner not in partners}:  # where the list is cut short
        partners = {clip: partner for clip, partner in partners.items() if partner not in lost}
    used = pairs_as_released_avgn(partners)
    right = [clip for clip, pair in used.items() if pair == (clip, partners[clip])]
    swapped = [clip for clip, pair in used.items() if pair == (partners[clip], clip)]
    assert len(used) > 4900 and not right and len(swapped) == 2
