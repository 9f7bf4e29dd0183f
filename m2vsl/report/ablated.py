"""What each change is worth: Table 4, Figure 4, and the steps to M2VSL+, from the records of `m2vsl.ablations`.

A row is compared with the row that it starts from *seed by seed*: what the seeds share falls out of the difference.

Conventions
-----------
Per cent, or points of per cent; ± is the 95 % interval over seeds. In the group ``steps`` a row starts from the one
above it, elsewhere from the row without changes. An en dash: not printed, or nothing to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from m2vsl import ablations, records
from m2vsl.metrics.tally import Interval, interval
from m2vsl.records import Record
from m2vsl.report.paper import LISTS, SEGMENTED, printed
from m2vsl.report.style import COLOURS, FAINT, LINES, MARKERS, WIDTH, figure, house
from m2vsl.report.tables import LISTS as WORDS
from m2vsl.report.tables import NO_RECORD, UNDEFINED

if TYPE_CHECKING:
    import pandas as pd

SCORES = {"mIoU": "avsbench/miou", "F": "avsbench/f"}
NAMES = {b.task: b.dataset for b in SEGMENTED}  # task -> as the paper calls its data


@dataclass(frozen=True)
class Ablation:
    """The rows of a group, each task and score with what it is over seeds, and what the change is worth."""

    group: str
    tasks: tuple[str, ...]
    rows: tuple[ablations.Row, ...]
    found: Mapping[tuple[int, str], Mapping[int, Record]]  # (row, task) -> seed -> record

    def values(self, row: int, task: str, score: str) -> dict[int, float]:
        """Per cent, by seed."""
        metric = f"{LISTS[task]}/{SCORES[score]}"
        return {seed: 100 * record.metrics[metric] for seed, record in self.found[row, task].items()}

    def score(self, row: int, task: str, score: str) -> Interval | None:
        """Over seeds; None without a record."""
        return interval(list(values.values())) if (values := self.values(row, task, score)) else None

    def start(self, row: int) -> int | None:
        """The row that a row is compared with."""
        if self.group == "steps":
            return row - 1 if row else None
        bare = [n for n, one in enumerate(self.rows) if one == ablations.Row(self.group, one.title)]
        preset = [n for n, one in enumerate(self.rows) if one.batch == ablations.USUAL]
        first = (bare or preset)[0]
        return None if first == row else first

    def change(self, row: int, task: str, score: str) -> Interval | None:
        """The difference to `start`, seed by seed; None if no seed has both."""
        if (start := self.start(row)) is None:
            return None
        mine, theirs = self.values(row, task, score), self.values(start, task, score)
        differences = [value - theirs[seed] for seed, value in mine.items() if seed in theirs]
        return interval(differences) if differences else None

    def frame(self) -> pd.DataFrame:
        """Index: what is changed; columns: (data, score, number): paper where it prints one, ours, worth, seeds."""
        import pandas as pd

        paper = {(p.method, p.dataset, p.metric): p.value for p in printed() if p.table == "4"}
        data = {}
        for task in self.tasks:
            for score in SCORES:
                head = (f"{WORDS[LISTS[task]]}", score)
                if self.group == "modules":
                    own = [paper.get((row.title, NAMES[task], score)) for row in self.rows]
                    data[*head, "paper"] = [UNDEFINED if value is None else f"{value:.2f}" for value in own]
                cells = [(self.score(n, task, score), self.change(n, task, score)) for n in range(len(self.rows))]
                data[*head, "ours"] = [NO_RECORD if found is None else _written(found) for found, _ in cells]
                data[*head, "worth"] = [UNDEFINED if worth is None else _written(worth, "+") for _, worth in cells]
        data["", "", "seeds"] = [
            str(max(len(self.found[n, task]) for task in self.tasks)) for n in range(len(self.rows))
        ]
        columns = pd.MultiIndex.from_tuples(list(data), names=["test list", "score", "number"])
        return pd.DataFrame(
            list(zip(*data.values(), strict=True)), index=[row.title for row in self.rows], columns=columns
        )

    def told(self) -> str:
        """Which changes help, which harm, and of which the seeds cannot say it: their interval has 0 in it."""
        lines = []
        for task in self.tasks:
            for score in SCORES:
                groups: dict[str, list[str]] = {"Better": [], "Worse": [], "Cannot be told": []}
                for n, row in enumerate(self.rows):
                    if (worth := self.change(n, task, score)) is None:
                        continue
                    sure = abs(worth.mean) > worth.half_width  # never of a single seed, whose width is NaN
                    which = ("Better" if worth.mean > 0 else "Worse") if sure else "Cannot be told"
                    groups[which].append(f"{row.title} ({_written(worth, '+')})")
                if any(groups.values()):
                    parts = [f"{name}: {'; '.join(some)}" for name, some in groups.items() if some]
                    lines.append(f"- {WORDS[LISTS[task]]}, {score}. {'. '.join(parts)}.")
        return "\n".join(lines) or "No record yet."

    @property
    def caption(self) -> str:
        """What the numbers rest on."""
        every = [record for some in self.found.values() for record in some.values()]
        if not every:
            return "No record yet."
        lists = sorted({f"{record.dataset} {record.task}, n = {record.n}, list {record.ids}" for record in every})
        minutes = sum(record.seconds for record in every) / 60
        return (
            f"{'; '.join(lists)}; {len(every)} runs, {minutes:.0f} minutes of training; "
            f"commit {records.commits(every)}. "
            "Per cent; mean ± 95 % interval over seeds. Worth: the difference, seed by seed, to "
            f"{'the row above' if self.group == 'steps' else 'the row that has none'}."
        )

    def _repr_html_(self) -> str:
        return self.frame().to_html() + f'<p style="font-size: smaller">{escape(self.caption)}</p>'

    def __repr__(self) -> str:
        return f"{self.frame().to_string()}\n{self.caption}"


def ablation(
    group: str, tasks: Sequence[str] = ("single", "multi"), seeds: Sequence[int] = (0, 1, 2, 3, 4), **choices: str
) -> Ablation:
    """A group of `m2vsl.ablations.GROUPS` from the records that exist; nothing is run.

    choices: preset, dataset, data_root. ValueError for an unknown group and for rows of several test lists.
    """
    if group not in ablations.GROUPS:
        raise ValueError(f"expected a group among {', '.join(ablations.GROUPS)}, got {group!r}")
    rows = ablations.GROUPS[group]
    found: dict[tuple[int, str], dict[int, Record]] = {}
    for n, row in enumerate(rows):
        for task in tasks:
            plan = {seed: ablations.experiment(row, task, seed=seed, **choices).record_path() for seed in seeds}
            found[n, task] = {seed: records.load(path) for seed, path in plan.items() if path.exists()}
    for task in tasks:
        lists = {record.ids for (_, name), some in found.items() if name == task for record in some.values()}
        if len(lists) > 1:
            raise ValueError(f"{group}, {task}: expected rows of one test list, got {', '.join(sorted(lists))}")
    return Ablation(group, tuple(tasks), rows, found)


@house
def by_batch(made: Sequence[tuple[str, Ablation]]) -> Figure:
    """Figure 4: mIoU and F against the batch size, a panel per test list, a line per way of counting and score.

    made: (what is held equal, the group). The paper's own figure has no numbers but "128 is best" (ledger 56).
    """
    tasks = made[0][1].tasks
    fig, axes = figure(1, len(tasks), height=3.0, sharey=True)
    for ax, task in zip(axes[0], tasks, strict=True):
        for n, (equal, group) in enumerate(made):
            for m, score in enumerate(SCORES):
                got = [(row.batch, group.score(k, task, score)) for k, row in enumerate(group.rows)]
                points = [(size, one.mean, one.bar) for size, one in got if one is not None]
                look = {
                    "color": COLOURS[m],
                    "linestyle": LINES[n],
                    "marker": MARKERS[m],
                    "fillstyle": ("full", "none")[n],
                }
                if points:
                    x, y, bars = zip(*points, strict=True)
                    ax.errorbar(
                        x,
                        y,
                        yerr=bars,
                        capsize=2,
                        label=f"{score}, {equal}",
                        **look,
                    )
        ax.axvline(128, color=FAINT, linewidth=0.8, linestyle=":")
        ax.set_xscale("log")
        ax.set_xticks(ablations.BATCHES, [str(size) for size in ablations.BATCHES])
        ax.minorticks_off()
        ax.set(title=WORDS[LISTS[task]], xlabel="frames in a batch")
        ax.grid(axis="y")
    axes[0, 0].set_ylabel("per cent")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return fig


def told(made: Sequence[tuple[str, Ablation]]) -> str:
    """What `by_batch` shows, in words: of each line the best size and how far the others are from it."""
    lines = []
    for equal, group in made:
        for task in group.tasks:
            for score in SCORES:
                found = {r.batch: one for n, r in enumerate(group.rows) if (one := group.score(n, task, score))}
                if found:
                    best = max(found, key=lambda size: found[size].mean)
                    each = ", ".join(f"{size}: {_written(one)}" for size, one in found.items())
                    lines.append(f"- {WORDS[LISTS[task]]}, {equal}: {score} {each}; {best} is best.")
    return "\n".join(lines) or "No record yet."


@house
def worths(made: Ablation) -> Figure:
    """What each row is worth in mIoU and F: points and intervals around nothing, a panel per test list."""
    fig, axes = figure(1, len(made.tasks), height=0.3 * len(made.rows) + 1.2, width=WIDTH, sharey=True)
    for ax, task in zip(axes[0], made.tasks, strict=True):
        for n in range(len(made.rows)):
            for m, score in enumerate(SCORES):
                if (worth := made.change(n, task, score)) is not None:
                    place = n + (m - 0.5) * 0.3
                    ax.errorbar(
                        worth.mean,
                        place,
                        xerr=worth.bar,
                        color=COLOURS[m],
                        marker=MARKERS[m],
                        ls="",
                        capsize=2,
                        label=score if n == 1 else "",
                    )
        ax.axvline(0, color=FAINT, linewidth=0.8)
        ax.set(title=WORDS[LISTS[task]], xlabel="points of per cent")
        ax.grid(axis="x")
    axes[0, 0].set_yticks(range(len(made.rows)), [row.title for row in made.rows])
    axes[0, 0].set_ylim(len(made.rows) - 0.4, -0.6)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=2)
    return fig


def _written(found: Interval, sign: str = "") -> str:
    text = f"{found.mean:{sign}.1f}".replace("-", "\N{MINUS SIGN}")
    return text if math.isnan(found.half_width) else f"{text} ± {found.half_width:.1f}"
