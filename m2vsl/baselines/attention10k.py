"""Attention10k (Senocak, Oh, Kim, Yang & Kweon, CVPR 2018): a sound attends to the picture and meets itself.

Learns from solos, without labels: the cells of a picture, weighed by their cosines with the sound, make one vector that
must lie nearer to its own sound than to another one. Its map: that cosine, before the ReLU and the softmax that follow.

The original has VGG-16 up to conv5_3, 20 x 20 cells of 320 px, and SoundNet's averaged object scores (1000 values),
both frozen; batch 30, Adam 1e-4; "10k" is the number of its training clips. Here the trunks are the book's, cells come
after their ReLU, and the sound's trunk learns (rivals 3); the supervised term for annotated pictures is left out.
``loss="contrastive"`` is the form that DSOL's authors trained on ResNet-18 and reported as this method. Distances go to
the sound's own vector, as it leaves its trunk, in both; and attention is nearly flat in both, for no temperature
sharpens the cosines: the order of the cells is what is learnt. Facts from baselines 2.
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
class Attention10kConfig:
    """Attention10k's choices."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)  # its `dim`: width of the hidden layers
    last_stride: int = 1  # of the trunk: 14 x 14 cells of 224 px; 2 = 7 x 7; rivals 1
    loss: str = "ratio"  # of two distances, the original's; or "contrastive", DSOL's authors'; rivals 2
    margin: float = 10.0  # of "contrastive": distance from which another picture is far enough

    def __post_init__(self) -> None:
        if self.loss not in ("ratio", "contrastive"):
            raise ValueError(f"loss: expected ratio or contrastive, got {self.loss!r}")


class Attention10k(Localizer):
    """Cosine of every cell with the query that the sound makes."""

    wants: ClassVar[frozenset[str]] = frozenset({"solos"})

    def __init__(self, config: Attention10kConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        self.visual, self.audio = VisualEncoder(config.encoder, config.last_stride), AudioEncoder(config.encoder)
        seen, heard, dim = self.visual.channels[-1], self.audio.channels, config.encoder.dim
        self.ask = nn.Sequential(nn.Linear(heard, dim), nn.ReLU(), nn.Linear(dim, seen))
        self.answer = nn.Sequential(nn.Linear(seen, dim), nn.ReLU(), nn.Linear(dim, heard))

    def query(self, sound: Tensor) -> Tensor:
        """What the sound looks for: (B, C_a) -> unit vectors (B, C_v)."""
        asked = self.ask(sound)
        return ops.unit(asked.relu() if self.config.loss == "contrastive" else asked)

    def see(self, cells: Tensor, sound: Tensor) -> Tensor:
        """The picture as the sound attends to it: (B, C_v, h, w), (B, C_a) -> (B, C_a), float32."""
        contrastive = self.config.loss == "contrastive"
        cosines = ops.similarity(ops.unit(cells), self.query(sound)[:, None])
        weights = (cosines if contrastive else cosines.relu()).flatten(2).softmax(-1)  # (B, 1, hw)
        pooled = (weights * (ops.unit(cells) if contrastive else ops.precise(cells)).flatten(2)).sum(-1)
        return ops.precise(self.answer(pooled).relu() if contrastive else self.answer(pooled.relu()))

    def forward(self, batch: Batch) -> Losses:
        """``ratio``; or ``pull`` and ``push``, whose sum is the contrast over pairs.

        The wrong pair of each sound is with the sample before it in the batch, of whatever class (rivals 13). For the
        ratio, the picture stays and is attended to by its own sound; for the contrast, the sound stays and attends to
        the other picture. ValueError for mixtures, and for fewer than two samples.
        """
        self.require_solos(batch, pairs_for=PAIRS)
        cells, sound = self.visual(batch.image)[-1], ops.precise(self.audio(batch.spectrogram))
        seen = self.see(cells, sound)
        own = torch.linalg.vector_norm(seen - sound, dim=-1)  # (B,)
        if self.config.loss == "ratio":
            return {"ratio": ratio(own, torch.linalg.vector_norm(seen - self.before(sound), dim=-1))}
        other = torch.linalg.vector_norm(self.see(self.before(cells), sound) - sound, dim=-1)
        far = F.relu(self.config.margin - other)
        return {"pull": own.square().mean() / 4, "push": far.square().mean() / 4}  # halves, and the mean of both kinds

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """One map of whatever is heard, without a class."""
        cells, query = self.visual(batch.image)[-1], self.query(self.audio(batch.spectrogram))
        heat = ops.similarity(ops.unit(cells), query[:, None])
        return answer(heat, batch)


def ratio(own: Tensor, other: Tensor) -> Tensor:
    """Mean square of p = e^own / (e^own + e^other), from distances (B,): 1/4 where both are equal.

    It is the squared error of (p, 1 - p) against (0, 1), averaged over both.
    """
    return torch.sigmoid(own - other).square().mean()
