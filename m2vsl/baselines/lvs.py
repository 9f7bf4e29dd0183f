"""LVS (Chen et al., CVPR 2021, "Localizing Visual Sounds the Hard Way"): the quiet part of a picture is a negative too.

Learns from solos, without labels. The cosine map of a picture with its own sound is cut softly into three: cells above
one threshold are positive, cells below a lower one are hard negatives, those between are ignored. The mean cosine of
the positive cells must exceed that of the hard negatives, and that of the same picture with any other sound of the
batch (easy negatives). Its map is that cosine map.

The original: two ResNet-18, the visual one with a last stage of stride 1 (14 x 14 cells), the sound max-pooled, 512
channels each and so no projection; Adam, 1e-4. The trunks of this book differ in width, so each has one linear
projection without bias to a common space. ImageNet weights, off in the released code, are the encoder's choice here.
The released code ends at the logits; their cross-entropy is its evident use. It does not stop the gradient at the soft
masks, nor is it stopped here. Far below a threshold a sigmoid is an exponential, so that its weighted mean is a softmax
pooling with the mask's temperature: a picture without a positive cell still learns. The printed loss sums the cosines
of all negatives into one term, which leaves nothing to learn where that sum happens to start far below 0; the code
gives each a logit, the default here. Facts from protocol 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2vsl import ops
from m2vsl.encoders import AudioEncoder, EncoderConfig, VisualEncoder, initialise
from m2vsl.localizer import PAIRS, Localizer, answer
from m2vsl.types import Batch, Losses, Maps

CHOICES = {"negatives": ("each", "summed"), "diagonal": ("excluded", "released")}


@dataclass(frozen=True)
class LVSConfig:
    """LVS's choices; cosines are dimensionless."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    last_stride: int = 1  # of the trunk: 14 x 14 cells of 224 px; rivals 1
    positive: float = 0.65  # epsilon_p: cells above this cosine are the source
    negative: float = 0.4  # epsilon_n: cells below are hard negatives; as `positive` = no cell is ignored
    softness: float = 0.03  # temperature of the sigmoids that cut the map
    temperature: float = 0.07  # of the logits; in the code, not in the paper
    negatives: str = "each"  # a logit of its own, easy ones by positive cells (code); or "summed", all cells (paper)
    diagonal: str = "excluded"  # a pair is not its own easy negative; "released": its logit times -99, a bug if below 0

    def __post_init__(self) -> None:
        for name, valid in CHOICES.items():
            if getattr(self, name) not in valid:
                raise ValueError(f"{name}: expected {' or '.join(valid)}, got {getattr(self, name)!r}")
        if self.negative > self.positive:
            raise ValueError(f"negative: expected at most positive = {self.positive}, got {self.negative}")


class LVS(Localizer):
    """Cosine maps, softly cut. ``classes`` is not used: nothing here knows a class."""

    wants: ClassVar[frozenset[str]] = frozenset({"solos"})

    def __init__(self, config: LVSConfig, classes: int) -> None:
        super().__init__()
        self.config, dim = config, config.encoder.dim
        self.visual, self.audio = VisualEncoder(config.encoder, config.last_stride), AudioEncoder(config.encoder)
        self.project = nn.Conv2d(self.visual.channels[-1], dim, 1, bias=False)
        self.project_audio = nn.Linear(self.audio.channels, dim, bias=False)
        self.project.apply(initialise)
        self.project_audio.apply(initialise)

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Projected, not normalised: locations (B, D, h, w) and sounds (B, D)."""
        return self.project(self.visual(batch.image)[-1]), self.project_audio(self.audio(batch.spectrogram))

    def forward(self, batch: Batch) -> Losses:
        """The loss ``contrast``, in nats. ValueError for mixtures, and for fewer than two samples."""
        self.require_solos(batch, pairs_for=PAIRS)
        cells, sounds = self.embed(batch)
        cosines = ops.similarity(ops.unit(cells), ops.unit(self.everyone(sounds))).flatten(2)
        logits = self._logits(cosines, self.first(len(batch)))
        return {"contrast": F.cross_entropy(logits, logits.new_zeros(len(batch), dtype=torch.int64))}

    def _logits(self, cosines: Tensor, first: int = 0) -> Tensor:
        """Cosines (B, N, hw) of picture i, whose own sound is first + i, with sound j -> logits, the positive first.

        (B, 2 + N): then the N sounds with this picture, then its hard negatives. Or (B, 2), where negatives are summed.
        """
        chosen, (rows, sounds) = self.config, cosines.shape[:2]
        diagonal = torch.eye(sounds, dtype=torch.bool, device=cosines.device)[first : first + rows]  # (B, N)
        source = _mean(cosines, (cosines - chosen.positive) / chosen.softness)  # (B, N)
        own = cosines[diagonal]  # (B, hw)
        hard = _mean(own, (chosen.negative - own) / chosen.softness)[:, None]
        if chosen.negatives == "summed":
            easy = cosines.mean(-1).masked_fill(diagonal, 0).sum(1, keepdim=True)
            return torch.cat([source[diagonal][:, None], hard + easy], 1) / chosen.temperature
        if chosen.diagonal == "excluded":
            easy = source.masked_fill(diagonal, -torch.inf)
        else:
            easy = torch.where(diagonal, -99 * source, source)
        return torch.cat([source[diagonal][:, None], easy, hard], 1) / chosen.temperature

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """One map of whatever is heard, without a class."""
        cells, sounds = self.embed(batch)
        heat = ops.similarity(ops.unit(cells), ops.unit(sounds)[:, None])
        return answer(heat, batch)


def _mean(values: Tensor, logits: Tensor) -> Tensor:
    """Mean over the last axis under the soft mask sigmoid(`logits`), whose values may all be too small for a float."""
    return (F.logsigmoid(logits).softmax(-1) * values).sum(-1)
