"""The global generators of torch, numpy and python: keep, bring back, borrow."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """The state of the generators of torch (CPU and, where used, CUDA), numpy and python, in plain values."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    drawn = (str(kind), torch.tensor([int(k) for k in keys]), int(position), int(has_gauss), float(cached))
    version, numbers, gauss = random.getstate()
    python = (version, torch.tensor(numbers), gauss)
    return {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": drawn, "python": python}


def set_random_state(state: Mapping[str, Any]) -> None:
    """Undo whatever was drawn since `random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Inside, the generators of the CPU start from `seed`; afterwards they go on as if nothing had been drawn."""
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch the GPU's too
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])
        random.setstate(kept[2])
