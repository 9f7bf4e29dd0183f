"""Reference values of published evaluators (tests/golden/README.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Mapping[str, np.ndarray]]:
    """The arrays of tests/golden/<name>.npz."""
    return lambda name: dict(np.load(GOLDEN / f"{name}.npz"))
