"""The published lists: what each row says, and which rows are named rather than used."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from vggsound_miniature import DUET, INSTRUMENTS, LEAKED, NAMES, SINGLE, TESTED, TRAIN, write_list

from m2vsl.data.benchmarks import BENCHMARKS, PAIRS, read_tests, read_training
from m2vsl.data.boxes import read_vggss
from m2vsl.data.lists import CLIP, class_name, find_list, held_out, read_labels, read_list

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """Rows of the lists over VGG-Sound."""
    write_list(tmp_path / "vggsound_single_test.csv", SINGLE, "\r\n")
    write_list(tmp_path / "vggsound_duet_test.csv", DUET, "\r\n")
    write_list(tmp_path / "vggss_heard_test.csv", TESTED[:3])
    write_list(tmp_path / "vggss_144k.txt.xz", [*TRAIN[:5], *LEAKED, *TRAIN[5:]])
    return tmp_path


@pytest.fixture
def published(shared: Path) -> Path:
    """The published lists."""
    place = shared / "metadata"
    if not place.is_dir():
        pytest.skip(f"published lists not present at {place}")
    return place


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.xz"])
def test_lines_end_as_they_like(tmp_path: Path, name: str, end: str) -> None:
    write_list(tmp_path / name, DUET, end)
    entries, problems = read_list(find_list(tmp_path, "a.csv"), PAIRS, CLIP)
    assert problems == [] and [",".join([a, x, b, y]) for (a, b), (x, y) in ((e.ids, e.names) for e in entries)] == DUET
    assert [entry.line for entry in entries] == list(range(1, 8))


def test_a_mark_at_the_beginning_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = write_list(tmp_path / "a.csv", ["\ufeff" + SINGLE[0], "", "  " + SINGLE[1] + " ", ","], "\r\n")
    entries, problems = read_list(path, ("id", "class"), CLIP)
    assert [f"{e.ids[0]},{e.names[0]}" for e in entries] == SINGLE[:2] and problems == []


@pytest.mark.parametrize(
    ("row", "columns", "wrong"),
    [
        ("2", PAIRS, r"expected 4 columns \(id, class, id, class\), got 1: '2'"),
        ("zpWuikVorYg_000032,elk_bugling,x", ("id", "class"), "expected 2 columns .* got 3"),
        ("zpWuikVorYg_00003,elk_bugling", ("id", "class"), "expected an id like .* got 'zpWuikVorYg_00003'"),
        ("../../etc/passwd,elk_bugling", ("id", "class"), "expected an id like"),
        ("zpWuikVorYg_000032,", ("id", "class"), "expected a class, got none"),
        (SINGLE[1], ("id", "class"), "gEvCUcZ6w88_000030 is listed again, after line 1"),
        (",".join([SINGLE[0], SINGLE[0]]), PAIRS, "expected two clips, got zpWuikVorYg_000032 twice"),
    ],
)
def test_a_bad_row_is_named_and_the_others_are_read(tmp_path: Path, row: str, columns: tuple, wrong: str) -> None:
    good = DUET if columns == PAIRS else SINGLE
    path = write_list(tmp_path / "a.csv", [good[1], row, good[2]])
    entries, problems = read_list(path, columns, CLIP)
    assert [entry.line for entry in entries] == [1, 3] and len(problems) == 1
    assert problems[0].path == path and problems[0].kind == "index"
    assert re.match(f"line 2: {wrong}", problems[0].message), problems[0].message


def test_a_list_that_is_not_there_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.csv, nor a\.csv\.xz beside it"):
        find_list(tmp_path, "a.csv")
    path = write_list(tmp_path / "a.csv.xz", SINGLE)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"a\.csv\.xz: cannot be read as a list"):
        read_list(path, ("id", "class"), CLIP)


def test_labels_of_our_own_and_of_vggsounds_file(tmp_path: Path) -> None:
    own = write_list(tmp_path / "a.csv", ["id,class", "---g-f_I2yQ_000001,people_marching"])
    theirs = ['---g-f_I2yQ,1,"people marching",test', 'a--------_-,245,"playing violin, fiddle",train', "x,1,y,z"]
    assert read_labels(own) == ({"---g-f_I2yQ_000001": "people_marching"}, [])
    labels, problems = read_labels(write_list(tmp_path / "b.csv", theirs))
    assert labels == {"---g-f_I2yQ_000001": "people_marching", "a--------_-_000245": "playing_violin_fiddle"}
    assert [p.message[:7] for p in problems] == ["line 3:"]


def test_validation_is_a_share_by_the_hash_of_the_id() -> None:
    ids = [f"{i:011d}_000000" for i in range(4000)]
    held = {id for id in ids if held_out(id, 0.05)}
    assert 140 < len(held) < 260
    assert held < {id for id in ids if held_out(id, 0.1)}
    assert not any(held_out(id, 0) for id in ids)


# what a benchmark consists of


def test_pairs_are_those_of_the_list(lists: Path) -> None:
    found = read_tests(lists, "vggsound", "duet")
    rows = [",".join(f"{clip.id},{found.classes[clip.label]}" for clip in scene) for scene in found.scenes]
    assert rows == DUET and found.rows == 7 and found.bad == 0 and found.full == 5158
    assert found.scenes[-1][0].label == found.scenes[-1][1].label  # a pair of one class
    assert [p.message for p in found.problems] == ["expected 5,158 good rows, as published, got 7"]


def test_classes_are_the_tested_ones_where_the_training_list_has_none(lists: Path) -> None:
    train, test = read_training(lists, "vggsound"), read_tests(lists, "vggsound", "single")
    assert train.classes == test.classes == tuple(NAMES)
    assert not train.labelled and {scene[0].label for scene in train.scenes} == {-1}


def test_labels_beside_the_list_number_its_classes_and_the_tested_ones(lists: Path) -> None:
    write_list(lists / "vggsound.csv", [f"{TRAIN[0]},zebra", f"{TRAIN[1]},accordion", "xxxxxxxxxxx_000000,nothing"])
    train, test = read_training(lists, "vggsound"), read_tests(lists, "vggsound", "single")
    assert train.classes == test.classes == ("accordion", *NAMES, "zebra")
    of = {clip.id: clip.label for (clip,) in train.scenes}
    assert train.labelled and of[TRAIN[0]] == len(NAMES) + 1 and of[TRAIN[1]] == 0
    assert {of[id] for id in TRAIN[2:]} == {-1}


def test_a_labelled_list_alone_numbers_the_classes(lists: Path) -> None:
    rows = [f"{id},{name}" for id, name in zip(TRAIN, ["zebra", *NAMES[3:]], strict=False)]
    write_list(lists / "vggsound_single_train.txt", rows)
    found = read_tests(lists, "vggsound", "single", train="labelled")
    assert found.classes == (*sorted(NAMES[3 : 3 + len(rows) - 1]), "zebra")
    lost = [name for name in NAMES if name not in found.classes]
    told = [problem.message for problem in found.problems if "class" in problem.message]
    assert lost and len(told) == found.bad == sum(row.split(",")[1] in lost for row in SINGLE)
    assert all("is not among the 10 of vggsound_single_train.txt" in message for message in told)


def test_instruments_are_numbered_by_training_and_its_test_lacks_one(tmp_path: Path) -> None:
    write_list(tmp_path / "vgginstruments_train.txt", INSTRUMENTS)
    write_list(tmp_path / "vgginstruments_test.csv", ["sample0000,accordion", "sample0001,banjo"], "\r\n")
    found = read_tests(tmp_path, "instruments", "single")
    names = ("accordion", "banjo", "cornet", "erhu", "saxophone", "steel_guitar", "xylophone")
    assert found.classes == names
    assert [clip.label for (clip,) in found.scenes] == [0, 1]
    with pytest.raises(FileNotFoundError, match=r"vggss_test\.csv.*kept out of training unless allow_leak"):
        read_training(tmp_path, "instruments")
    assert read_training(tmp_path, "instruments", allow_leak=True).leaked == ()


def test_tested_clips_are_taken_out_and_counted(lists: Path) -> None:
    kept = read_training(lists, "vggsound", allow_leak=True)
    default = read_training(lists, "vggsound")
    assert default.leaked == kept.leaked == tuple(LEAKED)
    assert [clip.id for (clip,) in default.scenes] == TRAIN
    assert {clip.id for (clip,) in kept.scenes} == {*TRAIN, *LEAKED}


def test_training_and_validation_share_no_clip_and_lose_none(lists: Path) -> None:
    train, val = (read_training(lists, "vggsound", val_share=0.3, val=val) for val in (False, True))
    ids = [{clip.id for (clip,) in found.scenes} for found in (train, val)]
    assert ids[0] and ids[1] and not ids[0] & ids[1] and ids[0] | ids[1] == set(TRAIN)


def test_an_open_set_keeps_its_clips_and_its_order(lists: Path) -> None:
    write_list(lists / "vggss_heard_test.csv", [TESTED[2], TESTED[0], "xxxxxxxxxxx_000000"])
    found = read_tests(lists, "vggsound", "single", part="heard")
    assert [clip.id for (clip,) in found.scenes] == [TESTED[2], TESTED[0]] and found.full == 2564
    told = [problem.message for problem in found.problems]
    assert told[0] == "line 3: xxxxxxxxxxx_000000 is not in vggsound_single_test.csv"


def test_training_lists_by_name(lists: Path) -> None:
    write_list(lists / "mine.txt", TRAIN[:2])
    assert len(read_training(lists, "vggsound", train="mine.txt").scenes) == 2
    with pytest.raises(ValueError, match=r"expected train among 144k, 10k, heard, labelled, or a \.txt"):
        read_training(lists, "vggsound", train="20k")


# the published lists


@pytest.mark.parametrize(
    ("name", "task", "rows", "classes"),
    [
        ("vggsound", "single", 5158, 221),
        ("instruments", "single", 446, 36),
        ("instruments", "duet", 446, 36),
        ("flickr", "single", 249, 0),
    ],
)
def test_published_tests(published: Path, name: str, task: str, rows: int, classes: int) -> None:
    found = read_tests(published, name, task)
    assert found.problems == () and len(found.scenes) == found.rows == found.full == rows
    assert len({scene[0].label for scene in found.scenes if scene[0].label >= 0}) == classes
    assert len(found.classes) == (37 if name == "instruments" else classes)


def test_the_published_duets(published: Path, tmp_path: Path) -> None:
    found = read_tests(published, "vggsound", "duet")
    told = [problem.message for problem in found.problems]
    if found.rows != 5158:  # a copy that was cut short
        assert told[0].startswith(f"line {found.rows}: expected 4 columns (id, class, id, class), got 1")
        assert told[1] == f"expected 5,158 good rows, as published, got {len(found.scenes):,}"
        assert found.bad == 1 and len(found.scenes) == 5140
    for name in ("vggss_144k.txt.xz", "vggsound_single_test.csv"):
        (tmp_path / name).symlink_to(published / name)
    good = (published / "vggsound_duet_test.csv").read_text().splitlines()[:5140]
    tail = (GOLDEN / "vggsound_duet_tail.csv").read_text().splitlines()
    write_list(tmp_path / "vggsound_duet_test.csv", [*good, *tail], "\r\n")
    whole = read_tests(tmp_path, "vggsound", "duet")
    assert whole.problems == () and len(whole.scenes) == 5158 and whole.scenes[:5140] == found.scenes[:5140]
    assert sum(a.label == b.label for a, b in whole.scenes) == 22
    pairs = {(a.id, b.id) for a, b in whole.scenes}
    assert sum((b, a) in pairs for a, b in pairs) == 2
    assert len({b.id for _, b in whole.scenes}) == 3255


@pytest.mark.parametrize(
    ("name", "train", "rows", "leaked", "classes"),
    [
        ("vggsound", "144k", 144_000, 3709, 221),
        ("vggsound", "10k", 10_000, 238, 221),
        ("instruments", "", 33_934, 868, 37),
    ],
)
def test_published_leaks(published: Path, name: str, train: str, rows: int, leaked: int, classes: int) -> None:
    found = read_training(published, name, train=train)
    assert found.problems == () and found.rows == rows and len(found.leaked) == leaked
    assert len(found.scenes) == rows - leaked and len(found.classes) == classes
    assert found.labelled == (name == "instruments")
    if found.labelled:
        per_class = Counter(clip.label for (clip,) in read_training(published, name, allow_leak=True).scenes)
        assert (min(per_class.values()), max(per_class.values())) == (430, 1050)


def test_names_of_vggss_are_those_of_the_lists(published: Path) -> None:
    of = read_vggss(published / "vggss.json")
    entries, _ = read_list(published / "vggsound_single_test.csv", BENCHMARKS["vggsound"].columns, CLIP)
    assert len(entries) == 5158
    assert [e.ids[0] for e in entries if class_name(of[e.ids[0]].name) != e.names[0]] == []
