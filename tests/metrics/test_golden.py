"""The published evaluators' own numbers (tests/golden/README.md); those of constants are in test_bounds."""

import numpy as np
import torch

from m2vsl.metrics.heat import normalise
from m2vsl.metrics.matching import match, match_ap, permutation_invariant
from m2vsl.metrics.protocols import HEADLINE, PROTOCOLS
from m2vsl.metrics.ranking import average_precision_matrix, class_aware_ap, permutation_invariant_ap
from m2vsl.types import Maps, Truth

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
