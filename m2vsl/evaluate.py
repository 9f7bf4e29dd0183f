"""One pass over a test list: maps in, a `Summary` under every protocol out.

Each sounding source of each picture gives a row with its IoU under every protocol; each picture gives CAP, PIAP and
whether the right classes were heard. All protocols, ours and published, read the same maps once (`add`); a localizer's
maps come at the size of the picture, so that upsampling is its own.

Pictures of which one source alone sounds (``sound="one"``: the others stay in the truth, silent) also answer the
question whether a method listens: the same map is scored against the silent sources, which is what it would score if
the two sounds were swapped. A single map that ignores the sound scores the same there, and finds the sounding half of a
duet (``half``) half of the time. Class maps are told the class under the ``oracle`` choice and need no ears for it:
what they hear shows under ``predicted``. In a picture where everything sounds nothing is swapped.

Empty truths stay in the IoU as failures, have no average precision, and are counted (ledger 53).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from m2vsl.localizer import Localizer, device_of, evaluating
from m2vsl.metrics import columns, matching
from m2vsl.metrics.calls import Segmentation
from m2vsl.metrics.canvas import frame_count, own_frame
from m2vsl.metrics.columns import Places, Sized
from m2vsl.metrics.matching import Choice, Match
from m2vsl.metrics.protocols import HEADLINE, PROTOCOLS, Protocol
from m2vsl.metrics.tally import PER_PICTURE, Row, Summary, Tally
from m2vsl.types import Batch, Maps, Truth

CHOICES: tuple[Choice, ...] = ("oracle", "predicted")
Batched = TypeVar("Batched", Match, Truth)
ALL = tuple(PROTOCOLS.values())


def evaluate(
    localizer: Localizer,
    loader: Iterable[Batch],
    protocols: Sequence[Protocol] = ALL,
    *segmentations: Segmentation,
) -> Summary:
    """Score the maps of `localizer` on every batch of `loader`.

    segmentations: named apart, each a way to read maps as masks; ``reads`` has to be that of the maps.
    Runs on the device of its parameters, without gradient and in evaluation mode; its mode is put back afterwards.
    ValueError for maps that are not finite or not of the picture's size, and for a loader without batches.
    """
    tally = Tally(protocols, *segmentations)
    device = device_of(localizer)
    with evaluating(localizer):
        for batch in loader:
            batch = batch.to(device)
            _refuse_more_sources(localizer, batch)
            maps = localizer.localize(batch)
            matching.check(maps, batch.truth)
            add(tally, maps, batch.truth, _keys(batch, tally))
    return tally.summary()


def oracle_maps(localizer: Localizer, batch: Batch) -> Tensor:
    """The map that answers for each source under the choice ``oracle``, (B, S, H, W); zero where none does."""
    batch = batch.to(device_of(localizer))
    with evaluating(localizer):
        found = matching.match(localizer.localize(batch), matching.merge_same_class(batch.truth))
    pictures, sources = torch.arange(len(batch))[:, None], torch.arange(found.index.shape[1])
    return found.answers(pictures, sources) * (found.index >= 0)[..., None, None]


def _refuse_more_sources(localizer: Localizer, batch: Batch) -> None:
    most = int(batch.truth.present.sum(-1).max())
    if localizer.sources is not None and most > localizer.sources:
        raise ValueError(
            f"{type(localizer).__name__} tells {localizer.sources} sources of a picture apart, got one with {most}"
        )


def bound(loader: Iterable[Batch], protocols: Sequence[Protocol] = ALL) -> Summary:
    """The row of a table that no method can exceed: the best IoU of maps without ties, average precision 1."""
    tally = Tally(protocols)
    for batch in loader:
        add_bound(tally, batch.truth, _keys(batch, tally))
    return tally.summary()


def add_bound(tally: Tally, truth: Truth, keys: Sequence[str]) -> None:
    """What no map can exceed on one batch, under all protocols of `tally`. truth: mask (B, S, H, W)."""
    truth = matching.merge_same_class(truth)
    picture, source = truth.present.nonzero().unbind(1)
    mask = truth.mask[picture, source]
    alike = {(protocol.rule, protocol.canvas): protocol for protocol in tally.protocols}
    best = {way: protocol.bound(mask) for way, protocol in alike.items()}
    further = {protocol.name: best[protocol.rule, protocol.canvas] for protocol in tally.protocols}
    scored = truth.present & truth.mask.flatten(2).any(-1)
    perfect = torch.where(scored, 1.0, torch.nan)  # (B, S)
    further |= {f"{choice}/ap": perfect[picture, source] for choice in CHOICES}
    per_picture = {f"{choice}/{name}": perfect.nanmean(-1) for choice in CHOICES for name in PER_PICTURE}
    tally.add(_with(_identity(truth, mask, (picture, source), keys), further), rows_of(keys, per_picture))


def score(
    maps: Maps, truth: Truth, keys: Sequence[str], protocols: Sequence[Protocol] = ALL
) -> tuple[list[Row], list[Row]]:
    """Rows of the sources and rows of the pictures of one batch, as `add` finds them."""
    tally = Tally(protocols)
    add(tally, maps, truth, keys)
    return tally.sources, tally.pictures


def add(tally: Tally, maps: Maps, truth: Truth, keys: Sequence[str]) -> None:
    """Score one batch under all that `tally` asks for (columns in `m2vsl.metrics.tally` and `m2vsl.metrics.columns`).

    maps: heat (B, K, h, w); each protocol brings maps that are coarser than the picture to size in its own way, and
    what is no IoU is measured on those of `HEADLINE`. truth: mask (B, S, H, W).
    """
    if len(keys) != len(truth.mask):
        raise ValueError(f"expected a key for each of {len(truth.mask)} pictures, got {len(keys)}")
    truth = matching.merge_same_class(truth)
    sized = Sized(maps.heat, (truth.mask.shape[-2], truth.mask.shape[-1]))
    full = replace(maps, heat=sized.by(HEADLINE))
    found = {choice: matching.match(full, truth, choice) for choice in CHOICES if matching.choosable(maps, choice)}
    answered = {choice: match.index >= 0 for choice, match in found.items()}
    ap = matching.match_ap(found["oracle"], truth)  # (B, M, S)
    own_ap = _own(ap, found["oracle"].index)  # (B, S)
    picture, source = (truth.present | answered["oracle"]).nonzero().unbind(1)
    places, mask = (picture, source), truth.mask[picture, source]
    heat = sized.answers(found["oracle"], HEADLINE, places)  # (n, H, W)
    once = {"ap": own_ap[picture, source]} | _peaks(heat, mask)

    # A predicted class map is the oracle's map or none, so every map is measured once and a missing one scores 0.
    per_source = columns.per_source(found, sized, truth, places, tally.protocols)
    per_picture = columns.per_picture(found["oracle"], sized, truth, tally.protocols)
    for choice in found:
        per_source |= {f"{choice}/{name}": values * answered[choice][picture, source] for name, values in once.items()}
        per_picture |= {f"{choice}/piap": _piap(found, choice, truth, ap)}
        if matching.is_named(maps):  # no CAP without classes (ledger 57)
            cap = (own_ap * answered[choice]).masked_fill(~truth.present, torch.nan).nanmean(-1)
            per_picture |= {f"{choice}/cap": cap}
    heard = matching.heard(maps, truth)
    if heard is not None:
        per_picture["heard"] = torch.where(truth.present.any(1), heard.double(), torch.nan)
    for one in tally.segmentations:
        if (masks := columns.segments(found["oracle"], full, truth, one)) is not None:
            per_picture |= masks.columns(one.name)
            tally.calls[one.name].add(*masks.curves, masks.real)
    tally.add(_with(_identity(truth, mask, places, keys), per_source), rows_of(keys, per_picture))


def _own(ap: Tensor, index: Tensor) -> Tensor:
    """Average precision of the map that answers for each source: (B, M, S), (B, S) -> (B, S)."""
    return ap.gather(1, index.clamp(min=0)[:, None])[:, 0]


def _peaks(heat: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Where each map has its maximum (the first in reading order): in the mask, in the source's own frame.

    heat, mask: (n, H, W). Returns (n,) each, NaN for an empty truth, and for ``half`` in pictures of a single frame.
    """
    height, width = heat.shape[-2:]
    peak = heat.flatten(1).argmax(1)
    inside = mask.flatten(1).gather(1, peak[:, None])[:, 0] > 0
    pointing = inside.double().masked_fill(~mask.flatten(1).any(1), torch.nan)
    frames, frame = frame_count(height, width), own_frame(mask)
    side = (peak % width) // (width // frames)
    half = (side == frame).double().masked_fill((frame < 0) | (frames == 1), torch.nan)
    return {"half": half, "pointing": pointing}


def _piap(found: Mapping[Choice, Match], choice: Choice, truth: Truth, ap: Tensor) -> Tensor:
    """PIAP (B,) of the maps of `choice`; ap: of the oracle's maps, which the others are where every class was heard."""
    piap = matching.permutation_invariant(found["oracle"], truth, ap)
    wrong = (truth.present & (found[choice].index < 0)).any(-1)
    if choice != "oracle" and bool(wrong.any()):
        piap[wrong] = matching.permutation_invariant(_at(found[choice], wrong), _at(truth, wrong))
    return piap


def _at(batched: Batched, pictures: Tensor) -> Batched:
    """The given pictures of a `Match` or a `Truth`."""
    return type(batched)(*(getattr(batched, field.name)[pictures] for field in fields(batched)))


def _identity(truth: Truth, mask: Tensor, places: Places, keys: Sequence[str]) -> list[Row]:
    """Rows that say which source of which picture they are about; mask: (n, H, W), theirs."""
    area, (picture, source) = (mask > 0).double().mean((-2, -1)), places
    values = zip(
        picture.tolist(),
        source.tolist(),
        truth.classes[picture, source].tolist(),
        truth.present[picture, source].tolist(),
        area.tolist(),
        strict=True,
    )
    return [{"key": keys[b], "source": s, "class": c, "sounds": p, "area": a} for b, s, c, p, a in values]


def rows_of(keys: Sequence[str], columns: Mapping[str, Tensor]) -> list[Row]:
    """A row for each picture: its key and its columns (n,), undefined values None."""
    return _with([{"key": key} for key in keys], columns)


def _with(rows: Sequence[Row], further: Mapping[str, Tensor]) -> list[Row]:
    """`rows` with further columns (n,); NaN, a value that is not defined, becomes None."""
    lists = {name: values.tolist() for name, values in further.items()}
    defined = {name: [None if value != value else value for value in values] for name, values in lists.items()}
    return [{**row, **{name: values[i] for name, values in defined.items()}} for i, row in enumerate(rows)]


def _keys(batch: Batch, tally: Tally) -> Sequence[str]:
    """The keys of the batch, or running numbers where it has none."""
    return batch.keys or [str(len(tally.pictures) + i) for i in range(len(batch))]
