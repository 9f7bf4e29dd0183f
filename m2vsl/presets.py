"""Sizes with names: what each preset runs, for how long, on what.

A preset promises hardware and time; the numbers it gave are in ``data/results/<preset>/``. The command of any of them:
``m2vsl train METHOD/TASK --preset NAME --dataset NAME --seed N``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, get_args, get_type_hints

from m2vsl.audio import AUDIO, AudioConfig
from m2vsl.encoders import EncoderConfig
from m2vsl.experiment import DATASETS, Experiment
from m2vsl.methods import METHODS
from m2vsl.training.config import TrainConfig


@dataclass(frozen=True)
class Preset:
    """One size of everything."""

    promise: str  # what it is for, hardware and time of one run
    size: int  # pixels per side of a frame
    encoder: EncoderConfig
    train: TrainConfig
    audio: AudioConfig = field(default_factory=lambda: AUDIO["paper300"])
    test_length: int = 250  # synthetic pictures in the test list
    val_length: int = 64  # synthetic pictures in the validation list
    videos: tuple[int, int, int] = (300, 30, 40)  # of train, val and test of either part of avsbench-like
    short: bool = True  # too short for some methods, which take more and smaller steps: `Method.steps`, `Method.lr`
    val_fold: int = 4  # of a folder; 0 = train on it too and keep the last weights: choices were made with it held out


_CPU = TrainConfig(batch_size=16, lr=3e-3, schedule="cosine", warmup_steps=20, precision="bf16", channels_last=True)
_NARROW = EncoderConfig(audio_stride=2, dim=128)
_WHOLE = EncoderConfig(visual="resnet18", freeze=False, audio_width=64)

PRESETS: dict[str, Preset] = {
    "smoke": Preset(
        "does it run: seconds on two CPU cores, no number of it means anything",
        size=64,
        encoder=EncoderConfig(audio_stride=4, audio_width=8, dim=64),
        train=replace(_CPU, steps=4, batch_size=4, log_every=2, warmup_steps=0),
        test_length=8,
        val_length=8,
        videos=(4, 1, 2),
    ),
    "quick": Preset(
        "a first look: one to three minutes a run on two CPU cores",
        size=112,
        encoder=_NARROW,
        train=replace(_CPU, steps=200, eval_every=100),
        test_length=60,
        val_length=32,
    ),
    "small": Preset(
        "the recorded numbers of this book: about ten minutes on one CPU core",
        size=192,
        encoder=_NARROW,
        train=replace(_CPU, steps=1000, log_every=100),
        test_length=150,
        val_fold=0,
    ),
    "gpu": Preset(
        "the rows of Tables 1 and 2 on one data-centre GPU: at most ten minutes a run, by estimate; not run here",
        size=224,
        encoder=_WHOLE,
        train=TrainConfig(steps=1500, batch_size=128, precision="bf16", channels_last=True, warmup_steps=50),
        test_length=500,
        short=False,
    ),
    "paper": Preset(
        "the paper's sizes, 100 epochs of 128: a data-centre GPU and days; not run here",
        size=224,
        encoder=_WHOLE,
        train=TrainConfig(steps=112_500, batch_size=128, precision="bf16", channels_last=True, eval_every=1125),
        test_length=5158,
        val_length=512,
        short=False,
    ),
}


def chosen(preset: str | None = None) -> str:
    """The preset that a notebook runs: the one given, else ``M2VSL_PRESET`` of the environment, else "quick"."""
    name = preset or os.environ.get("M2VSL_PRESET") or "quick"
    if name not in PRESETS:
        raise ValueError(f"expected preset among {', '.join(PRESETS)}, got {name!r}")
    return name


def experiment(
    method: str, task: str, *, preset: str = "quick", dataset: str = "synthetic", data_root: str = "", seed: int = 0
) -> Experiment:
    """The experiment that a preset makes of a method, a task and a data set."""
    for name, value, known in (
        ("preset", preset, PRESETS),
        ("method", method, METHODS),
        ("dataset", dataset, DATASETS),
    ):
        if value not in known:
            raise ValueError(f"expected {name} among {', '.join(known)}, got {value!r}")
    size = PRESETS[preset]
    data = _data(dataset, data_root, size)
    own = {field: value for field, value in METHODS[method].data.items() if hasattr(data, field)}  # one has no solos
    return Experiment(
        method=method,
        dataset=dataset,
        task=task,
        preset=preset,
        seed=seed,
        data=replace(data, **own),
        audio=size.audio,
        model=_model(method, task, size),
        train=_train(method, dataset, size),
    )


def _train(method: str, dataset: str, size: Preset) -> TrainConfig:
    """What a method needs that a preset is too short for.

    There solos come in batches twice as large: a duet is two photographs and two sounds; frames of AVSBench are single.
    """
    chosen, train = METHODS[method], size.train
    twice = size.short and chosen.solos and not dataset.startswith("avsbench")
    return replace(
        train,
        batch_size=train.batch_size * (2 if twice else 1),
        steps=round(train.steps * (chosen.steps if size.short else 1)),
        lr=train.lr * (chosen.lr if size.short else 1),
    )


def _data(dataset: str, root: str, size: Preset) -> Any:
    make = DATASETS[dataset][1]
    if dataset == "synthetic":
        return make(size=size.size, test_length=size.test_length, val_length=size.val_length)
    if dataset == "avsbench-like":
        return make(root=root, size=size.size, s4=size.videos, ms3=size.videos)
    if not root:
        lists = {"vggsound": "frames/ and audio/", "avsbench": "s4_meta_data.csv and ms3_meta_data.csv"}
        inside = lists.get(dataset, "images/, masks/ and audio/")
        raise ValueError(f"data set {dataset!r} needs data_root: the folder with {inside}")
    if dataset == "avsbench":
        return make(root=root, size=size.size)
    if dataset == "vggsound":
        return make(root=root, size=size.size, val_share=0.05 if size.val_fold else 0.0)
    return make(root=root, size=size.size, val_fold=size.val_fold)


def _model(method: str, task: str, size: Preset) -> Any:
    """The method's configuration with the preset's trunks; AVGN is trained apart for each task (ledger 45)."""
    config = METHODS[method].config
    if hasattr(config, "mixtures"):
        config = replace(config, mixtures=task != "single")
    return replace(config, encoder=size.encoder) if hasattr(config, "encoder") else config


def table(methods: Sequence[str], task: str, *, seeds: Sequence[int], **choices: Any) -> list[Experiment]:
    """Every method with every seed; controls, which learn nothing, with the first alone."""
    made = [experiment(m, task, seed=s, **choices) for m in methods for s in seeds]
    return [e for e in made if e.trains or e.seed == seeds[0]]


SECTIONS = ("data", "audio", "model", "train")  # of an experiment, open to `override`


def override(experiment: Experiment, pairs: Sequence[str]) -> Experiment:
    """`experiment` with ``key=value`` pairs laid over it: ``train.steps=100``, ``model.scales=[3,4]``.

    Keys are dotted places under `SECTIONS`; ``audio=NAME`` starts from a row of `AUDIO`. ValueError for an unknown key,
    with the valid ones, and for a value of another type or out of bounds.
    """
    changes: dict[str, str] = {}
    for pair in pairs:
        key, equals, changes[key] = pair.partition("=")
        if not equals:
            raise ValueError(f"expected key=value, got {pair!r}")
    if (name := changes.pop("audio", None)) is not None:
        if name not in AUDIO:
            raise ValueError(f"audio: expected one of {', '.join(AUDIO)}, got {name!r}")
        experiment = replace(experiment, audio=AUDIO[name])
    valid = [key for section in SECTIONS for key in _keys(getattr(experiment, section), section)]
    for key in changes:
        if key not in valid:
            raise ValueError(_unknown(key, valid))
    return replace(experiment, **{s: _laid_over(getattr(experiment, s), changes, s) for s in SECTIONS})


def _keys(config: Any, place: str) -> list[str]:
    """Dotted names of all plain fields."""
    inner = [(getattr(config, f.name), f"{place}.{f.name}") for f in fields(config)]
    return [key for value, name in inner for key in (_keys(value, name) if is_dataclass(value) else [name])]


def _unknown(key: str, valid: Sequence[str]) -> str:
    near = get_close_matches(key, valid, 1) or [v for v in valid if v.split(".")[-1] == key.split(".")[-1]]
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    section = [v for v in valid if v.split(".")[0] == key.split(".")[0]]
    return f"unknown key {key!r}{hint}; valid: {', '.join(section or valid)}"


def _laid_over(config: Any, changes: Mapping[str, str], place: str) -> Any:
    """`config` with the values of those `changes` that lie at its `place` or below."""
    kinds, new = get_type_hints(type(config)), {}
    for f in fields(config):
        name, value = f"{place}.{f.name}", getattr(config, f.name)
        if is_dataclass(value):
            new[f.name] = _laid_over(value, changes, name)
        elif name in changes:
            new[f.name] = _read(name, changes[name], kinds[f.name])
    return replace(config, **new)


def _read(name: str, text: str, kind: Any) -> Any:
    """The value that `text` writes: a str, bool, int or float, or several of these, ``[3,4]`` or ``3,4``."""
    if kind is str:
        return text
    inner = get_args(kind)  # of tuple[int, ...] and the like
    try:
        values = json.loads(f"[{text.strip('()[] ').lower()}]")
    except json.JSONDecodeError:
        values = []
    count = len(values) if inner and inner[-1] is Ellipsis else len(inner) or 1
    if values and len(values) == count and all(_is(value, inner[0] if inner else kind) for value in values):
        return tuple(inner[0](value) for value in values) if inner else kind(values[0])
    expected = kind.__name__ if not inner else f"several of {inner[0].__name__}, such as [1,2]"
    raise ValueError(f"{name}: expected {expected}, got {text!r}")


def _is(value: Any, kind: type) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, int) or (kind is float and isinstance(value, float) and math.isfinite(value))
