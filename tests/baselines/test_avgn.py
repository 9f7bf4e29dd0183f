"""AVGN: slots of classes, mixtures of two classes, the picture's own slot against its cells."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scenes import CLASSES, TINY, Pixels, batch_of
from torch import Tensor
from torch.nn import functional as F

from m2vsl.baselines import avgn
from m2vsl.baselines.avgn import AVGN, AVGNConfig, partners
from m2vsl.types import Batch


def method_of(**choices: object) -> AVGN:
    torch.manual_seed(0)
    return AVGN(AVGNConfig(**{"encoder": TINY, **choices}), CLASSES)


def scores_by_loops(method: AVGN, batch: Batch, spectrogram: Tensor) -> Tensor:
    """Largest product of a unit cell of picture b with the slot of sample n's own class, (B, B)."""
    cells, slots = method.cells(batch.image), method.hear(spectrogram)
    scores = torch.zeros(len(batch), len(batch))
    for n in range(len(batch)):
        slot = slots[n, int(batch.truth.classes[n, 0])]
        if method.config.normalise_slots:
            slot = slot / slot.norm()
        for b in range(len(batch)):
            scores[b, n] = max(slot @ (cell / cell.norm()) for cell in cells[b].flatten(1).T)
    return scores


@pytest.mark.parametrize("normalise", [False, True])
def test_a_picture_and_the_slot_of_its_class_find_one_another(normalise: bool) -> None:
    """Protocol 4.1: symmetric InfoNCE of the peaks over tau; slots keep their length unless asked."""
    method, batch = method_of(mixtures=False, normalise_slots=normalise).eval(), batch_of(frames=1)
    with torch.no_grad():
        logits = scores_by_loops(method, batch, batch.spectrogram) / 0.03
        expected = sum(-line[i] + line.logsumexp(0) for x in (logits, logits.T) for i, line in enumerate(x)) / 4
        torch.testing.assert_close(method(batch)["contrast"], expected, rtol=1e-4, atol=1e-4)


def test_slots_that_keep_their_length_make_more_than_cosines() -> None:
    free, bound, batch = method_of().eval(), method_of(normalise_slots=True).eval(), batch_of()
    assert bound.localize(batch).heat.abs().max() <= 1 + 1e-5
    length = free.hear(batch.spectrogram).norm(dim=-1)
    assert length.min() > 2
    ratio = free.localize(batch).heat / bound.localize(batch).heat
    torch.testing.assert_close(ratio.mean((-2, -1)), length, rtol=1e-3, atol=1e-3)


def test_tokens_begin_at_zero_and_both_branches_share_them() -> None:
    method, batch = method_of().train(), batch_of(frames=1)
    assert method.tokens.shape == (CLASSES, TINY.dim) and not method.tokens.any()
    for name in ("seen", "heard"):
        method.zero_grad()
        method(batch)[name].backward()
        assert method.tokens.grad is not None and method.tokens.grad.any(), name
    assert [len(branch) for branch in method.phi.values()] == [3, 3]
    assert method.phi["audio"][0].attention.heads == 8


def test_zero_tokens_are_not_recognised_and_grouping_alone_tells_their_slots_apart() -> None:
    method, batch = method_of().eval(), batch_of(frames=1)
    loss = method(batch)["token"]
    assert abs(float(loss.detach()) - math.log(CLASSES)) < 0.05  # the same token for every class
    loss.backward()
    assert method.token_head.weight.grad is not None and not method.token_head.weight.grad.any()
    with torch.no_grad():
        method.tokens.add_(0.1 * torch.randn_like(method.tokens))
    method.zero_grad()
    method(batch)["token"].backward()
    assert method.token_head.weight.grad.any()
    slots = method_of().eval().hear(batch.spectrogram)
    assert (slots[:, 0] - slots[:, 1]).norm(dim=-1).min() > 0.1


def test_a_mixture_is_heard_as_both_classes_and_seen_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = method_of().eval(), batch_of(frames=1)
    other = torch.tensor([2, 0, 3, 1])
    monkeypatch.setattr(avgn, "partners", lambda classes: other)
    mixed = torch.stack([torch.maximum(batch.spectrogram[i], batch.spectrogram[j]) for i, j in enumerate(other)])
    with torch.no_grad():
        losses, slots = method(batch), method.hear(mixed)
        heard, seen = (
            torch.sigmoid(method.heard_head(slots)),
            torch.sigmoid(method.seen_head(method.see(method.cells(batch.image)))),
        )
        expected = {"heard": 0.0, "seen": 0.0}
        for b in range(4):
            own, partner = int(batch.truth.classes[b, 0]), int(batch.truth.classes[other[b], 0])
            for c in range(CLASSES):
                p, q = heard[b, c, 0], seen[b, c, 0]
                expected["heard"] -= float((p if c in (own, partner) else 1 - p).log()) / (4 * CLASSES)
                expected["seen"] -= float((q if c == own else 1 - q).log()) / (4 * CLASSES)
        logits = scores_by_loops(method, batch, mixed) / 0.03
    for name, value in expected.items():
        assert float(losses[name]) == pytest.approx(value, rel=1e-4)
    contrast = sum(F.cross_entropy(x, torch.arange(4)) for x in (logits, logits.T))
    torch.testing.assert_close(losses["contrast"], contrast, rtol=1e-4, atol=1e-4)


def test_without_mixtures_a_solo_is_heard_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = method_of(mixtures=False).eval(), batch_of(frames=1)
    monkeypatch.setattr(avgn, "partners", lambda classes: pytest.fail("a partner was drawn"))
    with torch.no_grad():
        heard = method.heard_head(method.hear(batch.spectrogram)).squeeze(-1)
        expected = F.binary_cross_entropy_with_logits(heard, batch.heard)
        torch.testing.assert_close(method(batch)["heard"], expected)


def test_partners_are_of_another_class_any_of_them_and_drawn_from_the_global_generator() -> None:
    classes = torch.tensor([0, 0, 1, 2, 2, 2])
    torch.manual_seed(0)
    drawn = torch.stack([partners(classes) for _ in range(200)])
    assert (classes[drawn] != classes).all()
    for i, mine in enumerate(classes):
        counts = torch.bincount(drawn[:, i], minlength=6)[classes != mine]
        assert counts.min() > 0.5 * counts.float().mean(), f"sample {i}: {counts.tolist()}"
    torch.manual_seed(0)
    assert torch.equal(partners(classes), drawn[0])


def test_sum_over_classes_weighs_presence_by_their_number() -> None:
    batch = batch_of(frames=1)
    mean, total = (method_of(class_reduction=r, mixtures=False).eval()(batch) for r in ("mean", "sum"))
    for name in ("seen", "heard"):
        torch.testing.assert_close(total[name], CLASSES * mean[name])
    torch.testing.assert_close(total["contrast"], mean["contrast"])


def test_the_map_of_a_class_is_its_slot_times_the_unit_cells() -> None:
    method, batch = method_of().eval(), batch_of()
    maps = method.localize(batch)
    with torch.no_grad():
        cells, slots = method.cells(batch.image), method.hear(batch.spectrogram)
        coarse = torch.stack(
            [(F.normalize(cells, dim=1) * slots[:, c, :, None, None]).sum(1) for c in range(CLASSES)], 1
        )
        presence = torch.sigmoid(method.heard_head(slots)[..., 0])
    assert coarse.shape[-2:] == (2, 4)
    torch.testing.assert_close(maps.heat, F.interpolate(coarse, (64, 128), mode="bilinear", align_corners=True))
    assert maps.classes.tolist() == list(range(CLASSES)) and maps.presence is not None
    torch.testing.assert_close(maps.presence, presence)


def test_the_branch_of_the_picture_reaches_maps_through_the_trunk_alone() -> None:
    method, batch = method_of().eval(), batch_of()
    before = method.localize(batch).heat
    with torch.no_grad():
        for part in (method.phi["visual"], method.group["visual"], method.seen_head):
            for parameter in part.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    assert torch.equal(method.localize(batch).heat, before)


def test_the_stride_of_the_last_stage_is_a_choice() -> None:
    assert method_of(last_stride=1).eval().cells(batch_of().image).shape[-2:] == (4, 8)


def test_nothing_depends_on_where_a_cell_lies() -> None:
    method, batch = method_of().eval(), batch_of(size=8)
    method.visual = Pixels(method.visual.channels[-1])
    swapped = replace(batch, image=batch.image.roll(8, -1))
    maps = method.localize(batch).heat
    torch.testing.assert_close(method.localize(swapped).heat, maps.roll(8, -1))
    assert not torch.allclose(maps.roll(8, -1), maps, atol=0.1)
    torch.testing.assert_close(method.see(method.cells(swapped.image)), method.see(method.cells(batch.image)))


def test_batches_that_cannot_be_contrasted_or_mixed_are_refused_by_name() -> None:
    batch = batch_of(frames=1)
    one = torch.eye(CLASSES)[torch.full((4,), 3)]
    with pytest.raises(ValueError, match=r"AVGN mixes two classes: expected several in a batch, got class 3 alone"):
        method_of()(replace(batch, heard=one))
    assert method_of(mixtures=False)(replace(batch, heard=one))
    with pytest.raises(ValueError, match=r"AVGN: expected at least two samples.*got 1"):
        method_of()(batch_of(1, frames=1))
    with pytest.raises(ValueError, match=r"AVGN: expected a sounding class in every sample, got 4 without"):
        method_of()(replace(batch, heard=torch.zeros_like(batch.heard)))
    with pytest.raises(ValueError, match=r"AVGN learns from solos"):
        method_of()(batch_of(frames=2))
    with pytest.raises(ValueError, match=r"class_reduction: expected mean or sum, got 'max'"):
        AVGNConfig(class_reduction="max")
