r"""Self-attention: the operator as printed, and the pre-norm block that is used (ledger 15).

Tokens are (B, L, D). The printed operator has no projections, heads, MLP, residual or norm; "enhancing the standard
Visual Transformer" says that they are there, so the default block is the standard one and the printed one an option.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2vsl import ops


def literal_attention(tokens: Tensor) -> Tensor:
    r"""The self-attention operator exactly as printed, Eq. (6).

    .. math:: \phi(x_j, X, X) = \mathrm{Softmax}\left(\frac{x_j X^\top}{\sqrt D}\right) X

    tokens: (B, L, D). Returns (B, L, D): every token becomes a mean of all, weighted by its inner products.
    """
    weights = torch.softmax(tokens @ tokens.transpose(-2, -1) / tokens.shape[-1] ** 0.5, dim=-1)  # (B, L, L)
    return weights @ tokens


class Attention(nn.Module):
    """Multi-head attention of queries over a context; with the queries as context, self-attention."""

    def __init__(self, dim: int, heads: int = 8) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"expected a dimension divisible by {heads} heads, got {dim}")
        self.heads = heads
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """queries: (B, L, D), context: (B, M, D) -> (B, L, D)."""
        q = self._split(self.query(queries))  # (B, heads, L, D / heads)
        k, v = map(self._split, self.key_value(context).chunk(2, -1))
        if q.device.type == "cpu":  # its kernel takes several times as long in bfloat16, backwards above all
            q, k, v = ops.precise(q), ops.precise(k), ops.precise(v)
        with torch.autocast(q.device.type, enabled=q.device.type != "cpu"):  # which would make them bfloat16 again
            mixed = F.scaled_dot_product_attention(q, k, v)
        return self.project(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class DropPath(nn.Module):
    """Stochastic depth: in training a residual branch is left out for a sample with this probability."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(x.shape[0], 1, 1, device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two linear layers with GELU between."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


class Block(nn.Module):
    """Pre-norm transformer block: attention, MLP of four times the width, residuals, stochastic depth."""

    def __init__(self, dim: int, heads: int = 8, drop_path: float = 0.1) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention, self.mlp = Attention(dim, heads), mlp(dim, 4 * dim, dim)
        self.drop = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        y = self.norm_attention(x)
        x = x + self.drop(self.attention(y, y))
        return x + self.drop(self.mlp(self.norm_mlp(x)))


class LiteralBlock(nn.Module):
    """The printed operator with the residual kept (ledger 15, ``literal_attn``); nothing to learn."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        return x + literal_attention(x)


class Grouping(nn.Module):
    """AVGN's grouping (Mo & Tian, 2023): features are shared out among class tokens (ledger 16).

    The tokens are mixed over the class axis, look at the features once, and then every feature distributes itself over
    the classes: the softmax runs over the groups. A group's row is divided by its sum plus one.
    """

    def __init__(self, dim: int, classes: int, heads: int = 8, hidden: int = 256) -> None:
        super().__init__()
        self.norm_in, self.norm_mixed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mix = mlp(classes, hidden, classes)
        self.look, self.norm_look = Attention(dim, heads), nn.LayerNorm(dim)
        self.look_mlp, self.norm_features = mlp(dim, 4 * dim, dim), nn.LayerNorm(dim)
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.project = nn.Linear(dim, dim)
        self.norm_out, self.mlp = nn.LayerNorm(dim), mlp(dim, 4 * dim, dim)

    def assign(self, tokens: Tensor, features: Tensor) -> Tensor:
        """How much of every feature goes to every class: (B, C, D), (B, P, D) -> (B, C, P), columns sum to 1."""
        scores = self.query(tokens) @ self.key(features).transpose(-2, -1) / tokens.shape[-1] ** 0.5
        return torch.softmax(ops.precise(scores), dim=1)

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """features: (B, P, D), class tokens: (B, C, D) -> one slot per class, (B, C, D)."""
        tokens, features = self.norm_in(tokens), self.norm_features(features)
        tokens = self.norm_mixed(self.mix(tokens.transpose(1, 2)).transpose(1, 2) + tokens)
        tokens = self.norm_look(tokens + self.look(tokens, features))
        tokens = tokens + self.look_mlp(tokens)
        share = self.assign(tokens, features)  # (B, C, P)
        share = (share / (share.sum(-1, keepdim=True) + 1)).to(features.dtype)
        slots = tokens + self.project(share @ self.value(features))
        return slots + self.mlp(self.norm_out(slots))
