"""The loss curve of a run while it runs, from the log that every run writes; also of a run in another process.

    with live.curve(experiment):
        run(experiment)

draws while the cell works, and leaves one picture behind. Who watches takes no part: a run with a watcher and one
without are the same to the last bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from threading import Event, Thread
from typing import Any

from IPython.display import Markdown, display

from m2vsl import records
from m2vsl.experiment import Experiment
from m2vsl.methods import METHODS
from m2vsl.report import figures

PANELS = {"loss": 1, "validation": 2}  # and from how many rows on: one point is no curve


def rows(folder: Path) -> list[dict[str, Any]]:
    """What the log of the run in `folder` has so far; empty if there is none. A line half written is left for later."""
    log = folder / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def drawn(experiment: Experiment) -> Any:
    """The losses of its run so far, of a finished one as recorded; words where there is nothing yet."""
    found, path = rows(experiment.run_dir()), experiment.record_path()
    if path.exists():  # the log may be on another machine
        found = [dict(row) for row in records.load(path).history] or found
    panels = [name for name, least in PANELS.items() if sum(name in row for row in found) >= least]
    title = f"{METHODS[experiment.method].title}, seed {experiment.seed}"
    return figures.curves({title: found}, panels) if panels else Markdown("*No step is logged yet.*")


@contextmanager
def curve(experiment: Experiment, every: float = 1.0) -> Iterator[None]:
    """Inside, `drawn` is shown and brought up to date all `every` seconds, and once more at the end."""
    shown, over = display(drawn(experiment), display_id=True), Event()

    def watch() -> None:
        seen = 0
        while not over.wait(every):
            if (now := len(rows(experiment.run_dir()))) != seen:
                seen = now
                shown.update(drawn(experiment))

    watcher = Thread(target=copy_context().run, args=(watch,), daemon=True)  # the context knows the cell
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        shown.update(drawn(experiment))
