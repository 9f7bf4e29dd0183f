"""Things to move and to listen to, that also work where no kernel runs.

A page of the book has no Python behind it, so what a slider shows is drawn beforehand and the browser alone picks
from it. Where ipywidgets is not installed the same pictures come as one figure.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from m2vsl import ops
from m2vsl.audio import AudioConfig
from m2vsl.metrics.overlap import MinMax, binarise, consensus_iou
from m2vsl.report import axes as draw
from m2vsl.report.style import WIDTH, figure, house

LEVELS = tuple(n / 10 for n in range(1, 10))  # of a map spread over [0, 1]


def player(wave: Tensor, audio: AudioConfig) -> Any:
    """A sound (n,) to listen to, at its own loudness up to full scale; the last line of a cell."""
    from IPython.display import Audio

    loudest = max(float(wave.abs().max()), 1.0)  # a sum of sounds may pass full scale
    return Audio((wave / loudest).cpu().numpy(), rate=audio.rate, normalize=False)


def thresholds(image: Tensor, heat: Tensor, truth: Tensor, levels: Sequence[float] = LEVELS) -> Any:
    """A slider over the level of `MinMax`: the pixels of heat (h, w) that it keeps, and their IoU with truth (H, W)."""
    try:
        import ipywidgets
    except ImportError:
        return threshold_figure(image, heat, truth, levels)
    frames = [ipywidgets.Image(value=_png(_one(image, heat, truth, level)), format="png") for level in levels]
    middle = len(levels) // 2
    stack = ipywidgets.Stack(frames, selected_index=middle)
    choices = [f"{level:g}" for level in levels]
    slider = ipywidgets.SelectionSlider(options=choices, value=choices[middle], description="level")
    ipywidgets.jslink((slider, "index"), (stack, "selected_index"))  # in the browser: needs no kernel
    return ipywidgets.VBox([slider, stack])


@house
def threshold_figure(
    image: Tensor, heat: Tensor, truth: Tensor, levels: Sequence[float] = (0.3, 0.5, 0.7, 0.9)
) -> Figure:
    """The same side by side, for paper and for those without widgets."""
    shape = image.shape[-2] / image.shape[-1]
    fig, axes = figure(1, len(levels), height=WIDTH / len(levels) * shape + 0.4)
    for ax, level in zip(axes[0], levels, strict=True):
        _kept(ax, image, heat, truth, level)
    return fig


@house
def _one(image: Tensor, heat: Tensor, truth: Tensor, level: float) -> Figure:
    wide = image.shape[-1] / image.shape[-2]
    fig, axes = figure(1, 1, height=2.8, width=2.5 * wide)
    _kept(axes[0, 0], image, heat, truth, level)
    return fig


def _kept(ax: Any, image: Tensor, heat: Tensor, truth: Tensor, level: float) -> None:
    size = (image.shape[-2], image.shape[-1])
    full = heat if heat.shape == size else ops.upsample(heat[None, None], size)[0, 0]
    kept = binarise(full, MinMax(level))
    draw.picture(ax, torch.where(kept, image, image * 0.3), f"level {level:g}, IoU {consensus_iou(kept, truth):.2f}")
    draw.outlines(ax, truth[None])


def _png(fig: Figure) -> bytes:
    out = io.BytesIO()
    fig.savefig(out, format="png", dpi=100)
    return out.getvalue()
