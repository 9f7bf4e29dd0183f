"""One, two and four processes with the same batch: the same losses, the same gradients."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from scenes import CLASSES, TINY, batch_of
from torch.nn.parallel import DistributedDataParallel

from m2vsl import parallel
from m2vsl.localizer import Localizer
from m2vsl.methods import CONTROLS, METHODS
from m2vsl.types import Batch, Truth

DOUBLE, SINGLE = torch.float64, torch.float32
# what a method draws for a batch, it draws anew in each process
STILL: dict[str, dict[str, Any]] = {
    "m2vsl": {"drop_path": 0.0},
    "m2vsl_plus": {"drop_path": 0.0, "remix": False},
    "avgn": {"drop_path": 0.0, "mixtures": False},
    "slavc": {"dropout": 0.0},
}
PAIRED = {"mix_and_localize", "dsol"}  # mixtures are made of the rows of a process
SAME = {"ez_vsl_ogl", "cam_near"}  # learn as another does
NAMES = [name for name in METHODS if name not in {*CONTROLS, *PAIRED, *SAME}]
MAIN = ("m2vsl", "ez_vsl")
CASES = [(name, DOUBLE, 2) for name in NAMES]
CASES += [(name, dtype, world) for name in MAIN for dtype, world in ((SINGLE, 2), (DOUBLE, 4))]


def method(name: str, dtype: torch.dtype) -> Localizer:
    torch.manual_seed(0)
    config = replace(METHODS[name].config, encoder=TINY, **STILL.get(name, {}))
    return METHODS[name].build(config, CLASSES).to(dtype).train()


def batch_for(name: str, dtype: torch.dtype) -> Batch:
    """Eight samples; of several sources where a method learns from such, a different number of them heard."""
    one, two = (batch_of(frames=1 if METHODS[name].solos else 2, seed=seed) for seed in (0, 1))
    truth = Truth(*(torch.cat([getattr(b.truth, f.name) for b in (one, two)]) for f in fields(Truth)))
    joined = {f.name: torch.cat([getattr(one, f.name), getattr(two, f.name)]) for f in fields(Batch)[:6]}
    joined |= {k: v.to(dtype) for k, v in joined.items() if v.is_floating_point()}
    if not METHODS[name].solos:
        joined["heard"][0, joined["heard"][0].argmax()] = 0  # muted: one query less
    return Batch(**joined, truth=truth, keys=one.keys + two.keys)


def rows(batch: Batch, first: int, count: int) -> Batch:
    cut = slice(first, first + count)
    truth = Truth(*(getattr(batch.truth, f.name)[cut] for f in fields(Truth)))
    tensors = {f.name: getattr(batch, f.name)[cut] for f in fields(Batch)[:6]}
    return Batch(**tensors, truth=truth, keys=batch.keys[cut])


def learnt(name: str, dtype: torch.dtype, *, gather: bool = True, synced: bool = True) -> tuple[Any, Any]:
    """Losses, their mean over processes, and gradients after one backward pass of this process's rows."""
    made, batch = method(name, dtype), batch_for(name, dtype)
    if parallel.world() > 1:
        count = len(batch) // parallel.world()
        batch = rows(batch, parallel.rank() * count, count)
        made = parallel.synchronised(made) if synced else made
        made.gather = gather
    called = DistributedDataParallel(made) if parallel.world() > 1 else made
    losses = called(batch)
    torch.stack(list(losses.values())).sum().backward()
    told = {k: float(parallel.mean(v)) for k, v in losses.items()}
    return told, {k: p.grad for k, p in made.named_parameters() if p.grad is not None}


def _worker(number: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet{world}", rank=number, world_size=world)
    found = {(name, dtype): learnt(name, dtype) for name, dtype, size in CASES if size == world}
    found["alone"] = learnt("ez_vsl", DOUBLE, gather=False)
    if number == 0:
        torch.save(found, f"{folder}/{world}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    folder = tmp_path_factory.mktemp("several")
    for world in (2, 4):
        mp.spawn(_worker, (world, str(folder)), nprocs=world)
    return {world: torch.load(folder / f"{world}.pt") for world in (2, 4)}


@cache
def of_one(name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    return learnt(name, dtype)


def away(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Length of the difference of two gradients over the length of the second."""
    apart = sum(float((one[key].double() - other[key].double()).square().sum()) for key in other)
    return (apart / sum(float(value.double().square().sum()) for value in other.values())) ** 0.5


@pytest.mark.parametrize(("name", "dtype", "world"), CASES, ids=str)
def test_several_processes_learn_what_one_does(
    name: str, dtype: torch.dtype, world: int, several: dict[int, Any]
) -> None:
    (losses, gradients), (theirs, their_gradients) = of_one(name, dtype), several[world][name, dtype]
    within = 1e-10 if dtype == DOUBLE else 1e-5
    assert theirs == pytest.approx(losses, abs=within, rel=within)
    assert their_gradients.keys() == gradients.keys()
    if dtype == DOUBLE:
        assert away(their_gradients, gradients) <= within
        return
    exact = of_one(name, DOUBLE)[1]  # at tau 0.03 rounding is amplified: by several processes no more than by one
    assert away(their_gradients, exact) <= 3 * away(gradients, exact)


def test_negatives_of_each_process_alone_are_fewer(several: dict[int, Any]) -> None:
    whole, gradients = of_one("ez_vsl", DOUBLE)
    for world in (2, 4):
        losses, other = several[world]["alone"]
        assert losses["contrast"] < whole["contrast"] - 0.5  # near 2 log(8 / world) where nothing is learnt
        assert any(not torch.allclose(gradients[key], other[key]) for key in gradients)
