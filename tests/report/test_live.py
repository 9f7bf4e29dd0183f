"""A curve that grows while a run writes its log, and one picture in the end."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from m2vsl import presets
from m2vsl.experiment import Experiment
from m2vsl.report import live


class Shown:
    """What a notebook would show, in turn."""

    def __init__(self) -> None:
        self.pictures: list[Any] = []

    def __call__(self, picture: Any, *, display_id: bool) -> Shown:
        assert display_id
        self.pictures.append(picture)
        return self

    def update(self, picture: Any) -> None:
        self.pictures.append(picture)


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.setenv("M2VSL_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("M2VSL_RUNS", str(tmp_path / "runs"))
    return presets.experiment("m2vsl", "duet", preset="smoke")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    made = Shown()
    monkeypatch.setattr(live, "display", made)
    return made


def log(experiment: Experiment, *rows: dict[str, float], end: str = "\n") -> None:
    place = experiment.run_dir() / "log.jsonl"
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("a", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, rows)) + end)


def steps(figure: Figure) -> list[int]:
    return [int(x) for x in figure.axes[0].lines[0].get_xdata()]


def test_a_line_half_written_is_left_for_later(experiment: Experiment) -> None:
    assert live.rows(experiment.run_dir()) == []
    log(experiment, {"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, end="")
    assert [row["step"] for row in live.rows(experiment.run_dir())] == [1]
    log(experiment, {"step": 3}, end="")
    assert live.rows(experiment.run_dir())[0] == {"step": 1, "loss": 2.0}


def test_the_curve_grows_with_the_log(experiment: Experiment, shown: Shown) -> None:
    with live.curve(experiment, every=0.01):
        assert "No step is logged" in shown.pictures[0].data
        log(experiment, {"step": 2, "loss": 3.0})
        until = time.monotonic() + 30
        while len(shown.pictures) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        log(experiment, {"step": 4, "loss": 2.0}, {"step": 2, "validation": -3.0}, {"step": 4, "validation": -2.5})
    assert steps(shown.pictures[1]) == [2]
    assert steps(shown.pictures[-1]) == [2, 4] and len(shown.pictures[-1].axes) == 2


def test_an_error_of_the_run_ends_the_watching(experiment: Experiment, shown: Shown) -> None:
    with pytest.raises(KeyboardInterrupt), live.curve(experiment, every=0.01):
        log(experiment, {"step": 2, "loss": 3.0})
        raise KeyboardInterrupt
    count = len(shown.pictures)
    log(experiment, {"step": 4, "loss": 3.0})
    time.sleep(0.1)
    assert len(shown.pictures) == count and steps(shown.pictures[-1]) == [2]


def test_a_recorded_run_shows_its_recorded_curve(shown: Shown) -> None:
    recorded = presets.experiment("m2vsl", "duet", preset="quick")
    if not recorded.record_path().exists():
        pytest.skip("no record")
    with live.curve(recorded):
        pass
    assert steps(shown.pictures[-1])[-1] == recorded.train.steps
