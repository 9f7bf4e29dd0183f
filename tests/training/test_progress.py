"""What a run shows and keeps."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tiny import TwoStages, config, run

from m2vsl.training.progress import History, Report, clock


def test_the_log_and_the_curve_hold_means_of_the_steps_since_the_last_row(tmp_path: Path) -> None:
    _, each = run(tmp_path / "each", config=config(log_every=1))
    _, some = run(tmp_path / "some", config=config(log_every=5))
    assert [row["step"] for row in some.curve] == [5, 10, 12]
    assert some.curve[2]["fit"] == pytest.approx((each.curve[10]["fit"] + each.curve[11]["fit"]) / 2)
    assert some.curve[0]["loss"] == pytest.approx(some.curve[0]["fit"] + some.curve[0]["spread"])
    assert set(some.curve[0]) == {"step", "loss", "fit", "spread", "seconds"}
    rows = [json.loads(line) for line in (tmp_path / "some" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 10, 12]
    assert rows[1]["fit"] == pytest.approx(some.curve[1]["fit"], rel=1e-5)
    assert rows[0]["stage"] == "joint" and rows[-1]["epoch"] == 2 and rows[0]["samples_per_second"] > 0


def test_the_time_and_the_samples_are_told(tmp_path: Path) -> None:
    _, history = run(tmp_path)
    assert history.samples == 48 and history.step == 12
    assert 0 < history.busy <= history.seconds
    assert history.samples_per_second == pytest.approx(48 / history.busy)
    assert History().samples_per_second == 0


def test_off_a_terminal_it_prints_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(tmp_path, progress=True, validate=lambda: 0.25, config=config(eval_every=8))
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split(" | ")[0] for line in lines] == [f"step {n:>2}/12" for n in (4, 8, 8, 12, 12)]
    assert lines[2] == "step  8/12 | validation 0.2500 (best)" and lines[4] == "step 12/12 | validation 0.2500"
    assert "loss" in lines[0] and "samples/s" in lines[0] and lines[0].endswith("left")
    assert all(len(line) <= 76 and "\r" not in line for line in lines) and err == ""


def test_it_can_be_silent(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(tmp_path, progress=False)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_it_draws_a_bar(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(tmp_path, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "12/12" in err and "loss=" in err and "samples/s=" in err


def test_two_stages_are_told_apart_in_the_log(tmp_path: Path) -> None:
    run(tmp_path, method=TwoStages, config=config(log_every=3))
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(row["step"], row["stage"]) for row in rows] == [
        (3, "one"),
        (4, "one"),
        (6, "two"),
        (9, "two"),
        (12, "two"),
    ]


def test_rows_beyond_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    Report(tmp_path, 10, 2, show=False, tensorboard=False)
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_tensorboard_is_written_only_when_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run(tmp_path / "a")
    run(tmp_path / "b", config=config(tensorboard=True))
    assert not (tmp_path / "a" / "tensorboard").exists()
    assert list((tmp_path / "b" / "tensorboard").glob("events*"))


def test_without_tensorboard_the_error_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"m2vsl\[tensorboard\]"):
        run(tmp_path, config=config(tensorboard=True))


def test_times_are_read_as_a_clock() -> None:
    assert [clock(s) for s in (0, 59.6, 3599, 3661)] == ["0:00", "1:00", "59:59", "1:01:01"]
