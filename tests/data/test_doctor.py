"""Every way in which a folder can be bad is found, with its file (issue: "Bad input")."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from m2vsl.data.doctor import check, examine
from m2vsl.data.folder import FolderConfig
from m2vsl.data.layout import read_layout

Make = Callable[..., Path]
RATE = 8000


def held_out(root: Path, kind: str = "photos") -> Path:
    """A file of the test fold."""
    return next(item.path for item in getattr(read_layout(root), kind) if item.fold == 5)


def trained_on(root: Path, kind: str = "photos") -> Path:
    return next(item.path for item in getattr(read_layout(root), kind) if item.fold == 1)


def mask_of(root: Path, photo: Path) -> Path:
    return root / "masks" / photo.parent.name / photo.name


def only(root: Path) -> tuple[Path, str, str]:
    problems = check(root)
    assert len(problems) == 1, problems
    return problems[0].path, problems[0].kind, problems[0].message


def test_a_good_folder_has_no_problem(make_folder: Make) -> None:
    root = make_folder()
    findings = examine(root)
    assert findings.problems == () and check(root) == []
    assert findings.notes == ("30 recording(s) at 8000 Hz: resampled to 22050 Hz",)
    assert str(findings).endswith("3 classes, 30 photographs, 30 recordings: 0 problem(s)")


def test_missing_folder(tmp_path: Path) -> None:
    path, kind, message = only(tmp_path / "nowhere")
    assert (path, kind) == (tmp_path / "nowhere", "folder") and "images/<class>/ and audio/<class>/" in message


def test_folder_without_audio(make_folder: Make) -> None:
    root = make_folder()
    shutil.rmtree(root / "audio")
    assert only(root)[:2] == (root / "audio", "folder")


def test_empty_class(make_folder: Make) -> None:
    root = make_folder()
    for file in (root / "images" / "cat").iterdir():
        file.unlink()
    assert only(root) == (root / "images" / "cat", "class", "no usable file listed")


def test_class_without_sound(make_folder: Make) -> None:
    root = make_folder()
    shutil.rmtree(root / "audio" / "drum")
    assert only(root)[:2] == (root / "audio" / "drum", "class")


def test_class_missing_from_a_split(make_folder: Make) -> None:
    root = make_folder()
    files = sorted((root / "audio").glob("*/*"))
    rows = [(f.parent.name, f.name, 1 if f.parent.name == "bell" else i % 5 + 1) for i, f in enumerate(files)]
    (root / "audio_index.csv").write_text("class,file,fold\n" + "".join(f"{c},{f},{n}\n" for c, f, n in rows))
    problems = check(root)
    assert [(p.path.name, p.kind) for p in problems] == [("bell", "class")] * 2
    assert "val split" in problems[0].message and "test split" in problems[1].message
    assert len(check(root, FolderConfig(str(root), val_fold=0))) == 1


def test_truncated_photograph(make_folder: Make) -> None:
    root = make_folder()
    photo = trained_on(root)
    jpg = photo.with_suffix(".jpg")
    Image.effect_noise((48, 36), 90).save(jpg)
    jpg.write_bytes(jpg.read_bytes()[:600])
    photo.unlink()
    path, kind, message = only(root)
    assert (path, kind) == (jpg, "photo") and "truncated" in message and str(jpg) not in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (np.zeros(0, np.float32), "zero length"),
        (np.zeros(RATE, np.float32), "silent throughout"),
        (np.full(RATE, 1e-5, np.float32), "silent throughout"),
        (np.array([0.1, np.nan] * 500, np.float32), "NaN"),
        (np.concatenate([np.full(RATE, 0.3), np.zeros(8 * RATE), np.full(RATE, 0.3)]), "part used is silent"),
    ],
    ids=["zero length", "silent", "nearly silent", "nan", "silent where it is cut"],
)
def test_bad_recording(make_folder: Make, content: np.ndarray, says: str) -> None:
    root = make_folder()
    sound = trained_on(root, "sounds")
    soundfile.write(sound, content, RATE, subtype="FLOAT")
    path, kind, message = only(root)
    assert (path, kind) == (sound, "sound") and says in message


def test_no_bytes_in_a_recording(make_folder: Make) -> None:
    root = make_folder()
    sound = held_out(root, "sounds")
    sound.write_bytes(b"")
    assert only(root)[:2] == (sound, "sound")


@pytest.mark.parametrize(("rate", "channels"), [(22050, 2), (8000, 1), (96000, 1), (44100, 6)])
def test_channels_and_rates_are_notes(make_folder: Make, rate: int, channels: int) -> None:
    root = make_folder()
    tone = 0.5 * np.sin(np.arange(rate) * 0.3)
    soundfile.write(trained_on(root, "sounds"), np.repeat(tone[:, None], channels, 1), rate)
    findings = examine(root)
    assert not findings.problems
    assert any(f"at {rate} Hz" in note for note in findings.notes) == (rate != 22050)
    assert any(f"{channels} channels" in note for note in findings.notes) == (channels > 1)


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (Image.new("L", (24, 18), 255), r"size (48, 36), got (24, 18)"),
        (Image.new("RGB", (48, 36), (255, 0, 0)), "RGB with colours"),
        (Image.new("L", (48, 36), 0), "empty"),
    ],
    ids=["another size", "coloured", "empty"],
)
@pytest.mark.parametrize("photo", [held_out, trained_on])
def test_bad_mask(make_folder: Make, photo: Callable[[Path], Path], mask: Image.Image, says: str) -> None:
    root = make_folder()
    place = mask_of(root, photo(root))
    mask.save(place)
    path, kind, message = only(root)
    assert (path, kind) == (place, "mask") and says in message


def test_grey_rgb_mask_is_read(make_folder: Make) -> None:
    root = make_folder()
    place = mask_of(root, held_out(root))
    Image.open(place).convert("RGB").save(place)
    assert check(root) == []


def test_missing_mask_matters_where_maps_are_scored(make_folder: Make) -> None:
    root = make_folder()
    mask_of(root, trained_on(root)).unlink()
    findings = examine(root)
    assert (
        not findings.problems and "1 training photograph(s) without mask: fine, training reads none" in findings.notes
    )
    place = mask_of(root, held_out(root))
    place.unlink()
    path, kind, message = only(root)
    assert (path, kind) == (place, "mask") and "fold 5" in message


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("tiger,tiger_0.png,1", "unknown class 'tiger'; known: bell, cat, drum"),
        ("cat,cat_99.png,1", "no file images/cat/cat_99.png"),
        ("cat,cat_0.png,1", "cat/cat_0.png is listed twice"),
        ("cat,cat_1.png,many", "expected a fold from 1, got 'many'"),
        ("cat,,2", "expected columns class and file"),
    ],
)
def test_bad_row_of_an_index(make_folder: Make, row: str, says: str) -> None:
    root = make_folder()
    items = [p for p in read_layout(root).photos if not row.endswith("many") or not p.name.endswith("cat_1.png")]
    rows = [f"{p.path.parent.name},{p.path.name},{p.fold}" for p in items]
    (root / "image_index.csv").write_text("\n".join(["class,file,fold", *rows, row]) + "\n")
    path, kind, message = only(root)
    assert (path, kind) == (root / "image_index.csv", "index")
    assert says in message and message.startswith(f"line {len(rows) + 2}: ")


def test_two_photographs_of_one_name(make_folder: Make) -> None:
    root = make_folder()
    photo = trained_on(root)
    Image.open(photo).save(photo.with_suffix(".jpg"))
    problems = check(root)
    assert {p.path for p in problems} == {photo, photo.with_suffix(".jpg")}
    assert all("several" in p.message for p in problems)


def test_every_problem_is_listed(make_folder: Make) -> None:
    root = make_folder()
    photo, sound = held_out(root), trained_on(root, "sounds")
    photo.write_bytes(b"x")
    sound.write_bytes(b"x")
    (root / "images" / "cat" / "notes.txt").write_text("x")
    findings = examine(root)
    assert {p.path for p in findings.problems} == {photo, sound}
    lines = str(findings).splitlines()
    assert any(str(photo) in line for line in lines) and lines[-1].endswith("2 problem(s)")
    assert "1 file(s) in images/ not used" in str(findings)


def test_photosound_is_sound(photosound: Path) -> None:
    findings = examine(photosound)
    assert not findings.problems
    assert findings.notes == ("543 recording(s) at 16000 Hz: resampled to 22050 Hz",)
