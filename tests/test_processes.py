"""Training as processes: two of them on one batch, one that dies, one that never comes, and out of time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from m2vsl import parallel
from m2vsl.training import checkpoint

TINY = (
    *("model.encoder.dim=16", "model.encoder.audio_width=4", "data.size=32", "data.val_length=4", "data.test_length=4"),
    *(
        "train.steps=4",
        "train.batch_size=4",
        "train.log_every=1",
        "train.eval_every=2",
        "train.checkpoint_every=2",
        "train.lr=1e-5",
        "train.precision=fp32",
    ),
)
ALONE = (sys.executable, "-m", "m2vsl.cli")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *ALONE[1:])
LAUNCHERS = {
    "torchrun": TORCHRUN,
    "accelerate launch": (
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        *ALONE[1:],
    ),
    "notebook_launcher": (
        *(sys.executable, "-c"),
        "import sys; from accelerate import notebook_launcher; from m2vsl import cli;"
        "notebook_launcher(cli.main, (sys.argv[1:],), num_processes=2)",
    ),
}


def start(
    place: Path,
    *options: str,
    launcher: tuple[str, ...] = ALONE,
    method: str = "ez_vsl/single",
    **environment: str,
):
    """``m2vsl train`` of a tiny method in one process, or in two, its checkpoints below `place`."""
    known = {**os.environ, "M2VSL_RUNS": str(place / "runs"), "M2VSL_RESULTS": str(place / "results")}
    known |= {"OMP_NUM_THREADS": "1", **environment}
    command = [*launcher, "train", method, "--preset", "smoke", *TINY, *options]
    return subprocess.Popen(command, env=known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, error = process.communicate(timeout=240)
    return process.returncode, out + error


def log(place: Path) -> list[dict[str, float]]:
    (path,) = place.glob("runs/*/*/log.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights(place: Path, step: int = 4) -> dict[str, torch.Tensor]:
    (folder,) = place.glob(f"runs/*/*/step-{step:06d}")
    return checkpoint.load(folder).weights


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("one")
    status, told = ended(start(place))
    assert status == 0, told
    return place


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_write_one_log_and_learn_the_same(launcher: str, one: Path, tmp_path: Path) -> None:
    status, told = ended(start(tmp_path, launcher=LAUNCHERS[launcher]))
    assert status == 0, told
    assert told.count("checkpoints:") == 1, "the first process alone speaks"
    assert [row["step"] for row in log(tmp_path)] == [row["step"] for row in log(one)]
    for mine, theirs in zip(log(tmp_path), log(one), strict=True):
        for key in {"loss", "contrast", "validation"} & mine.keys():
            within = 1e-4 if mine["step"] == 1 else 0.05  # Adam makes much of rounding, and of four pictures
            assert mine[key] == pytest.approx(theirs[key], rel=within)
    for key, value in weights(tmp_path).items():
        torch.testing.assert_close(value, weights(one)[key], rtol=0, atol=1e-3)
    assert any(not torch.equal(v, w) for v, w in zip(weights(one, 4).values(), weights(tmp_path).values(), strict=True))


def test_a_process_that_dies_takes_the_others_along_and_any_number_goes_on(tmp_path: Path) -> None:
    process = start(tmp_path, "train.steps=400", launcher=TORCHRUN)
    assert process.stdout is not None
    while not list(tmp_path.glob("runs/*/*/step-*[0-9]")):
        assert process.poll() is None, process.communicate()
    child = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    os.kill(int(child.stdout.split()[-1]), signal.SIGKILL)
    status, told = ended(process)
    assert (status != 0 and "SIGKILL" in told) or "-9" in told
    before = max(int(path.name[5:]) for path in tmp_path.glob("runs/*/*/step-*[0-9]"))
    goes_on = start(tmp_path, "train.steps=400", "--max-hours", "0.000001")
    status, told = ended(goes_on)
    assert status == 75 and "run the same again to go on" in told
    assert [row["step"] for row in log(tmp_path)][-1] == before + 1


def test_out_of_time_saves_and_goes_on_to_the_same_weights(one: Path, tmp_path: Path) -> None:
    for _ in range(2):
        status, told = ended(start(tmp_path, "--max-hours", "0.0000001"))
        assert status == 75 and "run the same again to go on" in told
    status, told = ended(start(tmp_path, "--max-hours", "1"))
    assert status == 0, told
    assert all(torch.equal(value, weights(one)[key]) for key, value in weights(tmp_path).items())


def test_a_master_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    place = {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    status, told = ended(start(tmp_path, M2VSL_MEET="2", **place))
    assert status == 1 and f"m2vsl: the other processes were not met at 127.0.0.1:{port} within 2 s" in told


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in (("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "4"), ("LOCAL_RANK", "3")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"4 processes, but 2 GPU.*--nproc-per-node 2.*CUDA_VISIBLE_DEVICES="):
        parallel.start()
