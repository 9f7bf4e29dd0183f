"""Which map answers for which source: the step where true classes may be read, and the only one.

A method gives one map per class, one map for everything, or several maps without names. To score a source, one of
them has to be picked, and published numbers differ in who picks:

- ``oracle``: the map of the source's true class. A method's single map answers for every source; several maps without
  names are assigned to the sources so that the sum of average precisions is largest.
- ``predicted``: the K classes that it is surest of are the method's answer, K = number of sounding sources. A source
  whose class is not among them has no map (-1) and scores 0. A single map is the same under both choices; several maps
  without names, and class maps without ``Maps.presence``, cannot be picked without the truth: not `choosable`.

Source: protocol 2.3-2.4; ledger 24 (class choice), 52 (pairs of one class), 57 (methods without class maps).

Conventions
-----------
- Sources of one class in one picture are one source with the union of their masks; it sounds if any of them does. Apply
  `merge_same_class` first. Class -1 (padding, unknown) is never merged.
- A source that is seen but silent is given the map of the sounding one, if exactly one sounds: what this map scores
  there is what it would score if the two sounds were swapped. Otherwise, and for padding, no map: -1.
- Equal presence: the class of the lower index first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from m2vsl.metrics.heat import validated
from m2vsl.metrics.ranking import assigned_mean, average_precision_matrix, best_assignment
from m2vsl.types import Maps, Truth

Choice = Literal["oracle", "predicted"]


@dataclass(frozen=True)
class Match:
    """The maps that answer for a batch of pictures, and for which source each does."""

    heat: Tensor  # (B, M, H, W) the answering maps
    used: Tensor  # (B, M) bool: the map is one of the method's answers, not padding
    index: Tensor  # (B, S) int64 in 0 ... M - 1: the map that answers for the source; -1 = none, it scores 0
    origin: Tensor  # (B, M) int64 in 0 ... K - 1: which of the method's maps each is

    def of(self, heat: Tensor) -> Match:
        """The same answers from the method's maps (B, K, H, W) at another size, or brought to size in another way."""
        return replace(self, heat=validated(_pick(heat, self.origin)))

    def answers(self, picture: Tensor, source: Tensor) -> Tensor:
        """The maps of given sources: (n,), (n,) -> (n, H, W). Where none answers, some map stands in its place."""
        return self.heat[picture, self.index[picture, source].clamp(min=0)]


def merge_same_class(truth: Truth) -> Truth:
    """Sources of one class in one picture made one (ledger 52): union of masks, sounding if any is.

    The first of them stays, the others become padding (class -1, empty mask, silent). Shapes (B, S, ...) are kept.
    ValueError for classes or ``present`` that do not fit the masks.

    >>> mask = torch.tensor([[[[1.0, 0, 0]], [[0, 0.5, 0]], [[0, 0, 1]]]])
    >>> found = merge_same_class(Truth(mask, torch.tensor([[7, 7, 2]]), torch.tensor([[False, True, True]])))
    >>> found.classes.tolist(), found.present.tolist(), found.mask[0, 0].tolist()
    ([[7, -1, 2]], [[True, False, True]], [[1.0, 0.5, 0.0]])
    """
    _check_sources(truth)
    classes = truth.classes
    sources = torch.arange(classes.shape[1], device=classes.device)
    same = (classes[:, :, None] == classes[:, None, :]) & (classes >= 0)[:, :, None]  # (B, S, S)
    first = torch.where(classes >= 0, same.int().argmax(-1), sources)  # (B, S)
    gone = first != sources
    if not bool(gone.any()):
        return truth
    mask, present = truth.mask.clone(), truth.present.clone()
    for picture, source in gone.nonzero().tolist():
        keeper = int(first[picture, source])
        mask[picture, keeper] = torch.maximum(mask[picture, keeper], mask[picture, source])
        present[picture, keeper] |= present[picture, source]
    mask[gone], present[gone] = 0, False
    return Truth(mask, classes.masked_fill(gone, -1), present)


def is_named(maps: Maps) -> bool:
    """Whether every map says which class it is for; ValueError if only some do.

    >>> heat = torch.rand(1, 2, 4, 4)
    >>> is_named(Maps(heat, torch.tensor([0, 3]))), is_named(Maps(heat, torch.tensor([-1, -1])))
    (True, False)
    """
    named = maps.classes >= 0
    if bool(named.any()) and not bool(named.all()):
        raise ValueError(f"expected classes for all maps or for none (-1), got {maps.classes.tolist()}")
    return bool(named.all())


def choosable(maps: Maps, choice: Choice) -> bool:
    """Whether the method says enough for `choice`: anything does for "oracle". ValueError for another choice."""
    if choice not in get_args(Choice):
        raise ValueError(f"expected a choice among {', '.join(get_args(Choice))}, got {choice!r}")
    return choice == "oracle" or (maps.presence is not None if is_named(maps) else len(maps.classes) == 1)


def match(maps: Maps, truth: Truth, choice: Choice = "oracle") -> Match:
    """The map that answers for each source of each picture.

    maps: heat (B, K, H, W); truth: mask (B, S, H, W). ValueError if their shapes disagree, if a sounding source's class
    has no map or any class several, for presence that is not finite, or if `choice` cannot be made from what the method
    says.

    >>> truth = Truth(torch.eye(2).view(1, 2, 1, 2), torch.tensor([[4, 3]]), torch.ones(1, 2, dtype=torch.bool))
    >>> maps = Maps(torch.rand(1, 3, 1, 2), torch.tensor([2, 3, 4]), presence=torch.tensor([[0.9, 0.8, 0.7]]))
    >>> match(maps, truth).index.tolist()  # of the answering maps, which are those of classes 4 and 3
    [[0, 1]]
    >>> match(maps, truth, "predicted").index.tolist()  # classes 2 and 3 seemed to sound: nobody answers for 4
    [[-1, 1]]
    """
    check(maps, truth)
    if not choosable(maps, choice):
        raise ValueError("the choice 'predicted' needs class maps with Maps.presence, or a single map; got neither")
    if not is_named(maps):
        found = _unnamed(maps, truth)
    else:
        found = _by_true_class(maps, truth) if choice == "oracle" else _by_predicted_class(maps, truth)
    return replace(found, heat=validated(found.heat), index=_lend_to_silent(found.index, truth))


def match_ap(found: Match, truth: Truth) -> Tensor:
    """Average precision of every answering map against every source: (B, M, S), NaN where the truth is empty.

    >>> truth = Truth(torch.eye(2).view(1, 2, 1, 2), torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.bool))
    >>> swapped = Maps(truth.mask.flip(1), truth.classes[0])
    >>> match_ap(match(swapped, truth), truth)
    tensor([[[0.5000, 1.0000],
             [1.0000, 0.5000]]], dtype=torch.float64)
    """
    return average_precision_matrix(found.heat, truth.mask)


def permutation_invariant(found: Match, truth: Truth, ap: Tensor | None = None) -> Tensor:
    """PIAP of each picture over the maps in use and the sounding sources: (B,), NaN without a truth.

    ap: `match_ap` of the same arguments, if already there.

    >>> truth = Truth(torch.eye(2).view(1, 2, 1, 2), torch.tensor([[0, 1]]), torch.ones(1, 2, dtype=torch.bool))
    >>> permutation_invariant(match(Maps(truth.mask.flip(1), truth.classes[0]), truth), truth)
    tensor([1.], dtype=torch.float64)
    """
    ap = match_ap(found, truth) if ap is None else ap
    ap = torch.where(found.used[..., None], ap, torch.where(ap.isnan(), ap, 0))  # unused maps cannot win
    return assigned_mean(ap.masked_fill(~truth.present[:, None], float("nan")))


def greedy(scores: Tensor, used: Tensor, present: Tensor) -> Tensor:
    """Each map in turn takes the source that it scores best on among those left: NoPrior's assignment.

    scores: (B, M, S). used: (B, M) bool; present: (B, S) bool. Returns (B, S): the map that took the source, -1 = none.

    >>> both = torch.ones(1, 2, dtype=torch.bool)
    >>> greedy(torch.tensor([[[0.6, 0.7], [0.1, 0.9]]]), both, both)  # the best sum has them the other way round
    tensor([[1, 0]])
    """
    batch, maps, sources = scores.shape
    index = torch.full((batch, sources), -1, device=scores.device)
    left, pictures = present.clone(), torch.arange(batch, device=scores.device)
    for m in range(maps):
        best = scores[:, m].masked_fill(~left, -1).argmax(-1)
        takes = used[:, m] & left.any(-1)
        index[pictures[takes], best[takes]] = m
        left[pictures[takes], best[takes]] = False
    return index


def heard(maps: Maps, truth: Truth) -> Tensor | None:
    """Whether the classes of greatest presence are those that sound: (B,) bool; None if the method does not say.

    As many classes count as distinct sources sound (`merge_same_class` first).

    >>> truth = Truth(torch.ones(1, 1, 2, 2), torch.tensor([[1]]), torch.tensor([[True]]))
    >>> heard(Maps(torch.rand(1, 3, 2, 2), torch.arange(3), presence=torch.tensor([[0.1, 0.9, 0.3]])), truth)
    tensor([True])
    """
    if not is_named(maps) or maps.presence is None:
        return None
    classes, used = _top_classes(maps, truth)
    found = ((classes[:, :, None] == truth.classes[:, None, :]) & used[..., None]).any(1)  # (B, S)
    return (found | ~truth.present).all(1)


def _unnamed(maps: Maps, truth: Truth) -> Match:
    used = torch.ones(maps.heat.shape[:2], dtype=torch.bool, device=maps.heat.device)
    index = torch.zeros_like(truth.classes)
    if maps.heat.shape[1] > 1:
        ap = average_precision_matrix(maps.heat, truth.mask)
        index = best_assignment(ap.masked_fill(~truth.present[:, None], float("nan")))
    every = torch.arange(used.shape[1], device=used.device).expand_as(used)
    return Match(maps.heat, used, index.masked_fill(~truth.present, -1), every)


def _by_true_class(maps: Maps, truth: Truth) -> Match:
    """Map s is the one of source s."""
    is_class = truth.classes[..., None] == maps.classes  # (B, S, K)
    missing = truth.present & ~is_class.any(-1)
    if bool(missing.any()):
        unknown = sorted(set(truth.classes[missing].tolist()))
        raise ValueError(f"expected a map for the class of every sounding source, got none for classes {unknown}")
    origin = is_class.int().argmax(-1)
    slots = torch.arange(truth.classes.shape[1], device=origin.device).expand_as(truth.classes)
    return Match(_pick(maps.heat, origin), truth.present, slots.masked_fill(~truth.present, -1), origin)


def _by_predicted_class(maps: Maps, truth: Truth) -> Match:
    """Maps in order of presence; a source is answered by the one of its class, if that is among them."""
    classes, used = _top_classes(maps, truth)
    hit = (classes[:, None, :] == truth.classes[..., None]) & used[:, None] & truth.present[..., None]  # (B, S, M)
    index = hit.int().argmax(-1).masked_fill(~hit.any(-1), -1)
    position = (classes[..., None] == maps.classes).int().argmax(-1)
    return Match(_pick(maps.heat, position), used, index, position)


def _top_classes(maps: Maps, truth: Truth) -> tuple[Tensor, Tensor]:
    """The classes of greatest presence (B, M), M = min(S, K), and which of them count: as many as sources sound."""
    if maps.presence is None:
        raise ValueError("expected Maps.presence to choose classes by, got None")
    order = maps.presence.argsort(dim=-1, descending=True, stable=True)[:, : truth.classes.shape[1]]
    slots = torch.arange(order.shape[1], device=order.device)
    return maps.classes[order], slots < truth.present.sum(-1, keepdim=True)


def _pick(heat: Tensor, position: Tensor) -> Tensor:
    """Maps at `position` (B, M) of each picture: (B, K, H, W) -> (B, M, H, W)."""
    return heat[torch.arange(len(heat), device=heat.device)[:, None], position]


def _lend_to_silent(index: Tensor, truth: Truth) -> Tensor:
    """Silent sources get the map of the sounding one where exactly one sounds."""
    silent = ~truth.present & truth.mask.flatten(2).any(-1)
    alone = truth.present.sum(-1, keepdim=True) == 1
    sounding = index.gather(1, truth.present.int().argmax(-1, keepdim=True))  # (B, 1)
    return torch.where(silent & alone, sounding, index)


def check(maps: Maps, truth: Truth) -> None:
    """ValueError, what was expected and what is there, for maps that cannot be scored against this truth."""
    batch, count, *size = maps.heat.shape
    if len(size) != 2 or truth.mask.ndim != 4 or truth.mask.shape[0] != batch or list(truth.mask.shape[2:]) != size:
        raise ValueError(
            f"expected heat (B, K, H, W) at the size of the truth (B, S, H, W), "
            f"got {tuple(maps.heat.shape)} and {tuple(truth.mask.shape)}"
        )
    if tuple(maps.classes.shape) != (count,) or (maps.presence is not None and maps.presence.shape != (batch, count)):
        presence = None if maps.presence is None else tuple(maps.presence.shape)
        raise ValueError(
            f"expected classes ({count},) and presence ({batch}, {count}), "
            f"got {tuple(maps.classes.shape)} and {presence}"
        )
    _check_names(maps)
    _check_sources(truth)


def _check_names(maps: Maps) -> None:
    if not len(maps.classes):
        raise ValueError(f"expected at least one map of each picture, got heat {tuple(maps.heat.shape)}")
    known, counts = maps.classes[maps.classes >= 0].unique(return_counts=True)
    if bool((counts > 1).any()):
        raise ValueError(f"expected one map of each class, got several for classes {known[counts > 1].tolist()}")
    if maps.presence is not None and not bool(maps.presence.isfinite().all()):
        odd = int((~maps.presence.isfinite()).sum())
        raise ValueError(f"expected finite presence, got {odd} of {maps.presence.numel()} values that are not")


def _check_sources(truth: Truth) -> None:
    batch, sources = truth.mask.shape[:2]
    if not sources:
        raise ValueError(f"expected room for at least one source, got masks {tuple(truth.mask.shape)}")
    if {tuple(truth.classes.shape), tuple(truth.present.shape)} != {(batch, sources)}:
        raise ValueError(
            f"expected classes and present ({batch}, {sources}) as the masks, "
            f"got {tuple(truth.classes.shape)} and {tuple(truth.present.shape)}"
        )
    if truth.present.dtype != torch.bool or truth.classes.is_floating_point():
        raise ValueError(
            f"expected whole classes and present of torch.bool, got {truth.classes.dtype} and {truth.present.dtype}"
        )
