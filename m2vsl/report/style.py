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


def use() -> None:
    """Make the house's look the default of this process: for a notebook's first cell."""
    import matplotlib

    matplotlib.rcParams.update(settings())


def house(draw: Callable[P, R]) -> Callable[P, R]:
    """`draw` with everything it makes in the house's look, whatever the defaults of the process."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context(settings()):
            return draw(*args, **kwargs)

    return drawn


@house
def figure(
    rows: int = 1, columns: int = 1, *, height: float = 2.4, width: float = WIDTH, **grid: Any
) -> tuple[Figure, Any]:
    """A figure of `height` x `width` inches and its axes (rows, columns), an array even of one; `grid` as in pyplot."""
    import matplotlib.pyplot as plt

    made, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained", **grid)
    plt.close(made)  # else a notebook would show it a second time
    return made, axes
