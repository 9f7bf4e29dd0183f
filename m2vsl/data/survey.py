"""What there is of a benchmark: listed, present, missing, leaked, corrupt, list by list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path

from m2vsl import audio as sound_files
from m2vsl import frame
from m2vsl.audio import AUDIO, AudioConfig
from m2vsl.data.benchmarks import BENCHMARKS, Clip, Contents
from m2vsl.data.layout import Problem
from m2vsl.data.shelf import Shelf
from m2vsl.data.vggsound import VGGSoundConfig

_HEADS = ("list", "rows", "of", "bad", "leaked", "present", "missing", "corrupt", "one class")


@dataclass(frozen=True)
class ListCount:
    """One list. Its rows are clips or, in duets, pairs; a pair is present if both clips are."""

    name: str  # of the file
    rows: int
    full: int  # of the whole published list
    bad: int  # rows that are not what they should be
    leaked: int  # training: clips that are tested
    present: int  # all of it can be used
    missing: int  # some of it is not there
    corrupt: int  # some of it cannot be decoded
    same_class: int  # pairs of one class


@dataclass(frozen=True)
class Survey:
    """What is there of a benchmark and what is not; `str` of it is a report."""

    config: VGGSoundConfig
    lists: tuple[ListCount, ...]
    classes: int
    labelled: bool | None  # classes of training clips are known; None = no training list
    truths: Mapping[str, int]  # of the tested solos: "pictures", and how many of them are odd in which way
    problems: tuple[Problem, ...]  # all that cannot be used, by name
    decoded: bool  # whether clips were opened; if not, none was found corrupt

    def __str__(self) -> str:
        rows = [_HEADS, *(tuple(f"{v:,}" if isinstance(v, int) else v for v in astuple(count)) for count in self.lists)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        found = [f"{problem.kind}: {problem}" for problem in self.problems]
        head = f"{self.config.benchmark} in {self.config.root}, lists in {self.config.lists_dir}"
        lines = [*found, f"{head}: {self.classes} classes", *table, *self._notes()]
        return "\n".join([*lines, f"{len(self.problems):,} problem(s)"])

    def _notes(self) -> list[str]:
        notes = []
        if leaked := sum(count.leaked for count in self.lists):
            kept = "kept (allow_leak)" if self.config.allow_leak else "taken out"
            notes.append(f"note: {leaked:,} training clip(s) are tested: {kept}")
        if self.labelled is False:
            notes.append("note: the training list has no classes: methods that learn from labels cannot learn from it")
        if self.truths.get("pictures"):
            odd = ", ".join(f"{n:,} {name}" for name, n in self.truths.items() if name != "pictures")
            notes.append(f"note: truths of {self.truths['pictures']:,} pictures, kept as they are: {odd}")
        if not self.decoded:
            notes.append("note: no clip was opened, so none was found corrupt")
        return notes


def survey(config: VGGSoundConfig, *, decode: bool = True, audio: AudioConfig | None = None) -> Survey:
    """Go through every list of a benchmark and look for its clips.

    decode: open each clip, as training and scoring would; without, only its files' names are looked for.
    A list or a folder that is not there is a problem, not an error.
    """
    tasks = ("single",) if config.part else tuple(BENCHMARKS[config.benchmark].tests)
    whole = replace(config, val_share=0.0)
    counts: list[ListCount] = []
    problems: dict[Problem, None] = {}  # each once
    classes, labelled, truths = 0, None, dict[str, int]()
    opened: dict[tuple[bool, str], list[Problem]] = {}
    for split, task in (("train", "single"), *(("test", task) for task in tasks)):
        try:
            listed = whole.contents(split, task)
            shelf = Shelf(Path(config.root), config.lists_dir, config.benchmark, truths=split == "test")
        except (OSError, ValueError) as error:
            problems[Problem(config.lists_dir, "index", str(error))] = None
            continue
        missing = shelf.missing((clip for scene in listed.scenes for clip in scene), listed.classes)
        corrupt = _corrupt(listed, shelf, missing, opened, audio or AUDIO["paper300"]) if decode else {}
        counts.append(_count(listed, missing, corrupt))
        lost = [problem for clips in (missing, corrupt) for of_clip in clips.values() for problem in of_clip]
        problems |= dict.fromkeys([*listed.problems, *lost])
        classes = max(classes, len(listed.classes))
        if split == "train":
            labelled = listed.labelled
        elif task == "single":
            truths = _truths(listed, shelf, {**missing, **corrupt}, config.size, decode)
    return Survey(config, tuple(counts), classes, labelled, truths, tuple(problems), decode)


def _corrupt(
    listed: Contents,
    shelf: Shelf,
    missing: Mapping[str, object],
    opened: dict[tuple[bool, str], list[Problem]],
    audio: AudioConfig,
) -> dict[str, list[Problem]]:
    """Clips that are there and cannot be decoded, by id; `opened` remembers those that other lists share."""
    found = {}
    for id in {clip.id: None for scene in listed.scenes for clip in scene if clip.id not in missing}:
        show, play = partial(frame.load, shelf.frame(id)), partial(sound_files.decode, shelf.sound(id), audio)
        if (shelf.truths, id) not in opened:
            opened[shelf.truths, id] = shelf.broken(id, show, play)
        if problems := opened[shelf.truths, id]:
            found[id] = problems
    return found


def _count(listed: Contents, missing: Mapping[str, object], corrupt: Mapping[str, object]) -> ListCount:
    def state(scene: tuple[Clip, ...]) -> str:
        if any(clip.id in missing for clip in scene):
            return "missing"
        return "corrupt" if any(clip.id in corrupt for clip in scene) else "present"

    states = Counter(map(state, listed.scenes))
    return ListCount(
        name=listed.path.name,
        rows=listed.rows,
        full=listed.full,
        bad=listed.bad,
        leaked=len(listed.leaked),
        present=states["present"],
        missing=states["missing"],
        corrupt=states["corrupt"],
        same_class=sum(len(scene) == 2 and scene[0].label == scene[1].label >= 0 for scene in listed.scenes),
    )


def _truths(listed: Contents, shelf: Shelf, lost: Mapping[str, object], size: int, decode: bool) -> dict[str, int]:
    """How many truths are odd: of VGG-SS all that are listed, elsewhere those that are there, if they may be opened."""
    clips = [clip for (clip,) in listed.scenes]
    if shelf.name == "vggsound":
        clips = [clip for clip in clips if clip.id in shelf.boxes]
        boxes = [shelf.boxes[clip.id] for clip in clips]
        odd = {
            "with a coordinate outside of the frame": sum(of.corrupt for of in boxes),
            "with a box that ends before it begins": sum(of.inverted for of in boxes),
        }
    else:
        clips, odd = [clip for clip in clips if decode and clip.id not in lost], {}
    empty = sum(not shelf.truth(clip.id, size).any() for clip in clips)
    return {"pictures": len(clips), **odd, "empty": empty}
