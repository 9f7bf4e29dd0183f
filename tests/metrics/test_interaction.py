"""A map follows the sound, ignores it, or is right for one of two sounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from m2vsl.metrics.interaction import interaction, interactive, swapped_gap, turns
from m2vsl.metrics.protocols import EVERY
from m2vsl.metrics.statistics import Part


def test_both_turns_have_to_be_right() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.uniform(size=50).tolist(), generator.uniform(size=50).tolist()
    found = interactive(first, second)
    for level in (0.1, 0.3, 0.5):
        both = sum(a >= level and b >= level for a, b in zip(first, second, strict=True))
        assert found.scalars[f"ciou@{level}"] == pytest.approx(both / 50)
    reached = [sum(a >= 0.05 * k and b >= 0.05 * k for a, b in zip(first, second, strict=True)) for k in range(21)]
    assert found.scalars["auc"] == pytest.approx((sum(reached) - (reached[0] + reached[-1]) / 2) * 0.05 / 50)
    assert found.scalars["iou"] == pytest.approx(sum(map(min, first, second)) / 50)
    assert found.n == 50 and interactive(second, first) == found


def test_edges_of_interaction() -> None:
    assert interactive([0.5], [1.0]).scalars["ciou@0.5"] == 1
    assert interactive([0.5], [1.0], at=[0.5], strict=True).scalars["ciou@0.5"] == 0
    assert interactive(torch.ones(3), torch.ones(3)).scalars == {
        "ciou@0.1": 1, "ciou@0.3": 1, "ciou@0.5": 1, "auc": pytest.approx(1), "iou": 1,
    }  # fmt: skip
    assert interactive([], []) == Part(0, {})


def test_turns_pair_by_picture_in_the_order_of_the_rows() -> None:
    pictures = [4, 2, 2, 0, 4, 0]
    first, second = turns([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], pictures)
    expected = {0: (0.4, 0.6), 2: (0.2, 0.3), 4: (0.1, 0.5)}  # the row that comes first is the first turn
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [expected[picture] for picture in (0, 2, 4)]
    assert [len(half) for half in turns([], [])] == [0, 0]


@pytest.mark.parametrize(("pictures", "got"), [([0, 0, 1], "1 of picture 1"), ([2, 2, 2], "3 of picture 2")])
def test_a_picture_has_two_turns(pictures: list[int], got: str) -> None:
    with pytest.raises(ValueError, match=f"expected two turns of each picture, got {got}"):
        turns([0.1, 0.2, 0.3], pictures)


def test_the_gap_tells_ears_from_eyes() -> None:
    ours, other = [0.6, 0.4, 0.5], [0.1, 0.2, 0.0]
    assert swapped_gap(ours, other) == pytest.approx(0.4)
    assert swapped_gap(other, ours) == pytest.approx(-0.4)
    assert swapped_gap([0.7, 0.2], [0.2, 0.7]) == 0  # one map for both sounds
    assert swapped_gap([0.5], [0.1, 0.2, 0.3]) == pytest.approx(0.3)


def test_what_is_no_score_is_refused_by_name() -> None:
    for name, call in (
        ("iou", lambda odd: turns([odd, 0.1], [0, 0])),
        ("first_iou", lambda odd: interactive([odd], [0.1])),
        ("second_iou", lambda odd: interactive([0.1], [odd])),
        ("sounding", lambda odd: swapped_gap([odd], [0.1])),
        ("silent", lambda odd: swapped_gap([0.1], [odd])),
    ):
        for odd in (math.nan, math.inf):
            with pytest.raises(ValueError, match=f"expected finite {name} of shape"):
                call(odd)
    with pytest.raises(ValueError, match="expected two IoU of each picture, got 1 and 2"):
        interactive([0.1], [0.1, 0.2])
    with pytest.raises(ValueError, match="expected one picture per IoU, got 1 of 2"):
        turns([0.1, 0.2], [0])
    with pytest.raises(ValueError, match="expected sounding and silent sources, got 1 and 0"):
        swapped_gap([0.1], [])


def test_the_turns_of_an_evaluation_are_those_that_follow_one_another() -> None:
    def row(source: int, iou: float, sounds: bool = True) -> dict[str, object]:
        return {"key": f"{iou}", "source": source, "sounds": sounds, "lvs": iou, "ezvsl": None}

    rows = [row(0, 0.6), row(1, 0.9, sounds=False), row(1, 0.2), row(0, 0.8, sounds=False)]  # a picture, twice
    rows += [row(0, 0.7)]  # its two sources are of one class: it has one turn
    rows += [row(0, 0.5), row(1, 0.9, sounds=False), row(1, 0.9)]
    found = interaction(rows, [EVERY["lvs"], EVERY["ezvsl"]])  # type: ignore[arg-type]
    assert found["interaction/lvs/ciou@0.5"] == 0.5 and found["interaction/lvs/iou"] == pytest.approx(0.35)
    assert not any("ezvsl" in name for name in found), "some rows have none"
    assert interaction([], [EVERY["lvs"]]) == interaction(rows[4:5], [EVERY["lvs"]]) == {}  # type: ignore[arg-type]
