r"""C2AM (Xie et al., CVPR 2022): foreground and background told apart by contrast, without labels and without sound.

One map P in (0, 1): a 3 x 3 convolution over the last two stages, a batch normalisation of which nothing is learnt,
which keeps the map from being all or nothing, and a sigmoid. Features averaged under P are a picture's foreground f,
under 1 - P its background b. Cosines, kept within [0.0005, 0.9995]:

.. math:: -\frac{1}{B^2} \sum_{ij} \log(1 - \cos(b_i, f_j))
          - \frac{1}{B^2} \sum_{ij} w_{ij} \log \cos(f_i, f_j), \qquad w_{ij} = \exp(-\alpha\, r_{ij})

and the same of b with b; r is the place of j among the likest of i: -1 for i itself, then 0, 1, ... Which of the two
sides is the foreground nothing says: a map that is high along the border of its pictures is turned round. Facts from
baselines 9.

The release decides that once, after an epoch; here a running mean of the border decides, and is kept with the weights.
The losses do not know the sides, so it is the same when that is decided. A silent thing that stands out is marked like
one that sounds: that is the method. The release has SGD at 1e-3 for all, here it is Adam.
Its multi-scale test, saliency network and CRF are left out: one step from map to mask, `m2vsl.refine`, is for all rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2vsl import ops
from m2vsl.encoders import EncoderConfig, VisualEncoder
from m2vsl.localizer import Localizer, Reads, answer
from m2vsl.types import Batch, Losses, Maps

LEAST, MOST = 5e-4, 1 - 5e-4  # of a cosine
MOMENTUM = 0.1  # of running means; the first ten batches count alike, so that few updates are enough


@dataclass(frozen=True)
class C2AMConfig:
    """C2AM's choices."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    last_stride: int = 1  # of the trunk: 14 x 14 cells of 224 px; 2 = the last stage, 7 x 7, is enlarged; rivals 1
    alpha: float = 0.25  # how fast less like pictures lose their say; the release's for VOC
    head_affine: bool = False  # the normalisation learns a gain and a shift; in the release they never move


class C2AM(Localizer):
    """The salient side of a picture. ``classes`` is not read."""

    wants: ClassVar[frozenset[str]] = frozenset({"frames"})
    listens: ClassVar[bool] = False
    reads: ClassVar[Reads] = "logits"
    border: Tensor  # (1,): running mean of P along the border of training pictures

    def __init__(self, config: C2AMConfig, classes: int) -> None:
        super().__init__()
        self.config, self.visual = config, VisualEncoder(config.encoder, config.last_stride)
        self.norm = nn.BatchNorm2d(1, affine=config.head_affine, momentum=MOMENTUM)
        self.head = nn.Conv2d(sum(self.visual.channels[-2:]), 1, 3, padding=1, bias=False)
        self.register_buffer("border", torch.full((1,), 0.5))

    def features(self, image: Tensor) -> Tensor:
        """The last two stages, both at stride 16: (B, D, h, w)."""
        finer, last = self.visual(image)[-2:]
        if last.shape[-2:] != finer.shape[-2:]:
            last = ops.upsample(last, (finer.shape[-2], finer.shape[-1])).to(finer)
        return torch.cat([last, finer], 1)

    def logits(self, cells: Tensor) -> Tensor:
        """Of the one side, whichever it is: (B, D, h, w) -> (B, 1, h, w), float32."""
        return self.norm(ops.precise(self.head(cells)))

    def forward(self, batch: Batch) -> Losses:
        """Losses ``apart``, ``foreground`` and ``background``. ValueError for fewer than two pictures."""
        if len(batch) < 2:
            raise ValueError(f"C2AM: expected at least two pictures, to be alike, got {len(batch)}")
        self.norm.momentum = max(MOMENTUM, 1 / (1 + int(self.norm.num_batches_tracked or 0)))
        cells = self.features(batch.image)
        share = torch.sigmoid(self.logits(cells))  # (B, 1, h, w)
        if self.training:
            with torch.no_grad():
                self.border.lerp_(self.everyone(edge(share)).mean().to(self.border), self.norm.momentum)
        front = self.everyone(ops.unit((share * ops.precise(cells)).mean((-2, -1))))  # (B, D)
        back = self.everyone(ops.unit(((1 - share) * ops.precise(cells)).mean((-2, -1))))
        apart = -torch.log1p(-_cosines(back, front)).mean()
        alpha = self.config.alpha
        return {"apart": apart, "foreground": alike(front, alpha), "background": alike(back, alpha)}

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """One map of whatever is salient: a logit, its sign that of the foreground."""
        logits = self.logits(self.features(batch.image))
        return answer(torch.where(self.border > 0.5, -logits, logits), batch)


def edge(share: Tensor) -> Tensor:
    """The outermost cells of each map, each once: (B, 1, h, w) -> (B, n)."""
    inner = torch.ones(share.shape[-2:], dtype=torch.bool, device=share.device)
    inner[0] = inner[-1] = inner[:, 0] = inner[:, -1] = False
    return share[:, 0, ~inner]


def alike(vectors: Tensor, alpha: float) -> Tensor:
    """Minus the mean log cosine of all B x B pairs, weighted by rank: unit vectors (B, D) -> a scalar."""
    cosines = _cosines(vectors, vectors)
    rank = cosines.detach().argsort(stable=True, descending=True).argsort() - 1  # of j in row i; itself is first
    return -(torch.exp(-alpha * rank.float()) * cosines.log()).mean()


def _cosines(one: Tensor, other: Tensor) -> Tensor:
    with torch.autocast(one.device.type, enabled=False):
        return F.linear(ops.precise(one), ops.precise(other)).clamp(LEAST, MOST)
