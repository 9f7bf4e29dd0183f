"""What a change is worth: differences seed by seed, from records and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m2vsl import ablations, records
from m2vsl.records import Record
from m2vsl.report import ablated
from m2vsl.report.ablated import Ablation
from m2vsl.report.tables import NO_RECORD, UNDEFINED

MIOU = {0: 0.30, 1: 0.34, 2: 0.38}


def keep(row: ablations.Row, values: dict[int, float], ids: str = "abc") -> None:
    """Records of a row with an mIoU for each seed, and an F twice as large."""
    for seed, value in values.items():
        made = ablations.experiment(row, "multi", seed=seed)
        metrics = {"mixture/avsbench/miou": value, "mixture/avsbench/f": 2 * value}
        record = Record(
            **{k: getattr(made, k) for k in ("method", "task", "preset", "seed")},
            dataset=made.source,
            experiment=made.tree(),
            metrics=metrics,
            protocols={},
            n=200,
            ids=ids,
            seconds=30.0,
            **records.provenance(),
        )
        assert records.save(record) == made.record_path()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2VSL_RESULTS", str(tmp_path))


def scales() -> Ablation:
    return ablated.ablation("scales", ("multi",))


def test_a_difference_is_taken_seed_by_seed() -> None:
    usual = ablations.SCALES[-1]
    keep(usual, MIOU)
    keep(ablations.SCALES[0], {0: 0.25, 1: 0.30, 2: 0.31, 4: 0.9})
    made = scales()
    worth = made.change(0, "multi", "mIoU")
    assert worth is not None and worth.n == 3
    differences = np.array([-5.0, -4.0, -7.0])
    assert worth.mean == pytest.approx(differences.mean())
    assert worth.half_width == pytest.approx(4.302653 * differences.std(ddof=1) / 3**0.5, rel=1e-4)
    assert made.score(0, "multi", "mIoU").mean == pytest.approx(44.0)  # type: ignore[union-attr]
    assert made.change(3, "multi", "mIoU") is None, "the row that the group starts from"
    frame = made.frame()
    assert list(frame.index) == [row.title for row in ablations.SCALES]
    column = ("all sources sound", "mIoU")
    assert frame.loc["4", (*column, "worth")].startswith("\N{MINUS SIGN}5.3 ± ")
    assert frame.loc["3, 4", (*column, "ours")] == NO_RECORD
    assert frame.loc["1, 2, 3, 4", (*column, "worth")] == UNDEFINED
    assert "7 runs, 4 minutes" in made.caption and "list abc" in made.caption


def test_only_what_the_interval_is_sure_of_is_called_better_or_worse() -> None:
    keep(ablations.SCALES[-1], MIOU)
    keep(ablations.SCALES[0], {s: v - 0.1 for s, v in MIOU.items()})
    keep(ablations.SCALES[1], {s: v + 0.1 + 0.01 * s for s, v in MIOU.items()})
    keep(ablations.SCALES[2], {0: 0.5})
    told = scales().told()
    assert (
        "mIoU. Better: 3, 4 (+11.0 ± 2.5). Worse: 4 (\N{MINUS SIGN}10.0 ± 0.0). Cannot be told: 2, 3, 4 (+20.0)."
        in told
    )


def test_a_step_is_held_against_the_row_above() -> None:
    for n, row in enumerate(ablations.STEPS[:3]):
        keep(row, {0: 0.1 * (n + 1) ** 2, 1: 0.1 * (n + 1) ** 2})
    made = ablated.ablation("steps", ("multi",))
    assert [made.start(n) for n in range(3)] == [None, 0, 1]
    found = [made.change(n, "multi", "F") for n in (1, 2)]
    assert [round(one.mean, 6) for one in found if one] == [60.0, 100.0]


def test_the_paper_stands_beside_table_4_and_nowhere_else() -> None:
    frame = ablated.ablation("modules", ("multi",)).frame()
    paper = frame["all sources sound", "mIoU", "paper"]
    assert paper.tolist() == ["8.76", "30.92", "31.28", "35.26", UNDEFINED]
    assert "paper" not in scales().frame().columns.get_level_values(2)
    assert ablated.ablation("modules").caption == "No record yet."


def test_rows_of_different_lists_are_refused_and_so_is_an_unknown_group() -> None:
    keep(ablations.SCALES[0], MIOU)
    keep(ablations.SCALES[1], MIOU, ids="other")
    with pytest.raises(ValueError, match="scales, multi: expected rows of one test list, got abc, other"):
        scales()
    with pytest.raises(ValueError, match="expected a group among modules"):
        ablated.ablation("nonsense")


def test_figure_4_shows_every_size_that_is_recorded_and_says_so_in_words() -> None:
    for row in ablations.BATCH[:4]:
        keep(row, {seed: value + row.batch / 1000 for seed, value in MIOU.items()})
    keep(ablations.AT_EQUAL_UPDATES[0], {0: 0.2})
    made = [
        (name, ablated.ablation(group, ("multi",))) for name, group in (("frames", "batch"), ("updates", "updates"))
    ]
    figure = ablated.by_batch(made)
    ax = figure.axes[0]
    lines = {line.get_label(): line for line in ax.containers}
    assert set(lines) == {"mIoU, frames", "F, frames", "mIoU, updates", "F, updates"}
    x, y = lines["mIoU, frames"].lines[0].get_data()
    assert list(x) == [8, 16, 32, 64] and y[0] == pytest.approx(34.8)
    told = ablated.told(made)
    assert "equal" not in told and "frames: mIoU" in told and "64 is best" in told and "updates: mIoU" in told


def test_worths_are_drawn_for_the_rows_that_have_one() -> None:
    for row in ablations.SCALES:
        keep(row, MIOU)
    keep(ablations.SCALES[0], {s: v - 0.1 for s, v in MIOU.items()})
    figure = ablated.worths(scales())
    points = [c.lines[0].get_data() for c in figure.axes[0].containers]
    assert sorted(round(float(x[0]), 6) for x, _ in points) == [-20.0, -10.0, 0.0, 0.0, 0.0, 0.0]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [row.title for row in ablations.SCALES]


def test_another_preset_has_its_own_records() -> None:
    keep(ablations.SCALES[0], MIOU)
    other = ablated.ablation("scales", ("multi",), preset="smoke")
    assert other.score(0, "multi", "mIoU") is None
    assert replace(scales(), group="scales").score(0, "multi", "mIoU") is not None
