"""Pictures: from a file to a normalised tensor, with their masks (paper, section 4.1; protocol 1.4).

A picture and its mask always go through the same geometric steps. Training: `shrink` (no chance in it, so it can be
cached), then `augment`. Test: `squash` to a square, as published evaluators do, whose boxes are fractions of the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, red green blue, in [0, 1]
STD = (0.229, 0.224, 0.225)
GREY = (124, 116, 104)  # the mean in 0 ... 255: what an empty part of a canvas shows


@dataclass(frozen=True)
class FrameConfig:
    """Size of a frame and how training varies it."""

    size: int = 224  # pixels per side
    margin: float = 1.1  # training: the shorter side becomes int(size * margin) before a random crop; ledger 41
    flip: float = 0.5  # training: probability of mirroring left and right; ledger 41

    def __post_init__(self) -> None:
        if self.size < 1 or self.margin < 1 or not 0 <= self.flip <= 1:
            raise ValueError(f"expected size >= 1, margin >= 1 and flip in [0, 1], got {self}")


def load(path: Path) -> Image.Image:
    """A picture file as RGB, turned as its camera says. Raises FileNotFoundError, or ValueError naming the file."""
    return _decode(path, "picture").convert("RGB")


def load_mask(path: Path, size: tuple[int, int] | None = None) -> Image.Image:
    """A mask file as mode "L", 0 or 255: grey value above 0 is the object.

    Bilevel, grey, palette, RGB and 16-bit files are read; colours count by their grey value, alpha is ignored.
    size: (width, height) in pixels to bring it to, by nearest neighbour. Errors as `load`.
    """
    image = _decode(path, "mask")
    if not image.mode.startswith(("I", "F")):  # 16 and 32 bits: their conversion to 8 would lose small values
        image = image.convert("L")
    mask = Image.fromarray(np.where(np.asarray(image) > 0, 255, 0).astype(np.uint8))
    return mask if size is None or mask.size == size else mask.resize(size, Image.Resampling.NEAREST)


def is_coloured(path: Path) -> bool:
    """Whether a mask file has colour channels that differ: its objects are then told apart by colour."""
    image = _decode(path, "mask")
    if image.mode not in ("RGB", "RGBA"):
        return False
    channels = np.asarray(image)[..., :3]
    return bool((channels != channels[..., :1]).any())


def _decode(path: Path, what: str) -> Image.Image:
    if not path.is_file():
        raise FileNotFoundError(f"{what} file not found: {path}")
    try:
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be decoded as a {what} ({error})") from error


def shrink(image: Image.Image, mask: Image.Image, config: FrameConfig) -> tuple[Image.Image, Image.Image]:
    """Picture (bicubic) and mask (nearest) with the shorter side at int(size * margin) pixels."""
    side, short = int(config.size * config.margin), min(image.size)
    size = tuple(side if edge == short else int(side * edge / short) for edge in image.size)
    return _resized(image, mask, size)  # type: ignore[arg-type]


def squash(image: Image.Image, mask: Image.Image, config: FrameConfig) -> tuple[Image.Image, Image.Image]:
    """Picture (bicubic) and mask (nearest) at size x size, whatever their aspect ratio."""
    return _resized(image, mask, (config.size, config.size))


def _resized(image: Image.Image, mask: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    if image.size != mask.size:
        raise ValueError(f"expected a mask of the picture's size {image.size}, got {mask.size}")
    if image.size == size:
        return image, mask
    return image.resize(size, Image.Resampling.BICUBIC), mask.resize(size, Image.Resampling.NEAREST)


def augment(
    image: Image.Image, mask: Image.Image, config: FrameConfig, generator: torch.Generator
) -> tuple[Image.Image, Image.Image]:
    """Picture and mask at size x size: `shrink`, a crop at a random place, mirrored or not (EZ-VSL; ledger 41)."""
    image, mask = shrink(image, mask, config)
    across, down, coin = torch.rand(3, generator=generator).tolist()
    left = int(across * (image.width - config.size + 1))
    top = int(down * (image.height - config.size + 1))
    box = (left, top, left + config.size, top + config.size)
    image, mask = image.crop(box), mask.crop(box)
    return (ImageOps.mirror(image), ImageOps.mirror(mask)) if coin < config.flip else (image, mask)


def to_tensor(image: Image.Image) -> Tensor:
    """RGB picture -> (3, H, W) float32, normalised by the ImageNet mean and standard deviation."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float()  # (3, H, W), 0 ... 255
    for channel, mean, std in zip(pixels, MEAN, STD, strict=True):
        channel.mul_(1 / (255 * std)).sub_(mean / std)
    return pixels


def mask_tensor(mask: Image.Image) -> Tensor:
    """Mask -> (H, W) float32, 0 or 1."""
    return torch.from_numpy(np.array(mask)).gt(0).float()


def to_display(image: Tensor) -> Tensor:
    """(3, H, W), normalised -> (H, W, 3) in [0, 1]: what a plot shows."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (image.detach().cpu().float() * std + mean).clamp(0, 1).permute(1, 2, 0)
