"""The embedded data set: what is promised of its scenes, pictures, sounds and lists."""

from __future__ import annotations

import itertools
import math
import pickle
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from m2vsl.audio import AudioConfig
from m2vsl.data import drawing, scenery, sounding
from m2vsl.data.drawing import LOOKS, SHAPES, TEXTURES, Thing, arrange, coordinates, outline, window
from m2vsl.data.loader import collate
from m2vsl.data.synthetic import CLASSES, SPLITS, TASKS, SyntheticConfig, SyntheticDataset
from m2vsl.types import Sample

SMALL = SyntheticConfig(size=64, train_length=20, val_length=10, test_length=12)
AREAS = (0.04, 0.40)


def made(split: str = "test", config: SyntheticConfig = SMALL, **options: object) -> SyntheticDataset:
    return SyntheticDataset(config, split, **options)  # type: ignore[arg-type]


def same(one: Sample, two: Sample) -> bool:
    return (
        one.key == two.key
        and torch.equal(one.image, two.image)
        and torch.equal(one.waveform, two.waveform)
        and torch.equal(one.truth.mask, two.truth.mask)
        and torch.equal(one.truth.classes, two.truth.classes)
        and torch.equal(one.truth.present, two.truth.present)
    )


def mask_of(thing: Thing, size: int) -> np.ndarray:
    axis = (np.arange(size) + 0.5) / size
    return outline(thing, *coordinates(thing, axis, axis)) <= 0


# --- looks -----------------------------------------------------------------------------------------------------------


def test_neither_shape_nor_texture_alone_names_a_class() -> None:
    assert len(set(LOOKS)) == len(LOOKS) == len(CLASSES) == len(sounding.TIMBRES) == 12
    assert Counter(shape for shape, _ in LOOKS) == dict.fromkeys(SHAPES, 2)
    assert Counter(texture for _, texture in LOOKS) == dict.fromkeys(TEXTURES, 3)
    assert CLASSES[0] == "striped disc (bell)"


def test_a_disc_is_the_pixels_whose_centre_is_within_its_radius() -> None:
    thing = Thing(LOOKS.index(("disc", "striped")), area=0.1, x=0.4, y=0.55, angle=1.0)
    mask = mask_of(thing, 40)
    for row, column in itertools.product(range(40), range(40)):
        apart = math.hypot((column + 0.5) / 40 - 0.4, (row + 0.5) / 40 - 0.55)
        assert mask[row, column] == (apart <= math.sqrt(0.1 / math.pi))


@pytest.mark.parametrize("look", range(12))
def test_area_is_what_was_asked_for_at_any_angle_and_stretch(look: int) -> None:
    for area, angle, stretch in ((0.04, 0.3, 1.0), (0.15, 2.0, 1.08), (0.40, 5.0, 0.93)):
        measured = mask_of(Thing(look, area, angle=angle, stretch=stretch), 224).mean()
        assert measured == pytest.approx(area, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_outline_is_a_distance_near_the_border_and_lies_in_the_unit_circle(shape: str) -> None:
    axis = np.linspace(-1.1, 1.1, 881, dtype=np.float32)
    distance = SHAPES[shape](*np.meshgrid(axis, axis))
    slope = np.hypot(*np.gradient(distance, axis[1] - axis[0]))
    assert np.median(slope[np.abs(distance) < 0.03]) == pytest.approx(1, abs=0.01)
    reach = np.hypot(*np.meshgrid(axis, axis))[distance <= 0].max()
    assert 0.95 < reach <= 1.002


def test_window_holds_the_whole_thing() -> None:
    for look, seed in itertools.product(range(12), range(5)):
        (thing,) = arrange(np.random.default_rng(seed), [look], AREAS)
        mask = mask_of(thing, 112)
        assert mask[window(thing, 112)].sum() == mask.sum()


def test_texture_borders_are_a_pixel_wide_and_both_colours_are_there() -> None:
    axis = np.linspace(-0.9, 0.9, 721, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    for name, texture in TEXTURES.items():
        value = texture(u, v, 5.0)
        assert 0.2 < (value > 0).mean() < 0.8, name
        steep = np.hypot(*np.gradient(value, axis[1] - axis[0]))[np.abs(value) < 0.005]
        assert 0.8 < np.median(steep) < 1.6, name


# --- arrangement -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_things_lie_inside_the_frame_and_do_not_overlap(count: int) -> None:
    for seed in range(25):
        things = arrange(np.random.default_rng(seed), list(range(seed % 9, seed % 9 + count)), AREAS)
        masks = np.stack([mask_of(thing, 112) for thing in things])
        assert masks.sum(0).max() == 1
        for thing, mask in zip(things, masks, strict=True):
            assert AREAS[0] <= thing.area <= AREAS[1]
            assert mask.mean() == pytest.approx(thing.area, rel=0.04)  # nothing cut off, nothing hidden


def test_sizes_of_a_lone_thing_are_log_uniform_and_its_place_is_uniform() -> None:
    things = [arrange(np.random.default_rng(seed), [0], AREAS)[0] for seed in range(1500)]
    places = np.log([thing.area / AREAS[0] for thing in things]) / np.log(AREAS[1] / AREAS[0])
    assert np.allclose(np.quantile(places, [0.1, 0.25, 0.5, 0.75, 0.9]), [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.04)
    for axis in ("x", "y"):
        free = [thing.radius * math.sqrt(drawing.STRETCH) + drawing.GAP / 2 for thing in things]
        spots = [(getattr(thing, axis) - r) / (1 - 2 * r) for thing, r in zip(things, free, strict=True)]
        assert np.allclose(np.quantile(spots, [0.1, 0.25, 0.5, 0.75, 0.9]), [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.04)


def test_no_place_in_the_list_is_favoured_in_size() -> None:  # the one that sounds comes first
    areas = np.array([[t.area for t in arrange(np.random.default_rng(s), [0, 0, 0], AREAS)] for s in range(600)])
    assert np.ptp(np.log(areas).mean(0)) < 0.12


def test_crowded_frames_still_hold_everything() -> None:
    for seed in range(40):
        assert len(arrange(np.random.default_rng(seed), [1, 4, 7, 10], (0.25 / 4, 0.40))) == 4


def test_a_frame_too_full_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"room for 5 things of 0\.300"):
        arrange(np.random.default_rng(0), [0, 1, 2, 3, 4], (0.3, 0.4))


# --- paint -----------------------------------------------------------------------------------------------------------


def test_ground_has_the_spectrum_of_photographs_and_never_returns() -> None:
    grounds = [scenery.ground(np.random.default_rng(seed), 128) for seed in range(24)]
    window_ = np.hanning(128)[:, None] * np.hanning(128)
    power = np.mean([np.abs(np.fft.fft2((g[1] - g[1].mean()) * window_)) ** 2 for g in grounds], 0)
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    band = (f > 0.03) & (f < 0.3)
    slope = np.polyfit(np.log(f[band]), np.log(power[band]) / 2, 1)[0]
    assert -1.7 < slope < -0.8  # amplitude of photographs: about 1/f
    flat = np.stack([g.ravel() for g in grounds])
    assert np.abs(np.corrcoef(flat) - np.eye(24)).max() < 0.9
    assert min(g.std() for g in grounds) > 0.03  # no empty ground


def test_colour_does_not_tell_the_class() -> None:
    thing = Thing(0, 0.3, angle=0.5)
    means = []
    for seed in range(30):
        picture, masks = scenery.paint(np.random.default_rng(seed), [thing], 48)
        means.append(picture[:, masks[0]].mean(1))
    assert np.std(means, axis=0).min() > 0.08


def test_paint_is_in_range_and_masks_are_the_outlines() -> None:
    things = arrange(np.random.default_rng(3), [0, 5, 9], AREAS)
    picture, masks = scenery.paint(np.random.default_rng(4), things, 112)
    assert picture.shape == (3, 112, 112) and picture.dtype == np.float32
    assert picture.min() >= 0 and picture.max() <= 1
    assert np.array_equal(masks, np.stack([mask_of(thing, 112) for thing in things]))


# --- sounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timbre", range(12))
def test_every_timbre_is_audible_finite_bounded_and_fresh(timbre: int) -> None:
    waves = np.stack([sounding.sound(np.random.default_rng(seed), timbre, 22050, 66150) for seed in range(8)])
    assert waves.dtype == np.float32 and np.isfinite(waves).all()
    assert np.abs(waves).max() < 1
    level = 20 * np.log10(waves.std(1))
    assert level.min() > -48 and np.ptp(level) > 2  # loudness varies
    assert np.abs(np.corrcoef(waves) - np.eye(8)).max() < 0.5


@pytest.mark.parametrize("rate, samples", [(8000, 24000), (16000, 16000), (44100, 132300)])
def test_sounds_at_any_rate_and_length(rate: int, samples: int) -> None:
    for timbre in range(12):
        wave = sounding.sound(np.random.default_rng(timbre), timbre, rate, samples)
        assert wave.shape == (samples,) and np.isfinite(wave).all() and wave.std() > 1e-3


def test_pitch_is_drawn_over_an_octave_or_more() -> None:
    assert all(timbre.pitch[1] >= 2 * timbre.pitch[0] for timbre in sounding.TIMBRES)
    flute = [t.name for t in sounding.TIMBRES].index("flute")
    peaks = []
    for seed in range(40):
        wave = sounding.sound(np.random.default_rng(seed), flute, 22050, 66150)
        peaks.append(np.abs(np.fft.rfft(wave)).argmax() / 3)
    assert max(peaks) > 2 * min(peaks)


def test_harmonics_are_the_sum_of_sines() -> None:
    weights, turns = np.array([1.0, 0.0, 0.5]), np.linspace(0, 3, 700, dtype=np.float32)
    phases = 2.4 * np.arange(3) ** 2
    slow = np.zeros(700)
    for k, (weight, phase) in enumerate(zip(weights, phases, strict=True), 1):
        slow += [weight * math.cos(2 * math.pi * k * turn + phase) for turn in turns]
    fast = sounding._harmonics(weights, turns)
    assert np.corrcoef(slow, fast)[0, 1] > 0.9999
    assert np.abs(fast).max() == pytest.approx(1, abs=0.01)


def test_string_loses_each_harmonic_by_the_same_factor_each_period() -> None:
    time_ = np.arange(22050, dtype=np.float32) / 22050
    wave = sounding._string(np.random.default_rng(0), 220.5, time_, 22050)
    spectra = np.abs(np.fft.rfft(wave[: 100 * 12].reshape(12, 100)))[:, 1:40]
    factors = spectra[1:] / spectra[:-1]
    assert np.allclose(factors, factors[0], atol=2e-3)
    assert (np.diff(factors[0]) < 1e-3).all() and factors[0, 0] < 1  # the higher the sooner gone


def test_timbres_are_told_apart_by_their_spectrum() -> None:
    def features(seed: int, timbre: int) -> np.ndarray:
        wave = sounding.sound(np.random.default_rng((seed, timbre)), timbre, 22050, 66150)
        frames = np.abs(np.fft.rfft(wave[: 128 * 512].reshape(128, 512) * np.hanning(512)))
        edges = np.unique(np.geomspace(1, 257, 21).astype(int))
        bands = np.log(np.stack([frames[:, a:b].mean(1) for a, b in itertools.pairwise(edges)], 1) + 1e-3)
        return np.concatenate([bands.mean(0), bands.std(0), bands.max(0)])

    known = np.stack([[features(seed, timbre) for seed in range(12)] for timbre in range(12)])
    scale = known.std((0, 1))
    right = 0
    for timbre, seed in itertools.product(range(12), range(50, 56)):
        apart = np.linalg.norm((known - features(seed, timbre)) / scale, axis=-1).min(1)
        right += int(apart.argmin() == timbre)
    assert right / 72 > 0.9


# --- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_shapes_types_and_consistency(task: str) -> None:
    data = made(task=task)
    for sample in data:
        truth, sources = sample.truth, len(sample.truth.classes)
        size = (64, 128) if task == "duet" else (64, 64)
        assert sample.image.shape == (3, *size) and sample.image.dtype == torch.float32
        assert sample.waveform.shape == (66150,) and sample.waveform.dtype == torch.float32
        assert truth.mask.shape == (sources, *size) and truth.mask.dtype == torch.float32
        assert truth.classes.dtype == torch.int64 and truth.present.dtype == torch.bool
        assert set(truth.mask.unique().tolist()) == {0.0, 1.0} and truth.mask.sum(0).max() == 1
        assert sample.seen.nonzero().flatten().tolist() == sorted(set(truth.classes.tolist()))
        assert sample.heard.nonzero().flatten().tolist() == sorted(truth.classes[truth.present].tolist())
        assert truth.present.tolist() == sorted(truth.present.tolist(), reverse=True)  # sounding first
    batch = collate([data[0], data[1], data[2]], data.audio)
    assert batch.spectrogram.shape == (3, 1, 257, 300) and batch.heard.shape == (3, 12)


def test_single_has_one_source_and_up_to_three_silent_of_other_classes() -> None:
    data = made("train")
    silent = Counter()
    for i in range(60):
        truth = data[i].truth
        assert truth.present.sum() == 1 and len(set(truth.classes.tolist())) == len(truth.classes)
        silent[len(truth.classes) - 1] += 1
    assert set(silent) == {0, 1, 2, 3}


def test_duet_has_a_source_of_another_class_on_either_side_and_silent_ones_of_neither() -> None:
    data = made("train", task="duet")
    for i in range(30):
        truth = data[i].truth
        left, right = truth.classes[:2].tolist()
        assert truth.present.sum() == 2 and left != right
        assert truth.mask[0, :, 64:].sum() == 0 and truth.mask[1, :, :64].sum() == 0
        assert not {left, right} & set(truth.classes[2:].tolist())


def test_multi_has_two_or_three_sources_and_up_to_one_silent() -> None:
    data = made("train", task="multi")
    kinds = Counter()
    for i in range(50):
        truth = data[i].truth
        assert len(set(truth.classes.tolist())) == len(truth.classes)
        kinds[int(truth.present.sum()), int((~truth.present).sum())] += 1
    assert set(kinds) == {(2, 0), (2, 1), (3, 0), (3, 1)}


@pytest.mark.parametrize("task", ["duet", "multi"])
def test_a_share_of_training_pictures_sounds_from_one_source(task: str) -> None:
    whole, half, alone = (made("train", replace(SMALL, solo_share=s), task=task) for s in (0.0, 0.5, 1.0))
    muted = 0
    for i in range(60):
        all_of_it, some, one = whole[i], half[i], alone[i]
        assert torch.equal(one.image, all_of_it.image) and torch.equal(one.labels, all_of_it.heard)
        assert torch.equal(some.labels, all_of_it.labels) and torch.equal(all_of_it.labels, all_of_it.heard)
        assert one.heard.sum() == one.truth.present.sum() == 1 and bool((one.heard <= one.labels).all())
        muted += int(some.heard.sum()) == 1
    assert 18 <= muted <= 42
    assert len({int(alone[i].truth.present.nonzero()) for i in range(20)}) > 1
    assert torch.equal(made("test", replace(SMALL, solo_share=1.0), task=task)[0].waveform, made(task=task)[0].waveform)
    with pytest.raises(ValueError, match=r"solo_share in \[0, 1\], got -1"):
        replace(SMALL, solo_share=-1)


@pytest.mark.parametrize("task", ["duet", "multi"])
def test_one_source_at_a_time_uses_each_picture_once_per_source(task: str) -> None:
    mixed, alone = made(task=task), made(task=task, sound="one")
    i = 0
    for picture in range(5):
        whole = mixed[picture]
        count = int(whole.truth.present.sum())
        parts = [alone[i + source] for source in range(count)]
        for source, part in enumerate(parts):
            assert torch.equal(part.image, whole.image) and torch.equal(part.truth.mask, whole.truth.mask)
            assert part.truth.present.nonzero().flatten().tolist() == [source]
            assert part.heard.nonzero().flatten().tolist() == [whole.truth.classes[source]]
            assert torch.equal(part.seen, whole.seen)
        assert torch.equal(sum(part.waveform for part in parts), whole.waveform)  # type: ignore[arg-type]
        i += count
    assert len(alone) == sum(int(sample.truth.present.sum()) for sample in mixed)
    assert len(set(alone.ids())) == len(alone) == len({sample.mixture for sample in alone})


def test_a_sample_is_a_function_of_split_seed_epoch_and_index_alone() -> None:
    data, copy = made("train", seed=3), pickle.loads(pickle.dumps(made("train", seed=3)))
    forward = [data[i] for i in range(4)]
    assert all(same(forward[i], copy[i]) for i in (3, 1, 0, 2))
    other_seed = made("train", seed=4)[1]
    data.set_epoch(1)
    for other in (other_seed, data[1], forward[2], made("val")[1]):
        assert not torch.equal(other.image, forward[1].image)
        assert not torch.equal(other.waveform, forward[1].waveform)
    data.set_epoch(0)
    assert same(data[1], forward[1])


@pytest.mark.parametrize("split", ["val", "test"])
def test_val_and_test_are_the_same_list_for_every_seed_and_epoch(split: str) -> None:
    one, two = made(split, seed=1), made(split, seed=2)
    two.set_epoch(7)
    assert one.ids() == two.ids() and len(set(one.ids())) == len(one)
    assert same(one[5], two[5]) and one[5].key == one.ids()[5]


def test_training_never_ends_and_the_other_lists_do() -> None:
    train = made("train")
    assert len(train) == 20 and len(list(train)) == 20
    assert not torch.equal(train[10**9].image, train[10**9 + 1].image)
    for data, index in ((train, -1), (made("val"), 10), (made("test"), -1), (made("test", sound="one"), 12)):
        with pytest.raises(IndexError, match=f"got {index}"):
            data[index]


def test_the_scene_does_not_depend_on_the_size() -> None:
    small, large = made()[3], made(config=replace(SMALL, size=128))[3]
    shrunk = torch.nn.functional.avg_pool2d(large.truth.mask[None], 2)[0]
    assert torch.equal(small.truth.classes, large.truth.classes)
    assert torch.equal(small.waveform, large.waveform)
    assert (shrunk - small.truth.mask).abs().mean() < 0.02


def test_sounds_follow_the_audio_config() -> None:
    audio = AudioConfig(rate=16000, seconds=1.0, mixing="mean")
    mean, one = made(task="duet", audio=audio)[0], made(task="duet", audio=audio, sound="one")
    assert mean.waveform.shape == (16000,)
    assert torch.allclose(mean.waveform, (one[0].waveform + one[1].waveform) / 2, atol=1e-7)


def test_fewer_classes_are_the_first_ones() -> None:
    data = made("train", replace(SMALL, classes=4))
    assert data.classes == CLASSES[:4] and data.name == "synthetic"
    for i in range(10):
        assert data[i].heard.shape == (4,) and data[i].truth.classes.max() < 4


def test_a_sample_costs_no_more_than_its_budget_and_a_slow_machine_ask_for() -> None:
    """The budget is 10 ms of one core at 112 pixels, sound included; an old and busy core took 35."""
    data = made("train", replace(SMALL, size=112))
    data[0]
    costs = []
    for start in range(0, 100, 25):
        begun = time.thread_time()
        for i in range(start, start + 25):
            data[i]
        costs.append((time.thread_time() - begun) / 25)
    assert min(costs) < 0.060


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, message",
    [
        ({"classes": 13}, "expected classes from 1 to 12, got 13"),
        ({"classes": 0}, "expected classes from 1 to 12, got 0"),
        ({"size": 16}, "at least 32 pixels, got 16"),
        ({"val_length": 0}, "at least one sample"),
        ({"distractors": (2, 1)}, r"distractors .* got \(2, 1\)"),
        ({"sources": (0, 2)}, r"sources .* got \(0, 2\)"),
        ({"areas": (0.1, 0.6)}, r"between 0\.005 and 0\.4 of the frame, got \(0\.1, 0\.6\)"),
        ({"areas": (0.3, 0.1)}, r"got \(0\.3, 0\.1\)"),
    ],
)
def test_config_errors_state_expected_and_got(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticConfig(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"split": "dev"}, f"split among {', '.join(SPLITS)}, got 'dev'"),
        ({"task": "trio"}, "task among single, duet, multi, got 'trio'"),
        ({"sound": "both"}, "sound among mixture, one, got 'both'"),
        ({"split": "train", "sound": "one"}, "val and test alone"),
        ({"config": SyntheticConfig(classes=3)}, "at least 4 classes for single"),
        ({"config": SyntheticConfig(classes=4), "task": "duet"}, "at least 5 classes for duet"),
        ({"config": SyntheticConfig(areas=(0.1, 0.4))}, r"areas to start at 0\.062 or less"),
    ],
)
def test_dataset_errors_state_expected_and_got(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(**{"split": "test", **options})  # type: ignore[arg-type]
