"""The examples in the docstrings run, and every public metric has one."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
WITHOUT = {  # what metrics are made of: the examples are those of the metrics
    "m2vsl.metrics.columns": {"segments"},
    "m2vsl.metrics.fast": {"hottest_counts"},
    "m2vsl.metrics.heat": {"nearly_equal", "settled", "validated", "validated_truth"},
}


def names(folder: str) -> list[str]:
    """The modules in `folder` and below."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]


def source(name: str) -> str:
    """The text of a module."""
    path = ROOT / name.replace(".", "/")
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8")


WITH_EXAMPLES = [name for name in names("m2vsl") if ">>> " in source(name)]
METRICS = [name for name in names("m2vsl/metrics") if ast.parse(source(name)).body[1:]]


@cache
def examples(name: str) -> tuple[doctest.DocTest, ...]:
    """The examples of a module, one group per docstring."""
    return tuple(test for test in doctest.DocTestFinder().find(importlib.import_module(name), name) if test.examples)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of(name: str) -> None:
    said: list[str] = []
    tests = examples(name)
    assert tests, "an example that is in no docstring never runs"
    for test in tests:
        doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append, clear_globs=False)
    if said:
        pytest.fail("".join(said), pytrace=False)


def test_a_wrong_example_fails() -> None:
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    said: list[str] = []
    assert doctest.DocTestRunner(optionflags=OPTIONS).run(wrong, out=said.append).failed == 1
    assert "Expected:" in "".join(said)


def measures(module: ModuleType) -> list[str]:
    """Public functions of a module that return numbers, and classes that hold them until they are asked."""
    found = []
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        returned = str(inspect.signature(thing).return_annotation) if inspect.isfunction(thing) else ""
        asked = inspect.isclass(thing) and any(hasattr(thing, method) for method in ("compute", "summary", "scores"))
        if asked or re.search(r"Tensor|float|Interval|Part|Lead|Bounds", returned):
            found.append(name)
    return found


@pytest.mark.parametrize("name", METRICS)
def test_every_measure_has_an_example_in(name: str) -> None:
    called = "\n".join(example.source for test in examples(name) for example in test.examples)
    found = measures(importlib.import_module(name))
    without = {measure for measure in found if not re.search(rf"\b{measure}\(", called)}
    assert sorted(without - WITHOUT.get(name, set())) == [], "no example calls these"
