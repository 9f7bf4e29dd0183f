"""Every published evaluator as a slow loop of its own, written from what its code does, against one pass over the maps.

Interpolation is done here by hand, pixel by pixel, so that alignment and kernel are tested too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from m2vsl.evaluate import add, score
from m2vsl.metrics.calls import AVSBENCH, PREDICTED
from m2vsl.metrics.detection import confidence
from m2vsl.metrics.protocols import EVERY, HEADLINE, PUBLISHED, named
from m2vsl.metrics.segmentation import f_score, frame_iou, mean_iou, to_logits
from m2vsl.metrics.tally import Summary, Tally, column
from m2vsl.types import Maps, Truth

SIDE, CELLS, CLIPS = 16, 5, 6
KEYS = [str(i) for i in range(CLIPS)]
Map = NDArray[np.float64]


# What the evaluators are made of --------------------------------------------------------------------------------------


def positions(cells: int, pixels: int, corners: bool) -> list[float]:
    """Where each pixel lies among the cells."""
    if corners:
        return [p * (cells - 1) / (pixels - 1) for p in range(pixels)]
    return [(p + 0.5) * cells / pixels - 0.5 for p in range(pixels)]


def cubic(x: float) -> float:
    """The kernel of convolution with a = -0.75."""
    x, a = abs(x), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def weights(cells: int, pixels: int, kind: str, corners: bool) -> Map:
    """(pixels, cells): how much of each cell every pixel is; cells beyond the edge are those at the edge."""
    found = np.zeros((pixels, cells))
    for pixel, place in enumerate(positions(cells, pixels, corners)):
        if kind == "bilinear":
            place = min(max(place, 0.0), cells - 1.0)
            around = {math.floor(place): 1 - place % 1, math.floor(place) + 1: place % 1}
        else:
            start = math.floor(place)
            around = {start + k: cubic(place - start - k) for k in (-1, 0, 1, 2)}
        for cell, weight in around.items():
            found[pixel, min(max(cell, 0), cells - 1)] += weight
    return found


def resized(coarse: Map, height: int, width: int, kind: str, corners: bool) -> Map:
    rows, columns = (weights(n, m, kind, corners) for n, m in zip(coarse.shape, (height, width), strict=True))
    return np.asarray(rows @ coarse @ columns.T)


def norm(h: Map) -> Map:
    return h if h.max() == h.min() else (h - h.min()) / (h.max() - h.min())


def median_of(h: Map) -> float:
    return float(sorted(h.flatten())[int(h.size / 2)])


def consensus(predicted: Map, truth: Map) -> float:
    beside = sum(float(p) for p, g in zip(predicted.flatten(), truth.flatten(), strict=True) if g == 0)
    total = float(truth.sum()) + beside
    return float((predicted * truth).sum()) / total if total else math.nan


def half_kept(h: Map, truth: Map) -> float:
    """EZ-VSL, SLAVC, AVGN."""
    h = norm(h)
    return consensus((h >= median_of(h)).astype(float), truth)


def half_above(h: Map, truth: Map) -> float:
    """LVS, NoPrior: what is above the threshold becomes 1, what is then below 1 becomes 0."""
    h = norm(h).copy()
    threshold = median_of(h)
    h[h > threshold] = 1
    h[h < 1] = 0
    return consensus(h, truth)


def area_under(ious: list[float]) -> float:
    rates = [sum(i >= 0.05 * k for i in ious) / len(ious) for k in range(21)]
    return sum((rates[k] + rates[k + 1]) / 2 * (0.05 * (k + 1) - 0.05 * k) for k in range(20))


# Pictures -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def solos() -> tuple[Map, Map]:
    """Coarse maps (n, 5, 5) and truths (n, 16, 16); one truth is empty, one full."""
    drawn = np.random.default_rng(3)
    truths = np.zeros((CLIPS, SIDE, SIDE))
    for i, truth in enumerate(truths[1:]):
        truth[2 + i : 9 + i, 1 : 6 + 2 * i] = 1
    truths[-1] = 1
    return drawn.standard_normal((CLIPS, CELLS, CELLS)), truths


@pytest.fixture(scope="module")
def duets() -> tuple[Map, Map]:
    """Maps of both sources (n, 2, 5, 10) and truths (n, 2, 16, 32), each on its own half."""
    drawn = np.random.default_rng(1)
    truths = np.zeros((CLIPS, 2, SIDE, 2 * SIDE))
    for i, truth in enumerate(truths):
        truth[0, 2 : 8 + i, 1 : 5 + 2 * i] = 1
        truth[1, 5:12, SIDE + 2 + i : SIDE + 11] = 1
    return drawn.standard_normal((CLIPS, 2, CELLS, 2 * CELLS)), truths


def single(coarse: Map, truths: Map, names: str = "all") -> Summary:
    tally = Tally(named(names), AVSBENCH)
    maps = Maps(torch.from_numpy(coarse)[:, None], torch.tensor([-1]))
    add(tally, maps, truth_of(truths[:, None]), [str(i) for i in range(len(coarse))])
    return tally.summary()


def duet(coarse: Map, truths: Map, classes: tuple[int, ...] = (0, 1)) -> Summary:
    tally = Tally(EVERY.values(), AVSBENCH)
    maps = Maps(torch.from_numpy(coarse), torch.tensor(classes))
    add(tally, maps, truth_of(truths), [str(i) for i in range(len(coarse))])
    return tally.summary()


def truth_of(masks: Map) -> Truth:
    count, sources = masks.shape[:2]
    classes = torch.arange(sources).expand(count, sources)
    return Truth(torch.from_numpy(masks).float(), classes, torch.ones(count, sources, dtype=torch.bool))


def close(found: object, expected: object) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=2e-6)


# Evaluators of solos --------------------------------------------------------------------------------------------------


def absolute(h: Map, truth: Map) -> float:
    """SLAVC as released: cosines over tau brought from [-1 / tau, 1 / tau] to [0, 1], cut at 0.5."""
    tau = 0.03
    return consensus((((h / tau + 1 / tau) / (2 / tau)) >= 0.5).astype(float), truth)


def of_max(share: float) -> Callable[[Map, Map], float]:
    return lambda h, truth: consensus((h > share * h.max()).astype(float), truth)


def spread(level: float) -> Callable[[Map, Map], float]:
    return lambda h, truth: consensus((norm(h) >= level).astype(float), truth)


SINGLE: dict[str, tuple[str, bool, Callable[[Map, Map], float]]] = {
    "ezvsl": ("bilinear", True, half_kept),
    "lvs": ("bilinear", False, half_above),
    "slavc": ("bicubic", True, half_kept),
    "slavc_as_released_absolute": ("bicubic", True, absolute),
    "avgn": ("bicubic", True, half_kept),
    "tvsl-0.1": ("bicubic", False, spread(0.1)),
    "tvsl-0.3": ("bicubic", False, spread(0.3)),
    "noprior": ("bicubic", False, half_above),
    "dsol-0.1": ("bilinear", False, of_max(0.1)),
    "dsol-0.2": ("bilinear", False, of_max(0.2)),
    "dsol-0.5": ("bilinear", False, of_max(0.5)),
}


def by_hand(name: str, coarse: Map, truths: Map) -> list[float]:
    kind, corners, measure = SINGLE[name]
    return [measure(resized(h, SIDE, SIDE, kind, corners), truth) for h, truth in zip(coarse, truths, strict=True)]


def test_no_evaluator_is_forgotten() -> None:
    assert set(SINGLE) == set(PUBLISHED)


@pytest.mark.parametrize("name", SINGLE)
def test_a_published_evaluator_of_solos(name: str, solos: tuple[Map, Map]) -> None:
    ious = [0 if math.isnan(iou) else iou for iou in by_hand(name, *solos)]
    found = single(*solos)
    close(column(found.sources, name), ious)
    strict, boxed = name.startswith(("slavc", "avgn")), name.startswith(("slavc", "avgn"))
    for level in (0.1, 0.3, 0.5):
        rate = sum(iou > level if strict else iou >= level for iou in ious) / CLIPS
        assert found.scalars[f"{name}/ciou@{level}"] == pytest.approx(rate)
    assert found.scalars[f"{name}/auc"] == pytest.approx(area_under(ious[1:] if boxed else ious))


def test_the_evaluators_disagree(solos: tuple[Map, Map]) -> None:
    found = single(*solos)
    assert len({round(found.scalars[f"{name}/iou"], 6) for name in PUBLISHED}) >= 9  # slavc and avgn agree on solos


def test_a_full_truth_is_found_by_some_alone(solos: tuple[Map, Map]) -> None:
    """Under the 50 % rule its IoU is 0.5: found by >=, not by >."""
    found = single(solos[0][-1:], solos[1][-1:])
    assert found.scalars["ezvsl/ciou@0.5"] == 1
    assert found.scalars["slavc/ciou@0.5"] == found.scalars["avgn/ciou@0.5"] == 0
    assert found.scalars["slavc/iou"] == 0.5


def test_an_empty_truth_alone_leaves_no_area_to_those_that_want_boxes(solos: tuple[Map, Map]) -> None:
    found = single(solos[0][:1], solos[1][:1])
    assert found.scalars["ezvsl/auc"] == pytest.approx(0.025) and "slavc/auc" not in found.scalars
    assert found.counts["empty_truths"] == 1 and "oracle/ap" not in found.scalars


def test_saturation_keeps_or_shrinks() -> None:
    """Three quarters of the map tie at the top: >= keeps them, > too (they are the maximum); ties below differ."""
    low = np.ones((1, SIDE, SIDE))
    low[0, :4] = 2.0  # a quarter stands out, all others tie with the median
    truth = np.zeros((1, SIDE, SIDE))
    truth[0, :4] = 1
    found = single(low, truth)
    assert found.scalars["ezvsl/iou"] == 0.25 and found.scalars["lvs/iou"] == 1
    top = -low + 3  # now three quarters are the maximum
    found = single(top, 1 - truth)
    assert found.scalars["ezvsl/iou"] == found.scalars["lvs/iou"] == 1


@pytest.mark.parametrize(("value", "everything"), [(0.0, True), (0.3, True), (-0.3, False)])
def test_a_constant_under_lvs_hangs_on_its_sign(value: float, everything: bool) -> None:
    truth = np.zeros((1, SIDE, SIDE))
    truth[0, :8] = 1
    found = single(np.full((1, SIDE, SIDE), value), truth)
    assert found.scalars["lvs/iou"] == (0.5 if everything else 0)
    assert found.scalars["ezvsl/iou"] == 0.5


def test_slavcs_confidence_is_that_of_its_own_maps(solos: tuple[Map, Map]) -> None:
    found = single(*solos)
    expected = [sorted(resized(h, SIDE, SIDE, "bicubic", True).flatten())[-SIDE * SIDE // 4 :] for h in solos[0]]
    close(column(found.sources, "confidence"), [np.mean(top) for top in expected])
    assert 0 <= found.scalars["slavc_as_released/detection_ap@0.1"] <= found.scalars["slavc/detection_ap@0.1"] <= 1


def test_avsbench_on_the_maps_of_the_headline(solos: tuple[Map, Map]) -> None:
    found = single(*solos)
    size = (SIDE, SIDE)
    logits = to_logits(HEADLINE.at_size(torch.from_numpy(solos[0])[:, None], size)[:, 0])
    truth = torch.from_numpy(solos[1]).float()
    assert found.scalars["avsbench/miou"] == pytest.approx(mean_iou(logits, truth))
    assert found.scalars["avsbench/f"] == pytest.approx(f_score(logits, truth))
    assert found.scalars["avsbench/f@call5"] == pytest.approx(f_score(logits, truth, 5))
    close(column(found.pictures, "avsbench/iou"), frame_iou(logits, truth))
    assert found.pictures[0]["avsbench/f"] is None, "its truth is empty"


# Evaluators of duets --------------------------------------------------------------------------------------------------


def halves(picture: Map) -> list[Map]:
    return [picture[:, :SIDE], picture[:, SIDE:]]


def test_avgn_scores_each_frame_by_itself(duets: tuple[Map, Map]) -> None:
    found = duet(*duets)
    ious, aps = [], []
    for maps, truths in zip(*duets, strict=True):
        for source in range(2):
            frame = resized(maps[source][:, CELLS * source : CELLS * (source + 1)], SIDE, SIDE, "bicubic", True)
            truth = halves(truths[source])[source]
            ious.append(half_kept(frame, truth))
            predicted = (norm(frame) >= median_of(norm(frame))).astype(int)
            aps.append(average_precision_score(predicted.flatten(), truth.flatten()))
    close(column(found.sources, "avgn"), ious)
    assert found.scalars["avgn/ciou@0.3"] == pytest.approx(np.mean([iou > 0.3 for iou in ious]))
    close(column(found.sources, "avgn_as_released/piap"), aps)


def test_tvsl_scores_the_canvas_and_prints_a_mean(duets: tuple[Map, Map]) -> None:
    found = duet(*duets)
    for level in (0.1, 0.3):
        ious, aps = [], []
        for maps, truths in zip(*duets, strict=True):
            for source in range(2):
                heat = norm(resized(maps[source], SIDE, 2 * SIDE, "bicubic", False))
                ious.append(consensus((heat >= level).astype(float), truths[source]))
                aps.append(average_precision_score(truths[source].flatten(), heat.flatten()))
        assert found.scalars[f"tvsl-{level}/iou"] == pytest.approx(np.mean(ious))
        close(column(found.sources, "tvsl/ap"), aps)


def test_dsol_averages_a_picture_before_it_succeeds(duets: tuple[Map, Map]) -> None:
    found = duet(*duets)
    pictures = []
    for maps, truths in zip(*duets, strict=True):
        both = [resized(m, SIDE, 2 * SIDE, "bilinear", False) for m in maps]
        pictures.append(np.mean([of_max(0.2)(m, truth) for m, truth in zip(both, truths, strict=True)]))
    for level in (0.1, 0.3):
        assert found.scalars[f"dsol-0.2/ciou@{level}"] == pytest.approx(np.mean([p >= level for p in pictures]))
    assert found.scalars["dsol-0.2/auc"] == pytest.approx(area_under(list(pictures)))
    singly = np.mean(column(found.sources, "dsol-0.2").numpy() >= 0.1)
    assert singly != found.scalars["dsol-0.2/ciou@0.1"], "per source it is another number"


def binary(frame: Map) -> Map:
    frame = norm(frame).copy()
    threshold = median_of(frame)
    frame[frame > threshold] = 1
    frame[frame < 1] = 0
    return frame


def noprior_by_hand(duets: tuple[Map, Map]) -> tuple[list[float], list[float], list[float]]:
    """IoU and AP of each source, AP of each picture; maps in their order, each takes the half it covers best."""
    ious, aps, pictures = [], [], []
    for maps, truths in zip(*duets, strict=True):
        real = [halves(truths[s])[s] for s in range(2)]
        big = [resized(m, SIDE, 2 * SIDE, "bicubic", False) for m in maps]
        summed = [binary(frame) for frame in halves(np.sum(big, axis=0))]
        pictures.append(average_precision_score(np.ravel(real).astype(int), np.ravel(summed)))
        left, iou, ap = [0, 1], {}, {}
        for heat in big:
            scores = {s: consensus(binary(halves(heat)[s]), real[s]) for s in left}
            best = max(left, key=lambda s: scores[s])
            iou[best] = scores[best]
            ap[best] = average_precision_score(real[best].flatten().astype(int), binary(halves(heat)[best]).flatten())
            left.remove(best)
        ious += [iou[0], iou[1]]
        aps += [ap[0], ap[1]]
    return ious, aps, pictures


@pytest.mark.parametrize("classes", [(0, 1), (-1, -1)])
def test_noprior_gives_each_map_the_half_it_covers_best(duets: tuple[Map, Map], classes: tuple[int, int]) -> None:
    found = duet(*duets, classes)
    ious, aps, pictures = noprior_by_hand(duets)
    close(column(found.sources, "noprior"), ious)
    close(column(found.sources, "noprior_as_released/cap"), aps)
    close(column(found.pictures, "noprior_as_released/piap"), pictures)


def test_a_single_map_leaves_a_source_without_under_noprior(duets: tuple[Map, Map]) -> None:
    found = duet(duets[0][:, :1], duets[1], (-1,))
    ious = column(found.sources, "noprior").view(CLIPS, 2)
    assert ((ious == 0).sum(1) == 1).all(), "one source each"
    assert (column(found.sources, "ezvsl") > 0).all(), "elsewhere one map answers for both"


def test_a_silent_source_is_no_business_of_noprior_and_all_others_score_it(duets: tuple[Map, Map]) -> None:
    tally, truth = Tally(EVERY.values()), truth_of(duets[1])
    present = torch.tensor([[True, False]] * CLIPS)
    add(tally, Maps(torch.from_numpy(duets[0]), torch.tensor([0, 1])), Truth(truth.mask, truth.classes, present), KEYS)
    scalars = tally.summary().scalars
    assert {f"{name}/iou" for name in EVERY if "predicted" not in name} <= set(scalars)
    assert "swapped/noprior/iou" not in scalars and "swapped/avgn/iou" in scalars


@pytest.mark.parametrize("offset", [-0.7, 0.0, 0.7])
def test_where_nothing_sounds_no_map_answers_and_all_is_background(duets: tuple[Map, Map], offset: float) -> None:
    tally, truth = Tally([HEADLINE], AVSBENCH), truth_of(duets[1])
    nothing = Truth(truth.mask, truth.classes, torch.zeros_like(truth.present))
    maps = Maps(torch.from_numpy(duets[0]) + offset, torch.tensor([0, 1]), torch.full((CLIPS, 2), 0.5))
    add(tally, maps, nothing, KEYS)
    found = tally.summary()
    assert found.scalars == {"avsbench/miou": 1, "avsbench/f": 0, "avsbench/f@call5": 0, "avsbench/f@call20": 0}
    assert {row["heard"] for row in found.pictures} == {None}, "nothing to hear"


def test_who_predicts_unites_the_maps_of_what_it_hears(duets: tuple[Map, Map]) -> None:
    """The first class is surely heard and the second is not; in the last picture neither is, and the surest answers."""
    heat = torch.from_numpy(duets[0])
    presence = torch.tensor([[0.9, 0.2]] * (CLIPS - 1) + [[0.1, 0.4]])
    tally = Tally([HEADLINE], AVSBENCH, PREDICTED)
    add(tally, Maps(heat, torch.tensor([0, 1]), presence), truth_of(duets[1]), KEYS)
    found, chosen = tally.summary(), [0] * (CLIPS - 1) + [1]
    full = HEADLINE.at_size(heat, duets[1].shape[-2:])
    either = torch.from_numpy(duets[1]).amax(1)
    alone = frame_iou(to_logits(full[torch.arange(CLIPS), chosen]), either)
    close(column(found.pictures, "avsbench-predicted/iou"), alone)
    close(column(found.pictures, "avsbench/iou"), frame_iou(to_logits(full.amax(1)), either))
    assert found.scalars["avsbench-predicted/miou"] == pytest.approx(float(alone.mean()))


def test_without_presence_or_names_nobody_predicts(duets: tuple[Map, Map]) -> None:
    for classes in ((0, 1), (-1, -1)):
        tally = Tally([HEADLINE], PREDICTED)
        add(tally, Maps(torch.from_numpy(duets[0]), torch.tensor(classes)), truth_of(duets[1]), KEYS)
        assert not [name for name in tally.summary().scalars if "avsbench" in name]


def test_every_picture_has_its_key(duets: tuple[Map, Map]) -> None:
    maps = Maps(torch.from_numpy(duets[0]), torch.tensor([0, 1]))
    for keys in (KEYS[1:], [*KEYS, "more"]):
        with pytest.raises(ValueError, match=rf"expected a key for each of 6 pictures, got {len(keys)}"):
            add(Tally([HEADLINE]), maps, truth_of(duets[1]), keys)


# One pass -------------------------------------------------------------------------------------------------------------


def test_how_the_batch_is_cut_changes_nothing(duets: tuple[Map, Map]) -> None:
    whole, parts = duet(*duets), Tally(EVERY.values(), AVSBENCH)
    for i in range(CLIPS):
        maps = Maps(torch.from_numpy(duets[0][i : i + 1]), torch.tensor([0, 1]))
        add(parts, maps, truth_of(duets[1][i : i + 1]), [str(i)])
    assert parts.summary().scalars == pytest.approx(whole.scalars, abs=1e-12)


def test_maps_at_the_size_of_the_picture_are_brought_there_by_nobody(solos: tuple[Map, Map]) -> None:
    full = np.stack([resized(h, SIDE, SIDE, "bilinear", True) for h in solos[0]])
    found = single(full, solos[1])
    close(column(found.sources, "slavc"), column(found.sources, "ezvsl"))
    close(column(found.sources, "ezvsl"), column(single(*solos).sources, "ezvsl"))


def test_only_what_is_asked_for_is_measured(solos: tuple[Map, Map]) -> None:
    tally, maps = Tally(named("lvs")), Maps(torch.from_numpy(solos[0])[:, None], torch.tensor([-1]))
    truth = truth_of(solos[1][:, None])
    add(tally, maps, truth, list("abcdef"))
    names = {name.partition("/")[0] for name in tally.summary().scalars}
    assert names == {"lvs", "oracle", "predicted"}
    sources, pictures = score(maps, truth, list("abcdef"))
    assert len(sources) == len(pictures) == CLIPS and "ezvsl" not in sources[0]


def test_confidence_in_a_map_of_four_pixels_is_its_hottest() -> None:
    assert float(confidence(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))) == 4
