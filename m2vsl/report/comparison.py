"""Paper, ours, difference: a printed table beside our records, each against its own constant and its own ceiling.

A printed number and one of ours may be subtracted only if they are of the same pictures. On other data the column says
so, and what can be compared is where a number stands between what a disc scores there (Centre) and what the best map
can (the bound). For the paper's data both are known where the boxes are public. They hold under the protocol that is
named here; the paper names none.

Conventions
-----------
Everything is per cent, or points of per cent; ± is the 95 % interval over our seeds. An en dash: not printed, not
known, or not defined. `EZ_VSL` marks the printed row that is with object guidance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING

from m2vsl.hearing import SOUNDS
from m2vsl.methods import CONTROLS, METHODS
from m2vsl.metrics.protocols import PROTOCOLS, PUBLISHED
from m2vsl.records import Record
from m2vsl.report import rows
from m2vsl.report.paper import LISTS, PRINTED_AS, Benchmark, Printed, of
from m2vsl.report.tables import LISTENING, NO_RECORD, UNDEFINED, Column, Table, table

if TYPE_CHECKING:
    import pandas as pd

OTHER_DATA = "other data"  # than the printed number's: nothing to subtract
DAGGER = "\N{DAGGER}"
EZ_VSL = f"{DAGGER} printed as EZ-VSL: on VGGSound-Single with object guidance, of the other columns nobody says."
_MINUS = "\N{MINUS SIGN}"
Cells = Callable[[str, str, Column], tuple[str, ...]]  # (method, score, column) -> what stands under each head
_RULES = ("area50", "minmax05")
SWAPPED = {  # one list per task: the same map on what sounds and on what is silent, which is the swapped sound
    "single": tuple(
        Column(f"solo/{swapped}framewise-{score}")
        for score in ("area50-predicted/ciou@0.3", "matched-predicted/iou")
        for swapped in ("", "swapped/")
    ),
    "duet": LISTENING + tuple(Column(f"one/{swapped}framewise-matched-predicted/iou") for swapped in ("", "swapped/")),
}


@dataclass(frozen=True)
class Comparison:
    """A printed group of columns beside our records of one data set, under one protocol."""

    benchmark: Benchmark
    protocol: str
    ours: Table  # columns in the order of ``benchmark.scores``
    printed: Mapping[tuple[str, str], Printed]  # (method, score)
    source: str  # our data set; "" = no record
    other: str  # why ours and the paper's may not be subtracted; "" = they may

    def frame(self) -> pd.DataFrame:
        """Index: methods; columns: (score, number, data): the paper's, ours, ours minus the paper's; then seeds."""
        heads = [("paper", self.benchmark.dataset), ("ours", self.source or NO_RECORD)]
        heads.append((f"ours {_MINUS} paper", self.other or "same pictures"))
        return self._frame(self.benchmark.scores, heads, self._beside, "data")

    def standing(self) -> pd.DataFrame:
        """The same numbers less Centre on the same data, and how far from there to the bound they are.

        Of scores alone for which Centre is known, of the paper's data or of ours.
        """
        kept = [s for s, c in self._pairs() if ("centre", s) in self.printed or self._mine("centre", c) is not None]
        heads = [(who, what) for who in ("paper", "ours") for what in (f"{_MINUS} Centre", "of the way to the bound")]
        return self._frame(kept, heads, self._stands, "place")

    def _pairs(self) -> list[tuple[str, Column]]:
        return list(zip(self.benchmark.scores, self.ours.columns, strict=True))

    def _frame(self, scores: Sequence[str], heads: Sequence[tuple[str, str]], cells: Cells, kind: str) -> pd.DataFrame:
        import pandas as pd

        pairs = [(score, column) for score, column in self._pairs() if score in scores]
        made = []
        for m in self.ours.methods:
            row = [text for score, column in pairs for text in cells(m, score, column)]
            made.append([*row, str(self.ours.seeds[m] or "")])
        names = [(score, *head) for score, _ in pairs for head in heads] + [("", "", "seeds")]
        columns = pd.MultiIndex.from_tuples(names, names=["score", "number", kind])
        return pd.DataFrame(made, index=[METHODS[m].title for m in self.ours.methods], columns=columns)

    def _beside(self, method: str, score: str, column: Column) -> tuple[str, ...]:
        printed, ours = self.printed.get((method, score)), self._mine(method, column)
        paper = difference = UNDEFINED
        if printed is not None:
            mark = f" {DAGGER}" if method in (*PRINTED_AS, *PRINTED_AS.values()) else ""
            paper = f"({printed.value:.1f})" if method in CONTROLS else f"{printed.value:.1f}{mark}"
        if printed is not None and ours is not None and not self.other:
            difference = _signed(ours[0] - printed.value, ours[1])
        return paper, self.ours.cell(method, column), difference

    def _stands(self, method: str, score: str, column: Column) -> tuple[str, ...]:
        three = ("centre", "bound", method)
        paper = {m: (self.printed[m, score].value, math.nan) for m in three if (m, score) in self.printed}
        ours = {m: found for m in three if (found := self._mine(m, column)) is not None}
        absent = UNDEFINED if self.ours.seeds[method] else NO_RECORD
        return (*_place(paper, method, UNDEFINED), *_place(ours, method, absent))

    def _mine(self, method: str, column: Column) -> tuple[float, float] | None:
        """(mean, half the interval's width) in per cent, where a cell shows a number."""
        found = self.ours.number(method, column)
        return None if found is None else (100 * found.mean, 100 * found.half_width)

    @property
    def caption(self) -> str:
        """What is compared with what, and what our cells rest on."""
        data = f"paper: {self.benchmark.dataset}, ours: {self.source or NO_RECORD}"
        told = f"{data}, so no difference is taken." if self.other else f"{data}, the same pictures."
        known = any(m == "centre" for m, _ in self.printed)
        brackets = f"In brackets: computed on the paper's boxes under {self.protocol}. " if known else ""
        return f"{told} The paper names no protocol. {brackets}{EZ_VSL} Ours: {self.ours.caption}"

    def _repr_html_(self) -> str:
        return self.frame().to_html() + f'<p style="font-size: smaller">{escape(self.caption)}</p>'

    def __repr__(self) -> str:
        return f"{self.frame().to_string()}\n{self.caption}"


def compare(found: Iterable[Record], benchmark: Benchmark, protocol: str = "framewise-area50-oracle") -> Comparison:
    """Our records of one data set and task beside a printed group of columns.

    ValueError for records of another task or of several lists, and for a protocol that is not in `PROTOCOLS` (of masks,
    see `Benchmark.metric`, any).
    """
    every, masks = list(found), benchmark.table in ("3", "4")
    if protocol not in PROTOCOLS and not masks:
        raise ValueError(f"expected protocol among {', '.join(PROTOCOLS)}, got {protocol!r}")
    if odd := sorted({record.task for record in every} - {benchmark.task}):
        raise ValueError(f"expected records of task {benchmark.task}, got {', '.join(odd)}")
    columns = [Column(benchmark.metric(score, protocol)) for score in benchmark.scores]
    ours = replace(shown(every, columns, rows.segmenters() if masks else rows.methods()), columns=tuple(columns))
    first = every[0] if every else None
    return Comparison(
        benchmark, protocol, ours, of(benchmark, protocol), first.dataset if first else "", _other(first, benchmark)
    )


def _other(record: Record | None, benchmark: Benchmark) -> str:
    if record is None or record.dataset != benchmark.ours:
        return OTHER_DATA
    n = int(record.metrics[f"{LISTS[benchmark.task]}/n_pictures"])
    return "" if n == benchmark.full else f"subset ({n} of {benchmark.full})"


def protocols(task: str, score: str) -> tuple[Column, ...]:
    """One score, ``ciou@0.3`` or ``auc``, under every protocol with a rule: canvas, rule and choice side by side.

    Of solos there is one canvas: the picture is the source's own frame.
    """
    canvases = ("framewise",) if task == "single" else ("framewise", "sourcewise")
    names = [f"{c}-{rule}-{choice}" for c in canvases for rule in _RULES for choice in ("oracle", "predicted")]
    return tuple(Column(f"{LISTS[task]}/{name}/{score}") for name in names)


def evaluators(task: str) -> tuple[Column, ...]:
    """What the published evaluators print of the same maps: success at 0.3, T-VSL's mean, AVSBench's two numbers.

    DSOL's level is that of its solos or of its duets.
    """
    rate = [name for name in PUBLISHED if not name.startswith(("tvsl", "dsol"))]
    names = [f"{name}/ciou@0.3" for name in rate] + ["tvsl-0.3/iou"]
    names += ["dsol-0.1/ciou@0.3" if task == "single" else "dsol-0.2/ciou@0.3", "avsbench/miou", "avsbench/f"]
    return tuple(Column(f"{LISTS[task]}/{name}") for name in names)


def masks(task: str, part: str = "", test_list: str = "") -> tuple[Column, ...]:
    """Table 3: at the fixed and at the tuned cut, F of all frames and per call; classes told, classes heard; refined.

    part: "human/" or another part of a list that is scored apart. test_list: another than the task's own.
    """
    start = f"{test_list or LISTS[task]}/{part}"
    told = [f"avsbench/{score}" for score in ("miou", "miou@val", "f", "f@call5")]
    heard = ["avsbench-predicted/miou", "avsbench-predicted/f"]
    return tuple(Column(f"{start}{name}") for name in (*told, *heard, "refined/avsbench/miou", "refined/avsbench/f"))


def hearing(task: str) -> tuple[Column, ...]:
    """What becomes of a map under silence, noise and a sound of nothing that is seen (`m2vsl.hearing`)."""
    which = "solo" if task == "single" else "one"
    return tuple(Column(f"{which}/{sound}/{score}") for score in ("separability", "remaining") for sound in SOUNDS)


def interactive() -> tuple[Column, ...]:
    """Success only if a picture's two sounds are both found, each in its turn: the class told, and the class heard."""
    names = [f"framewise-{rule}-{choice}" for choice in ("oracle", "predicted") for rule in ("area50", "matched")]
    return tuple(Column(f"one/interaction/{name}/ciou@0.3") for name in names)


def shown(found: Sequence[Record], columns: Sequence[Column], methods: Sequence[str] = ()) -> Table:
    """The table of all rows (or `methods`), without columns that no record has: a solo photo has nothing silent."""
    known = [c for c in columns if not found or any(c.metric in record.metrics for record in found)]
    return table(found, known, methods or rows.methods())


def told(made: Table, column: Column, baseline: str = "centre") -> str:
    """What a chart of a column shows, in words: who is above the constant, who is not, and the ceiling."""
    which, protocol, score = column.heading
    title, start = METHODS[baseline].title, f"{score} ({which}, {protocol}):"
    floor, ceiling = (made.number(m, column) for m in (baseline, "bound"))
    if floor is None:
        return f"{start} {made.cell(baseline, column)} for {title}."
    learnt = [m for m in made.methods if m not in CONTROLS]
    groups = {"Above it": [m for m in learnt if made.above(m, column)]}
    groups["not above it"] = [m for m in learnt if made.number(m, column) and m not in groups["Above it"]]
    groups[NO_RECORD] = [m for m in learnt if not made.seeds[m]]
    parts = [f"{name}: {', '.join(METHODS[m].title for m in some) or 'none'}" for name, some in groups.items()]
    best = "" if ceiling is None else f", the best map {100 * ceiling.mean:.1f}"
    return f"{start} {title} scores {100 * floor.mean:.1f}{best}. {'; '.join(parts)}."


def _place(known: Mapping[str, tuple[float, float]], method: str, absent: str) -> tuple[str, str]:
    """A number less Centre, and how much of the way from Centre to the bound that is; `absent` where it is not known.

    known: method -> (number, half the interval's width).
    """
    if method not in known or "centre" not in known:
        return absent, absent
    floor, (value, off) = known["centre"][0], known[method]
    span = known["bound"][0] - floor if "bound" in known else 0.0
    return _signed(value - floor, off), f"{_signed(100 * (value - floor) / span, digits=0)} %" if span > 0 else absent


def _signed(value: float, off: float = math.nan, digits: int = 1) -> str:
    text = f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", _MINUS)  # + 0.0: no minus before a zero
    return text if math.isnan(off) else f"{text} ± {off:.{digits}f}"
