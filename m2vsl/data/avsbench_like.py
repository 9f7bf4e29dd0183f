"""The synthetic world in the layout of AVSBench: its reader and its scores run where it cannot be had.

A video is five seconds of one scene: things that move, turn and shrink a little before a ground that stays, and a
sound track. S4: one thing sounds throughout, none to two others are silent. MS3: two or three sound, each in its own
seconds, so that truths change from frame to frame and some are empty; none or one is silent.

Conventions
-----------
- `AVSBenchLikeDataset` writes the videos where they are not yet: below `m2vsl.paths.runs` unless a root is named.
- Written last, ``avsbench_like.json`` says what a folder was made with. A folder without it, or of another make, is not
  touched.
- Every video is a function of (seed, part, split, place in the list), at any size.
- Masks of S4 are of mode 1, those of MS3 palettes whose index is the class + 1; both read as foreground and background.
  As published, S4 has the first mask alone of a training video. The list of MS3 has a column of labels.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray
from PIL import Image

from m2vsl import paths
from m2vsl.audio import AUDIO, AudioConfig
from m2vsl.data.avsbench import SECONDS, AVSBenchConfig, AVSBenchDataset
from m2vsl.data.avsbench_lists import PARTS, SPLITS, Part
from m2vsl.data.drawing import LOOKS, Thing, arrange
from m2vsl.data.scenery import paint
from m2vsl.data.sounding import TIMBRES, sound

MADE = "avsbench_like.json"
RATE = 16_000  # samples a second of a sound track, as published
AREAS = (0.04, 0.40)  # of a thing, share of the frame, least and most; log-uniform
CATEGORIES = tuple(timbre.name for timbre in TIMBRES)
SHRINKS = 0.75  # share of its area that a thing may be left with in a second
LATE = 0.125  # share of the videos of MS3 that begin in silence
MIDWAY = 0.4  # share of the sources of MS3 that begin or end midway


@dataclass(frozen=True)
class AVSBenchLikeConfig(AVSBenchConfig):
    """What is written, and how it is read."""

    root: str = ""  # "" = below `paths.runs`
    benchmark: str = "avsbench-like"
    s4: tuple[int, int, int] = (300, 30, 40)  # videos of train, val, test
    ms3: tuple[int, int, int] = (300, 30, 40)
    world: int = 0  # the seed of the videos: others, from another

    def make(self) -> dict[str, Any]:
        """What the files depend on."""
        return {"size": self.size, "s4": list(self.s4), "ms3": list(self.ms3), "seed": self.world}

    @property
    def place(self) -> Path:
        """Where the videos are, or will be."""
        name = "-".join(map(str, ("avsbench-like", self.size, *self.s4, *self.ms3, self.world)))
        return Path(self.root) if self.root else paths.runs() / name


class AVSBenchLikeDataset(AVSBenchDataset):
    """`AVSBenchDataset` over videos that are written at the first use."""

    def __init__(
        self,
        config: AVSBenchLikeConfig,
        split: str,
        task: str = "single",
        *,
        sound: str = "mixture",
        seed: int = 0,
        audio: AudioConfig = AUDIO["paper300"],
    ) -> None:
        write(config.place, **config.make())
        super().__init__(replace(config, root=str(config.place)), split, task, sound=sound, seed=seed, audio=audio)


def write(
    root: Path, *, size: int = 112, s4: Sequence[int] = (300, 30, 40), ms3: Sequence[int] = (300, 30, 40), seed: int = 0
) -> bool:
    """Both parts, videos of train, val and test each, unless they are there; whether anything was written.

    size: pixels per side of a frame. ValueError for a folder that holds something else, which is not touched, and for
    fewer than one video of a split.
    """
    made = {"size": size, "s4": list(s4), "ms3": list(ms3), "seed": seed}
    if len(s4) != 3 or len(ms3) != 3 or min(*s4, *ms3) < 1 or size < 16:
        raise ValueError(f"expected at least one video of train, val, test and a size from 16, got {made}")
    if root.is_dir() and any(root.iterdir()):
        told = json.loads((root / MADE).read_text("utf-8")) if (root / MADE).is_file() else "other files"
        if told != made:
            raise ValueError(f"{root}: expected nothing, or what was made with {made}, got {told}; nothing was changed")
        return False
    root.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as aside:  # another process may write it, too
        whole = Path(aside, "whole")
        for task, counts in (("single", s4), ("multi", ms3)):
            _write_part(whole, task, counts, size, seed)
        (whole / MADE).write_text(json.dumps(made), "utf-8")
        try:
            whole.rename(root)  # over nothing or an empty folder
        except OSError:
            if not (root / MADE).is_file():
                raise
            return False
    return True


def _write_part(root: Path, task: str, counts: Sequence[int], size: int, seed: int) -> None:
    part = PARTS[task]
    place, rows = root / part.around, []
    for which, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
        for n in range(count):
            key = (seed, list(PARTS).index(task), which, n)
            labels = _write_video(place / part.data, part, split, f"{split}{n:04d}", size, key)
            rows.append((f"{split}{n:04d}", split, ", ".join(CATEGORIES[label] for label in labels)))
    with (place / part.listed).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerows([("name", "split", "category"), *rows])


def _write_video(place: Path, part: Part, split: str, name: str, size: int, key: Sequence[int]) -> list[int]:
    """Frames, masks and sound of one video; the classes that sound in it."""
    rng = np.random.default_rng(SeedSequence(key))
    several = part.name == "MS3"
    loud = int(rng.integers(2, 4)) if several else 1
    silent = int(rng.integers(0, 2 if several else 3))
    looks = rng.permutation(len(LOOKS))[: loud + silent].tolist()
    things, sounds = arrange(rng, looks, AREAS), _seconds(rng, loud, several)
    inner = Path(split) if several else Path(split, CATEGORIES[looks[0]])
    told = {"split": split, "category": CATEGORIES[looks[0]], "name": name}
    masks = place / "gt_masks" / inner / name
    masks.mkdir(parents=True)
    for k, moved in enumerate(_moving(rng, things), 1):
        picture, where = paint(np.random.default_rng(SeedSequence((*key, 1))), moved, size)  # one ground throughout
        target = place / part.frame.format(**told, k=k)
        target.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.round(255 * picture.transpose(1, 2, 0)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(target, compress_level=1)
        if several or split != "train" or k == 1:
            heard = {looks[s]: where[s] for s in range(loud) if sounds[s, k - 1]}
            _save_mask(masks / f"{name}_{k}.png", heard, size, several)
    track = place / "audio_wav" / inner / f"{name}.wav"
    track.parent.mkdir(parents=True, exist_ok=True)
    streams = (np.random.default_rng(SeedSequence((*key, 2, s))) for s in range(loud))
    wave = sum(sound(one, looks[s], RATE, SECONDS * RATE) * _gate(sounds[s]) for s, one in enumerate(streams))
    soundfile.write(track, np.clip(wave, -1, 1), RATE, subtype="PCM_16")
    return looks[:loud]


def _seconds(rng: Generator, loud: int, several: bool) -> NDArray[np.bool_]:
    """In which seconds each thing sounds, (loud, 5); each in one at least."""
    on = np.ones((loud, SECONDS), bool)
    if not several:
        return on
    for row in on:
        if rng.random() < MIDWAY:
            turn = int(rng.integers(1, SECONDS))
            row[slice(0, turn) if rng.random() < 0.5 else slice(turn, None)] = False
    if rng.random() < LATE:
        on[:, : int(rng.integers(1, 3))] = False
        on[:, -1] = True
    return on


def _moving(rng: Generator, things: Sequence[Thing]) -> Iterator[list[Thing]]:
    """The things of each second: never larger than arranged, and always inside of the room that they were given."""
    for _ in range(SECONDS):
        moved = []
        for thing in things:
            share, (dx, dy) = float(rng.uniform(SHRINKS, 1)), rng.uniform(-1, 1, 2) / np.sqrt(2)
            spare = thing.radius * (1 - np.sqrt(share))
            x, y = thing.x + float(dx * spare), thing.y + float(dy * spare)
            moved.append(replace(thing, area=thing.area * share, angle=thing.angle + rng.normal(0, 0.15), x=x, y=y))
        yield moved


def _gate(on: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How open it is at each sample, (5 RATE,): open or shut by the second, with a fortieth of one between."""
    ramp = np.hanning(RATE // 20)
    return np.convolve(np.repeat(on.astype(np.float32), RATE), ramp / ramp.sum(), "same").astype(np.float32)


def _save_mask(path: Path, heard: dict[int, NDArray[np.bool_]], size: int, palette: bool) -> None:
    indices = np.zeros((size, size), np.uint8)
    for look, mask in heard.items():
        indices[mask] = look + 1
    if not palette:
        Image.fromarray(indices > 0).save(path)
        return
    image = Image.fromarray(indices, "P")
    grey = [level for n in range(len(LOOKS) + 1) for level in [n * 255 // len(LOOKS)] * 3]
    image.putpalette(grey)
    image.save(path)
