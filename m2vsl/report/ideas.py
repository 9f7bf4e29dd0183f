"""The idea of each rival as a drawing: one small scene in two dimensions, looked at by all of them.

Conventions
-----------
A cell of the scene is a vector of the plane, drawn as an arrow. A dog stands at the upper left, a drum at the lower
right, and a sound is an arrow, too: a bark points as the cells of the dog do. What a panel shows is computed by the
methods' own functions where they have one; projections, which have nothing to learn here, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from m2vsl import ops
from m2vsl.baselines import attention10k, coarse_to_fine, dmc, lvs
from m2vsl.report import axes as draw
from m2vsl.report.style import COLOURS, FAINT, INK, MARKERS, figure, house

SIDE = 8  # cells
ANGLES = {"bark": 10.0, "drumming": 120.0, "siren": 270.0}  # degrees; nothing in the scene sounds like a siren
PICTURE, SOUND, OTHER = COLOURS[0], COLOURS[1], COLOURS[2]
SHAPES = {"o": "discs", "s": "squares", "^": "triangles"}  # of clusters


def sound(name: str) -> Tensor:
    """The unit vector (2,) of a sound of `ANGLES`."""
    angle = math.radians(ANGLES[name])
    return torch.tensor([math.cos(angle), math.sin(angle)])


def scene(things: Sequence[str] = ("bark", "drumming")) -> Tensor:
    """Cells (1, 2, 8, 8): short arrows of the ground, and longer ones that fade out around each thing that is there."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    wave = torch.deg2rad(235 + 25 * torch.sin(1.9 * x + 0.7 * y))
    cells = 0.35 * torch.stack([wave.cos(), wave.sin()])
    for thing, (row, column) in {"bark": (2.0, 2.0), "drumming": (5.2, 5.3)}.items():
        if thing in things:
            near = torch.exp(-((y - row).square() + (x - column).square()) / 3.2)
            turned = torch.deg2rad(ANGLES[thing] + 14 * torch.sin(2.3 * x - y))
            cells = cells * (1 - near) + 1.25 * near * torch.stack([turned.cos(), turned.sin()])
    return cells[None]


@house
def correspondence() -> Figure:
    """Attention10k pools what its sound attends to and compares distances; OTS asks the best cell for yes or no."""
    cells, own, other = scene(), sound("bark"), sound("siren")
    fig, axes = _panels(2, 4, scene_of=cells, sounds=["bark", "siren"])
    cosine = ops.similarity(ops.unit(cells), own[None])[0, 0]
    weights = cosine.relu().flatten().softmax(0).view_as(cosine)
    pooled = (weights * cells[0]).sum((-2, -1))
    even = weights * weights.numel()
    near, far = (float((pooled - s).norm()) for s in (own, other))
    draw.heat(axes[0, 1], cosine, "Attention10k\ncosine with the bark")
    draw.heat(axes[0, 2], weights, f"softmax: weights,\n{even.min():.1f} to {even.max():.1f} of even")
    p = float(attention10k.ratio(torch.tensor([near]), torch.tensor([far]))) ** 0.5
    _plane(axes[0, 3], f"what it pools: nearer\nto its own sound? p = {p:.2f}")
    for end, colour, name in ((own, SOUND, "bark"), (other, FAINT, "siren"), (pooled, PICTURE, "pooled")):
        _arrow(axes[0, 3], end, colour, name)
    for end in (own, other):
        axes[0, 3].plot(*zip(pooled.tolist(), end.tolist(), strict=True), color=INK, linewidth=0.9, linestyle=":")
    logits = {name: 4 * ops.similarity(cells, sound(name)[None])[0, 0] - 2 for name in ("bark", "siren")}
    for ax, (name, values) in zip(axes[1, 1:3], logits.items(), strict=True):
        draw.heat(ax, values, f"{'OTS' if name == 'bark' else ' '}\nlogits with the {name}", limits=(-8, 4))
        _mark(ax, values)
    ax = axes[1, 3]
    line = torch.linspace(-5, 5, 60)
    ax.plot(line, torch.sigmoid(line), color=FAINT, linestyle="-")
    for n, (name, values) in enumerate(logits.items()):
        best = float(values.max())
        ax.plot([best], [1 / (1 + math.exp(-best))], MARKERS[n], color=(SOUND, INK)[n], markersize=7, label=name)
    ax.set(title="of the best cell:\ndo they belong together?", xlabel="logit", yticks=[0, 1])
    ax.legend(loc="center left", handlelength=1)
    return fig


@house
def contrast() -> Figure:
    """Which cells a contrast teaches: EZ-VSL one, LVS three kinds, SLAVC all, as far as two choices agree."""
    cells = scene()
    fig, axes = _panels(2, 3, scene_of=cells, sounds=list(ANGLES))
    cosines = ops.similarity(ops.unit(cells), torch.stack([sound(name) for name in ANGLES]))[0]  # (3, h, w)
    draw.heat(axes[0, 1], cosines[0], "EZ-VSL: the best cell\nis taught, no other")
    _mark(axes[0, 1], cosines[0])
    chosen = lvs.LVSConfig()
    source = torch.sigmoid((cosines[0] - chosen.positive) / chosen.softness)
    quiet = torch.sigmoid((chosen.negative - cosines[0]) / chosen.softness)
    draw.heat(axes[0, 2], source - quiet, "LVS: source +, between,\nnegative o")
    _signs(axes[0, 2], source, quiet)
    which = (cosines / 0.3).softmax(0)[0]
    where = (cosines[0] / 0.3).flatten().softmax(0).view_as(which)
    draw.heat(axes[1, 0], which, "SLAVC: which sound?\nthe cell chooses the bark")
    draw.heat(axes[1, 1], where, "where in the picture?\nthe bark chooses the cell")
    draw.heat(axes[1, 2], which * where, f"both at once: their sum,\n{float((which * where).sum()):.2f}, is raised")
    return fig


@house
def clusters() -> Figure:
    """DMC clusters the cells of one picture, DSOL the objects of all pictures."""
    cells = scene()
    fig, axes = _panels(2, 3, scene_of=cells, sounds=["bark", "drumming"])
    flat, begin = cells.flatten(2).transpose(1, 2), dmc.starts(SIDE * SIDE, 3)  # (1, 64, 2)
    path = torch.stack([dmc.soft_k_means(flat, begin, 30.0, rounds)[0] for rounds in range(5)])  # (5, 3, 2)
    ax = _plane(axes[0, 1], "DMC: cells, and centres\nin four rounds")
    ax.scatter(*flat[0].T, s=7, color=FAINT)
    for n, colour in enumerate((PICTURE, OTHER, COLOURS[3])):
        ax.plot(*path[:, n].T, color=colour, linestyle="-", linewidth=1.2)
        ax.plot(*path[-1, n], marker=MARKERS[n], color=colour, markersize=7, markeredgecolor="white")
    heard = 1.1 * sound("bark")[None, None]
    _arrow(ax, heard[0, 0], SOUND, "bark")
    nearest = dmc.distance(heard, path[None, -1]).argmin(-1)
    lead = dmc.lead(dmc.distance(path[None, -1], flat), nearest)[0, 0].view(SIDE, SIDE)
    draw.heat(axes[0, 2], lead, "how much nearer to the\nbark's centre than to others")
    found, labels = _solos()
    means = torch.stack([found[labels == k].mean(0) for k in range(3)])
    ax = _plane(axes[1, 0], "DSOL: the sounding object of\n48 solos, clustered")
    for k in range(3):
        ax.scatter(*found[labels == k].T, s=9, color=COLOURS[k + 2], marker=MARKERS[k])
        ax.plot(*means[k], marker="*", color=COLOURS[k + 2], markersize=12, markeredgecolor="black")
    sounding = torch.sigmoid(5 * ops.similarity(ops.unit(cells), ops.unit(sound("bark") + sound("drumming"), 0)[None]))
    share = torch.softmax(3 * ops.similarity(cells, means) * sounding, 1)[0]  # (3, h, w)
    for ax, name in zip(axes[1, 1:], ("bark", "drumming"), strict=True):
        k = int((ops.unit(means) @ sound(name)).argmax())
        draw.heat(ax, share[k], f"cells like the {SHAPES[MARKERS[k]]},\nwhere it sounds")
    return fig


@house
def mixtures() -> Figure:
    """Three ways to take a mixture apart: by class labels, by walking there and back, by sharing cells out."""
    cells = scene()
    fig, axes = _panels(2, 3, scene_of=cells, sounds=["bark", "drumming"])
    heads = torch.stack([sound("bark"), sound("drumming")])
    moments = torch.stack([sound("bark"), sound("bark") + sound("drumming"), sound("drumming")], -1)[None, :, None]
    query = coarse_to_fine.embed(moments, heads)[0, 0]  # the class of the bark, as the mixture has it
    activation = ops.similarity(cells, heads)[0, 0].relu()
    draw.heat(axes[0, 1], activation, "CoarsetoFine: activation of\nthe dog, which weighs cells")
    cosine = ops.similarity(ops.unit(cells), ops.unit(query, 0)[None])[0, 0]
    draw.heat(axes[0, 2], cosine, "cosine with the dog's share\nof the mixture")
    _walk(axes[1, 0])
    tokens = torch.stack([sound(name) for name in ANGLES])
    share = torch.softmax(3 * ops.similarity(cells, tokens), 1)[0]
    draw.heat(axes[1, 1], share[0], "AVGN: share of each cell\nin the slot of the dog", limits=(0, 1))
    draw.heat(axes[1, 2], share[1], "share of each cell\nin the slot of the drum", limits=(0, 1))
    return fig


def _walk(ax: Any) -> None:
    """From a head to a picture and on to a head of another moment; the width of an edge is its chance."""
    pictures = torch.cat([scene(["bark"]), scene(["drumming"])])
    angles = torch.deg2rad(torch.tensor([[25.0, 105.0], [5.0, 128.0]]))  # heads of two moments, degrees
    later, earlier = torch.stack([angles.cos(), angles.sin()], -1)  # (heads, 2) each
    scores = [ops.peak_cosine(pictures, head) / 0.3 for head in (later, earlier)]  # (pictures, heads) each
    there, back = scores[0].softmax(0).T, scores[1].softmax(1)  # (heads, pictures), (pictures, heads)
    for column, chances in enumerate((there, back)):
        for start, row in enumerate(chances.tolist()):
            for end, chance in enumerate(row):
                look = {"color": FAINT, "linewidth": 7 * chance, "linestyle": "-", "zorder": 1}
                ax.plot([column, column + 1], [-start, -end], **look)
    names = (("head 1", "head 2"), ("dog", "drum"), ("head 1", "head 2"))
    for column, pair in enumerate(names):
        for row, name in enumerate(pair):
            colour = PICTURE if column == 1 else SOUND
            style = {"boxstyle": "round", "facecolor": "white", "edgecolor": colour}
            ax.text(column, -row, name, ha="center", va="center", fontsize=7, bbox=style)
    back_home = float((there @ back).diagonal().mean())
    ax.set(xlim=(-0.5, 2.5), ylim=(-1.5, 0.5), title=f"Mix-and-Localize: back\nat its head, chance {back_home:.2f}")
    ax.axis("off")


def _solos() -> tuple[Tensor, Tensor]:
    """Pooled objects (48, 2) of solos of three sounds, and their clusters (48,)."""
    drawn = torch.Generator().manual_seed(0)
    turned = torch.tensor(list(ANGLES.values())).repeat(16) + 16 * torch.randn(48, generator=drawn)
    angle = torch.deg2rad(turned)
    length = 1 + 0.15 * torch.randn(48, 1, generator=drawn)
    found = length * torch.stack([angle.cos(), angle.sin()], -1)
    return found, ops.k_means(found, 3)


def _panels(rows: int, columns: int, *, scene_of: Tensor, sounds: Sequence[str]) -> tuple[Figure, Any]:
    """Axes, the scene in the first of them."""
    fig, axes = figure(rows, columns, height=4.4 if columns == 4 else 5.2)
    if columns == 4:  # the scene stands before both rows
        for ax in axes[:, 0]:
            ax.remove()
        axes[0, 0] = fig.add_subplot(axes[0, 1].get_gridspec()[:, 0])
    _scene(axes[0, 0], scene_of, {name: sound(name) for name in sounds})
    return fig, axes


def _scene(ax: Any, cells: Tensor, sounds: Mapping[str, Tensor]) -> None:
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    look = {"angles": "xy", "scale_units": "xy", "pivot": "mid", "units": "xy"}
    ax.quiver(x, y, cells[0, 0], -cells[0, 1], color=PICTURE, scale=1.3, width=0.13, **look)
    for n, (name, vector) in enumerate(sounds.items()):
        x0, y0, (dx, dy) = 1.0 + 2.8 * n, SIDE + 0.9, (0.8 * vector).tolist()
        style = {"arrowstyle": "-|>", "color": SOUND, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", (x0 + dx, y0 - dy), (x0 - dx, y0 + dy), arrowprops=style)
        ax.text(x0, y0 + 1.6, name, ha="center", fontsize=7, color=INK)
    ax.set(xlim=(-0.7, SIDE - 0.3), ylim=(SIDE + 2.6, -0.7), aspect="equal", title="a picture, and sounds")
    ax.axis("off")


def _plane(ax: Any, title: str) -> Any:
    ax.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal", xticks=[], yticks=[], title=title)
    return ax


def _arrow(ax: Any, end: Tensor, colour: str, name: str) -> None:
    x, y = end.tolist()
    ax.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.5, "shrinkA": 0})
    ax.text(x, y + (0.12 if y >= 0 else -0.3), name, fontsize=7, color=INK, ha="center")


def _mark(ax: Any, values: Tensor) -> None:
    """A frame around the best cell."""
    row, column = divmod(int(values.argmax()), values.shape[-1])
    ax.plot([column], [row], "s", markersize=9, markerfacecolor="none", markeredgecolor=OTHER, markeredgewidth=2)


def _signs(ax: Any, source: Tensor, quiet: Tensor) -> None:
    for row in range(SIDE):
        for column in range(SIDE):
            said = "+" if source[row, column] > 0.5 else "o" if quiet[row, column] > 0.5 else ""
            ax.text(column, row, said, ha="center", va="center", fontsize=8, color="black" if said == "+" else "white")
