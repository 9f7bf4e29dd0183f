"""What measuring costs: ``make bench``. Not part of ``make test``.

Wall time, since the point is that both cores work. Both sides measure the same maps in turns; each line gives a median
and its quartiles. What is asserted is of the least disturbed round of each side, and only where both cores were free.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from torch import Tensor

from m2vsl.evaluate import score
from m2vsl.metrics.overlap import Area, heat_iou
from m2vsl.metrics.protocols import EVERY, PROTOCOLS
from m2vsl.metrics.ranking import average_precision
from m2vsl.metrics.segmentation import THRESHOLDS, frame_f_curves
from m2vsl.types import Maps, Truth

CLIPS, SIDE = 256, 224
CORES = 2


@pytest.fixture(autouse=True)
def two_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def heat() -> Tensor:
    """Cosines of a 7 x 7 grid brought to size, (n, H, W)."""
    coarse = torch.rand(CLIPS, 1, 7, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear", align_corners=True)[:, 0]


@pytest.fixture(scope="module")
def boxes() -> Tensor:
    """One box per picture, of any size, bool (n, H, W)."""
    corners = torch.randint(0, SIDE + 1, (CLIPS, 2, 2), generator=torch.Generator().manual_seed(1)).sort(-1).values
    line = torch.arange(SIDE)
    inside = (line >= corners[..., :1]) & (line < corners[..., 1:] + 1)  # (n, 2, side)
    return inside[:, 0, :, None] & inside[:, 1, None, :]


def wall_seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def side_by_side(plain: Callable[[], object], ours: Callable[[], object], rounds: int) -> tuple[list[float], ...]:
    """Milliseconds per clip of each, in turns, after a warm-up of both."""
    plain(), ours()
    spent: dict[Callable[[], object], list[float]] = {plain: [], ours: []}
    for i in range(rounds):
        for work in (plain, ours) if i % 2 else (ours, plain):
            spent[work].append(wall_seconds(work) / CLIPS * 1e3)
    return spent[plain], spent[ours]


def told(name: str, values: list[float], unit: str) -> float:
    """Print the median and the quartiles; returns the median."""
    low, middle, high = statistics.quantiles(values, n=4)
    print(f"\n{name}: {middle:.3g} {unit} (quartiles {low:.3g} to {high:.3g}, n = {len(values)})", end="")
    return middle


def compared(name: str, plain: list[float], ours: list[float]) -> float:
    """Print both sides; how many times as fast ours is in its best round as the plain loop in its own."""
    medians = told(f"{name}, plain loop", plain, "ms/clip") / told(f"{name}, m2vsl", ours, "ms/clip")
    best = min(plain) / min(ours)
    print(f"\n{name}: {medians:.1f} x as fast by medians, {best:.1f} x by best rounds", end="")
    if not cores_are_free():
        pytest.skip(f"other work holds a core: {best:.1f} x was measured on less than {CORES}")
    return best


def cores_are_free(rounds: int = 20) -> bool:
    """Whether two long sorts in two threads mostly take little more time than one."""
    numbers = np.random.default_rng(0).random((CORES, 2**20), np.float32)
    with ThreadPoolExecutor(CORES) as pool:
        alone = [wall_seconds(lambda: np.sort(numbers[0])) for _ in range(rounds)]
        together = [wall_seconds(lambda: list(pool.map(np.sort, numbers))) for _ in range(rounds)]
    return statistics.median(together) < 1.4 * statistics.median(alone)


def plain_area_iou(heat: NDArray[np.float32], truth: NDArray[np.float64]) -> list[float]:
    """The published evaluation, picture by picture: normalise, sort, threshold, count."""
    values = []
    for h, g in zip(heat, truth, strict=True):
        h = (h - h.min()) / (h.max() - h.min())
        threshold = np.sort(h.flatten())[int(h.size * 0.5)]
        predicted = np.zeros(h.shape)
        predicted[h >= threshold] = 1
        values.append(np.sum(predicted * g) / (np.sum(g) + np.sum(predicted * (g == 0))))
    return values


def plain_f_curves(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> list[list[float]]:
    """F of each frame, threshold by threshold."""
    curves = []
    for p, g in zip(probability, truth, strict=True):
        curve = []
        for threshold in np.linspace(0, 1, THRESHOLDS, dtype=np.float32):
            predicted = p >= threshold
            shared = np.count_nonzero(predicted & g)
            precision, recall = shared / (np.count_nonzero(predicted) + 1e-20), shared / (np.count_nonzero(g) + 1e-20)
            curve.append(1.3 * precision * recall / (0.3 * precision + recall) if shared else 0.0)
        curves.append(curve)
    return curves


@pytest.mark.parametrize(  # the goal is 8; 7.1 by medians, 7.6 by best rounds was measured for bool truths
    ("truth_type", "times_as_fast"), [(torch.bool, 6), (torch.float32, 4)]
)
def test_area_iou_by_the_published_loop(
    heat: Tensor, boxes: Tensor, truth_type: torch.dtype, times_as_fast: float
) -> None:
    theirs, ours = boxes.double().numpy(), boxes.to(truth_type)
    assert heat_iou(heat, ours, Area(0.5)).tolist() == plain_area_iou(heat.numpy(), theirs)
    times = side_by_side(lambda: plain_area_iou(heat.numpy(), theirs), lambda: heat_iou(heat, ours, Area(0.5)), 20)
    assert compared(f"area-50 IoU, truth {truth_type}", *times) >= times_as_fast


def test_average_precision_against_scikit_learn(heat: Tensor, boxes: Tensor) -> None:
    def plain() -> list[float]:
        return [average_precision_score(g.ravel(), h.ravel()) for h, g in zip(heat.numpy(), boxes.numpy(), strict=True)]

    truth = boxes.float()
    assert average_precision(heat, truth).tolist() == pytest.approx(plain(), abs=1e-12)
    assert compared("average precision", *side_by_side(plain, lambda: average_precision(heat, truth), 3)) >= 8


def test_f_curves_against_threshold_by_threshold(heat: Tensor, boxes: Tensor) -> None:
    probability, truth = torch.sigmoid(heat).numpy(), boxes.float()
    expected = torch.tensor(plain_f_curves(probability, boxes.numpy()), dtype=torch.float64)
    torch.testing.assert_close(frame_f_curves(heat, truth), expected, rtol=0, atol=1e-12)
    times = side_by_side(lambda: plain_f_curves(probability, boxes.numpy()), lambda: frame_f_curves(heat, truth), 5)
    assert compared("F at 255 thresholds", *times) >= 4


def test_all_protocols_in_one_pass(heat: Tensor, boxes: Tensor) -> None:
    """5,158 clips in a minute: 11.6 ms per clip."""
    maps = Maps(heat[:, None], torch.tensor([-1]))
    present = torch.ones(CLIPS, 1, dtype=torch.bool)
    truth = Truth(boxes[:, None].float(), torch.zeros(CLIPS, 1, dtype=torch.int64), present)
    keys = [str(i) for i in range(CLIPS)]
    for name, family in (("ours", PROTOCOLS), ("every", EVERY)):
        protocols = tuple(family.values())
        score(maps, truth, keys, protocols)
        times = [wall_seconds(partial(score, maps, truth, keys, protocols)) / CLIPS * 1e3 for _ in range(5)]
        told(f"{len(protocols)} protocols, AP, CAP, PIAP ({name})", times, "ms/clip")
        if not cores_are_free():
            pytest.skip(f"other work holds a core: {min(times):.1f} ms/clip was measured on less than {CORES}")
        assert min(times) <= 60e3 / 5158
