"""A method as a segmenter: the numbers of `metrics.segmentation`, in every way that a table shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from scenes import CLASSES, batch_of

from m2vsl import segmenting as module
from m2vsl.baselines.controls import Centre, ControlConfig, ObjectArea, Oracle
from m2vsl.evaluate import evaluate
from m2vsl.localizer import Localizer
from m2vsl.metrics.calls import AVSBENCH, PREDICTED
from m2vsl.metrics.segmentation import f_score, frame_iou, mean_iou, to_logits
from m2vsl.segmenting import Masks, segmented
from m2vsl.types import Batch, Losses, Maps

BATCHES = [batch_of(3, frames=1), batch_of(4, frames=1, seed=1)]


class Classes(Localizer):
    """A map of noise for each class, and a presence that is wrong about half of the pictures."""

    named = True

    def forward(self, batch: Batch) -> Losses:
        return {}

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        drawn = torch.Generator().manual_seed(len(batch))
        heat = torch.rand(len(batch), CLASSES, 64, 64, generator=drawn)
        presence = torch.rand(len(batch), CLASSES, generator=drawn)
        return Maps(heat, torch.arange(CLASSES), presence)


def control(kind: type[Localizer]) -> Localizer:
    return kind(ControlConfig(), CLASSES)


def masks(batch: Batch) -> torch.Tensor:
    return (batch.truth.mask * batch.truth.present[..., None, None]).amax(1)


def test_the_numbers_are_those_of_the_metrics_classes_told_and_classes_heard() -> None:
    told, heard, truths = [], [], []
    for batch in BATCHES:
        maps = Classes().localize(batch)
        assert maps.presence is not None
        for b in range(len(batch)):
            told.append(maps.heat[b, batch.truth.classes[b, 0]])
            above = (maps.presence[b] >= 0.5).nonzero().flatten().tolist() or [int(maps.presence[b].argmax())]
            heard.append(torch.stack([maps.heat[b, c] for c in above]).amax(0))
        truths.append(masks(batch))
    truth, found = torch.cat(truths), segmented(Classes(), BATCHES).scalars
    for name, heat in ((AVSBENCH.name, told), (PREDICTED.name, heard)):
        logits = to_logits(torch.stack(heat))
        assert found[f"{name}/miou"] == pytest.approx(mean_iou(logits, truth), abs=1e-9)
        assert found[f"{name}/f"] == pytest.approx(f_score(logits, truth), abs=1e-9)
        assert found[f"{name}/f@call5"] == pytest.approx(f_score(logits, truth, 5), abs=1e-9)
    assert found["avsbench/f"] != found["avsbench-predicted/f"]


def test_the_same_as_one_pass_of_the_evaluator() -> None:
    found, other = segmented(control(Centre), BATCHES), evaluate(control(Centre), BATCHES, (), AVSBENCH)
    for score in ("miou", "f", "f@call5", "f@call20"):
        assert found.scalars[f"avsbench/{score}"] == pytest.approx(other.scalars[f"avsbench/{score}"], abs=1e-9)
    rows = {row["key"]: row["avsbench/iou"] for row in other.pictures}
    assert {row["key"]: row["avsbench/iou"] for row in found.frames} == rows


def test_only_maps_that_are_read_are_refined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told classes, and those that seem to sound; the scores are those of refining all."""
    counts, refine = [], module.refined

    def counting(maps: Maps, *args: Any, only: torch.Tensor, **kwargs: Any) -> Maps:
        counts.append(int(only.sum()))
        return refine(maps, *args, only=only, **kwargs)

    monkeypatch.setattr(module, "refined", counting)
    some = segmented(Classes(), BATCHES)
    monkeypatch.setattr(module, "refined", lambda *args, only: refine(*args))
    assert some.scalars == segmented(Classes(), BATCHES).scalars
    every = sum(len(batch) for batch in BATCHES) * CLASSES
    assert 0 < sum(counts) < every and len(counts) == len(BATCHES)


def test_a_part_is_scored_as_if_the_rest_were_not_there() -> None:
    keys = {BATCHES[0].keys[1], BATCHES[1].keys[0], BATCHES[1].keys[3]}
    found = segmented(control(Centre), BATCHES, parts={"some": keys, "none": set()}).scalars
    few = []
    for batch in BATCHES:
        rows = torch.tensor([key in keys for key in batch.keys])
        few += [Maps(control(Centre).localize(batch).heat[rows, 0], torch.tensor([-1])).heat, masks(batch)[rows]]
    heat, truth = torch.cat(few[::2]), torch.cat(few[1::2])
    assert found["some/n"] == 3 and not any(name.startswith("none") for name in found)
    assert found["some/avsbench/miou"] == pytest.approx(mean_iou(to_logits(heat), truth), abs=1e-9)
    assert found["some/avsbench/f"] == pytest.approx(f_score(to_logits(heat), truth), abs=1e-9)


def test_a_cut_of_another_list_is_the_best_of_that_list_and_of_no_other() -> None:
    method, cuts = control(Centre), segmented(control(Centre), BATCHES[:1]).cuts
    best = max(range(255), key=lambda k: _at(method, BATCHES[0], k))
    assert cuts["avsbench"] == best
    found = segmented(method, BATCHES[1:], cuts=cuts).scalars
    assert found["avsbench/miou@val"] == pytest.approx(_at(method, BATCHES[1], best), abs=1e-6)
    assert "avsbench/miou@val" not in segmented(method, BATCHES).scalars


def _at(method: Localizer, batch: Batch, k: int) -> float:
    heat = method.localize(batch).heat[:, 0]
    low, high = heat.amin((1, 2), keepdim=True), heat.amax((1, 2), keepdim=True)
    share = ((heat - low) / (high - low)).clamp(1e-4, 1 - 1e-4)
    return float(frame_iou(torch.where(share >= k / 254 - 1e-7, 1.0, -1.0), masks(batch)).mean())


def test_what_a_method_says_of_its_maps_decides_how_they_are_read() -> None:
    found = segmented(control(ObjectArea), BATCHES)
    truth = torch.cat([masks(batch) for batch in BATCHES])
    logits = torch.cat([control(ObjectArea).localize(batch).heat[:, 0] for batch in BATCHES])
    assert found.scalars["avsbench/miou"] == pytest.approx(mean_iou(logits, truth), abs=1e-9)


def test_the_truth_itself_scores_everything_and_the_floor_is_told() -> None:
    found: Masks = segmented(control(Oracle), BATCHES, side=4)
    assert found.scalars["avsbench/miou"] > 0.999 and found.scalars["avsbench/f"] > 0.999
    area = float(torch.cat([masks(batch) for batch in BATCHES]).mean())
    assert found.scalars["area"] == pytest.approx(area, abs=1e-6) and found.scalars["empty"] == 0
    assert found.heat.shape == (7, 16, 16) and ((found.heat > 0.5).float().mean() - area).abs() < 0.02


def test_frames_in_which_nothing_sounds_are_counted() -> None:
    batch = batch_of(3, frames=1)
    silent = replace(
        batch, truth=replace(batch.truth, mask=batch.truth.mask * torch.tensor([1.0, 0, 1])[:, None, None, None])
    )
    assert segmented(control(Centre), [silent]).scalars["empty"] == 1
    with pytest.raises(ValueError, match="expected at least one frame to segment, got none"):
        segmented(control(Centre), [])
