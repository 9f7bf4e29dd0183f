"""What a score rests on is what loops over pictures, rows and classes give."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from m2vsl import records
from m2vsl.metrics import statistics
from m2vsl.metrics.protocols import HEADLINE
from m2vsl.metrics.statistics import (
    Lead,
    Part,
    bootstrap,
    bootstrap_interval,
    by_class,
    by_size,
    scores,
    subset,
)
from m2vsl.metrics.tally import Tally, as_csv

NAME = HEADLINE.name


def slow_bootstrap(
    differences: list[float], pictures: list[int], draws: int, seed: int
) -> tuple[float, float, float, float]:
    """The same by loops: draw pictures, gather their sources, average."""
    names = sorted(set(pictures))
    generator = np.random.default_rng(seed)
    means = []
    for row in generator.integers(0, len(names), (draws, len(names))):
        got = [d for drawn in row for d, p in zip(differences, pictures, strict=True) if p == names[drawn]]
        means.append(math.fsum(got) / len(got))
    low, high = np.quantile(means, [0.025, 0.975])
    return math.fsum(differences) / len(differences), low, high, sum(m > 0 for m in means) / draws


@pytest.mark.parametrize("portion", [2**21, 50])  # all at once, and in portions that do not divide the draws
def test_it_is_the_loop(portion: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_PORTION", portion)
    generator = np.random.default_rng(3)
    pictures = [p for p in range(12) for _ in range(1 + p % 3)]
    differences = (0.1 + generator.normal(size=len(pictures))).tolist()
    found = bootstrap(differences, pictures, draws=301, seed=5)
    assert (found.mean, found.low, found.high, found.share) == pytest.approx(
        slow_bootstrap(differences, pictures, 301, 5)
    )
    assert found.pictures == 12


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    generator, hits = np.random.default_rng(0), 0
    for trial in range(300):
        values = generator.normal(0.3, 1.0, size=60)
        found = bootstrap(values, list(range(60)), draws=400, seed=trial)
        hits += found.low <= 0.3 <= found.high
    assert 0.90 <= hits / 300 <= 0.98


def test_sources_of_a_picture_stay_together() -> None:
    generator = np.random.default_rng(1)
    values = np.repeat(generator.normal(size=40), 4)  # four sources that say the same: forty observations
    together = bootstrap(values, list(np.repeat(np.arange(40), 4)))
    apart = bootstrap(values, list(range(160)))
    assert together.high - together.low == pytest.approx(2 * (apart.high - apart.low), rel=0.15)


def test_what_cannot_be_resampled_is_refused() -> None:
    for differences, pictures in (([], []), ([1.0], [0, 1]), ([1.0, math.nan], [0, 1])):
        with pytest.raises(ValueError, match="expected one finite difference per source"):
            bootstrap(differences, pictures)


def test_the_interval_of_one_method_is_the_loop_and_takes_keys_too() -> None:
    generator = np.random.default_rng(4)
    pictures = [p for p in range(9) for _ in range(1 + p % 2)]
    values = generator.uniform(size=len(pictures)).tolist()
    found = bootstrap_interval(values, pictures, draws=301, seed=2)
    assert (found.mean, found.low, found.high) == pytest.approx(slow_bootstrap(values, pictures, 301, 2)[:3])
    assert found == bootstrap_interval(values, [f"clip {p}" for p in pictures], draws=301, seed=2)
    assert found.pictures == 9
    narrow = bootstrap_interval(values, pictures, draws=301, seed=2, confidence=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_an_interval_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one finite value per source, got 3 of 3 sources, 2 of them not"):
        bootstrap_interval([1.0, math.nan, math.inf], [0, 1, 2])
    with pytest.raises(ValueError, match="expected at least one draw, got 0"):
        bootstrap_interval([1.0], [0], draws=0)
    with pytest.raises(ValueError, match="expected a confidence between 0 and 1, got 95"):
        bootstrap([1.0], [0], confidence=95)


def test_a_lead_is_told_in_points_of_per_cent() -> None:
    assert str(Lead(-0.021, -0.05, 0.012, 0.1, 60)) == "−2.1 (−5.0 to +1.2), 10%"  # noqa: RUF001


def source(iou: float | None, pixels: float = 2000, frame: int = 224 * 224, **further: Any) -> dict[str, Any]:
    return {"key": "a", "source": 0, "class": 0, "sounds": True, "area": pixels / frame, NAME: iou} | further


def slow_scores(values: list[float]) -> dict[str, float]:
    """Success, area under the curve by trapezoids and mean, value by value."""
    reached = [sum(v >= 0.05 * k for v in values) / len(values) for k in range(21)]
    auc = sum(0.05 * (low + high) / 2 for low, high in pairwise(reached))
    rates = {f"ciou@{t:g}": sum(v >= t for v in values) / len(values) for t in (0.1, 0.3, 0.5)}
    return rates | {"auc": auc, "iou": math.fsum(values) / len(values)}


def many(n: int = 60) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    return [
        source(float(iou), int(pixels), **{"class": int(label), "key": str(i)})
        for i, (iou, pixels, label) in enumerate(
            zip(generator.uniform(size=n), generator.integers(0, 50177, n), generator.integers(-1, 4, n), strict=True)
        )
    ]


def test_sizes_are_the_loop() -> None:
    rows = many()
    ends = [0, 32**2, 96**2, 144**2, 1e9]
    for i, (size, part) in enumerate(by_size(rows, NAME).items()):
        values = [row[NAME] for row in rows if ends[i] <= round(row["area"] * 50176) < ends[i + 1]]
        assert part.n == len(values)
        assert part.scalars == pytest.approx(slow_scores(values) if values else {}), size


@pytest.mark.parametrize("frame", [224 * 224, 64 * 64])
def test_an_edge_belongs_to_the_larger_size_whatever_rounding_does(frame: int) -> None:
    for edge, below, above in ((32**2, "small", "medium"), (96**2, "medium", "large"), (144**2, "large", "huge")):
        for pixels, size in ((edge - 1, below), (edge, above)):
            for frames in (1, 2, 9):
                row = source(0.5, pixels, 224 * 224 * frames)
                found = by_size([row], NAME, frames=frames)
                assert {name for name, part in found.items() if part.n} == {size}, (pixels, frames)
    quarter = source(0.5, frame / 4, frame)
    assert by_size([quarter], NAME)["large"].n == 1  # 12,544 pixels of a frame of 224
    assert by_size([quarter], NAME, frame_pixels=64 * 64)["medium"].n == 1


def test_an_empty_size_has_no_numbers_and_an_empty_truth_is_a_small_failure() -> None:
    found = by_size([source(0.0, 0), source(0.4, 900)], NAME)
    assert list(found) == ["small", "medium", "large", "huge"]
    assert found["small"] == scores([0.0, 0.4]) and found["small"].scalars["ciou@0.1"] == 0.5
    assert all(found[size] == Part(0, {}) for size in ("medium", "large", "huge"))
    assert all(part == Part(0, {}) for part in by_size([], NAME).values())


def test_parts_weigh_back_to_the_whole() -> None:
    rows = many()
    tally = Tally([HEADLINE])
    tally.add(rows, [{"key": "a"}])
    whole = tally.summary().scalars
    for parts in (by_size(rows, NAME).values(), by_class(rows, NAME).parts.values()):
        for scalar in ("ciou@0.3", "auc", "iou"):
            mean = sum(part.n * part.scalars[scalar] for part in parts if part.n) / len(rows)
            assert mean == pytest.approx(whole[f"{NAME}/{scalar}"])


def test_classes_are_the_loop_and_macro_weighs_them_alike() -> None:
    rows = many()
    names = ["bell", "cat", "drum", "flute", "never"]
    found = by_class(rows, NAME, names)
    assert list(found.parts) == ["bell", "cat", "drum", "flute", "unknown"]
    for label, name in enumerate([*names[:4], "unknown"]):
        values = [row[NAME] for row in rows if row["class"] == (label if label < 4 else -1)]
        assert found.parts[name].n == len(values) > 0
        assert found.parts[name].scalars == pytest.approx(slow_scores(values))
    known = [found.parts[name].scalars["auc"] for name in names[:4]]
    assert found.macro.n == 4 and found.macro.scalars["auc"] == pytest.approx(sum(known) / 4)
    assert list(by_class(rows, NAME).parts) == ["0", "1", "2", "3", "unknown"]


def test_classes_come_by_number_not_by_letter() -> None:
    rows = [source(0.5, **{"class": label}) for label in (10, 2, -1)]
    assert list(by_class(rows, NAME).parts) == ["2", "10", "unknown"]


def test_without_a_known_class_there_is_no_macro() -> None:
    assert by_class([], NAME).parts == {} and by_class([], NAME).macro == Part(0, {})
    unknown = by_class([source(0.5, **{"class": -1})], NAME)
    assert list(unknown.parts) == ["unknown"] and unknown.macro == Part(0, {})


def test_names_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="a: expected a class of 1 names, or -1, got 3"):
        by_class([source(0.5, **{"class": 3})], NAME, ["bell"])
    with pytest.raises(ValueError, match="got 'bell' twice"):
        by_class([], NAME, ["bell", "bell"])
    with pytest.raises(ValueError, match="got 'unknown' twice"):
        by_class([], NAME, ["unknown"])
    with pytest.raises(ValueError, match="a: expected a number for class, got none"):
        by_class([source(0.5, **{"class": None})], NAME)


def test_only_what_sounds_and_has_a_value_counts() -> None:
    rows = [source(0.2), source(0.9, sounds=False), source(None)]
    assert by_size(rows, NAME)["medium"].n == by_class(rows, NAME).parts["0"].n == 1


def test_rows_of_a_file_are_the_rows(tmp_path) -> None:
    rows = [*many(20), source(0.9, sounds=False)]
    (tmp_path / "a.rows.csv").write_text(as_csv(rows))
    read = records.load_rows(tmp_path / "a.json")
    assert by_size(read, NAME) == by_size(rows, NAME)
    assert by_class(read, NAME) == by_class(rows, NAME)


@pytest.mark.parametrize("part", [by_size, by_class])
def test_what_is_no_score_is_refused_by_name(part) -> None:
    for odd in (math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"b: expected finite {NAME}, got {odd} \(1 such rows\)"):
            part([source(0.2), source(odd, key="b")], NAME)
    with pytest.raises(ValueError, match=r"expected a column among key, source, .*, got 'lvs'"):
        part([source(0.2)], "lvs")


def test_an_area_is_a_share() -> None:
    for odd in (1.2, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"a: expected an area in \[0, 1\]"):
            by_size([source(0.5, area=odd)], NAME)


def test_strict_and_other_levels() -> None:
    assert scores([0.5, 0.2], [0.5]).scalars["ciou@0.5"] == 0.5
    assert scores([0.5, 0.2], [0.5], strict=True).scalars["ciou@0.5"] == 0
    rows = [source(0.5), source(0.2)]
    for part in (
        by_size(rows, NAME, at=[0.5], strict=True)["medium"],
        by_class(rows, NAME, at=[0.5], strict=True).macro,
    ):
        assert part.scalars["ciou@0.5"] == 0 and set(part.scalars) == {"ciou@0.5", "auc", "iou"}


def test_a_subset_says_how_much_it_is() -> None:
    rows = [{"key": key, "source": s} for key in "abcd" for s in (0, 1)]
    found = subset(rows, ["d", "b"])
    assert [row["key"] for row in found.rows] == ["b", "b", "d", "d"] and (found.kept, found.asked) == (2, 2)
    part = subset(rows, ["d", "z", "b"], allow_missing=True)
    assert part.rows == found.rows and (part.kept, part.asked) == (2, 3)
    assert subset(rows, []).rows == ()
    with pytest.raises(ValueError, match=r"expected rows of 8 clips, got none of 6: e, f, g, h, i \.\.\."):
        subset(rows, "abefghij")
    with pytest.raises(ValueError, match="expected each key once, got 1 more often: a"):
        subset(rows, ["a", "b", "a"])
