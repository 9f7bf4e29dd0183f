"""Rows that every table carries: what can be had without looking, by chance, and at best.

`Centre`, `Random` and `Everything` hear nothing and see nothing; whoever does not beat them has shown nothing.
`ObjectArea` is told how large the sounding things are, and not where. `Oracle` is handed the truth: what it scores is
the ceiling of the protocol, not of a method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from zlib import crc32

import torch
from torch import Tensor

from m2vsl.localizer import Localizer, Reads
from m2vsl.metrics.columns import sounds_where
from m2vsl.types import Batch, Losses, Maps


@dataclass(frozen=True)
class ControlConfig:
    """Controls have no choices but the noise of `Random`."""

    seed: int = 0  # of Random's noise


class _Control(Localizer):
    listens: ClassVar[bool] = False

    def __init__(self, config: ControlConfig, classes: int) -> None:
        super().__init__()
        self.config, self.classes = config, classes

    def forward(self, batch: Batch) -> Losses:
        """Nothing to learn."""
        return {}


class Centre(_Control):
    """A disc around the centre of every frame: two discs on a picture of two frames side by side."""

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """Minus the distance to the centre of the frame, in frame heights."""
        return _single(_inwards(batch))


class Random(_Control):
    """Uniform noise in every pixel, a function of the seed and of the sample's key."""

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """Noise in [0, 1), one map."""
        height, width = batch.image.shape[-2:]
        noise = []
        for key in batch.keys:
            generator = torch.Generator().manual_seed(crc32(f"{self.config.seed}/{key}".encode()))
            noise.append(torch.rand(1, height, width, generator=generator))
        return _single(torch.stack(noise).to(batch.image.device))


class Everything(_Control):
    """All pixels, equally: as a mask it scores the share of the picture that sounds (baselines 6)."""

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """Ones."""
        return _single(torch.ones_like(batch.image[:, :1]))


class ObjectArea(_Control):
    """The disc of `Centre` with as many pixels as the sounding things have together; none if they have none."""

    reads: ClassVar[Reads] = "logits"

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """Above 0 on the disc. Reads the truth."""
        true = sounds_where(batch.truth).flatten(1).count_nonzero(1)  # (B,)
        inwards = _inwards(batch).contiguous()
        coldest = inwards.flatten(1).sort(1, descending=True).values
        edge = coldest.gather(1, (true - 1).clamp(min=0)[:, None])  # (B, 1): heat of the last pixel within
        edge = torch.where(true[:, None] > 0, edge, torch.inf)
        within = inwards >= edge[..., None, None]
        return _single(torch.where(within, 4.0, -4.0) + inwards)


class Oracle(_Control):
    """The truth itself, one map per class.

    A mask alone ties on most pixels, and a rule that keeps half of them would then keep all. So a slope of a
    thousandth, falling away from the mask's centre of mass, orders the pixels within and without.
    """

    named: ClassVar[bool] = True

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """The mask of every sounding class, sloped; its presence is the truth too."""
        b, s, height, width = batch.truth.mask.shape
        heat = batch.truth.mask.new_zeros(b, self.classes, height, width)
        for j in range(s):
            rows = (batch.truth.present[:, j] & (batch.truth.classes[:, j] >= 0)).nonzero().squeeze(-1)
            which = batch.truth.classes[rows, j]
            heat[rows, which] = torch.maximum(heat[rows, which], batch.truth.mask[rows, j])
        heat = heat + 1e-3 * _slope(heat)
        return Maps(heat, torch.arange(self.classes, device=heat.device), batch.heard.float())


def _inwards(batch: Batch) -> Tensor:
    """Minus the distance to the centre of the frame, in frame heights: (B, 1, H, W)."""
    b, _, height, width = batch.image.shape
    frame = width / max(round(width / height), 1)  # px
    y = (torch.arange(height) + 0.5) / height - 0.5
    x = ((torch.arange(width) + 0.5) % frame) / frame - 0.5
    heat = -(y[:, None] ** 2 + x[None, :] ** 2).sqrt()
    return heat.to(batch.image.device).expand(b, 1, height, width)


def _single(heat: Tensor) -> Maps:
    """One map (B, 1, H, W) of whatever sounds."""
    return Maps(heat, torch.tensor([-1], device=heat.device))


def _slope(mask: Tensor) -> Tensor:
    """Minus the distance to the centre of mass, in units of the diagonal: (B, K, H, W) -> (B, K, H, W), in [-1, 0]."""
    height, width = mask.shape[-2:]
    y = torch.arange(height, device=mask.device).view(-1, 1)
    x = torch.arange(width, device=mask.device).view(1, -1)
    mass = mask.sum((-2, -1), keepdim=True).clamp(min=1e-6)
    dy, dx = y - (mask * y).sum((-2, -1), keepdim=True) / mass, x - (mask * x).sum((-2, -1), keepdim=True) / mass
    return -torch.sqrt(dy**2 + dx**2) / (height**2 + width**2) ** 0.5
