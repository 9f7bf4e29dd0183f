"""What things cost: ``make bench``. Not part of ``make test``.

Two costs are compared side by side, in turns, in CPU seconds of this process, so that a busy machine does not tell;
rates are also given in wall time, which a busy machine does change. Every line gives a median and its quartiles.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from m2vsl import losses, ops
from m2vsl.audio import AUDIO
from m2vsl.data.loader import batches
from m2vsl.data.synthetic import SyntheticConfig, SyntheticDataset
from m2vsl.presets import experiment

GRIDS = (56, 28, 14, 7)  # cells per side of the four stages of a 224 px picture
BATCH, DIM = 128, 512


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of one call, all threads."""
    began = time.process_time()
    work()
    return time.process_time() - began


def side_by_side(one: Callable[[], object], other: Callable[[], object], rounds: int = 5) -> list[float]:
    """`one` over `other`, once per round, the order changing; after a warm-up of both."""
    one(), other()
    ratios = []
    for i in range(rounds):
        order = (one, other) if i % 2 else (other, one)
        spent = {work: cpu_seconds(work) for work in order}
        ratios.append(spent[one] / spent[other])
    return ratios


def told(name: str, values: list[float], unit: str = "x") -> float:
    """Print the median and the quartiles; returns the median."""
    low, middle, high = statistics.quantiles(values, n=4)
    print(f"\n{name}: {middle:.3g} {unit} (quartiles {low:.3g} to {high:.3g}, n = {len(values)})", end="")
    return middle


@pytest.fixture(scope="module")
def pyramid() -> list[Tensor]:
    """S = 4 stages (B, D, h, w); 1.1 GB."""
    drawn = torch.Generator().manual_seed(0)
    return [torch.randn(BATCH, DIM, side, side, generator=drawn) for side in GRIDS]


@pytest.fixture(scope="module")
def sounds() -> Tensor:
    """One unit vector per picture, (N, D)."""
    return ops.unit(torch.randn(BATCH, DIM, generator=torch.Generator().manual_seed(1)))


def contrast(pyramid: list[Tensor], sounds: Tensor) -> Tensor:
    """Eqs. 2 to 4, with all that they need."""
    scores = [ops.peak_cosine(stage, sounds) for stage in pyramid]
    return losses.mmc(scores, torch.arange(BATCH), 0.03)


def products(pyramid: list[Tensor], sounds: Tensor) -> list[Tensor]:
    """The four matrix products alone."""
    return [torch.matmul(sounds, stage.flatten(2)) for stage in pyramid]


@torch.no_grad()
def test_mmc_costs_little_more_than_its_matrix_products(pyramid: list[Tensor], sounds: Tensor) -> None:
    ratios = side_by_side(lambda: contrast(pyramid, sounds), lambda: products(pyramid, sounds))
    assert told("MMC forward over its four matrix products", ratios) <= 1.3


def test_mmc_with_its_backward_pass(pyramid: list[Tensor], sounds: Tensor) -> None:
    leaves = [stage.clone().requires_grad_() for stage in pyramid]

    def learn() -> None:
        contrast(leaves, sounds).backward()
        for leaf in leaves:
            leaf.grad = None

    ratios = side_by_side(learn, lambda: products(pyramid, sounds), rounds=3)
    assert told("MMC forward and backward over its four matrix products", ratios) > 0


def test_two_cores_make_two_hundred_samples_a_second() -> None:
    size, rounds = 32, 6
    dataset = SyntheticDataset(SyntheticConfig(size=112), "train")
    made = iter(batches(dataset, size, AUDIO["paper300"], shuffle=True, prefetch=0))
    next(made)
    rates = [2 * size / cpu_seconds(lambda: next(made)) for _ in range(rounds)]
    per_second = told("synthetic solos of 112 px, by two cores", rates, "samples/s of CPU time")
    made = iter(batches(dataset, size, AUDIO["paper300"], shuffle=True, workers=2))
    next(made)
    began, rates = time.perf_counter(), []
    for _ in range(rounds):
        next(made)
        rates.append(size / (time.perf_counter() - began))
        began = time.perf_counter()
    load = os.getloadavg()[0]
    told(f"the same by two workers (load {load:.1f} on {os.cpu_count()} cores)", rates, "samples/s of wall time")
    assert per_second >= 200


@pytest.mark.parametrize("method", ["ez_vsl", "m2vsl", "m2vsl_plus"])
def test_a_training_step_of_the_quick_preset(method: str) -> None:
    chosen = experiment(method, "duet", preset="quick")
    data = chosen.samples("train", task=chosen.train_task)
    batch = next(iter(batches(data, chosen.train.batch_size, chosen.audio, prefetch=0)))
    batch = replace(batch, image=batch.image.contiguous(memory_format=torch.channels_last))
    localizer = chosen.build(len(data.classes)).to(memory_format=torch.channels_last).train()
    adam = torch.optim.Adam([p for p in localizer.parameters() if p.requires_grad], 1e-3, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=chosen.train.precision == "bf16"):
            loss = torch.stack(list(localizer(batch).values())).sum()
        loss.backward()
        adam.step()
        adam.zero_grad()

    step()
    rates = [len(batch) / cpu_seconds(step) for _ in range(4)]
    assert told(f"training {method}/{chosen.train_task}, quick", rates, "samples/s of CPU time") > 0
