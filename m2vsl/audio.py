"""Sound: from a file to 3 s of mono waveform, from waveforms to a log spectrogram (paper, section 4.1; protocol 1.5).

The one module that uses torchaudio. The paper's window (50 ms), hop (25 ms) and tensor shape (257 x 300) cannot hold
together: `AUDIO` names the three readings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

MIXINGS = ("sum", "mean", "rms")
CROPS = ("centre", "first", "random")


@dataclass(frozen=True)
class AudioConfig:
    """The cut, the spectrogram, and what is varied in training."""

    rate: int = 22050  # Hz, every file is resampled to it; ledger 2
    seconds: float = 3.0  # length of the cut
    crop: str = "centre"  # or "first", or "random" in training and centred elsewhere; ledger 3
    mixing: str = "sum"  # of the waveforms, or "mean", or "rms" = the mean of waveforms brought to RMS 0.1; ledger 22
    n_fft: int = 512  # samples of a segment; ledger 1
    hop_samples: int = 220  # between the starts of two segments; ledger 1
    pad_to: int = 66292  # samples, zeros at the end; 0 = no padding; ledger 1
    log_offset: float = 1e-7  # added to the power before the logarithm
    scale: float = 12.0  # divides the logarithm
    gain_db: float = 6.0  # training: loudness varied by up to +- this much; 0 = not; ledger 41
    roll_seconds: float = 0.25  # training: circular shift by up to +- this much; 0 = not; ledger 41
    noise: float = 0.0  # training: white noise of up to this share of the waveform's RMS; 0 = none; ledger 41
    masks: int = 1  # training: stripes blanked per axis of the spectrogram; 0 = none; ledger 41
    mask_bins: int = 32  # largest height of a stripe, frequency bins
    mask_frames: int = 40  # largest width of a stripe, frames

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise ValueError(f"expected crop among {', '.join(CROPS)}, got {self.crop!r}")
        if self.mixing not in MIXINGS:
            raise ValueError(f"expected mixing among {', '.join(MIXINGS)}, got {self.mixing!r}")

    @property
    def samples(self) -> int:
        """Length of the cut at `rate`."""
        return int(self.rate * self.seconds)

    @property
    def shape(self) -> tuple[int, int]:
        """(F, T) of the spectrogram: frequency bins, frames."""
        return self.n_fft // 2 + 1, (max(self.samples, self.pad_to) - self.n_fft) // self.hop_samples + 1


AUDIO = {
    "paper300": AudioConfig(),  # the shape that the paper prints, 257 x 300; 23 ms window, 10 ms hop
    "ezvsl276": AudioConfig(hop_samples=238, pad_to=0),  # EZ-VSL's code, 257 x 276
    "literal": AudioConfig(n_fft=1102, hop_samples=551, pad_to=0),  # the paper's 50 ms and 25 ms, 552 x 119
}


def read(path: Path) -> tuple[Tensor, int]:
    """A sound file as (waveform (n,) float32 mono in [-1, 1], rate in Hz): wav, flac, ogg, mp3, any channel count.

    Mono is the mean of the channels. Raises FileNotFoundError, or ValueError naming the file if it cannot be decoded,
    ends early, holds no samples, or holds values that are not finite.
    """
    import soundfile

    if not path.is_file():
        raise FileNotFoundError(f"sound file not found: {path}")
    try:
        with soundfile.SoundFile(path) as file:
            expected, rate = file.frames, file.samplerate
            wave = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise ValueError(f"{path}: cannot be decoded as sound ({error})") from error
    if len(wave) == 0:
        raise ValueError(f"{path}: expected a recording, got one of zero length")
    if len(wave) < 0.99 * expected:  # the length in an mp3's header is an estimate
        raise ValueError(f"{path}: expected {expected} samples as its header says, got {len(wave)}: truncated")
    mono = torch.from_numpy(wave).mean(1)
    if not torch.isfinite(mono).all():
        raise ValueError(f"{path}: expected finite samples, got NaN or infinity")
    return mono.clamp(-1, 1), rate


def resample(wave: Tensor, rate: int, to: int) -> Tensor:
    """(n,) at `rate` Hz -> (ceil(n * to / rate),) at `to` Hz, band-limited (torchaudio's windowed sinc)."""
    if rate == to:
        return wave
    from torchaudio.functional import resample as sinc

    common = math.gcd(rate, to)
    if (rate // common) * (to // common) > 100_000_000:  # the filter bank would need gigabytes
        raise ValueError(f"expected a sample rate with a common divisor with {to} Hz, got {rate} Hz: convert the file")
    return sinc(wave, rate, to)


def decode(path: Path, config: AudioConfig) -> Tensor:
    """The whole recording, (n,) at ``config.rate``. Errors as `read`."""
    wave, rate = read(path)
    try:
        return resample(wave, rate, config.rate)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def cut(wave: Tensor, config: AudioConfig, generator: torch.Generator | None = None) -> Tensor:
    """(n,) -> (config.samples,): centred, first or, given a generator, anywhere; short waveforms are repeated."""
    need = config.samples
    if len(wave) < need:
        return wave.repeat(-(-need // len(wave)))[:need]
    spare = len(wave) - need
    start = 0 if config.crop == "first" else spare // 2
    if config.crop == "random" and generator is not None:
        start = int(torch.randint(spare + 1, (), generator=generator))
    return wave[start : start + need]


def load(path: Path, config: AudioConfig, generator: torch.Generator | None = None) -> Tensor:
    """The (config.samples,) of a file that a model hears. Errors as `read`."""
    return cut(decode(path, config), config, generator)


def mix(waves: Sequence[Tensor], mixing: str = "sum") -> Tensor:
    """Waveforms (n,) sounding together, (n,). Ledger 22: "sum" neither halves nor clips (AVGN).

    "rms" brings each to a root mean square of 0.1 before the mean (Mix-and-Localize); silence stays silence.
    """
    stack = torch.stack(list(waves))  # (S, n)
    if mixing == "sum":
        return stack.sum(0)
    if mixing == "rms":
        stack = stack * (0.1 / stack.square().mean(1, keepdim=True).sqrt().clamp_min(1e-8))
    elif mixing != "mean":
        raise ValueError(f"expected mixing among {', '.join(MIXINGS)}, got {mixing!r}")
    return stack.mean(0)


def mix_spectrograms(one: Tensor, other: Tensor) -> Tensor:
    """Two log spectrograms (..., F, T) sounding together: the louder of each two cells.

    Powers of independent sounds add, and the logarithm of a sum is nearly the larger of two logarithms (ln 2 apart at
    most). For methods that mix solos inside a batch, where waveforms are no longer there.
    """
    return torch.maximum(one, other)


def tukey(n: int, taper: float = 0.25) -> Tensor:
    """Periodic Tukey window (n,), float64: cosine flanks over `taper` of its length, flat between."""
    place = torch.arange(n, dtype=torch.float64) / n
    edge = torch.minimum(place, 1 - place) * 2 / taper  # 0 at either end, 1 where the flat part begins
    return 0.5 * (1 - torch.cos(math.pi * edge.clamp(max=1.0)))


def log_spectrogram(waves: Tensor, config: AudioConfig) -> Tensor:
    """Log power spectral density, (B, n) -> (B, 1, F, T) float32 (protocol 1.5; SciPy's ``spectrogram``).

    Segments of ``n_fft`` without their mean under a Tukey window; squared magnitude over rate and window energy,
    doubled except at 0 Hz and Nyquist; ln(. + log_offset) / scale. Silence gives ln(1e-7) / 12 = -16.118 / 12.
    """
    if waves.ndim != 2:
        raise ValueError(f"expected waveforms (B, n), got shape {tuple(waves.shape)}")
    if waves.shape[1] < config.pad_to:
        waves = torch.nn.functional.pad(waves, (0, config.pad_to - waves.shape[1]))
    together = 2 if waves.device.type == "cpu" else len(waves)  # the segments of two fit a processor's cache
    return torch.cat([_log_power(some, config) for some in waves.split(together)]).unsqueeze(1)


def _log_power(waves: Tensor, config: AudioConfig) -> Tensor:
    """(b, n) -> (b, F, T). Float64 until the logarithm: quiet bins of loud segments need it."""
    window = tukey(config.n_fft).to(waves.device)
    gain = 1 / (config.rate * window.square().sum())
    segments = waves.double().unfold(-1, config.n_fft, config.hop_samples)  # (b, T, n_fft)
    segments = (segments - segments.mean(-1, keepdim=True)).mul_(window * gain.sqrt())
    spectrum = torch.fft.rfft(segments)  # (b, T, F)
    power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
    power[..., 1 : -1 if config.n_fft % 2 == 0 else None] *= 2
    return power.add_(config.log_offset).float().log_().div_(config.scale).transpose(1, 2)


def augment(wave: Tensor, config: AudioConfig, generator: torch.Generator) -> Tensor:
    """(n,) -> (n,): loudness, circular shift and noise varied within the bounds of `config` (ledger 41)."""
    gain, shift, level = (2 * torch.rand(3, generator=generator) - 1).tolist()
    wave = wave * 10 ** (gain * config.gain_db / 20)
    wave = wave.roll(round(shift * config.roll_seconds * config.rate)) if config.roll_seconds else wave
    if config.noise:
        loudness = wave.square().mean().sqrt() * config.noise * abs(level)
        wave = wave + loudness * torch.randn(len(wave), generator=generator)
    return wave


def stripes(batch: int, config: AudioConfig, generator: torch.Generator, part: tuple[int, int] = (0, 1)) -> Tensor:
    """Cells (B, F, T) of ``masks`` stripes of frequencies and of frames in each spectrogram, bool. Ledger 41.

    part: (k, n) for the k-th of n equal parts of a batch: its rows have the stripes that they have in the whole. A
    stripe has any height up to ``mask_bins`` or width up to ``mask_frames`` (SpecAugment, Park et al., 2019).
    """
    bins, frames = config.shape
    own, whole = slice(part[0] * batch, (part[0] + 1) * batch), part[1] * batch
    blank = torch.zeros(batch, bins, frames, dtype=torch.bool)
    for _ in range(config.masks):
        blank |= _stripe(whole, bins, config.mask_bins, generator)[own, :, None]
        blank |= _stripe(whole, frames, config.mask_frames, generator)[own, None, :]
    return blank


def blanked(spectrogram: Tensor, blank: Tensor) -> Tensor:
    """(B, 1, F, T), its cells in `blank`, (B, F, T) bool, at the mean of their spectrogram: a new tensor."""
    return torch.where(blank[:, None], spectrogram.mean((-2, -1), keepdim=True), spectrogram)


def _stripe(batch: int, length: int, largest: int, generator: torch.Generator) -> Tensor:
    """(B, length) bool: one run of true values per row, at any place, of any width up to `largest`."""
    width, start = torch.rand(2, batch, 1, generator=generator)
    width = width * min(largest, length)
    start = start * (length - width)
    place = torch.arange(length)
    return (place >= start) & (place < start + width)


def remixed(spectrogram: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
    """A batch's sounds (B, 1, F, T) with their labels (B, C), and each once more mixed with another: 2 B of both."""
    other = torch.randperm(len(heard), device=heard.device)
    both = mix_spectrograms(spectrogram, spectrogram[other])
    return torch.cat([spectrogram, both]), torch.cat([heard, torch.maximum(heard, heard[other])])
