"""A method, its data and a training run that cost nothing; each part keeps some state that resuming must bring back."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from m2vsl.localizer import Localizer, Stage
from m2vsl.training.config import TrainConfig
from m2vsl.training.loop import train
from m2vsl.training.progress import History
from m2vsl.types import Batch, Losses, Maps, Truth

PER_EPOCH = 5  # batches


class Tiny(Localizer):
    """Convolution, batch norm and dropout: weights, buffers and draws."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(4, 1, 1))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.seen_modes: set[bool] = set()

    def forward(self, batch: Batch) -> Losses:
        self.seen_modes.add(self.training)
        map_ = self.net(batch.image).float()
        noise = float(np.random.rand() + random.random())  # draws outside of torch
        return {"fit": (map_.mean((1, 2, 3)) - batch.heard[:, 0]).square().mean(), "spread": 0.01 * noise * map_.std()}

    @torch.no_grad()
    def localize(self, batch: Batch) -> Maps:
        return Maps(self.net(batch.image), torch.tensor([-1]))


class TwoStages(Tiny):
    """Its second stage draws, looks at the weights, keeps something outside of its state, and freezes a part."""

    stages = (Stage("one", 1), Stage("two", 2))

    def __init__(self) -> None:
        super().__init__()
        self.entered: list[str] = []
        self.target = 0.0

    def enter(self, stage: Stage, loader: Iterable[Batch]) -> None:
        self.entered.append(stage.name)
        if stage.name == "two":
            with torch.no_grad():
                self.eval()
                self.target = float(sum(self.net(b.image).mean() for b in loader) + torch.rand(()))
            self.net[0].requires_grad_(False)

    def forward(self, batch: Batch) -> Losses:
        losses = dict(super().forward(batch))
        return {**losses, "target": 0.1 * (self.net(batch.image).float().mean() - self.target).square()}


def batches_from(epoch: int, start: int) -> Iterator[Batch]:
    """Fresh batches of 4 in an order of their own for each epoch; a little noise is drawn carelessly, globally."""
    order = torch.randperm(PER_EPOCH, generator=torch.Generator().manual_seed(epoch)).tolist()
    for index in order[start:]:
        drawn = torch.Generator().manual_seed(1000 * epoch + index)
        image = torch.randn(4, 3, 8, 8, generator=drawn) + 0.01 * torch.rand(())
        yield batch_of(image, tuple(f"{epoch}-{index}-{k}" for k in range(4)))


def batch_of(image: Tensor, keys: tuple[str, ...] = ()) -> Batch:
    size, _, height, width = image.shape
    heard = image.mean((1, 2, 3)).sign().relu()[:, None]
    truth = Truth(torch.zeros(size, 1, height, width), torch.zeros(size, 1).long(), torch.ones(size, 1).bool())
    return Batch(image, torch.zeros(size, 1, 2, 2), heard, heard, heard, torch.arange(size), truth, keys)


def config(**changes: object) -> TrainConfig:
    return TrainConfig(**{"steps": 12, "batch_size": 4, "lr": 1e-2, "log_every": 4, "checkpoint_every": 5, **changes})


def run(folder: Path, source=batches_from, method=Tiny, **options: object) -> tuple[Tiny, History]:
    """A method of fresh weights, trained in `folder`."""
    localizer = method()
    chosen = options.pop("config", config())
    return localizer, train(localizer, source, chosen, folder, **{"progress": False, **options})


def same(a: nn.Module, b: nn.Module) -> bool:
    """Bit-identical weights and buffers."""
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)
