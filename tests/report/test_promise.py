"""What presets promise: printed numbers, ours or none, and estimates that say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from m2vsl import presets, records
from m2vsl.experiment import Experiment
from m2vsl.methods import CONTROLS, METHODS
from m2vsl.records import Record
from m2vsl.report import paper, promise, rows

METRIC = "mixture/framewise-matched-oracle/iou"


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2VSL_RESULTS", str(tmp_path))


def keep(experiment: Experiment, metrics: dict[str, float]) -> None:
    """A record with a few numbers."""
    of = {k: getattr(experiment, k) for k in ("method", "task", "preset", "seed")}
    records.save(
        Record(
            **of,
            dataset=experiment.source,
            experiment=experiment.tree(),
            metrics=metrics,
            protocols={},
            n=1,
            ids="0" * 12,
            seconds=7200,
            **records.provenance(),
        )
    )


def test_every_benchmark_of_the_paper_has_a_row_and_no_number_is_invented() -> None:
    made = promise.of_paper("m2vsl")
    assert len(made.rows) == 6
    for benchmark, (name, printed, ours, hours, on, command) in zip(
        (*paper.BENCHMARKS, *paper.SEGMENTED[:2]), made.rows, strict=True
    ):
        assert name.startswith(benchmark.dataset) and on == rows.HARDWARE and ours == promise.NOT_RUN
        values = paper.of(benchmark)
        assert printed == ", ".join(f"{s} {values['m2vsl', s].value:g}" for s in benchmark.scores)
        assert (" to " in hours and f"m2vsl/{benchmark.task}" in command) or "--tasks" in command
    assert len({row[0] for row in made.rows}) == 6


def test_a_record_takes_the_place_of_words_and_of_the_estimate() -> None:
    made = presets.experiment("m2vsl", "duet", preset="paper", dataset="vggsound", data_root="DIR")
    names = [paper.BENCHMARKS[3].metric(s, "framewise-area50-oracle") for s in paper.BENCHMARKS[3].scores]
    keep(made, {name: 0.25 for name in names})
    row = next(row for row in promise.of_paper("m2vsl").rows if row[0] == "VGGSound-Duet")
    assert row[2:4] == ("CAP 25.0, PIAP 25.0, CIoU@0.3 25.0, AUC 25.0", "2.0, recorded")


def test_the_preset_gpu_has_a_row_for_every_method() -> None:
    for seed, value in enumerate((0.2, 0.3)):
        keep(presets.experiment("m2vsl", "duet", preset="gpu", seed=seed), {METRIC: value})
    made = promise.of_gpu("duet", [("synthetic", ""), ("folder", "photosound")], METRIC)
    assert made.columns[1:5] == ("synthetic", "minutes (estimate)", "photosound", "minutes (estimate)")
    of = {row[0]: row for row in made.rows}
    assert len(of) == len([m for m in rows.methods() if m not in CONTROLS])
    assert of["M2VSL"][1] == "25.0" and of["M2VSL"][3] == promise.NOT_RUN == of["EZ-VSL"][1]
    assert of["EZ-VSL + OGL"][2] == "with EZ-VSL"
    assert of["M2VSL"][5] == "m2vsl train m2vsl/duet --preset gpu"


def test_minutes_are_frames_by_rate() -> None:
    made = presets.experiment("m2vsl", "duet", preset="gpu")
    frames = made.train.steps * made.train.batch_size * 2
    low, high = promise._seconds(made)
    assert low == pytest.approx(frames * rows.OPERATIONS / rows.SUSTAINED)
    assert high == pytest.approx(frames / promise.CORES / promise.DRAWN)


def test_what_is_trained_is_trained_once() -> None:
    made = promise.trainings(seeds=(0, 1))
    names = [e.run_dir() for e in made]
    assert len(names) == len(set(names)) and all(e.trains for e in made)
    assert {e.learner().method for e in made} == {m for m in METHODS if m not in CONTROLS} - {"ez_vsl_ogl"}
    low, high = promise.hours(made)
    assert 0 < low < high
    assert promise.hours(made[:1])[1] == pytest.approx(promise._seconds(made[0])[1] / 3600)
