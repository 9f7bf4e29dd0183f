"""One batch of maps under many protocols: what each makes of them, every map measured once per distinct way.

Protocols that differ in class choice alone share their overlaps, and maps that come at the size of the picture are
brought there by nobody.

Columns of the rows (see `m2vsl.metrics.tally`)
-----------------------------------------------
- ``<protocol>``: IoU of each source.
- ``confidence``: of each source's map, where SLAVC's protocols are asked for.
- ``tvsl/ap``: average precision of each source's map, brought to size as T-VSL does.
- ``avgn_as_released/piap``, ``noprior_as_released/cap`` of each source, ``noprior_as_released/piap`` of each picture.
- ``avsbench/iou``, ``avsbench/f`` of each picture: its maps and its truths united; F at its own best threshold. The
  maps of the classes that sound; in ``avsbench-predicted`` of those that seem to (`sounding`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from m2vsl.metrics import matching, released
from m2vsl.metrics.calls import Segmentation
from m2vsl.metrics.canvas import on_canvas
from m2vsl.metrics.detection import confidence
from m2vsl.metrics.matching import Choice, Match
from m2vsl.metrics.protocols import HEADLINE, PUBLISHED, Protocol
from m2vsl.metrics.ranking import average_precision, average_precision_as_released_avgn
from m2vsl.metrics.segmentation import frame_curves, frame_iou
from m2vsl.types import Maps, Truth

Columns = dict[str, Tensor]
Places = tuple[Tensor, Tensor]  # picture (n,) and source (n,) of every row


class Sized:
    """The maps of a batch at the size of its pictures, and those that answer, once per way of bringing them there."""

    def __init__(self, heat: Tensor, size: tuple[int, int]) -> None:
        self.heat, self.size = heat, size
        self._made: dict[object, Tensor] = {}
        self._matched: dict[object, Match] = {}
        self._answers: dict[object, Tensor] = {}

    def by(self, protocol: Protocol) -> Tensor:
        """All maps as `protocol` brings them to size: (B, K, H, W)."""
        if (way := self._way(protocol)) not in self._made:
            self._made[way] = protocol.at_size(self.heat, self.size)
        return self._made[way]

    def match(self, found: Match, protocol: Protocol) -> Match:
        """The answers of `found`, made on the maps of `HEADLINE`, on those of `protocol`; always of one `found`."""
        if (way := self._way(protocol)) == self._way(HEADLINE):
            return found
        if way not in self._matched:
            self._matched[way] = found.of(self.by(protocol))
        return self._matched[way]

    def answers(self, found: Match, protocol: Protocol, places: Places) -> Tensor:
        """The map of every row, (n, H, W), as `protocol` brings it to size; for the same `found` and `places`."""
        if (way := self._way(protocol)) not in self._answers:
            self._answers[way] = self.match(found, protocol).answers(*places)
        return self._answers[way]

    def _way(self, protocol: Protocol) -> object:
        if tuple(self.heat.shape[-2:]) == self.size:
            return None
        return protocol.upsampling, protocol.align_corners, protocol.per_frame


def per_source(
    found: Mapping[Choice, Match], sized: Sized, truth: Truth, places: Places, protocols: Sequence[Protocol]
) -> Columns:
    """Every column (n,) of the sources at `places`, for those protocols whose choice was made."""
    oracle, mask = found["oracle"], truth.mask[places]
    shared: dict[object, Tensor] = {}
    columns: Columns = {}
    for protocol in protocols:
        if protocol.choice not in found:
            continue
        if protocol.greedy:
            columns |= _taken(protocol, sized.match(oracle, protocol), truth, places)
            continue
        heat = sized.answers(oracle, protocol, places)
        if (key := (protocol.rule, protocol.canvas, id(heat))) not in shared:
            shared[key] = protocol.iou(heat, mask)
        answered = (found[protocol.choice].index >= 0)[places]
        columns[protocol.name] = shared[key] * answered
    names = {protocol.name for protocol in protocols}
    return columns | _printed(lambda name: sized.answers(oracle, PUBLISHED[name], places), mask, names)


def _printed(maps: Callable[[str], Tensor], mask: Tensor, names: set[str]) -> Columns:
    """What the evaluators among `names` print besides an IoU, of their `maps`."""
    columns: Columns = {}
    if {"slavc", "slavc_as_released_absolute"} & names:
        columns["confidence"] = confidence(maps("slavc"))
    if any(name.startswith("tvsl") for name in names):
        columns["tvsl/ap"] = average_precision(maps("tvsl-0.3"), mask)
    if "avgn" in names:
        swapped = on_canvas(average_precision_as_released_avgn, maps("avgn"), mask, "sourcewise")
        columns["avgn_as_released/piap"] = swapped
    return columns


def _taken(protocol: Protocol, found: Match, truth: Truth, places: Places) -> Columns:
    """IoU of each source with the map that took it, and the average precision that NoPrior's code has for it."""
    batch, maps, sources = *found.used.shape, truth.mask.shape[1]
    picture, m, s = torch.ones(batch, maps, sources, device=truth.mask.device).nonzero().unbind(1)
    iou = protocol.iou(found.heat[picture, m], truth.mask[picture, s]).view(batch, maps, sources)
    taken = matching.greedy(iou, found.used, truth.present)[places]
    answered, silent = taken >= 0, ~truth.present[places]
    heat = found.heat[places[0], taken.clamp(min=0)]
    ap = on_canvas(released.average_precision_as_released_noprior, heat, truth.mask[places], "sourcewise")
    own = torch.where(answered, iou[places[0], taken.clamp(min=0), places[1]], 0)
    undefined = torch.where(ap.isnan(), torch.nan, 0.0)
    columns = {protocol.name: own, "noprior_as_released/cap": torch.where(answered, ap, undefined)}
    return {name: values.masked_fill(silent, torch.nan) for name, values in columns.items()}  # nobody asks for them


def per_picture(found: Match, sized: Sized, truth: Truth, protocols: Sequence[Protocol]) -> Columns:
    """What the evaluators among `protocols` print of whole pictures: (B,) each."""
    if "noprior" not in {protocol.name for protocol in protocols}:
        return {}
    maps, sounding = sized.match(found, PUBLISHED["noprior"]), truth.mask * truth.present[..., None, None]
    piap = released.permutation_invariant_ap_as_released_noprior(maps.heat, found.used, sounding)
    return {"noprior_as_released/piap": piap}


class Segmented(NamedTuple):
    """Pictures as frames, one mask each."""

    iou: Tensor  # (B,)
    f: Tensor  # (B,) at the threshold that is best for the frame; NaN without a truth
    curves: tuple[Tensor, Tensor]  # F and IoU at every threshold, (B, 255) each
    real: Tensor  # (B,) bool: it has a truth
    logits: Tensor  # (B, H, W) of the union of its maps

    def columns(self, name: str) -> Columns:
        """The columns of a segmentation of that name."""
        return {f"{name}/iou": self.iou, f"{name}/f": self.f}


def segments(found: Match, maps: Maps, truth: Truth, segmentation: Segmentation) -> Segmented | None:
    """Each picture as one frame: foreground where any chosen map says so, and truly where any sounding source is.

    found: the oracle's answers among `maps`, heat (B, K, H, W). None where the choice cannot be made: see
    `matching.choosable`.
    """
    if not matching.choosable(maps, segmentation.choice):
        return None
    heat, used = found.heat, found.used
    if segmentation.choice == "predicted" and maps.presence is not None and matching.is_named(maps):
        heat, used = maps.heat, sounding(maps.presence)
    least = heat.amin((1, 2, 3), keepdim=True)
    united = torch.where(used[..., None, None], heat, least).amax(1)
    true = sounds_where(truth)
    logits = segmentation.logits(united)
    logits = torch.where(used.any(1)[:, None, None], logits, -100.0)  # no map, no foreground
    curves, real = frame_curves(logits, true), (true > 0).flatten(1).any(1)
    best = curves[0].amax(1).masked_fill(~real, torch.nan)
    return Segmented(frame_iou(logits, true), best, curves, real, logits)


def sounds_where(truth: Truth) -> Tensor:
    """The union of the sounding sources of each picture: (B, S, H, W) -> (B, H, W).

    >>> mask = torch.tensor([[[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]]])
    >>> sounds_where(Truth(mask, torch.tensor([[0, 1]]), torch.tensor([[True, False]])))
    tensor([[[1., 0., 0.]]])
    """
    return (truth.mask * truth.present[..., None, None]).amax(1)


def sounding(presence: Tensor) -> Tensor:
    """The classes that seem to sound, bool (B, K): those at 0.5 or above, else the surest (protocol 4.2, point 9).

    >>> sounding(torch.tensor([[0.7, 0.5, 0.1], [0.2, 0.4, 0.1]]))
    tensor([[ True,  True, False],
            [False,  True, False]])
    """
    surest = torch.nn.functional.one_hot(presence.argmax(1), presence.shape[1]).bool()
    return (presence >= 0.5) | (surest & (presence < 0.5).all(1, keepdim=True))
