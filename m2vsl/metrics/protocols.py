"""What exactly a number in a table was measured by.

Published evaluators disagree on upsampling, threshold, canvas and class choice (protocol 2.7), and the same maps score
0.28 or 0.60 accordingly. So a protocol is an object with a name, and every record and table cell carries that name.

Source: protocol 2.2-2.3, 2.7; ledger 19 (upsampling, rules), 24 (class choice), 26 (canvas, per source or picture).

Conventions
-----------
- Ours (`PROTOCOLS`) read canvas-rule-choice; the headline comes first: framewise-area50-oracle.
- The published ones (`PUBLISHED`) bear the name of the method whose evaluator they are, and a level where that method
  has several. Each is what its code does to a map and its truth when called as its authors say; what follows from a
  defect of the released code alone is called ``..._as_released_...`` and is never a default. AVSBench's two numbers are
  no IoU with a threshold of its own and are in `m2vsl.metrics.segmentation`.
- Sources of one class in a picture are one under all of them (ledger 52), also where the published code keeps the 22
  such pairs of VGGSound-Duet apart; who wants that gives the sources different classes.
- `iou` gives an undefined IoU (empty prediction, empty truth) the value 0: an empty truth is kept as a failure.
- A map that comes at the size of the picture is measured as it is: upsampling is for coarser ones.

>>> PROTOCOLS["framewise-area50-oracle"].digest, PUBLISHED["ezvsl"].digest
('6f08393d5873', '9c10e33d790b')
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from m2vsl import ops
from m2vsl.metrics import overlap
from m2vsl.metrics.canvas import Canvas, frame_count, on_canvas
from m2vsl.metrics.matching import Choice
from m2vsl.metrics.overlap import Above, Absolute, Area, Matched, MinMax, OfMax, Rule


def digest_of(fields: Mapping[str, object]) -> str:
    """Twelve hexadecimal digits that change when any of `fields`, plain values, does."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Protocol:
    """From heat maps to IoU, and from IoU to success: a named, frozen bundle."""

    name: str  # what records and tables print
    rule: Rule  # which pixels count as sounding; ledger 19
    canvas: Canvas = "framewise"  # whole picture or own frame; ledger 26
    choice: Choice = "oracle"  # whose class map answers: the true class's or the predicted one's; ledger 24
    at: tuple[float, ...] = (0.1, 0.3, 0.5)  # IoU from which a source counts as found
    upsampling: str = "bilinear"  # of maps coarser than the picture; ledger 19
    align_corners: bool = True  # ledger 19
    per_frame: bool = False  # a coarse map of several frames is brought to size frame by frame, not across the seam
    greedy: bool = False  # maps have no names: each in turn takes the source it covers best among those left
    strict: bool = False  # success is IoU > t, not >= t; the curve keeps >=
    boxed_auc: bool = False  # the area under the curve leaves out empty truths
    pooled: Literal["source", "picture"] = "source"  # what succeeds; "picture": mean IoU of its sources; ledger 26

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change when any field does. A later field counts where it is not default."""
        usual = {f.name: f.default for f in fields(self)[7:]}
        kept = {k: v for k, v in asdict(self).items() if k not in usual or v != usual[k]} | {"rule": repr(self.rule)}
        return digest_of(kept)

    def at_size(self, heat: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps (B, K, h, w) at the size (H, W) of the picture; as they are if they have it."""
        if tuple(heat.shape[-2:]) == tuple(size):
            return heat
        frames = frame_count(*size) if self.per_frame else 1
        if heat.shape[-1] % frames:
            raise ValueError(f"expected maps of {frames} equally wide frames, got width {heat.shape[-1]}")
        parts = heat.chunk(frames, -1)
        size = (size[0], size[1] // frames)
        return torch.cat([ops.upsample(part, size, self.upsampling, self.align_corners) for part in parts], -1)

    def iou(self, heat: Tensor, truth: Tensor) -> Tensor:
        """Consensus IoU of maps (n, H, W) with their truths, float64 (n,).

        >>> heat = torch.tensor([[[9.0, 8, 1, 0], [7, 3, 5, 6]]])  # two frames; 6 leaks into the right one
        >>> truth = torch.tensor([[[1.0, 1, 0, 0], [0, 0, 0, 0]]])
        >>> [PROTOCOLS[f"{canvas}-area50-oracle"].iou(heat, truth).item() for canvas in ("framewise", "sourcewise")]
        [0.5, 1.0]
        """
        return on_canvas(self._overlap, heat, truth, self.canvas).nan_to_num(0)

    def bound(self, truth: Tensor) -> Tensor:
        """The IoU that no map without ties can exceed, float64 (n,).

        >>> truth = torch.tensor([[[1.0, 1, 0, 0], [0, 0, 0, 0]]])
        >>> [PROTOCOLS[f"{canvas}-area50-oracle"].bound(truth).item() for canvas in ("framewise", "sourcewise")]
        [0.5, 1.0]
        """
        return on_canvas(lambda _, truth: overlap.bound(truth, self.rule), truth, truth, self.canvas)

    def units(self, iou: Tensor, boxed: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Sources, or their pictures, that succeed or fail: IoU, float64 (n,), and whether any has a truth, bool (n,).

        iou, boxed: (n,), of sources. pictures: int64 (n,), the number of each one's picture.

        >>> iou, boxed, pictures = torch.tensor([0.5, 0.1]).double(), torch.tensor([True, True]), torch.tensor([3, 3])
        >>> PUBLISHED["dsol-0.2"].units(iou, boxed, pictures)[0]
        tensor([0.3000], dtype=torch.float64)
        """
        if self.pooled == "source":
            return iou, boxed
        _, place, several = pictures.unique(return_inverse=True, return_counts=True)
        nothing = iou.new_zeros(len(several))
        return nothing.index_add(0, place, iou) / several, nothing.index_add(0, place, boxed.to(iou)) > 0

    def success(self, iou: Tensor, at: float) -> float:
        """Share of `iou` (n,) that counts as found at level `at`.

        >>> iou = torch.tensor([0.2, 0.5, 0.75])
        >>> PUBLISHED["ezvsl"].success(iou, 0.5), PUBLISHED["slavc"].success(iou, 0.5)  # at least; more than
        (0.6666666666666666, 0.3333333333333333)
        """
        return overlap.success_rate(iou, at, strict=self.strict)

    def _overlap(self, heat: Tensor, truth: Tensor) -> Tensor:
        return overlap.heat_iou(heat, truth, self.rule)


RULES: dict[str, Rule] = {"area50": Area(0.5), "minmax05": MinMax(0.5), "matched": Matched()}
_CANVASES: tuple[Canvas, ...] = ("framewise", "sourcewise")
_CHOICES: tuple[Choice, ...] = ("oracle", "predicted")

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(f"{canvas}-{rule}-{choice}", RULES[rule], canvas, choice)
        for canvas in _CANVASES
        for rule in RULES
        for choice in _CHOICES
    )
}
HEADLINE = PROTOCOLS["framewise-area50-oracle"]

PUBLISHED: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("ezvsl", Area(0.5)),
        Protocol("lvs", Above(0.5), align_corners=False),
        Protocol("slavc", Area(0.5), upsampling="bicubic", strict=True, boxed_auc=True),
        Protocol("slavc_as_released_absolute", Absolute(0.0), upsampling="bicubic", strict=True, boxed_auc=True),
        Protocol("avgn", Area(0.5), "sourcewise", upsampling="bicubic", per_frame=True, strict=True, boxed_auc=True),
        Protocol("tvsl-0.1", MinMax(0.1), upsampling="bicubic", align_corners=False),
        Protocol("tvsl-0.3", MinMax(0.3), upsampling="bicubic", align_corners=False),
        Protocol("noprior", Above(0.5), "sourcewise", upsampling="bicubic", align_corners=False, greedy=True),
        Protocol("dsol-0.1", OfMax(0.1), align_corners=False, pooled="picture"),
        Protocol("dsol-0.2", OfMax(0.2), align_corners=False, pooled="picture"),
        Protocol("dsol-0.5", OfMax(0.5), align_corners=False, pooled="picture"),
    )
}
EVERY: dict[str, Protocol] = PROTOCOLS | PUBLISHED


def named(*names: str) -> tuple[Protocol, ...]:
    """Protocols by name, or by what the name begins with: ``tvsl`` is both of its levels, ``sourcewise`` six of ours.

    ``all`` is every one. ValueError, listing the names, for one that is none.
    """
    chosen: dict[str, Protocol] = {}
    for name in names:
        found = [p for p in EVERY.values() if name in ("all", p.name) or p.name.startswith(f"{name}-")]
        if not found:
            raise ValueError(f"expected protocols among all, {', '.join(EVERY)}, or what they begin with; got {name!r}")
        chosen |= {protocol.name: protocol for protocol in found}
    return tuple(chosen.values())
