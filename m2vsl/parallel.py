"""One process or several: who am I, and what did the others compute?"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    """The number of processes that train together; 1 outside of a distributed run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_main() -> bool:
    """This process writes the files and prints."""
    return rank() == 0


def gather_with_gradient(x: Tensor) -> Tensor:
    """`x` of every process, concatenated in rank order: (B, ...) -> (world * B, ...); `x` itself in a single process.

    Negatives of a contrastive loss shrink with the number of processes unless they are gathered (ledger 42). The
    gradient that reaches `x` is the sum over all processes, so after DistributedDataParallel's mean over processes it
    is that of one process with the whole batch. Every process must pass the same shape (drop the last, short batch).
    """
    return x if world() == 1 else _Gather.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[rank() * ctx.rows : (rank() + 1) * ctx.rows]
