"""Show a function in a page as it runs: the live source, never a copy that could go stale."""

from __future__ import annotations

import ast
import html
import inspect
import io
import keyword
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2vsl import paths

# Classes of Pygments, so that a book's own theme colours them, by day and by night; the rules are for JupyterLab, whose
# editor has its colours in variables, and weigh less than any theme's (:where).
_CLASSES = {tokenize.COMMENT: "c1", tokenize.STRING: "s", tokenize.NUMBER: "m"}
_RULES = (
    (".m2vsl-source", "margin:.3em 0;font-size:.92em"),
    (".m2vsl-source pre", "overflow-x:auto;margin:0;padding:.6em .8em;line-height:1.35"),
    (".m2vsl-place", "font-size:.85em"),
    (".m2vsl-book,.bd-article .m2vsl-lab", "display:none"),
    (".bd-article .m2vsl-book", "display:inline"),
    (".m2vsl-source .k", "color:var(--jp-mirror-editor-keyword-color,#7928a1)"),
    (".m2vsl-source .s", "color:var(--jp-mirror-editor-string-color,#116329)"),
    (".m2vsl-source .c1", "color:var(--jp-mirror-editor-comment-color,#57606a);font-style:italic"),
    (".m2vsl-source .m", "color:var(--jp-mirror-editor-number-color,#0550ae)"),
    (".m2vsl-source .nf", "color:var(--jp-mirror-editor-def-color,#0550ae);font-weight:600"),
)
_STYLE = "<style>" + "".join(f":where({where}){{{rule}}}" for where, rule in _RULES) + "</style>"
_LINKS = (
    '<a class="m2vsl-lab" href="../{file}#L{line}">{place}</a>'
    '<a class="m2vsl-book" href="../_modules/{page}">{place}</a>'
)


@dataclass(frozen=True)
class Source:
    """A piece of source code that a notebook shows: coloured where it can, plain text elsewhere."""

    name: str  # as it is imported, "m2vsl.losses.mmc"
    module: str  # "m2vsl.losses"
    place: str  # "m2vsl/losses.py:78"
    code: str

    def __repr__(self) -> str:
        return f"# {self.place}\n{self.code}"

    def _repr_html_(self) -> str:
        """With two links, of which one shows: to the file in JupyterLab, to the page of its module in the book."""
        file, _, line = self.place.partition(":")
        page = f"{file.removesuffix('.py')}.html#{self.name.removeprefix(self.module + '.')}"
        link = _LINKS.format(file=html.escape(file), line=line, place=html.escape(self.place), page=html.escape(page))
        place = f'<div class="m2vsl-place"><code>{html.escape(self.name)}</code> in {link}</div>'
        return f'{_STYLE}{place}<div class="m2vsl-source highlight"><pre>{highlight(self.code)}</pre></div>'


def show(thing: Any, *, docstring: bool = True) -> Source:
    """The source of a function, method or class, to be the last line of a cell.

    docstring: keep the docstring of `thing` itself; those of a class's methods always stay.
    Raises TypeError for what has no source: instances, built-ins.
    """
    thing = _bare(thing)
    try:
        lines, first = inspect.getsourcelines(thing)
    except (TypeError, OSError) as error:
        raise TypeError(f"expected a function or a class written in Python, got {thing!r}") from error
    code = textwrap.dedent("".join(lines)).rstrip()
    name = f"{thing.__module__}.{thing.__qualname__}"
    return Source(name, thing.__module__, f"{_file(thing)}:{first}", code if docstring else _without_docstring(code))


def place(thing: Any) -> str:
    """Where a function, method or class stands: ``m2vsl/losses.py:78``."""
    return show(thing).place


def highlight(code: str) -> str:
    """Python source as HTML: spans with the class names of Pygments, everything else escaped."""
    lines = code.splitlines(keepends=True)
    out, row, column = [], 1, 0
    for (start, end), kind in _coloured(code):
        out += [html.escape(_between(lines, (row, column), start), quote=False), f'<span class="{kind}">']
        out += [html.escape(_between(lines, start, end), quote=False), "</span>"]
        row, column = end
    out.append(html.escape(_between(lines, (row, column), (len(lines) + 1, 0)), quote=False))
    return "".join(out)


Place = tuple[int, int]  # (line from 1, column from 0)


def _coloured(code: str) -> Iterator[tuple[tuple[Place, Place], str]]:
    """((start, end), class) of every token with a colour, in order."""
    before, opened = "", None
    for token in tokenize.generate_tokens(io.StringIO(code + "\n").readline):
        name = tokenize.tok_name[token.type]
        if name == "FSTRING_START":  # from Python 3.12 on an f-string is several tokens
            opened = opened or token.start
        elif name == "FSTRING_END" and opened:
            yield (opened, token.end), "s"
            opened = None
        elif opened is None and (kind := _class(token, before)):
            yield (token.start, token.end), kind
        before = token.string if token.type == tokenize.NAME else ""


def _class(token: tokenize.TokenInfo, before: str) -> str:
    if token.type == tokenize.NAME:
        if keyword.iskeyword(token.string):
            return "k"
        return "nf" if before in ("def", "class") else ""
    return _CLASSES.get(token.type, "")


def _between(lines: list[str], start: Place, end: Place) -> str:
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]] if start[0] <= len(lines) else ""
    last = lines[end[0] - 1][: end[1]] if end[0] <= len(lines) else ""
    return lines[start[0] - 1][start[1] :] + "".join(lines[start[0] : end[0] - 1]) + last


def _without_docstring(code: str) -> str:
    node = ast.parse(code).body[0]
    if ast.get_docstring(node) is None:  # type: ignore[arg-type]
        return code
    text = node.body[0]  # type: ignore[attr-defined]
    lines = code.splitlines()
    rest = lines[: text.lineno - 1] + lines[text.end_lineno :]
    return "\n".join(line for i, line in enumerate(rest) if line.strip() or i != text.lineno - 1)


def _bare(thing: Any) -> Any:
    """The function behind a method, a property or a decorator."""
    if isinstance(thing, property) and thing.fget is not None:
        thing = thing.fget
    thing = getattr(thing, "__func__", thing)
    return inspect.unwrap(thing) if callable(thing) else thing


def _file(thing: Any) -> str:
    file = Path(inspect.getsourcefile(thing) or "").resolve()
    return file.relative_to(paths.ROOT).as_posix() if file.is_relative_to(paths.ROOT) else file.name
