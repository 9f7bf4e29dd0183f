"""CoarsetoFine: classes and pairs first, then classes aligned, without a gradient through the activation maps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scenes import CLASSES, TINY, batch_of
from torch import Tensor
from torch.nn import functional as F

from m2vsl import ops
from m2vsl.baselines import coarse_to_fine
from m2vsl.baselines.coarse_to_fine import CoarseToFine, CoarseToFineConfig
from m2vsl.localizer import Stage
from m2vsl.types import Batch

COARSE, FINE = CoarseToFine.stages


def method_of(**choices: object) -> CoarseToFine:
    torch.manual_seed(0)
    return CoarseToFine(CoarseToFineConfig(**{"encoder": TINY, "hidden": 24, "dim": 16, **choices}), CLASSES)


def features(method: CoarseToFine, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cells of picture and sound, (B, D, h, w) and (B, D', f, t)."""
    return method.visual(batch.image)[-1], method.audio.cells(batch.spectrogram)


def slow_embedding(cells: Tensor, head: Tensor) -> Tensor:
    """One class of one sample: the mean of cells (D, h, w), weighted by the ReLU of their inner product with `head`."""
    total, weights = torch.zeros(len(cells)), 0.0
    for cell in cells.detach().flatten(1).T:
        weight = max(0.0, float(cell @ head.detach())) + 1e-6
        total, weights = total + weight * cell, weights + weight
    return total / weights


def test_the_losses_of_the_coarse_stage() -> None:
    """Baselines 5, stage 1: the heads on pooled cells, and all pairs, half for those that belong together."""
    method, batch = method_of().eval(), batch_of(frames=1)
    method.enter(COARSE, [])
    losses = method(batch)
    assert set(losses) == {"see", "hear", "belong"}
    pooled = [cells.mean((-2, -1)) for cells in features(method, batch)]
    for name, x in zip(("see", "hear"), pooled, strict=True):
        probability = torch.sigmoid(x @ getattr(method, name).weight.T)
        torch.testing.assert_close(losses[name], F.binary_cross_entropy(probability, batch.labels))
    kinds: dict[bool, list[Tensor]] = {True: [], False: []}
    for i, sound in enumerate(pooled[1]):
        for j, picture in enumerate(pooled[0]):
            logits = method.belong(F.relu(method.pair(torch.cat([sound, picture]))))
            kinds[i == j].append(-torch.log_softmax(logits, -1)[int(i == j)])
    expected = 0.5 * (sum(kinds[True]) / 4 + sum(kinds[False]) / 12)
    torch.testing.assert_close(losses["belong"], expected)


@pytest.mark.parametrize(("gate", "active_rows"), [(0.3, 11), (0.5, 5), (0.99, 4)])
def test_the_alignment_is_that_of_the_loop(gate: float, active_rows: int) -> None:
    """Baselines 5, stage 2: classes active in both, and the labelled one; D2 = 2 - 2 cos; margin 1.4 for all others."""
    method, batch = method_of(gate=gate).eval(), batch_of(frames=1)
    seen, heard = features(method, batch)
    rows = []
    for b in range(4):
        for c in range(CLASSES):
            heads = method.see.weight[c], method.hear.weight[c]
            active = [torch.sigmoid(x[b].mean((-2, -1)) @ w) > gate for x, w in zip((seen, heard), heads, strict=True)]
            if all(active) or batch.labels[b, c]:
                picture = method.project(slow_embedding(seen[b], heads[0]))
                rows.append((picture, method.project_audio(slow_embedding(heard[b], heads[1]))))
    assert len(rows) == active_rows  # of 20, the 4 labelled ones always
    pull, push = [], []
    for i, (_, sound) in enumerate(rows):
        for j, (picture, _) in enumerate(rows):
            squared = 2 - 2 * torch.cosine_similarity(sound, picture, 0)
            if i == j:
                pull.append(squared)
            else:
                push.append(max(1.4 - squared.sqrt(), torch.zeros(())) ** 2)
    expected = sum(pull) / len(pull) + sum(push) / len(push)
    torch.testing.assert_close(method(batch)["align"], expected, rtol=1e-4, atol=1e-5)


def test_the_margin_is_a_choice() -> None:
    batch = batch_of(frames=1)
    assert method_of(margin=2.0).eval()(batch)["align"] > method_of().eval()(batch)["align"]


def test_coinciding_embeddings_have_a_finite_gradient() -> None:
    same = torch.eye(1, 8).repeat(3, 1).requires_grad_()
    loss = coarse_to_fine.align(same, same.detach(), 1.4)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.4**2, rel=1e-4) and torch.isfinite(same.grad).all()


def test_the_alignment_teaches_the_class_heads_nothing() -> None:
    """Baselines 11, check 6; the trunks learn from it."""
    method = method_of().train()
    method(batch_of(frames=1))["align"].backward()
    silent = {key for key, p in method.named_parameters() if p.grad is None}
    assert silent == {"see.weight", "hear.weight", "pair.weight", "pair.bias", "belong.weight", "belong.bias"}
    for trunk in (method.visual.trunk.stem[0], method.audio.stem[0], method.project[0], method.project_audio[2]):
        assert trunk.weight.grad.any() and torch.isfinite(trunk.weight.grad).all()


def test_pairs_are_a_coin_toss_at_the_start() -> None:
    """Baselines 1.5: cross-entropy ln 2."""
    assert float(method_of()(batch_of(16, frames=1))["belong"].detach()) == pytest.approx(0.693, abs=0.05)


def test_the_projections_learn_in_the_fine_stage_alone() -> None:
    method, batch = method_of().train(), batch_of(frames=1)
    projections = {key for key, _ in method.named_parameters() if key.startswith("project")}
    learning = {}
    for stage in (None, COARSE, FINE):
        if stage is not None:
            method.enter(stage, [])
        learning[stage] = {key for key, p in method.named_parameters() if p.requires_grad}
        assert ("align" in method(batch)) == (stage != COARSE)
    assert learning[None] == learning[FINE] == {key for key, _ in method.named_parameters()}
    assert len(projections) == 4 and learning[COARSE] == learning[FINE] - projections


def test_a_projection_has_no_length() -> None:
    """Without biases: ten times the cells, the same unit vector."""
    method, cells = method_of(), torch.randn(3, 1280, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ops.unit(method.project(10 * cells)), ops.unit(method.project(cells)))


def test_the_map_of_a_class_is_its_sound_against_every_cell() -> None:
    """Baselines 5, inference, without the ReLU: <q_c, p_i> of unit vectors, and sigma of the sound's head."""
    method, batch = method_of().eval(), batch_of()
    with torch.no_grad():
        maps, (seen, heard) = method.localize(batch), features(method, batch)
        coarse = torch.empty(4, CLASSES, *seen.shape[-2:])
        for b in range(4):
            for c in range(CLASSES):
                query = method.project_audio(slow_embedding(heard[b], method.hear.weight[c]))
                for y in range(seen.shape[-2]):
                    for x in range(seen.shape[-1]):
                        coarse[b, c, y, x] = torch.cosine_similarity(method.project(seen[b, :, y, x]), query, 0)
        presence = torch.sigmoid(heard.mean((-2, -1)) @ method.hear.weight.T)
    torch.testing.assert_close(maps.heat, ops.upsample(coarse, (64, 128)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(maps.presence, presence)
    assert maps.classes.tolist() == list(range(CLASSES)) and (coarse < 0).any()


def test_a_class_that_is_nowhere_active_is_the_mean_of_all_cells() -> None:
    cells = torch.rand(2, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    heads = torch.stack([-torch.ones(6), torch.ones(6)])
    found = coarse_to_fine.embed(cells, heads)
    torch.testing.assert_close(found[:, 0], cells.mean((-2, -1)))
    torch.testing.assert_close(found[0, 1], slow_embedding(cells[0], heads[1]))
    assert not torch.allclose(found[:, 1], found[:, 0], atol=1e-3)


def test_swapped_halves_swap_the_map() -> None:
    """Up to the borders of the trunk: on its own cells a swap is exact, wherever a cell lies."""
    method, batch = method_of().eval(), batch_of()
    seen = features(method, batch)[0].detach()  # 4 x 8 cells
    heat = []
    for cells in (seen, torch.cat([seen[..., 4:], seen[..., :4]], -1)):
        method.visual.forward = lambda _, cells=cells: (cells,)
        heat.append(method.localize(replace(batch, image=batch.image[..., :4, :8])).heat)
    torch.testing.assert_close(heat[1], torch.cat([heat[0][..., 4:], heat[0][..., :4]], -1))
    assert not torch.allclose(heat[1], heat[0], atol=1e-3)


def test_errors_name_the_method() -> None:
    with pytest.raises(ValueError, match="CoarseToFine: expected at least two samples, to be told apart, got 1"):
        method_of()(batch_of(1, frames=1))
    batch = batch_of(frames=1)
    batch.labels[2] = 0
    with pytest.raises(ValueError, match="CoarseToFine: expected a label for every sample, got 1 without"):
        method_of()(batch)
    assert Stage("coarse", 0.5) == COARSE and Stage("fine", 0.5) == FINE
