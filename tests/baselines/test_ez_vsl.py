"""EZ-VSL: its loss, its map, its object guidance; and that it can learn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scenes import CLASSES, TINY, batch_of
from torch.nn import functional as F

from m2vsl import ops
from m2vsl.baselines.ez_vsl import EZVSL, EZVSLConfig
from m2vsl.types import Batch


def ez_vsl(**choices: object) -> EZVSL:
    torch.manual_seed(0)
    return EZVSL(EZVSLConfig(**{"encoder": TINY, **choices}), CLASSES)


def logits(method: EZVSL, batch: Batch) -> torch.Tensor:
    """EZ-VSL, section 3: the largest cosine of picture b with sound n over the temperature, (B, N)."""
    cells, sounds = map(ops.unit, method.embed(batch))
    return torch.einsum("bdhw,nd->bnhw", cells, sounds).amax((-2, -1)) / method.config.temperature


def test_both_directions_are_summed() -> None:
    method, batch = ez_vsl().eval(), batch_of(frames=1)
    expected = sum(F.cross_entropy(x, torch.arange(4)) for x in (logits(method, batch), logits(method, batch).T))
    torch.testing.assert_close(method(batch)["contrast"], expected)


def test_one_direction_is_the_printed_equation() -> None:
    method, batch = ez_vsl(symmetric=False).eval(), batch_of(frames=1)
    expected = F.cross_entropy(logits(method, batch).T, torch.arange(4))  # a sound looks for its picture
    torch.testing.assert_close(method(batch)["contrast"], expected)


def test_the_map_is_the_cosine_of_the_last_stage_with_the_sound() -> None:
    method, batch = ez_vsl().eval(), batch_of()
    with torch.no_grad():
        cells, sounds = method.embed(batch)
        coarse = torch.cosine_similarity(cells, sounds[:, :, None, None])[:, None]
    expected = F.interpolate(coarse, (64, 128), mode="bilinear", align_corners=True)
    torch.testing.assert_close(method.localize(batch).heat, expected)


@pytest.mark.parametrize("alpha", [0.4, 1.0, 0.0])
def test_object_guidance_mixes_in_what_stands_out(alpha: float) -> None:
    """Protocol 3.1: alpha of the learnt map, the rest the mean activation of a frozen ImageNet network, min-maxed."""
    plain, guided, batch = ez_vsl(), ez_vsl(ogl=True, ogl_alpha=alpha).eval(), batch_of()
    guided.load_state_dict(plain.eval().state_dict(), strict=False)
    with torch.no_grad():
        objects = ops.upsample(guided.objects(batch.image)[-1].abs().mean(1, keepdim=True), (64, 128))
    expected = alpha * ops.min_max(plain.localize(batch).heat) + (1 - alpha) * ops.min_max(objects)
    torch.testing.assert_close(guided.localize(batch).heat, expected)


def test_the_guiding_network_is_imagenets_and_frozen() -> None:
    method = ez_vsl(ogl=True)
    scratch = ez_vsl(ogl=True, encoder=replace(TINY, weights="none"))
    assert not any(p.requires_grad for p in scratch.objects.parameters())
    pairs = zip(scratch.objects.parameters(), method.visual.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    assert not torch.equal(scratch.visual.trunk.stem[0].weight, method.visual.trunk.stem[0].weight)


def test_a_small_fixed_set_is_learnt_by_heart() -> None:
    method, batch = ez_vsl(encoder=replace(TINY, freeze=True)).train(), batch_of(8, frames=1)
    adam = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 1e-3)
    values = []
    for _ in range(40):
        loss = method(batch)["contrast"]
        adam.zero_grad()
        loss.backward()
        adam.step()
        values.append(float(loss.detach()))
    means = [sum(values[i : i + 10]) / 10 for i in range(0, 40, 10)]
    assert means == sorted(means, reverse=True) and len(set(means)) == 4
    assert values[-1] < 0.2 * values[0], values
