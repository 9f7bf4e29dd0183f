"""Strip notebooks: keep the outputs of cells tagged ``nbval-check-output``, and nothing else a run leaves behind.

python book/clean.py                  # rewrite notebooks/*.ipynb (or those named)
python book/clean.py --check          # change nothing; exit 1 where a file would change
python book/clean.py --from DIR       # first take those outputs from the executed copies in DIR
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
KEEP = "nbval-check-output"
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def clean(notebook: NotebookNode) -> NotebookNode:
    """`notebook` as it is stored: golden outputs alone, counted from 1, no widget state, no traces of a run."""
    notebook = nbformat.from_dict(notebook)
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.cells = [c for c in notebook.cells if "injected-parameters" not in tags(c)]
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags" and v})
    for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        cell.outputs = [golden(o, count) for o in cell.outputs if KEEP in tags(cell) and o.output_type != "error"]
        cell.execution_count = count if cell.outputs else None  # nbval refuses an output without a count
    return notebook


def golden(output: NotebookNode, count: int) -> NotebookNode:
    """An output as it is stored."""
    output = nbformat.from_dict(output)
    if "execution_count" in output:
        output.execution_count = count
    if "metadata" in output:
        output.metadata = NotebookNode()
    return output


def take(notebook: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """`notebook` with the outputs of its tagged cells replaced by those of `executed`, cell by cell (by id)."""
    ran = {c.id: c for c in executed.cells if c.cell_type == "code"}
    for cell in notebook.cells:
        if cell.cell_type == "code" and KEEP in tags(cell):
            if cell.id not in ran or ran[cell.id].source != cell.source:
                raise ValueError(f"cell {cell.id} is not as it was run: {cell.source!r}")
            cell.outputs = ran[cell.id].outputs
    return notebook


def main(argv: list[str] | None = None) -> int:
    """Clean, or say what is not clean."""
    parser = argparse.ArgumentParser(description="Strip notebooks; keep the outputs nbval compares.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: notebooks/*.ipynb")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a file would change")
    parser.add_argument("--from", dest="executed", type=Path, metavar="DIR", help="take golden outputs from here")
    given = parser.parse_args(argv)
    changed = 0
    for path in given.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb")):
        old = path.read_text("utf-8")
        notebook = nbformat.reads(old, as_version=4)
        if given.executed:
            notebook = take(notebook, nbformat.read(given.executed / path.name, as_version=4))
        new = nbformat.writes(clean(notebook)) + "\n"
        if new != old:
            changed += 1
            print(("would clean " if given.check else "cleaned ") + str(path))
            if not given.check:
                path.write_text(new, "utf-8")
    return int(given.check and changed > 0)


if __name__ == "__main__":
    sys.exit(main())
