"""A small folder of photographs and recordings to break in different ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

COLOURS = {"bell": (200, 40, 40), "cat": (40, 200, 40), "drum": (40, 40, 200), "flute": (200, 200, 40)}
RATE = 8000


def draw(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (48, 36)) -> None:
    """A photograph: a dark ground, a box of one colour in the middle half."""
    width, height = size
    pixels = np.full((height, width, 3), 20, np.uint8)
    pixels[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def outline(path: Path, size: tuple[int, int] = (48, 36)) -> None:
    """The mask of that box."""
    width, height = size
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def play(path: Path, hertz: float, seconds: float = 0.5, rate: int = RATE, channels: int = 1) -> None:
    """A recording: one tone."""
    tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.repeat(tone[:, None], channels, 1), rate)


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """make_folder(classes=3, files=10) -> a folder without fault; five folds of two files each are dealt out."""

    def make(classes: int = 3, files: int = 10, name: str = "small") -> Path:
        root = tmp_path / name
        for k, (label, colour) in enumerate(list(COLOURS.items())[:classes]):
            for i in range(files):
                draw(root / "images" / label / f"{label}_{i}.png", colour)
                outline(root / "masks" / label / f"{label}_{i}.png")
                play(root / "audio" / label / f"{label}_{i}.wav", 200 * (k + 1) + 5 * i)
        return root

    return make
