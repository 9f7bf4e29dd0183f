"""DMC (Hu, Nie & Li, CVPR 2019): the cells of picture and sound are clustered, and a clip's clusters have to meet.

Learns from solos, without labels: the visual centre nearest to the sound's centre must be nearer than that of another
picture. Its map: how much nearer a cell lies to that centre than to any other, the margin behind the cluster's mask,
and unlike it without ties (baselines 1.3). Two forms, both of the same authors:

- ``clusters``: their simplified release, on which later ResNet-18 numbers rest. Soft k-means with gradient through all
  rounds and without normalisation; one sound has one centre, the mean of its cells.
- ``routing``: the paper's. Capsule-like clusters that picture and sound share, compared one with one; a hinge. In the
  release of this form a slip compares clusters 1-5 with 6-10 in place of picture with sound; not here.

The original is trained from scratch with Adam 1e-4 on VGG-like trunks, the simplified one on ResNet-18 with 14 x 14
cells; here the trunks are the book's. Two things follow. In a frozen trunk plain background has short vectors, and
short ones are near to any sound: the background would be matched in every picture and stay so, because the nearest
centre alone gets a gradient. ``level`` takes that advantage away. And in a picture of two frames the centres start
along the diagonal: both starts of the original rule lie in the left frame. Facts from baselines 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2vsl import ops
from m2vsl.encoders import AudioEncoder, EncoderConfig, VisualEncoder, initialise
from m2vsl.localizer import PAIRS, Localizer, answer
from m2vsl.metrics.canvas import frame_count
from m2vsl.types import Batch, Losses, Maps


@dataclass(frozen=True)
class DMCConfig:
    """DMC's choices."""

    AT_TEST: ClassVar[frozenset[str]] = frozenset({"per_frame", "sounds"})  # fields that training does not read
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    last_stride: int = 1  # of the trunk: 14 x 14 cells of 224 px; 2 = 7 x 7; rivals 1
    level: bool = True  # cells of the trunk brought to one length before the projection; as released: false
    variant: str = "clusters"  # or "routing", the paper's form; rivals 5
    objects: int = 2  # visual centres of a frame: the object and the background
    beta: float = 30.0  # sharpness of the assignments, per unit of distance
    rounds: int = 4  # of soft k-means
    margin: float = 5.0  # distance from which another picture is far enough
    capsules: int = 10  # K, clusters of the routing, and the margin of its hinge
    width: int = 16  # channels of a capsule
    routes: int = 3  # rounds of the routing
    per_frame: int = 1  # visual centres more for each further frame of a picture
    sounds: int = 1  # centres of the sound, and so maps, at test; 1 = one map for all that is heard

    def __post_init__(self) -> None:
        if self.variant not in ("clusters", "routing"):
            raise ValueError(f"variant: expected clusters or routing, got {self.variant!r}")
        least = {"objects": 2, "rounds": 1, "capsules": 2, "routes": 2, "per_frame": 0, "sounds": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name}: expected at least {low}, got {getattr(self, name)}")
        if self.variant == "routing" and self.sounds > self.capsules:
            raise ValueError(f"sounds: expected at most the {self.capsules} capsules, got {self.sounds}")


class DMC(Localizer):
    """The margin of each cell towards the cluster that sounds."""

    wants: ClassVar[frozenset[str]] = frozenset({"solos"})

    def __init__(self, config: DMCConfig, classes: int) -> None:
        super().__init__()
        self.config, dim = config, config.encoder.dim
        self.visual, self.audio = VisualEncoder(config.encoder, config.last_stride), AudioEncoder(config.encoder)
        self.project, self.project_audio = nn.Linear(self.visual.channels[-1], dim), nn.Linear(self.audio.channels, dim)
        self.project.apply(initialise)
        self.project_audio.apply(initialise)
        if config.variant == "routing":
            self.votes = nn.Linear(dim, config.capsules * config.width, bias=False)
        if config.sounds > 1:
            self.sources = config.sounds

    def cells(self, batch: Batch) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Projected cells of picture (B, hw, D) and sound (B, ft, D), float32, not of one length; and (h, w)."""
        seen, heard = self.visual(batch.image)[-1], self.audio.cells(batch.spectrogram)
        grid = (seen.shape[-2], seen.shape[-1])
        seen, heard = seen.flatten(2).transpose(1, 2), heard.flatten(2).transpose(1, 2)
        if self.config.level:
            seen = F.layer_norm(ops.precise(seen), seen.shape[-1:])
        return ops.precise(self.project(seen)), ops.precise(self.project_audio(heard)), grid

    def forward(self, batch: Batch) -> Losses:
        """``pull`` and ``push``, whose sum is the contrast over pairs; for the routing, ``hinge``.

        Each sound's own picture should be near, the one before it in the batch far. ValueError for mixtures, and for
        fewer than two samples.
        """
        self.require_solos(batch, pairs_for=PAIRS)
        picture, sound, _ = self.cells(batch)
        if self.config.variant == "routing":
            seen, heard = self._route(picture)[0], self._route(sound)[0]
            own, other = (F.cosine_similarity(v, heard, -1).sum(-1) for v in (seen, self.before(seen)))
            return {"hinge": F.relu(self.config.capsules + other - own).mean()}
        seen = self._cluster(picture, starts(picture.shape[1], self.config.objects))
        heard = self._cluster(sound, [0])
        own, other = (distance(v, heard).amin(1) for v in (seen, self.before(seen)))  # (B, 1), to the nearest centre
        far = F.relu(self.config.margin - other)
        return {"pull": own.square().mean() / 4, "push": far.square().mean() / 4}  # halves, and the mean of both kinds

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """One map of whatever is heard; with ``sounds`` > 1 so many, of no class."""
        picture, sound, grid = self.cells(batch)
        if self.config.variant == "routing":
            (seen, votes), (heard, _) = self._route(picture), self._route(sound)
            far = -torch.einsum("bkd,bknd->bkn", ops.unit(seen, -1), votes)  # less agreement is more distance
            chosen = F.cosine_similarity(seen, heard, -1).topk(self.config.sounds, -1).indices
        else:
            frames = frame_count(batch.image.shape[-2], batch.image.shape[-1])
            count = self.config.objects + self.config.per_frame * (frames - 1)
            begin = starts(picture.shape[1], count) if frames == 1 else diagonal(grid, count)
            seen = self._cluster(picture, begin)
            heard = self._cluster(sound, starts(sound.shape[1], self.config.sounds))
            far, chosen = distance(seen, picture), distance(heard, seen).argmin(-1)
        return answer(lead(far, chosen).unflatten(-1, grid), batch)

    def _cluster(self, cells: Tensor, begin: Sequence[int]) -> Tensor:
        return soft_k_means(cells, begin, self.config.beta, self.config.rounds)

    def _route(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Capsules (B, K, d) of cells (B, N, D), and what each cell votes for each of them, (B, K, N, d)."""
        votes = ops.precise(self.votes(squash(cells))).unflatten(-1, (self.config.capsules, self.config.width))
        votes = votes.transpose(1, 2)
        share = torch.full_like(votes[..., 0], 1 / self.config.capsules)  # (B, K, N)
        for _ in range(self.config.routes - 1):
            capsules = ops.unit((share[..., None] * votes).sum(2), -1)
            share = (capsules[:, :, None] * votes).sum(-1).softmax(1)
        return squash((share[..., None] * votes).sum(2)), votes


def starts(cells: int, centres: int) -> list[int]:
    """Where the centres start among `cells` in reading order, as released: 0, floor(N / K), 2 floor(N / K) ..."""
    return [k * (cells // centres) for k in range(centres)]


def diagonal(grid: tuple[int, int], centres: int) -> list[int]:
    """Cells of a grid (h, w), in reading order, that divide its diagonal evenly: the middles of K equal parts."""
    height, width = grid
    places = [(2 * k + 1) / (2 * centres) for k in range(centres)]
    return [int(place * height) * width + int(place * width) for place in places]


def distance(one: Tensor, other: Tensor) -> Tensor:
    """Euclidean distances (B, K, N) of (B, K, D) and (B, N, D), float32; without gradient where it is 0."""
    return torch.cdist(ops.precise(one), ops.precise(other), compute_mode="donot_use_mm_for_euclid_dist")


def soft_k_means(cells: Tensor, begin: Sequence[int], beta: float, rounds: int) -> Tensor:
    """Centres (B, K, D) of cells (B, N, D) that start at the cells `begin`; the gradient goes through all rounds.

    A cell's share in a centre is a softmax over centres of -beta x distance. A centre that all cells leave goes to 0.
    """
    centres = cells[:, list(begin)]
    with torch.autocast(cells.device.type, enabled=False):
        for _ in range(rounds):
            share = torch.softmax(-beta * distance(centres, cells), 1)  # (B, K, N)
            centres = share @ cells / (share.sum(-1, keepdim=True) + 1e-8)
    return centres


def squash(x: Tensor) -> Tensor:
    """Vectors along the last axis at their direction, and the length tanh(10 x length): 1 unless they are tiny."""
    length = ops.precise(x).norm(dim=-1, keepdim=True)
    return ops.unit(x, -1) * torch.tanh(10 * length)


def lead(far: Tensor, chosen: Tensor) -> Tensor:
    """How much nearer a cell is to the chosen centre than to any other: positive where the centre owns it.

    far: (B, K, N) distances of cells to centres; chosen: (B, S), one centre for each sound. Returns (B, S, N).
    """
    own = F.one_hot(chosen, far.shape[1]).bool()[..., None]  # (B, S, K, 1)
    others = far[:, None].masked_fill(own, torch.inf).amin(2)
    return others - far.gather(1, chosen[..., None].expand(-1, -1, far.shape[-1]))
