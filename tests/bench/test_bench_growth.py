"""How costs grow with the batch, the scales, the tokens and the classes: nothing is worse than quadratic."""

from __future__ import annotations

from collections.abc import Callable

import torch
from measure import Ledger
from test_bench_loss import contrast, drawn

from m2vsl.encoders import EncoderConfig
from m2vsl.model import MMT, M2VSLConfig

LIMIT = 2.2
GRIDS = (56, 28, 14, 7)
DIM = 128  # of the preset quick


def learning(batch: int, dim: int, grids: tuple[int, ...]) -> Callable[[], None]:
    """The contrast forward and backward on features that are there."""
    stages, sounds = drawn(batch, dim, grids)
    leaves = [stage.requires_grad_() for stage in stages]
    return lambda: contrast(leaves, sounds).backward()


def attending(batch: int, classes: int, side: int) -> Callable[[], None]:
    """The transformer forward and backward on features that are there."""
    torch.manual_seed(0)
    pyramid, sounds = drawn(batch, DIM, (14, 14, 14, 7))
    mmt = MMT(M2VSLConfig(encoder=EncoderConfig(dim=DIM), tokens=side), classes)

    def run() -> None:
        slots = mmt(pyramid, sounds)
        (slots.audio.square().mean() + slots.visual.square().mean()).backward()

    return run


def test_with_the_batch(ledger: Ledger) -> None:
    found = ledger.grow(
        "pictures and sounds, B",
        "MMC alone, forward and backward, D = 64, grids of 14 and 7",
        (64, 128, 256, 512, 1024),
        lambda batch: learning(batch, 64, (14, 7)),
    )
    assert found.order <= LIMIT


def test_with_the_scales(ledger: Ledger) -> None:
    count = {sum(side**2 for side in GRIDS[-n:]): n for n in (1, 2, 3, 4)}
    found = ledger.grow(
        "cells of 1, 2, 3, 4 scales",
        f"MMC alone, forward and backward, D = {DIM}, B = 32",
        tuple(count),
        lambda cells: learning(32, DIM, GRIDS[-count[cells] :]),
    )
    assert found.order <= LIMIT


def test_with_the_tokens(ledger: Ledger) -> None:
    sides = {len(GRIDS) * side**2: side for side in (3, 5, 7, 10)}
    found = ledger.grow(
        "tokens of four scales",
        f"MMT, forward and backward, D = {DIM}, B = 8, C = 37; 3, 5, 7, 10 tokens a side",
        tuple(sides),
        lambda tokens: attending(8, 37, sides[tokens]),
    )
    assert found.order <= LIMIT


def test_with_the_classes(ledger: Ledger) -> None:
    found = ledger.grow(
        "classes, C",
        f"MMT, forward and backward, D = {DIM}, B = 4, 5 x 5 tokens",
        (37, 221, 1000),
        lambda classes: attending(4, classes, 5),
    )
    assert found.order <= LIMIT
