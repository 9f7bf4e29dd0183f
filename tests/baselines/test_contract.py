"""What every method in `METHODS` keeps to, whatever it is."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from scenes import CLASSES, TINY, batch_of
from torch import Tensor

from m2vsl.baselines.controls import ObjectArea, Oracle
from m2vsl.localizer import Localizer
from m2vsl.methods import CONTROLS, METHODS
from m2vsl.training import checkpoint
from m2vsl.types import Batch, Truth

LEARNERS = [name for name in METHODS if name not in CONTROLS]
ORACLES = [
    name for name, method in METHODS.items() if method.build in (Oracle, ObjectArea)
]  # the only ones that read the truth
UNMOVED = {  # attention over the one token of the sound has nothing to choose; a head reads tokens that begin at zero
    "mmt.group.audio.look.query.weight",
    "group.audio.look.query.weight",
    "token_head.weight",
}


def fresh(name: str) -> Localizer:
    """A method as METHODS has it, its encoders tiny."""
    method, config = METHODS[name], METHODS[name].config
    torch.manual_seed(0)
    return method.build(replace(config, encoder=TINY) if hasattr(config, "encoder") else config, CLASSES)


@cache
def ready(name: str) -> Localizer:
    """The same in evaluation mode, for tests that change nothing."""
    return fresh(name).eval()


def at(batch: Batch, rows: Tensor) -> Batch:
    """The given samples of a batch, in that order."""
    truth = Truth(batch.truth.mask[rows], batch.truth.classes[rows], batch.truth.present[rows])
    tensors = {f: getattr(batch, f)[rows] for f in ("image", "spectrogram", "heard", "seen", "labels", "mixture")}
    return Batch(**tensors, truth=truth, keys=tuple(batch.keys[i] for i in rows))


@pytest.mark.parametrize("name", [name for name in LEARNERS if METHODS[name].solos])
def test_who_learns_from_solos_refuses_mixtures_by_name(name: str) -> None:
    method = fresh(name).train()
    with pytest.raises(ValueError, match=rf"{type(method).__name__} learns from solos.*got 2 in 0-0"):
        method(batch_of(frames=2))


@pytest.mark.parametrize("frames", [1, 2], ids=["single", "duet"])
@pytest.mark.parametrize("name", LEARNERS)
def test_losses_are_finite_and_every_parameter_learns(name: str, frames: int) -> None:
    if frames == 2 and METHODS[name].solos:
        pytest.skip("learns from solos alone")
    method = fresh(name).train()
    losses = method(batch_of(frames=frames))
    assert losses and all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    learning = {key: p.grad for key, p in method.named_parameters() if p.requires_grad}
    assert [key for key, grad in learning.items() if grad is None or not torch.isfinite(grad).all()] == []
    assert {key for key, grad in learning.items() if grad.ndim > 1 and not grad.any()} <= UNMOVED


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_learn_nothing_and_hear_nothing(name: str) -> None:
    assert dict(ready(name)(batch_of())) == {} and not list(ready(name).parameters())
    assert not METHODS[name].build.listens and not METHODS[name].build.wants


@pytest.mark.parametrize("frames", [1, 2], ids=["single", "duet"])
@pytest.mark.parametrize("name", METHODS)
def test_maps_have_the_size_of_the_picture_and_no_gradient(name: str, frames: int) -> None:
    batch = batch_of(frames=frames)
    maps = ready(name).localize(batch)
    assert maps.heat.shape == (4, len(maps.classes), *batch.image.shape[-2:])
    assert torch.isfinite(maps.heat).all() and not maps.heat.requires_grad
    assert maps.classes.dtype == torch.int64 and set(maps.classes.tolist()) in ({-1}, set(range(CLASSES)))
    if maps.presence is not None:
        assert maps.presence.shape == maps.heat.shape[:2] and 0 <= maps.presence.min() <= maps.presence.max() <= 1


@pytest.mark.parametrize("name", METHODS)
def test_a_permuted_batch_gives_permuted_maps(name: str) -> None:
    order, batch = torch.tensor([2, 0, 3, 1]), batch_of()
    maps, permuted = ready(name).localize(batch), ready(name).localize(at(batch, order))
    torch.testing.assert_close(permuted.heat, maps.heat[order], rtol=1e-4, atol=1e-5)
    if maps.presence is not None and permuted.presence is not None:
        torch.testing.assert_close(permuted.presence, maps.presence[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_localize_reads_no_labels(name: str) -> None:
    batch, other = batch_of(), batch_of(seed=9)
    wrong = {field: 1 - getattr(batch, field) for field in ("heard", "seen", "labels")}
    scrambled = replace(batch, **wrong, mixture=other.mixture.flip(0))
    mask, classes = torch.rand_like(batch.truth.mask).round(), batch.truth.classes.flip(0)
    scrambled = replace(scrambled, truth=Truth(mask, classes, ~batch.truth.present))
    same = torch.equal(ready(name).localize(batch).heat, ready(name).localize(scrambled).heat)
    assert same != (name in ORACLES)


@pytest.mark.parametrize("name", METHODS)
def test_the_map_changes_with_the_sound_where_a_method_listens(name: str) -> None:
    batch = batch_of()
    swapped = replace(batch, spectrogram=batch.spectrogram.flip(0))
    change = (ready(name).localize(batch).heat - ready(name).localize(swapped).heat).abs().amax((1, 2, 3))
    some = name == "dmc"  # a sound picks one of a picture's centres, and two sounds may pick the same
    assert bool((change > 1e-4).any() if some else (change > 1e-4).all()) == ready(name).listens
    assert ready(name).listens or not change.any()


@pytest.mark.parametrize("name", METHODS)
def test_localize_leaves_the_method_as_it_was(name: str) -> None:
    before = {key: value.clone() for key, value in ready(name).state_dict().items()}
    first, second = (ready(name).localize(batch_of()).heat for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[key]) for key, value in ready(name).state_dict().items())


@pytest.mark.parametrize("name", LEARNERS)
def test_state_survives_saving_and_loading(name: str, tmp_path: Path) -> None:
    method, batch = fresh(name), batch_of()
    method.train()(batch_of(frames=1) if METHODS[name].solos else batch)  # moves the statistics of batch normalisation
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    checkpoint.save(tmp_path / "kept", method.state_dict(), {})
    other = fresh(name)
    other.load_state_dict(checkpoint.load(tmp_path / "kept").weights)
    expected = method.eval().localize(batch).heat
    assert torch.equal(other.eval().localize(batch).heat, expected)
    assert not torch.equal(ready(name).localize(batch).heat, expected)


def test_titles_and_names_tell_methods_apart() -> None:
    titles = [method.title for method in METHODS.values()]
    assert len(set(titles)) == len(titles)
    assert all("ours" in METHODS[name].title for name in METHODS if name.endswith("plus"))
    assert set(CONTROLS) <= set(METHODS)
