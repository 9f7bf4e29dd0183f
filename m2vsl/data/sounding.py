"""The sounds of the synthetic set: twelve timbres, each a small synthesiser whose every note is drawn anew.

A sound is a phrase: notes of one timbre at onsets of a loose rhythm, around one pitch drawn over an octave or more,
with drawn attack, decay and loudness, over a faint noise. Nothing but the timbre is the same twice.

Sources: plucked string after Karplus and Strong (1983), its loop written as the decay of each harmonic; bell by
frequency modulation after Chowning (1973); voice as harmonics under formants (Peterson and Barney, 1952).

Conventions
    Sounds are (n,) float32, mono; time in seconds from the onset of a note; pitch in Hz; amplitudes below 1 for each
    sound alone (a sum of several may pass it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Wave = NDArray[Any]  # (n,) float32  # (n,)

TABLE = 2048  # samples of one period in a wavetable
TURN = np.float32(2 * np.pi)
LEVEL, CREST = 0.08, 0.45  # root mean square and largest value of a sound at 0 dB, whichever is reached first
LOUDNESS = 6.0  # dB up or down
FLOOR = (-50.0, -32.0)  # of the background noise, dB below LEVEL
NOISE_SEED, NOISE_SAMPLES = 20240901, 1 << 19  # of the noise that is cut up and reused


@lru_cache(maxsize=1)
def _noise() -> Wave:
    """White noise, deviation 1, made once per process."""
    return np.random.default_rng(NOISE_SEED).standard_normal(NOISE_SAMPLES, dtype=np.float32)


def _hiss(rng: Generator, samples: int) -> Wave:
    """White noise of deviation 1: a random piece of the table, or fresh if it is too short."""
    if samples > NOISE_SAMPLES // 2:
        return rng.standard_normal(samples, dtype=np.float32)
    start = int(rng.integers(NOISE_SAMPLES - samples))
    return _noise()[start : start + samples]


def _drift(rng: Generator, t: Wave, per_second: float) -> Wave:
    """A smooth random course, deviation about 1, with `per_second` free values a second."""
    knots = rng.standard_normal(int(t[-1] * per_second) + 3)
    place = t * np.float32(per_second)
    left = place.astype(np.int32)
    start, step = knots[:-1].astype(np.float32), np.diff(knots).astype(np.float32)
    return start[left] + step[left] * (place - left)


def _harmonics(weights: NDArray[np.float64], turns: Wave) -> Wave:
    """Harmonics k = 1, 2, ... of amplitude `weights` at the phase `turns` (cycles), read off a table of one period."""
    spectrum = np.zeros(TABLE // 2 + 1, complex)
    spectrum[1 : len(weights) + 1] = weights * np.exp(1j * 2.4 * np.arange(len(weights)) ** 2)  # phases without a peak
    table = np.fft.irfft(spectrum, TABLE).astype(np.float32)
    table /= np.abs(table).max()
    return table[(turns * np.float32(TABLE)).astype(np.int32) & (TABLE - 1)]


def _partials(pitch: float, rate: int, most: int) -> NDArray[np.float64]:
    """1, 2, ... up to `most` harmonics, as many as stay well below half the rate."""
    return np.arange(1.0, max(min(most, int(0.42 * rate / pitch)), 1) + 1)


def _bell(rng: Generator, pitch: float, t: Wave, rate: int) -> Wave:
    ring, ratio = np.float32(rng.uniform(0.5, 1.2)), np.float32((1.4, 2.76, 3.5)[rng.integers(3)])
    fading = np.exp(-t / ring)
    strength = np.float32(min(rng.uniform(1.5, 4.0), (0.4 * rate / pitch - 1) / float(ratio)))  # stays below Nyquist
    carrier = TURN * np.float32(pitch) * t
    return np.sin(carrier + strength * fading * np.sin(carrier * ratio)) * fading


def _string(rng: Generator, pitch: float, t: Wave, rate: int) -> Wave:
    period = max(int(rate / pitch), 4)
    k = np.fft.rfftfreq(period)  # cycles per sample
    rounds = -(-len(t) // period)
    pluck = np.fft.rfft(rng.standard_normal(period)) / np.sqrt(1 + (k * period / 12) ** 2)
    pluck *= 1j + np.sin(np.pi * k * period * rng.uniform(0.15, 0.5))  # plucked off the middle
    fading = np.maximum(np.cos(np.pi * k) ** rng.uniform(0.4, 1.0), 1e-6) * 10 ** (-3 / (pitch * rng.uniform(1.5, 4.0)))
    spectra = pluck.astype(np.complex64) * np.exp(np.log(fading).astype(np.float32) * np.arange(rounds)[:, None])
    return np.fft.irfft(spectra, period, axis=1).astype(np.float32).ravel()[: len(t)]


def _flute(rng: Generator, pitch: float, t: Wave, rate: int) -> Wave:
    wobble = np.float32(rng.uniform(0.1, 0.4) / 5) * np.sin(TURN * np.float32(rng.uniform(4, 6.5)) * t)
    k = _partials(pitch, rate, 6)
    tone = _harmonics(k ** -rng.uniform(2.2, 3.2), np.float32(pitch) * t + wobble)
    return tone + np.float32(rng.uniform(0.02, 0.08)) * _hiss(rng, len(t))


def _horn(rng: Generator, pitch: float, t: Wave, rate: int) -> Wave:
    turns = np.float32(pitch) * t + np.float32(0.004 * pitch / 5) * np.sin(TURN * np.float32(5.2) * t)
    k = _partials(pitch, rate, 24)
    opening = np.clip(t / np.float32(rng.uniform(0.08, 0.4)), 0, 1)
    dull, bright = _harmonics(k**-2.0, turns), _harmonics(k ** -rng.uniform(0.5, 0.9), turns)
    return dull + (bright - dull) * opening


def _siren(rng: Generator, pitch: float, t: Wave, rate: int) -> Wave:
    wave = np.sin(TURN * (np.float32(rng.uniform(0.5, 1.8)) * t + np.float32(rng.random())))
    bend = np.exp2(np.float32(rng.uniform(0.35, 0.7)) * (np.tanh(3 * wave) if rng.random() < 0.4 else wave))
    turns = np.cumsum(bend * np.float32(pitch / rate), dtype=np.float64)
    return _harmonics(np.array([1.0, 0.05, 0.35, 0.02, 0.15]), (turns % 1024).astype(np.float32))


def _clock(rng: Generator, pitch: float, t: Wave, rate: int) -> Wave:
    body = np.sin(TURN * np.float32(pitch) * t) + np.float32(0.6) * np.sin(TURN * np.float32(pitch * 1.62) * t)
    return (body + np.float32(0.5) * _hiss(rng, len(t))) * np.exp(-t / np.float32(rng.uniform(0.004, 0.009)))


VOWELS = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))  # formants, Hz


def _voice(rng: Generator, pitch: float, t: Wave, rate: int) -> Wave:
    turns = np.float32(pitch) * t * (1 + np.float32(rng.uniform(-0.08, 0.08)) * t)
    turns += np.float32(pitch * 0.0025) * np.sin(TURN * np.float32(rng.uniform(4.5, 6.5)) * t) + 0.01 * _drift(
        rng, t, 30
    )
    k = _partials(pitch, rate, 40)
    size = rng.uniform(0.9, 1.2)  # of the throat
    sounds = []
    for vowel in rng.choice(len(VOWELS), 2, replace=False):
        peaks = [1 / (1 + ((k * pitch - f * size) / (60 + 0.05 * f)) ** 2) for f in VOWELS[vowel]]
        sounds.append(_harmonics((sum(peaks) + 0.004) * k**-0.5, turns))
    glide = np.clip((t - t[-1] * np.float32(rng.uniform(0.2, 0.6))) / np.float32(0.12), 0, 1)
    return sounds[0] + (sounds[1] - sounds[0]) * glide


def _wind(rng: Generator, pitch: float, t: Wave, rate: int) -> Wave:
    course = np.exp2(np.float32(0.35) * _drift(rng, t, rng.uniform(1.0, 2.5)))
    turns = np.cumsum(course * np.float32(pitch / rate), dtype=np.float64) % 1024
    band = pitch * rng.uniform(0.25, 0.5)  # Hz: noise this slow, carried up to the pitch
    swell = np.exp2(np.float32(0.6) * _drift(rng, t, 2))
    return _drift(rng, t, band) * np.sin(TURN * turns.astype(np.float32)) * swell


def _drum(rng: Generator, pitch: float, t: Wave, rate: int) -> Wave:
    drop, fall = np.float32(rng.uniform(0.8, 2.0)), np.float32(0.035)
    turns = np.float32(pitch) * (t - drop * fall * np.expm1(-t / fall))
    skin = np.sin(TURN * turns) * np.exp(-t / np.float32(rng.uniform(0.09, 0.2)))
    return skin + np.float32(rng.uniform(0.1, 0.35)) * _hiss(rng, len(t)) * np.exp(-t / np.float32(0.012))


def _bird(rng: Generator, pitch: float, t: Wave, rate: int) -> Wave:
    x = t / t[-1]
    slope, bow = np.float32(rng.uniform(-0.6, 0.6)), np.float32(rng.uniform(-0.5, 0.5))
    course = np.exp2(slope * (x - np.float32(0.5)) + bow * np.sin(np.float32(np.pi * rng.integers(1, 4)) * x))
    return np.sin(TURN * np.cumsum(course * np.float32(pitch / rate))) * np.sin(np.float32(np.pi) * x)


def _motor(rng: Generator, pitch: float, t: Wave, rate: int) -> Wave:
    turns = np.float32(pitch) * (t + np.float32(rng.uniform(-0.08, 0.08)) * t * t) + 0.12 * _drift(rng, t, 25)
    k = _partials(pitch, rate, 60)
    growl = _harmonics(rng.uniform(0.3, 1, len(k)) / (1 + (k * pitch / rng.uniform(500, 900)) ** 2), turns)
    return growl * (1 + np.float32(0.5) * np.sin(np.float32(np.pi) * turns)) + np.float32(0.03) * _hiss(rng, len(t))


def _shaker(rng: Generator, pitch: float, t: Wave, rate: int) -> Wave:
    band = pitch * rng.uniform(0.3, 0.5)
    grains = _drift(rng, t, band) * np.sin(TURN * np.float32(pitch) * t)
    peak = np.float32(t[-1] * rng.uniform(0.2, 0.6))
    return grains * np.where(t < peak, t / peak, np.exp((peak - t) / (0.3 * peak)))


@dataclass(frozen=True)
class Timbre:
    """How one class sounds."""

    name: str
    note: Callable[[Generator, float, Wave, int], Wave]  # (generator, pitch, time, rate) -> one note
    pitch: tuple[float, float]  # Hz, of the phrase; log-uniform, an octave or more
    notes: tuple[int, int]  # in three seconds, least and most
    length: tuple[float, float]  # of a note, in shares of the time between two onsets
    melody: float = 0.0  # semitones a note strays from the phrase's pitch (deviation)
    attack: tuple[float, float] = (0.002, 0.006)  # seconds
    release: float = 0.02  # seconds


TIMBRES: tuple[Timbre, ...] = (
    Timbre("bell", _bell, (350, 1100), (2, 6), (1.2, 2.0), melody=3),
    Timbre("flute", _flute, (500, 1300), (2, 7), (0.7, 1.0), melody=3, attack=(0.03, 0.12), release=0.06),
    Timbre("drum", _drum, (50, 130), (4, 12), (0.6, 1.0)),
    Timbre("siren", _siren, (450, 1000), (1, 2), (0.8, 1.0), attack=(0.02, 0.2), release=0.05),
    Timbre("string", _string, (100, 330), (3, 10), (1.0, 2.0), melody=4),
    Timbre("clock", _clock, (1200, 3000), (8, 24), (0.3, 0.6), attack=(0.0005, 0.001)),
    Timbre("voice", _voice, (95, 260), (2, 6), (0.6, 1.0), melody=1.5, attack=(0.02, 0.08), release=0.06),
    Timbre("motor", _motor, (30, 80), (1, 2), (0.8, 1.0), attack=(0.05, 0.4), release=0.2),
    Timbre("bird", _bird, (2000, 4500), (4, 14), (0.3, 0.9), melody=1.5, attack=(0.005, 0.01)),
    Timbre("wind", _wind, (300, 900), (1, 2), (0.9, 1.0), attack=(0.1, 0.5), release=0.3),
    Timbre("horn", _horn, (110, 330), (1, 5), (0.7, 1.0), melody=3, attack=(0.02, 0.08), release=0.08),
    Timbre("shaker", _shaker, (4500, 9000), (6, 18), (0.5, 0.9), attack=(0.002, 0.004)),
)


def _envelope(rng: Generator, timbre: Timbre, t: Wave) -> Wave:
    """Rise and fall of a note, linear, 0 at both ends."""
    rise = np.float32(rng.uniform(*timbre.attack))
    fall = np.float32(min(timbre.release, float(t[-1]) / 2))
    return np.clip(np.minimum(t / rise, (t[-1] - t) / fall), 0, 1)


def _phrase(rng: Generator, timbre: Timbre, rate: int, samples: int) -> Wave:
    """Notes of one timbre in a loose rhythm, the first within a third of a step of the start: (samples,)."""
    ceiling = 0.4 * rate
    pitch = np.exp(rng.uniform(*np.log(timbre.pitch)))
    density = np.exp(rng.uniform(*np.log(timbre.notes))) * samples / (3 * rate)
    step = samples / max(density, 1.0)
    out, time = np.zeros(samples, np.float32), np.arange(samples, dtype=np.float32) / np.float32(rate)
    onset = rng.uniform(0, 0.3) * step
    while onset < samples - 0.02 * rate:
        room = samples - int(onset)
        length = min(max(int(rng.uniform(*timbre.length) * step), rate // 100), room)
        t = time[:length]
        bent = min(pitch * 2 ** (rng.normal(0, timbre.melody) / 12), ceiling)
        note = timbre.note(rng, bent, t, rate) * _envelope(rng, timbre, t)
        out[int(onset) : int(onset) + length] += note * np.float32(rng.uniform(0.6, 1))
        onset += step * (1 + rng.uniform(-0.15, 0.15))
    return out


def sound(rng: Generator, timbre: int, rate: int, samples: int) -> Wave:
    """A fresh sound of a timbre, an index into TIMBRES: (samples,) float32 at `rate` samples a second."""
    wave = _phrase(rng, TIMBRES[timbre], rate, samples)
    quiet = min(LEVEL / float(np.sqrt(np.mean(wave * wave))), CREST / float(np.abs(wave).max()))
    wave *= np.float32(quiet * 10 ** (rng.uniform(-LOUDNESS, LOUDNESS) / 20))
    return wave + _hiss(rng, samples) * np.float32(LEVEL * 10 ** (rng.uniform(*FLOOR) / 20))
