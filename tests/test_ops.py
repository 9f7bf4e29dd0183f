"""Unit vectors, similarities, peaks, upsampling."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from m2vsl import ops


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_unit_vectors_have_norm_one_and_zero_stays_zero() -> None:
    x = randn(2, 5, 3)
    x[0, :, 1] = 0
    norms = ops.unit(x).norm(dim=1)
    assert norms[0, 1] == 0
    norms[0, 1] = 1
    torch.testing.assert_close(norms, torch.ones(2, 3))
    torch.testing.assert_close(ops.unit(x, -1).norm(dim=-1)[1], torch.ones(5))


@pytest.mark.parametrize("own", [False, True], ids=["shared queries", "queries of each picture"])
def test_similarity_is_the_inner_product_of_every_location_with_every_query(own: bool) -> None:
    features, queries = randn(2, 4, 3, 5), randn(*((2, 6, 4) if own else (6, 4)), seed=1)
    got = ops.similarity(features, queries)
    assert got.shape == (2, 6, 3, 5)
    for b in range(2):
        for n in range(6):
            query = queries[b, n] if own else queries[n]
            for y in range(3):
                for x in range(5):
                    torch.testing.assert_close(got[b, n, y, x], (features[b, :, y, x] * query).sum())


def test_everything_is_float32_under_autocast_too() -> None:
    """At a temperature of 0.03 the steps of bfloat16 are a tenth of a nat."""
    features, queries = ops.unit(randn(2, 64, 3, 3)), ops.unit(randn(5, 64, seed=1))
    exact = [ops.similarity(features, queries), ops.peak_cosine(features, queries)]
    exact.append(ops.spread(exact[0], [features], 2, 0.1))
    with torch.autocast("cpu", torch.bfloat16):
        got = [ops.similarity(features, queries), ops.peak_cosine(features, queries)]
        got.append(ops.spread(got[0], [features], 2, 0.1))
    for one, other in zip(got, exact, strict=True):
        assert torch.equal(one, other) and one.dtype == torch.float32
    assert ops.similarity(features.bfloat16(), queries.bfloat16()).dtype == torch.float32


def test_peak_cosine_has_the_value_and_the_gradient_of_the_maximum() -> None:
    tensors = [(randn(3, 8, 4, 5).requires_grad_(), randn(6, 8, seed=1).requires_grad_()) for _ in range(2)]
    features, queries = tensors[1]
    values = [ops.peak_cosine(*tensors[0]), ops.peak(ops.similarity(ops.unit(features), ops.unit(queries)))]
    assert values[0].shape == (3, 6)
    torch.testing.assert_close(*values)
    for value in values:
        (value * randn(3, 6, seed=2)).sum().backward()
    for one, other in zip(*tensors, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("side", [3, 30])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_peak_cosine_is_the_same_in_pieces_and_without_gradient(side: int, layout: torch.memory_format) -> None:
    features, queries = randn(3, 8, side, side + 1).contiguous(memory_format=layout), randn(6, 8, seed=1)
    plain = torch.empty(3, 6)
    for b in range(3):
        for n in range(6):
            cells = features[b].flatten(1).T  # (hw, D)
            plain[b, n] = torch.nn.functional.cosine_similarity(cells, queries[n], dim=1).amax()
    torch.testing.assert_close(ops.peak_cosine(features, queries), plain)
    torch.testing.assert_close(ops.peak_cosine(features.requires_grad_(), queries).detach(), plain)


@pytest.mark.parametrize("block", [1, 300, 5000, 10**9], ids=["one map", "two maps", "pictures", "all at once"])
@pytest.mark.parametrize("soft", [False, True], ids=["peak", "soft peak"])
def test_blocks_of_any_size_have_the_values_and_gradients_of_the_dense_form(
    soft: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "BLOCK", block)
    tensors = [(randn(5, 8, 6, 7).requires_grad_(), randn(7, 8, seed=1).requires_grad_()) for _ in range(2)]
    (cells, sounds), (features, queries) = tensors
    maps = ops.similarity(ops.unit(features), ops.unit(queries, -1))
    dense = ops.soft_peak(maps, 20.0) if soft else ops.peak(maps)
    blocks = ops.soft_peak_cosine(cells, sounds, 20.0) if soft else ops.peak_cosine(cells, sounds)
    torch.testing.assert_close(blocks, dense, rtol=0, atol=1e-6)
    for value in (blocks, dense):
        (value * randn(5, 7, seed=2)).sum().backward()
    for one, other in zip(*tensors, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-6)


class Largest(TorchDispatchMode):
    """Notes the most numbers that any operation inside gives back."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves(made) if isinstance(x, torch.Tensor)]
        self.numbers = max([self.numbers, *(x.numel() for x in tensors)])
        return made


@pytest.mark.parametrize("soft", [False, True], ids=["peak", "soft peak"])
def test_nothing_larger_than_the_features_is_ever_made(soft: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "BLOCK", 20_000)
    features, queries = randn(16, 4, 20, 20).requires_grad_(), randn(64, 4, seed=1).requires_grad_()
    with Largest() as largest:
        scores = ops.soft_peak_cosine(features, queries, 20.0) if soft else ops.peak_cosine(features, queries)
        scores.sum().backward()
    assert largest.numbers == features.numel() < 64 * 16 * 20 * 20 / 10


def test_the_contrast_costs_no_more_than_the_square_of_the_batch() -> None:
    def operations(batch: int) -> int:
        features, queries = randn(batch, 8, 6, 6).requires_grad_(), randn(batch, 8, seed=1).requires_grad_()
        with FlopCounterMode(display=False) as counted:
            ops.peak_cosine(features, queries).sum().backward()
        return counted.get_total_flops()

    counts = [operations(batch) for batch in (16, 32, 64)]
    assert counts[1] <= 4 * counts[0] and counts[2] <= 4 * counts[1]


def test_peak_cosine_of_nothing_is_zero() -> None:
    assert ops.peak_cosine(torch.zeros(1, 4, 2, 2), randn(2, 4)).tolist() == [[0, 0]]


def test_soft_peak_goes_from_the_mean_to_the_peak() -> None:
    maps = randn(2, 3, 4, 5)
    torch.testing.assert_close(ops.soft_peak(maps, 1e-3), maps.mean((-2, -1)), rtol=0, atol=2e-3)
    torch.testing.assert_close(ops.soft_peak(maps, 1e5), ops.peak(maps), rtol=0, atol=1e-4)
    exact = (maps[0, 0].double() * 2).exp().mean().log() / 2
    torch.testing.assert_close(ops.soft_peak(maps, 2.0)[0, 0].double(), exact, rtol=1e-6, atol=1e-6)
    flat = torch.full((1, 4, 5), 0.7)
    torch.testing.assert_close(ops.soft_peak(flat, 20.0), torch.tensor([0.7]))


def test_spread_is_a_mean_over_cells_that_look_alike() -> None:
    maps, pyramid, temperature = randn(1, 2, 2, 3), [randn(1, 4, 2, 3, seed=1), randn(1, 6, 2, 3, seed=2)], 0.3
    cells = [f[0].flatten(1).T for f in pyramid]  # (hw, D) each
    flat = maps[0].flatten(1)
    for _ in range(2):
        new = torch.zeros_like(flat)
        for i in range(6):
            alike = [sum(torch.cosine_similarity(c[i], c[j], 0) for c in cells) / 2 for j in range(6)]
            weights = torch.softmax(torch.stack(alike) / temperature, 0)
            new[:, i] = (flat * weights).sum(1)
        flat = new
    torch.testing.assert_close(ops.spread(maps, pyramid, 2, temperature)[0].flatten(1), flat)
    torch.testing.assert_close(ops.spread(maps, pyramid, 0, temperature), maps)


def test_spread_resizes_the_pyramid_and_keeps_a_constant_map() -> None:
    got = ops.spread(torch.full((1, 2, 4, 6), 0.3), [randn(1, 4, 8, 12), randn(1, 4, 2, 3)], 3, 0.1)
    torch.testing.assert_close(got, torch.full((1, 2, 4, 6), 0.3))


def test_upsampling_keeps_the_corners() -> None:
    maps = randn(1, 2, 3, 4)
    got = ops.upsample(maps, (12, 20))
    assert got.shape == (1, 2, 12, 20)
    torch.testing.assert_close(got[..., [0, 0, -1, -1], [0, -1, 0, -1]], maps[..., [0, 0, -1, -1], [0, -1, 0, -1]])


def test_min_max_spreads_each_map_over_zero_to_one_and_leaves_a_constant_one() -> None:
    maps = torch.stack([randn(4, 5), 3 * randn(4, 5, seed=1), torch.full((4, 5), -2.0)])
    got = ops.min_max(maps)
    torch.testing.assert_close(got[:2].amin((-2, -1)), torch.zeros(2))
    torch.testing.assert_close(got[:2].amax((-2, -1)), torch.ones(2))
    assert torch.equal(got[2], maps[2])
    assert torch.equal(got.flatten(1).argsort(), maps.flatten(1).argsort())
