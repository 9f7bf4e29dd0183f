"""What a page shows is the code that runs."""

from __future__ import annotations

import html
import inspect
import re

import pytest

from m2vsl import losses, ops, paths
from m2vsl.localizer import Localizer
from m2vsl.metrics.protocols import Protocol
from m2vsl.model import M2VSL
from m2vsl.report.source import highlight, place, show


def text_of(markup: str) -> str:
    """HTML without its tags."""
    return html.unescape(re.sub(r"<[^>]*>", "", markup))


def test_a_function_is_shown_as_it_runs() -> None:
    shown = show(losses.mmc)
    assert shown.code == inspect.getsource(losses.mmc).rstrip()
    assert shown.name == "m2vsl.losses.mmc"
    assert repr(shown) == f"# {shown.place}\n{shown.code}"


def test_the_place_is_where_it_is_defined() -> None:
    file, line = place(losses.mmc).split(":")
    assert (paths.ROOT / file).read_text("utf-8").splitlines()[int(line) - 1].startswith("def mmc(")


@pytest.mark.parametrize("thing", [M2VSL.localize, Protocol.digest, Localizer.enter, Protocol])
def test_methods_properties_and_classes_begin_at_the_margin(thing: object) -> None:
    code = show(thing).code
    assert code[0] not in " \t"
    compile(code, "shown", "exec")


def test_a_decorated_function_is_shown_whole() -> None:
    assert show(M2VSL.localize).code.startswith("@torch.no_grad()\ndef localize(")


@pytest.mark.parametrize("thing", [losses.mmc, ops.peak, M2VSL.localize, M2VSL])
def test_the_docstring_can_be_left_out(thing: object) -> None:
    kept, bare = show(thing), show(thing, docstring=False)
    first = (inspect.getdoc(thing) or "").splitlines()[0]
    assert first in kept.code and first not in bare.code
    compile(bare.code, "shown", "exec")
    left = [line.strip() for line in bare.code.splitlines() if line.strip()]
    everything = [line.strip() for line in kept.code.splitlines()]
    assert [line for line in left if line not in everything] == []
    assert left[-1] == everything[-1]


def test_without_docstring_nothing_is_left_out() -> None:
    assert show(losses._logits, docstring=False).code == show(losses._logits).code


@pytest.mark.parametrize("thing", [losses.mmc, M2VSL, show, Protocol])
def test_colours_change_no_character(thing: object) -> None:
    code = show(thing).code
    assert text_of(highlight(code)) == code


def test_keywords_strings_comments_and_names_are_coloured() -> None:
    marked = highlight('def f(x):\n    return f"{x} < 1" + "a"  # why & what\n')
    assert '<span class="k">def</span> <span class="nf">f</span>' in marked
    assert '<span class="s">f"{x} &lt; 1"</span>' in marked  # one piece, whichever Python tokenizes it
    assert '<span class="c1"># why &amp; what</span>' in marked
    assert text_of(marked).startswith("def f(x):\n    return ")


def test_the_html_links_to_the_file_and_to_the_book() -> None:
    page = show(M2VSL.localize)._repr_html_()
    line = place(M2VSL.localize).split(":")[1]
    assert f'href="../m2vsl/model.py#L{line}"' in page
    assert 'href="../_modules/m2vsl/model.html#M2VSL.localize"' in page
    assert text_of(page.split("<pre>")[1]) == show(M2VSL.localize).code


@pytest.mark.parametrize("thing", [3, len, "mmc"])
def test_what_has_no_source_is_refused(thing: object) -> None:
    with pytest.raises(TypeError, match="expected a function or a class written in Python, got"):
        show(thing)
