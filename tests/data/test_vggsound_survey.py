"""The report on what there is of a benchmark."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from vggsound_miniature import DUET, LEAKED, MAKE, MULTI, STILLS, TESTED, TRAIN, write_list

from m2vsl.data.survey import ListCount, Survey, survey
from m2vsl.data.vggsound import VGGSoundConfig

Make = Callable[[str], Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(benchmark) -> its miniature, complete."""
    return lambda benchmark: MAKE[benchmark](tmp_path / benchmark)


def look(root: Path, *, decode: bool = True, **options: object) -> Survey:
    return survey(VGGSoundConfig(str(root), root.name, size=32, **options), decode=decode)  # type: ignore[arg-type]


def test_a_whole_miniature_lacks_nothing_but_rows(make: Make) -> None:
    found = look(make("vggsound"))
    assert found.lists == (
        ListCount("vggss_144k.txt.xz", 12, 12, 0, len(LEAKED), len(TRAIN), 0, 0, 0),
        ListCount("vggsound_single_test.csv", len(TESTED), 5158, 0, 0, len(TESTED), 0, 0, 0),
        ListCount("vggsound_duet_test.csv", len(DUET), 5158, 0, 0, len(DUET), 0, 0, 1),
    )
    assert found.classes == 13 and found.labelled is False
    assert list(found.truths.values()) == [14, 1, 3, 1]  # pictures, corrupt, inverted, empty
    assert {problem.kind for problem in found.problems} == {"index"} and len(found.problems) == 2


def test_everything_missing_corrupt_or_bad_is_counted_and_named(make: Make) -> None:
    root = make("vggsound")
    (root / "frames" / "Rtg1SUrxOPY_000130.jpg").unlink()
    (root / "audio" / f"{TRAIN[0]}.wav").unlink()
    (root / "frames" / "meoZvdQ2qBs_000162.jpg").write_bytes(b"")
    (root / "audio" / f"{TRAIN[1]}.wav").write_bytes(b"RIFF")
    write_list(root / "metadata" / "vggsound_duet_test.csv", [*DUET, "2"], "\r\n")
    found = look(root)
    numbers = [(c.rows, c.bad, c.present, c.missing, c.corrupt) for c in found.lists]
    assert numbers == [(12, 0, 8, 1, 1), (14, 0, 12, 1, 1), (8, 1, 5, 1, 1)]
    named = {p.path.name for p in found.problems if p.kind in ("photo", "sound")}
    assert named == {
        "Rtg1SUrxOPY_000130.jpg",
        "meoZvdQ2qBs_000162.jpg",
        f"{TRAIN[0]}.wav",
        f"{TRAIN[1]}.wav",
    }
    assert len([p for p in found.problems if p.kind == "photo"]) == 2  # once, although in two lists
    unopened = look(root, decode=False)
    assert [(c.missing, c.corrupt) for c in unopened.lists] == [(1, 0)] * 3
    assert "no clip was opened" in str(unopened) and "no clip was opened" not in str(found)


def test_the_report_can_be_read(make: Make) -> None:
    root = make("vggsound")
    (root / "frames" / f"{TRAIN[0]}.jpg").unlink()
    text = str(look(root))
    lines = text.splitlines()
    assert f"photo: {root / 'frames' / TRAIN[0]}.jpg: missing: no photo of clip {TRAIN[0]}" in lines
    table = [re.split(r" {2,}", line.strip()) for line in lines if line.startswith(("list ", "vggss", "vggsound_"))]
    assert table[0] == ["list", "rows", "of", "bad", "leaked", "present", "missing", "corrupt", "one class"]
    assert table[1] == ["vggss_144k.txt.xz", "12", "12", "0", "2", "9", "1", "0", "0"]
    assert table[3] == ["vggsound_duet_test.csv", "7", "5,158", "0", "0", "7", "0", "0", "1"]
    assert len({len(line) for line in lines if line.startswith(("list ", "vggss", "vggsound_"))}) == 1
    for part in ("13 classes", "2 training clip(s) are tested: taken out", "the training list has no classes"):
        assert part in text
    assert "14 pictures, kept as they are: 1 with a coordinate outside of the frame, 3 with a box" in text
    assert lines[-1] == "3 problem(s)"
    assert "2 training clip(s) are tested: kept (allow_leak)" in str(look(root, allow_leak=True))


def test_instruments_and_their_masks(make: Make) -> None:
    root = make("instruments")
    (root / "anno" / "sample0000.pkl").write_bytes(b"cos\nsystem\n(S'exit'\ntR.")
    found = look(root)
    assert [(c.full, c.present, c.corrupt, c.leaked) for c in found.lists] == [
        (9, 8, 0, 1),
        (446, len(STILLS) - 1, 1, 0),
        (446, len(MULTI) - 1, 1, 0),
    ]
    assert found.labelled and found.truths == {"pictures": len(STILLS) - 1, "empty": 0}
    assert any("forbidden global os.system" in str(problem) for problem in found.problems)
    assert look(root, decode=False).truths == {"pictures": 0, "empty": 0}


def test_a_list_or_a_folder_that_is_not_there_is_a_problem(make: Make) -> None:
    root = make("flickr")
    (root / "metadata" / "flickr_144k.txt").unlink()
    found = look(root)
    assert [count.name for count in found.lists] == ["flickr_test.csv"] and found.labelled is None
    assert any("flickr_144k.txt" in problem.message for problem in found.problems)
    (root / "audio").rename(root / "sound")
    told = [problem.message for problem in look(root).problems]
    assert look(root).lists == () and any(re.search(r"expected a folder .*audio", message) for message in told)


def test_an_open_set_has_one_test(make: Make) -> None:
    found = look(make("vggsound"), part="heard")
    assert [count.name for count in found.lists] == ["vggss_144k.txt.xz", "vggss_heard_test.csv"]


def test_the_published_lists(shared: Path, tmp_path: Path) -> None:
    lists = shared / "metadata"
    if not (lists / "vggss.json").is_file():
        pytest.skip(f"published lists not present at {lists}")
    for name in ("frames", "audio"):
        (tmp_path / "vggsound" / name).mkdir(parents=True)
    found = survey(VGGSoundConfig(str(tmp_path / "vggsound"), lists=str(lists), train="10k"))
    assert [(c.rows - c.bad, c.leaked, c.missing, c.same_class) for c in found.lists[:2]] == [
        (10_000, 238, 9762, 0),
        (5158, 0, 5158, 0),
    ]
    duets = found.lists[2]
    assert duets.same_class == 22 and duets.missing == duets.rows - duets.bad and duets.rows - duets.bad in (5140, 5158)
    assert list(found.truths.values()) == [5158, 12, 18, 2] and found.classes == 221
