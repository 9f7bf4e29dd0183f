"""Whether one method is better than another on the same pictures: a paired bootstrap over the pictures of a test list.

Two methods that are scored on one list are not independent: what is hard for one is often hard for the other. So their
scores are subtracted source by source, and the pictures are what is drawn again.

Conventions
-----------
- A row counts where its source sounds. Rows of two methods are paired by key and source; of one method the seeds are
  averaged first, row by row. The interval is that of the draw of test pictures; what the seed does is in the tables.
- All sources of a picture, sounding together or in turn, stay together when pictures are drawn.
- Every pair of methods is resampled with the same draws. Nothing is corrected for how many pairs are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m2vsl import records
from m2vsl.methods import METHODS
from m2vsl.metrics.statistics import DRAWS, Lead, bootstrap
from m2vsl.records import Record
from m2vsl.report.tables import NO_RECORD

if TYPE_CHECKING:
    import pandas as pd

Place = tuple[str, int]  # (key, source) of a row


def per_source(
    found: Sequence[Record], test_list: str, column: str, *, at: float | None = None, root: Path | None = None
) -> dict[Place, float]:
    """The score of every sounding source of a list, mean over the records `found` of one method, in order of the list.

    column: of the rows beside the records, such as ``framewise-matched-oracle``. at: 1 where the value reaches it, else
    0: success, averaged over seeds to a share. ValueError for a column that is not there, a value that is not defined,
    and for records of different lists.
    """
    if not found or len({record.method for record in found}) > 1:
        raise ValueError(f"expected records of one method, got {sorted({record.method for record in found})}")
    seeds: list[dict[Place, float]] = []
    for record in found:
        rows = [row for row in records.load_rows(record.path(root), test_list) if row["sounds"] == "True"]
        if any(column not in row or math.isnan(row[column]) for row in rows):
            raise ValueError(f"{record.path(root)}: expected {column} for every row of {test_list} that sounds")
        values = [row[column] if at is None else float(row[column] >= at) for row in rows]
        places = [(str(row["key"]), int(row["source"])) for row in rows]
        if len(set(places)) < len(places):
            raise ValueError(f"{record.path(root)}: expected each key and source of {test_list} once")
        seeds.append(dict(zip(places, values, strict=True)))
    _expect_same(seeds, found[0].method)
    return {place: math.fsum(of[place] for of in seeds) / len(seeds) for place in seeds[0]}


def lead(ours: Mapping[Place, float], rival: Mapping[Place, float], *, draws: int = DRAWS, seed: int = 0) -> Lead:
    """By how much `ours` is ahead of `rival`, both as `per_source` gives them. ValueError if their sources differ."""
    _expect_same([ours, rival], "two methods")
    differences = [value - rival[place] for place, value in ours.items()]
    return bootstrap(differences, _pictures(ours), draws=draws, seed=seed)


def leads(
    found: Iterable[Record],
    ours: Sequence[str],
    rivals: Sequence[str],
    scores: Sequence[tuple[str, str, float | None]],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    root: Path | None = None,
) -> pd.DataFrame:
    """Every method of `ours` against every rival, as text: mean (interval), share of resamples ahead; per cent.

    scores: (test list, column, level of success or None) of each column. What has no record says so.
    """
    import pandas as pd

    of: dict[str, list[Record]] = {}
    for record in found:
        of.setdefault(record.method, []).append(record)
    cells: dict[tuple[str, str, str], list[str]] = {}
    for test_list, column, at in scores:
        known = {m: per_source(of[m], test_list, column, at=at, root=root) for m in {*ours, *rivals} if m in of}
        score = "mean IoU" if at is None else f"success at {at:g}"
        for mine in ours:
            cells[METHODS[mine].title, f"{test_list}/{column}", score] = [
                _cell(known, mine, rival, draws, seed) for rival in rivals
            ]
    heads = pd.MultiIndex.from_tuples(list(cells), names=["ahead by", "test list", "score"])
    rows = list(zip(*cells.values(), strict=True))
    return pd.DataFrame(rows, index=[METHODS[rival].title for rival in rivals], columns=heads)


def _cell(known: Mapping[str, Mapping[Place, float]], mine: str, rival: str, draws: int, seed: int) -> str:
    if mine == rival:
        return ""
    if not {mine, rival} <= set(known):
        return NO_RECORD
    return str(lead(known[mine], known[rival], draws=draws, seed=seed))


def _pictures(places: Iterable[Place]) -> list[int]:
    """The number of each row's picture: sources of a picture follow one another, and the first one is 0.

    A key alone would not do: where sources sound in turn, one picture comes under several keys.
    """
    numbers, of_key, last = list[int](), dict[str, int](), -1
    for key, source in places:
        number = (numbers[-1] if numbers else -1) + (source == 0)
        if (source != 0 and source <= last) or number < 0 or of_key.setdefault(key, number) != number:
            raise ValueError(f"{key}: expected the sources of a picture in order from 0, got {source} after {last}")
        numbers.append(number)
        last = source
    return numbers


def _expect_same(several: Sequence[Mapping[Place, float]], whose: str) -> None:
    for one in several[1:]:
        if odd := sorted(one.keys() ^ several[0].keys()):
            raise ValueError(
                f"{whose}: expected the same sources, got {len(odd)} that only some have, such as {odd[0]}"
            )
