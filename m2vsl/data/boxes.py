"""Boxes to masks: the truths of VGG-SS and Flickr-SoundNet (protocol 1.2).

Conventions
-----------
- A box is left, top, right, bottom; it fills rows top ... bottom - 1 and columns left ... right - 1. Numbers are
  brought to pixels, clipped to the frame and truncated toward zero.
- VGG-SS: fractions of the *uncropped* frame. The mask is the union, 0 or 1: overlapping boxes are not added up, as in
  AVGN. A box with nothing inside (clipped, it ends before or where it begins) leaves no trace; a picture of such boxes
  alone has an empty truth, which is kept: a failure (ledger 53).
- Flickr-SoundNet: whole pixels of a 256 x 256 grid. Each box is a vote: two make 1, one makes 0.5, which enters the IoU
  as a weight.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GRID = 256  # pixels per side that Flickr-SoundNet was annotated on
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Boxes:
    """What VGG-SS says about a picture."""

    name: str  # the class, in words
    boxes: tuple[Box, ...]  # fractions of the frame, as they are in the file

    @property
    def corrupt(self) -> bool:
        """A coordinate lies outside of the frame: in 12 pictures one of about -2.9e16 does."""
        return any(not 0 <= value <= 1 for box in self.boxes for value in box)

    @property
    def inverted(self) -> bool:
        """A box ends before, or where, it begins: in 18 pictures, the 12 among them."""
        return any(not (right > left and bottom > top) for left, top, right, bottom in self.boxes)


def read_vggss(path: Path) -> dict[str, Boxes]:
    """Boxes by clip from ``vggss.json``. FileNotFoundError; ValueError naming file and entry for anything else."""
    if not path.is_file():
        raise FileNotFoundError(f"boxes not found: {path}")
    try:
        entries = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as json ({error})") from error
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected a list of entries, got {type(entries).__name__}")
    found: dict[str, Boxes] = {}
    for number, entry in enumerate(entries):
        try:
            id, boxes = str(entry["file"]), tuple(_box(box) for box in entry["bbox"])
            if id in found:
                raise ValueError(f"{id} comes twice")
            found[id] = Boxes(str(entry["class"]), boxes)
        except (KeyError, TypeError, ValueError) as error:
            wrong = f"expected file, class and bbox with four numbers each ({error})"
            raise ValueError(f"{path}: entry {number}: {wrong}, got {str(entry)[:120]}") from error
    return found


def _box(values: Sequence[object]) -> Box:
    left, top, right, bottom = (float(value) for value in values)  # type: ignore[arg-type]
    return left, top, right, bottom


def rasterise(boxes: Sequence[Box], size: int) -> Tensor:
    """Boxes in fractions of a frame -> (size, size) float32, 1 inside of any of them, else 0."""
    votes = _votes([[int(size * _clipped(value)) for value in box] for box in boxes], size)
    return torch.from_numpy(np.minimum(votes, 1))


def _clipped(value: float) -> float:
    return 0.0 if math.isnan(value) else min(max(value, 0.0), 1.0)


def _votes(boxes: Sequence[Sequence[int]], size: int) -> NDArray[np.float32]:
    """How many boxes, in pixels, hold each pixel: (size, size)."""
    votes = np.zeros((size, size), np.float32)
    for left, top, right, bottom in boxes:
        votes[top:bottom, left:right] += 1
    return votes


def read_consensus(path: Path, size: int) -> Tensor:
    """The boxes of all annotators of a picture, from its XML -> (size, size) float32: 0, 0.5 or 1.

    A ``bbox`` lies two levels below the root; its first child is not read, the next four are the numbers.
    FileNotFoundError; ValueError, naming the file, if it holds anything else, or no box.
    """
    if not path.is_file():
        raise FileNotFoundError(f"annotation not found: {path}")
    try:
        root = ElementTree.parse(path).getroot()
        boxes = [[int(child.text or "") for child in list(box)[1:]] for box in root.findall("*/bbox")]
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as boxes in XML ({error})") from error
    odd = [box for box in boxes if len(box) != 4]
    if odd or not boxes:
        raise ValueError(f"{path}: expected boxes of four whole numbers, got {odd[0] if odd else 'no box'}")
    pixels = [[size * min(max(value, 0), GRID) // GRID for value in box] for box in boxes]
    return torch.from_numpy(np.minimum(_votes(pixels, size) / 2, 1))
