"""The drawing of the method carries the shapes of the model that runs."""

from __future__ import annotations

from dataclasses import replace

import matplotlib
import pytest
import torch

from m2vsl.encoders import EncoderConfig
from m2vsl.model import M2VSL, M2VSLConfig
from m2vsl.report import diagram
from m2vsl.types import Batch, Truth

matplotlib.use("Agg")
SMALL = M2VSLConfig(encoder=EncoderConfig(weights="none", audio_width=4, dim=16), depth=1)


def a_batch(width: int = 64) -> Batch:
    """Two pictures, two sounds, three classes."""
    truth = Truth(
        torch.zeros(2, 1, 32, width), torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, 1, dtype=torch.bool)
    )
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    return Batch(
        torch.randn(2, 3, 32, width), torch.randn(2, 1, 65, 60), labels, labels, labels, torch.arange(2), truth
    )


def test_shapes_are_read_off_the_running_model() -> None:
    model = M2VSL(SMALL, 3).train()
    found = diagram.shapes(model, a_batch())
    assert found["image"] == [(3, 32, 64)] and found["spectrogram"] == [(1, 65, 60)]
    assert found["stages"] == [(24, 8, 16), (40, 4, 8), (112, 2, 4), (1280, 1, 2)]
    assert found["pyramid"] == [(16, 8, 16), (16, 4, 8), (16, 2, 4), (16, 1, 2)]
    assert (found["audio"], found["sound"]) == ([(32,)], [(16,)])
    assert found["grids"] == [(16, 5, 10)] * 4
    assert (found["slots"], found["heat"]) == ([(3, 16)], [(3, 32, 64)])
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_the_drawing_says_the_shapes() -> None:
    fig = diagram.framework(M2VSL(SMALL, 3), a_batch())
    said = "\n".join(text.get_text() for text in fig.axes[0].texts)
    for shape in ("3 x 32 x 64", "1 x 65 x 60", "1280 x 1 x 2", "16 x 8 x 16", "203 x 16", "4 x 16", "3 x 32 x 64"):
        assert shape in said
    assert "mean over\nstages" in said


def test_hooks_are_gone_after_an_error() -> None:
    model = M2VSL(SMALL, 3)
    with pytest.raises(RuntimeError):
        diagram.shapes(model, replace(a_batch(), spectrogram=torch.zeros(2, 5, 65, 60)))
    assert not any(module._forward_hooks for module in model.modules())
