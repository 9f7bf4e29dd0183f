"""From samples to batches: one epoch, the same for any number of workers, resumable at any batch.

Conventions
-----------
Batch b of an epoch is a function of (seed, epoch, b): the order is a permutation drawn from (seed, epoch), sample i is
the dataset's, a function of (seed, epoch, i), and the stripes blanked in training spectrograms come from
(seed, epoch, b). Sources are padded to the largest count of the batch: class -1, empty mask, not present.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol

import torch
from torch import Tensor

from m2vsl.audio import AudioConfig, blanked, log_spectrogram, stripes
from m2vsl.types import Batch, Sample, Truth


class Samples(Protocol):
    """What every data set is."""

    classes: tuple[str, ...]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...
    def set_epoch(self, epoch: int, /) -> None: ...


def seeded(*key: object) -> torch.Generator:
    """A random generator that depends on `key` alone, on every machine; near keys give unrelated streams."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def collate(
    samples: Sequence[Sample],
    audio: AudioConfig,
    generator: torch.Generator | None = None,
    part: tuple[int, int] = (0, 1),
) -> Batch:
    """One batch of B samples; the spectrograms of all at once. With a generator (training) stripes are blanked.

    part: (k, n) if these are the k-th of n equal parts of a batch that processes share.
    """
    return waves(samples, audio, generator, part).to("cpu")


@dataclass(frozen=True)
class Waves(Batch):
    """A batch whose sounds are still waveforms, (B, n) in place of spectrograms; `to` makes these where it goes to."""

    audio: AudioConfig = field(kw_only=True)
    blank: Tensor | None = None  # (B, F, T) bool: the cells of stripes

    def to(self, device: torch.device | str) -> Batch:
        """The batch on `device`, with its spectrograms."""
        moved = super().to(device)
        values = {f.name: getattr(moved, f.name) for f in fields(Batch)}
        spectrogram, blank = log_spectrogram(moved.spectrogram, self.audio), getattr(moved, "blank", None)
        values["spectrogram"] = spectrogram if blank is None else blanked(spectrogram, blank)
        return Batch(**values)


def waves(
    samples: Sequence[Sample],
    audio: AudioConfig,
    generator: torch.Generator | None = None,
    part: tuple[int, int] = (0, 1),
) -> Waves:
    """As `collate`, the spectrograms yet to be made."""
    if not samples:
        raise ValueError("expected at least one sample, got none")
    shapes = {tuple(s.image.shape) for s in samples}
    if len(shapes) > 1:
        raise ValueError(f"expected pictures of one shape, got {sorted(shapes)} in a batch with {samples[0].key}")
    return Waves(
        image=torch.stack([s.image for s in samples]),
        spectrogram=torch.stack([s.waveform for s in samples]),
        heard=torch.stack([s.heard for s in samples]),
        seen=torch.stack([s.seen for s in samples]),
        labels=torch.stack([s.labels for s in samples]),
        mixture=torch.tensor([s.mixture for s in samples]),
        truth=Truth(
            mask=_padded([s.truth.mask for s in samples], 0),
            classes=_padded([s.truth.classes for s in samples], -1),
            present=_padded([s.truth.present for s in samples], False),
        ),
        keys=tuple(s.key for s in samples),
        audio=audio,
        blank=stripes(len(samples), audio, generator, part) if generator is not None and audio.masks else None,
    )


def _padded(rows: Sequence[Tensor], value: float) -> Tensor:
    """Tensors (S_b, ...) -> (B, S, ...) with S the largest S_b, filled up with `value`."""
    out = rows[0].new_full((len(rows), max(len(r) for r in rows), *rows[0].shape[1:]), value)
    for filled, row in zip(out, rows, strict=True):
        filled[: len(row)] = row
    return out


@dataclass(frozen=True)
class Batches:
    """The batches of one epoch: ``batches[b]`` is batch b, iteration begins at ``start_step``. Made by `batches`."""

    dataset: Samples
    batch_size: int
    audio: AudioConfig
    seed: int
    epoch: int
    shuffle: bool
    drop_last: bool
    augment: bool
    workers: int
    prefetch: int
    start_step: int
    part: tuple[int, int]
    sounds_on_device: bool

    @property
    def total(self) -> int:
        """Batches of the whole epoch, whatever ``start_step``."""
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __len__(self) -> int:
        return max(self.total - self.start_step, 0)

    def __getitem__(self, step: int) -> Batch:
        self.dataset.set_epoch(self.epoch)
        return self._make(step, self._order())

    def __iter__(self) -> Iterator[Batch]:
        self.dataset.set_epoch(self.epoch)
        steps = range(self.start_step, self.total)
        if self.workers:
            return self._by_processes(steps)
        order = self._order()
        pinned = Batch.pin_memory if torch.cuda.is_available() else lambda batch: batch
        made = (pinned(self._make(step, order)) for step in steps)
        return ahead(made, self.prefetch) if self.prefetch else made

    def _order(self) -> list[int]:
        n = len(self.dataset)
        if not self.shuffle:
            return list(range(n))
        return torch.randperm(n, generator=seeded("order", self.seed, self.epoch)).tolist()

    def _make(self, step: int, order: Sequence[int]) -> Batch:
        if not 0 <= step < self.total:
            raise IndexError(f"expected a batch from 0 to {self.total - 1}, got {step}")
        chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
        generator = seeded("stripes", self.seed, self.epoch, step) if self.augment else None
        rows = len(chosen) // self.part[1]
        own = chosen[self.part[0] * rows : (self.part[0] + 1) * rows]
        made = waves([self.dataset[i] for i in own], self.audio, generator, self.part)
        return made if self.sounds_on_device else made.to("cpu")

    def _by_processes(self, steps: range) -> Iterator[Batch]:
        from torch.utils.data import DataLoader

        how = {
            "num_workers": self.workers,
            "pin_memory": torch.cuda.is_available(),
            "multiprocessing_context": "spawn",
        }  # a fork inherits locks of torch's threads
        return iter(DataLoader(self, batch_size=None, sampler=steps, **how))  # type: ignore[arg-type]


def batches(
    dataset: Samples,
    batch_size: int,
    audio: AudioConfig,
    *,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = False,
    drop_last: bool = False,
    augment: bool | None = None,
    workers: int = 0,
    prefetch: int = 2,
    start_step: int = 0,
    part: tuple[int, int] = (0, 1),
    sounds_on_device: bool = False,
) -> Batches:
    """One epoch of `dataset`, in batches.

    seed, epoch: decide the order, where `shuffle`, and what is blanked; `epoch` is passed on to the dataset.
    augment: blank stripes of the spectrograms (``AudioConfig.masks``); by default where `shuffle`, that is in training.
    workers: processes that make batches; 0 = this one, in a thread that keeps `prefetch` batches ready (0 = no thread).
    start_step: the first batch made, to go on in the middle of an epoch with the batches that were left.
    part: (k, n) for process k of n: its rows of each batch, which needs `drop_last`. ValueError if n does not divide
    `batch_size`.
    sounds_on_device: batches are `Waves`, whose spectrograms are made where they are moved to.
    """
    if batch_size < 1:
        raise ValueError(f"expected a batch size of at least 1, got {batch_size}")
    if part[1] > 1 and (batch_size % part[1] or not drop_last):
        raise ValueError(f"expected whole batches (drop_last) of a multiple of {part[1]} processes, got {batch_size}")
    augment = shuffle if augment is None else augment
    place = (seed, epoch, shuffle, drop_last, augment, workers, prefetch, start_step, part, sounds_on_device)
    return Batches(dataset, batch_size, audio, *place)


def ahead(items: Iterator[Batch], count: int) -> Iterator[Batch]:
    """The same items, up to `count` of them made in advance by a thread; errors arrive in order, at their place."""
    ready: queue.Queue[tuple[Batch | None, BaseException | None]] = queue.Queue()
    room, stop = threading.Semaphore(count), threading.Event()

    def work() -> None:
        try:
            while room.acquire() and not stop.is_set():
                ready.put((next(items), None))
        except StopIteration:
            ready.put((None, None))
        except BaseException as error:  # handed over whole, raised again by the reader
            ready.put((None, error))

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
            room.release()
    finally:  # the reader stopped early, or all is read
        stop.set()
        room.release()
        thread.join()
