"""The drawings of ideas show what the methods' formulas give on the little scene."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import pytest
import torch

from m2vsl.report import ideas

matplotlib.use("Agg")


def panel(fig: Any, start: str) -> Any:
    """The axes whose title begins so."""
    found = [ax for ax in fig.axes if ax.get_title().strip().startswith(start)]
    assert len(found) == 1, [ax.get_title() for ax in fig.axes]
    return found[0]


def shown(fig: Any, start: str) -> torch.Tensor:
    """The values of the one map in a panel."""
    return torch.as_tensor(panel(fig, start).images[0].get_array()).float()


def cells() -> list[list[tuple[float, float]]]:
    """The scene as rows of vectors."""
    return [[tuple(v) for v in row] for row in ideas.scene()[0].permute(1, 2, 0).tolist()]


@pytest.mark.parametrize("draw", [ideas.correspondence, ideas.contrast, ideas.clusters, ideas.mixtures])
def test_every_panel_has_a_title_and_shows_something(draw: Any) -> None:
    fig = draw()
    fig.draw_without_rendering()
    assert all(ax.get_title() and (ax.images or ax.lines or ax.collections) for ax in fig.axes)
    assert fig.axes and fig.get_size_inches()[0] == pytest.approx(7.2)


def test_attention_is_a_softmax_and_a_mean_by_loops() -> None:
    own, other = ideas.sound("bark").tolist(), ideas.sound("siren").tolist()
    flat = [v for row in cells() for v in row]
    scores = [max(0.0, (v[0] * own[0] + v[1] * own[1]) / math.hypot(*v)) for v in flat]
    total = sum(math.exp(s) for s in scores)
    weights = [math.exp(s) / total for s in scores]
    pooled = [sum(w * v[d] for w, v in zip(weights, flat, strict=True)) for d in (0, 1)]
    near, far = math.dist(pooled, own), math.dist(pooled, other)
    fig = ideas.correspondence()
    assert torch.allclose(shown(fig, "softmax").flatten(), torch.tensor(weights), atol=1e-5)
    assert panel(fig, "what it pools").get_title().endswith(f"p = {1 / (1 + math.exp(far - near)):.2f}")


def test_the_best_cell_is_the_one_that_is_framed() -> None:
    fig = ideas.contrast()
    row, column = divmod(int(shown(fig, "EZ-VSL").argmax()), ideas.SIDE)
    (frame,) = panel(fig, "EZ-VSL").lines
    assert (frame.get_xdata()[0], frame.get_ydata()[0]) == (column, row)
    signs = {text.get_position(): text.get_text() for text in panel(fig, "LVS").texts}
    assert signs[column, row] == "+" and signs[7, 7] == "o"


def test_two_choices_meet() -> None:
    fig = ideas.contrast()
    both = shown(fig, "SLAVC") * shown(fig, "where in")
    assert torch.allclose(both, shown(fig, "both at once"))
    assert f"{float(both.sum()):.2f}" in panel(fig, "both at once").get_title()
    assert float(shown(fig, "where in").sum()) == pytest.approx(1)


def test_the_dog_is_found_at_the_upper_left_and_the_drum_at_the_lower_right() -> None:
    grouped, clustered = ideas.mixtures(), ideas.clusters()
    dog, drum = shown(grouped, "AVGN"), shown(grouped, "share of each cell\nin the slot of the drum")
    lead = shown(clustered, "how much nearer")
    shares = [ax for ax in clustered.axes if ax.get_title().startswith("cells like")]
    maps = [torch.as_tensor(ax.images[0].get_array()) for ax in shares]
    for upper in (dog, lead, maps[0], shown(grouped, "cosine with")):
        assert divmod(int(upper.argmax()), ideas.SIDE)[0] < 4 and int(upper.argmax()) % ideas.SIDE < 4
    for lower in (drum, maps[1]):
        assert divmod(int(lower.argmax()), ideas.SIDE)[0] > 3 and int(lower.argmax()) % ideas.SIDE > 3


def test_the_walker_mostly_comes_home() -> None:
    chance = float(panel(ideas.mixtures(), "Mix-and-Localize").get_title().split()[-1])
    assert 0.5 < chance < 1
