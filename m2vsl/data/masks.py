"""Where masks lie that are PNG files, those of AVSBench and of anybody's folder, and how each is read (protocol 1.3).

Conventions
-----------
- AVSBench: ``gt_masks/test/<category>/<name>/<name>_<k>.png`` of S4, without the category of MS3; k from 1 to 5. It
  lies in the folder or in one of `AROUND`. In the order of category, name and k. Of a pixel any colour above 0 makes
  foreground, whatever the mode of the file; alpha is ignored.
- Folder: ``masks/<class>/<stem>.png``, in the order of class and name. A mask with colours is refused, as in training.
- Masks are brought to a square by nearest neighbour, squashed as the published loaders squash.
- Names that begin with a dot are passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from m2vsl import frame
from m2vsl.data.layout import Problem

FRAMES = range(1, 6)  # of a video of AVSBench, one a second
VIDEOS = {"S4": 740, "MS3": 64}  # of AVSBench's test splits
AROUND = ("s4_data", "ms3_data", "Single-source/s4_data", "Multi-sources/ms3_data")  # what gt_masks/ lies in


class MaskFile(NamedTuple):
    """The truth of a picture."""

    id: str
    label: int  # position of its class in `MaskFiles.names`; -1 = not known
    path: Path


class MaskFiles(NamedTuple):
    """What lies there; nothing is decoded."""

    files: Sequence[MaskFile]
    names: Sequence[str]  # classes, alphabetical
    full: int  # how many there should be
    rows: int  # how many lie there, whatever they are
    problems: Sequence[Problem]
    missing: int = 0  # frames of videos that are there


def find_avsbench(root: Path) -> MaskFiles:
    """The test masks of S4 or MS3. FileNotFoundError without any; ValueError if both lie there."""
    places = [place for around in ("", *AROUND) if (place := root / around / "gt_masks" / "test").is_dir()]
    if not places:
        raise FileNotFoundError(f"masks not found: {root / 'gt_masks' / 'test'}, nor in {', '.join(AROUND)} there")
    if len(places) > 1:
        raise ValueError(f"expected one part of AVSBench, got several: {', '.join(map(str, places))}")
    tops = [place for place in visible(places[0]) if place.is_dir()]
    part = "S4" if any(place.is_dir() for top in tops for place in visible(top)) else "MS3"
    videos = [(label, place) for label, top in enumerate(tops) for place in (visible(top) if part == "S4" else [top])]
    videos += [(-1, place) for place in visible(places[0]) if not place.is_dir()]
    files, problems, rows, missing = list[MaskFile](), list[Problem](), 0, 0
    for label, video in videos:
        there = visible(video) if video.is_dir() else [video]
        wanted = [video / f"{video.name}_{k}.png" for k in FRAMES] if video.is_dir() else []
        for place in there:
            if place not in wanted:
                problems.append(Problem(place, "mask", f"expected {part} masks <name>/<name>_<k>.png, k from 1 to 5"))
        lost = [place for place in wanted if place not in there]
        problems += [Problem(place, "mask", "missing: no mask of this frame") for place in lost]
        files += [MaskFile(p.stem, label if part == "S4" else -1, p) for p in wanted if p in there]
        rows, missing = rows + len(there), missing + len(lost)
    got = sum(video.is_dir() for _, video in videos)
    if got != VIDEOS[part]:
        wrong = f"expected the {VIDEOS[part]} videos of {part}, as published, got {got}"
        problems.append(Problem(places[0], "folder", wrong))
    names = [top.name for top in tops] if part == "S4" else []
    return MaskFiles(files, names, VIDEOS[part] * len(FRAMES), rows, problems, missing)


def find_folder(root: Path) -> MaskFiles:
    """The masks of a folder, by class. A stem that several classes have is ``<class>__<stem>``. FileNotFoundError."""
    if not (root / "masks").is_dir():
        raise FileNotFoundError(f"expected a folder of masks {root / 'masks'}, got none")
    tops = visible(root / "masks")
    names = [top.name for top in tops if top.is_dir()]
    listed = [place for top in tops for place in (visible(top) if top.is_dir() else [top])]
    masks = [place for place in listed if place.suffix.lower() == ".png" and place.parent != root / "masks"]
    wrong = "expected masks/<class>/<stem>.png, got another kind or place"
    problems = [Problem(place, "mask", wrong) for place in sorted({*listed} - {*masks})]
    classes = {place.stem: set[str]() for place in masks}
    for place in masks:
        classes[place.stem].add(place.parent.name)
    files = []
    for place in masks:
        id = place.stem if len(classes[place.stem]) == 1 else f"{place.parent.name}__{place.stem}"
        files.append(MaskFile(id, names.index(place.parent.name), place))
    return MaskFiles(files, names, len(masks), len(listed), problems)


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, by name."""
    return sorted(place for place in folder.iterdir() if not place.name.startswith("."))


def read_grey(path: Path, size: int) -> tuple[Tensor, bool]:
    """A mask of one channel: (size, size) of 0 and 1, and whether it was resized. ValueError naming file and fault."""
    if frame.is_coloured(path):
        raise ValueError(f"{path}: expected a mask of one channel, got RGB with colours: which one is the object?")
    return _fitted(frame.load_mask(path), size)


def read_any_colour(path: Path, size: int) -> tuple[Tensor, bool]:
    """A mask whose foreground has any colour: (size, size) of 0 and 1, and whether it was resized. Errors the same."""
    return _fitted(Image.fromarray(np.asarray(frame.load(path)).any(-1)).convert("L"), size)


def _fitted(mask: Image.Image, size: int) -> tuple[Tensor, bool]:
    resized = mask.size != (size, size)
    return frame.mask_tensor(mask.resize((size, size), Image.Resampling.NEAREST) if resized else mask), resized
