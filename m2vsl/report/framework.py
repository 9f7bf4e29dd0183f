"""Figure 2 of the book: the method as one SVG whose shapes are noted down while a model of that configuration runs.

python -m m2vsl.report.framework            # rewrite book/_static/framework.svg
python -m m2vsl.report.framework --check    # change nothing; exit 1 where the file would change

How it looks, and where everything stands, is `m2vsl.report.plan`. An SVG is lines and text, not pixels: a browser
prints it, and saves it as PDF, as sharp as the paper is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from m2vsl import ops, paths
from m2vsl.audio import AudioConfig
from m2vsl.model import M2VSL, M2VSLConfig
from m2vsl.presets import PRESETS
from m2vsl.report import plan
from m2vsl.report.plan import Shape
from m2vsl.types import Batch, Truth

FILE = paths.ROOT / "book" / "_static" / "framework.svg"
CLASSES = 37  # of VGGSound-Instruments, as the paper counts them
PICTURES = 2  # of the batch that runs
DRAWN = (  # fields under which another arrow, another word or another sum would have to be drawn
    *("mmt", "joint", "pool", "fuse", "gate", "map_features", "heard_from", "presence", "peak", "symmetric"),
    *("scale_sum", "top_down", "map_weight", "loudness", "remix", "spread", "lengths", "view"),
)


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


def framework(shapes: Mapping[str, Shape]) -> str:
    """The drawing as SVG text; shapes: as `shapes` finds them."""
    return plan.drawn(shapes, alt(shapes))


def show(shapes: Mapping[str, Shape]) -> Picture:
    """The drawing for a notebook's cell; its words are the SVG's description, too."""
    return Picture(framework(shapes), alt(shapes))


def alt(shapes: Mapping[str, Shape]) -> str:
    """What the drawing shows, in words."""
    classes, dim = shapes["classes"]
    scales = [str(s) for s in plan.scales(shapes)]
    which = f"stages {', '.join(scales)} are" if len(scales) > 1 else f"stage {scales[0]} is"
    picture, sound, heat = (plan.said(shapes[name]) for name in ("image", "spectrogram", "heat"))
    rows, columns = shapes["grid"][-2:]
    return (
        f"From left to right. A picture ({picture}) passes through a visual encoder of four stages, of which {which} "
        f"projected to {dim} channels. Means over {rows} by {columns} parts of each projected stage and {classes} "
        f"class tokens go through the visual branch of a transformer; the vector of a spectrogram ({sound}) and the "
        "same class tokens go through the auditory branch. The class slots that come out of the latter are compared "
        "with every location of every projected stage by their cosine; the mean over stages is one map per class "
        f"({heat}). In training alone, the largest cosine of each stage enters a contrast over the batch, and class "
        "tokens, seen slots and heard slots have a class loss each."
    )


def papers() -> dict[str, Shape]:
    """The shapes of the paper's sizes: ResNet-18, frames of 224 px, 37 classes."""
    size = PRESETS["paper"]
    return shapes(M2VSLConfig(encoder=size.encoder), (size.size, size.size), CLASSES, size.audio)


def main(argv: list[str] | None = None) -> int:
    """Rewrite, or with ``--check`` compare; 1 if the file is not what is drawn."""
    parser = argparse.ArgumentParser(description="Keep the drawing of the framework what the model is.")
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("--file", type=Path, default=FILE, help="default: %(default)s")
    given = parser.parse_args(argv)
    drawn = framework(papers())
    if not given.check:
        given.file.write_text(drawn, "utf-8")
    return int(given.check and given.file.read_text("utf-8") != drawn)


if __name__ == "__main__":
    sys.exit(main())
