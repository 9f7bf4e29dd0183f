"""CAM: its loss, its map by hand, what it does at test; and that it can see."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scenes import CLASSES, TINY, batch_of
from torch.nn import functional as F

from m2vsl import ops
from m2vsl.baselines.cam import CAM, CAMConfig
from m2vsl.metrics.columns import sounding
from m2vsl.types import Batch


def cam(**choices: object) -> CAM:
    torch.manual_seed(0)
    return CAM(CAMConfig(**{"encoder": TINY, **choices}), CLASSES).eval()


def mirrored(batch: Batch) -> Batch:
    return replace(batch, image=batch.image.flip(-1))


@pytest.mark.parametrize(("loss", "plateau"), [("bce", math.log(2)), ("ce", math.log(CLASSES))])
def test_the_loss_by_hand(loss: str, plateau: float) -> None:
    method, batch = cam(loss=loss), batch_of(20, frames=1)
    found = method(batch)["labels"]
    assert float(found.detach()) == pytest.approx(plateau, rel=0.1), "nothing is learnt yet"
    with torch.no_grad():
        cells, total = method.visual(batch.image)[-1], 0.0
        for b in range(20):
            logits = [
                float(method.head.weight[c] @ cells[b].mean((-2, -1)) + method.head.bias[c]) for c in range(CLASSES)
            ]
            own = int(batch.labels[b].argmax())
            if loss == "ce":
                total += (math.log(sum(math.exp(x) for x in logits)) - logits[own]) / 20
                continue
            for c, x in enumerate(logits):
                total += math.log1p(math.exp(-x if c == own else x)) / (20 * CLASSES)
    assert float(found.detach()) == pytest.approx(total, abs=1e-5)


def test_several_labels_count_each() -> None:
    method, batch = cam(), batch_of(frames=2)
    logits = method.maps(batch.image)[1]
    expected = F.multilabel_soft_margin_loss(logits, batch.labels)
    torch.testing.assert_close(method(batch)["labels"], expected)


def test_samples_that_it_cannot_learn_from_are_refused() -> None:
    batch = batch_of(frames=2)
    with pytest.raises(ValueError, match="expected one label a sample with loss='ce', got 2"):
        cam(loss="ce")(batch)
    with pytest.raises(ValueError, match="expected a label for every sample, got 4 without"):
        cam()(replace(batch, labels=torch.zeros_like(batch.labels)))


def test_the_map_is_weights_times_features_without_the_bias() -> None:
    method, batch = cam(), batch_of(2)
    with torch.no_grad():
        method.head.bias += 100
        cells = method.visual(batch.image)[-1]
        coarse = torch.zeros(2, CLASSES, *cells.shape[-2:])
        for b in range(2):
            for c in range(CLASSES):
                for k in range(cells.shape[1]):
                    coarse[b, c] += method.head.weight[c, k] * cells[b, k]
        mean = coarse.mean((-2, -1)) + method.head.bias
    maps = method.localize(batch)
    assert cells.shape[-2:] == (4, 8), "stride 16"
    torch.testing.assert_close(maps.heat, ops.upsample(coarse, (64, 128)), rtol=1e-4, atol=1e-4)
    assert (maps.heat < 0).any(), "before any ReLU"
    assert maps.presence is not None
    torch.testing.assert_close(maps.presence, torch.sigmoid(mean), rtol=1e-4, atol=1e-4)


def test_classes_of_which_one_is_there_share_their_presence() -> None:
    presence = cam(loss="ce").localize(batch_of()).presence
    assert presence is not None
    torch.testing.assert_close(presence.sum(-1), torch.ones(4))


def test_a_mirrored_picture_has_the_mirrored_map() -> None:
    method, plain, batch = cam(flip=True), cam(), batch_of()
    heat = method.localize(batch).heat
    torch.testing.assert_close(method.localize(mirrored(batch)).heat, heat.flip(-1), rtol=1e-4, atol=1e-5)
    both = (plain.localize(batch).heat + plain.localize(mirrored(batch)).heat.flip(-1)) / 2
    torch.testing.assert_close(heat, both, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(heat, plain.localize(batch).heat, atol=1e-3)


def test_sizes_are_averaged() -> None:
    batch = batch_of()
    small = ops.upsample(batch.image, (32, 64), align_corners=False)
    alone, method = cam(), cam(zooms=(1.0, 0.5))
    expected = (alone.localize(batch).heat + ops.upsample(alone.maps(small)[0].detach(), (64, 128))) / 2
    torch.testing.assert_close(method.localize(batch).heat, expected, rtol=1e-4, atol=1e-5)


def test_what_training_does_not_read_may_change() -> None:
    """Test-time fields must leave the training, and so its identity, as it is."""
    batch = batch_of()
    assert torch.equal(cam(zooms=(1.0, 0.5), flip=True)(batch)["labels"], cam()(batch)["labels"])
    assert CAMConfig.AT_TEST == {"zooms", "flip"}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"loss": "mse"}, "loss: expected bce or ce, got 'mse'"),
        ({"zooms": ()}, "zooms: expected one at least"),
        ({"zooms": (1.0, 0.0)}, "zooms: expected one at least, above 0"),
    ],
)
def test_choices_that_do_not_exist_are_refused(choice: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CAMConfig(**choice)  # type: ignore[arg-type]


def test_it_finds_the_half_in_which_a_class_is_seen() -> None:
    """Trained on single frames of one colour per class, it names both frames of a duet, and tells them apart."""
    method, batch = cam(encoder=replace(TINY, freeze=True)), batch_of(20, frames=1)
    colours = 3 * torch.randn(CLASSES, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    batch = replace(batch, image=batch.image / 4 + colours[batch.truth.classes[:, 0]])
    adam = torch.optim.Adam(method.head.parameters(), 1e-2)
    for _ in range(60):
        loss = method(batch)["labels"]
        adam.zero_grad()
        loss.backward()
        adam.step()
    duet = replace(batch, image=torch.cat([batch.image, batch.image.roll(1, 0)], -1))
    maps = method.localize(duet)
    left, right = batch.truth.classes[:, 0], batch.truth.classes[:, 0].roll(1)
    rows = torch.arange(20)
    halves = torch.stack([half.mean((-2, -1)) for half in maps.heat.chunk(2, -1)], -1)  # (20, C, 2)
    assert bool((halves[rows, left, 0] > halves[rows, left, 1]).all())
    assert bool((halves[rows, right, 1] > halves[rows, right, 0]).all())
    seen = method.localize(batch).presence
    assert seen is not None and torch.equal(sounding(seen), batch.labels.bool())
