"""OTS: correspondence decided by the best cell, its calibration, and the map before the sigmoid."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
from scenes import CLASSES, TINY, Pixels, batch_of
from torch import Tensor, nn
from torch.nn import functional as F

from m2vsl.baselines.ots import OTS, OTSConfig

BOTH = pytest.mark.parametrize("normalize", [False, True], ids=["plain", "normalised"])


def ots(**choices: object) -> OTS:
    torch.manual_seed(0)
    return OTS(OTSConfig(**{"encoder": TINY, **choices}), CLASSES)


def heads(method: OTS, cells: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
    """Two layers on either side, ReLU between: (C_v, h, w), (C_a,) -> (D, h, w), (D,)."""
    first, second = (layer.weight[:, :, 0, 0] for layer in (method.project[0], method.project[2]))
    seen = torch.einsum("dc,chw->dhw", first, cells) + method.project[0].bias[:, None, None]
    seen = torch.einsum("dc,chw->dhw", second, seen.clamp(min=0)) + method.project[2].bias[:, None, None]
    first, second = method.project_audio[0], method.project_audio[2]
    heard = second.weight @ (first.weight @ sound + first.bias).clamp(min=0) + second.bias
    if method.config.normalize:
        return seen / seen.norm(dim=0), heard / heard.norm()
    return seen, heard


@BOTH
@torch.no_grad()
def test_a_pair_corresponds_if_its_best_cell_says_so(normalize: bool) -> None:
    """Arandjelovic and Zisserman, section 4: logistic loss of the highest sigma(w S + b), half of the pairs wrong."""
    method, batch = ots(normalize=normalize).eval(), batch_of(frames=1)
    cells, sounds = method.visual(batch.image)[-1], method.audio(batch.spectrogram)
    w, b, expected = float(method.gain), float(method.bias), 0.0
    for i in range(4):
        for j, corresponds in ((i, True), (i - 1, False)):
            seen, heard = heads(method, cells[i], sounds[j])
            places = [(y, x) for y in range(seen.shape[1]) for x in range(seen.shape[2])]
            best = max(1 / (1 + exp(-(w * float(seen[:, y, x] @ heard) + b))) for y, x in places)
            expected -= log(best if corresponds else 1 - best) / 8
    losses = method(batch)
    assert set(losses) == {"match"} and float(losses["match"]) == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("bias", [0.0, -2.0])
def test_a_fresh_method_says_to_all_pairs_what_its_bias_says(bias: float) -> None:
    """Baselines 1.5: ln 2 = 0.693 where the bias is 0; the default starts with more doubt."""
    values = [float(ots(bias=bias).train()(batch_of(8, frames=1, seed=seed))["match"]) for seed in range(3)]
    even = (log(1 + exp(bias)) + log(1 + exp(-bias))) / 2
    assert sum(values) / 3 == pytest.approx(even, abs=0.02 if bias == 0 else 0.15)
    assert bias != 0 or even == pytest.approx(0.693, abs=1e-3)


@torch.no_grad()
def test_the_loss_of_no_opinion_is_ln_2() -> None:
    method = ots(bias=0.0)
    nn.init.zeros_(method.gain)
    assert float(method(batch_of(frames=1))["match"]) == pytest.approx(log(2), abs=1e-6)


@torch.no_grad()
def test_calibration_starts_where_logits_are_small() -> None:
    plain, normalised = ots(dim=16), ots(normalize=True)
    assert float(plain.gain) == pytest.approx(1 / 4) and float(plain.bias) == OTSConfig().bias < 0
    assert float(normalised.gain) == 5 and float(normalised.bias) == 0
    assert plain.bias.requires_grad and not normalised.bias.requires_grad


@torch.no_grad()
def test_normalised_or_not_the_length_of_a_sound_counts_or_does_not() -> None:
    heats = {}
    for normalize in (False, True):
        method, batch = ots(normalize=normalize, bias=0.0).eval(), batch_of()
        before = method.localize(batch).heat
        for parameter in method.project_audio[2].parameters():
            parameter.mul_(3)
        heats[normalize] = before, method.localize(batch).heat
    torch.testing.assert_close(heats[False][1], 3 * heats[False][0])
    torch.testing.assert_close(heats[True][1], heats[True][0])
    assert heats[True][0].abs().max() <= 5


@BOTH
def test_the_map_is_the_calibrated_logit_whatever_the_sign_of_w(normalize: bool) -> None:
    method, batch = ots(normalize=normalize).eval(), batch_of()
    with torch.no_grad():
        method.gain.mul_(-1)
        cells, sounds = method.visual(batch.image)[-1], method.audio(batch.spectrogram)
        rows = []
        for picture, sound in zip(cells, sounds, strict=True):
            seen, heard = heads(method, picture, sound)
            rows.append(method.gain * torch.einsum("dhw,d->hw", seen, heard) + method.bias)
    expected = F.interpolate(torch.stack(rows)[:, None], (64, 128), mode="bilinear", align_corners=True)
    torch.testing.assert_close(method.localize(batch).heat, expected, rtol=1e-4, atol=1e-5)


@BOTH
def test_frames_may_change_places(normalize: bool) -> None:
    method, batch = ots(normalize=normalize), batch_of(size=16)
    method.visual = Pixels(method.visual.channels[-1])  # type: ignore[assignment]
    heat = method.eval().localize(batch).heat
    swapped = method.localize(replace(batch, image=batch.image.roll(16, -1))).heat
    torch.testing.assert_close(swapped, heat.roll(16, -1), rtol=1e-4, atol=1e-5)
    assert heat.std() > 1e-3


def test_one_pair_is_refused() -> None:
    with pytest.raises(ValueError, match=r"OTS: expected at least two samples.*got 1"):
        ots()(batch_of(1, frames=1))


def test_the_grid_may_be_as_coarse_as_the_trunk() -> None:
    image = batch_of(2, frames=1).image
    assert [ots(last_stride=s).eval().visual(image)[-1].shape[-1] for s in (1, 2)] == [4, 2]
