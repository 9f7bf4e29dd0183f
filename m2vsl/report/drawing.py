"""Boxes, arrows and words as SVG text, for drawings that are made rather than plotted.

Conventions
-----------
Units are those of the view box, y points down, a box is given by its upper left corner and a line of text by its base
line. "^a" in a text raises the one letter behind it. What lies in a box is in one group with it (class "box"). No style
sheet and no markers: every attribute stands at its element, so that any renderer draws the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from m2vsl.report.style import INK

Point = tuple[float, float]
SMALL, BODY, HEAD = 10.5, 11.0, 12.0  # sizes of letters
SANS = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif"
MONO = "DejaVu Sans Mono, Menlo, Consolas, monospace"
WIDTHS = {" .,:;'|ijlI": 0.34, "frt()-[]/": 0.42, "mwMW": 1.0}  # of letters in DejaVu Sans, in ems, at most
DASH = "4 3"


def wide(text: str, size: float = BODY, *, bold: bool = False, mono: bool = False) -> float:
    """How wide a line of text is at most, in DejaVu Sans of that size."""
    plain = text.replace("^", "")
    if mono:
        return 0.61 * size * len(plain)
    return sum(map(_em, plain)) * size * (1.12 if bold else 1)


def _em(letter: str) -> float:
    known = [width for letters, width in WIDTHS.items() if letter in letters]
    return known[0] if known else 0.64 if letter.isdigit() or letter.islower() else 0.84


class Drawing:
    """A white sheet of `width` x `height` on which things are put one after another; `svg` is the whole of it.

    title: what it shows, in a few words; desc: the same at length, for those who do not see it.
    """

    def __init__(self, width: float, height: float, title: str, desc: str) -> None:
        self.width, self.height, self.title, self.desc = width, height, title, desc
        self.parts = [f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>']

    def svg(self) -> str:
        """The sheet as a file, or as a part of a page: as wide as the column, never wider than it is drawn for."""
        w, h = f"{self.width:.0f}", f"{self.height:.0f}"
        look = f'width="{w}" height="{h}" viewBox="0 0 {w} {h}" style="max-width: 100%; height: auto"'
        name = "".join(c if c.isalnum() else "-" for c in self.title.lower())
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {look} role="img" aria-labelledby="{name} {name}-desc">',
            f'<title id="{name}">{escape(self.title)}</title>',
            f'<desc id="{name}-desc">{escape(self.desc)}</desc>',
            *self.parts,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    def text(
        self,
        x: float,
        y: float,
        said: str,
        *,
        size: float = BODY,
        anchor: str = "start",
        ink: str = INK,
        bold: bool = False,
        mono: bool = False,
    ) -> None:
        """One line of text whose start, middle or end is at x."""
        look = f'font-family="{MONO if mono else SANS}" font-size="{size:g}" fill="{ink}"'
        look += ' font-weight="bold"' if bold else ""
        look += f' text-anchor="{anchor}"' if anchor != "start" else ""
        first, *raised = escape(said, quote=False).split("^")
        for part in raised:
            first += f'<tspan dy="-3.5" font-size="{SMALL - 0.3:g}">{part[0]}</tspan>'
            first += f'<tspan dy="3.5">{part[1:]}</tspan>' if part[1:] else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" {look}>{first}</text>')

    def box(
        self,
        place: Point,
        size: Point,
        said: Sequence[str] = (),
        *,
        colour: str = INK,
        filled: bool = True,
        dashed: bool = False,
        shape: str = "",
    ) -> None:
        """A box with lines of text in its middle; the last of them may be a `shape`, which is set smaller."""
        (x, y), (w, h) = place, size
        self.parts.append('<g class="box">')
        self._rect(x, y, w, h, colour, 0.13 if filled else 0.0, 4.0, dashed)
        lines = [(line, BODY) for line in said] + ([(shape, SMALL)] if shape else [])
        pitch = 14.0
        for row, (line, letters) in enumerate(lines):
            middle = y + h / 2 + pitch * (row - (len(lines) - 1) / 2)
            self.text(x + w / 2, middle + 0.36 * letters, line, size=letters, anchor="middle")
        self.parts.append("</g>")

    def panel(self, place: Point, size: Point, *, dashed: bool = False) -> None:
        """A pale ground that holds things together."""
        (x, y), (w, h) = place, size
        dash = f' stroke="{INK}" stroke-dasharray="{DASH}"' if dashed else ""
        look = f'rx="6" fill="#f5f5f5"{dash}'
        self.parts.append(f'<rect class="panel" x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" {look}/>')

    def arrow(self, *points: Point, colour: str = INK, dashed: bool = False, head: bool = True) -> None:
        """A line through points, along the axes, with its head at the last of them."""
        (x0, y0), (x1, y1) = points[-2:]
        dx, dy = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)
        end = (x1 - 5 * dx, y1 - 5 * dy) if head else (x1, y1)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (*points[:-1], end))
        dash = f' stroke-dasharray="{DASH}"' if dashed else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.3"{dash}/>')
        if head:
            back = [(x1 - 7 * dx + side * dy, y1 - 7 * dy + side * dx) for side in (3.2, -3.2)]
            tip = " ".join(f"{x:.1f},{y:.1f}" for x, y in [(x1, y1), *back])
            self.parts.append(f'<polygon points="{tip}" fill="{colour}"/>')

    def dot(self, x: float, y: float, *, radius: float = 2.4, colour: str = INK, share: float = 1.0) -> None:
        """A disc: where a line branches, or a thing in a picture. share: of its colour, 0 = white, 1 = full."""
        look = f'fill="{colour}" fill-opacity="{share:g}"'
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" {look}/>')

    def bar(self, place: Point, size: Point, *, colour: str = INK, share: float = 1.0, rim: float = 0.0) -> None:
        """A plain rectangle; share: of its colour, 0 = white, 1 = full; rim: width of its outline in full colour."""
        (x, y), (w, h) = place, size
        look = f'fill="{colour}" fill-opacity="{share:g}"' + (
            f' stroke="{colour}" stroke-width="{rim:g}"' if rim else ""
        )
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" {look}/>')

    def _rect(self, x: float, y: float, w: float, h: float, colour: str, share: float, rx: float, dashed: bool) -> None:
        at = f'x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{rx:g}"'
        dash = f' stroke-dasharray="{DASH}"' if dashed else ""
        self.parts.append(f'<rect {at} fill="white"/>')
        self.parts.append(
            f'<rect {at} fill="{colour}" fill-opacity="{share:g}" stroke="{colour}" stroke-width="1.3"{dash}/>'
        )


def middles(start: float, end: float, count: int) -> list[float]:
    """The middles of `count` equal pieces from start to end."""
    edges = [start + (end - start) * i / count for i in range(count + 1)]
    return [(a + b) / 2 for a, b in pairwise(edges)]
