"""The prose against the code: the ledger is complete, and every name that a page gives leads somewhere."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from m2vsl.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
MODULES = sorted(p for p in (ROOT / "m2vsl").rglob("*.py") if p.name != "__init__.py")
POINTS = range(1, 59)
LINES = range(1, 20)  # about the rivals of Tables 1 to 3
NAME = re.compile(r"`(m2vsl(?:\.\w+)+|[A-Z]\w*(?:\.\w+)+)`")
LATER = "not implemented yet"


@cache
def page() -> str:
    """The page of deviations."""
    return (BOOK / "deviations.md").read_text("utf-8")


@cache
def points() -> dict[int, str]:
    """The text of every point, its heading left out; a point that comes twice keeps its first text."""
    parts = re.split(r"^\(ledger-(\d+)\)=\n### (\d+) · .+\n", page().split("\n(rivals)=")[0], flags=re.MULTILINE)
    found: dict[int, str] = {}
    for label, number, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        assert label == number, f"the heading of point {number} bears the label of {label}"
        assert int(number) not in found, f"point {number} comes twice"
        found[int(number)] = text
    return found


def term(text: str, name: str) -> str:
    """What stands under a term of a point: ``Choice``, ``Alternatives`` or ``Where``."""
    found = re.findall(rf"^{name}\n: (.+?)(?=\n\n|\n*\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return " ".join(found[0].split()) if len(found) == 1 else ""


@cache
def classes() -> dict[str, str]:
    """Every public class of the package and the module that defines it."""
    found = {}
    for path in MODULES:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        names = [n.name for n in ast.parse(path.read_text("utf-8")).body if isinstance(n, ast.ClassDef)]
        found |= {name: module for name in names if name[0] != "_"}
    return found


def leads_somewhere(name: str) -> bool:
    """Whether `name`, "Class.field" or "m2vsl.module.function", is in the package."""
    parts = name.split(".")
    if parts[0] != "m2vsl":
        if parts[0] not in classes():
            return False
        parts = [*classes()[parts[0]].split("."), *parts]
    for length in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if isinstance(thing, type) and not hasattr(thing, part):  # a field without default, or set in __init__
                return part in getattr(thing, "__annotations__", {}) or f"self.{part} = " in inspect.getsource(thing)
            if not hasattr(thing, part):
                return False
            thing = getattr(thing, part)
        return True
    return False


@cache
def lines() -> dict[int, list[str]]:
    """The cells of every line about the rivals: question, choice, alternatives, where."""
    section = page().split("\n(rivals)=")[1].split("\n(plus)=")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len({row[0] for row in rows}) == len(rows), "a line comes twice"
    return {int(row[0]): row[1:] for row in rows}


def commented_fields(kind: str = "ledger", modules: list[Path] = MODULES) -> list[tuple[str, int]]:
    """("Class.field", point) for every field whose comment names a point of the ledger, or a line about the rivals."""
    found = []
    for path in modules:
        text = path.read_text("utf-8")
        lines = text.splitlines()
        for owner in (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ClassDef)):
            for node in (n for n in owner.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)):
                found += [(f"{owner.name}.{node.target.id}", n) for n in named(lines[node.end_lineno - 1], kind)]
    return found


def named(text: str, kind: str = "ledger") -> list[int]:
    """The points that a text names: "ledger 13, 14" or "ledger 37-39", or "rivals 5"."""
    found: list[int] = []
    pattern = rf"\b[{kind[0].upper()}{kind[0]}]{kind[1:]} (\d+(?:(?:, |-)\d+)*)"
    for numbers in re.findall(pattern, re.sub(r" \([^()]*\)", "", text)):
        for first, _, last in (part.partition("-") for part in numbers.split(", ")):
            found += range(int(first), int(last or first) + 1)
    return found


def test_all_points_are_there_once() -> None:
    assert sorted(points()) == list(POINTS)


@pytest.mark.parametrize("number", POINTS)
def test_a_point_says_what_where_and_what_else(number: int) -> None:
    text = points()[number]
    assert all(term(text, name) for name in ("Choice", "Alternatives", "Where")), text
    names = NAME.findall(term(text, "Where"))
    assert [name for name in names if not leads_somewhere(name)] == []
    if not names:
        assert LATER in term(text, "Where").lower()
        assert LATER in text.lower().split("\nwhere\n")[0] or number == 33, "a choice without a place says so"


@pytest.mark.parametrize(("field", "number"), commented_fields())
def test_a_field_stands_at_the_points_its_comment_names(field: str, number: int) -> None:
    assert number in POINTS
    assert f"`{field}`" in term(points()[number], "Where").replace("_`", "`")


def test_only_points_that_exist_are_named_in_the_package() -> None:
    every = [(path.name, n) for path in MODULES for n in named(path.read_text("utf-8"))]
    assert len(every) > 50
    assert [place for place in every if place[1] not in POINTS] == []


def test_every_line_about_the_rivals_is_whole_and_leads_somewhere() -> None:
    assert sorted(lines()) == list(LINES)
    for number, cells in lines().items():
        assert len(cells) == 4 and all(cells), f"{number}: expected question, choice, alternatives, where, got {cells}"
        names = NAME.findall(cells[-1])
        assert names and [name for name in names if not leads_somewhere(name)] == [], number


def test_comments_and_lines_about_the_rivals_agree() -> None:
    rivals = [path for path in MODULES if path.parent.name == "baselines"]
    texts = {path.name: re.sub(r"\((rivals [\d, -]+)\)", r"\1", path.read_text("utf-8")) for path in rivals}
    every = {(name, number) for name, text in texts.items() for number in named(text, "rivals")}
    assert len(every) > 10 and [place for place in sorted(every) if place[1] not in LINES] == []
    fields_of_rivals = {f"{name}." for name, module in classes().items() if ".baselines." in module}
    told = {(name, n) for n, cells in lines().items() for name in NAME.findall(cells[-1])}
    told = {place for place in told if any(place[0].startswith(owner) for owner in fields_of_rivals)}
    assert told == set(commented_fields("rivals", rivals))
    modules = {
        (name.split(".")[2] + ".py", n)
        for n, cells in lines().items()
        for name in NAME.findall(cells[-1])
        if name.startswith("m2vsl.baselines.")
    }
    assert modules <= every, "a line leads to a module that does not name it"


def test_what_is_ours_is_listed_as_it_is() -> None:
    paper, plus = METHODS["m2vsl"].config, METHODS["m2vsl_plus"].config
    values = {f.name: (getattr(paper, f.name), getattr(plus, f.name)) for f in fields(paper) if f.name != "encoder"}
    differ = {name: tuple(map(str, both)) for name, both in values.items() if both[0] != both[1]}
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| `(.+?)` \| .+ \|$", page().split("\n(plus)=")[1], flags=re.MULTILINE)
    assert {name: (old, new) for name, old, new in rows} == differ
    told = page().split("\n(plus)=")[1].split("\n(as-released)=")[0]
    assert METHODS["m2vsl_plus"].data and not METHODS["m2vsl"].data
    assert all(f"`{name}` {value}" in told for name, value in METHODS["m2vsl_plus"].data.items())


@pytest.mark.parametrize("file", ["deviations", "notation", "protocols", "provenance", "data", "baselines"])
def test_names_on_pages_lead_somewhere(file: str) -> None:
    text = (BOOK / f"{file}.md").read_text("utf-8")
    names = set(NAME.findall(text)) | {
        f"m2vsl.{n}" for n in re.findall(r"`((?:ops|losses|overlap|attention)\.\w+)`", text)
    }
    names = {name.replace("m2vsl.overlap", "m2vsl.metrics.overlap") for name in names}
    assert [name for name in sorted(names) if not leads_somewhere(name)] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_has_its_place_in_the_reference(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    pages = "\n".join(p.read_text("utf-8") for p in sorted((BOOK / "api").glob("*.md")))
    assert len(re.findall(rf"^\.\. automodule:: {re.escape(name)}$", pages, flags=re.MULTILINE)) == 1


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("AudioConfig.rate", True),
        ("Batch.heard", True),
        ("MMT.phi", True),
        ("m2vsl.metrics.overlap.bound", True),
        ("m2vsl.model.M2VSL.pyramid", True),
        ("AudioConfig.speed", False),
        ("Nobody.field", False),
        ("m2vsl.losses.mcc", False),
        ("m2vsl.metric.overlap", False),
    ],
)
def test_a_name_that_leads_nowhere_is_noticed(name: str, there: bool) -> None:
    assert leads_somewhere(name) is there


def test_terms_of_a_point_are_told_apart() -> None:
    text = "Words.\n\nChoice\n: One\n  thing.\n\nAlternatives\n: None\n\nWhere\n: `A.b`\n"
    assert [term(text, name) for name in ("Choice", "Alternatives", "Where", "Why")] == [
        "One thing.",
        "None",
        "`A.b`",
        "",
    ]
    assert named("x; ledger 13 (two, 2), 14 and Ledger 37-39; rivals 2.") == [13, 14, 37, 38, 39]
    assert named("ledger 3; not SoundNet, rivals 1, 4.", "rivals") == [1, 4]
