"""DSOL (Hu et al., NeurIPS 2020): sounding objects, found alone, then told apart in mixtures.

Learns from solos, without labels, then from mixtures that are made of them; labels say in the end which cluster is
which class, and nothing else (``labels="video"`` replaces the clusters by them, as the paper and AVGN describe DSOL:
ledger 46). Its maps: for each class, how much a cell looks like an object of the dictionary and sounds. Three stages:

- ``sound``: map sigma(w cos), its maximum says whether picture and sound belong together.
- ``objects``: where it sounds, pooled features are clustered by k-means; the cluster means are the object dictionary,
  and the clusters teach a classifier of the picture and one of the sound, while correspondence goes on.
- ``mixtures``: a dictionary map per object, times the sound map; its mean must have the distribution over objects that
  the sound classifier, frozen, hears in the mixture.

The original alternates the first two epoch by epoch with fresh classifiers and mixes 2 x 2 mosaics; here the budget is
split once, and a mixture is two solos of the batch side by side. Facts from protocol 3.5; the trunks are the book's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from m2vsl import ops
from m2vsl.audio import mix_spectrograms
from m2vsl.encoders import AudioEncoder, EncoderConfig, VisualEncoder, initialise
from m2vsl.localizer import PAIRS, Localizer, Stage, answer
from m2vsl.types import Batch, Losses, Maps


@dataclass(frozen=True)
class DSOLConfig:
    """DSOL's choices."""

    AT_TEST: ClassVar[frozenset[str]] = frozenset({"sharpness"})  # fields that training does not read
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    last_stride: int = 1  # of the trunk: 14 x 14 cells of 224 px; rivals 1
    dim: int = 128  # of the common space
    gain: float = 5.0  # w of sigma(w cos) at the start; learnt, without a bias
    threshold: float = 0.05  # of the sound map, above which a cell belongs to the object
    labels: str = "clusters"  # the objects are "clusters" of k-means, or the "video" labels; ledger 46
    clusters: int = 0  # of k-means; 0 = as many as classes (11 for MUSIC's 11)
    pictures: int = 1024  # at most, from which k-means is run
    object_gain: float = 1.0  # of a dictionary map at the start, over the entries' mean squared distance to their mean
    matching: float = 0.5  # weight of the correspondence loss beside the distribution of a mixture
    sharpness: float = 3.0  # factor of the dictionary maps before the softmax over objects at test

    def __post_init__(self) -> None:
        if self.labels not in ("clusters", "video"):
            raise ValueError(f"labels: expected clusters or video, got {self.labels!r}")


class DSOL(Localizer):
    """Sound map, object dictionary, and both at once. ``classes``: C, of the data set."""

    wants: ClassVar[frozenset[str]] = frozenset({"solos", "mixtures"})
    named: ClassVar[bool] = True
    stages = (Stage("sound", 0.4), Stage("objects", 0.2), Stage("mixtures", 0.4))
    dictionary: Tensor  # (K, C_v) means of the objects' features; noise before stage ``objects``
    owner: Tensor  # (K, C) 1 where cluster k stands for class c

    def __init__(self, config: DSOLConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        objects = (config.clusters if config.labels == "clusters" else 0) or classes
        if objects < classes:
            raise ValueError(f"DSOL: expected at least as many clusters as the {classes} classes, got {objects}")
        self.visual, self.audio = VisualEncoder(config.encoder, config.last_stride), AudioEncoder(config.encoder)
        seen, heard, dim = self.visual.channels[-1], self.audio.channels, config.dim
        self.project = nn.Sequential(nn.Conv2d(seen, dim, 1), nn.ReLU(), nn.Conv2d(dim, dim, 1))
        self.project_audio = nn.Sequential(nn.Linear(heard, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.gain = nn.Parameter(torch.tensor(config.gain))
        self.object_gain = nn.Parameter(torch.tensor(config.object_gain))
        self.object_bias = nn.Parameter(torch.zeros(()))
        self.see, self.hear = nn.Linear(seen, objects), nn.Linear(heard, objects)
        self.project.apply(initialise)
        self.register_buffer("dictionary", torch.randn(objects, seen))
        self.register_buffer("owner", torch.eye(objects, classes))
        self.teacher = nn.ModuleList([copy.deepcopy(self.audio), copy.deepcopy(self.hear)]).requires_grad_(False)
        self._open("mixtures")

    def _open(self, stage: str) -> None:
        """What learns in `stage`."""
        self.phase = stage
        for part in (*self.see.parameters(), *self.hear.parameters()):
            part.requires_grad_(stage == "objects")
        for part in (self.object_gain, self.object_bias):
            part.requires_grad_(stage == "mixtures")

    def train(self, mode: bool = True) -> DSOL:
        """The teacher stays as it was."""
        super().train(mode)
        self.teacher.eval()
        return self

    def enter(self, stage: Stage, loader: Iterable[Batch]) -> None:
        """Before ``objects`` the dictionary is found, before ``mixtures`` the sound classifier is frozen as teacher.

        ValueError if k-means leaves a cluster empty.
        """
        self._open(stage.name)
        if stage.name == "objects":
            pooled, labels = self._collect(loader)
            found = labels.argmax(-1) if self.config.labels == "video" else ops.k_means(pooled, len(self.dictionary))
            share = F.one_hot(found, len(self.dictionary)).to(pooled.dtype)  # (n, K)
            self.dictionary.copy_(share.T @ pooled / share.sum(0)[:, None].clamp(min=1))
            self.owner.copy_(_owners(share.T @ labels) if self.config.labels == "clusters" else self.owner)
        elif stage.name == "mixtures":
            self.teacher.load_state_dict(nn.ModuleList([self.audio, self.hear]).state_dict())

    @torch.no_grad()
    def _collect(self, loader: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """Object features (n, C_v) and labels (n, C) of at most ``pictures`` training pictures."""
        pooled, labels, mode = [], [], self.training
        self.eval()
        for batch in islice(loader, -(-self.config.pictures // 32)):
            cells = self.visual(batch.image)[-1]
            pooled.append(self._objects(cells, self._sounding(cells, self.audio(batch.spectrogram))))
            labels.append(batch.labels)
        self.train(mode)
        return torch.cat(pooled)[: self.config.pictures], torch.cat(labels)[: self.config.pictures]

    def _sounding(self, cells: Tensor, sound: Tensor) -> Tensor:
        """Logits w cos of every cell with the sound: (B, C_v, h, w), (B, C_a) -> (B, 1, h, w)."""
        queries = ops.unit(self.project_audio(sound))[:, None]
        return self.gain * ops.similarity(ops.unit(self.project(cells)), queries)

    def _objects(self, cells: Tensor, logits: Tensor) -> Tensor:
        """Mean feature of the cells that sound, dilated by a cross: (B, C_v, h, w), (B, 1, h, w) -> (B, C_v)."""
        mask = ops.dilated(torch.sigmoid(logits) > self.config.threshold).float()
        return (ops.precise(cells) * mask).sum((-2, -1)) / mask.sum((-2, -1)).clamp(min=1)

    def _dictionary_maps(self, cells: Tensor, logits: Tensor) -> Tensor:
        """What looks like each object, where it sounds: (B, C_v, h, w), (B, 1, h, w) -> (B, K, h, w)."""
        apart = self.dictionary - self.dictionary.mean(0)  # what all share cancels in every softmax over objects
        alike = ops.similarity(cells, self.dictionary) / apart.square().sum(-1).mean()
        return (self.object_gain * alike + self.object_bias) * torch.sigmoid(logits)

    def forward(self, batch: Batch) -> Losses:
        """Losses ``match``; ``see`` and ``hear`` of stage ``objects``; ``objects`` of stage ``mixtures``.

        ValueError for mixtures, which are made here, and for fewer than two samples.
        """
        self.require_solos(batch, pairs_for=PAIRS)
        image, spectrogram = batch.image, batch.spectrogram
        if self.phase == "mixtures":
            image = torch.cat([image, image.roll(1, 0)], -1)
            spectrogram = mix_spectrograms(spectrogram, spectrogram.roll(1, 0))
        cells, sound = self.visual(image)[-1], self.audio(spectrogram)
        away = 2 if self.phase == "mixtures" and len(batch) > 2 else 1  # the next mixture shares a solo
        logits, wrong = self._sounding(cells, sound), self._sounding(self.before(cells, away), sound)
        if self.phase == "mixtures":
            wrong = F.adaptive_max_pool2d(wrong, 2)
            heard = ops.precise(self.teacher[1](self.teacher[0](spectrogram))).softmax(-1)
            shown = self._dictionary_maps(cells, logits).mean((-2, -1)).log_softmax(-1)
            match = self.config.matching * _match(ops.peak(logits), wrong)
            return {"match": match, "objects": F.kl_div(shown, heard, reduction="none").mean()}
        out = {"match": _match(ops.peak(logits), ops.peak(wrong))}
        if self.phase == "objects":
            pooled = self._objects(cells, logits)
            target = self._nearest(pooled) if self.config.labels == "clusters" else batch.labels.argmax(-1)
            out["see"] = F.cross_entropy(ops.precise(self.see(pooled)), target)
            out["hear"] = F.cross_entropy(ops.precise(self.hear(sound)), target)
        return out

    def _nearest(self, pooled: Tensor) -> Tensor:
        """The cluster of features (B, C_v), drawn anew in every epoch: the dictionary entry of largest cosine."""
        return (ops.unit(pooled) @ ops.unit(self.dictionary).T).argmax(-1)

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """One map per class: softmax over objects of `sharpness` x dictionary maps, summed over a class's clusters."""
        cells = self.visual(batch.image)[-1]
        maps = self._dictionary_maps(cells, self._sounding(cells, self.audio(batch.spectrogram)))
        share = torch.softmax(self.config.sharpness * maps, 1)  # (B, K, h, w)
        heat = torch.einsum("bkhw,kc->bchw", share, self.owner)
        heard = self.teacher[1](self.teacher[0](batch.spectrogram)).float().softmax(-1)
        return answer(heat, batch, heard @ self.owner)


def _match(positive: Tensor, negative: Tensor) -> Tensor:
    """Half the cross-entropy of matched logits (any shape) against 1 and half that of mismatched ones against 0."""
    return 0.5 * (F.softplus(-positive).mean() + F.softplus(negative).mean())


def _owners(counts: Tensor) -> Tensor:
    """Which class each cluster stands for, (K, C) 0 or 1, from how often they meet, (K, C): every class gets one."""
    owner = F.one_hot(counts.argmax(-1), counts.shape[1]).to(counts.dtype)
    rows, columns = linear_sum_assignment(counts.cpu().numpy(), maximize=True)
    owner[rows] = F.one_hot(torch.as_tensor(columns), counts.shape[1]).to(owner)
    return owner
