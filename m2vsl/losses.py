r"""The contrastive losses of the paper (sections 3.1 and 3.2) and the class losses that it leaves open.

A *bag* is a picture: many locations, of which at least one should agree with the sound. Everything here reads *scores*
(B, N): how well the best location of picture b agrees with sound n, a cosine in [-1, 1] (`m2vsl.ops.peak_cosine`).
`owner` (N,) names the picture that sound n belongs to. A picture with several sounds owns several columns; each is
contrasted separately, and the others of the same picture are left out of its denominator. Losses are in nats, averaged
over the sounds, computed in float32: at a temperature of 0.03 the logits reach 33.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from m2vsl import ops


def bag_contrastive(scores: Tensor, owner: Tensor, temperature: float, excluded: Tensor | None = None) -> Tensor:
    r"""Multiple-instance contrast of EZ-VSL (Mo & Morgado, 2022), Eq. (1).

    .. math:: \mathcal L_{mc} = -\log
              \frac{\exp(\mathrm{sim}(A, V) / \tau)}{\sum_{k=1}^B \exp(\mathrm{sim}(A, V_k) / \tau)}

    A sound must find its picture among the B of the batch. As printed the loss looks one way; EZ-VSL's code adds the
    other (`visual_to_audio`), and so does `mmc`: ledger 8.

    scores: (B, N) bag scores; owner: (N,) int64; temperature: tau, dimensionless; excluded: (B, N) bool, pairs that are
    neither positive nor negative. Returns a scalar.
    """
    logits = _logits(scores, temperature, excluded)
    return F.cross_entropy(logits.T, owner)


def audio_to_visual(
    scores: Sequence[Tensor], owner: Tensor, temperature: float, excluded: Tensor | None = None
) -> Tensor:
    r"""Every sound finds its picture at every scale, Eq. (2).

    .. math:: \mathcal L_{a \to v} = -\sum_{s=1}^S \log
              \frac{\exp(\mathrm{sim}(A, V^s) / \tau)}{\sum_{k=1}^B \exp(\mathrm{sim}(A, V_k^s) / \tau)}

    scores: S tensors (B, N). The rest as `bag_contrastive`, of which this is the sum over scales.
    """
    return torch.stack([bag_contrastive(s, owner, temperature, excluded) for s in scores]).sum()


def visual_to_audio(
    scores: Sequence[Tensor], owner: Tensor, temperature: float, excluded: Tensor | None = None
) -> Tensor:
    r"""Every picture finds its sound at every scale, Eq. (3).

    .. math:: \mathcal L_{v \to a} = -\sum_{s=1}^S \log
              \frac{\exp(\mathrm{sim}(A, V^s) / \tau)}{\sum_{k=1}^B \exp(\mathrm{sim}(A_k, V^s) / \tau)}

    scores: S tensors (B, N). The rest as `bag_contrastive`.
    """
    n = torch.arange(len(owner), device=owner.device)
    sibling = (owner[:, None] == owner[None, :]) & (n[:, None] != n[None, :])  # (N, N): other sounds of one picture
    total = scores[0].new_zeros((), dtype=torch.float32)
    for s in scores:
        rows = _logits(s, temperature, excluded)[owner]  # (N, N): the picture of sound n against all sounds
        total = total + F.cross_entropy(rows.masked_fill(sibling, -torch.inf), n)
    return total


def mmc(scores: Sequence[Tensor], owner: Tensor, temperature: float, excluded: Tensor | None = None) -> Tensor:
    r"""Multi-scale multiple-instance contrast, both ways, Eq. (4).

    .. math:: \mathcal L_{mmc} = \mathcal L_{a \to v} + \mathcal L_{v \to a}

    The printed minus sign stands before the first of two sums only, so that the second would be maximised; it covers
    both here (ledger 7). Scales are summed with weight 1 (ledger 10). With one scale this is EZ-VSL's loss.
    """
    both = (owner, temperature, excluded)
    return audio_to_visual(scores, *both) + visual_to_audio(scores, *both)


def token_identity(logits: Tensor) -> Tensor:
    """Class token c must be recognised as class c (AVGN; ledger 12). logits: (C, C). Returns a scalar in nats."""
    return F.cross_entropy(ops.precise(logits), torch.arange(logits.shape[0], device=logits.device))


def presence(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Binary cross-entropy of "class c is present" (AVGN; ledger 12), averaged over the batch.

    logits, labels: (B, C). reduction over the classes: "mean" as AVGN, or "sum", ours: the mean over B x C starves the
    class heads when few of many classes are present. Returns a scalar in nats.
    """
    loss = F.binary_cross_entropy_with_logits(ops.precise(logits), ops.precise(labels), reduction="none")
    return loss.mean() if reduction == "mean" else loss.sum(-1).mean()


def _logits(scores: Tensor, temperature: float, excluded: Tensor | None) -> Tensor:
    logits = ops.precise(scores) / temperature
    return logits if excluded is None else logits.masked_fill(excluded, -torch.inf)
