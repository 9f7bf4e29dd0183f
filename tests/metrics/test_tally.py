import csv
import math

import pytest
import torch

from m2vsl.metrics.protocols import HEADLINE
from m2vsl.metrics.tally import Tally, as_csv, column, interval, write_csv


def source(iou, sounds=True, **further):
    return {"key": "a", "source": 0, "class": 0, "sounds": sounds, "area": 0.2, HEADLINE.name: iou} | further


def summary(sources, pictures=({"key": "a"},)):
    tally = Tally([HEADLINE])
    tally.add(sources, pictures)
    return tally.summary()


def test_success_is_per_source_and_silence_apart():
    found = summary([source(0.4), source(0.1), source(0.0, area=0.0), source(0.6, sounds=False)])
    name = HEADLINE.name
    assert found.scalars[f"{name}/ciou@0.1"] == pytest.approx(2 / 3)
    assert found.scalars[f"{name}/ciou@0.3"] == pytest.approx(1 / 3)
    assert found.scalars[f"{name}/iou"] == pytest.approx(0.5 / 3)
    assert found.scalars[f"swapped/{name}/ciou@0.5"] == 1
    assert dict(found.counts) == {"pictures": 1, "sources": 3, "silent": 1, "empty_truths": 1}
    assert found.n == 1


def test_undefined_values_are_left_out_and_undefined_scalars_absent():
    rows = [source(0.4, **{"oracle/ap": 0.5, "oracle/half": None}), source(0.4, **{"oracle/ap": None})]
    found = summary(rows, [{"key": "a", "oracle/cap": 0.5}, {"key": "b", "oracle/cap": None}])
    assert found.scalars["oracle/ap"] == found.scalars["oracle/cap"] == 0.5
    assert not {"oracle/half", "predicted/ap", "heard_accuracy", "oracle/piap"} & set(found.scalars)
    assert all(math.isfinite(value) for value in found.scalars.values())


def test_macro_is_first_within_the_class():
    aps = [(0, 1.0), (0, 0.5), (3, 0.25), (-1, 0.9)]
    found = summary([source(0.1, **{"class": c, "oracle/ap": ap}) for c, ap in aps])
    assert found.scalars["oracle/cap_macro"] == (0.75 + 0.25) / 2
    assert found.scalars["oracle/ap"] == pytest.approx(2.65 / 4)


def test_heard_is_a_share_of_pictures():
    pictures = [{"key": str(i), "heard": flag} for i, flag in enumerate([True, True, False, True])]
    assert summary([source(0.1)], pictures).scalars["heard_accuracy"] == 0.75


def test_tallies_join_by_their_rows():
    parts = [Tally([HEADLINE]), Tally([HEADLINE])]
    for part, iou in zip(parts, (0.2, 0.4), strict=True):
        part.add([source(iou)], [{"key": str(iou)}])
    parts[0].add(parts[1].sources, parts[1].pictures)
    assert parts[0].summary().scalars[f"{HEADLINE.name}/iou"] == pytest.approx(0.3)


def test_nothing_to_summarise_is_said():
    with pytest.raises(ValueError, match="expected at least one picture"):
        Tally([HEADLINE]).summary()


def test_rows_survive_the_file(tmp_path):
    rows = [source(1 / 3), source(0.25, **{"oracle/ap": None, "oracle/half": 1.0})]
    write_csv(rows, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert float(read[0][HEADLINE.name]) == 1 / 3
    assert read[0]["oracle/half"] == read[1]["oracle/ap"] == ""
    assert as_csv([]) == "\n"


def test_column_keeps_what_is_defined():
    assert torch.equal(column([{"x": 1}, {"x": None}, {}, {"x": True}], "x"), torch.tensor([1.0, 1.0]).double())


def test_interval_is_students():
    found = interval([1.0, 2.0, 3.0])  # t(0.975, 2) = 4.302653, s = 1
    assert (found.mean, found.n) == (2, 3)
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert (found.low, found.high) == (found.mean - found.half_width, found.mean + found.half_width)
    assert interval([1.0, 2.0, 3.0], confidence=0.5).half_width < found.half_width


def test_one_seed_has_no_interval_and_none_no_mean():
    assert math.isnan(interval([0.4]).half_width)
    assert interval([0.4]).mean == 0.4
    with pytest.raises(ValueError, match="at least one value"):
        interval([])
