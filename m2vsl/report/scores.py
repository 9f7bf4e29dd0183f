"""What is computed of maps that were scored from files (`m2vsl.scoring`), and the csv that lie beside their record.

`m2vsl.report.outside` prints it. Bounds and ceilings are of the clips that were scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from m2vsl import records
from m2vsl.data.truths import Truths
from m2vsl.data.vggsounder import clean
from m2vsl.evaluate import add_bound
from m2vsl.metrics.bounds import Bounds, bounds_of
from m2vsl.metrics.protocols import Protocol
from m2vsl.metrics.statistics import Lead, Part, bootstrap, by_class, scores, subset
from m2vsl.metrics.tally import Tally, column
from m2vsl.scoring import BATCH, Scored, record_of


@dataclass(frozen=True)
class Chosen:
    """The truths of some clips, to be read as often as one likes: what `bounds_of` asks for."""

    truths: Truths
    ids: Sequence[str]

    def __iter__(self) -> Iterator[Tensor]:
        return (truth.mask for _, truth in self.truths.batches(BATCH, self.ids))


def bounds(truths: Truths, ids: Sequence[str] | None = None) -> Bounds:
    """What constants reach and ceilings allow on all of `truths`, or on some of its clips."""
    return bounds_of(Chosen(truths, truths.ids if ids is None else ids))


def ceilings(truths: Truths, scored: Scored) -> dict[str, float]:
    """The AUC that no map without ties can exceed under each protocol, on the clips that were scored.

    Counted as the scores are: sources of one class are one, and pictures succeed where a protocol pools them. A
    protocol that has no AUC on these clips has no ceiling.
    """
    tally = Tally(scored.protocols)
    for ids, truth in truths.batches(BATCH, scored.coverage.found):
        add_bound(tally, truth, ids)
    best = tally.summary().scalars
    return {p.name: best[f"{p.name}/auc"] for p in scored.protocols if f"{p.name}/auc" in best}


def clean_part(scored: Scored, protocol: Protocol) -> dict[str, Part]:
    """Score on the clips of VGG-SS whose class VGGSounder hears and sees, the labels named by their hash.

    Nothing for other truths, and where the labels are not installed.
    """
    if scored.kind != "vggss":
        return {}
    rows = scored.summary.sources
    try:
        found = clean({str(row["key"]): scored.class_names[int(str(row["class"]))] for row in rows})
    except ModuleNotFoundError:
        return {}
    kept = subset(rows, found.keys).rows
    part = scores(column(kept, protocol.name), protocol.at, strict=protocol.strict)
    return {f"clean, by VGGSounder {found.digest}": part}


def leads(runs: Sequence[Scored], rival: Sequence[Scored]) -> dict[str, tuple[Lead, Lead]]:
    """By how much `runs` are ahead of `rival` under each protocol: (mean IoU, success at 0.5), bootstrapped over clips.

    Seeds are averaged first; differences are of sources, also where a protocol pools them (DSOL). A protocol under
    which some source has no IoU is left out.
    """
    found: dict[str, tuple[Lead, Lead]] = {}
    pictures = [str(row["key"]) for row in runs[0].summary.sources if row["sounds"]]
    for protocol in runs[0].protocols:
        mine, theirs = (_means(several, protocol) for several in (runs, rival))
        if mine is not None and theirs is not None:
            both = [bootstrap((a - b).numpy(), pictures) for a, b in zip(mine, theirs, strict=True)]
            found[protocol.name] = (both[0], both[1])
    return found


def _means(runs: Sequence[Scored], protocol: Protocol) -> tuple[Tensor, Tensor] | None:
    """IoU and success at 0.5 of each sounding source (n,), mean over runs; None where some source has none."""
    every = []
    for run in runs:
        sounding = [row for row in run.summary.sources if row["sounds"]]
        iou = column(sounding, protocol.name)
        if len(iou) < len(sounding):
            return None
        every.append(iou)
    iou = torch.stack(every)
    success = iou > 0.5 if protocol.strict else iou >= 0.5
    return iou.mean(0), success.double().mean(0)


def save(scored: Scored, out: Path, *, seed: int = 0) -> Path:
    """The record below `out`, and beside it its tables as csv: scores, classes, one row per source, one per picture."""
    path = records.save(record_of(scored, seed=seed), out)
    names = dict(enumerate(scored.class_names)) | {-1: ""}
    sources = [{**row, "class": names[int(str(row["class"]))]} for row in scored.summary.sources]
    tables: dict[str, Sequence[Mapping[str, object]]] = {"scores": score_rows(scored), "classes": class_rows(scored)}
    tables |= {"sources": sources, "pictures": scored.summary.pictures}
    for name, rows in tables.items():
        records.save_rows(path, records.level(rows), name)
    return path


def save_leads(path: Path, found: Mapping[str, tuple[Lead, Lead]]) -> None:
    """`leads` beside the record in `path`, in [-1, 1]."""
    rows = [
        {"protocol": name, "score": score, "mean": lead.mean, "low": lead.low, "high": lead.high, "ahead": lead.share}
        for name, both in found.items()
        for score, lead in zip(("iou", "success@0.5"), both, strict=True)
    ]
    records.save_rows(path, rows, "leads")


def score_rows(scored: Scored) -> list[dict[str, object]]:
    """One row per protocol and score: value in [0, 1], clips, hash of their list, and whether they are a subset."""
    about = {"n": scored.counts["clips"], "ids": scored.coverage.hash, "roles": scored.roles, "subset": scored.subset}
    parts = ((name.rpartition("/"), value) for name, value in scored.summary.scalars.items())
    return [{"protocol": p, "score": score, "value": value, **about} for (p, _, score), value in parts]


def class_rows(scored: Scored) -> list[dict[str, object]]:
    """The scores of every class under the first protocol, and their mean over classes: rows of a csv."""
    protocol = scored.protocols[0]
    found = by_class(scored.summary.sources, protocol.name, scored.class_names, at=protocol.at, strict=protocol.strict)
    parts = {**found.parts, "mean over classes": found.macro}
    return [{"class": name, "n": part.n, "protocol": protocol.name, **part.scalars} for name, part in parts.items()]
