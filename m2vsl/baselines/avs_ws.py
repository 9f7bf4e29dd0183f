"""AVS (ws): AVS (Zhou et al., ECCV 2022), which learns from masks, with the labels of videos in their place.

The four stages of a trunk are brought to one width by dilated convolutions; each hears the sound (`TPAVI`); a decoder
goes from the coarsest to the finest and draws one logit per pixel. How a row "AVS (ws)" learns without masks was not
published; candidates are three, and the row is our definition (rivals 14):

- ``A``: the drawn mask weighs the cells of the trunk's last stage, and their mean has to tell the classes.
- ``B``: a logit map for each class, whose mean over the picture is the logit of the class; ``C``: whose maximum is.

With B and C the map is the largest of the maps of those classes that seem to be there. None of the three determines the
level of the mask: one that is small, or everywhere, tells classes as well as the right one does, and what a cut at 0
makes of it is chance. Read the threshold-free score beside it.

The original has a ResNet-50, 256 channels, five frames at once, and a frozen VGGish, 128 numbers for each second. Here
the trunk is the book's, one frame is seen with its 3 s of sound, and the book's sound encoder, which learns, stands in
for VGGish. Facts from baselines 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2vsl import losses, ops
from m2vsl.encoders import AudioEncoder, EncoderConfig, VisualEncoder, initialise
from m2vsl.localizer import Localizer, Reads, answer
from m2vsl.metrics.columns import sounding
from m2vsl.types import Batch, Losses, Maps

DILATIONS = (3, 6, 12, 18)


@dataclass(frozen=True)
class AVSConfig:
    """The choices of AVS (ws)."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    loss: str = "A"  # or "B", "C": how labels reach the mask; rivals 14
    classify: str = "bce"  # each class apart, for several labels; or "ce" = cross-entropy, for one; rivals 16
    width: int = 0  # channels of the fused stages; 0 = half of encoder.dim, the 256 of the original beside 512
    scales: tuple[int, ...] = (1, 2, 3, 4)  # stages that hear the sound
    gain: float = 0.0  # of what the sound adds, at the start; the original: 0

    def __post_init__(self) -> None:
        if self.loss not in ("A", "B", "C"):
            raise ValueError(f"loss: expected A, B or C, got {self.loss!r}")
        if self.classify not in ("bce", "ce"):
            raise ValueError(f"classify: expected bce or ce, got {self.classify!r}")
        if self.width < 0 or self.width % 2:
            raise ValueError(f"width: expected an even number of channels, or 0, got {self.width}")
        if not self.scales or not set(self.scales) <= {1, 2, 3, 4}:
            raise ValueError(f"scales: expected stages among 1, 2, 3, 4, got {self.scales}")


class AVS(Localizer):
    """One logit per pixel, drawn by a decoder that hears at every stage. ``classes``: C, of the data set."""

    wants: ClassVar[frozenset[str]] = frozenset({"labels"})
    reads: ClassVar[Reads] = "logits"

    def __init__(self, config: AVSConfig, classes: int) -> None:
        super().__init__()
        self.config, width = config, config.width or config.encoder.dim // 2
        self.visual, self.audio = VisualEncoder(config.encoder), AudioEncoder(config.encoder)
        self.fuse = nn.ModuleList(Fusion(channels, width) for channels in self.visual.channels)
        self.hear = nn.ModuleDict({str(s): TPAVI(width, self.audio.channels, config.gain) for s in config.scales})
        self.decode = Decoder(width, 1 if config.loss == "A" else classes)
        if config.loss == "A":
            self.tell = nn.Linear(self.visual.channels[-1], classes)
            self.tell.apply(initialise)

    def draw(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (B, 1, H, W), of a class each (B, C, H, W) with B and C; and the cells of the last stage."""
        pyramid, sound = self.visual(batch.image), self.audio(batch.spectrogram)
        stages = [fuse(cells) for fuse, cells in zip(self.fuse, pyramid, strict=True)]
        for scale, tpavi in self.hear.items():
            stages[int(scale) - 1] = tpavi(stages[int(scale) - 1], sound)
        return ops.precise(self.decode(stages, (batch.image.shape[-2], batch.image.shape[-1]))), pyramid[-1]

    def classes(self, logits: Tensor, cells: Tensor) -> Tensor:
        """What `draw` gives as logits of the classes, (B, C): A as the cells under the mask, B the mean, C the peak."""
        if self.config.loss == "A":
            return ops.precise(self.tell(under(torch.sigmoid(logits), cells)))
        return logits.mean((-2, -1)) if self.config.loss == "B" else ops.peak(logits)

    def forward(self, batch: Batch) -> Losses:
        """The loss ``labels``, in nats: binary cross-entropy, the mean over classes, or cross-entropy.

        ValueError for cross-entropy where a sample has not exactly one label.
        """
        logits = self.classes(*self.draw(batch))
        if self.config.classify == "bce":
            return {"labels": losses.presence(logits, batch.labels)}
        if bool((count := batch.labels.sum(-1) != 1).any()):
            raise ValueError(f"AVS with classify 'ce': expected one label per sample, got others in {int(count.sum())}")
        return {"labels": F.cross_entropy(logits, batch.labels.argmax(-1))}

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """One map of whatever sounds, without a class."""
        drawn, cells = self.draw(batch)
        if self.config.loss == "A":
            return answer(drawn, batch)
        logits = self.classes(drawn, cells)
        presence = torch.sigmoid(logits) if self.config.classify == "bce" else torch.softmax(logits, -1)
        chosen = drawn.masked_fill(~sounding(presence)[..., None, None], -torch.inf)
        return answer(chosen.amax(1, keepdim=True), batch)


class Fusion(nn.Module):
    """Four dilated convolutions side by side, summed."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.each = nn.ModuleList(nn.Conv2d(inputs, outputs, 3, padding=d, dilation=d) for d in DILATIONS)

    def forward(self, cells: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h, w)."""
        return torch.stack([conv(cells) for conv in self.each]).sum(0)


class TPAVI(nn.Module):
    """Every cell of a clip looks at all its cells, by the sound there, without a softmax; then a residual and a norm.

    The weight of cell j for cell i is the inner product of i with the sound of j's frame, over the number of cells. The
    sound is the same all over a frame, and nothing is normalised, so that N x N weights are a matrix of C/2 x C/2.
    """

    def __init__(self, width: int, heard: int, gain: float = 0.0) -> None:
        super().__init__()
        self.align = nn.Linear(heard, width)
        self.query, self.value = nn.Conv2d(width, width // 2, 1), nn.Linear(width, width // 2)
        self.key = nn.Linear(width, width // 2)
        self.project, self.norm = nn.Conv2d(width // 2, width, 1, bias=False), nn.BatchNorm2d(width)
        self.level = nn.LayerNorm(width)
        nn.init.constant_(self.norm.weight, gain)

    def forward(self, cells: Tensor, sound: Tensor, frames: int = 1) -> Tensor:
        """cells (B * T, C, h, w), sound (B * T, A), T = `frames` of a clip after one another -> (B * T, C, h, w)."""
        key, value = self.key(self.align(sound)), self.value(cells.mean((-2, -1)))  # (B * T, C / 2)
        clips = torch.einsum("btc,btd->bdc", key.unflatten(0, (-1, frames)), value.unflatten(0, (-1, frames))) / frames
        mixed = clips.repeat_interleave(frames, 0) @ self.query(cells).flatten(2)  # (B * T, C / 2, hw)
        cells = cells + self.norm(self.project(mixed.unflatten(-1, cells.shape[-2:])))
        return self.level(cells.movedim(1, -1)).movedim(-1, 1)


class Residual(nn.Module):
    """ReLU, convolution, ReLU, convolution, and what came out of the first ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        x = F.relu(x)
        return x + self.second(F.relu(self.first(x)))


class Decoder(nn.Module):
    """From the coarsest stage to the picture: each stage is added, and drawn at the size of the next finer one."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(Residual(width) for _ in range(4))
        self.joint = nn.ModuleList(Residual(width) for _ in range(4))
        self.first, self.second = nn.Conv2d(width, width // 2, 3, padding=1), nn.Conv2d(width // 2, 32, 3, padding=1)
        self.last = nn.Conv2d(32, outputs, 1)

    def forward(self, stages: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Four (B, C, h_s, w_s), the finest first -> (B, outputs, H, W) of `size`."""
        finest = stages[0].shape[-2:]
        sizes = [(2 * finest[0], 2 * finest[1]), *((s.shape[-2], s.shape[-1]) for s in stages[:-1])]
        x: Tensor | float = 0.0
        for s in reversed(range(len(stages))):
            x = resized(self.joint[s](x + self.lateral[s](stages[s])), sizes[s])
        assert isinstance(x, Tensor)
        return self.last(F.relu(self.second(resized(self.first(x), size))))


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) at another size, bilinear, corners aligned, in its own precision."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def under(mask: Tensor, cells: Tensor) -> Tensor:
    """The mean of the cells (B, D, h, w) under a mask (B, 1, H, W) in [0, 1], averaged over each cell: (B, D)."""
    weight = F.adaptive_avg_pool2d(mask, (cells.shape[-2], cells.shape[-1]))
    return (weight * cells).sum((-2, -1)) / weight.sum((-2, -1)).clamp(min=1e-6)
