"""A trained method before a test list: every number of a record, and what is kept beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from m2vsl import records
from m2vsl.audio import AudioConfig
from m2vsl.data.loader import Batches, batches, collate
from m2vsl.evaluate import bound, evaluate, oracle_maps
from m2vsl.hearing import hearing
from m2vsl.localizer import Localizer, device_of
from m2vsl.metrics.interaction import interaction
from m2vsl.metrics.protocols import EVERY, PROTOCOLS, PUBLISHED
from m2vsl.metrics.tally import PRINTED_PER_SOURCE, Summary
from m2vsl.processor import autocast
from m2vsl.segmenting import segmented
from m2vsl.training.config import TrainConfig

SHOWN = 5  # pictures of a test list whose maps are kept beside the record of seed 0, for the pages
FINER = 4  # pixels per side that one pixel of a kept map stands for
THEIRS = {*PUBLISHED, *PRINTED_PER_SOURCE, "confidence"}  # what published evaluators alone have: in no kept row


@dataclass(frozen=True)
class Exam:
    """How a method is asked. Beside its record: rows per source; of seed 0 rows per frame, and maps for the eye."""

    localizer: Localizer
    train: TrainConfig  # its batch size and precision
    audio: AudioConfig
    seed: int
    path: Path  # of the record
    bound: bool = False  # not the method, but what no map can exceed: masks, hearing and maps are left out

    def localized(self, name: str, dataset: Any) -> dict[str, float]:
        """The scalars of a list under every protocol; of solos and of sources that sound alone also what is heard."""
        summary = self.summary(dataset)
        found = {**summary.scalars, **{f"n_{key}": float(value) for key, value in summary.counts.items()}}
        if name == "one":
            found |= interaction(summary.sources, PROTOCOLS.values())
        if name != "mixture" and not self.bound:
            found |= self._hearing(dataset)
        if self.seed == 0 and name != "one" and not self.bound:
            records.save_maps(self.path, self._shown(dataset), name)
        records.save_rows(self.path, records.level(summary.sources, leave_out=THEIRS), name)
        return found

    def summary(self, dataset: Any) -> Summary:
        """A list under every protocol, ours and published; maps come at the size of the picture."""
        if self.bound:
            return bound(self._loader(dataset), tuple(EVERY.values()))
        with self._precisely():
            return evaluate(self.localizer, self._loader(dataset), tuple(EVERY.values()))

    def segmented(self, name: str, dataset: Any, cuts: Mapping[str, int], *, alone: bool) -> dict[str, float]:
        """The scalars of the masks of a list.

        alone: masks are all that it is scored by, and pictures are counted here. Of seed 0 the masks are kept, of solos
        or where they are alone.
        """
        if self.bound:
            return {}
        keep = self.seed == 0 and (alone or name == "solo")
        parts = dataset.parts() if hasattr(dataset, "parts") else {}
        with self._precisely():
            masks = segmented(self.localizer, self._loader(dataset), parts=parts, cuts=cuts, side=FINER * keep)
        if self.seed == 0:
            records.save_rows(self.path, records.level(masks.frames), f"{name}-frames")
        if keep:
            records.save_maps(self.path, masks.heat[:, None], f"{name}-frames")
        return {**masks.scalars, **({"n_pictures": float(len(masks.frames))} if alone else {})}

    def cuts(self, dataset: Any) -> dict[str, int]:
        """Where the masks of a validation list are best cut."""
        if self.bound:
            return {}
        with self._precisely():
            return segmented(self.localizer, self._loader(dataset)).cuts

    def _hearing(self, dataset: Any) -> dict[str, float]:
        """Under silence, noise and sounds of what is not there."""
        with self._precisely():
            found = hearing(self.localizer, self._loader(dataset), self.audio, self.seed)
        return {key: float(value) for key, value in found.items() if "/" in key}  # `Summary` counts the pictures

    def _shown(self, dataset: Any) -> Tensor:
        """The oracle's maps of the first pictures of a list: (SHOWN, S, H / 4, W / 4)."""
        first = collate([dataset[i] for i in range(min(SHOWN, len(dataset)))], self.audio)
        return F.avg_pool2d(oracle_maps(self.localizer, first), FINER)

    def _loader(self, dataset: Any) -> Batches:
        return batches(dataset, self.train.batch_size, self.audio)

    def _precisely(self) -> torch.autocast:
        """As precise as in training."""
        return autocast(device_of(self.localizer).type, self.train.precision)
