"""One look for every figure: quiet, the same on every machine, readable without colour.

Conventions
-----------
Curves differ in colour, line and marker at once; bright means much in every map of heat or of sound. Colours are those
of Okabe and Ito (2008), which the colour-blind tell apart. Figures are as wide as the page and are saved with text as
text. A function of `m2vsl.report` returns a `Figure` that belongs to nobody: the last line of a cell shows it, once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SOURCES = ("#E69F00", "#56B4E9", "#CC79A7", "#F0E442", "#009E73", "#D55E00")  # outlines: light, on a dark rim
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HEAT = "magma"  # of maps and spectrograms: bright = much, monotone in grey
SHARE = "Blues"  # of matrices with numbers in them: dark = much
INK, FAINT = "#222222", "#8a8a8a"
WIDTH = 7.2  # inches, of the page


def settings() -> Any:
    """Matplotlib's rcParams of the house, by name; seaborn draws by them too."""
    from matplotlib.rcsetup import cycler

    return {
        "font.family": "DejaVu Sans",  # comes with Matplotlib
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.labelsize": 9,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=LINES),
        "axes.grid": False,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "lines.markersize": 4,
        "image.cmap": HEAT,
        "image.interpolation": "nearest",  # a cell looks like a cell
        "figure.figsize": (WIDTH, WIDTH / 2.2),
        "figure.dpi": 110,
        "savefig.dpi": 200,
        "svg.fonttype": "none",
        "svg.hashsalt": "m2vsl",  # the same figure gives the same file
        "pdf.fonttype": 42,
    }


def use(*, vector: bool = False) -> None:
    """Make the house's look the default of this process: for a notebook's first cell.

    vector: figures of the notebook are SVG, which prints sharp and whose text can be found and copied, in place of PNG.
    """
    import matplotlib

    matplotlib.rcParams.update(settings())
    if vector:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        if get_ipython() is not None:
            set_matplotlib_formats("svg")


def house(draw: Callable[P, R]) -> Callable[P, R]:
    """`draw` with everything it makes in the house's look, whatever the defaults of the process."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context(settings()):
            return draw(*args, **kwargs)

    return drawn


class _Described(Figure):
    """A figure whose text, which a page has for those who do not see it, says what is drawn."""

    def __repr__(self) -> str:
        panels = [said for ax in self.axes if (said := _panel(ax))]
        legends = [text.get_text() for legend in self.legends for text in legend.get_texts()]
        named = [f"Lines and marks: {', '.join(legends)}."] if legends else []
        return " ".join([f"Figure with {len(self.axes)} panel{'s' * (len(self.axes) != 1)}.", *panels, *named])


def _panel(ax: Axes) -> str:
    """Its title, what its axes count, the names along them and of what is drawn."""
    parts = [ax.get_title() or ax.get_title("left")]
    sides = ("across", ax.get_xlabel(), ax.get_xticklabels()), ("up", ax.get_ylabel(), ax.get_yticklabels())
    for axis, count, ticks in sides:
        names = [word for tick in ticks if (word := tick.get_text()) and word.upper().isupper()]
        parts += [f"{axis}: {', '.join([count] * bool(count) + names)}"] if count or names else []
    if (legend := ax.get_legend()) is not None:
        parts.append(f"drawn: {', '.join(text.get_text() for text in legend.get_texts())}")
    told = "; ".join(part.replace("\n", " ") for part in parts if part)
    return told and f"{told}."


@house
def figure(
    rows: int = 1, columns: int = 1, *, height: float = 2.4, width: float = WIDTH, **grid: Any
) -> tuple[Figure, Any]:
    """A figure of `height` x `width` inches and its axes (rows, columns), an array even of one; `grid` as in pyplot."""
    import matplotlib.pyplot as plt

    made, axes = plt.subplots(
        rows, columns, figsize=(width, height), squeeze=False, layout="constrained", FigureClass=_Described, **grid
    )
    plt.close(made)  # else a notebook would show it a second time
    return made, axes
