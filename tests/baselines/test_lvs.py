"""LVS: a map cut into positive, ignored and negative, and what the positive part is compared with."""

from __future__ import annotations

import math

import pytest
import torch
from scenes import CLASSES, TINY, batch_of
from torch.nn import functional as F

from m2vsl.baselines.lvs import LVS, LVSConfig
from m2vsl.types import Batch


def lvs(**choices: object) -> LVS:
    torch.manual_seed(0)
    return LVS(LVSConfig(**{"encoder": TINY, **choices}), CLASSES)


def value(method: LVS, batch: Batch) -> float:
    return float(method(batch)["contrast"].detach())


def seeing(monkeypatch: pytest.MonkeyPatch, method: LVS, cosines: list[list[float]], sounds: list[list[float]]) -> None:
    """Let `method` see pictures of 1 x n cells whose cosines with the sound (1, 0, 0) are given."""
    first = torch.tensor(cosines)
    cells = torch.stack([first, (1 - first**2).sqrt(), torch.zeros_like(first)], 1)[:, :, None]
    monkeypatch.setattr(method, "embed", lambda batch: (cells, torch.tensor(sounds)))


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def masked(values: list[float], mask: list[float]) -> float:
    return sum(v * m for v, m in zip(values, mask, strict=True)) / sum(mask)


def slow(method: LVS, negatives: str = "each", diagonal: str = "excluded") -> float:
    """Protocol 3.3 cell by cell: sim1, sim_all and sim2 over .07, the first is the target; and the paper's form."""
    with torch.no_grad():
        cells, sounds = method.embed(batch_of(frames=1))
    c = method.config
    total = 0.0
    for i in range(4):
        maps = [torch.cosine_similarity(cells[i], s[:, None, None], 0).flatten().tolist() for s in sounds]
        source = [masked(a, [sigma((x - c.positive) / c.softness) for x in a]) for a in maps]
        hard = masked(maps[i], [1 - sigma((x - c.negative) / c.softness) for x in maps[i]])
        if negatives == "summed":
            others = [hard + sum(sum(a) / len(a) for j, a in enumerate(maps) if j != i)]
        else:
            others = [x for j, x in enumerate(source) if j != i] + [hard]
            others += [source[i] * (1 - 100)] if diagonal == "released" else []
        logits = [x / c.temperature for x in (source[i], *others)]
        total += math.log(sum(math.exp(x - logits[0]) for x in logits)) / 4
    return total


@pytest.mark.parametrize(
    "choices",
    [{}, {"diagonal": "released"}, {"negatives": "summed"}, {"positive": 0.2, "negative": -0.1, "softness": 0.3}],
    ids=["default", "released", "summed", "thresholds"],
)
def test_the_loss_is_that_of_a_slow_loop(choices: dict[str, object]) -> None:
    method = lvs(**choices).eval()
    forms = {name: choices[name] for name in ("negatives", "diagonal") if name in choices}
    loss = value(method, batch_of(frames=1))
    assert loss == pytest.approx(slow(method, **forms), rel=1e-4)
    assert loss != pytest.approx(value(lvs().eval(), batch_of(frames=1)), rel=1e-3) or not choices


@pytest.mark.parametrize(
    ("choices", "logits"), [({}, 4 + 1), ({"diagonal": "released"}, 4 + 2), ({"negatives": "summed"}, 2)]
)
def test_without_knowledge_all_logits_are_alike(choices: dict[str, object], logits: int) -> None:
    method = lvs(**choices)
    torch.nn.init.zeros_(method.project.weight)
    assert value(method, batch_of(frames=1)) == pytest.approx(math.log(logits), rel=1e-5)


def test_a_cell_is_positive_or_negative_or_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """At .9, .5 and .1 with thresholds .65 and .4 the middle one counts nowhere; with one threshold it is negative."""
    for choices, hard in (({}, 0.1), ({"negative": 0.65}, 0.3)):
        method = lvs(temperature=1.0, **choices)
        seeing(monkeypatch, method, [[0.9, 0.5, 0.1]] * 2, [[1, 0, 0], [0, 0, 1]])
        easy = [0.0, 0.9]  # picture 0 with the sound of 1: cosine 0 everywhere; and the other way round: its source
        own = [0.9, 0.0]
        hards = [hard, 0.0]
        expected = [math.log(sum(math.exp(x - s) for x in (s, e, h))) for s, e, h in zip(own, easy, hards, strict=True)]
        assert value(method, batch_of(2, frames=1)) == pytest.approx(sum(expected) / 2, abs=3e-3)


def test_the_released_diagonal_punishes_pairs_that_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times -99: a pair of negative cosines becomes its own overwhelming negative, one of positive cosines nothing."""
    losses = {}
    for diagonal in ("excluded", "released"):
        for sign in (-0.5, 0.5):
            method = lvs(diagonal=diagonal)
            seeing(monkeypatch, method, [[sign] * 3] * 2, [[1, 0, 0], [1, 0, 0]])
            losses[diagonal, sign] = value(method, batch_of(2, frames=1))
    assert losses["excluded", -0.5] == pytest.approx(math.log(3), rel=1e-5)
    assert losses["released", 0.5] == pytest.approx(losses["excluded", 0.5], rel=1e-5)
    assert losses["released", -0.5] == pytest.approx(100 * 0.5 / 0.07, rel=1e-3)


def test_the_gradient_passes_through_the_masks() -> None:
    method = lvs()
    a = torch.rand(4, 4, 6, dtype=torch.float64) * 1.6 - 0.8
    a.requires_grad_()

    def written_out(through: bool) -> torch.Tensor:
        m = a if through else a.detach()
        pos, neg = torch.sigmoid((m - 0.65) / 0.03), 1 - torch.sigmoid((m - 0.4) / 0.03)
        sim = (pos * a).sum(-1) / pos.sum(-1)
        hard = ((neg * a).sum(-1) / neg.sum(-1)).diagonal()[:, None]
        easy = sim.masked_fill(torch.eye(4, dtype=torch.bool), -torch.inf)
        return torch.cat([sim.diagonal()[:, None], easy, hard], 1) / 0.07

    def gradient(logits: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(F.cross_entropy(logits, torch.zeros(4, dtype=torch.int64)), a)[0]

    found = gradient(method._logits(a))
    torch.testing.assert_close(found, gradient(written_out(True)))
    assert not torch.allclose(found, gradient(written_out(False)), rtol=0.1)


def test_masks_too_small_for_a_float_still_teach() -> None:
    """Opposite vectors: a sigmoid of -55 and less; at a softness of .003 its float32 value is 0."""
    method = lvs(softness=0.003)
    cosines = torch.full((2, 2, 4), -1.0).requires_grad_()
    loss = F.cross_entropy(method._logits(cosines), torch.zeros(2, dtype=torch.int64))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(cosines.grad).all() and cosines.grad.any()


def test_the_map_is_the_cosine_with_the_sound_on_a_fine_grid() -> None:
    method, batch = lvs().eval(), batch_of()
    with torch.no_grad():
        cells, sounds = method.embed(batch)
        coarse = torch.cosine_similarity(cells, sounds[:, :, None, None])[:, None]
    assert coarse.shape[-2:] == (4, 8)  # stride 16 of 64 x 128
    with torch.no_grad():
        assert lvs(last_stride=2).eval().embed(batch)[0].shape[-2:] == (2, 4)
    expected = F.interpolate(coarse, (64, 128), mode="bilinear", align_corners=True)
    torch.testing.assert_close(method.localize(batch).heat, expected)


def test_projections_have_no_bias() -> None:
    method = lvs()
    assert method.project.bias is None and method.project_audio.bias is None


def test_one_pair_has_no_other_to_tell_it_from() -> None:
    with pytest.raises(ValueError, match=r"LVS: expected at least two samples.*got 1"):
        lvs()(batch_of(1, frames=1))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"negatives": "some"}, "negatives: expected each or summed, got 'some'"),
        ({"diagonal": "bug"}, "diagonal: expected excluded or released, got 'bug'"),
        ({"negative": 0.7}, "negative: expected at most positive = 0.65, got 0.7"),
    ],
)
def test_unknown_choices_are_refused_by_name(choice: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LVSConfig(**choice)
