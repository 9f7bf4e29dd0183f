"""The command line: help that teaches, errors of one line, and the way from training to a table."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from scenes import photo_folder

from m2vsl import cli, cli_maps, experiment
from m2vsl.baselines.ez_vsl import EZVSL
from m2vsl.methods import METHODS
from m2vsl.metrics.calls import Segmentation
from m2vsl.presets import PRESETS

COMMANDS = ("", "data", "data check", "train", "evaluate", "release", "bounds", "table", "run")
TINY = (
    "model.encoder.dim=16 model.encoder.audio_width=4 model.encoder.weights=none train.precision=fp32 "
    "train.batch_size=2 train.steps=3 data.size=32 data.test_length=4 data.val_length=2"
)
Result = tuple[int, str, str]


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records and checkpoints of a test are its own."""
    monkeypatch.setenv("M2VSL_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("M2VSL_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("M2VSL_PRESET", raising=False)


def test_help_answers_without_torch() -> None:
    code = "import sys; from m2vsl import cli; print(cli.main(['--help']))"
    guard = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); "
    done = subprocess.run([sys.executable, "-c", guard + code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[0].startswith("usage: m2vsl") and done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, m2vsl: Callable[[str], Result]) -> None:
    status, out, err = m2vsl(f"{command} --help")
    assert status == 0 and not err
    assert re.search(rf"^  m2vsl {command}", out, re.MULTILINE), "an example to copy"
    assert max(map(len, out.splitlines())) <= 100


def test_maps_are_read_in_every_way_there_is() -> None:
    assert cli_maps.VALUES == get_args(get_type_hints(Segmentation)["reads"])


def test_help_names_what_there_is(m2vsl: Callable[[str], Result]) -> None:
    assert cli.METHODS == tuple(METHODS) and cli.TASKS == experiment.TASKS and cli.PRESETS == tuple(PRESETS)
    for command in ("train", "evaluate", "release", "table", "run"):
        out = m2vsl(f"{command} --help")[1]
        assert all(name in out for name in (*cli.METHODS, *cli.TASKS, *cli.PRESETS))


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_the_overrides_that_help_shows_exist(command: str, m2vsl: Callable[[str], Result]) -> None:
    out = m2vsl(f"{command} --help")[1]
    shown = re.findall(r"\b(?:train|model|audio)[\w.]*=\S+", out)
    from m2vsl.presets import experiment as make
    from m2vsl.presets import override

    assert len(shown) >= 8
    assert override(make("m2vsl", "duet"), shown).audio.crop == "random"
    folder = make("m2vsl", "duet", dataset="folder", data_root="x")
    assert override(folder, re.findall(r"\bdata[\w.]*=\S+", out)).data.fold == 3


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "arguments are required: COMMAND"),
        ("fly", "invalid choice: 'fly'"),
        ("data", "arguments are required: COMMAND"),
        ("data check", "arguments are required: DIR"),
        ("data check . --fold 4", "expected two different folds"),
        ("train", "arguments are required: METHOD/TASK"),
        ("train m2vsl", "expected METHOD/TASK, such as m2vsl/duet, got 'm2vsl'; methods: centre"),
        ("train magic/duet", "expected method among centre"),
        ("train m2vsl/trio", "expected task among single, duet, multi, got 'trio'"),
        ("train m2vsl/duet --preset huge", "expected preset among smoke"),
        ("train m2vsl/duet --dataset imagenet", "expected dataset among synthetic"),
        ("train m2vsl/duet --dataset folder", "needs data_root"),
        ("train m2vsl/duet --dataset synthetic --data-root .", "--data-root is for --dataset folder"),
        ("train m2vsl/duet --skip-bad", "--skip-bad is for --dataset folder"),
        ("train m2vsl/duet --seed x", "invalid int value: 'x'"),
        ("train m2vsl/duet --speed 3", "not understood: --speed 3"),
        ("train m2vsl/duet train.stepz=3", "did you mean 'train.steps'?); valid: train.steps"),
        ("train --preset smoke m2vsl/duet train.steps=many", "train.steps: expected int, got 'many'"),
        ("train train.lr=1 m2vsl/duet", "not understood: m2vsl/duet"),
        ("evaluate m2vsl/duet model.fuse=mix", "fuse: expected one of mean"),
        ("table trio", "invalid choice: 'trio'"),
        ("table duet train.steps=3", "not understood: train.steps=3"),
        ("run huge", "invalid choice: 'huge'"),
        ("run smoke --methods magic", "invalid choice: 'magic'"),
        ("run smoke --tasks duet trio", "invalid choice: 'trio'"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(line: str, told: str, m2vsl: Callable[[str], Result]) -> None:
    status, out, err = m2vsl(line)
    assert status == 2 and not out
    assert told in err and len(err.strip().splitlines()) == 1


class TestData:
    """m2vsl data check DIR."""

    def test_a_good_folder(self, tmp_path: Path, m2vsl: Callable[[str], Result]) -> None:
        status, out, err = m2vsl(f"data check {photo_folder(tmp_path, 3)}")
        assert status == 0 and not err
        assert (
            "3 classes, 30 photographs, 30 recordings: 0 problem(s)" in out and "note: 30 recording(s) at 8000" in out
        )

    def test_every_problem_with_its_file(self, tmp_path: Path, m2vsl: Callable[[str], Result]) -> None:
        root = photo_folder(tmp_path / "clips")
        photo, sound = sorted(root.glob("images/*/*"))[3], sorted(root.glob("audio/*/*"))[7]
        photo.write_bytes(photo.read_bytes()[:60])
        sound.write_bytes(b"")
        status, out, _ = m2vsl(f"data check {root}")
        assert status == 1 and "2 problem(s)" in out
        assert f"photo: {photo}" in out and f"sound: {sound}" in out

    def test_a_missing_folder(self, tmp_path: Path, m2vsl: Callable[[str], Result]) -> None:
        status, out, _ = m2vsl(f"data check {tmp_path / 'nowhere'}")
        assert status == 1 and str(tmp_path / "nowhere") in out

    def test_training_refuses_or_lists_what_it_leaves_out(
        self,
        tmp_path: Path,
        m2vsl: Callable[[str], Result],
    ) -> None:
        root = photo_folder(tmp_path / "clips")
        sound = sorted(root.glob("audio/*/*"))[7]
        sound.write_bytes(b"")
        line = f"train ez_vsl/duet --preset smoke --data-root {root} {re.sub('data.[a-z]*_length=[0-9]', '', TINY)}"
        refused = []
        for _ in range(2):
            status, out, err = m2vsl(line)
            refused.append((status, str(sound) in err, "data check" in err, "Traceback" in err))
            line += " --skip-bad"
            if status == 0:
                break
        assert refused[0] == (1, True, True, False)
        assert refused[1][:2] == (0, True) and "3 steps" in out and err.count(f"  {sound}: ") == 1

    def test_a_folder_that_is_not_there(self, m2vsl: Callable[[str], Result]) -> None:
        status, _, err = m2vsl("train ez_vsl/duet --data-root nowhere")
        assert (status, err) == (1, "m2vsl: no such folder: nowhere\n")


class TestTrain:
    """train, evaluate."""

    def test_from_training_to_a_table(self, m2vsl: Callable[[str], Result], monkeypatch: pytest.MonkeyPatch) -> None:
        line = f"ez_vsl/duet --preset smoke --seed 4 {TINY}"
        status, out, err = m2vsl(f"evaluate {line}")
        assert status == 1 and "no complete training of ez_vsl/duet" in err and len(err.splitlines()) == 1
        status, out, _ = m2vsl(f"train {line}")
        assert status == 0 and "ez_vsl/duet, seed 4: 3 steps" in out
        assert Path(out.splitlines()[-1].removeprefix("checkpoints: ")).is_dir()
        monkeypatch.setattr(EZVSL, "forward", _forbidden)
        assert m2vsl(f"train {line}")[0] == 0  # complete: loaded
        status, out, _ = m2vsl(f"evaluate {line}")
        assert status == 0 and "EZ-VSL" in out and "CIoU@0.3" in out
        assert Path(out.splitlines()[-1].removeprefix("record: ")).is_file()

    @pytest.mark.parametrize("method", ["centre", "bound"])
    def test_controls_need_no_training(self, method: str, m2vsl: Callable[[str], Result]) -> None:
        more = "--preset smoke data.test_length=4 data.size=32"
        status, out, _ = m2vsl(f"train {method}/duet {more}")
        assert status == 0 and "learns nothing" in out
        status, out, _ = m2vsl(f"evaluate {method}/duet {more}")
        assert status == 0 and "CIoU@0.3" in out

    def test_ctrl_c_says_how_to_go_on_and_going_on_works(
        self, m2vsl: Callable[[str], Result], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        forward, calls = EZVSL.forward, []

        def stop(self: EZVSL, batch: Any) -> Any:
            calls.append(1)
            if len(calls) == 1:
                signal.raise_signal(signal.SIGINT)
            return forward(self, batch)

        monkeypatch.setattr(EZVSL, "forward", stop)
        line = f"train ez_vsl/duet --preset smoke {TINY}"
        status, _, err = m2vsl(line)
        assert status == 130 and len(calls) == 1
        assert "stopped after step 1" in err and f"to go on: m2vsl {line}" in err
        status, out, _ = m2vsl(line)
        assert status == 0 and "3 steps" in out and len(calls) >= 3

    def test_a_place_that_cannot_be_written(
        self, m2vsl: Callable[[str], Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("M2VSL_RESULTS", str(tmp_path / "file"))
        line = "evaluate centre/single --preset smoke data.test_length=2 data.size=32"
        status, _, err = m2vsl(line)
        assert status == 1 and str(tmp_path / "file") in err and len(err.splitlines()) == 1
        with pytest.raises(OSError, match="not written"):
            cli.main(shlex.split(f"{line} --traceback"))


class TestRun:
    """run, table."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The smoke preset, smaller still."""
        from dataclasses import replace

        smoke = PRESETS["smoke"]
        encoder = replace(smoke.encoder, weights="none", dim=16, audio_width=4)
        train = replace(smoke.train, steps=2, batch_size=2, precision="fp32")
        tiny = replace(smoke, size=32, encoder=encoder, train=train, test_length=4, val_length=4)
        monkeypatch.setitem(PRESETS, "smoke", tiny)

    LINE = "smoke --seeds 0 1 --methods centre ez_vsl --tasks single"

    def test_a_preset_is_run_once(self, m2vsl: Callable[[str], Result], monkeypatch: pytest.MonkeyPatch) -> None:
        status, out, _ = m2vsl(f"run {self.LINE}")
        assert status == 0
        assert [line for line in out.splitlines() if line.startswith("[")] == [
            "[1/3] centre/single, seed 0: running",
            "[2/3] ez_vsl/single, seed 0: running",
            "[3/3] ez_vsl/single, seed 1: running",
        ]
        assert re.search(r"^EZ-VSL .*±.* 2 ", out, re.MULTILINE) and re.search("^Centre ", out, re.MULTILINE)
        monkeypatch.setattr(experiment, "scored", _forbidden)
        status, again, _ = m2vsl(f"run {self.LINE}")
        assert status == 0 and again.count("recorded\n") == 3
        assert again.split("\nsingle\n")[1] == out.split("\nsingle\n")[1]
        printed = m2vsl("table single --preset smoke --seeds 0 1 --methods centre ez_vsl")
        assert printed == (0, out.split("\nsingle\n")[1], "")

    def test_fresh_trains_each_run_once(self, m2vsl: Callable[[str], Result], monkeypatch: pytest.MonkeyPatch) -> None:
        line = "run smoke --seeds 0 --methods ez_vsl --tasks single duet"
        steps, forward = [], EZVSL.forward

        def count(self: EZVSL, batch: Any) -> Any:
            steps.extend([1] * self.training)
            return forward(self, batch)

        monkeypatch.setattr(EZVSL, "forward", count)
        assert m2vsl(line)[0] == 0 and len(steps) == 2  # both tasks share a training
        assert m2vsl(line)[0] == 0 and len(steps) == 2
        status, out, _ = m2vsl(f"{line} --fresh")
        assert status == 0 and len(steps) == 4 and out.count("running\n") == 2

    def test_a_table_without_records_says_so(self, m2vsl: Callable[[str], Result]) -> None:
        status, out, _ = m2vsl("table duet --preset smoke --methods centre m2vsl")
        assert status == 0 and "no record" in out and "No record yet." in out

    def test_the_preset_of_the_environment(
        self, m2vsl: Callable[[str], Result], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("M2VSL_PRESET", "gigantic")
        assert m2vsl("table duet")[0] == 2


def _forbidden(*_: Any, **__: Any) -> None:
    raise AssertionError("run again")
