"""The tables of ``m2vsl evaluate --maps`` as text.

Everything is per cent. Of several runs the mean and the 95 % interval over them; differences of two programs with the
paired bootstrap over clips. The constants and ceilings of the same clips stand below: a table without them cannot be
read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from m2vsl.data.layout import Problem
from m2vsl.metrics.bounds import Bounds
from m2vsl.metrics.protocols import PROTOCOLS
from m2vsl.metrics.statistics import Lead, Part, by_size
from m2vsl.metrics.tally import interval
from m2vsl.report.scores import clean_part
from m2vsl.report.tables import UNDEFINED, markdown
from m2vsl.scoring import Scored

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
    "predicted/piap": "PIAP, predicted classes",
    "oracle/half": "maximum in the source's own frame",
    "oracle/pointing": "maximum in the source (pointing)",
    "heard_accuracy": "classes right",
}
NAMELESS = ("oracle/ap", "oracle/piap", "oracle/half", "oracle/pointing")  # what maps without classes have
ROLES = {
    "auto": "maps answer for their classes; nameless ones for the source they fit",
    "sources": "map s answers for source s",
    "turns": "map s answers for source s while it sounds alone",
}


def shown(
    runs: Sequence[Scored],
    limits: Bounds | None = None,
    rival: Sequence[Scored] = (),
    ceiling: Mapping[str, float] | None = None,
    ahead: Mapping[str, tuple[Lead, Lead]] | None = None,
) -> str:
    """All tables of one program, whose `runs` differ by their seed, and of `rival`, another, if there is one.

    limits: `bounds` of the same clips; ceiling: `ceilings` of them; ahead: `leads` over the rival (`report.scores`).
    ValueError for runs of different clips, and if one run comes twice.
    """
    check(runs, rival)
    parts = [_about(runs), "Overlap, per protocol:", markdown(_overlaps(runs, ceiling or {})), *_in_turn(runs)]
    parts += ["Without a threshold of IoU:", markdown(_ranked(runs)), *_printed(runs), *_sizes(runs)]
    if limits is not None:
        parts += ["What neither sees nor hears, and what no map exceeds, on the same clips (area50):", str(limits)]
    if rival:
        told = {row[0] for row in _overlaps(runs, {})}
        parts += [_about(rival), markdown(_overlaps(rival, ceiling or {}))]
        lead = f"{runs[0].name} ahead of {rival[0].name}, source by source (95 % of draws of clips; share ahead):"
        rows = [[name, *map(str, both)] for name, both in (ahead or {}).items() if name in told]
        parts += [lead, markdown([["protocol", "mean IoU", "success at 0.5"], *rows])]
    return "\n\n".join([*parts, *_counts([*runs, *rival])])


def _about(runs: Sequence[Scored]) -> str:
    first, counts = runs[0], runs[0].counts
    several = f", {len(runs)} runs, mean ± 95 % interval" if len(runs) > 1 else ""
    marked = f" **{first.subset}**" if first.subset else ""
    clips = f"{counts['clips']} clips, {counts['sources']} sources, list {first.coverage.hash}"
    best = counts["best_of_several"]
    told = f" In {best} clips several nameless maps were matched to the sources by the truth." if best else ""
    maps = ", ".join(run.maps for run in runs)
    return f"{first.name} on {first.kind}:{marked} {clips}, maps {maps}{several}; {ROLES[first.roles]}. Per cent.{told}"


def _overlaps(runs: Sequence[Scored], ceiling: Mapping[str, float]) -> list[list[str]]:
    """A row per protocol, without those of ours that differ in nothing here: one frame, one map that is not chosen."""
    rows, told = [["protocol", "hash", *HEADS, "AUC at most"]], set[tuple[str, ...]]()
    for protocol in runs[0].protocols:
        cells = [_cell(runs, f"{protocol.name}/{score}") for score in SCORES]
        twin = protocol.name in PROTOCOLS and tuple(cells) in told
        told |= {tuple(cells)} if protocol.name in PROTOCOLS else set()
        if set(cells) != {UNDEFINED} and not twin:
            most = f"{100 * ceiling[protocol.name]:.1f}" if protocol.name in ceiling else UNDEFINED
            rows.append([protocol.name, protocol.digest, *cells, most])
    return rows


def _in_turn(runs: Sequence[Scored]) -> list[str]:
    """Both sources of a picture found, each in its turn; and the maps held against the silent source."""
    rows = [
        [protocol.name, *cells]
        for protocol in runs[0].protocols
        if (cells := [_cell(runs, f"{kind}/{protocol.name}/iou") for kind in ("interaction", "swapped")])
        and cells[0] != UNDEFINED
        and (cells := [*(_cell(runs, f"interaction/{protocol.name}/{s}") for s in SCORES), cells[1]])
    ]
    heads = ["protocol", *HEADS, "mean IoU with the silent source"]
    return ["Both sources found, each in its turn (IIoU):", markdown([heads, *rows])] if rows else []


def _ranked(runs: Sequence[Scored]) -> list[list[str]]:
    named = any("oracle/cap" in run.summary.scalars for run in runs)
    cells = {title: _cell(runs, name) for name, title in RANKED.items() if named or name in NAMELESS}
    segmentation = runs[0].segmentation
    if segmentation is not None:
        calls = {f"f@call{n}": f"F, per call of {n} frames" for n in segmentation.calls}
        for score, title in ({"miou": "mIoU", "f": "F, one curve"} | calls).items():
            about = f"{segmentation.name} {title} (maps read as {segmentation.reads}, {segmentation.digest})"
            cells[about] = _cell(runs, f"{segmentation.name}/{score}")
    return [["score", "value"], *([title, cell] for title, cell in cells.items() if cell != UNDEFINED)]


def _printed(runs: Sequence[Scored]) -> list[str]:
    """What single evaluators print besides: detection of SLAVC, the APs of T-VSL, AVGN and NoPrior; other sounds."""
    shown = {*RANKED, "predicted/cap_macro", "predicted/half", "predicted/pointing"}
    shown |= {f"{p.name}/{score}" for p in runs[0].protocols for score in SCORES}
    kinds = ("swapped", "interaction", *(run.segmentation.name for run in runs if run.segmentation))
    rest = [n for n in runs[0].summary.scalars if n not in shown and n.partition("/")[0] not in kinds]
    rows = [[name, _cell(runs, name)] for name in rest]
    return ["Further columns:", markdown([["score", "value"], *rows])] if rows else []


def _sizes(runs: Sequence[Scored]) -> list[str]:
    """By size of the source and, where VGGSounder's labels are installed, on the clean clips of VGG-SS."""
    first, protocol = runs[0], runs[0].protocols[0]
    frames = 2 if first.kind == "duet" else 1
    parts = dict(by_size(first.summary.sources, protocol.name, frames=frames, strict=protocol.strict))
    parts |= clean_part(first, protocol)
    rows = [["sources", "n", *HEADS], *([name, str(part.n), *_scores(part)] for name, part in parts.items())]
    many = f", first of {len(runs)} runs" if len(runs) > 1 else ""
    return [f"By size, {protocol.name}{many}:", markdown(rows)]


def _scores(part: Part) -> list[str]:
    return [f"{100 * part.scalars[score]:.1f}" if part.n else UNDEFINED for score in SCORES]


def _counts(every: Sequence[Scored]) -> list[str]:
    """How many clips, maps and truths were not what they should be, and which."""
    names = dict.fromkeys(name for one in every for name in one.counts)
    heads = ["counted", *(f"{one.name} ({one.maps})" for one in every)]
    rows = [[_words(name), *(str(one.counts.get(name, 0)) for one in every)] for name in names]
    parts = [markdown([heads, *rows])]
    for one in every:
        ids = {"missing": one.coverage.missing, "extra, not scored": one.coverage.extra, **one.named}
        parts += [f"{one.name} ({one.maps}), {what}: {_some(some)}" for what, some in ids.items() if some]
        parts += _listed(f"{one.name} ({one.maps}), not used:", one.problems)
    return [*parts, *_listed("Of the truths:", every[0].doubts)]


def _words(name: str) -> str:
    kind, _, what = name.rpartition("/")
    return what.replace("_", " ") + (", whole list of truths" if kind else "")


def _listed(title: str, problems: Sequence[Problem]) -> list[str]:
    lines = "".join(f"\n  {problem}" for problem in problems[:NAMED])
    return [f"{title}{lines}{_more(problems)}"] if problems else []


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED]) + _more(ids)


def _more(some: Sequence[object]) -> str:
    return f" and {len(some) - NAMED} more, in the record" if len(some) > NAMED else ""


def _cell(runs: Sequence[Scored], name: str) -> str:
    values = [run.summary.scalars[name] for run in runs if name in run.summary.scalars]
    if len(values) < len(runs):
        return UNDEFINED
    found = interval(values)
    text = f"{100 * found.mean:.1f}"
    return text if math.isnan(found.half_width) else f"{text} ± {100 * found.half_width:.1f}"


def check(runs: Sequence[Scored], rival: Sequence[Scored] = ()) -> None:
    """ValueError unless all are of the same clips and no two of the same maps."""
    every = [*runs, *rival]
    twice = len(every) - len({one.maps for one in every})
    if twice:
        raise ValueError(f"expected different maps in every run and rival, got {twice} that come again")
    lists = {one.coverage.hash: one for one in every}
    if len(lists) > 1:
        told = "; ".join(f"{one.maps} of {one.counts['clips']} clips ({hash})" for hash, one in lists.items())
        raise ValueError(f"expected maps of the same clips, got {len(lists)} lists: {told}")
