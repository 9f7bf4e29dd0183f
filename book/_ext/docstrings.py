"""Sphinx extension: docstrings as API pages show them.

- Headings (a word underlined by dashes) become small ones: true ones would be sections, once for every module.
- A dataclass or named tuple lists its fields with the comments that stand beside them in the source.
- "ledger 7" leads to point 7 of the ledger, the page ``book/deviations``.
- Single backticks, which name things in docstrings, are code (``default_role`` in ``_config.yml``).
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import is_dataclass
from typing import Any

from sphinx.application import Sphinx

UNDERLINE = re.compile(r"-{3,}$")
ASIDE = r"(?: \([^()]*\))?"
LEDGER = re.compile(rf"\b([Ll]edger) (\d+{ASIDE}(?:(?:, |-)\d+{ASIDE})*)")
COMMENT = re.compile(r"  # (.*)$", re.MULTILINE)
SPECIAL = re.compile(r"[\\*|]|_(?=\W|$)")  # what reStructuredText would read as markup


def headings(lines: list[str]) -> list[str]:
    """The same lines with each underlined one as a rubric."""
    shown: list[str] = []
    for line in lines:
        if UNDERLINE.match(line) and shown and shown[-1].strip():
            shown[-1:] = [f".. rubric:: {shown[-1].strip()}", ""]
        else:
            shown.append(line)
    return shown


def linked(line: str) -> str:
    """The same line with every "ledger N" leading to its point; numbers in parentheses are words."""

    def point(match: re.Match[str]) -> str:
        return f":ref:`{match[0]} <ledger-{match[0]}>`" if match[0].isdigit() else match[0]

    return LEDGER.sub(lambda m: f"{m[1]} " + re.sub(r"\([^()]*\)|\d+", point, m[2]), line)


def fields_of(thing: type) -> list[tuple[str, str, str]]:
    """(name, type, comment in its lines) of every field that a class states, in the order of the source."""
    source = textwrap.dedent(inspect.getsource(thing))
    lines, body = source.splitlines(), ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    found = []
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            comment = COMMENT.search("\n".join(lines[node.lineno - 1 : node.end_lineno]))
            found.append((node.target.id, ast.unparse(node.annotation), comment[1] if comment else ""))
    return found


def field_list(thing: type) -> list[str]:
    """The fields of a class as lines of reStructuredText."""
    rows = []
    for name, kind, comment in fields_of(thing):
        said = SPECIAL.sub(r"\\\g<0>", comment)
        rows.append(f"- **{name}** (``{kind}``)" + (f": {said}" if said else ""))
    return ["", *rows, ""] if rows else []


def is_record(thing: Any) -> bool:
    """Whether a class is a dataclass or a named tuple."""
    return isinstance(thing, type) and (is_dataclass(thing) or hasattr(thing, "_field_defaults"))


def on_docstring(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """On ``autodoc-process-docstring``: `lines` are changed in place."""
    given = [*lines, *field_list(thing)] if what in ("class", "exception") and is_record(thing) else lines
    lines[:] = [linked(line) for line in headings(list(given))]


def on_member(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """On ``autodoc-skip-member``: the fields of a named tuple are in its list already."""
    return True if (inspect.getdoc(thing) or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls."""
    app.connect("autodoc-process-docstring", on_docstring)
    app.connect("autodoc-skip-member", on_member)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
