"""One flat loop for every method: it knows neither the data nor the model.

Stopping after any step and calling `train` again gives bit-identical weights on the CPU: a checkpoint holds weights,
optimizer, generators and the place in the epoch, and fetching data or validating draws nothing from the generators
that training draws from. Runs on Hugging Face Accelerate: a CPU, a GPU, or several under ``accelerate launch``.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from m2vsl import parallel, records
from m2vsl.localizer import Localizer, Stage
from m2vsl.processor import autocast, has_bfloat16
from m2vsl.training import checkpoint
from m2vsl.training.feed import BatchSource, Feed
from m2vsl.training.progress import History, Interrupts, Report, clock
from m2vsl.training.randomness import drawing_from, random_state, set_random_state
from m2vsl.types import Batch

_FREE = ("train.log_every", "train.checkpoint_every", "train.tensorboard")  # may differ when a run is resumed


@dataclass(frozen=True)
class TrainConfig:
    """How a method is trained."""

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

    def __post_init__(self) -> None:
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


def train(
    localizer: Localizer,
    batches_from: BatchSource,
    config: TrainConfig,
    run_dir: Path,
    *,
    validate: Callable[[], float] | None = None,
    progress: bool = True,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
) -> History:
    """Train `localizer` in place: go on from the newest checkpoint in `run_dir`, start where there is none.

    `validate` returns a score, higher is better, every ``eval_every`` steps and at the end of a stage; the weights
    with the best one are returned (ledger 44). `seed` decides what training itself draws; `about` (plain values) is
    kept in the checkpoints, and a run is not resumed under another one.

    Ctrl-C and SIGTERM end the step, save, and raise KeyboardInterrupt or SystemExit with a word on how to go on.
    Raises FloatingPointError for a loss that is not finite, OSError when a checkpoint cannot be written, ValueError
    for a run of another configuration or an epoch without batches.
    """
    run = _Run(localizer, batches_from, config, Path(run_dir), seed)
    run.start(about or {})
    now = run.history
    report = Report(run.folder, config.steps, now.step, show=progress, tensorboard=config.tensorboard)
    if config.precision == "bf16" and not has_bfloat16(run.device.type):
        report.say("bfloat16 would be emulated here, which is slow: float32 in its place")
    with Interrupts() as stop, report:
        for index, (stage, first, end) in enumerate(spans(localizer.stages, config.steps)):
            run.enter(index, stage, end)
            for batch in run.feed.until(lambda: run.ended or stop.asked is not None):
                run.update(batch, learning_rate(config, now.step - first, end - first))
                report.step()
                if run.due(config.log_every):
                    run.log(report, stage.name)
                if validate is not None and run.due(config.eval_every):
                    run.select(validate, report)
                if run.due(config.checkpoint_every):
                    run.save()
            if stop.asked:
                run.save()
                stop.leave(f"training stopped after step {now.step}; run the same again to go on from {run.folder}")
    run.finish()
    return now


def spans(stages: Sequence[Stage], steps: int) -> list[tuple[Stage, int, int]]:
    """Each stage with its first step and the step before which it ends; the shares need not add up to 1."""
    sums = list(accumulate(stage.share for stage in stages))
    ends = [round(steps * passed / sums[-1]) for passed in sums]
    return list(zip(stages, [0, *ends], ends, strict=False))


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """The step size of update `step` (from 0) of a stage of `steps` updates."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))


class _Run:
    """What a run carries from step to step. The order of things is in `train`."""

    def __init__(self, localizer: Localizer, feed: BatchSource, config: TrainConfig, folder: Path, seed: int) -> None:
        from accelerate import Accelerator

        self.accelerator = Accelerator(mixed_precision="no")  # precision is the run's own: one process may mix them
        self.device = self.accelerator.device
        self.localizer = localizer.to(self.device)
        if config.channels_last:
            localizer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config, self.folder, self.seed = config, folder, seed
        self.feed = Feed(feed, seed, self.device, config.channels_last)
        self.history, self.began = History(), time.perf_counter()
        self.model: Any = None
        self.optimizer: Any = None  # until there is something to learn
        self.window: dict[str, float] = {}  # sums over the steps since the last row of the log
        self.resumed: checkpoint.Checkpoint | None = None
        self.saved = -1  # the step of the newest checkpoint

    def start(self, about: Mapping[str, Any]) -> None:
        """Look for a checkpoint; without one, seed the generators."""
        from accelerate.utils import set_seed

        described = {"train": asdict(self.config), "method": type(self.localizer).__name__, "seed": self.seed}
        self.description = json.loads(json.dumps(records.plain({**described, "about": about}, digits=None)))
        newest = checkpoint.latest(self.folder)
        if newest is None:
            set_seed(self.seed)
            return
        self.resumed = checkpoint.load(newest)
        checkpoint.refuse_another(self.description, self.resumed.config["run"], newest, free=_FREE)
        state = self.resumed.state or {}
        self.history, self.window = History(**state["history"]), state["window"]
        self.feed.epoch, self.feed.index = state["epoch"], state["index"]
        self.saved = self.history.step
        self.began -= self.history.seconds

    def enter(self, index: int, stage: Stage, end: int) -> None:
        """Prepare stage `index`; when resuming into it or beyond, exactly as it was prepared then."""
        state = self.resumed.state if self.resumed else None
        replayed = state is not None and index <= state["stage"]
        if type(self.localizer).enter is not Localizer.enter:
            epoch = self._at_the_door(self.folder / f"stage-{index}", replayed)
            self.localizer.enter(stage, self.feed.whole(epoch))
            self.localizer.to(self.device)
        if not replayed:
            self.history.best, self.history.best_step = None, 0  # scores of two stages do not compare
        self.stage, self.end = index, end
        self.trainable = [p for p in self.localizer.parameters() if p.requires_grad]
        self.history.parameters = max(self.history.parameters, sum(p.numel() for p in self.trainable))
        self.localizer.train()
        if not self.trainable:  # a control, or a stage that only prepares
            self.history.step = max(self.history.step, end)
            return
        fused, decay = self.device.type in ("cpu", "cuda"), self.config.weight_decay
        adam = torch.optim.Adam(self.trainable, self.config.lr, weight_decay=decay, fused=fused)
        self.model, self.optimizer = self.accelerator.prepare(self.localizer, adam)
        if self.resumed and state and index == state["stage"]:
            checkpoint.restore(self.localizer, self.resumed.weights, self.folder)
            self.optimizer.load_state_dict(state["optimizer"])
            set_random_state(state["random"])
            self.resumed = None
        self.since = (self.history.step, time.perf_counter())  # for the time left

    @property
    def ended(self) -> bool:
        """The stage is over."""
        return self.history.step >= self.end

    def due(self, every: int) -> bool:
        """It is the turn of what happens at the end of a stage and, unless 0, `every` so many steps."""
        return self.ended or (every > 0 and self.history.step % every == 0)

    def _at_the_door(self, folder: Path, replayed: bool) -> int:
        """Keep what a stage is entered with, or bring it back: its preparation may draw, and look at the weights.

        Returns the epoch then.
        """
        if not replayed:
            self._write(folder.name, {"random": random_state(), "epoch": self.feed.epoch})
            return self.feed.epoch
        before = checkpoint.load(folder)
        state = before.state or {}
        checkpoint.restore(self.localizer, before.weights, folder)
        set_random_state(state["random"])
        return state["epoch"]

    def update(self, batch: Batch, rate: float) -> None:
        """One step of Adam. The losses are looked at before the weights change, so a NaN never reaches them."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with autocast(self.device.type, self.config.precision):
            losses = self.model(batch)
        each = torch.stack([loss.float() for loss in losses.values()])
        self.accelerator.backward(each.sum())
        values = dict(zip(losses, each.tolist(), strict=True))
        if not all(map(math.isfinite, values.values())):
            raise FloatingPointError(f"step {self.history.step + 1}: losses {values} on the samples {batch.keys}")
        if self.config.grad_clip:
            self.accelerator.clip_grad_norm_(self.trainable, self.config.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._count(values, len(batch))

    def _count(self, losses: Mapping[str, float], samples: int) -> None:
        now, clock_now = self.history, time.perf_counter()
        spent = clock_now - self.feed.asked_at
        now.step, now.samples, now.busy = now.step + 1, now.samples + samples, now.busy + spent
        now.seconds = clock_now - self.began
        news = {**losses, "loss": sum(losses.values()), "steps": 1, "samples": samples, "busy": spent}
        self.window = {name: self.window.get(name, 0.0) + value for name, value in news.items()}

    def log(self, report: Report, stage: str) -> None:
        """One row: the mean of each loss since the last one."""
        now, sums = self.history, self.window
        steps, rate = sums.pop("steps"), sums.pop("samples") / max(sums.pop("busy"), 1e-9)
        row = {"step": now.step, **{name: value / steps for name, value in sums.items()}, "seconds": now.seconds}
        self.window = {}
        now.curve.append(row)
        first, opened = self.since
        left = (self.config.steps - now.step) * (time.perf_counter() - opened) / (now.step - first)
        shown = {"loss": f"{row['loss']:.4f}", "samples/s": f"{rate:.1f}", "left": clock(left)}
        report.row({**row, "stage": stage, "epoch": self.feed.epoch, "samples_per_second": rate}, **shown)

    def select(self, validate: Callable[[], float], report: Report) -> None:
        """Ask for the score of the present weights and keep them if it is the best; draws nothing from training."""
        now = self.history
        self.localizer.eval()
        with drawing_from(self.seed), torch.no_grad():
            now.last = float(validate())
        self.localizer.train()
        better = math.isfinite(now.last) and (now.best is None or now.last > now.best)
        if better:
            now.best, now.best_step = now.last, now.step
            self._write(f"best-{now.step:06d}")
        now.seconds = time.perf_counter() - self.began
        row = {"step": now.step, "validation": now.last, "seconds": now.seconds}
        now.curve.append(row)
        report.row(row, validation=f"{now.last:.4f}" + " (best)" * better)

    def save(self) -> None:
        """A checkpoint from which the run can go on; the earlier one is removed when it is complete."""
        now, name = self.history, f"step-{self.history.step:06d}"
        if self.saved == now.step or self.optimizer is None:
            return
        state = {"stage": self.stage, "epoch": self.feed.epoch, "index": self.feed.index, "window": self.window}
        drawn = {"optimizer": self.optimizer.state_dict(), "random": random_state()}
        self._write(name, {**state, **drawn, "history": asdict(now)})
        self.saved = now.step
        if parallel.is_main():
            checkpoint.prune(self.folder, "step-", name)
            checkpoint.prune(self.folder, "best-", f"best-{now.best_step:06d}")

    def _write(self, name: str, state: Mapping[str, Any] | None = None) -> None:
        weights = self.localizer.state_dict()
        spoilt = [key for key, value in weights.items() if value.isnan().any()]
        if spoilt:
            raise FloatingPointError(f"step {self.history.step}: NaN in the weights, so not saved: {spoilt}")
        if parallel.is_main():
            described = {"run": self.description, "step": self.history.step}
            checkpoint.save(self.folder / name, weights, described, state)
        self.accelerator.wait_for_everyone()

    def finish(self) -> None:
        """The best weights, ready to be evaluated."""
        best = self.folder / f"best-{self.history.best_step:06d}"
        if self.history.best is not None and self.history.best_step != self.history.step:
            checkpoint.restore(self.localizer, checkpoint.load(best).weights, best)
        self.localizer.eval()
