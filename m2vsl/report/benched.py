"""What things cost: the records of ``make bench`` as a table, how costs grow, and how ratios moved.

Conventions
-----------
A time is wall time of one call in seconds, (lower quartile, median, upper quartile) of rounds in which ours and a plain
reference took turns, training steps in a process each. A ratio is the reference's time over ours, round by round: above
1 ours is faster. Operations are those of matrix products and convolutions, a multiplication and an addition being two;
bytes are what all operations of ours read and write. A share compares either, per second, with what the same machine
was measured to do in the same minutes; bytes that a cache hands out again can bring it above 100 %. NaN: not counted,
or nothing beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from m2vsl import paths, records
from m2vsl.report.style import COLOURS, FAINT, LINES, MARKERS, figure, house
from m2vsl.report.tables import UNDEFINED

if TYPE_CHECKING:
    import pandas as pd

Spread = tuple[float, float, float]  # lower quartile, median, upper quartile
NONE: Spread = (math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Line:
    """One thing that was measured."""

    suite: str  # "loss", "encoders", "step", "loader", "evaluator", "localise"
    name: str
    samples: int  # of one call
    rounds: int
    ours: Spread  # seconds
    against: str = ""  # the plain reference, in words
    reference: Spread = NONE  # seconds
    ratio: Spread = NONE
    goal: float = math.nan  # the ratio that was asked for
    flops: float = math.nan  # of one call of ours
    bytes: float = math.nan
    product: float = math.nan  # share of the ceiling of matrix products, 1 = all of it
    copy: float = math.nan  # share of the ceiling of copying memory

    @property
    def reached(self) -> bool | None:
        """Whether the median came up to the goal; None without one."""
        return None if math.isnan(self.goal) else self.ratio[1] >= self.goal

    @property
    def bound(self) -> float:
        """The ratio if ours did its operations at the ceiling of matrix products: no more is to be had by speed."""
        return self.ratio[1] / self.product


@dataclass(frozen=True)
class Growth:
    """What one size does to a cost, all else equal."""

    name: str  # of the size
    work: str  # what was run, at which other sizes
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]  # of processor time

    @property
    def order(self) -> float:
        """The slope of a straight line through the logarithms: 1 = linear, 2 = quadratic."""
        return self._slope(0)

    @property
    def last(self) -> float:
        """The same between the two largest sizes, where what grows fastest has the most weight."""
        return self._slope(-2)

    def _slope(self, start: int) -> float:
        x, y = ([math.log(value) for value in values[start:]] for values in (self.sizes, self.seconds))
        mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
        rise = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
        return rise / sum((a - mean_x) ** 2 for a in x)


@dataclass(frozen=True)
class Bench:
    """One run of ``make bench``."""

    lines: tuple[Line, ...]
    growths: tuple[Growth, ...]
    memory: Mapping[str, float]  # what -> GiB at most
    ceilings: Mapping[str, float]  # "float32", "bfloat16": operations a second; "copy": bytes a second
    threads: int
    load: float  # of the machine at the start, processes that want to run
    commit: str
    dirty: bool | None
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    created: str  # UTC, ISO 8601

    @property
    def name(self) -> str:
        """Date and commit."""
        return f"{self.created[:10]}-{self.commit[:7]}"

    def frame(self) -> pd.DataFrame:
        """A row per line: median times, their ratio, operations, bytes, shares of the ceilings."""
        import pandas as pd

        rows = {(line.suite, line.name): _row(line) for line in self.lines}
        made = pd.DataFrame(list(rows.values()), index=pd.MultiIndex.from_tuples(rows, names=["suite", "what"]))
        return made.fillna(UNDEFINED)

    @property
    def caption(self) -> str:
        """What the numbers rest on."""
        most = [f"{value / 1e9:.0f} GFLOP/s {kind}" for kind, value in self.ceilings.items() if kind != "copy"]
        held = [f"{what}: {value:.1f} GiB at most" for what, value in self.memory.items()]
        changed = " with changes" if self.dirty else ""
        parts = [
            f"{self.hardware['cpu']}, {self.threads} of {self.hardware['cores']} cores, load {self.load:.1f} before",
            f"ceilings {', '.join(most)}, {self.ceilings['copy'] / 1e9:.1f} GB/s",
            *held,
            f"torch {self.versions['torch']}, commit {self.commit[:7]}{changed}, {self.created[:10]}",
        ]
        return "; ".join(parts) + ". Medians, quartiles in brackets; shares are of the ceilings."

    def told(self) -> str:
        """The goals, whether they were reached, and how far the ceiling of matrix products lets a line come."""
        lines = []
        for line in self.lines:
            if line.reached is not None:
                verdict = "reached" if line.reached else "**missed**"
                text = f"- {line.name}: {_spread(line.ratio)} times as fast, goal {line.goal:.2g}: {verdict}"
                bound = "" if math.isnan(line.bound) else f"; at the ceiling it would be {line.bound:.3g}"
                lines.append(f"{text}{bound}.")
        return "\n".join(lines) or "No goal."

    def _repr_html_(self) -> str:
        head, rows = self.frame().to_html().split("<tbody>")
        wide = rows.replace("<th>", '<th style="min-width: 11em">').replace("<td>", '<td style="white-space: nowrap">')
        return f'<div style="font-size: smaller">{head}<tbody>{wide}<p>{escape(self.caption)}</p></div>'

    def __repr__(self) -> str:
        return f"{self.frame().to_string()}\n{self.caption}"


def save(bench: Bench, root: Path | None = None) -> Path:
    """Write ``<date>-<commit>.json`` into `root`, by default ``data/bench``. OSError as `records.write_aside`."""
    values = {f.name: getattr(bench, f.name) for f in fields(Bench)}
    rows = {"lines": [asdict(line) for line in bench.lines], "growths": [asdict(growth) for growth in bench.growths]}
    return records.write_aside(
        Path(root or paths.benches()) / f"{bench.name}.json", records.written(records.plain(values | rows))
    )


def load(path: Path) -> Bench:
    """The record in `path`. ValueError naming the file if it is damaged or another kind."""
    try:
        content = json.loads(path.read_text("utf-8"))
        lines = tuple(Line(**{k: _tuples(v) for k, v in row.items()}) for row in content.pop("lines"))
        growths = tuple(Growth(**{k: _tuples(v) for k, v in row.items()}) for row in content.pop("growths"))
        return Bench(lines=lines, growths=growths, **content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: not a record of `make bench` ({error})") from error


def find(root: Path | None = None) -> list[Bench]:
    """All records, the oldest first."""
    return sorted(map(load, Path(root or paths.benches()).glob("*.json")), key=lambda bench: bench.created)


@house
def growth(bench: Bench) -> Figure:
    """Cost against each size, both logarithmic; dotted: linear and quadratic growth from the first point on."""
    columns = max(len(bench.growths), 1)
    fig, axes = figure(1, columns, height=2.4)
    for ax, one, colour in zip(axes[0], bench.growths, COLOURS, strict=False):
        x, y = one.sizes, one.seconds
        for power in (1, 2):
            ax.plot(x, [y[0] * (n / x[0]) ** power for n in x], color=FAINT, linewidth=0.8, linestyle=":")
        ax.plot(x, y, color=colour, linestyle="-", marker="o")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(x, [str(n) for n in x])
        ax.xaxis.minorticks_off()
        ax.set(
            title=f"order {one.order:.2f}, at last {one.last:.2f}", xlabel=one.name, ylim=(min(y) / 1.6, max(y) * 1.6)
        )
    axes[0, 0].set_ylabel("processor time / s")
    return fig


def grown(bench: Bench) -> str:
    """What `growth` shows, in words."""
    lines = [
        f"- {one.name}, {one.sizes[0]} to {one.sizes[-1]}: "
        f"{one.seconds[0]:.2g} to {one.seconds[-1]:.2g} s, order {one.order:.2f}, "
        f"between the two largest {one.last:.2f}. {one.work}."
        for one in bench.growths
    ]
    return "\n".join(lines) or "No record yet."


@house
def history(benches: Sequence[Bench]) -> Figure:
    """The ratio of each line over the records, a panel per suite; below the line at 1 ours was the slower side."""
    suites = list(dict.fromkeys(line.suite for bench in benches for line in bench.lines if line.against))
    rows = max(-(-len(suites) // 2), 1)
    fig, axes = figure(rows, 2, height=1.5 * rows + 0.9, sharex=True, sharey=True)
    for ax, suite in zip(axes.flat, suites, strict=False):
        names = dict.fromkeys(line.name for b in benches for line in b.lines if line.suite == suite and line.against)
        for n, name in enumerate(names):
            at = [(k, line.ratio) for k, b in enumerate(benches) for line in b.lines if line.name == name]
            places, middle = [k for k, _ in at], [ratio[1] for _, ratio in at]
            bars = [[ratio[1] - ratio[0] for _, ratio in at], [ratio[2] - ratio[1] for _, ratio in at]]
            look = {"color": COLOURS[n % 7], "linestyle": LINES[n % 7], "marker": MARKERS[n % 7]}
            ax.errorbar(places, middle, yerr=bars, capsize=2, label=name, **look)
        ax.axhline(1, color=FAINT, linewidth=0.8)
        ax.set_title(suite)
        ax.grid(axis="y")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=6)
    for ax in axes.flat[len(suites) :]:
        ax.set_axis_off()
    first = axes[0, 0]
    first.set(yscale="log", xlim=(-0.5, max(len(benches), 1) - 0.5))
    first.set_yticks([0.25, 0.5, 1, 2, 4, 8], ["¼", "½", "1", "2", "4", "8"])
    first.yaxis.minorticks_off()
    for ax in axes[-1]:
        ax.set_xticks(range(len(benches)), [bench.name for bench in benches], rotation=90, fontsize=6)
    fig.supylabel("reference's time / ours", fontsize=9)
    return fig


def moved(benches: Sequence[Bench]) -> pd.DataFrame:
    """Ratios: a row per line, a column per record, the newest last."""
    import pandas as pd

    columns = {b.name: {line.name: _spread(line.ratio) for line in b.lines if line.against} for b in benches}
    return pd.DataFrame(columns).fillna(UNDEFINED)


def _row(line: Line) -> dict[str, str]:
    return {
        "ours / ms": _number(1e3 * line.ours[1]),
        "reference / ms": _number(1e3 * line.reference[1]),
        "times as fast": _spread(line.ratio),
        "goal": UNDEFINED if math.isnan(line.goal) else f"{line.goal:.2g}",
        "GFLOP": _number(line.flops / 1e9),
        "GB": _number(line.bytes / 1e9),
        "of products": _per_cent(line.product),
        "of copies": _per_cent(line.copy),
        "reference": line.against or UNDEFINED,
    }


def _number(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _per_cent(share: float) -> str:
    return UNDEFINED if math.isnan(share) else f"{100 * share:.0f} %"


def _spread(values: Spread) -> str:
    low, middle, high = values
    return UNDEFINED if math.isnan(middle) else f"{middle:.3g} ({low:.3g} to {high:.3g})"


def _tuples(value: Any) -> Any:
    """Lists as tuples, null as NaN."""
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    return math.nan if value is None else value
