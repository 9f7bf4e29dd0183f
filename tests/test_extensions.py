"""The book's own Sphinx extensions: docstrings as API pages show them, and listings of live code."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from pathlib import Path
from typing import NamedTuple

import docstrings
import executed
import listing
import pytest
from docutils import nodes
from docutils.utils import new_document

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


@pytest.mark.parametrize(
    ("kind", "content", "file"),
    [
        ("image/png", b64encode(b"pixels").decode(), b"pixels"),
        ("image/svg+xml", ["<svg>\n", "</svg>\n"], b"<svg>\n</svg>"),
    ],
)
def test_a_picture_of_a_run_says_what_it_shows(
    kind: str, content: str | list[str], file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {kind: content, "text/plain": "Figure with 1 panel."}
    run = {"cells": [{"cell_type": "code", "outputs": [{"data": data}, {"data": {"text/plain": "3"}}]}]}
    name = hashlib.sha256(file).hexdigest()
    assert executed.pictures(run) == {name: "Figure with 1 panel."}
    monkeypatch.setattr(executed, "SAID", executed.pictures(run))
    page = new_document("page")
    page += nodes.image(uri=f"../jupyter_execute/{name}.png")
    page += nodes.image(uri=f"../jupyter_execute/{name}.png", alt="said already")
    page += nodes.image(uri="../other.png")
    executed.describe(None, page)
    assert [image.get("alt") for image in page.findall(nodes.image)] == ["Figure with 1 panel.", "said already", None]


@pytest.mark.parametrize("name", ["m2vsl.losses.mcc", "m2vsl.nothing.at_all", "m2vsl.model.M2VSL.nothing"])
def test_a_listing_of_nothing_is_an_error(name: str) -> None:
    with pytest.raises(LookupError, match="expected a function or class"):
        listing.find(name, ROOT)
