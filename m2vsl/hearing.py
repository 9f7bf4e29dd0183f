"""Whether a localizer of this package listens: the pictures of a test list under silence, noise and another's sound.

`hearing` asks a localizer four times about each batch, under its own sounds and under three others, and compares the
maps with `m2vsl.metrics.listening`. The swapped-sound scores of `m2vsl.evaluate` ask which of two objects sounds; here
none does.

Conventions
-----------
- ``silence``: the spectrogram of zeros. ``noise``: white and Gaussian, of RMS `NOISE_RMS`, fresh for every picture.
  ``offscreen``: the sound of another picture of the batch, none of whose classes is in this one (`off_screen`).
- The map of a source is the one that answers for it under the choice ``oracle`` (`m2vsl.metrics.matching`), under each
  sound anew. A single map is that map. Class maps are told the class: the map of the object's class has to go quiet
  when this class is not heard. Several maps without names may come in another order under another sound: those that fit
  the sources best are compared with those that fitted best before.
- Every sounding source is a row; sources of one class in one picture are one. A source that no map answers for is no
  row: ``sources`` counts all, ``<sound>/sources`` the rows.
- Pictures without a partner for ``offscreen`` are left out of it and counted. A list whose batches hold one class has
  none: there the scalars are absent.
- A localizer that ignores the sound has 0.5 everywhere. One whose maps have no scale, but sum to 1 say, can move them
  and cannot turn them down.

Scalars
-------
- ``<sound>/remaining``, ``<sound>/quieter``: means over the rows. ``<sound>/separability``: of the rows' peaks.
- ``pictures``, ``sources``, ``<sound>/sources``, ``offscreen/left_out`` (pictures): counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from m2vsl.audio import AudioConfig, log_spectrogram
from m2vsl.localizer import Localizer, device_of, evaluating
from m2vsl.metrics import matching
from m2vsl.metrics.listening import Changes
from m2vsl.metrics.matching import Match
from m2vsl.types import Batch

SOUNDS = ("silence", "noise", "offscreen")
NOISE_RMS = 0.1  # of full scale: the loudness that `m2vsl.audio.mix` brings recordings to under "rms"


def silent(batch: Batch, config: AudioConfig) -> Batch:
    """The same pictures, and nothing sounds: spectrograms of zeros. Truth and labels stay as they are.

    ValueError if `batch` has spectrograms of another shape than `config` gives.
    """
    return _sounding(batch, torch.zeros(1, config.samples), config)


def noisy(batch: Batch, config: AudioConfig, generator: torch.Generator) -> Batch:
    """The same pictures under white Gaussian noise, each under its own: a function of the generator (on the CPU).

    The RMS is `NOISE_RMS`. One picture after the other draws, whatever the batch size. Truth and labels stay. Errors as
    `silent`.
    """
    waves = [NOISE_RMS * torch.randn(config.samples, generator=generator) for _ in range(len(batch))]
    return _sounding(batch, torch.stack(waves), config)


def off_screen(batch: Batch) -> tuple[Batch, Tensor]:
    """The same pictures, each under the sound of something that is not there, and which have one: (B,) bool.

    A picture takes the sound of the next one after it, the first following the last, of which at least one class sounds
    and none of the sounding ones is seen, labelled or heard in this picture. Where no other will do, or where a source
    is of no known class, the picture keeps its own sound, and False is told.
    """
    partner = _partners(batch)
    found = partner >= 0
    sounds = torch.where(found, partner, torch.arange(len(batch), device=partner.device))
    return replace(batch, spectrogram=batch.spectrogram[sounds]), found


def hearing(localizer: Localizer, loader: Iterable[Batch], config: AudioConfig, seed: int = 0) -> dict[str, float]:
    """How the maps of `localizer` change when what sounds is not in the picture: the scalars above.

    config: of the spectrograms in `loader`; seed: of the noise. Runs on the device of the localizer's parameters,
    without gradient and in evaluation mode; its mode is put back afterwards. ValueError for a loader without pictures,
    for spectrograms of another shape than `config` gives, and for maps as `m2vsl.metrics.matching.match`.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = {sound: Changes() for sound in SOUNDS}
    counts = {"pictures": 0, "sources": 0, "offscreen/left_out": 0}
    device = device_of(localizer)
    with evaluating(localizer):
        for batch in loader:
            batch = batch.to(device)
            batch = replace(batch, truth=matching.merge_same_class(batch.truth))
            sounding = batch.truth.present
            elsewhere, found = off_screen(batch)
            own = _answers(localizer, batch)
            _compare(rows["silence"], own, _answers(localizer, silent(batch, config)), sounding)
            _compare(rows["noise"], own, _answers(localizer, noisy(batch, config, generator)), sounding)
            if bool(found.any()):
                _compare(rows["offscreen"], own, _answers(localizer, elsewhere), sounding & found[:, None])
            counts["pictures"] += len(batch)
            counts["sources"] += int(sounding.sum())
            counts["offscreen/left_out"] += int((~found).sum())
    if not counts["pictures"]:
        raise ValueError("expected at least one picture to listen with, got none")
    scored = {sound: {**changes.scores(), "sources": len(changes)} for sound, changes in rows.items()}
    scalars = {f"{sound}/{name}": value for sound, of in scored.items() for name, value in of.items()}
    return {**scalars, **counts}


def _compare(changes: Changes, own: Match, other: Match, sources: Tensor) -> None:
    """Take in those of `sources` (B, S) bool that are answered for under both sounds."""
    picture, source = (sources & (own.index >= 0) & (other.index >= 0)).nonzero().unbind(1)
    changes.add(own.answers(picture, source), other.answers(picture, source))


def _answers(localizer: Localizer, batch: Batch) -> Match:
    """The maps under the sounds of `batch`, and for which source each answers."""
    return matching.match(localizer.localize(batch), batch.truth)


def _sounding(batch: Batch, waves: Tensor, config: AudioConfig) -> Batch:
    """The same pictures under waveforms (B, n), or (1, n) under one for all."""
    spectrogram = log_spectrogram(waves, config).to(batch.spectrogram)
    if spectrogram.shape[1:] != batch.spectrogram.shape[1:]:
        made, given = tuple(spectrogram.shape[1:]), tuple(batch.spectrogram.shape[1:])
        raise ValueError(f"expected spectrograms {made} of this AudioConfig, got {given} in the batch")
    return replace(batch, spectrogram=spectrogram.expand_as(batch.spectrogram))


def _partners(batch: Batch) -> Tensor:
    """The picture whose sound each is shown under: (B,) int64, -1 = none."""
    truth, sounds = batch.truth, batch.heard > 0  # (B, C)
    here = sounds | (batch.seen > 0) | (batch.labels > 0)
    source = truth.present | truth.mask.flatten(2).any(-1)  # and no padding
    known = ~(source & (truth.classes < 0)).any(-1) & here.any(-1)
    clash = (here.double() @ sounds.double().T) > 0  # (B, B): of what sounds in j, something is in i
    fits = ~clash & known[:, None] & (known & sounds.any(-1))[None]
    place = torch.arange(len(batch), device=fits.device)
    after = (place[:, None] + place) % len(batch)  # (B, B): each picture, then those that follow
    first = fits.gather(1, after).int().argmax(1)
    return torch.where(fits.any(1), after[place, first], -1)
