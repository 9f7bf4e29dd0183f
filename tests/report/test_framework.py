"""Figure 2: its shapes are the model's, its words stand clear of one another, its file is what is drawn."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from matplotlib import font_manager, ft2font

from m2vsl import ops
from m2vsl.audio import AudioConfig
from m2vsl.encoders import EncoderConfig
from m2vsl.model import M2VSL, M2VSLConfig
from m2vsl.report import drawing, framework, plan

SVG = "{http://www.w3.org/2000/svg}"
AUDIO = AudioConfig(n_fft=128, hop_samples=1024)
ENCODER = EncoderConfig(weights="none", audio_width=4, dim=16)
SMALL = M2VSLConfig(encoder=ENCODER, depth=1)
RESNET = replace(SMALL, encoder=replace(ENCODER, visual="resnet18", dim=24), scales=(4,))
PAGE, LEAST = 800.0, 9.0  # pixels: width of a page, height of the smallest letters on it


@cache
def found(config: M2VSLConfig, size: tuple[int, int] = (64, 64), classes: int = 3) -> dict[str, plan.Shape]:
    return framework.shapes(config, size, classes, AUDIO)


@cache
def papers() -> dict[str, plan.Shape]:
    return framework.papers()


def shapes_of(name: str) -> dict[str, plan.Shape]:
    """The drawings that must be readable."""
    if name == "paper":
        return papers()
    config, size, classes = {
        "small": (SMALL, (64, 64), 3),
        "one scale": (RESNET, (64, 128), 5),
        "two scales": (replace(SMALL, scales=(1, 3)), (64, 64), 3),
        "wide": (replace(SMALL, encoder=replace(ENCODER, dim=1024)), (128, 256), 221),
    }[name]
    return found(config, size, classes)


DRAWINGS = ["paper", "small", "one scale", "two scales", "wide"]


@pytest.mark.parametrize(("config", "size"), [(SMALL, (64, 64)), (RESNET, (64, 128))])
def test_shapes_are_those_of_the_tensors(config: M2VSLConfig, size: tuple[int, int]) -> None:
    """Against the model's parts, called one by one."""
    model = M2VSL(config, 3).eval()
    image, spectrogram = torch.zeros(2, 3, *size), torch.zeros(2, 1, *AUDIO.shape)
    seen = {"image": image, "spectrogram": spectrogram}
    with torch.no_grad():
        stages, seen["audio"] = model.visual(image), model.listen(spectrogram)
        seen["sound"] = model.project_audio(seen["audio"])
        pyramid = model.pyramid(stages)
        slots = model.mmt(pyramid, seen["sound"])
        seen["heard"] = model.heard(slots, seen["audio"])
        seen |= {"heard slots": slots.audio, "seen slots": slots.visual, "grid": slots.grids[0]}
        for s, level in zip(config.scales, pyramid, strict=True):
            seen |= {f"level {s}": level, f"cosine {s}": ops.similarity(ops.unit(level), ops.unit(slots.audio, -1))}
    seen |= {f"stage {n}": stage for n, stage in enumerate(stages, 1)}
    shapes = found(config, size)
    assert {name: shapes[name] for name in seen} == {name: ("B", *t.shape[1:]) for name, t in seen.items()}
    length = len(config.scales) * slots.grids[0].shape[-2:].numel()
    dim = config.encoder.dim
    assert (shapes["tokens"], shapes["visual"]) == (("B", length, dim), ("B", length + 3, dim))
    assert (shapes["auditory"], shapes["seen"], shapes["token"]) == (("B", 1 + 3, dim), ("B", 3), (3, 3))
    assert (shapes["classes"], shapes["heat"]) == ((3, dim), ("B", 3, *size))
    assert [s for s in (1, 2, 3, 4) if shapes.get(f"peak {s}") == ("B", "N")] == list(config.scales)
    assert plan.scales(shapes) == list(config.scales)


def test_the_papers_sizes() -> None:
    """Protocol 4.2: four stages at 224 px, D = 512, 100 visual tokens, 37 classes."""
    shapes = papers()
    stages = [(64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]
    assert [shapes[f"stage {s}"][1:] for s in (1, 2, 3, 4)] == stages
    assert [shapes[f"level {s}"][1:] for s in (1, 2, 3, 4)] == [(512, *stage[1:]) for stage in stages]
    assert (shapes["visual"], shapes["classes"]) == (("B", 100 + 37, 512), (37, 512))


def test_the_model_of_the_drawing_leaves_no_trace() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    framework.shapes(RESNET, (32, 32), 1, AUDIO)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "change", [{"mmt": False}, {"joint": True}, {"top_down": True}, {"fuse": "max"}, {"pool": "5x5"}, {"lengths": True}]
)
def test_another_model_is_not_drawn_as_the_papers(change: dict) -> None:
    (name,) = change
    with pytest.raises(ValueError, match=f"{name}: expected .*, got {change[name]}|{name}: expected .*, got '"):
        framework.shapes(replace(SMALL, **change), (32, 32), 3, AUDIO)


@pytest.mark.parametrize(
    ("change", "name"),
    [({"tokens": 4}, "tokens"), ({"scales": (2, 3, 4)}, "visual"), ({"encoder": replace(ENCODER, dim=8)}, "level 4")],
)
def test_the_drawing_changes_with_the_model(change: dict, name: str) -> None:
    other = found(replace(SMALL, **change))
    assert other[name] != found(SMALL)[name]
    said = plan.said(other[name])
    assert said in words(framework.framework(other)) and said not in words(framework.framework(found(SMALL)))


def test_every_shape_is_drawn_and_a_broken_one_is_told() -> None:
    text = words(framework.framework(papers()))
    pictures = ("image", "spectrogram", "heat")  # in two lines each
    whole = {name: shape for name, shape in papers().items() if name not in pictures}
    whole.pop("grid")
    assert f"{plan.said(papers()['grid'][-2:])} means" in text
    assert [name for name, shape in whole.items() if plan.said(shape) not in text] == []
    assert [name for name in pictures if f"{plan.TIMES} {plan.said(papers()[name][2:])}" not in text] == []
    with pytest.raises(KeyError, match="tokens"):
        framework.framework({name: shape for name, shape in papers().items() if name != "tokens"})


def test_the_committed_file_is_what_is_drawn(tmp_path: Path) -> None:
    assert framework.main(["--check"]) == 0, "run python -m m2vsl.report.framework"
    stale = tmp_path / "framework.svg"
    stale.write_text("<svg/>")
    assert framework.main(["--check", "--file", str(stale)]) == 1 and stale.read_text() == "<svg/>"
    assert framework.main(["--file", str(stale)]) == 0
    assert stale.read_bytes() == framework.FILE.read_bytes()


def test_the_first_page_says_what_is_drawn() -> None:
    page = (framework.FILE.parents[1] / "index.md").read_text("utf-8")
    assert "```{figure} _static/framework.svg" in page
    assert f":alt: {framework.alt(papers())}\n" in page


@pytest.mark.parametrize("name", DRAWINGS)
def test_words_for_those_who_do_not_see_it(name: str) -> None:
    shapes = shapes_of(name)
    root = ElementTree.fromstring(framework.framework(shapes))
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None and desc is not None and title.text and desc.text == framework.alt(shapes)
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {desc.get('id')}"
    shown = framework.show(shapes)
    assert shown._repr_svg_() == shown._repr_html_() == framework.framework(shapes)
    assert repr(shown) == desc.text and plan.said(shapes["heat"]) in desc.text


def test_every_code_that_is_named_exists() -> None:
    model = M2VSL(SMALL, 3)
    names = {line.text for line in lines(framework.framework(found(SMALL))) if line.mono}
    assert len(names) >= 8
    for name in names:
        module, first, *rest = name.split(".")
        thing = getattr(importlib.import_module(f"m2vsl.{module}"), first)
        for attribute in rest:
            assert hasattr(model if thing is M2VSL else thing, attribute), name


@dataclass(frozen=True)
class Line:
    """A line of text where it stands: x from `left` to `right`, y from `top` to `bottom`."""

    text: str
    left: float
    right: float
    top: float
    bottom: float
    size: float  # of its smallest letters
    mono: bool

    def meets(self, other: Line, margin: float = 0.0) -> bool:
        return (
            self.left < other.right + margin
            and other.left < self.right + margin
            and self.top < other.bottom
            and other.top < self.bottom
        )


@cache
def face(bold: bool, mono: bool) -> ft2font.FT2Font:
    family = "DejaVu Sans Mono" if mono else "DejaVu Sans"
    wanted = font_manager.FontProperties(family=family, weight="bold" if bold else "normal")
    font = ft2font.FT2Font(font_manager.findfont(wanted))
    font.set_size(100, 72)
    return font


def advance(text: str, size: float, bold: bool, mono: bool) -> float:
    """The width of a text in DejaVu, as Matplotlib's own copy of the font has it."""
    font = face(bold, mono)
    font.set_text(text, 0, flags=ft2font.LoadFlags.NO_HINTING)
    return font.get_width_height()[0] / 64 * size / 100


def line_of(element: ElementTree.Element) -> Line:
    size, x, y = (float(element.get(name, "nan")) for name in ("font-size", "x", "y"))
    text, bold = "".join(element.itertext()), element.get("font-weight") == "bold"
    mono = "Mono" in element.get("font-family", "")
    wide = advance(text, size, bold, mono)
    left = x - {"start": 0, "middle": wide / 2, "end": wide}[element.get("text-anchor", "start")]
    sizes = [float(span.get("font-size", size)) for span in element.iter()]
    return Line(text, left, left + wide, y - 0.8 * size, y + 0.22 * size, min(sizes), mono)


def lines(svg: str) -> list[Line]:
    return [line_of(element) for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def words(svg: str) -> list[str]:
    return [line.text for line in lines(svg)]


def boxes(svg: str) -> Iterator[tuple[Line, list[Line]]]:
    """Every box, as a line without text, and what stands in it."""
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        x, y, w, h = (float(group[0].get(name, "nan")) for name in ("x", "y", "width", "height"))
        yield Line("", x, x + w, y, y + h, 0, False), [line_of(e) for e in group.iter(f"{SVG}text")]


def strokes(svg: str) -> Iterator[Line]:
    """Every straight piece of an arrow."""
    for line in ElementTree.fromstring(svg).iter(f"{SVG}polyline"):
        points = [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            assert x0 == x1 or y0 == y1, "arrows run along the axes"
            yield Line("", min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1), 0, False)


@pytest.mark.parametrize("name", DRAWINGS)
class TestReadable:
    """What must hold of the drawing on a page."""

    def test_letters_are_large_enough_and_on_the_sheet(self, name: str) -> None:
        svg = framework.framework(shapes_of(name))
        _, _, width, height = map(float, ElementTree.fromstring(svg).get("viewBox", "").split())
        found = lines(svg)
        assert [line.text for line in found if line.left < 8 or line.right > width - 8] == []
        assert [line.text for line in found if line.top < 8 or line.bottom > height - 5] == []
        if name != "wide":
            assert min(line.size for line in found) * PAGE / width >= LEAST

    def test_words_do_not_touch_words(self, name: str) -> None:
        found = lines(framework.framework(shapes_of(name)))
        assert [(a.text, b.text) for a, b in itertools.combinations(found, 2) if a.meets(b, 3)] == []

    def test_words_stand_inside_their_box_and_no_other(self, name: str) -> None:
        svg = framework.framework(shapes_of(name))
        found = list(boxes(svg))
        assert len(found) > 12
        for box, inner in found:
            assert inner
            for line in inner:
                assert box.left + 2 <= line.left and line.right <= box.right - 2, line.text
                assert box.top <= line.top and line.bottom <= box.bottom, line.text
            others = [line.text for line in lines(svg) if line not in inner and line.meets(box)]
            assert others == []

    def test_boxes_do_not_overlap(self, name: str) -> None:
        found = [box for box, _ in boxes(framework.framework(shapes_of(name)))]
        assert [(a, b) for a, b in itertools.combinations(found, 2) if a.meets(b)] == []

    def test_no_arrow_runs_through_words(self, name: str) -> None:
        svg = framework.framework(shapes_of(name))
        hit = [(line.text, s.left, s.top) for line in lines(svg) for s in strokes(svg) if line.meets(s)]
        assert hit == []

    def test_all_is_on_white_and_says_all_without_colour(self, name: str) -> None:
        root = ElementTree.fromstring(framework.framework(shapes_of(name)))
        ground = next(e for e in root if e.tag == f"{SVG}rect")
        assert (ground.get("fill"), ground.get("width")) == ("white", root.get("width"))
        training = [e for e in root.iter(f"{SVG}polyline") if e.get("stroke-dasharray")]
        assert len(training) == 6  # to seen, token, heard, the largest cosine, the contrast; in the legend
        assert all(inner[0].text for _, inner in boxes(framework.framework(shapes_of(name))))


@pytest.mark.parametrize("mono", [False, True])
@pytest.mark.parametrize(
    "text", ["B \u00d7 1280 \u00d7 56 \u00d7 112", "WMWM", "encoders.VisualEncoder", "lift, jar", "\u03c6^v x^a"]
)
def test_text_is_no_wider_than_it_is_taken_to_be(text: str, mono: bool) -> None:
    for bold in (False, True) if not mono else (False,):
        real = advance(text.replace("^", ""), 11, bold, mono)
        assert real <= drawing.wide(text, 11, bold=bold, mono=mono) <= 1.3 * real


def test_marks_of_the_markup_are_escaped() -> None:
    sheet = drawing.Drawing(100, 50, "a < b", 'c & "d"')
    sheet.text(10, 20, "x^a < y & z")
    root = ElementTree.fromstring(sheet.svg())
    assert words(sheet.svg()) == ["xa < y & z"]
    assert [e.text for e in root[:2]] == ["a < b", 'c & "d"']
    raised = [float(span.get("dy", "0")) for span in root.iter(f"{SVG}tspan")]
    assert raised[0] < 0 and sum(raised) == 0
