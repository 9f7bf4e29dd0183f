"""Heat maps that any other program saved, scored under every protocol in one pass.

Maps come from `m2vsl.data.heatmaps`, truths from `m2vsl.data.truths`, and `m2vsl.data.clips` says which map answers for
which source; the maths is that of `m2vsl.evaluate`, so a stranger's maps and those of this book are measured by the
same lines.

Conventions
-----------
- A clip without maps or with maps that cannot be used is an error, unless ``allow_missing``: then it is counted, and
  the result is of a *subset*. Maps of clips that are not asked for are listed and not scored. Nothing is ever dropped
  without its name.
- Counted, named, and scored as the metrics say: ``constant`` maps, whose range is below a millionth of 1 or of their
  largest value, and ``saturated`` ones, of which so many cells tie that "the 50 % rule" keeps 1 % more than a half:
  they escape it (protocol 2.6). Counted: maps of another shape than the picture (stretched, as the boxes are), and maps
  nowhere below 0 (an absolute threshold of 0 keeps all of them). ``best_of_several``: clips whose nameless maps were
  matched to the sources by the truth.
- Sources of one class in a picture are one (ledger 52), under published protocols too, whose code keeps them apart.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m2vsl import records
from m2vsl.data.clips import Clip, Roles, alike, clips
from m2vsl.data.heatmaps import ClipMaps, Coverage, Heatmaps, coverage
from m2vsl.data.layout import DataError, Problem
from m2vsl.data.truths import Truths, stacked
from m2vsl.evaluate import add
from m2vsl.metrics.calls import Segmentation, described
from m2vsl.metrics.heat import is_constant
from m2vsl.metrics.interaction import interaction
from m2vsl.metrics.listening import Changes
from m2vsl.metrics.overlap import Area, binarise
from m2vsl.metrics.protocols import Protocol
from m2vsl.metrics.tally import Summary, Tally
from m2vsl.records import Record
from m2vsl.types import Maps, Truth

COUNTED = ("constant", "saturated", "other_shape", "never_below_0", "best_of_several")
BATCH = 32  # clips scored together, where their maps are alike
ADVICE = "--allow-missing scores the others and marks the result as that of a subset"


@dataclass(frozen=True)
class Scored:
    """What the maps of one program score on one test list."""

    name: str  # of the program, or of the maps
    kind: str  # of the truths
    summary: Summary
    coverage: Coverage
    full: int  # clips of the whole published list
    counts: Mapping[str, int]  # see the conventions; under "list/" what is odd in the whole list of truths
    named: Mapping[str, tuple[str, ...]]  # the clips behind a count: constant, saturated
    problems: tuple[Problem, ...]  # maps that cannot be used
    doubts: tuple[Problem, ...]  # rows and files of the truths that are not used, lists that are cut short
    maps: str  # hash of the files
    truths: str  # hash of the truths that were scored, in order
    roles: Roles
    protocols: tuple[Protocol, ...]
    segmentation: Segmentation | None
    class_names: tuple[str, ...]
    others: Mapping[str, str] = field(default_factory=dict)  # hashes of maps under other sounds

    @property
    def subset(self) -> str:
        """What marks a table of fewer clips than were published; else empty."""
        scored = self.counts["clips"]
        return f"subset ({scored} of {self.full})" if scored < self.full else ""


class _Reader:
    """Reads the clips of a list one after the other, and keeps book."""

    def __init__(self, maps: Heatmaps, truths: Truths, roles: Roles, segmentation: Segmentation | None) -> None:
        self.maps, self.truths, self.roles, self.segmentation = maps, truths, roles, segmentation
        self.unusable: list[Problem] = []
        self.lost: set[str] = set()
        self.counts = Counter({name: 0 for name in COUNTED})
        self.named: dict[str, list[str]] = {"constant": [], "saturated": []}
        self.digest = hashlib.sha256()

    def clips(self, ids: Iterable[str]) -> Iterator[Clip]:
        """What the maps of every clip make; those that cannot be used become `unusable`."""
        for id in ids:
            truth = self.truths.read(id)
            try:
                given = self.maps.read(id)
                made = clips(id, given, truth, self.truths.class_names, self.roles, self.maps.heard)
                if self.segmentation is not None:
                    self.segmentation.logits(given.heat)  # probabilities have to be some
            except ValueError as error:
                self.unusable.append(_problem(self.maps.path, id, error))
                self.lost.add(id)
                continue
            self._count(id, given, truth)
            yield from made

    def _count(self, id: str, given: ClipMaps, truth: Truth) -> None:
        heat = given.heat
        self.digest.update(id.encode() + np.packbits(truth.mask.numpy() > 0).tobytes())
        constant = is_constant(heat)
        found = {"constant": int(constant.sum()), "saturated": int((_ties(heat) > 0.01)[~constant].sum())}
        for name, count in found.items():
            self.named[name] += [id] * (count > 0)
        height, width = truth.mask.shape[-2:]
        found["other_shape"] = len(heat) * (heat.shape[-1] * height != heat.shape[-2] * width)
        found["never_below_0"] = int((heat.flatten(1).amin(1) >= 0).sum())
        found["best_of_several"] = int(self.roles == "auto" and len(heat) > 1 and not given.names)
        self.counts.update(found)


def score_maps(
    maps: Heatmaps,
    truths: Truths,
    protocols: Sequence[Protocol],
    segmentation: Segmentation | None = None,
    *,
    name: str = "",
    roles: Roles = "auto",
    allow_missing: bool = False,
) -> Scored:
    """Score every clip of `truths` that has maps, a batch at a time.

    DataError naming them for clips without usable maps unless `allow_missing`, and for maps when none can be scored.
    """
    cover = coverage(truths.ids, maps.ids)
    odd = [problem for problem in maps.problems if problem.kind in ("id", "index")]
    if odd and not allow_missing:
        raise DataError(maps.path, odd, ADVICE)
    if not cover.found:
        wrong = f"expected maps of some of the {len(truths.ids)} clips of the list, such as {truths.ids[0]}, got none"
        there = f"; there are {', '.join(maps.ids[:3])}" if maps.ids else ""
        raise DataError(maps.path, [*maps.problems, Problem(maps.path, "maps", wrong + there)], " ")
    if cover.missing and not allow_missing:
        missing = [Problem(maps.path / id, "maps", "expected maps of this clip, got none") for id in cover.missing]
        raise DataError(maps.path, [*maps.problems, *missing], ADVICE)
    tally = Tally(protocols, *([segmentation] if segmentation else []))
    reader = _Reader(maps, truths, roles, segmentation)
    for batch in alike(reader.clips(cover.found), BATCH):
        _add(tally, batch)
    if reader.unusable and (not allow_missing or not tally.pictures):
        raise DataError(maps.path, [*maps.problems, *reader.unusable], " " if allow_missing else ADVICE)
    cover = replace(cover, found=tuple(id for id in cover.found if id not in reader.lost))
    summary = tally.summary()
    if roles == "turns":
        summary = replace(summary, scalars={**summary.scalars, **interaction(summary.sources, protocols)})
    return Scored(
        name=name or maps.path.stem,
        kind=truths.kind,
        summary=summary,
        coverage=cover,
        full=truths.full,
        counts=_counts(cover, reader, summary, truths),
        named={kind: tuple(ids) for kind, ids in reader.named.items()},
        problems=(*maps.problems, *reader.unusable),
        doubts=truths.problems,
        maps=maps.digest(),
        truths=reader.digest.hexdigest()[:12],
        roles=roles,
        protocols=tuple(protocols),
        segmentation=segmentation,
        class_names=truths.class_names,
    )


def _counts(cover: Coverage, reader: _Reader, summary: Summary, truths: Truths) -> dict[str, int]:
    """What the tables count, of clips, maps, truths scored, and of the whole list."""
    of_clips = {"clips": len(cover.found), "missing": len(cover.missing), "extra": len(cover.extra)}
    of_maps = {"unusable": len(reader.unusable), **reader.counts}
    of_truths = {"sources": summary.counts["sources"], "empty_truths": summary.counts["empty_truths"]}
    return of_clips | of_maps | of_truths | {f"list/{name}": count for name, count in truths.counts.items()}


def _problem(root: Path, id: str, error: ValueError) -> Problem:
    """What is wrong with the maps of a clip, by the file that the error names, else by the clip."""
    where, colon, what = str(error).partition(": ")
    if colon and Path(where).is_relative_to(root):
        return Problem(Path(where), "maps", what)
    return Problem(root / id, "maps", str(error))


def with_others(scored: Scored, maps: Heatmaps, others: Mapping[str, Heatmaps]) -> Scored:
    """`scored` with what becomes of its maps under other sounds: ``silence/remaining`` and so on.

    others: by name, maps of the same clips under that sound; map k of a clip is compared with map k under its own.
    Scalars as in `m2vsl.hearing`. DataError, naming them, for clips without such maps, or with other sizes or names.
    """
    scalars = dict(scored.summary.scalars)
    for name, under in others.items():
        changes, wrong = Changes(), list[Problem]()
        for id in scored.coverage.found:
            try:
                own, other = maps.read(id), under.read(id)
                if own.heat.shape != other.heat.shape or own.names != other.names:
                    had, got = ((tuple(one.heat.shape), one.names) for one in (own, other))
                    raise ValueError(f"expected maps as under the clip's own sound, {had}, got {got}")
            except ValueError as error:
                wrong.append(_problem(under.path, id, error))
            else:
                changes.add(own.heat, other.heat)
        if wrong:
            raise DataError(under.path, wrong, " ")
        scalars |= {f"{name}/{score}": value for score, value in changes.scores().items()}
    hashes = {name: under.digest() for name, under in others.items()}
    return replace(scored, summary=replace(scored.summary, scalars=scalars), others=hashes)


def _ties(heat: Tensor) -> Tensor:
    """Share of the cells by which the 50 % rule exceeds a half, as some tie with its threshold: (K, h, w) -> (K,)."""
    rule, cells = Area(0.5), heat.shape[-2] * heat.shape[-1]
    return (binarise(heat, rule).count_nonzero((1, 2)) - rule.pixels(cells)) / cells


def _add(tally: Tally, batch: Sequence[Clip]) -> None:
    presence = None
    if batch[0].presence is not None:
        presence = torch.tensor([clip.presence for clip in batch])
    maps = Maps(torch.stack([clip.heat for clip in batch]), torch.tensor(batch[0].classes), presence)
    rows = len(tally.sources)
    add(tally, maps, stacked([clip.truth for clip in batch]), [clip.key for clip in batch])
    labels = {clip.key: clip.labels for clip in batch}
    for i, row in islice(enumerate(tally.sources), rows, None):
        tally.sources[i] = {**row, "class": labels[str(row["key"])][int(str(row["source"]))]}


def record_of(scored: Scored, *, seed: int = 0) -> Record:
    """The record of what was scored: scores, counts, protocols with their hashes, hash of the ids and of the maps."""
    protocols = described(scored.protocols, *([scored.segmentation] if scored.segmentation else []))
    what: dict[str, Any] = {"maps": scored.maps, "truths": [scored.kind, scored.truths], "roles": scored.roles}
    what |= {"protocols": {name: fields["digest"] for name, fields in protocols.items()}, "others": scored.others}
    what |= {"subset": scored.subset, "counts": scored.counts, **scored.named}
    what |= {"missing": scored.coverage.missing, "extra": scored.coverage.extra}
    what |= {"problems": [str(problem) for problem in (*scored.problems, *scored.doubts)]}
    return Record(
        method=scored.name,
        dataset=scored.kind,
        task=scored.roles,
        preset="maps",
        seed=seed,
        experiment=what,
        metrics=scored.summary.scalars,
        protocols=protocols,
        n=scored.counts["clips"],
        ids=scored.coverage.hash,
        **records.provenance(),
    )
