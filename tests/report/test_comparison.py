"""Paper, ours, difference: subtracted where the pictures are the same, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from m2vsl.methods import METHODS
from m2vsl.metrics.protocols import PROTOCOLS
from m2vsl.metrics.tally import interval
from m2vsl.records import Record
from m2vsl.report import comparison, rows
from m2vsl.report.comparison import DAGGER, EZ_VSL, OTHER_DATA, compare, told
from m2vsl.report.paper import BENCHMARKS
from m2vsl.report.tables import NO_CLASSES, NO_RECORD, UNDEFINED, Column

_, SINGLE, _, DUET = BENCHMARKS
RATE = "solo/framewise-area50-oracle/ciou@0.5"
MINUS = "\N{MINUS SIGN}"
DIFFERENCE = f"ours {MINUS} paper"


def made(method: str, rate: float, seed: int = 0, dataset: str = "synthetic", n: int = 60) -> Record:
    numbers = {RATE: rate, "solo/framewise-area50-oracle/auc": rate + 0.1, "solo/oracle/ap": 0.5}
    return Record(
        method=method, dataset=dataset, task="single", preset="quick", seed=seed,
        experiment={"method": method, "data": {}}, metrics={**numbers, "solo/n_pictures": float(n)}, protocols={},
        n=n, ids="x", commit="0123456789", dirty=False, versions={}, hardware={}, created="",
    )  # fmt: skip


def some(dataset: str = "synthetic", n: int = 60) -> list[Record]:
    """Centre, the bound, and M2VSL with two seeds."""
    place = {"dataset": dataset, "n": n}
    few = [("centre", 0.2, 0), ("bound", 0.6, 0), ("m2vsl", 0.30, 0), ("m2vsl", 0.42, 1), ("ez_vsl", 0.1, 0)]
    return [made(*one, **place) for one in few]  # type: ignore[arg-type]


def test_of_other_data_nothing_is_subtracted() -> None:
    frame = compare(some(), SINGLE).frame()
    for score in SINGLE.scores:
        heads = [column[1:] for column in frame.columns if column[0] == score]
        assert heads == [("paper", "VGGSound-Single"), ("ours", "synthetic"), (DIFFERENCE, OTHER_DATA)]
        assert set(frame[score, DIFFERENCE, OTHER_DATA]) == {UNDEFINED}
    off = 100 * interval([0.30, 0.42]).half_width
    assert frame.loc["M2VSL", ("IoU@0.5", "ours", "synthetic")] == f"36.0 ± {off:.1f}"
    assert frame.loc["M2VSL", ("IoU@0.5", "paper", "VGGSound-Single")] == "46.8"


def test_of_the_same_pictures_the_difference_is_taken() -> None:
    same = compare(some("vggsound-single", 5158), SINGLE)
    frame = same.frame()
    off = 100 * interval([0.30, 0.42]).half_width
    column = ("IoU@0.5", DIFFERENCE, "same pictures")
    assert frame.loc["M2VSL", column] == f"{MINUS}10.8 ± {off:.1f}"
    assert frame.loc["Centre", column] == f"{MINUS}14.0"  # 20.0 of ours, 34.02 of all published boxes
    assert frame.loc["LVS", column] == UNDEFINED and frame.loc["Random", column] == UNDEFINED
    assert "the same pictures" in same.caption and "no difference" not in same.caption


def test_a_part_of_the_list_is_another_list() -> None:
    frame = compare(some("vggsound-single", 40), SINGLE).frame()
    column = ("IoU@0.5", DIFFERENCE, "subset (40 of 5158)")
    assert set(frame[column]) == {UNDEFINED}


def test_what_is_missing_says_so() -> None:
    frame = compare([], SINGLE).frame()
    assert set(frame["AP", "ours", NO_RECORD]) == {NO_RECORD}
    assert list(frame.index) == [METHODS[m].title for m in rows.methods()]
    paper = frame["AP", "paper", "VGGSound-Single"]
    assert paper["DMC"] == paper["SLAVC"] == paper["M2VSL+ (ours)"] == UNDEFINED and paper["OTS"] == "29.8"
    assert compare([], SINGLE).ours.caption == "No record yet."


def test_constants_are_in_brackets_and_guidance_is_marked() -> None:
    found = compare(some(), SINGLE)
    paper = found.frame()["IoU@0.5", "paper", "VGGSound-Single"]
    assert (paper["Centre"], paper["bound of the protocol"], paper["Oracle"]) == ("(34.0)", "(50.5)", UNDEFINED)
    assert paper["EZ-VSL"] == paper["EZ-VSL + OGL"] == f"38.9 {DAGGER}"
    html, text = found._repr_html_(), repr(found)
    assert EZ_VSL in text and "object guidance" in html and "The paper names no protocol" in html
    assert found.ours.caption in text


def test_the_protocol_decides_which_constant_stands_beside_the_paper() -> None:
    frames = {c: compare([], DUET, f"{c}-area50-oracle").frame() for c in ("framewise", "sourcewise")}
    column = ("CIoU@0.3", "paper", "VGGSound-Duet")
    assert [frame.loc["Centre", column] for frame in frames.values()] == ["(27.7)", "(60.2)"]
    assert [frame.loc["M2VSL", column] for frame in frames.values()] == ["35.1", "35.1"]


def test_each_stands_between_its_own_constant_and_its_own_ceiling() -> None:
    frame = compare(some(), SINGLE).standing()
    less, way = f"{MINUS} Centre", "of the way to the bound"
    rate = frame.xs("IoU@0.5", axis=1, level="score")
    paper, ours = (rate.xs(who, axis=1, level="number") for who in ("paper", "ours"))
    assert paper.loc["M2VSL", less] == "+12.8" and paper.loc["M2VSL", way] == "+77 %"  # (46.8 - 34.02) / 16.52
    assert paper.loc["DMC", less] == f"{MINUS}10.1" and paper.loc["DMC", way] == f"{MINUS}61 %"
    off = 100 * interval([0.30, 0.42]).half_width
    assert ours.loc["M2VSL", less] == f"+16.0 ± {off:.1f}" and ours.loc["M2VSL", way] == "+40 %"
    assert ours.loc["EZ-VSL", less] == f"{MINUS}10.0" and ours.loc["EZ-VSL", way] == f"{MINUS}25 %"
    assert ours.loc["LVS"].tolist() == [NO_RECORD, NO_RECORD]
    assert set(frame["AP", "paper", less]) == {UNDEFINED}  # no boxes have been scored so
    assert frame.loc["M2VSL", ("AP", "ours", way)] == UNDEFINED  # Centre and the bound are level there


def test_a_score_without_a_constant_on_either_side_is_left_out() -> None:
    assert list(dict.fromkeys(c[0] for c in compare([], SINGLE).standing().columns)) == ["IoU@0.5", "AUC", ""]


def test_a_map_without_classes_has_no_cap_whatever_a_record_holds() -> None:
    old = replace(made("ez_vsl", 0.1), task="duet", metrics={"mixture/oracle/cap": 0.5, "mixture/n_pictures": 6.0})
    frame = compare([old], DUET).frame()
    assert frame.loc["EZ-VSL", ("CAP", "ours", "synthetic")] == NO_CLASSES
    assert frame.loc["EZ-VSL", ("PIAP", "ours", "synthetic")] == UNDEFINED


def test_other_tasks_and_unknown_protocols_are_refused() -> None:
    with pytest.raises(ValueError, match="expected records of task duet, got single"):
        compare(some(), DUET)
    with pytest.raises(ValueError, match=r"expected protocol among framewise-area50-oracle, .* got 'area50'"):
        compare([], DUET, "area50")


@pytest.mark.parametrize(("task", "count"), [("single", 4), ("duet", 8)])
def test_every_protocol_with_a_rule_stands_beside_the_others(task: str, count: int) -> None:
    columns = comparison.protocols(task, "auc")
    names = [column.heading[1] for column in columns]
    assert len(set(names)) == count and set(names) <= set(PROTOCOLS)
    canvases = {name.split("-")[0] for name in names}
    assert canvases == ({"framewise"} if task == "single" else {"framewise", "sourcewise"})
    assert {name.split("-", 1)[1] for name in names} == {
        f"{rule}-{choice}" for rule in ("area50", "minmax05") for choice in ("oracle", "predicted")
    }


@pytest.mark.parametrize(("task", "which", "dsol"), [("single", "solo", "dsol-0.1"), ("duet", "mixture", "dsol-0.2")])
def test_every_published_evaluator_has_its_column(task: str, which: str, dsol: str) -> None:
    headings = {column.heading[1]: column.heading[2] for column in comparison.evaluators(task)}
    assert {"ezvsl", "lvs", "slavc", "avgn", "noprior", dsol} <= {n for n, s in headings.items() if s == "CIoU@0.3"}
    assert headings["tvsl-0.3"] == "mean IoU" and headings["avsbench"] == "F"
    assert {column.metric.split("/")[0] for column in comparison.evaluators(task)} == {which}


def test_heat_that_remains_is_no_success() -> None:
    columns = comparison.hearing("duet")
    assert [column.compares for column in columns] == [True] * 3 + [False] * 3
    assert columns[0].heading == ("one source sounds", "silence", "told apart from it")


def test_both_in_turn_are_told_and_heard() -> None:
    columns = comparison.interactive()
    assert {column.heading[0] for column in columns} == {"one source sounds, then the other: both found"}
    assert {column.heading[1] for column in columns} <= set(PROTOCOLS) and len(columns) == 4
    assert all(column.compares for column in columns)


def test_columns_that_no_record_has_are_left_out() -> None:
    columns = [Column(RATE), *comparison.SWAPPED["single"]]
    assert comparison.shown(some(), columns).columns == (Column(RATE),)
    assert comparison.shown([], columns).columns == tuple(columns)


@pytest.mark.parametrize("task", ["single", "duet"])
def test_the_swapped_sound_stands_beside_the_sound(task: str) -> None:
    metrics = {column.metric for column in comparison.SWAPPED[task]}
    silent = {metric for metric in metrics if "/swapped/" in metric}
    assert silent and {metric.replace("swapped/", "") for metric in silent} <= metrics


def test_a_column_in_words() -> None:
    words = told(comparison.shown(some(), [Column(RATE)]), Column(RATE))
    assert words.startswith("CIoU@0.5 (solos, framewise-area50-oracle): Centre scores 20.0, the best map 60.0.")
    assert "Above it: none; not above it: EZ-VSL, M2VSL; no record: Attention10k, " in words
    sure = [replace(r, metrics={**r.metrics, RATE: 0.36}) if r.method == "m2vsl" else r for r in some()]
    assert "Above it: M2VSL; not above it: EZ-VSL;" in told(comparison.shown(sure, [Column(RATE)]), Column(RATE))
    assert told(comparison.shown([], [Column(RATE)]), Column(RATE)).endswith(f"{NO_RECORD} for Centre.")


def test_a_difference_of_nothing_has_no_minus() -> None:
    assert comparison._signed(-0.04) == "+0.0" and comparison._signed(-0.06) == f"{MINUS}0.1"
