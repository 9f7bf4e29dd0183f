"""The rows that every table carries: centre, chance, truth, and the bound of the protocol."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from scenes import CLASSES, batch_of

from m2vsl.audio import AUDIO
from m2vsl.baselines.controls import Centre, ControlConfig, Everything, ObjectArea, Oracle, Random
from m2vsl.data.loader import batches
from m2vsl.data.synthetic import SyntheticConfig, SyntheticDataset
from m2vsl.evaluate import bound, evaluate
from m2vsl.localizer import Localizer
from m2vsl.metrics.calls import AVSBENCH
from m2vsl.metrics.protocols import PROTOCOLS
from m2vsl.types import Batch


def control(kind: type[Localizer], classes: int = CLASSES, seed: int = 0) -> Localizer:
    return kind(ControlConfig(seed), classes)


@pytest.mark.parametrize("frames", [1, 2], ids=["one frame", "two"])
def test_centre_is_a_disc_in_the_middle_of_each_frame(frames: int) -> None:
    heat = control(Centre).localize(batch_of(frames=frames, size=32)).heat[0, 0]
    expected = torch.zeros(32, 32)
    for y in range(32):
        for x in range(32):
            expected[y, x] = -math.hypot((y - 15.5) / 32, (x - 15.5) / 32)
    for frame in heat.split(32, 1):
        torch.testing.assert_close(frame, expected)
    assert heat.shape == (32, 32 * frames)


def test_random_is_uniform_and_a_function_of_seed_and_key() -> None:
    batch = batch_of()
    heat = control(Random).localize(batch).heat
    assert float(heat.mean()) == pytest.approx(0.5, abs=0.01) and 0 <= heat.min() < heat.max() < 1
    assert heat.flatten(1).unique(dim=0).shape[0] == 4
    alone = replace(batch, image=batch.image[2:3], keys=batch.keys[2:3])
    assert torch.equal(control(Random).localize(alone).heat[0], heat[2])
    assert not torch.equal(control(Random, seed=1).localize(batch).heat, heat)


def test_everything_scores_the_share_that_sounds() -> None:
    batch = batch_of(size=32, frames=1)
    found = evaluate(control(Everything), [batch], (), AVSBENCH).scalars
    area = (batch.truth.mask * batch.truth.present[..., None, None]).amax(1).flatten(1).mean(1).double()
    assert found["avsbench/miou"] == pytest.approx(float(area.mean()), abs=1e-6)
    assert found["avsbench/f"] == pytest.approx(float((1.3 * area / (0.3 * area + 1)).mean()), abs=1e-6)


@pytest.mark.parametrize("frames", [1, 2], ids=["one frame", "two"])
def test_object_area_is_a_disc_as_large_as_what_sounds(frames: int) -> None:
    batch = batch_of(size=32, frames=frames)
    sounds = batch.truth.present.clone()
    sounds[0] = False
    sounds[1:, 1:] = False
    batch = replace(batch, truth=replace(batch.truth, present=sounds))
    found = control(ObjectArea).localize(batch).heat[:, 0] > 0
    heat = control(Centre).localize(batch).heat[:, 0]
    assert not found[0].any(), "nothing sounds"
    for b in range(1, 4):
        true = int(batch.truth.mask[b, 0].count_nonzero())
        assert true <= int(found[b].count_nonzero()) <= true + 8 * frames, "pixels at one distance stand together"
        assert heat[b][found[b]].min() > heat[b][~found[b]].max()


def test_oracle_draws_the_sounding_classes_alone() -> None:
    batch = batch_of()
    truth = replace(batch.truth, present=torch.tensor([[True, False]] * 4))
    maps = control(Oracle).localize(replace(batch, truth=truth, heard=batch.heard * 0))
    for b in range(4):
        loud, silent = batch.truth.classes[b].tolist()
        mask = batch.truth.mask[b, 0] > 0
        assert maps.heat[b, loud][mask].min() > 0.99 and maps.heat[b, loud][~mask].max() < 0.01
        assert maps.heat[b, silent].max() <= 0
        assert maps.heat[b, loud][mask].unique().numel() > 0.2 * int(mask.sum())  # sloped: few ties


@pytest.fixture(scope="module", params=["single", "duet", "multi"])
def test_list(request: pytest.FixtureRequest) -> Iterable[Batch]:
    """A few synthetic pictures."""
    config = SyntheticConfig(size=64, test_length=6)
    return list(batches(SyntheticDataset(config, "test", task=request.param), 6, AUDIO["paper300"]))


def test_the_oracle_reaches_the_bound_under_every_rule(test_list: list[Batch]) -> None:
    reached = evaluate(control(Oracle, 12), test_list).scalars
    limit = bound(test_list).scalars
    for name in PROTOCOLS:
        assert reached[f"{name}/iou"] == pytest.approx(limit[f"{name}/iou"], abs=0.01), name
    for choice in ("oracle", "predicted"):
        for score in ("ap", "cap", "piap", "pointing"):
            assert reached[f"{choice}/{score}"] == pytest.approx(1, abs=1e-6), (choice, score)
    assert reached["heard_accuracy"] == 1


@pytest.mark.parametrize("kind", [Centre, Random])
def test_nothing_exceeds_the_bound(kind: type[Localizer], test_list: list[Batch]) -> None:
    got, limit = evaluate(control(kind, 12), test_list).scalars, bound(test_list).scalars
    for name in PROTOCOLS:
        assert got[f"{name}/iou"] <= limit[f"{name}/iou"] + 1e-9
    matched = "framewise-matched-oracle/iou"
    assert got[matched] < 0.6 * limit[matched]
