import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m2vsl.metrics.overlap import MinMax, binarise
from m2vsl.metrics.segmentation import f_score, frame_f_curves, frame_iou, mean_iou, to_logits


def case(seed, frames=4, empty=()):
    source = torch.Generator().manual_seed(seed)
    logits = torch.randn(frames, 5, 6, generator=source)
    truth = (torch.rand(frames, 5, 6, generator=source) < 0.4).float()
    truth[:, 0, 0] = 1
    truth[list(empty)] = 0
    return logits, truth


def slow_iou(logits, truth):
    predicted = [1 / (1 + math.exp(-value)) > 0.5 for value in logits.flatten().tolist()]
    real = [value > 0 for value in truth.flatten().tolist()]
    if not any(real):
        return predicted.count(False) / len(predicted)
    shared = sum(p and g for p, g in zip(predicted, real, strict=True))
    return shared / (sum(p or g for p, g in zip(predicted, real, strict=True)) + 1e-7)


def slow_curve(logits, truth):
    probability, real = torch.sigmoid(logits), truth > 0
    curve = []
    for threshold in torch.linspace(0, 1, 255):
        predicted = probability >= threshold
        shared = float((predicted & real).sum())
        precision, recall = shared / (float(predicted.sum()) + 1e-20), shared / (float(real.sum()) + 1e-20)
        curve.append(1.3 * precision * recall / (0.3 * precision + recall) if shared else 0.0)
    return curve


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_iou_and_f_are_their_definitions(seed):
    logits, truth = case(seed, frames=3, empty=[1])
    assert frame_iou(logits, truth).tolist() == pytest.approx(
        [slow_iou(*pair) for pair in zip(logits, truth, strict=True)]
    )
    for curve, pair in zip(frame_f_curves(logits, truth), zip(logits, truth, strict=True), strict=True):
        assert curve.tolist() == pytest.approx(slow_curve(*pair))


def test_the_published_numbers(golden):
    data = golden("segmentation")
    logits, truth = torch.from_numpy(data["logits"]), torch.from_numpy(data["truth"])
    assert frame_iou(logits, truth).tolist() == pytest.approx(data["frame_iou"].tolist(), abs=1e-6)
    frame_f = [f_score(logits[i : i + 1], truth[i : i + 1]) for i in range(10)]
    assert frame_f == pytest.approx(data["frame_f"].tolist(), abs=1e-6)
    for video, part in enumerate((slice(0, 5), slice(5, 10))):
        assert mean_iou(logits[part], truth[part]) == pytest.approx(data["video_iou"][video], abs=1e-6)
        assert f_score(logits[part], truth[part]) == pytest.approx(data["video_f"][video], abs=1e-6)
    assert f_score(logits, truth, frames_per_call=5) == pytest.approx(data["video_f"].mean(), abs=1e-6)
    assert f_score(logits, truth, frames_per_call=1) == pytest.approx(data["frame_f"].mean(), abs=1e-6)
    assert f_score(logits, truth) == pytest.approx(data["video_f"][0], abs=1e-6), "empty frames do not count"


def test_f_as_published_depends_on_the_batch_size():
    logits, truth = case(1, frames=8)
    scores = {n: f_score(logits, truth, frames_per_call=n) for n in (1, 4, 8)}
    assert scores[1] > scores[4] > scores[8]
    assert scores[8] == f_score(logits, truth) == f_score(logits, truth, frames_per_call=100)


def test_perfect_is_one():
    for pixels in range(1, 31):
        truth = (torch.arange(30) < pixels).float().view(1, 5, 6)
        logits = 20 * truth - 10
        assert mean_iou(logits, truth) == pytest.approx(1, abs=1e-6)
        assert f_score(logits, truth) == pytest.approx(1)


def test_a_logit_of_zero_is_background():
    assert mean_iou(torch.zeros(1, 2, 2), torch.ones(1, 2, 2)) == 0


def test_an_empty_truth_counts_its_background_and_not_in_f():
    logits, truth = torch.full((2, 2, 2), -3.0), torch.zeros(2, 2, 2)
    logits[1, 0, 0] = 3
    assert frame_iou(logits, truth).tolist() == [1, 0.75]
    assert f_score(logits, truth) == 0
    assert f_score(logits, truth, frames_per_call=1) == 0


def test_an_empty_prediction_still_scores_f_at_threshold_zero():
    truth = (torch.arange(30) < 6).float().view(1, 5, 6)
    area = 0.2
    assert f_score(torch.full((1, 5, 6), -200.0), truth) == pytest.approx(1.3 * area / (0.3 * area + 1))


def test_no_frames_are_nan():
    nothing = torch.zeros(0, 4, 4)
    assert math.isnan(mean_iou(nothing, nothing))
    assert math.isnan(f_score(nothing, nothing))


def test_heat_becomes_logits_whose_sign_is_half_of_min_max():
    heat = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(2)) * 40 - 7
    logits = to_logits(heat)
    assert torch.equal(logits > 0, binarise(heat, MinMax(0.5)))
    limit = math.log(1e-4 / (1 - 1e-4))
    assert (float(logits.min()), float(logits.max())) == pytest.approx((limit, -limit), rel=1e-3)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"shape \(N, H, W\), got \(2, 1, 4, 4\)"):
        mean_iou(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match=r"\(2, 4, 4\), got \(2, 4, 5\)"):
        f_score(torch.zeros(2, 4, 4), torch.zeros(2, 4, 5))
    with pytest.raises(ValueError, match="1 NaN"):
        mean_iou(torch.tensor([[[math.nan]]]), torch.ones(1, 1, 1))
