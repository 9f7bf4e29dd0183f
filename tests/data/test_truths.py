"""The truths alone: miniatures of every kind, what is odd in them, and the published boxes where they are at hand."""

from __future__ import annotations

import csv
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from vggsound_miniature import BOXES, DUET, NAMES, STILLS, TESTED, instruments, vggsound, write_list

from m2vsl.data.boxes import rasterise
from m2vsl.data.lists import class_name
from m2vsl.data.truths import KINDS, Truths, open_truths
from m2vsl.data.vggsound import VGGSoundConfig, VGGSoundDataset
from m2vsl.types import Truth

GOLDEN = Path(__file__).parents[1] / "golden"
LEFT = np.repeat([[255, 0]], 224, 0).repeat(112, 1).astype(np.uint8)  # the left half is the object


def lists(root: Path) -> Path:
    """vggss.json and the list of duets, side by side, nothing else."""
    root.mkdir(parents=True, exist_ok=True)
    entries = [{"file": id, "class": words, "bbox": boxes} for id, words, boxes in BOXES]
    (root / "vggss.json").write_text(json.dumps(entries))
    write_list(root / "vggsound_duet_test.csv", DUET, "\r\n")
    return root


def change(path: Path, edit: Callable[[list[dict]], object]) -> Path:
    """A json file whose entries were edited in place."""
    entries = json.loads(path.read_text())
    edit(entries)
    path.write_text(json.dumps(entries))
    return path


def png(path: Path, pixels: NDArray[np.generic] = LEFT) -> Path:
    """A mask file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def video(folder: Path, frames: str = "12345") -> Path:
    """The masks of a video of AVSBench; frame k has k times 10 columns of foreground."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in frames:
        pixels = np.zeros((224, 224), np.uint8)
        pixels[:, : 10 * int(k)] = 255
        png(folder / f"{folder.name}_{k}.png", pixels)
    return folder


def stands(truth: Truth, sources: int, size: tuple[int, int]) -> bool:
    """Whether a truth is what the types promise."""
    whole = truth.mask.shape == (sources, *size) and truth.mask.dtype == torch.float32
    plain = set(truth.mask.unique().tolist()) <= {0.0, 1.0}
    classes = truth.classes.shape == (sources,) and truth.classes.dtype == torch.int64
    return whole and plain and classes and truth.present.tolist() == [True] * sources


@pytest.fixture(scope="module")
def truths(tmp_path_factory: pytest.TempPathFactory) -> Truths:
    """The miniature's duets."""
    return open_truths("duet", lists(tmp_path_factory.mktemp("duets")))


class TestBoxes:
    """VGG-SS and its duets."""

    @pytest.mark.parametrize("place", ["", "metadata", "vggss.json"])
    def test_vggss(self, tmp_path: Path, place: str) -> None:
        lists(tmp_path / ("metadata" if place == "metadata" else ""))
        truths = open_truths("vggss", tmp_path / "vggss.json" if place == "vggss.json" else tmp_path)
        assert (truths.kind, truths.ids, truths.partners, truths.size) == ("vggss", tuple(TESTED), (), (224, 224))
        assert truths.class_names == tuple(NAMES) and truths.full == 5158
        for id, words, boxes in BOXES:
            truth = truths.read(id)
            assert stands(truth, 1, (224, 224))
            assert torch.equal(truth.mask[0], rasterise([tuple(box) for box in boxes], 224))
            assert [truths.class_names[label] for label in truth.classes] == [class_name(words)]
        assert truths.counts == {
            "rows": 14,
            "bad_rows": 0,
            "corrupt_boxes": 1,
            "inverted_boxes": 3,
            "overlapping_boxes": 0,
            "empty_truths": 1,
        }
        assert [problem.message for problem in truths.problems] == ["expected 5,158 clips, as published, got 14"]

    def test_overlapping_boxes_are_one_truth_and_counted(self, tmp_path: Path) -> None:
        half = [0.0, 0.0, 0.5, 1.0]
        change(lists(tmp_path) / "vggss.json", lambda entries: entries[0].update(bbox=[half, half, [0.4, 0, 0.6, 1]]))
        truths = open_truths("vggss", tmp_path)
        assert truths.counts["overlapping_boxes"] == 1 and truths.counts["corrupt_boxes"] == 1
        assert float(truths.read(TESTED[0]).mask.max()) == 1
        assert float(truths.read(TESTED[0]).mask.sum()) == 224 * int(0.6 * 224)

    def test_boxes_that_touch_do_not_overlap(self, tmp_path: Path) -> None:
        beside = [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]]
        change(lists(tmp_path) / "vggss.json", lambda entries: entries[0].update(bbox=beside))
        assert open_truths("vggss", tmp_path).counts["overlapping_boxes"] == 0

    def test_no_box_is_an_empty_truth(self, tmp_path: Path) -> None:
        change(lists(tmp_path) / "vggss.json", lambda entries: entries[0].update(bbox=[]))
        truths = open_truths("vggss", tmp_path)
        assert truths.counts["empty_truths"] == 2 and not truths.read(TESTED[0]).mask.any()

    @pytest.mark.parametrize(("key", "value"), [("file", "a/b"), ("file", ""), ("class", "")])
    def test_an_entry_without_a_usable_name_is_a_problem(self, tmp_path: Path, key: str, value: str) -> None:
        path = change(lists(tmp_path) / "vggss.json", lambda entries: entries[0].update({key: value}))
        truths = open_truths("vggss", tmp_path)
        assert truths.ids == tuple(TESTED[1:]) and "" not in truths.class_names
        assert (truths.counts["rows"], truths.counts["bad_rows"]) == (14, 1)
        assert truths.problems[0].path == path and repr(value) in truths.problems[0].message

    def test_a_clip_that_comes_twice(self, tmp_path: Path) -> None:
        change(lists(tmp_path) / "vggss.json", lambda entries: entries.append(entries[3]))
        for kind in ("vggss", "duet"):
            with pytest.raises(ValueError, match=f"{TESTED[3]} comes twice"):
                open_truths(kind, tmp_path)

    @pytest.mark.parametrize("place", ["", "metadata"])
    def test_duets(self, tmp_path: Path, place: str) -> None:
        lists(tmp_path / place)
        truths = open_truths("duet", tmp_path)
        rows = [row.split(",") for row in DUET]
        assert truths.ids == tuple(row[0] for row in rows) and truths.partners == tuple(row[2] for row in rows)
        assert truths.size == (224, 448) and truths.full == 5158 and truths.class_names == tuple(NAMES)
        boxes = {id: [tuple(box) for box in of_clip] for id, _, of_clip in BOXES}
        for row in rows:
            truth = truths.read(row[0])
            assert stands(truth, 2, (224, 448))
            assert torch.equal(truth.mask[0, :, :224], rasterise(boxes[row[0]], 224))
            assert torch.equal(truth.mask[1, :, 224:], rasterise(boxes[row[2]], 224))
            assert not truth.mask[0, :, 224:].any() and not truth.mask[1, :, :224].any()
            assert [truths.class_names[label] for label in truth.classes] == [row[1], row[3]]
        assert truths.counts == {
            "rows": 7,
            "bad_rows": 0,
            "corrupt_boxes": 1,
            "inverted_boxes": 3,
            "overlapping_boxes": 0,
            "empty_truths": 1,
            "same_class_pairs": 1,
        }
        assert [problem.message for problem in truths.problems] == ["expected 5,158 good rows, as published, got 7"]

    def test_they_are_the_truths_that_a_method_of_ours_is_scored_against(self, tmp_path: Path) -> None:
        vggsound(tmp_path)
        for kind, task in (("vggss", "single"), ("duet", "duet")):
            truths = open_truths(kind, tmp_path)
            data = VGGSoundDataset(VGGSoundConfig(str(tmp_path)), "test", task)
            for id, sample in zip(truths.ids, (data[i] for i in range(len(data))), strict=True):
                assert torch.equal(truths.read(id).mask, sample.truth.mask)
                assert [truths.class_names[label] for label in truths.read(id).classes] == [
                    data.classes[label] for label in sample.truth.classes
                ]

    def test_rows_that_cannot_be_used_are_problems(self, tmp_path: Path) -> None:
        stranger, renamed = "AAAAAAAAAAA_000001,elk_bugling", "zpWuikVorYg_000032,lawn_mowing"
        partner = "Rtg1SUrxOPY_000130,people_coughing"
        bad = ["2", f"{stranger},{partner}", f"{renamed},{partner}", f"zpWuikVorYg,elk_bugling,{partner}"]
        write_list(lists(tmp_path) / "vggsound_duet_test.csv", [*DUET[1:3], *bad, *DUET[3:]], "\r\n")
        truths = open_truths("duet", tmp_path)
        assert truths.ids == tuple(row.split(",")[0] for row in DUET[1:])
        assert (truths.counts["rows"], truths.counts["bad_rows"]) == (10, 4)
        told = " ".join(problem.message for problem in truths.problems)
        assert "line 3: expected 4 columns" in told and "line 6: expected an id like" in told
        assert "line 4: AAAAAAAAAAA_000001 is elk_bugling here, in vggss.json it is not there" in told
        assert "line 5: zpWuikVorYg_000032 is lawn_mowing here, in vggss.json it is elk_bugling" in told
        assert "expected 5,158 good rows, as published, got 8" in told

    def test_a_pair_that_comes_twice(self, tmp_path: Path) -> None:
        write_list(lists(tmp_path) / "vggsound_duet_test.csv", [*DUET, DUET[2]])
        with pytest.raises(ValueError, match=r"JIemsK_0lXc_000364 is listed again, after line 3"):
            open_truths("duet", tmp_path)

    def test_a_partner_may_come_twice_and_counts_as_often(self, tmp_path: Path) -> None:
        empty = "M1P1xla8rg0_000000,playing_tambourine"
        rows = [f"{','.join(row.split(',')[:2])},{empty}" for row in DUET[:3]]
        write_list(lists(tmp_path) / "vggsound_duet_test.csv", rows)
        assert open_truths("duet", tmp_path).counts["empty_truths"] == 3

    @pytest.mark.parametrize("kind", ["vggss", "duet"])
    def test_what_is_not_there_is_named(self, tmp_path: Path, kind: str) -> None:
        with pytest.raises(FileNotFoundError, match=r"vggss\.json"):
            open_truths(kind, tmp_path)
        (lists(tmp_path) / "vggsound_duet_test.csv").unlink()
        with pytest.raises(FileNotFoundError, match=r"vggsound_duet_test\.csv"):
            open_truths("duet", tmp_path)


class TestPublished:
    """The real boxes and pairs."""

    def test_vggss(self, shared: Path) -> None:
        truths = open_truths("vggss", shared / "metadata" / "vggss.json")
        areas = {id: a for ids, t in truths.batches() for id, a in zip(ids, t.mask.mean((1, 2, 3)), strict=True)}
        assert len(truths.ids) == truths.full == 5158 and len(truths.class_names) == 221 and truths.problems == ()
        with (shared / "metadata" / "vggsound_single_test.csv").open(newline="") as file:
            assert [tuple(row) for row in csv.reader(file)] == [
                (id, truths.class_names[label]) for id, (label,) in zip(truths.ids, truths.labels, strict=True)
            ]
        assert truths.counts == {
            "rows": 5158,
            "bad_rows": 0,
            "corrupt_boxes": 12,
            "inverted_boxes": 18,
            "overlapping_boxes": 144,
            "empty_truths": 2,
        }
        assert sorted(id for id, area in areas.items() if area == 0) == ["M1P1xla8rg0_000000", "MKC9LvRivTM_000030"]
        whole = np.load(GOLDEN / "vggss_anchors.npz")["all_ones"]  # the IoU of the whole picture is the area of a truth
        assert sum(map(float, areas.values())) / 5158 == pytest.approx(whole[-1], abs=1e-6)

    def test_duets_and_a_copy_of_their_list_that_is_cut_short(self, shared: Path, tmp_path: Path) -> None:
        metadata = shared / "metadata"
        given = open_truths("duet", metadata)
        good = (metadata / "vggsound_duet_test.csv").read_text().splitlines()[:5140]
        tail = (GOLDEN / "vggsound_duet_tail.csv").read_text().splitlines()
        write_list(tmp_path / "vggsound_duet_test.csv", [*good, *tail][:5158], "\r\n")
        os.symlink(metadata / "vggss.json", tmp_path / "vggss.json")
        whole = open_truths("duet", tmp_path)
        assert len(whole.ids) == whole.full == given.full == 5158 and whole.problems == ()
        assert whole.counts["same_class_pairs"] == 22 and set(whole.partners) <= set(whole.ids)
        assert given.ids == whole.ids[: len(given.ids)] and len(given.ids) in (5140, 5158)
        assert bool(given.problems) == (len(given.ids) < 5158)
        if given.problems:
            assert "expected 5,158 good rows, as published, got 5,140" in [p.message for p in given.problems]


class TestInstruments:
    """Pickled masks."""

    def test_masks(self, tmp_path: Path) -> None:
        truths = open_truths("instruments", instruments(tmp_path))
        assert truths.ids == tuple(row.split(",")[0] for row in STILLS) and truths.full == 446
        assert truths.class_names == tuple(sorted(row.split(",")[1] for row in STILLS))
        for row in STILLS:
            id, name = row.split(",")
            truth = truths.read(id)
            assert stands(truth, 1, (224, 224)) and truths.class_names[int(truth.classes)] == name
            assert float(truth.mask.mean()) == pytest.approx(10 * 16 / (18 * 32), abs=0.02)
        assert truths.counts == {"rows": 6, "bad_rows": 0, "empty_truths": 0}
        assert [problem.message for problem in truths.problems] == ["expected 446 good rows, as published, got 6"]

    def test_a_mask_that_is_no_plain_array_is_a_problem_and_does_nothing(self, tmp_path: Path) -> None:
        class Attack:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.mkdir, (str(tmp_path / "attacked"),)

        anno = instruments(tmp_path) / "anno"
        (anno / "sample0001.pkl").write_bytes(pickle.dumps(Attack()))
        (anno / "sample0002.pkl").write_bytes(b"\x80\x04")
        (anno / "sample0190.pkl").unlink()
        (anno / "sample0132.npy").write_bytes(b"a second one")
        (anno / "sample0000.pkl").write_bytes(pickle.dumps(np.zeros((9, 9))))
        (anno / "sample0134.pkl").write_bytes(pickle.dumps(np.array([[-3.0, 7.0]])))
        truths = open_truths("instruments", tmp_path)
        assert not (tmp_path / "attacked").exists()
        assert truths.ids == ("sample0000", "sample0134")
        assert truths.counts == {"rows": 6, "bad_rows": 4, "empty_truths": 1}
        assert stands(truths.read("sample0134"), 1, (224, 224)) and float(truths.read("sample0134").mask.mean()) == 0.5
        told = {problem.path.name: problem.message for problem in truths.problems}
        assert "forbidden global" in told["sample0001.pkl"] and "cannot be read" in told["sample0002.pkl"]
        assert told["sample0190"] == "expected one mask of sample0190, got none"
        assert told["sample0132"] == "expected one mask of sample0132, got sample0132.npy, sample0132.pkl"

    def test_what_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"vgginstruments_test\.csv"):
            open_truths("instruments", tmp_path)
        write_list(tmp_path / "vgginstruments_test.csv", STILLS)
        with pytest.raises(FileNotFoundError, match="anno"):
            open_truths("instruments", tmp_path)
        (tmp_path / "anno").mkdir()
        with pytest.raises(
            ValueError, match=r"(?s)got none that can be used.*expected one mask of sample0000, got none"
        ):
            open_truths("instruments", tmp_path)

    def test_a_still_that_comes_twice(self, tmp_path: Path) -> None:
        write_list(tmp_path / "vgginstruments_test.csv", [*STILLS, STILLS[0]])
        (tmp_path / "anno").mkdir()
        with pytest.raises(ValueError, match="sample0000 is listed again"):
            open_truths("instruments", tmp_path)


class TestAVSBench:
    """S4 and MS3."""

    @pytest.mark.parametrize("around", ["", "s4_data", "Single-source/s4_data"])
    def test_s4(self, tmp_path: Path, around: str) -> None:
        test = tmp_path / around / "gt_masks" / "test"
        for name in ("dog/b_2_1", "dog/a_1", "cat/z-9"):
            video(test / name)
        video(tmp_path / around / "gt_masks" / "train" / "dog" / "trained_1", "1")
        truths = open_truths("avsbench", tmp_path)
        assert truths.ids == tuple(f"{name}_{k}" for name in ("z-9", "a_1", "b_2_1") for k in range(1, 6))
        assert truths.class_names == ("cat", "dog") and truths.full == 3700 and truths.partners == ()
        truth = truths.read("b_2_1_3")
        assert stands(truth, 1, (224, 224)) and float(truth.mask.sum()) == 30 * 224 and truth.classes.tolist() == [1]
        assert truths.counts == {"rows": 15, "bad_rows": 0, "empty_truths": 0, "resized": 0, "missing_frames": 0}
        told = [problem.message for problem in truths.problems]
        assert told == ["expected the 740 videos of S4, as published, got 3"]

    @pytest.mark.parametrize("around", ["", "ms3_data", "Multi-sources/ms3_data"])
    def test_ms3(self, tmp_path: Path, around: str) -> None:
        for number in range(64):
            video(tmp_path / around / "gt_masks" / "test" / f"v{number:02}")
        truths = open_truths("avsbench", tmp_path)
        assert len(truths.ids) == truths.full == 320 and truths.ids[4:6] == ("v00_5", "v01_1")
        assert truths.class_names == () and truths.read("v01_1").classes.tolist() == [-1] and truths.problems == ()

    def test_frames_that_are_missing_or_odd(self, tmp_path: Path) -> None:
        test = tmp_path / "gt_masks" / "test"
        video(test / "cat" / "a", "124")
        odd = [video(test / "cat" / "b") / name for name in ("b_6.png", "c_1.png", "b_1.jpg", ".b_1.png")]
        for path in odd:
            png(path)
        stray = [png(test / "cat" / "stray.png"), png(test / "stray.png")]
        (test / "cat" / "b" / "b_2.png").write_bytes(b"no picture")
        truths = open_truths("avsbench", tmp_path)
        assert truths.ids == ("a_1", "a_2", "a_4", "b_1", "b_3", "b_4", "b_5")
        expected = {"rows": 13, "bad_rows": 6, "empty_truths": 0, "resized": 0, "missing_frames": 2}
        assert truths.counts == expected
        told = {problem.path: problem.message for problem in truths.problems}
        for path in [*odd[:3], *stray]:
            assert "k from 1 to 5" in told[path]
        assert [path.name for path, message in told.items() if message[:8] == "missing:"] == ["a_3.png", "a_5.png"]
        assert "cannot be decoded" in told[test / "cat" / "b" / "b_2.png"] and len(told) == 9

    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
    def test_any_colour_is_foreground_and_alpha_is_not(self, tmp_path: Path, mode: str) -> None:
        folder = video(tmp_path / "gt_masks" / "test" / "a")
        pixels = np.zeros((224, 224, 4), np.uint8)
        pixels[:, :112, 2] = 1  # so dark a blue that its grey value is 0
        pixels[50:, :, 3] = 255
        if mode in ("RGB", "RGBA"):
            picture = Image.fromarray(pixels[..., : len(mode)])
        elif mode == "P":
            picture = Image.fromarray((LEFT > 0).astype(np.uint8) + 3)
            picture.putpalette([9, 9, 9] * 3 + [0, 0, 0] + [0, 0, 1])
        elif mode == "I;16":
            picture = Image.fromarray((LEFT > 0).astype(np.uint16))
        elif mode == "LA":
            picture = Image.merge("LA", (Image.fromarray(LEFT // 255), Image.fromarray(pixels[..., 3])))
        else:
            picture = Image.fromarray(LEFT if mode == "1" else LEFT // 255).convert(mode)
        picture.save(folder / "a_1.png")
        with Image.open(folder / "a_1.png") as saved:
            assert saved.mode == mode
        mask = open_truths("avsbench", tmp_path).read("a_1").mask
        assert torch.equal(mask[0], torch.from_numpy(LEFT).gt(0).float())

    def test_other_sizes_are_squashed_and_counted(self, tmp_path: Path) -> None:
        folder = video(tmp_path / "gt_masks" / "test" / "a")
        png(folder / "a_1.png", np.array([[0, 255, 0, 0], [0, 0, 0, 255]], np.uint8))
        png(folder / "a_2.png", np.zeros((448, 448), np.uint8))
        truths = open_truths("avsbench", tmp_path)
        expected = torch.zeros(224, 224)
        expected[:112, 56:112] = expected[112:, 168:] = 1
        assert torch.equal(truths.read("a_1").mask[0], expected) and stands(truths.read("a_1"), 1, (224, 224))
        assert truths.counts["resized"] == 2 and truths.counts["empty_truths"] == 1

    def test_two_videos_of_one_name(self, tmp_path: Path) -> None:
        for category in ("cat", "dog"):
            twin = video(tmp_path / "gt_masks" / "test" / category / "a")
        (twin / "a_1.png").write_bytes(b"no picture")  # that one of the two is broken does not decide
        with pytest.raises(ValueError, match="a_1 2 times"):
            open_truths("avsbench", tmp_path)

    def test_both_parts_or_none(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="gt_masks"):
            open_truths("avsbench", tmp_path)
        video(tmp_path / "s4_data" / "gt_masks" / "test" / "cat" / "a")
        video(tmp_path / "ms3_data" / "gt_masks" / "test" / "a")
        with pytest.raises(ValueError, match="one part of AVSBench"):
            open_truths("avsbench", tmp_path)
        assert open_truths("avsbench", tmp_path / "ms3_data").class_names == ()


class TestFolder:
    """Anybody's masks."""

    def test_masks(self, tmp_path: Path) -> None:
        png(tmp_path / "masks" / "dog" / "b.png", LEFT[:50])
        png(tmp_path / "masks" / "dog" / "a.1.png", np.zeros((224, 224), np.uint8))
        png(tmp_path / "masks" / "cat" / "c.PNG", LEFT // 255)
        truths = open_truths("folder", tmp_path)
        assert truths.ids == ("c", "a.1", "b") and truths.class_names == ("cat", "dog") and truths.full == 3
        assert torch.equal(truths.read("b").mask[0], torch.from_numpy(LEFT).gt(0).float())
        assert stands(truths.read("c"), 1, (224, 224)) and truths.read("b").classes.tolist() == [1]
        assert truths.counts == {"rows": 3, "bad_rows": 0, "empty_truths": 1, "resized": 1} and truths.problems == ()

    def test_a_stem_of_several_classes_bears_its_class(self, tmp_path: Path) -> None:
        for name in ("dog/a", "dog/b", "cat/a"):
            png(tmp_path / "masks" / f"{name}.png")
        truths = open_truths("folder", tmp_path)
        assert truths.ids == ("cat__a", "dog__a", "b")
        assert [truths.class_names[label] for (label,) in truths.labels] == ["cat", "dog", "dog"]

    @pytest.mark.parametrize("names", [["cat/a", "dog/a", "dog/cat__a"], ["cat/a", "cat/a.PNG"]])
    def test_an_id_that_comes_twice(self, tmp_path: Path, names: list[str]) -> None:
        for name in names:
            png(tmp_path / "masks" / (name if "." in name else f"{name}.png"))
        if len(list(tmp_path.rglob("*.[pP][nN][gG]"))) < len(names):
            pytest.skip("this file system does not tell .png and .PNG apart")
        with pytest.raises(ValueError, match="a 2 times"):
            open_truths("folder", tmp_path)

    def test_what_is_no_mask_is_a_problem(self, tmp_path: Path) -> None:
        good = png(tmp_path / "masks" / "cat" / "a.png")
        odd = [png(good.parent / "b.jpg"), png(good.parent / "deeper" / "c.png").parent, png(good.parents[1] / "d.png")]
        coloured = png(good.parent / "e.png", np.stack([LEFT, LEFT[:, ::-1], LEFT], -1))
        broken, hidden = good.parent / "f.png", good.parent / ".DS_Store"
        for path in (broken, hidden):
            path.write_bytes(b"no picture")
        truths = open_truths("folder", tmp_path)
        assert truths.ids == ("a",) and truths.full == 3
        assert truths.counts == {"rows": 6, "bad_rows": 5, "empty_truths": 0, "resized": 0}
        told = {problem.path: problem.message for problem in truths.problems}
        assert set(told) == {*odd, coloured, broken}
        assert "one channel" in told[coloured] and "cannot be decoded" in told[broken]

    def test_what_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="masks"):
            open_truths("folder", tmp_path)
        (tmp_path / "masks").mkdir()
        with pytest.raises(ValueError, match="got none that can be used"):
            open_truths("folder", tmp_path)


class TestReading:
    """What all kinds share."""

    @pytest.mark.parametrize("size", [1, 3, 7, 64])
    def test_batches_are_the_truths_in_order(self, truths: Truths, size: int) -> None:
        seen: list[str] = []
        for ids, batch in truths.batches(size):
            assert len(ids) == size or len(seen) + len(ids) == len(truths.ids)
            assert batch.mask.shape == (len(ids), 2, 224, 448) and batch.present.shape == (len(ids), 2)
            for place, id in enumerate(ids):
                one = truths.read(id)
                assert torch.equal(batch.mask[place], one.mask) and torch.equal(batch.classes[place], one.classes)
            seen += ids
        assert tuple(seen) == truths.ids

    def test_a_truth_that_was_changed_is_read_afresh(self, truths: Truths) -> None:
        before = truths.read(truths.ids[0]).mask.clone()
        truths.read(truths.ids[0]).mask.fill_(5)
        assert torch.equal(truths.read(truths.ids[0]).mask, before)

    def test_errors_name_what_was_expected_and_given(self, truths: Truths, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"expected one of the 7 ids of duet, got 'x'"):
            truths.read("x")
        with pytest.raises(ValueError, match="batch size from 1, got 0"):
            next(truths.batches(0))
        with pytest.raises(ValueError, match=r"expected truth among vggss, duet, .*folder, got 'flickr'"):
            open_truths("flickr", tmp_path)
        for kind in KINDS:
            with pytest.raises(FileNotFoundError, match=f"{kind}.*nowhere"):
                open_truths(kind, tmp_path / "nowhere")
