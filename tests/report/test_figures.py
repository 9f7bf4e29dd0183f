"""Figures show what they were given: the right panels, axes with units, nothing drawn twice."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import numpy as np
import pytest
import torch

from m2vsl import frame
from m2vsl.audio import AUDIO
from m2vsl.metrics.tally import Interval
from m2vsl.report import axes as draw
from m2vsl.report import figures, style, tables
from m2vsl.types import Sample, Truth

SIDE, AUDIO_CONFIG = 24, AUDIO["paper300"]


@pytest.fixture(scope="module", autouse=True)
def no_window() -> Iterator[None]:
    """Figures are drawn into memory."""
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    yield
    matplotlib.use(before)


def a_sample(frames: int = 1) -> Sample:
    """A picture with two sources, the second silent, and a tone."""
    mask = torch.zeros(2, SIDE, SIDE * frames)
    mask[0, 2:9, 3:12] = 1
    mask[1, 12:20, -10:-2] = 1
    image = torch.randn(3, SIDE, SIDE * frames, generator=torch.Generator().manual_seed(0))
    wave = 0.1 * torch.sin(torch.arange(AUDIO_CONFIG.samples) * 0.2)
    truth = Truth(mask, torch.tensor([1, 0]), torch.tensor([True, False]))
    return Sample("key", image, wave, torch.tensor([0.0, 1]), torch.tensor([1.0, 1]), torch.tensor([0.0, 1]), 0, truth)


def shown(fig: object) -> list[str]:
    """Titles of the panels that show something."""
    return [ax.get_title() for ax in fig.axes if ax.images or ax.lines]  # type: ignore[attr-defined]


@pytest.mark.parametrize("frames", [1, 2])
def test_a_sample_has_picture_waveform_and_spectrogram_with_units(frames: int) -> None:
    fig = figures.sample(a_sample(frames), AUDIO_CONFIG, ("cat", "dog"))
    fig.draw_without_rendering()
    labels = {ax.get_xlabel() for ax in fig.axes} | {ax.get_ylabel() for ax in fig.axes}
    assert {"time / s", "frequency / kHz", "amplitude", "ln power / 12"} <= labels
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["dog", "cat, silent"]
    picture = next(ax for ax in fig.axes if ax.images and ax.images[0].get_array().ndim == 3)
    assert np.allclose(picture.images[0].get_array(), frame.to_display(a_sample(frames).image))
    assert len(picture.lines) == 2 * (frames - 1)  # between the frames of a duet


def test_the_spectrogram_spans_three_seconds_and_half_the_rate() -> None:
    fig = figures.sample(a_sample(), AUDIO_CONFIG, ("cat", "dog"))
    made = next(ax for ax in fig.axes if ax.get_ylabel() == "frequency / kHz").images[0]
    left, right, bottom, top = made.get_extent()
    assert (left, bottom) == (0, 0)
    assert right == pytest.approx(66292 / 22050)
    assert top == pytest.approx(11.025)


def test_padding_has_no_class() -> None:
    truth = Truth(torch.zeros(2, 4, 4), torch.tensor([0, -1]), torch.tensor([True, False]))
    assert figures.captions(truth, ["cat"]) == ["cat", "?, silent"]


def test_a_row_of_maps_names_every_method() -> None:
    one = a_sample(2)
    heats = {"EZ-VSL": torch.rand(4, 8), "M2VSL": torch.rand(SIDE, 2 * SIDE), "flat": torch.zeros(3, 6)}
    fig = figures.maps(one.image, heats, one.truth.mask[0])
    assert [ax.get_title() for ax in fig.axes] == ["picture", *heats]
    assert all(ax.images[0].get_array().shape == (SIDE, 2 * SIDE, 3) for ax in fig.axes)


def test_heat_is_brightest_at_its_maximum() -> None:
    fig, axes = style.figure()
    heat = torch.zeros(SIDE, SIDE)
    heat[5, 7] = 3.0
    draw.overlay(axes[0, 0], torch.zeros(3, SIDE, SIDE), heat)
    brightness = axes[0, 0].images[0].get_array().sum(-1)
    assert divmod(int(brightness.argmax()), SIDE) == (5, 7)
    assert 0 <= brightness.min() and brightness.max() <= 3
    assert fig.axes == [axes[0, 0]]


def test_a_pyramid_shows_every_grid_as_it_is() -> None:
    one = a_sample()
    levels = [torch.rand(8, 8), torch.rand(4, 4), 10 * torch.rand(2, 2)]
    fig = figures.pyramid(one.image, levels, mask=one.truth.mask[0])
    maps = [ax.images[0] for ax in fig.axes if ax.get_title().startswith("stage")]
    assert [tuple(m.get_array().shape) for m in maps] == [(8, 8), (4, 4), (2, 2)]
    assert np.allclose(maps[1].get_array(), levels[1])
    assert {"picture\n24 x 24", "stage 1\n8 x 8"} <= {ax.get_title() for ax in fig.axes}
    shared = figures.pyramid(one.image, levels, ["a", "b", "c"], shared=True)
    limits = {ax.images[0].get_clim() for ax in shared.axes if ax.get_title()[:1] in "abc" and ax.get_title()}
    assert limits == {(min(float(v.min()) for v in levels), max(float(v.max()) for v in levels))}


def test_spectrograms_share_their_colours() -> None:
    waves = {"quiet": 0.01 * a_sample().waveform, "loud": a_sample().waveform}
    fig = figures.spectrograms(waves, AUDIO_CONFIG)
    assert len({ax.images[0].get_clim() for ax in fig.axes if ax.images}) == 1
    assert [name for name in shown(fig) if name] == ["quiet", "loud"]


def test_curves_keep_the_rows_that_have_the_value() -> None:
    history = [{"step": 2, "loss": 3.0, "mmc": 2.0}, {"step": 4, "validation": -1.0}, {"step": 6, "loss": 1.0}]
    fig = figures.curves({"EZ-VSL": history, "M2VSL": history[:1]}, ["loss", "mmc"])
    assert fig.axes[0].lines[0].get_xydata().tolist() == [[2, 3], [6, 1]]
    assert fig.axes[1].get_ylabel() == "mmc / nats"
    assert [t.get_text() for t in fig.axes[0].get_legend().get_texts()] == ["EZ-VSL", "M2VSL"]


def test_curves_differ_without_colour() -> None:
    fig = figures.lines([1, 2], {str(n): [n, n] for n in range(7)}, "x", "y", log=True)
    looks = {(line.get_linestyle(), line.get_marker()) for line in fig.axes[0].lines}
    assert len({marker for _, marker in looks}) == 7
    assert [t.get_text() for t in fig.axes[0].get_xticklabels()] == ["1", "2"]


def test_a_small_matrix_is_written_out() -> None:
    values = torch.tensor([[0.25, -0.001], [1.0, 0.5]])
    fig = figures.matrix(values, ["a", "b"], ["c", "d"], xlabel="sound", ylabel="picture", label="cosine")
    assert [t.get_text() for t in fig.axes[0].texts] == ["0.25", "0.00", "1.00", "0.50"]
    assert (fig.axes[0].get_xlabel(), fig.axes[0].get_ylabel()) == ("sound", "picture")
    assert len(figures.matrix(torch.rand(20, 20)).axes[0].texts) == 0


def test_a_gallery_leaves_no_empty_frames() -> None:
    images = [a_sample().image] * 5
    fig = figures.gallery(images, list("abcde"), [a_sample().truth.mask] * 5, columns=3)
    assert [ax.get_title() for ax in fig.axes if ax.axison] == list("abcde")


def test_a_figure_is_shown_once_and_leaves_the_defaults_alone() -> None:
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    figures.lines([1, 2], {"a": [1, 2]}, "x", "y")
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_the_house_look_is_the_default_once_asked_for() -> None:
    with matplotlib.rc_context():
        style.use()
        assert matplotlib.rcParams["image.cmap"] == style.HEAT
        assert matplotlib.rcParams["svg.fonttype"] == "none"


def test_a_notebook_may_ask_for_figures_that_print_sharp(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("matplotlib_inline.backend_inline.set_matplotlib_formats", asked.append)
    with matplotlib.rc_context():
        style.use(vector=True)  # outside of a notebook nothing more than the look
        monkeypatch.setattr("IPython.get_ipython", object)
        style.use()
        assert asked == []
        style.use(vector=True)
        assert asked == ["svg"]


def test_heat_is_monotone_in_grey() -> None:
    colours = matplotlib.colormaps[style.HEAT](np.linspace(0, 1, 64))[:, :3]
    grey = colours @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(grey) > 0).all()


def standing(*methods: tuple[str, float, float]) -> tables.Table:
    """A table of one column: (method, mean, half the interval's width) each."""
    column = tables.Column("mixture/framewise-area50-oracle/ciou@0.3")
    names = ["centre", "bound", "lvs", "m2vsl", "dmc"]
    cells = {(name, column.metric): Interval(mean, off, 2) for name, mean, off in methods}
    return tables.Table((column,), tuple(names), cells, {n: int((n, column.metric) in cells) for n in names}, "")


def test_who_is_above_the_constant_is_filled_in() -> None:
    rows = [("centre", 0.3, float("nan")), ("bound", 0.6, float("nan")), ("lvs", 0.31, 0.05), ("m2vsl", 0.5, 0.05)]
    fig = figures.standing(standing(*rows))
    fig.draw_without_rendering()
    ax = fig.axes[0]
    upright = {
        line.get_linestyle(): line.get_xdata()[0]
        for line in ax.lines
        if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2
    }
    assert upright == pytest.approx({"--": 30.0, "-": 60.0})
    points = {
        (line.get_xdata()[0], line.get_ydata()[0]): line.get_fillstyle()
        for line in ax.lines
        if line.get_marker() == "o"
    }
    assert points == {(31.0, 0): "none", (50.0, 1): "full"}
    assert [t.get_text() for t in ax.get_yticklabels()] == ["LVS", "M2VSL", "DMC"]
    assert [(t.get_text(), t.get_position()[1]) for t in ax.texts] == [("no record", 2)]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row of the table is on top
    assert [t.get_text() for t in fig.legends[0].get_texts()] == [
        "Centre", "bound of the protocol", "above Centre", "not above it",
    ]  # fmt: skip


def test_the_axis_of_a_share_ends_at_100() -> None:
    fig = figures.standing(standing(("centre", 0.3, float("nan")), ("m2vsl", 0.9, 0.5)))
    assert fig.axes[0].get_xlim() == (0, 104)


def test_a_standing_without_records_is_a_figure_too() -> None:
    fig = figures.standing(standing())
    fig.draw_without_rendering()
    assert [t.get_text() for t in fig.axes[0].texts] == ["no record"] * 3
    assert fig.axes[0].get_xlim() == (0, 100)
    assert "framewise-area50-oracle" in fig.axes[0].get_xlabel()
