"""The method as one drawing whose shapes are read off a model while it runs: nothing in it is typed twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from m2vsl.model import M2VSL, Slots
from m2vsl.report.style import COLOURS, FAINT, INK, figure, house
from m2vsl.types import Batch

PICTURE, SOUND, CLASS = COLOURS[0], COLOURS[1], COLOURS[2]
Shape = tuple[int, ...]


def shapes(model: M2VSL, batch: Batch) -> dict[str, list[Shape]]:
    """What flows through `model` for one sample of `batch`: name -> shapes without the batch axis.

    "image", "spectrogram", "stages", "pyramid", "audio", "sound", "grids" (tokens of each stage), "slots", "heat".
    """
    seen: dict[str, list[Shape]] = {"image": [_of(batch.image)], "spectrogram": [_of(batch.spectrogram)]}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _given: Any, out: Any) -> None:
            parts = out if isinstance(out, tuple) and not isinstance(out, Slots) else [out]
            if isinstance(out, Slots):
                seen["grids"], parts = [_of(grid) for grid in out.grids], [out.audio]
            seen[name] = seen.get(name, []) + [_of(part) for part in parts]

        return hook

    watched = {"stages": model.visual, "audio": model.audio, "sound": model.project_audio}
    hooks = [module.register_forward_hook(keep(name)) for name, module in watched.items()]
    hooks += [conv.register_forward_hook(keep("pyramid")) for conv in model.project]
    hooks += [model.mmt.register_forward_hook(keep("slots"))] if model.config.mmt else []
    training = model.training
    try:
        model.eval()
        seen["heat"] = [_of(model.localize(batch).heat)]
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return seen


@house
def framework(model: M2VSL, batch: Batch) -> Figure:
    """The paper's Figure 2 as this package runs it: boxes are what computes, captions what flows, per sample."""
    found = shapes(model, batch)
    fig, axes = figure(1, 1, height=4.6)
    ax = axes[0, 0]
    ax.set(xlim=(-1, 100), ylim=(1, 62))
    ax.axis("off")
    _pictures(ax, found)
    _sounds(ax, found)
    _transformer(ax, found)
    _answer(ax, found, model.config.fuse)
    return fig


def _pictures(ax: Any, found: dict[str, list[Shape]]) -> None:
    _box(ax, 0, 44, "picture", found["image"][0], PICTURE)
    _box(ax, 17, 44, "VisualEncoder\n4 stages", None, PICTURE, fill=True)
    _arrow(ax, (12, 47.5), (17, 47.5), PICTURE)
    for row, (stage, level) in enumerate(zip(found["stages"], found["pyramid"], strict=True)):
        y = 58 - 8 * row
        _arrow(ax, (29, 47.5), (33.5, y), PICTURE)
        ax.text(34, y, f"stage {row + 1}\n{_said(stage)}", fontsize=7, va="center", color=INK)
        _arrow(ax, (44.5, y), (48.5, y), PICTURE)
        ax.text(49, y, f"1x1 conv\n{_said(level)}", fontsize=7, va="center", color=INK)


def _sounds(ax: Any, found: dict[str, list[Shape]]) -> None:
    _box(ax, 0, 6, "spectrogram", found["spectrogram"][0], SOUND)
    _box(ax, 17, 6, "AudioEncoder", found["audio"][0], SOUND, fill=True)
    _box(ax, 36, 6, "linear", found["sound"][0], SOUND, fill=True)
    _arrow(ax, (12, 9.5), (17, 9.5), SOUND)
    _arrow(ax, (29, 9.5), (36, 9.5), SOUND)


def _transformer(ax: Any, found: dict[str, list[Shape]]) -> None:
    tokens = sum(grid[-1] * grid[-2] for grid in found["grids"])
    classes = found["slots"][0][0]
    _box(ax, 55, 20, "MMT, picture\nEq. 5", (tokens + classes, found["slots"][0][1]), PICTURE, fill=True)
    _box(ax, 55, 6, "MMT, sound\nEq. 5", (1 + classes, found["slots"][0][1]), SOUND, fill=True)
    _box(ax, 36, 20, "class tokens", found["slots"][0], CLASS)
    _arrow(ax, (63.5, 33), (61, 27), PICTURE)
    size = _said(found["grids"][0][1:])
    ax.text(64.5, 30.5, f"{len(found['grids'])} grids of {size} tokens", fontsize=7, va="center", color=INK)
    _arrow(ax, (48, 23.5), (55, 23.5), CLASS)
    _arrow(ax, (48, 21.5), (55, 11), CLASS)
    _arrow(ax, (48, 9), (55, 9), SOUND)
    ax.text(68.5, 23.5, f"{classes} slots $x^v$: what is seen", fontsize=7, va="center", color=INK)
    ax.text(68.5, 6.5, f"{classes} slots $x^a$: what is heard", fontsize=7, va="center", color=INK)


def _answer(ax: Any, found: dict[str, list[Shape]], fuse: str) -> None:
    _box(ax, 68, 44, "cosine\nper stage", None, INK, fill=True)
    _box(ax, 86, 44, f"{fuse} over\nstages", found["heat"][0], INK)
    ax.plot([62, 63.5, 63.5, 62], [59, 59, 33, 33], color=PICTURE, linewidth=1.2, linestyle="-")
    _arrow(ax, (63.5, 47.5), (68, 47.5), PICTURE)
    _arrow(ax, (80, 47.5), (86, 47.5), INK)
    ax.plot([67, 88, 88], [9.5, 9.5, 38], color=SOUND, linewidth=1.2, linestyle="-")
    _arrow(ax, (88, 38), (78, 44), SOUND)
    ax.text(74, 58.5, "max over cells:\nMMC, Eqs. 2 to 4", fontsize=7, ha="center", color=INK)
    _arrow(ax, (74, 51), (74, 55.5), INK)


def _box(ax: Any, x: float, y: float, name: str, shape: Shape | None, colour: str, *, fill: bool = False) -> None:
    """A box of 12 x 7 at its lower left corner; what computes is filled, what is given or comes out is not."""
    from matplotlib.patches import FancyBboxPatch

    style: dict[str, Any] = {"facecolor": colour if fill else "white", "edgecolor": colour, "linewidth": 1.2}
    ax.add_patch(FancyBboxPatch((x, y), 12, 7, boxstyle="round,pad=0,rounding_size=1", **style))
    ink = "white" if fill else INK
    ax.text(x + 6, y + 3.5, name, ha="center", va="center", fontsize=7.5, color=ink, linespacing=1.1)
    if shape is not None:
        ax.text(x + 6, y - 1.6, _said(shape), ha="center", va="center", fontsize=7, color=FAINT)


def _arrow(ax: Any, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.0, "shrinkA": 0})


def _said(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _of(tensor: Tensor) -> Shape:
    return tuple(torch.Size(tensor.shape[1:]))
