"""What a row runs is what its command says, and its hours are counted, not guessed."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from m2vsl import cli, presets, records
from m2vsl.audio import AUDIO
from m2vsl.encoders import AudioEncoder, VisualEncoder
from m2vsl.methods import CONTROLS, METHODS
from m2vsl.records import Record
from m2vsl.report import rows
from m2vsl.report.paper import BENCHMARKS, printed

INSTRUMENTS, SINGLE, INSTRUMENTS_DUET, DUET = BENCHMARKS


def test_every_method_has_a_row_and_every_printed_row_a_method() -> None:
    assert {*rows.methods(), *rows.segmenters()} == set(METHODS)
    assert {row.method for row in printed() if row.table in ("1", "2")} <= set(rows.methods())
    assert list(dict.fromkeys(r.method for r in printed() if r.table == "3")) == [
        m for m in rows.SEGMENTERS if m not in ("cam_near", "m2vsl_plus")
    ]
    assert set(rows.segmenters()) == {*CONTROLS, *rows.SEGMENTERS} - {"bound"}
    assert rows.methods()[: len(CONTROLS)] == list(CONTROLS)


def test_the_rows_stand_in_the_order_of_the_paper() -> None:
    paper = dict.fromkeys(row.method for row in printed() if row.table == "2")
    assert [m for m in rows.methods() if m in paper and m not in CONTROLS] == list(paper)


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda b: b.ours)
@pytest.mark.parametrize("method", rows.methods())
def test_a_command_of_the_paper_is_understood(method: str, benchmark: object) -> None:
    lines = rows.commands(method, benchmark, "my clips")  # type: ignore[arg-type]
    verbs = []
    for line in lines:
        program, *arguments = shlex.split(line)
        given = cli._parse(arguments)
        verbs.append(given.command.__name__)
        assert program == "m2vsl" and given.what == f"{method}/{benchmark.task}"  # type: ignore[attr-defined]
        assert (given.preset, given.dataset, given.data_root) == ("paper", "vggsound", "my clips")
        own = [pair for pair in given.pairs if pair.startswith("train.")]
        made = presets.override(presets.experiment(method, "single", preset="paper"), own)
        assert benchmark in (SINGLE, DUET) or "data.benchmark=instruments" in given.pairs
        epochs = made.train.steps * 128 / (144_000 if benchmark in (SINGLE, DUET) else 32_000)
        assert method in CONTROLS or epochs == pytest.approx(100)
    assert verbs == (["evaluate"] if method in CONTROLS else ["train", "evaluate"])


@pytest.mark.parametrize("root", ["", "photosound"])
@pytest.mark.parametrize("task", ["single", "duet"])
def test_a_command_of_the_book_makes_the_records_that_the_table_shows(
    task: str, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photosound").mkdir()
    made = []
    for method in rows.methods():
        given = cli._parse(shlex.split(rows.again(method, task, preset="quick", root=root))[1:])
        assert given.tasks == [task]
        made += [one.record_path() for one in cli._plan(given, given.tasks)]
    kind = "folder" if root else "synthetic"
    plan = presets.table(rows.methods(), task, seeds=rows.SEEDS, preset="quick", dataset=kind, data_root=root)
    assert made == [one.record_path() for one in plan]


def test_the_operations_are_those_of_the_papers_two_trunks() -> None:
    encoder = replace(presets.PRESETS["paper"].encoder, weights="none")
    counted = 0
    for trunk, given in (
        (VisualEncoder(encoder), torch.zeros(1, 3, 224, 224)),
        (AudioEncoder(encoder), torch.zeros(1, 1, *AUDIO["paper300"].shape)),
    ):
        with FlopCounterMode(display=False) as counter:
            out = trunk(given)
            sum(o.sum() for o in (out if isinstance(out, list | tuple) else [out])).backward()
        counted += counter.get_total_flops()
    assert counted == pytest.approx(rows.OPERATIONS, rel=0.01)


def test_hours_follow_from_the_frames_of_a_training() -> None:
    one = rows.estimate("m2vsl", DUET)
    assert one.frames == 112_500 * 128 * 2
    assert one.hours == pytest.approx((one.frames * 27.7e9 / 40e12 / 3600, one.frames / 300 / 3600))
    assert str(one) == "6 to 27"
    assert rows.estimate("m2vsl", INSTRUMENTS).frames == 25_000 * 128


def test_a_training_that_serves_two_rows_is_counted_once() -> None:
    assert str(rows.estimate("ez_vsl_ogl", SINGLE)) == "with EZ-VSL"
    assert str(rows.estimate("lvs", DUET)) == "with its row in Table 1, VGGSound-Single"
    assert str(rows.estimate("lvs", INSTRUMENTS_DUET)) == "with its row in Table 1, VGGSound-Instruments"
    assert str(rows.estimate("centre", DUET)) == "none"
    solo, duet = (presets.experiment("lvs", task, preset="paper") for task in ("single", "duet"))
    assert solo.run_dir() == duet.run_dir()


def test_the_listing_of_the_paper_has_a_line_per_method() -> None:
    listing = rows.paper_listing(DUET)
    assert [line[0] for line in listing.rows] == [METHODS[m].title for m in rows.methods()]
    told = {line[0]: line for line in listing.rows}
    assert told["Centre"][1:3] == ("none", "") and told["M2VSL"][1:3] == ("6 to 27", rows.HARDWARE)
    assert told["M2VSL"][3] == " && ".join(rows.commands("m2vsl", DUET))


def record(method: str, seed: int, seconds: float) -> Record:
    made = presets.experiment(method, "single", preset="smoke", seed=seed)
    return Record(
        method=method, dataset="synthetic", task="single", preset="smoke", seed=seed, experiment=made.tree(),
        metrics={}, protocols={}, n=8, ids="0", commit="0", dirty=False, versions={},
        hardware={"cpu": "a processor", "cores": 2, "gpu": ""}, created="2026-01-01", seconds=seconds,
    )  # fmt: skip


def test_records_are_found_by_their_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2VSL_RESULTS", str(tmp_path))
    assert rows.recorded("single", preset="smoke") == []
    mine, other = record("lvs", 1, 60.0), record("lvs", 0, 60.0)
    other = replace(other, experiment={**other.experiment, "train": {"steps": 1}})
    records.save(mine), records.save(other), records.save(record("lvs", 7, 60.0))
    assert [(r.method, r.seed) for r in rows.recorded("single", preset="smoke")] == [("lvs", 1)]
    assert rows.recorded("duet", preset="smoke") == []


def test_a_folders_records_are_found_without_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2VSL_RESULTS", str(tmp_path / "results"))
    place = tmp_path / "far" / "photosound"
    made = presets.experiment("centre", "duet", preset="smoke", dataset="folder", data_root=str(place))
    kept = replace(record("centre", 0, 1.0), dataset="photosound", task="duet", experiment=made.tree())
    records.save(kept)
    found = rows.recorded("duet", preset="smoke", dataset="folder", data_root="photosound")
    assert [r.experiment for r in found] == [made.tree()] and not place.exists()


def test_the_listing_of_the_book_says_what_a_run_took() -> None:
    listing = rows.again_listing([record("lvs", 0, 60.0), record("lvs", 1, 120.0)], "single", preset="smoke")
    told = {line[0]: line for line in listing.rows}
    assert told["LVS"][1:4] == ("2", "1.5", "a processor, 2 cores")
    assert told["DMC"][1:4] == ("", "no record", "")
    assert told["LVS"][4] == rows.again("lvs", "single", preset="smoke")
    assert told["LVS"][4].endswith("--methods lvs --seeds 0 1 2 3 4") and told["Centre"][4].endswith("--seeds 0")


def test_a_listing_is_code_in_a_page_and_text_elsewhere() -> None:
    listing = rows.Listing(("method", "command"), (("a < b", "m2vsl run 'my clips'"), ("c", "d")))
    html = listing._repr_html_()
    assert "<code>m2vsl run &#x27;my clips&#x27;</code>" in html and "<td" in html and "a &lt; b" in html
    assert repr(listing).splitlines() == ["method  command", "a < b   m2vsl run 'my clips'", "c       d"]
