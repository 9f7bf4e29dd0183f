"""The public lists of clips: which, of what class, together with which (protocol 1.1).

Conventions
-----------
A list is comma-separated text without a header, plain or compressed (``.xz``). Lines end as they like: half of the
published lists end them in CRLF. A row that is not what it should be is a `Problem` with file, line and content; it is
neither repaired nor passed over in silence.
"""

from __future__ import annotations

import csv
import hashlib
import lzma
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from m2vsl.data.layout import Problem

CLIP = r"[\w-]{11}_\d{6}"  # eleven characters of YouTube's, the second it starts at


@dataclass(frozen=True, slots=True)
class Entry:
    """One good row: a clip, or a clip and its partner."""

    line: int  # from 1
    ids: tuple[str, ...]
    names: tuple[str, ...]  # the class of each; "" = the list does not say


def find_list(folder: Path, name: str) -> Path:
    """The file `name` of `folder`, or its ``.xz``. FileNotFoundError without either."""
    for path in (folder / name, folder / f"{name}.xz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"list not found: {folder / name}, nor {name}.xz beside it")


def read_list(path: Path, columns: Sequence[str], pattern: str) -> tuple[list[Entry], list[Problem]]:
    """Good rows and, as problems, the others: too few or many columns, an odd or repeated id, a class without name.

    columns: what stands where, "id", "class" or anything else, which is not read. A clip may be the partner of several.
    pattern: regular expression of a whole id; names of files are made of ids.
    """
    entries: list[Entry] = []
    problems: list[Problem] = []
    whole, first_seen = re.compile(pattern), dict[str, int]()
    places = [[i for i, name in enumerate(columns) if name == kind] for kind in ("id", "class")]
    for line, row in _rows(path):
        wrong = ""
        if len(row) != len(columns):
            wrong = f"expected {len(columns)} columns ({', '.join(columns)}), got {len(row)}: {','.join(row)!r}"
        else:
            ids, names = (tuple(row[i] for i in of_kind) for of_kind in places)
            names = names or ("",) * len(ids)
            odd = [id for id in ids if not whole.fullmatch(id)]
            if odd:
                wrong = f"expected an id like {pattern}, got {odd[0]!r}"
            elif "class" in columns and "" in names:
                wrong = f"expected a class, got none: {','.join(row)!r}"
            elif ids[0] in first_seen:
                wrong = f"{ids[0]} is listed again, after line {first_seen[ids[0]]}"
            elif len(set(ids)) < len(ids):
                wrong = f"expected two clips, got {ids[0]} twice"
        if wrong:
            problems.append(Problem(path, "index", f"line {line}: {wrong}"))
            continue
        first_seen[ids[0]] = line
        entries.append(Entry(line, ids, names))
    return entries, problems


def is_labelled(path: Path) -> bool:
    """Whether the rows of a training list, by its first, hold a class beside the id."""
    return any(len(row) > 1 for _, row in _first(path))


def read_labels(path: Path) -> tuple[dict[str, str], list[Problem]]:
    """Classes by clip, from rows ``id,class`` (a header of these words is fine) or those of VGG-Sound's own file.

    The latter holds the YouTube id, the start in seconds, the label in words, and the split, which is not read.
    """
    labels: dict[str, str] = {}
    problems: list[Problem] = []
    for line, row in _rows(path):
        if line == 1 and row == ["id", "class"]:
            continue
        if len(row) == 4 and row[1].isdigit():
            row = [f"{row[0]}_{int(row[1]):06d}", row[2]]
        if len(row) != 2 or not re.fullmatch(CLIP, row[0]) or not row[1]:
            wrong = f"expected id,class or YouTube id,second,class,split, got {','.join(row)!r}"
            problems.append(Problem(path, "index", f"line {line}: {wrong}"))
        else:
            labels[row[0]] = class_name(row[1])
    return labels, problems


def class_name(words: str) -> str:
    """A class as the lists write it: without commas, blanks as underscores (exact for all 221 of VGG-SS)."""
    return words.replace(",", "").replace(" ", "_")


def held_out(id: str, share: float) -> bool:
    """Whether a clip is among the `share` that validates: by a hash of its id, so in any list alike; ledger 44."""
    if share == 0:
        return False
    digest = hashlib.blake2b(id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def _open(path: Path) -> TextIO:
    if path.suffix == ".xz":
        return lzma.open(path, "rt", newline="", encoding="utf-8-sig", errors="replace")
    return path.open(newline="", encoding="utf-8-sig", errors="replace")


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of every row that is not blank; ValueError, naming the file, if it cannot be read to its end."""
    with _open(path) as file:
        reader = csv.reader(file)
        try:
            for row in reader:
                if any(row):
                    yield reader.line_num, [cell.strip() for cell in row]
        except (EOFError, lzma.LZMAError, csv.Error) as error:
            raise ValueError(f"{path}: cannot be read as a list ({error})") from error


def _first(path: Path) -> list[tuple[int, list[str]]]:
    for row in _rows(path):
        return [row]
    return []
