"""What the multi-scale contrast costs, beside the dense form of its equations."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import plain
import pytest
import torch
from measure import CORES, Ledger
from torch import Tensor

from m2vsl import losses, ops

GRIDS = (56, 28, 14, 7)  # cells per side of the four stages of a 224 px picture
BATCH, DIM, TAU = 64, 512, 0.03
LARGE = 256  # pictures of the run whose memory is measured
ROOM, MOST = 10, 24  # GiB: free, for that run to be made; that it may take


def drawn(batch: int, dim: int = DIM, grids: tuple[int, ...] = GRIDS) -> tuple[list[Tensor], Tensor]:
    """Stages (B, D, h, w) in the memory order of training, and as many sounds (N, D)."""
    numbers = torch.Generator().manual_seed(0)
    stages = [torch.randn(batch, side, side, dim, generator=numbers).permute(0, 3, 1, 2) for side in grids]
    return stages, torch.randn(batch, dim, generator=numbers)


def contrast(pyramid: list[Tensor], sounds: Tensor) -> Tensor:
    """Eqs. 2 to 4, with all that they need."""
    scores = [ops.peak_cosine(stage, sounds) for stage in pyramid]
    return losses.mmc(scores, torch.arange(len(sounds)), TAU)


@pytest.fixture(scope="module")
def pyramid() -> tuple[list[Tensor], Tensor]:
    return drawn(BATCH)


@torch.no_grad()
def test_forward(ledger: Ledger, pyramid: tuple[list[Tensor], Tensor]) -> None:
    torch.testing.assert_close(contrast(*pyramid), plain.contrast(*pyramid, TAU), rtol=1e-5, atol=1e-4)
    ledger.race(
        "loss",
        {"MMC forward": lambda: contrast(*pyramid)},
        lambda: plain.contrast(*pyramid, TAU),
        against="the dense form",
        samples=BATCH,
    )


def test_forward_and_backward(ledger: Ledger, pyramid: tuple[list[Tensor], Tensor]) -> None:
    leaves, sounds = [stage.requires_grad_() for stage in pyramid[0]], pyramid[1]

    def learn(loss: Tensor) -> Tensor:
        for leaf in leaves:
            leaf.grad = None
        loss.backward()
        return leaves[-1].grad

    ours, theirs = learn(contrast(leaves, sounds)), learn(plain.contrast(leaves, sounds, TAU))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    ledger.race(
        "loss",
        {"MMC forward and backward": lambda: learn(contrast(leaves, sounds))},
        lambda: learn(plain.contrast(leaves, sounds, TAU)),
        against="the dense form",
        samples=BATCH,
        rounds=3,
    )


def test_memory_of_a_large_batch(ledger: Ledger) -> None:
    """256 pictures, four scales, 512 channels, forward and backward: features and their gradient, and little more."""
    free = available()
    if free < ROOM:
        pytest.skip(f"{free:.0f} GiB of memory are free, {ROOM} are asked for")
    done = subprocess.run([sys.executable, __file__, str(LARGE)], capture_output=True, text=True, check=True)
    most, seconds = json.loads(done.stdout)
    ledger.memory[f"MMC of {LARGE} pictures"] = most
    print(f"\nMMC of {LARGE} pictures, forward and backward: {most:.1f} GiB at most, {seconds:.0f} s", end="")
    assert most <= MOST


def available() -> float:
    """Memory that is free, GiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) / 2**20 for line in lines if line.startswith("MemAvailable"))


def main(batch: int) -> None:
    """Print the largest memory of one forward and backward pass, GiB, and its seconds."""
    import resource
    import time

    torch.set_num_threads(CORES)
    stages, sounds = drawn(batch)
    began = time.perf_counter()
    contrast([stage.requires_grad_() for stage in stages], sounds).backward()
    seconds = time.perf_counter() - began
    print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, seconds]))


if __name__ == "__main__":
    main(int(sys.argv[1]))
