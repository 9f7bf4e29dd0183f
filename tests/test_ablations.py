"""The grid: one change a row, nothing else; every step on the way to M2VSL+, and each run once."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from m2vsl import ablations, experiment, help, presets
from m2vsl.methods import PLUS
from m2vsl.model import M2VSLConfig

ROWS = [(group, row) for group, rows in ablations.GROUPS.items() for row in rows]


def flat(tree: dict[str, Any], place: str = "") -> dict[str, Any]:
    """Leaves by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{place}{key}.") if isinstance(value, dict) else {f"{place}{key}": value}
    return found


def test_the_groups_are_those_of_the_command_line() -> None:
    assert tuple(ablations.GROUPS) == help.GROUPS


@pytest.mark.parametrize(("group", "row"), ROWS, ids=lambda x: x if isinstance(x, str) else x.title)
def test_a_row_changes_what_it_names_and_nothing_else(group: str, row: ablations.Row) -> None:
    assert row.group == group
    made = ablations.experiment(row, "multi", preset="quick")
    base = presets.experiment(row.method, "multi", preset="quick", dataset="avsbench-like")
    named = {change.partition("=")[0] for change in row.changes}
    counted = {"train.batch_size", "train.steps", "train.warmup_steps", "train.eval_every"} if row.batch else set()
    mine, theirs = (flat(asdict(one)) for one in (made, base))
    assert {key for key in mine if mine[key] != theirs[key]} - counted == named


def test_batches_see_as_many_frames_or_make_as_many_updates() -> None:
    usual = presets.experiment("m2vsl", "multi", preset="quick", dataset="avsbench-like").train
    frames = usual.steps * usual.batch_size
    for row in ablations.BATCH:
        train = ablations.experiment(row, "multi").train
        assert train.batch_size == row.batch and abs(train.steps * row.batch - frames) <= row.batch / 2
        assert train.lr == usual.lr and train.warmup_steps / train.steps == pytest.approx(0.1, abs=0.05)
    assert {ablations.experiment(row, "multi").train.steps for row in ablations.AT_EQUAL_UPDATES} == {ablations.UPDATES}
    assert (
        ablations.experiment(ablations.BATCH[1], "multi").record_path()
        == ablations.experiment(ablations.MODULES[3], "multi").record_path()
    ), "the usual size is the usual run"
    assert usual.batch_size == ablations.USUAL


def test_the_steps_lead_from_the_paper_to_ours_one_field_after_the_other() -> None:
    changed = []
    for row in ablations.STEPS:
        config = asdict(ablations.experiment(row, "multi").model)
        changed.append(
            {k for k, v in asdict(M2VSLConfig(encoder=PLUS.encoder)).items() if config[k] != v} - {"encoder"}
        )
    assert changed[0] == set()
    assert all(before < after for before, after in pairwise(changed))
    departures = {k for k, v in asdict(M2VSLConfig(encoder=PLUS.encoder)).items() if asdict(PLUS)[k] != v}
    assert changed[-1] == departures
    assert ablations.STEPS[-1].method == "m2vsl_plus"


def test_table_4_has_the_papers_rows_on_our_own_trunk() -> None:
    neither, mmc, mmt, both, _ = (ablations.experiment(row, "multi") for row in ablations.MODULES)
    assert neither.method == "cam" and neither.model.last_stride == 2, "the grid of the others' last stage"
    assert neither.model.encoder == both.model.encoder
    assert (mmc.model.mmt, mmc.model.scales) == (False, (1, 2, 3, 4))
    assert (mmt.model.mmt, mmt.model.scales) == (True, (4,))
    assert both == presets.experiment("m2vsl", "multi", preset="quick", dataset="avsbench-like")


def test_a_run_that_several_groups_have_is_planned_once() -> None:
    plan = ablations.plan(seeds=(0, 1), tasks=("single", "multi"))
    paths = [one.record_path() for one in plan]
    assert len(set(paths)) == len(paths) < 4 * len(ROWS)
    with pytest.raises(ValueError, match=r"expected groups among modules, .*got nonsense"):
        ablations.plan(["nonsense"])


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_is_recorded_is_not_run_again(jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2VSL_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("M2VSL_RUNS", str(tmp_path / "runs"))
    plan = ablations.plan(["steps"], preset="smoke")[-4:-1]  # of one training
    assert len({one.run_dir() for one in plan}) == 1
    ablations.run_all(plan, jobs)
    stamps = [one.record_path().stat().st_mtime_ns for one in plan]
    record = experiment.run(plan[0])
    assert record.metrics["mixture/avsbench/miou"] > 0 and record.dataset == "avsbench-like-multi"
    ablations.run_all(plan, jobs)
    assert [one.record_path().stat().st_mtime_ns for one in plan] == stamps
