"""Records of `make bench`: kept whole, shown whole, and their growth fitted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from m2vsl import records
from m2vsl.report import benched
from m2vsl.report.benched import Bench, Growth, Line
from m2vsl.report.tables import UNDEFINED

STEP = Line(
    suite="step",
    name="EZ-VSL step",
    samples=16,
    rounds=5,
    ours=(1.9, 2.0, 2.2),
    against="a plain EZ-VSL step",
    reference=(3.9, 4.0, 4.1),
    ratio=(1.9, 2.0, 2.1),
    goal=2.2,
    flops=4e11,
    bytes=1e10,
    product=0.75,
    copy=1.25,
)
ALONE = Line(suite="loader", name="synthetic", samples=32, rounds=5, ours=(0.2, 0.2, 0.3))
GROWTHS = (
    Growth("pictures, B", "MMC alone", (64, 128, 256), (0.5, 2.0, 8.0)),
    Growth("classes", "MMT", (1, 4), (1, 4)),
)


def bench(**changes: object) -> Bench:
    """A record as `make bench` writes it."""
    about = {**records.provenance(), "commit": "0123456789ab", "created": "2026-01-02T03:04:05+00:00"}
    made = Bench(
        lines=(STEP, ALONE),
        growths=GROWTHS,
        memory={"MMC of 256 pictures": 5.4},
        ceilings={"float32": 1e11, "copy": 1.5e10},
        threads=2,
        load=0.3,
        **about,
    )
    return replace(made, **changes)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = benched.save(bench(), tmp_path)
    assert path == tmp_path / "2026-01-02-0123456.json"
    assert repr(benched.load(path)) == repr(bench()), "NaN is not itself"
    assert benched.load(path).lines[0] == STEP and math.isnan(benched.load(path).lines[1].goal)
    assert path.read_text("utf-8").count("\n") > 10, "a line of its own for each line"


def test_records_come_the_oldest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2VSL_BENCHES", str(tmp_path))
    assert benched.find() == []
    later = bench(created="2026-02-01T00:00:00+00:00", commit="abcdefabcdef")
    for one in (later, bench()):
        benched.save(one)
    assert [one.name for one in benched.find()] == ["2026-01-02-0123456", "2026-02-01-abcdefa"]


@pytest.mark.parametrize("text", ["", "[]", '{"lines": []}', '{"lines": [{"speed": 1}], "growths": []}'])
def test_what_is_no_record_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(ValueError, match=r"odd\.json: not a record of `make bench`"):
        benched.find(tmp_path)


def test_every_line_is_in_the_table_and_what_was_not_counted_is_a_dash() -> None:
    frame = bench().frame()
    assert frame.loc["step", "EZ-VSL step"].tolist() == [
        "2000",
        "4000",
        "2 (1.9 to 2.1)",
        "2.2",
        "400",
        "10",
        "75 %",
        "125 %",
        "a plain EZ-VSL step",
    ]
    assert frame.loc["loader", "synthetic"].tolist()[1:] == [UNDEFINED] * 8
    caption = bench().caption
    assert "load 0.3 before" in caption and "100 GFLOP/s float32, 15.0 GB/s" in caption
    assert "MMC of 256 pictures: 5.4 GiB at most" in caption and "commit 0123456" in caption
    assert caption.split("<")[0] in bench()._repr_html_()


def test_a_goal_that_was_missed_is_said_to_be() -> None:
    assert (
        bench().told()
        == "- EZ-VSL step: 2 (1.9 to 2.1) times as fast, goal 2.2: **missed**; at the ceiling it would be 2.67."
    )
    assert bench(lines=(replace(STEP, product=math.nan),)).told().endswith("goal 2.2: **missed**.")
    assert replace(STEP, ratio=(2.1, 2.2, 2.3)).reached and ALONE.reached is None
    assert bench(lines=()).told() == "No goal."


def test_the_order_is_the_slope_of_the_logarithms() -> None:
    assert [round(one.order, 9) for one in GROWTHS] == [2.0, 1.0]
    assert Growth("x", "y", (1, 2, 4), (1.0, 1.0, 8.0)).last == pytest.approx(3)
    told = benched.grown(bench())
    assert "- pictures, B, 64 to 256: 0.5 to 8 s, order 2.00, between the two largest 2.00. MMC alone." in told
    axes = benched.growth(bench()).axes
    assert [ax.get_title() for ax in axes] == ["order 2.00, at last 2.00", "order 1.00, at last 1.00"]
    assert list(axes[0].lines[-1].get_ydata()) == [0.5, 2.0, 8.0]
    assert benched.grown(bench(growths=())) == "No record yet." and benched.growth(bench(growths=())).axes


def test_history_has_a_point_for_each_record_that_has_the_line() -> None:
    faster = replace(STEP, ratio=(2.2, 2.5, 2.6))
    later = bench(lines=(faster, replace(STEP, name="M2VSL step")), created="2026-03-04T00:00:00+00:00")
    benches = [bench(), later]
    ax, empty = benched.history(benches).axes
    assert ax.get_title() == "step" and not empty.axison
    lines = {one.get_label(): one.lines[0].get_data() for one in ax.containers}
    assert [list(values) for values in lines["EZ-VSL step"]] == [[0, 1], [2.0, 2.5]]
    assert [list(values) for values in lines["M2VSL step"]] == [[1], [2.0]]
    moved = benched.moved(benches)
    assert moved.loc["M2VSL step"].tolist() == [UNDEFINED, "2 (1.9 to 2.1)"]
    assert benched.history([]).axes
