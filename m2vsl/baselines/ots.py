"""OTS, "Objects that Sound" (AVOL-Net; Arandjelovic & Zisserman, ECCV 2018): does any place fit the sound?

Learns from solos, without labels: the best cell decides whether picture and sound belong together, and is told whether
they do. Its map: the calibrated logit of every cell, before the sigmoid, whose saturation would make ties.

The original trains two VGG-like nets from scratch, 14 x 14 cells of 224 px and log spectrograms of 1 s at 48 kHz, with
Adam and batches of 2048; here the trunks are the book's (rivals 4). ``normalize`` is the form of DSOL's first stage,
without its classifiers: unit vectors, and no bias.

Otherwise the bias starts below zero, so that a cell with nothing in it says no. From zero, the first steps push down
the longest vectors of the picture, those on the object, and the background is left to answer: after 200 steps on
synthetic solos the object lay below it, for each of three seeds. Facts from baselines 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2vsl import ops
from m2vsl.encoders import AudioEncoder, EncoderConfig, VisualEncoder
from m2vsl.localizer import PAIRS, Localizer, answer
from m2vsl.types import Batch, Losses, Maps


@dataclass(frozen=True)
class OTSConfig:
    """OTS's choices."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    last_stride: int = 1  # of the trunk: 14 x 14 cells of 224 px; 2 = 7 x 7; rivals 1
    dim: int = 128  # of the common space
    normalize: bool = False  # unit vectors on both sides, no bias: DSOL's form; rivals 4
    gain: float = 5.0  # w at the start where `normalize`; without it 1 / sqrt(dim)
    bias: float = -2.0  # b at the start, a logit, where not `normalize`: empty cells correspond with 12 %; 0 = even


class OTS(Localizer):
    """Logits w S + b of every cell, S its inner product with the sound."""

    wants: ClassVar[frozenset[str]] = frozenset({"solos"})

    def __init__(self, config: OTSConfig, classes: int) -> None:
        super().__init__()
        self.config, dim = config, config.dim
        self.visual, self.audio = VisualEncoder(config.encoder, config.last_stride), AudioEncoder(config.encoder)
        self.project = nn.Sequential(nn.Conv2d(self.visual.channels[-1], dim, 1), nn.ReLU(), nn.Conv2d(dim, dim, 1))
        self.project_audio = nn.Sequential(nn.Linear(self.audio.channels, dim), nn.ReLU(), nn.Linear(dim, dim))
        gain, bias = (config.gain, 0.0) if config.normalize else (dim**-0.5, config.bias)
        self.gain = nn.Parameter(torch.tensor(gain))
        self.bias = nn.Parameter(torch.tensor(bias), requires_grad=not config.normalize)

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cells (B, D, h, w) and sounds (B, D), as they are compared."""
        cells, sounds = self.project(self.visual(batch.image)[-1]), self.project_audio(self.audio(batch.spectrogram))
        return (ops.unit(cells), ops.unit(sounds)) if self.config.normalize else (cells, sounds)

    def logits(self, cells: Tensor, sounds: Tensor) -> Tensor:
        """Does this cell make this sound: (B, D, h, w), (B, D) -> (B, 1, h, w), float32."""
        return self.gain * ops.similarity(cells, sounds[:, None]) + self.bias

    def forward(self, batch: Batch) -> Losses:
        """``match``: cross-entropy of the highest logit, half for each picture's own sound, half for that of the sample
        before it in the batch, of whatever class (rivals 13). ValueError for mixtures, and for fewer than two samples.
        """
        self.require_solos(batch, pairs_for=PAIRS)
        cells, sounds = self.embed(batch)
        own, other = (ops.peak(self.logits(cells, x)) for x in (sounds, self.before(sounds)))  # (B, 1)
        return {"match": (F.softplus(-own).mean() + F.softplus(other).mean()) / 2}

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """One map of whatever is heard, without a class."""
        heat = self.logits(*self.embed(batch))
        return answer(heat, batch)
