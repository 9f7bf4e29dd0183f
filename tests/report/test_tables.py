"""Tables: every cell from records, rows comparable, what is missing said."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from m2vsl import records
from m2vsl.metrics.tally import interval
from m2vsl.records import Record
from m2vsl.report.tables import ABOVE, DUET, LISTENING, NO_CLASSES, NO_RECORD, SINGLE, UNDEFINED, Column, marks, table

CIOU = Column("mixture/framewise-area50-oracle/ciou@0.3")
HALF = Column("one/oracle/half")
SILENT = Column("one/swapped/oracle/half")


def made(method: str, ciou: float, seed: int = 0, **more: float) -> Record:
    numbers = {CIOU.metric: ciou, "mixture/n_sources": 20.0, "mixture/n_pictures": 10.0}
    return Record(
        method=method, dataset="synthetic", task="duet", preset="small", seed=seed,
        experiment={"seed": seed, "method": method, "data": {"size": 224, "train_length": 9}},
        metrics=numbers | {k.replace("__", "/"): v for k, v in more.items()}, protocols={}, n=10,
        ids=records.id_hash(["a", "b"]), commit="0123456789", dirty=False, versions={}, hardware={},
        created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


@pytest.fixture
def found() -> list[Record]:
    """Centre once, EZ-VSL at its level with one seed above and one below, M2VSL well above; three seeds."""
    ours = [made("m2vsl", value, seed) for seed, value in enumerate((0.50, 0.52, 0.51))]
    return [made("centre", 0.3), *(made("ez_vsl", v, s) for s, v in enumerate((0.28, 0.34))), *ours]


def test_a_cell_is_the_mean_and_interval_over_the_seeds(found: list[Record]) -> None:
    made_table = table(found, [CIOU], ["centre", "m2vsl"])
    expected = interval([0.50, 0.52, 0.51])
    assert made_table.cells["m2vsl", CIOU.metric] == expected
    assert made_table.cell("m2vsl", CIOU) == f"51.0 ± {100 * expected.half_width:.1f} {ABOVE}"
    assert made_table.cell("centre", CIOU) == "30.0"
    assert made_table.means().loc["m2vsl", CIOU.metric] == pytest.approx(0.51)


def test_above_centre_means_with_the_whole_interval(found: list[Record]) -> None:
    made_table = table(found, [CIOU])
    assert made_table.above("m2vsl", CIOU)
    assert made_table.cells["ez_vsl", CIOU.metric].mean > 0.3 and not made_table.above("ez_vsl", CIOU)
    assert not made_table.above("centre", CIOU)
    assert not table([r for r in found if r.method != "centre"], [CIOU]).above("m2vsl", CIOU)
    single = table([made("centre", 0.3), made("random", 0.301)], [CIOU])
    assert single.above("random", CIOU) and not single.above("oracle", CIOU)


def test_on_the_silent_source_more_is_not_better() -> None:
    rows = [made("centre", 0.3, one__swapped__oracle__half=0.5), made("m2vsl", 0.3, one__swapped__oracle__half=0.9)]
    assert not table(rows, [SILENT]).above("m2vsl", SILENT)


def test_what_is_missing_is_said(found: list[Record]) -> None:
    rows = [replace(r, metrics={**r.metrics, HALF.metric: 0.9}) if r.method == "m2vsl" else r for r in found]
    frame = table(rows, [CIOU, HALF], ["centre", "m2vsl", "m2vsl_plus"]).frame()
    assert frame.loc["M2VSL+ (ours)"].tolist() == [NO_RECORD, NO_RECORD, "", "labels, mixtures"]
    assert frame.loc["Centre"].tolist() == ["30.0", UNDEFINED, "1", "nothing"]
    assert frame.loc["M2VSL"].tolist()[1:3] == ["90.0 ± 0.0", "3"]


def test_a_number_is_what_a_cell_shows(found: list[Record]) -> None:
    cap = Column("mixture/oracle/cap")
    made_table = table([replace(r, metrics={**r.metrics, cap.metric: 0.5}) for r in found], [CIOU, cap])
    assert made_table.number("m2vsl", CIOU) == made_table.cells["m2vsl", CIOU.metric]
    assert made_table.number("m2vsl", cap) == interval([0.5] * 3) and made_table.cell("m2vsl", cap).startswith("50.0")
    assert made_table.number("ez_vsl", cap) is None and made_table.cell("ez_vsl", cap) == NO_CLASSES
    assert made_table.number("random", CIOU) is None and made_table.cell("random", CIOU) == NO_RECORD


def test_a_seed_without_the_score_does_not_enter_its_mean(found: list[Record]) -> None:
    rows = [*found, made("random", math.nan), made("random", 0.2, 1)]
    cell = table(rows, [CIOU]).cells["random", CIOU.metric]
    assert (cell.mean, cell.n) == (0.2, 1)


def test_no_records_at_all_is_a_table_too() -> None:
    empty = table([], DUET)
    assert (empty.frame().iloc[:, : len(DUET)] == NO_RECORD).all(axis=None)
    assert empty.caption == "No record yet."


def test_every_column_names_list_protocol_and_score() -> None:
    assert CIOU.heading == ("all sources sound", "framewise-area50-oracle", "CIoU@0.3")
    assert SILENT.heading == ("one source sounds, scored on the silent ones", "oracle", "right half")
    assert Column("solo/oracle/ap").heading == ("solos", "oracle", "AP")
    assert Column("mixture/heard_accuracy").heading == ("all sources sound", UNDEFINED, "classes right")
    for columns in (SINGLE, DUET, LISTENING):
        assert len({c.heading for c in columns}) == len(columns)


def test_the_caption_says_what_it_rests_on(found: list[Record]) -> None:
    made_table = table(found, [CIOU])
    for part in ("duet, synthetic", "preset small", "n = 10", "20 sources in 10 pictures", found[0].ids, "0123456"):
        assert part in made_table.caption
    html, text = made_table._repr_html_(), repr(made_table)
    assert made_table.caption in text and found[0].ids in html and "framewise-area50-oracle" in html


@pytest.mark.parametrize(
    ("dataset", "full", "mark"),
    [("synthetic", 0, "synthetic"), ("photosound", 10, "photosound"), ("vggss", 5158, "vggss, subset (10 of 5158)")],
)
def test_marks(dataset: str, full: int, mark: str) -> None:
    assert marks(replace(made("centre", 0.3), dataset=dataset), full) == mark


@pytest.mark.parametrize(
    "other",
    [
        {"ids": records.id_hash(["a", "c"])},
        {"dataset": "photosound"},
        {"task": "multi"},
        {"experiment": {"seed": 0, "method": "random", "data": {"size": 112, "train_length": 9}}},
    ],
)
def test_rows_of_different_lists_are_refused(found: list[Record], other: dict) -> None:
    with pytest.raises(ValueError, match=r"expected rows of one test list .* random"):
        table([*found, replace(made("random", 0.2), **other)], [CIOU])


def test_what_only_training_sees_may_differ(found: list[Record]) -> None:
    other = {"seed": 0, "method": "random", "data": {"size": 224, "train_length": 99, "solo_share": 0.5}}
    assert table([*found, replace(made("random", 0.2), experiment=other)], [CIOU]).cell("random", CIOU) == "20.0"


def test_configurations_and_seeds_are_not_mixed(found: list[Record]) -> None:
    with pytest.raises(ValueError, match="m2vsl: expected records of one configuration, got 2"):
        table([*found, replace(made("m2vsl", 0.2, 5), experiment={"seed": 5, "lr": 1.0})], [CIOU])
    with pytest.raises(ValueError, match=r"m2vsl: expected each seed once, got \[0, 0, 1, 2\]"):
        table([*found, made("m2vsl", 0.2, 0)], [CIOU])


def test_unknown_names_are_refused(found: list[Record]) -> None:
    with pytest.raises(ValueError, match=r"no record has mixture/ciou; they have mixture/framewise"):
        table(found, [Column("mixture/ciou")])
    with pytest.raises(ValueError, match=r"expected methods among centre, .* got nobody"):
        table(found, [CIOU], ["nobody"])
