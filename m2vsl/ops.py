"""Small operations that every method shares: unit vectors, similarities, peaks, upsampling."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def unit(x: Tensor, dim: int = 1) -> Tensor:
    """`x` divided by its Euclidean norm along `dim`; float32, whatever autocast says. Zero stays zero."""
    return F.normalize(x.float(), dim=dim)


def similarity(features: Tensor, queries: Tensor) -> Tensor:
    """Inner product of every location of every picture with every query; cosines if both are unit vectors.

    features: (B, D, h, w); queries: (N, D), compared with every picture, or (B, N, D), each with its own.
    Returns (B, N, h, w), float32.
    """
    batch, _, h, w = features.shape
    flat = features.float().flatten(2)  # (B, D, hw)
    with torch.autocast(features.device.type, enabled=False):
        return torch.matmul(queries.float(), flat).view(batch, -1, h, w)


def peak(maps: Tensor) -> Tensor:
    """The largest value of each map: (..., h, w) -> (...)."""
    return maps.flatten(-2).amax(-1)


def soft_peak(maps: Tensor, sharpness: float) -> Tensor:
    """Log-mean-exp of each map, (..., h, w) -> (...): the mean for `sharpness` -> 0, the peak for large values."""
    cells = maps.shape[-2] * maps.shape[-1]
    return (torch.logsumexp(maps.flatten(-2) * sharpness, -1) - torch.tensor(float(cells)).log()) / sharpness


def upsample(maps: Tensor, size: tuple[int, int], mode: str = "bilinear", align_corners: bool = True) -> Tensor:
    """Maps at the size of the picture: (B, K, h, w) -> (B, K, H, W). Ledger 19: bilinear, corners aligned."""
    return F.interpolate(maps.float(), size=size, mode=mode, align_corners=align_corners)
