"""What a preset makes of a method, a task and a data set; and what may be laid over it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from m2vsl.audio import AUDIO
from m2vsl.experiment import TASKS, Experiment
from m2vsl.methods import CONTROLS, METHODS
from m2vsl.presets import PRESETS, chosen, experiment, override, table


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("task", TASKS)
def test_every_preset_makes_every_method(preset: str, task: str) -> None:
    for method in METHODS:
        made = experiment(method, task, preset=preset, seed=3)
        assert (made.method, made.task, made.preset, made.seed) == (method, task, preset, 3)
        # a duet is two photographs and two sounds
        several = 2 if METHODS[method].solos and PRESETS[preset].short else 1
        size, slow = PRESETS[preset].train, METHODS[method] if PRESETS[preset].short else METHODS["centre"]
        assert made.train.steps == round(size.steps * slow.steps) and made.train.lr == size.lr * slow.lr
        assert made.train.batch_size == several * size.batch_size
        assert replace(made.train, steps=size.steps, lr=size.lr, batch_size=size.batch_size) == size
        assert made.data.size == PRESETS[preset].size
        assert type(made.model) is type(METHODS[method].config)
        if hasattr(made.model, "encoder"):
            assert made.model.encoder == PRESETS[preset].encoder


def test_the_papers_preset_has_the_papers_sizes() -> None:
    for preset in ("gpu", "paper"):
        assert {experiment(m, t, preset=preset).train.batch_size for m in METHODS for t in TASKS} == {128}
    made = experiment("m2vsl", "duet", preset="paper")
    encoder = made.model.encoder
    assert (encoder.visual, encoder.weights, encoder.freeze) == ("resnet18", "imagenet", False)
    assert (encoder.audio_width, encoder.audio_stride, encoder.dim) == (64, 1, 512)
    assert (made.train.batch_size, made.train.lr, made.train.weight_decay) == (128, 1e-4, 0)
    assert made.data.size == 224 and made.audio.shape == (257, 300)
    assert made.model.scales == (1, 2, 3, 4) and made.model.tokens == 5 and made.model.depth == 3


def test_methods_differ_in_their_models_and_in_data_fields_of_their_own() -> None:
    trees = {name: experiment(name, "duet").tree() for name in METHODS if not METHODS[name].solos}
    common = {**trees["m2vsl"], "method": "", "model": {}}
    for name, tree in trees.items():
        data = {**common["data"], **METHODS[name].data}
        steps = round(common["train"]["steps"] * METHODS[name].steps)
        train = {**common["train"], "steps": steps, "lr": common["train"]["lr"] * METHODS[name].lr}
        assert {**tree, "method": "", "model": {}} == {**common, "data": data, "train": train}
    assert [name for name, method in METHODS.items() if method.data] == ["m2vsl_plus"]  # ours alone


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"preset": "huge"}, "expected preset among smoke"),
        ({"method": "magic"}, "expected method among centre"),
        ({"task": "trio"}, "expected task among single"),
        ({"dataset": "imagenet"}, "expected dataset among synthetic"),
        ({"dataset": "folder"}, "needs data_root"),
    ],
)
def test_what_is_not_there_is_refused(choice: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        experiment(**{"method": "m2vsl", "task": "duet", **choice})


def test_a_folder_needs_no_file_until_it_is_read() -> None:
    made = experiment("m2vsl", "duet", dataset="folder", data_root="some/where/clips")
    assert made.source == "clips" and made.data.size == PRESETS["quick"].size


def test_a_table_has_every_seed_of_what_learns_and_one_of_each_control() -> None:
    made = table(METHODS, "duet", seeds=[4, 5], preset="smoke")
    count = {method: [e.seed for e in made if e.method == method] for method in METHODS}
    assert all(count[method] == ([4] if method in CONTROLS else [4, 5]) for method in METHODS)


def test_the_preset_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("M2VSL_PRESET", raising=False)
    assert chosen() == "quick" and chosen("small") == "small"
    monkeypatch.setenv("M2VSL_PRESET", "smoke")
    assert chosen() == "smoke" and chosen("small") == "small"
    monkeypatch.setenv("M2VSL_PRESET", "tiny")
    with pytest.raises(ValueError, match="expected preset among"):
        chosen()


class TestOverride:
    """key=value."""

    @pytest.fixture
    def made(self) -> Experiment:
        return experiment("m2vsl", "duet", preset="smoke")

    @pytest.mark.parametrize(
        ("pair", "value"),
        [
            ("model.temperature=0.07", 0.07),
            ("model.temperature=1", 1.0),
            ("train.lr=3e-4", 3e-4),
            ("train.steps=100", 100),
            ("train.tensorboard=true", True),
            ("train.tensorboard=False", False),
            ("model.scales=[3,4]", (3, 4)),
            ("model.scales=3, 4", (3, 4)),
            ("model.scales=(4,)", None),
            ("model.scales=4", (4,)),
            ("data.size=112", 112),
            ("data.areas=[0.1,0.2]", (0.1, 0.2)),
            ("audio.crop=random", "random"),
            ("model.fuse=max", "max"),
            ("model.encoder.dim=128", 128),
            ("model.encoder.freeze=false", False),
        ],
    )
    def test_values_find_their_place_and_type(self, made: Experiment, pair: str, value: Any) -> None:
        if value is None:
            with pytest.raises(ValueError, match=r"such as \[1,2\]"):
                override(made, [pair])
            return
        key = pair.split("=")[0]
        got: Any = override(made, [pair])
        for name in key.split("."):
            got = getattr(got, name)
        assert got == value and type(got) is type(value)
        assert not isinstance(value, tuple) or [type(v) for v in got] == [type(v) for v in value]

    def test_all_else_stays_and_the_hash_changes(self, made: Experiment) -> None:
        other = override(made, ["train.steps=7", "model.encoder.dim=16"])
        assert other.train.batch_size == made.train.batch_size and other.model.encoder.weights == "imagenet"
        assert other.record_path() != made.record_path() and override(made, []) == made
        assert made.train.steps != 7

    def test_pairs_are_laid_over_together(self) -> None:
        made = experiment("m2vsl", "duet", dataset="folder", data_root="clips")
        assert (made.data.fold, made.data.val_fold) == (5, 4)
        swapped = override(made, ["data.fold=4", "data.val_fold=5"])  # one alone would be refused
        assert (swapped.data.fold, swapped.data.val_fold) == (4, 5)

    def test_audio_by_name_and_then_its_fields(self, made: Experiment) -> None:
        assert override(made, ["audio=ezvsl276"]).audio == AUDIO["ezvsl276"]
        both = override(made, ["audio.crop=first", "audio=literal"]).audio
        assert both.crop == "first" and both.shape == AUDIO["literal"].shape

    @pytest.mark.parametrize(
        ("pair", "told"),
        [
            (
                "train.stepz=3",
                r"unknown key 'train.stepz' \(did you mean 'train.steps'\?\); valid: train.steps, train.b",
            ),
            (
                "temperature=0.1",
                r"unknown key 'temperature' \(did you mean 'model.temperature'\?\); valid: data.classes",
            ),
            ("model.encoder=3", "unknown key 'model.encoder'.*valid: model.encoder.visual"),
            ("method=ez_vsl", "unknown key 'method'"),
            ("train.steps", "expected key=value, got 'train.steps'"),
            ("train.steps=1.5", "train.steps: expected int, got '1.5'"),
            ("train.steps=true", "train.steps: expected int, got 'true'"),
            ("train.steps=", "train.steps: expected int, got ''"),
            ("train.lr=fast", "train.lr: expected float, got 'fast'"),
            ("train.lr=nan", "train.lr: expected float"),
            ("train.tensorboard=1", "train.tensorboard: expected bool, got '1'"),
            ("model.scales=[3,x]", "model.scales: expected several of int"),
            ("model.scales=[1.5]", "model.scales: expected several of int"),
            ("model.scales=[]", "model.scales: expected several of int"),
            ("data.areas=[0.1,0.2,0.3]", "data.areas: expected several of float"),
            ("audio=mp3", "audio: expected one of paper300, ezvsl276, literal, got 'mp3'"),
            ("audio.crop=last", "expected crop among"),
            ("model.fuse=mix", "fuse: expected one of mean"),
            ("model.encoder.visual=vgg", "expected a visual trunk among resnet18"),
            ("train.steps=0", "steps: expected at least 1, got 0"),
        ],
    )
    def test_what_cannot_be_is_refused(self, made: Experiment, pair: str, told: str) -> None:
        with pytest.raises(ValueError, match=told):
            override(made, [pair])

    def test_a_control_has_other_keys(self) -> None:
        made = experiment("random", "duet")
        assert override(made, ["model.seed=3"]).model.seed == 3
        with pytest.raises(ValueError, match=r"unknown key 'model.temperature'.*valid: model.seed"):
            override(made, ["model.temperature=1"])
