"""What there is of AVSBench: videos and frames of both parts, split by split, and everything that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from m2vsl.data.avsbench import SECONDS, AVSBenchConfig, AVSBenchDataset
from m2vsl.data.avsbench_lists import PARTS, SPLITS, Part, Video, class_names
from m2vsl.data.layout import DataError, Problem


@dataclass(frozen=True)
class SplitCount:
    """A split of S4 or MS3."""

    part: str
    split: str
    videos: int  # listed
    full: int  # published
    frames: int  # of them that can be used, five a video


@dataclass(frozen=True)
class AVSBenchSurvey:
    """What is there and what is not; `str` of it is a report."""

    config: AVSBenchConfig
    counts: tuple[SplitCount, ...]
    problems: tuple[Problem, ...]  # each once
    unlabelled: tuple[str, ...] = ()  # parts of which no training video has a label, as MS3 was published

    def __str__(self) -> str:
        found = [f"{problem.kind}: {problem}" for problem in self.problems]
        rows: list[tuple[str, ...]] = [("part", "split", "videos", "of", "frames", "of")]
        rows += [
            (one.part, one.split, *(f"{n:,}" for n in (one.videos, one.full, one.frames, SECONDS * one.full)))
            for one in self.counts
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        head = f"{self.config.benchmark} in {self.config.root}"
        bring = "it is trained on with a file of them (--lists; data.labels=FILE), or tested by S4 (data.train=s4)"
        notes = [f"note: {part} has no labels: {bring}" for part in self.unlabelled]
        notes.append("note: files of val and test are decoded, those of train are looked for")
        return "\n".join([*found, head, *table, *notes, f"{len(self.problems):,} problem(s)"])


class _Unlabelled(AVSBenchDataset):
    """Its files can be gone through without a label."""

    def _expect_labels(self, taught: Part) -> None:
        pass


def survey(config: AVSBenchConfig) -> AVSBenchSurvey:
    """Go through both parts, split by split. A list or a folder that is not there is a problem, not an error."""
    counts, problems, unlabelled = list[SplitCount](), dict[Problem, None](), list[str]()
    for task, part in PARTS.items():
        try:
            videos = config.videos(task)[0]
        except (OSError, ValueError) as error:
            problems[Problem(Path(config.root), "index", str(error))] = None
            continue
        unlabelled += [part.name] * (part.name == "MS3" and not class_names(videos))
        for split in SPLITS:
            listed = [video for video in videos if video.split == split]
            frames, found = _frames(config, split, task)
            problems |= dict.fromkeys(found)
            counts.append(SplitCount(part.name, split, len(listed), part.videos[split], frames))
        wrong = _uneven(videos, part.videos)
        if wrong and config.benchmark == "avsbench":
            problems[Problem(Path(config.root), "index", f"{part.name}: {wrong}")] = None
    return AVSBenchSurvey(config, tuple(counts), tuple(problems), tuple(unlabelled))


def _frames(config: AVSBenchConfig, split: str, task: str) -> tuple[int, list[Problem]]:
    """How many frames can be used, and why the others cannot."""
    try:
        there = (AVSBenchDataset if task == "single" else _Unlabelled)(config, split, task)
    except DataError as error:
        return 0, list(error.problems)
    except (OSError, ValueError) as error:
        return 0, [Problem(Path(config.root), "folder", str(error))]
    return len(there), list(there.skipped)


def _uneven(videos: list[Video], published: Mapping[str, int]) -> str:
    got = {split: sum(video.split == split for video in videos) for split in published}
    if got == published:
        return ""
    told, expected = ("/".join(f"{n:,}" for n in counts.values()) for counts in (got, published))
    return f"expected {expected} videos of train/val/test, as published, got {told}"
