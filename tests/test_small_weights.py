"""Released weights: small, halved, checked, with a card that says what they are."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import torch as safetensors

from m2vsl import experiment as running
from m2vsl import paths, presets, records, released
from m2vsl.data.loader import collate
from m2vsl.encoders import EncoderConfig
from m2vsl.experiment import Experiment
from m2vsl.model import M2VSL
from m2vsl.training import checkpoint

NAME = "m2vsl-duet-synthetic-smoke-s0"
FIRST = "weights-1-of-1.safetensors"


def choices(method: str = "m2vsl", task: str = "duet") -> Experiment:
    """An experiment of seconds, as its preset (see `tiny`) has it."""
    return presets.experiment(method, task, preset="smoke")


@pytest.fixture(scope="module")
def tiny() -> Any:
    """The smoke preset, smaller still."""
    with pytest.MonkeyPatch.context() as patch:
        smoke = presets.PRESETS["smoke"]
        train = replace(smoke.train, steps=2, batch_size=2, precision="fp32")
        encoder = EncoderConfig(audio_stride=4, audio_width=4, dim=16)
        small = replace(smoke, size=32, encoder=encoder, train=train, test_length=4, val_length=2)
        patch.setitem(presets.PRESETS, "smoke", small)
        yield small


@pytest.fixture(scope="module")
def made(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs, records and the released weights of two runs."""
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        for place in ("RESULTS", "RUNS", "CHECKPOINTS"):
            patch.setenv(f"M2VSL_{place}", str(root / place.lower()))
        for name, task in (("centre", "duet"), ("centre", "single"), ("oracle", "duet")):
            running.run(choices(name, task), progress=False)
        for name in ("m2vsl", "cam"):
            running.run(choices(name), progress=False)
            released.release(choices(name))
    return root


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the released weights to spoil; runs and records are shared."""
    monkeypatch.setenv("M2VSL_RESULTS", str(made / "results"))
    monkeypatch.setenv("M2VSL_RUNS", str(made / "runs"))
    monkeypatch.setenv("M2VSL_CHECKPOINTS", str(tmp_path / "checkpoints"))
    shutil.copytree(made / "checkpoints", tmp_path / "checkpoints")
    return tmp_path / "checkpoints" / NAME


def restate(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what config.json says."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_what_is_loaded_is_what_was_learnt_in_half_precision(place: Path) -> None:
    localizer, experiment = released.load(NAME)
    learnt = running.trained(experiment, progress=False)[0].state_dict()
    assert experiment == choices() and not localizer.training
    for key, value in localizer.state_dict().items():
        kept = learnt[key] if ".trunk." in key or not value.is_floating_point() else learnt[key].half().float()
        assert torch.equal(value, kept), key


def test_the_frozen_trunk_is_left_out_and_the_rest_is_half(place: Path) -> None:
    weights = safetensors.load_file(place / FIRST)
    assert not [key for key in weights if "trunk" in key] and len(weights) > 20
    assert {v.dtype for v in weights.values() if v.is_floating_point()} == {torch.float16}


def test_a_number_beyond_half_precision_stays_as_it_is() -> None:
    large, whole = torch.tensor([1e6]), torch.tensor([3])
    assert released._halved(large).dtype == torch.float32 and released._halved(whole) is whole


def test_files_are_parted_below_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {f"{part}.w": torch.zeros(n) for part, n in (("a", 100), ("b", 100), ("c", 300))}
    monkeypatch.setattr(released, "LARGEST", 1400)
    files = released._files(weights)
    assert [sorted(safetensors.load(data)) for data in files.values()] == [["a.w", "b.w"], ["c.w"]]
    assert list(files) == ["weights-1-of-2.safetensors", "weights-2-of-2.safetensors"]
    monkeypatch.setattr(released, "LARGEST", 1000)
    with pytest.raises(ValueError, match=r"c: expected less than 1000 bytes in half precision, got 12\d\d"):
        released._files(weights)


def test_an_unknown_name_is_answered_with_the_known_ones(place: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no checkpoint 'm3vsl'.*there are: cam-duet-.*, {NAME}"):
        released.load("m3vsl")


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1])])
def test_a_cut_or_changed_file_is_named_with_both_hashes(place: Path, spoil: Callable[[bytes], bytes]) -> None:
    data = (place / FIRST).read_bytes()
    (place / FIRST).write_bytes(spoil(data))
    expected, got = (hashlib.sha256(x).hexdigest() for x in (data, spoil(data)))
    with pytest.raises(ValueError, match=f"{FIRST}.*expected {expected}, got {got}"):
        released.load(NAME)


def test_a_missing_file_is_named(place: Path) -> None:
    (place / FIRST).unlink()
    with pytest.raises(FileNotFoundError, match=FIRST):
        released.load(NAME)


def test_a_pickle_is_refused(place: Path) -> None:
    torch.save({}, place / FIRST)
    with pytest.raises(ValueError, match=f"{FIRST}: expected safetensors, got a pickle"):
        released.load(NAME)


def test_weights_of_another_method_are_refused(place: Path) -> None:
    other = place.with_name("cam-duet-synthetic-smoke-s0")
    (place / FIRST).write_bytes((other / FIRST).read_bytes())
    digest = hashlib.sha256((place / FIRST).read_bytes()).hexdigest()
    restate(place, lambda config: config["sha256"].update({FIRST: digest}))
    with pytest.raises(ValueError, match="a checkpoint of another model than M2VSL"):
        released.load(NAME)


def test_another_number_of_classes_is_refused(place: Path) -> None:
    restate(place, lambda config: config["classes"].pop())
    with pytest.raises(ValueError, match=r"another M2VSL: .*another number of classes"):
        released.load(NAME)


def test_another_trunk_is_refused(place: Path) -> None:
    restate(place, lambda config: config["trunk"].update({key: "0" for key in config["trunk"]}))
    with pytest.raises(ValueError, match=r"trained on another trunk: sha256 expected .*'0'"):
        released.load(NAME)


def test_a_field_that_this_version_lacks_is_refused(place: Path) -> None:
    restate(place, lambda config: config["experiment"]["model"].update(wings=2))
    with pytest.raises(ValueError, match=r"written by another version of the package.*wings"):
        released.load(NAME)


def test_released_weights_stand_in_for_training_of_the_same_experiment_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "trained", lambda *_, **__: pytest.fail("trained again"))
    assert isinstance(released.trained(choices()), M2VSL)
    asked: list[Experiment] = []
    monkeypatch.setattr(running, "trained", lambda e, **_: (asked.append(e), (M2VSL(e.model, 12), None))[1])
    other = presets.override(choices(), ["train.lr=0.1"])
    assert not released.trained(other).training
    assert not released.trained(replace(choices(), seed=1)).training
    assert asked == [other, replace(choices(), seed=1)]


class TestRelease:
    """What is refused, and the card."""

    def test_a_run_that_is_not_finished_is_told_how_to_finish(self, place: Path) -> None:
        made = "m2vsl train m2vsl/single --preset smoke --seed 0 && m2vsl evaluate m2vsl/single --preset smoke --seed 0"
        with pytest.raises(FileNotFoundError, match=made):
            released.release(choices(task="single"))
        with pytest.raises(FileNotFoundError, match="no finished and recorded run"):
            released.release(choices("centre"))

    def test_choices_that_no_preset_has_are_refused(self, place: Path) -> None:
        with pytest.raises(ValueError, match="expected the choices of preset smoke"):
            released.release(presets.override(choices(), ["train.lr=0.1"]))

    def test_the_record_of_another_training_is_refused(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = records.load(choices().record_path())
        monkeypatch.setenv("M2VSL_RESULTS", str(tmp_path / "results"))
        records.save(replace(record, history=[{**record.history[0], "loss": 1.0}]))
        with pytest.raises(ValueError, match="the record of another training"):
            released.release(choices())

    def test_scores_that_move_are_refused_and_nothing_changes(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = {path.name: path.read_bytes() for path in place.iterdir()}
        monkeypatch.setattr(released, "_halved", lambda x: torch.zeros_like(x))
        with pytest.raises(ValueError, match=r"half precision moves \S+ by more than 0.01: .* in the record"):
            released.release(choices())
        assert {path.name: path.read_bytes() for path in place.iterdir()} == before

    def test_the_card_says_what_they_are(self, place: Path) -> None:
        text, record = (place / "README.md").read_text(), records.load(choices().record_path())
        for told in (NAME, record.commit[:7], record.hash, record.ids, record.hardware["cpu"], "Apache-2.0"):
            assert told in text
        assert "\nm2vsl train m2vsl/duet --preset smoke --seed 0\n" in text
        head, _, *rows = re.findall(r"^\|.*\|$", text[text.index("## What it scores") :], re.MULTILINE)
        assert [c.strip() for c in head.split("|")[2:-1]] == [
            "protocol",
            "these weights",
            "the record",
            "Centre",
            "Oracle",
        ]
        assert len(rows) == 6 and "`mixture/framewise-matched-oracle/iou`" in rows[0]
        shown = 100 * record.metrics["mixture/framewise-matched-oracle/iou"]
        assert rows[0].split("|")[4].strip() == f"{shown:.1f}"
        assert all(f"{hashlib.sha256((place / f).read_bytes()).hexdigest()}  {f}" in text for f in (FIRST,))

    def test_the_command_line(self, place: Path, m2vsl: Callable[[str], tuple[int, str, str]]) -> None:
        status, out, _ = m2vsl("release cam/duet --preset smoke")
        assert status == 0 and "bytes" in out and "config.json" in out
        status, _, err = m2vsl("release m2vsl/single --preset smoke")
        assert status == 1 and err.startswith("m2vsl: no finished and recorded run") and err.count("\n") == 1
        assert m2vsl("release m2vsl/duet --preset smoke train.lr=1")[0] == 2


@pytest.mark.parametrize("name", sorted(p.parent.name for p in paths.checkpoints().glob("*/config.json")))
def test_what_comes_with_the_book_loads_and_answers(name: str) -> None:
    localizer, experiment = released.load(name)
    assert released.name_of(experiment) == name
    folder = paths.checkpoints() / name
    assert max(path.stat().st_size for path in folder.iterdir()) < released.LARGEST
    card = hashlib.sha256((folder / "README.md").read_bytes()).hexdigest()
    assert checkpoint.described(folder)[1]["README.md"] == card, "a card is written by `m2vsl release` alone"
    sample = experiment.samples("test")[0]
    maps = localizer.localize(collate([sample], experiment.audio))
    assert maps.heat.isfinite().all() and maps.heat.std() > 0
