import pytest
import torch

from m2vsl.metrics.canvas import frame_count, on_canvas, own_frame, own_part
from m2vsl.metrics.overlap import Area, binarise, consensus_iou


def overlap(heat, truth):
    return consensus_iou(binarise(heat, Area(0.5)), truth)


def duet(left=True):
    truth = torch.zeros(1, 4, 8)
    truth[0, 1:3, slice(1, 3) if left else slice(5, 7)] = 1
    return truth


@pytest.mark.parametrize(("size", "frames"), [((4, 4), 1), ((4, 8), 2), ((4, 12), 3), ((4, 6), 1), ((8, 4), 1)])
def test_frames_are_square(size, frames):
    assert frame_count(*size) == frames


def test_a_source_lives_in_the_frame_of_its_mask():
    both, none = torch.maximum(duet(True), duet(False)), torch.zeros(1, 4, 8)
    assert own_frame(torch.cat([duet(True), duet(False), both, none])).tolist() == [0, 1, -1, -1]


def test_own_part_is_the_frame_itself():
    picture = torch.arange(64).view(2, 4, 8)
    assert torch.equal(own_part(picture, torch.tensor([1, 0])), torch.stack([picture[0, :, 4:], picture[1, :, :4]]))


def test_leaked_heat_costs_on_the_whole_picture_alone():
    heat = torch.rand(1, 4, 8, generator=torch.Generator().manual_seed(0)) / 10
    heat[0, :2, :4] += 1  # the own frame: its upper half
    leak = heat.clone()
    leak[0, :, 4:] += 2  # all of the other frame is hotter
    for map_, whole, own in ((heat, 2 / 18, 2 / 10), (leak, 0, 2 / 10)):
        assert float(on_canvas(overlap, map_, duet(), "sourcewise")) == pytest.approx(own)
        if whole == 0:
            assert float(on_canvas(overlap, map_, duet(), "framewise")) == 0
    assert float(on_canvas(overlap, heat, duet(), "framewise")) >= 2 / 18


def test_one_frame_is_the_same_either_way():
    heat, truth = torch.rand(3, 6, 6), (torch.rand(3, 6, 6) > 0.5).float()
    assert torch.equal(on_canvas(overlap, heat, truth, "sourcewise"), on_canvas(overlap, heat, truth, "framewise"))


def test_sources_of_several_frames_or_none_are_scored_on_the_whole_picture():
    heat = torch.rand(3, 4, 8)
    truth = torch.cat([torch.maximum(duet(True), duet(False)), torch.zeros(1, 4, 8), duet(False)])
    mixed = on_canvas(overlap, heat, truth, "sourcewise")
    torch.testing.assert_close(mixed[:2], overlap(heat[:2], truth[:2]))
    torch.testing.assert_close(mixed[2:], overlap(heat[2:, :, 4:], truth[2:, :, 4:]))
