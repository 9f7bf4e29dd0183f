"""C2AM: its three losses against loops, its normalised head, and the sign of its map."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scenes import CLASSES, TINY, batch_of
from torch import Tensor

from m2vsl import ops
from m2vsl.baselines.c2am import C2AM, C2AMConfig, alike, edge
from m2vsl.encoders import EncoderConfig
from m2vsl.training import checkpoint
from m2vsl.types import Batch


def c2am(**choices: object) -> C2AM:
    torch.manual_seed(0)
    return C2AM(C2AMConfig(**{"encoder": TINY, **choices}), CLASSES)


def scenes(count: int = 16, *, seed: int = 0) -> Batch:
    """Green discs in the middle third of grey pictures, at slightly different places."""
    drawn = torch.Generator().manual_seed(seed)
    batch = batch_of(count, frames=1, size=96)
    image = 0.1 * torch.randn(count, 3, 96, 96, generator=drawn)
    y, x = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    mask = torch.zeros(count, 1, 96, 96)
    for b in range(count):
        top, left = (48 + 12 * torch.rand(2, generator=drawn) - 6).tolist()
        mask[b, 0] = ((y - top) ** 2 + (x - left) ** 2 < 20**2).float()
    image[:, 1:2] += 3 * mask
    return replace(batch, image=image, truth=replace(batch.truth, mask=mask))


def trained(method: C2AM, batch: Batch, updates: int = 30) -> C2AM:
    adam = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 3e-3)
    method.train()
    for _ in range(updates):
        loss = sum(method(batch).values(), torch.zeros(()))
        adam.zero_grad()
        loss.backward()
        adam.step()
    return method.eval()


def cosine(one: Tensor, other: Tensor) -> float:
    return min(max(float(one @ other / one.norm() / other.norm()), 5e-4), 1 - 5e-4)


def pulled(vectors: list[Tensor], alpha: float) -> float:
    """Baselines 9: the mean over all pairs of w (-log cos), w = exp(-alpha rank), rank -1 for a vector itself."""
    total = 0.0
    for i, one in enumerate(vectors):
        similar = {j: cosine(one, other) for j, other in enumerate(vectors)}
        best = sorted(similar, key=lambda j: similar[j], reverse=True)
        assert best[0] == i
        for position, j in enumerate(best):
            total -= math.exp(-alpha * (position - 1)) * math.log(similar[j])
    return total / len(vectors) ** 2


@pytest.mark.parametrize("alpha", [0.25, 0.05])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_the_three_losses_by_hand(training: bool, alpha: float) -> None:
    method, batch = c2am(alpha=alpha, encoder=replace(TINY, freeze=True)).train(training), batch_of(5, frames=1)
    with torch.no_grad():
        cells = method.features(batch.image)
        share = torch.sigmoid(method.logits(cells))
        front = [(share[b] * cells[b]).sum((-2, -1)) / 16 for b in range(5)]  # 4 x 4 cells
        back = [((1 - share[b]) * cells[b]).sum((-2, -1)) / 16 for b in range(5)]
        found = method(batch)
    apart = sum(-math.log(1 - cosine(b, f)) for b in back for f in front) / 25
    assert float(found["apart"]) == pytest.approx(apart, rel=1e-3)
    assert float(found["foreground"]) == pytest.approx(pulled(front, alpha), rel=1e-3)
    assert float(found["background"]) == pytest.approx(pulled(back, alpha), rel=1e-3)


def test_features_are_the_last_two_stages_on_one_grid() -> None:
    batch = batch_of(2)
    for stride in (1, 2):
        method = c2am(last_stride=stride)
        *_, third, last = method.visual.eval()(batch.image)
        cells = method.features(batch.image)
        assert cells.shape == (2, third.shape[1] + last.shape[1], 4, 8)
        torch.testing.assert_close(cells[:, : last.shape[1]], ops.upsample(last, (4, 8)))
        assert torch.equal(cells[:, last.shape[1] :], third)


def test_the_more_similar_of_a_row_weigh_more() -> None:
    """Three unit vectors in a plane; ranks -1, 0 and 1 by hand."""
    angle = torch.tensor([0.0, 0.3, 1.0])
    vectors = torch.stack([angle.cos(), angle.sin()], -1)
    near, far, middle = math.cos(0.3), math.cos(1.0), math.cos(0.7)
    own = -3 * math.exp(0.5) * math.log(1 - 5e-4)
    by_rank = -(2 * math.log(near) + math.log(middle)) - math.exp(-0.5) * (2 * math.log(far) + math.log(middle))
    assert float(alike(vectors, 0.5)) == pytest.approx((own + by_rank) / 9, rel=1e-4)


def test_the_head_has_a_normalisation_that_learns_nothing() -> None:
    assert [name for name, _ in c2am().named_parameters() if not name.startswith("visual.")] == ["head.weight"]
    learnt = {name for name, _ in c2am(head_affine=True).named_parameters() if not name.startswith("visual.")}
    assert learnt == {"head.weight", "norm.weight", "norm.bias"}


def test_in_training_no_side_can_take_everything() -> None:
    method, batch = c2am().train(), batch_of(4)
    with torch.no_grad():
        method.head.weight.mul_(1000).add_(5)
        logits = method.logits(method.features(batch.image))
    assert float(logits.mean()) == pytest.approx(0, abs=1e-4)
    assert float(logits.var(unbiased=False)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("updates", [1, 3, 25])
def test_statistics_are_right_after_few_updates(updates: int) -> None:
    """A map far from mean 0 and variance 1, as a trained trunk may give: evaluation must draw it as training does."""
    method, batch = c2am(encoder=replace(TINY, freeze=True)), batch_of(6, frames=1)
    with torch.no_grad():
        method.head.weight.mul_(50)
    method.train()
    for _ in range(updates):
        method(batch)
    with torch.no_grad():
        expected = method.logits(method.features(batch.image))
        found = method.eval().logits(method.features(batch.image))
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


def test_the_edge_has_every_outer_cell_once() -> None:
    cells = torch.arange(12.0).view(1, 1, 3, 4)
    assert sorted(edge(cells)[0].tolist()) == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_map_that_is_high_along_the_border_is_turned_round(sign: int, tmp_path: Path) -> None:
    """Whichever side the head was pushed to, the middle is the foreground; and loading it elsewhere keeps that."""
    batch = scenes()
    method = c2am(encoder=replace(TINY, freeze=True))
    with torch.no_grad():  # what tells discs from grey, as cells see it
        cells = method.features(batch.image)
        direction = cells[..., 2:4, 2:4].mean((0, 2, 3)) - cells[..., 0, :].mean((0, 2))
        method.head.weight.zero_()
        method.head.weight[0, :, 1, 1] = sign * direction
    method.train()(batch)
    assert (float(method.border) > 0.5) == (sign < 0)
    heat = method.eval().localize(batch).heat[:, 0]
    inside = batch.truth.mask[:, 0] > 0
    assert float(heat[inside].mean()) > 0.5 > 0 > float(heat[~inside].mean())
    checkpoint.save(tmp_path / "kept", method.state_dict(), {})
    other = c2am(encoder=replace(TINY, freeze=True))
    other.load_state_dict(checkpoint.load(tmp_path / "kept").weights)
    assert torch.equal(other.eval().localize(batch).heat[:, 0], heat)
    with torch.no_grad():
        other.border.fill_(1 - float(other.border))
    torch.testing.assert_close(other.localize(batch).heat[:, 0], -heat)


def test_the_border_is_followed_in_training_alone() -> None:
    method, batch = c2am(), scenes(4)
    method.eval()(batch)
    assert float(method.border) == 0.5
    method.train()(batch)
    first = float(method.border)
    assert first != 0.5
    method.eval()(batch)
    assert float(method.border) == first


@pytest.mark.parametrize(
    "encoder",
    [replace(TINY, freeze=True), EncoderConfig(visual="resnet18", weights="none", freeze=False, audio_width=4, dim=32)],
    ids=["frozen lite", "whole resnet"],
)
def test_it_learns_without_taking_everything_or_nothing(encoder: EncoderConfig) -> None:
    batch = scenes()
    before = sum(float(v.detach()) for v in c2am(encoder=encoder).train()(batch).values())
    method = trained(c2am(encoder=encoder), batch, updates=30 if encoder.freeze else 6)
    with torch.no_grad():
        after = sum(float(v) for v in method.train()(batch).values())
    share = (method.eval().localize(batch).heat > 0).float().mean((1, 2, 3))
    assert after < before
    assert 0.02 < float(share.min()) and float(share.max()) < 0.98


def test_what_stands_out_in_all_pictures_becomes_the_foreground() -> None:
    """Whichever side the head starts on. Cells are coarse: the disc is found with some of what is around it."""
    batch, turned = scenes(), set[bool]()
    true = batch.truth.mask[:, 0] > 0
    for seed in range(2):
        method = c2am(encoder=replace(TINY, freeze=True))
        torch.manual_seed(seed)
        method.head.reset_parameters()
        heat = trained(method, batch).localize(batch).heat[:, 0]
        assert float(heat[true].mean()) > 1 + float(heat[~true].mean()), seed
        iou = ((heat > 0) & true).sum((-2, -1)) / ((heat > 0) | true).sum((-2, -1))
        assert bool((iou > 1.3 * true.float().mean((-2, -1))).all()), seed  # what all of a picture scores
        turned.add(float(method.border) > 0.5)
    assert turned == {False, True}


def test_one_picture_is_not_enough() -> None:
    with pytest.raises(ValueError, match=r"C2AM: expected at least two pictures.*got 1"):
        c2am()(batch_of(1))
    assert all(torch.isfinite(value) for value in c2am()(batch_of(2)).values())


def test_nothing_but_pictures_is_read() -> None:
    method, batch = c2am().eval(), batch_of()
    wrong = {field: 1 - getattr(batch, field) for field in ("heard", "seen", "labels")}
    other = replace(batch, **wrong, spectrogram=batch.spectrogram.flip(0))
    other = replace(other, truth=replace(batch.truth, mask=1 - batch.truth.mask, present=~batch.truth.present))
    assert all(torch.equal(a, b) for a, b in zip(method(batch).values(), method(other).values(), strict=True))
