"""Maps of another program from files: who answers for what, what is counted, and that nothing is lost in silence."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from m2vsl import records
from m2vsl.data.heatmaps import Heatmaps
from m2vsl.data.layout import DataError
from m2vsl.data.truths import Truths, open_truths
from m2vsl.evaluate import score
from m2vsl.metrics.calls import AVSBENCH, Segmentation
from m2vsl.metrics.protocols import EVERY, HEADLINE, PROTOCOLS, named
from m2vsl.metrics.tally import column
from m2vsl.scoring import Scored, record_of, score_maps, with_others
from m2vsl.types import Maps, Truth

Array = NDArray[np.generic]
CLASSES = ("cat purring", "dog barking", "female speech, woman speaking")
NAME = HEADLINE.name


def clip(i: int) -> str:
    return f"clip-_{i:05d}_{i:06d}"


@pytest.fixture
def vggss(tmp_path: Path) -> Path:
    """Six clips of three classes; the last has an empty truth and a corrupt box."""
    boxes = [[[0.1, 0.1, 0.5, 0.5 + i / 20]] for i in range(5)] + [[[0.4, -2.9e16, 0.4, 0.9]]]
    entries = [{"file": clip(i), "class": CLASSES[i % 3], "bbox": box} for i, box in enumerate(boxes)]
    root = tmp_path / "truths"
    root.mkdir()
    (root / "vggss.json").write_text(json.dumps(entries))
    pairs = [(i, (i + 1) % 5) for i in range(5)] + [(5, 2)]  # the last pair is of one class
    words = [name.replace(",", "").replace(" ", "_") for name in CLASSES]
    rows = [f"{clip(a)},{words[a % 3]},{clip(b)},{words[b % 3]}" for a, b in pairs]
    (root / "vggsound_duet_test.csv").write_bytes(("\r\n".join(rows) + "\r\n").encode())
    return root


@pytest.fixture
def solos(vggss: Path) -> Truths:
    return open_truths("vggss", vggss)


@pytest.fixture
def duets(vggss: Path) -> Truths:
    return open_truths("duet", vggss)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Heatmaps]:
    """saved({"a": array, "b/dog": array}) -> the maps in a folder."""

    def save(maps: dict[str, Array], name: str = "theirs", presence: Sequence[str] = ()) -> Heatmaps:
        root = tmp_path / name
        for id, heat in maps.items():
            (root / id).parent.mkdir(parents=True, exist_ok=True)
            np.save(root / f"{id}.npy", heat)
        if presence:
            (root / "presence.csv").write_text("\n".join(["id,class,presence", *presence]))
        return Heatmaps(root)

    return save


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def single_maps(truths: Truths, size: tuple[int, int] = (7, 7)) -> dict[str, Array]:
    return {id: noise(*size, seed=i) for i, id in enumerate(truths.ids)}


def fitting(truths: Truths, id: str, source: int) -> Array:
    """A map that shows one source, at the size of the truth."""
    return np.asarray(truths.read(id).mask[source]) + noise(*truths.size, seed=source) / 9


def test_maps_of_files_score_as_maps_in_memory(solos: Truths, saved: Callable[..., Heatmaps]) -> None:
    maps = single_maps(solos)
    found = score_maps(saved(maps), solos, named("all"), AVSBENCH)
    heat = torch.from_numpy(np.stack([maps[id] for id in solos.ids]))[:, None]
    truths = [solos.read(id) for id in solos.ids]
    truth = Truth(*(torch.stack([getattr(t, part) for t in truths]) for part in ("mask", "classes", "present")))
    sources, _ = score(Maps(heat, torch.tensor([-1])), truth, solos.ids, tuple(EVERY.values()))
    for name in EVERY:
        assert torch.equal(column(found.summary.sources, name), column(sources, name))
    assert [row["class"] for row in found.summary.sources] == [solos.labels[i][0] for i in range(6)]
    assert "avsbench/miou" in found.summary.scalars


def test_what_is_odd_is_counted(solos: Truths, saved: Callable[..., Heatmaps]) -> None:
    maps = single_maps(solos)
    maps[clip(0)] = np.full((7, 7), 3.0)
    maps[clip(1)] = np.maximum(maps[clip(1)], 0.8)  # clipped: most of the map ties at its minimum
    found = score_maps(saved(maps | {"somebody_else": noise(7, 7)}), solos, [HEADLINE])
    assert found.counts["constant"] == found.counts["saturated"] == 1
    assert (found.counts["clips"], found.counts["missing"], found.counts["extra"]) == (6, 0, 1)
    assert found.coverage.extra == ("somebody_else",)
    assert found.named == {"constant": (clip(0),), "saturated": (clip(1),)}
    assert record_of(found).experiment["extra"] == ("somebody_else",)
    assert found.counts["list/corrupt_boxes"] == found.counts["empty_truths"] == 1
    assert found.summary.counts["empty_truths"] == 1 and found.summary.sources[5][NAME] == 0
    assert found.subset == "subset (6 of 5158)", "the list is not the published one"


def test_missing_maps_are_refused_by_name_or_counted(solos: Truths, saved: Callable[..., Heatmaps]) -> None:
    maps = single_maps(solos)
    del maps[clip(2)], maps[clip(4)]
    with pytest.raises(
        DataError, match=rf"2 problem\(s\)(.|\n)*{clip(2)}(.|\n)*{clip(4)}(.|\n)*--allow-missing"
    ) as stop:
        score_maps(saved(maps), solos, [HEADLINE])
    assert len(stop.value.problems) == 2
    found = score_maps(saved(maps), solos, [HEADLINE], allow_missing=True)
    assert found.coverage.missing == (clip(2), clip(4)) and found.counts["clips"] == 4
    assert found.coverage.hash == records.id_hash([clip(i) for i in (0, 1, 3, 5)])


@pytest.mark.parametrize(
    ("heat", "told"),
    [
        (np.array([[np.nan, 1.0], [np.inf, 0.0]]), "1 NaN and 1 inf"),
        (np.zeros((2, 3, 4, 5)), r"\(2, 3, 4, 5\)"),
        (np.array([[{"a": 1}]], dtype=object), "pickle|object"),
        (np.zeros((0, 7)), "0"),
    ],
)
def test_maps_that_cannot_be_used(
    heat: Array, told: str, solos: Truths, saved: Callable[..., Heatmaps], tmp_path: Path
) -> None:
    maps = saved(single_maps(solos))
    np.save(tmp_path / "theirs" / f"{clip(3)}.npy", heat, allow_pickle=True)
    with pytest.raises(DataError, match=rf"{clip(3)}(.|\n)*({told})"):
        score_maps(maps, solos, [HEADLINE])
    found = score_maps(maps, solos, [HEADLINE], allow_missing=True)
    assert found.counts["unusable"] == 1 and found.counts["clips"] == 5 and found.subset
    assert clip(3) not in found.coverage.found and any(p.path.stem == clip(3) for p in found.problems)


def test_no_map_at_all_is_an_error_even_if_some_may_miss(solos: Truths, saved: Callable[..., Heatmaps]) -> None:
    told = r"expected maps of some of the 6 clips of the list, such as clip-_00000_000000, got none; there are other"
    with pytest.raises(DataError, match=told):
        score_maps(saved({"other": noise(7, 7)}), solos, [HEADLINE], allow_missing=True)


def test_one_map_answers_for_both_sources_of_a_duet(duets: Truths, saved: Callable[..., Heatmaps]) -> None:
    found = score_maps(saved(single_maps(duets, (7, 14))), duets, [HEADLINE])
    assert found.summary.counts["sources"] == 2 * 6 - 1, "a pair of one class is one source"
    assert "oracle/piap" in found.summary.scalars and "oracle/cap" not in found.summary.scalars


def test_a_square_map_of_a_duet_is_refused(duets: Truths, saved: Callable[..., Heatmaps]) -> None:
    with pytest.raises(DataError, match=r"expected maps of the whole canvas, 2 wide to 1 high, got \(1, 7, 7\)"):
        score_maps(saved(single_maps(duets, (7, 7))), duets, [HEADLINE])


def both(truths: Truths, order: Sequence[int] = (0, 1)) -> dict[str, Array]:
    return {id: np.stack([fitting(truths, id, s) for s in order]) for id in truths.ids}


def test_maps_without_names_are_assigned_and_maps_of_sources_are_not(
    duets: Truths, saved: Callable[..., Heatmaps]
) -> None:
    matched = named("framewise-matched-oracle")
    maps = saved(both(duets, (1, 0)))
    free = score_maps(maps, duets, matched).summary.scalars
    bound = score_maps(maps, duets, matched, roles="sources").summary.scalars
    assert free["framewise-matched-oracle/iou"] > 0.9 > 0.2 > bound["framewise-matched-oracle/iou"]
    assert bound["oracle/cap"] < 0.6 < bound["oracle/piap"] and "oracle/cap" not in free
    right = score_maps(saved(both(duets), "right"), duets, matched, roles="sources").summary.scalars
    assert right["oracle/cap"] == pytest.approx(right["oracle/piap"])


def words(truths: Truths, id: str) -> list[str]:
    return [truths.class_names[label] for label in truths.labels[truths.ids.index(id)]]


def test_named_maps_answer_for_their_class(duets: Truths, saved: Callable[..., Heatmaps]) -> None:
    maps = {f"{id}/{name}": fitting(duets, id, s) for id in duets.ids for s, name in enumerate(words(duets, id))}
    found = score_maps(saved(maps), duets, [PROTOCOLS["framewise-matched-oracle"]])
    shown = {str(row["key"]): row["framewise-matched-oracle"] for row in found.summary.sources[:10]}
    assert all(float(str(value)) > 0.9 for value in shown.values())
    assert [row["class"] for row in found.summary.sources[:2]] == list(duets.labels[0])
    assert "predicted/cap" not in found.summary.scalars


def test_presence_makes_a_predicted_choice(duets: Truths, saved: Callable[..., Heatmaps]) -> None:
    maps, presence = {}, []
    for id in duets.ids:
        for name in duets.class_names:
            sounding = words(duets, id)
            maps[f"{id}/{name}"] = fitting(duets, id, sounding.index(name)) if name in sounding else noise(224, 448)
            presence.append(f"{id},{name},{0.9 if name in sounding else 0.1}")
    found = score_maps(saved(maps, presence=presence), duets, named("framewise"))
    assert found.summary.scalars["heard_accuracy"] == 1
    assert found.summary.scalars["predicted/cap"] == pytest.approx(found.summary.scalars["oracle/cap"])


def test_maps_of_classes_that_nobody_knows_or_that_lack_one(duets: Truths, saved: Callable[..., Heatmaps]) -> None:
    maps = {f"{id}/{name}": noise(7, 14) for id in duets.ids for name in (*words(duets, id), "violin")}
    with pytest.raises(DataError, match="expected maps named by classes of the truths, got 'violin'"):
        score_maps(saved(maps), duets, [HEADLINE])
    maps = {f"{id}/{words(duets, id)[0]}": noise(7, 14) for id in duets.ids}
    with pytest.raises(DataError, match="expected a map for every class that sounds, got none for dog_barking"):
        score_maps(saved(maps, "lacking"), duets, [HEADLINE])


def test_roles_go_by_the_names_of_maps(duets: Truths, saved: Callable[..., Heatmaps]) -> None:
    maps = {f"{id}/{name}": fitting(duets, id, s) for id in duets.ids[:5] for s, name in enumerate(words(duets, id))}
    given, matched = saved(maps), named("framewise-matched-oracle")
    found = [score_maps(given, duets, matched, roles=role, allow_missing=True) for role in ("auto", "sources", "turns")]
    assert min(one.summary.scalars["framewise-matched-oracle/iou"] for one in found) > 0.9


def test_classes_may_be_in_words(solos: Truths, saved: Callable[..., Heatmaps]) -> None:
    maps = {f"{clip(i)}/{CLASSES[i % 3]}": noise(7, 7, seed=i) for i in range(6)}
    assert score_maps(saved(maps), solos, [HEADLINE]).counts["clips"] == 6


def test_presence_of_some_clips_asks_for_that_of_all(duets: Truths, saved: Callable[..., Heatmaps]) -> None:
    maps = {f"{id}/{name}": noise(7, 14) for id in duets.ids for name in duets.class_names}
    presence = [f"{id},{name},0.5" for id in duets.ids[:2] for name in duets.class_names]
    given = saved(maps, presence=presence)
    with pytest.raises(DataError, match=rf"4 problem(.|\n)*{clip(2)}: expected the presence of its classes"):
        score_maps(given, duets, [HEADLINE])
    assert score_maps(given, duets, [HEADLINE], allow_missing=True).counts["clips"] == 2


def test_what_cannot_be_read_is_the_fault_of_its_clip(solos: Truths, saved: Callable[..., Heatmaps]) -> None:
    maps = single_maps(solos)
    maps[clip(1)] = noise(7, 7).astype(np.float64) * 1e300
    maps[clip(2)] = noise(7, 7) - 2
    given, asked = saved(maps), Segmentation(reads="probabilities")
    with pytest.raises(DataError, match=rf"{clip(1)}: expected heat within 1e\+37(.|\n)*{clip(2)}: .*probabilities in"):
        score_maps(given, solos, [HEADLINE], asked)
    assert score_maps(given, solos, [HEADLINE], asked, allow_missing=True).counts["unusable"] == 2


def test_several_nameless_maps_are_the_best_of_them_and_told(solos: Truths, saved: Callable[..., Heatmaps]) -> None:
    maps = {id: noise(3, 7, 7, seed=i) for i, id in enumerate(solos.ids)}
    assert score_maps(saved(maps), solos, [HEADLINE]).counts["best_of_several"] == 6
    wide = {id: noise(4, 9, seed=i) - 1 for i, id in enumerate(solos.ids)}
    counts = score_maps(saved(wide, "wide"), solos, [HEADLINE]).counts
    assert (counts["best_of_several"], counts["other_shape"], counts["never_below_0"]) == (0, 6, 0)


def test_other_truths_other_maps_or_other_reading_make_another_record(
    vggss: Path, solos: Truths, saved: Callable[..., Heatmaps]
) -> None:
    given = saved(single_maps(solos))
    hashes = [record_of(score_maps(given, solos, [HEADLINE], reads)).hash for reads in (None, AVSBENCH)]
    hashes.append(record_of(score_maps(given, solos, named("ezvsl"))).hash)
    scored = score_maps(given, solos, [HEADLINE])
    hashes.append(record_of(with_others(scored, given, {"silence": given})).hash)
    text = (vggss / "vggss.json").read_text()
    (vggss / "vggss.json").write_text(text.replace("0.5", "0.6"))
    hashes.append(record_of(score_maps(given, open_truths("vggss", vggss), [HEADLINE])).hash)
    assert len(set(hashes)) == 5 and record_of(scored).hash == hashes[0]


def test_a_number_of_maps_that_is_not_that_of_the_sources(duets: Truths, saved: Callable[..., Heatmaps]) -> None:
    with pytest.raises(DataError, match="expected a map for each of 2 sources, got 1"):
        score_maps(saved(single_maps(duets, (7, 14))), duets, [HEADLINE], roles="sources")


def test_turns_tell_whether_the_map_follows_the_sound(duets: Truths, saved: Callable[..., Heatmaps]) -> None:
    follows = score_maps(saved(both(duets)), duets, named("framewise-matched-oracle"), roles="turns")
    deaf = score_maps(saved(both(duets, (0, 0)), "deaf"), duets, named("framewise-matched-oracle"), roles="turns")
    score_of = "interaction/framewise-matched-oracle/ciou@0.5"
    assert follows.summary.scalars[score_of] == pytest.approx(5 / 6), "one truth is empty"
    assert deaf.summary.scalars[score_of] == 0
    swapped = "swapped/framewise-matched-oracle/iou"
    assert follows.summary.scalars[swapped] < 0.2 < deaf.summary.scalars[swapped]
    assert follows.summary.scalars["oracle/half"] == 1 and deaf.summary.scalars["oracle/half"] == pytest.approx(6 / 11)
    assert follows.counts["clips"] == 6 and follows.summary.n == 12


def test_maps_under_other_sounds(solos: Truths, saved: Callable[..., Heatmaps]) -> None:
    maps = single_maps(solos)
    given = saved(maps)
    found = score_maps(given, solos, [HEADLINE])
    deaf = with_others(found, given, {"silence": given}).summary.scalars
    assert [deaf[f"silence/{name}"] for name in ("remaining", "quieter", "separability")] == [0.5, 0.5, 0.5]
    dark = {"noise": saved({id: heat - 2 for id, heat in maps.items()}, "dark")}
    quiet = with_others(found, given, dark).summary.scalars
    assert [quiet[f"noise/{name}"] for name in ("remaining", "quieter", "separability")] == [0, 1, 1]
    assert quiet[f"{NAME}/auc"] == found.summary.scalars[f"{NAME}/auc"]
    del maps[clip(4)]
    maps[clip(1)] = noise(9, 9)
    with pytest.raises(DataError, match=rf"{clip(1)}(.|\n)*got \(\(1, 9, 9\)(.|\n)*{clip(4)}"):
        with_others(found, given, {"offscreen": saved(maps, "fewer")})


def test_the_record_has_what_the_number_rests_on(solos: Truths, saved: Callable[..., Heatmaps], tmp_path: Path) -> None:
    found = score_maps(saved(single_maps(solos)), solos, named("ezvsl"), AVSBENCH, name="Theirs")
    record = record_of(found, seed=3)
    assert (record.method, record.dataset, record.preset, record.seed, record.n) == ("Theirs", "vggss", "maps", 3, 6)
    assert set(record.protocols) == {"ezvsl", "avsbench"} and record.protocols["ezvsl"]["digest"]
    assert record.experiment["maps"] == found.maps and record.ids == records.id_hash(solos.ids)
    back = records.load(records.save(record, tmp_path))
    assert back.metrics["ezvsl/auc"] == pytest.approx(found.summary.scalars["ezvsl/auc"], rel=1e-5)


def test_memory_is_that_of_a_batch_and_a_row(tmp_path: Path) -> None:
    """A clip more costs a row, not its maps: below 20 kB where its map and truth have 400 kB at 224 x 224."""
    import tracemalloc

    def peak(count: int) -> int:
        root = tmp_path / str(count)
        root.mkdir()
        boxes = [{"file": clip(i), "class": "cat", "bbox": [[0.1, 0.2, 0.6, 0.7]]} for i in range(count)]
        (root / "vggss.json").write_text(json.dumps(boxes))
        np.savez(root / "maps.npz", **{clip(i): noise(7, 7, seed=i) for i in range(count)})
        truths, maps = open_truths("vggss", root / "vggss.json"), Heatmaps(root / "maps.npz")
        tracemalloc.start()
        scored: Scored = score_maps(maps, truths, [HEADLINE])
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert scored.counts["clips"] == count
        return found

    peak(32)
    assert (peak(288) - peak(96)) / 192 < 20_000
