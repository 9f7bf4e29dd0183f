"""CoarsetoFine (Qian et al., ECCV 2020; also MSSL): which classes, then class by class where.

Learns from the labels of solos. Stage ``coarse``: both trunks learn to name the classes, and whether picture and sound
belong together (every pair of the batch). Stage ``fine``: where a class is active in both, its activation maps, which
get no gradient, weigh the cells of either, and the two embeddings of the class have to align. The map of a class is the
cosine of its embedding in the sound with every cell of the picture; without the ReLU and the sum over classes of the
original, which makes ties and one map of all (baselines 1.3). The pair of trunks never sees a mixture.

The original takes pseudo-labels of an ImageNet classifier and of an audio tagger, for 7 classes; here both are the
label of the video (rivals 7), so this row is not self-supervised. Its simplified release, which this follows, has
ResNet-18 with 16 x 16 cells and SGD at 1e-3, then 1e-4; here the trunks are the book's, and Adam at one rate for both
stages (rivals 8). Facts from baselines 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2vsl import losses, ops
from m2vsl.encoders import AudioEncoder, EncoderConfig, VisualEncoder
from m2vsl.localizer import Localizer, Stage, answer
from m2vsl.types import Batch, Losses, Maps


@dataclass(frozen=True)
class CoarseToFineConfig:
    """CoarsetoFine's choices."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    last_stride: int = 1  # of the trunk: 14 x 14 cells of 224 px; 2 = 7 x 7; rivals 1
    hidden: int = 1024  # units of the projections
    dim: int = 128  # of the common space, and units of the correspondence classifier
    gate: float = 0.3  # probability above which a class is active in a sound or a picture
    margin: float = 1.4  # distance of unit vectors from which a pair that does not belong together is far enough


class CoarseToFine(Localizer):
    """Class activation in both, then alignment class by class. ``classes``: C, of the data set."""

    wants: ClassVar[frozenset[str]] = frozenset({"labels", "solos"})
    named: ClassVar[bool] = True
    stages = (Stage("coarse", 0.5), Stage("fine", 0.5))

    def __init__(self, config: CoarseToFineConfig, classes: int) -> None:
        super().__init__()
        self.config, self.phase = config, "fine"
        self.visual, self.audio = VisualEncoder(config.encoder, config.last_stride), AudioEncoder(config.encoder)
        seen, heard = self.visual.channels[-1], self.audio.channels
        self.see, self.hear = nn.Linear(seen, classes, bias=False), nn.Linear(heard, classes, bias=False)
        self.pair, self.belong = nn.Linear(heard + seen, config.dim), nn.Linear(config.dim, 2)
        self.project, self.project_audio = self._projection(seen), self._projection(heard)

    def _projection(self, channels: int) -> nn.Sequential:
        """Without biases: what comes out, normalised, does not depend on the length of what goes in."""
        hidden, dim = self.config.hidden, self.config.dim
        return nn.Sequential(nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, dim, bias=False))

    def enter(self, stage: Stage, loader: Iterable[Batch]) -> None:
        """The projections learn in stage ``fine`` alone."""
        self.phase = stage.name
        for net in (self.project, self.project_audio):
            net.requires_grad_(stage.name == "fine")

    def forward(self, batch: Batch) -> Losses:
        """Losses ``see``, ``hear`` and ``belong``; ``align`` in stage ``fine``.

        ValueError for mixtures, for a sample without a label, and for fewer than two samples.
        """
        self.require_solos(batch, pairs_for="to be told apart")
        bare = int((batch.labels.sum(-1) == 0).sum())
        if bare:
            raise ValueError(f"CoarseToFine: expected a label for every sample, got {bare} without")
        seen, heard = ops.precise(self.visual(batch.image)[-1]), ops.precise(self.audio.cells(batch.spectrogram))
        picture, sound = seen.mean((-2, -1)), heard.mean((-2, -1))
        logits = {"see": ops.precise(self.see(picture)), "hear": ops.precise(self.hear(sound))}
        out = {name: losses.presence(values, batch.labels) for name, values in logits.items()}
        out["belong"] = self._belong(self.everyone(picture), self.everyone(sound))
        if self.phase == "fine":
            active = torch.sigmoid(torch.minimum(*logits.values())) > self.config.gate
            rows = (active | (batch.labels > 0)).nonzero(as_tuple=True)  # n pairs of a sample and a class
            pictures = ops.unit(self.project(embed(seen, self.see.weight)[rows]))
            sounds = ops.unit(self.project_audio(embed(heard, self.hear.weight)[rows]))
            out["align"] = align(self.everyone(pictures), self.everyone(sounds), self.config.margin)
        return out

    def _belong(self, picture: Tensor, sound: Tensor) -> Tensor:
        """Cross-entropy of "they belong together" over all B x B pairs: half for those that do, half for the rest."""
        by_sound, by_picture = self.pair.weight.split([sound.shape[-1], picture.shape[-1]], 1)
        hidden = F.linear(sound, by_sound)[:, None] + F.linear(picture, by_picture, self.pair.bias)  # (B, B, dim)
        logits, own = ops.precise(self.belong(F.relu(hidden))), torch.eye(len(sound), device=sound.device).long()
        each = F.cross_entropy(logits.flatten(0, 1), own.flatten(), reduction="none").view_as(own)
        return 0.5 * (each[own == 1].mean() + each[own == 0].mean())

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """One map per class: the cosine of the class in the sound with every cell. Presence: of the sound's head."""
        seen, heard = self.visual(batch.image)[-1], self.audio.cells(batch.spectrogram).float()
        cells = self.project(seen.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(-1, seen.shape[-2:])
        queries = ops.unit(self.project_audio(embed(heard, self.hear.weight)), -1)  # (B, C, dim)
        presence = torch.sigmoid(self.hear(heard.mean((-2, -1))).float())
        return answer(ops.similarity(ops.unit(cells), queries), batch, presence)


def embed(cells: Tensor, heads: Tensor) -> Tensor:
    """Each class's own mean of the cells, weighted by its activation map, which gets no gradient.

    cells: (B, D, h, w); heads: (C, D), classifiers of a cell. Returns (B, C, D), float32. The mean of all cells where
    the map is nowhere positive: the original's zero vector there would tie all pixels of that class's map.
    """
    with torch.autocast(cells.device.type, enabled=False):
        maps = F.relu(ops.similarity(cells.detach(), heads.detach())).flatten(2) + 1e-6  # (B, C, hw)
        return maps / maps.sum(-1, keepdim=True) @ ops.precise(cells).flatten(2).transpose(1, 2)


def align(pictures: Tensor, sounds: Tensor, margin: float) -> Tensor:
    """Squared distance of the n unit vectors (n, D) that belong together, and a push below `margin` for all others.

    Other samples of the same class are pushed away, too. The mean of either kind, and their sum.
    """
    with torch.autocast(sounds.device.type, enabled=False):
        squared = (2 - 2 * ops.precise(sounds) @ ops.precise(pictures).T).clamp(min=1e-12)  # the root needs a slope
    own = torch.eye(len(sounds), dtype=torch.bool, device=sounds.device)
    return squared[own].mean() + F.relu(margin - squared[~own].sqrt()).square().mean()
