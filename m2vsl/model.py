r"""M2VSL: the paper's model in one file (sections 3.2 and 3.3; protocol 4.2 where the paper is silent).

`M2VSLConfig` under its defaults is the paper under the ledger's defaults. Every departure of ours is one field, marked
"ours"; `methods.METHODS` calls the paper's model ``m2vsl`` and our best ``m2vsl_plus``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2vsl import losses, ops
from m2vsl.attention import Block, Grouping, LiteralBlock
from m2vsl.audio import remixed
from m2vsl.encoders import AudioEncoder, EncoderConfig, VisualEncoder, initialise
from m2vsl.localizer import Localizer
from m2vsl.types import Batch, Losses, Maps


@dataclass(frozen=True)
class M2VSLConfig:
    """Every choice that the paper leaves open. A bare number in a comment is a point of the ledger."""

    # fields younger than some records: no part of an experiment at their default
    LATER: ClassVar[frozenset[str]] = frozenset({"lengths", "view"})
    # fields that training does not read
    AT_TEST: ClassVar[frozenset[str]] = LATER | {"gate", "presence", "spread", "spread_temperature"}
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    scales: tuple[int, ...] = (1, 2, 3, 4)  # S stages of the trunk, 1 = finest; ledger 5; Table 4 without MMC: (4,)
    mmt: bool = True  # class tokens and transformer; Table 4 without MMT: one map of the whole mixture, ledger 35
    temperature: float = 0.03  # tau; ledger 11
    symmetric: bool = True  # both directions of Eq. 4; ledger 8
    pool: str = "none"  # of a stage before its maximum: "none" = native resolution, "5x5"; ledger 6
    scale_sum: str = "sum"  # of the losses over scales: "sum" or "mean"; ledger 10
    tokens: int = 5  # side of a stage's token grid, P = 25; ledger 4
    joint: bool = False  # one transformer over sound-modulated tokens instead of two branches; ledger 13, 14
    literal_attn: bool = False  # Eq. 6 as printed, with its residual; ledger 15
    grouping: bool = True  # AVGN's grouping behind the transformer; ledger 16
    token_init: str = "normal"  # class tokens: "normal" N(0, 0.02) or "zeros" (AVGN); ledger 17
    depth: int = 3  # transformer blocks of a branch
    heads: int = 8  # of self-attention; ledger 15
    drop_path: float = 0.1  # stochastic depth, AVGN
    fuse: str = "mean"  # of the scales' maps: "mean", "max", "last" or "learned"; ledger 18
    gate: bool = False  # multiply maps by the presence of their class; ledger 18
    map_features: str = "before"  # maps from features "before" or "after" the transformer, or "both"; ledger 58
    class_weight: float = 1.0  # of the three class losses; ledger 12
    class_reduction: str = "mean"  # presence losses over classes: "mean" (AVGN) or "sum" (ours); ledger 12
    heard_from: str = "slots"  # presence is read from its class "slots" (AVGN) or "sound" (ours); ledger 12
    presence: str = "heard"  # what sounds in a picture: what is "heard", or "both" heard and seen (ours); ledger 24
    same_class_negatives: bool = True  # pairs of one class in a batch count as negatives; ledger 43; ours: false
    peak: str = "max"  # how a bag is scored: "max" or "soft" (log-mean-exp, ours); ledger 9
    sharpness: float = 20.0  # of the soft peak, per unit of cosine
    top_down: bool = False  # coarse stages are added to finer ones; ledger 50; ours: true
    map_weight: float = 0.0  # of the class loss on the maps themselves (ours): is class c anywhere in this picture?
    loudness: bool = True  # false (ours): a spectrogram comes without its mean, its shape alone is heard
    remix: bool = False  # ours: sounds of a batch also mixed with one another, for the ears alone
    spread: int = 0  # rounds in which a map is handed on between cells that look alike (ours: 12)
    spread_temperature: float = 0.1  # of the likeness of two cells, a mean of cosines
    lengths: bool = False  # maps of cells as long as they are beside the mean, not of unit length (ours: true)
    view: int = 0  # pixels per side that frames are brought to for a map; 0 = as they come (ours: 224, as the trunk's)

    def __post_init__(self) -> None:
        _check(self)


class Slots(NamedTuple):
    """What the transformer hands on."""

    audio: Tensor  # (B, C, D): class c as the sound has it, x^a
    visual: Tensor  # (B, C, D): class c as the picture has it, x^v
    grids: list[Tensor]  # S tensors (B, D, 5, 5 W / H): visual tokens after the transformer


class MMT(nn.Module):
    r"""Multi-scale multi-instance transformer, Eq. (5).

    .. math:: \{\hat f_p\}_{p=1}^P, \{\hat c_i\}_{i=1}^C = \{\phi(x_j, X, X)\}_{j=1}^{P+C}, \quad
              X = [\{f_p\}_{p=1}^P; \{c_i\}_{i=1}^C]

    f: 5 x 5 tokens of each of the S stages (5 x 10 for two frames side by side), marked by a scale embedding; c: C
    class tokens, shared by two branches, phi^v over picture tokens and phi^a over the one token of the sound
    (ledger 13).
    """

    def __init__(self, config: M2VSLConfig, classes: int) -> None:
        super().__init__()
        dim, self.config = config.encoder.dim, config
        self.tokens = nn.Parameter(torch.zeros(classes, dim))
        self.scale = nn.Parameter(torch.zeros(len(config.scales), dim))
        if config.token_init == "normal":
            nn.init.normal_(self.tokens, std=0.02)
            nn.init.normal_(self.scale, std=0.02)
        branches = ("joint",) if config.joint else ("audio", "visual")
        self.phi = nn.ModuleDict({name: self._branch(dim) for name in branches})
        grouped = branches if config.grouping else ()
        self.group = nn.ModuleDict({name: Grouping(dim, classes, config.heads) for name in grouped})

    def _branch(self, dim: int) -> nn.Sequential:
        c = self.config
        blocks = [LiteralBlock() if c.literal_attn else Block(dim, c.heads, c.drop_path) for _ in range(c.depth)]
        return nn.Sequential(*blocks)

    def forward(self, pyramid: Sequence[Tensor], sound: Tensor) -> Slots:
        """pyramid: S tensors (B, D, h_s, w_s); sound: (B, D)."""
        side = self.config.tokens
        h, w = pyramid[0].shape[-2:]
        size = (side, side * max(round(w / h), 1))
        grids = [F.adaptive_avg_pool2d(v, size) + e[:, None, None] for v, e in zip(pyramid, self.scale, strict=True)]
        tokens = torch.cat([g.flatten(2) for g in grids], -1).transpose(1, 2)  # (B, P, D)
        if self.config.joint:
            seen, slots = self._attend("joint", tokens * sound[:, None])  # ledger 14: f = v * a
            heard = slots
        else:
            seen, slots = self._attend("visual", tokens)
            _, heard = self._attend("audio", sound[:, None])
        after = [t.transpose(1, 2).unflatten(-1, size) for t in seen.chunk(len(grids), 1)]
        return Slots(heard, slots, after)

    def _attend(self, name: str, features: Tensor) -> tuple[Tensor, Tensor]:
        """One branch: (B, P, D) -> updated features (B, P, D) and class slots (B, C, D)."""
        together = torch.cat([features, self.tokens.expand(len(features), -1, -1)], 1)  # X of Eq. 5
        features, tokens = self.phi[name](together).split([features.shape[1], len(self.tokens)], 1)
        slots = self.group[name](features, tokens) if name in self.group else tokens
        return features, slots


class M2VSL(Localizer):
    """The whole method: encoders, projections, MMC, MMT and class losses. ``classes``: C, of the data set."""

    wants: ClassVar[frozenset[str]] = frozenset({"labels", "mixtures"})
    named: ClassVar[bool] = True

    def __init__(self, config: M2VSLConfig, classes: int) -> None:
        super().__init__()
        self.config, dim = config, config.encoder.dim
        self.visual, self.audio = VisualEncoder(config.encoder), AudioEncoder(config.encoder)
        self.project = nn.ModuleList([nn.Conv2d(self.visual.channels[s - 1], dim, 1) for s in config.scales])
        self.project_audio = nn.Linear(self.audio.channels, dim)
        self.project.apply(initialise)
        self.project_audio.apply(initialise)
        if config.fuse == "learned":
            self.fusion = nn.Parameter(torch.zeros(len(config.scales) * (1 + (config.map_features == "both"))))
        if config.mmt:
            self.mmt = MMT(config, classes)
            self.token_head, self.seen_head = nn.Linear(dim, classes), nn.Linear(dim, 1)
            self.heard_head = nn.Linear(*((dim, 1) if config.heard_from == "slots" else (self.audio.channels, classes)))
        if config.map_weight:
            self.map_gain, self.map_bias = nn.Parameter(torch.tensor(10.0)), nn.Parameter(torch.tensor(-3.0))

    def pyramid(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """The trunk's four stages (B, C_s, h_s, w_s) -> S tensors (B, D, h_s, w_s), projected, not normalised."""
        levels = [conv(stages[s - 1]) for conv, s in zip(self.project, self.config.scales, strict=True)]
        if self.config.top_down:
            for i in range(len(levels) - 2, -1, -1):
                coarse = F.interpolate(levels[i + 1], levels[i].shape[-2:], mode="bilinear", align_corners=False)
                levels[i] = levels[i] + coarse
        return levels

    def listen(self, spectrogram: Tensor) -> Tensor:
        """(B, 1, F, T) -> the vector of the sound, (B, D_a)."""
        if not self.config.loudness:
            spectrogram = spectrogram - spectrogram.mean((-2, -1), keepdim=True)
        return self.audio(spectrogram)

    def heard(self, slots: Slots, sound: Tensor) -> Tensor:
        """Logits of "class c sounds", (B, C): from the class slots of the sound, or from its vector (B, D_a)."""
        source = slots.audio if self.config.heard_from == "slots" else sound
        return self.heard_head(source).reshape(len(sound), -1)

    def forward(self, batch: Batch) -> Losses:
        """Losses ``mmc`` and, with class tokens, ``token``, ``seen``, ``heard`` (and ``maps``, ours)."""
        c, heard, spectrogram = self.config, batch.heard, batch.spectrogram
        if c.remix:
            spectrogram, heard = remixed(spectrogram, heard)
        sounds = self.listen(spectrogram)  # the batch's, then those that were mixed of them
        sound = sounds[: len(batch)]
        pyramid = self.pyramid(self.visual(batch.image))
        if not c.mmt:
            owner, labels = torch.arange(len(batch), device=sound.device), batch.labels
            return {"mmc": self._contrast(pyramid, ops.unit(self.project_audio(sound)), owner, labels, labels)}
        slots = self.mmt(pyramid, self.project_audio(sound))
        features = self._features(pyramid, slots)
        owner, which = batch.heard.nonzero(as_tuple=True)  # one query per sounding class of every sample
        queries = ops.unit(slots.audio[owner, which])  # (N, D)
        asked = F.one_hot(which, batch.labels.shape[1]).to(batch.labels.dtype)
        out = {"mmc": self._contrast(features, queries, owner, asked, batch.labels)}
        out["token"] = losses.token_identity(self.token_head(self.mmt.tokens))
        out["seen"] = losses.presence(self.seen_head(slots.visual).squeeze(-1), batch.labels, c.class_reduction)
        out["heard"] = losses.presence(self.heard(slots, sounds), heard, c.class_reduction)
        out |= {k: c.class_weight * out[k] for k in ("token", "seen", "heard")}
        if c.map_weight:
            out["maps"] = c.map_weight * self._map_loss(features, slots.audio, batch.labels)
        return out

    def _features(self, pyramid: list[Tensor], slots: Slots) -> list[Tensor]:
        """What maps are made of: the scales before the transformer, after it, or both, as maps of their own."""
        return {"before": pyramid, "after": slots.grids}.get(self.config.map_features, [*slots.grids, *pyramid])

    def _contrast(
        self, features: Sequence[Tensor], queries: Tensor, owner: Tensor, asked: Tensor, labels: Tensor
    ) -> Tensor:
        """MMC between the pictures' stages, of `labels` (B, C), and unit queries (N, D), of classes `asked` (N, C)."""
        c, queries, owner = self.config, self.everyone(queries), self.everyone(self.first(len(labels)) + owner)
        if c.pool == "5x5":
            size = (c.tokens, c.tokens * max(round(features[0].shape[-1] / features[0].shape[-2]), 1))
            features = [F.adaptive_avg_pool2d(v, size) for v in features]
        if c.peak == "max":
            scores = [ops.peak_cosine(v, queries) for v in features]
        else:
            scores = [ops.soft_peak_cosine(v, queries, c.sharpness) for v in features]
        excluded = None
        if not c.same_class_negatives:
            asked, labels = self.everyone(asked), self.everyone(labels)
            mine = torch.arange(len(labels), device=owner.device)[:, None] == owner
            excluded = (labels @ asked.T > 0) & ~mine  # (B, N)
        loss = losses.mmc if c.symmetric else losses.audio_to_visual
        total = loss(self.everyone(torch.stack(scores, 1)).unbind(1), owner, c.temperature, excluded)
        return total / len(scores) if c.scale_sum == "mean" else total

    def _map_loss(self, features: Sequence[Tensor], slots: Tensor, labels: Tensor) -> Tensor:
        """Ours: the soft peak of the fused map of class c says whether c is a label of this picture."""
        h, w = features[-1].shape[-2:]
        maps = self._fuse([ops.similarity(ops.unit(v), ops.unit(slots, -1)) for v in features], (2 * h, 2 * w))
        logits = self.map_gain * ops.soft_peak(maps, self.config.sharpness) + self.map_bias
        return losses.presence(logits, labels, "sum")

    def _fuse(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """One map from S: each (B, K, h_s, w_s), upsampled to `size`; ledger 18, 19."""
        how, full = self.config.fuse, [ops.upsample(m, size) for m in maps]  # S of (B, K, H, W)
        if how in ("last", "max"):
            return full[-1] if how == "last" else torch.stack(full).amax(0)
        if how == "learned":
            full = [weight * m for weight, m in zip(self.fusion.softmax(0), full, strict=True)]
        return sum(full[1:], full[0]) / (1 if how == "learned" else len(full))

    def _maps(
        self, features: Sequence[Tensor], queries: Tensor, stages: Sequence[Tensor], size: tuple[int, int]
    ) -> Tensor:
        """Cosine of every location with queries (B, K, D), fused over scales: (B, K, H, W)."""
        scaled = ops.evened if self.config.lengths else ops.unit
        maps = [ops.similarity(scaled(v), ops.unit(queries, -1)) for v in features]
        if not self.config.spread:
            return self._fuse(maps, size)
        coarse = self._fuse(maps, (stages[2].shape[-2], stages[2].shape[-1]))
        spread = ops.spread(coarse, stages[1:], self.config.spread, self.config.spread_temperature)
        return ops.upsample(spread, size)

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        """One map per class (with class tokens), or one map of the whole mixture."""
        size, side = (batch.image.shape[-2], batch.image.shape[-1]), self.config.view or batch.image.shape[-2]
        near = ops.upsample(batch.image, (side, side * size[1] // size[0]), align_corners=False)
        stages, sound = self.visual(near), self.listen(batch.spectrogram)
        pyramid = self.pyramid(stages)
        if not self.config.mmt:
            heat = self._maps(pyramid, self.project_audio(sound)[:, None], stages, size)
            return Maps(heat, torch.tensor([-1], device=heat.device))
        slots = self.mmt(pyramid, self.project_audio(sound))
        features = self._features(pyramid, slots)
        heat = self._maps(features, slots.audio, stages, size)
        presence = torch.sigmoid(self.heard(slots, sound).float())  # (B, C)
        if self.config.presence == "both":
            presence = presence * torch.sigmoid(self.seen_head(slots.visual).squeeze(-1).float())
        if self.config.gate:
            heat = heat * presence[..., None, None]
        return Maps(heat, torch.arange(heat.shape[1], device=heat.device), presence)


def _check(config: M2VSLConfig) -> None:
    allowed = {
        "pool": ("none", "5x5"),
        "scale_sum": ("sum", "mean"),
        "token_init": ("normal", "zeros"),
        "fuse": ("mean", "max", "last", "learned"),
        "map_features": ("before", "after", "both"),
        "class_reduction": ("mean", "sum"),
        "peak": ("max", "soft"),
        "heard_from": ("slots", "sound"),
        "presence": ("heard", "both"),
    }
    for name, values in allowed.items():
        if getattr(config, name) not in values:
            raise ValueError(f"{name}: expected one of {', '.join(values)}, got {getattr(config, name)!r}")
    features, bare = config.map_features, not config.mmt
    ordered = config.scales and tuple(s for s in (1, 2, 3, 4) if s in config.scales) == tuple(config.scales)
    for wrong, told in (
        (not ordered, f"scales: expected some of 1, 2, 3, 4, finest first, got {config.scales}"),
        (0 < config.view < 32, f"view: expected 0 or at least 32 pixels, got {config.view}"),
        (bare and features != "before", f"map_features={features!r} needs mmt=True: no transformer is there otherwise"),
        (bare and (config.map_weight or config.gate), "map_weight and gate need mmt=True: maps of no class otherwise"),
        (config.remix and (bare or config.heard_from == "slots"), "remix needs mmt=True and heard_from='sound'"),
        (config.fuse == "learned" and not config.map_weight, "fuse='learned' needs map_weight > 0, to learn from"),
    ):
        if wrong:
            raise ValueError(told)
