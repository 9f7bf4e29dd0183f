"""Methods are paired row by row, as they say; the bootstrap itself is tested with `m2vsl.metrics.statistics`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from m2vsl import records
from m2vsl.metrics.statistics import bootstrap
from m2vsl.records import Record
from m2vsl.report import paired
from m2vsl.report.paired import lead, leads, per_source

COLUMN = "framewise-matched-oracle"


def record(method: str, seed: int = 0) -> Record:
    return Record(
        method=method, dataset="synthetic", task="duet", preset="small", seed=seed, experiment={"method": method},
        metrics={}, protocols={}, n=2, ids="0", commit="0", dirty=False, versions={}, hardware={}, created="",
    )  # fmt: skip


def kept(
    root: Path, method: str, values: list[float], seed: int = 0, name: str = "mixture", keys: str = "abc"
) -> Record:
    """A record with rows beside it: two sources a picture, one more that is silent and counts for nothing."""
    made = record(method, seed)
    rows = []
    for n, value in enumerate(values):
        place = {"key": keys[n // 2], "source": n % 2, "sounds": True, COLUMN: value}
        rows += [place] if n % 2 == 0 else [place, {**place, "source": 2, "sounds": False, COLUMN: 0.9}]
    records.save(made, root)
    records.save_rows(made.path(root), rows, name)
    return made


def test_seeds_are_averaged_row_by_row_and_the_silent_left_out(tmp_path: Path) -> None:
    some = [kept(tmp_path, "lvs", [0.2, 0.4, 0.6, 0.8]), kept(tmp_path, "lvs", [0.4, 0.2, 0.6, 0.3], seed=1)]
    found = per_source(some, "mixture", COLUMN, root=tmp_path)
    assert found == pytest.approx({("a", 0): 0.3, ("a", 1): 0.3, ("b", 0): 0.6, ("b", 1): 0.55})
    success = per_source(some, "mixture", COLUMN, at=0.4, root=tmp_path)
    assert success == {("a", 0): 0.5, ("a", 1): 0.5, ("b", 0): 1.0, ("b", 1): 0.5}


def test_a_lead_is_of_the_same_sources_in_any_order() -> None:
    ours = {("a", 0): 0.9, ("a", 1): 0.5, ("b", 0): 0.4}
    rival = {("b", 0): 0.1, ("a", 1): 0.4, ("a", 0): 0.3}
    found, expected = lead(ours, rival, draws=200), bootstrap([0.6, 0.1, 0.3], [0, 0, 1], draws=200)
    assert vars(found) == pytest.approx(vars(expected))
    forth, back = lead(ours, rival), lead(dict(sorted(rival.items())), ours)
    assert (back.mean, back.low, back.high) == pytest.approx((-forth.mean, -forth.high, -forth.low))
    assert (forth.share, back.share) == (1.0, 0.0)
    with pytest.raises(ValueError, match=r"expected the same sources, got 1 .* \('b', 0\)"):
        lead(ours, {place: 0.0 for place in ours if place != ("b", 0)})


def test_a_picture_begins_where_its_first_source_sounds() -> None:
    in_turn = [("a-0", 0), ("a-1", 1), ("b-0", 0), ("b-1", 1), ("b-2", 2), ("c", 0)]
    assert paired._pictures(in_turn) == [0, 0, 1, 1, 1, 2]
    for odd in ([("a", 1)], [("a", 0), ("b", 1), ("c", 1)], [("b", 0), ("a", 1), ("a", 0)]):
        with pytest.raises(ValueError, match="expected the sources of a picture in order from 0"):
            paired._pictures(odd)


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    one = kept(tmp_path, "lvs", [0.1, 0.2])
    with pytest.raises(ValueError, match="expected framewise-area50-oracle for every row"):
        per_source([one], "mixture", "framewise-area50-oracle", root=tmp_path)
    with pytest.raises(FileNotFoundError):
        per_source([one], "one", COLUMN, root=tmp_path)
    with pytest.raises(ValueError, match="lvs: expected the same sources, got 4 that only some have"):
        per_source([one, kept(tmp_path, "lvs", [0.1, 0.2], seed=1, keys="z")], "mixture", COLUMN, root=tmp_path)
    with pytest.raises(ValueError, match=r"expected records of one method, got \['dmc', 'lvs'\]"):
        per_source([one, record("dmc")], "mixture", COLUMN, root=tmp_path)
    with pytest.raises(ValueError, match="expected each key and source of mixture once"):
        per_source([kept(tmp_path, "dmc", [0.1, 0.2, 0.3, 0.4], keys="aa")], "mixture", COLUMN, root=tmp_path)
    with pytest.raises(ValueError, match="for every row of mixture that sounds"):
        per_source([kept(tmp_path, "ots", [0.1, math.nan])], "mixture", COLUMN, root=tmp_path)


def test_the_table_of_leads(tmp_path: Path) -> None:
    found = [kept(tmp_path, "m2vsl", [0.5, 0.5, 0.7, 0.7]), kept(tmp_path, "lvs", [0.25, 0.25, 0.5, 0.5])]
    scores = [("mixture", COLUMN, None), ("mixture", COLUMN, 0.6)]
    frame = leads(found, ["m2vsl"], ["lvs", "dmc", "m2vsl"], scores, root=tmp_path)
    assert list(frame.index) == ["LVS", "DMC", "M2VSL"]
    assert list(frame.columns) == [
        ("M2VSL", f"mixture/{COLUMN}", "mean IoU"),
        ("M2VSL", f"mixture/{COLUMN}", "success at 0.6"),
    ]
    assert frame.iloc[0, 0] == "+22.5 (+20.0 to +25.0), 100%" and frame.iloc[0, 1].startswith("+50.0 (+0.0 to +100.0)")
    assert frame.iloc[1].tolist() == ["no record", "no record"] and frame.iloc[2].tolist() == ["", ""]
