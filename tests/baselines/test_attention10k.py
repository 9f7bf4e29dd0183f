"""Attention10k: the ratio of two distances, the contrast of DSOL's authors, and the map behind the attention."""

from __future__ import annotations

from dataclasses import replace
from math import exp, sqrt
from typing import Any

import pytest
import torch
from scenes import CLASSES, TINY, Pixels, batch_of
from torch import Tensor
from torch.nn import functional as F

from m2vsl.baselines.attention10k import Attention10k, Attention10kConfig, ratio
from m2vsl.types import Batch


def attention10k(**choices: object) -> Attention10k:
    torch.manual_seed(0)
    return Attention10k(Attention10kConfig(**{"encoder": TINY, **choices}), CLASSES)


def linear(layer: Any, x: Tensor) -> Tensor:
    return layer.weight @ x + layer.bias


def attended(method: Attention10k, cells: Tensor, sound: Tensor) -> Tensor:
    """Senocak et al., section 3: one picture's cells (C_v, h, w), one sound (C_a,) -> what is seen of it (C_a,)."""
    contrastive = method.config.loss == "contrastive"
    query = linear(method.ask[2], linear(method.ask[0], sound).clamp(min=0))
    query = query.clamp(min=0) if contrastive else query
    query, places = query / query.norm(), [cells[:, y, x] for y in range(cells.shape[1]) for x in range(cells.shape[2])]
    cosines = [float(place @ query / place.norm()) for place in places]
    weights = [exp(c if contrastive else max(c, 0)) for c in cosines]
    assert max(weights) / min(weights) <= exp(2 if contrastive else 1)  # no temperature
    pooled = torch.zeros_like(places[0])
    for weight, place in zip(weights, places, strict=True):
        pooled += weight / sum(weights) * (place / place.norm() if contrastive else place)
    if contrastive:
        return linear(method.answer[2], linear(method.answer[0], pooled).clamp(min=0)).clamp(min=0)
    return linear(method.answer[2], linear(method.answer[0], pooled.clamp(min=0)).clamp(min=0))


def parts(method: Attention10k, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cells (B, C_v, h, w) and sounds (B, C_a) of a method with queries among what it sees: attention that matters.

    Sounds are a tenth as long as they come, that no distance saturates the loss.
    """
    pixels = method.visual = Pixels(method.visual.channels[-1])  # type: ignore[assignment]
    method.audio.layers[-1].register_forward_hook(lambda _, __, out: 0.1 * out)
    method.ask[2].weight.copy_(pixels.look.weight[:, :, 0, 0] @ torch.randn(3, TINY.dim))
    method.ask[2].bias.zero_()
    method.answer[2].weight.mul_(20)
    return method.visual(batch.image)[-1], method.audio(batch.spectrogram)


@torch.no_grad()
def test_what_is_seen_must_be_nearer_to_its_own_sound_than_to_another() -> None:
    """Baselines 2: the negative enters through its distance alone; the picture is attended to by its own sound."""
    method, batch = attention10k().eval(), batch_of(frames=1, size=8)
    cells, sounds = parts(method, batch)
    expected = 0.0
    for i in range(4):
        seen = attended(method, cells[i], sounds[i])
        torch.testing.assert_close(method.see(cells, sounds)[i], seen, rtol=1e-4, atol=1e-5)
        own, other = float((seen - sounds[i]).norm()), float((seen - sounds[i - 1]).norm())
        expected += (exp(own) / (exp(own) + exp(other))) ** 2 / 4
    losses = method(batch)
    assert set(losses) == {"ratio"} and float(losses["ratio"]) == pytest.approx(expected, rel=1e-4)


def test_the_ratio_loss_is_the_mean_square_of_p_and_the_error_of_both_outputs() -> None:
    own, other = torch.rand(2, 16).mul(5)
    p = torch.stack([own, other], -1).softmax(-1)
    torch.testing.assert_close(ratio(own, other), p[:, 0].square().mean())
    torch.testing.assert_close(ratio(own, other), F.mse_loss(p, torch.tensor([0.0, 1.0]).expand(16, 2)))
    assert ratio(own + 1, other) > ratio(own, other) > ratio(own, other + 1)


@torch.no_grad()
def test_a_quarter_is_lost_where_nothing_tells_the_sounds_apart() -> None:
    """Baselines 1.5: 0.25 for equal distances; a fresh method, whose sounds differ in length, loses more."""
    method, batch = attention10k().eval(), batch_of(8, frames=1)
    noise = batch.spectrogram
    alike = noise[:1].expand(8, -1, -1, -1)
    assert float(method(replace(batch, spectrogram=alike))["ratio"]) == pytest.approx(0.25, abs=1e-5)
    assert float(method(replace(batch, spectrogram=alike + 0.01 * noise))["ratio"]) == pytest.approx(0.25, abs=0.03)
    assert 0.25 < float(method.train()(batch)["ratio"]) < 0.5


@torch.no_grad()
@pytest.mark.parametrize("margin", [10.0, 4.0])
def test_the_contrast_takes_another_picture_and_attends_to_it_anew(margin: float) -> None:
    """The form of DSOL's authors, baselines 2: 1/2 [y d^2 + (1 - y) max(0, margin - d)^2], mean over all pairs."""
    method, batch = attention10k(loss="contrastive", margin=margin).eval(), batch_of(frames=1, size=8)
    cells, sounds = parts(method, batch)
    pull = push = 0.0
    for i in range(4):
        own = float((attended(method, cells[i], sounds[i]) - sounds[i]).norm())
        other = float((attended(method, cells[i - 1], sounds[i]) - sounds[i]).norm())
        pull, push = pull + own**2 / 2 / 8, push + max(0.0, margin - other) ** 2 / 2 / 8
    losses = {name: float(value) for name, value in method(batch).items()}
    assert losses == {"pull": pytest.approx(pull, rel=1e-4), "push": pytest.approx(push, rel=1e-4)}
    assert (push > 0) == (margin == 10)  # distances are about 5


@torch.no_grad()
@pytest.mark.parametrize(("distance", "share"), [(5.0, 1 / 8), (0.0, 1 / 4), (10.0, 1 / 4), (12.0, 0.36)])
def test_where_all_distances_are_equal_the_contrast_loses_least_at_half_the_margin(
    distance: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Baselines 1.5: margin^2 / 8 where nothing is learnt."""
    method = attention10k(loss="contrastive")
    away = distance / sqrt(method.audio.channels)
    monkeypatch.setattr(method, "see", lambda cells, sound: sound + away)
    assert float(sum(method(batch_of(frames=1)).values())) == pytest.approx(share * 100, rel=1e-4)


@pytest.mark.parametrize("loss", ["ratio", "contrastive"])
def test_the_map_is_the_cosine_with_the_query_not_clipped(loss: str) -> None:
    method, batch = attention10k(loss=loss).eval(), batch_of()
    heat = method.localize(batch).heat
    with torch.no_grad():
        query = method.ask(method.audio(batch.spectrogram))
        query = query.clamp(min=0) if loss == "contrastive" else query
        coarse = torch.cosine_similarity(method.visual(batch.image)[-1], query[:, :, None, None])[:, None]
    torch.testing.assert_close(heat, F.interpolate(coarse, (64, 128), mode="bilinear", align_corners=True))
    assert (heat.min() < 0) == (loss == "ratio")


def test_frames_may_change_places() -> None:
    method, batch = attention10k(), batch_of(size=16)
    method.visual = Pixels(method.visual.channels[-1])  # type: ignore[assignment]
    heat = method.eval().localize(batch).heat
    swapped = method.localize(replace(batch, image=batch.image.roll(16, -1))).heat
    torch.testing.assert_close(swapped, heat.roll(16, -1))
    assert heat.std() > 1e-3


def test_one_pair_is_refused_and_so_is_an_unknown_loss() -> None:
    with pytest.raises(ValueError, match=r"Attention10k: expected at least two samples.*got 1"):
        attention10k()(batch_of(1, frames=1))
    with pytest.raises(ValueError, match="loss: expected ratio or contrastive, got 'nce'"):
        Attention10kConfig(loss="nce")


def test_the_grid_may_be_as_coarse_as_the_trunk() -> None:
    image = batch_of(2, frames=1).image
    assert [attention10k(last_stride=s).eval().visual(image)[-1].shape[-1] for s in (1, 2)] == [4, 2]
