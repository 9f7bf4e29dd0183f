"""The fairness table is what the methods are: measured again here, and compared with the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from m2vsl.encoders import AudioEncoder, VisualEncoder
from m2vsl.methods import CONTROLS, METHODS
from m2vsl.report import fairness

ROWS = [name for name in METHODS if name not in CONTROLS]


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    """The whole table, once."""
    return fairness.frame()


def test_the_page_says_what_is_measured(measured: fairness.pd.DataFrame) -> None:  # type: ignore[name-defined]
    page = fairness.README.read_text("utf-8")
    assert fairness.rewritten(page, fairness.markdown(measured)) == page, "run python -m m2vsl.report.fairness"


def test_every_method_that_learns_has_its_row_and_its_words(measured: fairness.pd.DataFrame) -> None:  # type: ignore[name-defined]
    assert list(measured.index) == [METHODS[name].title for name in ROWS]
    assert set(fairness.WORDS) == set(ROWS)
    assert (measured != "").all(axis=None)
    said = fairness.markdown(measured)
    assert sum(table.count("\n| ") for table in said.values()) == 2 * (len(ROWS) + 1)


def test_words_fit_the_code() -> None:
    for name in ROWS:
        build, words = METHODS[name].build, fairness.WORDS[name]
        taught = "labels" in build.wants
        assert taught == ("losses" in words.labels or "classifiers" in words.labels or words.labels == "as M2VSL"), name
        assert build.named == ("class of a source" in words.given), name


def test_costs_of_ez_vsl_by_hand() -> None:
    """Trunks, and a projection on each side: as many numbers as its paper has (protocol 3.1), as many products."""
    encoder = fairness.ENCODERS["paper"]
    found = fairness.cost("ez_vsl", encoder)
    trunks = [VisualEncoder(replace(encoder, weights="none")), AudioEncoder(encoder)]
    learnt = sum(p.numel() for trunk in trunks for p in trunk.parameters())
    assert found.learnt == learnt + 2 * (512 * 512 + 512)
    assert found.learnt / 1e6 == pytest.approx(22.87, abs=0.005)
    assert (found.cells, found.maps, found.sources, found.trunks) == ((7,), 1, None, 1)
    flops = sum(_flops(trunk) for trunk in trunks) + 2 * 512 * 512 * (49 + 1) + 2 * 512 * 49
    assert found.flops == flops


def _flops(trunk: torch.nn.Module) -> int:
    """Two for each multiplication of the trunk's convolutions, counted from shapes."""
    total = 0

    def count(module: torch.nn.Module, _given: object, out: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, torch.nn.Conv2d)
        total += 2 * out.numel() * module.weight[0].numel()

    for module in trunk.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    trunk.eval()(torch.zeros(1, 3, 224, 224) if isinstance(trunk, VisualEncoder) else torch.zeros(1, 1, 257, 300))
    return total


def test_what_learns_in_some_stage_only_is_counted() -> None:
    encoder = fairness.ENCODERS["small"]
    method = METHODS["dsol"].build(
        replace(METHODS["dsol"].config, encoder=replace(encoder, weights="none")), fairness.CLASSES
    )
    at_once = sum(p.numel() for p in method.parameters() if p.requires_grad)
    heads = sum(p.numel() for net in (method.see, method.hear) for p in net.parameters())
    assert fairness.cost("dsol", encoder).learnt == at_once + heads


def test_a_guide_costs_a_second_trunk_and_learns_nothing() -> None:
    alone, guided = (fairness.cost(name, fairness.ENCODERS["small"]) for name in ("ez_vsl", "ez_vsl_ogl"))
    trunk = VisualEncoder(replace(fairness.ENCODERS["small"], weights="none"))
    with FlopCounterMode(display=False) as counter:
        trunk.eval()(torch.zeros(1, 3, 224, 224))
    assert guided.flops == alone.flops + counter.get_total_flops()
    assert (guided.learnt, guided.trunks) == (alone.learnt, 2)


def test_places_and_tables_are_matched() -> None:
    page = "a\n<!-- fairness: one -->\nold\n<!-- end -->\nb\n<!-- fairness: two -->\n<!-- end -->\n"
    made = fairness.rewritten(page, {"one": "1\n", "two": "2\n"})
    assert "old" not in made and made.index("1\n") < made.index("b") < made.index("2\n")
    assert fairness.rewritten(made, {"one": "1\n", "two": "2\n"}) == made
    with pytest.raises(ValueError, match="one place for each of one, got one, two"):
        fairness.rewritten(page, {"one": "1\n"})
    with pytest.raises(ValueError, match="got none"):
        fairness.rewritten("nothing", {"one": "1\n"})


def test_the_command_rewrites_or_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "frame", lambda: None)
    monkeypatch.setattr(fairness, "markdown", lambda _table: {"one": "1\n"})
    page = tmp_path / "page.md"
    page.write_text("<!-- fairness: one -->\n<!-- end -->\n")
    assert fairness.main(["--check", "--page", str(page)]) == 1 and "1" not in page.read_text()
    assert fairness.main(["--page", str(page)]) == 0 and "1\n" in page.read_text()
    assert fairness.main(["--check", "--page", str(page)]) == 0
