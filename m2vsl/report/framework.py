"""Figure 2 of the book: the method as one SVG whose shapes are noted down while a model of that configuration runs.

python -m m2vsl.report.framework            # rewrite book/_static/framework.svg
python -m m2vsl.report.framework --check    # change nothing; exit 1 where the file would change

Conventions
-----------
Whole lines are always there, dashed ones in training only; colour repeats what the words say. A shape stands at what it
is the shape of: beside an arrow, or in the box of what comes out of it. Code is named within the package, by the side
of the section of the paper or, where the paper is silent, of the point of the ledger. Fonts are those of the reader's
machine; a line of text is taken to be as wide as in DejaVu Sans, which is wide.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from m2vsl import ops, paths
from m2vsl.audio import AUDIO, AudioConfig
from m2vsl.model import M2VSL, M2VSLConfig, Slots
from m2vsl.presets import PRESETS
from m2vsl.report.drawing import BODY, HEAD, SMALL, Drawing, wide
from m2vsl.report.style import COLOURS, FAINT, INK
from m2vsl.types import Batch, Truth

Shape = tuple[int | str, ...]
FILE = paths.ROOT / "book" / "_static" / "framework.svg"
CLASSES = 37  # of VGGSound-Instruments, as the paper counts them
PICTURES = 2  # of the batch that runs
PICTURE, SOUND, CLASS = COLOURS[0], COLOURS[1], COLOURS[2]
TITLE = "The M2VSL framework"
TIMES, PHI = "\N{MULTIPLICATION SIGN}", "\N{GREEK SMALL LETTER PHI}"
DRAWN = (  # fields under which another arrow, another word or another sum would have to be drawn
    *("mmt", "joint", "pool", "fuse", "gate", "map_features", "heard_from", "presence", "peak", "symmetric"),
    *("scale_sum", "top_down", "map_weight", "loudness", "remix", "spread", "lengths", "view"),
)
ROWS, STEP, TALL = 98.0, 46.0, 30.0  # of the four stages: middle of the first, distance, height of a box
MMT_TOP, BOX = 276.0, (104.0, 36.0)  # of the lower half: its upper edge, a box of the transformer
HEIGHT = 612.0
WIDE = 60.0  # of an encoder


@dataclass(frozen=True)
class Picture:
    """A drawing that a notebook shows: the SVG, and in words what is on it."""

    svg: str
    alt: str

    def __repr__(self) -> str:
        return self.alt

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return self.svg


def shapes(config: M2VSLConfig, size: tuple[int, int], classes: int, audio: AudioConfig) -> dict[str, Shape]:
    """What flows through M2VSL of this configuration: name -> shape, "B" for the pictures and "N" for the sounds heard.

    A model with random weights runs once on a batch of zeros, frames of `size` (H, W) pixels and spectrograms as
    `audio` makes them, in training's verb and in that of the test. Names: "image", "spectrogram", "stage 1" to
    "stage 4"; for each scale s "level s" (projected), "cosine s" (with the slots of all classes), "peak s" (the
    largest, with each class heard); "audio", "sound" (projected), "grid", "tokens", "classes", "visual" and "auditory"
    (the sequences of both transformers), "seen slots", "heard slots"; logits "token", "seen", "heard"; "heat".

    Raises ValueError where the configuration departs from the paper's model in a way that the drawing does not show.
    """
    for name in DRAWN:
        if getattr(config, name) != getattr(M2VSLConfig(), name):
            raise ValueError(f"{name}: expected {getattr(M2VSLConfig(), name)!r}, got {getattr(config, name)!r}")
    with torch.random.fork_rng(devices=[]):
        model = M2VSL(replace(config, encoder=replace(config.encoder, weights="none")), classes).eval()
    batch, out = _zeros(size, classes, audio), {}
    watched = {"trunk": model.visual, "audio": model.audio, "sound": model.project_audio, "mmt": model.mmt}
    watched |= {"visual": model.mmt.phi["visual"], "auditory": model.mmt.phi["audio"]}
    watched |= {"token": model.token_head, "seen": model.seen_head, "heard": model.heard_head}
    watched |= {f"level {s}": conv for s, conv in zip(config.scales, model.project, strict=True)}
    for name, module in watched.items():
        module.register_forward_hook(lambda _module, _given, made, name=name: out.update({name: made}))
    with torch.no_grad():
        heat = model.localize(batch).heat
        model(batch)
    slots, heard = out["mmt"], batch.heard.nonzero(as_tuple=True)
    found = {"image": _of(batch.image), "spectrogram": _of(batch.spectrogram), "heat": _of(heat)}
    found |= {f"stage {n}": _of(stage) for n, stage in enumerate(out["trunk"], 1)}
    for s in config.scales:
        level = out[f"level {s}"]
        found[f"level {s}"] = _of(level)
        found[f"cosine {s}"] = _of(ops.similarity(ops.unit(level), ops.unit(slots.audio, -1)))
        found[f"peak {s}"] = _of(ops.peak_cosine(level, ops.unit(slots.audio[heard])), B=PICTURES, N=len(heard[0]))
    found |= {name: _of(out[name]) for name in ("audio", "sound", "visual", "auditory")}
    found |= {name: _of(out[name].squeeze(-1)) for name in ("seen", "heard")}
    found |= {"classes": tuple(model.mmt.tokens.shape), "token": tuple(out["token"].shape)}
    tokens = torch.cat([grid.flatten(2) for grid in slots.grids], -1).transpose(1, 2)
    found |= {"grid": _of(slots.grids[0]), "tokens": _of(tokens)}
    return found | {"seen slots": _of(slots.visual), "heard slots": _of(slots.audio)}


def _of(tensor: Tensor, **letters: int) -> Shape:
    """The shape of a tensor whose first axes have these letters, by default "B"."""
    letters = letters or {"B": PICTURES}
    first = tuple(tensor.shape[: len(letters)])
    if first != tuple(letters.values()):
        raise RuntimeError(f"expected a tensor that begins with {letters}, got shape {tuple(tensor.shape)}")
    return (*letters, *tensor.shape[len(letters) :])


def _zeros(size: tuple[int, int], classes: int, audio: AudioConfig) -> Batch:
    """A batch of black silence: the first picture has the first class and the last, the others have the first."""
    labels = torch.zeros(PICTURES, classes)
    labels[:, 0] = labels[0, -1] = 1
    none = torch.zeros(PICTURES, 1, dtype=torch.int64)
    truth = Truth(torch.zeros(PICTURES, 1, *size), none, none.bool())
    picture, sound = torch.zeros(PICTURES, 3, *size), torch.zeros(PICTURES, 1, *audio.shape)
    return Batch(picture, sound, labels, labels, labels, torch.arange(PICTURES), truth)


def said(shape: Shape) -> str:
    """A shape as it stands in the drawing."""
    return f" {TIMES} ".join(map(str, shape))


def framework(shapes: Mapping[str, Shape]) -> str:
    """The drawing as SVG text; shapes: as `shapes` finds them."""
    at = _Columns.of(shapes)
    drawing = Drawing(at.width, HEIGHT, TITLE, alt(shapes))
    for draw in (_grounds, _pictures, _levels, _answer, _sounds, _transformer, _contrast, _legend):
        draw(drawing, at, shapes)
    return drawing.svg()


def show(shapes: Mapping[str, Shape]) -> Picture:
    """The drawing for a notebook's cell; its words are the SVG's description, too."""
    return Picture(framework(shapes), alt(shapes))


def alt(shapes: Mapping[str, Shape]) -> str:
    """What the drawing shows, in words."""
    scales, classes = _scales(shapes), shapes["classes"][0]
    many = f"{len(scales)} stages are" if len(scales) > 1 else "one stage is"
    return (
        f"From left to right. A picture ({said(shapes['image'])}) passes through a visual encoder of four stages, of "
        f"which {many} projected to {shapes['classes'][1]} channels. Averages over {shapes['grid'][-2]} by "
        f"{shapes['grid'][-1]} tokens of each stage and {classes} class tokens go through the visual branch of a "
        f"transformer, the vector of a spectrogram ({said(shapes['spectrogram'])}) and the same class tokens through "
        "the auditory one. Its class slots are compared with every location of every stage by their cosine; the mean "
        f"over stages is one map per class ({said(shapes['heat'])}). In training alone, the largest cosine of each "
        "stage enters a contrast over the batch, and class tokens, seen slots and heard slots have a class loss each."
    )


def _scales(shapes: Mapping[str, Shape]) -> list[int]:
    return [s for s in (1, 2, 3, 4) if f"level {s}" in shapes]


@dataclass(frozen=True)
class _Columns:
    """Left edges, from the widths of the shapes that stand between them."""

    project: float  # boxes of the projections
    bus: float  # where the projected stages go down to the transformer
    cosine: float
    mean: float
    maps: float
    width: float

    @classmethod
    def of(cls, shapes: Mapping[str, Shape]) -> _Columns:
        gap = {name: max(wide(said(v), SMALL) for k, v in shapes.items() if k.startswith(name)) for name in GAPS}
        project = ENCODER + WIDE + max(gap["stage"] + 16, 108)
        bus = project + 44 + 22
        cosine = bus + max(gap["level"] + 24, 52 + wide(said(shapes["seen slots"]), SMALL) + 16 + PILL + 4)
        mean = cosine + 56 + gap["cosine"] + 16
        maps = mean + 44 + 24
        return cls(project, bus, cosine, mean, maps, max(maps + 76, maps + 38 + gap["heat"] / 2) + 12)


def _row(stage: int) -> float:
    return ROWS + STEP * (stage - 1)


def _head(drawing: Drawing, x: float, y: float, title: str, code: str, source: str, anchor: str = "start") -> None:
    """What it is, the code that is it, where the paper or the ledger has it."""
    drawing.text(x, y, title, size=HEAD, anchor=anchor, bold=True)
    drawing.text(x, y + 15, code, size=SMALL, anchor=anchor, mono=True)
    drawing.text(x, y + 30, source, size=SMALL, anchor=anchor, ink=GREY)


def _grounds(drawing: Drawing, at: _Columns, _: Mapping[str, Shape]) -> None:
    drawing.panel((ENCODER - 7, ROWS - 22), (WIDE + 14, 3 * STEP + 44))
    drawing.panel((at.bus - BOX[0] / 2 - 10, MMT_TOP), (BOX[0] + 20, 256))
    drawing.panel((at.cosine + 70, MMT_TOP), (at.width - at.cosine - 82, 148), dashed=True)


def _pictures(drawing: Drawing, at: _Columns, shapes: Mapping[str, Shape]) -> None:
    middle, (h, w) = _row(1) + 1.5 * STEP, shapes["image"][-2:]
    high = SIDE * int(h) / int(w)
    _scene(drawing, (LEFT, middle - high / 2), (SIDE, high), 1.0, 1.0)
    drawing.text(LEFT, middle - high / 2 - 8, "Picture", size=HEAD, bold=True)
    drawing.text(LEFT, middle + high / 2 + 16, said(shapes["image"]), size=SMALL)
    drawing.arrow((LEFT + SIDE + 2, middle), (ENCODER - 7, middle), colour=PICTURE)
    _head(drawing, ENCODER - 7, 24, "Visual encoder", "encoders.VisualEncoder", "section 4.1")
    for stage in (1, 2, 3, 4):
        y = _row(stage)
        drawing.box((ENCODER, y - TALL / 2), (WIDE, TALL), [f"stage {stage}"], colour=PICTURE)
        if stage < 4:
            drawing.arrow((ENCODER + WIDE / 2, y + TALL / 2), (ENCODER + WIDE / 2, y + STEP - TALL / 2), colour=PICTURE)
