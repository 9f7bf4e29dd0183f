r"""Whether a map follows the sound: a picture of two things, which sound in turn.

A map that shows whatever is salient finds one of the two, or both, whichever sounds. Here it must change sides.

Source: interactive IoU as in "Sound Source Localization is All about Cross-Modal Alignment" (ICCV 2023), read for two
sounds of one picture; protocol 2.3 has the IoU.

Conventions
-----------
- Pairs are paired by the number of the picture, not by key: a picture that is shown twice comes under two keys.
- NaN and infinities are refused, by name.

Statistics
----------
- `turns`: the rows of such pictures as two columns.
- `interactive`: success only where both maps are right; `interaction`: the same of all protocols of an evaluation.
- `swapped_gap`: how much better a map fits what sounds than what is silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from m2vsl.metrics.protocols import Protocol
from m2vsl.metrics.statistics import LEVELS, Part, Pictures, scores
from m2vsl.metrics.tally import Row, column


def turns(iou: ArrayLike, pictures: Pictures) -> tuple[Tensor, Tensor]:
    """The IoU of pictures whose two sources sound in turn, as `interactive` takes it: (2 n,) -> float64 (n,), (n,).

    pictures: (2 n,), the number of each row's picture, in any order. Pictures come back in the order of their numbers;
    of a picture the row that comes first is its first sound. ValueError for a picture that does not come twice.

    >>> turns([0.1, 0.2, 0.3, 0.4], [7, 3, 7, 3])
    (tensor([0.2000, 0.1000], dtype=torch.float64), tensor([0.4000, 0.3000], dtype=torch.float64))
    """
    values, numbers = _finite("iou", iou), np.asarray(pictures)
    if numbers.shape != tuple(values.shape):
        raise ValueError(f"expected one picture per IoU, got {len(numbers)} of {len(values)}")
    names, counts = np.unique(numbers, return_counts=True)
    if (odd := names[counts != 2]).size:
        raise ValueError(f"expected two turns of each picture, got {counts[counts != 2][0]} of picture {odd[0]}")
    order = torch.from_numpy(np.argsort(numbers, kind="stable"))
    return values[order[::2]], values[order[1::2]]


def interactive(
    first_iou: ArrayLike, second_iou: ArrayLike, *, at: Sequence[float] = LEVELS, strict: bool = False
) -> Part:
    r"""Interactive IoU: a picture is a success only if its map is right for each of its two sounds.

    .. math:: \mathrm{IIoU} = \min(\mathrm{IoU}_1, \mathrm{IoU}_2)

    first_iou, second_iou: (n,), of the map under the first sound with the first source, and under the second with the
    second. Scalars as in `m2vsl.metrics.statistics.scores`, of IIoU; no picture: n = 0 and none. ValueError for NaN and
    for two lengths.

    >>> interactive([0.6, 0.6], [0.2, 0.5]).scalars["ciou@0.5"]
    0.5
    """
    first, second = _finite("first_iou", first_iou), _finite("second_iou", second_iou)
    if first.shape != second.shape:
        raise ValueError(f"expected two IoU of each picture, got {len(first)} and {len(second)}")
    return scores(torch.minimum(first, second), at, strict=strict)


def interaction(rows: Sequence[Row], protocols: Iterable[Protocol]) -> dict[str, float]:
    """``interaction/<protocol>/ciou@t``, ``/auc`` and ``/iou`` of an evaluation whose sources sounded in turn.

    rows: of `m2vsl.metrics.tally`, in the order of the list; those of silent sources are not read. The turns of a
    picture follow one another, and its first source is 0. Pictures of more or fewer than two turns (sources of one
    class are one) are left out; without any, and for a protocol that some row lacks, there is no scalar.

    >>> from m2vsl.metrics.protocols import PUBLISHED
    >>> rows = [{"source": s, "sounds": True, "lvs": iou} for s, iou in enumerate([0.6, 0.2])]
    >>> interaction(rows, [PUBLISHED["lvs"]])["interaction/lvs/iou"]
    0.2
    """
    sounding = [row for row in rows if row["sounds"]]
    numbers = np.cumsum([row["source"] == 0 for row in sounding])
    count = np.bincount(numbers.astype(int))
    twice = [row for row, n in zip(sounding, numbers.astype(int), strict=True) if count[n] == 2]
    pictures = np.cumsum([row["source"] == 0 for row in twice])
    found: dict[str, float] = {}
    for protocol in protocols:
        iou = column(twice, protocol.name)
        if len(twice) and len(iou) == len(twice):
            part = interactive(*turns(iou, pictures), at=protocol.at, strict=protocol.strict)
            found |= {f"interaction/{protocol.name}/{score}": value for score, value in part.scalars.items()}
    return found


def swapped_gap(sounding: ArrayLike, silent: ArrayLike) -> float:
    """Mean IoU with the objects that sound less that with those that are silent, of the same maps: in [-1, 1].

    sounding: (n,); silent: (m,). 0 for a map that ignores the sound where each object comes as often sounding as
    silent; the larger, the more the map follows the sound. ValueError for NaN, and without either.

    >>> swapped_gap([0.75, 0.5], [0.25, 0.5])
    0.25
    """
    heard, unheard = _finite("sounding", sounding), _finite("silent", silent)
    if not len(heard) or not len(unheard):
        raise ValueError(f"expected sounding and silent sources, got {len(heard)} and {len(unheard)}")
    return float(heard.mean() - unheard.mean())


def _finite(name: str, given: ArrayLike) -> Tensor:
    """(n,) float64 on the CPU; ValueError if it is not one row of finite numbers."""
    values = torch.as_tensor(given, dtype=torch.float64).detach().cpu()
    if values.ndim != 1 or not bool(values.isfinite().all()):
        odd = int((~values.isfinite()).sum())
        raise ValueError(f"expected finite {name} of shape (n,), got {odd} not finite in {tuple(values.shape)}")
    return values
