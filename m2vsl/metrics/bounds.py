r"""What a map that has neither seen nor heard scores, and what no map can exceed, for any ground truth.

A score says something only between two numbers that depend on the truths alone: what a predictor reaches that is the
same for every picture, and what the rule allows at best. `bounds_of` reads truths and no picture.

Source: protocol 2.6 (constants and ceilings), 2.3 (canvases); ledger 26, 53. Printed numbers have lain on either side.

Conventions
-----------
- Truths come in batches (n, S, H, W) in [0, 1], S sources on a canvas of one or more square frames side by side
  (`m2vsl.metrics.canvas`), and are read twice. What is kept is a few numbers per source, never a batch.
- A score is over sources. An empty truth is in it as a failure of IoU 0, has no average precision, and is counted.
- Predictions are cut by `Area` with its ties: on 224 x 224 pixels the disc of half is twelve pixels too large.
- Votes are weights of the IoU, as in `consensus_iou`; average precision takes all pixels above 0.

Rows, each "<row>/<canvas>"; source-wise ones only where a picture has several frames
--------------------------------------------------------------------------------------
- ``all_ones``: the whole canvas.
- ``own_frame``: the whole of the source's own frame on the whole canvas: what knowing the side alone gives.
- ``centre25``, ``centre50``: a disc of that share in the middle of every frame. ``centre_best``: of the share among
  5, 10, ..., 95 % that has the best AUC (`Bounds.best_area`; the smallest of equals). It is chosen on these very
  truths: a prior that has seen the answers.
- ``noise50``: the hotter half of pixel noise. A picture's noise is the permutation of its pixels that torch's generator
  gives, seeded by the picture's number in the order of reading; all sources of a picture share it.
- ``prior50``: the mean of all truths, cut at one half. It has seen the answers, too.
- ``oracle_area50``: the best map of half of the canvas (`overlap.bound`), the ceiling of the 50 % rule.
- ``oracle_minmax05``, ``oracle_matched``: 1 but for empty truths; these rules let a map predict just the truth.

``ap`` is that of the ranking behind a row: distance to the centre for every disc, the uncut prior, 1 for an oracle.

>>> truth = torch.zeros(1, 2, 4, 8)
>>> truth[0, 0, 1:3, 1:3] = 1  # left frame
>>> truth[0, 1, :, 4:] = 1  # right frame, all of it
>>> found = bounds_of([truth])
>>> {row.split("/")[1]: scores["iou"] for row, scores in found.rows.items() if row.startswith("all_ones")}
{'framewise': 0.3125, 'sourcewise': 0.625}
>>> found.rows["oracle_area50/framewise"]["iou"], found.n, found.empty_truths
(0.625, 2, 0)
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2vsl.metrics.canvas import Canvas, frame_count, own_frame
from m2vsl.metrics.heat import settled, validated_truth
from m2vsl.metrics.overlap import Area, bound, success_auc
from m2vsl.metrics.statistics import LEVELS, scores

AREAS = tuple(percent / 100 for percent in range(5, 100, 5))  # shares of a frame among which the best disc is chosen
SCORES = (*(f"ciou@{level:g}" for level in LEVELS), "auc", "iou", "ap")
ROWS = (
    *("all_ones", "own_frame", "centre25", "centre50", "centre_best", "noise50", "prior50"),
    *("oracle_area50", "oracle_minmax05", "oracle_matched"),
)
_CANVASES: tuple[Canvas, ...] = ("framewise", "sourcewise")
PORTION = 16  # sources measured together: they stay in the processor's cache

Array = NDArray[Any]
TruthBatch = Tensor | tuple[Tensor, Tensor]  # (n, S, H, W), or with (n, S) bool: which of them are sources


@dataclass(frozen=True)
class Bounds:
    """What constants reach and ceilings allow on a list of truths; ``str`` of it is a table in per cent."""

    rows: Mapping[str, Mapping[str, float]]  # "<row>/<canvas>" -> `SCORES`, in [0, 1]; no ap if all truths are empty
    n: int  # sources
    empty_truths: int  # of the n, failures in every row
    best_area: Mapping[str, float]  # canvas -> share of a frame of its ``centre_best``

    def __str__(self) -> str:
        width = max(len(name) for name in self.rows)
        lines = [f"{self.n} truths, {self.empty_truths} of them empty; scores in per cent", ""]
        lines += [" " * width + "".join(f"{score:>10}" for score in SCORES)]
        for name, of_row in self.rows.items():
            cells = (f"{100 * of_row[score]:.1f}" if score in of_row else "-" for score in SCORES)
            lines += [name.ljust(width) + "".join(f"{cell:>10}" for cell in cells)]
        best = ", ".join(f"{area:.0%} {canvas}" for canvas, area in self.best_area.items())
        return "\n".join([*lines, "", f"centre_best, chosen on these truths: {best}"])


def bounds_of(truths: Iterable[TruthBatch]) -> Bounds:
    """The rows above for `truths`, a list or a loader of batches (n, S, H, W) in [0, 1].

    A batch may come with a mask (n, S) bool that says which truths are sources, the others being padding or silent.
    Every canvas has one size. ValueError for no truth at all, for other sizes or values, and for an iterator, which
    cannot be read twice, or truths that are not as many the second time.
    """
    if isinstance(truths, Iterator):
        raise ValueError(f"expected truths that can be read twice, a list or a loader, got {type(truths).__name__}")
    prior, count = _mean(truths)
    frames = frame_count(*prior.shape)
    views = [_view(prior, frame) for frame in ([-1, *range(frames)] if frames > 1 else [-1])]
    found = _Found()
    for truth, pictures in _sources(truths):
        found.add(truth, pictures, views)
    if found.n != count:
        raise ValueError(f"expected the same truths at the second reading, got {count} and then {found.n}")
    return found.summary()


def _sources(truths: Iterable[TruthBatch]) -> Iterator[tuple[Tensor, list[int]]]:
    """Truths of sources, at most `PORTION` of them (m, H, W), and the number of each one's picture."""
    size: tuple[int, ...] | None = None
    pictures = 0
    for batch in truths:
        truth, sources = (batch, None) if isinstance(batch, Tensor) else batch
        if truth.ndim != 4:
            raise ValueError(f"expected truths of shape (n, S, H, W), got {tuple(truth.shape)}")
        if size is not None and tuple(truth.shape[-2:]) != size:
            raise ValueError(f"expected every canvas of the size {size}, got {tuple(truth.shape[-2:])}")
        size = tuple(truth.shape[-2:])
        sources = torch.ones(truth.shape[:2], dtype=torch.bool) if sources is None else sources
        if sources.shape != truth.shape[:2] or sources.dtype != torch.bool:
            expected = f"expected a mask of sources {tuple(truth.shape[:2])} of torch.bool"
            raise ValueError(f"{expected}, got {tuple(sources.shape)} of {sources.dtype}")
        places = sources.cpu().nonzero()
        for start in range(0, len(places), PORTION):
            picture, source = places[start : start + PORTION].unbind(1)
            chosen = truth[picture, source].cpu()
            chosen = validated_truth(chosen if chosen.dtype == torch.float64 else chosen.float(), chosen.shape)
            yield chosen, (picture + pictures).tolist()
        pictures += len(truth)


def _mean(truths: Iterable[TruthBatch]) -> tuple[Tensor, int]:
    """Mean of all truths, float64 (H, W), and how many there are."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for truth, _ in _sources(truths):
        total, count = total + truth.sum(0, dtype=torch.float64), count + len(truth)
    if not count:
        raise ValueError("expected at least one truth, got none")
    return total / count, count


# Maps that are the same for every picture are sorted once; truths are then read in that order.


@dataclass(frozen=True)
class _Ranking:
    """Pixels from hot to cold; what is equally hot is one group."""

    orders: list[Array]  # int64 (P,) each: numbers of pixels of the canvas, for all sources or for each its own
    ends: Array  # int64 (P,): how many pixels there are up to the end of the group that a pixel of that place is in

    def kept(self, rule: Area) -> int:
        """How many pixels the rule keeps: all that tie with its threshold."""
        return int(self.ends[rule.pixels(len(self.ends)) - 1])

    def arrange(self, values: Array) -> Array:
        """Values (m, H * W) in this order: (m, P)."""
        if len(self.orders) == 1:
            return values.take(self.orders[0], 1)
        return np.stack([row.take(order) for row, order in zip(values, self.orders, strict=True)])


@dataclass(frozen=True)
class _View:
    """What a canvas lets a source see: the whole picture, or a frame of it."""

    frame: int  # -1 = the whole
    inside: Array  # bool (H * W,)
    centre: _Ranking
    prior: _Ranking


def _view(prior: Tensor, frame: int) -> _View:
    height, width = prior.shape
    side = width // frame_count(height, width)
    column = torch.arange(width)
    inside = ((column // side == frame) | (frame < 0)).expand(height, width).flatten()
    down, across = 2 * torch.arange(height) - (height - 1), 2 * (column % side) - (side - 1)  # half pixels
    near = -(down[:, None] ** 2 + across**2).double()  # whole numbers: what is equally far ties
    return _View(frame, inside.numpy(), _ranking(near, inside), _ranking(prior, inside))


def _ranking(heat: Tensor, inside: Tensor) -> _Ranking:
    """The pixels `inside` (H * W,) of a map (H, W) in the order of its heat."""
    pixels = inside.nonzero()[:, 0]
    values, order = settled(heat.flatten()[pixels][None])[0].sort(descending=True, stable=True)
    _, size = values.unique_consecutive(return_counts=True)
    return _Ranking([pixels[order].numpy()], size.cumsum(0).repeat_interleave(size).numpy())


def _noise(pictures: Sequence[int], pixels: int) -> dict[int, Array]:
    """Noise of each picture, as the numbers of its pixels from hot to cold."""
    return {p: torch.randperm(pixels, generator=torch.Generator().manual_seed(p)).numpy() for p in set(pictures)}


def _seen(noise: Mapping[int, Array], pictures: Sequence[int], inside: Array) -> _Ranking:
    """The noise of each source's picture, of the pixels `inside` (H * W,) alone."""
    orders = {p: noise[p].take(np.flatnonzero(inside.take(noise[p]))) for p in set(pictures)}
    return _Ranking([orders[picture] for picture in pictures], np.arange(1, inside.sum() + 1))


def _read(truth: Array, ranking: _Ranking, rules: Sequence[Area]) -> tuple[Tensor, Tensor]:
    """IoU under each rule, float64 (m, R), and average precision (m,) of a ranking; truth: (m, H * W), bool or votes.

    The pixels of the truths are found once, in the order of the ranking; the rest is about them alone.
    """
    ranked = ranking.arrange(truth > 0)
    rows, pixels = ranked.shape
    hits, starts = np.flatnonzero(ranked), np.arange(rows)[:, None] * pixels
    kept = np.array([ranking.kept(rule) for rule in rules])
    first, until, last = (np.searchsorted(hits, starts + place) for place in (0, kept, pixels))  # (m, 1), R, 1
    mass = np.arange(len(hits) + 1)  # of the hits so far
    if truth.dtype != bool:
        mass = np.append(0, ranking.arrange(truth).flat[hits].cumsum(dtype=np.float64))
    iou = (mass[until] - mass[first]) / (mass[last] - mass[first] + kept - (until - first))

    count = (last - first)[:, 0]
    row = np.arange(rows).repeat(count)
    end = ranking.ends[hits - row * pixels]
    closing = np.flatnonzero(np.diff(row * pixels + end, append=-1))  # the last hit of each group
    row, new = row[closing], np.diff(closing, prepend=-1)
    gain = new * (closing + 1 - first[row, 0]) / end[closing]
    with np.errstate(invalid="ignore"):  # an empty truth: 0 / 0
        ap = np.bincount(row, gain, rows) / count
    return torch.from_numpy(iou), torch.from_numpy(ap)


class _Found:
    """IoU and average precision of every source so far, by "<row>/<canvas>".

    Arrays, for small tensors that stay between large ones that go leave holes in memory.
    """

    def __init__(self) -> None:
        self.iou: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))  # "centre": `AREAS` per source
        self.ap: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))  # NaN for an empty truth
        self.n = 0

    def add(self, truth: Tensor, pictures: Sequence[int], views: Sequence[_View]) -> None:
        """Take in the truths (m, H, W) of some sources and the numbers of their pictures (m,)."""
        self.n += len(truth)
        noise = _noise(pictures, truth[0].numel())
        self._canvas("framewise", truth, _seen(noise, pictures, views[0].inside), views[0])
        own = own_frame(truth)
        for view in views if len(views) > 1 else ():
            seen = (own == view.frame).nonzero()[:, 0]
            if len(seen):
                theirs = _seen(noise, [pictures[i] for i in seen.tolist()], view.inside)
                self._canvas("sourcewise", truth[seen], theirs, view)

    def _canvas(self, canvas: Canvas, truth: Tensor, noise: _Ranking, view: _View) -> None:
        """All rows of one canvas; truth: (m, H, W), nothing outside of `view`."""
        pixels, flat = int(view.inside.sum()), truth.flatten(1)
        positive = (flat > 0).to(flat.dtype)
        support, binary = positive.sum(1).double(), torch.equal(positive, flat)  # exact up to 2^24 pixels
        total = support if binary else flat.double().sum(1)
        there, defined = (support > 0).double(), torch.where(support > 0, 1.0, torch.nan).double()
        constants = [f"all_ones/{canvas}"]  # a source's own frame, on the whole canvas, shares and exceeds as much
        for name in [*constants, "own_frame/framewise"] if canvas == "sourcewise" else constants:
            self._put(name, total / (total + pixels - support), support / pixels * defined)
        votes = (flat > 0 if binary else flat).numpy()
        self._put(f"centre/{canvas}", *_read(votes, view.centre, [Area(area) for area in AREAS]))
        for name, ranking in (("noise50", noise), ("prior50", view.prior)):
            iou, ap = _read(votes, ranking, [Area(0.5)])
            self._put(f"{name}/{canvas}", iou[:, 0], ap)
        half = Area(0.5 * pixels / truth[0].numel())  # of what is seen; the rest of the canvas is empty
        for name, iou in (("area50", bound(truth, half)), ("minmax05", there), ("matched", there)):
            self._put(f"oracle_{name}/{canvas}", iou, defined)

    def _put(self, name: str, iou: Tensor, ap: Tensor) -> None:
        self.iou[name].extend(iou.flatten().tolist())
        self.ap[name].extend(ap.tolist())

    def summary(self) -> Bounds:
        """All rows over the sources so far."""
        iou = {name: torch.tensor(column, dtype=torch.float64) for name, column in self.iou.items()}
        ap = {name: torch.tensor(column, dtype=torch.float64) for name, column in self.ap.items()}
        canvases = [canvas for canvas in _CANVASES if f"all_ones/{canvas}" in iou]
        best_area: dict[str, float] = {}
        for canvas in canvases:
            discs = iou[f"centre/{canvas}"].view(-1, len(AREAS))
            curves = [success_auc(disc) for disc in discs.unbind(1)]
            best_area[canvas] = AREAS[curves.index(max(curves))]
            for name, area in (("25", 0.25), ("50", 0.5), ("_best", best_area[canvas])):
                iou[f"centre{name}/{canvas}"] = discs[:, AREAS.index(area)]
                ap[f"centre{name}/{canvas}"] = ap[f"centre/{canvas}"]
        names = [f"{row}/{canvas}" for canvas in canvases for row in ROWS]
        rows = {name: _scores(iou[name], ap[name]) for name in names if name in iou}
        return Bounds(rows, self.n, int(ap["all_ones/framewise"].isnan().sum()), best_area)


def _scores(iou: Tensor, ap: Tensor) -> dict[str, float]:
    """`SCORES` over sources; without ap where no source has one."""
    found = dict(scores(iou).scalars)
    return found if bool(ap.isnan().all()) else found | {"ap": float(ap.nanmean())}
