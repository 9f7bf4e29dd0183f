"""Eqs. 1 to 4 against the sums of the paper, written as loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from m2vsl import losses, ops

TAU = 0.03
OWNER = torch.tensor([0, 1, 1, 2, 3, 3])  # the pictures of six sounds: two of them have two


def drawn_scores(scales: int = 3, pictures: int = 4, sounds: int = 6) -> list[Tensor]:
    """Cosines between -0.3 and 0.3, one (B, N) per scale."""
    drawn = torch.Generator().manual_seed(0)
    return [0.6 * torch.rand(pictures, sounds, generator=drawn) - 0.3 for _ in range(scales)]


def some_excluded() -> Tensor:
    """Pairs of a picture and another's sound that do not count."""
    excluded = torch.zeros(4, 6, dtype=torch.bool)
    excluded[0, 3] = excluded[2, 0] = excluded[3, 1] = excluded[0, 5] = True
    return excluded


def loops(scores: list[Tensor], owner: Tensor, excluded: Tensor | None) -> tuple[float, float]:
    """(Eq. 2, Eq. 3) in double precision: sums over scales, means over sounds."""
    to_visual = to_audio = 0.0
    out = torch.zeros_like(scores[0], dtype=torch.bool) if excluded is None else excluded
    for s in scores:
        for n, b in enumerate(owner.tolist()):
            positive = math.exp(float(s[b, n]) / TAU)
            pictures = [math.exp(float(s[k, n]) / TAU) for k in range(len(s)) if not out[k, n]]
            others = [k for k in range(len(owner)) if k == n or int(owner[k]) != b]  # not the other sounds of b
            sounds = [math.exp(float(s[b, k]) / TAU) for k in others if not out[b, k]]
            to_visual -= math.log(positive / sum(pictures)) / len(owner)
            to_audio -= math.log(positive / sum(sounds)) / len(owner)
    return to_visual, to_audio


@pytest.mark.parametrize("excluded", [None, some_excluded()], ids=["all pairs", "pairs left out"])
@pytest.mark.parametrize(
    ("owner", "pictures"), [(torch.arange(5), 5), (OWNER, 4)], ids=["one sound per picture", "several"]
)
def test_the_losses_are_the_sums_of_the_paper(owner: Tensor, pictures: int, excluded: Tensor | None) -> None:
    scores = drawn_scores(3, pictures, len(owner))
    if excluded is not None and pictures != len(excluded):
        excluded = torch.zeros(pictures, len(owner), dtype=torch.bool)
        excluded[0, 1] = excluded[3, 2] = True
    to_visual, to_audio = loops(scores, owner, excluded)
    assert float(losses.audio_to_visual(scores, owner, TAU, excluded)) == pytest.approx(to_visual, rel=1e-5)
    assert float(losses.visual_to_audio(scores, owner, TAU, excluded)) == pytest.approx(to_audio, rel=1e-5)
    assert float(losses.mmc(scores, owner, TAU, excluded)) == pytest.approx(to_visual + to_audio, rel=1e-5)
    assert float(losses.bag_contrastive(scores[0], owner, TAU, excluded)) == pytest.approx(
        loops(scores[:1], owner, excluded)[0], rel=1e-5
    )


def test_with_one_scale_mmc_is_ez_vsl() -> None:
    """EZ-VSL's loss: cross-entropy of the rows plus cross-entropy of the columns of the max-pooled similarities."""
    drawn = torch.Generator().manual_seed(3)
    cells, sounds = ops.unit(torch.randn(5, 16, 3, 3, generator=drawn)), ops.unit(torch.randn(5, 16, generator=drawn))
    logits = torch.einsum("bdhw,nd->bnhw", cells, sounds).flatten(2).amax(-1) / TAU
    labels = torch.arange(5)
    expected = torch.nn.functional.cross_entropy(logits, labels) + torch.nn.functional.cross_entropy(logits.T, labels)
    torch.testing.assert_close(losses.mmc([ops.peak_cosine(cells, sounds)], labels, TAU), expected)


def test_scores_that_say_nothing_cost_the_logarithm_of_the_choice() -> None:
    flat = torch.zeros(8, 8)
    assert float(losses.mmc([flat, flat], torch.arange(8), TAU)) == pytest.approx(2 * 2 * math.log(8))


def test_a_perfect_score_costs_nothing_and_the_losses_are_float32() -> None:
    perfect = (2 * torch.eye(6) - 1).bfloat16()
    loss = losses.mmc([perfect], torch.arange(6), TAU)
    assert loss.dtype == torch.float32
    assert 0 <= float(loss) < 1e-6


def test_an_excluded_pair_gets_no_gradient() -> None:
    scores = drawn_scores(1)[0].requires_grad_()
    losses.mmc([scores], OWNER, TAU, some_excluded()).backward()
    assert scores.grad is not None and torch.isfinite(scores.grad).all()
    assert (scores.grad[some_excluded()] == 0).all()
    assert (scores.grad[OWNER, torch.arange(6)] < 0).all()


def test_presence_is_binary_cross_entropy_averaged_over_the_batch() -> None:
    drawn = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(3, 4, generator=drawn), torch.tensor([[1, 0, 0, 1], [0, 0, 1, 0], [1, 0, 0, 0]])
    total = 0.0
    for row, answers in zip(logits.tolist(), labels.tolist(), strict=True):
        for x, y in zip(row, answers, strict=True):
            p = 1 / (1 + math.exp(-x))
            total -= math.log(p if y else 1 - p)
    assert float(losses.presence(logits, labels, "sum")) == pytest.approx(total / 3)
    assert float(losses.presence(logits, labels)) == pytest.approx(total / 12)


def test_token_identity_wants_token_c_to_be_class_c() -> None:
    assert float(losses.token_identity(torch.zeros(7, 7))) == pytest.approx(math.log(7))
    assert float(losses.token_identity(50 * torch.eye(7))) < 1e-6
    assert float(losses.token_identity(50 * torch.eye(7).roll(1, 0))) > 10
