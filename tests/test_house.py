"""The house itself: floors, sizes, names, docstrings, equations, notebooks, and what may be under version control."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import m2vsl

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "m2vsl"
MODULES = sorted(PACKAGE.rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

FLOORS = (  # a module imports from lower floors only
    ("", "types", "paths", "help"),
    ("ops", "parallel", "processor", "audio", "frame", "media", "records"),
    ("encoders", "attention", "losses", "localizer", "metrics"),
    ("model", "baselines", "data", "training", "evaluate", "hearing", "refine"),
    ("methods", "segmenting"),
    ("exam",),
    ("experiment", "scoring"),
    ("presets",),
    ("ablations", "card"),
    ("report", "released"),
    ("cli_maps", "cli_masks"),
    ("cli",),
)
SIBLINGS = ("metrics", "data", "training", "report")  # rooms whose modules may import one another, without cycles
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
TOP = """
    .ci .gitignore .pre-commit-config.yaml CITATION.cff LICENSE LICENSE-text.md Makefile README.md Snakefile _config.yml
    book data environment.yml m2vsl notebooks pyproject.toml requirements.lock tests
"""


def ids(path: Path) -> str:
    """A test's name for a file."""
    return str(path.relative_to(ROOT))


def name_of(path: Path) -> str:
    """The dotted name of a module, without the package: ``metrics.overlap``; a front door is its folder's name."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


@cache
def tree(path: Path) -> ast.Module:
    """A module, parsed once."""
    return ast.parse(path.read_text("utf-8"))


def defined(module: ast.Module) -> set[str]:
    """Names that a module makes itself, as against those that it imports."""
    made = {n.name for n in module.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    for node in module.body:
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            made |= {n.id for n in ast.walk(target) if isinstance(n, ast.Name)} if target else set()
    return made


def imports(module: ast.Module) -> Iterator[tuple[str, str | None]]:
    """(module of this package, name taken from it or None) for every import, those inside functions included."""
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "m2vsl"):
            assert not node.level, f"line {node.lineno}: imports are absolute"
            source = (node.module or "").removeprefix("m2vsl").lstrip(".")
            for alias in node.names:
                inner = f"{source}.{alias.name}".lstrip(".")
                yield (inner, None) if exists(inner) else (source, alias.name)
        elif isinstance(node, ast.Import):
            yield from ((a.name[6:], None) for a in node.names if a.name.split(".")[0] == "m2vsl")


def exists(name: str) -> bool:
    """Whether a dotted name is a module or a package of ours."""
    place = PACKAGE.joinpath(*name.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def faults(name: str, module: ast.Module) -> list[str]:
    """What a module imports although it must not."""
    room, found = name.split(".")[0], []
    for source, taken in imports(module):
        other = source.split(".")[0]
        if other not in FLOOR:
            found.append(f"imports {source}, which has no floor")
        elif not (FLOOR[other] < FLOOR[room] or (other == room and room in SIBLINGS)):
            found.append(f"imports {source}: floor {FLOOR[other]} from floor {FLOOR[room]}")
        path = PACKAGE.joinpath(*source.split(".")).with_suffix(".py")
        if taken and source and not (path.exists() and taken in defined(tree(path))):
            found.append(f"takes {taken} from {source}, which does not define it")
    return found


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_a_module_imports_lower_floors_and_the_module_that_defines_a_name(path: Path) -> None:
    name = name_of(path)
    assert name.split(".")[0] in FLOOR, f"{name}: a thing without a room is a sign that the plan is wrong"
    assert faults(name, tree(path)) == []


@pytest.mark.parametrize(
    ("name", "code", "fault"),
    [
        ("losses", "from m2vsl.types import Batch", None),
        ("metrics.tally", "from m2vsl.metrics import overlap", None),
        ("losses", "def f():\n    from m2vsl.records import Record", None),
        ("cli", "from m2vsl import __version__", None),
        ("losses", "from m2vsl.model import M2VSL", "floor 3 from floor 2"),
        ("ops", "def f():\n    import m2vsl.audio", "floor 1 from floor 1"),
        ("baselines.ez_vsl", "from m2vsl.baselines.controls import Centre", "floor 3 from floor 3"),
        ("data.folder", "from m2vsl.evaluate import evaluate", "floor 3 from floor 3"),
        ("experiment", "from m2vsl.presets import PRESETS", "floor 7 from floor 6"),
        ("model", "from m2vsl.localizer import Batch", "does not define it"),
        ("model", "from m2vsl.metrics import success_rate", "does not define it"),
        ("model", "from m2vsl.tools import a", "has no floor"),
    ],
)
def test_the_floors_are_held(name: str, code: str, fault: str | None) -> None:
    found = faults(name, ast.parse(code))
    assert (fault is None and found == []) or (fault is not None and fault in " ".join(found))


def test_no_cycle_can_exist() -> None:
    graph = {name_of(path): {source for source, _ in imports(tree(path))} - {""} for path in MODULES}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as cycle:
        pytest.fail(f"modules import one another in a circle: {cycle.args[1]}")
    assert set(graph) <= set(order)


def test_importing_the_package_costs_nothing() -> None:
    code = "import sys, m2vsl; print(sorted({'torch', 'numpy', 'matplotlib', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_modules_and_functions_are_small_and_documented(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 300
    assert ast.get_docstring(tree(path)) or not tree(path).body, "a module says what it is"
    functions = [n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef)]
    assert [f"{f.name}: {n}" for f in functions if (n := (f.end_lineno or 0) - f.lineno + 1) > 60] == []
    public = [n for n in tree(path).body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name[0] != "_"]
    assert [n.name for n in public if not ast.get_docstring(n)] == [], "public names without a docstring"


def test_a_rival_is_a_short_read() -> None:
    """What is common stays common: trunks, similarities, losses, upsampling and evaluation are elsewhere."""
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in PACKAGE.glob("baselines/*.py")}
    assert len(lengths) > 2 and {name: n for name, n in lengths.items() if n > 200} == {}


@pytest.mark.parametrize("number", range(1, 7))
def test_each_equation_of_the_paper_is_in_one_place(number: int) -> None:
    lines = [(path, line) for path in MODULES for line in path.read_text("utf-8").splitlines()]
    places = [f"{ids(path)}: {line.strip()}" for path, line in lines if f"Eq. ({number})" in line]
    assert len(places) == 1, f"Eq. ({number}) is in {len(places)} places: {places}"


def tracked() -> list[Path]:
    """Files under version control, or about to be; without git, those that are in no folder that `make` makes."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        made = re.compile(
            r"(^|/)(\.venv|\.git|\.cache|\.\w+_cache|\.snakemake|__pycache__|runs|_build|_executed|vendor)/"
        )
        listed = [p for f in ROOT.rglob("*") if not made.search((p := str(f.relative_to(ROOT))) + "/")]
    return [ROOT / p for p in listed if p and (ROOT / p).is_file()]


def test_what_stands_at_the_top_is_planned() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in tracked()} <= set(TOP.split())


def test_no_thing_without_a_room() -> None:
    names = {part.split(".")[0] for path in tracked() for part in path.relative_to(ROOT).parts}
    assert names & {"utils", "helpers", "common", "misc"} == set()


def test_no_file_is_large() -> None:
    assert [ids(path) for path in tracked() if path.stat().st_size > 5_000_000] == []


def test_nothing_knows_one_machine() -> None:
    folder = re.compile(r"(?<![\w.$}~-])/(home|root|Users|work|mnt|opt|media)/")
    registry = re.compile(r"https?://[^\s\"')]*(pypi|pythonhosted|npmjs|anaconda|registry|pytorch\.org/whl)")
    found = []
    for path in tracked():
        if path.suffix in {".npz", ".png", ".jpg", ".wav", ".flac", ".parquet", ".safetensors", ".xz", ".gz"}:
            continue
        for count, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            found += [f"{ids(path)}:{count}: {m.group(0)}" for p in (folder, registry) if (m := p.search(line))]
    assert found == []


@pytest.fixture(scope="module")
def project() -> dict:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def wanted(project: dict) -> list[str]:
    """What the package, the book and the tests need."""
    return [
        *project["dependencies"],
        *project["optional-dependencies"]["book"],
        *project["optional-dependencies"]["test"],
    ]


def test_conda_installs_what_pip_does(project: dict) -> None:
    text = (ROOT / "environment.yml").read_text("utf-8")
    assert [line for line in text.splitlines() if not re.search(r"\S  # \S", line)] == [], "each line says why"
    packages = yaml.safe_load(text)["dependencies"]
    assert packages[-1]["pip"] == [*wanted(project), "-e ."]
    python = next(p for p in packages if isinstance(p, str) and p.startswith("python="))
    assert python.removeprefix("python=") in Requirement(f"python{project['requires-python']}").specifier


def test_the_lock_holds_names_and_versions_inside_the_ranges(project: dict) -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines() if line[:1] != "#"]
    plain = re.compile(r'[a-z0-9-]+==[\w.]+( ; python_version (<|>=) "3\.12")?')
    assert [line for line in lines if not plain.fullmatch(line)] == []
    pins: dict[str, list[str]] = {}
    for line in lines:
        name, version = line.split(" ; ")[0].split("==")
        pins.setdefault(canonicalize_name(name), []).append(version)
    for need in map(Requirement, [*wanted(project), *project["optional-dependencies"]["tensorboard"]]):
        versions = pins.get(canonicalize_name(need.name), [])
        assert versions and all(v in need.specifier for v in versions), f"{need}: the lock has {versions}"


KERNEL = {"IPython", "matplotlib_inline"}  # come with ipykernel, and are used in notebooks alone


def test_what_the_package_imports_is_declared(project: dict) -> None:
    extras = [*project["dependencies"], *project["optional-dependencies"]["tensorboard"], "ipywidgets"]
    declared = {canonicalize_name(Requirement(need).name) for need in extras}
    owners = packages_distributions()
    for path in MODULES:
        nodes = list(ast.walk(tree(path)))
        names = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
        names += [n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module]
        foreign = {n.split(".")[0] for n in names} - sys.stdlib_module_names - {"m2vsl"} - KERNEL
        missing = [n for n in foreign if not declared & {canonicalize_name(d) for d in owners.get(n, [])}]
        assert missing == [], f"{ids(path)} imports {missing}, which pyproject.toml does not name"


def test_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == m2vsl.__version__


def test_the_contents_the_runs_and_the_notebooks_agree() -> None:
    contents = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text("utf-8"))
    chapters = [
        c["file"] for part in contents["parts"] for top in part["chapters"] for c in [top, *top.get("sections", [])]
    ]
    runs = list(yaml.safe_load((ROOT / "book" / "runs.yml").read_text("utf-8"))["notebooks"])
    assert [c.removeprefix("notebooks/") for c in chapters if c.startswith("notebooks/")] == runs
    assert [path.stem for path in NOTEBOOKS] == runs
    pages = [c for c in [contents["root"], *chapters] if not c.startswith("notebooks/")]
    assert [page for page in pages if not (ROOT / f"{page}.md").exists()] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
class TestNotebook:
    """What every notebook keeps to."""

    def test_parameters(self, path: Path) -> None:
        cells = [c for c in read(path).cells if "parameters" in c.metadata.get("tags", [])]
        assert len(cells) == 1
        names = [t.id for s in ast.parse(cells[0].source).body if isinstance(s, ast.Assign) for t in s.targets]
        assert names == ["preset", "dataset", "data_root", "seed"]

    def test_outputs_are_only_those_nbval_compares(self, path: Path) -> None:
        cells = [c for c in code_cells(path) if "nbval-check-output" not in c.metadata.get("tags", [])]
        assert [c.id for c in cells if c.outputs or c.execution_count] == []

    def test_nbval_has_something_to_compare(self, path: Path) -> None:
        kept = [c for c in code_cells(path) if "nbval-check-output" in c.metadata.get("tags", [])]
        assert kept and all(c.outputs and c.execution_count for c in kept)

    def test_code_fits_the_page(self, path: Path) -> None:
        assert [c.id for c in code_cells(path) if len(c.source.splitlines()) > 15] == []
        assert [line for c in code_cells(path) for line in c.source.splitlines() if len(line) > 76] == []

    def test_no_class_is_defined(self, path: Path) -> None:
        plain = "\n".join(re.sub(r"^[%!].*", "", c.source, flags=re.MULTILINE) for c in code_cells(path))
        assert [n.name for n in ast.walk(ast.parse(plain)) if isinstance(n, ast.ClassDef)] == []

    def test_kernel_and_ids(self, path: Path) -> None:
        notebook = read(path)
        assert notebook.metadata.kernelspec.name == "python3"
        assert len({c.id for c in notebook.cells}) == len(notebook.cells)


@cache
def read(path: Path) -> nbformat.NotebookNode:
    """A notebook, read once."""
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    """Its cells of code."""
    return [c for c in read(path).cells if c.cell_type == "code"]
