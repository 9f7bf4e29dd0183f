"""What a run carries from step to step. The order of things is in `m2vsl.training.loop.train`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch

from m2vsl import parallel, records
from m2vsl.localizer import Localizer, Stage
from m2vsl.processor import autocast
from m2vsl.training import checkpoint, watch
from m2vsl.training.config import TrainConfig
from m2vsl.training.feed import BatchSource, Feed
from m2vsl.training.progress import History, Interrupts, Report, clock
from m2vsl.training.randomness import drawing_from, random_state, set_random_state
from m2vsl.types import Batch

_FREE = ("train.log_every", "train.checkpoint_every", "train.tensorboard")  # may differ when a run is resumed


class Run:
    """A localizer, its optimizer, and its place in the data."""

    def __init__(
        self,
        localizer: Localizer,
        source: BatchSource,
        whole: BatchSource | None,
        config: TrainConfig,
        folder: Path,
        seed: int,
    ) -> None:
        from accelerate import Accelerator

        # precision is the run's own: one process may mix them; of processes on CPUs it has to be told
        self.accelerator = Accelerator(mixed_precision="no", cpu=parallel.world() > 1 and not torch.cuda.is_available())
        self.device = self.accelerator.device
        self.localizer = localizer.to(self.device)
        if config.channels_last:
            localizer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config, self.folder, self.seed = config, folder, seed
        localizer.gather = config.gather
        if parallel.world() > 1 and config.sync_norm:
            parallel.synchronised(self.localizer)
        self.feed = Feed(source, seed, self.device, config.channels_last, whole or source)
        self.history, self.began = History(), time.perf_counter()
        self.model: Any = None
        self.optimizer: Any = None  # until there is something to learn
        self.window: dict[str, float] = {}  # sums over the steps since the last row of the log
        self.resumed: checkpoint.Checkpoint | None = None
        self.saved = -1  # the step of the newest checkpoint
        self.stopping = False  # some process was asked to stop: all do

    def start(self, about: Mapping[str, Any]) -> None:
        """Look for a checkpoint; without one, seed the generators."""
        from accelerate.utils import set_seed

        described = {"train": records.settled(self.config), "method": type(self.localizer).__name__, "seed": self.seed}
        self.description = json.loads(json.dumps(records.plain({**described, "about": about}, digits=None)))
        newest = checkpoint.latest(self.folder)
        if newest is None:
            set_seed(self.seed, device_specific=True)  # what is dropped differs from process to process
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
        if self.config.compiler:
            self.localizer.compile(backend=self.config.compiler)
        self.model, self.optimizer = self.accelerator.prepare(self.localizer, adam)
        if self.resumed and state and index == state["stage"]:
            checkpoint.restore(self.localizer, self.resumed.weights, self.folder)
            self.optimizer.load_state_dict(state["optimizer"])
            self._draw_on(state)
            self.resumed = None
        self.since = (self.history.step, time.perf_counter())  # for the time left

    def _draw_on(self, state: Mapping[str, Any]) -> None:
        """As the generators of this process stood; of another number of processes, anew."""
        from accelerate.utils import set_seed

        each = [state["random"], *state.get("others", [])]
        if len(each) == parallel.world():
            set_random_state(each[parallel.rank()])
        else:
            set_seed(self.seed + self.history.step, device_specific=True)

    def stops(self, stop: Interrupts) -> bool:
        """Some process was asked to stop: at once if there is one alone, else once all have heard it in `update`."""
        return self.stopping or (parallel.world() == 1 and stop.asked is not None)

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

    def update(self, batch: Batch, rate: float, *, stop: bool = False) -> None:
        """One step of Adam. The losses are looked at before the weights change, so a NaN never reaches them.

        stop: this process was asked to stop, which the others learn with the losses.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with watch.enough_memory(batch):
            with autocast(self.device.type, self.config.precision):
                losses = self.model(batch)
            each = torch.stack([loss.float() for loss in losses.values()])
            self.accelerator.backward(each.sum())
        *means, asked = parallel.mean(torch.cat([each, each.new_tensor([stop])])).tolist()
        values, self.stopping = dict(zip(losses, means, strict=True)), asked > 0
        if not all(map(math.isfinite, values.values())):
            self._give_up(values, batch)
        if self.config.grad_clip:
            self.accelerator.clip_grad_norm_(self.trainable, self.config.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._count(values, len(batch))

    def _give_up(self, values: Mapping[str, float], batch: Batch) -> NoReturn:
        step = self.history.step + 1
        path = watch.keep(batch, self.folder / f"broken-{step:06d}-{parallel.rank()}.pt")
        where = watch.first_broken(self.localizer, batch)
        raise FloatingPointError(
            f"step {step}: losses {values} on the samples {batch.keys}: {where} broke first; kept in {path}"
        )

    def _count(self, losses: Mapping[str, float], samples: int) -> None:
        now, clock_now, samples = self.history, time.perf_counter(), samples * parallel.world()
        spent = clock_now - self.feed.asked_at
        now.step, now.samples, now.busy = now.step + 1, now.samples + samples, now.busy + spent
        now.seconds = clock_now - self.began
        news = {
            **losses,
            "loss": sum(losses.values()),
            "steps": 1,
            "samples": samples,
            "busy": spent,
        }
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
        now, own = self.history, self.localizer
        own.eval()
        own.gather = False  # the main process alone asks
        with drawing_from(self.seed), torch.no_grad():
            score = float(validate()) if parallel.is_main() else math.nan
        own.gather = self.config.gather
        own.train()
        now.last = parallel.of_each(score)[0]
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
        learnt = float(sum(p.detach().double().abs().sum() for p in self.trainable))
        if len(set(parallel.of_each(learnt))) > 1:
            raise RuntimeError(f"step {now.step}: the processes have learnt apart, their weights differ; not saved")
        random, *others = parallel.of_each(random_state())
        drawn = {"optimizer": self.optimizer.state_dict(), "random": random, "others": others}
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
        self.history.peak_bytes = max(self.history.peak_bytes, watch.peak_bytes())
        self.localizer.eval()
