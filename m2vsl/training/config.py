"""How a method is trained: steps, rates, precision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class TrainConfig:
    """How a method is trained."""

    # fields younger than some records: no part of an experiment at their default
    LATER: ClassVar[frozenset[str]] = frozenset({"gather", "sync_norm", "sounds_on_device", "compiler"})
    steps: int = 600  # weight updates, all stages together; ledger 40 (the paper: 100 epochs)
    batch_size: int = 32  # samples per step, all processes together; ledger 42 (the paper: 128)
    lr: float = 1e-4  # Adam's step size, whatever the batch size; ledger 56
    weight_decay: float = 0.0  # L2 penalty inside of Adam; ledger 54: none
    schedule: str = "constant"  # or "cosine", down to 0 at the end of a stage; ledger 54
    warmup_steps: int = 0  # steps of linear rise at the start of a stage; ledger 54: none
    grad_clip: float = 0.0  # largest norm of the gradient; 0 = no clipping
    precision: str = "fp32"  # or "bf16": autocast, where the processor has it; similarities and losses stay float32
    channels_last: bool = False  # memory order of images and convolutions
    eval_every: int = 0  # steps between validations; 0 = at the end of each stage only; ledger 44
    checkpoint_every: int = 200  # steps between checkpoints; 0 = at the end of each stage only
    log_every: int = 20  # steps that one row of the log averages
    tensorboard: bool = False  # write TensorBoard events beside the log
    sounds_on_device: bool = False  # spectrograms and their stripes are made where the model is, not by the loader
    compiler: str = ""  # backend of torch.compile, such as "inductor"; "" = none, which is faster on a processor
    gather: bool = True  # negatives of all processes; false, as published code has it: of each process alone; ledger 42
    sync_norm: bool = True  # batch normalisation over all processes; false: over each one's samples; ledger 42

    def __post_init__(self) -> None:
        if self.precision == "fp16":
            raise ValueError("precision: fp16 ends at 65,504 and overflows here; expected bf16, which has fp32's range")
        for name, valid in {"schedule": ("constant", "cosine"), "precision": ("fp32", "bf16")}.items():
            if getattr(self, name) not in valid:
                raise ValueError(f"{name}: expected one of {valid}, got {getattr(self, name)!r}")
        for name, least in {
            "steps": 1,
            "batch_size": 1,
            "log_every": 1,
            "eval_every": 0,
            "checkpoint_every": 0,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """The step size of update `step` (from 0) of a stage of `steps` updates."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))
