"""What lies in a folder of photographs and recordings, and whether each file is what it should be.

Conventions
-----------
::

    images/<class>/*.jpg          .jpeg .png .webp .bmp
    masks/<class>/<stem>.png      the object's pixels are above 0; needed where maps are scored
    audio/<class>/*.wav           .flac .ogg .mp3
    classes.csv                   optional; column class (and id): the classes and their order, else alphabetical
    image_index.csv               optional; columns class, file (and fold): which photographs, else all
                                  and mask_kind, "human" say: what is scored apart, too
    audio_index.csv               optional; the same for recordings

Folds count from 1. Without them the files of a class are ordered by a hash of their names and dealt out in turn, so
that every fold has its share. A file that is not usable is reported as a `Problem`, never replaced by another.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from torch import Tensor

from m2vsl import frame
from m2vsl.audio import AudioConfig, cut, decode

PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3")
SILENCE = 1e-4  # peak amplitude below which a recording counts as silent (-80 dB of full scale)


@dataclass(frozen=True)
class Problem:
    """Something that keeps a file, a class or a folder from being used."""

    path: Path
    kind: str  # "folder", "class", "photo", "mask", "sound" or "index"
    message: str  # what was expected and what is there

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class DataError(ValueError):
    """Data that cannot be used as they are; ``problems`` lists each."""

    def __init__(self, root: Path, problems: Sequence[Problem], advice: str = "") -> None:
        self.problems = tuple(problems)
        shown = "\n  ".join(map(str, problems[:20]))
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        advice = advice or f"`m2vsl data check {root}` lists all; skip_bad (--skip-bad) leaves these files out"
        super().__init__(f"{len(problems)} problem(s) in {root}:\n  {shown}{more}\n{advice}")


@dataclass(frozen=True)
class Item:
    """One photograph or recording."""

    label: int  # position of its class in Layout.classes
    name: str  # <class>/<file>
    path: Path
    fold: int  # from 1


@dataclass(frozen=True)
class Layout:
    """The usable rows of a folder, and what is wrong with the others."""

    root: Path
    classes: tuple[str, ...]
    photos: tuple[Item, ...]
    sounds: tuple[Item, ...]
    problems: tuple[Problem, ...]
    mask_kinds: Mapping[str, str] = field(default_factory=dict)  # name of a photograph -> who made its mask

    def mask(self, photo: Item) -> Path:
        """Where the mask of a photograph belongs; the file need not exist."""
        return (self.root / "masks" / photo.name).with_suffix(".png")


def read_layout(root: Path, folds: int = 5) -> Layout:
    """List the classes, photographs and recordings under `root`; no file but the csv ones is opened."""
    missing = [place for place in (root, root / "images", root / "audio") if not place.is_dir()]
    if missing:
        message = "expected a folder with images/<class>/ and audio/<class>/, got none"
        return Layout(root, (), (), (), (Problem(missing[0], "folder", message),))
    problems: list[Problem] = []
    classes = _classes(root)
    if not classes:
        message = "expected at least one class (images/<class>/, or column class of classes.csv), got none"
        return Layout(root, (), (), (), (Problem(root, "folder", message),))
    photos = _items(root, "images", "image_index.csv", classes, folds, problems)
    sounds = _items(root, "audio", "audio_index.csv", classes, folds, problems)
    for kind, items in (("images", photos), ("audio", sounds)):
        problems += lacking(root / kind, classes, items, "no usable file listed")
    stems = Counter(str(Path(photo.name).with_suffix("")) for photo in photos)
    for photo in photos:
        if stems[str(Path(photo.name).with_suffix(""))] > 1:
            problems.append(Problem(photo.path, "photo", "expected one photograph of this name, got several: one mask"))
    return Layout(root, classes, photos, sounds, tuple(problems), _mask_kinds(root, photos))


def lacking(place: Path, classes: Sequence[str], items: Iterable[Item], message: str) -> list[Problem]:
    """A problem for every class without an item."""
    have = {item.label for item in items}
    return [Problem(place / name, "class", message) for label, name in enumerate(classes) if label not in have]


def _classes(root: Path) -> tuple[str, ...]:
    if (root / "classes.csv").is_file():
        rows = [row for _, row in _rows(root / "classes.csv") if row.get("class")]
        if all(row.get("id", "").isdigit() for row in rows):
            rows.sort(key=lambda row: int(row["id"]))
        return tuple(dict.fromkeys(row["class"] for row in rows))
    names = {p.name for kind in ("images", "audio") for p in (root / kind).iterdir() if p.is_dir()}
    return tuple(sorted(name for name in names if not name.startswith(".")))


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, row) of a csv file; CRLF and byte-order mark are fine, other encodings become names that do not exist."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        return [(reader.line_num, {k: (v or "").strip() for k, v in row.items() if k}) for row in reader]


def _items(
    root: Path, kind: str, index: str, classes: Sequence[str], folds: int, problems: list[Problem]
) -> tuple[Item, ...]:
    if (root / index).is_file():
        listed = _indexed(root, kind, index, classes, problems)
    else:
        endings = PHOTOS if kind == "images" else SOUNDS
        folders = [root / kind / name for name in classes if (root / kind / name).is_dir()]
        files = [p for folder in folders for p in sorted(folder.iterdir()) if p.suffix.lower() in endings]
        listed = [(p, 0) for p in files if not p.name.startswith(".")]
    dealt = _dealt([path for path, _ in listed], folds)
    return tuple(
        Item(classes.index(path.parent.name), f"{path.parent.name}/{path.name}", path, fold or dealt[path])
        for path, fold in listed
    )


def _indexed(
    root: Path, kind: str, index: str, classes: Sequence[str], problems: list[Problem]
) -> list[tuple[Path, int]]:
    """(file, fold or 0) of every good row; the others become problems."""
    listed: dict[Path, int] = {}
    for line, row in _rows(root / index):
        path, fold = root / kind / row.get("class", "") / row.get("file", ""), row.get("fold", "")
        wrong = ""
        if not row.get("class") or not row.get("file"):
            wrong = f"expected columns class and file, got {row}"
        elif row["class"] not in classes:
            wrong = f"unknown class {row['class']!r}; known: {', '.join(classes)}"
        elif fold and not (fold.isdigit() and int(fold)):
            wrong = f"expected a fold from 1, got {fold!r}"
        elif path in listed:
            wrong = f"{row['class']}/{row['file']} is listed twice"
        elif not path.is_file():
            wrong = f"no file {kind}/{row['class']}/{row['file']}"
        if wrong:
            problems.append(Problem(root / index, "index", f"line {line}: {wrong}"))
        else:
            listed[path] = int(fold or 0)
    return list(listed.items())


def _mask_kinds(root: Path, photos: Iterable[Item]) -> dict[str, str]:
    names, index = {photo.name for photo in photos}, root / "image_index.csv"
    rows = [row for _, row in _rows(index)] if index.is_file() else []
    told = {f"{row.get('class')}/{row.get('file')}": row.get("mask_kind", "") for row in rows}
    return {name: kind for name, kind in told.items() if kind and name in names}


def _dealt(paths: Iterable[Path], folds: int) -> dict[Path, int]:
    """A fold for every file: by class, in the order of a hash of the names, in turn."""

    def place(path: Path) -> str:
        return hashlib.blake2b(f"{path.parent.name}/{path.name}".encode(), digest_size=8).hexdigest()

    seen: Counter[str] = Counter()
    dealt = {}
    for path in sorted(paths, key=place):
        dealt[path] = seen[path.parent.name] % folds + 1
        seen[path.parent.name] += 1
    return dealt


def read_mask(path: Path, size: tuple[int, int]) -> Image.Image:
    """The mask of a photograph of `size` (width, height); ValueError if it is another's, coloured or empty."""
    mask = frame.load_mask(path)
    if mask.size != size:
        raise ValueError(f"{path}: expected a mask of the photograph's size {size}, got {mask.size}")
    if frame.is_coloured(path):
        raise ValueError(f"{path}: expected a mask of one channel, got RGB with colours: which one is the object?")
    if mask.getbbox() is None:
        raise ValueError(f"{path}: expected a mask with an object, got an empty one")
    return mask


def read_sound(path: Path, audio: AudioConfig) -> Tensor:
    """The whole recording at ``audio.rate``; ValueError if it, or the part of it that is used, is silent."""
    wave = decode(path, audio)
    for part, where in ((wave, "it is silent throughout"), (cut(wave, audio), "the part used is silent")):
        if float(part.abs().max()) < SILENCE:
            raise ValueError(f"{path}: expected a sound with a peak of at least {SILENCE:g}, but {where}")
    return wave
