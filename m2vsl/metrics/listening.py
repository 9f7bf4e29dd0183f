r"""Does the map follow the sound? The same picture under its own sound and under another.

A map that shows whatever is salient lights up for silence, for noise and for something off-screen as it does for the
object that sounds, and no score against a truth can tell: the object is where it is. These measures compare the map
with itself and ask for no truth.

Source: the question of "A Critical Assessment of Visual Sound Source Localization Models Including Negative Audio"
(arXiv 2410.01020: silence, noise, off-screen sound). The measures are ours: they need no threshold in a method's unit.
For a share of the picture above a given threshold see `m2vsl.metrics.overlap.Absolute`.

Conventions
-----------
- Maps are (..., H, W), raw: a map that was spread over [0, 1] has lost what is asked for here. NaN and infinities are
  refused.
- All three depend on the order of values alone: one strictly increasing function applied to all maps changes nothing.
  So constant maps are not smoothed here as the measures against a truth do it.
- A method that ignores the sound answers with the same map: `remaining` is the fraction itself, the others 0.5.
- `remaining` counts a pixel that ties with the level by the share of `own`'s own ties that complete the fraction, where
  `Area` would keep them all. If `own` is flat over more than its colder half (a clipped map's zeros, say), the
  level lies in the flat part and a map of zeros keeps some of it: take a smaller fraction, or read `quieter`.

Measures
--------
- `remaining`: how much of the picture is still as hot.
- `quieter`: whether the peak goes down.
- `separability`: whether one threshold for all pictures could tell the two sounds apart.
- `Changes`: all three, of maps that come a few at a time.
"""

from __future__ import annotations

from math import fsum

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from m2vsl.metrics.heat import validated
from m2vsl.metrics.overlap import Area


def remaining(own: Tensor, other: Tensor, fraction: float = 0.5) -> Tensor:
    """Share of the pixels of `other` that reach the level at which `fraction` of `own` lies: float64 (...), in [0, 1].

    own, other: (..., H, W), a picture under its own sound and under another. `fraction` for a map that stays, 0 for one
    that goes quiet everywhere, 1 for one that becomes hotter everywhere. ValueError for two shapes, maps without
    pixels, and a fraction outside (0, 1].

    >>> own = torch.tensor([[4.0, 3.0], [2.0, 1.0]])
    >>> [float(remaining(own, other)) for other in (own, own - 1, own - 3, own + 3)]
    [0.5, 0.25, 0.0, 1.0]
    """
    rule = Area(fraction)
    own, other = _flat(own, other)
    pixels = own.shape[-1]
    count = rule.pixels(pixels)
    area = min(fraction * pixels, count)  # of the fraction, in pixels: a half of an odd number is no whole number
    level = own.kthvalue(pixels - count + 1, keepdim=True).values
    hotter, tied = (own > level).sum(-1), (own == level).sum(-1)
    still, edge = (other > level).sum(-1), (other == level).sum(-1)
    return (still * tied + edge * (area - hotter.double())) / (tied * pixels)


def quieter(own: Tensor, other: Tensor) -> Tensor:
    """Whether the peak of `other` is below that of `own`: float64 (...) of 1, 0, or 0.5 where they are equal.

    own, other: (..., H, W), a picture under its own sound and under another. ValueError for two shapes and for maps
    without pixels.

    >>> own = torch.tensor([[4.0, 3.0], [2.0, 1.0]])
    >>> [float(quieter(own, other)) for other in (own - 1, own.flip(0), own + 1)]
    [1.0, 0.5, 0.0]
    """
    own, other = _flat(own, other)
    before, after = own.amax(-1), other.amax(-1)
    return ((after < before).double() + (after <= before).double()) / 2


def separability(own_peaks: ArrayLike, other_peaks: ArrayLike) -> float:
    """Area under the ROC curve of the peaks: can one threshold for all pictures tell their own sound from another?

    own_peaks: (n,); other_peaks: (m,), the maxima of maps. The share of pairs, one of each, in which the own one is
    higher; ties count half. 1: some threshold tells all apart; 0.5: none is of use; 0: the other sound always peaks
    higher. ValueError without either, and for peaks that are not finite.

    >>> separability([0.9, 0.5], [0.1, 0.5])  # pairs: right, right, right, tie
    0.875
    """
    own, other = _peaks("own_peaks", own_peaks), _peaks("other_peaks", other_peaks).sort().values
    below, not_above = (torch.searchsorted(other, own, right=right).sum() for right in (False, True))
    return int(below + not_above) / (2 * len(own) * len(other))


class Changes:
    """Maps under their own and under another sound, as they come; four numbers of each are kept.

    >>> changes, own = Changes(), torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])
    >>> changes.add(own, own - 3)
    >>> changes.scores()
    {'remaining': 0.0, 'quieter': 1.0, 'separability': 1.0}
    """

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {name: [] for name in ("remaining", "quieter", "own", "other")}

    def __len__(self) -> int:
        return len(self.values["own"])

    def add(self, own: Tensor, other: Tensor) -> None:
        """Take in the maps (n, H, W) of the same pictures."""
        self.values["remaining"] += remaining(own, other).tolist()
        self.values["quieter"] += quieter(own, other).tolist()
        for name, maps in (("own", own), ("other", other)):
            self.values[name] += maps.flatten(1).amax(1).tolist()

    def scores(self) -> dict[str, float]:
        """``remaining`` and ``quieter``, means; ``separability`` of the peaks. Empty without a map."""
        if not len(self):
            return {}
        means = {name: fsum(self.values[name]) / len(self) for name in ("remaining", "quieter")}
        return {**means, "separability": separability(self.values["own"], self.values["other"])}


def _flat(own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps (..., H W); ValueError if they are no two maps of one picture."""
    own, other = validated(own), validated(other)
    if own.shape != other.shape:
        raise ValueError(
            f"expected two maps (..., H, W) of one picture, got shapes {tuple(own.shape)} and {tuple(other.shape)}"
        )
    return own.flatten(-2), other.flatten(-2)


def _peaks(name: str, given: ArrayLike) -> Tensor:
    """(n,) float64 on the CPU; ValueError if it is not one row of finite numbers, one at least."""
    values = torch.as_tensor(given, dtype=torch.float64).detach().cpu()
    if values.ndim != 1 or not len(values) or not bool(values.isfinite().all()):
        odd = int((~values.isfinite()).sum())
        raise ValueError(f"expected {name} of shape (n,), n > 0, got shape {tuple(values.shape)}, {odd} not finite")
    return values
