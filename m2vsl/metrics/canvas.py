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
from typing import Literal

import torch
from torch import Tensor

Canvas = Literal["framewise", "sourcewise"]


def frame_count(height: int, width: int) -> int:
    """Frames side by side in a picture of `height` x `width` pixels."""
    return width // height if width % height == 0 else 1


def own_frame(truth: Tensor) -> Tensor:
    """The frame each source lies in, from the left: (n, H, W) -> int64 (n,), -1 for several or none."""
    touched = _frames(truth > 0).any(1).any(-1)  # (n, frames)
    return torch.where(touched.sum(-1) == 1, touched.int().argmax(-1), -1)


def own_part(picture: Tensor, frame: Tensor) -> Tensor:
    """Frame `frame` (n,) of each picture: (n, H, W) -> (n, H, W / frames)."""
    return _frames(picture)[torch.arange(len(picture), device=picture.device), :, frame]


def on_canvas(score: Callable[[Tensor, Tensor], Tensor], heat: Tensor, truth: Tensor, canvas: Canvas) -> Tensor:
    """`score(heat, truth)` with maps and truths (n, H, W) cut to what `canvas` lets it see. Returns float64 (n,)."""
    if canvas == "framewise" or frame_count(*truth.shape[-2:]) == 1:
        return score(heat, truth)
    frame = own_frame(truth)
    own = frame >= 0
    result = torch.empty(len(truth), dtype=torch.float64, device=truth.device)
    result[own] = score(own_part(heat[own], frame[own]), own_part(truth[own], frame[own]))
    result[~own] = score(heat[~own], truth[~own])
    return result


def _frames(picture: Tensor) -> Tensor:
    """(n, H, W) -> (n, H, frames, W / frames)."""
    n, height, width = picture.shape
    frames = frame_count(height, width)
    return picture.reshape(n, height, frames, width // frames)
