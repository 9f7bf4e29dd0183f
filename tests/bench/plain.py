"""Plain references of our own, from the published definitions: float32, default layout, dense forms or one by one.

They borrow the weights of ours, so that both sides must come to the same numbers, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2vsl.baselines.ez_vsl import EZVSL
from m2vsl.encoders import ConvNorm, VisualEncoder
from m2vsl.model import M2VSL
from m2vsl.types import Batch


def contrast(pyramid: Sequence[Tensor], sounds: Tensor, temperature: float) -> Tensor:
    """Eqs. 2 to 4 as printed: all maps (B, N, h, w) of a scale at once, their maximum, both cross-entropies."""
    total, own = torch.zeros(()), torch.arange(len(sounds))
    for stage in pyramid:
        maps = torch.einsum("bdhw,nd->bnhw", F.normalize(stage, dim=1), F.normalize(sounds, dim=1))
        logits = maps.amax((2, 3)) / temperature
        total = total + F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)
    return total


def unfused(module: nn.Module) -> nn.Module:
    """A copy whose normalisations stand apart from their convolutions."""
    copy = deepcopy(module)
    for parent in list(copy.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ConvNorm):
                setattr(parent, name, nn.Sequential(*child))
    return copy


class Trunk(nn.Module):
    """A visual encoder layer by layer."""

    def __init__(self, ours: VisualEncoder) -> None:
        super().__init__()
        self.trunk, self.frozen = unfused(ours.trunk), ours.frozen

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        if not self.frozen:
            return self.trunk(image)
        with torch.no_grad():
            return self.trunk.eval()(image)


class PlainEZVSL(nn.Module):
    """EZ-VSL (Mo & Morgado, 2022): two trunks, two projections, every cell with every sound."""

    def __init__(self, ours: EZVSL) -> None:
        super().__init__()
        self.picture, self.sound = Trunk(ours.visual), unfused(ours.audio)
        self.project, self.project_audio = deepcopy(ours.project), deepcopy(ours.project_audio)

    def forward(self, batch: Batch) -> Tensor:
        """The loss."""
        cells = self.project(self.picture(batch.image)[-1])
        return contrast([cells], self.project_audio(self.sound(batch.spectrogram)), 0.03)

    @torch.no_grad()
    def localize(self, batch: Batch) -> Tensor:
        """Maps (B, 1, H, W), one picture at a time as the published test has it."""
        maps = []
        for image, spectrogram in zip(batch.image, batch.spectrogram, strict=True):
            cells = F.normalize(self.project(self.picture(image[None])[-1]), dim=1)
            sound = F.normalize(self.project_audio(self.sound(spectrogram[None])), dim=1)
            heat = torch.einsum("bdhw,bd->bhw", cells, sound)[:, None]
            maps.append(F.interpolate(heat, image.shape[-2:], mode="bilinear", align_corners=True))
        return torch.cat(maps)


class PlainM2VSL(nn.Module):
    """M2VSL's maps, one picture at a time."""

    def __init__(self, ours: M2VSL) -> None:
        super().__init__()
        self.picture, self.sound, self.mmt = Trunk(ours.visual), unfused(ours.audio), deepcopy(ours.mmt)
        self.project, self.project_audio = deepcopy(ours.project), deepcopy(ours.project_audio)

    @torch.no_grad()
    def localize(self, batch: Batch) -> Tensor:
        """Maps (B, C, H, W): the mean over scales of the cosine of every cell with every class slot."""
        maps = []
        for image, spectrogram in zip(batch.image, batch.spectrogram, strict=True):
            pyramid = [conv(stage) for conv, stage in zip(self.project, self.picture(image[None]), strict=True)]
            slots = self.mmt(pyramid, self.project_audio(self.sound(spectrogram[None]))).audio  # (1, C, D)
            heat = []
            for stage in pyramid:
                cosine = torch.einsum("bdhw,bcd->bchw", F.normalize(stage, dim=1), F.normalize(slots, dim=2))
                heat.append(F.interpolate(cosine, image.shape[-2:], mode="bilinear", align_corners=True))
            maps.append(sum(heat) / len(heat))
        return torch.cat(maps)


class PlainFolder:
    """Photographs and recordings as EZ-VSL's data set reads them: each file anew, each sample alone."""

    def __init__(self, photos: Sequence[Path], sounds: Sequence[Path], size: int) -> None:
        from torchvision import transforms

        self.photos, self.sounds = photos, sounds
        self.transform = transforms.Compose([
            transforms.Resize(int(size * 1.1), transforms.InterpolationMode.BICUBIC),
            transforms.RandomCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ])  # fmt: skip

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        import soundfile
        from PIL import Image
        from scipy.signal import spectrogram

        image = self.transform(Image.open(self.photos[index]).convert("RGB"))
        wave, rate = soundfile.read(self.sounds[index], dtype="float32")
        wave = np.tile(wave, 1 + 3 * rate // len(wave))[: 3 * rate].clip(-1, 1)
        power = spectrogram(wave, rate, nperseg=512, noverlap=512 - 220)[2]
        return image, torch.from_numpy(np.log(power + 1e-7) / 12)[None]

    def epoch(self, batch: int) -> list[tuple[Tensor, Tensor]]:
        """All of them, in batches."""
        made = [self[i] for i in range(len(self.photos))]
        parts = [made[i : i + batch] for i in range(0, len(made), batch)]
        return [(torch.stack([x for x, _ in part]), torch.stack([y for _, y in part])) for part in parts]


def area_iou(heat: np.ndarray, truth: np.ndarray) -> list[float]:
    """The published evaluation, picture by picture: normalise, sort, threshold, count."""
    values = []
    for h, g in zip(heat, truth, strict=True):
        h = (h - h.min()) / (h.max() - h.min())
        threshold = np.sort(h.flatten())[int(h.size * 0.5)]
        predicted = np.zeros(h.shape)
        predicted[h >= threshold] = 1
        values.append(np.sum(predicted * g) / (np.sum(g) + np.sum(predicted * (g == 0))))
    return values


def f_curves(probability: np.ndarray, truth: np.ndarray, thresholds: int) -> list[list[float]]:
    """F of each frame, threshold by threshold."""
    curves = []
    for p, g in zip(probability, truth, strict=True):
        curve = []
        for threshold in np.linspace(0, 1, thresholds, dtype=np.float32):
            predicted = p >= threshold
            shared = np.count_nonzero(predicted & g)
            precision, recall = shared / (np.count_nonzero(predicted) + 1e-20), shared / (np.count_nonzero(g) + 1e-20)
            curve.append(1.3 * precision * recall / (0.3 * precision + recall) if shared else 0.0)
        curves.append(curve)
    return curves
