"""AVSBench: five frames a video, a mask a frame, labels a video; S4 with one source, MS3 with several.

`avsbench_lists` says which videos there are and what they are labelled.

Conventions
-----------
::

    s4_data/visual_frames/<split>/<category>/<name>/<name>_<k>.png    k from 1; ms3_data: <name>/<name>.mp4_<k>.png
    s4_data/gt_masks/<split>/<category>/<name>/<name>_<k>.png         ms3_data: <split>/<name>/<name>_<k>.png
    s4_data/audio_wav/<split>/<category>/<name>.wav                   ms3_data: <split>/<name>.wav

- Tasks: single is S4, multi is MS3. A sample is a frame with the sound around its second. In training all five frames
  have the labels of their video, and no mask is read (the truth is empty). A video without labels is not trained on.
- Whatever the mode of a mask, any colour above black is foreground; another size is brought to the frame's by nearest
  neighbour. Nobody has annotated which pixels belong to which label, so every label of a video carries the whole mask:
  a union of sources is right, a source alone means nothing (``masks_alone``).
- Sound: ``window``, the second in the middle of `AudioConfig.seconds`, moved so as to lie inside the clip; ``second``,
  that second alone, over and over. A clip of less than five seconds repeats its last one, as published (ledger 37).
- Order: by labels (S4), then name, then k; five frames of a video are one call of the published F.
- What cannot be used is left out and listed in ``skipped`` by its file. Frames that are scored are decoded beforehand.

Source: protocol 1.3 and 4.2, point 9; ledger 36 (labels and training of MS3), 37 (sound).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from m2vsl import audio as sound_files
from m2vsl import frame
from m2vsl.audio import AUDIO, AudioConfig
from m2vsl.data.avsbench_lists import PARTS, SPLITS, Columns, Part, Video, class_names, home, read_videos
from m2vsl.data.folder import Cache, expect_among
from m2vsl.data.layout import SILENCE, DataError, Problem
from m2vsl.data.loader import seeded
from m2vsl.data.masks import read_any_colour
from m2vsl.types import Sample, Truth

SECONDS = 5  # of a video, a frame each
ADVICE = 'missing="list" (data.missing=list) leaves out what cannot be used, and lists it'


@dataclass(frozen=True)
class AVSBenchConfig:
    """Where it lies, how its lists are written, and how a frame is cut."""

    root: str  # folder with s4_meta_data.csv or Single-source/, and the same of MS3
    size: int = 224  # pixels per side of a frame
    benchmark: str = "avsbench"  # as records call it; another's numbers of videos are not held against the published
    name_column: str = "name"  # of the lists
    category_column: str = "category"
    split_column: str = "split"
    labels: str = ""  # file of rows name,labels for MS3; "" = the category column of its list; ledger 36
    train: str = "own"  # MS3 is trained on its own labels; or "s4": what S4 has taught is tested on it; ledger 36
    sound: str = "window"  # around the frame's second; or "second", that second alone; ledger 37
    missing: str = "list"  # left out, listed by name, the test marked a subset; or "refuse"
    margin: float = 1.1  # training: FrameConfig.margin; ledger 41
    flip: float = 0.5  # training: FrameConfig.flip; ledger 41
    cache_mb: int = 1024  # memory for decoded files, megabytes per split; the rest is decoded anew each time

    masks_alone: ClassVar[bool] = True  # sources have no masks of their own
    validates: ClassVar[bool] = True  # there is a validation list
    val_masks: ClassVar[bool] = True  # and it has truths

    def __post_init__(self) -> None:
        expect_among("train", self.train, ("own", "s4"))
        expect_among("sound", self.sound, ("window", "second"))
        expect_among("missing", self.missing, ("list", "refuse"))
        if self.size < 2 or self.cache_mb < 0:
            raise ValueError(f"expected size >= 2 and cache_mb >= 0, got {self}")

    def source(self, task: str) -> str:
        """The test as records and tables call it: ``avsbench-single`` is S4, ``avsbench-multi`` MS3."""
        return f"{self.benchmark}-{task}" + ("-by-s4" if task == "multi" and self.train == "s4" else "")

    def placeless(self) -> dict[str, str | int]:
        """What its places are called in records and hashes, wherever they lie."""
        return {"root": self.benchmark, "labels": Path(self.labels).name, "cache_mb": 0}

    def videos(self, task: str) -> tuple[list[Video], list[Problem]]:
        """The videos of S4 or MS3, whatever lies on disk. FileNotFoundError without their list."""
        part = PARTS[task]
        columns = Columns(self.name_column, self.category_column, self.split_column)
        labels = Path(self.labels) if self.labels and task == "multi" else None
        listed = home(Path(self.root), part) / part.listed
        return read_videos(listed, columns, labels, category=task == "single")


class Frame(NamedTuple):
    """One second of a video."""

    video: Video
    k: int  # from 1

    @property
    def key(self) -> str:
        """As its mask is called."""
        return f"{self.video.name}_{self.k}"


class AVSBenchDataset:
    """Frames of one split and task.

    config, split ("train", "val", "test"), task ("single", "multi"). seed: of what training varies.
    sound: "mixture" alone; a video has one sound track, so no source can be heard by itself.

    Beside `classes` and `skipped`: ``full``, how many frames the published list makes; ``unseen``, labels of this split
    that training does not have.
    Raises FileNotFoundError for a folder or a list that is not there, ValueError if too little can be used, `DataError`
    with the list of problems if ``missing`` is "refuse".
    """

    def __init__(
        self,
        config: AVSBenchConfig,
        split: str,
        task: str = "single",
        *,
        sound: str = "mixture",
        seed: int = 0,
        audio: AudioConfig = AUDIO["paper300"],
    ) -> None:
        expect_among("split", split, SPLITS)
        expect_among("task", task, tuple(PARTS))
        if sound != "mixture":
            raise ValueError(f"expected sound='mixture': a video of AVSBench has one sound track, got {sound!r}")
        self.config, self.split, self.seed, self.audio, self.epoch = config, split, seed, audio, 0
        self.frame = frame.FrameConfig(config.size, config.margin, config.flip)
        taught = "single" if config.train == "s4" else task
        self.task = task if split == "test" else taught
        self.part: Part = PARTS[self.task]
        self.place = home(Path(config.root), self.part) / self.part.data
        videos, problems = config.videos(self.task)
        self.classes = class_names(videos if self.task == taught else config.videos(taught)[0])
        self.name = config.source(task)
        self._expect_labels(PARTS[taught])
        self._labelled = self.part.name == "S4" or any(video.labels for video in videos)
        self._cache = Cache(config.cache_mb * 2**20)
        mine = sorted((v for v in videos if v.split == split), key=lambda v: (self._category(v), v.name))
        unseen = sorted({label for video in mine for label in video.labels} - set(self.classes))
        self.unseen = tuple(unseen)
        problems += [Problem(self.place, "class", f"{label}: a label that training does not have") for label in unseen]
        self._frames = [one for video in mine for one in self._usable(video, problems)]
        self._judge(problems)
        self.full = SECONDS * self.part.videos[split] if config.benchmark == "avsbench" else SECONDS * len(mine)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that training varies by."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._frames)

    def ids(self) -> list[str]:
        """``<name>_<k>`` of every frame, in order."""
        return [one.key for one in self._frames]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"expected a sample from 0 to {len(self) - 1}, got {index}")
        one, training = self._frames[index], self.split == "train"
        image, wave = self._photo(one), self._window(one)
        if training:
            generator = seeded("avsbench", self.seed, self.epoch, index)
            image, _ = frame.augment(image, Image.new("L", image.size), self.frame, generator)
            wave = sound_files.augment(wave, self.audio, generator)
        numbers = [self.classes.index(label) if label in self.classes else -1 for label in one.video.labels] or [-1]
        known = torch.tensor([number for number in numbers if number >= 0], dtype=torch.int64)
        labels = torch.zeros(len(self.classes)).index_fill_(0, known, 1)
        side = self.config.size
        mask = torch.zeros(side, side) if training else self._mask(one)
        truth = Truth(mask.expand(len(numbers), side, side), torch.tensor(numbers), torch.ones(len(numbers)).bool())
        key = f"{self.epoch}:{one.key}" if training else one.key
        return Sample(key, frame.to_tensor(image), wave, labels, labels, labels, index, truth)

    def _expect_labels(self, taught: Part) -> None:
        if not self.classes:
            told = "" if taught.name == "S4" else "; name a file (data.labels=FILE), or train on S4 (data.train=s4)"
            listed = home(Path(self.config.root), taught) / taught.listed
            raise ValueError(f"{listed}: expected labels of training videos, got none{told}")

    def _category(self, video: Video) -> str:
        return video.labels[0] if self.part.name == "S4" and video.labels else ""

    def path(self, kind: str, one: Frame) -> Path:
        """Where the "frame", the "mask" or the "sound" of a frame belongs."""
        video = one.video
        inner = Path(video.split, self._category(video))  # an empty category leaves no trace
        if kind == "frame":
            told = {"split": video.split, "category": self._category(video), "name": video.name, "k": one.k}
            return self.place / self.part.frame.format(**told)
        if kind == "sound":
            return self.place / "audio_wav" / inner / f"{video.name}.wav"
        return self.place / "gt_masks" / inner / video.name / f"{one.key}.png"

    def _usable(self, video: Video, problems: list[Problem]) -> list[Frame]:
        """The frames of a video that can be used. Those of val and test are decoded, those of train looked for."""
        scored, first, good = self.split != "train", Frame(video, 1), list[Frame]()
        if self._labelled and not video.labels:
            problems.append(Problem(self.place.parent / self.part.listed, "index", f"{video.name}: no label"))
            if self.part.name == "S4" or not scored:
                return []
        if not self._good("sound", first, self._wave if scored else None, problems):
            return []
        if scored and (seconds := self._wave(first)[1]) < SECONDS - 0.01:  # a resampler may leave out a few samples
            told = f"expected {SECONDS} s, got {seconds:.2f} s: its last second is repeated"
            problems.append(Problem(self.path("sound", first), "sound", told))
        for k in range(1, SECONDS + 1):
            one = Frame(video, k)
            seen = self._good("frame", one, self._photo if scored else None, problems)
            masked = not scored or self._good("mask", one, self._mask, problems)
            good += [one] * (seen and masked)
        return good

    def _good(self, kind: str, one: Frame, read: Callable[[Frame], object] | None, problems: list[Problem]) -> bool:
        """Whether a file is there and, if it is to be read, can be."""
        path = self.path(kind, one)
        try:
            if not path.is_file():
                raise ValueError(f"missing: no {kind} of {one.key if kind != 'sound' else one.video.name}")
            if read is not None:
                read(one)
        except (OSError, ValueError) as error:
            problems.append(Problem(path, kind, str(error).removeprefix(f"{path}: ")))
            return False
        return True

    def _judge(self, problems: Sequence[Problem]) -> None:
        """Raise if too little, or with ``missing="refuse"`` anything, cannot be used."""
        self.skipped = tuple(problems)
        if problems and self.config.missing == "refuse":
            raise DataError(self.place, problems, ADVICE)
        if not self._frames:
            raise DataError(self.place, problems or [Problem(self.place, "folder", f"no video of {self.split}")], " ")
        if self.split != "train" and not any(bool(self._mask(one).any()) for one in self._frames):
            raise ValueError(f"{self.place / 'gt_masks'}: expected masks of {self.split}, got {len(self)} empty ones")

    def _photo(self, one: Frame) -> Image.Image:
        """The frame, as far as no chance is involved."""

        def make() -> Image.Image:
            image = frame.load(self.path("frame", one))
            cut = frame.shrink if self.split == "train" else frame.squash
            return cut(image, Image.new("L", image.size), self.frame)[0]

        return self._cache(("frame", one.key), make, lambda image: 3 * image.width * image.height)

    def _mask(self, one: Frame) -> Tensor:
        """(size, size) of 0 and 1."""

        def make() -> Tensor:
            return read_any_colour(self.path("mask", one), self.config.size)[0].bool()

        return self._cache(("mask", one.key), make, lambda mask: mask.numel()).float()

    def _wave(self, one: Frame) -> tuple[Tensor, float]:
        """The sound of its video, `SECONDS` long, and how long it was, in seconds."""

        def make() -> tuple[Tensor, float]:
            path, rate = self.path("sound", one), self.audio.rate
            wave, length = sound_files.decode(path, self.audio), SECONDS * rate
            if float(wave.abs().max()) < SILENCE:
                raise ValueError(f"{path}: expected a sound with a peak of at least {SILENCE:g}, it is silent")
            seconds = len(wave) / rate
            while len(wave) < length:
                wave = torch.cat([wave, wave[-min(rate, len(wave)) :]])
            return wave[:length].clone(), seconds

        return self._cache(("sound", one.video.name), make, lambda made: made[0].numel() * made[0].element_size())

    def _window(self, one: Frame) -> Tensor:
        """What is heard with a frame, (samples,)."""
        wave, rate, samples = self._wave(one)[0], self.audio.rate, self.audio.samples
        if self.config.sound == "second":
            own = wave[(one.k - 1) * rate : one.k * rate]
            return own.repeat(-(-samples // len(own)))[:samples]
        start = min(max(round((one.k - 0.5) * rate - samples / 2), 0), max(len(wave) - samples, 0))
        return wave[start : start + samples].repeat(-(-samples // len(wave)))[:samples]
