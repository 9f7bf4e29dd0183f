"""Where everything stands in the drawing of the framework (`m2vsl.report.framework`).

Conventions
-----------
Whole lines are always there, dashed ones in training only; colour repeats what the words say. A shape stands beside the
arrow that carries it, or in the box that it comes out of. Code is named within the package, by the side of the section
of the paper or, where the paper is silent, of the point of the ledger. Columns are as wide as the shapes between them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from m2vsl.report.drawing import HEAD, SMALL, Drawing, Point, middles, wide
from m2vsl.report.style import COLOURS, INK

Shape = tuple[int | str, ...]
PICTURE, SOUND, CLASS = COLOURS[0], COLOURS[1], COLOURS[2]
GREY = "#595959"  # of what stands beside
TIMES, PHI = "\N{MULTIPLICATION SIGN}", "\N{GREEK SMALL LETTER PHI}"
LEFT, SIDE = 12.0, 70.0  # of the picture and the spectrogram
ENCODER, WIDE = 106.0, 60.0  # left edge and width of both encoders
ROWS, STEP, TALL = 100.0, 46.0, 30.0  # of the four stages: middle of the first, distance, height of a box
LOWER = 290.0  # upper edge of the lower half
BOX = (106.0, 36.0)  # of the transformer
LINEAR, COSINE, MEAN = 44.0, 52.0, 48.0  # widths of boxes
ASIDE, CONTRAST = 70.0, 232.0  # of (a): its left edge, from the cosines, and its width, at least
POOL, SEEN, TOKENS, HEARD = (LOWER + 30 + 60 * row for row in range(4))  # middles of the transformer's boxes
HEIGHT = 622.0


def said(shape: Shape) -> str:
    """A shape as it stands in the drawing."""
    return f" {TIMES} ".join(map(str, shape))


def scales(shapes: Mapping[str, Shape]) -> list[int]:
    """The stages that are projected, 1 = finest."""
    return [s for s in (1, 2, 3, 4) if f"level {s}" in shapes]


def drawn(shapes: Mapping[str, Shape], desc: str) -> str:
    """The whole drawing as SVG; shapes: of `framework.shapes`; desc: the same in words."""
    at = Columns.of(shapes)
    drawing = Drawing(at.width, HEIGHT, "The M2VSL framework", desc)
    for part in (_grounds, _stages, _projections, _cosines, _maps, _sounds, _transformer, _losses, _contrast):
        part(drawing, at, shapes)
    _legend(drawing)
    return drawing.svg()


@dataclass(frozen=True)
class Columns:
    """Left edges of the columns, and the width of the sheet."""

    project: float
    bus: float  # where the projected stages go down to the transformer
    pill: float  # width of a loss
    cosine: float
    mean: float
    maps: float
    width: float

    @classmethod
    def of(cls, shapes: Mapping[str, Shape]) -> Columns:
        """As wide as the widest shape between two columns."""

        def widest(*starts: str) -> float:
            return max(wide(said(shape), SMALL) for name, shape in shapes.items() if name.startswith(starts))

        project = ENCODER + WIDE + max(widest("stage") + 16, widest("audio") + widest("sound") + LINEAR + 12)
        bus = project + LINEAR + 22
        pill = max(wide(said(shapes[name]), SMALL) for name in ("token", "seen", "heard")) + 10
        code = wide("losses.token_identity", SMALL, mono=True) + 10
        cosine = bus + BOX[0] / 2 + 8 + max(code, widest("seen slots") + 14 + pill)
        after = MEAN + 18 + SIDE + 16  # the mean, an arrow, the maps and the margin
        mean = max(cosine + COSINE + widest("cosine") + 18, cosine + ASIDE + CONTRAST + 12 - after)
        maps = mean + MEAN + 18
        return cls(project, bus, pill, cosine, mean, maps, mean + after)

    @property
    def panel(self) -> tuple[float, float]:
        """Left and right edge of the transformer's ground."""
        return self.bus - BOX[0] / 2 - 8, self.bus + BOX[0] / 2 + 8

    @property
    def aside(self) -> float:
        """Left edge of what is below the maps."""
        return self.cosine + ASIDE


def _row(stage: int) -> float:
    return ROWS + STEP * (stage - 1)


def _below(shapes: Mapping[str, Shape]) -> float:
    """The lower edge of the cosines' ground."""
    return _row(scales(shapes)[-1]) + 23


def _head(drawing: Drawing, x: float, y: float, lines: tuple[str, str, str], anchor: str = "start") -> None:
    """What it is, the code that is it, where the paper or the ledger has it."""
    drawing.text(x, y, lines[0], size=HEAD, anchor=anchor, bold=True)
    drawing.text(x, y + 15, lines[1], size=SMALL, anchor=anchor, mono=True)
    drawing.text(x, y + 30, lines[2], size=SMALL, anchor=anchor, ink=GREY)


def _carried(drawing: Drawing, start: Point, end: Point, shape: str, colour: str, *, dashed: bool = False) -> None:
    """A level arrow with the shape of what it carries above it."""
    drawing.arrow(start, end, colour=colour, dashed=dashed)
    drawing.text((start[0] + end[0]) / 2 - 1, start[1] - 6, shape, size=SMALL, anchor="middle")


def _scene(drawing: Drawing, place: Point, size: Point, shares: tuple[float, float]) -> None:
    """A frame with two things in it, a drum and a box, each in its share of the colour."""
    (x, y), (w, h) = place, size
    drawing.bar(place, size, colour="white")
    drawing.bar(place, size, colour=INK, share=0.05, rim=1.2)
    drawing.dot(x + 0.28 * w, y + 0.62 * h, radius=0.17 * min(w, h), share=shares[0])
    drawing.bar((x + 0.58 * w, y + 0.2 * h), (0.24 * w, 0.3 * h), share=shares[1])


def _under(drawing: Drawing, x: float, y: float, shape: Shape) -> None:
    """The shape of a picture, in two lines below it."""
    drawing.text(x, y + 16, said(shape[:2]), size=SMALL, anchor="middle")
    drawing.text(x, y + 30, f"{TIMES} {said(shape[2:])}", size=SMALL, anchor="middle")


def _grounds(drawing: Drawing, at: Columns, shapes: Mapping[str, Shape]) -> None:
    """Pale, under everything: what is one encoder, what is done at every scale, what is (a) and what is (b)."""
    left, right = at.panel
    drawing.panel((ENCODER - 8, ROWS - 23), (WIDE + 16, 3 * STEP + 46))
    drawing.panel(
        (at.cosine - 8, _row(scales(shapes)[0]) - 23), (COSINE + 16, _below(shapes) - _row(scales(shapes)[0]) + 23)
    )
    drawing.panel((left, LOWER), (right - left, HEARD + 30 - LOWER))
    drawing.panel((at.aside, LOWER), (at.width - 12 - at.aside, 146), dashed=True)


def _stages(drawing: Drawing, at: Columns, shapes: Mapping[str, Shape]) -> None:
    middle, (h, w) = _row(1) + 1.5 * STEP, shapes["image"][-2:]
    high = SIDE * min(float(h) / float(w), 1)
    _scene(drawing, (LEFT, middle - high / 2), (SIDE, high), (0.75, 0.45))
    drawing.text(LEFT, middle - high / 2 - 9, "Picture", size=HEAD, bold=True)
    _under(drawing, LEFT + SIDE / 2, middle + high / 2, shapes["image"])
    drawing.arrow((LEFT + SIDE + 3, middle), (ENCODER - 8, middle), colour=PICTURE)
    _head(drawing, ENCODER, 28, ("Visual encoder", "encoders.VisualEncoder", "section 4.1"))
    for stage in (1, 2, 3, 4):
        y, x = _row(stage), ENCODER + WIDE / 2
        drawing.box((ENCODER, y - TALL / 2), (WIDE, TALL), [f"stage {stage}"], colour=PICTURE)
        if stage < 4:
            drawing.arrow((x, y + TALL / 2), (x, y + STEP - TALL / 2), colour=PICTURE)


def _projections(drawing: Drawing, at: Columns, shapes: Mapping[str, Shape]) -> None:
    _head(drawing, at.project, 28, ("Projections", "model.M2VSL.project", "ledger 50"))
    for s in scales(shapes):
        y = _row(s)
        _carried(drawing, (ENCODER + WIDE, y), (at.project, y), said(shapes[f"stage {s}"]), PICTURE)
        drawing.box((at.project, y - TALL / 2), (LINEAR, TALL), [f"1 {TIMES} 1"], colour=PICTURE)
        drawing.arrow((at.project + LINEAR, y), (at.bus, y), colour=PICTURE, head=False)
        _carried(drawing, (at.bus, y), (at.cosine, y), said(shapes[f"level {s}"]), PICTURE)
        drawing.dot(at.bus, y, radius=3, colour=PICTURE)
    drawing.arrow((at.bus, _row(scales(shapes)[0])), (at.bus, POOL - BOX[1] / 2), colour=PICTURE)


def _cosines(drawing: Drawing, at: Columns, shapes: Mapping[str, Shape]) -> None:
    _head(drawing, at.cosine, 28, ("Cosines", "ops.similarity", "section 3.2"))
    for s in scales(shapes):
        drawing.box((at.cosine, _row(s) - TALL / 2), (COSINE, TALL), ["cosine"])
        _carried(drawing, (at.cosine + COSINE, _row(s)), (at.mean, _row(s)), said(shapes[f"cosine {s}"]), INK)


def _maps(drawing: Drawing, at: Columns, shapes: Mapping[str, Shape]) -> None:
    _head(drawing, at.mean, 28, ("One map per class", "model.M2VSL.localize", "ledger 18"))
    middle, (h, w) = _row(1) + 1.5 * STEP, shapes["heat"][-2:]
    drawing.box((at.mean, ROWS - 23), (MEAN, 3 * STEP + 46), ["mean", "over", "scales"])
    side, high = SIDE - 10, (SIDE - 10) * min(float(h) / float(w), 1)
    drawing.arrow((at.mean + MEAN, middle), (at.maps, middle))
    for behind in (2, 1, 0):  # a pile of maps
        corner = (at.maps + 3 + 5 * behind, middle - high / 2 - 5 * behind)
        _scene(drawing, corner, (side, high), (0.85, 0.12))
    _under(drawing, at.maps + SIDE / 2, middle + high / 2, shapes["heat"])


def _sounds(drawing: Drawing, at: Columns, shapes: Mapping[str, Shape]) -> None:
    drawing.text(LEFT, HEARD - 40, "Spectrogram", size=HEAD, bold=True)
    for column, x in enumerate(middles(LEFT, LEFT + SIDE, 12)):
        for row, y in enumerate(middles(HEARD - 31, HEARD + 31, 8)):
            loud = math.sin(0.9 * column) ** 2 * math.exp(-((row - 4 - 2 * math.cos(column)) ** 2) / 5)
            drawing.bar((x - SIDE / 24, y - 31 / 8), (SIDE / 12, 31 / 4), share=0.06 + 0.7 * loud)
    _under(drawing, LEFT + SIDE / 2, HEARD + 31, shapes["spectrogram"])
    drawing.arrow((LEFT + SIDE + 3, HEARD), (ENCODER, HEARD), colour=SOUND)
    _head(drawing, ENCODER, HEARD - 84, ("Audio encoder", "encoders.AudioEncoder", "section 4.1"))
    drawing.box((ENCODER, HEARD - BOX[1] / 2), (WIDE, BOX[1]), ["audio", "encoder"], colour=SOUND)
    start, end = ENCODER + WIDE, at.bus - BOX[0] / 2
    gap = (at.panel[0] - start - LINEAR) / 2  # both shapes stand before the ground of the transformer
    linear = start + gap
    _carried(drawing, (start, HEARD), (linear, HEARD), said(shapes["audio"]), SOUND)
    drawing.box((linear, HEARD - TALL / 2), (LINEAR, TALL), ["linear"], colour=SOUND)
    drawing.arrow((linear + LINEAR, HEARD), (end, HEARD), colour=SOUND)
    drawing.text(linear + LINEAR + gap / 2 - 1, HEARD - 6, said(shapes["sound"]), size=SMALL, anchor="middle")
    drawing.text(at.panel[0] - 6, HEARD + 34, "model.M2VSL.project_audio", size=SMALL, anchor="end", mono=True)


def _transformer(drawing: Drawing, at: Columns, shapes: Mapping[str, Shape]) -> None:
    left, x = at.panel[0], at.bus - BOX[0] / 2
    _head(drawing, left - 10, LOWER + 20, ("(b) MMT: transformer", "model.MMT", "section 3.3"), "end")
    side = said(shapes["grid"][-2:])
    for y, name, key, colour in (
        (POOL, f"{side} means", "tokens", PICTURE),
        (SEEN, f"transformer {PHI}^v", "visual", PICTURE),
        (TOKENS, "class tokens", "classes", CLASS),
        (HEARD, f"transformer {PHI}^a", "auditory", SOUND),
    ):
        drawing.box((x, y - BOX[1] / 2), BOX, [name], colour=colour, shape=said(shapes[key]))
    half = BOX[1] / 2
    drawing.arrow((at.bus, POOL + half), (at.bus, SEEN - half), colour=PICTURE)
    drawing.arrow((at.bus, TOKENS - half), (at.bus, SEEN + half), colour=CLASS)
    drawing.arrow((at.bus, TOKENS + half), (at.bus, HEARD - half), colour=CLASS)


def _losses(drawing: Drawing, at: Columns, shapes: Mapping[str, Shape]) -> None:
    start, pill, turn = at.bus + BOX[0] / 2, at.cosine - at.pill - 2, at.cosine + 16
    middle = (at.panel[1] + pill) / 2
    for y, name, code in ((SEEN, "seen", "losses.presence"), (TOKENS, "token", "losses.token_identity")):
        drawing.arrow((start, y), (pill, y), dashed=True)
        _loss(drawing, pill, y, at.pill, (name, said(shapes[name]), code))
    drawing.text(middle, SEEN - 6, said(shapes["seen slots"]), size=SMALL, anchor="middle")
    drawing.text(middle, SEEN + 16, "slots x^v", anchor="middle", size=SMALL)
    drawing.arrow((start, HEARD), (turn, HEARD), (turn, _below(shapes)), colour=SOUND)
    drawing.text(middle, HEARD - 6, said(shapes["heard slots"]), size=SMALL, anchor="middle")
    drawing.text(middle, HEARD + 16, "slots x^a", anchor="middle", size=SMALL)
    drawing.arrow((turn, HEARD), (at.aside + 12, HEARD), dashed=True)
    drawing.dot(turn, HEARD, radius=3, colour=SOUND)
    _loss(drawing, at.aside + 12, HEARD, at.pill, ("heard", said(shapes["heard"]), "losses.presence"))
    classes = shapes["classes"][0]
    for row, line in enumerate((f"at test all {classes} slots,", "in training the N heard")):
        drawing.text(turn - 9, LOWER + 10 + 15 * row, line, size=SMALL, anchor="end", ink=GREY)


def _loss(drawing: Drawing, x: float, y: float, width: float, lines: tuple[str, str, str]) -> None:
    """A class loss: its name, the shape of its logits, its code."""
    name, shape, code = lines
    drawing.box((x, y - BOX[1] / 2), (width, BOX[1]), [name], filled=False, dashed=True, shape=shape)
    outward = name == "heard"  # towards the free side
    place, anchor = (x, "start") if outward else (x + width, "end")
    drawing.text(place, y + BOX[1] / 2 + 14, code, size=SMALL, anchor=anchor, mono=True)


def _contrast(drawing: Drawing, at: Columns, shapes: Mapping[str, Shape]) -> None:
    left, right, y = at.aside, at.width - 12, LOWER + 76
    drawing.text(left + 12, LOWER + 20, "(a) MMC: contrast", size=HEAD, bold=True)
    drawing.text(left + 12, LOWER + 36, "section 3.2", size=SMALL, ink=GREY)
    down = at.cosine + 38
    drawing.arrow((down, _below(shapes)), (down, y), (left + 12, y), dashed=True)
    drawing.box((left + 12, y - 20), (74, 40), ["largest", "cosine"], filled=False, dashed=True)
    drawing.text(left + 12, y + 36, "ops.peak_cosine", size=SMALL, mono=True)
    end = right - 12 - 82
    drawing.box((end, y - 20), (82, 40), ["contrast", "over batch"], filled=False, dashed=True)
    drawing.text(right - 12, y + 36, "losses.mmc", size=SMALL, anchor="end", mono=True)
    first = scales(shapes)[0]
    _carried(drawing, (left + 86, y), (end, y), said(shapes[f"peak {first}"]), INK, dashed=True)
    drawing.text(left + 12, y + 56, "at every scale, both ways; summed", size=SMALL)


def _legend(drawing: Drawing) -> None:
    y = HEIGHT - 34
    drawing.arrow((LEFT, y), (LEFT + 34, y))
    drawing.text(LEFT + 42, y + 4, "always", size=SMALL)
    drawing.arrow((LEFT + 100, y), (LEFT + 134, y), dashed=True)
    rest = "in training only: the loss is the sum of contrast, token, seen and heard (the last three: ledger 12)"
    drawing.text(LEFT + 142, y + 4, rest, size=SMALL)
    names = "B: pictures of a batch. N: sounding classes, picture by picture. "
    names += "Code: in the package m2vsl. Section: of the paper. Ledger: on the page of deviations."
    drawing.text(LEFT, y + 22, names, size=SMALL)
