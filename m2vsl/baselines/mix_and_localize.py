"""Mix-and-Localize (Hu, Chen & Owens, CVPR 2022): a walk from a separated sound to its picture and back.

Learns from mixtures that are made of solos, without labels. Two heads separate a mixture of the sounds of two pictures;
from what a head hears at one moment a random walker goes to one of the pictures, and from there to what a head hears at
another moment: it has to come back to the head that it started from. The maps are the cosines of every cell with each
head. They have no class; the original has no evaluation of classes. Here, protocol 2.4, a running mean of each head's
embedding of the solos of each class names them: the map of a class is that of the head nearest to its mean. Labels
serve for this alone, and nothing is learnt from them (``named_by="none"`` leaves the maps unnamed).

The original has ResNet-18 with 14 x 14 cells, clips of 0.96 s at 16 kHz averaged in pairs, a second clip at a random
moment, and Adam 1e-4 with batches of 64 pairs. Here the trunks are the book's, of two log spectrograms the louder cell
is heard, and the moments are the first and the second half of the cut. Facts from protocol 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor, nn

from m2vsl import ops
from m2vsl.audio import mix_spectrograms
from m2vsl.encoders import AudioEncoder, EncoderConfig, VisualEncoder, initialise
from m2vsl.localizer import Localizer
from m2vsl.types import Batch, Losses, Maps


@dataclass(frozen=True)
class MixAndLocalizeConfig:
    """Mix-and-Localize's choices."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    last_stride: int = 1  # of the trunk: 14 x 14 cells of 224 px; 2 = 7 x 7; rivals 1
    heads: int = 2  # K, sounds of a mixture, pictures of a group and maps at test
    dim: int = 128  # of the common space
    temperature: float = 0.07  # tau of both steps of the walk
    cycles: str = "sounds"  # walks start and end at "sounds", or at sounds and at pictures: "both"
    named_by: str = "means"  # classes of the maps: the nearest class mean of solos, or "none"; protocol 2.4
    momentum: float = 0.9  # of the class means: the share of the old mean that an update keeps

    def __post_init__(self) -> None:
        for name, valid in {"cycles": ("sounds", "both"), "named_by": ("means", "none")}.items():
            if getattr(self, name) not in valid:
                raise ValueError(f"{name}: expected {' or '.join(valid)}, got {getattr(self, name)!r}")
        if self.heads < 2:
            raise ValueError(f"heads: expected at least 2, got {self.heads}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected 0 <= momentum < 1, got {self.momentum}")


class MixAndLocalize(Localizer):
    """Maps of separated sounds. ``classes``: C, of the data set."""

    wants: ClassVar[frozenset[str]] = frozenset({"solos", "mixtures"})
    named: ClassVar[bool] = True
    means: Tensor  # (K, C, D) mean of head k's embeddings of solos of class c, of any length; 0 = never met

    def __init__(self, config: MixAndLocalizeConfig, classes: int) -> None:
        super().__init__()
        self.config, self.sources, dim = config, config.heads, config.dim
        self.visual, self.audio = VisualEncoder(config.encoder, config.last_stride), AudioEncoder(config.encoder)
        self.project = nn.Sequential(nn.Conv2d(self.visual.channels[-1], dim, 1), nn.ReLU(), nn.Conv2d(dim, dim, 1))
        self.project.apply(initialise)
        # PyTorch's own initialisation: EZ-VSL's, twice a spread of 0.01, would leave next to nothing to normalise
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(self.audio.channels, dim), nn.ReLU(), nn.Linear(dim, dim))
            for _ in range(config.heads)
        )
        if config.named_by == "means":
            self.register_buffer("means", torch.zeros(config.heads, classes, dim))

    def hear(self, spectrogram: Tensor) -> Tensor:
        """(B, 1, F, T) -> unit embeddings of the separated sounds, (B, K, D)."""
        sound = self.audio(spectrogram)
        return ops.unit(torch.stack([head(sound) for head in self.heads], 1), -1)

    def see(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> unit cells (B, D, h, w)."""
        return ops.unit(self.project(self.visual(image)[-1]))

    def forward(self, batch: Batch) -> Losses:
        """The loss ``sounds``, and for both cycles ``pictures``: minus the logarithm of the chance to come back.

        Of a batch of K G samples, i, G + i ... (K - 1) G + i are a group. Training mode moves the class means.
        ValueError for mixtures, which are made here, and for a batch that is no multiple of K.
        """
        self.require_solos(batch)
        k = self.config.heads
        if len(batch) % k:
            raise ValueError(f"MixAndLocalize: expected a multiple of {k} samples, groups of {k}, got {len(batch)}")
        mixed = reduce(mix_spectrograms, batch.spectrogram.chunk(k))  # (G, 1, F, T)
        half = mixed.shape[-1] // 2
        one, two = self.hear(torch.cat([mixed[..., :half], mixed[..., half : 2 * half]])).chunk(2)  # (G, K, D) each
        queries = torch.cat([one, two], 1).repeat(k, 1, 1)  # (K G, 2 K, D): both moments, for each picture of a group
        scores = ops.peak(ops.similarity(self.see(batch.image), queries)) / self.config.temperature
        first, second = scores.unflatten(0, (k, -1)).chunk(2, -1)  # (pictures K, G, heads K) each
        to_head, to_picture = first.log_softmax(-1), second.log_softmax(0)
        out = {"sounds": -(to_picture + to_head).logsumexp(0).mean()}  # diagonal of the return matrix, (G, K)
        if self.config.cycles == "both":
            out["pictures"] = -(to_head + first.log_softmax(0)).logsumexp(-1).mean()  # there and back at one moment
        if self.training and self.config.named_by == "means":
            self._remember(batch)
        return out

    @torch.no_grad()
    def _remember(self, batch: Batch) -> None:
        """Move the class means towards the solos of `batch`, heard as at test: batch statistics stay as they are."""
        self.audio.eval()
        sounds = self.hear(batch.spectrogram)
        self.audio.train()
        count = batch.heard.sum(0)[:, None]  # (C, 1)
        with torch.autocast(sounds.device.type, enabled=False):
            mean = torch.einsum("bc,bkd->kcd", batch.heard, sounds) / count.clamp(min=1)
        self.means.copy_(torch.where(count > 0, self.means.lerp(mean, 1 - self.config.momentum), self.means))

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """One map per class, that of the nearest head; or K maps of no class."""
        sounds = self.hear(batch.spectrogram)
        heat = ops.upsample(
            ops.similarity(self.see(batch.image), sounds), (batch.image.shape[-2], batch.image.shape[-1])
        )
        if self.config.named_by == "none":
            return Maps(heat, torch.full((self.config.heads,), -1, device=heat.device))
        nearest, presence = self._name(sounds)
        rows = torch.arange(len(heat), device=heat.device)[:, None]
        return Maps(heat[rows, nearest], torch.arange(nearest.shape[1], device=heat.device), presence)

    def _name(self, sounds: Tensor) -> tuple[Tensor, Tensor]:
        """The head nearest to its mean of each class, and how near, in [0, 1]: (B, K, D) -> (B, C) each.

        A class that was never met is nobody's: head 0, presence 0.
        """
        cosine = (sounds[:, :, None] * ops.unit(self.means, -1)).sum(-1)  # (B, K, C)
        best, head = cosine.max(1)
        met = self.means.any(-1).any(0)  # (C,)
        return head, ((1 + best) / 2).clamp(0, 1) * met
