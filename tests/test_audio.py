from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy import signal

from m2vsl.audio import (
    AUDIO,
    AudioConfig,
    augment,
    blanked,
    cut,
    decode,
    load,
    log_spectrogram,
    mix,
    mix_spectrograms,
    read,
    resample,
    stripes,
    tukey,
)

GOLDEN = Path(__file__).parent / "golden" / "audio.npz"
PAPER = AUDIO["paper300"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sine(rate: int, seconds: float, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


# files


@pytest.mark.parametrize(("ending", "loss"), [("wav", 1e-4), ("flac", 1e-4), ("ogg", 0.05), ("mp3", 0.1)])
def test_reads_each_format(tmp_path: Path, ending: str, loss: float) -> None:
    soundfile.write(tmp_path / f"a.{ending}", sine(22050, 1), 22050)
    wave, rate = read(tmp_path / f"a.{ending}")
    assert rate == 22050 and wave.dtype == torch.float32 and wave.ndim == 1
    # lossy formats may pad the ends: compare what is in the middle
    assert abs(len(wave) - 22050) < 2500
    assert wave[5000:15000].square().mean().sqrt().item() == pytest.approx(0.5 / math.sqrt(2), abs=loss)


def test_mono_is_the_mean_of_the_channels(tmp_path: Path) -> None:
    left, right = sine(8000, 0.5), sine(8000, 0.5, 100)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), 8000, subtype="FLOAT")
    torch.testing.assert_close(read(tmp_path / "a.wav")[0], torch.from_numpy((left + right) / 2))


def test_loud_floats_are_clipped(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", 4 * sine(8000, 0.5), 8000, subtype="FLOAT")
    assert read(tmp_path / "a.wav")[0].abs().max() == 1


def _nan(path: Path) -> None:
    soundfile.write(path, np.array([0.1, np.nan, 0.2], np.float32), 8000, subtype="FLOAT")


def _infinite(path: Path) -> None:
    soundfile.write(path, np.array([0.1, np.inf, 0.2], np.float32), 8000, subtype="FLOAT")


def _no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0, np.float32), 8000)


def _no_bytes(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("not a sound")


@pytest.mark.parametrize(
    ("write", "says"),
    [(_nan, "NaN"), (_infinite, "infinity"), (_no_samples, "zero length"), (_no_bytes, "decoded"), (_text, "decoded")],
)
def test_unusable_file_is_named(tmp_path: Path, write, says: str) -> None:
    write(tmp_path / "bad.wav")
    with pytest.raises(ValueError, match=f"bad.wav.*{says}"):
        read(tmp_path / "bad.wav")


def test_truncated_flac_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 40000).astype(np.float32), 8000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"cut\.flac"):
        read(path)


def test_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.wav"):
        read(Path("nowhere.wav"))


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000])
def test_any_rate_comes_out_as_the_same_tone(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", sine(rate, 3, 1000), rate, subtype="FLOAT")
    wave = load(tmp_path / "a.wav", PAPER)
    assert wave.shape == (66150,)
    middle = slice(1000, -1000)  # filters ring at the ends
    expected = torch.from_numpy(sine(22050, 3, 1000))
    torch.testing.assert_close(wave[middle], expected[middle], atol=2e-3, rtol=0)


def test_a_rate_without_common_divisor_is_refused_with_the_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "odd.wav", sine(44101, 0.1), 44101)
    with pytest.raises(ValueError, match=r"odd\.wav.*44101 Hz"):
        decode(tmp_path / "odd.wav", PAPER)


def test_resample_keeps_the_length() -> None:
    assert len(resample(torch.zeros(64000), 16000, 22050)) == 88200


# the cut


def test_cut_is_centred() -> None:
    config = AudioConfig(rate=10, seconds=1)
    assert cut(torch.arange(20.0), config).tolist() == list(range(5, 15))
    assert cut(torch.arange(20.0), replace(config, crop="first")).tolist() == list(range(10))
    assert cut(torch.arange(4.0), config).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]  # repeated
    assert cut(torch.arange(20.0), config, generator()).tolist() == list(range(5, 15))  # chance only where asked for


def test_random_cut_reaches_every_place_and_is_centred_without_generator() -> None:
    config, chance = AudioConfig(rate=10, seconds=1, crop="random"), generator()
    starts = {int(cut(torch.arange(14.0), config, chance)[0]) for _ in range(200)}
    assert starts == {0, 1, 2, 3, 4}
    assert cut(torch.arange(20.0), config)[0] == 5


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="crop among centre, first, random, got 'middle'"):
        AudioConfig(crop="middle")
    with pytest.raises(ValueError, match="mixing among sum, mean, rms, got 'max'"):
        AudioConfig(mixing="max")
    with pytest.raises(ValueError, match="got 'max'"):
        mix([torch.zeros(3)], "max")


# mixtures


def test_mixtures() -> None:
    a, b = torch.tensor([1.0, -1.0, 1.0, -1.0]), torch.tensor([0.5, 0.5, 0.5, 0.5])
    assert mix([a, b]).tolist() == [1.5, -0.5, 1.5, -0.5]  # neither halved nor clipped
    assert mix([a, b], "mean").tolist() == [0.75, -0.25, 0.75, -0.25]
    torch.testing.assert_close(mix([a, b], "rms"), torch.tensor([0.1, 0.0, 0.1, 0.0]))
    assert mix([torch.zeros(4), torch.zeros(4)], "rms").tolist() == [0] * 4


# spectrograms


@pytest.mark.parametrize(("name", "frames"), [("ezvsl276", slice(0, 40)), ("paper300", slice(None, None, 10))])
def test_reference_values(name: str, frames: slice) -> None:
    golden, config = np.load(GOLDEN), AUDIO[name]
    got = log_spectrogram(torch.from_numpy(golden["wave_22050"])[None], config)[0, 0] * config.scale
    np.testing.assert_allclose(got[golden["bins"], frames], golden[f"{name}_rows"], atol=3e-6, rtol=0)


@pytest.mark.parametrize("name", AUDIO)
def test_against_scipy(name: str) -> None:
    config = AUDIO[name]
    wave = torch.randn(2, config.samples, generator=generator()) * torch.tensor([[0.3], [1e-3]])
    padded = torch.nn.functional.pad(wave, (0, max(config.pad_to - config.samples, 0)))
    _, _, power = signal.spectrogram(
        padded.double().numpy(), config.rate, nperseg=config.n_fft, noverlap=config.n_fft - config.hop_samples
    )
    got = log_spectrogram(wave, config)
    assert got.shape == (2, 1, *config.shape) and got.is_contiguous() and got.dtype == torch.float32
    np.testing.assert_allclose(got[:, 0] * 12, np.log(power + 1e-7), atol=3e-6, rtol=0)


def test_shapes_of_the_presets() -> None:
    assert {name: config.shape for name, config in AUDIO.items()} == {
        "paper300": (257, 300),
        "ezvsl276": (257, 276),
        "literal": (552, 119),
    }


def test_silence_has_the_documented_value() -> None:
    got = log_spectrogram(torch.zeros(1, 66150), PAPER)
    torch.testing.assert_close(got, torch.full_like(got, -16.118095650958319 / 12))


def test_a_constant_offset_is_silence() -> None:
    got = log_spectrogram(torch.full((1, 66150), 0.25), AUDIO["ezvsl276"])
    torch.testing.assert_close(got, torch.full_like(got, math.log(1e-7) / 12))


def test_a_batch_is_its_rows() -> None:
    waves = torch.randn(5, 66150, generator=generator())
    rows = torch.cat([log_spectrogram(wave[None], PAPER) for wave in waves])
    assert torch.equal(log_spectrogram(waves, PAPER), rows)


def test_waveforms_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B, n\), got shape \(66150,\)"):
        log_spectrogram(torch.zeros(66150), PAPER)


def test_tukey_is_the_periodic_window() -> None:
    for n in (8, 512, 1102):
        np.testing.assert_allclose(tukey(n), signal.get_window(("tukey", 0.25), n, fftbins=True), atol=1e-12)


# what training varies


def test_augment_stays_within_its_bounds() -> None:
    config, wave = replace(PAPER, gain_db=6, roll_seconds=0.25), torch.zeros(66150)
    wave[30000] = 0.1
    chance = generator()
    heard = [augment(wave, config, chance) for _ in range(300)]
    gains = 20 * torch.tensor([w.max().item() / 0.1 for w in heard]).log10()
    places = torch.tensor([w.argmax().item() - 30000 for w in heard]) / 22050
    assert gains.abs().max() <= 6.0001 and gains.min() < -5 and gains.max() > 5
    assert places.abs().max() <= 0.2501 and places.min() < -0.2 and places.max() > 0.2
    assert wave.count_nonzero() == 1  # the input stays as it was


def test_augment_switched_off_changes_nothing() -> None:
    wave = torch.randn(1000, generator=generator())
    off = replace(PAPER, gain_db=0, roll_seconds=0, noise=0)
    assert torch.equal(augment(wave, off, generator()), wave)
    noisy = augment(wave, replace(off, noise=0.5), generator())
    assert 0 < (noisy - wave).std() < 0.6 * wave.std()


def test_augment_is_a_function_of_the_generator() -> None:
    wave, config = torch.randn(1000, generator=generator()), replace(PAPER, noise=0.1)
    assert torch.equal(augment(wave, config, generator(3)), augment(wave, config, generator(3)))
    assert not torch.equal(augment(wave, config, generator(3)), augment(wave, config, generator(4)))


def test_stripes_are_of_bounded_size() -> None:
    blank = stripes(64, replace(PAPER, masks=1, mask_bins=20, mask_frames=30), generator())
    bins, frames = PAPER.shape
    rows, columns = blank.all(2).sum(1), blank.all(1).sum(1)
    assert blank.shape == (64, bins, frames) and blank.dtype == torch.bool
    assert 15 < rows.max() <= 21 and 25 < columns.max() <= 31
    assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) > 30  # each sample has its own
    others = blank.sum((1, 2)) - rows * frames - columns * bins + rows * columns
    assert (others == 0).all()  # nothing but the stripes
    assert not stripes(64, replace(PAPER, masks=0), generator()).any()


def test_blanked_cells_take_the_mean() -> None:
    spectrogram, blank = torch.randn(2, 1, 100, 200, generator=generator()), torch.zeros(2, 100, 200).bool()
    blank[0, 3], blank[1, :, 5:8] = True, True
    before, masked = spectrogram.clone(), blanked(spectrogram, blank)
    assert torch.equal(spectrogram, before)
    assert torch.equal(masked[:, 0] != spectrogram[:, 0], blank)
    for row, own, cells in zip(masked, spectrogram, blank, strict=True):
        assert torch.allclose(row[0, cells], own.mean())


def test_real_recordings_load(photosound: Path) -> None:
    files = sorted(photosound.glob("audio/*/*.flac"))[::60]
    waves = torch.stack([load(file, PAPER) for file in files])
    assert waves.shape == (len(files), 66150) and waves.abs().max() <= 1.05  # resampling may overshoot
    assert torch.isfinite(log_spectrogram(waves, PAPER)).all()


def test_mixed_spectrograms_are_nearly_those_of_the_mixture() -> None:
    config = AUDIO["paper300"]
    waves = torch.randn(2, config.samples, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(0, 1, config.samples) ** 2
    waves = waves * torch.stack([ramp, ramp.flip(0)]) * 0.1
    one, other = log_spectrogram(waves, config)
    both, mixed = log_spectrogram(waves.sum(0, keepdim=True), config)[0], mix_spectrograms(one, other)
    off = (mixed - both).abs() * config.scale  # nats
    assert off.median() < torch.tensor(2.0).log() and torch.equal(mixed, mix_spectrograms(other, one))
    assert (one - both).abs().median() * config.scale > 2 * off.median()
