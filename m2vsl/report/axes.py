"""What is drawn into one pair of axes: a picture, outlines, heat, a waveform, a spectrogram.

Conventions
-----------
Pictures are tensors as models see them, (3, H, W), normalised; `m2vsl.frame.to_display` takes them back. Row 0 is the
top. A picture of two frames side by side has a line between them.
"""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

from m2vsl import frame, ops
from m2vsl.audio import AudioConfig
from m2vsl.report.style import COLOURS, FAINT, HEAT, LINES, SOURCES

LUMA = torch.tensor([0.299, 0.587, 0.114])


def picture(ax: Axes, image: Tensor, title: str = "") -> None:
    """(3, H, W), normalised, as it was before."""
    _still(ax, frame.to_display(image).numpy(), title)
    _halves(ax, image)


def heat(ax: Axes, values: Tensor, title: str = "", *, limits: tuple[float, float] | None = None) -> Any:
    """One map (h, w), cell by cell; returns what a colour bar needs. limits: (least, most) of the colours."""
    low, high = limits or (float(values.min()), float(values.max()))
    ax.set_title(title)
    ax.set_xticks([])
    ax.set_yticks([])
    return ax.imshow(values.detach().cpu().float().numpy(), cmap=HEAT, vmin=low, vmax=high)


def overlay(ax: Axes, image: Tensor, values: Tensor, title: str = "") -> None:
    """Heat (h, w) over the grey picture (3, H, W); the map is upsampled and spread over [0, 1] for the eye alone."""
    from matplotlib import colormaps

    size = (image.shape[-2], image.shape[-1])
    values = values.detach().cpu().float()[None, None]
    spread = ops.min_max(values if values.shape[-2:] == size else ops.upsample(values, size))[0, 0].clamp(0, 1)
    grey = (frame.to_display(image) @ LUMA)[..., None].expand(-1, -1, 3)
    colour = torch.from_numpy(colormaps[HEAT](spread.numpy())[..., :3]).float()
    share = 0.25 + 0.5 * spread[..., None]
    _still(ax, (grey * (1 - share) + colour * share).numpy(), title)
    _halves(ax, image)


def masked(ax: Axes, image: Tensor, probability: Tensor, title: str = "") -> None:
    """The picture (3, H, W), dim and grey where a mask (h, w), upsampled, is not above 0.5."""
    size = (image.shape[-2], image.shape[-1])
    inside = ops.upsample(probability.detach().cpu().float()[None, None], size)[0, 0, ..., None] > 0.5
    shown = frame.to_display(image)
    grey = 0.35 * (shown @ LUMA)[..., None].expand(-1, -1, 3)
    _still(ax, torch.where(inside, shown, grey).numpy(), title)
    _halves(ax, image)


def outlines(ax: Axes, masks: Tensor, *, first: int = 0) -> list[Any]:
    """Outlines of masks (S, H, W), each in its own colour and line, on a dark rim; returns what a legend needs.

    first: place of the first colour in the house's row, so that a source keeps its look over several figures.
    """
    from matplotlib.lines import Line2D

    handles = []
    for s, mask in enumerate(masks.detach().cpu().float(), first):
        colour, line = SOURCES[s % len(SOURCES)], LINES[s % len(LINES)]
        handles.append(Line2D([], [], color=colour, linestyle=line))
        if 0 < float(mask.mean()) < 1:
            padded = torch.nn.functional.pad(mask, (1, 1, 1, 1))  # an object at the edge has an outline there too
            x, y = torch.arange(-1.0, mask.shape[1] + 1), torch.arange(-1.0, mask.shape[0] + 1)
            ax.contour(x, y, padded, levels=[0.5], colors="black", linewidths=2.4)
            ax.contour(x, y, padded, levels=[0.5], colors=colour, linewidths=1.4, linestyles=[line])
    ax.set_xlim(-0.5, masks.shape[-1] - 0.5)
    ax.set_ylim(masks.shape[-2] - 0.5, -0.5)
    return handles


def waveform(ax: Axes, wave: Tensor, audio: AudioConfig, title: str = "", *, colour: str = COLOURS[0]) -> None:
    """(n,) against time in s."""
    seconds = torch.arange(len(wave)) / audio.rate
    ax.plot(seconds, wave.detach().cpu(), linewidth=0.4, linestyle="-", color=colour, rasterized=True)
    ax.set_xlim(0, len(wave) / audio.rate)
    ax.set_xlabel("time / s")
    ax.set_ylabel("amplitude")
    ax.set_title(title)


def spectrogram(ax: Axes, values: Tensor, audio: AudioConfig, title: str = "") -> Any:
    """(F, T) against time in s and frequency in kHz; returns what a colour bar needs."""
    span = (values.shape[-1] - 1) * audio.hop_samples + audio.n_fft  # samples
    extent = (0.0, span / audio.rate, 0.0, audio.rate / 2000)
    shown = values.detach().cpu().float().reshape(values.shape[-2:])
    made = ax.imshow(shown.numpy(), origin="lower", aspect="auto", extent=extent, cmap=HEAT)
    ax.set_xlabel("time / s")
    ax.set_ylabel("frequency / kHz")
    ax.set_title(title)
    return made


def _still(ax: Axes, pixels: Any, title: str) -> None:
    ax.imshow(pixels)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title)


def _halves(ax: Axes, image: Tensor) -> None:
    height, width = image.shape[-2:]
    for n in range(1, width // height):
        ax.axvline(n * height - 0.5, color="white", linewidth=1.5)
        ax.axvline(n * height - 0.5, color=FAINT, linewidth=0.8, linestyle="--")
