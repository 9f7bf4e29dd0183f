"""SLAVC: two maps, targets by momentum copies, dropped features."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scenes import CLASSES, TINY, batch_of
from torch import Tensor
from torch.nn import functional as F

from m2vsl.baselines.slavc import SLAVC, SLAVCConfig

FROZEN = replace(TINY, freeze=True)


def slavc(**choices: object) -> SLAVC:
    torch.manual_seed(0)
    return SLAVC(SLAVCConfig(**{"encoder": TINY, **choices}), CLASSES)


def drifted(method: SLAVC, by: float = 0.02) -> SLAVC:
    """The same after its copies, of which it was one, have become another network."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in method.target.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return method


def weights(method: SLAVC, name: str) -> list[Tensor]:
    """Of a part or of its copy, at this moment."""
    return [p.detach().clone() for p in method.get_submodule(name).parameters()]


def slow(cells: list[Tensor], sounds: list[Tensor]) -> float:
    """Protocol 3.2: softmax over samples times softmax over locations, summed; row n is an image, column n its own."""
    rows, count = len(sounds[0]), cells[0][0, 0].numel()
    flat = [c.flatten(2) for c in cells]
    s1, s2 = (
        [[[float(f[n, :, x] @ a[m]) / 0.03 for x in range(count)] for m in range(rows)] for n in range(rows)]
        for f, a in zip(flat, sounds, strict=True)
    )
    total = 0.0
    for n in range(rows):
        row = []
        for m in range(rows):
            agreement = 0.0
            for x in range(count):
                among_samples = math.exp(s1[n][m][x]) / sum(math.exp(s1[n][k][x]) for k in range(rows))
                among_cells = math.exp(s2[n][m][x]) / sum(math.exp(s2[n][m][y]) for y in range(count))
                agreement += among_samples * among_cells
            row.append(agreement)
        total -= math.log(row[n] / sum(row)) / rows
    return total


@pytest.mark.parametrize("encoder", [TINY, FROZEN], ids=["learning trunk", "frozen trunk"])
def test_the_losses_are_those_of_a_slow_loop(encoder: object) -> None:
    method, batch = drifted(slavc(encoder=encoder)).eval(), batch_of(frames=1)
    with torch.no_grad():
        losses = method(batch)
        cells, sounds = method.embed(batch)
        target_cells, target_sounds = method.embed(batch, target=True)
    assert float(losses["picture"]) == pytest.approx(slow(cells, target_sounds), rel=1e-3)
    assert float(losses["sound"]) == pytest.approx(slow(target_cells, sounds), rel=1e-3)
    assert set(losses) == {"picture", "sound"}
    assert float(losses["picture"]) != pytest.approx(slow(cells, sounds), rel=1e-3)


def test_without_knowledge_a_picture_goes_with_any_sound() -> None:
    losses = slavc(temperature=1e6)(batch_of(frames=1))
    assert [float(x.detach()) for x in losses.values()] == pytest.approx([math.log(4)] * 2, rel=1e-4)


@pytest.mark.parametrize("momentum", [0.999, 0.9, 0.0])
def test_copies_follow_before_every_step(momentum: float) -> None:
    method, batch = drifted(slavc(momentum=momentum)), batch_of(frames=1)
    assert set(method.target) == {"visual", "audio", "project", "project_audio"}
    before = {name: weights(method, f"target.{name}") for name in method.target}
    method.train()(batch)
    for name, old in before.items():
        for kept, was, new in zip(weights(method, f"target.{name}"), old, weights(method, name), strict=True):
            torch.testing.assert_close(kept, momentum * was + (1 - momentum) * new, rtol=1e-4, atol=1e-6)


def test_copies_stay_in_evaluation() -> None:
    method, batch = drifted(slavc(momentum=0.5)).eval(), batch_of(frames=1)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    method(batch)
    method.localize(batch)
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


def test_copies_start_equal_are_kept_and_learn_nothing_themselves() -> None:
    method = slavc()
    state = method.state_dict()
    copied = [key for key in state if key.startswith("target.")]
    assert copied and all(torch.equal(state[key], state[key.removeprefix("target.")]) for key in copied)
    assert not any(p.requires_grad for p in method.target.parameters())
    sum(method.train()(batch_of(frames=1)).values()).backward()
    assert all(p.grad is None for p in method.target.parameters())


def test_a_frozen_trunk_is_its_own_copy_and_runs_once() -> None:
    method, runs = slavc(encoder=FROZEN), []
    method.visual.register_forward_hook(lambda *_: runs.append(1))
    assert set(method.target) == {"audio", "project", "project_audio"}
    method.train()(batch_of(frames=1))
    assert len(runs) == 1
    tensors = [value.data_ptr() for value in method.state_dict().values() if value.numel()]
    assert len(set(tensors)) == len(tensors)  # nothing twice: safetensors refuses shared memory


@pytest.mark.parametrize(("target_dropout", "dropped"), [(True, [0.9] * 4), (False, [0.9, 0.9, 0.0, 0.0])])
def test_visual_features_are_dropped_before_they_are_projected(target_dropout: bool, dropped: list[float]) -> None:
    method, seen, batch = slavc(encoder=FROZEN, target_dropout=target_dropout).train(), [], batch_of(frames=1)
    features = method.visual(batch.image)[-1]
    for project in (*method.project, *method.target["project"]):
        project.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    method(batch)
    alive = features > 0
    shares = [float((x[alive] == 0).float().mean()) for x in seen]
    assert shares == pytest.approx(dropped, abs=0.02)
    kept = alive & (seen[0] != 0)
    torch.testing.assert_close(seen[0][kept], 10 * features[kept], rtol=1e-3, atol=1e-6)
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])
    seen.clear()
    method.eval()(batch)
    assert all(torch.equal(x, features) for x in seen)


@pytest.mark.parametrize("use_mom_eval", [True, False])
@pytest.mark.parametrize("encoder", [TINY, FROZEN], ids=["learning trunk", "frozen trunk"])
def test_the_map_is_the_mean_of_two_cosine_maps(use_mom_eval: bool, encoder: object) -> None:
    method, batch = drifted(slavc(encoder=encoder, use_mom_eval=use_mom_eval)).eval(), batch_of()
    part = {**dict(method.named_children()), **(dict(method.target) if use_mom_eval else {})}
    with torch.no_grad():
        features, heard = part["visual"](batch.image)[-1], part["audio"](batch.spectrogram)
        pairs = zip(part["project"], part["project_audio"], strict=True)
        maps = [torch.cosine_similarity(see(features), hear(heard)[:, :, None, None]) for see, hear in pairs]
    expected = F.interpolate(sum(maps)[:, None] / 2, (64, 128), mode="bilinear", align_corners=True)
    torch.testing.assert_close(method.localize(batch).heat, expected)


def test_one_pair_has_no_other_to_tell_it_from() -> None:
    with pytest.raises(ValueError, match=r"SLAVC: expected at least two samples.*got 1"):
        slavc()(batch_of(1, frames=1))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"momentum": 1.5}, "momentum: expected a share from 0 to 1, got 1.5"),
        ({"dropout": 1.0}, "dropout: expected a share from 0 to below 1, got 1.0"),
    ],
)
def test_shares_out_of_bounds_are_refused_by_name(choice: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SLAVCConfig(**choice)
