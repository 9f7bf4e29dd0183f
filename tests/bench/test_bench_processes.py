"""What it costs that two processes gather each other's negatives."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from measure import Ledger, judged, spread, told
from torch.nn.parallel import DistributedDataParallel

from m2vsl.data.loader import batches
from m2vsl.methods import METHODS
from m2vsl.presets import experiment
from m2vsl.processor import autocast, kept_memory, without_denormals
from m2vsl.report.benched import Line

ROUNDS, WORLD = 60, 2


@without_denormals()
@kept_memory()
def _worker(rank: int, folder: str, method: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    chosen = experiment(method, "duet", preset="quick", seed=0)
    data = chosen.samples("train", task=chosen.train_task)
    size = chosen.train.batch_size
    batch = next(iter(batches(data, size, chosen.audio, drop_last=True, part=(rank, WORLD), prefetch=0)))
    localizer = chosen.build(len(data.classes)).train()
    called = DistributedDataParallel(localizer)
    adam = torch.optim.Adam([p for p in localizer.parameters() if p.requires_grad], 1e-4, fused=True)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for n in range(ROUNDS + 1):
        for gather in (True, False) if n % 2 else (False, True):
            localizer.gather = gather
            dist.barrier()
            began = time.perf_counter()
            with autocast("cpu", chosen.train.precision):
                loss = torch.stack(list(called(batch).values())).sum()
            loss.backward()
            adam.step()
            adam.zero_grad()
            seconds[gather].append(time.perf_counter() - began)
    if rank == 0:
        torch.save({gather: some[1:] for gather, some in seconds.items()}, f"{folder}/seconds.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("method", ["ez_vsl", "m2vsl"])
def test_gathering_costs_a_tenth_of_a_step_at_most(ledger: Ledger, method: str, tmp_path: Path) -> None:
    mp.spawn(_worker, (str(tmp_path), method), nprocs=WORLD)
    found = torch.load(tmp_path / "seconds.pt")
    line = Line(
        suite="processes",
        name=f"{METHODS[method].title} step of two processes, negatives gathered",
        samples=experiment(method, "duet", preset="quick").train.batch_size,
        rounds=ROUNDS,
        ours=spread(found[True]),
        against="negatives of each process alone",
        reference=spread(found[False]),
        ratio=spread([alone / gathered for gathered, alone in zip(found[True], found[False], strict=True)]),
        goal=1 / 1.1,
        flops=math.nan,
        bytes=math.nan,
        product=math.nan,
        copy=math.nan,
    )
    ledger.lines.append(line)
    print(f"\n{told(line)}", end="")
    judged(line.ratio[1], line.goal)
