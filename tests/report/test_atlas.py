"""Where the paper's things live is read from the files, not remembered."""

from __future__ import annotations

import pytest

from m2vsl import paths
from m2vsl.report import atlas


def test_the_six_equations_are_found_where_they_stand() -> None:
    found = atlas.equations()
    assert [e.number for e in found] == [1, 2, 3, 4, 5, 6]
    for equation in found:
        file, line = equation.place.split(":")
        code = (paths.ROOT / file).read_text("utf-8").splitlines()[int(line) - 1]
        assert equation.name.split(".")[-1] in code and code.split()[0] in ("def", "class", "@torch.no_grad()")
        assert equation.tex and equation.tests, equation.name
    assert found[3].name == "losses.mmc"
    assert found[5].tex.startswith(r"\phi(x_j, X, X)")


def test_tests_and_notebooks_are_found_by_what_they_import() -> None:
    assert "tests/report/test_atlas.py" in atlas.tests_of("report.atlas")
    assert atlas.tests_of("no_such_module") == []
    assert "00_reading_map" in atlas.notebooks_of("report.atlas")


def test_a_cell_with_a_line_for_the_shell_imports_nothing() -> None:
    assert atlas._imported("!ls\nimport m2vsl.losses") == frozenset()
    assert atlas._imported("from m2vsl import losses, ops") >= {"losses", "ops"}
    assert atlas._imported("import m2vsl.metrics.overlap") == {"metrics.overlap"}


def test_the_tables_have_a_row_per_equation_and_module() -> None:
    table = atlas.equation_table()
    assert [row[0] for row in table.rows] == list("123456")
    assert table._repr_html_().count('class="math') == 6
    sections = atlas.section_table({"3.1": ["losses", "baselines.ez_vsl"], "3.2": ["model"]})
    assert [row[0] for row in sections.rows] == ["3.1", "", "3.2"]
    assert sections.rows[0][1] == "m2vsl/losses.py" and "tests/test_losses.py" in sections.rows[0][3]
    assert all(len(line) <= len(max(repr(sections).splitlines(), key=len)) for line in repr(sections).splitlines())


def test_an_unknown_module_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a module of m2vsl, got 'loses'"):
        atlas.section_table({"3.1": ["loses"]})
