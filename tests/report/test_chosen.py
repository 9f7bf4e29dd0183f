"""Figures 1 and 3: bars with their lines, and frames that a rule has chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from m2vsl import records
from m2vsl.methods import CONTROLS
from m2vsl.metrics.tally import Interval
from m2vsl.report import chosen
from m2vsl.report.tables import Column, Table

IOUS = {"cam": [0.1, 0.9, 0.4, 0.3, 0.8], "m2vsl": [0.5, 0.2, 0.6, 0.9, 0.1]}
AREAS = [0.2, 0.3, 0.0, 0.1, 0.4]  # the third frame has no truth
KEYS = ["a_1", "a_2", "b_1", "b_2", "c_1"]


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    """Records' places with rows and masks beside them."""
    found = {}
    for n, (method, ious) in enumerate(IOUS.items()):
        path = found[method] = tmp_path / f"{method}.json"
        rows = [{"key": k, "area": a, "avsbench/iou": i} for k, a, i in zip(KEYS, AREAS, ious, strict=True)]
        records.save_rows(path, rows, "solo-frames")
        masks = torch.full((5, 1, 4, 4), 0.1 * n) + torch.arange(5).view(5, 1, 1, 1) / 10
        records.save_maps(path, masks, "solo-frames")
    return found


def test_frames_stand_at_the_quantiles_of_one_method(paths: dict[str, Path]) -> None:
    found = chosen.by_quantile(paths, "solo", "cam", (0.0, 0.5, 1.0))
    assert [one.key for one in found] == ["a_1", "b_2", "a_2"], "by 0.1, 0.3, 0.8, 0.9; the middle of four is the lower"
    assert [one.place for one in found] == [0, 3, 1]
    assert found[1].ious == {"cam": pytest.approx(30.0), "m2vsl": pytest.approx(90.0)}
    assert float(found[1].masks["m2vsl"].mean()) == pytest.approx(0.4, abs=1e-3)
    other = chosen.by_quantile(paths, "solo", "m2vsl", (0.0, 1.0))
    assert [one.key for one in other] == ["c_1", "b_2"]


def test_a_frame_without_a_truth_is_never_shown(paths: dict[str, Path]) -> None:
    every = chosen.by_quantile(paths, "solo", "m2vsl", tuple(np.linspace(0, 1, 9)))
    assert {one.key for one in every} == {"a_1", "a_2", "b_2", "c_1"}


def test_methods_of_other_frames_are_refused(paths: dict[str, Path]) -> None:
    rows = [{"key": "other", "area": 0.1, "avsbench/iou": 0.1}]
    records.save_rows(paths["cam"], rows, "solo-frames")
    with pytest.raises(ValueError, match="expected the frames of m2vsl, got others of cam"):
        chosen.by_quantile(paths, "solo", "m2vsl")


def test_every_frame_is_a_row_with_the_truth_and_all_masks(paths: dict[str, Path]) -> None:
    found = chosen.by_quantile(paths, "solo", "cam", (0.0, 1.0))
    truth = torch.zeros(16, 16)
    truth[4:9, 3:12] = 1
    figure = chosen.qualitative(found, [torch.randn(3, 16, 16)] * 2, [truth] * 2)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == [
        "0 % of frames are worse",
        "CAM 10",
        "M2VSL 50",
        "100 % of frames are worse",
        "CAM 90",
        "M2VSL 20",
    ]
    bright, dim = (np.asarray(figure.axes[n].images[0].get_array()).mean() for n in (0, 1))
    assert dim < 0.5 * bright, "a mask of 0.1 shows nothing"
    assert all(ax.collections for ax in figure.axes), "the truth is outlined everywhere"


def test_a_bar_for_every_method_and_the_lines_of_its_own_pictures() -> None:
    column = Column("mixture/framewise-area50-oracle/ciou@0.3")
    methods = ("centre", "bound", "ez_vsl", "m2vsl", "m2vsl_plus")
    values = {"centre": 0.3, "bound": 0.6, "ez_vsl": 0.2, "m2vsl_plus": 0.5}
    cells = {(m, column.metric): Interval(v, 0.01, 5) for m, v in values.items()}
    made = Table((column,), methods, cells, dict.fromkeys(methods, 5), "duet, photosound, preset quick; more")
    figure = chosen.chart(made, column, {"centre": 27.7, "bound": 43.5, "ez_vsl": 20.5, "m2vsl": 35.1}, "VGGSound-Duet")
    left, right = figure.axes
    assert [round(bar.get_width(), 1) for bar in left.patches] == [20.5, 35.1]
    assert [round(bar.get_width(), 1) for bar in right.patches] == [20.0, 50.0]
    assert [t.get_text() for t in left.texts + right.texts] == ["no number", "no number"]
    assert [bool(bar.get_hatch()) for bar in left.patches] == [True, False], "ours are told apart without colour"
    for ax, lines in ((left, (27.7, 43.5)), (right, (30.0, 60.0))):
        verticals = [line for line in ax.lines if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2]
        assert {round(float(line.get_xdata()[0]), 1) for line in verticals} >= set(lines)
    assert [t.get_text() for t in left.get_yticklabels()] == ["EZ-VSL", "M2VSL", "M2VSL+ (ours)"]
    assert not {"centre", "bound"} - set(CONTROLS)
