"""Detection-style precision over pictures is the loop over thresholds and pictures."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from m2vsl.metrics.detection import confidence, detection_ap, detection_ap_as_released_slavc, f1_at


def slow_precision_recall(iou: list, sure: list, boxed: list, at: float, threshold: float) -> tuple[float, float]:
    """One threshold, picture by picture."""
    right = wrong = missed = 0
    for overlap, certain, has in zip(iou, sure, boxed, strict=True):
        if certain >= threshold:
            good = has and overlap >= at
            right, wrong = right + good, wrong + (not good)
        elif has:
            missed += 1
    precision = right / (right + wrong) if right + wrong else 1.0
    return precision, right / (right + missed) if right + missed else 1.0


def slow_ap(iou: list, sure: list, boxed: list, at: float) -> float:
    """The sum of the published evaluator."""
    thresholds = sorted(sure)[:-1][::-1]
    thresholds = thresholds[:: max(1, len(sure) // 200)]
    curve = [slow_precision_recall(iou, sure, boxed, at, threshold) for threshold in thresholds]
    steps = range(len(curve) - 1)
    return sum(max(p for p, _ in curve[i:]) * (curve[i + 1][1] - curve[i][1]) for i in steps)


def slow_full_ap(iou: list, sure: list, boxed: list, at: float) -> float:
    """All thresholds, recall from 0, precision after the step."""
    curve = [slow_precision_recall(iou, sure, boxed, at, threshold) for threshold in sorted(set(sure), reverse=True)]
    before = [0.0, *(recall for _, recall in curve)]
    return sum(max(p for p, _ in curve[i:]) * (recall - before[i]) for i, (_, recall) in enumerate(curve))


def pictures(n: int, seed: int, ties: bool) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sure = torch.rand(n, generator=generator, dtype=torch.float64)
    sure = (sure * 8).round() / 8 if ties else sure
    return torch.rand(n, generator=generator), sure, torch.rand(n, generator=generator) > 0.3


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 60, 399, 400, 450])  # 400: every second threshold
def test_average_precision_is_the_loop(n: int, ties: bool) -> None:
    iou, sure, boxed = pictures(n, n, ties)
    plain = iou.tolist(), sure.tolist(), boxed.tolist()
    for at in (0.3, 0.5):
        assert detection_ap_as_released_slavc(iou, sure, boxed, at) == pytest.approx(slow_ap(*plain, at))
        assert detection_ap(iou, sure, boxed, at) == pytest.approx(slow_full_ap(*plain, at))
        for threshold in (0.0, 0.5, float(sure[0]), 2.0):
            precision, recall = slow_precision_recall(*plain, at, threshold)
            f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
            assert f1_at(iou, sure, boxed, at, threshold) == pytest.approx(f1)


@pytest.mark.parametrize(("n", "released"), [(1, 0.0), (2, 0.0), (3, 1 / 3), (10, 0.8), (1000, 0.995)])
def test_perfect_answers(n: int, released: float) -> None:
    iou, sure, boxed = torch.ones(n), torch.linspace(0.1, 0.9, n), torch.ones(n, dtype=torch.bool)
    assert detection_ap_as_released_slavc(iou, sure, boxed, 0.5) == pytest.approx(released, abs=1e-6)
    assert detection_ap(iou, sure, boxed, 0.5) == pytest.approx(1)
    assert f1_at(iou, sure, boxed, 0.5, threshold=0) == 1


def test_order_does_not_count_and_confidence_does() -> None:
    iou, sure, boxed = pictures(50, 1, ties=False)
    shuffled = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    expected = detection_ap_as_released_slavc(iou, sure, boxed, 0.5)
    assert detection_ap_as_released_slavc(iou[shuffled], sure[shuffled], boxed[shuffled], 0.5) == pytest.approx(
        expected
    )
    knowing = torch.where(boxed, iou, -1.0)  # surest where it is right
    assert detection_ap_as_released_slavc(iou, knowing, boxed, 0.5) > expected + 0.05


def test_an_overlap_that_just_reaches_is_enough() -> None:
    sure, boxed = torch.tensor([0.9, 0.5, 0.1]), torch.ones(3, dtype=torch.bool)
    assert f1_at(torch.full((3,), 0.5), sure, boxed, 0.5) == pytest.approx(0.8)  # called from 0.5 on: two of three
    assert detection_ap_as_released_slavc(torch.full((3,), 0.5), sure, boxed, 0.5) == pytest.approx(1 / 3)


def test_pictures_without_boxes_are_only_ever_wrong() -> None:
    none = torch.zeros(4, dtype=torch.bool)
    iou, sure = torch.ones(4), torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert detection_ap_as_released_slavc(iou, sure, none, 0.5) == detection_ap(iou, sure, none, 0.5) == 0
    assert f1_at(iou, sure, none, 0.5, threshold=0) == 0  # all called
    assert f1_at(iou, sure, none, 0.5, threshold=0.5) == 1  # none called: nothing is wrong, nothing missed


@pytest.mark.parametrize(
    ("shape", "pixels"), [((1, 1), 1), ((2, 2), 1), ((1, 5), 2), ((3, 3), 3), ((4, 4), 4), ((7, 7), 13)]
)
def test_confidence_is_the_hottest_quarter_rounded_up(shape: tuple[int, int], pixels: int) -> None:
    heat = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(1))
    found = confidence(heat)
    assert found.shape == (2, 3) and found.dtype == torch.float64
    n = shape[0] * shape[1]
    for a in range(2):
        for b in range(3):
            hottest = sorted(heat[a, b].flatten().tolist())[-n // 4 :]  # the published slice
            assert len(hottest) == pixels
            assert float(found[a, b]) == pytest.approx(math.fsum(hottest) / pixels)


def test_what_cannot_be_ranked_is_refused_by_name() -> None:
    two, boxed = torch.tensor([0.1, 0.2]), torch.ones(2, dtype=torch.bool)
    odd = torch.tensor([0.1, math.nan])
    for call in (lambda *given: detection_ap_as_released_slavc(*given, 0.5), lambda *given: f1_at(*given, 0.5)):
        with pytest.raises(ValueError, match="expected finite iou, got 1 of 2 that are not"):
            call(odd, two, boxed)
        with pytest.raises(ValueError, match="expected finite confidence, got 1 of 2 that are not"):
            call(two, odd, boxed)
        with pytest.raises(ValueError, match=r"expected confidence of shape \(2,\), got \(3,\)"):
            call(two, torch.rand(3), boxed)
        with pytest.raises(ValueError, match=r"expected boxed as bool of shape \(n,\), n > 0, got torch.float32"):
            call(two, two, torch.ones(2))
        with pytest.raises(ValueError, match=r"n > 0, got torch.bool \(0,\)"):
            call(two[:0], two[:0], boxed[:0])
    with pytest.raises(ValueError, match="expected finite heat, got 1 NaN"):
        confidence(torch.tensor([[math.nan, 1.0]]))
    with pytest.raises(ValueError, match="with at least one pixel, got"):
        confidence(torch.zeros(2, 0, 3))
