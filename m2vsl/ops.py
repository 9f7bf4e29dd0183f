"""Small operations that every method shares: unit vectors, similarities, peaks, upsampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def unit(x: Tensor, dim: int = 1) -> Tensor:
    """`x` divided by its Euclidean norm along `dim`; float32, whatever autocast says. Zero stays zero."""
    return F.normalize(x.float(), dim=dim)


def evened(x: Tensor) -> Tensor:
    """Cells (B, D, h, w) over the mean length of the cells of their picture: who is longer stays longer; float32."""
    return x.float() / x.float().norm(dim=1).mean((-2, -1)).clamp(min=1e-12)[:, None, None, None]


def similarity(features: Tensor, queries: Tensor) -> Tensor:
    """Inner product of every location of every picture with every query; cosines if both are unit vectors.

    features: (B, D, h, w); queries: (N, D), compared with every picture, or (B, N, D), each with its own.
    Returns (B, N, h, w), float32.
    """
    batch, _, h, w = features.shape
    flat = features.float().flatten(2)  # (B, D, hw)
    with torch.autocast(features.device.type, enabled=False):
        return torch.matmul(queries.float(), flat).view(batch, -1, h, w)


def peak_cosine(features: Tensor, queries: Tensor) -> Tensor:
    """Best agreement of any location: ``peak(similarity(unit(features), unit(queries, -1)))``, with a small backward.

    features: (B, D, h, w), any length; queries: (N, D). Returns (B, N), cosines. The best location is searched without
    gradient, and the cosine is taken again there alone: the gradient of a maximum is that of its argument. A CPU takes
    one picture after the other: what is done to the product is then done in its cache.
    """
    flat, asked = features.flatten(2), unit(queries, -1)  # (B, D, hw), (N, D)
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        pieces = flat if features.device.type == "cpu" else [flat]
        found = [_best_cell(cells.float(), asked) for cells in pieces]
        score, where = (torch.stack(values).view(-1, len(queries)) for values in zip(*found, strict=True))  # (B, N)
    if not torch.is_grad_enabled() or not (features.requires_grad or queries.requires_grad):
        return score
    best = flat.gather(2, where[:, None, :].expand(-1, flat.shape[1], -1))  # (B, D, N)
    with torch.autocast(features.device.type, enabled=False):
        return torch.einsum("bdn,nd->bn", unit(best), asked)


def _best_cell(cells: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Largest cosine of cells (..., D, hw) with unit queries (N, D), and its place: (..., N) each."""
    length = cells.square().sum(-2, keepdim=True).sqrt_().clamp_(min=1e-12)
    best = (queries @ cells).div_(length).max(-1)
    return best.values, best.indices


def peak(maps: Tensor) -> Tensor:
    """The largest value of each map: (..., h, w) -> (...)."""
    return maps.flatten(-2).amax(-1)


def soft_peak(maps: Tensor, sharpness: float) -> Tensor:
    """Log-mean-exp of each map, (..., h, w) -> (...): the mean for `sharpness` -> 0, the peak for large values."""
    cells = maps.shape[-2] * maps.shape[-1]
    return (torch.logsumexp(maps.flatten(-2) * sharpness, -1) - torch.tensor(float(cells)).log()) / sharpness


def spread(maps: Tensor, pyramid: Sequence[Tensor], rounds: int, temperature: float) -> Tensor:
    """Maps handed on between cells that look alike: ``rounds`` of attention of the picture to itself.

    maps: (B, K, h, w); pyramid: feature maps (B, D_s, h_s, w_s), each resized to (h, w); two cells are as alike as the
    mean of their cosines over the pyramid, and the weights are a softmax over cells at `temperature`. A discriminative
    part (a dog's face) lends its heat to the rest of the object. Returns (B, K, h, w).
    """
    size = (maps.shape[-2], maps.shape[-1])
    alike, flat = maps.new_zeros((), dtype=torch.float32), maps.float().flatten(2)  # (B, K, hw)
    with torch.autocast(maps.device.type, enabled=False):
        for stage in pyramid:
            cells = unit(F.interpolate(stage.float(), size=size, mode="bilinear", align_corners=False)).flatten(2)
            alike = alike + cells.transpose(1, 2) @ cells / len(pyramid)  # (B, hw, hw)
        weights = torch.softmax(alike / temperature, -1).transpose(1, 2)
        for _ in range(rounds):
            flat = flat @ weights
    return flat.unflatten(-1, size)


def upsample(maps: Tensor, size: tuple[int, int], mode: str = "bilinear", align_corners: bool = True) -> Tensor:
    """Maps at the size of the picture: (B, K, h, w) -> (B, K, H, W). Ledger 19: bilinear, corners aligned."""
    return F.interpolate(maps.float(), size=size, mode=mode, align_corners=align_corners)


def min_max(maps: Tensor) -> Tensor:
    """Each map scaled to [0, 1]: (..., H, W) -> (..., H, W). A constant map is returned unchanged (protocol 2.1)."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    flat = high - low < 1e-6 * high.abs().clamp(min=1)
    return torch.where(flat, maps, (maps - low) / torch.where(flat, torch.ones_like(high), high - low))


def dilated(mask: Tensor) -> Tensor:
    """A mask (B, 1, h, w) grown by the four neighbours of each cell; the cells of the border are left as they are."""
    grown = mask.clone()
    for shift in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        grown[..., 1:-1, 1:-1] |= mask.roll(shift, (-2, -1))[..., 1:-1, 1:-1]
    return grown


def k_means(features: Tensor, clusters: int, tries: int = 10) -> Tensor:
    """The cluster of each row (n, D) by the direction of its vector, the best of some tries: (n,) int64.

    The same every time. ValueError if a cluster stays empty: there are too few distinct vectors.
    """
    from scipy.cluster.vq import ClusterError, kmeans2

    points = unit(features).cpu().double()
    distinct = len(torch.unique(points, dim=0))
    best: tuple[float, Any] = (float("inf"), None)
    for seed in range(tries if distinct >= clusters else 0):
        try:
            centres, found = kmeans2(points.numpy(), clusters, iter=50, minit="++", missing="raise", rng=seed)
        except ClusterError:
            continue
        best = min(best, (float(((points.numpy() - centres[found]) ** 2).sum()), found), key=lambda one: one[0])
    if best[1] is None:
        raise ValueError(f"k-means: one of {clusters} clusters stays empty, there are {distinct} distinct vectors")
    return torch.as_tensor(best[1], dtype=torch.int64, device=features.device)
