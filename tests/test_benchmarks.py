"""The published benchmarks from the command line, on a miniature: look them over, train, evaluate, read the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import vggsound_miniature as miniature

from m2vsl import cli, presets, records

SHORT = (
    "model.encoder.dim=16 model.encoder.audio_width=4 model.encoder.weights=none train.precision=fp32 "
    "train.batch_size=2 train.steps=2 data.size=64"
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """VGGSound-Single and -Duet in small; records and checkpoints are the test's own."""
    monkeypatch.setenv("M2VSL_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("M2VSL_RUNS", str(tmp_path / "runs"))
    miniature.vggsound(tmp_path / "vggsound")
    return tmp_path / "vggsound"


def test_from_the_list_to_the_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = f"ez_vsl/duet --preset smoke --dataset vggsound --data-root {root} {SHORT} data.val_share=0"
    assert cli.main(["train", *given.split()]) == 0
    assert "left out" in capsys.readouterr().err  # missing clips, by name
    assert cli.main(["evaluate", *given.split()]) == 0
    shown = capsys.readouterr().out
    assert "vggsound-duet, subset (21 of 15474)" in shown and "EZ-VSL" in shown
    (found,) = records.find(dataset="vggsound-duet")
    assert found.metrics["mixture/n_listed"] == 5158 and found.metrics["one/n_listed"] == 2 * 5158
    assert str(root) not in json.dumps(found.experiment) and found.experiment["data"]["root"] == "vggsound"


def test_solos_are_learnt_once_for_both_tests(root: Path) -> None:
    choices = {"preset": "smoke", "dataset": "vggsound", "data_root": str(root)}
    duet, single = (presets.experiment("lvs", task, **choices) for task in ("duet", "single"))
    assert duet.run_dir() == single.run_dir() and duet.record_path() != single.record_path()
    assert (duet.source, single.source) == ("vggsound-duet", "vggsound-single")
    moved = presets.experiment("lvs", "duet", **{**choices, "data_root": "elsewhere"})
    assert moved.record_path() == duet.record_path()
    leaky = presets.override(duet, ["data.allow_leak=true"])
    assert leaky.record_path() != duet.record_path() and leaky.run_dir() != duet.run_dir()


def test_labels_that_are_not_there_are_asked_for(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "metadata" / "vggsound.csv").unlink(missing_ok=True)
    given = f"avgn/duet --preset smoke --dataset vggsound --data-root {root} {SHORT} data.val_share=0"
    assert cli.main(["train", *given.split()]) == 1
    assert "avgn learns from labels, and the training list has none: see vggsound.csv" in capsys.readouterr().err


@pytest.mark.parametrize("benchmark", ["vggsound", "instruments", "flickr"])
def test_a_benchmark_is_looked_over(benchmark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make: Callable[[Path], Path] = miniature.MAKE[benchmark]
    make(tmp_path / benchmark)
    status = cli.main(["data", "check", str(tmp_path / benchmark), "--benchmark", benchmark])
    shown = capsys.readouterr().out
    assert status == 1 and "problem(s)" in shown.splitlines()[-1] and f"{benchmark} in" in shown


def test_what_it_cannot_be_asked(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", str(root), "--benchmark", "music"]) == 2
    assert "expected benchmark among avsbench, vggsound, instruments, flickr, got 'music'" in capsys.readouterr().err
    assert cli.main(f"train lvs/duet --dataset vggsound --data-root {root} --skip-bad".split()) == 2
    assert "--skip-bad is for --dataset folder; vggsound lists what is missing anyway" in capsys.readouterr().err
    assert cli.main(["train", "lvs/duet", "--dataset", "vggsound"]) == 2
    assert "needs data_root: the folder with frames/ and audio/" in capsys.readouterr().err
