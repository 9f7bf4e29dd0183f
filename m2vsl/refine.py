"""From a map to a mask, with the picture's help: beyond the paper, apart from every method, the same for all.

A map comes from a grid of some cells, a picture has edges. The guided filter (He, Sun & Tang, ECCV 2010) takes the map
to be, in every small window, a straight function of the picture's colours, fits it, and averages what the windows say:
so its edges move to those of the picture. The filter is kornia's.

Conventions
-----------
- Heat is filtered as it is. Of logits the probabilities are, so that one sure cell does not outvote a window; what
  comes back are logits again, and 0 stays the border.
- Frames side by side (`m2vsl.metrics.canvas`) are filtered each by itself.
- Window and regularisation come from photographs of folds 1 to 4 of photosound, whose true masks were blurred to a grid
  of 7 x 7 cells and brought back; no method and no test list had a part in it. Of 151, at the cut 0.5, mIoU is 72.5
  before and 79.0 after. A tenth of ``eps`` gives 79.7; below that float32 leaves the range of the map. Coarser maps ask
  for wider windows: on 4 x 4 cells it is 58.6, 60.6 after, and 64.4 with a window of 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from m2vsl.encoders import IMAGENET_MEAN, IMAGENET_STD
from m2vsl.localizer import Localizer, Reads
from m2vsl.metrics.canvas import frame_count
from m2vsl.metrics.heat import is_constant
from m2vsl.types import Batch, Losses, Maps


@dataclass(frozen=True)
class RefineConfig:
    """How far the filter looks, and how closely it follows the picture."""

    window: float = 0.25  # side of a window, share of the side of a frame
    eps: float = 1e-3  # added to the variance of a window's colours, which lie in [0, 1]

    def __post_init__(self) -> None:
        if not 0 < self.window <= 0.5 or self.eps <= 0:
            raise ValueError(f"expected a window in (0, 0.5] of a frame and eps > 0, got {self}")

    def pixels(self, side: int) -> int:
        """Pixels per side of a window: the next odd number, 3 at least."""
        return max(2 * round(self.window * side / 2) + 1, 3)


USUAL = RefineConfig()


def refine(heat: Tensor, image: Tensor, config: RefineConfig = USUAL) -> Tensor:
    """Maps (B, K, H, W), float32, whose edges have moved to those of the pictures (B, 3, H, W), ImageNet-normalised.

    A constant map stays as it is. ValueError for maps of another size than the pictures and frames of one pixel.

    >>> image = torch.zeros(1, 3, 32, 32)
    >>> image[..., 20:] = 1  # an edge at column 20; the map has its own at column 16
    >>> heat = torch.zeros(1, 1, 32, 32)
    >>> heat[..., 16:] = 1
    >>> int(refine(heat, image)[0, 0, 16].diff().argmax())  # it is steepest between columns 19 and 20
    19
    """
    from kornia.filters import guided_blur

    if heat.ndim != 4 or image.ndim != 4 or image.shape[1] != 3 or heat.shape[0::2] != image.shape[0::2]:
        raise ValueError(
            f"expected heat (B, K, H, W) and pictures (B, 3, H, W), got {tuple(heat.shape)} and {tuple(image.shape)}"
        )
    if heat.shape[-1] != image.shape[-1]:
        raise ValueError(f"expected heat as wide as the pictures, {image.shape[-1]}, got {heat.shape[-1]}")
    height, width = image.shape[-2:]
    frame = width // frame_count(height, width)
    if (side := min(height, frame)) < 2:
        raise ValueError(f"expected frames of at least 2 x 2 pixels, got {height} x {frame}")
    mean, std = (image.new_tensor(values).view(3, 1, 1).float() for values in (IMAGENET_MEAN, IMAGENET_STD))
    frames = zip((image.float() * std + mean).split(frame, -1), heat.float().split(frame, -1), strict=True)
    done = [guided_blur(guide, values, config.pixels(side), config.eps) for guide, values in frames]
    flat = is_constant(heat)[..., None, None]  # rounding would give it a shape
    return torch.where(flat, heat.float(), torch.cat(done, -1))


def refined(maps: Maps, image: Tensor, reads: Reads, config: RefineConfig = USUAL, only: Tensor | None = None) -> Maps:
    """`refine` for maps that are read as ``reads`` says: of the same classes and presence.

    only: (B, K) bool, the maps that will be read; others may stay as they are.
    """
    heat = maps.heat.float()
    if only is None:
        return replace(maps, heat=_refined(heat, image, reads, config))
    most = max(int(only.sum(1).amax()), 1)
    index = only.to(heat).topk(most, 1).indices[..., None, None].expand(-1, -1, *heat.shape[2:])  # (B, most, H, W)
    return replace(maps, heat=heat.scatter(1, index, _refined(heat.gather(1, index), image, reads, config)))


def _refined(heat: Tensor, image: Tensor, reads: Reads, config: RefineConfig) -> Tensor:
    if reads != "logits":
        return refine(heat, image, config)
    return torch.logit(refine(torch.sigmoid(heat), image, config), eps=1e-4)


class Refined(Localizer):
    """A trained localizer whose maps are refined; all else about it is as it was, and there is nothing to learn."""

    def __init__(self, localizer: Localizer, config: RefineConfig = USUAL) -> None:
        super().__init__()
        self.localizer, self.config, self.training = localizer, config, localizer.training
        for trait in ("named", "listens", "reads", "sources"):
            setattr(self, trait, getattr(localizer, trait))

    def forward(self, batch: Batch) -> Losses:
        """RuntimeError: refinement comes after training."""
        raise RuntimeError(f"expected {type(self.localizer).__name__} itself to be trained, got it refined")

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """The maps of the localizer, `refined`."""
        return refined(self.localizer.localize(batch), batch.image, self.reads, self.config)
