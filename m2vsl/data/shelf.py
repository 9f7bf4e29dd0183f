"""The files of a benchmark: which clips are there, and what each shows, sounds like and holds as its truth.

Conventions
-----------
::

    frames/<id>.jpg      one still per clip
    audio/<id>.wav
    anno/<id>.<ext>      instruments: a pickled mask; Flickr: <id>.xml. VGG-SS has its boxes in vggss.json of the lists

The folders are listed once; no clip is opened before it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from m2vsl.data.benchmarks import Clip
from m2vsl.data.boxes import Boxes, rasterise, read_consensus, read_vggss
from m2vsl.data.layout import Problem
from m2vsl.data.lists import class_name
from m2vsl.data.pickles import read_pickled_mask


class Shelf:
    """Clips under `root` of benchmark `name`, whose lists lie in `lists`.

    truths: whether truths are asked for, and have to be there. FileNotFoundError without frames/ or audio/ (or, with
    `truths`, anno/ or vggss.json).
    """

    def __init__(self, root: Path, lists: Path, name: str, *, truths: bool) -> None:
        self.root, self.name, self.truths = root, name, truths
        self._photo_folder, self._sound_folder = root / "frames", root / "audio"
        self._frames, self._sounds = _files(self._photo_folder), _files(self._sound_folder)
        self.boxes: dict[str, Boxes] = {}
        self._annotations: dict[str, list[str]] = {}  # id -> names of files
        if truths and name == "vggsound":
            self.boxes = read_vggss(lists / "vggss.json")
        elif truths:
            for file in sorted(_files(root / "anno")):
                self._annotations.setdefault(file.split(".")[0], []).append(file)

    def frame(self, id: str) -> Path:
        """Where the still of a clip belongs."""
        return self._photo_folder / f"{id}.jpg"

    def sound(self, id: str) -> Path:
        """Where the sound of a clip belongs."""
        return self._sound_folder / f"{id}.wav"

    def missing(self, clips: Iterable[Clip], classes: tuple[str, ...]) -> dict[str, list[Problem]]:
        """What is not there of each clip, by id; clips of which nothing is missing are left out."""
        found = {}
        for clip in clips:
            problems = []
            if f"{clip.id}.jpg" not in self._frames:
                problems.append(Problem(self.frame(clip.id), "photo", f"missing: no photo of clip {clip.id}"))
            if f"{clip.id}.wav" not in self._sounds:
                problems.append(Problem(self.sound(clip.id), "sound", f"missing: no sound of clip {clip.id}"))
            problems += self._without_truth(clip, classes) if self.truths else []
            if problems:
                found[clip.id] = problems
        return found

    def _without_truth(self, clip: Clip, classes: tuple[str, ...]) -> list[Problem]:
        if self.name == "vggsound":
            if clip.id not in self.boxes:
                return [Problem(self.frame(clip.id), "mask", f"missing: no boxes of clip {clip.id} in vggss.json")]
            told = class_name(self.boxes[clip.id].name)
            if clip.label >= 0 and told != classes[clip.label]:
                wrong = f"vggss.json calls the clip {told}, the list {classes[clip.label]}"
                return [Problem(self.frame(clip.id), "mask", wrong)]
            return []
        there = self._annotations.get(clip.id, [])
        if len(there) == 1:
            return []
        got = f"{len(there)}: {', '.join(there)}" if there else "none"
        wrong = f"{'missing: ' * (not there)}expected one annotation of clip {clip.id}, got {got}"
        return [Problem(self.root / "anno" / clip.id, "mask", wrong)]

    def truth(self, id: str, size: int) -> Tensor:
        """The mask of a clip, (size, size) float32 in [0, 1]; ValueError naming its file if that is broken."""
        if self.name == "vggsound":
            return rasterise(self.boxes[id].boxes, size)
        path = self.root / "anno" / self._annotations[id][0]
        return read_pickled_mask(path, size) if self.name == "instruments" else read_consensus(path, size)

    def broken(self, id: str, show: Callable[[], Any], play: Callable[[], Any]) -> list[Problem]:
        """What of a clip that is there cannot be decoded; `show` reads its still, `play` its sound."""
        problems = []
        for kind, path, read in (
            ("photo", self.frame(id), show),
            ("sound", self.sound(id), play),
            ("mask", self.root / "anno" / id, lambda: self.truth(id, 2) if self.truths else None),
        ):
            try:
                read()
            except (OSError, ValueError) as error:
                problems.append(Problem(path, kind, str(error).removeprefix(f"{path}: ")))
        return problems


def _files(folder: Path) -> set[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder {folder}, got none")
    return {entry.name for entry in os.scandir(folder)}
