"""What a score rests on: on which clips, of which size and class, and how far another draw of clips would move it.

Rows are those of `m2vsl.metrics.tally`, fresh or read back by `m2vsl.records.load_rows`. Student's interval over seeds
is `m2vsl.metrics.tally.interval`.

Source: protocol 2.2 (size buckets, after the evaluator of SLAVC, NeurIPS 2022); ledger 54 (intervals).

Conventions
-----------
- A row counts where its source sounds and the column has a value. NaN and infinities are refused, by name.
- A draw of the bootstrap takes as many pictures as there are, with replacement, each with all of its sources: sources
  that share a picture, sounding together or in turn, are not independent. Percentile intervals; equal seeds draw alike.
- Sizes are pixels of the *mask* in a frame of 224 x 224; SLAVC takes the mean area of the boxes of a picture, which
  differs where a picture has several. An empty truth is small, and a failure there as anywhere.
- Nothing to count: a `Part` of n = 0 without any number, where the released evaluators stop. Without any value there is
  no interval: ValueError.

Statistics
----------
- `bootstrap`, `bootstrap_interval`: of paired differences; of the values of one method. `resample` is what they share.
- `by_size`, `by_class`, `subset`: the same score on parts of the rows; `scores`: on given IoU.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from m2vsl.metrics.overlap import success_auc, success_rate
from m2vsl.metrics.tally import Row

DRAWS = 10_000
LEVELS = (0.1, 0.3, 0.5)  # IoU from which a source counts as found
SIZES = {"small": 32.0**2, "medium": 96.0**2, "large": 144.0**2, "huge": math.inf}  # pixels that a source stays below
UNKNOWN = "unknown"  # what `by_class` calls class -1
_PORTION = 2**21  # indices that are drawn at once
Pictures = Sequence[int] | Sequence[str] | NDArray[np.integer]  # the number, or the key, of each source's picture


@dataclass(frozen=True)
class Lead:
    """By how much one method is ahead of another on the same pictures, in the unit of the score."""

    mean: float
    low: float  # of the interval
    high: float
    share: float  # of resamples in which it is ahead
    pictures: int

    def __str__(self) -> str:
        ends = f"{100 * self.low:+.1f} to {100 * self.high:+.1f}"
        return f"{100 * self.mean:+.1f} ({ends}), {self.share:.0%}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Resampled:
    """A mean over sources and its percentile interval over draws of pictures."""

    mean: float
    low: float
    high: float
    pictures: int


def bootstrap(
    differences: ArrayLike, pictures: Pictures, *, draws: int = DRAWS, confidence: float = 0.95, seed: int = 0
) -> Lead:
    """The mean of paired differences and its percentile interval over draws of pictures with replacement.

    differences: (n,), one per source. pictures: (n,), the number of each source's picture. A draw takes as many
    pictures as there are, each with all of its sources, and averages over the sources that it got.
    ValueError if the two differ in length, are empty, or a difference is not a number.

    >>> str(bootstrap([0.1, 0.1, 0.1], ["a", "a", "b"]))  # the same lead everywhere
    '+10.0 (+10.0 to +10.0), 100%'
    """
    mean, found, n = resample(differences, pictures, "difference", draws, seed)
    low, high = _ends(found, confidence)
    return Lead(mean, low, high, float((found > 0).mean()), n)


def bootstrap_interval(
    values: ArrayLike, pictures: Pictures, *, draws: int = DRAWS, confidence: float = 0.95, seed: int = 0
) -> Resampled:
    """The mean of `values` and its percentile interval over draws of pictures, as in `bootstrap`.

    values: (n,), one per source, in any unit: an IoU, or 1 for a success and 0 for a failure. It is the interval of the
    draw of test clips for one trained model; what another training gives is `m2vsl.metrics.tally.interval`.
    ValueError as in `bootstrap`.

    >>> found = bootstrap_interval([1, 1, 0, 1], ["a", "a", "b", "c"])
    >>> found.mean, found.low, found.high, found.pictures
    (0.75, 0.0, 1.0, 3)
    """
    mean, found, n = resample(values, pictures, "value", draws, seed)
    return Resampled(mean, *_ends(found, confidence), n)


def resample(
    given: ArrayLike, pictures: Pictures, what: str = "value", draws: int = DRAWS, seed: int = 0
) -> tuple[float, NDArray[np.float64], int]:
    """What both bootstraps do: (mean of `given` (n,), its means in each draw of pictures (draws,), number of pictures).

    pictures: (n,), the number or the key of each source's picture. what: the name of a value in an error.

    >>> mean, drawn, pictures = resample([0.0, 1.0], ["a", "b"], draws=100)
    >>> mean, set(drawn.tolist()) == {0.0, 0.5, 1.0}, pictures
    (0.5, True, 2)
    """
    values, numbers = np.asarray(given, dtype=float), np.asarray(pictures)
    if not len(values) or values.shape != numbers.shape or not np.isfinite(values).all():
        odd = int((~np.isfinite(values)).sum())
        got = f"{len(values)} of {len(numbers)} sources, {odd} of them not finite"
        raise ValueError(f"expected one finite {what} per source, got {got}")
    if draws < 1:
        raise ValueError(f"expected at least one draw, got {draws}")
    _, place = np.unique(numbers, return_inverse=True)
    sums, counts = np.bincount(place, values), np.bincount(place)
    n, generator, means = len(counts), np.random.default_rng(seed), []
    for start in range(0, draws, step := max(_PORTION // n, 1)):
        drawn = generator.integers(0, n, (min(step, draws - start), n))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    return float(values.mean()), np.concatenate(means), n


def _ends(found: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence between 0 and 1, got {confidence}")
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Part:
    """The score on some of the rows."""

    n: int  # sources; of `ByClass.macro` classes
    scalars: Mapping[str, float]  # ciou@t, auc, iou as in `m2vsl.metrics.tally`; none of them where n = 0


@dataclass(frozen=True)
class ByClass:
    """The score on each class."""

    parts: Mapping[str, Part]  # by name, in the order of the class numbers; `UNKNOWN` comes last
    macro: Part  # mean over the known classes of each scalar, every class alike


@dataclass(frozen=True)
class Subset:
    """The rows of some clips."""

    rows: tuple[Row, ...]
    kept: int  # clips of which there are rows
    asked: int  # clips that were asked for


def by_size(
    rows: Iterable[Row],
    column: str,
    frame_pixels: int = 224 * 224,
    *,
    frames: int = 1,
    at: Sequence[float] = LEVELS,
    strict: bool = False,
) -> dict[str, Part]:
    """The score per size of the source: small < 32^2 <= medium < 96^2 <= large < 144^2 <= huge, in pixels.

    column: of IoU, the name of a protocol. frames: how many frames of `frame_pixels` the canvas has, 2 for a duet,
    since ``area`` is a share of the whole canvas: a source has area * frames * frame_pixels pixels. at, strict: success
    from, or with `strict` above, these levels. Every bucket is there. ValueError for NaN, an area outside of [0, 1],
    and a column that no row has.

    >>> row = {"key": "a", "sounds": True, "area": 0.04, "class": 0, "lvs": 0.4}
    >>> {size: part.n for size, part in by_size([row], "lvs").items()}
    {'small': 0, 'medium': 1, 'large': 0, 'huge': 0}
    """
    found: dict[str, list[float]] = {size: [] for size in SIZES}
    for row, value in _scored(rows, column):
        if not 0 <= (area := _number(row, "area")) <= 1:  # not NaN either
            raise ValueError(f"{row['key']}: expected an area in [0, 1], a share of the picture, got {area}")
        pixels = round(area * frames * frame_pixels, 6)  # a share of 1024 / 50176 is 1024 pixels again
        found[next(size for size, below in SIZES.items() if pixels < below)].append(value)
    return {size: scores(values, at, strict=strict) for size, values in found.items()}


def by_class(
    rows: Iterable[Row],
    column: str,
    names: Sequence[str] | None = None,
    *,
    at: Sequence[float] = LEVELS,
    strict: bool = False,
) -> ByClass:
    """The score per class, and its mean over classes.

    names: of class 0, 1, ..., unique; without, a class is called by its number. Classes without a row are not there.
    Without rows: no parts, and a macro of n = 0. ValueError for NaN, a class that has no name, and a column that no row
    has.
    """
    if names is not None and (twice := [name for name, n in Counter([*names, UNKNOWN]).items() if n > 1]):
        raise ValueError(f"expected names of classes that differ, none of them {UNKNOWN!r}, got {twice[0]!r} twice")
    found: defaultdict[int, list[float]] = defaultdict(list)
    for row, value in _scored(rows, column):
        label = int(_number(row, "class"))
        if label < -1 or (names is not None and label >= len(names)):
            raise ValueError(f"{row['key']}: expected a class of {len(names or ())} names, or -1, got {label}")
        found[label].append(value)
    known = {label: scores(found[label], at, strict=strict) for label in sorted(found) if label >= 0}
    parts = {str(label) if names is None else names[label]: part for label, part in known.items()}
    scalars = {
        name: math.fsum(part.scalars[name] for part in known.values()) / len(known)
        for name in (next(iter(known.values())).scalars if known else ())
    }
    unknown = {UNKNOWN: scores(found[-1], at, strict=strict)} if -1 in found else {}
    return ByClass(parts | unknown, Part(len(known), scalars))


def subset(rows: Sequence[Row], keys: Iterable[str], *, allow_missing: bool = False) -> Subset:
    """The rows of given clips, in their order, with the count of clips kept and asked for.

    ValueError, naming them, for keys of which there is no row, unless `allow_missing`: the counts then tell; and for a
    key that is asked for twice.

    >>> subset([{"key": "a"}, {"key": "b"}, {"key": "a"}], ["a"])
    Subset(rows=({'key': 'a'}, {'key': 'a'}), kept=1, asked=1)
    """
    asked = Counter(keys)
    if twice := sorted(key for key, n in asked.items() if n > 1):
        raise ValueError(f"expected each key once, got {len(twice)} more often: {_some(twice)}")
    missing = sorted(asked.keys() - {str(row["key"]) for row in rows})
    if missing and not allow_missing:
        raise ValueError(f"expected rows of {len(asked)} clips, got none of {len(missing)}: {_some(missing)}")
    return Subset(tuple(row for row in rows if str(row["key"]) in asked), len(asked) - len(missing), len(asked))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def _scored(rows: Iterable[Row], column: str) -> list[tuple[Row, float]]:
    """Rows of sounding sources with their value, those without one left out. Rows of a file say "True"."""
    sounding = [row for row in rows if str(row["sounds"]) == "True"]
    if sounding and not any(column in row for row in sounding):
        raise ValueError(f"expected a column among {', '.join(sounding[0])}, got {column!r}")
    scored = [(row, float(value)) for row in sounding if (value := row.get(column)) is not None]
    if odd := [row for row, value in scored if not math.isfinite(value)]:
        raise ValueError(f"{odd[0]['key']}: expected finite {column}, got {odd[0][column]} ({len(odd)} such rows)")
    return scored


def _number(row: Row, name: str) -> float:
    if (value := row[name]) is None:
        raise ValueError(f"{row['key']}: expected a number for {name}, got none")
    return float(value)


def scores(iou: Sequence[float] | Tensor, at: Sequence[float] = LEVELS, *, strict: bool = False) -> Part:
    """What `Part` holds of IoU (n,): success at each level, area under the curve, mean.

    >>> scores([0.2, 0.6]).scalars["ciou@0.5"]
    0.5
    """
    iou = torch.as_tensor(iou, dtype=torch.float64)
    if not len(iou):
        return Part(0, {})
    rates = {f"ciou@{level:g}": success_rate(iou, level, strict=strict) for level in at}
    return Part(len(iou), rates | {"auc": success_auc(iou), "iou": float(iou.mean())})
