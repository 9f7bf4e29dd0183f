"""The same pictures for all: each panel is the kept map of its method and source, or says why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch

from m2vsl import presets, records
from m2vsl.exam import SHOWN
from m2vsl.experiment import Experiment
from m2vsl.report import rivals

matplotlib.use("Agg")
METHODS = ("ots", "ez_vsl", "dsol")


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Records go into a folder of the test."""
    monkeypatch.setenv("M2VSL_RESULTS", str(tmp_path))
    return tmp_path


def made(task: str, seed: int = 0) -> list[Experiment]:
    """Three methods in the smoke preset."""
    return [presets.experiment(name, task, preset="smoke", seed=seed) for name in METHODS]


def corner(one: Experiment, name: str, sources: int) -> None:
    """Maps of which source s is hot in the left upper corner (s = 0) or in the right lower one."""
    maps = torch.zeros(SHOWN, sources, 16, 16 * sources)
    maps[:, 0, :3, :3] = 1
    maps[:, -1, -3:, -3:] = 1 if sources > 1 else 0
    records.save_maps(one.record_path(), maps, name)


def texts(ax: Any) -> list[str]:
    """What is written inside a panel."""
    return [text.get_text() for text in ax.texts]


@pytest.mark.parametrize(("task", "name", "sources"), [("single", "solo", 1), ("duet", "mixture", 2)])
def test_rows_are_sources_and_columns_are_methods(task: str, name: str, sources: int) -> None:
    experiments = made(task)
    corner(experiments[0], name, sources)
    experiments[1].record_path().write_text("{}")
    fig = rivals.same_pictures(experiments)
    fig.draw_without_rendering()
    axes = fig.axes
    assert len(axes) == SHOWN * sources * 4
    assert [ax.get_title() for ax in axes[:4]] == ["picture", "OTS", "EZ-VSL", "DSOL"]
    for row in range(0, len(axes), 4):
        drawn = torch.as_tensor(axes[row + 1].images[0].get_array()).sum(-1)  # bright where hot
        first, last = float(drawn[:8, :8].mean()), float(drawn[-8:, -8:].mean())
        assert (first > last) == (sources == 1 or row // 4 % 2 == 0)
        assert [texts(ax) for ax in axes[row + 2 : row + 4]] == [["no maps kept"], ["no record"]]
        assert not axes[row + 2].images and axes[row].get_ylabel()


def test_maps_are_those_of_seed_0_on_its_pictures() -> None:
    corner(made("single")[0], "solo", 1)
    zero, three = (rivals.same_pictures(made("single", seed)[:1]) for seed in (0, 3))
    assert [len(ax.texts) for ax in three.axes] == [0] * len(three.axes)
    for one, other in zip(zero.axes, three.axes, strict=True):
        assert (one.images[0].get_array() == other.images[0].get_array()).all()


def test_several_test_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="one test list, got synthetic duet smoke, synthetic single smoke"):
        rivals.same_pictures([*made("single"), *made("duet")])
    with pytest.raises(ValueError, match="one test list, got none"):
        rivals.same_pictures([])
