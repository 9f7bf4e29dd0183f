"""What each row of Tables 1 and 2 runs: the command, the size of it, and which records are there.

Two sizes. ``paper``: the published benchmarks, trained as the paper trains, not run here; hours are an estimate, see
`Estimate`. Every other preset: the synthetic or any folder's data; how long it took stands in its records.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from m2vsl import presets, records
from m2vsl.methods import CONTROLS, METHODS
from m2vsl.records import Record
from m2vsl.report.paper import BENCHMARKS, Benchmark

ORDER = (  # as in the tables; SLAVC, guidance on its own, and the last row are not in the paper
    "attention10k",
    "ots",
    "dmc",
    "coarse_to_fine",
    "lvs",
    "ez_vsl",
    "ez_vsl_ogl",
    "slavc",
    "mix_and_localize",
    "dsol",
    "avgn",
    "m2vsl",
    "m2vsl_plus",
)
SEGMENTERS = ("avs_ws", "cam", "cam_near", "ez_vsl", "c2am", "m2vsl", "m2vsl_plus")  # Table 3; two are not in the paper
SEEDS = (0, 1, 2, 3, 4)
OPERATIONS = 27.7e9  # of one frame and its 3 s of sound in both ResNet-18, forward and backward; a test counts them
SUSTAINED = 40e12  # operations a second; taken, not measured: an eighth of the peak of an A100 in bf16
FED = 300.0  # frames and their sounds a second that are read and decoded; taken, not measured
HARDWARE = "one data-centre GPU"
METHOD = (
    "Hours are an estimate; nothing of it was run here. Counted are the frames of a training: updates x batch x frames "
    f"of a picture. From: computing is the limit ({OPERATIONS / 1e9:.1f} GFLOP for a frame with its sound, forward and "
    f"backward in both trunks, at {SUSTAINED / 1e12:.0f} TFLOP/s sustained). To: reading files is ({FED:.0f} frames a "
    "second). Heads, what a stage does beside training, and evaluation come on top."
)
INSTRUMENTS = 25_000  # updates: 100 epochs of 32,000 clips in batches of 128, as 112,500 are of 144,000


def methods() -> list[str]:
    """The rows: controls, then the methods in the order of the paper's tables."""
    return [name for name in (*CONTROLS, *ORDER) if name in METHODS]


def segmenters() -> list[str]:
    """The rows of Table 3: controls, then its methods. A bound has no row: any mask can be drawn, and scores 1."""
    return [name for name in (*CONTROLS, *SEGMENTERS) if name != "bound"]


def recorded(
    task: str,
    *,
    preset: str,
    dataset: str = "synthetic",
    data_root: str = "",
    seeds: Sequence[int] = SEEDS,
    among: Sequence[str] = (),
) -> list[Record]:
    """The records of all rows (of those `among`) that exist; nothing is run, and other configurations are left out.

    A folder goes by its name alone, so its records are found (``data_root="photosound"``) where its files are not.
    """
    choices = {"preset": preset, "dataset": dataset, "data_root": data_root}
    plan = presets.table(among or methods(), task, seeds=seeds, **choices)
    return [records.load(path) for path in (one.record_path() for one in plan) if path.exists()]


@dataclass(frozen=True)
class Estimate:
    """How long a training takes if computing is the limit, and if reading is; see `METHOD`."""

    frames: float  # how many the training sees, each with a sound
    shared: str = ""  # the row whose training serves; no hours of its own

    @property
    def hours(self) -> tuple[float, float]:
        """From, to."""
        return self.frames * OPERATIONS / SUSTAINED / 3600, self.frames / FED / 3600

    def __str__(self) -> str:
        if self.shared:
            return f"with {self.shared}"
        return "{:.0f} to {:.0f}".format(*self.hours) if self.frames else "none"


@dataclass(frozen=True)
class Listing:
    """What each row takes, and the command that makes it, in the last column: HTML in a page, plain text elsewhere."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def _repr_html_(self) -> str:
        left = ' style="text-align: left"'
        head = "".join(f"<th{left}>{escape(name)}</th>" for name in self.columns)
        body = ""
        for *cells, command in self.rows:
            body += "<tr>" + "".join(f"<td{left}>{escape(cell)}</td>" for cell in cells)
            body += f"<td{left}><code>{escape(command)}</code></td></tr>"
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def __repr__(self) -> str:
        table = [self.columns, *self.rows]
        widths = [max(len(row[c]) for row in table) for c in range(len(self.columns))]
        return "\n".join("  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip() for row in table)


def overrides(method: str, benchmark: Benchmark) -> tuple[str, ...]:
    """What is laid over the preset ``paper``, which is that of the large training list."""
    if (data := benchmark.ours.rpartition("-")[0]) == "vggsound":
        return ()
    updates = (f"train.steps={INSTRUMENTS}", f"train.eval_every={INSTRUMENTS // 100}")
    return (f"data.benchmark={data}", *(() if method in CONTROLS else updates))


def estimate(method: str, benchmark: Benchmark) -> Estimate:
    """What training a row in the preset ``paper`` takes, on `HARDWARE`."""
    made = presets.experiment(method, benchmark.task, preset="paper")
    if not made.trains:
        return Estimate(0)
    if made.learner() != made:
        return Estimate(0, METHODS[made.learner().method].title)
    if made.train_task != made.task:
        return Estimate(0, f"its row in Table 1, {_beside(benchmark).dataset}")
    made = presets.override(made, [pair for pair in overrides(method, benchmark) if pair.startswith("train.")])
    return Estimate(float(made.train.steps * made.train.batch_size * (2 if made.task == "duet" else 1)))


def _beside(benchmark: Benchmark) -> Benchmark:
    """The group of Table 1 that is trained on the same clips."""
    family = benchmark.ours.partition("-")[0]
    return next(b for b in BENCHMARKS if b.table == "1" and b.ours.startswith(family))


def commands(method: str, benchmark: Benchmark, root: str = "DIR") -> tuple[str, ...]:
    """What makes a row of the paper from the published data in `root`; controls learn nothing and are only scored."""
    options = ["--preset", "paper", "--dataset", "vggsound", "--data-root", root, *overrides(method, benchmark)]
    verbs = ("evaluate",) if method in CONTROLS else ("train", "evaluate")
    return tuple(shlex.join(["m2vsl", verb, f"{method}/{benchmark.task}", *options]) for verb in verbs)


def several(dataset: str) -> str:
    """The task of a data set in which several sources are segmented."""
    return "multi" if dataset.startswith("avsbench") else "duet"


def again(
    method: str, task: str, *, preset: str, root: str = "", dataset: str = "", seeds: Sequence[int] = SEEDS
) -> str:
    """What makes a row of this book's tables: loaded if recorded, else trained.

    dataset: by default a folder where there is a `root`, else synthetic.
    """
    of = ["--dataset", dataset or ("folder" if root else "synthetic"), *(["--data-root", root] if root else [])]
    seeds = seeds[:1] if method in CONTROLS else seeds
    return shlex.join(["m2vsl", "run", preset, *of, "--tasks", task, "--methods", method, "--seeds", *map(str, seeds)])


def paper_listing(benchmark: Benchmark) -> Listing:
    """What makes each row of the paper's group of columns: hours, hardware and command."""
    lines = []
    for method in methods():
        expected = estimate(method, benchmark)
        needs = HARDWARE if expected.frames else ""
        run = " && ".join(commands(method, benchmark))
        lines.append((METHODS[method].title, str(expected), needs, run))
    return Listing(("method", "hours", "on", f"command for {benchmark.dataset}"), tuple(lines))


def again_listing(
    found: Iterable[Record], task: str, *, preset: str, root: str = "", dataset: str = "", among: Sequence[str] = ()
) -> Listing:
    """The rows of a table of this book with the command of each and what a run took, as recorded."""
    of: dict[str, list[Record]] = {}
    for record in found:
        of.setdefault(record.method, []).append(record)
    lines = []
    for method in among or methods():
        mine = of.get(method, [])
        took = f"{sum(r.seconds for r in mine) / len(mine) / 60:.1f}" if mine else "no record"
        on = ", ".join(sorted({f"{r.hardware['gpu'] or r.hardware['cpu']}, {r.hardware['cores']} cores" for r in mine}))
        command = again(method, task, preset=preset, root=root, dataset=dataset)
        lines.append((METHODS[method].title, str(len(mine) or ""), took, on, command))
    return Listing(("method", "seeds", "minutes a run", "on", "command"), tuple(lines))
