"""One flat loop for every method: it knows neither the data nor the model.

Stopping after any step and calling `train` again gives bit-identical weights on the CPU, with one thread: several may
add in either order. A checkpoint holds weights, optimizer, generators and the place in the epoch, and fetching data or
validating draws nothing from the generators that training draws from. Runs on Hugging Face Accelerate: a CPU, a GPU,
or several under ``torchrun`` or ``accelerate launch``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from m2vsl import parallel
from m2vsl.localizer import Localizer, Stage
from m2vsl.processor import has_bfloat16
from m2vsl.training import watch
from m2vsl.training.config import TrainConfig, learning_rate
from m2vsl.training.feed import BatchSource
from m2vsl.training.progress import OUT_OF_TIME, History, Interrupts, Report
from m2vsl.training.state import Run


def train(
    localizer: Localizer,
    batches_from: BatchSource,
    config: TrainConfig,
    run_dir: Path,
    *,
    validate: Callable[[], float] | None = None,
    whole: BatchSource | None = None,
    progress: bool = True,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
    max_hours: float = 0.0,
    profile: int = 0,
) -> History:
    """Train `localizer` in place: go on from the newest checkpoint in `run_dir`, start where there is none.

    `validate` returns a score, higher is better, every ``eval_every`` steps and at the end of a stage; the weights
    with the best one are returned (ledger 44). `seed` decides what training itself draws; `about` (plain values) is
    kept in the checkpoints, and a run is not resumed under another one. `profile`: steps that a trace is kept of.

    Of several processes each calls this, and `batches_from` gives its own part of every batch; `whole` gives all of
    it, for `Localizer.enter`. The main process validates and writes. A run may go on with another number of processes.

    Ctrl-C, SIGTERM and `max_hours` (0 = no end) end the step, save, and raise KeyboardInterrupt or SystemExit (143, or
    `OUT_OF_TIME`) with a word on how to go on. Raises FloatingPointError for a loss that is not finite, and keeps the
    batch; MemoryError with what to lower; OSError when a checkpoint cannot be written; ValueError for a run of another
    configuration or an epoch without batches.
    """
    began = time.monotonic()
    parallel.start()
    run = Run(localizer, batches_from, whole, config, Path(run_dir), seed)
    run.start(about or {})
    now, trace = run.history, watch.Trace(run.folder, profile)
    report = Report(run.folder, config.steps, now.step, show=progress, tensorboard=config.tensorboard)
    if config.precision == "bf16" and not has_bfloat16(run.device.type):
        report.say("bfloat16 would be emulated here, which is slow: float32 in its place")
    with Interrupts() as stop, report:
        for index, (stage, first, end) in enumerate(spans(localizer.stages, config.steps)):
            run.enter(index, stage, end)
            for batch in run.feed.until(lambda: run.ended or run.stops(stop)):
                if max_hours and time.monotonic() - began > 3600 * max_hours:
                    stop.asked = stop.asked or OUT_OF_TIME
                trace.step()
                run.update(batch, learning_rate(config, now.step - first, end - first), stop=stop.asked is not None)
                trace.close()
                report.step()
                if run.due(config.log_every):
                    run.log(report, stage.name)
                if validate is not None and run.due(config.eval_every):
                    run.select(validate, report)
                if run.due(config.checkpoint_every):
                    run.save()
            if run.stops(stop):
                run.save()
                stop.leave(f"training stopped after step {now.step}; run the same again to go on from {run.folder}")
    run.finish()
    return now


def spans(stages: Sequence[Stage], steps: int) -> list[tuple[Stage, int, int]]:
    """Each stage with its first step and the step before which it ends; the shares need not add up to 1."""
    sums = list(accumulate(stage.share for stage in stages))
    ends = [round(steps * passed / sums[-1]) for passed in sums]
    return list(zip(stages, [0, *ends], ends, strict=False))
