"""One ledger for all benchmarks; with ``--record``, as `make bench` has it, it becomes a record in ``data/bench``."""

from __future__ import annotations

from collections.abc import Iterator

import measure
import pytest
import torch

from m2vsl.processor import kept_memory
from m2vsl.report import benched

KEPT = pytest.StashKey[measure.Ledger]()
ENDED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)  # a missed goal is recorded, half a run is not


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write a record into data/bench")


@pytest.fixture(scope="session")
def ledger(request: pytest.FixtureRequest) -> Iterator[measure.Ledger]:
    """What is measured, on two cores, with the memory of a run (`kept_memory`)."""
    before = torch.get_num_threads()
    torch.set_num_threads(measure.CORES)
    made = request.config.stash[KEPT] = measure.Ledger()
    most = ", ".join(f"{kind} {value / 1e9:.1f}" for kind, value in made.ceilings.items())
    print(f"\nceilings of {measure.CORES} cores, GFLOP/s and GB/s: {most}; load {made.load:.1f}", end="")
    with kept_memory():
        yield made
    torch.set_num_threads(before)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if session.config.getoption("--record") and exitstatus in ENDED and KEPT in session.config.stash:
        print(f"\nrecord: {benched.save(session.config.stash[KEPT].bench())}")
