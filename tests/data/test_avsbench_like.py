"""The synthetic world as files: in the layout, always the same, and never over anybody's folder."""

from __future__ import annotations

import csv
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from m2vsl.data import avsbench_like
from m2vsl.data.avsbench_like import CATEGORIES, AVSBenchLikeConfig, AVSBenchLikeDataset, write

SMALL = {"size": 48, "s4": (3, 1, 4), "ms3": (8, 1, 12)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("like") / "tree"
    assert write(place, **SMALL)  # type: ignore[arg-type]
    return place


def digest(root: Path) -> str:
    """Of every file, by name."""
    found = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        found.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return found.hexdigest()


def test_two_processes_may_write_the_same_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        writing = [pool.submit(write, tmp_path / "tree", size=16, s4=(1, 1, 1), ms3=(1, 1, 1)) for _ in range(2)]
        assert sum(one.result() for one in writing) >= 1
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def names(root: Path, part: str) -> list[dict[str, str]]:
    with next((root / part).glob("*_meta_data.csv")).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_layout_is_that_of_avsbench(root: Path) -> None:
    s4, ms3 = root / "Single-source/s4_data", root / "Multi-sources/ms3_data"
    for row in names(root, "Single-source"):
        inner = Path(row["split"], row["category"])
        frames = sorted(p.name for p in (s4 / "visual_frames" / inner / row["name"]).iterdir())
        masks = sorted(p.name for p in (s4 / "gt_masks" / inner / row["name"]).iterdir())
        assert frames == [f"{row['name']}_{k}.png" for k in range(1, 6)]
        assert masks == (frames[:1] if row["split"] == "train" else frames), "as published"
        assert row["category"] in CATEGORIES and (s4 / "audio_wav" / inner / f"{row['name']}.wav").is_file()
    for row in names(root, "Multi-sources"):
        frames = sorted(p.name for p in (ms3 / "visual_frames" / row["name"]).iterdir())
        assert frames == [f"{row['name']}.mp4_{k}.png" for k in range(1, 6)]
        assert len(list((ms3 / "gt_masks" / row["split"] / row["name"]).iterdir())) == 5
        wave, rate = soundfile.read(ms3 / "audio_wav" / row["split"] / f"{row['name']}.wav")
        assert (rate, wave.shape) == (16_000, (80_000,)) and 2 <= len(row["category"].split(", ")) <= 3
    counts = {
        part: [sum(r["split"] == s for r in names(root, part)) for s in ("train", "val", "test")]
        for part in ("Single-source", "Multi-sources")
    }
    assert counts == {"Single-source": [3, 1, 4], "Multi-sources": [8, 1, 12]}


def test_masks_are_of_the_modes_that_a_reader_meets(root: Path) -> None:
    single = next((root / "Single-source/s4_data/gt_masks/test").rglob("*.png"))
    with Image.open(single) as image:
        assert image.mode == "1"
    held = set()
    for place in (root / "Multi-sources/ms3_data/gt_masks").rglob("*.png"):
        with Image.open(place) as image:
            assert image.mode == "P"
            held |= set(np.unique(np.asarray(image)).tolist()) - {0}
            coloured = np.asarray(image.convert("RGB")).any(-1)
            assert np.array_equal(coloured, np.asarray(image) > 0)
    assert held <= set(range(1, 13)) and len(held) > 6


def test_a_mask_is_of_what_sounds_in_its_second(root: Path) -> None:
    """In MS3 sources come and go: where a mask is empty nothing sounds, and where nothing sounds it is empty."""
    quiet = loud = 0
    folder = root / "Multi-sources/ms3_data"
    for row in names(root, "Multi-sources"):
        wave, _ = soundfile.read(folder / "audio_wav" / row["split"] / f"{row['name']}.wav")
        for k in range(5):
            place = folder / "gt_masks" / row["split"] / row["name"] / f"{row['name']}_{k + 1}.png"
            with Image.open(place) as image:
                mask = np.asarray(image)
            middle = wave[int((k + 0.1) * 16000) : int((k + 0.9) * 16000)]
            if mask.any():
                loud += 1
            else:
                quiet += 1
                assert np.abs(middle).max() < 1e-3
    assert quiet >= 2 and loud > 60


def test_things_move_before_a_ground_that_stays(root: Path) -> None:
    there = AVSBenchLikeDataset(AVSBenchLikeConfig(root=str(root), **SMALL), "test", "single")  # type: ignore[arg-type]
    frames = [there[k] for k in range(5)]
    areas = [float(one.truth.mask[0].sum()) for one in frames]
    assert len(set(areas)) > 2 and max(areas) / min(areas) < 1.6
    change = (frames[0].image - frames[1].image).abs().amax(0)
    assert float((change > 0.05).float().mean()) < 0.5, "the ground"
    assert float((change > 0.05).float().mean()) > 0.01, "the things"


def test_the_same_again_and_others_of_another_seed(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "again", **SMALL)  # type: ignore[arg-type]
    assert digest(tmp_path / "again") == digest(root)
    few = {"size": 48, "s4": (1, 1, 1), "ms3": (1, 1, 1)}
    write(tmp_path / "a", **few, seed=1)  # type: ignore[arg-type]
    write(tmp_path / "b", **few, seed=2)  # type: ignore[arg-type]
    assert digest(tmp_path / "a") != digest(tmp_path / "b")
    name = "Single-source/s4_data/visual_frames/train"
    first = {p.name: p.read_bytes() for p in (root / name).rglob("train0000_1.png")}
    write(tmp_path / "c", **few)  # type: ignore[arg-type]
    assert first == {p.name: p.read_bytes() for p in (tmp_path / "c" / name).rglob("*_1.png")}, "whatever else is asked"


def test_nothing_is_written_twice_or_over_other_files(root: Path, tmp_path: Path) -> None:
    before = digest(root)
    assert not write(root, **SMALL)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected nothing, or what was made with .*; nothing was changed"):
        write(root, **{**SMALL, "size": 64})  # type: ignore[arg-type]
    assert digest(root) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work", "utf-8")
    with pytest.raises(ValueError, match="got other files; nothing was changed"):
        write(tmp_path / "mine", **SMALL)  # type: ignore[arg-type]
    assert (tmp_path / "mine" / "thesis.txt").read_text("utf-8") == "years of work"


def test_what_was_begun_and_not_ended_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"size": 48, "s4": (1, 1, 1), "ms3": (1, 1, 1)}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(avsbench_like, "_save_mask", stop)
        write(tmp_path / "tree", **few)  # type: ignore[arg-type]
    assert not (tmp_path / "tree").exists()
    assert write(tmp_path / "tree", **few)  # type: ignore[arg-type]
    assert json.loads((tmp_path / "tree" / avsbench_like.MADE).read_text("utf-8"))["size"] == 48
    assert [p.name for p in tmp_path.iterdir()] == ["tree"]


@pytest.mark.parametrize("odd", [{"s4": (0, 1, 1)}, {"ms3": (1, 1)}, {"size": 8}])
def test_a_split_has_a_video_at_least(odd: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least one video of train, val, test and a size from 16"):
        write(tmp_path / "tree", **{**SMALL, **odd})  # type: ignore[arg-type]


def test_without_a_root_it_is_made_below_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2VSL_RUNS", str(tmp_path))
    config = AVSBenchLikeConfig(size=48, s4=(1, 1, 1), ms3=(1, 1, 1))
    assert config.place.parent == tmp_path and not config.place.exists()
    first = AVSBenchLikeDataset(config, "test", "multi")
    stamp = (config.place / avsbench_like.MADE).stat().st_mtime_ns
    AVSBenchLikeDataset(config, "train", "multi")
    assert len(first) == 5 and (config.place / avsbench_like.MADE).stat().st_mtime_ns == stamp
    assert config.placeless() == {"root": "avsbench-like", "labels": "", "cache_mb": 0}
