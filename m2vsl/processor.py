"""What the processor can do, and the state of it that training borrows."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType

import torch

# parameters of glibc's mallopt: at most so many free bytes stay with the process, larger blocks come from the kernel
TRIM, MAP = -1, -3
KEPT = MappingProxyType({TRIM: 2**31 - 1, MAP: 2**30})
USUAL = MappingProxyType({TRIM: 2**26, MAP: 2**25})  # where glibc's own thresholds come to rest in such a process
_inside: list[bool] = []  # one `kept_memory` inside another changes nothing


def has_bfloat16(kind: str = "cpu") -> bool:
    """Whether a kind of device ("cpu", "cuda") computes bfloat16 by instructions of its own.

    Where it has none, PyTorch still computes it, on a processor many times slower than float32: 65 times was measured
    for a matrix product.
    """
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(kind: str, precision: str) -> torch.autocast:
    """Autocast as a run of "fp32" or "bf16" asks for it; none where bfloat16 would be emulated (`has_bfloat16`)."""
    return torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16" and has_bfloat16(kind))


@contextmanager
def without_denormals() -> Iterator[None]:
    """Inside, numbers below 1e-38 are 0: they make a CPU several times slower and change nothing. Then as before."""
    before = bool(torch.tensor(1e-40) * 1 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside, memory that is freed stays with the process and is used again. Then it is given back.

    Otherwise every large tensor of a step on a CPU begins with pages that the kernel has to clear: a third of a step of
    EZ-VSL in bfloat16 and more (``make bench``, "choices"). What the process holds at most is the same to a hundredth.
    Only glibc can be told so; elsewhere, and where the environment sets ``MALLOC_...`` itself, nothing happens.
    """
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if (
        libc is None
        or not hasattr(libc, "mallopt")
        or _inside
        or any(name.startswith("MALLOC_") for name in os.environ)
    ):
        yield
        return
    _inside.append(True)
    try:
        for key, value in KEPT.items():
            libc.mallopt(key, value)
        yield
    finally:
        for key, value in USUAL.items():
            libc.mallopt(key, value)
        libc.malloc_trim(0)
        _inside.clear()
