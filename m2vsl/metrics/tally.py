"""From rows to the numbers of a table: one row per source, one per picture, then means.

Source: protocol 2.3 (per-source success, CAP per picture, macro CAP); ledger 26, 53 (empty truths), 54 (seeds).

Conventions
-----------
- A row is a flat mapping; a value that is not defined is absent or None, never NaN, and no mean counts it. A scalar for
  which no row has a value is absent from the summary, so a record never holds a NaN.
- IoU columns bear the protocol's name; an empty truth is in them as 0, a failure, and counted in ``empty_truths``.
  Average precision and pointing are not defined for it.
- Rows of silent sources (``sounds`` false) enter the scalars that begin with ``swapped/`` and no others.

Scalars
-------
- ``<protocol>/ciou@t``, ``/auc``, ``/iou``: success rate at t, area under the curve, mean IoU; over sources.
- ``<choice>/ap``: over sources. ``<choice>/cap_macro``: first within each class, then over classes.
- ``<choice>/cap``, ``<choice>/piap``: first within each picture, then over pictures.
- ``<choice>/half``, ``<choice>/pointing``: share of sources whose map has its maximum in the source's own frame, in its
  mask.
- ``heard_accuracy``: share of pictures for which the classes that a method is surest of are those that sound.
- ``slavc/detection_ap@t``, ``slavc_as_released/detection_ap@t``: see `m2vsl.metrics.detection`.
- T-VSL's "CIoU@0.3" is ``tvsl-0.3/iou``, a mean.
- ``avsbench/miou``, ``/f``, ``/f@call<n>``, and ``avsbench-predicted/...`` alike: see `m2vsl.metrics.calls`. Other
  columns of `m2vsl.metrics.columns`: their mean, under their own name.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from m2vsl.metrics.calls import Calls, Segmentation
from m2vsl.metrics.detection import detection_ap, detection_ap_as_released_slavc
from m2vsl.metrics.overlap import success_auc
from m2vsl.metrics.protocols import Protocol

Value = str | int | float | bool | None
Row = Mapping[str, Value]

PER_SOURCE = ("ap", "half", "pointing")  # columns <choice>/... of source rows
PER_PICTURE = ("cap", "piap")  # columns <choice>/... of picture rows
PRINTED_PER_SOURCE = ("tvsl/ap", "avgn_as_released/piap", "noprior_as_released/cap")
_DETECTION = {"slavc": detection_ap, "slavc_as_released": detection_ap_as_released_slavc}
PRINTED_PER_PICTURE = ("noprior_as_released/piap",)


@dataclass(frozen=True)
class Summary:
    """What an evaluation found, with the rows it comes from."""

    scalars: Mapping[str, float]  # by name, see above; all finite
    counts: Mapping[str, int]  # pictures, sources, silent, empty_truths
    sources: tuple[Row, ...]  # one per source of each picture
    pictures: tuple[Row, ...]  # one per picture

    @property
    def n(self) -> int:
        """How many pictures were scored."""
        return self.counts["pictures"]


class Tally:
    """Collects rows while batches pass; tallies of several processes are joined by adding their rows.

    But for F scores, in ``calls``: pictures are its frames, in the order of one process.

    >>> from m2vsl.metrics.protocols import HEADLINE
    >>> tally = Tally([HEADLINE])
    >>> row = {"key": "a", "source": 0, "class": 3, "sounds": True, "area": 0.25, HEADLINE.name: 0.4}
    >>> tally.add([row], [{"key": "a"}])
    >>> tally.summary().scalars["framewise-area50-oracle/ciou@0.3"]
    1.0
    """

    def __init__(self, protocols: Iterable[Protocol], *segmentations: Segmentation) -> None:
        self.protocols, self.segmentations = tuple(protocols), segmentations
        self.calls = {one.name: Calls(one.calls) for one in segmentations}
        self.sources: list[Row] = []
        self.pictures: list[Row] = []

    def add(self, sources: Iterable[Row], pictures: Iterable[Row]) -> None:
        """Take in the rows of a batch."""
        self.sources.extend(sources)
        self.pictures.extend(pictures)

    def summary(self) -> Summary:
        """All scalars over the rows so far; ValueError without any."""
        if not self.pictures:
            raise ValueError("expected at least one picture to summarise, got none")
        sounding = [row for row in self.sources if row["sounds"]]
        silent = [row for row in self.sources if not row["sounds"]]
        scalars = _source_scalars(sounding, self.protocols) | _picture_scalars(self.pictures) | self._segmented()
        scalars |= {f"swapped/{name}": value for name, value in _source_scalars(silent, self.protocols).items()}
        counts = {
            "pictures": len(self.pictures),
            "sources": len(sounding),
            "silent": len(silent),
            "empty_truths": sum(row["area"] == 0 for row in sounding),
        }
        return Summary(scalars, counts, tuple(self.sources), tuple(self.pictures))

    def _segmented(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, calls in self.calls.items():
            if scores := calls.scores():
                scores = {"miou": float(column(self.pictures, f"{name}/iou").mean()), **scores}
                found |= {f"{name}/{score}": value for score, value in scores.items()}
        return found


def _source_scalars(rows: Sequence[Row], protocols: Iterable[Protocol]) -> dict[str, float]:
    scalars: dict[str, float] = _means(rows, PRINTED_PER_SOURCE)
    numbers = {key: number for number, key in enumerate(dict.fromkeys(row["key"] for row in rows))}
    for protocol in protocols:
        iou, boxed = _units(rows, protocol, numbers)
        if not len(iou):
            continue
        scalars |= {f"{protocol.name}/ciou@{level:g}": protocol.success(iou, level) for level in protocol.at}
        scalars |= {f"{protocol.name}/iou": float(iou.mean())}
        if not protocol.boxed_auc or bool(boxed.any()):
            scalars |= {f"{protocol.name}/auc": success_auc(iou[boxed] if protocol.boxed_auc else iou)}
        if protocol.name == "slavc" and len(sure := column(rows, "confidence")):  # a bound has none
            for name, measured in _DETECTION.items():
                scalars |= {f"{name}/detection_ap@{t:g}": measured(iou, sure, boxed, t) for t in protocol.at}
    for choice in ("oracle", "predicted"):
        scalars |= _means(rows, [f"{choice}/{name}" for name in PER_SOURCE])
        macro = _macro(rows, f"{choice}/ap")
        scalars |= {} if macro is None else {f"{choice}/cap_macro": macro}
    return scalars


def _picture_scalars(rows: Sequence[Row]) -> dict[str, float]:
    names = [f"{choice}/{name}" for choice in ("oracle", "predicted") for name in PER_PICTURE]
    scalars = _means(rows, [*names, *PRINTED_PER_PICTURE])
    heard = column(rows, "heard")
    return scalars | ({"heard_accuracy": float(heard.mean())} if len(heard) else {})


def _units(rows: Sequence[Row], protocol: Protocol, numbers: Mapping[Value, int]) -> tuple[Tensor, Tensor]:
    """What succeeds or fails under `protocol`: `Protocol.units` of its column; numbers: of the pictures, by key."""
    rows = [row for row in rows if row.get(protocol.name) is not None]
    pictures = torch.tensor([numbers[row["key"]] for row in rows], dtype=torch.int64)
    return protocol.units(column(rows, protocol.name), column(rows, "area") > 0, pictures)


def column(rows: Iterable[Row], name: str) -> Tensor:
    """The values of `name` where a row has one: float64 (n,).

    >>> column([{"iou": 0.5}, {"iou": None}, {}, {"iou": 1}], "iou")
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    values = (row.get(name) for row in rows)
    return torch.tensor([float(value) for value in values if value is not None], dtype=torch.float64)


def _means(rows: Sequence[Row], names: Iterable[str]) -> dict[str, float]:
    columns = {name: column(rows, name) for name in names}
    return {name: float(values.mean()) for name, values in columns.items() if len(values)}


def _macro(rows: Iterable[Row], name: str) -> float | None:
    """Mean over classes of the mean within each; sources of unknown class are left out."""
    by_class: defaultdict[Value, list[Row]] = defaultdict(list)
    for row in rows:
        if row["class"] != -1 and row.get(name) is not None:
            by_class[row["class"]].append(row)
    means = [float(column(group, name).mean()) for group in by_class.values()]
    return sum(means) / len(means) if means else None


def as_csv(rows: Sequence[Row]) -> str:
    """Rows as comma-separated text with a header: all columns of all rows, floats in full, undefined values empty.

    Without rows: an empty header.

    >>> as_csv([{"key": "a", "iou": 0.1}, {"key": "b", "iou": None, "sounds": True}]).splitlines()
    ['key,iou,sounds', 'a,0.1,', 'b,,True']
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """`as_csv` into a file."""
    path.write_text(as_csv(rows), encoding="utf-8")


@dataclass(frozen=True)
class Interval:
    """A mean and how far it may be off."""

    mean: float
    half_width: float  # NaN for a single value
    n: int

    @property
    def bar(self) -> float:
        """Length of an error bar to each side: none for a single value."""
        return 0.0 if math.isnan(self.half_width) else self.half_width

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half_width


def interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    r"""Student's interval of the mean, for a score over seeds.

    .. math:: \bar x \pm t_{(1 + c) / 2,\, n - 1} \frac{s}{\sqrt n}

    A single value has no spread: half_width NaN. ValueError without values, for values that are not finite, and for a
    `confidence` outside of (0, 1).

    >>> found = interval([0.30, 0.32, 0.34])
    >>> f"{found.mean:.2f} from {found.low:.4f} to {found.high:.4f} over {found.n} seeds"
    '0.32 from 0.2703 to 0.3697 over 3 seeds'
    """
    from scipy.special import stdtrit

    n = len(values)
    if n == 0:
        raise ValueError("expected at least one value for an interval, got none")
    if odd := sum(not math.isfinite(value) for value in values):
        raise ValueError(f"expected finite values for an interval, got {odd} of {n} that are not")
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence in (0, 1), got {confidence}")
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, math.nan, 1)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Interval(mean, float(stdtrit(n - 1, (1 + confidence) / 2)) * spread / math.sqrt(n), n)
