"""The numbers printed in Tables 1 to 4 of the paper, where each comes from, and which of our scalars answers it.

``data/paper.csv`` has one row per printed cell; where the paper has a dash there is none. Below them stand rows with an
empty ``table``, which the paper lacks: what a constant, noise and the best possible map score on the same boxes
(protocol 2.6; compared with tests/golden/vggss_anchors.npz).

Source: Tables 1 to 4; ledger 34, 47 and baselines 1.6 for where rows come from.

Conventions
-----------
- Values are per cent, as printed. Metrics bear the paper's names; the paper defines none of them and names no protocol,
  so ``protocol`` is empty in its rows.
- The printed row "EZ-VSL" answers for `ez_vsl` and for `ez_vsl_ogl`: on VGGSound-Single it is with object guidance, of
  the other columns nobody says.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from m2vsl import paths
from m2vsl.methods import METHODS

PRINTED_AS = {"ez_vsl_ogl": "ez_vsl"}  # our method -> the printed row that answers for it, where the names differ
LISTS = {"single": "solo", "duet": "mixture", "multi": "mixture"}  # task -> the test list in a record
MODULES = ("neither", "MMC", "MMT", "MMC and MMT")  # rows of Table 4
_COLUMNS = ["table", "dataset", "method", "metric", "value", "protocol", "source"]


class Benchmark(NamedTuple):
    """A group of columns of a table: one data set, and what is printed of it."""

    table: str  # "1" to "4"
    dataset: str  # as the paper calls it
    task: str  # what we call it: "single", "duet" or "multi"
    scores: tuple[str, ...]  # as the paper prints them, in its order
    ours: str  # the data set as records name it
    full: int  # pictures in the published test list

    def metric(self, score: str, protocol: str) -> str:
        """The scalar of a record that answers a printed score under one of `m2vsl.metrics.protocols.PROTOCOLS`.

        For Tables 3 and 4 a protocol is a segmentation: "avsbench", "avsbench-predicted", with "refined/" before it.
        """
        test_list, (name, at, level) = LISTS[self.task], score.lower().partition("@")
        if name in ("ap", "cap", "piap"):  # no rule and no canvas, only whose map answers
            return f"{test_list}/{protocol.rpartition('-')[2]}/{name}"
        return f"{test_list}/{protocol}/{f'ciou{at}{level}' if at else name}"


BENCHMARKS = (
    Benchmark("1", "VGGSound-Instruments", "single", ("AP", "IoU@0.3", "AUC"), "instruments-single", 446),
    Benchmark("1", "VGGSound-Single", "single", ("AP", "IoU@0.5", "AUC"), "vggsound-single", 5158),
    Benchmark("2", "VGGSound-Instruments", "duet", ("CAP", "PIAP", "CIoU@0.1", "AUC"), "instruments-duet", 446),
    Benchmark("2", "VGGSound-Duet", "duet", ("CAP", "PIAP", "CIoU@0.3", "AUC"), "vggsound-duet", 5158),
)
SEGMENTED = tuple(
    Benchmark(table, dataset, task, ("mIoU", "F"), f"avsbench-{task}", full)
    for table in ("3", "4")
    for dataset, task, full in (("AVSBench-S4", "single", 3700), ("AVSBench-MS3", "multi", 320))
)


def segmented(task: str) -> Benchmark:
    """The group of Table 3 that a task is held beside: several sources are those of MS3, in one frame or in two."""
    return next(b for b in SEGMENTED if b.task == ("single" if task == "single" else "multi"))._replace(task=task)


@dataclass(frozen=True)
class Printed:
    """One number and where it comes from."""

    table: str  # "1" to "4"; "" = not of the paper
    dataset: str
    method: str  # a key of METHODS; of Table 4 one of MODULES
    metric: str
    value: float  # per cent
    protocol: str  # canvas and rule, "framewise-area50"; "" = not said
    source: str


@cache
def printed(path: Path | None = None) -> tuple[Printed, ...]:
    """Every row of ``data/paper.csv``, or of another file like it.

    ValueError naming file and line for another header, an unknown data set, method or metric, a value that is not
    0 to 100, and for a cell that comes twice.
    """
    place = path or paths.paper()
    with place.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        if table.fieldnames != _COLUMNS:
            raise ValueError(f"{place}: expected columns {', '.join(_COLUMNS)}, got {table.fieldnames}")
        rows = []
        for number, row in enumerate(table, 2):
            try:
                rows.append(_checked(row))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{place}, line {number}: {error}") from error
    seen = set()
    for number, one in enumerate(rows, 2):
        cell = (one.table, one.dataset, one.method, one.metric, one.protocol)
        if cell in seen:
            raise ValueError(f"{place}, line {number}: expected each cell once, got {cell} again")
        seen.add(cell)
    return tuple(rows)


def _checked(row: dict[str, str]) -> Printed:
    every = [benchmark for benchmark in (*BENCHMARKS, *SEGMENTED) if row["table"] in ("", benchmark.table)]
    if (row["dataset"], row["metric"]) not in {(b.dataset, score) for b in every for score in b.scores}:
        raise ValueError(f"expected a column of table {row['table']!r}, got {row['dataset']}, {row['metric']}")
    if row["method"] not in (rows := MODULES if row["table"] == "4" else tuple(METHODS)):
        raise ValueError(f"expected method among {', '.join(rows)}, got {row['method']!r}")
    if bool(row["table"]) == bool(row["protocol"]):
        raise ValueError("expected a protocol where, and only where, the number is not of the paper")
    value = float(row["value"])
    if not 0 <= value <= 100 or not row["source"]:
        raise ValueError(f"expected 0 to 100 per cent and a source, got {row['value']} and {row['source']!r}")
    return Printed(**{**row, "value": value})  # type: ignore[arg-type]


def of(benchmark: Benchmark, protocol: str = "framewise-area50-oracle") -> dict[tuple[str, str], Printed]:
    """(method, score) -> the number on a benchmark: the paper's, and the constants computed under `protocol`.

    The paper's stand there whatever the protocol, as it names none; a constant is there if it is known.
    """
    rows = [row for row in printed() if row.dataset == benchmark.dataset and row.metric in benchmark.scores]
    rule = protocol.rpartition("-")[0]
    found = {
        (r.method, r.metric): r for r in rows if r.table == benchmark.table or (not r.table and r.protocol == rule)
    }
    of_others = {(m, s): found[r, s] for m, r in PRINTED_AS.items() for s in benchmark.scores if (r, s) in found}
    return found | of_others


def sources(table: str) -> dict[str, list[str]]:
    """Where the numbers of a table come from -> its cells, column by column: ``VGGSound-Single AUC: LVS, EZ-VSL``."""
    cells: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in printed():
        if row.table == table:
            title = row.method if table == "4" else METHODS[row.method].title
            cells[row.source][f"{row.dataset} {row.metric}"].append(title)
    return {source: [f"{column}: {', '.join(m)}" for column, m in of.items()] for source, of in cells.items()}
