"""Silence, noise and off-screen sound: what takes the place of a sound, and what the deaf and the listening score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from scenes import CLASSES, TINY, batch_of
from torch import Tensor

from m2vsl.audio import AudioConfig, log_spectrogram
from m2vsl.hearing import NOISE_RMS, SOUNDS, hearing, noisy, off_screen, silent
from m2vsl.localizer import Localizer
from m2vsl.methods import METHODS
from m2vsl.metrics import listening
from m2vsl.types import Batch, Losses, Maps, Truth

AUDIO = AudioConfig(rate=1508, seconds=1.0, n_fft=128, hop_samples=20, pad_to=0)  # (65, 70), as in scenes
FLOOR = -16.118 / 12  # of silence
SCORES = ("remaining", "quieter", "separability")
SIDE = 8


class Fixed(Localizer):
    """Answers with what `answer` makes of a batch."""

    def __init__(self, answer: Callable[[Batch], Maps]) -> None:
        super().__init__()
        self.answer, self.modes = answer, list[tuple[bool, bool]]()

    def forward(self, batch: Batch) -> Losses:
        return {}

    def localize(self, batch: Batch) -> Maps:
        self.modes.append((self.training, torch.is_grad_enabled()))
        return self.answer(batch)


def scene(count: int = 6, seed: int = 0, classes: Tensor | None = None) -> Batch:
    """Pictures of two frames, object s in frame s, both sound: frequency bin c of the spectrogram is 1 if class c does.

    What is seen of class c lies in the picture, too: its mask, in the colour 1 + c.
    """
    drawn = torch.Generator().manual_seed(seed)
    if classes is None:
        classes = torch.stack([torch.randperm(CLASSES, generator=drawn)[:2] for _ in range(count)])
    mask = torch.zeros(count, 2, SIDE, 2 * SIDE)
    mask[:, 0, 2:5, 1:5], mask[:, 1, 1:6, SIDE + 2 : SIDE + 6] = 1, 1
    image = torch.rand(count, 3, SIDE, 2 * SIDE, generator=drawn) / 2
    image[:, 0] += (mask * (1 + classes)[..., None, None]).sum(1)
    heard = torch.zeros(count, CLASSES).scatter_(1, classes, 1)
    spectrogram = torch.full((count, 1, 65, 70), FLOOR)
    spectrogram[:, 0, :CLASSES] += (1 - FLOOR) * heard[..., None]
    truth = Truth(mask, classes, torch.ones(count, 2, dtype=torch.bool))
    keys = tuple(str(i) for i in range(count))
    return Batch(image, spectrogram, heard, heard.clone(), heard.clone(), torch.arange(count), truth, keys)


def part(whole: Batch, where: slice) -> Batch:
    """Some pictures of a batch."""
    cut = {f.name: getattr(whole, f.name)[where] for f in fields(Batch) if f.name != "truth"}
    return Batch(**cut, truth=Truth(*(getattr(whole.truth, f.name)[where] for f in fields(Truth))))


def bands(batch: Batch) -> Tensor:
    """How loud each class is, (B, C): 0 for silence."""
    return batch.spectrogram[:, 0, :CLASSES].mean(-1) - FLOOR


def deaf(batch: Batch) -> Maps:
    return Maps(batch.image[:, :1], torch.tensor([-1]))


def loud(batch: Batch) -> Maps:
    """What is seen, times how loud it is: whatever it is."""
    gain = bands(batch).clamp(min=0).sum(-1)
    return Maps(batch.image[:, :1] * gain[:, None, None, None], torch.tensor([-1]))


def classy(batch: Batch) -> Maps:
    """A map per class, what is seen of it times how loud it is."""
    colours = 1 + torch.arange(CLASSES).view(-1, 1, 1)
    seen = 1 / (1 + (batch.image[:, :1] - colours).abs())
    return Maps(seen * bands(batch).clamp(min=0)[..., None, None], torch.arange(CLASSES))


def scores(found: dict[str, float], sound: str) -> list[float]:
    return [found[f"{sound}/{name}"] for name in SCORES]


# what sounds instead -------------------------------------------------------------------------------------------------


def test_silence_is_the_spectrogram_of_zeros() -> None:
    given = batch_of(3)
    made = silent(given, AUDIO)
    assert made.spectrogram.shape == given.spectrogram.shape and made.spectrogram.dtype == torch.float32
    torch.testing.assert_close(made.spectrogram, torch.full_like(given.spectrogram, FLOOR), atol=1e-4, rtol=0)
    assert all(getattr(made, f.name) is getattr(given, f.name) for f in fields(Batch) if f.name != "spectrogram")


def test_noise_is_white_of_the_stated_loudness_and_every_picture_has_its_own() -> None:
    given = batch_of(8)
    made = noisy(given, AUDIO, torch.Generator().manual_seed(5))
    drawn = torch.Generator().manual_seed(5)
    for row in made.spectrogram:
        wave = 0.1 * torch.randn(AUDIO.samples, generator=drawn)
        torch.testing.assert_close(row[None], log_spectrogram(wave[None], AUDIO))
    assert not torch.equal(made.spectrogram[0], made.spectrogram[1])
    power = ((made.spectrogram * AUDIO.scale).exp() - AUDIO.log_offset).mean((1, 3))  # (B, F), per Hz
    assert float((power.sum(-1) * AUDIO.rate / AUDIO.n_fft).mean().sqrt()) == pytest.approx(NOISE_RMS, rel=0.03)
    low, high = power[:, 1:32].mean(), power[:, 32:64].mean()
    assert float(low / high) == pytest.approx(1, abs=0.1)
    assert all(getattr(made, f.name) is getattr(given, f.name) for f in fields(Batch) if f.name != "spectrogram")


def test_noise_depends_on_the_generator_and_not_on_the_batches() -> None:
    given = batch_of(5)
    whole = noisy(given, AUDIO, torch.Generator().manual_seed(1)).spectrogram
    drawn = torch.Generator().manual_seed(1)
    halves = [noisy(part(given, where), AUDIO, drawn).spectrogram for where in (slice(0, 2), slice(2, 5))]
    torch.testing.assert_close(torch.cat(halves), whole)
    assert not torch.equal(noisy(given, AUDIO, torch.Generator().manual_seed(2)).spectrogram, whole)


def test_spectrograms_of_another_shape_are_refused() -> None:
    for change in (lambda b: silent(b, AudioConfig()), lambda b: noisy(b, AudioConfig(), torch.Generator())):
        with pytest.raises(ValueError, match=r"expected spectrograms \(1, 257, 300\) of this AudioConfig, got \(1, 65"):
            change(batch_of(2))


# off-screen ----------------------------------------------------------------------------------------------------------


def any_labels(seed: int, count: int = 9) -> Batch:
    """Pictures of some classes that are heard, seen and labelled, or not all of it; in some nothing sounds."""
    drawn = torch.Generator().manual_seed(seed)
    given = scene(count, seed)
    classes = given.truth.classes
    present = torch.rand(count, 2, generator=drawn) < 0.6
    heard = torch.zeros(count, CLASSES)
    for b, s in present.nonzero().tolist():
        heard[b, classes[b, s]] = 1
    seen = torch.where(torch.rand(count, CLASSES, generator=drawn) < 0.1, 1 - given.seen, given.seen)
    labels = torch.where(torch.rand(count, CLASSES, generator=drawn) < 0.1, 1 - heard, heard)
    spectrogram = torch.randn(count, 1, 65, 70, generator=drawn)
    truth = Truth(given.truth.mask, classes, present)
    return replace(given, heard=heard, seen=seen, labels=labels, spectrogram=spectrogram, truth=truth)


def slow_partner(batch: Batch, picture: int) -> int:
    """The next picture of which something sounds, and nothing that is in this one."""
    here = {c for rows in (batch.heard, batch.seen, batch.labels) for c in range(CLASSES) if rows[picture, c]}
    if not here or any(c < 0 for c in batch.truth.classes[picture].tolist()):
        return -1
    for step in range(1, len(batch)):
        other = (picture + step) % len(batch)
        sounds = {c for c in range(CLASSES) if batch.heard[other, c]}
        if sounds and not sounds & here and min(batch.truth.classes[other].tolist()) >= 0:
            return other
    return -1


@pytest.mark.parametrize("seed", range(12))
def test_the_sound_is_of_something_that_is_not_there(seed: int) -> None:
    given = any_labels(seed)
    if seed % 3 == 0:
        given.truth.classes[2, 1] = -1  # an object, nobody knows of what
    if seed % 3 == 1:
        given.heard[3], given.seen[3], given.labels[3] = 0, 0, 0  # nobody knows of anything
    made, found = off_screen(given)
    partners = [slow_partner(given, b) for b in range(len(given))]
    assert found.tolist() == [p >= 0 for p in partners]
    for b, p in enumerate(partners):
        assert torch.equal(made.spectrogram[b], given.spectrogram[b if p < 0 else p])
        if p >= 0:
            assert not bool((given.heard[p] * (given.seen[b] + given.labels[b] + given.heard[b])).any())
    assert all(getattr(made, f.name) is getattr(given, f.name) for f in fields(Batch) if f.name != "spectrogram")


def test_the_cases_above_have_pictures_with_and_without_a_partner() -> None:
    found = torch.cat([off_screen(any_labels(seed))[1] for seed in range(12)])
    assert 10 < int(found.sum()) < len(found) - 10


def test_a_silent_object_counts_as_there() -> None:
    given = scene(2, classes=torch.tensor([[0, 1], [1, 2]]))
    given.heard[0, 1], given.heard[1, 2] = 0, 0  # 0 sounds beside a silent 1, then 1 beside a silent 2
    assert off_screen(given)[1].tolist() == [False, True], "1 is seen in the first; 0 is not in the second"


def test_what_sounds_already_is_no_other_sound() -> None:
    given = scene(2, classes=torch.tensor([[0, 1], [2, 3]]))
    given.heard[:] = torch.eye(CLASSES)[4]  # both hear 4, which is in neither picture
    assert off_screen(given)[1].tolist() == [False, False]
    given.heard[1] = torch.eye(CLASSES)[2]
    assert off_screen(given)[1].tolist() == [True, True]


def test_padding_is_no_unknown_object() -> None:
    given = scene(2, classes=torch.tensor([[0, 1], [2, 3]]))
    given.truth.classes[:, 1], given.truth.mask[:, 1], given.truth.present[:, 1] = -1, 0, False
    assert off_screen(given)[1].tolist() == [True, True]
    given.truth.mask[0, 1, 0, 0] = 1
    assert off_screen(given)[1].tolist() == [False, False], "nor is the sound of it known"


def test_no_partner_in_a_batch_of_one_or_of_one_class_or_without_labels() -> None:
    assert off_screen(scene(1))[1].tolist() == [False]
    assert not off_screen(scene(4, classes=torch.tensor([[1, 3]] * 4)))[1].any()
    given, none = scene(4), torch.zeros(4, 0)
    assert not off_screen(replace(given, heard=none, seen=none, labels=none))[1].any()


# who listens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Centre", "Random", "Oracle"])
def test_deaf_controls_have_one_half_exactly(name: str) -> None:
    method = next(m for m in METHODS.values() if getattr(m.build, "__name__", "") == name)
    found = hearing(method.build(method.config, CLASSES), [batch_of(4), batch_of(3, seed=1)], AUDIO)
    for sound in SOUNDS:
        assert scores(found, sound) == [0.5, 0.5, 0.5]
        assert found[f"{sound}/sources"] > 0


def test_a_map_as_loud_as_the_sound_goes_quiet_in_silence() -> None:
    found = hearing(Fixed(loud), [scene()], AUDIO)
    assert scores(found, "silence") == [0, 1, 1]
    assert found["noise/remaining"] != 0.5
    assert found["offscreen/remaining"] == 0.5, "another pair of sounds is as loud"


def test_class_maps_go_quiet_when_their_class_is_not_heard() -> None:
    found = hearing(Fixed(classy), [scene(classes=torch.tensor([[0, 1], [2, 3], [4, 0], [1, 2]]), count=4)], AUDIO)
    assert scores(found, "silence") == scores(found, "offscreen") == [0, 1, 1]
    assert (found["sources"], found["offscreen/sources"], found["offscreen/left_out"]) == (8, 8, 0)


def test_every_number_is_what_the_measures_say_source_by_source() -> None:
    given = scene(7, seed=3)
    given.truth.present[2, 1] = False
    given.labels[5] = 1  # whatever else sounds, it might be there
    generator = torch.Generator().manual_seed(4)
    elsewhere, partnered = off_screen(given)
    others = {"silence": silent(given, AUDIO), "noise": noisy(given, AUDIO, generator), "offscreen": elsewhere}

    def mixed(batch: Batch) -> Maps:  # class maps, and waves over the picture that shift with the sound
        phase = 50 * batch.spectrogram.mean((1, 2, 3))[:, None, None, None]
        return replace(classy(batch), heat=0.1 * classy(batch).heat + torch.sin(3 * batch.image[:, :1] + phase))

    found = hearing(Fixed(mixed), [given], AUDIO, seed=4)
    own = mixed(given).heat
    for sound, batch in others.items():
        heat, rows = mixed(batch).heat, []
        for b, s in given.truth.present.nonzero().tolist():
            if sound != "offscreen" or partnered[b]:
                c = int(given.truth.classes[b, s])
                rows.append((own[b, c], heat[b, c]))
        assert found[f"{sound}/sources"] == len(rows)
        for name in ("remaining", "quieter"):
            mean = sum(float(getattr(listening, name)(a, o)) for a, o in rows) / len(rows)
            assert found[f"{sound}/{name}"] == pytest.approx(mean)
        peaks = [[float(pair[i].max()) for pair in rows] for i in (0, 1)]
        assert found[f"{sound}/separability"] == pytest.approx(listening.separability(*peaks))
    for name in SCORES:
        assert len({found[f"{sound}/{name}"] for sound in SOUNDS}) == 3, "a measure that tells nothing apart here"
    assert found["pictures"] == 7 and found["sources"] == 13 and not partnered[5]
    assert found["offscreen/left_out"] == 7 - int(partnered.sum())


def test_batches_do_not_matter_to_silence_and_noise() -> None:
    given = scene(7)
    whole = hearing(Fixed(loud), [given], AUDIO)
    split = hearing(Fixed(loud), [part(given, slice(i, i + 1)) for i in range(7)], AUDIO)
    for sound in ("silence", "noise"):
        assert scores(split, sound) == pytest.approx(scores(whole, sound))
    assert split["offscreen/left_out"] == 7 and split["offscreen/sources"] == 0, "alone in its batch"
    assert not any(name.startswith("offscreen/") and name.endswith(SCORES) for name in split), "absent, not NaN"


def test_the_seed_is_of_the_noise() -> None:
    def heights(seed: int) -> dict[str, float]:
        return hearing(Fixed(loud), [scene(count=3)], AUDIO, seed)

    assert heights(1) == heights(1)

    def threshold(batch: Batch) -> Maps:  # one cell of the noise decides
        return Maps(batch.image[:, :1] - 0.3 * batch.spectrogram[:, :, 30, 30, None, None], torch.tensor([-1]))

    found = {hearing(Fixed(threshold), [scene(count=3)], AUDIO, seed)["noise/remaining"] for seed in range(3)}
    silence = {hearing(Fixed(threshold), [scene(count=3)], AUDIO, seed)["silence/remaining"] for seed in range(3)}
    assert len(found) > 1 and len(silence) == 1


def test_maps_without_names_may_come_in_another_order() -> None:
    def swaps(batch: Batch) -> Maps:
        masks = scene(len(batch), seed=0).truth.mask + batch.image[:, :1] / 99
        silence = (bands(batch).abs() < 1e-3).all(-1)[:, None, None, None]
        return Maps(torch.where(silence, masks.flip(1), masks), torch.tensor([-1, -1]))

    assert scores(hearing(Fixed(swaps), [scene()], AUDIO), "silence") == [0.5, 0.5, 0.5]


def test_a_source_that_no_map_answers_for_is_no_row() -> None:
    given = scene(2)
    third = torch.zeros(2, 1, SIDE, 2 * SIDE)
    third[..., -1, :] = 1
    truth = Truth(
        torch.cat([given.truth.mask, third], 1),
        torch.tensor([[0, 1, 2], [0, 1, 2]]),
        torch.ones(2, 3, dtype=torch.bool),
    )
    masks = given.truth.mask + given.image[:, :1] / 99
    found = hearing(Fixed(lambda _: Maps(masks, torch.tensor([-1, -1]))), [replace(given, truth=truth)], AUDIO)
    assert (found["sources"], found["silence/sources"], found["silence/remaining"]) == (6, 4, 0.5)


def test_two_sources_of_one_class_are_one_and_silent_ones_none() -> None:
    given = scene(3, classes=torch.tensor([[1, 1], [2, 3], [4, 0]]))
    given.truth.present[1] = torch.tensor([True, False])
    given.truth.present[2] = False
    assert hearing(Fixed(deaf), [given], AUDIO)["sources"] == 2
    given.truth.present[:] = False
    found = hearing(Fixed(deaf), [given], AUDIO)
    assert found["silence/sources"] == 0 and "silence/remaining" not in found


def test_mode_and_gradient_are_put_back() -> None:
    for training in (True, False):
        localizer = Fixed(deaf).train(training)
        hearing(localizer, [scene()], AUDIO)
        assert localizer.modes == [(False, False)] * 4
        assert localizer.training is training and torch.is_grad_enabled()

    def breaks(batch: Batch) -> Maps:
        raise RuntimeError("broken")

    localizer = Fixed(breaks).train()
    with pytest.raises(RuntimeError, match="broken"):
        hearing(localizer, [scene()], AUDIO)
    assert localizer.training and torch.is_grad_enabled()


def test_what_cannot_be_heard_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one picture to listen with, got none"):
        hearing(Fixed(deaf), [], AUDIO)
    with pytest.raises(ValueError, match=r"expected heat .* at the size of the truth"):
        hearing(Fixed(lambda b: Maps(torch.rand(len(b), 1, 4, 8), torch.tensor([-1]))), [scene()], AUDIO)
    with pytest.raises(ValueError, match="expected finite heat"):
        hearing(Fixed(lambda b: Maps(b.image[:, :1] / 0, torch.tensor([-1]))), [scene()], AUDIO)


@pytest.mark.parametrize("name", METHODS)
def test_who_says_that_it_listens_does(name: str) -> None:
    method, config = METHODS[name], METHODS[name].config
    torch.manual_seed(0)
    config = replace(config, encoder=TINY) if hasattr(config, "encoder") else config
    localizer = method.build(config, CLASSES)
    found = hearing(localizer, [batch_of(2)], AUDIO)
    values = [value for name, value in found.items() if name.endswith(SCORES)]
    assert all(value == 0.5 for value in values) != localizer.listens
