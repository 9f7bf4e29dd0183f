import pytest
import torch

from m2vsl.metrics.calls import AVSBENCH, PREDICTED, Calls, Segmentation
from m2vsl.metrics.overlap import Area, OfMax, binarise
from m2vsl.metrics.segmentation import f_score, frame_curves, frame_iou, mean_iou, to_logits


@pytest.fixture
def frames():
    """23 frames, three of them without a truth, two of these next to each other."""
    drawn = torch.Generator().manual_seed(0)
    logits = torch.randn(23, 6, 6, generator=drawn)
    truth = (torch.rand(23, 6, 6, generator=drawn) > 0.6).float()
    truth[[3, 20, 21]] = 0
    return logits, truth


@pytest.mark.parametrize("batch", [1, 4, 23])
def test_calls_are_those_of_the_list_however_it_is_cut(frames, batch):
    logits, truth = frames
    calls = Calls((2, 5, 20, 100))
    for start in range(0, 23, batch):
        part = slice(start, start + batch)
        calls.add(*frame_curves(logits[part], truth[part]), truth[part].flatten(1).any(1))
        calls.scores()  # asking in between changes nothing
    found = calls.scores()
    assert found["f"] == pytest.approx(f_score(logits, truth), abs=1e-12)
    for size in (2, 5, 20, 100):
        assert found[f"f@call{size}"] == pytest.approx(f_score(logits, truth, size), abs=1e-12)
    assert found["f@call2"] != found["f"]


def test_without_frames_there_is_no_score_and_without_truth_it_is_nothing():
    calls = Calls((2,))
    assert calls.scores() == {}
    assert calls.ious().isnan().all()
    calls.add(*torch.rand(2, 3, 255).double(), torch.zeros(3, dtype=torch.bool))
    assert calls.scores() == {"f": 0, "f@call2": 0}


def test_the_mean_iou_at_every_cut_is_that_of_the_frames(frames):
    logits, truth = frames
    calls = Calls(())
    for part in (slice(0, 9), slice(9, 23)):
        calls.add(*frame_curves(logits[part], truth[part]), truth[part].flatten(1).any(1))
    for k in (0, 100, 127, 200):
        cut = torch.logit(torch.tensor(k / 254).clamp(1e-6, 1 - 1e-6))
        assert calls.ious()[k] == pytest.approx(mean_iou(logits - cut, truth), abs=1e-7)
    assert len(set(calls.ious().tolist())) > 30


def test_positive_heat_is_cut_at_half_of_its_maximum(frames):
    logits, _ = frames
    heat = torch.cat([logits, -1 - torch.rand(1, 6, 6), torch.zeros(1, 6, 6)])
    found = Segmentation(reads="positive").logits(heat) > 0
    assert torch.equal(found[:23], binarise(logits, OfMax(0.5))) and not found[23:].any()
    assert not torch.equal(found, AVSBENCH.logits(heat) > 0)
    shifted = Segmentation(reads="positive").logits(heat[:1] + 1)
    assert not torch.equal(shifted > 0, found[:1]), "where it is 0 has a meaning"


def test_area_50_is_the_rule_of_that_name_ties_included(frames):
    logits, _ = frames
    heat = torch.cat([logits, logits.round(), torch.ones(1, 6, 6)])
    assert torch.equal(Segmentation(reads="area50").logits(heat) > 0, binarise(heat, Area(0.5)))
    assert frame_iou(Segmentation(reads="area50").logits(heat[:1]), torch.ones(1, 6, 6)).item() == pytest.approx(0.5)


def test_what_the_maps_hold_decides_the_cut(frames):
    logits, _ = frames
    probabilities = torch.sigmoid(logits)
    torch.testing.assert_close(Segmentation(reads="probabilities").logits(probabilities), logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(Segmentation(reads="logits").logits(logits), logits)
    assert torch.equal(AVSBENCH.logits(logits), to_logits(logits))
    with pytest.raises(ValueError, match=r"expected probabilities in \[0, 1\], got \[-"):
        Segmentation(reads="probabilities").logits(logits)


def test_every_field_changes_the_digest():
    others = [Segmentation(name="x"), Segmentation(reads="logits"), Segmentation(calls=(5,)), AVSBENCH, PREDICTED]
    others.append(Segmentation(choice="predicted"))
    assert len({one.digest for one in others}) == 6
    assert AVSBENCH.digest == "2d91a89fff2a", "a field that came later leaves it as it was"


def test_a_call_holds_a_frame_at_least():
    with pytest.raises(ValueError, match=r"expected calls of at least one frame, got \(0,\)"):
        Segmentation(calls=(0,))
