"""What a notebook's run depends on, as one short hash: its code cells and every module they reach.

Prose, stored outputs and file times do not make a run out of date; an edited module does, for the notebooks that
import it, directly or through other modules, and for no other.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path


def fingerprint(notebook: Path, package: Path, also: Iterable[Path] = ()) -> str:
    """Twelve hexadecimal digits over the code of `notebook`, the modules of `package` it reaches, the files `also`."""
    code = code_of(notebook)
    digest = hashlib.sha256(code.encode())
    for path in [*reached(code, package), *(p for p in also if p.exists())]:
        digest.update(path.name.encode() + content(path))
    return digest.hexdigest()[:12]


def code_of(notebook: Path) -> str:
    """The code cells of `notebook`, one after another."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def reached(code: str, package: Path) -> list[Path]:
    """Files of `package` that `code` imports, and those that they import, and so on; sorted."""
    seen: set[Path] = set()
    waiting = list(imported(code, package))
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += imported_by(path, package)
    return sorted(seen)


@cache
def content(path: Path) -> bytes:
    """The bytes of a file, read once per process."""
    return path.read_bytes()


@cache
def imported_by(path: Path, package: Path) -> tuple[Path, ...]:
    """Files of `package` that the module at `path` imports."""
    return tuple(imported(content(path).decode("utf-8"), package))


def imported(code: str, package: Path) -> Iterator[Path]:
    """Files of `package` that `code` imports anywhere, function bodies included, and their packages' ``__init__``."""
    lines = code.splitlines()
    if any(line.lstrip().startswith("!") and package.name in line for line in lines):
        yield from files_of(f"{package.name}.cli", package)  # a shell line of a notebook may call the command
    plain = "\n".join("" if line.startswith(("%", "!")) else line for line in lines)
    try:
        tree = ast.parse(plain)
    except SyntaxError:  # the run itself will say where; until then it depends on everything
        yield from package.rglob("*.py")
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.split(".")[0] == package.name:
                yield from files_of(name, package)


def files_of(module: str, package: Path) -> Iterator[Path]:
    """The file of a dotted name, where it is a module, and the ``__init__`` of every package on the way."""
    place = package
    yield package / "__init__.py"
    for part in module.split(".")[1:]:
        place = place / part
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.exists():
                yield path
