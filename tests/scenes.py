"""Batches of noise with labels and boxes: enough to run a method, too little to learn anything from."""

from __future__ import annotations

import torch

from m2vsl.encoders import EncoderConfig
from m2vsl.types import Batch, Truth

CLASSES = 5
TINY = EncoderConfig(weights="none", freeze=False, audio_width=4, dim=32)  # nothing to download, nothing to wait for


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
    return Batch(image, spectrogram, heard, heard.clone(), torch.arange(pictures), truth, keys)
