"""The scripts that run, check, clean and render the book."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import clean
import executed
import fingerprint
import nbformat
import offline
import pytest
import readme
import render
import run
import vendor
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from m2vsl import records
from m2vsl.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
PARAMETERS = 'preset = None\ndataset = "synthetic"\ndata_root = ""\nseed = 0'


def page(*code: str | NotebookNode) -> NotebookNode:
    """A small notebook: a title, the parameters, then `code`."""
    cells = [new_markdown_cell("# A page", id="title")]
    cells.append(new_code_cell(PARAMETERS, id="parameters", metadata={"tags": ["parameters"]}))
    cells += [new_code_cell(c, id=f"c{i}") if isinstance(c, str) else c for i, c in enumerate(code)]
    return new_notebook(cells=cells, metadata=clean.METADATA)


def golden(code: str, printed: str) -> NotebookNode:
    """A cell whose output nbval compares."""
    output = new_output("stream", name="stdout", text=printed)
    return new_code_cell(
        code, id="golden", outputs=[output], execution_count=7, metadata={"tags": ["nbval-check-output"]}
    )


def write(notebook: NotebookNode, path: Path) -> Path:
    """Put a notebook into a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


class TestFingerprint:
    """A run is out of date when its code, or a module that it reaches, changes; and only then."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        package = tmp_path / "toy"
        (package / "deep").mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "deep" / "__init__.py").write_text("")
        (package / "deep" / "far.py").write_text("x = 1\n")
        (package / "near.py").write_text("def f():\n    from toy.deep import far\n    return far.x\n")
        (package / "other.py").write_text("y = 1\n")
        (package / "cli.py").write_text("from toy import other\n")
        write(page("from toy.near import f\nf()"), tmp_path / "page.ipynb")
        return tmp_path

    @staticmethod
    def of(place: Path) -> str:
        fingerprint.content.cache_clear()
        fingerprint.imported_by.cache_clear()
        return fingerprint.fingerprint(place / "page.ipynb", place / "toy", [place / "lock"])

    def test_prose_outputs_and_other_modules_do_not_matter(self, place: Path) -> None:
        before = self.of(place)
        notebook = page("from toy.near import f\nf()")
        notebook.cells[0].source = "# Another title"
        notebook.cells[2].outputs = [new_output("stream", text="1")]
        write(notebook, place / "page.ipynb")
        (place / "toy" / "other.py").write_text("y = 2\n")
        assert self.of(place) == before

    @pytest.mark.parametrize("file", ["toy/near.py", "toy/deep/far.py", "toy/deep/__init__.py", "lock"])
    def test_what_it_reaches_matters(self, place: Path, file: str) -> None:
        before = self.of(place)
        with (place / file).open("a") as out:
            out.write("# edited\n")
        assert self.of(place) != before

    def test_its_own_code_matters(self, place: Path) -> None:
        before = self.of(place)
        write(page("from toy.near import f\nf() + 1"), place / "page.ipynb")
        assert self.of(place) != before

    @pytest.mark.parametrize("code", ["!toy data check", "%matplotlib inline\nimport toy.other", "if broken"])
    def test_magics_shell_lines_and_broken_code(self, place: Path, code: str) -> None:
        assert place / "toy" / "other.py" in fingerprint.reached(code, place / "toy")


class TestRun:
    """One notebook, one line; a failure names notebook, cell and error."""

    def test_success(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source = write(page("import os\nprint(preset, seed, data_root, os.getcwd())"), tmp_path / "fine.ipynb")
        target = tmp_path / "out" / "fine.ipynb"
        given = ["-p", "preset", "smoke", "-p", "seed", "3", "-p", "data_root", ""]
        assert run.main(["execute", str(source), str(target), *given]) == 0
        assert capsys.readouterr().out.split()[:2] == ["pass", "fine"]
        assert nbformat.read(target, 4).cells[-1].outputs[0].text == f"smoke 3  {ROOT}\n"
        assert list(target.parent.iterdir()) == [target]

    @pytest.mark.parametrize(
        ("code", "error"),
        [("1 / 0", "ZeroDivisionError: division by zero"), ("import os\nos.kill(os.getpid(), 9)", "Kernel died")],
    )
    def test_failure(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, error: str) -> None:
        source = write(page("1 + 1", code, "2 + 2"), tmp_path / "bad.ipynb")
        target = tmp_path / "out" / "bad.ipynb"
        assert run.main(["execute", str(source), str(target), "-p", "preset", "smoke"]) == 3
        first, second, *rest = capsys.readouterr().out.splitlines()
        assert first.split()[:2] == ["FAIL", "bad"]
        assert second.startswith(f"{source}, cell 4: ") and error in second
        assert f"    {code.splitlines()[-1]}" in rest
        assert not target.exists() and target.with_suffix(".failed.ipynb").exists()

    def test_unknown_parameter(self, tmp_path: Path) -> None:
        source = write(page(), tmp_path / "fine.ipynb")
        with pytest.raises(run.NotebookError, match="no parameter sead; it has preset, dataset, data_root, seed"):
            run.execute(source, tmp_path / "out.ipynb", {"sead": 1})

    def test_check_compares_golden_outputs(self, tmp_path: Path) -> None:
        run.check(write(page(golden("print(2 + 2, 'in 3.1 s')", "4 in 9 s\n")), tmp_path / "right.ipynb"))
        with pytest.raises(run.NotebookError, match=r"(?s)wrong\.ipynb.*mismatch 'stdout'"):
            run.check(write(page(golden("print(2 + 2)", "5\n")), tmp_path / "wrong.ipynb"))

    @pytest.mark.parametrize(("text", "value"), [("3", 3), ("true", True), ("", ""), ("../a b", "../a b")])
    def test_values(self, text: str, value: object) -> None:
        assert run.value(text) == value


class TestClean:
    """What a notebook is stored with."""

    def test_only_golden_outputs_stay(self) -> None:
        notebook = page("print(1)", golden("print(4)", "4\n"))
        notebook.cells[2].outputs = [new_output("stream", text="1\n")]
        notebook.cells[2].execution_count = 3
        notebook.cells[2].metadata = {"papermill": {"duration": 1}, "tags": []}
        notebook.cells.insert(2, new_code_cell("preset = 1", metadata={"tags": ["injected-parameters"]}))
        notebook.metadata["widgets"] = {"state": {}}
        cleaned = clean.clean(notebook)
        assert [c.id for c in cleaned.cells] == ["title", "parameters", "c0", "golden"]
        assert [(c.outputs != [], c.execution_count) for c in cleaned.cells[1:]] == [
            (False, None),
            (False, None),
            (True, 3),
        ]
        assert set(cleaned.metadata) == {"kernelspec", "language_info"} and cleaned.cells[2].metadata == {}
        assert clean.clean(cleaned) == cleaned

    def test_check_changes_nothing(self, tmp_path: Path) -> None:
        notebook = page("print(1)")
        notebook.cells[2].execution_count = 3
        path = write(notebook, tmp_path / "page.ipynb")
        before = path.read_bytes()
        assert clean.main(["--check", str(path)]) == 1 and path.read_bytes() == before
        assert clean.main([str(path)]) == 0 and path.read_bytes() != before
        assert clean.main(["--check", str(path)]) == 0

    def test_golden_outputs_come_from_a_run_of_the_same_code(self, tmp_path: Path) -> None:
        path = write(page(golden("print(4)", "")), tmp_path / "page.ipynb")
        write(page(golden("print(4)", "4\n")), tmp_path / "ran" / "page.ipynb")
        clean.main(["--from", str(tmp_path / "ran"), str(path)])
        assert nbformat.read(path, 4).cells[2].outputs[0].text == "4\n"
        write(page(golden("print(2 + 2)", "4\n")), tmp_path / "ran" / "page.ipynb")
        with pytest.raises(ValueError, match="cell golden is not as it was run"):
            clean.main(["--from", str(tmp_path / "ran"), str(path)])


class TestReadme:
    """README quotes records and nothing else."""

    def test_it_says_what_the_records_say(self) -> None:
        assert readme.PLACE.search(readme.README.read_text("utf-8"))
        assert readme.main(["--check"]) == 0

    def test_a_table_is_made_anew_between_its_markers(self) -> None:
        begin = "<!-- records: quick photosound duet -->"
        made = readme.rewritten(f"before\n{begin}\nold\n<!-- end -->\nafter {begin}")
        head, table, tail = made.partition(begin)[0], *made.partition(begin)[2].split("<!-- end -->")
        assert head == "before\n" and tail == f"\nafter {begin}" and "old" not in table
        rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
        recorded = {record.method for record in records.find(preset="quick", dataset="photosound", task="duet")}
        assert rows[2:] == [method.title for name, method in METHODS.items() if name in recorded]
        centre = json.loads(next((ROOT / "data/results/quick/photosound/duet").glob("centre-*.json")).read_text())
        cell = next(line for line in table.splitlines() if "Centre |" in line).split("|")[3].strip()
        assert cell == f"{100 * centre['metrics']['mixture/framewise-area50-oracle/ciou@0.3']:.1f}"
        assert readme.rewritten(made) == made

    def test_the_picture_comes_from_the_cell_of_maps(self, tmp_path: Path) -> None:
        nb08 = nbformat.read(ROOT / "notebooks" / "08_train_small.ipynb", 4)
        assert readme.CELL in {cell.id for cell in nb08.cells}
        shown = io.BytesIO()
        readme.Image.new("RGB", (4, 2), "red").save(shown, "png")
        output = new_output("display_data", {"image/png": base64.b64encode(shown.getvalue()).decode()})
        cell = new_code_cell("fig", id=readme.CELL, outputs=[output])
        assert readme.picture(write(page(cell), tmp_path / "ran.ipynb")).size == (4, 2)
        with pytest.raises(ValueError, match="expected one picture in cell"):
            readme.picture(write(page("1"), tmp_path / "other.ipynb"))


class TestOverlay:
    """A page shows the outputs of the copy that ran, never those of other code."""

    def ran(self) -> NotebookNode:
        notebook = page("print(1)", "print(2)")
        for count, cell in enumerate(notebook.cells[1:], 1):
            cell.execution_count, cell.outputs = count, [new_output("stream", text=str(count))]
        parameters = {"preset": "quick", "dataset": "folder", "data_root": "/somewhere/private", "seed": 1}
        notebook.metadata["papermill"] = {
            "parameters": parameters,
            "start_time": "2026-11-23T21:05:00",
            "duration": 41.7,
            "version": "2.7.0",
        }
        return notebook

    def test_outputs_go_by_id_and_stale_cells_show_none(self) -> None:
        shown = page("print(1)", "print(2)  # edited")
        shown.cells[3].outputs = [new_output("stream", text="left over")]
        shown.cells.insert(2, new_markdown_cell("new prose"))
        assert executed.merge(shown, self.ran()) == ["c1"]
        assert [c.outputs[0].text if c.outputs else None for c in shown.cells if c.cell_type == "code"] == [
            "1",
            "2",
            None,
        ]

    def test_provenance_tells_parameters_but_no_place(self) -> None:
        note = executed.provenance(self.ran())
        assert note is not None
        assert "preset `quick`, dataset `folder`, seed `1`" in note["source"] and "42 s" in note["source"]
        assert "private" not in note["source"]
        assert executed.provenance(page()) is None

    def test_on_reading_a_page(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        warnings: list[str] = []
        monkeypatch.setattr(executed, "warn", lambda docname, kind, *_: warnings.append(f"{docname}: {kind}"))
        noted: list[str] = []
        config = SimpleNamespace(executed_source="notebooks", executed_dir="ran")
        app = SimpleNamespace(config=config, srcdir=tmp_path, env=SimpleNamespace(note_dependency=noted.append))
        text = nbformat.writes(page("print(1)", "print(2)"))

        source = [text]
        executed.overlay(app, "book/index", source)
        assert source == [text] and warnings == []
        executed.overlay(app, "notebooks/page", source)
        assert source == [text] and warnings == ["notebooks/page: missing"]
        write(self.ran(), tmp_path / "ran" / "page.ipynb")
        executed.overlay(app, "notebooks/page", source)
        assert noted == [str(tmp_path / "ran" / "page.ipynb")] and len(warnings) == 1
        assert json.loads(source[0])["cells"][-1]["outputs"] != []


class TestVendor:
    """Scripts beside the pages, or a clear word that they are not."""

    def archive(self, folder: Path) -> tuple[vendor.Bundle, Path]:
        path = folder / "toy-1.0.tgz"
        with tarfile.open(path, "w:gz") as tar:
            for name in ("package/toy.js", "package/README.md", "package/dist/font.woff2"):
                info = tarfile.TarInfo(name)
                info.size = 2
                tar.addfile(info, io.BytesIO(b"ok"))
        digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
        return vendor.Bundle("@toys/toy", "1.0", digest, ("toy.js", "dist/*.woff2")), path

    def test_only_what_is_kept_is_unpacked(self, tmp_path: Path) -> None:
        bundle, path = self.archive(tmp_path)
        vendor.unpack(bundle, path, tmp_path / "out")
        files = sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.*"))
        assert files == [Path("dist/font.woff2"), Path("toy.js")] and bundle.name == "toy"

    def test_another_archive_is_refused(self, tmp_path: Path) -> None:
        bundle, path = self.archive(tmp_path)
        path.write_bytes(path.read_bytes() + b"x")
        with pytest.raises(ValueError, match=r"@toys/toy@1\.0: expected sha512"):
            vendor.unpack(bundle, path, tmp_path / "out")

    def test_a_folder_is_filled_once_or_not_at_all(self, tmp_path: Path) -> None:
        calls: list[Path] = []
        vendor.place(tmp_path / "toy", "1", calls.append)
        vendor.place(tmp_path / "toy", "1", calls.append)
        vendor.place(tmp_path / "toy", "2", calls.append)
        assert len(calls) == 2 and (tmp_path / "toy" / "VERSION").read_text() == "2"

        def fails(target: Path) -> None:
            (target / "half").touch()
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            vendor.place(tmp_path / "other", "1", fails)
        assert [p.name for p in tmp_path.iterdir()] == ["toy"]

    def test_without_npm_the_formulas_are_there_and_the_rest_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert vendor.main(tmp_path / "vendor") == 0
        assert (tmp_path / "vendor" / "mathjax" / "tex-mml-chtml.js").stat().st_size > 100_000
        assert list((tmp_path / "vendor").rglob("*.woff")) != []
        assert capsys.readouterr().out.count("no npm on this machine") == 2

    def test_pages_use_what_is_there(self, tmp_path: Path) -> None:
        config = SimpleNamespace(html_static_path=["static"], mathjax_path="web", nb_ipywidgets_js="web")
        app = SimpleNamespace(srcdir=tmp_path)
        offline.use_vendored(app, config)
        assert (config.mathjax_path, config.nb_ipywidgets_js) == ("web", "web")
        for script in (offline.MATHJAX, *offline.WIDGETS):
            (tmp_path / "static" / script).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "static" / script).touch()
        offline.use_vendored(app, config)
        assert config.mathjax_path == offline.MATHJAX and list(config.nb_ipywidgets_js) == list(offline.WIDGETS)


def test_a_warning_fails_the_page_and_nothing_old_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(render, "ROOT", tmp_path)
    monkeypatch.setattr(render, "BUILD", tmp_path / "_build")
    (tmp_path / "_build" / ".doctrees").mkdir(parents=True)
    (tmp_path / "_build" / "html").mkdir()
    tool = tmp_path / "jupyter-book"
    tool.write_text("#!/bin/sh\necho fine; printf '\\033[91mindex.md:3: WARNING: no such label\\033[0m\\n'; exit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert render.main("book/_executed/quick-synthetic") == 1
    verdict, *told = capsys.readouterr().out.splitlines()
    assert verdict.startswith("FAIL  book") and told[0].strip() == "index.md:3: WARNING: no such label"
    assert [p.name for p in (tmp_path / "_build").iterdir()] == ["build.log"]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """The workflow over two toy notebooks."""
    (tmp_path / "m2vsl").mkdir()
    (tmp_path / "m2vsl" / "__init__.py").touch()
    (tmp_path / "book").mkdir()
    shutil.copy(ROOT / "Snakefile", tmp_path)
    for script in ("run.py", "fingerprint.py"):
        shutil.copy(ROOT / "book" / script, tmp_path / "book")
    (tmp_path / "book" / "runs.yml").write_text(
        "preset: quick\ndataset: synthetic\ndata_root: ''\nseed: 0\nnotebooks: {00_a: {}, 01_b: {}}\n"
    )
    write(page("print(preset)"), tmp_path / "notebooks" / "00_a.ipynb")
    write(page("1 / 0"), tmp_path / "notebooks" / "01_b.ipynb")
    return tmp_path


def test_the_workflow_stops_at_a_failing_notebook_and_goes_on_from_there(workplace: Path) -> None:
    def snakemake(*config: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "snakemake", "--quiet", "all", "--nolock", "--cores", "2", "notebooks"]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            [*command, "--config", *config],
            cwd=workplace,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    failed = snakemake("preset=smoke")
    assert failed.returncode != 0
    assert "FAIL  01_b" in failed.stdout and "notebooks/01_b.ipynb, cell 3: ZeroDivisionError" in failed.stdout
    write(page("1 / 1"), workplace / "notebooks" / "01_b.ipynb")
    mended = snakemake("preset=smoke")
    assert mended.returncode == 0, mended.stderr
    assert [line.split()[:2] for line in mended.stdout.splitlines()] == [["pass", "01_b"]]
    refused = snakemake("preset=smoke", "dataset=folder", "data_root=nowhere")
    assert refused.returncode != 0 and f"no folder at {workplace / 'nowhere'}" in refused.stdout


@pytest.mark.parametrize("script", [".ci/run", ".ci/setup"])
def test_shell_scripts_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(ROOT / script)], check=False).returncode == 0


def test_make_tells_its_targets() -> None:
    told = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("book", "test", "lab", "smoke", "lint", "bench", "records", "help"):
        assert f"make {target} " in told
