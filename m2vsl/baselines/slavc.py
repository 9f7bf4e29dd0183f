"""SLAVC (Mo & Morgado, NeurIPS 2022, "A Closer Look at Weakly-Supervised Audio-Visual Source Localization").

Learns from solos, without labels. Two cosine maps of every picture with every sound: by the first a cell chooses among
the sounds of the batch, by the second a pair chooses among the cells of the picture; a pair agrees as far as the cell
that one of them points at chooses the other. One side of each pair, the target, comes from a momentum copy of
everything that learns, and nine tenths of the visual features are dropped before they are projected: both against
overfitting. Its map is the mean of the two cosine maps.

The original: ResNet-18 twice, 7 x 7 cells, 512 channels, Adam 1e-4, batches of 128 for about 22 000 updates. Here the
trunks are the book's; a frozen one is its own copy and runs once. Momentum covers parameters alone: normalisation keeps
the statistics of its own passes, as in the released code, whose shared dropout is also on for the targets. Maps are
cosines, not divided by the temperature, which changes no ranking. Left out: mixing in an ImageNet object map at test,
0.9 to 0.1, which is nothing that SLAVC learns. Facts from protocol 3.2.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2vsl import ops
from m2vsl.encoders import AudioEncoder, EncoderConfig, VisualEncoder, initialise
from m2vsl.localizer import PAIRS, Localizer, answer
from m2vsl.types import Batch, Losses, Maps

PARTS = ("visual", "audio", "project", "project_audio")


@dataclass(frozen=True)
class SLAVCConfig:
    """SLAVC's choices."""

    AT_TEST: ClassVar[frozenset[str]] = frozenset({"use_mom_eval"})  # fields that training does not read
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    last_stride: int = 2  # of the trunk: 7 x 7 cells of 224 px; 1 = 14 x 14
    temperature: float = 0.03  # tau; ledger 11
    momentum: float = 0.999  # share of a copy that each step keeps: it averages 1 / (1 - m) steps, few runs are so long
    dropout: float = 0.9  # share of the visual features that is dropped in training
    target_dropout: bool = True  # also for the targets, as the released code has it
    use_mom_eval: bool = True  # maps by the momentum copies, as its training command; its test command leaves it out

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum: expected a share from 0 to 1, got {self.momentum}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a share from 0 to below 1, got {self.dropout}")


class SLAVC(Localizer):
    """Two maps, and momentum copies of what makes them. ``classes`` is not used: nothing here knows a class."""

    wants: ClassVar[frozenset[str]] = frozenset({"solos"})

    def __init__(self, config: SLAVCConfig, classes: int) -> None:
        super().__init__()
        self.config, dim = config, config.encoder.dim
        self.visual, self.audio = VisualEncoder(config.encoder, config.last_stride), AudioEncoder(config.encoder)
        self.project = nn.ModuleList(nn.Conv2d(self.visual.channels[-1], dim, 1) for _ in range(2))
        self.project_audio = nn.ModuleList(nn.Linear(self.audio.channels, dim) for _ in range(2))
        self.project.apply(initialise)
        self.project_audio.apply(initialise)
        learning = [name for name in PARTS if not (name == "visual" and config.encoder.freeze)]
        self.target = nn.ModuleDict({name: copy.deepcopy(getattr(self, name)) for name in learning})
        self.target.requires_grad_(False)

    @torch.no_grad()
    def _follow(self) -> None:
        """The copies go (1 - momentum) of the way to what they are copies of."""
        for name, part in self.target.items():
            for kept, new in zip(part.parameters(), getattr(self, name).parameters(), strict=True):
                kept.lerp_(new, 1 - self.config.momentum)

    def embed(
        self, batch: Batch, *, target: bool = False, features: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Unit vectors of the cells, two (B, D, h, w), and of the sounds, two (B, D), by what learns or by its copy.

        features: (B, C_v, h, w) of the visual trunk, where they are known already.
        """
        part = {name: self.target[name] if target and name in self.target else getattr(self, name) for name in PARTS}
        seen = part["visual"](batch.image)[-1] if features is None else features
        if self.config.target_dropout or not target:
            seen = F.dropout(seen, self.config.dropout, self.training)
        heard = part["audio"](batch.spectrogram)
        cells = [ops.unit(project(seen)) for project in part["project"].children()]
        return cells, [ops.unit(project(heard)) for project in part["project_audio"].children()]

    def forward(self, batch: Batch) -> Losses:
        """Losses in nats: ``picture``, whose targets are sounds, and ``sound``, whose targets are pictures.

        In training mode the copies are moved first. ValueError for mixtures, and for fewer than two samples.
        """
        self.require_solos(batch, pairs_for=PAIRS)
        features = self.visual(batch.image)[-1]
        cells, sounds = self.embed(batch, features=features)
        with torch.no_grad():
            if self.training:
                self._follow()
            shared = features if self.config.encoder.freeze else None
            target_cells, target_sounds = self.embed(batch, target=True, features=shared)
        own = self.first(len(batch)) + torch.arange(len(batch), device=features.device)
        return {
            "picture": F.cross_entropy(self._agreement(cells, target_sounds), own),
            "sound": F.cross_entropy(self._agreement(target_cells, sounds), own),
        }

    def _agreement(self, cells: list[Tensor], sounds: list[Tensor]) -> Tensor:
        """Log probability that picture i goes with sound j, (B, N), summed over cells: sound by cell, cell by pair.

        cells: two of (B, D, h, w); sounds: two of (B, D); all unit vectors.
        """
        pairs = zip(cells, map(self.everyone, sounds), strict=True)
        cosines = [ops.similarity(c, s).flatten(2) for c, s in pairs]  # two (B, N, hw)
        which, where = (c / self.config.temperature for c in cosines)
        return torch.logsumexp(which.log_softmax(1) + where.log_softmax(2), 2)

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """One map of whatever is heard, without a class."""
        cells, sounds = self.embed(batch, target=self.config.use_mom_eval)
        both = [ops.similarity(c, s[:, None]) for c, s in zip(cells, sounds, strict=True)]
        return answer((both[0] + both[1]) / 2, batch)
