"""The one door of every method: `forward` to learn, `localize` to answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from m2vsl import ops, parallel
from m2vsl.processor import kept_memory
from m2vsl.types import Batch, Losses, Maps

PAIRS = "one as the other's negative"  # why most contrasts need two samples at least
Reads = Literal["heat", "positive", "logits"]  # see `m2vsl.metrics.calls.Segmentation.reads`


@dataclass(frozen=True)
class Stage:
    """A part of training: most methods have one, two-stage methods declare two."""

    name: str
    share: float = 1.0  # of the training steps, dimensionless


class Localizer(nn.Module, ABC):
    """A method that says which pixels make the sound.

    `forward` is the training verb because DistributedDataParallel synchronises only what is called through it. Its
    losses come back by name, so logs, ablations and tables get their columns for free. `localize` reads the picture
    and the sound alone, never ``heard``, ``seen`` or ``truth``: but for the controls `Oracle` and `ObjectArea`.
    """

    wants: ClassVar[frozenset[str]] = frozenset()  # what it learns from: "labels", "solos", "mixtures"
    listens: ClassVar[bool] = True  # its maps change with the sound
    named: ClassVar[bool] = False  # its maps say which class each is for; without, there is no CAP
    reads: ClassVar[Reads] = "heat"  # how its maps become masks
    stages: tuple[Stage, ...] = (Stage("joint"),)
    gather: bool = True  # compare with the samples of all processes, not of this one alone; the trainer's to say
    sources: int | None = None  # sources of one picture that its unnamed maps can tell apart; None = one map for all

    @abstractmethod
    def forward(self, batch: Batch) -> Losses:
        """Losses by name, each a scalar; the trainer minimises their sum. Without trainable parameters: empty."""

    @abstractmethod
    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """Maps at the size of the picture, without gradient, from ``image`` and ``spectrogram`` alone."""

    def require_solos(self, batch: Batch, *, pairs_for: str = "") -> None:
        """ValueError, naming the method and the sample, if more than one class sounds in a sample of `batch`.

        pairs_for: what two samples are needed for, as the error says it, if one is too few.
        """
        several = (batch.heard.sum(-1) > 1).nonzero().flatten().tolist()
        if several:
            key = batch.keys[several[0]] if batch.keys else f"number {several[0]}"
            raise ValueError(
                f"{type(self).__name__} learns from solos: expected one sounding class per sample, "
                f"got {int(batch.heard[several[0]].sum())} in {key}; train it on the task 'single'"
            )
        if pairs_for and len(batch) < 2:
            raise ValueError(f"{type(self).__name__}: expected at least two samples, {pairs_for}, got {len(batch)}")

    def everyone(self, x: Tensor) -> Tensor:
        """Rows (B, ...) of all processes in rank order, with gradient; where negatives are not gathered `x` itself."""
        return parallel.gather_with_gradient(x) if self.gather else x

    def first(self, rows: int) -> int:
        """Where this process's rows begin in `everyone`, if each process has so many."""
        return parallel.rank() * rows if self.gather else 0

    def before(self, x: Tensor, by: int = 1) -> Tensor:
        """For each sample the row of the one that comes `by` places before it in the whole batch: (B, ...)."""
        first = self.first(len(x))
        return self.everyone(x).roll(by, 0)[first : first + len(x)]

    def enter(self, stage: Stage, loader: Iterable[Batch]) -> None:
        """Prepare for a stage of training (k-means, pseudo-labels, freezing). By default nothing."""


def answer(cells: Tensor, batch: Batch, presence: Tensor | None = None) -> Maps:
    """Maps of cells (B, K, h, w) at the size of the pictures: of no class, or with `presence` (B, K) one per class."""
    heat = ops.upsample(cells, (batch.image.shape[-2], batch.image.shape[-1]))
    classes = torch.arange(heat.shape[1], device=heat.device)
    return Maps(heat, torch.full_like(classes, -1) if presence is None else classes, presence)


def device_of(localizer: Localizer) -> torch.device:
    """Where its parameters are; the CPU if it has none."""
    return next((parameter.device for parameter in localizer.parameters()), torch.device("cpu"))


@contextmanager
def evaluating(localizer: Localizer) -> Iterator[None]:
    """Evaluation mode without gradient, and `processor.kept_memory`; the mode is put back."""
    training = localizer.training
    localizer.eval()
    try:
        with torch.no_grad(), kept_memory():
            yield
    finally:
        localizer.train(training)
