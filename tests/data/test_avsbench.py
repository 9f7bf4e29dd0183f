"""The reader of AVSBench on a miniature in its layout: what it gives, and what it says of everything that is wrong."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from m2vsl import cli
from m2vsl.audio import AUDIO
from m2vsl.data import avsbench_like
from m2vsl.data.avsbench import AVSBenchConfig, AVSBenchDataset
from m2vsl.data.avsbench_lists import read_labels, read_videos, several
from m2vsl.data.avsbench_survey import survey
from m2vsl.data.layout import DataError
from m2vsl.data.loader import collate
from m2vsl.data.truths import open_truths

SIZE = 48
RATE = AUDIO["paper300"].rate


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """S4: 12 videos of train, 2 of val, 3 of test; MS3: 6, 2 and 3."""
    root = tmp_path_factory.mktemp("avsbench") / "tree"
    avsbench_like.write(root, size=SIZE, s4=(12, 2, 3), ms3=(6, 2, 3))
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(written, tmp_path / "tree"))


def opened(root: Path, split: str = "test", task: str = "single", **choices: Any) -> AVSBenchDataset:
    config = AVSBenchConfig(str(root), SIZE, "avsbench-like", **choices)
    return AVSBenchDataset(config, split, task)


def of(root: Path, kind: str, task: str = "single", split: str = "test", n: int = 0) -> Path:
    """The n-th video's first file of a kind: "frame", "mask", "sound"."""
    there = opened(root, split, task)
    return there.path(kind, there._frames[5 * n])


def listed(root: Path, task: str = "single") -> Path:
    return root / {"single": "Single-source/s4_meta_data.csv", "multi": "Multi-sources/ms3_meta_data.csv"}[task]


def rewrite(path: Path, change: Callable[[list[list[str]]], list[list[str]]]) -> None:
    rows = list(csv.reader(path.read_text("utf-8").splitlines()))
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(change(rows))


class TestSamples:
    """What there is to see, to hear and to find."""

    @pytest.mark.parametrize("task", ["single", "multi"])
    @pytest.mark.parametrize(("split", "videos"), [("train", None), ("val", 2), ("test", 3)])
    def test_five_frames_of_every_video_in_order(
        self, written: Path, task: str, split: str, videos: int | None
    ) -> None:
        there = opened(written, split, task)
        videos = videos or {"single": 12, "multi": 6}[task]
        assert len(there) == there.full == 5 * videos and not [p for p in there.skipped if p.kind != "class"]
        names = [key.rpartition("_")[0] for key in there.ids()]
        assert names == [name for name in dict.fromkeys(names) for _ in range(5)], "a video is one call of F"
        assert [key[-1] for key in there.ids()] == list("12345") * videos

    @pytest.mark.parametrize(("task", "around"), [("single", "Single-source"), ("multi", "Multi-sources")])
    def test_ids_and_masks_are_those_that_maps_of_others_are_scored_on(
        self, written: Path, task: str, around: str
    ) -> None:
        truths = open_truths("avsbench", written / around)
        side = truths.read(truths.ids[0]).mask.shape[-1]
        there = AVSBenchDataset(AVSBenchConfig(str(written), side, "avsbench-like"), "test", task)
        assert there.ids() == list(truths.ids)
        for n, key in enumerate(there.ids()):
            mine = there[n].truth.mask
            assert (mine == mine[0]).all(), "every label carries the mask of the frame"
            assert torch.equal(mine[0], truths.read(key).mask[0])

    def test_labels_are_those_of_the_video(self, written: Path) -> None:
        there = opened(written, task="multi")
        videos = {v.name: v for v in read_videos(listed(written, "multi"))[0]}
        assert there.classes == tuple(sorted({c for v in videos.values() if v.split == "train" for c in v.labels}))
        for n, key in enumerate(there.ids()):
            one, labels = there[n], videos[key.rpartition("_")[0]].labels
            known = [c for c in labels if c in there.classes]
            assert {there.classes[c] for c in one.heard.nonzero().flatten().tolist()} == set(known)
            assert torch.equal(one.heard, one.seen) and torch.equal(one.heard, one.labels)
            assert one.truth.present.all() and len(one.truth.classes) == len(labels)
            assert [there.classes[c] if c >= 0 else None for c in one.truth.classes] == [
                c if c in known else None for c in labels
            ]

    def test_training_reads_no_mask_and_varies_by_seed_and_epoch(self, root: Path) -> None:
        shutil.rmtree(root / "Single-source/s4_data/gt_masks/train")
        there = opened(root, "train")
        first, again = there[3], there[3]
        assert torch.equal(first.image, again.image) and not first.truth.mask.any()
        there.set_epoch(1)
        assert not torch.equal(there[3].image, first.image)
        assert there[3].key != first.key
        other = AVSBenchDataset(there.config, "train", "single", seed=1)
        assert not torch.equal(other[3].waveform, first.waveform)
        assert collate([there[i] for i in range(4)], AUDIO["paper300"]).image.shape == (4, 3, SIZE, SIZE)

    def test_each_frame_hears_its_own_second_in_the_middle_where_the_clip_allows(self, root: Path) -> None:
        tone = np.sin(2 * np.pi * np.arange(480) / 16).astype(np.float32)  # 30 ms at 1 kHz
        clicks = np.zeros(5 * 16000, np.float32)
        for second in range(5):
            start = int((second + 0.53) * 16000)
            clicks[start : start + 480] = 0.1 * (second + 1) * tone
        soundfile.write(of(root, "sound"), clicks, 16000)

        def heard(wave: torch.Tensor) -> list[tuple[int, int]]:
            """(which click, in which tenth of a second)."""
            found = []
            for tenth, part in enumerate(wave.split(RATE // 10)):
                if (peak := float(part.abs().max())) > 0.04:
                    found.append((round(peak / 0.1), tenth))
            return found

        window = [heard(opened(root)[k].waveform) for k in range(5)]
        assert [[click for click, _ in one] for one in window] == [[1, 2, 3]] * 2 + [[2, 3, 4]] + [[3, 4, 5]] * 2
        assert [tenth for _, tenth in window[2]] == pytest.approx([5, 15, 25], abs=1)
        second = [heard(opened(root, sound="second")[k].waveform) for k in range(5)]
        assert [{click for click, _ in one} for one in second] == [{1}, {2}, {3}, {4}, {5}]
        assert all(len(one) == 3 for one in second), "over and over"

    def test_ms3_may_be_tested_by_what_s4_has_taught(self, written: Path) -> None:
        own, taught = opened(written, task="multi"), opened(written, task="multi", train="s4")
        assert taught.classes == opened(written, "train").classes and taught.ids() == own.ids()
        assert opened(written, "train", "multi", train="s4").ids() == opened(written, "train").ids()
        assert taught.config.source("multi") == "avsbench-like-multi-by-s4"

    def test_a_source_cannot_be_heard_alone(self, written: Path) -> None:
        with pytest.raises(ValueError, match="expected sound='mixture': a video of AVSBench has one sound track"):
            AVSBenchDataset(AVSBenchConfig(str(written), SIZE), "test", "multi", sound="one")

    def test_a_part_of_the_published_list_is_marked(self, written: Path) -> None:
        there = AVSBenchDataset(AVSBenchConfig(str(written), SIZE), "test", "multi")
        assert there.full == 320 and there.name == "avsbench-multi"


class TestMasks:
    """Whatever the file is like."""

    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
    def test_any_mode_is_0_and_1(self, root: Path, mode: str) -> None:
        place, there = of(root, "mask"), opened(root)
        before = there[0].truth.mask[0]
        pixels = (before > 0).numpy().astype(np.uint8)
        image = Image.fromarray(pixels * (7 if mode == "P" else 255))
        if mode == "P":
            image = Image.fromarray(pixels * 7, "P")
            image.putpalette([level for n in range(256) for level in ((0, 0, 0) if n == 0 else (90, 0, n))])
        elif mode == "I;16":
            image = Image.fromarray(pixels.astype(np.uint16))  # whose upper byte is empty
        else:
            image = image.convert(mode)
        image.save(place)
        assert torch.equal(opened(root)[0].truth.mask[0], before)

    def test_another_size_is_brought_to_the_frames(self, root: Path) -> None:
        place = of(root, "mask")
        before = opened(root)[0].truth.mask[0]
        Image.open(place).convert("L").resize((3 * SIZE, 3 * SIZE), Image.Resampling.NEAREST).save(place)
        assert torch.equal(opened(root)[0].truth.mask[0], before)

    def test_a_missing_mask_leaves_its_frame_out_by_name(self, root: Path) -> None:
        place = of(root, "mask")
        place.unlink()
        there = opened(root)
        assert place.stem not in there.ids() and len(there) == 14
        assert [str(p) for p in there.skipped if p.kind == "mask"] == [f"{place}: missing: no mask of {place.stem}"]
        with pytest.raises(DataError, match="missing: no mask"):
            opened(root, missing="refuse")

    def test_a_list_of_empty_truths_is_refused_and_some_are_kept(self, root: Path) -> None:
        folder = root / "Single-source/s4_data/gt_masks/test"
        places = sorted(folder.rglob("*.png"))
        for place in places[1:]:
            Image.new("1", (SIZE, SIZE)).save(place)
        assert len(opened(root)) == 15
        Image.new("1", (SIZE, SIZE)).save(places[0])
        with pytest.raises(ValueError, match=r"gt_masks: expected masks of test, got 15 empty ones"):
            opened(root)

    def test_a_broken_mask_is_named(self, root: Path) -> None:
        place = of(root, "mask")
        place.write_bytes(b"not a picture")
        assert [p.path for p in opened(root).skipped if p.kind == "mask"] == [place]


class TestFiles:
    """Frames and sounds that are not what they should be."""

    def test_a_video_of_fewer_frames_keeps_the_others(self, root: Path) -> None:
        place = of(root, "frame")
        place.unlink()
        there = opened(root)
        assert len(there) == 14 and [p.path for p in there.skipped if p.kind == "frame"] == [place]
        shutil.rmtree(place.parent)
        assert len(opened(root)) == 10

    def test_a_clip_of_fewer_seconds_repeats_its_last(self, root: Path) -> None:
        place = of(root, "sound")
        wave, rate = soundfile.read(place)
        soundfile.write(place, wave[: int(3.5 * rate)], rate)
        there = opened(root)
        assert len(there) == 15
        assert [str(p) for p in there.skipped if p.kind == "sound"] == [
            f"{place}: expected 5 s, got 3.50 s: its last second is repeated"
        ]
        heard = there[4].waveform  # of the seconds 2 to 5; from 3.5 on, those from 2.5 on again
        half = RATE // 2
        torch.testing.assert_close(heard[3 * half : 5 * half], heard[half : 3 * half])

    def test_a_broken_file_of_training_is_named_when_it_is_read(self, root: Path) -> None:
        sound, picture = of(root, "sound", split="train"), of(root, "frame", split="train", n=1)
        sound.write_bytes(b"RIFF")
        picture.write_bytes(b"not a picture")
        there = opened(root, "train")
        for index, place in ((0, sound), (5, picture)):
            with pytest.raises(ValueError, match=f"{place}: "):
                there[index]

    def test_without_sound_there_is_no_video(self, root: Path) -> None:
        place = of(root, "sound")
        for spoil in (
            lambda: place.write_bytes(b"RIFF"),
            lambda: soundfile.write(place, np.zeros(80000), 16000),
            place.unlink,
        ):
            spoil()
            there = opened(root)
            assert len(there) == 10 and [p.path for p in there.skipped if p.kind == "sound"] == [place]

    def test_another_rate_and_two_channels_are_fine(self, root: Path) -> None:
        place, before = of(root, "sound"), opened(root)[2].waveform
        wave, _ = soundfile.read(place)
        soundfile.write(place, np.stack([wave, wave], 1), 16000)
        torch.testing.assert_close(opened(root)[2].waveform, before, atol=1e-3, rtol=0)
        soundfile.write(place, np.repeat(wave, 3), 48000)
        assert len(opened(root)) == 15 and not [p for p in opened(root).skipped if p.kind == "sound"]

    def test_folders_that_are_not_there_are_named(self, root: Path, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"s4_meta_data.csv of S4 not found: looked into .*nowhere"):
            opened(tmp_path / "nowhere")
        shutil.rmtree(root / "Multi-sources/ms3_data/visual_frames")
        with pytest.raises(DataError, match="missing: no frame"):
            opened(root, task="multi")


class TestLists:
    """csv files as people write them."""

    def test_other_header_names_are_fields(self, root: Path) -> None:
        rewrite(listed(root), lambda rows: [["vid", "part", "what"], *rows[1:]])
        with pytest.raises(
            ValueError, match=r"s4_meta_data.csv: expected a column 'name' \(name_column\), got vid, part, what"
        ):
            opened(root)
        there = opened(root, name_column="vid", split_column="part", category_column="what")
        assert len(there) == 15
        for wrong, field in ((["name", "split", "what"], "category"), (["name", "name", "split"], "name")):
            rewrite(listed(root), lambda rows, head=wrong: [head, *rows[1:]])  # type: ignore[misc]
            with pytest.raises(
                ValueError, match=rf"expected a column '{field}' \({field}_column\), got {', '.join(wrong)}"
            ):
                opened(root)

    def test_bom_crlf_and_more_columns_are_fine(self, root: Path) -> None:
        before = opened(root).ids()
        rows = [line.split(",") for line in listed(root).read_text("utf-8").splitlines()]
        text = "\r\n".join(",".join([str(n), *row]) for n, row in enumerate(rows))
        listed(root).write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert opened(root).ids() == before

    def test_rows_that_cannot_be_used_are_told_with_their_line(self, root: Path) -> None:
        def spoil(rows: list[list[str]]) -> list[list[str]]:
            return [*rows, ["train0000", "train", "bell"], ["x", "dev", "bell"], ["", "train", "bell"]]

        rewrite(listed(root), spoil)
        told = [p.message for p in opened(root).skipped if p.kind == "index"]
        assert told == [
            "line 19: train0000 is listed twice",
            "line 20: expected a split among train, val, test, got 'dev'",
            "line 21: expected the name of a video, got ''",
        ]

    def test_labels_with_commas_and_no_quotes_are_told_and_empty_cells_are_not(self, root: Path) -> None:
        text = listed(root, "multi").read_text("utf-8").replace('"', "").splitlines()
        listed(root, "multi").write_text("\n".join([text[0], *text[1:-1], "test0002,test,bell,,"]), "utf-8")
        videos, problems = read_videos(listed(root, "multi"))
        assert [video.name for video in videos] == ["test0002"]
        cells = text[1].count(",") + 1
        told = f"line 2: expected 3 cells, got {cells}: several labels in one cell stand in quotes"
        assert len(problems) == 10 and problems[0].message == told

    @pytest.mark.parametrize(
        ("row", "told"),
        [('a,train,"guitar\nb,test,dog', "unexpected end of data"), ('a,train,"guitar" violin', "expected after")],
    )
    def test_quotes_that_do_not_match_are_refused_with_their_line(self, tmp_path: Path, row: str, told: str) -> None:
        (tmp_path / "list.csv").write_text(f"name,split,category\n{row}", "utf-8")
        with pytest.raises(ValueError, match=rf"list.csv, line \d: expected rows of a csv file, got .*{told}"):
            read_videos(tmp_path / "list.csv")

    @pytest.mark.parametrize(
        ("cell", "labels"),
        [
            ("guitar, violin", ("guitar", "violin")),
            ("guitar;violin ; ", ("guitar", "violin")),
            ('"man","guitar", man', ("man", "guitar")),
            ("['dog', 'cat']", ("dog", "cat")),
            ("acoustic guitar", ("acoustic guitar",)),
            ("", ()),
        ],
    )
    def test_several_labels_in_a_cell(self, cell: str, labels: tuple[str, ...]) -> None:
        assert several(cell) == labels

    @pytest.mark.parametrize("header", ["", "name,labels\n"])
    def test_labels_of_ms3_come_from_a_file(self, root: Path, tmp_path: Path, header: str) -> None:
        rewrite(listed(root, "multi"), lambda rows: [row[:2] for row in rows])
        with pytest.raises(ValueError, match=r"ms3_meta_data.csv: expected labels of .*, got none; name .*data.labels"):
            opened(root, task="multi")
        names = [v.name for v in read_videos(listed(root, "multi"))[0]]
        file = tmp_path / "labels.csv"
        file.write_text(header + "\n".join(f'{name},"guitar, violin"' for name in names), "utf-8")
        there = opened(root, task="multi", labels=str(file))
        assert there.classes == ("guitar", "violin") and there[0].heard.sum() == 2
        assert replace(there.config).placeless()["labels"] == "labels.csv"
        file.write_text("name,labels\nalone\n", "utf-8")
        with pytest.raises(ValueError, match=r"labels.csv, line 2: expected name,labels, got 'alone'"):
            read_labels(file)
        file.write_text("a,dog\nb,cat\na,cat\na, dog\n", "utf-8")
        assert read_labels(file) == {"a": ("dog", "cat"), "b": ("cat",)}, "rows of one name add up"
        with pytest.raises(FileNotFoundError, match=r"expected a file of labels .*nowhere.csv, got none"):
            opened(root, task="multi", labels=str(tmp_path / "nowhere.csv"))

    @pytest.mark.parametrize(("task", "tested"), [("single", 10), ("multi", 15)])
    def test_a_video_without_a_label_is_told_and_not_trained_on(self, root: Path, task: str, tested: int) -> None:
        full = len(opened(root, "train", task))

        def bare(rows: list[list[str]]) -> list[list[str]]:
            return [[*row[:2], ""] if row[0] in ("train0000", "test0001") else row for row in rows]

        rewrite(listed(root, task), bare)
        train, test = opened(root, "train", task), opened(root, "test", task)
        assert len(train) == full - 5 and "train0000_1" not in train.ids()
        assert [str(p) for p in train.skipped if p.kind == "index"] == [f"{listed(root, task)}: train0000: no label"]
        assert len(test) == tested, "S4 has no place for it without its category"
        assert [p.message for p in test.skipped if p.kind == "index"] == ["test0001: no label"]

    def test_s4_without_any_category_is_refused(self, root: Path) -> None:
        rewrite(listed(root), lambda rows: [rows[0], *([*row[:2], ""] for row in rows[1:])])
        for task, choices in (("single", {}), ("multi", {"train": "s4"})):
            with pytest.raises(ValueError, match=r"s4_meta_data.csv: expected labels of training videos, got none$"):
                opened(root, task=task, **choices)

    def test_a_label_that_training_does_not_have_is_told_and_has_no_class(self, root: Path) -> None:
        def rename(rows: list[list[str]]) -> list[list[str]]:
            return [[*row[:2], "zither, bell"] if row[1] == "test" else row for row in rows]

        rewrite(listed(root, "multi"), rename)
        there = opened(root, task="multi")
        assert there.unseen == ("zither",) and len(there) == 15
        assert "zither: a label that training does not have" in [p.message for p in there.skipped]
        assert there[0].truth.classes[0] == -1


class TestSurvey:
    """``m2vsl data check DIR --benchmark avsbench``."""

    def test_counts_are_held_against_the_published(self, written: Path) -> None:
        found = survey(AVSBenchConfig(str(written), SIZE))
        assert [(c.part, c.split, c.videos, c.full, c.frames) for c in found.counts] == [
            *[("S4", "train", 12, 3452, 60), ("S4", "val", 2, 740, 10), ("S4", "test", 3, 740, 15)],
            *[("MS3", "train", 6, 296, 30), ("MS3", "val", 2, 64, 10), ("MS3", "test", 3, 64, 15)],
        ]
        told = [p.message for p in found.problems if p.kind == "index"]
        assert told == [
            "S4: expected 3,452/740/740 videos of train/val/test, as published, got 12/2/3",
            "MS3: expected 296/64/64 videos of train/val/test, as published, got 6/2/3",
        ]
        assert "MS3    test       3     64      15     320" in str(found)

    def test_what_is_wrong_is_listed_and_nothing_stops_it(self, root: Path) -> None:
        spoilt = [of(root, "mask"), of(root, "sound", "multi", "val")]
        for place in spoilt:
            place.unlink()
        shutil.rmtree(root / "Single-source/s4_data/visual_frames/val")
        found = survey(AVSBenchConfig(str(root), SIZE, "avsbench-like"))
        assert set(spoilt) <= {problem.path for problem in found.problems}
        assert [c.frames for c in found.counts] == [60, 0, 14, 30, 5, 15]
        listed(root, "multi").unlink()
        again = survey(AVSBenchConfig(str(root), SIZE, "avsbench-like"))
        assert any("ms3_meta_data.csv of MS3 not found" in p.message for p in again.problems)

    def test_ms3_as_published_has_no_labels_and_its_files_are_looked_at(self, root: Path) -> None:
        place = of(root, "mask", "multi")
        place.unlink()
        rewrite(listed(root, "multi"), lambda rows: [row[:2] for row in rows])
        found = survey(AVSBenchConfig(str(root), SIZE, "avsbench-like"))
        assert [c.frames for c in found.counts if c.part == "MS3"] == [30, 10, 14]
        assert [p.path for p in found.problems if p.kind != "class"] == [place]
        assert found.unlabelled == ("MS3",) and "note: MS3 has no labels: it is trained on with a file" in str(found)

    def test_the_command_writes_checks_and_refuses(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        root = str(tmp_path / "tree")
        counts = [word for part in ("--s4", "--ms3") for word in (part, "2", "1", "1")]
        assert cli.main(["data", "make-avsbench-like", root, "--size", "48", *counts]) == 0
        capsys.readouterr()
        assert cli.main(["data", "check", root, "--benchmark", "avsbench"]) == 1
        told = capsys.readouterr().out
        assert "S4: expected 3,452/740/740 videos of train/val/test, as published, got 2/1/1" in told
        assert "MS3    test       1     64       5     320" in told
        assert cli.main(["data", "check", root, "--benchmark", "avs"]) == 2
        assert "expected benchmark among avsbench, vggsound, instruments, flickr, got 'avs'" in capsys.readouterr().err
        assert cli.main(["data", "check", root, "--benchmark", "avsbench", "--lists", f"{root}/labels.csv"]) == 1
        assert f"expected a file of labels {root}/labels.csv, got none" in capsys.readouterr().out
