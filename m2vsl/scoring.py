"""Heat maps that any other program saved, scored under every protocol in one pass.

Maps come from `m2vsl.data.heatmaps`, truths from `m2vsl.data.truths`; the maths is that of `m2vsl.evaluate`, so a
stranger's maps and those of this book are measured by the same lines.

Conventions
-----------
- ``roles`` says what several maps of a clip are. "auto": maps named by classes answer for these classes, maps without
  names for whichever source they fit best. "sources": map s is of source s, in the order of the list. "turns": map s is
  what was found when source s alone sounded; the clip is scored once per source, the others silent (see ``swapped/`` in
  `m2vsl.metrics.tally`) and the turns of a picture together (``interaction/``).
- Named maps with presence.csv have a predicted choice; without it they have the oracle's alone.
- A clip without maps or with maps that cannot be used is an error, unless ``allow_missing``: then it is counted, and
  the result is of a *subset*. Maps of clips that are not asked for are listed and not scored. Nothing is ever dropped
  without its name.
- Counted, and scored as the metrics say: ``constant`` maps, and ``saturated`` ones, of which so many cells tie
  that "the 50 % rule" keeps 1 % more than a half: they escape it (protocol 2.6).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import fsum
from typing import Any, Literal

import torch
from torch import Tensor

from m2vsl import records
from m2vsl.data.heatmaps import ClipMaps, Coverage, Heatmaps, coverage
from m2vsl.data.layout import DataError, Problem
from m2vsl.data.truths import Truths
from m2vsl.evaluate import add
from m2vsl.metrics import listening
from m2vsl.metrics.calls import Segmentation, described
from m2vsl.metrics.heat import is_constant
from m2vsl.metrics.interaction import interaction
from m2vsl.metrics.protocols import Protocol
from m2vsl.metrics.tally import Summary, Tally
from m2vsl.records import Record
from m2vsl.types import Maps, Truth

Roles = Literal["auto", "sources", "turns"]
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
    counts: Mapping[
        str, int
    ]  # clips scored, missing, extra, unusable; maps constant, saturated; what is odd of the truths
    problems: tuple[Problem, ...]  # maps that cannot be used, and rows and files of the truths
    maps: str  # hash of the files
    roles: Roles
    protocols: tuple[Protocol, ...]
    segmentation: Segmentation | None
    class_names: tuple[str, ...]

    @property
    def subset(self) -> str:
        """What marks a table of fewer clips than were published; else empty."""
        scored = self.counts["clips"]
        return f"subset ({scored} of {self.full})" if scored < self.full else ""


@dataclass(frozen=True)
class _Clip:
    """One picture to score."""

    key: str
    heat: Tensor  # (M, h, w)
    classes: tuple[int, ...]  # (M,) the class of each map, -1 = no name
    presence: tuple[float, ...] | None
    truth: Truth
    labels: tuple[int, ...]  # (S,) what the rows say of each source

    @property
    def kin(self) -> tuple[object, ...]:
        """What clips of a batch have in common."""
        return self.heat.shape, self.heat.dtype, self.classes, self.presence is None, self.truth.mask.shape


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
    if cover.missing and not allow_missing:
        missing = [Problem(maps.path / id, "maps", "expected maps of this clip, got none") for id in cover.missing]
        raise DataError(maps.path, [*maps.problems, *missing], ADVICE)
    tally, unusable = Tally(protocols, segmentation), list[Problem]()
    seen = {"constant": 0, "saturated": 0}
    for batch in _alike(_clips(maps, truths, cover.found, roles, unusable, seen)):
        _add(tally, batch)
    if unusable and (not allow_missing or not tally.pictures):
        raise DataError(maps.path, [*maps.problems, *unusable], ADVICE)
    if not tally.pictures:
        raise DataError(maps.path, [*maps.problems, Problem(maps.path, "maps", _NONE.format(len(truths.ids)))], " ")
    bad = {problem.path.name for problem in unusable}
    cover = replace(cover, found=tuple(id for id in cover.found if id not in bad))
    counts = {"clips": len(cover.found), "missing": len(cover.missing), "extra": len(cover.extra)}
    counts |= {"unusable": len(unusable), **seen, **{f"truths/{k}": v for k, v in truths.counts.items()}}
    summary = tally.summary()
    if roles == "turns":
        summary = replace(summary, scalars={**summary.scalars, **interaction(summary.sources, protocols)})
    return Scored(
        name or maps.path.stem, truths.kind, summary, cover, truths.full, counts,
        (*maps.problems, *unusable, *truths.problems), maps.digest(), roles, tuple(protocols), segmentation,
        truths.class_names,
    )  # fmt: skip


_NONE = "expected maps of some of the {} clips of the list, got none"


def with_others(scored: Scored, maps: Heatmaps, others: Mapping[str, Heatmaps]) -> Scored:
    """`scored` with what becomes of its maps under other sounds: ``silence/remaining`` and so on.

    others: by name, maps of the same clips under that sound; map k of a clip is compared with map k under its own.
    Scalars as in `m2vsl.hearing`. DataError, naming them, for clips without such maps, or with other sizes or names.
    """
    scalars = dict(scored.summary.scalars)
    for name, under in others.items():
        rows, wrong = defaultdict[str, list[float]](list), list[Problem]()
        for id in scored.coverage.found:
            try:
                own, other = maps.read(id), under.read(id)
                if own.heat.shape != other.heat.shape or own.names != other.names:
                    had, got = ((tuple(one.heat.shape), one.names) for one in (own, other))
                    raise ValueError(f"expected maps as under the clip's own sound, {had}, got {got}")
            except ValueError as error:
                wrong.append(Problem(under.path / id, "maps", str(error)))
                continue
            rows["remaining"] += listening.remaining(own.heat, other.heat).tolist()
            rows["quieter"] += listening.quieter(own.heat, other.heat).tolist()
            rows["own"] += own.heat.flatten(1).amax(1).tolist()
            rows["other"] += other.heat.flatten(1).amax(1).tolist()
        if wrong:
            raise DataError(under.path, wrong, " ")
        scalars |= {f"{name}/{score}": fsum(rows[score]) / len(rows[score]) for score in ("remaining", "quieter")}
        scalars[f"{name}/separability"] = listening.separability(rows["own"], rows["other"])
    return replace(scored, summary=replace(scored.summary, scalars=scalars))


def _clips(
    maps: Heatmaps, truths: Truths, ids: Iterable[str], roles: Roles, unusable: list[Problem], seen: dict[str, int]
) -> Iterator[_Clip]:
    for id in ids:
        truth = truths.read(id)
        try:
            given = maps.read(id)
            made = list(_roles(id, given, truth, truths.class_names, roles))
        except ValueError as error:
            unusable.append(Problem(maps.path / id, "maps", str(error).removeprefix(f"{maps.path / id}: ")))
            continue
        constant = is_constant(given.heat)
        seen["constant"] += int(constant.sum())
        seen["saturated"] += int((_ties(given.heat) > 0.01)[~constant].sum())
        yield from made


def _ties(heat: Tensor) -> Tensor:
    """Share of the cells by which the 50 % rule exceeds a half, as some tie with its threshold: (K, h, w) -> (K,)."""
    flat = heat.flatten(1)
    cells = flat.shape[1]
    kept = (flat >= flat.kthvalue(cells // 2 + 1, keepdim=True).values).sum(1)
    return (kept - (cells - cells // 2)) / cells


def _roles(id: str, given: ClipMaps, truth: Truth, names: Sequence[str], roles: Roles) -> Iterator[_Clip]:
    """The pictures that a clip makes; ValueError if its maps are not what their role asks for."""
    height, width = truth.mask.shape[-2:]
    if width != height and given.heat.shape[-1] * height != given.heat.shape[-2] * width:
        shape = tuple(given.heat.shape)
        raise ValueError(f"expected maps of the whole canvas, {width // height} wide to 1 high, got {shape}")
    labels = tuple(truth.classes.tolist())
    if roles != "auto":
        if len(given.heat) != len(labels):
            raise ValueError(f"expected a map for each of {len(labels)} sources, got {len(given.heat)}")
        for turn in [None] if roles == "sources" else range(len(labels)):
            yield _slots(id if turn is None else f"{id}/{turn}", given.heat, truth, labels, turn)
    elif not given.names:
        yield _Clip(id, given.heat, (-1,) * len(given.heat), None, truth, labels)
    else:
        known = [_class(name, names) for name in given.names]
        if lost := [names[label] for label in labels if label not in known]:
            raise ValueError(f"expected a map for every class that sounds, got none for {', '.join(lost)}")
        if given.presence is None:
            heat = given.heat[[known.index(label) for label in labels]]
            yield _slots(id, heat, truth, labels, None)
        else:
            yield _Clip(id, given.heat, tuple(known), given.presence, truth, labels)


def _class(name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise ValueError(f"expected maps named by classes of the truths, got {name!r}")
    return names.index(name)


def _slots(key: str, heat: Tensor, truth: Truth, labels: tuple[int, ...], turn: int | None) -> _Clip:
    """A clip whose map s is of source s: places stand for classes, so that clips of other classes can share a batch.

    Sources of one class share the first one's place. turn: the source that sounds alone.
    """
    slots = [labels.index(label) if label >= 0 else s for s, label in enumerate(labels)]
    present = truth.present if turn is None else torch.arange(len(labels)) == turn
    if turn is not None:  # merging would make a silent source of one class sound
        slots = list(range(len(labels)))
        heat = heat[turn].expand(len(labels), *heat.shape[1:])
    classes = tuple(range(len(labels)))
    return _Clip(key, heat, classes, None, Truth(truth.mask, torch.tensor(slots), present), labels)


def _alike(clips: Iterator[_Clip]) -> Iterator[list[_Clip]]:
    """Clips in their order, as many together as are alike, `BATCH` at most."""
    batch: list[_Clip] = []
    for clip in clips:
        if batch and (clip.kin != batch[0].kin or len(batch) == BATCH):
            yield batch
            batch = []
        batch.append(clip)
    if batch:
        yield batch


def _add(tally: Tally, batch: Sequence[_Clip]) -> None:
    presence = None
    if batch[0].presence is not None:
        presence = torch.tensor([clip.presence for clip in batch])
    maps = Maps(torch.stack([clip.heat for clip in batch]), torch.tensor(batch[0].classes), presence)
    truths = [clip.truth for clip in batch]
    stacked = (torch.stack([getattr(t, part) for t in truths]) for part in ("mask", "classes", "present"))
    rows = len(tally.sources)
    add(tally, maps, Truth(*stacked), [clip.key for clip in batch])
    labels = {clip.key: clip.labels for clip in batch}
    for i, row in islice(enumerate(tally.sources), rows, None):
        tally.sources[i] = {**row, "class": labels[str(row["key"])][int(str(row["source"]))]}


def record_of(scored: Scored, *, seed: int = 0) -> Record:
    """The record of what was scored: scores, counts, protocols with their hashes, hash of the ids and of the maps."""
    what: dict[str, Any] = {"maps": scored.maps, "truths": scored.kind, "roles": scored.roles, "subset": scored.subset}
    what |= {"counts": dict(scored.counts), "missing": list(scored.coverage.missing)}
    return Record(
        method=scored.name,
        dataset=scored.kind,
        task=scored.roles,
        preset="maps",
        seed=seed,
        experiment=what,
        metrics=scored.summary.scalars,
        protocols=described(scored.protocols, scored.segmentation),
        n=scored.counts["clips"],
        ids=scored.coverage.hash,
        **records.provenance(),
    )
