"""What every test may use."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from m2vsl import cli

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of local research data beside the checkout (``M2VSL_SHARED``); tests that need it skip without it."""
    place = Path(os.environ.get("M2VSL_SHARED", ROOT.parent / "shared"))
    if not place.is_dir():
        pytest.skip(f"local research data not present at {place} (set M2VSL_SHARED)")
    return place


@pytest.fixture(scope="session")
def photosound(shared: Path) -> Path:
    """Real photographs with masks and real recordings of 12 classes."""
    place = shared / "data" / "photosound"
    if not place.is_dir():
        pytest.skip(f"photosound not present at {place}")
    return place


@pytest.fixture
def m2vsl(capsys: pytest.CaptureFixture[str]) -> Callable[[str], tuple[int, str, str]]:
    """m2vsl("train x") -> (exit status, stdout, stderr)."""

    def call(line: str) -> tuple[int, str, str]:
        try:
            status = cli.main(shlex.split(line))
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capsys.readouterr()

    return call
