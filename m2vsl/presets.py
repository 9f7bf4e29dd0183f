"""Sizes with names: what each preset runs, for how long, on what.

A preset promises hardware and time; the numbers it gave are in ``data/results/<preset>/``. The command of any of them:
``m2vsl train METHOD/TASK --preset NAME --dataset NAME --seed N``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from m2vsl.audio import AUDIO, AudioConfig
from m2vsl.encoders import EncoderConfig
from m2vsl.experiment import DATASETS, METHODS, Experiment
from m2vsl.training.loop import TrainConfig


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


PRESETS: dict[str, Preset] = {
    "smoke": Preset(
        "does it run: seconds on two CPU cores, no number of it means anything",
        size=64,
        encoder=EncoderConfig(audio_width=8, dim=64),
        train=TrainConfig(steps=4, batch_size=4, lr=1e-3, precision="bf16", channels_last=True, log_every=2),
        test_length=8,
        val_length=8,
    ),
    "quick": Preset(
        "a first look: about a minute on two CPU cores",
        size=112,
        encoder=EncoderConfig(dim=256),
        train=TrainConfig(
            steps=120, batch_size=16, lr=1e-3, schedule="cosine", precision="bf16", channels_last=True, eval_every=60
        ),
        test_length=60,
        val_length=32,
    ),
    "small": Preset(
        "the recorded numbers of this book: a few minutes on two CPU cores",
        size=224,
        encoder=EncoderConfig(dim=256),
        train=TrainConfig(
            steps=400, batch_size=16, lr=1e-3, schedule="cosine", precision="bf16", channels_last=True, eval_every=100
        ),
    ),
    "paper": Preset(
        "the paper's sizes, 100 epochs of 128: a data-centre GPU and days; not run here",
        size=224,
        encoder=EncoderConfig(visual="resnet18", freeze=False, audio_width=64),
        train=TrainConfig(steps=112_500, batch_size=128, precision="bf16", channels_last=True, eval_every=1125),
        test_length=5158,
        val_length=512,
    ),
}


def experiment(
    method: str, task: str, *, preset: str = "quick", dataset: str = "synthetic", data_root: str = "", seed: int = 0
) -> Experiment:
    """The experiment that a preset makes of a method, a task and a data set."""
    for name, value, known in (("preset", preset, PRESETS), ("method", method, METHODS), ("dataset", dataset, DATASETS)):
        if value not in known:
            raise ValueError(f"expected {name} among {', '.join(known)}, got {value!r}")
    size = PRESETS[preset]
    return Experiment(
        method=method,
        dataset=dataset,
        task=task,
        preset=preset,
        seed=seed,
        data=_data(dataset, data_root, size),
        audio=size.audio,
        model=_model(method, size),
        train=size.train,
    )


def _data(dataset: str, root: str, size: Preset) -> Any:
    make = DATASETS[dataset][1]
    if dataset == "synthetic":
        return make(size=size.size, test_length=size.test_length, val_length=size.val_length)
    if not root:
        raise ValueError(f"data set {dataset!r} needs data_root: the folder with images/, masks/ and audio/")
    return make(root=root, size=size.size)


def _model(method: str, size: Preset) -> Any:
    config = METHODS[method].config
    return replace(config, encoder=size.encoder) if hasattr(config, "encoder") else config


def table(methods: Sequence[str], task: str, *, seeds: Sequence[int], **choices: Any) -> list[Experiment]:
    """Every method with every seed; controls, which learn nothing, with the first alone."""
    made = [experiment(m, task, seed=s, **choices) for m in methods for s in seeds]
    return [e for e in made if e.trains or e.seed == seeds[0]]
