"""Sphinx directive ``listing``: a function, method or class as it stands in the package, wider than the text.

    ```{listing} m2vsl.losses.mmc
    ```

The formula of its docstring is left out: the page has it, set. A name that is not there is an error of the build.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FORMULA = re.compile(r"^ *\.\. math::.*?\n\n", re.MULTILINE | re.DOTALL)


def find(name: str, root: Path) -> tuple[Path, str]:
    """The file and the source of ``m2vsl.module.Class.method`` under `root`; LookupError if there is no such thing."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        file = root.joinpath(*parts[:length]).with_suffix(".py")
        if file.is_file():
            text = file.read_text("utf-8")
            node: ast.AST = ast.parse(text)
            for part in parts[length:]:
                node = next((n for n in ast.iter_child_nodes(node) if getattr(n, "name", None) == part), ast.Pass())
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                return file, "\n".join(text.splitlines()[first - 1 : node.end_lineno])
    raise LookupError(f"{name}: expected a function or class under {root}")


def shown(source: str) -> str:
    """The source without its indentation and without the formula of its docstring."""
    lines = source.splitlines()
    margin = len(lines[0]) - len(lines[0].lstrip())
    return FORMULA.sub("", "\n".join(line[margin:] for line in lines) + "\n").rstrip()


class Listing(SphinxDirective):
    """The directive."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A block of code in a box wider than the text."""
        try:
            file, source = find(self.arguments[0], Path(self.env.srcdir))
        except LookupError as error:
            return [self.state_machine.reporter.error(str(error), line=self.lineno)]
        self.env.note_dependency(str(file))
        text = shown(source)
        block = nodes.literal_block(text, text, language="python")
        self.set_source_info(block)
        return [nodes.container("", block, classes=["full-width"], is_div=True, design_component="div")]


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls."""
    app.add_directive("listing", Listing)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
