"""The figures of the pages, each whole: a sample, galleries, maps of methods, pyramids, curves, standings, matrices.

Conventions
-----------
Every function returns a `matplotlib.figure.Figure`: the last line of a cell shows it. Heat of different methods has
different units, so overlays are spread over [0, 1] each for itself; `pyramid` and `matrix` show values with a bar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from m2vsl.audio import AudioConfig, log_spectrogram
from m2vsl.methods import CONTROLS, METHODS
from m2vsl.report import axes as draw
from m2vsl.report.style import COLOURS, FAINT, INK, LINES, MARKERS, SHARE, WIDTH, figure, house
from m2vsl.report.tables import UNDEFINED, Column, Table
from m2vsl.types import Sample, Truth


@house
def sample(one: Sample, audio: AudioConfig, classes: Sequence[str]) -> Figure:
    """A sample: the picture with the outline of every source, the waveform, the spectrogram (axes in s and kHz)."""
    wide = one.image.shape[-1] / one.image.shape[-2]
    fig, axes = figure(2, 2, height=3.6, width_ratios=[1.0 if wide == 1 else 1.5, 1.2])
    left = fig.add_subplot(axes[0, 0].get_gridspec()[:, 0])
    for ax in axes[:, 0]:
        ax.remove()
    draw.picture(left, one.image)
    handles = draw.outlines(left, one.truth.mask)
    fig.legend(handles, captions(one.truth, classes), loc="outside lower center", ncols=2, handlelength=3)
    draw.waveform(axes[0, 1], one.waveform, audio)
    axes[0, 1].set_xlabel("")
    bar = draw.spectrogram(axes[1, 1], log_spectrogram(one.waveform[None], audio)[0, 0], audio)
    fig.colorbar(bar, ax=axes[1, 1], label=f"ln power / {audio.scale:g}", pad=0.01)
    return fig


def captions(truth: Truth, classes: Sequence[str]) -> list[str]:
    """The class of each source of one sample and whether it sounds; padding has class -1."""
    pairs = zip(truth.classes.tolist(), truth.present.tolist(), strict=True)
    return [f"{classes[c] if c >= 0 else '?'}{'' if on else ', silent'}" for c, on in pairs]


@house
def gallery(
    images: Sequence[Tensor], titles: Sequence[str] = (), masks: Sequence[Tensor] = (), *, columns: int = 4
) -> Figure:
    """Pictures (3, H, W) in rows, with the outlines (S, H, W) of each where given."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    shape = images[0].shape[-2] / images[0].shape[-1]
    fig, axes = figure(rows, columns, height=rows * (WIDTH / columns * shape + 0.3 * bool(titles)))
    for n, ax in enumerate(axes.flat):
        if n >= len(images):
            ax.axis("off")
            continue
        draw.picture(ax, images[n], titles[n] if titles else "")
        if len(masks):
            draw.outlines(ax, masks[n])
    return fig


@house
def maps(image: Tensor, heats: Mapping[str, Tensor], mask: Tensor | None = None, *, columns: int = 4) -> Figure:
    """The picture (3, H, W), then one overlay per name: heat (h, w) of a method, a class or a scale.

    mask: (H, W) or (S, H, W), outlined in every panel.
    """
    columns = min(columns, len(heats) + 1)
    rows = -(-(len(heats) + 1) // columns)
    shape = image.shape[-2] / image.shape[-1]
    fig, axes = figure(rows, columns, height=rows * (WIDTH / columns * shape + 0.3))
    for ax in axes.flat:
        ax.axis("off")
    draw.picture(axes.flat[0], image, "picture")
    for ax, (name, values) in zip(axes.flat[1:], heats.items(), strict=False):
        draw.overlay(ax, image, values, name)
    if mask is not None:
        for ax in axes.flat[: len(heats) + 1]:
            draw.outlines(ax, mask if mask.ndim == 3 else mask[None])
    return fig


@house
def pyramid(
    image: Tensor | None,
    levels: Sequence[Tensor],
    names: Sequence[str] = (),
    *,
    mask: Tensor | None = None,
    shared: bool = False,
) -> Figure:
    """One map (h_s, w_s) per scale, cell by cell, with the size of its grid and a bar, after the picture if given.

    shared: one range of colours for all scales. mask: (H, W), outlined on the picture.
    """
    count = len(levels) + (image is not None)
    panel = WIDTH / max(count, 3) * max(level.shape[-2] / level.shape[-1] for level in levels)
    fig, axes = figure(1, count, height=panel + 0.9, width=WIDTH if count > 2 else WIDTH * count / 3)
    if image is not None:
        draw.picture(axes[0, 0], image, f"picture\n{image.shape[-2]} x {image.shape[-1]}")
        if mask is not None:
            draw.outlines(axes[0, 0], mask[None])
    limits = (min(float(v.min()) for v in levels), max(float(v.max()) for v in levels)) if shared else None
    place: dict[str, Any] = {"orientation": "horizontal", "fraction": 0.06, "pad": 0.04}
    for s, (ax, values) in enumerate(zip(axes[0, count - len(levels) :], levels, strict=True)):
        name = names[s] if names else f"stage {s + 1}"
        bar = draw.heat(ax, values, f"{name}\n{values.shape[0]} x {values.shape[1]}", limits=limits)
        fig.colorbar(bar, ax=ax, **place).ax.tick_params(labelsize=7)
    if image is not None:  # the room of a bar, so that the picture stands level with the maps
        spare = fig.colorbar(bar, ax=axes[0, 0], **place)
        spare.ax.set_axis_off()
        for part in spare.ax.collections:
            part.set_visible(False)
    return fig


@house
def spectrograms(waves: Mapping[str, Tensor], audio: AudioConfig, *, waveforms: bool = True) -> Figure:
    """Sounds (n,) by name, side by side, on common scales: waveform above, spectrogram below."""
    values = log_spectrogram(torch.stack(list(waves.values())), audio)[:, 0]
    fig, axes = figure(1 + waveforms, len(waves), height=3.4 if waveforms else 2.2, sharey="row", sharex=True)
    for n, (name, wave) in enumerate(waves.items()):
        if waveforms:
            draw.waveform(axes[0, n], wave, audio, name)
            axes[0, n].set_xlabel("")
        bar = draw.spectrogram(axes[-1, n], values[n], audio, "" if waveforms else name)
        bar.set_clim(float(values.min()), float(values.max()))
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    fig.colorbar(bar, ax=axes[-1, :].tolist(), label=f"ln power / {audio.scale:g}", pad=0.01)
    return fig


@house
def curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], names: Sequence[str] = ("loss",)) -> Figure:
    """Training: one panel per named loss, one line per method, from ``Record.history`` (rows with a "step")."""
    fig, axes = figure(1, len(names), height=2.4)
    for ax, name in zip(axes[0], names, strict=True):
        for n, (method, rows) in enumerate(histories.items()):
            kept = [(row["step"], row[name]) for row in rows if name in row]
            ax.plot(*zip(*kept, strict=True), label=method, **_look(n)) if kept else None
        ax.set_xlabel("step")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_ylabel(f"{name} / nats")
        ax.grid(axis="y")
    axes[0, 0].legend()
    return fig


@house
def lines(x: Sequence[float], series: Mapping[str, Any], xlabel: str, ylabel: str, *, log: bool = False) -> Figure:
    """Values by name against x; log: x on a logarithmic scale, ticks where the points are."""
    fig, axes = figure(1, 1, height=2.8, width=0.75 * WIDTH)
    ax = axes[0, 0]
    for n, (name, values) in enumerate(series.items()):
        ax.plot(x, values, label=name, **_look(n))
    if log:
        ax.set_xscale("log")
        ax.set_xticks(list(x), [f"{value:g}" for value in x])
        ax.minorticks_off()
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(axis="y")
    ax.legend()
    return fig


@house
def standing(made: Table, columns: Sequence[Column] = (), *, constant: str = "centre", best: str = "bound") -> Figure:
    """Who is above the constant: a panel per column, a line per method that learns, from the top down as in the table.

    A point is the mean over seeds, its bar the 95 % interval; filled if the table calls it above `constant`, else
    hollow. Broken line: the constant; solid line: the best map that the protocol allows. `comparison.told` says the
    same in words.
    """
    shown = list(columns or made.columns)
    methods = [m for m in made.methods if m not in CONTROLS]
    fig, axes = figure(1, len(shown), height=0.24 * len(methods) + 1.6, sharey=True)
    for ax, column in zip(axes[0], shown, strict=True):
        for name, line in ((constant, "--"), (best, "-")):
            if name in made.methods and (known := made.number(name, column)) is not None:
                ax.axvline(column.scale * known.mean, color=INK, linestyle=line, linewidth=1.2)
        for y, method in enumerate(methods):
            _stand(ax, y, made, method, column)
        test_list, protocol, score = column.heading
        under = [fill(text, 84 // len(shown)) for text in (protocol, f"({test_list})")]
        ax.set(title=score, xlabel="\n".join(["per cent", *under]))
        ax.set_xlim(0, min(max(1.08 * ax.dataLim.x1, 1.0), 104.0) if ax.has_data() else 100)  # shares end at 100
        ax.grid(axis="x")
    axes[0, 0].set_yticks(range(len(methods)), [METHODS[m].title for m in methods])
    axes[0, 0].set_ylim(len(methods) - 0.4, -0.6)
    looks = {METHODS[constant].title: ("--", ""), METHODS[best].title: ("-", "")}
    looks |= {f"above {METHODS[constant].title}": ("", "full"), "not above it": ("", "none")}
    handles = [_key(*look) for look in looks.values()]
    fig.legend(handles, list(looks), loc="outside lower center", ncols=len(looks))
    return fig


def _stand(ax: Any, y: int, made: Table, method: str, column: Column) -> None:
    found, text = made.number(method, column), made.cell(method, column)
    if found is None:
        said = "not defined" if text == UNDEFINED else text
        on_paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        ax.text(0.02, y, said, transform=ax.get_yaxis_transform(), va="center", fontsize=7, color=FAINT, bbox=on_paper)
        return
    filled = "full" if made.above(method, column) else "none"
    bar = column.scale * found.bar
    ax.errorbar(column.scale * found.mean, y, xerr=bar, color=COLOURS[0], marker="o", ms=5, fillstyle=filled, capsize=2)


def _key(line: Any, filled: Any) -> Any:
    """What a legend shows of a line, or of a point that is filled or hollow."""
    from matplotlib.lines import Line2D

    if line:
        return Line2D([], [], color=INK, linestyle=line, linewidth=1.2)
    return Line2D([], [], color=COLOURS[0], linestyle="", marker="o", ms=5, fillstyle=filled)


@house
def matrix(
    values: Tensor,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    *,
    xlabel: str = "",
    ylabel: str = "",
    label: str = "",
) -> Figure:
    """A matrix (R, C) of similarities, attention or shares: dark = much, numbers in the cells if there are few."""
    shown = values.detach().cpu().float()
    height = min(max(1.6, 0.32 * shown.shape[0] + 0.9, 0.075 * len(label) + 0.6), 6.0)
    fig, axes = figure(1, 1, height=height, width=min(WIDTH, max(3.2, 0.52 * shown.shape[1] + 2.0)))
    ax = axes[0, 0]
    bar = ax.imshow(shown.numpy(), cmap=SHARE, aspect="auto")
    if shown.numel() <= 150:
        _numbers(ax, shown)
    ax.set_xticks(range(len(columns)), columns)
    if max(map(len, columns), default=0) > 4:
        ax.tick_params(axis="x", labelrotation=35)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    fig.colorbar(bar, ax=ax, label=label, pad=0.02)
    return fig


def _numbers(ax: Any, values: Tensor) -> None:
    middle = float(values.min() + values.max()) / 2
    for (row, column), value in zip(
        torch.cartesian_prod(*map(torch.arange, values.shape)).tolist(), values.flatten(), strict=True
    ):
        ink = "white" if float(value) > middle else INK
        ax.text(
            column, row, f"{float(value):.2f}".replace("-0.00", "0.00"), ha="center", va="center", fontsize=7, color=ink
        )


def _look(n: int) -> dict[str, Any]:
    """Of the n-th curve: colour, line and marker differ together."""
    return {"color": COLOURS[n % 7], "linestyle": LINES[n % 7], "marker": MARKERS[n % 7]}
