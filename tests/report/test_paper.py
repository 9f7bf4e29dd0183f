"""The printed numbers: those of the paper and no others, each with where it comes from."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from m2vsl import paths
from m2vsl.methods import METHODS
from m2vsl.metrics.protocols import PROTOCOLS
from m2vsl.report import paper
from m2vsl.report.paper import BENCHMARKS, MODULES, PRINTED_AS, SEGMENTED, Benchmark, printed

INSTRUMENTS, SINGLE, _, DUET = BENCHMARKS
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DASH = "\N{EN DASH}"


@pytest.mark.parametrize("table", ["1", "2", "3", "4"])
def test_every_number_of_the_papers_text_is_there_and_no_other(shared: Path, table: str) -> None:
    text = (shared / "paper" / "m2vsl.md").read_text("utf-8")
    above = text[: text.index(f"\nTable {table}. ")].splitlines()
    marked = {("\N{BALLOT X}", "\N{BALLOT X}"): "neither", ("\N{CHECK MARK}", "\N{BALLOT X}"): "MMC"}
    marked |= {("\N{BALLOT X}", "\N{CHECK MARK}"): "MMT", ("\N{CHECK MARK}", "\N{CHECK MARK}"): "MMC and MMT"}
    count = {"1": 10, "2": 10, "3": 5, "4": 4}[table]
    lines = [line.split("\t") for line in above if "\t" in line][-count:]
    columns = [(b.dataset, score) for b in (*BENCHMARKS, *SEGMENTED) if b.table == table for score in b.scores]
    expected = {}
    for name, *cells in lines:
        key = re.sub(r" \((?!ws).*?\)", "", name.replace("C <sup>2</sup> AM", "C\N{SUPERSCRIPT TWO}AM"))
        if table == "4":
            key = marked[name, cells.pop(0)]
        for column, cell in zip(columns, cells, strict=True):
            if (value := re.sub(r"</?b>", "", cell)) != DASH:
                expected[key, *column] = float(value)
    title = {m: method.title for m, method in METHODS.items()} | {name: name for name in MODULES}
    found = {(title[p.method], p.dataset, p.metric): p.value for p in printed() if p.table == table}
    assert len(lines) == count and found == expected


def test_the_levels_are_those_that_the_text_gives(shared: Path) -> None:
    text = " ".join((shared / "paper" / "m2vsl.md").read_text("utf-8").split())
    assert "set at IoU@0.3 and CIoU@0.1" in text and "we employ IoU@0.5 and CIoU@0.3" in text
    assert [b.scores[-2] for b in BENCHMARKS] == ["IoU@0.3", "IoU@0.5", "CIoU@0.1", "CIoU@0.3"]


@pytest.mark.parametrize(
    ("benchmark", "protocol", "method", "anchor", "places"),
    [
        (SINGLE, "framewise-area50", "centre", "centre_disc_top50pct", (1, 2)),
        (SINGLE, "framewise-area50", "random", "pixel_noise_top50pct", (1, 2)),
        (SINGLE, "framewise-area50", "bound", "oracle_under_top50pct", (1, 2)),
        (DUET, "framewise-area50", "centre", "duet_framewise_centre_both_halves_top50pct", (1, 3)),
        (DUET, "framewise-area50", "bound", "duet_framewise_oracle_top50pct", (1, 3)),
        (DUET, "sourcewise-area50", "centre", "duet_sourcewise_centre_top50pct", (1, 3)),
        (DUET, "sourcewise-area50", "bound", "duet_sourcewise_oracle_top50pct", (1, 3)),
    ],
)
def test_the_constants_are_those_computed_from_the_boxes(
    benchmark: Benchmark, protocol: str, method: str, anchor: str, places: tuple[int, int]
) -> None:
    with np.load(GOLDEN / "vggss_anchors.npz") as anchors:
        expected = [round(100 * float(anchors[anchor][place]), 2) for place in places]
    found = paper.of(benchmark, f"{protocol}-predicted")
    assert [found[method, score].value for score in benchmark.scores[-2:]] == expected
    other = paper.of(benchmark, "framewise-minmax05-oracle")
    assert (method, "AUC") not in other and other["m2vsl", "AUC"] == found["m2vsl", "AUC"]


def test_every_constant_of_the_file_is_one_of_those() -> None:
    assert len([row for row in printed() if not row.table]) == 7 * 2
    assert {row.method for row in printed() if row.table}.isdisjoint({"centre", "random", "oracle", "bound"})


def test_success_and_area_bound_each_other() -> None:
    pairs = 0
    for benchmark in BENCHMARKS:
        values = {key: number.value for key, number in paper.of(benchmark).items()}
        rate = benchmark.scores[-2]
        level = 100 * float(rate.partition("@")[2])
        for method in {m for m, _ in values}:
            success, area = values[method, rate], values[method, "AUC"]
            assert level * success / 100 - 0.1 <= area <= level + (1 - level / 100) * success + 0.1
            pairs += 1
    assert pairs >= 40


def test_where_a_number_comes_from() -> None:
    single, duet = paper.of(SINGLE), paper.of(DUET)
    assert "object guidance" in single["ez_vsl", "AUC"].source and "object guidance" not in duet["ez_vsl", "AUC"].source
    assert "LVS" in single["lvs", "IoU@0.5"].source and "not said" in single["lvs", "AP"].source
    quoted = {m for (m, score), n in duet.items() if score == "AUC" and "elsewhere" in n.source}
    assert quoted == {"coarse_to_fine", "lvs", "mix_and_localize", "dsol", "avgn"}
    own = {row.method for row in printed() if row.table in ("1", "2", "3") and "own run" in row.source}
    assert own == {"m2vsl"}
    same = {r.method: r.source for r in printed() if r.table == "4"}
    assert "AVS (ws) of Table 3" in same["neither"] and "M2VSL of Table 3" in same["MMC and MMT"]


def test_the_rows_that_table_4_repeats_are_those_of_table_3() -> None:
    values = {(r.table, r.method, r.dataset, r.metric): r.value for r in printed()}
    for row in (r for r in printed() if r.table == "4"):
        if twin := {"neither": "avs_ws", "MMC and MMT": "m2vsl"}.get(row.method):
            assert values["3", twin, row.dataset, row.metric] == row.value
    gain = values["3", "m2vsl", "AVSBench-S4", "F"] - values["3", "avs_ws", "AVSBench-S4", "F"]
    assert gain == pytest.approx(30.22), "point 33"


def test_sources_cover_every_printed_cell() -> None:
    for table in ("1", "2", "3", "4"):
        cells = [cell for some in paper.sources(table).values() for cell in some]
        assert sum(len(cell.split(", ")) for cell in cells) == len([r for r in printed() if r.table == table])


def test_guidance_is_answered_by_the_printed_row() -> None:
    found = paper.of(SINGLE)
    for ours, row in PRINTED_AS.items():
        assert found[ours, "AUC"] == found[row, "AUC"]
    assert ("slavc", "AUC") not in found and ("m2vsl_plus", "AUC") not in found


@pytest.mark.parametrize(
    ("benchmark", "score", "protocol", "metric"),
    [
        (SINGLE, "AP", "framewise-area50-oracle", "solo/oracle/ap"),
        (SINGLE, "IoU@0.5", "framewise-area50-oracle", "solo/framewise-area50-oracle/ciou@0.5"),
        (INSTRUMENTS, "IoU@0.3", "framewise-minmax05-predicted", "solo/framewise-minmax05-predicted/ciou@0.3"),
        (DUET, "PIAP", "sourcewise-area50-predicted", "mixture/predicted/piap"),
        (DUET, "CIoU@0.3", "sourcewise-area50-oracle", "mixture/sourcewise-area50-oracle/ciou@0.3"),
        (DUET, "AUC", "framewise-area50-oracle", "mixture/framewise-area50-oracle/auc"),
    ],
)
def test_which_scalar_answers_a_column(benchmark: Benchmark, score: str, protocol: str, metric: str) -> None:
    assert protocol in PROTOCOLS
    assert benchmark.metric(score, protocol) == metric


HEAD = "table,dataset,method,metric,value,protocol,source\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("method,value\nlvs,3\n", "expected columns table, dataset"),
        (HEAD + "1,VGGSound-Duet,lvs,AUC,3,,x\n", "line 2: expected a column of table '1', got VGGSound-Duet, AUC"),
        (HEAD + "1,VGGSound-Single,lvs,IoU@0.3,3,,x\n", "got VGGSound-Single, IoU@0.3"),
        (HEAD + "1,VGGSound-Single,lvs2,AUC,3,,x\n", "expected method among .* got 'lvs2'"),
        (HEAD + "1,VGGSound-Single,lvs,AUC,103,,x\n", "expected 0 to 100 per cent and a source, got 103"),
        (HEAD + "1,VGGSound-Single,lvs,AUC,3,,\n", "and a source"),
        (HEAD + "1,VGGSound-Single,lvs,AUC,three,,x\n", "line 2: could not convert"),
        (HEAD + "1,VGGSound-Single,lvs,AUC,3,framewise-area50,x\n", "expected a protocol where, and only where"),
        (HEAD + ",VGGSound-Single,centre,AUC,3,,x\n", "expected a protocol where, and only where"),
        (HEAD + 2 * "1,VGGSound-Single,lvs,AUC,3,,x\n", "line 3: expected each cell once"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "paper.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=told):
        printed(path)


def test_the_file_is_where_the_paths_say() -> None:
    assert paths.paper() == paths.ROOT / "data" / "paper.csv"
    assert printed(paths.paper()) == printed()
