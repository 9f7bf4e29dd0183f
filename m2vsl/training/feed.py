"""Batches, epoch after epoch, from any place in an epoch."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from m2vsl.training.randomness import drawing_from
from m2vsl.types import Batch

BatchSource = Callable[[int, int], Iterable[Batch]]  # (epoch, first batch) -> the batches of the epoch from there


class Feed:
    """An endless stream of batches that knows its place.

    The source decides the order of an epoch by generators of its own. What it draws from the global ones for a batch
    depends on (seed, epoch, batch) alone and takes nothing from what training draws; so a run that is resumed in the
    middle of an epoch goes on as if it had not stopped.
    """

    def __init__(
        self,
        source: BatchSource,
        seed: int,
        device: torch.device,
        channels_last: bool = False,
        everything: BatchSource | None = None,
    ) -> None:
        self.source, self.seed, self.device, self.channels_last = source, seed, device, channels_last
        self.everything = everything or source  # of all processes, where the source is one's own part
        self.epoch, self.index = 0, 0  # of the next batch
        self.asked_at = time.perf_counter()  # when the newest batch was asked for

    def until(self, stopped: Callable[[], bool]) -> Iterator[Batch]:
        """Batches on the device until `stopped` says so. Raises ValueError for an epoch without batches."""
        while not stopped():
            with drawing_from(_mixed(self.seed, self.epoch)):
                batches = iter(self.source(self.epoch, self.index))
            yield from self._epoch(batches, stopped)
            if stopped():
                return
            if self.index == 0:
                raise ValueError(f"epoch {self.epoch} has no batch: fewer samples than batch_size, the rest dropped?")
            self.epoch, self.index = self.epoch + 1, 0

    def whole(self, epoch: int) -> Iterable[Batch]:
        """All batches of `epoch`, as often as they are asked for, beside training: for `Localizer.enter`."""
        return _Epoch(self, epoch)

    def _epoch(self, batches: Iterator[Batch], stopped: Callable[[], bool]) -> Iterator[Batch]:
        while not stopped():
            self.asked_at = time.perf_counter()
            try:
                with drawing_from(_mixed(self.seed, self.epoch, self.index)):
                    batch = next(batches, None)
            except RuntimeError:
                if stopped():  # ctrl-C reached the worker processes of the loader, too
                    return
                raise
            if batch is None:
                return
            self.index += 1
            yield self.placed(batch)

    def placed(self, batch: Batch) -> Batch:
        """`batch` on the device, its pictures in the memory order of the run."""
        batch = batch.to(self.device)
        if self.channels_last:
            batch = replace(batch, image=batch.image.contiguous(memory_format=torch.channels_last))
        return batch


@dataclass(frozen=True)
class _Epoch:
    feed: Feed
    epoch: int

    def __iter__(self) -> Iterator[Batch]:
        return map(self.feed.placed, self.feed.everything(self.epoch, 0))


def _mixed(*numbers: int) -> int:
    """A seed that differs for every combination of `numbers`."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:4], "big")
