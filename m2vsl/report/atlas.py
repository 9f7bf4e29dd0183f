"""Where things of the paper live: equations, and the tests and notebooks of a module, found by reading the files.

Nothing here is a list that could go out of date: equations are found by their number in docstrings (each stands in one
place, which a test holds), tests and notebooks by what they import.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

from m2vsl import paths

PACKAGE = Path(__file__).resolve().parents[1]
_NUMBERED = re.compile(r"Eq\. \((\d+)\)")
_MATHS = re.compile(r"\.\. math::[ ]?((?:.+\n?)+)")


@dataclass(frozen=True)
class Equation:
    """An equation of the paper and the function or class that is it."""

    number: int
    tex: str  # as the docstring has it
    name: str  # "losses.mmc"
    place: str  # "m2vsl/losses.py:66"
    tests: tuple[str, ...]  # "tests/test_losses.py"


@dataclass(frozen=True)
class Grid:
    """A small table: HTML in a page, with mathematics between ``\\(`` and ``\\)``; plain text elsewhere."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        body = "".join("<tr>" + "".join(_cell(text) for text in row) + "</tr>" for row in self.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def __repr__(self) -> str:
        table = [self.columns, *self.rows]
        widths = [max(len(row[c]) for row in table) for c in range(len(self.columns))]
        return "\n".join("  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip() for row in table)


def equations() -> list[Equation]:
    """Every numbered equation, in the order of the paper."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node, name in _documented(path):
            text = ast.get_docstring(node) or ""
            for number in _NUMBERED.findall(text):
                maths = _MATHS.search(text)
                tex = " ".join(maths.group(1).split()) if maths else ""
                module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
                file = f"m2vsl/{path.relative_to(PACKAGE).as_posix()}"
                found.append(
                    Equation(int(number), tex, f"{module}.{name}", f"{file}:{node.lineno}", tuple(tests_of(module)))
                )
    return sorted(found, key=lambda equation: equation.number)


def equation_table() -> Grid:
    """The equations as a page shows them."""
    own = [f"test_{e.name.split('.')[-2]}.py" for e in equations()]
    rows = [
        (str(e.number), rf"\({e.tex}\)", e.name, e.place, _briefly(e.tests, name))
        for e, name in zip(equations(), own, strict=True)
    ]
    return Grid(("Eq.", "as in the docstring", "function", "file", "tests"), tuple(rows))


def section_table(sections: dict[str, Sequence[str]]) -> Grid:
    """One row per module of each section: file, notebooks and tests that use it. ValueError for an unknown module."""
    rows = []
    for section, modules in sections.items():
        for count, module in enumerate(modules):
            file = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
            if not file.is_file():
                raise ValueError(f"expected a module of m2vsl, got {module!r}")
            name = f"m2vsl/{file.relative_to(PACKAGE).as_posix()}"
            tests = _briefly(tests_of(module), f"test_{module.split('.')[-1]}.py")
            rows.append(("" if count else section, name, ", ".join(notebooks_of(module)), tests))
    return Grid(("section of the paper", "file", "notebooks", "tests"), tuple(rows))


def tests_of(module: str) -> list[str]:
    """Files under ``tests/`` that import `module` ("losses", "metrics.overlap"); none outside of a checkout."""
    files = sorted((paths.ROOT / "tests").rglob("test_*.py"))
    return [f.relative_to(paths.ROOT).as_posix() for f in files if module in _imported(f.read_text("utf-8"))]


def notebooks_of(module: str) -> list[str]:
    """Names of the notebooks whose code imports `module`."""
    found = []
    for file in sorted((paths.ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(file.read_text("utf-8"))["cells"]
        code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        if any(module in _imported(cell) for cell in code):
            found.append(file.stem)
    return found


def _briefly(files: Sequence[str], own: str) -> str:
    """The file named `own`, else the first, and how many more there are."""
    first = sorted(files, key=lambda file: not file.endswith(f"/{own}"))[:1]
    return "".join(first) + (f", {len(files) - 1} more" if len(files) > 1 else "")


@cache
def _imported(code: str) -> frozenset[str]:
    """Modules of the package that `code` imports, without the package's name."""
    try:
        tree = ast.parse(code)
    except SyntaxError:  # a cell with a line for the shell imports nothing
        return frozenset()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(name.removeprefix("m2vsl.") for name in names if name.startswith("m2vsl."))


Documented = ast.FunctionDef | ast.ClassDef


def _documented(path: Path) -> Iterator[tuple[Documented, str]]:
    """Functions, classes and methods of a file with their dotted names."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, Documented):
            yield node, node.name
            inner = node.body if isinstance(node, ast.ClassDef) else []
            yield from ((n, f"{node.name}.{n.name}") for n in inner if isinstance(n, ast.FunctionDef))


def _cell(text: str) -> str:
    """A table's cell; mathematics as Sphinx marks it, which JupyterLab sets too."""
    if text.startswith(r"\("):
        return f'<td><span class="math notranslate nohighlight">{escape(text)}</span></td>'
    return f"<td>{', '.join(_code(part) for part in text.split(', '))}</td>"


def _code(text: str) -> str:
    looks = "/" in text or "_" in text or ("." in text and " " not in text)
    return f"<code>{escape(text)}</code>" if looks else escape(text)
