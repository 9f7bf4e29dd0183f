"""One process or several: who am I, what did the others compute, and who goes first?

Outside of a distributed run there is one process, and everything here is the identity.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

MEET = float(os.environ.get("M2VSL_MEET", "300"))  # seconds that a process waits for the others at the start
WAIT = timedelta(hours=2)  # that the others wait while one of them scores or writes


def start() -> None:
    """Meet the other processes that ``torchrun`` or ``accelerate launch`` has started; nothing if there are none.

    NCCL where there are GPUs, one for each process, else gloo. ValueError for more processes on this machine than
    GPUs; ConnectionError, naming the place, if the others do not come within `MEET` seconds.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if 0 < gpus < here:
        raise ValueError(
            f"{here} processes, but {gpus} GPU(s) on this machine: start fewer (torchrun --nproc-per-node {gpus}), "
            "or hide the GPUs (CUDA_VISIBLE_DEVICES=) to run on the processor"
        )
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        store, number, count = next(dist.rendezvous("env://", timeout=timedelta(seconds=MEET)))
        dist.init_process_group("nccl" if gpus else "gloo", store=store, rank=number, world_size=count, timeout=WAIT)
    except (dist.DistError, ValueError) as error:
        raise ConnectionError(f"the other processes were not met at {place} within {MEET:.0f} s: {error}") from error


def world() -> int:
    """The number of processes that train together; 1 outside of a distributed run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_main() -> bool:
    """This process writes the files and prints."""
    return rank() == 0


@contextmanager
def main_first() -> Iterator[None]:
    """The main process goes through what is inside before the others do."""
    if world() > 1 and not is_main():
        dist.barrier()
    yield
    if world() > 1 and is_main():
        dist.barrier()


def mean(x: Tensor) -> Tensor:
    """The mean of `x` over all processes, without gradient."""
    if world() == 1:
        return x.detach()
    total = x.detach().clone()
    dist.all_reduce(total)
    return total / world()


def of_each(value: Any) -> list[Any]:
    """`value` of every process, in rank order; anything that can be pickled."""
    found = [value] * world()
    if world() > 1:
        dist.all_gather_object(found, value)
    return found


def gather_with_gradient(x: Tensor) -> Tensor:
    """`x` of every process, concatenated in rank order: (B, ...) -> (sum of all B, ...); `x` itself in a single one.

    Negatives of a contrastive loss shrink with the number of processes unless they are gathered (ledger 42). The
    gradient that reaches `x` is the sum over all processes, so after DistributedDataParallel's mean over processes it
    is that of one process with the whole batch. Processes may have different numbers of rows.
    """
    return x if world() == 1 else _Gather.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        own = torch.tensor([len(x)], device=x.device)
        counts = [torch.empty_like(own) for _ in range(world())]
        dist.all_gather(counts, own)
        rows = [int(count) for count in counts]
        ctx.rows = rows
        padded = torch.cat([x, x.new_zeros(max(rows) - len(x), *x.shape[1:])]).contiguous()
        parts = [torch.empty_like(padded) for _ in rows]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, rows, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole, own = gradients[0].contiguous(), ctx.rows[rank()]
        parts = whole.new_empty(world() * own, *whole.shape[1:])  # what each process says of the rows of this one
        dist.all_to_all_single(parts, whole, [own] * world(), ctx.rows)
        return parts.unflatten(0, (world(), own)).sum(0)


class SyncedNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all processes together, on any device and in any precision.

    `torch.nn.SyncBatchNorm` is faster and for GPUs alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same; in training all processes must call it."""
        if not self.training or world() == 1:
            return super().forward(x)
        from torch.distributed.nn.functional import all_reduce

        wide = x if x.dtype == torch.float64 else x.float()
        count = mean(wide.new_tensor(float(x.numel() // x.shape[1]))) * world()
        centre = all_reduce(wide.sum((0, 2, 3))) / count
        away = wide - centre[:, None, None]
        variance = all_reduce(away.square().sum((0, 2, 3))) / count
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)  # type: ignore[arg-type]
            with torch.no_grad():
                self.running_mean.lerp_(centre.to(self.running_mean), share)
                self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), share)
        out = away * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            out = out * self.weight[:, None, None] + self.bias[:, None, None]
        return out.to(x.dtype)


def synchronised(module: nn.Module) -> nn.Module:
    """`module` with every batch normalisation over all processes; names of weights stay as they are."""
    if next((p.is_cuda for p in module.parameters()), False):
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                synced = SyncedNorm(child.num_features)
                synced.__dict__.update(child.__dict__)
                setattr(parent, name, synced)
    return module
