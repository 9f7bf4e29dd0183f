from dataclasses import replace

import pytest
import torch

from m2vsl.metrics.overlap import Absolute, Area, Matched, MinMax
from m2vsl.metrics.protocols import HEADLINE, PROTOCOLS, Protocol


def test_twelve_protocols_the_headline_first():
    assert len(PROTOCOLS) == 12
    assert next(iter(PROTOCOLS)) == HEADLINE.name == "framewise-area50-oracle"
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())
    assert len({protocol.digest for protocol in PROTOCOLS.values()}) == 12
    assert (HEADLINE.rule, HEADLINE.canvas, HEADLINE.choice) == (Area(0.5), "framewise", "oracle")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"rule": Area(0.25)},
        {"rule": MinMax(0.5)},
        {"canvas": "sourcewise"},
        {"choice": "predicted"},
        {"at": (0.5,)},
        {"upsampling": "bicubic"},
        {"align_corners": False},
    ],
)
def test_every_field_changes_the_digest(change):
    assert replace(HEADLINE, **change).digest != HEADLINE.digest
    assert replace(HEADLINE).digest == HEADLINE.digest
    assert len(HEADLINE.digest) == 12


def test_coarse_maps_are_brought_to_size_and_others_left():
    coarse = torch.rand(2, 1, 7, 7)
    bilinear = HEADLINE.at_size(coarse, (28, 28))
    assert bilinear.shape == (2, 1, 28, 28)
    torch.testing.assert_close(bilinear[..., 0, 0], coarse[..., 0, 0])  # corners aligned
    assert not torch.equal(replace(HEADLINE, upsampling="bicubic").at_size(coarse, (28, 28)), bilinear)
    assert HEADLINE.at_size(bilinear, (28, 28)) is bilinear


def test_an_undefined_iou_is_a_failure():
    protocol = Protocol("strict", Absolute(9.0))
    assert protocol.iou(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)).tolist() == [0]
    assert PROTOCOLS["framewise-matched-oracle"].iou(torch.rand(1, 4, 4), torch.zeros(1, 4, 4)).tolist() == [0]


def test_bounds_know_their_canvas():
    truth = torch.zeros(1, 4, 8)
    truth[0, :, 4:6] = 1  # a quarter of the picture, half of its own frame
    bounds = {name: float(protocol.bound(truth)) for name, protocol in PROTOCOLS.items() if protocol.choice == "oracle"}
    assert bounds["framewise-area50-oracle"] == 0.5
    assert bounds["sourcewise-area50-oracle"] == 1
    assert bounds["framewise-matched-oracle"] == bounds["framewise-minmax05-oracle"] == 1


def test_matched_takes_the_area_from_the_truth():
    truth = torch.zeros(1, 4, 4)
    truth[0, 0, :3] = 1
    protocol = Protocol("matched", Matched())
    assert protocol.iou(truth + torch.rand(1, 4, 4) / 9, truth).tolist() == [1]
