"""DMC: clusters with gradient, their contrast, the paper's routing, and a map without ties."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scenes import CLASSES, TINY, batch_of
from torch import Tensor

from m2vsl import ops
from m2vsl.baselines import dmc
from m2vsl.baselines.dmc import DMC, DMCConfig


def method_of(**choices: object) -> DMC:
    torch.manual_seed(0)
    return DMC(DMCConfig(**{"encoder": TINY, **choices}), CLASSES)


def slow_clusters(cells: Tensor, begin: list[int], beta: float, rounds: int) -> list[Tensor]:
    """Baselines 4, one picture: cells (N, D); four rounds of d = |o - u|, c = softmax(-beta d), o = sum c u / sum c."""
    centres = [cells[i] for i in begin]
    for _ in range(rounds):
        shares = []
        for u in cells:
            weights = [math.exp(-beta * float((o - u).norm())) for o in centres]
            shares.append([weight / sum(weights) for weight in weights])
        total = [sum(share[k] for share in shares) + 1e-8 for k in range(len(centres))]
        centres = [
            sum((share[k] * u for share, u in zip(shares, cells, strict=True)), torch.zeros(cells.shape[1])) / total[k]
            for k in range(len(centres))
        ]
    return centres


def slow_routing(cells: Tensor, weight: Tensor, capsules: int, routes: int) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Baselines 4, the paper's form, one picture: the capsules and U[k][i] = W_k u_i of squashed cells (N, D)."""

    def squash(x: Tensor) -> Tensor:
        return torch.tanh(10 * x.norm()) * x / x.norm()

    votes = [[part @ squash(u) for u in cells] for part in weight.chunk(capsules)]
    agreement = torch.zeros(capsules, len(cells))
    for turn in range(routes):
        share = torch.softmax(agreement, 0)
        out = [sum(c * u for c, u in zip(share[k], votes[k], strict=True)) for k in range(capsules)]
        if turn < routes - 1:
            out = [o / o.norm() for o in out]
            agreement = torch.stack([torch.stack([o @ u for u in votes[k]]) for k, o in enumerate(out)])
    return [squash(o) for o in out], votes


def test_clusters_are_those_of_the_loop() -> None:
    cells = 0.2 * torch.randn(3, 10, 4, generator=torch.Generator().manual_seed(0))
    found = dmc.soft_k_means(cells, [0, 5], 30.0, 4)
    expected = torch.stack([torch.stack(slow_clusters(one, [0, 5], 30.0, 4)) for one in cells])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, dmc.soft_k_means(cells, [0, 5], 30.0, 3), atol=1e-3)
    assert not torch.allclose(found, dmc.soft_k_means(cells, [0, 5], 3.0, 4), atol=1e-3)


def test_one_centre_is_the_mean() -> None:
    cells = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(dmc.soft_k_means(cells, [0], 30.0, 4), cells.mean(1, keepdim=True))


def test_an_empty_cluster_gives_no_nan() -> None:
    """Baselines 11, check 9: on a line the first centre, pulled to the left by nine cells, loses all to the others."""
    line = 100 * torch.tensor([0.0, 12.0, -20.5, *[-10.0] * 9, *[6.5] * 20, *[-10.3] * 20])
    cells = line[None, :, None].requires_grad_()
    once, twice = (dmc.soft_k_means(cells, [0, 1, 2], 30.0, rounds) for rounds in (1, 2))
    torch.testing.assert_close(once[0, 0, 0], torch.tensor(-900.0))
    assert not torch.softmax(-30 * dmc.distance(once, cells), 1)[0, 0].any() and not twice[0, 0].any()
    dmc.soft_k_means(cells, [0, 1, 2], 30.0, 4).square().sum().backward()
    assert torch.isfinite(twice).all() and torch.isfinite(cells.grad).all() and cells.grad.any()


def test_coinciding_cells_give_no_nan() -> None:
    cells = torch.ones(2, 6, 3, requires_grad=True)
    loss = dmc.soft_k_means(cells, [0, 3], 30.0, 4)
    (loss.sum() + dmc.distance(loss, cells).sum()).backward()
    assert torch.isfinite(cells.grad).all()


def test_the_contrast_is_that_of_the_loop() -> None:
    """Baselines 4: 1/2 [y d^2 + (1 - y) max(0, 5 - d)^2], mean over both kinds; d to the nearest visual centre."""
    method, batch = method_of().eval(), batch_of(frames=1)
    with torch.no_grad():
        picture, sound, _ = method.cells(batch)
        losses = method(batch)
    expected = {"pull": 0.0, "push": 0.0}
    for i in range(4):
        heard = sound[i].mean(0)
        near = [min(float((o - heard).norm()) for o in slow_clusters(picture[j], [0, 8], 30, 4)) for j in (i, i - 1)]
        expected["pull"] += near[0] ** 2 / 2 / 8
        expected["push"] += max(0.0, 5 - near[1]) ** 2 / 2 / 8
    assert {name: float(x) for name, x in losses.items()} == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("length", "plateau"), [(2.5, 3.125), (0.0, 6.25)])
def test_the_plateau_of_the_contrast(length: float, plateau: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Baselines 1.5: m^2 / 8 = 3.125 where every picture is m / 2 away; twice that where nothing is away."""
    method, batch = method_of(), batch_of(frames=1)
    picture, sound = torch.zeros(4, 16, 32), torch.zeros(4, 9, 32)
    sound[..., 0] = length
    monkeypatch.setattr(method, "cells", lambda _: (picture, sound, (4, 4)))
    assert float(sum(method(batch).values())) == pytest.approx(plateau)


def test_near_the_plateau_at_the_start() -> None:
    """With the 128 dimensions of the small presets the first distances are about m / 2."""
    method, batch = method_of(encoder=replace(TINY, dim=128)), batch_of(16, frames=1)
    assert float(sum(method(batch).values()).detach()) == pytest.approx(3.125, abs=0.3)
    hinge = method_of(variant="routing")(batch)
    assert set(hinge) == {"hinge"} and float(hinge["hinge"].detach()) == pytest.approx(10, abs=0.5)


def test_the_first_assignments_are_sharp_and_no_cell_is_left_out() -> None:
    """Baselines 4: with lengths of about 4 and beta 30 the entropy is far below ln 2, but no centre owns everything."""
    method, batch = method_of().eval(), batch_of(16, frames=1)
    with torch.no_grad():
        picture, _, _ = method.cells(batch)
        share = torch.softmax(-30 * dmc.distance(dmc.soft_k_means(picture, [0, 8], 30.0, 4), picture), 1)
    assert float(torch.special.entr(share).sum(1).mean()) < 0.5 * math.log(2)
    assert float(share.sum(-1).min()) > 0.9  # of 16 cells


def test_levelled_cells_of_the_trunk_are_of_one_length() -> None:
    batch = batch_of(frames=1)
    batch.image[0] *= 0.01
    lengths = {}
    for level in (True, False):
        method = method_of(level=level).eval()
        method.project = torch.nn.Identity()
        lengths[level] = method.cells(batch)[0].norm(dim=-1)
    torch.testing.assert_close(lengths[True], torch.full((4, 16), 1280**0.5), rtol=1e-3, atol=0)
    assert lengths[False].max() > 1.2 * lengths[False].min()


def test_the_routing_is_that_of_the_loop() -> None:
    """The hinge with margin K on the sum of the cosines of capsule k with capsule k."""
    method, batch = method_of(variant="routing").eval(), batch_of(frames=1)
    with torch.no_grad():
        method.votes.weight.mul_(20)  # so that the rounds move the assignments
        picture, sound, _ = method.cells(batch)
        found = float(method(batch)["hinge"])
    seen, heard = (
        [torch.stack(slow_routing(x, method.votes.weight.detach(), 10, 3)[0]) for x in xs] for xs in (picture, sound)
    )
    cosines = [[float(torch.cosine_similarity(seen[j], heard[i], -1).sum()) for j in (i, i - 1)] for i in range(4)]
    expected = sum(max(0.0, 10 + other - own) for own, other in cosines) / 4
    assert found == pytest.approx(expected, rel=1e-4)
    assert found != pytest.approx(float(method_of(variant="routing", routes=2)(batch)["hinge"].detach()), rel=1e-4)


def test_the_map_is_the_margin_of_the_centre_that_sounds() -> None:
    """Baselines 4, inference: m_i = min over the other centres of d_k,i, less d_k*,i; K = 3 for two frames."""
    method, batch = method_of().eval(), batch_of()
    with torch.no_grad():
        picture, sound, grid = method.cells(batch)
        heat = method.localize(batch).heat
    assert grid == (4, 8)
    begin = [0 * 8 + 1, 2 * 8 + 4, 3 * 8 + 6]  # 1/6, 3/6 and 5/6 of the way down and to the right
    expected = torch.empty(4, 1, 4, 8)
    for b in range(4):
        centres = slow_clusters(picture[b], begin, 30, 4)
        chosen = min(range(3), key=lambda k, b=b, o=centres: float((o[k] - sound[b].mean(0)).norm()))
        for i, u in enumerate(picture[b]):
            far = [float((o - u).norm()) for o in centres]
            expected[b, 0, i // 8, i % 8] = min(far[:chosen] + far[chosen + 1 :]) - far[chosen]
    torch.testing.assert_close(heat, ops.upsample(expected, (64, 128)), rtol=1e-3, atol=1e-3)
    assert (expected > 0).any() and (expected < 0).any()


def test_the_sound_chooses_among_as_many_maps_as_there_are_centres(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no other say: sounds that choose the same centre get the same map."""
    method, batch = method_of().eval(), batch_of(frames=1)
    with torch.no_grad():
        picture, _, grid = method.cells(batch)
    centres, heat = dmc.soft_k_means(picture, [0, 8], 30.0, 4), []
    for sound in (centres[:, :1], centres[:, 1:], 0.9 * centres[:, 1:] + 0.1 * centres[:, :1]):
        monkeypatch.setattr(method, "cells", lambda _, sound=sound: (picture, sound, grid))
        heat.append(method.localize(batch).heat)
    torch.testing.assert_close(heat[1], -heat[0])  # of two centres
    assert torch.equal(heat[2], heat[1]) and (heat[1].abs().amax((1, 2, 3)) > 0.1).all()


def test_the_map_of_the_routing_is_the_lead_in_agreement() -> None:
    method, batch = method_of(variant="routing").eval(), batch_of(frames=1)
    with torch.no_grad():
        picture, sound, _ = method.cells(batch)
        heat = method.localize(batch).heat
    expected = torch.empty(4, 1, 4, 4)
    for b in range(4):
        weight = method.votes.weight.detach()
        (seen, votes), (heard, _) = slow_routing(picture[b], weight, 10, 3), slow_routing(sound[b], weight, 10, 3)
        chosen = int(torch.stack([torch.cosine_similarity(v, a, 0) for v, a in zip(seen, heard, strict=True)]).argmax())
        for i in range(16):
            agreement = [float(o @ votes[k][i] / o.norm()) for k, o in enumerate(seen)]
            others = agreement[:chosen] + agreement[chosen + 1 :]
            expected[b, 0, i // 4, i % 4] = agreement[chosen] - max(others)
    torch.testing.assert_close(heat, ops.upsample(expected, (64, 64)), rtol=1e-3, atol=1e-5)


def test_where_centres_start() -> None:
    assert dmc.starts(196, 2) == [0, 98] and dmc.starts(16, 3) == [0, 5, 10]
    assert dmc.diagonal((14, 28), 3) == [2 * 28 + 4, 7 * 28 + 14, 11 * 28 + 23]  # left, middle, right


def test_further_frames_get_further_centres() -> None:
    two, three, batch = method_of(per_frame=0).eval(), method_of().eval(), batch_of()
    assert not torch.allclose(two.localize(batch).heat, three.localize(batch).heat, atol=1e-3)
    single = batch_of(frames=1)
    assert torch.equal(two.localize(single).heat, three.localize(single).heat)


@pytest.mark.parametrize("variant", ["clusters", "routing"])
def test_several_sounds_have_a_map_each(variant: str) -> None:
    one, two, batch = method_of(variant=variant).eval(), method_of(variant=variant, sounds=2).eval(), batch_of()
    assert one.sources is None and two.sources == 2
    maps = two.localize(batch)
    assert maps.heat.shape == (4, 2, 64, 128) and maps.classes.tolist() == [-1, -1]
    assert two.state_dict().keys() == one.state_dict().keys()
    if variant == "clusters":
        with torch.no_grad():
            picture, sound, grid = two.cells(batch)
        centres = dmc.soft_k_means(picture, dmc.diagonal(grid, 3), 30.0, 4)
        chosen = dmc.distance(dmc.soft_k_means(sound, [0, 4], 30.0, 4), centres).argmin(-1)  # of 9 cells
        expected = dmc.lead(dmc.distance(centres, picture), chosen).unflatten(-1, grid)
        torch.testing.assert_close(maps.heat, ops.upsample(expected, (64, 128)))
    else:
        torch.testing.assert_close(maps.heat[:, :1], one.localize(batch).heat)


def test_errors_name_the_method_and_the_choice() -> None:
    with pytest.raises(ValueError, match="variant: expected clusters or routing, got 'k-means'"):
        DMCConfig(variant="k-means")
    with pytest.raises(ValueError, match="objects: expected at least 2, got 1"):
        DMCConfig(objects=1)
    with pytest.raises(ValueError, match="sounds: expected at most the 10 capsules, got 11"):
        DMCConfig(variant="routing", sounds=11)
    with pytest.raises(ValueError, match="DMC: expected at least two samples, one as the other's negative, got 1"):
        method_of()(batch_of(1, frames=1))
