r"""The few loops over the pixels of a map where numpy on the CPU beats torch: selection, sorting and counting.

Integers are selected and sorted about twice as fast as floats, and the bits of a float, read as an integer, are in its
order once those of negative numbers are turned round. So nothing here is approximate: the results are those of the
plain loops. Maps are shared among as many threads as torch uses; numpy lets them run at the same time.

Conventions
-----------
- Arrays are (N, P): N maps or pictures of P = H * W pixels, contiguous rows. Heat is finite, float32 or float64.
- Tensors on another device, and what numpy has no type for, are not `on_cpu`: callers keep a form in torch for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
GRAIN = 2**17  # pixels that are worth a thread
BLOCK = 2**19  # pixels that are worked on at a time
TYPES = (torch.float32, torch.float64, torch.bool, torch.uint8)
TRUTHS = range(1, 32)  # how many truths find room in a sort key of 64 bits beside a float32


def on_cpu(*maps: Tensor) -> bool:
    """Whether all `maps` are on the CPU and of a type that is fast in numpy: float32, float64, bool, uint8."""
    return all(tensor.device.type == "cpu" and tensor.dtype in TYPES for tensor in maps)


def rows(maps: Tensor) -> Array:
    """(..., H, W) -> contiguous (N, H * W), without a copy where they are so already."""
    return maps.detach().reshape(-1, maps.shape[-2] * maps.shape[-1]).contiguous().numpy()


def shared_out(work: Callable[..., Array], *arrays: Array) -> Array:
    """`work` on blocks of `arrays` cut along their first axis; its results (n, ...) one after the other.

    A block is a few maps, which a core keeps at hand, and enough that threads rarely wait for one another between two
    calls of numpy. Every thread has its own run of blocks; this one has the first.
    """
    pictures, pixels = len(arrays[0]), arrays[0].size
    step = max(1, BLOCK * pictures // pixels)

    def run(start: int, stop: int) -> list[Array]:
        edges = [*range(start, stop, step), stop]
        return [work(*(array[i:j] for array in arrays)) for i, j in pairwise(edges)]

    threads = max(1, min(torch.get_num_threads(), pictures, pixels // GRAIN))
    if threads == 1:
        return np.concatenate(run(0, pictures))
    first, *others = pairwise(pictures * i // threads for i in range(threads + 1))
    running = [_pool(threads - 1).submit(run, *part) for part in others]
    return np.concatenate([*run(*first), *(block for part in running for block in part.result())])


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that stay: to start one takes longer than ten maps."""
    return ThreadPoolExecutor(threads, thread_name_prefix="m2vsl-metrics")


if hasattr(os, "register_at_fork"):  # where processes fork, threads are not inherited
    os.register_at_fork(after_in_child=_pool.cache_clear)


def as_integers(values: Array, out: Array | None = None) -> Array:
    """Integers in the order of the floats `values`, -0.0 just below 0.0; `as_floats` takes them back.

    >>> as_integers(np.array([-1.0, -0.0, 0.0, 2.5], np.float32)).argsort()
    array([0, 1, 2, 3])
    """
    bits = values.view(f"i{values.itemsize}")
    turned = np.right_shift(bits, 8 * values.itemsize - 1, out=out)  # -1 where negative
    turned &= 2 ** (8 * values.itemsize - 1) - 1
    turned ^= bits
    return turned


def as_floats(integers: Array) -> Array:
    """The floats that `as_integers` took in: a number turned round twice is itself."""
    return as_integers(integers).view(f"f{integers.itemsize}")


def nth_largest(heat: Array, n: Array) -> Array:
    """The n-th largest value of each map (1 = the largest), n: int (N,); infinity where n is 0. Returns (N,).

    >>> nth_largest(np.array([[3.0, -1.0, 2.0]], np.float32), np.array([2]))
    array([2.], dtype=float32)
    """

    def select(heat: Array, place: Array) -> Array:
        found = np.full(len(heat), np.inf, heat.dtype)
        for i in np.flatnonzero(place < heat.shape[-1]):
            order = as_integers(heat[i])
            order.partition(place[i])
            found[i : i + 1] = as_floats(order[place[i] : place[i] + 1])
        return found

    return shared_out(select, heat, heat.shape[-1] - n)


@dataclass(frozen=True)
class Counts:
    """Pixels of each map, float64 (N,)."""

    true: Tensor
    predicted: Tensor
    shared: Tensor


def counts(predicted: Array, truth: Array) -> Counts | None:
    """How many pixels a prediction, bool (N, P), shares with a truth of 0 and 1; None for any other truth.

    >>> counts(np.array([[True, True, False]]), np.array([[1.0, 0.0, 1.0]])).shared
    tensor([1.], dtype=torch.float64)
    """
    return _binary(shared_out(_counted, predicted, truth), truth.shape[-1])


def hottest_counts(heat: Array, truth: Array, n: int) -> tuple[Counts, Tensor, Tensor] | None:
    """`counts` of the pixels no colder than the n-th largest, and the lowest and the highest heat of each map, (N,).

    None for a truth with other values than 0 and 1, and for heat that is not finite.
    """
    place = heat.shape[-1] - n

    def count(heat: Array, truth: Array) -> Array:
        ranked = as_integers(heat)
        ranked.partition(place)
        ends = ranked[:, : place + 1].min(1), ranked[:, place:].max(1)
        return np.column_stack([_counted(heat >= as_floats(ranked[:, place : place + 1]), truth), *ends])

    table = shared_out(count, heat, truth)
    found, ends = _binary(table, heat.shape[-1]), torch.from_numpy(as_floats(table[:, 4:].astype(f"i{heat.itemsize}")))
    return (found, ends[:, 0], ends[:, 1]) if found is not None and bool(ends.isfinite().all()) else None


def _counted(predicted: Array, truth: Array) -> Array:
    """How many pixels are 0 in the truth, 1 in the truth, predicted, both: int64 (n, 4)."""
    real = truth if truth.dtype == np.bool_ else truth == 1
    true = _how_many(real)
    background = truth.shape[-1] - true if real is truth else _how_many(truth == 0)
    return np.stack([background, true, _how_many(predicted), _how_many(predicted & real)], 1)


def _how_many(pixels: Array) -> Array:
    """How many are set: bool (n, P) -> (n,). Of whole words the bits are counted."""
    if pixels.shape[-1] % 8:
        return np.count_nonzero(pixels, axis=1)
    return np.bitwise_count(pixels.view(np.uint64)).sum(1, dtype=np.uint32)


def _binary(table: Array, pixels: int) -> Counts | None:
    background, *found = torch.from_numpy(table[:, :4]).double().unbind(1)
    return Counts(*found) if bool((background + found[0] == pixels).all()) else None


def precisions(heat: Array, truth: Array) -> Array:
    """Average precision of float32 maps (N, K, P) against truths (N, S, P), S <= 31: (N, K, S), NaN for an empty truth.

    The truth of a pixel travels in the lowest bits of its sort key, so nothing needs to be looked up afterwards.

    >>> precisions(np.array([[[9.0, 8.0, 7.0, 6.0]]], np.float32), np.array([[[1.0, 0.0, 0.0, 1.0]]]))
    array([[[0.75]]])
    """

    def measure(heat: Array, truth: Array) -> Array:
        return np.array([_precisions(maps, masks) for maps, masks in zip(heat, truth, strict=True)])

    return shared_out(measure, heat, truth)


def _precisions(heat: Array, truth: Array) -> Array:
    """One picture: (K, P), (S, P) -> (K, S)."""
    bits, sources = np.zeros(heat.shape[-1], np.int64), len(truth)
    for s in range(sources):
        bits |= (truth[s] > 0).astype(np.int64) << s
    result = np.full((len(heat), sources), np.nan)
    for k, row in enumerate(heat):
        keys = (~as_integers(row + 0.0)).astype(np.int64) << sources | bits  # from hot to cold; + 0.0 makes -0.0 zero
        keys.sort()
        value = keys >> sources
        last = np.append(value[1:] != value[:-1], True)  # of those that tie
        for s in range(sources):
            hit = (keys & (1 << s)) != 0
            if hit.any():
                result[k, s] = _ranked_precision(hit, last)
    return result


def _ranked_precision(hit: Array, last: Array) -> float:
    """Mean over the true pixels of the precision at their threshold, which takes in all that tie with them."""
    place = np.flatnonzero(hit)
    if last.all():
        return float((np.arange(1, len(place) + 1) / (place + 1)).mean())
    end = np.flatnonzero(last)[(last.cumsum() - last)[place]]
    return float((hit.cumsum()[end] / (end + 1)).mean())


def reaching(values: Array, real: Array, thresholds: Array) -> Array:
    """How many pixels (N, P) are at least each of T ascending thresholds, all and those of the truth: (N, 2, T).

    >>> reaching(np.array([[0.2, 0.7]]), np.array([[True, False]]), np.array([0.0, 0.5, 1.0]))
    array([[[2, 1, 0],
            [1, 0, 0]]])
    """

    def count(values: Array, real: Array) -> Array:
        return np.array(
            [[_reaching(row, thresholds), _reaching(row[g], thresholds)] for row, g in zip(values, real, strict=True)]
        )

    return shared_out(count, values, real)


def _reaching(values: Array, thresholds: Array) -> Array:
    return len(values) - np.searchsorted(np.sort(values), thresholds)
