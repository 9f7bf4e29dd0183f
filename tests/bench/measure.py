"""How things are measured: two sides in turns, operations and bytes counted, ceilings of the machine beside them."""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from multiprocessing.connection import Connection
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from m2vsl import records
from m2vsl.processor import has_bfloat16
from m2vsl.report.benched import NONE, Bench, Growth, Line, Spread

Work = Callable[[], object]
Make = Callable[..., AbstractContextManager[Work]]
CORES = min(2, torch.get_num_threads())


def wall_seconds(work: Work) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def cpu_seconds(work: Work) -> float:
    """Processor time of one call, all threads: a busy machine does not tell."""
    began = time.process_time()
    work()
    return time.process_time() - began


def in_turns(sides: Sequence[Work], rounds: int) -> list[list[float]]:
    """Seconds of each side, once per round, the order changing; after a warm-up of all."""
    for work in sides:
        work()
    spent: list[list[float]] = [[] for _ in sides]
    for i in range(rounds):
        for n in range(len(sides))[:: 1 if i % 2 else -1]:
            spent[n].append(wall_seconds(sides[n]))
    return spent


def spread(values: Sequence[float]) -> Spread:
    """Lower quartile, median, upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


class Traffic(TorchDispatchMode):
    """Bytes that operations inside read and write, as if nothing stayed in a cache; views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        views = any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns)
        if not views and "empty" not in func.__name__:
            self.bytes += sum(map(_bytes, tree_leaves((args, kwargs, made))))
        return made


def _bytes(x: Any) -> int:
    return min(x.numel() * x.element_size(), x.untyped_storage().nbytes()) if isinstance(x, Tensor) else 0


class Apart:
    """A work in a process of its own, that shares neither memory nor settings with other sides; a call runs it there.

    make: a function of a module; called there once, with its arguments, it gives a context of the work.
    """

    def __init__(self, make: Make, *args: object, **options: object) -> None:
        context = multiprocessing.get_context("spawn")
        self.here, there = context.Pipe()
        context.Process(target=_serve, args=(there, partial(make, *args, **options)), daemon=True).start()
        there.close()

    def __call__(self) -> object:
        return self._ask(None)

    def counted(self) -> tuple[float, float]:
        """`counted`, there."""
        return self._ask(counted)

    def _ask(self, question: Any) -> Any:
        self.here.send(question)
        return self.here.recv()  # EOFError if it died: its own error is on standard error


def _serve(there: Connection, make: Make) -> None:
    with make() as work, suppress(EOFError):
        while True:
            asked = there.recv()
            there.send(asked(work) if asked else work() and None)


def counted(work: Work) -> tuple[float, float]:
    """Operations of matrix products and convolutions, and bytes, of one call."""
    with Traffic() as traffic, FlopCounterMode(display=False) as operations:
        work()
    return float(operations.get_total_flops()), float(traffic.bytes)


def ceilings() -> dict[str, float]:
    """What this machine does at best: operations a second of a matrix product, bytes a second of a copy."""
    side, found = 2048, {}
    kinds = {"float32": torch.float32} | ({"bfloat16": torch.bfloat16} if has_bfloat16() else {})
    for name, kind in kinds.items():
        one, other = torch.randn(2, side, side).to(kind)
        found[name] = 2 * side**3 / min(in_turns([lambda a=one, b=other: a @ b], 5)[0])
    source, target = torch.ones(2, 2**26)
    found["copy"] = 2 * source.nbytes / min(in_turns([lambda: target.copy_(source)], 5)[0])
    return found


def cores_are_free(rounds: int = 20) -> bool:
    """Whether two long sorts, one on each core, mostly take little more time than one alone."""
    if CORES < 2:
        return False
    numbers = np.random.default_rng(0).random((CORES, 2**20), np.float32)
    with ThreadPoolExecutor(CORES) as pool:
        alone = [wall_seconds(lambda: np.sort(numbers[0])) for _ in range(rounds)]
        together = [wall_seconds(lambda: list(pool.map(np.sort, numbers))) for _ in range(rounds)]
    return statistics.median(together) < 1.4 * statistics.median(alone)


@dataclass(frozen=True)
class Race:
    """A line, and the least disturbed round of each side."""

    line: Line
    best: float  # the reference's shortest time over ours


@dataclass
class Ledger:
    """Everything that one run measures."""

    lines: list[Line] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    @cached_property
    def ceilings(self) -> dict[str, float]:
        """Measured once."""
        return ceilings()

    def race(
        self,
        suite: str,
        ours: Mapping[str, Work],
        plain: Work | None = None,
        *,
        against: str = "",
        samples: int = 1,
        rounds: int = 5,
        goals: Mapping[str, float] = MappingProxyType({}),
        kind: str = "float32",
        counts: bool = True,
    ) -> list[Race]:
        """Measure works of `ours`, by name, beside one `plain`; print and keep their lines. kind: of our products."""
        spent = in_turns([*ours.values(), *([plain] if plain else [])], rounds)
        theirs, made = spent[len(ours)] if plain else [], []
        for (name, work), mine in zip(ours.items(), spent, strict=False):
            seconds = spread(mine)
            count = work.counted if isinstance(work, Apart) else partial(counted, work)
            operations, moved = count() if counts else (math.nan, math.nan)
            line = Line(
                suite=suite,
                name=name,
                samples=samples,
                rounds=rounds,
                ours=seconds,
                against=against,
                reference=spread(theirs) if plain else NONE,
                ratio=spread([b / a for a, b in zip(mine, theirs, strict=True)]) if plain else NONE,
                goal=goals.get(name, math.nan),
                flops=operations,
                bytes=moved,
                product=operations / seconds[1] / self.ceilings[kind],
                copy=moved / seconds[1] / self.ceilings["copy"],
            )
            self.lines.append(line)
            print(f"\n{told(line)}", end="")
            made.append(Race(line, min(theirs) / min(mine) if plain else math.nan))
        return made

    def grow(self, name: str, work: str, sizes: Sequence[int], made: Callable[[int], Work], rounds: int = 3) -> Growth:
        """Measure the work that `made` makes of each size."""
        seconds = []
        for size in sizes:
            run = made(size)
            run()
            seconds.append(min(cpu_seconds(run) for _ in range(rounds)))
        growth = Growth(name, work, tuple(sizes), tuple(seconds))
        self.growths.append(growth)
        times = ", ".join(f"{s:.3g}" for s in seconds)
        print(f"\n{name} {growth.sizes}: {times} s, order {growth.order:.2f}, at last {growth.last:.2f}", end="")
        return growth

    def bench(self) -> Bench:
        """The record of what was measured."""
        made = (tuple(self.lines), tuple(self.growths), self.memory, self.ceilings, CORES, self.load)
        return Bench(*made, **records.provenance())


def told(line: Line) -> str:
    """A line in words."""
    low, middle, high = line.ours
    parts = [f"{line.name}: {middle:.3g} s ({low:.3g} to {high:.3g}), {line.samples / middle:.3g} samples/s"]
    if line.against:
        low, middle, high = line.ratio
        parts.append(f"{middle:.2f} x as fast ({low:.2f} to {high:.2f}, n = {line.rounds}) as {line.against}")
    if not math.isnan(line.flops):
        parts.append(f"{line.flops / 1e9:.3g} GFLOP, {100 * line.product:.0f} % of the product ceiling")
        parts.append(f"{line.bytes / 1e9:.3g} GB, {100 * line.copy:.0f} % of the copy ceiling")
    if line.reached is not None:
        parts.append(f"goal {line.goal:.3g} x {'reached' if line.reached else 'MISSED'}")
        parts += [f"{line.bound:.2g} x at the ceiling"] * (not math.isnan(line.bound))
    return "; ".join(parts)


def judged(found: float, goal: float, unit: str = "x") -> None:
    """Fail where a goal is missed, unless other work holds a core."""
    if found < goal and not cores_are_free():
        pytest.skip(f"other work holds a core: {found:.3g} {unit} on less than two, the goal is {goal:.3g} {unit}")
    assert found >= goal, f"{found:.3g} {unit}, the goal is {goal:.3g} {unit}"
