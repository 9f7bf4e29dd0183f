"""AVGN (Mo & Tian, CVPR 2023): class tokens pick their own share of a sound mixture, and of a picture.

Learns from the labels of solos, and from mixtures that are made of them: sample i is heard together with a sample of
another class, seen alone. Class tokens, zero at first, go through a transformer with the one token of the sound, and
through another with the cells of the picture; grouping makes a slot of each class. Three losses say which classes the
tokens are, and which are heard and seen. The slot of the picture's own class in the sound has to agree with the best
cell of its picture. The map of a class is the inner product of its slot in the sound with every cell, taken before
the transformer: what the picture's branch learns reaches the map through the trunk alone. The slots keep their length,
so the values are not cosines (``normalise_slots`` makes them cosines).

The original has ResNet-18 trunks, 7 x 7 cells of 512 channels, waveforms summed, Adam 1e-4 and batches of 128; one
model for single sources and one for several (``mixtures``). Here the trunks are the book's, and of two log spectrograms
the louder cell is heard. Left out: hard assignment, an option of the release, and object guidance, which only a script
of it that does not run has. Facts from protocol 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from m2vsl import losses, ops
from m2vsl.attention import Block, Grouping
from m2vsl.audio import mix_spectrograms
from m2vsl.encoders import AudioEncoder, EncoderConfig, VisualEncoder, initialise
from m2vsl.localizer import PAIRS, Localizer, answer
from m2vsl.types import Batch, Losses, Maps


@dataclass(frozen=True)
class AVGNConfig:
    """AVGN's choices."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    last_stride: int = 2  # of the trunk: 7 x 7 cells of 224 px; 1 = 14 x 14; rivals 1
    temperature: float = 0.03  # tau; ledger 11
    normalise_slots: bool = False  # slots brought to length 1, so that maps are cosines; the original: false
    mixtures: bool = True  # hear each sample with one of another class, as for several sources; ledger 45
    depth: int = 3  # transformer blocks of a branch
    heads: int = 8  # of self-attention; ledger 15
    drop_path: float = 0.1  # stochastic depth
    class_reduction: str = "mean"  # presence losses over classes: "mean", or "sum" (ours); ledger 12

    def __post_init__(self) -> None:
        if self.class_reduction not in ("mean", "sum"):
            raise ValueError(f"class_reduction: expected mean or sum, got {self.class_reduction!r}")


class AVGN(Localizer):
    """Cells of the last stage with the class slots of the sound. ``classes``: C, of the data set."""

    wants: ClassVar[frozenset[str]] = frozenset({"labels", "solos", "mixtures"})
    named: ClassVar[bool] = True

    def __init__(self, config: AVGNConfig, classes: int) -> None:
        super().__init__()
        self.config, dim = config, config.encoder.dim
        self.visual, self.audio = VisualEncoder(config.encoder, config.last_stride), AudioEncoder(config.encoder)
        self.project = nn.Conv2d(self.visual.channels[-1], dim, 1)
        self.project_audio = nn.Linear(self.audio.channels, dim)
        self.project.apply(initialise)
        self.project_audio.apply(initialise)
        self.tokens = nn.Parameter(torch.zeros(classes, dim))  # shared by both branches
        branches = ("audio", "visual")
        self.phi = nn.ModuleDict({name: self._branch(dim) for name in branches})
        self.group = nn.ModuleDict({name: Grouping(dim, classes, config.heads) for name in branches})
        self.token_head, self.seen_head, self.heard_head = nn.Linear(dim, classes), nn.Linear(dim, 1), nn.Linear(dim, 1)

    def _branch(self, dim: int) -> nn.Sequential:
        c = self.config
        return nn.Sequential(*(Block(dim, c.heads, c.drop_path) for _ in range(c.depth)))

    def cells(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> the last stage, projected, not normalised: (B, D, h, w)."""
        return self.project(self.visual(image)[-1])

    def hear(self, spectrogram: Tensor) -> Tensor:
        """(B, 1, F, T) -> x^a, every class as the sound has it, (B, C, D)."""
        return self._slots("audio", self.project_audio(self.audio(spectrogram))[:, None])

    def see(self, cells: Tensor) -> Tensor:
        """Cells (B, D, h, w) -> x^v, every class as the picture has it, (B, C, D). The order of the cells is lost."""
        return self._slots("visual", cells.flatten(2).transpose(1, 2))

    def _slots(self, name: str, features: Tensor) -> Tensor:
        """One branch: (B, P, D) and the class tokens -> class slots (B, C, D)."""
        together = torch.cat([features, self.tokens.expand(len(features), -1, -1)], 1)
        features, tokens = self.phi[name](together).split([features.shape[1], len(self.tokens)], 1)
        return self.group[name](features, tokens)

    def agreement(self, cells: Tensor, slots: Tensor) -> Tensor:
        """Unit cells with slots: (B, D, h, w), (N, D) or (B, N, D) -> (B, N, h, w), float32."""
        slots = ops.unit(slots, -1) if self.config.normalise_slots else slots
        return ops.similarity(ops.unit(cells), slots)

    def forward(self, batch: Batch) -> Losses:
        """Losses ``contrast``, ``token``, ``seen`` and ``heard``.

        The partners of a mixture are drawn from PyTorch's global generator. ValueError for mixtures, which are made
        here, for a sample in which nothing sounds, for fewer than two samples, and for nothing to mix with.
        """
        self.require_solos(batch, pairs_for=PAIRS)
        silent = int((batch.heard.sum(-1) == 0).sum())
        if silent:
            raise ValueError(f"AVGN: expected a sounding class in every sample, got {silent} without")
        own, rows = batch.heard.argmax(-1), torch.arange(len(batch), device=batch.heard.device)
        spectrogram, heard = batch.spectrogram, batch.heard
        if self.config.mixtures:
            other = partners(own)
            spectrogram = mix_spectrograms(spectrogram, spectrogram[other])
            heard = torch.maximum(heard, heard[other])
        cells, sound = self.cells(batch.image), self.hear(spectrogram)
        picture, reduction = self.see(cells), self.config.class_reduction
        scores = self.everyone(ops.peak(self.agreement(cells, self.everyone(sound[rows, own]))))  # (B, B), of all
        return {
            "contrast": losses.mmc([scores], torch.arange(len(scores), device=scores.device), self.config.temperature),
            "token": losses.token_identity(self.token_head(self.tokens)),
            "seen": losses.presence(self.seen_head(picture).squeeze(-1), batch.labels, reduction),
            "heard": losses.presence(self.heard_head(sound).squeeze(-1), heard, reduction),
        }

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """One map per class; presence from the class slots of the sound."""
        cells, sound = self.cells(batch.image), self.hear(batch.spectrogram)
        return answer(self.agreement(cells, sound), batch, torch.sigmoid(self.heard_head(sound).squeeze(-1).float()))


def partners(classes: Tensor) -> Tensor:
    """For each sample one of another class, drawn evenly from PyTorch's global generator: (B,) -> (B,) int64.

    ValueError if all samples are of one class.
    """
    others = (classes[:, None] != classes[None, :]).float()
    if not others.any():
        raise ValueError(f"AVGN mixes two classes: expected several in a batch, got class {int(classes[0])} alone")
    return torch.multinomial(others, 1).squeeze(-1)
