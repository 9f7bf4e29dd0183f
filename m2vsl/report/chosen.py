"""Figures 1 and 3: a chart of all rivals, and masks of frames that a rule has chosen, never taste.

The rule of `by_quantile`: the frames of a test list in the order of one method's IoU; the frame at each quantile is
shown, whatever it looks like, with the masks of all methods and the truth. The lowest are its failures, the highest its
successes. Frames without a truth are left out, as nothing can be outlined.

Source: Figures 1 and 3; ledger 32 (Figure 1 names no data set).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from m2vsl import records
from m2vsl.methods import CONTROLS, METHODS
from m2vsl.report import axes as draw
from m2vsl.report.style import COLOURS, FAINT, INK, WIDTH, figure, house
from m2vsl.report.tables import Column, Table

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Chosen:
    """A frame and what every method made of it."""

    quantile: float
    key: str
    place: int  # in the test list
    ious: Mapping[str, float]  # method -> IoU, per cent
    masks: Mapping[str, Tensor]  # method -> (h, w) probabilities: the mask is where they are above 0.5


def by_quantile(
    paths: Mapping[str, Path], test_list: str, by: str, quantiles: Sequence[float] = QUANTILES
) -> list[Chosen]:
    """The frames at some quantiles of the IoU of method `by`, the lower of two neighbours.

    paths: method -> its record of seed 0, beside which rows and masks of all frames lie. ValueError if they are of
    different frames; FileNotFoundError where none were kept.
    """
    rows = {m: records.load_rows(path, f"{test_list}-frames") for m, path in paths.items()}
    keys = {m: [row["key"] for row in some] for m, some in rows.items()}
    if odd := [m for m in keys if keys[m] != keys[by]]:
        raise ValueError(f"expected the frames of {by}, got others of {', '.join(odd)}")
    masks = {m: records.load_maps(path, f"{test_list}-frames")[:, 0] for m, path in paths.items()}
    real = [n for n, row in enumerate(rows[by]) if row["area"] > 0]
    ordered = sorted(real, key=lambda n: (rows[by][n]["avsbench/iou"], keys[by][n]))
    found = []
    for quantile in quantiles:
        n = ordered[math.floor(quantile * (len(ordered) - 1))]
        ious = {m: 100 * some[n]["avsbench/iou"] for m, some in rows.items()}
        found.append(Chosen(quantile, keys[by][n], n, ious, {m: some[n] for m, some in masks.items()}))
    return found


@house
def qualitative(found: Sequence[Chosen], pictures: Sequence[Tensor], truths: Sequence[Tensor]) -> Figure:
    """A row per frame: the picture with the truth outlined, then the mask of each method with its IoU.

    pictures: (3, H, W) each; truths: (H, W) each. Inside of a mask the picture keeps its brightness, outside it is dim.
    """
    methods = list(found[0].masks)
    panel = WIDTH / (len(methods) + 1)
    fig, axes = figure(len(found), len(methods) + 1, height=len(found) * (panel + 0.22))
    for row, one, picture, truth in zip(axes, found, pictures, truths, strict=True):
        draw.picture(row[0], picture, f"{100 * one.quantile:.0f} % of frames are worse")
        draw.outlines(row[0], truth[None])
        for ax, method in zip(row[1:], methods, strict=True):
            draw.masked(ax, picture, one.masks[method], f"{METHODS[method].title} {one.ious[method]:.0f}")
            draw.outlines(ax, truth[None])
    for ax in axes.flat:
        ax.title.set_fontsize(6.5)
    return fig


@house
def chart(made: Table, column: Column, printed: Mapping[str, float], dataset: str) -> Figure:
    """Figure 1: bars of all methods, printed on the left, ours on the right, each with its own disc and best map.

    printed: method -> per cent, those of the constants among them where they are known.
    """
    methods = [m for m in made.methods if m not in CONTROLS]
    fig, axes = figure(1, 2, height=0.26 * len(methods) + 1.4, sharey=True)
    ours = {m: made.number(m, column) for m in made.methods}
    numbers = {m: (column.scale * one.mean, column.scale * one.half_width) for m, one in ours.items() if one}
    for ax, values, title in (
        (axes[0, 0], {m: (value, math.nan) for m, value in printed.items()}, f"printed, {dataset}"),
        (axes[0, 1], numbers, f"ours, {made.caption.split(';')[0]}"),
    ):
        for y, method in enumerate(methods):
            _bar(ax, y, values.get(method), ours=method.startswith("m2vsl"))
        for name, line in (("centre", "--"), ("bound", "-")):
            if name in values:
                ax.axvline(values[name][0], color=INK, linestyle=line, linewidth=1.2, label=METHODS[name].title)
        ax.set(title=title, xlabel="CIoU@0.3, per cent", xlim=(0, None))
        ax.grid(axis="x")
    axes[0, 0].set_yticks(range(len(methods)), [METHODS[m].title for m in methods])
    axes[0, 0].set_ylim(len(methods) - 0.4, -0.6)
    handles, labels = axes[0, 1].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=2)
    return fig


def _bar(ax: Any, y: int, value: tuple[float, float] | None, *, ours: bool) -> None:
    if value is None:
        ax.text(0.01, y, "no number", transform=ax.get_yaxis_transform(), va="center", fontsize=7, color=FAINT)
        return
    mean, off = value
    look = {"color": COLOURS[0], "hatch": ""} if ours else {"color": "white", "hatch": "////"}
    ax.barh(y, mean, height=0.6, edgecolor=COLOURS[0], xerr=None if math.isnan(off) else off, capsize=2, **look)
