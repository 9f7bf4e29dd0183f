"""Arrays of plain numbers and grey pictures, read without trusting the file.

Nothing is unpickled, and what a file claims to hold is checked before it is read: kind of numbers, shape and size.
The functions raise `RefusedError` with what was expected and got; `naming` puts the name of the file before it.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

BYTES = 10**9  # of the largest array that is read
PIXELS = 50_000_000  # of the largest picture
HEADER = 2**16  # bytes that hold the header of any plain array
EXACT = 2**24  # whole numbers up to here are float32
GREY, GREY_ALPHA, RGB_ALPHA, PALETTE = 0, 4, 6, 3  # kinds of colour in the header of a PNG
ORIENTATION = 0x0112  # EXIF


class RefusedError(ValueError):
    """What was expected and got, of a file that `naming` names."""


@contextmanager
def naming(place: Path, what: str) -> Iterator[None]:
    """Every error inside becomes a ValueError that names the file: a broken one fails in any way it likes."""
    try:
        yield
    except RefusedError as error:
        raise ValueError(f"{place}: {error}") from None
    except Exception as error:
        raise ValueError(f"{place}: cannot be read as {what} ({type(error).__name__}: {error})") from error


def open_file(place: Path) -> io.BufferedReader:
    """A file for reading; `RefusedError` for a link to nowhere, and for a pipe, which would be waited for."""
    if not place.is_file():
        raise RefusedError("expected a file, got none")
    return place.open("rb")


def read_npy(reopen: Callable[[], IO[bytes]]) -> NDArray[Any]:
    """The one array of a ``.npy`` stream, bool, integers or floating point up to 64 bits; `reopen` starts it anew.

    `RefusedError` for objects and other kinds, more than `BYTES`, and anything behind the array.
    """
    with reopen() as stream:
        head = io.BytesIO(stream.read(HEADER))
    if head.getvalue()[: len(npy.MAGIC_PREFIX)] != npy.MAGIC_PREFIX:
        raise RefusedError("expected an array as numpy.save writes it (pickles are not read: save plain numbers)")
    version = npy.read_magic(head)
    if version not in ((1, 0), (2, 0)):
        raise RefusedError(f"expected version 1 or 2 of the npy format, got {version[0]}.{version[1]}")
    header = npy.read_array_header_1_0(head) if version == (1, 0) else npy.read_array_header_2_0(head)
    shape, _, dtype = header
    if dtype.hasobject:
        raise RefusedError("expected plain numbers, got an array of objects, which is a pickle: save plain numbers")
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise RefusedError(f"expected real numbers of up to 64 bits, got {dtype}")
    size = math.prod(shape) * dtype.itemsize
    if size > BYTES or min(shape, default=0) < 0:
        raise RefusedError(
            f"expected an array of at most {BYTES:,} bytes, got shape {shape} of {dtype}: {size:,} bytes"
        )
    with reopen() as stream:
        array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
        if stream.read(1):
            raise RefusedError("expected one array, got more bytes behind it")
    return array


def read_png(path: Path) -> NDArray[np.float32]:
    """A grey picture -> (h, w) in [0, 1]: 8 bits / 255, 16 bits / 65535, bilevel as 0 and 1; equal colours are grey.

    `RefusedError` for palettes, colours, transparency, 16-bit colours, animations, and pictures that are to be turned.
    """
    with open_file(path) as file:
        head = file.read(26)
    if len(head) < 26 or head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        raise RefusedError("expected a PNG, got another kind of file")
    width, height, depth, colour = struct.unpack(">IIBB", head[16:])
    if width * height > PIXELS:
        raise RefusedError(f"expected at most {PIXELS:,} pixels, got {width} x {height}")
    if colour == PALETTE:
        raise RefusedError("expected a grey picture, got a palette: which colour is high?")
    if depth == 16 and colour != GREY:
        raise RefusedError("expected 16-bit grey, got 16-bit channels: save one channel")
    with Image.open(path, formats=("PNG",)) as image:
        image.load()
        if getattr(image, "is_animated", False) or image.getexif().get(ORIENTATION, 1) != 1:
            raise RefusedError("expected a single upright picture, got an animation or one that is to be turned")
        pixels = np.asarray(image)
        keyed = "transparency" in image.info  # one grey value or colour stands for "nothing"
    if keyed or (colour in (GREY_ALPHA, RGB_ALPHA) and bool((pixels[..., -1] != 255).any())):
        raise RefusedError("expected an opaque picture, got transparent pixels")
    if pixels.ndim == 3:
        channels = pixels[..., :-1] if colour in (GREY_ALPHA, RGB_ALPHA) else pixels
        if bool((channels != channels[..., :1]).any()):
            raise RefusedError("expected a grey picture, got colours: a coloured overlay is no heat map")
        pixels = channels[..., 0]
    scale = 1 if pixels.dtype == bool else 65535 if depth == 16 else 255
    return pixels.astype(np.float32) / np.float32(scale)


def to_maps(array: NDArray[Any]) -> Tensor:
    """(h, w) or (K, h, w) -> (K, h, w) float32; float64, and whole numbers that float32 cannot hold, as float64.

    `RefusedError` for other shapes (channels last among them), empty arrays, and values that are not finite.
    """
    shape = array.shape
    if array.ndim not in (2, 3) or array.size == 0:
        raise RefusedError(f"expected maps of shape (h, w) or (K, h, w), not empty, got {shape}")
    if array.ndim == 3 and (shape[-1] == 1 or shape[-1] <= 4 < 16 <= min(shape[:2])):
        raise RefusedError(
            f"expected maps of shape (h, w) or (K, h, w), got {shape}, which looks like (h, w, channels)"
        )
    if array.dtype.kind == "f":
        nans, infinities = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        if nans or infinities:
            raise RefusedError(f"expected finite values, got {nans} NaN and {infinities} infinite of {array.size}")
        wide = array.dtype.itemsize == 8
    else:
        wide = array.dtype.kind != "b" and max(int(array.max()), -int(array.min())) > EXACT
    values = np.ascontiguousarray(array, np.float64 if wide else np.float32)
    return torch.from_numpy(values).reshape(-1, *shape[-2:])
