"""A checkpoint is a folder: ``weights.safetensors``, ``config.json`` and, to go on training, ``state.pt``.

It is written aside, whole, and then renamed, so that a full disk or a kill leaves the earlier checkpoint as it was.
``config.json`` keeps the sha256 of the other two, and loading checks them. No pickled weights: safetensors cannot run
code, and ``state.pt`` is read with torch's ``weights_only``.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

WEIGHTS, CONFIG, STATE = "weights.safetensors", "config.json", "state.pt"


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds."""

    weights: dict[str, Tensor]  # a state_dict, on the CPU
    config: dict[str, Any]  # plain values
    state: dict[str, Any] | None  # what resuming needs; None for weights alone


def save(
    folder: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any], state: Mapping[str, Any] | None = None
) -> Path:
    """Write a checkpoint as `folder`, replacing the one that stands there only when the new one is complete.

    Raises OSError naming `folder` when it cannot be written (disk full, no permission); the earlier one is kept.
    """
    files = {WEIGHTS: packed(weights)}
    if state is not None:
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        files[STATE] = buffer.getvalue()
    return write(folder, files, config)


def write(folder: Path, files: Mapping[str, bytes], config: Mapping[str, Any]) -> Path:
    """`files` by name, and `config` with their sha256, as `folder`: as a whole or, with an OSError, not at all."""
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    files = {**files, CONFIG: json.dumps({**config, "sha256": hashes}, indent=1, sort_keys=True).encode()}
    aside = folder.with_name(folder.name + ".tmp")
    try:
        try:
            shutil.rmtree(aside, ignore_errors=True)  # left by a killed process
            aside.mkdir(parents=True)
            for name, data in files.items():
                _write(aside / name, data)
            _swap(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        reason = f"checkpoint not written ({error.strerror or error}); an earlier one is untouched"
        raise OSError(error.errno or errno.EIO, reason, str(folder)) from error
    return folder


def load(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`.

    Raises FileNotFoundError for a missing file; ValueError, naming the file and both hashes, for one that was cut off
    or changed; ValueError for a pickle in place of safetensors.
    """
    config, hashes = described(folder)
    weights = unpacked(folder / WEIGHTS, hashes)
    state = None
    if STATE in hashes:
        data = _read(folder / STATE)
        _verify(folder / STATE, data, hashes)
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return Checkpoint(weights, config, state)


def described(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What ``config.json`` says: the configuration, and the sha256 of the files beside it."""
    try:
        config = json.loads(_read(folder / CONFIG))
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: not json ({error})") from error
    return config, config.pop("sha256", {})


def packed(weights: Mapping[str, Tensor]) -> bytes:
    """`weights` as a safetensors file; entries that share their memory are written each for itself."""
    return safetensors.save({key: _apart(value) for key, value in weights.items()})


def unpacked(path: Path, hashes: Mapping[str, str]) -> dict[str, Tensor]:
    """What `packed` wrote to `path`; errors as of `load`."""
    data = _read(path)
    header = data[8:9] == b"{"  # of safetensors, behind its length, whose lowest byte may be a pickle's first
    if data[:4] == b"PK\x03\x04" or (data[:1] == b"\x80" and not header):
        raise ValueError(f"{path}: expected safetensors, got a pickle (torch.save); not opened")
    _verify(path, data, hashes)
    try:
        return safetensors.load(data)
    except SafetensorError as error:
        raise ValueError(f"{path}: not safetensors ({error})") from error


def restore(module: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    """`weights`, as found in `folder`, into `module`.

    ValueError, naming method, entry and both shapes, for those of another model or another number of classes.
    """
    here, name = module.state_dict(), type(module).__name__
    if here.keys() != weights.keys():
        odd = sorted(here.keys() ^ weights.keys())[:3]
        raise ValueError(f"{folder} is a checkpoint of another model than {name}: differs in {', '.join(odd)}")
    for key, value in weights.items():
        if value.shape != here[key].shape:
            raise ValueError(
                f"{folder} is a checkpoint of another {name}: expected {key} {tuple(here[key].shape)}, "
                f"got {tuple(value.shape)}: another number of classes?"
            )
    module.load_state_dict(weights)


def latest(run: Path, prefix: str = "step-") -> Path | None:
    """The newest complete checkpoint ``<prefix><number>`` of a run; None if there is none."""
    for old in run.glob(f"{prefix}*.old"):  # killed between the two renames of a swap
        if not old.with_suffix("").exists():
            os.rename(old, old.with_suffix(""))
    numbered = [path for path in run.glob(f"{prefix}*") if path.name.removeprefix(prefix).isdigit()]
    return max(numbered, key=lambda path: int(path.name.removeprefix(prefix)), default=None)


def prune(run: Path, prefix: str, keep: str) -> None:
    """Remove all checkpoints ``<prefix>*`` of a run but the one named `keep`."""
    for path in run.glob(f"{prefix}*"):
        if path.name != keep:
            shutil.rmtree(path)


def refuse_another(run: Mapping[str, Any], found: Mapping[str, Any], folder: Path, free: Collection[str]) -> None:
    """Raise ValueError, naming the values, if `folder` was `found` to hold another run; those in `free` may differ."""
    here, there = _flat(run), _flat(found)
    names = [k for k in sorted(here.keys() | there.keys()) if here.get(k) != there.get(k) and k not in free]
    if names:
        told = "; ".join(f"{k}: {there.get(k)!r} there, {here.get(k)!r} here" for k in names)
        raise ValueError(f"{folder} is a run of another configuration ({told}); choose another folder or remove it")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _apart(x: Tensor) -> Tensor:
    """A contiguous copy on the CPU that shares its memory with nothing, as safetensors asks."""
    return x.detach().cpu().clone(memory_format=torch.contiguous_format)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "incomplete checkpoint, file missing", str(path))
    return path.read_bytes()


def _verify(path: Path, data: bytes, hashes: Mapping[str, str]) -> None:
    got, expected = hashlib.sha256(data).hexdigest(), hashes.get(path.name, "none in config.json")
    if got != expected:
        raise ValueError(f"{path}: cut off or changed since it was written: sha256 expected {expected}, got {got}")


def _swap(new: Path, folder: Path) -> None:
    """`new` becomes `folder`. A folder cannot be renamed over a full one, so for an instant the earlier is ``.old``."""
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    try:
        os.rename(new, folder)
    except OSError:
        if old.exists():
            os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
