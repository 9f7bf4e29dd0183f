from __future__ import annotations

import threading
from dataclasses import dataclass, fields, replace

import pytest
import torch

from m2vsl.audio import AUDIO, log_spectrogram
from m2vsl.data.loader import batches, collate, seeded
from m2vsl.types import Batch, Sample, Truth

AUDIO_SHORT = replace(AUDIO["paper300"], seconds=0.1, pad_to=0)


@dataclass
class Noise:
    """Samples that are functions of (epoch, index), with one to three sources; sample `broken` raises."""

    length: int = 10
    classes: tuple[str, ...] = ("a", "b", "c", "d")
    epoch: int = 0
    broken: int = -1

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> Sample:
        if index == self.broken:
            raise ValueError(f"sample {index} is broken")
        chance, sources = seeded(self.epoch, index), 1 + index % 3
        return Sample(
            key=f"{self.epoch}:{index}",
            image=torch.rand(3, 8, 8, generator=chance),
            waveform=torch.randn(AUDIO_SHORT.samples, generator=chance),
            heard=torch.eye(4)[index % 4],
            seen=torch.eye(4)[index % 4],
            labels=torch.eye(4)[index % 4],
            mixture=index,
            truth=Truth(
                torch.ones(sources, 8, 8), torch.arange(sources), torch.tensor([True] + [False] * (sources - 1))
            ),
        )


def equal(a: Batch, b: Batch) -> bool:
    values = [(getattr(x, f.name), getattr(y, f.name)) for x, y in ((a, b), (a.truth, b.truth)) for f in fields(x)]
    return a.keys == b.keys and all(torch.equal(v, w) for v, w in values if isinstance(v, torch.Tensor))


def all_equal(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))


def test_collate_pads_sources() -> None:
    data = Noise()
    batch = collate([data[0], data[1], data[2]], AUDIO_SHORT)
    assert batch.image.shape == (3, 3, 8, 8) and batch.heard.shape == batch.seen.shape == (3, 4)
    assert batch.truth.mask.shape == (3, 3, 8, 8)
    assert batch.truth.classes.tolist() == [[0, -1, -1], [0, 1, -1], [0, 1, 2]]
    assert batch.truth.present.tolist() == [[True, False, False]] * 3
    assert batch.truth.mask.mean((2, 3)).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert batch.mixture.tolist() == [0, 1, 2] and batch.mixture.dtype == torch.int64
    assert batch.keys == ("0:0", "0:1", "0:2")


def test_collate_makes_the_spectrograms() -> None:
    samples = [Noise()[i] for i in range(3)]
    waves = torch.stack([s.waveform for s in samples])
    plain, masked = collate(samples, AUDIO_SHORT), collate(samples, AUDIO_SHORT, seeded(1))
    assert torch.equal(plain.spectrogram, log_spectrogram(waves, AUDIO_SHORT))
    assert not torch.equal(masked.spectrogram, plain.spectrogram)
    unmasked = collate(samples, replace(AUDIO_SHORT, masks=0), seeded(1))
    assert torch.equal(unmasked.spectrogram, plain.spectrogram)


def test_collate_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        collate([], AUDIO_SHORT)
    small = replace(Noise()[0], image=torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"one shape, got \[\(3, 4, 4\), \(3, 8, 8\)\]"):
        collate([Noise()[0], small], AUDIO_SHORT)


def test_every_sample_comes_once_in_order() -> None:
    made = list(batches(Noise(), 4, AUDIO_SHORT))
    assert [k for batch in made for k in batch.keys] == [f"0:{i}" for i in range(10)]
    assert [len(batch) for batch in made] == [4, 4, 2]


def test_shuffled_order_depends_on_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        made = batches(Noise(30), 4, AUDIO_SHORT, seed=seed, epoch=epoch, shuffle=True)
        keys = [key.split(":") for batch in made for key in batch.keys]
        assert {e for e, _ in keys} == {str(epoch)}  # the dataset was told
        return [int(i) for _, i in keys]

    assert sorted(order(0, 0)) == list(range(30)) != order(0, 0)
    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) and order(0, 0) != order(1, 0)


def test_drop_last_and_lengths() -> None:
    assert len(batches(Noise(), 4, AUDIO_SHORT)) == 3
    dropped = batches(Noise(), 4, AUDIO_SHORT, drop_last=True)
    assert len(dropped) == len(list(dropped)) == 2
    assert len(batches(Noise(), 4, AUDIO_SHORT, start_step=2)) == 1
    with pytest.raises(ValueError, match="batch size of at least 1, got 0"):
        batches(Noise(), 0, AUDIO_SHORT)


def test_stripes_are_blanked_where_shuffled_unless_told_otherwise() -> None:
    def first(**options: bool) -> Batch:
        return batches(Noise(), 10, AUDIO_SHORT, **options)[0]

    plain = first()
    assert not torch.equal(first(augment=True).spectrogram, plain.spectrogram)
    shuffled, untouched = first(shuffle=True), first(shuffle=True, augment=False)
    assert shuffled.keys == untouched.keys and not torch.equal(shuffled.spectrogram, untouched.spectrogram)


def test_batches_lie_where_a_gpu_can_fetch_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: pinned.append(x) or x)
    plain = list(batches(Noise(), 5, AUDIO_SHORT, prefetch=0))
    assert not pinned
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert all_equal(list(batches(Noise(), 5, AUDIO_SHORT, prefetch=0)), plain) and len(pinned) == 2 * 9


def test_spectrograms_can_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same batches, bit by bit; what a loader hands on is waveforms, which are fewer numbers."""
    how = {"seed": 3, "shuffle": True, "prefetch": 0}
    plain, waiting = (
        batches(Noise(), 5, AUDIO_SHORT, **how),
        batches(Noise(), 5, AUDIO_SHORT, sounds_on_device=True, **how),
    )
    assert [batch.spectrogram.shape for batch in waiting] == [(5, AUDIO_SHORT.samples)] * 2
    made = [batch.to("cpu") for batch in waiting]
    assert all_equal(made, list(plain)) and {type(batch) for batch in made} == {Batch}
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: x)
    assert all_equal([batch.pin_memory().to("cpu") for batch in waiting], made)


def test_processes_share_each_batch_row_by_row() -> None:
    how = {"seed": 3, "shuffle": True, "drop_last": True, "prefetch": 0}
    whole = list(batches(Noise(), 4, AUDIO_SHORT, **how))
    parts = [list(batches(Noise(), 4, AUDIO_SHORT, **how, part=(k, 2))) for k in (0, 1)]
    for batch, one, two in zip(whole, *parts, strict=True):
        assert one.keys + two.keys == batch.keys
        assert torch.equal(torch.cat([one.spectrogram, two.spectrogram]), batch.spectrogram), "blanked alike"
    for wrong in ({"batch_size": 3, "drop_last": True}, {"batch_size": 4, "drop_last": False}):
        with pytest.raises(ValueError, match="a multiple of 2 processes"):
            batches(Noise(), audio=AUDIO_SHORT, part=(0, 2), **wrong)


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_resumed_in_the_middle(prefetch: int) -> None:
    options = {"seed": 3, "epoch": 2, "shuffle": True, "prefetch": prefetch}
    whole = list(batches(Noise(), 3, AUDIO_SHORT, **options))
    rest = list(batches(Noise(), 3, AUDIO_SHORT, **options, start_step=2))
    assert all_equal(rest, whole[2:])
    assert equal(batches(Noise(), 3, AUDIO_SHORT, **options)[1], whole[1])
    assert list(batches(Noise(), 3, AUDIO_SHORT, **options, start_step=9)) == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_and_threads_change_nothing() -> None:
    options = {"seed": 1, "epoch": 5, "shuffle": True}
    plain = list(batches(Noise(), 3, AUDIO_SHORT, **options, prefetch=0))
    assert all_equal(list(batches(Noise(), 3, AUDIO_SHORT, **options, prefetch=2)), plain)
    assert all_equal(list(batches(Noise(), 3, AUDIO_SHORT, **options, workers=2, start_step=1)), plain[1:])


@pytest.mark.parametrize("prefetch", [0, 2])
def test_errors_arrive_at_their_place(prefetch: int) -> None:
    made = iter(batches(Noise(broken=5), 2, AUDIO_SHORT, prefetch=prefetch))
    assert [next(made).keys, next(made).keys] == [("0:0", "0:1"), ("0:2", "0:3")]
    with pytest.raises(ValueError, match="sample 5 is broken"):
        next(made)


def test_a_reader_that_stops_early_leaves_no_thread() -> None:
    made = iter(batches(Noise(100), 2, AUDIO_SHORT, prefetch=3))
    next(made)
    assert any(thread.name == "batches" for thread in threading.enumerate())
    made.close()
    assert not any(thread.name == "batches" for thread in threading.enumerate())


def test_seeded_streams() -> None:
    def draw(*key: object) -> float:
        return torch.rand((), generator=seeded(*key)).item()

    assert draw("a", 1, 2) == draw("a", 1, 2)
    assert len({draw("a", i, j) for i in range(30) for j in range(30)}) == 900
    assert draw("a", 11, 1) != draw("a", 1, 11) != draw("a", 1, 1, 1)
