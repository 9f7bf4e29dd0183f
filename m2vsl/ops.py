"""Small operations that every method shares: unit vectors, similarities, peaks, upsampling."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 16 * 2**20  # bytes of similarities, float32, that are made at a time: about what a cache holds


def precise(x: Tensor) -> Tensor:
    """`x` as float32, whatever autocast made of it; float64 as it comes."""
    return x if x.dtype == torch.float64 else x.float()


def unit(x: Tensor, dim: int = 1) -> Tensor:
    """`x` divided by its Euclidean norm along `dim`; float32, whatever autocast says. Zero stays zero."""
    return F.normalize(precise(x), dim=dim)


def evened(x: Tensor) -> Tensor:
    """Cells (B, D, h, w) over the mean length of the cells of their picture: who is longer stays longer; float32."""
    return precise(x) / precise(x).norm(dim=1).mean((-2, -1)).clamp(min=1e-12)[:, None, None, None]


def similarity(features: Tensor, queries: Tensor) -> Tensor:
    """Inner product of every location of every picture with every query; cosines if both are unit vectors.

    features: (B, D, h, w); queries: (N, D), compared with every picture, or (B, N, D), each with its own.
    Returns (B, N, h, w), float32.
    """
    batch, _, h, w = features.shape
    flat = precise(features).flatten(2)  # (B, D, hw)
    with torch.autocast(features.device.type, enabled=False):
        return torch.matmul(precise(queries), flat).view(batch, -1, h, w)


def peak_cosine(features: Tensor, queries: Tensor) -> Tensor:
    """Best agreement of any location: ``peak(similarity(unit(features), unit(queries, -1)))``, with a small backward.

    features: (B, D, h, w), any length; queries: (N, D). Returns (B, N), cosines. The best location is searched without
    gradient, in blocks of `BLOCK` bytes, and the cosine is taken again there alone: the gradient of a maximum is that
    of its argument. Of the maps (B, N, h, w) there is never more than one block.
    """
    flat, asked = features.flatten(2), unit(queries, -1)  # (B, D, hw), (N, D)
    pictures, sounds = _block(flat.shape[-1], len(asked))
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        found = [_best_cells(precise(cells), asked.split(sounds)) for cells in flat.split(pictures)]
        score, where = (torch.cat(values) for values in zip(*found, strict=True))  # (B, N)
    if not torch.is_grad_enabled() or not (features.requires_grad or queries.requires_grad):
        return score
    rows = torch.arange(len(flat), device=flat.device)[:, None]
    best = flat.transpose(1, 2)[rows, where]  # (B, N, D)
    with torch.autocast(features.device.type, enabled=False):
        return torch.einsum("bnd,nd->bn", unit(best, -1), asked)


def _best_cells(cells: Tensor, queries: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Largest cosine of cells (B, D, hw) with unit queries, some (n, D) at a time, and its place: (B, N) each."""
    length = torch.linalg.vector_norm(cells, dim=-2, keepdim=True).clamp_(min=1e-12)
    best = [(some @ cells).div_(length).max(-1) for some in queries]
    return torch.cat([one.values for one in best], -1), torch.cat([one.indices for one in best], -1)


def _block(cells: int, queries: int) -> tuple[int, int]:
    """How many pictures, and how many queries, have similarities of `BLOCK` bytes or less; at least one of either."""
    asked = max(min(BLOCK // (4 * cells), queries), 1)
    return max(BLOCK // (4 * cells * asked), 1), asked


def peak(maps: Tensor) -> Tensor:
    """The largest value of each map: (..., h, w) -> (...)."""
    return maps.flatten(-2).amax(-1)


def soft_peak(maps: Tensor, sharpness: float) -> Tensor:
    """Log-mean-exp of each map, (..., h, w) -> (...): the mean for `sharpness` -> 0, the peak for large values."""
    cells = maps.shape[-2] * maps.shape[-1]
    return (torch.logsumexp(maps.flatten(-2) * sharpness, -1) - torch.tensor(float(cells)).log()) / sharpness


def soft_peak_cosine(features: Tensor, queries: Tensor, sharpness: float) -> Tensor:
    """``soft_peak(similarity(unit(features), unit(queries, -1)), sharpness)``, block by block as `peak_cosine`.

    features: (B, D, h, w), any length; queries: (N, D). Returns (B, N). Where there are several blocks of `BLOCK`
    bytes, the backward pass makes the similarities of each anew, at the price of their matrix product.
    """
    from torch.utils.checkpoint import checkpoint

    asked = unit(queries, -1)
    pictures, sounds = _block(features.shape[-2] * features.shape[-1], len(asked))

    def scores(cells: Tensor, some: Tensor) -> Tensor:
        return soft_peak(similarity(unit(cells), some), sharpness)

    if pictures >= len(features) and sounds >= len(asked):
        return scores(features, asked)
    again = partial(checkpoint, scores, use_reentrant=False, preserve_rng_state=False)
    rows = [[again(cells, some) for some in asked.split(sounds)] for cells in features.split(pictures)]
    return torch.cat([torch.cat(row, -1) for row in rows])


def spread(maps: Tensor, pyramid: Sequence[Tensor], rounds: int, temperature: float) -> Tensor:
    """Maps handed on between cells that look alike: ``rounds`` of attention of the picture to itself.

    maps: (B, K, h, w); pyramid: feature maps (B, D_s, h_s, w_s), each resized to (h, w); two cells are as alike as the
    mean of their cosines over the pyramid, and the weights are a softmax over cells at `temperature`. A discriminative
    part (a dog's face) lends its heat to the rest of the object. Returns (B, K, h, w).
    """
    size = (maps.shape[-2], maps.shape[-1])
    alike, flat = maps.new_zeros((), dtype=torch.float32), precise(maps).flatten(2)  # (B, K, hw)
    with torch.autocast(maps.device.type, enabled=False):
        for stage in pyramid:
            cells = unit(F.interpolate(precise(stage), size=size, mode="bilinear", align_corners=False)).flatten(2)
            alike = alike + cells.transpose(1, 2) @ cells / len(pyramid)  # (B, hw, hw)
        weights = torch.softmax(alike / temperature, -1).transpose(1, 2)
        for _ in range(rounds):
            flat = flat @ weights
    return flat.unflatten(-1, size)


def upsample(maps: Tensor, size: tuple[int, int], mode: str = "bilinear", align_corners: bool = True) -> Tensor:
    """Maps at the size of the picture: (B, K, h, w) -> (B, K, H, W). Ledger 19: bilinear, corners aligned."""
    return F.interpolate(precise(maps), size=size, mode=mode, align_corners=align_corners)


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
