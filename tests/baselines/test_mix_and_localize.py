"""Mix-and-Localize: the walk from sounds to pictures and back, and the names that solos give to its heads."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from scenes import CLASSES, TINY, Pixels, batch_of
from torch import Tensor
from torch.nn import functional as F

from m2vsl.baselines.mix_and_localize import MixAndLocalize, MixAndLocalizeConfig
from m2vsl.types import Batch


def method_of(**choices: object) -> MixAndLocalize:
    torch.manual_seed(0)
    return MixAndLocalize(MixAndLocalizeConfig(**{"encoder": TINY, "dim": 16, **choices}), CLASSES)


def walks(method: MixAndLocalize, batch: Batch) -> dict[str, list[Tensor]]:
    """Minus ln of the diagonals of the return matrices, group by group (protocol 3.4)."""
    k, tau, out = method.config.heads, method.config.temperature, {"sounds": [], "pictures": []}
    groups, half = len(batch) // k, batch.spectrogram.shape[-1] // 2
    cells = F.normalize(method.project(method.visual(batch.image)[-1]), dim=1)
    for g in range(groups):
        members = [g + i * groups for i in range(k)]
        mixed = torch.stack([batch.spectrogram[m] for m in members]).amax(0)[None]
        heard = []
        for start in (0, half):
            sound = method.audio(mixed[..., start : start + half])
            heard.append([F.normalize(head(sound), dim=-1)[0] for head in method.heads])

        def peak(m: int, a: Tensor) -> Tensor:
            return torch.stack([cell @ a for cell in cells[m].flatten(1).T]).max() / tau

        to_picture = [torch.stack([torch.stack([peak(m, a) for m in members]).softmax(0) for a in h]) for h in heard]
        to_head = torch.stack([torch.stack([peak(m, a) for a in heard[0]]).softmax(0) for m in members])
        out["sounds"] += [-p.log() for p in (to_picture[1] @ to_head).diagonal()]
        out["pictures"] += [-p.log() for p in (to_head @ to_picture[0]).diagonal()]
    return out


@pytest.mark.parametrize(("heads", "samples"), [(2, 4), (3, 6)])
def test_the_walk_comes_back_to_the_head_that_it_started_from(heads: int, samples: int) -> None:
    method, batch = method_of(heads=heads, cycles="both").eval(), batch_of(samples, frames=1)
    with torch.no_grad():
        found, expected = method(batch), walks(method, batch)
    assert found.keys() == {"sounds", "pictures"}
    for name, values in expected.items():
        torch.testing.assert_close(found[name], torch.stack(values).mean(), rtol=1e-4, atol=1e-5)
    alone = method_of(heads=heads).eval()(batch)
    assert alone.keys() == {"sounds"}
    torch.testing.assert_close(alone["sounds"].detach(), found["sounds"])


def test_heads_that_hear_the_same_come_back_by_chance() -> None:
    method = method_of(cycles="both").eval()
    method.heads[1].load_state_dict(method.heads[0].state_dict())
    losses = method(batch_of(frames=1))
    torch.testing.assert_close(losses["sounds"], torch.tensor(math.log(2)))


def test_pictures_that_look_the_same_come_back_by_chance() -> None:
    method, batch = method_of(cycles="both").eval(), batch_of(frames=1)
    same = replace(batch, image=batch.image[:1].expand(4, -1, -1, -1))
    torch.testing.assert_close(method(same)["pictures"], torch.tensor(math.log(2)))


def test_what_a_walk_reads() -> None:
    """Groups i and i + B / 2, both halves in time, and of an odd number of frames all but the last."""
    method, batch = method_of().eval(), batch_of(frames=1)
    with torch.no_grad():
        whole = method(batch)["sounds"]
        rows = torch.tensor([1, 0, 3, 2])  # groups change places, and their members stay together
        moved = replace(batch, image=batch.image[rows], spectrogram=batch.spectrogram[rows])
        torch.testing.assert_close(method(moved)["sounds"], whole)
        rows = torch.tensor([1, 0, 2, 3])
        torn = replace(batch, image=batch.image[rows], spectrogram=batch.spectrogram[rows])
        assert abs(method(torn)["sounds"] - whole) > 1e-4
        longer = replace(batch, spectrogram=F.pad(batch.spectrogram, (0, 1), value=9.0))
        torch.testing.assert_close(method(longer)["sounds"], whole)
        for place in (0, -1):
            sounds = batch.spectrogram.clone()
            sounds[..., place] = 9.0
            assert abs(method(replace(batch, spectrogram=sounds))["sounds"] - whole) > 1e-4


def test_each_head_has_its_own_map_and_classes_take_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constructed embeddings: head 0 hears class 3, head 1 hears class 1, each by its own mean; 4 was never met."""
    named, plain, batch = method_of().eval(), method_of(named_by="none").eval(), batch_of()
    basis = torch.eye(16)
    with torch.no_grad():
        named.means.zero_()
        for c in range(4):
            named.means[0, c], named.means[1, c] = 0.3 * basis[c], 2 * basis[8 + c]
    heard = torch.stack([basis[3], basis[9]]).expand(4, -1, -1)
    for method in (named, plain):
        monkeypatch.setattr(method, "hear", lambda spectrogram: heard)
    maps, raw = named.localize(batch), plain.localize(batch)
    assert raw.classes.tolist() == [-1, -1] and raw.presence is None
    with torch.no_grad():
        cells = F.normalize(plain.project(plain.visual(batch.image)[-1]), dim=1)
    for k, channel in enumerate((3, 9)):
        coarse = F.interpolate(cells[:, channel : channel + 1], (64, 128), mode="bilinear", align_corners=True)
        torch.testing.assert_close(raw.heat[:, k], coarse[:, 0])
    assert maps.classes.tolist() == list(range(CLASSES)) and maps.presence is not None
    torch.testing.assert_close(maps.heat[:, 3], raw.heat[:, 0])
    torch.testing.assert_close(maps.heat[:, 1], raw.heat[:, 1])
    torch.testing.assert_close(maps.presence, torch.tensor([[0.5, 1.0, 0.5, 1.0, 0.0]]).expand(4, -1))


def test_a_class_goes_to_the_nearer_of_two_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = method_of().eval(), batch_of()
    basis = torch.eye(16)
    with torch.no_grad():
        method.means[:] = basis[0]
    heard = torch.stack([F.normalize(basis[0] + basis[1], dim=0), F.normalize(3 * basis[0] - basis[1], dim=0)])
    for order in ([0, 1], [1, 0]):
        monkeypatch.setattr(method, "hear", lambda spectrogram, order=order: heard[order].expand(4, -1, -1))
        head, presence = method._name(method.hear(batch.spectrogram))
        assert (head == order.index(1)).all()
        torch.testing.assert_close(presence, torch.full((4, CLASSES), (1 + 3 / math.sqrt(10)) / 2))


def test_class_means_are_a_running_mean_of_the_solos_of_a_class() -> None:
    method, batch = method_of(momentum=0.6).train(), batch_of(6, frames=1)  # class 0 twice
    expected = torch.zeros_like(method.means)
    for seed in range(3):
        step = batch_of(6, frames=1, seed=seed)
        kept = [0, 1, 2, 5] if seed == 1 else [0, 1, 2, 3, 4, 5]  # in the second batch classes 3 and 4 are missing
        step = replace(step, image=step.image[kept], spectrogram=step.spectrogram[kept], heard=step.heard[kept])
        method(step)
        with torch.no_grad():
            heard = copy.deepcopy(method).eval().hear(step.spectrogram)
        for c in range(CLASSES):
            mine = [b for b, i in enumerate(kept) if int(batch.truth.classes[i, 0]) == c]
            if mine:
                expected[:, c] = 0.6 * expected[:, c] + 0.4 * sum(heard[b] for b in mine) / len(mine)
    torch.testing.assert_close(method.means, expected)
    assert expected.any(-1).all()


def test_evaluation_leaves_the_means_and_naming_leaves_training_as_they_were() -> None:
    named, plain, batch = method_of().train(), method_of(named_by="none").train(), batch_of(frames=1)
    before = copy.deepcopy(named.state_dict())
    named.eval()(batch)
    named.localize(batch_of())
    assert all(torch.equal(value, before[key]) for key, value in named.state_dict().items())
    one, two = named.train()(batch)["sounds"], plain(batch)["sounds"]
    assert torch.equal(one, two) and named.audio.training
    assert "means" not in plain.state_dict()
    state = named.state_dict()
    assert not torch.equal(state["means"], before["means"])
    assert all(torch.equal(value, state[key]) for key, value in plain.state_dict().items())


def test_labels_name_the_heads_and_teach_nothing() -> None:
    one, two, batch = method_of().train(), method_of().train(), batch_of(frames=1)
    other = replace(batch, heard=batch.heard.roll(1, 1), seen=batch.seen.roll(1, 1), labels=batch.labels.roll(1, 1))
    assert torch.equal(one(batch)["sounds"], two(other)["sounds"])
    torch.testing.assert_close(two.means, one.means.roll(1, 1))
    assert "labels" not in MixAndLocalize.wants


def test_a_fresh_method_knows_no_class() -> None:
    maps = method_of().eval().localize(batch_of())
    assert maps.presence is not None and not maps.presence.any()


def test_nothing_depends_on_where_a_cell_lies() -> None:
    method, batch = method_of(named_by="none").eval(), batch_of(size=8)
    method.visual = Pixels(method.visual.channels[-1])
    maps = method.localize(batch).heat
    torch.testing.assert_close(method.localize(replace(batch, image=batch.image.roll(8, -1))).heat, maps.roll(8, -1))
    assert not torch.allclose(maps.roll(8, -1), maps, atol=0.05)


def test_heads_are_sources_and_each_has_weights_of_its_own() -> None:
    method = method_of(heads=3)
    assert method.sources == 3 and len(method.heads) == 3
    for one, other in pairwise(method.heads):
        assert not torch.equal(one[0].weight, other[0].weight)
    assert method_of(last_stride=2).see(batch_of().image).shape == (4, 16, 2, 4)
    assert method_of().see(batch_of().image).shape == (4, 16, 4, 8)


def test_what_cannot_be_walked_is_refused_by_name() -> None:
    for samples in (1, 3):
        with pytest.raises(ValueError, match=rf"MixAndLocalize: expected a multiple of 2 samples.*got {samples}"):
            method_of()(batch_of(samples, frames=1))
    with pytest.raises(ValueError, match=r"MixAndLocalize: expected a multiple of 3 samples.*got 4"):
        method_of(heads=3)(batch_of(4, frames=1))
    with pytest.raises(ValueError, match=r"MixAndLocalize learns from solos"):
        method_of()(batch_of(frames=2))
    for wrong in ({"cycles": "pictures"}, {"named_by": "labels"}, {"heads": 1}, {"momentum": 1.0}):
        with pytest.raises(ValueError, match=rf"{next(iter(wrong))}: expected .*, got"):
            MixAndLocalizeConfig(**wrong)
