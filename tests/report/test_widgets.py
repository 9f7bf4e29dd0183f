"""Widgets work in a page without Python behind it."""

from __future__ import annotations

import io
import sys

import matplotlib
import pytest
import torch
from PIL import Image

from m2vsl.audio import AUDIO
from m2vsl.report import widgets

matplotlib.use("Agg")
IMAGE, TRUTH = torch.zeros(3, 16, 16), torch.zeros(16, 16)
TRUTH[4:8, 4:8] = 1


def test_a_slider_picks_from_pictures_that_are_drawn() -> None:
    pytest.importorskip("ipywidgets")
    box = widgets.thresholds(IMAGE, TRUTH[::4, ::4], TRUTH, levels=(0.2, 0.5, 0.8))
    slider, stack = box.children
    assert list(slider.options) == ["0.2", "0.5", "0.8"]
    assert stack.selected_index == slider.index == 1
    assert all(Image.open(io.BytesIO(child.value)).format == "PNG" for child in stack.children)


def test_without_widgets_the_same_is_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    fig = widgets.thresholds(IMAGE, TRUTH, TRUTH, levels=(0.2, 0.8))
    assert [ax.get_title() for ax in fig.axes] == ["level 0.2, IoU 1.00", "level 0.8, IoU 1.00"]


def test_a_higher_level_keeps_less() -> None:
    heat = torch.arange(256.0).view(16, 16)
    fig = widgets.threshold_figure(IMAGE + 1, heat, TRUTH, levels=(0.25, 0.75))
    kept = [float(ax.images[0].get_array().mean()) for ax in fig.axes]
    assert kept[0] > kept[1]


def test_a_loud_sum_is_played_without_clipping() -> None:
    pytest.importorskip("IPython")
    import wave

    loud = 2 * torch.sin(torch.arange(22050) * 0.05)
    for given, peak in ((loud, 1.0), (loud / 8, 0.25)):
        with wave.open(io.BytesIO(widgets.player(given, AUDIO["paper300"]).data)) as file:
            assert file.getframerate() == 22050
            samples = torch.frombuffer(bytearray(file.readframes(file.getnframes())), dtype=torch.int16)
        assert float(samples.abs().max()) / 32767 == pytest.approx(peak, abs=1e-3)
