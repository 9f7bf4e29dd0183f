"""What the processor can do, and the state of it that training borrows."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
