"""The data that crosses module borders. Every field states its shape.

Axes: ``B`` batch, ``N`` sounds compared against, ``C`` classes, ``K`` maps, ``S`` sources, ``D`` channels, ``H W``
pixels, ``h w`` cells, ``F T`` frequency and time bins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

Losses = Mapping[str, Tensor]  # name -> scalar; the trainer minimises the sum


@dataclass(frozen=True)
class Truth:
    """What is where, and whether it sounds.

    A source that is seen but silent (``present`` false) keeps its mask and class: the swapped-sound control scores
    against it. Padding has class -1, an empty mask and ``present`` false.
    """

    mask: Tensor  # (S, H, W), batched (B, S, H, W); float32 in [0, 1]
    classes: Tensor  # (S,), batched (B, S); int64, -1 = padding or unknown
    present: Tensor  # (S,), batched (B, S); bool, the source sounds


@dataclass(frozen=True)
class Sample:
    """One picture and one sound, before the spectrogram."""

    key: str  # unique within a split, the same in every run
    image: Tensor  # (3, H, W) float32, normalised by the ImageNet mean and standard deviation
    waveform: Tensor  # (n,) float32, mono, at AudioConfig.rate
    heard: Tensor  # (C,) float32 multi-hot: classes in the sound
    seen: Tensor  # (C,) float32 multi-hot: classes in the picture
    labels: Tensor  # (C,) float32 multi-hot: what its videos are labelled; more than `heard` if a source was muted
    mixture: int  # samples with the same value share one sound
    truth: Truth


@dataclass(frozen=True)
class Batch:
    """What a method is given. ``truth``, ``heard``, ``seen`` and ``labels`` are not for `localize`."""

    image: Tensor  # (B, 3, H, W) float32, normalised by the ImageNet mean and standard deviation
    spectrogram: Tensor  # (B, 1, F, T) float32, log power
    heard: Tensor  # (B, C) float32 multi-hot: classes in the sound
    seen: Tensor  # (B, C) float32 multi-hot: classes in the picture
    labels: Tensor  # (B, C) float32 multi-hot: what its videos are labelled; more than `heard` if a source was muted
    mixture: Tensor  # (B,) int64: samples with the same value share one sound
    truth: Truth
    keys: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.image.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        return self._moved(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch where a GPU can fetch it while it computes; PyTorch's loader asks for it by this name."""
        return self._moved(Tensor.pin_memory)

    def _moved(self, move: Callable[[Tensor], Tensor]) -> Batch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {name: move(value) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **moved, truth=Truth(*(move(getattr(self.truth, f.name)) for f in fields(Truth))))


@dataclass(frozen=True)
class Maps:
    """Where each class (or each unnamed source) sounds, as far as a method can tell."""

    heat: Tensor  # (B, K, H, W) continuous, comparable across images; never min-maxed or clipped
    classes: Tensor  # (K,) int64: the class of each map; -1 = the method does not say
    presence: Tensor | None = None  # (B, K) in [0, 1]: how surely class k sounds here; None = the method does not say
