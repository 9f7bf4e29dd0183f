"""Which part of the picture a source is scored on: the whole of it, or the source's own frame.

A duet is two frames side by side. *Frame-wise* scoring thresholds and compares the map on the whole canvas, so heat
that leaks into the other frame costs. *Source-wise* scoring looks at the source's own frame alone and cannot see the
leak. For a picture of one frame they are the same.

Source: protocol 2.3 (canvas); ledger 23 (side by side), 26 (frame-wise is the headline).

Conventions
-----------
- A picture of width W = n * H is n square frames, left to right; any other picture is one frame.
- A source's own frame is the one that its mask lies in. A mask that touches several frames (merged sources of one
  class) or none (an empty truth) has no own frame: -1, and is scored on the whole picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

Canvas = Literal["framewise", "sourcewise"]


def frame_count(height: int, width: int) -> int:
    """Frames side by side in a picture of `height` x `width` pixels; ValueError for a picture without any.

    >>> frame_count(4, 8), frame_count(4, 6)
    (2, 1)
    """
    if min(height, width) < 1:
        raise ValueError(f"expected a picture of at least one pixel, got {height} x {width}")
    return width // height if width % height == 0 else 1


def own_frame(truth: Tensor) -> Tensor:
    """The frame each source lies in, from the left: (n, H, W) -> int64 (n,), -1 for several or none.

    >>> own_frame(torch.tensor([[[0, 0, 1, 1], [0, 0, 0, 0]], [[0, 1, 1, 0], [0, 0, 0, 0]]]))
    tensor([ 1, -1])
    """
    touched = _frames(truth > 0).any(1).any(-1)  # (n, frames)
    return torch.where(touched.sum(-1) == 1, touched.int().argmax(-1), -1)


def own_part(picture: Tensor, frame: Tensor) -> Tensor:
    """Frame `frame` (n,) of each picture: (n, H, W) -> (n, H, W / frames); ValueError for one that is not there.

    >>> own_part(torch.tensor([[[0, 1, 2, 3], [4, 5, 6, 7]]]), torch.tensor([1]))
    tensor([[[2, 3],
             [6, 7]]])
    """
    frames = _frames(picture)
    if frame.shape != picture.shape[:1] or not bool(((frame >= 0) & (frame < frames.shape[2])).all()):
        last, size = frames.shape[2] - 1, tuple(picture.shape)
        raise ValueError(f"expected a frame in 0 ... {last} for each picture of {size}, got {frame.tolist()}")
    return frames[torch.arange(len(picture), device=picture.device), :, frame]


def on_canvas(score: Callable[[Tensor, Tensor], Tensor], heat: Tensor, truth: Tensor, canvas: Canvas) -> Tensor:
    """`score(heat, truth)` with maps and truths (n, H, W) cut to what `canvas` lets it see.

    Returns float64 (n,). ValueError for another canvas and for maps that are not of the size of their truths.

    >>> heat, truth = torch.tensor([[[0, 3, 4, 4], [1, 2, 4, 4]]]), torch.tensor([[[0, 1, 0, 0], [0, 1, 0, 0]]])
    >>> peak_in_mask = lambda h, g: g.flatten(1).gather(1, h.flatten(1).argmax(1)[:, None])[:, 0].double()
    >>> on_canvas(peak_in_mask, heat, truth, "framewise"), on_canvas(peak_in_mask, heat, truth, "sourcewise")
    (tensor([0.], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    _check(heat, truth, canvas)
    if canvas == "framewise" or frame_count(*truth.shape[-2:]) == 1:
        return score(heat, truth)
    frame = own_frame(truth)
    own = frame >= 0
    result = torch.empty(len(truth), dtype=torch.float64, device=truth.device)
    result[own] = score(own_part(heat[own], frame[own]), own_part(truth[own], frame[own]))
    result[~own] = score(heat[~own], truth[~own])
    return result


def _check(heat: Tensor, truth: Tensor, canvas: str) -> None:
    if canvas not in get_args(Canvas):
        raise ValueError(f"expected a canvas among {', '.join(get_args(Canvas))}, got {canvas!r}")
    if truth.ndim != 3 or heat.shape != truth.shape:
        raise ValueError(
            f"expected maps and truths (n, H, W) of one size, got {tuple(heat.shape)} and {tuple(truth.shape)}"
        )


def _frames(picture: Tensor) -> Tensor:
    """(n, H, W) -> (n, H, frames, W / frames)."""
    if picture.ndim != 3:
        raise ValueError(f"expected pictures of shape (n, H, W), got {tuple(picture.shape)}")
    n, height, width = picture.shape
    frames = frame_count(height, width)
    return picture.reshape(n, height, frames, width // frames)
