"""Eq. 6 as loops; the blocks against torch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2vsl.attention import Attention, Block, DropPath, Grouping, LiteralBlock, literal_attention


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_literal_operator_is_the_printed_sum() -> None:
    x = tokens(2, 5, 8)
    expected = torch.zeros_like(x)
    for b in range(2):
        for j in range(5):
            weights = [math.exp(float(x[b, j] @ x[b, k]) / math.sqrt(8)) for k in range(5)]
            for k in range(5):
                expected[b, j] += weights[k] / sum(weights) * x[b, k]
    torch.testing.assert_close(literal_attention(x), expected)
    torch.testing.assert_close(LiteralBlock()(x), x + expected)


def copied(attention: Attention, dim: int, heads: int) -> nn.MultiheadAttention:
    """torch's multi-head attention with the same weights."""
    reference = nn.MultiheadAttention(dim, heads, batch_first=True)
    into(reference, attention)
    return reference


def into(reference: nn.MultiheadAttention, attention: Attention) -> None:
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([attention.query.weight, attention.key_value.weight]))
        reference.in_proj_bias.copy_(torch.cat([attention.query.bias, attention.key_value.bias]))
        reference.out_proj.load_state_dict(attention.project.state_dict())


def test_attention_is_multi_head_attention() -> None:
    torch.manual_seed(0)
    attention = Attention(16, heads=4)
    queries, context = tokens(2, 3, 16), tokens(2, 7, 16, seed=1)
    expected, _ = copied(attention, 16, 4)(queries, context, context)
    torch.testing.assert_close(attention(queries, context), expected)


def test_the_block_is_the_standard_pre_norm_block() -> None:
    torch.manual_seed(0)
    block = Block(16, heads=4, drop_path=0.0)
    for norm in (block.norm_attention, block.norm_mlp):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    reference = nn.TransformerEncoderLayer(16, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    into(reference.self_attn, block.attention)
    pairs = [(reference.norm1, block.norm_attention), (reference.norm2, block.norm_mlp)]
    pairs += [(reference.linear1, block.mlp[0]), (reference.linear2, block.mlp[2])]
    for theirs, ours in pairs:
        theirs.load_state_dict(ours.state_dict())
    x = tokens(2, 6, 16)
    torch.testing.assert_close(block(x), reference(x))


def test_heads_must_divide_the_dimension() -> None:
    with pytest.raises(ValueError, match="divisible by 3 heads, got 16"):
        Attention(16, heads=3)


def test_stochastic_depth_leaves_out_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop, x = DropPath(0.25), torch.ones(4000, 2, 3)
    dropped = drop(x)
    values = dropped[:, 0, 0]
    assert torch.equal(dropped, values[:, None, None].expand_as(dropped))
    assert sorted(set(values.tolist())) == pytest.approx([0, 4 / 3])
    assert float(dropped.mean()) == pytest.approx(1, abs=0.03)
    assert torch.equal(drop.eval()(x), x)
    assert torch.equal(DropPath(0.0)(x), x)


@pytest.fixture(scope="module")
def grouping() -> Grouping:
    torch.manual_seed(0)
    return Grouping(16, classes=3, heads=4, hidden=8)


def test_every_feature_shares_itself_out_among_the_classes(grouping: Grouping) -> None:
    share = grouping.assign(tokens(2, 3, 16), tokens(2, 7, 16, seed=1))
    assert share.shape == (2, 3, 7)
    torch.testing.assert_close(share.sum(1), torch.ones(2, 7))


@torch.no_grad()
def test_a_group_is_its_share_of_the_features_over_its_sum_plus_one(grouping: Grouping) -> None:
    """The last step of AVGN's grouping (protocol 4.1), as loops; what comes before is the module's own."""
    features, classes = tokens(1, 5, 16), tokens(1, 3, 16, seed=1)
    t, f = grouping.norm_in(classes), grouping.norm_features(features)
    t = grouping.norm_mixed(grouping.mix(t.transpose(1, 2)).transpose(1, 2) + t)
    t = grouping.norm_look(t + grouping.look(t, f))
    t = t + grouping.look_mlp(t)
    scores = grouping.query(t)[0] @ grouping.key(f)[0].T / 4
    slots = []
    for c in range(3):
        share = [float(torch.softmax(scores[:, p], 0)[c]) for p in range(5)]
        mixed = sum(share[p] * grouping.value(f)[0, p] for p in range(5)) / (sum(share) + 1)
        slot = t[0, c] + grouping.project(mixed)
        slots.append(slot + grouping.mlp(grouping.norm_out(slot)))
    torch.testing.assert_close(grouping(features, classes)[0], torch.stack(slots))


def test_the_order_of_features_does_not_matter(grouping: Grouping) -> None:
    features, classes = tokens(2, 6, 16), tokens(2, 3, 16, seed=1)
    torch.testing.assert_close(grouping(features, classes), grouping(features.flip(1), classes))


def test_a_cpu_attends_in_float32_whatever_autocast_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 its kernel takes several times as long."""
    seen = []

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        seen.append((q.dtype, torch.is_autocast_enabled("cpu")))
        return v

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    with torch.autocast("cpu", torch.bfloat16):
        Attention(16, 2)(torch.randn(1, 3, 16), torch.randn(1, 3, 16))
    assert seen == [(torch.float32, False)]
