"""Run one notebook and say in one line how it went.

python book/run.py execute notebooks/05_mmc.ipynb book/_executed/quick-synthetic/05_mmc.ipynb -p preset quick
python book/run.py check notebooks/05_mmc.ipynb     # nbval: outputs stored in the notebook against a fresh run
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 28  # characters of the longest notebook's name, and some
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # what tools put into their output even where no terminal is


class NotebookError(Exception):
    """A notebook that did not run to its end; the message is for the reader of the terminal."""


def parameters_of(notebook: nbformat.NotebookNode) -> list[str]:
    """Names assigned in the cells tagged ``parameters``."""
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    statements = [s for c in cells for s in ast.parse(c.source).body]
    targets = [t for s in statements for t in getattr(s, "targets", [getattr(s, "target", None)])]
    return [t.id for t in targets if isinstance(t, ast.Name)]


def execute(source: Path, target: Path, parameters: dict[str, Any], timeout: int | None = None) -> None:
    """Run `source` with papermill from the repository root; `target` appears only when every cell has run.

    Raises `NotebookError` naming notebook, cell and error; what was run is left beside the target, ``*.failed.ipynb``.
    """
    import papermill

    known = parameters_of(nbformat.read(source, as_version=4))
    if unknown := sorted(set(parameters) - set(known)):
        raise NotebookError(f"{source}: no parameter {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".failed.ipynb")
    try:
        papermill.execute_notebook(
            str(source),
            str(partial),
            parameters=parameters,
            kernel_name="python3",
            language="python",
            cwd=str(ROOT),
            progress_bar=False,
            execution_timeout=timeout,
        )
    except Exception as error:  # a cell's error, a dead kernel, a timeout: all are told the same way
        raise NotebookError(explain(source, partial, error)) from error
    nbformat.validate(nbformat.read(partial, as_version=4))
    os.replace(partial, target)


def explain(source: Path, partial: Path, error: Exception) -> str:
    """Where `source` stopped and why, in a few lines."""
    what = f"{error.ename}: {error.evalue}" if hasattr(error, "ename") else f"{type(error).__name__}: {error}"
    cell = stopped_at(nbformat.read(partial, as_version=4)) if partial.exists() else None
    if cell is None:
        return f"{source}: {what}"
    order = [c.get("id") for c in nbformat.read(source, as_version=4).cells]
    place = f"cell {order.index(cell.id) + 1}" if cell.get("id") in order else "the parameters given"
    code = "\n".join("    " + line for line in cell.source.splitlines())
    return f"{source}, {place}: {what.strip()}\n{code}\n  as far as it came: {partial}"


def stopped_at(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """The code cell that raised, or the last that had begun when the kernel died or the time was up."""
    code = [c for c in notebook.cells if c.cell_type == "code" and "papermill" in c.metadata]
    raised = [c for c in code if c.metadata.papermill.get("exception")]
    begun = [c for c in code if c.metadata.papermill.get("start_time")]
    return next(iter(raised + begun[::-1]), None)


def check(source: Path) -> None:
    """Run `source` with nbval: every cell must run, those tagged ``nbval-check-output`` must print what is stored."""
    alone = {"M2VSL_PRESET": "smoke", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # other plugins take long to load
    noise = str(ROOT / "tests" / "sanitize.cfg")
    nbval = ["-p", "nbval.plugin", "--nbval-lax", "--nbval-sanitize-with", noise, "--nbval-cell-timeout", "300"]
    quiet = ["-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", "-W", "default"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *nbval, *quiet, str(source)],
        env={**os.environ, **alone},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotebookError(f"{source}: nbval\n{COLOUR.sub('', done.stdout + done.stderr)}")


def report(verdict: str, name: str, seconds: float) -> None:
    """The line a person reads."""
    print(f"{verdict}  {name:<{WIDTH}} {seconds:6.1f} s", flush=True)


def value(text: str) -> Any:
    """A parameter's value: a number, true, false or null where it reads as one, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def main(argv: list[str] | None = None) -> int:
    """The two verbs; 0 if the notebook ran to its end, 3 if it did not and the reader was told why."""
    parser = argparse.ArgumentParser(description="Run one notebook and say in one line how it went.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    checked = verbs.add_parser("check", help="run with nbval")
    executed = verbs.add_parser("execute", help="run with papermill and keep the executed copy")
    for verb in (checked, executed):
        verb.add_argument("source", type=Path)
    executed.add_argument("target", type=Path)
    executed.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    executed.add_argument("--timeout", type=int, help="seconds a cell may take")
    given = parser.parse_args(argv)

    began = time.monotonic()
    try:
        if given.verb == "check":
            check(given.source)
        else:
            execute(given.source, given.target, {k: value(v) for k, v in given.parameters}, given.timeout)
    except NotebookError as failure:
        report("FAIL", given.source.stem, time.monotonic() - began)
        print(failure, flush=True)
        return 3
    report("pass", given.source.stem, time.monotonic() - began)
    return 0


if __name__ == "__main__":
    sys.exit(main())
