"""Heat maps that any other program saved, by clip: a folder, or one ``.npz``.

Conventions
-----------
::

    <id>.npy                one array: (h, w), or (K, h, w), several maps without names
    <id>.npz                the same, compressed: one array under any key
    <id>.png                one map
    <id>/<name>.npy, .png   several maps (h, w) of one size
    presence.csv            optional; columns id, class, presence: how surely each named class sounds, in [0, 1]
    maps.npz                instead of a folder: the keys are <id> or <id>/<name>

Names that count 0 ... K-1 are an order; any others are classes, in alphabetical order. Presence is given for every
class of a clip or for none. Any size will do; higher means more likely. Ids may hold ``-``, ``_`` and ``.``.

A picture is grey: 8 bits (value / 255), 16 bits (value / 65535) or bilevel; equal colour channels are grey. A palette,
colours or transparency are refused: they are overlays, no heat maps. JPEG loses too much and is not read.

The files are a stranger's (`m2vsl.data.arrays`): what cannot be used is a `Problem` or a ValueError, and never left out
in silence. Hidden files and those that hold neither arrays nor pictures are no concern of this module.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from torch import Tensor

from m2vsl.data.arrays import RefusedError, naming, open_file, read_npy, read_png, to_maps
from m2vsl.data.layout import Problem
from m2vsl.records import id_hash

READ = (".npy", ".npz", ".png")
PICTURES = (".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm", ".pfm", ".exr")
STORES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".mat", ".h5", ".hdf5", ".safetensors", ".gz", ".zip", ".tar")
MAPS = 1000  # of one clip
COLUMNS = ("id", "class", "presence")

Places = dict[str, dict[str, str]]  # id -> name of a map ("" = the file is the whole clip) -> file below the root


@dataclass(frozen=True)
class ClipMaps:
    """The maps of one clip."""

    heat: Tensor  # (K, h, w) float32, or float64 where float32 cannot hold what was saved; finite
    names: tuple[str, ...]  # class of each map; () = the maps have no names
    presence: tuple[float, ...] | None  # how surely each named class sounds, in [0, 1]; None = not said


@dataclass(frozen=True)
class Coverage:
    """Which of the clips that are asked for have maps."""

    found: tuple[str, ...]  # in the order asked for
    missing: tuple[str, ...]  # in the order asked for
    extra: tuple[str, ...]  # not asked for, sorted

    @property
    def hash(self) -> str:
        """`id_hash` of the clips found: two scores under one hash are about the same clips."""
        return id_hash(self.found)


def coverage(wanted: Sequence[str], got: Iterable[str]) -> Coverage:
    """Compare the ids of a test list with those of the maps. ValueError naming ids that are wanted more than once."""
    twice = [id for id, count in Counter(wanted).items() if count > 1]
    if twice:
        raise ValueError(f"expected every id once, got {len(twice)} more than once: {_few(twice)}")
    have = set(got)
    found, missing = (tuple(id for id in wanted if (id in have) is there) for there in (True, False))
    return Coverage(found, missing, tuple(sorted(have - set(wanted))))


class Heatmaps:
    """The maps in a folder or an ``.npz``, by clip; names are indexed here, no map is read before it is asked for.

    path: laid out as the module says. ids: sorted, unique. problems: what is not used and why. An id by more than one
    file is among them, and none of these files is used; a clip with a wrong row in presence.csv has no presence.
    heard: some clip says which of its classes sound.
    FileNotFoundError without `path`; ValueError if it is neither a folder nor a readable ``.npz``.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._zip: tuple[int, ZipFile] | None = None  # with the process that opened it
        self._folder, self._table = self.path.is_dir(), self.path / "presence.csv"
        problems: list[Problem] = []
        if not self.path.exists():
            raise FileNotFoundError(f"heat maps not found: {self.path}")
        if self._folder:
            self._places = _index(self.path, _below(self.path, problems), (READ, (".npy", ".png")), problems)
        elif self.path.suffix.lower() == ".npz" and self.path.is_file():
            with naming(self.path, "an .npz"):
                members = self._archive().namelist()
            self._places = _index(self.path, members, ((".npy",), (".npy",)), problems)
        else:
            raise ValueError(f"{self.path}: expected a folder of heat maps or an .npz, got another kind of file")
        if not self._places:
            problems.append(Problem(self.path, "folder", f"expected maps ({', '.join(READ)}), got none that is used"))
        self._names = {id: _names(files) for id, files in self._places.items()}
        self._presence: dict[str, dict[str, float]] = {}
        if self._folder and self._table.is_file():
            self._presence = _read_presence(self._table, {k: v[0] for k, v in self._names.items()}, problems)
        self.ids = tuple(sorted(self._places))
        self.problems = tuple(problems)
        self.heard = bool(self._presence)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_zip": None}

    def read(self, id: str) -> ClipMaps:
        """The maps of a clip. ValueError naming the file, what was expected and what is there."""
        if id not in self._places:
            why = next((str(p) for p in self.problems if p.kind == "id" and p.path == self.path / id), None)
            raise ValueError(why or f"{self.path}: expected the id of a clip with maps, got {id!r}")
        files, (names, order) = self._places[id], self._names[id]
        if len(order) > MAPS:
            raise ValueError(f"{self.path / id}: expected 1 to {MAPS} maps, got {len(order)}")
        maps = [self._read(files[name], most=1 if name else MAPS) for name in order]
        for name, heat in zip(order, maps, strict=True):
            if heat.shape != maps[0].shape:
                size, got = (f"{m.shape[1]} x {m.shape[2]}" for m in (maps[0], heat))
                raise ValueError(f"{self.path / files[name]}: expected {size} pixels like {files[order[0]]}, got {got}")
        said = self._presence.get(id)
        wide = torch.float64 if any(heat.dtype == torch.float64 for heat in maps) else torch.float32
        heat = torch.cat([heat.to(wide) for heat in maps])
        return ClipMaps(heat, names, tuple(said[name] for name in names) if said else None)

    def digest(self) -> str:
        """12 hex digits over what is used: names and bytes of the maps and of presence.csv, or those of the archive."""
        used = {".npz": self.path}
        if self._folder:
            used = {file: self.path / file for files in self._places.values() for file in files.values()}
            used |= {self._table.name: self._table} if self._table.is_file() else {}
        whole = hashlib.sha256()
        for name, place in used.items():  # in the order of the names, as indexed
            with naming(place, "a file"), open_file(place) as file:
                whole.update(name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
        return whole.hexdigest()[:12]

    def _read(self, file: str, most: int) -> Tensor:
        """1 to `most` maps of one file or key, (K, h, w)."""
        place = self.path / file
        picture = self._folder and place.suffix.lower() == ".png"
        with naming(place, "a picture" if picture else "an array"):
            if picture:
                heat = to_maps(read_png(place))
            elif not self._folder:
                heat = to_maps(read_npy(lambda: self._archive().open(file)))
            elif place.suffix.lower() == ".npy":
                heat = to_maps(read_npy(lambda: open_file(place)))
            else:
                heat = _only(place)
            if len(heat) > most:
                raise RefusedError(f"expected {'one map' if most == 1 else f'1 to {most} maps'}, got {len(heat)}")
        return heat

    def _archive(self) -> ZipFile:
        """The ``.npz``, opened once per process: two processes cannot share a place in a file."""
        if self._zip is None or self._zip[0] != os.getpid():
            self._zip = (os.getpid(), ZipFile(self.path))
        return self._zip[1]


def _only(place: Path) -> Tensor:
    """The maps of the ``.npz`` of one clip."""
    with open_file(place) as file, ZipFile(file) as archive:
        keys = archive.namelist()
        if len(keys) != 1 or not keys[0].endswith(".npy"):
            raise RefusedError(f"expected one array, got {len(keys)} entries: {_few(keys)}")
        return to_maps(read_npy(lambda: archive.open(keys[0])))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _below(root: Path, problems: list[Problem]) -> Iterator[str]:
    """Files under `root`, by relative name; of links to folders, only those right below it are followed."""

    def report(error: OSError) -> None:
        problems.append(Problem(Path(str(error.filename)), "folder", f"cannot be listed ({error.strerror})"))

    for folder, inner, files in os.walk(root, onerror=report, followlinks=True):
        if folder != str(root):
            inner[:] = [name for name in inner if not os.path.islink(os.path.join(folder, name))]
        for file in files:
            yield Path(folder, file).relative_to(root).as_posix()


def _index(root: Path, listed: Iterable[str], kinds: Sequence[Sequence[str]], problems: list[Problem]) -> Places:
    """The files of each clip; kinds: endings that are read right below the root, and one folder down."""
    found: dict[str, dict[str, list[str]]] = {}
    for file in sorted(listed):
        parts, ending = file.split("/"), os.path.splitext(file)[1]
        if any(part.startswith(".") for part in parts) or ending.lower() not in (*READ, *PICTURES, *STORES):
            continue
        parts[-1] = parts[-1].removesuffix(ending)
        if len(parts) > len(kinds) or ending.lower() not in kinds[len(parts) - 1] or not all(parts):
            places = f"<id>({'|'.join(kinds[0])}) or <id>/<name>({'|'.join(kinds[1])})"
            why = ": JPEG loses too much" if ending.lower() in (".jpg", ".jpeg") else ""
            problems.append(Problem(root / file, "file", f"not read, expected {places}{why}"))
        elif any("\ud800" <= letter <= "\udfff" for letter in file):  # how names of other encodings come
            problems.append(Problem(root / file, "file", "not read, expected a name in UTF-8"))
        else:
            found.setdefault(parts[0], {}).setdefault("/".join(parts[1:]), []).append(file)
    unique: Places = {}
    for id, names in found.items():
        whole = names.get("", [])
        rivals = [whole + [f"{id}/"] * (len(names) > 1)] if whole else list(names.values())
        clash = next((files for files in rivals if len(files) > 1), None)
        if clash is None:
            unique[id] = {name: files[0] for name, files in names.items()}
        else:
            message = f"expected one file for a map of {id}, got {len(clash)}: {_few(clash)}; none of {id} is used"
            problems.append(Problem(root / id, "id", message))
    return unique


def _names(files: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Classes, () if the maps have none, and the names of all maps in their order."""
    order = sorted(files)
    if order == [""]:
        return (), ("",)
    if all(name.isascii() and name.isdigit() for name in order):
        counted = sorted(order, key=int)
        if [int(name) for name in counted] == list(range(len(counted))):
            return (), tuple(counted)
    return tuple(order), tuple(order)


def _read_presence(
    path: Path, known: Mapping[str, Sequence[str]], problems: list[Problem]
) -> dict[str, dict[str, float]]:
    """Presence by class of the clips that have all rows, all of them good; known: the classes of each clip."""
    wrong: list[tuple[str, str]] = []  # (id, message)
    said: dict[str, dict[str, float]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if sorted(header) != sorted(COLUMNS):
                wrong.append(("", f"expected columns {', '.join(COLUMNS)}, got {', '.join(header) or 'none'}"))
            for row in rows if not wrong else ():
                if row:
                    cells = dict(zip(header, row, strict=False)) if len(row) == len(header) else {}
                    fault = _fault(cells, known, said) if cells else f"expected {len(header)} cells, got {len(row)}"
                    if fault:
                        wrong.append((cells.get("id", row[0]), f"line {rows.line_num}: {fault}"))
                    else:
                        said.setdefault(cells["id"], {})[cells["class"]] = float(cells["presence"])
    except (csv.Error, UnicodeDecodeError) as error:
        problems.append(Problem(path, "index", f"cannot be read as csv in UTF-8, not used ({error})"))
        return {}
    bad = {id for id, _ in wrong}
    for id in said.keys() - bad:
        lacking = [name for name in known[id] if name not in said[id]]
        if lacking:
            wrong.append((id, f"{id}: expected a presence for every class, got none for {_few(lacking)}"))
    problems += [Problem(path, "index", f"{message}; not used") for _, message in wrong]
    return {id: row for id, row in said.items() if id not in {id for id, _ in wrong}}


def _fault(
    cells: Mapping[str, str], known: Mapping[str, Sequence[str]], said: Mapping[str, Mapping[str, float]]
) -> str:
    """What is wrong with a row, "" if nothing."""
    id, name = cells["id"], cells["class"]
    if id not in known:
        return f"expected the id of a clip with maps, got {id!r}"
    if name not in known[id]:
        return f"expected a class of {id} ({_few(known[id]) or 'its maps have no names'}), got {name!r}"
    if name in said.get(id, {}):
        return f"{id},{name} is listed again"
    try:
        return "" if 0 <= float(cells["presence"]) <= 1 else f"expected a presence in [0, 1], got {cells['presence']}"
    except ValueError:
        return f"expected a presence in [0, 1], got {cells['presence']!r}"
