"""The maps of many methods on the same few pictures, as kept beside their records: nothing is trained here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from m2vsl import records
from m2vsl.data.loader import collate
from m2vsl.exam import SHOWN
from m2vsl.experiment import Experiment, test_lists
from m2vsl.methods import METHODS
from m2vsl.metrics.matching import merge_same_class
from m2vsl.report import axes as draw
from m2vsl.report.style import FAINT, WIDTH, figure, house


@house
def same_pictures(made: Sequence[Experiment], *, pictures: int = SHOWN) -> Figure:
    """A row for each source that sounds in the first pictures of the test list, a column for each method.

    Each panel is the map that answers for the source of its row (choice ``oracle``), and the outline of that source
    alone: a method with one map shows the same twice. The maps are those of seed 0, whatever the seed of `made`; where
    there is none, the panel says so. ValueError if the experiments are of several test lists.
    """
    several = sorted({f"{one.source} {one.task} {one.preset}" for one in made})
    if len(several) != 1:
        raise ValueError(f"expected experiments of one test list, got {', '.join(several) or 'none'}")
    name, samples = test_lists(replace(made[0], seed=0))[0]
    first = collate([samples[i] for i in range(min(pictures, len(samples)))], made[0].audio)
    truth = merge_same_class(first.truth)
    sources = truth.present.nonzero().tolist()
    wide = first.image.shape[-1] / first.image.shape[-2]
    panel = WIDTH / (len(made) + 1)
    fig, axes = figure(len(sources), len(made) + 1, height=len(sources) * (panel / wide + 0.04) + 0.3)
    for row, (b, s) in zip(axes, sources, strict=True):
        draw.picture(row[0], first.image[b])
        said = fill(samples.classes[int(truth.classes[b, s])], 10)
        row[0].set_ylabel(said, fontsize=7, rotation=0, ha="right", va="center")
        draw.outlines(row[0], truth.mask[b, s : s + 1], first=s)
    for column, one in zip(axes[:, 1:].T, made, strict=True):
        found = kept(one, name)
        for ax, (b, s) in zip(column, sources, strict=True):
            if isinstance(found, str):
                _empty(ax, found, wide)
            else:
                draw.overlay(ax, first.image[b], found[b, s])
                draw.outlines(ax, truth.mask[b, s : s + 1], first=s)
    for ax, title in zip(axes[0], ["picture", *(METHODS[one.method].title for one in made)], strict=True):
        ax.set_title(title, fontsize=8)
    return fig


def kept(one: Experiment, name: str) -> Tensor | str:
    """The maps (n, S, h, w) kept beside the record of seed 0, of the list `name`; or why there are none."""
    path = replace(one, seed=0).record_path()
    try:
        return records.load_maps(path, name)
    except FileNotFoundError:
        return "no maps kept" if path.exists() else "no record"


def _empty(ax: Any, why: str, wide: float) -> None:
    """A panel of a picture's shape that says why it is empty."""
    ax.set(xticks=[], yticks=[], xlim=(0, wide), ylim=(0, 1), aspect="equal")
    ax.text(wide / 2, 0.5, why, ha="center", va="center", fontsize=7, color=FAINT)
    for side in ax.spines.values():
        side.set(visible=True, color=FAINT, linestyle=":")
