from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from m2vsl.audio import AUDIO, cut, decode, mix
from m2vsl.data.folder import Cache, FolderConfig, FolderDataset
from m2vsl.data.layout import DataError, read_layout
from m2vsl.frame import to_display
from m2vsl.types import Sample

Make = Callable[..., Path]
QUIET = replace(AUDIO["paper300"], seconds=0.25, gain_db=0, roll_seconds=0)  # short, and nothing varied


def dataset(root: Path, split: str = "train", task: str = "duet", *, sound: str = "mixture", seed: int = 0, **options):
    config = FolderConfig(str(root), **{"size": 24, **options})
    return FolderDataset(config, split, task, sound=sound, seed=seed, audio=QUIET)


def same(a: Sample, b: Sample) -> bool:
    return a.key == b.key and torch.equal(a.image, b.image) and torch.equal(a.waveform, b.waveform)


def box_iou(sample: Sample, source: int, channel: int) -> float:
    """IoU of the mask of a source with the pixels in which its colour shines."""
    picture = to_display(sample.image)
    others = [c for c in range(3) if c != channel]
    seen: Tensor = (picture[..., channel] > 0.5) & (picture[..., others].amax(-1) < 0.4)
    told = sample.truth.mask[source] > 0
    return float((seen & told).sum() / (seen | told).sum())


@pytest.mark.parametrize(
    ("task", "sources", "shape"), [("single", 1, (24, 24)), ("duet", 2, (24, 48)), ("multi", 3, (24, 24))]
)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_samples_have_the_documented_shapes(make_folder: Make, split: str, task: str, sources: int, shape) -> None:
    data = dataset(make_folder(), split, task)
    sample = data[0]
    assert sample.image.shape == (3, *shape) and sample.waveform.shape == (QUIET.samples,)
    assert sample.truth.mask.shape == (sources, *shape)
    assert sample.truth.classes.shape == sample.truth.present.shape == (sources,)
    assert sample.truth.classes.unique().numel() == sources
    assert sample.seen.nonzero()[:, 0].tolist() == sorted(sample.truth.classes.tolist())
    assert sample.heard.nonzero()[:, 0].tolist() == sorted(sample.truth.classes[sample.truth.present].tolist())
    assert data.name == "small" and data.classes == ("bell", "cat", "drum")
    assert len({data[i].key for i in range(len(data))}) == len(data)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("task", ["single", "duet", "multi"])
def test_masks_fit_their_pictures(make_folder: Make, split: str, task: str) -> None:
    data = dataset(make_folder(), split, task, size=64)
    for i in range(6):
        sample = data[i]
        for s, label in enumerate(sample.truth.classes.tolist()):  # classes 0, 1, 2 are red, green, blue boxes
            assert box_iou(sample, s, label) > 0.8


def test_duet_sources_lie_left_and_right(make_folder: Make) -> None:
    for sample in map(dataset(make_folder()).__getitem__, range(10)):
        left, right = sample.truth.mask
        assert left[:, :24].any() and not left[:, 24:].any()
        assert right[:, 24:].any() and not right[:, :24].any()
        assert sample.truth.present.all()


def test_mosaic_has_silent_pictures_too(make_folder: Make) -> None:
    data = dataset(make_folder(classes=4), task="multi", length=60)
    counts = Counter(int(data[i].truth.present.sum()) for i in range(60))
    assert set(counts) == {2, 3} and min(counts.values()) > 15
    for sample in (data[i] for i in range(10)):
        assert sample.truth.mask.shape[0] == 4 and sample.seen.sum() == 4
        corners = {tuple((m.nonzero().float().mean(0) > 12).tolist()) for m in sample.truth.mask}
        assert len(corners) == 4  # each in a cell of its own
        assert sample.truth.present.tolist() == sorted(sample.truth.present.tolist(), reverse=True)


def test_mosaic_of_two_classes_has_grey_cells(make_folder: Make) -> None:
    sample = dataset(make_folder(classes=2), task="multi")[0]
    assert sample.truth.mask.shape[0] == 2 and sample.truth.present.all()
    grey = (sample.image.abs() < 0.01).all(0)
    assert grey.float().mean() == pytest.approx(0.5, abs=0.01)


# training


def test_training_is_a_function_of_seed_epoch_and_index(make_folder: Make) -> None:
    root = make_folder()
    one, two, other = dataset(root), dataset(root), dataset(root, seed=1)
    for data in (one, two, other):
        data.set_epoch(3)
    two[5], two[1]  # the order of access does not matter
    assert same(one[2], two[2])
    assert not same(one[2], other[2])
    before = one[2]
    one.set_epoch(4)
    assert not same(before, one[2])


def test_classes_take_turns_and_every_file_comes_once_before_any_comes_again(make_folder: Make) -> None:
    data = dataset(make_folder(), task="single")  # 6 training photographs of each class
    shown: Counter[str] = Counter()
    heard: Counter[str] = Counter()
    pairs = set()
    for epoch in range(4):
        data.set_epoch(epoch)
        for i in range(len(data)):
            photo, sound = data[i].key.split(":")[2].split("|")
            assert photo.split("/")[0] == sound.split("/")[0]
            shown[photo] += 1
            heard[sound] += 1
            pairs.add((photo, sound))
        assert set(shown.values()) == set(heard.values()) == {epoch + 1}
    assert len(pairs) > 50  # of 72 drawn from 108: paired anew each time


def test_an_epoch_of_any_length_is_balanced(make_folder: Make) -> None:
    data = dataset(make_folder(), task="single", length=31)
    assert len(data) == 31
    counts = Counter(int(data[i].truth.classes) for i in range(31))
    assert max(counts.values()) - min(counts.values()) <= 1


def test_partners_are_of_every_other_class(make_folder: Make) -> None:
    data = dataset(make_folder(), length=60)
    pairs = Counter(tuple(data[i].truth.classes.tolist()) for i in range(60))
    assert len(pairs) == 6 and min(pairs.values()) >= 3
    assert all(a != b for a, b in pairs)


def test_photographs_without_mask_can_be_trained_on(make_folder: Make) -> None:
    root = make_folder()
    for photo in read_layout(root).photos:
        if photo.fold not in (4, 5):
            (root / "masks" / photo.name).unlink()
    data = dataset(root)
    assert not data[0].truth.mask.any() and data[0].truth.present.all()
    assert dataset(root, "test")[0].truth.mask.any()


def test_test_and_training_share_no_file(make_folder: Make) -> None:
    root = make_folder()
    train = set(dataset(root).ids())
    assert len(train) == 36
    for split in ("val", "test"):
        for key in dataset(root, split).ids():
            assert not train & set(key.replace("|", "+").split("+"))
    everything = dataset(root, val_fold=0)
    assert len(everything.ids()) == 48


# validation and test


@pytest.mark.parametrize("task", ["single", "duet", "multi"])
def test_lists_are_fixed(make_folder: Make, task: str) -> None:
    root = make_folder()
    one, two = dataset(root, "test", task), dataset(root, "test", task, seed=9)
    two.set_epoch(7)
    assert one.ids() == two.ids() == [one[i].key for i in range(len(one))]
    assert all(same(one[i], two[i]) for i in range(len(one)))


def test_every_held_out_photograph_comes_first(make_folder: Make) -> None:
    root = make_folder()
    held = {p.name for p in read_layout(root).photos if p.fold == 5}
    first = [key.split("|")[0].split("+")[0] for key in dataset(root, "test", rounds=3).ids()]
    assert Counter(first) == {name: 3 for name in held}
    assert len(set(dataset(root, "test", "single", rounds=3).ids())) == 3 * len(held)


def test_mixture_is_the_sum_of_the_recordings(make_folder: Make) -> None:
    root = make_folder()
    sample = dataset(root, "test")[0]
    files = [root / "audio" / name for name in sample.key.split("|")[1].split("+")]
    assert len(files) == 2
    assert torch.equal(sample.waveform, mix([cut(decode(f, QUIET), QUIET) for f in files]))


@pytest.mark.parametrize("task", ["duet", "multi"])
def test_one_source_at_a_time(make_folder: Make, task: str) -> None:
    root = make_folder(classes=4)
    together, alone = dataset(root, "test", task), dataset(root, "test", task, sound="one")
    place = 0
    for whole in (together[i] for i in range(len(together))):
        for s in range(int(whole.truth.present.sum())):
            one = alone[place]
            assert torch.equal(one.image, whole.image) and torch.equal(one.truth.mask, whole.truth.mask)
            assert one.truth.present.nonzero().flatten().tolist() == [s]
            assert one.heard.nonzero().flatten().tolist() == [int(whole.truth.classes[s])]
            assert torch.equal(one.seen, whole.seen)
            place += 1
    assert place == len(alone) == len(set(alone.ids()))


def test_a_share_of_training_pictures_sounds_from_one_source(make_folder: Make) -> None:
    root = make_folder()
    alone, mixed = dataset(root, solo_share=1.0), dataset(root, solo_share=0.5, length=400)
    for i in range(len(alone)):
        one = alone[i]
        assert one.heard.sum() == one.truth.present.sum() == 1
        assert torch.equal(one.labels, one.seen) and one.labels.sum() == 2  # the muted one keeps its label
    share = sum(int(mixed[i].heard.sum()) == 1 for i in range(400)) / 400
    assert 0.4 < share < 0.6
    which = {int(alone[i].truth.present.nonzero()) for i in range(len(alone))}
    assert which == {0, 1}
    for split in ("val", "test"):
        assert all(dataset(root, split, solo_share=1.0)[i].heard.sum() == 2 for i in range(3))
    assert dataset(root)[0].labels.equal(dataset(root)[0].heard)
    with pytest.raises(ValueError, match=r"solo_share in \[0, 1\], got 2"):
        dataset(root, solo_share=2)


def test_labels_name_what_sounds_and_not_what_is_merely_seen(make_folder: Make) -> None:
    root = make_folder(classes=4)
    for split, sound in (("train", "mixture"), ("test", "mixture"), ("test", "one")):
        data = dataset(root, split, "multi", sound=sound)
        for sample in (data[i] for i in range(len(data))):
            assert 2 <= sample.labels.sum() <= 3 and bool((sample.labels >= sample.heard).all())
            assert bool((sample.labels <= sample.seen).all()) and sample.seen.sum() == 4
            if sound == "mixture":
                assert torch.equal(sample.labels, sample.heard)


# what is refused


def test_unknown_choices_are_refused(make_folder: Make) -> None:
    root = make_folder()
    with pytest.raises(ValueError, match="split among train, val, test, got 'dev'"):
        dataset(root, "dev")
    with pytest.raises(ValueError, match="task among single, duet, multi, got 'solo'"):
        dataset(root, task="solo")
    with pytest.raises(ValueError, match="sound among mixture, got 'one'"):
        dataset(root, sound="one")
    with pytest.raises(ValueError, match="two different folds"):
        dataset(root, fold=4)
    with pytest.raises(ValueError, match="val_fold from 1"):
        dataset(root, "val", val_fold=0)
    with pytest.raises(IndexError, match="from 0 to 17, got 18"):
        dataset(root)[18]


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        dataset(tmp_path / "nowhere")


def test_one_class_makes_no_duet(make_folder: Make) -> None:
    root = make_folder(classes=1)
    assert len(dataset(root, task="single")) == 6
    with pytest.raises(ValueError, match=r"2 classes or more for duet in train .* got 1"):
        dataset(root)


def spoil(root: Path) -> tuple[Path, Path]:
    """Break a training photograph and a training recording."""
    layout = read_layout(root)
    photo = next(p.path for p in layout.photos if p.fold == 1)
    sound = next(p.path for p in layout.sounds if p.fold == 1)
    photo.write_bytes(photo.read_bytes()[:60])
    sound.write_bytes(b"")
    return photo, sound


def test_bad_files_are_refused_with_the_list(make_folder: Make) -> None:
    root = make_folder()
    photo, sound = spoil(root)
    with pytest.raises(DataError, match=r"2 problem\(s\)") as caught:
        dataset(root)
    assert {p.path for p in caught.value.problems} == {photo, sound}
    assert photo.name in str(caught.value) and sound.name in str(caught.value) and "--skip-bad" in str(caught.value)
    assert len(dataset(root, "test")) == 6  # another split has none of them


def test_skip_bad_leaves_out_counts_and_lists(make_folder: Make) -> None:
    root = make_folder()
    photo, sound = spoil(root)
    data = dataset(root, skip_bad=True)
    assert {p.path for p in data.skipped} == {photo, sound}
    assert len(data) == 17 and len(data.ids()) == 34
    used = {name for epoch in range(3) for i in range(17) for name in names(data, epoch, i)}
    assert used == set(data.ids())  # the others are all used, those two never


def names(data: FolderDataset, epoch: int, index: int) -> list[str]:
    data.set_epoch(epoch)
    return data[index].key.split(":")[2].replace("|", "+").split("+")


def test_test_photographs_need_masks(make_folder: Make) -> None:
    root = make_folder()
    photo = next(p for p in read_layout(root).photos if p.fold == 5)
    (root / "masks" / photo.name).unlink()
    with pytest.raises(DataError, match=r"expected a mask at .* to score against"):
        dataset(root, "test")
    assert len(dataset(root, "test", skip_bad=True)) == 5


def test_a_class_without_sound_keeps_its_number_when_skipped(make_folder: Make) -> None:
    root = make_folder()
    for file in (root / "audio" / "cat").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"audio/cat: no usable file"):
        dataset(root)
    data = dataset(root, skip_bad=True)
    assert data.classes == ("bell", "cat", "drum")
    assert {c for i in range(len(data)) for c in data[i].truth.classes.tolist()} == {0, 2}


def test_without_memory_for_a_cache_samples_are_the_same(make_folder: Make) -> None:
    root = make_folder()
    kept, anew = dataset(root), dataset(root, cache_mb=0)
    assert kept._cache.used > 0 == anew._cache.used
    assert all(same(kept[i], anew[i]) for i in range(6))


def test_cache_is_bounded() -> None:
    cache, made = Cache(10), []

    def get(key: int) -> int:
        return cache(key, lambda: made.append(key) or key, lambda _: 4)

    assert [get(k) for k in (1, 2, 3, 1, 2, 3)] == [1, 2, 3, 1, 2, 3]
    assert made == [1, 2, 3, 3] and cache.used == 8


def test_random_cut_is_used_in_training_alone(make_folder: Make) -> None:
    root = make_folder()
    chance = replace(QUIET, crop="random")
    config = FolderConfig(str(root), size=24)
    train, held = (FolderDataset(config, split, "single", audio=chance) for split in ("train", "test"))
    assert torch.equal(held[0].waveform, dataset(root, "test", "single")[0].waveform)
    assert not torch.equal(train[0].waveform, dataset(root, "train", "single")[0].waveform)


def test_photosound(photosound: Path) -> None:
    data = FolderDataset(FolderConfig(str(photosound), size=64), "test", "duet")
    assert len(data) == 108 and data.name == "photosound" and len(data.classes) == 12
    sample = data[3]
    assert sample.image.shape == (3, 64, 128) and sample.waveform.shape == (66150,)
    areas = torch.stack([data[i].truth.mask.mean((1, 2)) * 2 for i in range(len(data))])
    assert len({int(data[i].truth.classes[0]) for i in range(32)}) == 12  # the classes are mixed
    assert areas.min() > 0.005 and 0.2 < areas.mean() < 0.35  # classes.csv: 0.11 to 0.37


def test_photograph_of_one_colour_stays_rgb(make_folder: Make) -> None:
    root = make_folder()
    for file in (root / "images").glob("*/*.png"):
        Image.open(file).convert("L").save(file)
    assert dataset(root)[0].image.shape == (3, 24, 48)
