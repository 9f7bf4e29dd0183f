"""AVS (ws): its parts against slow loops written from the text, and labels that reach the mask."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scenes import CLASSES, TINY, batch_of
from torch import Tensor, nn
from torch.nn import functional as F

from m2vsl.baselines.avs_ws import AVS, DILATIONS, TPAVI, AVSConfig, Decoder, Fusion, Residual, under
from m2vsl.types import Truth


def avs(**choices: object) -> AVS:
    torch.manual_seed(0)
    return AVS(AVSConfig(**{"encoder": TINY, "gain": 0.1, **choices}), CLASSES).eval()


def naive(net: TPAVI, cells: Tensor, sound: Tensor, frames: int) -> Tensor:
    """Baselines 7: theta(V) phi(A)^T / N over all N = T h w cells of a clip, times g(V); W; the residual; the norm."""
    size, out = cells.shape[-2:], []
    for clip, heard in zip(cells.split(frames), sound.split(frames), strict=True):
        flat = clip.movedim(1, -1).flatten(0, 2)  # (N, C)
        tiled = net.align(heard).repeat_interleave(size[0] * size[1], 0)  # (N, C), the sound at every cell
        theta = flat @ net.query.weight.flatten(1).T + net.query.bias
        phi, g = net.key(tiled), net.value(flat)
        y = torch.zeros_like(g)
        for i in range(len(flat)):
            for j in range(len(flat)):
                y[i] += theta[i] @ phi[j] / len(flat) * g[j]
        out.append((y @ net.project.weight.flatten(1).T).unflatten(0, (frames, *size)).movedim(-1, 1))
    added = net.norm(torch.cat(out))
    return F.layer_norm((cells + added).movedim(1, -1), cells.shape[1:2]).movedim(-1, 1)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("frames", "size"), [(2, (4, 4)), (1, (4, 4)), (1, (2, 4))])
def test_the_small_matrix_is_the_attention_of_every_cell_to_every_cell(
    frames: int, size: tuple[int, int], training: bool
) -> None:
    torch.manual_seed(0)
    net = TPAVI(8, 6, gain=1.0).double().train(training)
    cells, sound = torch.randn(2 * frames, 8, *size).double(), torch.randn(2 * frames, 6).double()
    with torch.no_grad():
        expected = naive(net, cells, sound, frames)
        found = net(cells, sound, frames)
    torch.testing.assert_close(found, expected)
    unheard = F.layer_norm(cells.movedim(1, -1), (8,)).movedim(-1, 1)
    assert (found - unheard).abs().max() > 0.01, "the sound adds nothing: the comparison says nothing"


def test_clips_do_not_hear_one_another_and_frames_of_a_clip_do() -> None:
    torch.manual_seed(0)
    net, cells, sound = TPAVI(8, 6, gain=1.0).eval(), torch.randn(4, 8, 3, 3), torch.randn(4, 6)
    other = sound.clone()
    other[3] = torch.randn(6)
    changed = (net(cells, sound, 2) - net(cells, other, 2)).abs().amax((1, 2, 3)) > 1e-6
    assert changed.tolist() == [False, False, True, True]


def test_the_original_is_deaf_at_the_start() -> None:
    batch = batch_of()
    swapped = replace(batch, spectrogram=batch.spectrogram.flip(0))
    for gain, deaf in ((0.0, True), (0.1, False)):
        method = avs(gain=gain)
        assert torch.equal(method.localize(batch).heat, method.localize(swapped).heat) == deaf


def test_fusion_is_four_dilated_convolutions_summed() -> None:
    torch.manual_seed(0)
    net, cells = Fusion(3, 2).double(), torch.randn(1, 3, 20, 5).double()
    expected = torch.zeros(1, 2, 20, 5).double()
    for y in range(20):
        for x in range(5):
            for conv, d in zip(net.each, (3, 6, 12, 18), strict=True):
                expected[0, :, y, x] += conv.bias
                for i in range(3):
                    for j in range(3):
                        v, u = y + d * (i - 1), x + d * (j - 1)
                        if 0 <= v < 20 and 0 <= u < 5:
                            expected[0, :, y, x] += conv.weight[:, :, i, j] @ cells[0, :, v, u]
    torch.testing.assert_close(net(cells), expected)
    assert DILATIONS == (3, 6, 12, 18)


def test_what_a_residual_unit_skips_has_gone_through_its_first_relu() -> None:
    net, x = Residual(4), torch.randn(2, 4, 3, 3)
    nn.init.zeros_(net.second.weight)
    nn.init.zeros_(net.second.bias)
    assert torch.equal(net(x), x.relu())


@pytest.mark.parametrize("height", [64, 100, 112, 224])
@pytest.mark.parametrize("frames", [1, 2])
def test_the_decoder_doubles_from_stage_to_stage_up_to_the_picture(height: int, frames: int) -> None:
    """56, 28, 14 and 7 cells of 224 px, then 112 and 224; where cells do not double, those of the next finer stage."""
    torch.manual_seed(0)
    sides = [math.ceil(height / stride) for stride in (4, 8, 16, 32)]
    net, seen = Decoder(4, 3), list[tuple[int, int]]()
    for unit in (*net.joint, net.first, net.second):
        unit.register_forward_hook(lambda _m, given, _o: seen.append(tuple(given[0].shape[-2:])))
    with torch.no_grad():
        drawn = net([torch.randn(1, 4, s, frames * s) for s in sides], (height, frames * height))
    assert drawn.shape == (1, 3, height, frames * height)
    expected = [*reversed(sides), 2 * sides[0], height]
    assert seen == [(s, frames * s) for s in expected]


def test_every_stage_is_drawn() -> None:
    torch.manual_seed(0)
    net, stages = Decoder(4, 1).eval(), [torch.randn(1, 4, s, s) for s in (16, 8, 4, 2)]
    with torch.no_grad():
        drawn = net(stages, (64, 64))
        for s in range(4):
            without = [torch.zeros_like(x) if i == s else x for i, x in enumerate(stages)]
            assert not torch.allclose(net(without, (64, 64)), drawn)


def test_the_mean_under_a_mask_by_hand() -> None:
    torch.manual_seed(0)
    mask, cells = torch.rand(2, 1, 8, 16), torch.randn(2, 3, 2, 4)
    expected = torch.zeros(2, 3)
    for b in range(2):
        weights = {(y, x): mask[b, 0, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean() for y in range(2) for x in range(4)}
        for (y, x), weight in weights.items():
            expected[b] += weight * cells[b, :, y, x] / sum(weights.values())
    torch.testing.assert_close(under(mask, cells), expected)
    assert torch.isfinite(under(torch.zeros(1, 1, 8, 8), torch.randn(1, 3, 2, 2))).all()


@pytest.mark.parametrize("loss", ["A", "B", "C"])
def test_the_loss_by_hand(loss: str) -> None:
    """The table of baselines 7: classes told by the cells under the mask, by the mean of a map each, by its peak."""
    method, batch = avs(loss=loss), batch_of()
    with torch.no_grad():
        drawn, cells = method.draw(batch)
        total = torch.zeros(())
        for b in range(4):
            for c in range(CLASSES):
                if loss == "A":
                    share = F.avg_pool2d(torch.sigmoid(drawn[b]), 64 // 2)[0]  # (2, 4): the last stage of 64 x 128 px
                    mean = sum(
                        share[y, x] * cells[b, :, y, x] / share.sum()
                        for y in range(cells.shape[-2])
                        for x in range(cells.shape[-1])
                    )
                    logit = method.tell.weight[c] @ mean + method.tell.bias[c]
                else:
                    logit = drawn[b, c].mean() if loss == "B" else drawn[b, c].max()
                right = torch.sigmoid(logit if batch.labels[b, c] else -logit)
                total -= right.log() / (4 * CLASSES)
        torch.testing.assert_close(method(batch)["labels"], total)


@pytest.mark.parametrize(("classify", "plateau"), [("bce", math.log(2)), ("ce", math.log(CLASSES))])
@pytest.mark.parametrize("loss", ["A", "B"])
def test_who_knows_nothing_stands_on_the_plateau(loss: str, classify: str, plateau: float) -> None:
    found = float(avs(loss=loss, classify=classify)(batch_of(8, frames=1))["labels"].detach())
    assert found == pytest.approx(plateau, abs=0.1)


@pytest.mark.parametrize("loss", ["A", "B", "C"])
def test_labels_reach_the_mask_and_no_mask_is_read(loss: str) -> None:
    method, batch = avs(loss=loss), batch_of()
    expected = method(batch)["labels"]
    expected.backward()
    head = method.decode.last.weight.grad
    assert head is not None and head.shape[0] == (1 if loss == "A" else CLASSES) and bool(head.any())
    scrambled = Truth(torch.rand_like(batch.truth.mask), batch.truth.classes.flip(0), ~batch.truth.present)
    assert torch.equal(method(replace(batch, truth=scrambled))["labels"], expected)
    assert not torch.equal(method(replace(batch, labels=1 - batch.labels))["labels"], expected)


@pytest.mark.parametrize("classify", ["bce", "ce"])
@pytest.mark.parametrize("loss", ["B", "C"])
def test_maps_of_the_classes_that_seem_to_be_there_are_united(loss: str, classify: str) -> None:
    method, batch = avs(loss=loss, classify=classify), batch_of()
    with torch.no_grad():
        method.decode.last.bias += torch.tensor([2.0, -4.0, 2.0, -4.0, -4.0])
        drawn = method.draw(batch)[0]
    if classify == "bce":
        sure = {
            b: [c for c in range(CLASSES) if (drawn[b, c].mean() if loss == "B" else drawn[b, c].max()) >= 0]
            for b in range(4)
        }
        assert any(len(classes) > 1 for classes in sure.values())
        expected = torch.stack([drawn[b, classes].amax(0) for b, classes in sure.items()])
    else:
        best = (drawn.mean((-2, -1)) if loss == "B" else drawn.amax((-2, -1))).argmax(-1)
        expected = drawn[torch.arange(4), best]  # of five classes no two have half of the probability
    maps = method.localize(batch)
    torch.testing.assert_close(maps.heat[:, 0], expected)
    assert maps.classes.tolist() == [-1]


def test_a_class_that_is_there_at_least_is_drawn() -> None:
    method, batch = avs(loss="B"), batch_of()
    with torch.no_grad():
        method.decode.last.bias -= torch.tensor([9.0, 8.0, 9.0, 9.0, 9.0])
    torch.testing.assert_close(method.localize(batch).heat[:, 0], method.draw(batch)[0][:, 1].detach())


def test_cross_entropy_refuses_several_labels() -> None:
    with pytest.raises(ValueError, match="expected one label per sample, got others in 4"):
        avs(classify="ce")(batch_of(frames=2))


def test_the_width_follows_the_common_space() -> None:
    """256 channels beside 512 in the paper's sizes."""
    assert avs().decode.first.in_channels == TINY.dim // 2
    assert avs(width=6).decode.first.in_channels == 6
    assert list(avs(scales=(4,)).hear) == ["4"]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"loss": "X"}, "loss: expected A, B or C, got 'X'"),
        ({"classify": "mse"}, "classify: expected bce or ce"),
        ({"width": 7}, "width: expected an even number"),
        ({"scales": (0, 4)}, "scales: expected stages among"),
        ({"scales": ()}, "scales: expected stages among"),
    ],
)
def test_choices_that_do_not_exist_are_refused(choice: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AVSConfig(**choice)  # type: ignore[arg-type]
