"""The truths of a benchmark alone: what heat maps that any other program saved are scored against.

Neither pictures nor sounds are needed, nor lists to train on. `boxes`, `pickles` and `masks` say how a truth is read.

Conventions
-----------
::

    vggss         vggss.json, or a folder that holds it
    duet          vggss.json and vggsound_duet_test.csv
    instruments   vgginstruments_test.csv, and anno/<id>.<ext>: a pickled mask each
    avsbench      gt_masks/test/ of S4 or of MS3, in the folder or one level (s4_data, ms3_data) or two below
    folder        masks/<class>/<stem>.png

- Lists and vggss.json lie in the folder or in its metadata/.
- Ids: clips in the order of the list, of a pair the first; of AVSBench ``<name>_<k>``, the frames of a video one after
  the other; of a folder the stems, or ``<class>__<stem>`` where several classes have the stem. No id holds a slash, so
  that each can name a file. An id that comes twice is refused: nobody knows which truth is meant.
- Truths are 0 or 1, 224 x 224; of a pair 224 x 448, each clip on its own half.
- Every mask in a file is decoded once when the truths are opened, and again when it is read. What cannot be used is a
  `Problem` and no id. Empty truths are kept: failures (ledger 53).
- ``counts``: ``rows`` of the list, or files; ``bad_rows``, those that are not used. The others count truths in use, one
  per source, so that a clip of three pairs counts three times: ``corrupt_boxes`` and ``inverted_boxes`` as `Boxes` has
  them, ``overlapping_boxes`` (a pixel lies in two), ``empty_truths``, ``same_class_pairs``, ``resized`` (PNG files of
  another size), ``missing_frames``.

Source: protocol 1.1-1.3; ledger 23 (side by side), 52 (pairs), 53 (empty truths).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from m2vsl.data.benchmarks import BENCHMARKS, PAIRS, PUBLISHED
from m2vsl.data.boxes import Boxes, rasterise, read_vggss
from m2vsl.data.folder import expect_among
from m2vsl.data.layout import Problem
from m2vsl.data.lists import Entry, class_name, find_list, read_list
from m2vsl.data.masks import MaskFile, MaskFiles, find_avsbench, find_folder, read_any_colour, read_grey, visible
from m2vsl.data.pickles import read_pickled_mask
from m2vsl.types import Truth

SIDE = 224  # pixels per side of a frame
BOXES = "vggss.json"
CLIPS = PUBLISHED["vggss_test.csv"][0]


@dataclass(frozen=True)
class Truths:
    """The truths of a test list; a mask is made when it is read, never all at once."""

    kind: str  # one of `KINDS`
    root: Path
    ids: tuple[str, ...]  # unique, in the order of the list
    partners: tuple[str, ...]  # duet: the second clip of each id; else ()
    class_names: tuple[str, ...]  # alphabetical; () = the benchmark has none (MS3)
    labels: tuple[tuple[int, ...], ...]  # of each id, the class of each of its S sources; -1 = not known
    size: tuple[int, int]  # height and width of a truth, pixels
    full: int  # how many ids the whole published list has; of a folder, how many masks lie there
    counts: Mapping[str, int]  # what was found odd, by name
    problems: tuple[Problem, ...]  # rows and files that are not used, and lists that are cut short
    draw: Callable[[int], Tensor] = field(repr=False, compare=False)  # position of an id -> its mask (S, H, W)

    def __post_init__(self) -> None:
        _refuse_twice(self.root, self.ids)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {id: place for place, id in enumerate(self.ids)}

    def read(self, id: str) -> Truth:
        """The truth of an id: mask (S, H, W) of 0 and 1, classes (S,), all present. ValueError for an unknown id."""
        if id not in self._place:
            raise ValueError(f"{self.root}: expected one of the {len(self.ids)} ids of {self.kind}, got {id!r}")
        place = self._place[id]
        classes = torch.tensor(self.labels[place], dtype=torch.int64)
        return Truth(self.draw(place), classes, torch.ones(len(classes), dtype=torch.bool))

    def batches(self, size: int = 64, ids: Sequence[str] | None = None) -> Iterator[tuple[tuple[str, ...], Truth]]:
        """Ids, `size` at a time, and their truths: mask (B, S, H, W), classes and present (B, S).

        ids: some of the list, in any order; all by default.
        """
        if size < 1:
            raise ValueError(f"expected a batch size from 1, got {size}")
        every = self.ids if ids is None else tuple(ids)
        for start in range(0, len(every), size):
            some = every[start : start + size]
            yield some, stacked([self.read(id) for id in some])


def stacked(truths: Sequence[Truth]) -> Truth:
    """Truths of pictures with as many sources each (S, ...) as those of a batch (B, S, ...)."""
    parts = (torch.stack([getattr(truth, part.name) for truth in truths]) for part in fields(Truth))
    return Truth(*parts)


def open_truths(kind: str, root: Path) -> Truths:
    """The truths of a benchmark, whatever else lies beside them.

    kind: one of `KINDS`. root: see the conventions. FileNotFoundError, naming it, for what is not there; ValueError for
    another kind, an id that comes twice, both parts of AVSBench in one place, or if no truth can be used.
    """
    expect_among("truth", kind, KINDS)
    if not root.exists():
        raise FileNotFoundError(f"truths of {kind} not found: {root}")
    truths = _OPEN[kind](root)
    if truths.ids and truths.counts.get("empty_truths", 0) == sum(map(len, truths.labels)):
        raise ValueError(
            f"{root}: expected truths of {kind}, got nothing but empty ones; are boxes fractions of a frame?"
        )
    if not truths.ids:
        shown = "".join(f"\n  {problem}" for problem in truths.problems[:20])
        raise ValueError(f"{root}: expected truths of {kind}, got none that can be used{shown}")
    return truths


def _refuse_twice(root: Path, ids: Iterable[str]) -> None:
    twice = [f"{id} {times} times" for id, times in Counter(ids).items() if times > 1]
    if twice:
        raise ValueError(f"{root}: expected every id once, got {', '.join(twice[:20])}")


def _vggss(root: Path) -> Truths:
    path = root if root.is_file() else _beside(root, BOXES) / BOXES
    boxes, bad = read_vggss(path), list[Problem]()
    for id, told in boxes.items():
        if not id or "/" in id or not told.name:
            wrong = f"expected an id without slash and a class, got {id!r} of class {told.name!r}"
            bad.append(Problem(path, "index", wrong))
    rows = [(id,) for id, told in boxes.items() if id and "/" not in id and told.name]
    problems = [*bad, *_cut_short(path, len(rows), CLIPS, "clips")]
    return _boxed("vggss", root, rows, boxes, {"rows": len(boxes), "bad_rows": len(bad)}, problems)


def _duet(root: Path) -> Truths:
    boxes = read_vggss(_beside(root, BOXES) / BOXES)
    path, entries, bad = _rows(root, BENCHMARKS["vggsound"].tests["duet"], PAIRS, BENCHMARKS["vggsound"].id)
    cut_short, rows = _cut_short(path, len(entries), CLIPS, "good rows"), list[tuple[str, ...]]()
    for entry in entries:
        told = [class_name(boxes[id].name) if id in boxes else "not there" for id in entry.ids]
        odd = [(id, name, own) for id, name, own in zip(entry.ids, entry.names, told, strict=True) if name != own]
        if odd:
            wrong = "; ".join(f"{id} is {name} here, in {BOXES} it is {own}" for id, name, own in odd)
            bad.append(Problem(path, "index", f"line {entry.line}: {wrong}"))
        else:
            rows.append(entry.ids)
    counts = {"rows": len(rows) + len(bad), "bad_rows": len(bad)}
    return _boxed("duet", root, rows, boxes, counts, [*bad, *cut_short])


def _boxed(
    kind: str,
    root: Path,
    rows: Sequence[tuple[str, ...]],
    boxes: Mapping[str, Boxes],
    counts: dict[str, int],
    problems: Sequence[Problem],
) -> Truths:
    """Clips, or pairs of clips, whose truths are boxes."""
    names = tuple(sorted({class_name(told.name) for told in boxes.values() if told.name}))
    number = {name: label for label, name in enumerate(names)}
    labels = tuple(tuple(number[class_name(boxes[id].name)] for id in row) for row in rows)
    odd = {id: _oddities(boxes[id]) for id in {id for row in rows for id in row}}
    for oddity in ("corrupt_boxes", "inverted_boxes", "overlapping_boxes", "empty_truths"):
        counts[oddity] = sum(odd[id][oddity] for row in rows for id in row)
    if kind == "duet":
        counts["same_class_pairs"] = sum(len(set(label)) == 1 for label in labels)
    frames = 2 if kind == "duet" else 1

    def draw(place: int) -> Tensor:
        mask = torch.zeros(frames, SIDE, frames, SIDE)  # source, row, frame, column of the frame
        for source, id in enumerate(rows[place]):
            mask[source, :, source] = rasterise(boxes[id].boxes, SIDE)
        return mask.flatten(2)

    ids, partners = tuple(row[0] for row in rows), tuple(row[1] for row in rows if frames == 2)
    size = (SIDE, frames * SIDE)
    return Truths(kind, root, ids, partners, names, labels, size, CLIPS, counts, tuple(problems), draw)


def _oddities(told: Boxes) -> dict[str, bool]:
    each = torch.stack([rasterise([box], SIDE) for box in told.boxes] or [torch.zeros(SIDE, SIDE)]).sum(0)
    return {
        "corrupt_boxes": told.corrupt,
        "inverted_boxes": told.inverted,
        "overlapping_boxes": bool(each.max() > 1),
        "empty_truths": not bool(each.any()),
    }


def _beside(root: Path, name: str) -> Path:
    """The folder that a list or vggss.json lies in."""
    for place in (root, root / "metadata"):
        if (place / name).is_file() or (name != BOXES and (place / f"{name}.xz").is_file()):
            return place
    raise FileNotFoundError(f"{name} not found: neither in {root} nor in {root / 'metadata'}")


def _rows(root: Path, name: str, columns: Sequence[str], pattern: str) -> tuple[Path, list[Entry], list[Problem]]:
    path = find_list(_beside(root, name), name)
    entries, problems = read_list(path, columns, pattern)
    twice = [problem for problem in problems if "is listed again" in problem.message]
    if twice:
        raise ValueError(f"expected every id once, got {len(twice)} again, the first: {twice[0]}")
    return path, entries, problems


def _cut_short(path: Path, got: int, full: int, what: str) -> list[Problem]:
    wrong = f"expected {full:,} {what}, as published, got {got:,}"
    return [] if got == full else [Problem(path, "index", wrong)]


def _instruments(root: Path) -> Truths:
    name = BENCHMARKS["instruments"].tests["single"]
    path, entries, bad = _rows(root, name, ("id", "class"), BENCHMARKS["instruments"].id)
    if not (root / "anno").is_dir():
        raise FileNotFoundError(f"expected a folder of masks {root / 'anno'}, got none")
    names, rows, full = sorted({entry.names[0] for entry in entries}), len(entries) + len(bad), PUBLISHED[name][0]
    bad += _cut_short(path, len(entries), full, "good rows")
    there: dict[str, list[Path]] = {}
    for place in visible(root / "anno"):
        there.setdefault(place.name.split(".")[0], []).append(place)
    files = []
    for entry in entries:
        id, masks = entry.ids[0], there.get(entry.ids[0], [])
        if len(masks) == 1:
            files.append(MaskFile(id, names.index(entry.names[0]), masks[0]))
        else:
            got = ", ".join(mask.name for mask in masks) or "none"
            bad.append(Problem(root / "anno" / id, "mask", f"expected one mask of {id}, got {got}"))
    return _filed("instruments", root, MaskFiles(files, names, full, rows, bad), _pickled)


def _pickled(path: Path, size: int) -> tuple[Tensor, bool]:
    return read_pickled_mask(path, size), False


def _filed(kind: str, root: Path, found: MaskFiles, read: Callable[[Path, int], tuple[Tensor, bool]]) -> Truths:
    """Pictures whose truths are files, a single source each."""
    _refuse_twice(root, (file.id for file in found.files))
    used, problems, empty, resized = list[MaskFile](), [*found.problems], 0, 0
    for file in found.files:
        try:
            mask, fitted = read(file.path, SIDE)
        except (OSError, ValueError) as error:
            problems.append(Problem(file.path, "mask", str(error).removeprefix(f"{file.path}: ")))
        else:
            used.append(file)
            empty, resized = empty + (not bool(mask.any())), resized + fitted
    counts = {"rows": found.rows, "bad_rows": found.rows - len(used), "empty_truths": empty}
    if kind != "instruments":
        counts["resized"] = resized
    if kind == "avsbench":
        counts["missing_frames"] = found.missing

    def draw(place: int) -> Tensor:
        return read(used[place].path, SIDE)[0][None]

    ids, labels = tuple(file.id for file in used), tuple((file.label,) for file in used)
    names = tuple(found.names)
    return Truths(kind, root, ids, (), names, labels, (SIDE, SIDE), found.full, counts, tuple(problems), draw)


_OPEN: Mapping[str, Callable[[Path], Truths]] = {
    "vggss": _vggss,
    "duet": _duet,
    "instruments": _instruments,
    "avsbench": lambda root: _filed("avsbench", root, find_avsbench(root), read_any_colour),
    "folder": lambda root: _filed("folder", root, find_folder(root), read_grey),
}
KINDS = tuple(_OPEN)
