"""What batches cost: drawn ones, and those of a folder beside a data set that reads each file anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import plain
import pytest
import soundfile
from measure import Ledger, cpu_seconds, judged, spread
from PIL import Image

from m2vsl.audio import AUDIO
from m2vsl.data.folder import FolderConfig, FolderDataset
from m2vsl.data.loader import batches
from m2vsl.data.synthetic import SyntheticConfig, SyntheticDataset

BATCH, CLASSES, FILES = 32, 4, 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of 500 x 375 pixels and 5 s of 44.1 kHz sound: smooth noise."""
    root, drawn = tmp_path_factory.mktemp("folder"), np.random.default_rng(0)
    for k in range(CLASSES):
        for kind in ("images", "audio"):
            (root / kind / f"class{k}").mkdir(parents=True)
        for i in range(FILES):
            coarse = Image.fromarray(drawn.integers(0, 255, (15, 20, 3), dtype=np.uint8))
            coarse.resize((500, 375), Image.Resampling.BICUBIC).save(root / "images" / f"class{k}" / f"{i}.jpg")
            soundfile.write(root / "audio" / f"class{k}" / f"{i}.wav", drawn.normal(0, 0.1, 5 * 44100), 44100)
    return root


def test_a_folder(ledger: Ledger, folder: Path) -> None:
    """An epoch of single sources at 224 px, the second and later ones: what is decoded is kept."""
    config = FolderConfig(root=str(folder), size=224, val_fold=0)
    data = FolderDataset(config, "train", "single")
    names = data.ids()
    photos = [folder / "images" / name for name in names if name.endswith(".jpg")]
    theirs = plain.PlainFolder(photos, [folder / "audio" / n for n in names if n.endswith(".wav")], 224)
    ledger.race(
        "loader",
        {"a folder, 224 px": lambda: list(batches(data, BATCH, AUDIO["paper300"], shuffle=True))},
        lambda: theirs.epoch(BATCH),
        against="PIL, soundfile and scipy, file by file",
        samples=len(data),
        counts=False,
    )


def test_drawn_pictures(ledger: Ledger) -> None:
    """Two cores make two hundred samples a second."""
    data = SyntheticDataset(SyntheticConfig(size=112), "train")
    made = iter(batches(data, BATCH, AUDIO["paper300"], shuffle=True, prefetch=0))
    ledger.race("loader", {"synthetic, 112 px, one thread": lambda: next(made)}, samples=BATCH, counts=False)
    rate = 2 * BATCH / spread([cpu_seconds(lambda: next(made)) for _ in range(5)])[1]
    judged(rate, 200, "samples a second of two cores")
