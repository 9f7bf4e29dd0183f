"""From records to a table: one row per method, one column per score and protocol, mean and 95 % interval over seeds.

No number is typed: a cell is made from the records of its method, and says "no record" where there is none. Every
table carries the controls, how many samples and seeds stand behind it, and the hash of the list that all of its rows
were scored on; rows of different lists are refused.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from m2vsl.methods import METHODS
from m2vsl.metrics.tally import Interval, interval
from m2vsl.records import Record, commits, config_hash

if TYPE_CHECKING:
    import pandas as pd

NO_RECORD = "no record"
NO_CLASSES = "no classes"  # CAP asks for the map of a class, and the method's maps do not say theirs
UNDEFINED = "\N{EN DASH}"  # the record has no such score: a bound has no maximum to point with
ABOVE = "\N{BLACK UP-POINTING TRIANGLE}"
LISTS = {"solo": "solos", "mixture": "all sources sound", "one": "one source sounds"}
_SCORES = {"half": "right half", "pointing": "pointing", "heard_accuracy": "classes right", "iou": "mean IoU"}
_SCORES |= {"miou@val": "mIoU, cut tuned", "f@call5": "F per 5 frames", "f@call20": "F per 20 frames"}
_SCORES |= {"remaining": "heat that remains", "separability": "told apart from it", "miou": "mIoU"}
# fields of a data set that do not change its test list
_TRAINING = (
    "train_length",
    "val_length",
    "length",
    "val_fold",
    "val_share",
    "margin",
    "flip",
    "solo_share",
    "cache_mb",
)


@dataclass(frozen=True)
class Column:
    """A score in a record, and how a table prints it."""

    metric: str  # "<list>/<protocol>/<score>", or with "swapped/" before the protocol; see `m2vsl.metrics.tally`
    scale: float = 100.0  # 100 = per cent
    digits: int = 1  # behind the point

    @property
    def heading(self) -> tuple[str, str, str]:
        """Which test list, under which protocol, which score."""
        first, *protocol, score = self.metric.split("/")
        swapped, both = protocol[:1] == ["swapped"], protocol[:1] == ["interaction"]
        name = _SCORES.get(score, score.replace("ciou", "CIoU") if "ciou" in score else score.upper())
        which = LISTS.get(first, first) + (", scored on the silent ones" if swapped else "")
        which += ", then the other: both found" if both else ""
        return which, "/".join(protocol[swapped or both :]) or UNDEFINED, name

    @property
    def compares(self) -> bool:
        """Whether more is better: not on the silent source, nor of heat that remains; there who listens scores low."""
        return "/swapped/" not in self.metric and not self.metric.endswith("/remaining")


SINGLE = tuple(
    Column(f"solo/{name}")
    for name in (
        "framewise-area50-oracle/ciou@0.5",
        "framewise-area50-oracle/auc",
        "framewise-minmax05-oracle/ciou@0.5",
        "framewise-matched-oracle/iou",
        "oracle/ap",
        "predicted/ap",
    )
)
DUET = tuple(
    Column(f"mixture/{name}")
    for name in (
        "framewise-area50-oracle/ciou@0.3",
        "framewise-area50-oracle/auc",
        "sourcewise-area50-oracle/ciou@0.3",
        "framewise-matched-oracle/iou",
        "framewise-matched-predicted/iou",
        "oracle/cap",
        "oracle/piap",
    )
)
LISTENING = tuple(  # one of two sources sounds: which half does the map point at, and what if the sounds are swapped?
    Column(f"one/{name}")
    for name in (
        "oracle/half",
        "predicted/half",
        "framewise-area50-predicted/ciou@0.3",
        "swapped/predicted/half",
        "swapped/framewise-area50-predicted/ciou@0.3",
    )
)


@dataclass(frozen=True)
class Table:
    """Cells with what they rest on. A page shows it by naming it: HTML in a notebook, plain text elsewhere."""

    columns: tuple[Column, ...]
    methods: tuple[str, ...]
    cells: Mapping[tuple[str, str], Interval]  # (method, metric) -> over seeds; absent = no record, or not defined
    seeds: Mapping[str, int]  # method -> how many records; 0 = none
    caption: str  # marks, n, the list's hash, commit
    baseline: str = "centre"  # what a method has to be above

    def above(self, method: str, column: Column) -> bool:
        """Whether the lower end of the interval (of a single seed: the value) lies above the baseline's mean."""
        mine, floor = (self.cells.get((m, column.metric)) for m in (method, self.baseline))
        if mine is None or floor is None or method == self.baseline or not column.compares:
            return False
        return (mine.mean if math.isnan(mine.half_width) else mine.low) > floor.mean

    def number(self, method: str, column: Column) -> Interval | None:
        """What a cell shows, unscaled; None where it says why there is no number."""
        return None if self._nameless(method, column) else self.cells.get((method, column.metric))

    def cell(self, method: str, column: Column) -> str:
        """What is printed: ``46.2 ± 1.3 ▲``."""
        if not self.seeds[method]:
            return NO_RECORD
        if self._nameless(method, column):
            return NO_CLASSES
        found = self.number(method, column)
        if found is None:
            return UNDEFINED
        text = f"{column.scale * found.mean:.{column.digits}f}"
        if not math.isnan(found.half_width):
            text += f" ± {column.scale * found.half_width:.{column.digits}f}"
        return f"{text} {ABOVE}" if self.above(method, column) else text

    def _nameless(self, method: str, column: Column) -> bool:
        return column.metric.split("/")[-1] == "cap" and not METHODS[method].build.named

    def frame(self) -> pd.DataFrame:
        """The cells as printed; index: titles of the methods, columns: (list, protocol, score)."""
        import pandas as pd

        rows = [
            [*(self.cell(m, c) for c in self.columns), str(self.seeds[m]) if self.seeds[m] else "", _learns_from(m)]
            for m in self.methods
        ]
        heads = [c.heading for c in self.columns] + [("", "", "seeds"), ("", "", "learns from")]
        names = pd.MultiIndex.from_tuples(heads, names=["test list", "protocol", "score"])
        return pd.DataFrame(rows, index=[METHODS[m].title for m in self.methods], columns=names)

    def means(self) -> pd.DataFrame:
        """The means as recorded, unscaled, NaN where there is none; index: methods, columns: metrics."""
        import pandas as pd

        means = {k: v.mean for k, v in self.cells.items()}
        values = [[means.get((m, c.metric), math.nan) for c in self.columns] for m in self.methods]
        return pd.DataFrame(values, index=list(self.methods), columns=[c.metric for c in self.columns])

    def _repr_html_(self) -> str:
        return self.frame().to_html() + f'<p style="font-size: smaller">{escape(self.caption)}</p>'

    def __repr__(self) -> str:
        return f"{self.frame().to_string()}\n{self.caption}"


def table(
    found: Iterable[Record],
    columns: Sequence[Column],
    methods: Sequence[str] = tuple(METHODS),
    *,
    full: int = 0,
    baseline: str = "centre",
) -> Table:
    """The table of `methods`, in this order, from the records `found` (those of other methods are left out).

    full: how many samples the whole test list has, where a part of it may have been scored; 0 = no such thing.
    ValueError if the records are of several test lists, if a method's are of several configurations or one seed comes
    twice, and for a column that no record knows.
    """
    of = _by_method(found, methods)
    every = [record for records in of.values() for record in records]
    _check(every, columns)
    cells = {}
    for method, records in of.items():
        for column in columns:
            values = [record.metrics.get(column.metric, math.nan) for record in records]
            defined = [value for value in values if not math.isnan(value)]
            if defined:
                cells[method, column.metric] = interval(defined)
    seeds = {method: len(of.get(method, ())) for method in methods}
    return Table(tuple(columns), tuple(methods), cells, seeds, _caption(every, full, baseline), baseline)


def marks(record: Record, full: int = 0) -> str:
    """What its numbers may be compared with: the data set's name, and whether a part of the list was scored.

    full: samples of the whole list; 0 = as the record says, if it does.
    """
    full = full or round(sum(value for name, value in record.metrics.items() if name.endswith("/n_listed")))
    return record.dataset + (f", subset ({record.n} of {full})" if 0 < record.n < full else "")


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as a table of Markdown, the first of them its heads."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _by_method(found: Iterable[Record], methods: Sequence[str]) -> dict[str, list[Record]]:
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise ValueError(f"expected methods among {', '.join(METHODS)}, got {', '.join(unknown)}")
    of: defaultdict[str, list[Record]] = defaultdict(list)
    for record in found:
        if record.method in methods:
            of[record.method].append(record)
    for method, records in of.items():
        hashes, seeds = sorted({record.hash for record in records}), [record.seed for record in records]
        if len(hashes) > 1:
            raise ValueError(f"{method}: expected records of one configuration, got {len(hashes)}: {', '.join(hashes)}")
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{method}: expected each seed once, got {sorted(seeds)}")
    return dict(of)


def _check(records: Sequence[Record], columns: Sequence[Column]) -> None:
    lists: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for record in records:
        data = config_hash(record.experiment.get("data", {}), leave_out=_TRAINING)
        lists[record.dataset, record.task, record.ids, data].add(record.method)
    if len(lists) > 1:
        told = "; ".join(f"{' '.join(key)} of {', '.join(sorted(m))}" for key, m in lists.items())
        raise ValueError(f"expected rows of one test list (data set, task, ids, data), got {len(lists)}: {told}")
    known = {name for record in records for name in record.metrics}
    missing = [column.metric for column in columns if records and column.metric not in known]
    if missing:
        raise ValueError(f"no record has {', '.join(missing)}; they have {', '.join(sorted(known))}")


def _caption(records: Sequence[Record], full: int, baseline: str) -> str:
    if not records:
        return "No record yet."
    first = records[0]
    return (
        f"{first.task}, {marks(first, full)}, preset {' and '.join(sorted({r.preset for r in records}))}; "
        f"n = {first.n} ({', '.join(_counted(first))}), list {first.ids}; commit {commits(records)}. "
        f"Per cent; mean ± 95 % interval over seeds. {ABOVE} above {METHODS[baseline].title}: its lower end, "
        f"of a single seed its value."
    )


def _counted(record: Record) -> list[str]:
    """What there is of each test list; where sources have no masks of their own, of its frames."""
    told = []
    for name in LISTS:
        n = {key: record.metrics.get(f"{name}/{key}", math.nan) for key in ("n_sources", "n_pictures", "area", "empty")}
        if not math.isnan(n["n_sources"]):
            told.append(f"{LISTS[name]}: {n['n_sources']:.0f} sources in {n['n_pictures']:.0f} pictures")
        elif not math.isnan(n["area"]):
            area = f"{100 * n['area']:.1f} % of a frame sounds on average, {n['empty']:.0f} are empty"
            told.append(f"{LISTS[name]}: {n['n_pictures']:.0f} frames, {area}")
    return told


def _learns_from(method: str) -> str:
    return ", ".join(sorted(METHODS[method].build.wants)) or "nothing"
