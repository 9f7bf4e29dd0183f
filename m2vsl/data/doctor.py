"""Look a folder over before anything is trained on it: ``m2vsl data check DIR``.

Every file is decoded, the way training and scoring would. What keeps a file from being used is a `Problem`; what is
fine but worth knowing (stereo, other sample rates, photographs without mask that are only trained on) is a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from m2vsl import frame
from m2vsl.audio import AUDIO, AudioConfig
from m2vsl.data.folder import SPLITS, FolderConfig
from m2vsl.data.layout import Item, Layout, Problem, lacking, read_layout, read_mask, read_sound


@dataclass(frozen=True)
class Findings:
    """What is in a folder and what is wrong with it."""

    layout: Layout
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{problem.kind}: {problem}" for problem in self.problems]
        lines += [f"note: {note}" for note in self.notes]
        n = len(self.layout.classes), len(self.layout.photos), len(self.layout.sounds)
        total = f"{n[0]} classes, {n[1]} photographs, {n[2]} recordings: {len(self.problems)} problem(s)"
        return "\n".join([*lines, total])


def check(root: Path | str, config: FolderConfig | None = None, audio: AudioConfig | None = None) -> list[Problem]:
    """Every problem of a folder; empty if it can be trained and scored on as it is."""
    return list(examine(root, config, audio).problems)


def examine(root: Path | str, config: FolderConfig | None = None, audio: AudioConfig | None = None) -> Findings:
    """Problems and notes of a folder, for the folds of `config` (its root is not used) and the sound of `audio`."""
    config = replace(config, root=str(root)) if config else FolderConfig(str(root))
    audio = audio or AUDIO["paper300"]
    layout = read_layout(Path(root), config.folds)
    problems = [*layout.problems, *_empty_splits(layout, config)]
    problems += _failures(layout.photos, "photo", _path, lambda item: frame.load(item.path))
    broken = {problem.path for problem in problems if problem.kind == "photo"}
    whole = [photo for photo in layout.photos if photo.path not in broken]
    problems += _failures(whole, "mask", layout.mask, lambda item: _masked(item, layout, config))
    problems += _failures(layout.sounds, "sound", _path, lambda item: read_sound(item.path, audio))
    return Findings(layout, tuple(problems), tuple(_notes(layout, config, audio, {p.path for p in problems})))


def _failures(
    items: Iterable[Item], kind: str, place: Callable[[Item], Path], read: Callable[[Item], Any]
) -> list[Problem]:
    problems = []
    for item in items:
        try:
            read(item)
        except (OSError, ValueError) as error:
            problems.append(Problem(place(item), kind, str(error).removeprefix(f"{place(item)}: ")))
    return problems


def _path(item: Item) -> Path:
    return item.path


def _masked(photo: Item, layout: Layout, config: FolderConfig) -> None:
    place = layout.mask(photo)
    if place.is_file():
        read_mask(place, frame.load(photo.path).size)
    elif not config.holds("train", photo.fold):
        raise ValueError(f"expected a mask to score {photo.name} against, held out in fold {photo.fold}, got none")


def _empty_splits(layout: Layout, config: FolderConfig) -> list[Problem]:
    """Classes that have files, but none in some split."""
    problems = []
    for kind, items in (("images", layout.photos), ("audio", layout.sounds)):
        nowhere = {p.path for p in lacking(layout.root / kind, layout.classes, items, "")}
        for split in SPLITS if config.val_fold else ("train", "test"):
            held = [item for item in items if config.holds(split, item.fold)]
            message = f"no file in the {split} split (test fold {config.fold}, validation fold {config.val_fold})"
            found = lacking(layout.root / kind, layout.classes, held, message)
            problems += [p for p in found if p.path not in nowhere]
    return problems


def _notes(layout: Layout, config: FolderConfig, audio: AudioConfig, broken: set[Path]) -> list[str]:
    import soundfile

    rates: Counter[int] = Counter()
    channels: Counter[int] = Counter()
    for item in (s for s in layout.sounds if s.path not in broken):
        info = soundfile.info(item.path)
        rates[info.samplerate] += 1
        channels[info.channels] += 1
    notes = [f"{n} recording(s) at {r} Hz: resampled to {audio.rate} Hz" for r, n in rates.items() if r != audio.rate]
    notes += [f"{n} recording(s) with {c} channels: their mean is used" for c, n in channels.items() if c > 1]
    if bare := sum(not layout.mask(p).is_file() for p in layout.photos if config.holds("train", p.fold)):
        notes.append(f"{bare} training photograph(s) without mask: fine, training reads none")
    for kind, items in (("images", layout.photos), ("audio", layout.sounds)):
        files = {p for p in (layout.root / kind).glob("*/*") if p.is_file() and not p.name.startswith(".")}
        if extra := len(files - {item.path for item in items}):
            notes.append(f"{extra} file(s) in {kind}/ not used: not in the index, or of an unknown kind")
    return notes
