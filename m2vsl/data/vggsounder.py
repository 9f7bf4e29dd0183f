"""VGG-SS *clean*: the clips whose class can be heard and seen, by the labels of VGGSounder.

VGG-SS takes its classes from VGG-Sound, one label a clip, found by machine. VGGSounder (ICCV 2025) had people say of
each clip what is heard and what is seen. By its version 1.0, 5,109 of the 5,158 clips of VGG-SS are labelled, and of
these the class is heard and seen in 3,799 (74.4 %), heard alone in 594 (11.6 %), seen alone in 56 (1.1 %), and neither
in 660 (12.9 %). Where it is not both, no map can be right for the right reason.

The labels are those of the installed ``vggsounder`` distribution, as it is: ``pip install --no-deps vggsounder``. Its
file is read without importing it, for it imports ``datasets``, which downloads clips and is not needed here.

Conventions
-----------
- The file is the one with background music, which leaves out no clip for having some.
- Classes are compared as the lists write them (`class_name`). A class that no label of the file names is refused: it
  would look absent.
- Labels differ between versions of the distribution (in 0.1.6, 75.3 % of 5,153 are both), so `Clean.digest` says which.
- A clip without any label is *unmatched*: it is counted, and neither clean nor absent.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from m2vsl.data.lists import class_name

FILE = "data/vggsounder+background-music.csv"  # in the package
COLUMNS = ("video_id", "label", "modality", "background_music", "static_image", "voice_over")
FLAGS = ("static_image", "voice_over", "background_music")  # of a whole clip
Heard = Literal["both", "audible_only", "visible_only", "absent", "unmatched"]
_HEARD: dict[str, Heard] = {"AV": "both", "A": "audible_only", "V": "visible_only"}


@dataclass(frozen=True)
class Labels:
    """What VGGSounder says about a clip."""

    modality: Mapping[str, str]  # class -> "A" heard, "V" seen, "AV" both
    flags: frozenset[str]  # those of `FLAGS` that hold


@dataclass(frozen=True)
class Clean:
    """Which clips can be heard and seen to be of their class."""

    verdicts: Mapping[str, Heard]  # by clip, in the order asked
    counts: Mapping[str, int]  # see `clean`
    digest: str  # twelve hexadecimal digits of SHA-256 of the file of labels

    @property
    def keys(self) -> tuple[str, ...]:
        """The clean clips, in the order asked."""
        return self.of("both")

    def of(self, verdict: Heard) -> tuple[str, ...]:
        """The clips of one verdict, in the order asked."""
        return tuple(id for id, found in self.verdicts.items() if found == verdict)


def clean(classes: Mapping[str, str], path: Path | None = None) -> Clean:
    """Which of given clips are clean.

    classes: clip -> class, in the words of ``vggss.json`` or as the lists write it. path: a file of labels, by default
    that which is installed.

    Counts, in clips: ``asked``; ``matched`` and ``unmatched``, which add up to it; ``both``, ``audible_only``,
    ``visible_only`` and ``absent``, which add up to ``matched``; and of the matched, whatever their verdict,
    ``several`` (more than one class heard and seen), ``static_image``, ``voice_over``, ``background_music``.

    ModuleNotFoundError if the labels are not installed, FileNotFoundError without the file; ValueError for a file that
    is not what it should be, and for a class that none of its labels names.
    """
    path = path or labels_file()
    labels = read_labels(path)
    known = {name for clip in labels.values() for name in clip.modality}
    if strange := sorted({name for name in classes.values() if class_name(name) not in known}):
        some = ", ".join(map(repr, strange[:5]))
        raise ValueError(f"expected classes of {path.name}, got {len(strange)} that it does not have: {some}")
    verdicts = {id: _verdict(labels.get(id), class_name(name)) for id, name in classes.items()}
    matched = [labels[id] for id in classes if id in labels]
    found = Counter(verdicts.values())
    counts = {"asked": len(classes), "matched": len(matched)}
    counts |= {verdict: found[verdict] for verdict in (*_HEARD.values(), "absent", "unmatched")}
    counts["several"] = sum(list(clip.modality.values()).count("AV") > 1 for clip in matched)
    counts |= {flag: sum(flag in clip.flags for clip in matched) for flag in FLAGS}
    return Clean(verdicts, counts, hashlib.sha256(path.read_bytes()).hexdigest()[:12])


def _verdict(labels: Labels | None, name: str) -> Heard:
    if labels is None:
        return "unmatched"
    return _HEARD[labels.modality[name]] if name in labels.modality else "absent"


def labels_file() -> Path:
    """Where the installed labels lie; ModuleNotFoundError saying how to install them. Nothing is imported."""
    found = find_spec("vggsounder")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(
            "the labels of VGGSounder are not installed: `pip install --no-deps vggsounder` (1.4 MB; without its "
            "dependency `datasets`, which downloads clips and is not needed here)"
        )
    return Path(next(iter(found.submodule_search_locations)), *FILE.split("/"))


def read_labels(path: Path) -> dict[str, Labels]:
    """Labels by clip. FileNotFoundError; ValueError, naming file and line, for a row that is not what it should be.

    That is: another column, modality or truth value, a label that a clip has already, flags that differ within a clip.
    """
    if not path.is_file():
        raise FileNotFoundError(f"labels of VGGSounder not found: {path} (version 1.0 of vggsounder has it)")
    reader = csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline=""))
    if set(reader.fieldnames or ()) != set(COLUMNS):
        raise ValueError(f"{path}: expected the columns {', '.join(COLUMNS)}, got {', '.join(reader.fieldnames or ())}")
    modality: dict[str, dict[str, str]] = {}
    flags: dict[str, frozenset[str]] = {}
    for row in reader:
        id, label = row["video_id"], class_name(row["label"] or "")
        wrong = _fault(row)
        on = frozenset(flag for flag in FLAGS if row[flag] == "True")
        if not wrong and label in modality.setdefault(id, {}):
            wrong = "expected each label of a clip once"
        if not wrong and flags.setdefault(id, on) != on:
            wrong = "expected the same flags in all rows of a clip"
        if wrong:
            raise ValueError(f"{path}: line {reader.line_num}: {wrong}, got {row}")
        modality[id][label] = row["modality"]
    return {id: Labels(of, flags[id]) for id, of in modality.items()}


def _fault(row: Mapping[str, str]) -> str:
    """What is wrong with a row by itself; empty if nothing is."""
    if not row["video_id"] or not row["label"] or None in row or None in row.values():
        return f"expected {len(COLUMNS)} cells, a clip and a label among them"
    if row["modality"] not in _HEARD:
        return f"expected a modality among {', '.join(_HEARD)}"
    return "" if {row[flag] for flag in FLAGS} <= {"True", "False"} else "expected True or False"
