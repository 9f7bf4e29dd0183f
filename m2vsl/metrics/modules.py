"""The metrics as modules of torchmetrics, for anybody's own loop.

Each class hands its batch to the functions of `m2vsl.metrics` and keeps sums of what comes back. So the score is that
of all samples at once, whatever the batches and however many processes; input is checked by those functions.

Source: protocol 2.2-2.3, 2.5. torchmetrics 1.x has the interface: `update`, `compute`, `reset`, `forward` (the value of
one batch), `clone`, collections.

Conventions
-----------
- States are sums in float64: ``.half()``, ``.to(dtype)`` and ``set_dtype`` leave them so. A device without float64
  cannot hold them.
- Maps may live on another device than the states: only sums travel.
- `compute` adds up the processes of `torch.distributed`, of which all must call it; a process without a batch adds
  nothing. Without any sample the score is NaN, and torchmetrics warns if `update` was never called.
- A sampler that repeats samples to make shards equal (PyTorch's ``DistributedSampler``, Accelerate's ``even_batches``)
  has them counted twice: switch that off.
- In a `MetricCollection`, metrics share their states only if they are the same metric of the same configuration.
- Which map answers for which source is not decided here (see `m2vsl.metrics.matching`): map s answers for source s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from m2vsl.metrics.heat import validated
from m2vsl.metrics.overlap import CURVE
from m2vsl.metrics.protocols import HEADLINE, Protocol, named
from m2vsl.metrics.ranking import average_precision, class_aware_ap, permutation_invariant_ap
from m2vsl.metrics.segmentation import THRESHOLDS, f_score, frame_f_curves, frame_iou


class _Sums(Metric):
    """A metric whose states are sums of float64.

    Collections let metrics share their states if these bear the same names and, after the first batch, the same values,
    which two protocols often do. So the names say what is measured.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(self, measured: str, sizes: Mapping[str, tuple[int, ...]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._names = {name: f"{name} [{type(self).__name__} {measured}]" for name in sizes}
        for name, size in sizes.items():
            self.add_state(self._names[name], torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    def _add(self, **values: Tensor) -> None:
        for name, value in values.items():
            state = self._sum(name)
            setattr(self, self._names[name], state + value.detach().to(state))

    def _sum(self, name: str) -> Tensor:
        return getattr(self, self._names[name])

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the sums of another metric, or its states by name; what was computed before is forgotten."""
        super().merge_state(incoming_state)
        self._computed = None

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Any:
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), exclude_state)


class LocalizationScore(_Sums):
    """Success rates, area under the success curve and mean IoU under a protocol.

    protocol: one of `m2vsl.metrics.protocols`, or the name of one; ValueError for a name that is none or several.
    kwargs: those of `torchmetrics.Metric`.

    >>> truth = torch.tensor([[[0.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]]])
    >>> score = LocalizationScore()
    >>> score.update(torch.tensor([[[3.0, 9.0], [5.0, 7.0]]]).expand(2, 2, 2), truth)
    >>> {name: round(float(value), 3) for name, value in score.compute().items()}
    {'ciou@0.1': 0.5, 'ciou@0.3': 0.5, 'ciou@0.5': 0.5, 'auc': 0.512, 'iou': 0.5}
    """

    def __init__(self, protocol: Protocol | str = HEADLINE, **kwargs: Any) -> None:
        chosen = named(protocol) if isinstance(protocol, str) else (protocol,)
        if len(chosen) > 1:
            raise ValueError(f"expected one protocol, got {protocol!r}: {', '.join(one.name for one in chosen)}")
        sizes = {"count": (), "iou": (), "found": (len(chosen[0].at),), "curves": (), "reached": (len(CURVE),)}
        super().__init__(f"{chosen[0].name} {chosen[0].digest}", sizes, **kwargs)
        self.protocol = chosen[0]

    def update(self, heat: Tensor, truth: Tensor, present: Tensor | None = None) -> None:
        """Take in whole pictures.

        heat: (B, S, h, w), or (B, h, w) for one source each; brought to the size of the truth as the protocol does.
        truth: (B, S, H, W) or (B, H, W) in [0, 1]. present: bool (B, S) or (B,), the sources that count; None = all.
        """
        _check_sources(heat, truth, present)
        counted = truth.new_ones(truth.shape[:-2], dtype=torch.bool) if present is None else present
        truth, coarse = truth[counted], validated(heat[counted])  # (n, H, W), (n, h, w)
        iou = self.protocol.iou(self.protocol.at_size(coarse[:, None], (truth.shape[-2], truth.shape[-1]))[:, 0], truth)
        iou, boxed = self.protocol.units(iou, (truth > 0).flatten(1).any(1), counted.nonzero()[:, 0])
        levels = iou.new_tensor(self.protocol.at)
        found = iou[:, None] > levels if self.protocol.strict else iou[:, None] >= levels
        curve = iou[boxed] if self.protocol.boxed_auc else iou
        self._add(
            count=iou.new_tensor(len(iou)),
            iou=iou.sum(),
            found=found.sum(0),
            curves=iou.new_tensor(len(curve)),
            reached=(curve[:, None] >= iou.new_tensor(CURVE)).sum(0),
        )

    def compute(self) -> dict[str, Tensor]:
        """Scores by name, float64 each: ``ciou@t`` for the levels t of the protocol, ``auc``, ``iou``."""
        count, rates = self._sum("count"), self._sum("found") / self._sum("count")
        curve = self._sum("reached") / self._sum("curves")
        scores = {f"ciou@{level:g}": rate for level, rate in zip(self.protocol.at, rates, strict=True)}
        return scores | {"auc": torch.trapezoid(curve, curve.new_tensor(CURVE)), "iou": self._sum("iou") / count}


class _Means(_Sums):
    """The mean of scores that are not NaN."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("mean", {"total": (), "count": (), "skipped": ()}, **kwargs)

    def _take(self, scores: Tensor) -> None:
        defined = ~scores.isnan()
        self._add(total=scores[defined].sum(), count=defined.sum(), skipped=(~defined).sum())

    def compute(self) -> Tensor:
        """The mean, float64."""
        return self._sum("total") / self._sum("count")

    @property
    def skipped(self) -> int:
        """How many were left out since the last `reset`, by this process: their truth is empty."""
        return int(self._sum("skipped"))


class PixelAveragePrecision(_Means):
    """Mean `average_precision` of the sources with a truth; `skipped` counts the others.

    >>> metric = PixelAveragePrecision()
    >>> metric.update(torch.tensor([[9.0, 8.0, 7.0, 6.0]]), torch.tensor([[0.0, 1.0, 0.0, 1.0]]))
    >>> metric.compute()
    tensor(0.5000, dtype=torch.float64)
    """

    def update(self, heat: Tensor, truth: Tensor) -> None:
        """heat, truth: (..., H, W)."""
        self._take(average_precision(heat, truth))


class ClassAwareAP(_Means):
    """CAP: mean over pictures of `class_aware_ap`; `skipped` counts pictures without a truth.

    >>> truth, metric = torch.eye(4).view(1, 4, 2, 2), ClassAwareAP()
    >>> metric.update(truth.flip(1), truth)
    >>> metric.compute()
    tensor(0.2500, dtype=torch.float64)
    """

    def update(self, heat: Tensor, truth: Tensor) -> None:
        """heat, truth: (B, S, H, W); map s is the one of the class of source s."""
        _check_pictures(heat, truth)
        self._take(class_aware_ap(heat, truth))


class PermutationInvariantAP(_Means):
    """PIAP: mean over pictures of `permutation_invariant_ap`; `skipped` counts pictures without a truth.

    >>> truth, metric = torch.eye(4).view(1, 4, 2, 2), PermutationInvariantAP()
    >>> metric.update(truth.flip(1), truth)
    >>> metric.compute()
    tensor(1., dtype=torch.float64)
    """

    def update(self, heat: Tensor, truth: Tensor) -> None:
        """heat: (B, K, H, W), in any order; truth: (B, S, H, W)."""
        _check_pictures(heat, truth)
        self._take(permutation_invariant_ap(heat, truth))


class AVSBenchIoU(_Sums):
    """Mean `frame_iou`: the "mIoU" of AVSBench, where a frame with an empty truth counts.

    >>> metric = AVSBenchIoU()
    >>> metric.update(torch.tensor([[[3.0, 1.0], [-2.0, -1.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    >>> metric.compute()
    tensor(0.5000, dtype=torch.float64)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("mean", {"total": (), "count": ()}, **kwargs)

    def update(self, logits: Tensor, truth: Tensor) -> None:
        """logits, truth: (N, H, W)."""
        iou = frame_iou(logits, truth)
        self._add(total=iou.sum(), count=iou.new_tensor(len(iou)))

    def compute(self) -> Tensor:
        """The mean over frames, float64."""
        return self._sum("total") / self._sum("count")


class AVSBenchF(_Sums):
    """`f_score`: F with beta^2 = 0.3 at its best threshold.

    frames_per_call: None keeps one curve of all frames and takes its maximum in `compute`. n is the published way,
    maxima of n consecutive frames averaged (5 per video and call); every update must then hold whole calls.

    >>> metric = AVSBenchF(frames_per_call=1)
    >>> metric.update(torch.tensor([[[3.0, 1.0], [-2.0, -1.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    >>> metric.compute()
    tensor(1., dtype=torch.float64)
    """

    def __init__(self, frames_per_call: int | None = None, **kwargs: Any) -> None:
        if frames_per_call is not None and frames_per_call < 1:
            raise ValueError(f"expected at least 1 frame per call, or None for one curve of all, got {frames_per_call}")
        curves: dict[str, tuple[int, ...]] = {"curve": (THRESHOLDS,), "real": (), "frames": ()}
        maxima: dict[str, tuple[int, ...]] = {"best": (), "calls": ()}
        super().__init__(f"{frames_per_call} per call", maxima if frames_per_call else curves, **kwargs)
        self.frames_per_call = frames_per_call

    def update(self, logits: Tensor, truth: Tensor) -> None:
        """logits, truth: (N, H, W); ValueError unless N is a multiple of `frames_per_call`."""
        if self.frames_per_call is None:
            curves = frame_f_curves(logits, truth)
            real = (truth > 0).flatten(1).any(1)
            self._add(curve=curves[real].sum(0), real=real.sum(), frames=curves.new_tensor(len(curves)))
            return
        calls, rest = divmod(len(logits), self.frames_per_call)
        if rest:
            raise ValueError(f"expected whole calls of {self.frames_per_call} frames, got {len(logits)} frames")
        mean = f_score(logits, truth, self.frames_per_call)
        if calls:
            self._add(best=torch.tensor(mean * calls, dtype=torch.float64), calls=torch.tensor(calls))

    def compute(self) -> Tensor:
        """F, float64; 0 without a frame that has a truth, as published."""
        if self.frames_per_call is not None:
            return self._sum("best") / self._sum("calls")
        best = (self._sum("curve") / self._sum("real").clamp(min=1)).max()
        return best.masked_fill(self._sum("frames") == 0, torch.nan)


def _check_sources(heat: Tensor, truth: Tensor, present: Tensor | None) -> None:
    if not (heat.ndim == truth.ndim and heat.ndim in (3, 4) and heat.shape[:-2] == truth.shape[:-2]):
        raise ValueError(
            f"expected heat and truth of the same sources, both (B, H, W) or both (B, S, H, W), "
            f"got {tuple(heat.shape)} and {tuple(truth.shape)}"
        )
    if present is not None and (present.dtype != torch.bool or present.shape != truth.shape[:-2]):
        raise ValueError(
            f"expected present as bool {tuple(truth.shape[:-2])}, got {present.dtype} {tuple(present.shape)}"
        )


def _check_pictures(heat: Tensor, truth: Tensor) -> None:
    if not heat.ndim == truth.ndim == 4:
        raise ValueError(
            f"expected heat and truth of shape (B, S, H, W), got {tuple(heat.shape)} and {tuple(truth.shape)}"
        )
