"""What maps that were scored from files (`m2vsl.scoring`) have reached, as text: tables of ``m2vsl evaluate --maps``.

Everything is per cent. Of several runs the mean and the 95 % interval over them; differences of two programs with the
paired bootstrap over clips. The constants and ceilings of the same clips stand below: a table without them cannot be
read.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from m2vsl import records
from m2vsl.data.truths import Truths
from m2vsl.data.vggsounder import clean
from m2vsl.metrics.bounds import Bounds, bounds_of
from m2vsl.metrics.canvas import Canvas
from m2vsl.metrics.matching import merge_same_class
from m2vsl.metrics.overlap import Rule, success_auc
from m2vsl.metrics.protocols import PROTOCOLS, Protocol
from m2vsl.metrics.statistics import Part, bootstrap, by_class, by_size, scores, subset
from m2vsl.metrics.tally import Row, column, interval
from m2vsl.report.tables import UNDEFINED, markdown
from m2vsl.scoring import BATCH, Scored, record_of
from m2vsl.types import Truth

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAMED = 20  # ids and problems that are listed on the screen; the record has all
SCORES = ("ciou@0.1", "ciou@0.3", "ciou@0.5", "auc", "iou")
HEADS = ("CIoU@0.1", "CIoU@0.3", "CIoU@0.5", "AUC", "mean IoU")
RANKED = {
    "oracle/ap": "AP",
    "oracle/cap": "CAP",
    "oracle/cap_macro": "CAP, mean over classes",
    "oracle/piap": "PIAP",
    "predicted/ap": "AP, predicted classes",
    "predicted/cap": "CAP, predicted classes",
    "oracle/half": "maximum in the source's own frame",
    "oracle/pointing": "maximum in the source (pointing)",
    "heard_accuracy": "classes right",
}


@dataclass(frozen=True)
class Chosen:
    """The truths of some clips, to be read as often as one likes: what `bounds_of` asks for."""

    truths: Truths
    ids: Sequence[str]

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self.ids), BATCH):
            yield torch.stack([self.truths.read(id).mask for id in self.ids[start : start + BATCH]])


def bounds(truths: Truths, ids: Sequence[str] | None = None) -> Bounds:
    """What constants reach and ceilings allow on all of `truths`, or on some of its clips."""
    return bounds_of(Chosen(truths, truths.ids if ids is None else ids))


def ceilings(truths: Truths, scored: Scored) -> dict[str, float]:
    """The AUC that no map without ties can exceed under each protocol, on the clips that were scored.

    Sources of one class are one, as in the scores.
    """
    best: defaultdict[tuple[Rule, Canvas], list[Tensor]] = defaultdict(list)
    boxed: list[Tensor] = []
    for start in range(0, len(scored.coverage.found), BATCH):
        read = [truths.read(id) for id in scored.coverage.found[start : start + BATCH]]
        parts = (torch.stack([getattr(one, part) for one in read]) for part in ("mask", "classes", "present"))
        truth = merge_same_class(Truth(*parts))
        mask = truth.mask[truth.present]
        boxed.append(mask.flatten(1).any(1))
        for protocol in {(p.rule, p.canvas): p for p in scored.protocols}.values():
            best[protocol.rule, protocol.canvas].append(protocol.bound(mask))
    some = torch.cat(boxed)
    found = {p.name: torch.cat(best[p.rule, p.canvas]) for p in scored.protocols}
    return {p.name: success_auc(found[p.name][some] if p.boxed_auc else found[p.name]) for p in scored.protocols}


def shown(
    runs: Sequence[Scored],
    limits: Bounds | None = None,
    rival: Sequence[Scored] = (),
    ceiling: Mapping[str, float] | None = None,
) -> str:
    """All tables of one program, whose `runs` differ by their seed, and of `rival`, another, if there is one.

    limits: `bounds` of the same clips; ceiling: `ceilings` of them.

    ValueError for runs of different clips.
    """
    _same_clips([*runs, *rival])
    parts = [
        _about(runs),
        "Overlap, per protocol:",
        markdown(_overlaps(runs, ceiling or {})),
        "Without a threshold of IoU:",
    ]
    parts += [markdown(_ranked(runs)), *_printed(runs), *_sizes(runs), *_counts(runs[0])]
    if limits is not None:
        parts += ["What neither sees nor hears, and what no map exceeds, on the same clips (area50):", str(limits)]
    if rival:
        lead = f"Ahead of {rival[0].name}, source by source (95 % of draws of clips; share of draws ahead):"
        parts += [lead, markdown(_leads(runs, rival))]
    return "\n\n".join(parts)


def _about(runs: Sequence[Scored]) -> str:
    first, counts = runs[0], runs[0].counts
    several = f", {len(runs)} runs, mean ± 95 % interval" if len(runs) > 1 else ""
    marked = f" **{first.subset}**" if first.subset else ""
    clips = f"{counts['clips']} clips, list {first.coverage.hash}"
    return f"{first.name} on {first.kind}:{marked} {clips}, maps {first.maps}{several}. Per cent."


def _overlaps(runs: Sequence[Scored], ceiling: Mapping[str, float]) -> list[list[str]]:
    rows = [["protocol", "hash", *HEADS, "AUC at most"]]
    told: dict[str, list[str]] = {}
    for protocol in runs[0].protocols:
        cells = [_cell(runs, f"{protocol.name}/{score}") for score in SCORES]
        ours = protocol.name in PROTOCOLS
        twin = next((name for name in told if ours and name in PROTOCOLS and told[name] == cells), "")
        told[protocol.name] = cells
        if set(cells) != {UNDEFINED}:
            most = f"{100 * ceiling[protocol.name]:.1f}" if protocol.name in ceiling else UNDEFINED
            rows.append([protocol.name, protocol.digest, *(["as " + twin, *[""] * 4] if twin else cells), most])
    return rows


def _ranked(runs: Sequence[Scored]) -> list[list[str]]:
    cells = {title: _cell(runs, name) for name, title in RANKED.items()}
    segmentation = runs[0].segmentation
    if segmentation is not None:
        calls = {f"f@call{n}": f"F, per call of {n} frames" for n in segmentation.calls}
        for score, title in ({"miou": "mIoU", "f": "F, one curve"} | calls).items():
            cells[f"{segmentation.name} {title}"] = _cell(runs, f"{segmentation.name}/{score}")
    return [["score", "value"], *([title, cell] for title, cell in cells.items() if cell != UNDEFINED)]


def _printed(runs: Sequence[Scored]) -> list[str]:
    """What single evaluators print besides: detection of SLAVC, the APs of T-VSL, AVGN and NoPrior, interaction."""
    shown = {*RANKED, *(f"{p.name}/{score}" for p in runs[0].protocols for score in SCORES)}
    shown |= {f"{s.segmentation.name}/{k}" for s in runs if s.segmentation for k in ("miou", "f", *_calls(s))}
    rest = [name for name in runs[0].summary.scalars if name not in shown and not name.startswith("swapped/")]
    swapped = [name for name in runs[0].summary.scalars if name.startswith("swapped/") and name.endswith("/iou")]
    rows = [[name, _cell(runs, name)] for name in (*rest, *swapped)]
    return ["Further columns:", markdown([["score", "value"], *rows])] if rows else []


def _calls(scored: Scored) -> list[str]:
    return [f"f@call{n}" for n in scored.segmentation.calls] if scored.segmentation else []


def _sizes(runs: Sequence[Scored]) -> list[str]:
    """By size of the source and, where VGGSounder's labels are installed, on the clean clips of VGG-SS."""
    first, protocol = runs[0], runs[0].protocols[0]
    frames = 2 if first.kind == "duet" else 1
    parts = dict(by_size(first.summary.sources, protocol.name, frames=frames, strict=protocol.strict))
    parts |= clean_part(first, protocol)
    rows = [["sources", "n", *HEADS], *([name, str(part.n), *_scores(part)] for name, part in parts.items())]
    many = f", first of {len(runs)} runs" if len(runs) > 1 else ""
    return [f"By size, {protocol.name}{many}:", markdown(rows)]


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


def save(scored: Scored, out: Path, *, seed: int = 0) -> Path:
    """The record below `out`, and beside it its tables as csv: scores, classes, one row per source, one per picture."""
    path = records.save(record_of(scored, seed=seed), out)
    names = dict(enumerate(scored.class_names)) | {-1: ""}
    sources = [{**row, "class": names[int(str(row["class"]))]} for row in scored.summary.sources]
    records.save_rows(path, score_rows(scored), "scores")
    records.save_rows(path, class_rows(scored), "classes")
    records.save_rows(path, _level(sources), "sources")
    records.save_rows(path, _level(scored.summary.pictures), "pictures")
    return path


def score_rows(scored: Scored) -> list[dict[str, object]]:
    """One row per protocol and score: value in [0, 1], clips, hash of their list, and whether they are a subset."""
    about = {"n": scored.counts["clips"], "ids": scored.coverage.hash, "subset": scored.subset}
    parts = ((name.rpartition("/"), value) for name, value in scored.summary.scalars.items())
    return [{"protocol": p, "score": score, "value": value, **about} for (p, _, score), value in parts]


def _level(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Rows with all columns of any."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


def class_rows(scored: Scored) -> list[dict[str, object]]:
    """The scores of every class under the first protocol, and their mean over classes: rows of a csv."""
    protocol = scored.protocols[0]
    found = by_class(scored.summary.sources, protocol.name, scored.class_names, at=protocol.at, strict=protocol.strict)
    parts = {**found.parts, "mean over classes": found.macro}
    return [{"class": name, "n": part.n, "protocol": protocol.name, **part.scalars} for name, part in parts.items()]


def _scores(part: Part) -> list[str]:
    return [f"{100 * part.scalars[score]:.1f}" if part.n else UNDEFINED for score in SCORES]


def _counts(first: Scored) -> list[str]:
    """How many clips, maps and truths were not what they should be, and which."""
    rows = [["what", "how many"], *([name.replace("_", " "), str(n)] for name, n in first.counts.items())]
    parts = ["Counted:", markdown(rows)]
    for title, ids in {"missing": first.coverage.missing, "extra, not scored": first.coverage.extra}.items():
        if ids:
            parts.append(f"{title}: {_some(ids)}")
    if first.problems:
        lines = "\n".join(f"  {problem}" for problem in first.problems[:NAMED])
        parts.append(f"Not used:\n{lines}{_more(first.problems)}")
    return parts


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED]) + _more(ids)


def _more(some: Sequence[object]) -> str:
    return f" and {len(some) - NAMED} more, in the record" if len(some) > NAMED else ""


def _leads(runs: Sequence[Scored], rival: Sequence[Scored]) -> list[list[str]]:
    rows = [["protocol", "mean IoU", "success at 0.5"]]
    for protocol in runs[0].protocols:
        mine, theirs = (_means(several, protocol) for several in (runs, rival))
        if mine is None or theirs is None:
            continue
        pictures = [str(row["key"]) for row in runs[0].summary.sources if row["sounds"]]
        leads = (bootstrap(a - b, pictures) for a, b in zip(mine, theirs, strict=True))
        rows.append([protocol.name, *map(str, leads)])
    return rows


def _means(runs: Sequence[Scored], protocol: Protocol) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
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
    return iou.mean(0).numpy(), success.double().mean(0).numpy()


def _cell(runs: Sequence[Scored], name: str) -> str:
    values = [run.summary.scalars[name] for run in runs if name in run.summary.scalars]
    if len(values) < len(runs):
        return UNDEFINED
    found = interval(values)
    text = f"{100 * found.mean:.1f}"
    return text if math.isnan(found.half_width) else f"{text} ± {100 * found.half_width:.1f}"


def _same_clips(every: Sequence[Scored]) -> None:
    lists = {one.coverage.hash: one for one in every}
    if len(lists) > 1:
        told = "; ".join(f"{one.maps} of {one.counts['clips']} clips ({hash})" for hash, one in lists.items())
        raise ValueError(f"expected maps of the same clips, got {len(lists)} lists: {told}")
