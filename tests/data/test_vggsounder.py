"""Which clips are clean is what the labels say, read without importing the package that holds them."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from m2vsl.data.boxes import read_vggss
from m2vsl.data.vggsounder import COLUMNS, FILE, clean, labels_file, read_labels

ROWS = [  # id, label, modality, background music, static image, voice-over
    ("both__-____000001", "cat, meowing", "AV", "True", "False", "False"),
    ("both__-____000001", "bell", "AV", "True", "False", "False"),
    ("sound-_____000002", "bell", "A", "False", "True", "True"),
    ("sound-_____000002", "drum", "AV", "False", "True", "True"),
    ("sight-_____000003", "bell", "V", "False", "False", "True"),
    ("other-_____000004", "drum", "AV", "False", "False", "False"),
    ("unasked____000005", "bell", "AV", "True", "True", "True"),
]
ASKED = {
    "other-_____000004": "bell",
    "both__-____000001": "cat, meowing",
    "nobody_____000006": "bell",
    "sight-_____000003": "bell",
    "sound-_____000002": "bell",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """package(rows, columns) -> the labels of a small distribution that cannot be imported, first on the path."""

    def make(rows: list = ROWS, columns: tuple[str, ...] = COLUMNS, ending: str = "\n") -> Path:
        file = tmp_path / "vggsounder" / FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "vggsounder" / "__init__.py").write_text("raise ImportError('no module named datasets')\n")
        with file.open("w", newline="") as out:
            csv.writer(out, lineterminator=ending).writerows([columns, *rows])
        monkeypatch.syspath_prepend(str(tmp_path))
        return file

    return make


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_each_clip_has_one_verdict(package: Callable[..., Path], ending: str) -> None:
    file = package(ending=ending)
    found = clean(ASKED)
    assert labels_file() == file and "vggsounder" not in sys.modules
    assert found.verdicts == {
        "other-_____000004": "absent",
        "both__-____000001": "both",
        "nobody_____000006": "unmatched",
        "sight-_____000003": "visible_only",
        "sound-_____000002": "audible_only",
    }
    assert list(found.verdicts) == list(ASKED)
    assert found.keys == ("both__-____000001",) and found.of("unmatched") == ("nobody_____000006",)
    assert dict(found.counts) == {
        "asked": 5, "matched": 4, "both": 1, "audible_only": 1, "visible_only": 1, "absent": 1, "unmatched": 1,
        "several": 1, "static_image": 1, "voice_over": 2, "background_music": 1,
    }  # fmt: skip


def test_the_digest_is_of_the_labels(package: Callable[..., Path]) -> None:
    package()
    before = clean(ASKED)
    assert len(before.digest) == 12 and clean(ASKED).digest == before.digest
    package(ROWS[:-1])
    assert clean(ASKED).digest != before.digest and clean(ASKED).counts == before.counts


def test_nothing_asked_is_nothing_found(package: Callable[..., Path]) -> None:
    package()
    found = clean({})
    assert found.keys == () and set(found.counts.values()) == {0}


def test_a_class_in_other_words_is_refused(package: Callable[..., Path]) -> None:
    package()
    with pytest.raises(ValueError, match=r"got 2 that it does not have: 'Bell', 'cat'"):
        clean({"both__-____000001": "cat", "other-_____000004": "Bell", "sight-_____000003": "bell"})


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (("a_000001", "bell", "AVA", "True", "False", "False"), "line 9: expected a modality among AV, A, V"),
        (("a_000001", "bell", "AV", "yes", "False", "False"), "line 9: expected True or False"),
        (("a_000001", "", "AV", "True", "False", "False"), "line 9: expected 6 cells, a clip and a label"),
        (("a_000001", "bell", "AV", "True"), "line 9: expected 6 cells, a clip and a label"),
        (("a_000001", "bell", "AV", "True", "False", "False", "x"), "line 9: expected 6 cells, a clip and a label"),
        (("other-_____000004", "drum", "A", "False", "False", "False"), "line 9: expected each label of a clip once"),
        (("other-_____000004", "bell", "A", "True", "False", "False"), "line 9: expected the same flags in all rows"),
    ],
)
def test_a_row_that_is_not_what_it_should_be_is_named(package: Callable[..., Path], row: tuple, fault: str) -> None:
    file = package([*ROWS, row])
    with pytest.raises(ValueError, match=rf"background-music.csv: {fault}"):
        read_labels(file)


def test_other_columns_and_no_file(package: Callable[..., Path]) -> None:
    file = package(columns=("video_id", "label"))
    with pytest.raises(ValueError, match=r"expected the columns video_id, label, modality, .*, got video_id, label$"):
        clean(ASKED)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"labels of VGGSounder not found: .*background-music\.csv"):
        clean(ASKED)


def test_how_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2vsl.data.vggsounder.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="`pip install --no-deps vggsounder`"):
        clean(ASKED)


def test_vggss_by_the_installed_labels(shared: Path) -> None:
    """The numbers of version 1.0."""
    if find_spec("vggsounder") is None:
        pytest.skip("the labels of VGGSounder are not installed (pip install --no-deps vggsounder)")
    boxes = read_vggss(shared / "metadata" / "vggss.json")
    found = clean({id: entry.name for id, entry in boxes.items()})
    if found.digest != "6279875ac93d":
        pytest.skip(f"labels {found.digest} are not those of version 1.0 (6279875ac93d)")
    assert dict(found.counts) == {
        "asked": 5158, "matched": 5109, "both": 3799, "audible_only": 594, "visible_only": 56, "absent": 660,
        "unmatched": 49, "several": 2438, "static_image": 294, "voice_over": 664, "background_music": 708,
    }  # fmt: skip
    assert len(found.keys) == 3799 and set(found.keys) <= set(boxes)
