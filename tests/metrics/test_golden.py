"""The published evaluators' own numbers, and what constants score on the public boxes (tests/golden/README.md)."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from m2vsl.metrics.heat import normalise
from m2vsl.metrics.matching import match, match_ap, permutation_invariant
from m2vsl.metrics.overlap import Area, binarise, bound, consensus_iou, success_auc, success_rate
from m2vsl.metrics.protocols import HEADLINE, PROTOCOLS
from m2vsl.metrics.ranking import average_precision_matrix, class_aware_ap, permutation_invariant_ap
from m2vsl.types import Maps, Truth

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SIDE = 224


def close(found, expected):
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=1e-6)


def test_single_source_as_ez_vsl_evaluates(golden):
    data = golden("single")
    truth = torch.from_numpy(data["truth"]).float()
    coarse = torch.from_numpy(np.stack([data["cosine_over_tau"], data["object_map"]], 1))
    heat, objects = HEADLINE.at_size(coarse, (SIDE, SIDE)).unbind(1)
    close(HEADLINE.iou(heat, truth), data["ezvsl_area50_iou"])
    guided = 0.4 * normalise(heat) + 0.6 * normalise(objects)
    close(HEADLINE.iou(guided, truth), data["ezvsl_area50_iou_object_guided"])


def test_duets(golden):
    data = golden("duet")
    heat, truth = torch.from_numpy(data["heat"]), torch.from_numpy(data["truth"])
    close(average_precision_matrix(heat, truth), data["ap_matrix"])
    diagonal, crossed = data["ap_matrix"].diagonal(axis1=1, axis2=2), data["ap_matrix"][:, [1, 0], [0, 1]]
    close(class_aware_ap(heat, truth), diagonal.mean(1))
    close(permutation_invariant_ap(heat, truth), np.maximum(diagonal.mean(1), crossed.mean(1)))
    for canvas in ("framewise", "sourcewise"):
        iou = PROTOCOLS[f"{canvas}-area50-oracle"].iou(heat.flatten(0, 1), truth.flatten(0, 1))
        close(iou.view(6, 2), data[f"{canvas}_iou"])


def test_duets_through_matching(golden):
    data = golden("duet")
    heat, mask = torch.from_numpy(data["heat"]), torch.from_numpy(data["truth"]).float()
    truth = Truth(mask, torch.tensor([[0, 1]] * 6), torch.ones(6, 2, dtype=torch.bool))
    found = match(Maps(heat, torch.tensor([0, 1])), truth)
    close(match_ap(found, truth), data["ap_matrix"])
    unnamed = match(Maps(heat, torch.tensor([-1, -1])), truth)
    close(permutation_invariant(unnamed, truth), permutation_invariant(found, truth))


# VGG-SS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def boxes(shared):
    """Truth of each of the 5,158 VGG-SS pictures: file -> row of a (5158, 224, 224) bool tensor."""
    entries = json.loads((shared / "metadata" / "vggss.json").read_text())
    masks = torch.zeros(len(entries), SIDE, SIDE, dtype=torch.bool)
    for mask, entry in zip(masks, entries, strict=True):
        for x0, y0, x1, y1 in (np.clip(np.array(entry["bbox"]), 0, 1) * SIDE).astype(int):
            mask[y0:y1, x0:x1] = True
    return {entry["file"]: i for i, entry in enumerate(entries)}, masks


@pytest.fixture(scope="module")
def pairs(shared, boxes):
    """The 5,158 published duets as rows of `boxes`, (5158, 2)."""
    row = boxes[0]
    lines = [line for line in read(shared / "metadata" / "vggsound_duet_test.csv") if len(line) == 4]
    known = {line[0] for line in lines}
    lines += [line for line in read(GOLDEN / "vggsound_duet_tail.csv") if line[0] not in known]
    return torch.tensor([(row[first], row[second]) for first, _, second, _ in lines])


def read(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def anchors(golden):
    return golden("vggss_anchors")


def centre(fraction):
    """A disc in the middle of a frame, as the area rule cuts it from the distance to the centre."""
    across = torch.arange(SIDE).double() - (SIDE - 1) / 2
    return binarise(-(across[:, None] ** 2 + across**2), Area(fraction))


def of_all(score, masks):
    """`score` of truths in portions: (n, ...) -> float64 (n,)."""
    return torch.cat([score(portion.float()) for portion in masks.split(16)]).nan_to_num(0)


def against(predicted):
    return lambda truth: consensus_iou(predicted.expand(truth.shape), truth)


def on_the_left(score):
    """`score` on a picture whose right frame holds the other source."""
    return lambda truth: score(torch.cat([truth, torch.zeros_like(truth)], -1))


def numbers(iou, *levels):
    return [*(success_rate(iou, level) for level in levels), success_auc(iou), float(iou.mean())]


EVERYTHING = torch.ones(SIDE, SIDE, dtype=torch.bool)


def half(truth):
    return bound(truth, Area(0.5))


@pytest.fixture(scope="module")
def sourcewise(boxes):
    """IoU of every picture under each constant predictor; frame by frame, so a duet's source scores the same."""
    predictors = {"all_ones": against(EVERYTHING), "centre_disc_top50pct": against(centre(0.5))}
    predictors |= {"centre_disc_top25pct": against(centre(0.25)), "oracle_under_top50pct": half}
    return {name: of_all(score, boxes[1]) for name, score in predictors.items()}


def test_constants_on_all_boxes(sourcewise, anchors):
    assert all(len(iou) == 5158 for iou in sourcewise.values())
    for name, iou in sourcewise.items():
        close(numbers(iou, 0.3, 0.5), anchors[name])


def test_no_map_passes_the_ceiling_of_half_the_picture(sourcewise):
    ceiling = sourcewise["oracle_under_top50pct"]
    assert success_auc(ceiling) == pytest.approx(0.4947, abs=1e-4)
    assert (sourcewise["centre_disc_top50pct"] <= ceiling + 2e-3).all(), "but for twelve pixels that tie"


def test_constants_on_duets_sourcewise(sourcewise, pairs, anchors):
    assert pairs.shape == (5158, 2)
    levels = (0.1, 0.3, 0.5)
    close(numbers(sourcewise["all_ones"][pairs].flatten(), *levels), anchors["duet_sourcewise_all_ones"])
    disc = sourcewise["centre_disc_top50pct"][pairs].flatten()
    close(numbers(disc, *levels), anchors["duet_sourcewise_centre_top50pct"])
    oracle = sourcewise["oracle_under_top50pct"][pairs].flatten()
    close(numbers(oracle, *levels), anchors["duet_sourcewise_oracle_top50pct"])


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("all_ones", against(EVERYTHING.repeat(1, 2))),
        ("centre_both_halves_top50pct", against(centre(0.5).repeat(1, 2))),
        ("oracle_top50pct", half),
    ],
)
def test_constants_on_duets_framewise(name, score, boxes, pairs, anchors):
    iou = of_all(on_the_left(score), boxes[1])  # these predictors treat both frames alike
    close(numbers(iou[pairs].flatten(), 0.1, 0.3, 0.5), anchors[f"duet_framewise_{name}"])


def test_a_map_without_leaks_scores_as_if_alone(boxes, sourcewise, anchors):
    own_half = against(torch.cat([EVERYTHING, ~EVERYTHING], -1))
    close(of_all(on_the_left(own_half), boxes[1][:200]), sourcewise["all_ones"][:200])
    close(anchors["duet_framewise_own_half_all_ones"], anchors["duet_sourcewise_all_ones"])
