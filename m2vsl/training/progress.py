"""What a training run shows and keeps while it runs: a bar or plain lines, ``log.jsonl``, TensorBoard if asked.

And how it is stopped: `Interrupts` turns ctrl-C and SIGTERM into a request that the loop answers after its step.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

from m2vsl import parallel, records

OUT_OF_TIME = 75  # exit status of a run that is to go on: "temporary failure, try again" (sysexits.h)


@dataclass
class History:
    """What happened; complete when `train` returns."""

    # rows {step, loss, <losses>, seconds}, means since the last row, or {step, validation, seconds}
    curve: list[dict[str, Any]] = field(default_factory=list)
    step: int = 0  # weight updates so far
    samples: int = 0  # samples seen, by all processes
    seconds: float = 0.0  # wall time, validation included, pauses between interrupted runs not
    busy: float = 0.0  # seconds of it spent on steps, data included
    parameters: int = 0  # trainable numbers
    peak_bytes: int = 0  # the most memory in use: of the GPU, or of this process without one
    best: float | None = None  # highest validation score of the last stage; None = never validated
    best_step: int = 0  # when; the weights of that step are the ones returned
    last: float | None = None  # validation score of the last step; ledger 44 asks for both

    @property
    def samples_per_second(self) -> float:
        """Samples per second of training, data included, validation not."""
        return self.samples / self.busy if self.busy else 0.0


class Report:
    """Rows of a run, as a bar on a terminal, as lines elsewhere (a notebook's output must read well afterwards)."""

    def __init__(self, folder: Path, steps: int, start: int, *, show: bool, tensorboard: bool) -> None:
        main = parallel.is_main()
        self.steps, self.log, self.bar, self.board = steps, folder / "log.jsonl", None, None
        self.write, self.show = main, show and main
        if main:
            folder.mkdir(parents=True, exist_ok=True)
            _keep_until(self.log, start)
        if main and tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ImportError("tensorboard=True needs the package: pip install 'm2vsl[tensorboard]'") from error
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
        if self.show and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True)

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        for open_one in (self.bar, self.board):
            if open_one is not None:
                open_one.close()

    def step(self) -> None:
        """One step was made."""
        if self.bar is not None:
            self.bar.update()

    def say(self, words: str) -> None:
        """A line for whoever watches."""
        if self.show:
            print(words, flush=True)

    def row(self, row: Mapping[str, Any], **shown: str) -> None:
        """Keep `row` (it has a "step") in the log; show the words of `shown`."""
        if self.write:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(records.plain(row)) + "\n")
        if self.board is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self.board.add_scalar(name, value, row["step"])
        if self.bar is not None:
            self.bar.set_postfix({k: v for k, v in shown.items() if k != "left"}, refresh=False)
        elif self.show:
            words = " | ".join(f"{v} left" if k == "left" else f"{k} {v}" for k, v in shown.items())
            print(f"step {row['step']:>{len(str(self.steps))}}/{self.steps} | {words}", flush=True)


class Interrupts:
    """While open, the first SIGINT or SIGTERM only sets `asked`; a second SIGINT raises KeyboardInterrupt at once.

    A step is never cut in two: half of the weights updated could not be resumed.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there alone
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None and number == signal.SIGINT:
            raise KeyboardInterrupt("stopped at once; resuming starts from the last checkpoint")
        self.asked = number

    def leave(self, message: str) -> NoReturn:
        """End as was asked: KeyboardInterrupt with `message`; for SIGTERM exit status 143, out of time 75."""
        status = {signal.SIGTERM: 128 + signal.SIGTERM, OUT_OF_TIME: OUT_OF_TIME}.get(self.asked or 0)
        if status is None:
            raise KeyboardInterrupt(message)
        print(message, file=sys.stderr, flush=True)
        raise SystemExit(status)


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, minutes first where there is no hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _keep_until(log: Path, step: int) -> None:
    """Drop the rows that a killed run wrote after its last checkpoint: they are about to be made again."""
    if not log.exists():
        return
    kept = [line for line in log.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
    records.write_aside(log, "".join(line + "\n" for line in kept).encode())


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return float("inf")  # cut off by the kill
