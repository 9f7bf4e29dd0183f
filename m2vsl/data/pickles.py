"""Masks that were published as pickled arrays, read without trusting them.

A pickle is a program: read by the book, it may call anything. Here it may put together an array of plain numbers. The
few names that this takes are answered by objects of our own, so that not even numpy's are handed out, and any other
name stops the reading before it is looked up.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

PLAIN = "biuf"  # kinds of numbers that a mask may hold: bool, integers, floating point


class ForbiddenGlobal(pickle.UnpicklingError):
    """The pickle names something that an array of plain numbers does not need."""


def read_array(path: Path) -> NDArray[Any]:
    """The array of plain numbers in a pickle.

    FileNotFoundError; ValueError, naming the file and, if there is one, the forbidden global, for anything else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"pickled array not found: {path}")
    with path.open("rb") as file:
        try:
            found = _Arrays(file, encoding="latin1").load()  # of Python 2, bytes come as text
        except ForbiddenGlobal as error:
            raise ValueError(f"{path}: {error}") from error
        except Exception as error:  # a broken pickle fails in any way it likes
            raise ValueError(f"{path}: cannot be read as a pickled array ({type(error).__name__}: {error})") from error
    if not isinstance(found, _Array) or found.value is None:
        raise ValueError(f"{path}: expected a pickled array of plain numbers, got {type(found).__name__}")
    return found.value


def read_pickled_mask(path: Path, size: int) -> Tensor:
    """A pickled (h, w) array -> (size, size) float32, by nearest neighbour: 1 where above 0. Errors as `read_array`."""
    array = read_array(path)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{path}: expected a mask of two axes, got shape {array.shape}")
    mask = Image.fromarray((array > 0).astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(mask)).float()


class _Dtype:
    """Stands for numpy.dtype: a plain one, whose order of bytes is set afterwards."""

    def __init__(self, name: Any) -> None:
        self.plain = np.dtype(str(name))
        if self.plain.kind not in PLAIN:
            raise ValueError(f"expected a dtype of plain numbers, got {self.plain}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if any(part is not None for part in state[2:5]):
            raise ValueError(f"expected a dtype of plain numbers, got {state}")
        self.plain = self.plain.newbyteorder(state[1])


class _Array:
    """Stands for an array that numpy's own functions would make; ``value`` once its numbers are known."""

    value: NDArray[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, numbers = state
        self.fill(numbers, dtype, shape, "F" if fortran else "C")

    def fill(self, numbers: Any, dtype: Any, shape: Any, order: str) -> None:
        """Take over bytes (or text: bytes of Python 2); ValueError or TypeError if the rest does not fit them."""
        if not isinstance(dtype, _Dtype):
            raise TypeError(f"expected a dtype, got {type(dtype).__name__}")
        raw = numbers.encode("latin1") if isinstance(numbers, str) else bytes(memoryview(numbers))
        self.value = np.frombuffer(raw, dtype.plain).reshape(shape, order="F" if order == "F" else "C")


def _from_buffer(numbers: Any, dtype: Any, shape: Any, order: str) -> _Array:
    array = _Array()
    array.fill(numbers, dtype, shape, order)
    return array


def _bytes(text: str, encoding: str) -> bytes:
    """How protocols below 3 write bytes."""
    if encoding != "latin1":
        raise ValueError(f"expected bytes as latin1, got {encoding!r}")
    return text.encode("latin1")


class _Answer:
    """A callable that a pickle cannot change: no attribute to set, no default to exchange."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __setstate__(self, state: Any) -> None:
        raise TypeError("expected a name to be called, got attributes for it")

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)


_ANSWERS = {
    ("numpy", "ndarray"): None,  # named, never called
    ("numpy", "dtype"): _Answer(lambda name, *_: _Dtype(name)),
    ("_codecs", "encode"): _Answer(_bytes),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Answer(lambda *_: _Array()) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Answer(_from_buffer) for core in ("core", "_core")},
}


class _Arrays(pickle.Unpickler):
    """An unpickler that knows arrays of plain numbers and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Our own object for a name that arrays need; `ForbiddenGlobal` for any other."""
        if (module, name) not in _ANSWERS:
            raise ForbiddenGlobal(f"expected an array of plain numbers, got the forbidden global {module}.{name}")
        return _ANSWERS[module, name]
