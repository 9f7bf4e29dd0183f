"""The fairness table: what each row of a comparison learns from, sees, costs and is told; numbers measured, not typed.

python -m m2vsl.report.fairness            # rewrite both tables in m2vsl/baselines/README.md
python -m m2vsl.report.fairness --check    # change nothing; exit 1 where they would change

Each method of `METHODS` that learns is built twice, with the trunks of the small presets and with those of the paper's,
and answers once for a frame of 224 x 224 px with 3 s of sound. A table stands between ``<!-- fairness: NAME -->`` and
``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from m2vsl import paths
from m2vsl.audio import AUDIO
from m2vsl.encoders import EncoderConfig, VisualEncoder
from m2vsl.localizer import Localizer
from m2vsl.methods import CONTROLS, METHODS
from m2vsl.presets import PRESETS
from m2vsl.report.tables import markdown as markdown_of
from m2vsl.types import Batch, Truth

if TYPE_CHECKING:
    import pandas as pd

README = paths.ROOT / "m2vsl" / "baselines" / "README.md"
PLACE = re.compile(r"(<!-- fairness: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
SIDE = 224  # pixels
CLASSES = 12  # as many as synthetic has
ENCODERS = {"small": PRESETS["small"].encoder, "paper": PRESETS["paper"].encoder}


class Words(NamedTuple):
    """What no program can measure."""

    labels: str  # what is asked of labels
    given: str  # what is assumed at test
    changed: str  # what we changed of the original


_ONE_MAP = "nothing; one map answers for every source"
_CLASS = "the class of a source, or nothing, where it has to hear the class"
WORDS: dict[str, Words] = {
    "attention10k": Words(
        "nothing",
        _ONE_MAP,
        "the sound's trunk learns, in place of SoundNet; the term for annotated pictures left out",
    ),
    "ots": Words("nothing", _ONE_MAP, "ImageNet weights, not from scratch; a bias that says no at the start"),
    "dmc": Words(
        "nothing",
        "two clusters in a frame, one more for each further frame; one map answers for every source",
        "the simplified release; ImageNet weights, not from scratch; cells of one length before they are projected; "
        "the margin behind its hard mask is the map",
    ),
    "coarse_to_fine": Words(
        "the class of each video, for two classifiers and for what is aligned",
        _CLASS,
        "video labels in place of two pretrained taggers; Adam in place of SGD; no ReLU in the map",
    ),
    "lvs": Words("nothing", _ONE_MAP, "a projection on each side; the missing loss written from the released logits"),
    "ez_vsl": Words("nothing", _ONE_MAP, "nothing but the trunks"),
    "ez_vsl_ogl": Words(
        "those of ImageNet, in its guide", _ONE_MAP, "where the trunk is frozen, the guide is that same trunk"
    ),
    "slavc": Words("nothing", _ONE_MAP, "no object guidance; a frozen trunk is its own momentum copy"),
    "mix_and_localize": Words(
        "which map is which class; nothing is learnt from them",
        f"that there are two sources, a head for each; then {_CLASS}",
        "maps get classes, which the original has no way to; the louder cell of two spectrograms, not the mean of two "
        "waveforms; the two halves of a clip, not two moments at random",
    ),
    "dsol": Words(
        "which cluster is which class; nothing is learnt from them",
        _CLASS,
        "its first two stages one after the other, not in turns; mixtures of two solos, not mosaics of four",
    ),
    "avgn": Words(
        "the class of each video, in three losses and to pick the class slot",
        _CLASS,
        "the louder cell of two spectrograms, not the sum of two waveforms; no object guidance",
    ),
    "avs_ws": Words(
        "the classes of each video, for classifiers of what its mask covers",
        _ONE_MAP,
        "labels in place of masks, which is our definition of the row; the sound's trunk learns, in place of VGGish; "
        "one frame, not five",
    ),
    "cam": Words(
        "the classes of each video, for classifiers of the picture",
        "the class of a source, or nothing, where it has to see the class",
        "one size of picture, no mirror image, no random field; Adam in place of SGD",
    ),
    "cam_near": Words(
        "the classes of each video, for classifiers of the picture",
        "the class of a source, or nothing, where it has to see the class",
        "as CAM, but that pictures are looked at in twice their size, as M2VSL+ does in the short presets",
    ),
    "c2am": Words(
        "nothing",
        _ONE_MAP,
        "the border is followed from the first update on; no refinement of its masks; Adam in place of SGD",
    ),
    "m2vsl": Words(
        "the classes of each video, in three losses and to pick the class slots",
        _CLASS,
        "nothing; what the text leaves open is in the ledger",
    ),
    "m2vsl_plus": Words("as M2VSL", _CLASS, "M2VSL with departures of our own"),
}


@dataclass(frozen=True)
class Cost:
    """What a method is made of and needs for one answer, as measured on the running method."""

    cells: tuple[int, ...]  # per side, of each stage whose cells are compared with the sound
    maps: int  # K
    sources: int | None  # told apart at most, by unnamed heads; None = no such limit
    trunks: int  # of the picture
    learnt: int  # numbers that learn in any of its stages
    flops: int  # of one `localize`: one frame, one sound


def rows() -> list[str]:
    """The methods of the table: all that learn."""
    return [name for name in METHODS if name not in CONTROLS]


def cost(name: str, encoder: EncoderConfig, classes: int = CLASSES) -> Cost:
    """Build the method with random weights, let it enter its stages, and let it answer once.

    Operations are those of convolutions and matrix products, a multiplication and an addition being two.
    """
    method = _built(name, replace(encoder, weights="none"), classes)
    trunks = [module for module in method.modules() if isinstance(module, VisualEncoder)]
    learnt = _learnt(method, classes)
    grids: list[list[int]] = []
    hooks = [t.register_forward_hook(lambda _m, _i, out: grids.append([s.shape[-1] for s in out])) for t in trunks]
    method.eval()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        maps = method.localize(_noise(1, SIDE, AUDIO["paper300"].shape, classes))
    for hook in hooks:
        hook.remove()
    stages = getattr(METHODS[name].config, "scales", (len(grids[0]),))
    cells = tuple(grids[0][stage - 1] for stage in stages)
    return Cost(cells, maps.heat.shape[1], method.sources, len(trunks), learnt, counter.get_total_flops())


def set_apart(name: str) -> list[str]:
    """The fields that `METHODS` sets to something else than their class does: "momentum = 0.9"."""
    config: Any = METHODS[name].config
    usual = type(config)()
    differ = [f.name for f in fields(config) if getattr(config, f.name) != getattr(usual, f.name)]
    return [f"{field} = {getattr(config, field)}" for field in differ]


def frame() -> pd.DataFrame:
    """The whole table as text; index: titles of the methods."""
    import pandas as pd

    return pd.DataFrame([_row(name) for name in rows()], index=[METHODS[name].title for name in rows()])


def markdown(table: pd.DataFrame) -> dict[str, str]:
    """The table as two of Markdown by name: ``learns``, in words, and ``costs``, in numbers."""
    parts = {"learns": list(_words("m2vsl")), "costs": []}
    parts["costs"] = [column for column in table.columns if column not in parts["learns"]]
    return {name: _lines(table[columns]) for name, columns in parts.items()}


def rewritten(text: str, tables: dict[str, str]) -> str:
    """A page with the tables made anew. ValueError if a place names no table, or a table has no place."""
    places = [found[1] for found in PLACE.findall(text)]
    if sorted(places) != sorted(tables):
        raise ValueError(f"expected one place for each of {', '.join(tables)}, got {', '.join(places) or 'none'}")
    return PLACE.sub(lambda found: f"{found[1]}\n{tables[found[2]]}\n{found[3]}", text)


def main(argv: list[str] | None = None) -> int:
    """Rewrite, or with ``--check`` compare; 1 if the page is not what is measured."""
    parser = argparse.ArgumentParser(description="Keep the fairness table what the methods are.")
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("--page", type=Path, default=README, help="default: %(default)s")
    given = parser.parse_args(argv)
    before = given.page.read_text("utf-8")
    after = rewritten(before, markdown(frame()))
    if not given.check:
        given.page.write_text(after, "utf-8")
    return int(given.check and before != after)


def _row(name: str) -> dict[str, str]:
    of = {size: cost(name, encoder) for size, encoder in ENCODERS.items()}
    one, build = of["paper"], METHODS[name].build
    maps = "one per class" if build.named else f"{one.maps}, of no class" if one.maps > 1 else "one, of no class"
    numbers = {
        "cells per side": ", ".join(map(str, one.cells)),
        "trunks": str(one.trunks),
        "maps": maps + (f", from {one.sources} heads" if one.sources else ""),
        "listens": "yes" if build.listens else "no",
        "updates, rate": f"{METHODS[name].steps:g}, {METHODS[name].lr:.2g}",
    }
    numbers |= {f"learnt / M, {size}": f"{found.learnt / 1e6:.2f}" for size, found in of.items()}
    numbers |= {f"GFLOP, {size}": f"{found.flops / 1e9:.2f}" for size, found in of.items()}
    return _words(name) | numbers


def _words(name: str) -> dict[str, str]:
    said, fields_set = WORDS[name], "; ".join(f"`{key}`" for key in set_apart(name))
    return {
        "learns from": ", ".join(sorted(METHODS[name].build.wants)),
        "asks of labels": said.labels,
        "is given at test": said.given,
        "what we changed": said.changed + (f"; {fields_set}" if fields_set else ""),
    }


def _lines(table: pd.DataFrame) -> str:
    rows = zip(table.index, table.to_numpy().tolist(), strict=True)
    return markdown_of([["", *table.columns], *([str(title), *row] for title, row in rows)]) + "\n"


def _built(name: str, encoder: EncoderConfig, classes: int) -> Localizer:
    """A method with random weights; a guiding network, which insists on ImageNet's, is put in with random ones, too."""
    config: Any = replace(METHODS[name].config, encoder=encoder)
    guided = getattr(config, "ogl", False)
    method = METHODS[name].build(replace(config, ogl=False) if guided else config, classes)
    if guided:
        method.config, method.objects = config, VisualEncoder(replace(encoder, freeze=True))
    return method


def _learnt(method: Localizer, classes: int) -> int:
    """How many numbers learn in any of the method's stages: each is entered, with noise as training pictures."""
    loader = [_noise(8 * classes, 32, (65, 70), classes)]
    learnt: dict[str, int] = {}
    for stage in method.stages:
        method.enter(stage, loader)
        learnt |= {name: values.numel() for name, values in method.named_parameters() if values.requires_grad}
    return sum(learnt.values())


def _noise(pictures: int, side: int, bins: tuple[int, int], classes: int) -> Batch:
    """Solos of noise, the classes in turn."""
    drawn = torch.Generator().manual_seed(0)
    label = torch.arange(pictures) % classes
    labels = torch.nn.functional.one_hot(label, classes).float()

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=drawn)

    truth = Truth(torch.zeros(pictures, 1, side, side), label[:, None], torch.ones(pictures, 1, dtype=torch.bool))
    image, sound = noise(pictures, 3, side, side), noise(pictures, 1, *bins)
    return Batch(image, sound, labels, labels, labels, torch.arange(pictures), truth)


if __name__ == "__main__":
    sys.exit(main())
