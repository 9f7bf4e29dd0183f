"""What the presets ``gpu`` and ``paper`` promise: the command, the number to expect, hours, hardware.

Expected is what the paper prints, and beside it ours, where a record exists. Nothing is typed: printed numbers come
from ``data/paper.csv``, ours from records; hours are estimates, counted as in `m2vsl.report.rows`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from m2vsl import presets, records
from m2vsl.experiment import Experiment
from m2vsl.methods import CONTROLS, METHODS
from m2vsl.report import paper, rows
from m2vsl.report.paper import BENCHMARKS, SEGMENTED, Benchmark
from m2vsl.report.rows import Estimate, Listing

NOT_RUN = "not run here"
DRAWN = 42.0  # synthetic frames of 224 px and their sounds, a second and core; measured on one core of an EPYC
FIRST = ("m2vsl", "ez_vsl", "avgn")  # of `m2vsl run gpu`, see the Makefile
CORES = 16  # that draw, or read; taken
METHOD = (
    "Minutes are an estimate; nothing of it was run. From: computing is the limit "
    f"({rows.OPERATIONS / 1e9:.1f} GFLOP for a frame with its sound, forward and backward in both trunks, at "
    f"{rows.SUSTAINED / 1e12:.0f} TFLOP/s; taken, not measured). To: making batches is: {CORES} cores draw "
    f"{CORES * DRAWN:.0f} synthetic frames a second ({DRAWN:.0f} each, measured on one core), or read and decode "
    f"{rows.FED:.0f} (taken). Evaluation comes on top."
)


def of_paper(method: str) -> Listing:
    """One method on each published benchmark, preset ``paper``."""
    lines = []
    for benchmark in (*BENCHMARKS, *(b for b in SEGMENTED if b.table == "3")):
        printed = paper.of(benchmark)
        shown = [f"{s} {printed[method, s].value:g}" for s in benchmark.scores if (method, s) in printed]
        ours = records.find(preset="paper", dataset=benchmark.ours, task=benchmark.task, method=method)
        took = f"{sum(r.seconds for r in ours) / len(ours) / 3600:.1f}, recorded" if ours else _hours(method, benchmark)
        name = benchmark.dataset + ", duets" * (benchmark.task == "duet" and "Duet" not in benchmark.dataset)
        cells = [name, ", ".join(shown) or "nothing", _ours(ours, benchmark), took, rows.HARDWARE]
        lines.append((*cells, _command(method, benchmark)))
    heads = ("benchmark", "printed", "ours", "hours (estimate)", "on", f"command for {METHODS[method].title}")
    return Listing(heads, tuple(lines))


def of_gpu(task: str, data: Sequence[tuple[str, str]], metric: str, seeds: Sequence[int] = rows.SEEDS) -> Listing:
    """Every method in the preset ``gpu``, seed by seed the same command.

    data: (kind, root) of each data set; a folder goes by its name. metric: of a record, shown in per cent.
    """
    lines = []
    for method in (name for name in rows.methods() if name not in CONTROLS):
        cells = [METHODS[method].title]
        for kind, root in data:
            place: dict[str, Any] = {"preset": "gpu", "dataset": kind, "data_root": root}
            found = rows.recorded(task, among=(method,), seeds=seeds, **place)
            cells += [
                _mean([100 * r.metrics[metric] for r in found]),
                _minutes(presets.experiment(method, task, **place)),
            ]
        lines.append((*cells, shlex.join(["m2vsl", "train", f"{method}/{task}", "--preset", "gpu"])))
    names = [name for kind, root in data for name in (root or kind, "minutes (estimate)")]
    return Listing(("method", *names, "command (one seed)"), tuple(lines))


def trainings(tasks: Sequence[str] = ("single", "duet"), seeds: Sequence[int] = rows.SEEDS) -> list[Experiment]:
    """What ``make gpu`` trains on synthetic data; rows that share a training have it once, the ablation is left out."""
    made = [e for task in tasks for e in presets.table(list(METHODS), task, seeds=seeds, preset="gpu")]
    return list({e.run_dir(): e for e in made if e.trains}.values())


def hours(experiments: Sequence[Experiment]) -> tuple[float, float]:
    """From, to, all of them one after the other: as `METHOD` says."""
    low, high = zip(*map(_seconds, experiments), strict=True)
    return sum(low) / 3600, sum(high) / 3600


def _ours(found: Sequence[records.Record], benchmark: Benchmark) -> str:
    protocol = "avsbench" if benchmark in SEGMENTED else "framewise-area50-oracle"
    of = {s: [100 * r.metrics[benchmark.metric(s, protocol)] for r in found] for s in benchmark.scores}
    return ", ".join(f"{score} {_mean(values)}" for score, values in of.items()) if found else NOT_RUN


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.1f}" if values else NOT_RUN


def _hours(method: str, benchmark: Benchmark) -> str:
    if benchmark not in SEGMENTED:
        return str(rows.estimate(method, benchmark))
    made = presets.experiment(method, benchmark.task, preset="paper", dataset="avsbench", data_root="DIR")
    return str(Estimate(float(made.train.steps * made.train.batch_size)))


def _minutes(experiment: Experiment) -> str:
    learner = experiment.learner()
    if learner != experiment:
        return f"with {METHODS[learner.method].title}"
    return "{:.0f} to {:.0f}".format(*(seconds / 60 for seconds in _seconds(experiment)))


def _seconds(experiment: Experiment) -> tuple[float, float]:
    """Of a training: if computing is the limit, and if making batches is."""
    frames = experiment.train.steps * experiment.train.batch_size * (2 if experiment.train_task == "duet" else 1)
    fed = CORES * DRAWN if experiment.dataset == "synthetic" else rows.FED
    return frames * rows.OPERATIONS / rows.SUSTAINED, frames / fed


def _command(method: str, benchmark: Benchmark) -> str:
    if benchmark not in SEGMENTED:
        return " && ".join(rows.commands(method, benchmark))
    return rows.again(method, benchmark.task, preset="paper", root="DIR", dataset="avsbench", seeds=(0,))
