"""The fast loops give what plain ones give, to the last bit, in any number of threads."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from m2vsl.metrics import fast
from m2vsl.metrics.overlap import Above, Area, Matched, MinMax, OfMax, Rule, binarise, bound, consensus_iou, heat_iou
from m2vsl.metrics.ranking import average_precision_matrix
from m2vsl.metrics.segmentation import frame_f_curves

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
seeds = st.integers(0, 2**31 - 1)
RULES = [Area(0.5), Area(0.3), Above(0.5), OfMax(0.2), MinMax(0.5), Matched()]


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Blocks of two maps of 6 x 8, shared out among threads however small the work."""
    monkeypatch.setattr(fast, "GRAIN", 1)
    monkeypatch.setattr(fast, "BLOCK", 2 * 48)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def drawn(seed: int, maps: int = 7, *, size: tuple[int, int] = (6, 8), levels: int | None = None) -> torch.Tensor:
    """Maps of both signs, with ties if `levels` is given; the third is constant, the fourth nearly so."""
    source = torch.Generator().manual_seed(seed)
    heat = torch.randn(maps, *size, generator=source)
    heat = heat if levels is None else (heat * levels).round() / levels
    heat[2:4] = 0.25
    heat[3, : size[0] * 2 // 3] += 1e-7
    return heat


def truths(seed: int, maps: int = 7, size: tuple[int, int] = (6, 8)) -> torch.Tensor:
    """Random truths of 0 and 1, the empty and the full one among them."""
    source = torch.Generator().manual_seed(seed)
    truth = (torch.rand(maps, *size, generator=source) < torch.rand(maps, 1, 1, generator=source)).float()
    truth[0], truth[1] = 0, 1
    return truth


def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the forms in torch, which other devices use."""
    monkeypatch.setattr(fast, "on_cpu", lambda *_: False)


# integers ------------------------------------------------------------------------------------------------------------


@given(st.lists(floats, min_size=2, max_size=20), st.sampled_from([np.float32, np.float64]))
def test_integers_are_in_the_order_of_their_floats(drawn: list[float], kind: type) -> None:
    values: np.ndarray = np.array([*drawn, 0.0, -0.0, np.finfo(kind).tiny, -np.finfo(kind).max, np.inf, -np.inf], kind)
    order = fast.as_integers(values)
    assert (np.sort(values) == values[order.argsort()]).all()
    back = fast.as_floats(order)
    assert back.dtype == kind and back.tobytes() == values.tobytes()


def test_nan_is_beyond_infinity() -> None:
    nan = np.array([np.nan, np.inf, -np.inf, np.copysign(np.nan, -1)], np.float32)
    assert fast.as_integers(nan).argsort().tolist() == [3, 2, 1, 0]


@settings(deadline=None)
@given(seeds, st.sampled_from([None, 2]), st.sampled_from([torch.float32, torch.float64]))
def test_the_nth_largest_is_that_of_a_sort(seed: int, levels: int | None, kind: torch.dtype) -> None:
    heat = fast.rows(drawn(seed, levels=levels).to(kind))
    n = np.random.default_rng(seed).integers(0, 49, 7)
    found = fast.nth_largest(heat, n)
    expected = [np.inf if not k else np.sort(row)[-k] for row, k in zip(heat, n, strict=True)]
    assert found.dtype == heat.dtype and found.tolist() == expected


# the metrics ---------------------------------------------------------------------------------------------------------


def plain_area_iou(heat: np.ndarray, truth: np.ndarray) -> list[float]:
    """As published, picture by picture: normalise, sort, threshold, count."""
    values = []
    for h, g in zip(heat, truth, strict=True):
        h = (h - h.min()) / (h.max() - h.min())
        predicted = np.zeros(h.shape)
        predicted[h >= np.sort(h.flatten())[int(h.size * 0.5)]] = 1
        values.append(np.sum(predicted * g) / (np.sum(g) + np.sum(predicted * (g == 0))))
    return values


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bool, torch.uint8, torch.int64])
@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_area_iou_is_that_of_the_published_loop(threads: int, kind: torch.dtype, size: tuple[int, int]) -> None:
    heat = torch.stack([torch.randperm(size[0] * size[1]).view(size) for _ in range(20)]).float()
    truth = truths(1, 20, size)
    found = heat_iou(heat, truth.to(kind), Area(0.5))
    assert found.dtype == torch.float64
    assert found.tolist() == plain_area_iou(heat.numpy(), truth.double().numpy())


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("levels", [None, 2])
def test_every_rule_is_what_it_is_in_torch(
    threads: int, rule: Rule, levels: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    heat = drawn(3, levels=levels)
    cases = [(h, g) for h in (heat, heat.double(), heat - 9) for g in (truths(4), truths(4) * 0.5)]
    cases += [(heat.unflatten(0, (7, 1)), truths(4).unflatten(0, (7, 1))), (heat[:0], truths(4)[:0])]
    cases += [(heat.mT, truths(4).mT), (heat[:1].expand(7, 6, 8), truths(4))]
    fused = [heat_iou(h, g, rule) for h, g in cases]
    apart = [consensus_iou(binarise(h, rule, g), g) for h, g in cases]
    chosen = [binarise(h, rule, g) for h, g in cases]
    slow(monkeypatch)
    for (h, g), found, other, pixels in zip(cases, fused, apart, chosen, strict=True):
        expected = consensus_iou(binarise(h, rule, g), g)
        assert torch.equal(pixels, binarise(h, rule, g))
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(other, expected, rtol=0, atol=0, equal_nan=True)


def test_memory_in_any_order(threads: int) -> None:
    predicted, truth = drawn(3) > 0, truths(4)
    everything = torch.ones(1, 1, 1, dtype=torch.bool).expand(predicted.shape)
    assert torch.equal(consensus_iou(everything, truth), truth.double().mean((-2, -1)))
    assert consensus_iou(predicted[:, :, ::2], everything[:, :, ::2]).tolist() == [
        float(pixels.double().mean()) for pixels in predicted[:, :, ::2]
    ]


def test_bounds_are_what_they_are_in_torch(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = truths(5) * torch.tensor([0.5, 1.0])[torch.randint(0, 2, (7, 6, 8))]
    found = [bound(kind, Area(0.2)) for kind in (truth, truth.half())]
    slow(monkeypatch)
    assert all(torch.equal(value, bound(truth, Area(0.2))) for value in found)


@pytest.mark.parametrize("levels", [None, 2])
def test_precision_is_what_it_is_in_torch_and_in_scikit_learn(
    threads: int, levels: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    heat, truth = drawn(6, 12, levels=levels).view(4, 3, 6, 8), truths(7, 8).view(4, 2, 6, 8)
    heat[0, 0].clamp_(min=0).mul_(-1)  # zeros of both signs tie
    found = average_precision_matrix(heat, truth)
    for b, k, s in np.ndindex(4, 3, 2):
        if truth[b, s].any() and (b, k) not in ((0, 2), (1, 0)):  # constants are ours alone
            expected = average_precision_score(truth[b, s].flatten(), heat[b, k].flatten())
            assert float(found[b, k, s]) == pytest.approx(expected, abs=1e-12)
    many = average_precision_matrix(heat[:, :1], truth[:, :1].expand(4, 31, 6, 8))
    torch.testing.assert_close(many, found[:, :1, :1].expand(4, 1, 31), rtol=0, atol=0, equal_nan=True)
    slow(monkeypatch)
    torch.testing.assert_close(found, average_precision_matrix(heat, truth), rtol=0, atol=1e-12, equal_nan=True)


def test_more_truths_than_a_key_has_room_for() -> None:
    heat, truth = drawn(8, 4)[:1], truths(9, 40)
    found = average_precision_matrix(heat, truth)
    torch.testing.assert_close(
        found[:, 5:15], average_precision_matrix(heat, truth[5:15]), rtol=0, atol=1e-12, equal_nan=True
    )
    assert found.shape == (1, 40)


def test_f_curves_are_what_they_are_in_torch(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, truth = drawn(10) * 4, truths(11)
    logits[:, 0] = 0  # a probability of just a threshold
    found = frame_f_curves(logits, truth)
    slow(monkeypatch)
    assert torch.equal(found, frame_f_curves(logits, truth))


def test_refusals_are_those_of_the_slow_form(threads: int) -> None:
    heat, truth = drawn(12), truths(13)
    for wrong, said in (
        (torch.nan, "1 NaN and 0 inf"),
        (-torch.inf, "0 NaN and 1 inf"),
        (torch.inf, "0 NaN and 1 inf"),
    ):
        bad = heat.clone()
        bad[5, 3, 3] = wrong
        with pytest.raises(ValueError, match=said):
            heat_iou(bad, truth, Area(0.5))
    for wrong in (-1.0, 2.0, torch.nan):
        bad = truth.clone()
        bad[5, 3, 3] = wrong
        with pytest.raises(ValueError, match=r"expected truth in \[0, 1\]"):
            heat_iou(heat, bad, Area(0.5))
        with pytest.raises(ValueError, match=r"expected truth in \[0, 1\]"):
            consensus_iou(heat > 0, bad)
    with pytest.raises(ValueError, match=r"expected truth of the heat's shape"):
        heat_iou(heat, truth[:3], Area(0.5))
    with pytest.raises(ValueError, match=r"expected heat of shape \(\.\.\., H, W\)"):
        heat_iou(heat[0, 0], truth[0, 0], Area(0.5))


# threads -------------------------------------------------------------------------------------------------------------


def test_work_is_shared_out_in_order(threads: int) -> None:
    numbers, seen = np.arange(11 * 48).reshape(11, 48), []

    def work(part: np.ndarray) -> np.ndarray:
        seen.append(len(part))
        return part[:, 0]

    assert fast.shared_out(work, numbers).tolist() == numbers[:, 0].tolist()
    assert sum(seen) == 11 and max(seen) == 2


def test_an_error_in_a_thread_is_raised(threads: int) -> None:
    def work(part: np.ndarray) -> np.ndarray:
        if part[0, 0] >= 9 * 48:
            raise ArithmeticError("the last block")
        return part

    with pytest.raises(ArithmeticError, match="the last block"):
        fast.shared_out(work, np.arange(11 * 48).reshape(11, 48))


def measured_in_a_child(queue: multiprocessing.Queue) -> None:
    queue.put(fast.nth_largest(np.arange(96, dtype=np.float32).reshape(2, 48), np.array([1, 48])).tolist())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes do not fork here")
def test_a_forked_process_starts_threads_of_its_own(threads: int) -> None:
    fast.nth_largest(np.arange(96, dtype=np.float32).reshape(2, 48), np.array([1, 48]))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=measured_in_a_child, args=(queue,))
    child.start()
    assert queue.get(timeout=30) == [47.0, 48.0]
    child.join(30)
    assert child.exitcode == 0
