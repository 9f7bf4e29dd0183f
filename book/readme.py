"""Keep the results in README.md what the records say.

python book/readme.py                  # rewrite each table between its two markers
python book/readme.py --check          # change nothing; exit 1 where a table would change
python book/readme.py --maps COPY      # also take the picture of maps from an executed copy of notebook 08

A table stands between ``<!-- records: PRESET DATASET TASK -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import sys
from pathlib import Path

import nbformat
from PIL import Image

from m2vsl import records
from m2vsl.methods import METHODS
from m2vsl.report.tables import Column, markdown, table

ROOT = Path(__file__).resolve().parents[1]
README, MAPS, RESULTS = ROOT / "README.md", ROOT / "book" / "_static" / "maps.jpg", ROOT / "data" / "results"
PLACE = re.compile(r"(<!-- records: (\S+) (\S+) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
CELL = "p08-maps-figure"  # of notebook 08: the pictures of maps
COLUMNS = {
    "CIoU@0.3, 50 % rule": "mixture/framewise-area50-oracle/ciou@0.3",
    "CAP": "mixture/oracle/cap",
    "area-matched IoU": "mixture/framewise-matched-oracle/iou",
    "the same, classes predicted": "mixture/framewise-matched-predicted/iou",
    "one sounds: area-matched IoU": "one/framewise-matched-oracle/iou",
    "the same, class predicted": "one/framewise-matched-predicted/iou",
    "maximum in the right half": "one/oracle/half",
}


def results(preset: str, dataset: str, task: str) -> str:
    """The table of these records as Markdown: a heading for each of `COLUMNS`, a row per method, the caption."""
    found = [r for r in records.find(RESULTS, preset=preset, task=task) if r.dataset == dataset]
    recorded = {record.method for record in found}
    made = table(found, [Column(metric) for metric in COLUMNS.values()], [m for m in METHODS if m in recorded])
    rows = [["", "seeds", *COLUMNS]]
    rows += [[METHODS[m].title, str(made.seeds[m]), *(made.cell(m, c) for c in made.columns)] for m in made.methods]
    return f"{markdown(rows)}\n\n*{made.caption}*\n"


def rewritten(text: str) -> str:
    """README with every table made anew."""
    return PLACE.sub(lambda found: found[1] + results(*found.group(2, 3, 4)) + found[5], text)


def picture(copy: Path) -> Image.Image:
    """The pictures of maps in an executed copy of notebook 08. ValueError if it has none."""
    cells = [cell for cell in nbformat.read(copy, as_version=4).cells if cell.get("id") == CELL]
    drawn = [out.data["image/png"] for cell in cells for out in cell.outputs if "image/png" in out.get("data", {})]
    if len(drawn) != 1:
        raise ValueError(f"{copy}: expected one picture in cell {CELL}, got {len(drawn)}")
    return Image.open(io.BytesIO(base64.b64decode(drawn[0]))).convert("RGB")


def main(argv: list[str] | None = None) -> int:
    """Rewrite, or with ``--check`` compare; 1 if README is not what the records say."""
    parser = argparse.ArgumentParser(description="Keep the results in README.md what the records say.")
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("--maps", type=Path, help="an executed copy of notebook 08")
    given = parser.parse_args(argv)
    before = README.read_text("utf-8")
    after = rewritten(before)
    if given.check:
        return int(before != after)
    README.write_text(after, "utf-8")
    if given.maps:
        picture(given.maps).save(MAPS, quality=88)
    return 0


if __name__ == "__main__":
    sys.exit(main())
