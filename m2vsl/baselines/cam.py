"""CAM (Zhou et al., CVPR 2016): where a classifier of whole pictures finds each class. It hears nothing.

Features averaged over the picture, one linear layer; the map of a class is that layer applied to every cell, its bias
left out. Trained with a frame's labels, each class for itself (soft margin), so that several may be there. The usual
recipe of weakly supervised segmentation, sizes and mirrored pictures at test time, is a choice; its conditional random
field and its SGD, with ten times the rate for the classifier, are not. Facts from baselines 8.

As a mask: what is below 0 speaks against the class, so the map is cut at half of its maximum (``reads``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2vsl import losses, ops
from m2vsl.encoders import EncoderConfig, VisualEncoder, initialise
from m2vsl.localizer import Localizer, Reads, answer
from m2vsl.types import Batch, Losses, Maps


@dataclass(frozen=True)
class CAMConfig:
    """CAM's choices."""

    # fields that training does not read
    AT_TEST: ClassVar[frozenset[str]] = frozenset({"zooms", "flip"})
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    last_stride: int = 1  # of the trunk: 14 x 14 cells of 224 px; 2 = 7 x 7; rivals 1
    loss: str = "bce"  # each class for itself; "ce": one class a picture, the original's; rivals 16
    zooms: tuple[float, ...] = (1.0,)  # at which a picture is looked at; the recipe's: 1, 0.5, 1.5, 2
    flip: bool = False  # and each of these mirrored, too; the recipe's: true

    def __post_init__(self) -> None:
        if self.loss not in ("bce", "ce"):
            raise ValueError(f"loss: expected bce or ce, got {self.loss!r}")
        if not self.zooms or min(self.zooms) <= 0:
            raise ValueError(f"zooms: expected one at least, above 0, got {self.zooms}")


class CAM(Localizer):
    """A classifier and its activation maps. ``classes``: C, of the data set."""

    wants: ClassVar[frozenset[str]] = frozenset({"labels"})
    listens: ClassVar[bool] = False
    named: ClassVar[bool] = True
    reads: ClassVar[Reads] = "positive"

    def __init__(self, config: CAMConfig, classes: int) -> None:
        super().__init__()
        self.config, self.visual = config, VisualEncoder(config.encoder, config.last_stride)
        self.head = nn.Linear(self.visual.channels[-1], classes)
        self.head.apply(initialise)

    def forward(self, batch: Batch) -> Losses:
        """The loss ``labels``. ValueError for a sample without a label and, with "ce", for one of several."""
        cells = self.visual(batch.image)[-1]
        logits, count = self.head(cells.mean((-2, -1))), batch.labels.sum(-1)
        if bool((count == 0).any()):
            raise ValueError(f"CAM: expected a label for every sample, got {int((count == 0).sum())} without")
        if self.config.loss == "bce":
            return {"labels": losses.presence(logits, batch.labels)}
        if bool((count > 1).any()):
            raise ValueError(f"CAM: expected one label a sample with loss='ce', got {int(count.max())}")
        return {"labels": F.cross_entropy(ops.precise(logits), batch.labels.argmax(-1))}

    def maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Activation maps (B, C, h, w), without the bias, and the logits of whole pictures (B, C)."""
        cells = ops.precise(self.visual(image)[-1])
        return ops.similarity(cells, self.head.weight), ops.precise(self.head(cells.mean((-2, -1))))

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """One map per class. Presence: of the classifier, so of what is seen."""
        size = (batch.image.shape[-2], batch.image.shape[-1])
        found = []
        for zoom in self.config.zooms:
            near = batch.image if zoom == 1 else ops.upsample(batch.image, _zoomed(size, zoom), align_corners=False)
            found.append(self.maps(near))
            if self.config.flip:
                maps, logits = self.maps(near.flip(-1))
                found.append((maps.flip(-1), logits))
        logits = torch.stack([logits for _, logits in found]).mean(0)
        presence = logits.sigmoid() if self.config.loss == "bce" else logits.softmax(-1)
        if len(found) == 1:
            return answer(found[0][0], batch, presence)
        return answer(torch.stack([ops.upsample(maps, size) for maps, _ in found]).mean(0), batch, presence)


def _zoomed(size: tuple[int, int], zoom: float) -> tuple[int, int]:
    return max(round(zoom * size[0]), 32), max(round(zoom * size[1]), 32)
