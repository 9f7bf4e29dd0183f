"""AVSBench's lists: which videos a part has, in which split, and what they are labelled (protocol 1.3).

Conventions
-----------
- S4 (single source): ``s4_meta_data.csv`` in the folder or in ``Single-source/``, beside ``s4_data/``; MS3 (multi
  source): ``ms3_meta_data.csv`` in the folder or in ``Multi-sources/``, beside ``ms3_data/``. The names of columns are
  not settled: see `Columns`. Byte-order marks, CRLF and further columns are fine.
- The list of MS3 has no labels as published (ledger 36). They come from a column of it, where somebody added one, or
  from a file of rows ``name,labels``, with a header or without; rows of one name add up.
- Several labels stand in one cell, ``"guitar, violin"``: commas and semicolons divide, spaces and quotes around a label
  and labels that come again are dropped.
- A row that cannot be used is a `Problem` with its line, and no video.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from m2vsl.data.layout import Problem

SPLITS = ("train", "val", "test")
QUOTES = " \t\"'[]"


@dataclass(frozen=True)
class Part:
    """One of the two benchmarks."""

    name: str  # "S4", "MS3"
    around: str  # folder that its list and its data may lie in
    listed: str  # the list
    data: str  # folder of frames, masks and sounds
    videos: Mapping[str, int]  # split -> how many were published
    frame: str  # of second k, from 1


class Columns(NamedTuple):
    """What the columns of a list are called."""

    name: str = "name"
    labels: str = "category"
    split: str = "split"


USUAL = Columns()


class Video(NamedTuple):
    """Five seconds, five frames, one sound track."""

    name: str
    split: str
    labels: tuple[str, ...]  # () = nobody says


PARTS = {  # by task
    "single": Part(
        "S4",
        "Single-source",
        "s4_meta_data.csv",
        "s4_data",
        {"train": 3452, "val": 740, "test": 740},
        "visual_frames/{split}/{category}/{name}/{name}_{k}.png",
    ),
    "multi": Part(
        "MS3",
        "Multi-sources",
        "ms3_meta_data.csv",
        "ms3_data",
        {"train": 296, "val": 64, "test": 64},
        "visual_frames/{name}/{name}.mp4_{k}.png",
    ),
}


def home(root: Path, part: Part) -> Path:
    """The folder that holds the list of a part. FileNotFoundError naming the places looked into."""
    places = [root, root / part.around]
    for place in places:
        if (place / part.listed).is_file():
            return place
    raise FileNotFoundError(f"{part.listed} of {part.name} not found: looked into {', '.join(map(str, places))}")


def read_videos(
    path: Path, columns: Columns = USUAL, labels: Path | None = None, *, category: bool = False
) -> tuple[list[Video], list[Problem]]:
    """The videos of a list, in its order, and what is wrong with the other rows.

    labels: a file of labels by name; without it, the labels' column of the list where there is one.
    category: that column must be there.
    FileNotFoundError; ValueError, with the header that is there, if a needed column has another name or stands twice,
    and with the line for quotes that do not match.
    """
    (_, header), *rows = _rows(path) or [(0, [])]
    needed = [("name_column", columns.name), ("split_column", columns.split)]
    for field, name in needed + [("category_column", columns.labels)] * category:
        if header.count(name) != 1:
            raise ValueError(f"{path}: expected a column {name!r} ({field}), got {', '.join(header) or 'nothing'}")
    known = read_labels(labels) if labels is not None else {}
    found, problems = dict[str, Video](), list[Problem]()
    for line, cells in rows:
        row = dict(zip_longest(header, cells[: len(header)], fillvalue=""))
        name, split = row[columns.name], row[columns.split].lower()
        wrong = _wrong(name, split, found)
        if any(cells[len(header) :]):
            wrong = f"expected {len(header)} cells, got {len(cells)}: several labels in one cell stand in quotes"
        if wrong:
            problems.append(Problem(path, "index", f"line {line}: {wrong}"))
        else:
            found[name] = Video(name, split, known.get(name, ()) or several(row.get(columns.labels, "")))
    return list(found.values()), problems


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The rows that are not empty, each with the number of its last line."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file, skipinitialspace=True, strict=True)
        try:
            return [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: expected rows of a csv file, got {error}") from error


def _wrong(name: str, split: str, found: Mapping[str, Video]) -> str:
    if not name or "/" in name or name.startswith("."):
        return f"expected the name of a video, got {name!r}"
    if split not in SPLITS:
        return f"expected a split among {', '.join(SPLITS)}, got {split!r}"
    return f"{name} is listed twice" if name in found else ""


def read_labels(path: Path) -> dict[str, tuple[str, ...]]:
    """Labels by the name of the video; FileNotFoundError, and ValueError with the line for a row of another shape."""
    if not path.is_file():
        raise FileNotFoundError(f"expected a file of labels {path}, got none")
    rows = _rows(path)
    if rows and rows[0][1][0].lower() in ("name", "video", "id", "video_id"):
        rows = rows[1:]
    found = dict[str, tuple[str, ...]]()
    for number, (name, *cells) in rows:
        labels = several(",".join(cells))
        if not name or not labels:
            raise ValueError(f"{path}, line {number}: expected name,labels, got {','.join([name, *cells])!r}")
        found[name] = tuple(dict.fromkeys((*found.get(name, ()), *labels)))
    return found


def several(text: str) -> tuple[str, ...]:
    """The labels in a cell, each once.

    >>> several(' guitar, "violin";guitar ,')
    ('guitar', 'violin')
    """
    each = (label.strip(QUOTES) for label in text.replace(";", ",").split(","))
    return tuple(dict.fromkeys(label for label in each if label))


def class_names(videos: Sequence[Video]) -> tuple[str, ...]:
    """The labels of the training videos, alphabetical."""
    return tuple(sorted({label for video in videos if video.split == "train" for label in video.labels}))
