"""The book's own Sphinx extensions: docstrings as API pages show them, and listings of live code."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import docstrings
import listing
import pytest

from m2vsl.audio import AudioConfig

ROOT = Path(__file__).resolve().parents[1]


class Pair(NamedTuple):
    """Two things."""

    left: int  # the * first; ledger 7
    right: str


def test_headings_become_small_ones() -> None:
    assert docstrings.headings(["Conventions", "-----------", "- a"]) == [".. rubric:: Conventions", "", "- a"]
    assert docstrings.headings(["a - b", "", "---"]) == ["a - b", "", "---"]


@pytest.mark.parametrize(
    ("said", "points"),
    [("ledger 7", [7]), ("Ledger 13, 14.", [13, 14]), ("ledger 24 (one of 2), 52 (two)", [24, 52]), ("37-39", [])],
)
def test_points_of_the_ledger_are_links(said: str, points: list[int]) -> None:
    shown = docstrings.linked(said)
    assert shown.count(":ref:") == len(points)
    assert all(f":ref:`{point} <ledger-{point}>`" in shown for point in points)


def test_fields_come_with_their_comments() -> None:
    assert docstrings.fields_of(Pair) == [("left", "int", "the * first; ledger 7"), ("right", "str", "")]
    assert docstrings.field_list(Pair)[1:3] == [
        r"- **left** (``int``): the \* first; ledger 7",
        "- **right** (``str``)",
    ]
    assert docstrings.is_record(Pair) and docstrings.is_record(AudioConfig) and not docstrings.is_record(Path)
    assert all(comment for _, _, comment in docstrings.fields_of(AudioConfig))


def test_a_listing_is_the_code_without_its_formula() -> None:
    file, source = listing.find("m2vsl.losses.mmc", ROOT)
    shown = listing.shown(source)
    assert file == ROOT / "m2vsl" / "losses.py"
    assert shown.startswith("def mmc(") and ".. math::" in source and ".. math::" not in shown
    assert shown.splitlines()[-1] in file.read_text("utf-8").splitlines()
    method = listing.shown(listing.find("m2vsl.model.M2VSL.localize", ROOT)[1])
    assert method.startswith("@torch.no_grad()\ndef localize(")


@pytest.mark.parametrize("name", ["m2vsl.losses.mcc", "m2vsl.nothing.at_all", "m2vsl.model.M2VSL.nothing"])
def test_a_listing_of_nothing_is_an_error(name: str) -> None:
    with pytest.raises(LookupError, match="expected a function or class"):
        listing.find(name, ROOT)
