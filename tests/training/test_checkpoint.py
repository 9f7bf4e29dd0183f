"""Checkpoints: whole or not at all, and what was written is what is read."""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from full_disk import small_files
from scenes import TINY
from torch import nn

from m2vsl.baselines.dsol import DSOL, DSOLConfig
from m2vsl.baselines.ez_vsl import EZVSL, EZVSLConfig
from m2vsl.training import checkpoint
from m2vsl.training.checkpoint import CONFIG, STATE, WEIGHTS
from m2vsl.training.randomness import drawing_from, random_state, set_random_state


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return checkpoint.save(tmp_path / "step-000010", {"w": torch.arange(100.0)}, {"lr": 0.1}, {"step": 10})


def test_what_was_saved_is_loaded(saved: Path) -> None:
    back = checkpoint.load(saved)
    assert torch.equal(back.weights["w"], torch.arange(100.0))
    assert back.config == {"lr": 0.1} and back.state == {"step": 10}
    assert sorted(p.name for p in saved.iterdir()) == sorted([WEIGHTS, CONFIG, STATE])
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_weights_alone_are_a_checkpoint(tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path / "best", {"w": torch.zeros(2)}, {})
    assert checkpoint.load(folder).state is None
    assert not (folder / STATE).exists()


def test_tied_channels_last_and_integer_weights_survive(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(2, 2)).to(memory_format=torch.channels_last)
    net.add_module("tied", net[2])
    back = checkpoint.load(checkpoint.save(tmp_path / "c", net.state_dict(), {})).weights
    assert back.keys() == net.state_dict().keys()
    assert all(torch.equal(back[k], v) and back[k].dtype == v.dtype for k, v in net.state_dict().items())


def test_a_second_save_replaces_the_first(saved: Path) -> None:
    (saved.parent / "step-000010.tmp").mkdir()  # left by a killed process
    checkpoint.save(saved, {"w": torch.ones(3)}, {"lr": 0.2})
    assert checkpoint.load(saved).config == {"lr": 0.2} and checkpoint.load(saved).state is None
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("name", [WEIGHTS, STATE])
@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1])])
def test_a_cut_or_changed_file_is_refused_with_both_hashes(saved: Path, name: str, spoil) -> None:
    expected = hashlib.sha256((saved / name).read_bytes()).hexdigest()
    (saved / name).write_bytes(spoil((saved / name).read_bytes()))
    got = hashlib.sha256((saved / name).read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=f"{name}.*expected {expected}, got {got}"):
        checkpoint.load(saved)


@pytest.mark.parametrize("name", [WEIGHTS, STATE, CONFIG])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        checkpoint.load(saved)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_where_safetensors_is_expected(saved: Path, zipped: bool) -> None:
    torch.save({"w": torch.zeros(1)}, saved / WEIGHTS, _use_new_zipfile_serialization=zipped)
    _restate(saved, WEIGHTS)
    with pytest.raises(ValueError, match=f"{WEIGHTS}: expected safetensors, got a pickle"):
        checkpoint.load(saved)


def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    lengths = set()
    for entries in range(1, 40):
        weights = {f"w{i:02d}": torch.full((1,), float(i)) for i in range(entries)}
        folder = checkpoint.save(tmp_path / f"step-{entries:06d}", weights, {})
        lengths.add((folder / WEIGHTS).read_bytes()[0])
        assert checkpoint.load(folder).weights.keys() == weights.keys()
    assert 0x80 in lengths, "one of them has to be the case that is tested"


def test_bytes_that_are_no_safetensors_are_refused(saved: Path) -> None:
    (saved / WEIGHTS).write_bytes(b"nonsense" * 10)
    _restate(saved, WEIGHTS)
    with pytest.raises(ValueError, match=f"{WEIGHTS}: not safetensors"):
        checkpoint.load(saved)


def test_state_that_would_run_code_is_refused(saved: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.system, ("true",)

    torch.save(Evil(), saved / STATE)
    _restate(saved, STATE)
    with pytest.raises(Exception, match="Weights only load failed"):
        checkpoint.load(saved)


def test_a_config_that_is_no_json_is_named(saved: Path) -> None:
    (saved / CONFIG).write_text("{")
    with pytest.raises(ValueError, match=f"{CONFIG}: not json"):
        checkpoint.load(saved)


def _restate(folder: Path, name: str) -> None:
    """Let config.json state the hash of the file as it is now."""
    config = json.loads((folder / CONFIG).read_text())
    config["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / CONFIG).write_text(json.dumps(config))


def test_a_full_disk_leaves_the_earlier_checkpoint(saved: Path) -> None:
    with small_files(2000), pytest.raises(OSError, match="earlier one is untouched") as caught:
        checkpoint.save(saved, {"w": torch.ones(10_000)}, {"lr": 0.2})
    assert caught.value.filename == str(saved) and caught.value.errno
    assert checkpoint.load(saved).config == {"lr": 0.1}
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_failing_rename_leaves_the_earlier_checkpoint(saved: Path, monkeypatch) -> None:
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if str(source).endswith(".tmp"):
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="Input/output error"):
        checkpoint.save(saved, {"w": torch.ones(3)}, {"lr": 0.2})
    assert checkpoint.load(saved).config == {"lr": 0.1}


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="not written") as caught:
        checkpoint.save(tmp_path / "file" / "c", {}, {})
    assert caught.value.filename == str(tmp_path / "file" / "c")


def test_latest_is_the_highest_number_and_skips_the_incomplete(saved: Path) -> None:
    run = saved.parent
    assert checkpoint.latest(run) == saved
    checkpoint.save(run / "step-000009", {}, {})
    checkpoint.save(run / "step-1000000", {}, {})
    (run / "step-2000000.tmp").mkdir()
    assert checkpoint.latest(run) == run / "step-1000000"
    assert checkpoint.latest(run, "best-") is None
    assert checkpoint.latest(run / "nowhere") is None


def test_latest_recovers_from_a_kill_between_two_renames(saved: Path) -> None:
    os.rename(saved, saved.with_name(saved.name + ".old"))
    assert checkpoint.latest(saved.parent) == saved
    assert checkpoint.load(saved).config == {"lr": 0.1}


def test_prune_keeps_the_one_that_is_named(saved: Path) -> None:
    for name in ("step-000001", "best-000001"):
        checkpoint.save(saved.parent / name, {}, {})
    checkpoint.prune(saved.parent, "step-", saved.name)
    assert sorted(p.name for p in saved.parent.iterdir()) == ["best-000001", saved.name]


def _draw() -> tuple[float, float, float]:
    return torch.rand(()).item(), np.random.rand(), random.random()


def test_the_state_of_the_generators_survives_a_file(tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path / "c", {}, {}, random_state())
    first = _draw()
    state = checkpoint.load(folder).state
    assert state is not None and _draw() != first
    set_random_state(state)
    assert _draw() == first


def test_borrowed_generators_are_given_back() -> None:
    state = random_state()
    expected = _draw()
    set_random_state(state)
    with drawing_from(1):
        inside = _draw()
    assert _draw() == expected
    with drawing_from(1):
        assert _draw() == inside
    with drawing_from(2):
        assert _draw() != inside


def test_weights_of_another_class_count_or_model_are_refused_by_name(tmp_path: Path) -> None:
    config = EZVSLConfig(encoder=TINY)
    of_five, of_seven = (DSOL(DSOLConfig(encoder=TINY, dim=8), classes) for classes in (5, 7))
    checkpoint.save(tmp_path / "kept", of_five.state_dict(), {})
    weights = checkpoint.load(tmp_path / "kept").weights
    with pytest.raises(ValueError, match=r"another DSOL: expected \S+ \(7,.* got \(5,.*another number of classes"):
        checkpoint.restore(of_seven, weights, tmp_path / "kept")
    with pytest.raises(ValueError, match="kept is a checkpoint of another model than EZVSL: differs in"):
        checkpoint.restore(EZVSL(config, 5), weights, tmp_path / "kept")
    other = DSOL(DSOLConfig(encoder=TINY, dim=8), 5)
    checkpoint.restore(other, weights, tmp_path / "kept")
    assert all(torch.equal(value, weights[key]) for key, value in other.state_dict().items())
