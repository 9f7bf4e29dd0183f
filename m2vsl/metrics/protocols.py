"""What exactly a number in a table was measured by.

Published evaluators disagree on upsampling, threshold, canvas and class choice (protocol 2.7), and the same maps score
0.28 or 0.60 accordingly. So a protocol is an object with a name, and every record and table cell carries that name.

Source: protocol 2.2-2.3; ledger 19 (upsampling, rules), 24 (class choice), 26 (canvas).

Conventions
-----------
- Names read canvas-rule-choice; the headline comes first in `PROTOCOLS`: framewise-area50-oracle.
- `iou` gives an undefined IoU (empty prediction, empty truth) the value 0: an empty truth is kept as a failure.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from torch import Tensor

from m2vsl import ops
from m2vsl.metrics import overlap
from m2vsl.metrics.canvas import Canvas, on_canvas
from m2vsl.metrics.matching import Choice
from m2vsl.metrics.overlap import Area, Matched, MinMax, Rule


@dataclass(frozen=True)
class Protocol:
    """From heat maps to IoU: a named, frozen bundle."""

    name: str  # what records and tables print
    rule: Rule  # which pixels count as sounding; ledger 19
    canvas: Canvas = "framewise"  # whole picture or own frame; ledger 26
    choice: Choice = "oracle"  # whose class map answers: the true class's or the predicted one's; ledger 24
    at: tuple[float, ...] = (0.1, 0.3, 0.5)  # IoU from which a source counts as found
    upsampling: str = "bilinear"  # of maps coarser than the picture; ledger 19
    align_corners: bool = True  # ledger 19

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change when any field does."""
        fields = asdict(self) | {"rule": repr(self.rule)}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]

    def at_size(self, heat: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps (B, K, h, w) at the size (H, W) of the picture; as they are if they have it."""
        if tuple(heat.shape[-2:]) == tuple(size):
            return heat
        return ops.upsample(heat, size, self.upsampling, self.align_corners)

    def iou(self, heat: Tensor, truth: Tensor) -> Tensor:
        """Consensus IoU of maps (n, H, W) with their truths, float64 (n,)."""
        return on_canvas(self._overlap, heat, truth, self.canvas).nan_to_num(0)

    def bound(self, truth: Tensor) -> Tensor:
        """The IoU that no map without ties can exceed, float64 (n,)."""
        return on_canvas(lambda _, truth: overlap.bound(truth, self.rule), truth, truth, self.canvas)

    def _overlap(self, heat: Tensor, truth: Tensor) -> Tensor:
        return overlap.consensus_iou(overlap.binarise(heat, self.rule, truth), truth)


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
