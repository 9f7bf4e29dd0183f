"""The tables of maps from files, and their way from the command line to csv."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m2vsl import records
from m2vsl.data.heatmaps import Heatmaps
from m2vsl.data.truths import Truths, open_truths
from m2vsl.metrics.calls import AVSBENCH
from m2vsl.metrics.protocols import EVERY, PUBLISHED, named
from m2vsl.report import outside, scores
from m2vsl.report.tables import UNDEFINED
from m2vsl.scoring import Scored, score_maps

CLIPS = 24


@pytest.fixture
def truths(tmp_path: Path) -> Truths:
    """Boxes of different sizes, two classes."""
    boxes = [[0.1, 0.1, 0.15 + 0.035 * i, 0.2 + 0.03 * i] for i in range(CLIPS)]
    entries = [
        {"file": f"clip{i}", "class": ("dog barking", "cat, big")[i % 2], "bbox": [b]} for i, b in enumerate(boxes)
    ]
    (tmp_path / "vggss.json").write_text(json.dumps(entries))
    return open_truths("vggss", tmp_path / "vggss.json")


@pytest.fixture
def saved(tmp_path: Path, truths: Truths) -> Callable[..., Path]:
    """saved("name", skill) -> a folder of maps: the truth, `skill` times as strong as the noise over it."""

    def save(name: str, skill: float, seed: int = 0, leave: int = 0) -> Path:
        drawn = np.random.default_rng(seed)
        root = tmp_path / name
        root.mkdir()
        for id in truths.ids[leave:]:
            mask = np.asarray(truths.read(id).mask[0])
            np.save(root / f"{id}.npy", (skill * mask + drawn.random(mask.shape)).astype(np.float32)[::8, ::8])
        return root

    return save


def scored(place: Path, truths: Truths, **how: bool) -> Scored:
    return score_maps(Heatmaps(place), truths, named("all"), AVSBENCH, **how)  # type: ignore[arg-type]


def cells(text: str, row: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_every_protocol_has_its_row_with_its_hash(truths: Truths, saved: Callable[..., Path]) -> None:
    one = scored(saved("theirs", 1.0), truths)
    text = outside.shown([one])
    for protocol in [*PUBLISHED.values(), EVERY["framewise-matched-oracle"]]:
        digest, first, *_ = cells(text, protocol.name)
        assert digest == protocol.digest
        assert first == f"{100 * one.summary.scalars[f'{protocol.name}/ciou@0.1']:.1f}"
    assert "predicted" not in text and "sourcewise" not in text, "one map is not chosen, and there is one frame"
    assert cells(text, "AP") == [f"{100 * one.summary.scalars['oracle/ap']:.1f}"]
    assert cells(text, f"avsbench mIoU (maps read as heat, {AVSBENCH.digest})") and cells(text, "avgn_as_released/piap")
    assert "**subset (24 of 5158)**" in text and one.coverage.hash in text


def test_sizes_add_up_and_counts_are_told(truths: Truths, saved: Callable[..., Path]) -> None:
    one = scored(saved("theirs", 1.0, leave=2), truths, allow_missing=True)
    text = outside.shown([one])
    assert sum(int(cells(text, size)[0]) for size in ("small", "medium", "large", "huge")) == CLIPS - 2
    assert cells(text, "missing") == ["2"] and "missing: clip0, clip1" in text
    assert cells(text, "clips") == ["22"] and cells(text, "empty truths") == ["0"]
    assert "expected 5,158 clips, as published, got 24" in text


def test_several_runs_have_an_interval(truths: Truths, saved: Callable[..., Path]) -> None:
    runs = [scored(saved(f"run{seed}", 0.3, seed), truths) for seed in range(3)]
    text = outside.shown(runs)
    values = [100 * run.summary.scalars["ezvsl/iou"] for run in runs]
    half = 4.302653 * np.std(values, ddof=1) / np.sqrt(3)
    assert cells(text, "ezvsl")[-2] == f"{np.mean(values):.1f} ± {half:.1f}"


def test_a_rival_is_met_clip_by_clip(truths: Truths, saved: Callable[..., Path]) -> None:
    good, poor = scored(saved("good", 1.0), truths), scored(saved("poor", 0.0), truths)
    text = outside.shown([good], rival=[poor], ahead=scores.leads([good], [poor]))
    assert (
        cells(text[text.index("poor on vggss") :], "ezvsl")[1] == f"{100 * poor.summary.scalars['ezvsl/ciou@0.1']:.1f}"
    )
    lead = cells(text[text.index("good ahead of poor") :], "ezvsl")[0]
    difference = 100 * (good.summary.scalars["ezvsl/iou"] - poor.summary.scalars["ezvsl/iou"])
    assert lead.startswith(f"{difference:+.1f} (") and lead.endswith("100%")
    fewer = scored(saved("fewer", 0.0, leave=1), truths, allow_missing=True)
    with pytest.raises(ValueError, match="expected maps of the same clips, got 2 lists"):
        outside.shown([good], rival=[fewer])


def test_the_constants_are_those_of_the_clips_that_were_scored(truths: Truths, saved: Callable[..., Path]) -> None:
    one = scored(saved("theirs", 1.0, leave=20), truths, allow_missing=True)
    limits = scores.bounds(truths, one.coverage.found)
    assert limits.n == 4
    areas = [float(truths.read(id).mask.mean()) for id in one.coverage.found]
    assert limits.rows["all_ones/framewise"]["iou"] == pytest.approx(np.mean(areas))
    assert "all_ones/framewise" in outside.shown([one], limits)


def test_no_protocol_passes_its_ceiling(truths: Truths, saved: Callable[..., Path]) -> None:
    best = scored(saved("best", 1000.0), truths)
    most = scores.ceilings(truths, best)
    assert set(most) == set(EVERY)
    assert most["framewise-matched-oracle"] == most["tvsl-0.3"] == 1 > most["ezvsl"] >= most["lvs"] > 0.3
    assert all(best.summary.scalars[f"{name}/auc"] <= most[name] + 0.01 for name in ("ezvsl", "lvs", "slavc", "avgn"))
    assert cells(outside.shown([best], ceiling=most), "ezvsl")[-1] == f"{100 * most['ezvsl']:.1f}"
    assert cells(outside.shown([best]), "ezvsl")[-1] == UNDEFINED


def test_clean_clips_are_named_by_their_labels(
    truths: Truths, saved: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = scored(saved("theirs", 1.0), truths)
    monkeypatch.setattr("m2vsl.data.vggsounder.find_spec", lambda name: None)
    assert scores.clean_part(one, EVERY["ezvsl"]) == {}, "not installed"
    labels = tmp_path / "labels.csv"
    head = "video_id,label,modality,background_music,static_image,voice_over"
    rows = [f'clip{i},"cat, big",{"AV" if i < 6 else "A"},False,False,False' for i in range(CLIPS)]
    rows += [f"clip{i},dog barking,A,False,False,False" for i in range(CLIPS)]
    labels.write_text("\n".join([head, *rows]) + "\n")
    monkeypatch.setattr("m2vsl.data.vggsounder.labels_file", lambda: labels)
    ((name, part),) = scores.clean_part(one, EVERY["ezvsl"]).items()
    assert part.n == 3 and name.startswith("clean, by VGGSounder ")
    ious = [row["ezvsl"] for row in one.summary.sources if row["key"] in ("clip1", "clip3", "clip5")]
    assert part.scalars["iou"] == pytest.approx(np.mean(np.array(ious, dtype=float)))


# The command line -----------------------------------------------------------------------------------------------------


def test_from_a_folder_to_table_record_and_csv(
    truths: Truths, saved: Callable[..., Path], m2vsl: Callable[[str], tuple[int, str, str]], tmp_path: Path
) -> None:
    where = f"--truth {truths.root} --protocol all --name Theirs --out {tmp_path / 'out'}"
    status, out, err = m2vsl(f"evaluate --maps {saved('a', 1.0)} {saved('b', 1.0, 1)} {where}")
    assert status == 0 and not err
    assert "Theirs on vggss" in out and "centre50/framewise" in out and "2 runs" in out
    found = sorted(records.find(tmp_path / "out"), key=lambda record: record.seed)
    assert [record.seed for record in found] == [0, 1] and {record.method for record in found} == {"Theirs"}
    path = found[0].path(tmp_path / "out")
    assert f"record: {path}" in out
    rows = records.load_rows(path, "sources")
    assert len(rows) == CLIPS and rows[1]["class"] == "cat_big" and rows[0]["key"] == "clip0"
    assert np.mean([row["lvs"] for row in rows]) == pytest.approx(found[0].metrics["lvs/iou"], abs=1e-5)
    scores = {(row["protocol"], row["score"]): row["value"] for row in records.load_rows(path, "scores")}
    assert scores["ezvsl", "auc"] == pytest.approx(found[0].metrics["ezvsl/auc"], abs=1e-5)
    classes = {row["class"]: row["n"] for row in records.load_rows(path, "classes")}
    assert classes == {"cat_big": 12, "dog_barking": 12, "mean over classes": 2}


@pytest.mark.parametrize(
    ("line", "status", "told"),
    [
        ("evaluate", 2, "expected either METHOD/TASK or --maps with --truth"),
        ("evaluate m2vsl/duet --maps {maps} --truth {truth}", 2, "expected either METHOD/TASK or --maps"),
        ("evaluate --maps {maps}", 2, "expected --truth KIND ROOT, KIND among vggss"),
        ("evaluate --maps {maps} --truth marble {truth}", 2, "expected --truth KIND ROOT"),
        ("evaluate --maps {maps} --truth {truth} --protocol magic", 2, "expected protocols among all, framewise"),
        ("evaluate --maps nowhere --truth {truth}", 1, "heat maps not found: nowhere"),
        ("evaluate --maps {maps} --truth vggss nowhere", 1, "truths of vggss not found: nowhere"),
        ("evaluate --maps {maps} --truth {truth} --roles sources --values loud", 2, "invalid choice: 'loud'"),
        ("evaluate --maps {maps} {maps} --truth {truth} --silence {maps}", 2, "--silence is for one folder of --maps"),
        ("bounds --truth duet {folder}", 1, "vggsound_duet_test.csv"),
    ],
)
def test_what_is_wrong_is_said_in_words(
    line: str,
    status: int,
    told: str,
    truths: Truths,
    saved: Callable[..., Path],
    m2vsl: Callable[[str], tuple[int, str, str]],
) -> None:
    got, out, err = m2vsl(line.format(maps=saved("theirs", 1.0), truth=truths.root, folder=truths.root.parent))
    assert got == status and told in err and not out


def test_other_sounds_and_avsbench_alone(
    truths: Truths, saved: Callable[..., Path], m2vsl: Callable[[str], tuple[int, str, str]], tmp_path: Path
) -> None:
    maps = saved("theirs", 1.0)
    where = f"--truth {truths.root} --protocol avsbench --no-bounds --out {tmp_path / 'out'}"
    status, out, err = m2vsl(f"evaluate --maps {maps} {where} --silence {maps} --noise {saved('hiss', 0.0)}")
    assert status == 0 and not err
    assert cells(out, "silence/remaining") == ["50.0"] and cells(out, "noise/quieter") == ["100.0"]
    assert "avsbench mIoU (maps read as heat" in out and "ezvsl" not in out and "centre50" not in out


def test_bounds_of_a_file_of_boxes(truths: Truths, m2vsl: Callable[[str], tuple[int, str, str]]) -> None:
    status, out, _ = m2vsl(f"bounds --truth {truths.root}")
    assert status == 0 and "vggss: 24 of 5158 clips" in out
    assert "oracle_area50/framewise" in out and "centre_best" in out
    again = m2vsl(f"bounds --truth vggss {truths.root.parent}")[1]
    assert again.splitlines()[-5:] == out.splitlines()[-5:]


def test_all_csv_lie_beside_the_record(truths: Truths, saved: Callable[..., Path], tmp_path: Path) -> None:
    path = scores.save(scored(saved("theirs", 1.0), truths), tmp_path / "out")
    beside = {file.name.removeprefix(path.stem) for file in path.parent.iterdir()}
    assert beside == {".json", ".scores.csv", ".classes.csv", ".pictures.csv", ".sources.csv"}


def test_truths_without_classes_have_their_csv_too(tmp_path: Path) -> None:
    """MS3 of AVSBench has none."""
    maps = tmp_path / "maps"
    maps.mkdir()
    for k in range(1, 6):
        place = tmp_path / "gt_masks" / "test" / "video" / f"video_{k}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.tri(224, dtype=np.uint8) * 255).save(place)
        np.save(maps / f"video_{k}.npy", np.random.default_rng(k).random((7, 7)))
    one = score_maps(Heatmaps(maps), open_truths("avsbench", tmp_path), named("ezvsl"), AVSBENCH)
    path = scores.save(one, tmp_path / "out")
    (row, mean) = records.load_rows(path, "classes")
    assert (row["class"], row["n"], mean["n"]) == ("unknown", 5, 0) and np.isnan(mean["iou"])
    assert len(records.load_rows(path, "pictures")) == 5


def test_boxes_in_pixels_are_no_truths(tmp_path: Path) -> None:
    box = {"file": "clip", "class": "cat", "bbox": [[10, 20, 100, 200]]}
    (tmp_path / "vggss.json").write_text(json.dumps([box]))
    with pytest.raises(ValueError, match="got nothing but empty ones; are boxes fractions of a frame"):
        open_truths("vggss", tmp_path)


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden"])
def test_a_name_is_no_path(name: str, truths: Truths, m2vsl: Callable[[str], tuple[int, str, str]]) -> None:
    status, _, err = m2vsl(f"evaluate --maps x --truth {truths.root} --name {name}")
    assert status == 2 and "expected --name to be a plain name" in err


def test_the_same_maps_twice_are_no_two_runs(truths: Truths, saved: Callable[..., Path]) -> None:
    one = scored(saved("theirs", 1.0), truths)
    with pytest.raises(ValueError, match="expected different maps in every run and rival, got 1 that come again"):
        outside.shown([one, one])


def test_leads_lie_beside_the_record(truths: Truths, saved: Callable[..., Path], tmp_path: Path) -> None:
    good, poor = scored(saved("good", 1.0), truths), scored(saved("poor", 0.0), truths)
    path = scores.save(good, tmp_path / "out")
    scores.save_leads(path, scores.leads([good], [poor]))
    rows = {(row["protocol"], row["score"]): row["mean"] for row in records.load_rows(path, "leads")}
    difference = good.summary.scalars["lvs/iou"] - poor.summary.scalars["lvs/iou"]
    assert rows["lvs", "iou"] == pytest.approx(difference, abs=1e-5)


def test_what_succeeds_as_a_picture_has_the_ceiling_of_pictures(tmp_path: Path) -> None:
    """One source of each pair has an empty truth: the mean IoU of the pair is 0.5 at best, and that is reached."""
    boxes = {"a" * 11 + "_000001": [0.1, 0.1, 0.6, 0.6], "b" * 11 + "_000002": [0.4, 0.4, 0.4, 0.9]}
    entries = [{"file": id, "class": name, "bbox": [boxes[id]]} for id, name in zip(boxes, ("cat", "dog"), strict=True)]
    (tmp_path / "vggss.json").write_text(json.dumps(entries))
    first, second = boxes
    (tmp_path / "vggsound_duet_test.csv").write_text(f"{first},cat,{second},dog\n{second},dog,{first},cat\n")
    pairs = open_truths("duet", tmp_path)
    maps = tmp_path / "maps"
    maps.mkdir()
    for id in pairs.ids:
        np.save(maps / f"{id}.npy", pairs.read(id).mask.numpy())
    perfect = score_maps(Heatmaps(maps), pairs, named("dsol", "framewise-matched-oracle"), roles="sources")
    most = scores.ceilings(pairs, perfect)
    assert perfect.summary.scalars["dsol-0.2/auc"] == pytest.approx(0.525) == pytest.approx(most["dsol-0.2"])
    assert most["framewise-matched-oracle"] == pytest.approx((1 + 0.025) / 2)
