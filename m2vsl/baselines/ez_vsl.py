"""EZ-VSL (Mo & Morgado, ECCV 2022): one scale, many instances. The baseline that M2VSL grows from.

Learns from solos, without labels: the best location of a picture must agree with its own sound and with no other of the
batch. Its map is the cosine of every location with the sound. With object guidance (``ogl``) the mean activation of a
separate, frozen ImageNet network is mixed in: nothing learnt, nothing heard. Facts from protocol 3 and 3.1; the trunk,
the projections and the loss are those of the rest of the book.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from m2vsl import losses, ops
from m2vsl.encoders import AudioEncoder, EncoderConfig, VisualEncoder, initialise
from m2vsl.localizer import Localizer
from m2vsl.types import Batch, Losses, Maps


@dataclass(frozen=True)
class EZVSLConfig:
    """EZ-VSL's choices."""

    # fields that training does not read
    AT_TEST: ClassVar[frozenset[str]] = frozenset({"ogl", "ogl_alpha"})
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    temperature: float = 0.03  # tau; ledger 11
    symmetric: bool = True  # the printed Eq. 1 looks one way, the published code both; ledger 8
    ogl: bool = False  # object-guided localisation at test time; ledger 20
    ogl_alpha: float = 0.4  # weight of the learnt map beside the object map; EZ-VSL's scripts


class EZVSL(Localizer):
    """Maps of the last stage, cosine with the one vector of the sound."""

    wants: ClassVar[frozenset[str]] = frozenset({"solos"})

    def __init__(self, config: EZVSLConfig, classes: int) -> None:
        super().__init__()
        self.config, dim = config, config.encoder.dim
        self.visual, self.audio = VisualEncoder(config.encoder), AudioEncoder(config.encoder)
        self.project = nn.Conv2d(self.visual.channels[-1], dim, 1)
        self.project_audio = nn.Linear(self.audio.channels, dim)
        self.project.apply(initialise)
        self.project_audio.apply(initialise)
        if config.ogl:
            self.objects = VisualEncoder(replace(config.encoder, weights="imagenet", freeze=True))

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Projected, not normalised: locations (B, D, h, w) and sounds (B, D)."""
        return self.project(self.visual(batch.image)[-1]), self.project_audio(self.audio(batch.spectrogram))

    def forward(self, batch: Batch) -> Losses:
        """The loss ``contrast``: `m2vsl.losses.mmc` at one scale. ValueError for mixtures."""
        self.require_solos(batch)
        cells, sounds = self.embed(batch)
        loss = losses.mmc if self.config.symmetric else losses.audio_to_visual
        scores = self.everyone(ops.peak_cosine(cells, self.everyone(sounds)))
        owner = torch.arange(len(scores), device=scores.device)
        return {"contrast": loss([scores], owner, self.config.temperature)}

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """One map of whatever is heard, without a class."""
        cells, sounds = self.embed(batch)
        size = (batch.image.shape[-2], batch.image.shape[-1])
        heat = ops.upsample(ops.similarity(ops.unit(cells), ops.unit(sounds)[:, None]), size)
        if self.config.ogl:
            objects = ops.upsample(self.objects(batch.image)[-1].abs().mean(1, keepdim=True), size)
            alpha = self.config.ogl_alpha
            heat = alpha * ops.min_max(heat) + (1 - alpha) * ops.min_max(objects)
        return Maps(heat, torch.tensor([-1], device=heat.device))
