"""The published benchmarks over VGG-Sound and Flickr: what their lists say is trained on and tested (protocol 1.1).

Conventions
-----------
- Classes are numbered by the alphabetical order of the *training* list's classes, whether or not their clips are there.
  A VGG-Sound list without labels takes them from ``vggsound.csv`` beside it; its classes are then joined by those that
  are tested. Without that file the tested classes are all there are, and training clips have none (-1). Flickr has no
  classes at all.
- A clip that is tested does not train: it is taken out of any training list and counted (``leaked``). The clips of
  VGG-SS are taken out of the instrument list too, whose own test stills are anonymous clips of VGG-Sound (ledger 31).
- Pairs are those of the list: not symmetric, partners repeat, 22 of one class (ledger 52).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from m2vsl.data.layout import Problem
from m2vsl.data.lists import CLIP, Entry, find_list, held_out, is_labelled, read_labels, read_list

LABELS = "vggsound.csv"  # classes by clip, for lists that have none


class Clip(NamedTuple):
    """A still and its sound."""

    id: str
    label: int  # position of its class in `Contents.classes`; -1 = not known


@dataclass(frozen=True)
class Benchmark:
    """Which lists it consists of; the first training list is the default."""

    tests: Mapping[str, str]  # task -> list
    trains: Mapping[str, str]  # short name -> list
    leaks: str  # the list whose clips are taken out of training
    id: str = CLIP  # regular expression of an id
    columns: tuple[str, ...] = ("id", "class")  # of the list of task "single"

    def train_list(self, choice: str) -> str:
        """The file of a training list: the default, one by its short name, or any .txt or .csv by its own."""
        if choice.endswith((".txt", ".csv")):
            return choice
        if choice and choice not in self.trains:
            raise ValueError(f"expected train among {', '.join(self.trains)}, or a .txt or .csv, got {choice!r}")
        return self.trains[choice or next(iter(self.trains))]


BENCHMARKS = {
    "vggsound": Benchmark(
        tests={"single": "vggsound_single_test.csv", "duet": "vggsound_duet_test.csv"},
        trains={
            "144k": "vggss_144k.txt",
            "10k": "vggss_10k.txt",
            "heard": "vggss_heard.txt",
            "labelled": "vggsound_single_train.txt",
        },
        leaks="vggsound_single_test.csv",
    ),
    "instruments": Benchmark(
        tests={"single": "vgginstruments_test.csv", "duet": "vgginstruments_multi_test.csv"},
        trains={"all": "vgginstruments_train.txt"},
        leaks="vggss_test.csv",
        id=rf"{CLIP}|sample\d{{4}}",
    ),
    "flickr": Benchmark(
        tests={"single": "flickr_test.csv"},
        trains={"144k": "flickr_144k.txt", "10k": "flickr_10k.txt"},
        leaks="flickr_test.csv",
        id=r"\d+",
        columns=("id", "frame"),
    ),
}
OPEN_SETS = {"heard": "vggss_heard_test.csv", "unheard": "vggss_unheard_test.csv"}  # parts of VGG-SS
PAIRS = ("id", "class", "id", "class")
PUBLISHED = {  # rows of whole test lists; EZ-VSL's of Flickr lacks one of SLAVC's
    "vggsound_single_test.csv": (5158,),
    "vggsound_duet_test.csv": (5158,),
    "vgginstruments_test.csv": (446,),
    "vgginstruments_multi_test.csv": (446,),
    "vggss_test.csv": (5158,),
    "vggss_heard_test.csv": (2564,),
    "vggss_unheard_test.csv": (2575,),
    "flickr_test.csv": (249, 250),
}


@dataclass(frozen=True)
class Contents:
    """What the lists say, whatever lies on disk."""

    path: Path  # the list
    classes: tuple[str, ...]  # alphabetical; () = the benchmark has none
    scenes: tuple[tuple[Clip, ...], ...]  # what is shown together, in the order of the list; in training one clip each
    problems: tuple[Problem, ...]  # rows that are not used, and lists that are cut short
    rows: int  # of the list
    bad: int  # of them not what they should be
    full: int  # rows of the whole published list; of a training list, its own
    leaked: tuple[str, ...] = ()  # training: clips that are tested, taken out or, if allowed, kept
    labelled: bool = True  # classes of clips are known, of some at least


def read_tests(lists: Path, name: str, task: str, *, train: str = "", part: str = "") -> Contents:
    """What is tested in a task of benchmark `name`.

    train: the training list, which numbers the classes. part: an open set of VGG-SS ("heard", "unheard"), solos.
    FileNotFoundError for a list that is not there.
    """
    benchmark = BENCHMARKS[name]
    path = find_list(lists, benchmark.tests[task])
    entries, problems = read_list(path, benchmark.columns if task == "single" else PAIRS, benchmark.id)
    if part:
        path, entries, problems = _part(find_list(lists, OPEN_SETS[part]), entries, benchmark)
    rows = len(entries) + len(problems)
    problems += _cut_short(path, len(entries))
    classes, source = ((), path) if name == "flickr" else _training(lists, benchmark, train, whole=False)[:2]
    number = {known: label for label, known in enumerate(classes)}
    scenes = []
    for entry in entries:
        unknown = [c for c in entry.names if c and c not in number]
        if unknown:
            wrong = f"class {unknown[0]!r} is not among the {len(classes)} of {source.name}"
            problems.append(Problem(path, "index", f"line {entry.line}: {wrong}"))
        else:
            scenes.append(tuple(Clip(id, number.get(c, -1)) for id, c in zip(entry.ids, entry.names, strict=True)))
    full, bad = _full(path, len(entries)), rows - len(scenes)
    return Contents(path, classes, tuple(scenes), tuple(problems), rows, bad, full, labelled=bool(classes))


def read_training(
    lists: Path, name: str, *, train: str = "", allow_leak: bool = False, val_share: float = 0.0, val: bool = False
) -> Contents:
    """What is trained on, or with `val` the share of it that validates instead.

    allow_leak: keep the clips that are tested. FileNotFoundError for a list that is not there.
    """
    benchmark = BENCHMARKS[name]
    classes, path, entries, problems, labels = _training(lists, benchmark, train)
    tested, of_tests = _tested(lists, benchmark, allow_leak)
    problems = [*problems, *of_tests]
    number = {known: label for label, known in enumerate(classes)}
    leaked = tuple(entry.ids[0] for entry in entries if entry.ids[0] in tested)
    kept = [e.ids[0] for e in entries if allow_leak or e.ids[0] not in tested]
    clips = [Clip(id, number.get(labels.get(id, ""), -1)) for id in kept if held_out(id, val_share) == val]
    bad = sum(problem.path == path for problem in problems)
    rows = len(entries) + bad
    labelled = any(clip.label >= 0 for clip in clips)
    return Contents(path, classes, tuple((c,) for c in clips), tuple(problems), rows, bad, rows, leaked, labelled)


def _tested(lists: Path, benchmark: Benchmark, allow_leak: bool) -> tuple[set[str], list[Problem]]:
    """Clips that must not train; a list of them that is not whole is a problem, unless leaks are allowed."""
    try:
        path = find_list(lists, benchmark.leaks)
    except FileNotFoundError as error:
        if allow_leak:
            return set(), []
        raise FileNotFoundError(f"{error}; its clips are kept out of training unless allow_leak is true") from error
    columns = benchmark.columns if benchmark.leaks in benchmark.tests.values() else ("id",)
    entries, problems = read_list(path, columns, benchmark.id)
    problems += _cut_short(path, len(entries))
    return {entry.ids[0] for entry in entries}, [] if allow_leak else problems


class _Training(NamedTuple):
    """A training list and the classes that it numbers."""

    classes: tuple[str, ...]
    path: Path
    entries: list[Entry]
    problems: list[Problem]
    labels: dict[str, str]  # id -> class


def _training(lists: Path, benchmark: Benchmark, choice: str, *, whole: bool = True) -> _Training:
    """whole: read its rows even where the classes do not depend on them."""
    path = find_list(lists, benchmark.train_list(choice))
    labelled, beside = is_labelled(path), lists / LABELS
    entries, problems = list[Entry](), list[Problem]()
    if whole or labelled or beside.is_file():
        entries, problems = read_list(path, ("id", "class") if labelled else ("id",), benchmark.id)
    if labelled:
        labels = {entry.ids[0]: entry.names[0] for entry in entries}
        return _Training(tuple(sorted(set(labels.values()))), path, entries, problems, labels)
    if "class" not in benchmark.columns:
        return _Training((), path, entries, problems, {})
    tested, _ = read_list(find_list(lists, benchmark.tests["single"]), benchmark.columns, benchmark.id)
    labels = {}
    if beside.is_file():
        every, odd = read_labels(beside)
        labels, problems = {e.ids[0]: every[e.ids[0]] for e in entries if e.ids[0] in every}, [*problems, *odd]
    names = {entry.names[0] for entry in tested} | set(labels.values())
    return _Training(tuple(sorted(names)), path, entries, problems, labels)


def _part(path: Path, entries: Sequence[Entry], benchmark: Benchmark) -> tuple[Path, list[Entry], list[Problem]]:
    """The entries that a list of ids names, in its order."""
    named, problems = read_list(path, ("id",), benchmark.id)
    of = {entry.ids[0]: entry for entry in entries}
    lost = [entry for entry in named if entry.ids[0] not in of]
    message = f"line {{}}: {{}} is not in {benchmark.tests['single']}"
    problems += [Problem(path, "index", message.format(entry.line, entry.ids[0])) for entry in lost]
    return path, [of[entry.ids[0]] for entry in named if entry.ids[0] in of], problems


def _full(path: Path, got: int) -> int:
    lengths = PUBLISHED[path.name.removesuffix(".xz")]
    return got if got in lengths else max(lengths)


def _cut_short(path: Path, got: int) -> list[Problem]:
    lengths = PUBLISHED[path.name.removesuffix(".xz")]
    expected = " or ".join(f"{length:,}" for length in lengths)
    wrong = f"expected {expected} good rows, as published, got {got:,}"
    return [] if got in lengths else [Problem(path, "index", wrong)]
