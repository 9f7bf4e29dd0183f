"""What encoders, training steps and maps cost, beside plain networks with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import Any

import plain
import pytest
import torch
from measure import Apart, Ledger, judged
from torch import Tensor, nn

from m2vsl.encoders import AudioEncoder, EncoderConfig, VisualEncoder
from m2vsl.localizer import Localizer, evaluating
from m2vsl.methods import METHODS
from m2vsl.presets import PRESETS
from m2vsl.processor import autocast, has_bfloat16, kept_memory, without_denormals
from m2vsl.types import Batch, Truth

BATCH, SIZE, SPECTROGRAM, CLASSES = 16, 224, (257, 300), 37
KIND = "bfloat16" if has_bfloat16() else "float32"
TRUNKS = {
    "ResNet-18": EncoderConfig(visual="resnet18", weights="none", freeze=False, audio_width=64),
    "frozen Lite0": PRESETS["quick"].encoder,
}
GOALS = {"ez_vsl": 2.2, "m2vsl": 1.5}  # times the samples a second of a plain EZ-VSL


def batch(sources: int) -> Batch:
    """Noise, and `sources` classes in each picture."""
    numbers = torch.Generator().manual_seed(0)
    classes = torch.stack([torch.randperm(CLASSES, generator=numbers)[:sources] for _ in range(BATCH)])
    heard = torch.zeros(BATCH, CLASSES).scatter_(1, classes, 1)
    truth = Truth(torch.zeros(BATCH, sources, 1, 1), classes, torch.ones(BATCH, sources, dtype=torch.bool))
    image = torch.randn(BATCH, 3, SIZE, SIZE, generator=numbers)
    spectrogram = torch.randn(BATCH, 1, *SPECTROGRAM, generator=numbers) / 4
    return Batch(image, spectrogram, heard, heard, heard, torch.arange(BATCH), truth)


def last(x: Any) -> Any:
    """A module, or a batch's pictures, in the memory order of training."""
    if isinstance(x, Batch):
        return replace(x, image=x.image.contiguous(memory_format=torch.channels_last))
    return x.to(memory_format=torch.channels_last)


def stepping(module: nn.Module, loss: Callable[[], Tensor], precision: str, fused: bool) -> Callable[[], Tensor]:
    """One update, as the loop of training makes it; gives back the loss."""
    adam = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 1e-4, fused=fused or None)

    def step() -> Tensor:
        with autocast("cpu", precision):
            value = loss()
        value.backward()
        adam.step()
        adam.zero_grad(set_to_none=True)
        return value.detach()

    return step


def made(name: str, encoder: EncoderConfig) -> Localizer:
    """A method, ready to learn, with the weights of seed 0."""
    torch.manual_seed(0)
    return METHODS[name].build(replace(METHODS[name].config, encoder=encoder), CLASSES).train()


CHOICES = {  # what a run chooses, and a step with the other choice
    "without bfloat16": {"precision": "fp32"},
    "in the default layout": {"ordered": False},
    "without fused Adam": {"fused": False},
    "freed memory given back": {"kept": False},
    "compiled": {"compiler": "inductor"},
}


@contextmanager
def step_of(
    name: str,
    trunk: str,
    precision: str = "bf16",
    ordered: bool = True,
    fused: bool = True,
    kept: bool = True,
    compiler: str = "",
) -> Iterator[Callable[[], Tensor]]:
    """A training step of a method as a run makes it, or of the "plain" EZ-VSL as PyTorch alone does."""
    if name == "plain":
        reference, solos = plain.PlainEZVSL(made("ez_vsl", TRUNKS[trunk])).train(), batch(1)
        with without_denormals():
            yield stepping(reference, lambda: reference(solos), "fp32", fused=False)
        return
    ours, mine = made(name, TRUNKS[trunk]), batch(1 if name == "ez_vsl" else 2)
    if ordered:
        ours, mine = last(ours), last(mine)
    if compiler:
        ours.compile(backend=compiler)
    with without_denormals(), kept_memory() if kept else nullcontext():
        yield stepping(ours, lambda: torch.stack(list(ours(mine).values())).sum(), precision, fused)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_training_steps(ledger: Ledger, trunk: str) -> None:
    """Ours, each beside the same plain EZ-VSL, a process each: 16 pictures of 224 px."""
    names = ("ez_vsl", "m2vsl", *(("m2vsl_plus",) if TRUNKS[trunk].freeze else ()))
    titles = {name: f"{METHODS[name].title} step, {trunk}" for name in names}
    races = ledger.race(
        "step",
        {title: Apart(step_of, name, trunk) for name, title in titles.items()},
        Apart(step_of, "plain", trunk),
        against="a plain EZ-VSL step",
        samples=BATCH,
        rounds=7,
        goals={titles[name]: goal for name, goal in GOALS.items()},
        kind=KIND,
    )
    for race in races:
        if race.line.reached is not None:
            judged(race.line.ratio[1], race.line.goal)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_what_each_choice_is_worth(ledger: Ledger, trunk: str) -> None:
    """A step of EZ-VSL with the other choice beside the one that a run makes; none is much faster."""
    others = {f"EZ-VSL step {title}, {trunk}": other for title, other in CHOICES.items()}
    races = ledger.race(
        "choices",
        {title: Apart(step_of, "ez_vsl", trunk, **other) for title, other in others.items()},
        Apart(step_of, "ez_vsl", trunk),
        against="a step as a run makes it",
        samples=BATCH,
        kind=KIND,
        counts=False,
    )
    for race in races:
        judged(1 / race.line.ratio[1], 0.95)


def test_a_plain_step_has_the_same_loss() -> None:
    ours = made("ez_vsl", TRUNKS["frozen Lite0"])
    reference, solos = plain.PlainEZVSL(ours).train(), batch(1)
    torch.testing.assert_close(ours(solos)["contrast"], reference(solos), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("which", ["ResNet-18", "frozen Lite0", "sound"])
def test_encoders(ledger: Ledger, which: str) -> None:
    """Forward, and backward where it learns."""
    torch.manual_seed(0)
    given, frozen = batch(1), which == "frozen Lite0"
    if which == "sound":
        ours: nn.Module = AudioEncoder(TRUNKS["ResNet-18"]).train()
        reference, taken, same = deepcopy(ours), given.spectrogram, given.spectrogram
    else:
        ours = VisualEncoder(TRUNKS[which]).train()
        reference, taken, same = plain.Trunk(ours).train(), last(given).image, given.image
    ours = last(ours)

    def look(module: nn.Module, x: Tensor, precision: str) -> None:
        with autocast("cpu", precision):
            found = module(x)
        if not frozen:
            sum(stage.float().square().mean() for stage in (found if isinstance(found, tuple) else [found])).backward()

    ledger.race(
        "encoders",
        {f"{which}, forward{'' if frozen else ' and backward'}": lambda: look(ours, taken, "bf16")},
        lambda: look(reference, same, "fp32"),
        against="float32, default layout, unfused",
        samples=BATCH,
        kind=KIND,
        rounds=3,
    )


@pytest.mark.parametrize("name", ["ez_vsl", "m2vsl"])
def test_localise(ledger: Ledger, name: str) -> None:
    """Maps of one batch, beside one picture after the other."""
    ours, given = made(name, TRUNKS["frozen Lite0"]).eval(), batch(1)
    reference = {"ez_vsl": plain.PlainEZVSL, "m2vsl": plain.PlainM2VSL}[name](ours).eval()
    torch.testing.assert_close(ours.localize(given).heat, reference.localize(given), rtol=0, atol=1e-3)
    ours, mine = last(ours), last(given)
    with evaluating(ours):
        ledger.race(
            "localise",
            {f"{METHODS[name].title} maps": lambda: ours.localize(mine)},
            lambda: reference.localize(given),
            against="one picture at a time",
            samples=BATCH,
        )
