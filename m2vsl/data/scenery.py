"""The paint of a synthetic picture: cluttered grounds with natural statistics, and lit, textured things.

Grounds come from a bank of tiles made once per process from one constant seed: dead leaves (shapes of power-law sizes
hiding one another, which have the edges, flat parts and 1/f spectrum of photographs) and 1/f colour noise. Each picture
bends two tiles together at random angle, zoom, place and colour, and draws fresh clutter on top, so no ground returns.

Conventions
    Colours are RGB in [0, 1], planes first: (3, H, W). The light falls on the whole frame from one side.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch.nn import functional as F

from m2vsl.data.drawing import LOOKS, TEXTURES, Plane, Thing, coordinates, outline, window

Picture = NDArray[Any]  # (3, H, W) float32

BANK_SEED = 20240900  # of the tiles; the same for every data set, split and seed
TILES, TILE = 12, 384  # of each kind; pixels per side
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _cloud(rng: Generator, size: int, slope: float) -> Picture:
    """Periodic colour noise, amplitude 1/f^slope, channels about two thirds alike, mean 0, deviation 1: (3, n, n)."""
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    f[0, 0] = np.inf
    shared, own = (np.fft.rfft2(rng.standard_normal((k, size, size))) / f**slope for k in (1, 3))
    field = np.fft.irfft2(0.9 * shared + 0.4 * own, s=(size, size))
    return (field / field.std((1, 2), keepdims=True)).astype(np.float32)


def _colours(rng: Generator, count: int, spread: float = 0.12) -> NDArray[Any]:
    """Earthy random colours around one hue per call: (count, 3)."""
    base, tint = rng.uniform(0.2, 0.75, 3), rng.normal(0, spread, (count, 3)) + rng.normal(0, 0.17, (count, 1))
    return np.clip(base.mean() + (base - base.mean()) * 0.45 + tint, 0, 1).astype(np.float32)


def _leaf(rng: Generator, size: int, radius: float) -> tuple[slice, slice, Plane, Plane]:
    """One piece of clutter: where (rows, columns), how much it covers and how lit it is, both (h, w) in [0, 1]."""
    y, x = rng.uniform(-0.1, 1.1, 2) * size
    rows, columns = (slice(max(int(c - radius), 0), min(max(int(c + radius) + 1, 0), size)) for c in (y, x))
    down = (np.arange(rows.start, rows.stop, dtype=np.float32) - np.float32(y))[:, None]
    across = (np.arange(columns.start, columns.stop, dtype=np.float32) - np.float32(x))[None, :]
    angle, aspect = rng.uniform(0, np.pi), np.float32(rng.uniform(0.25, 1.0))
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = across * cosine + down * sine, (down * cosine - across * sine) / aspect
    kind = rng.integers(3)
    if kind == 0:
        distance = np.sqrt(u * u + v * v) - np.float32(radius)
    elif kind == 1:
        distance = np.maximum(np.abs(u), np.abs(v)) - np.float32(0.7 * radius)
    else:
        distance = np.maximum(np.abs(u) * 0.87 + v * 0.5, -v) - np.float32(0.5 * radius)
    softness = np.float32(1 + rng.exponential(0.03) * radius)
    light = 1 + u * np.float32(rng.uniform(-0.3, 0.3) / radius)
    if rng.random() < 0.25:  # slats and furrows: a texture is no proof of a thing
        light += np.float32(rng.uniform(0.1, 0.4)) * np.sin(v * np.float32(rng.uniform(5, 16) / radius))
    return rows, columns, np.clip(0.5 - distance / softness, 0, 1), light


def _strew(rng: Generator, picture: Picture, radii: NDArray[np.float64], opacity: tuple[float, float]) -> None:
    """Leaves of the given radii (pixels) laid on `picture`, in place, each in one colour with a gradient."""
    size = picture.shape[-1]
    colours = _colours(rng, len(radii))
    for radius, colour in zip(radii, colours, strict=True):
        rows, columns, cover, light = _leaf(rng, size, float(radius))
        if cover.size:
            patch = picture[:, rows, columns]
            patch += (colour[:, None, None] * light - patch) * (cover * np.float32(rng.uniform(*opacity)))


@lru_cache(maxsize=1)
def _bank() -> tuple[torch.Tensor, torch.Tensor]:
    """Dead leaves and clouds, each (TILES, 3, TILE, TILE), float32 about [0, 1]."""
    rng = np.random.default_rng(BANK_SEED)
    clouds = np.stack([_cloud(rng, TILE, slope) for slope in np.linspace(0.9, 1.6, TILES)])
    leaves = np.empty_like(clouds)
    for n in range(TILES):
        leaves[n] = _colours(rng, 1)[0][:, None, None]
        radii = np.clip(6 * rng.uniform(0, 1, 260) ** -0.62, 6, 150)  # power law: density about r^-2.6
        _strew(rng, leaves[n], radii, (0.9, 1.0))
        leaves[n] *= 1 + 0.16 * clouds[n]
    return torch.from_numpy(leaves), torch.from_numpy(0.5 + 0.16 * clouds)


def _glimpse(rng: Generator, tiles: torch.Tensor, size: int) -> Picture:
    """Part of a random tile, at random angle, zoom and place: (3, size, size)."""
    angle, zoom = rng.uniform(0, 2 * np.pi), rng.uniform(0.28, 0.6)  # zoom: share of the tile's side in view
    shift = rng.uniform(-1, 1, 2) * (1 - zoom * np.sqrt(2))
    axis = np.linspace(-zoom, zoom, size, dtype=np.float32)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    grid = np.empty((1, size, size, 2), np.float32)
    grid[0, ..., 0] = np.float32(shift[0]) + cosine * axis[None, :] - sine * axis[:, None]
    grid[0, ..., 1] = np.float32(shift[1]) + sine * axis[None, :] + cosine * axis[:, None]
    tile = tiles[int(rng.integers(len(tiles)))][None]
    return F.grid_sample(tile, torch.from_numpy(grid), padding_mode="border", align_corners=False)[0].numpy()


def ground(rng: Generator, size: int) -> Picture:
    """A cluttered background, about [0, 1]: (3, size, size)."""
    leaves, clouds = _bank()
    near, far = _glimpse(rng, leaves, size), _glimpse(rng, clouds, size)
    border = np.clip(0.5 + (far[1] - np.float32(rng.uniform(0.4, 0.8))) * np.float32(rng.uniform(2, 12)), 0, 1)
    picture = near + (far - near) * border
    mixing = np.eye(3) * rng.uniform(0.6, 1.1) + rng.normal(0, 0.09, (3, 3))
    offset = rng.uniform(0.3, 0.65) + rng.normal(0, 0.07, 3)
    flat = mixing.astype(np.float32) @ (picture.reshape(3, -1) - np.float32(0.5))
    picture = (flat + offset.astype(np.float32)[:, None]).reshape(3, size, size)
    radii = np.clip(0.05 * rng.uniform(0, 1, rng.integers(3, 10)) ** -0.6, 0.05, 0.4) * size
    _strew(rng, picture, radii, (0.3, 1.0))
    return picture


def _pair_of_colours(rng: Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two colours of any hue, at least 0.35 apart in brightness or 0.8 in colour: (3,) each."""
    while True:
        one, two = rng.uniform(0.03, 1.0, (2, 3)).astype(np.float32)
        if abs(LUMA @ (one - two)) > 0.35 or np.abs(one - two).max() > 0.8:
            return one, two


def _paint_thing(rng: Generator, picture: Picture, thing: Thing, light: float) -> NDArray[np.bool_]:
    """The thing painted over `picture` in place, its shadow first; returns its exact mask (H, W)."""
    size = picture.shape[-1]
    mask = np.zeros((size, size), bool)
    rows, columns = window(thing, size, margin=0.03 * size)
    x, y = ((np.arange(part.start, part.stop) + 0.5) / size for part in (columns, rows))
    u, v = coordinates(thing, x, y)
    distance = outline(thing, u, v) * np.float32(size)  # pixels
    mask[rows, columns] = distance <= 0
    patch = picture[:, rows, columns]
    patch *= 1 - np.float32(0.45) * np.clip(1 - distance / np.float32(0.025 * size), 0, 1)  # contact shadow
    radius = np.float32(thing.radius * size)
    stripes = TEXTURES[LOOKS[thing.look][1]](u, v, rng.uniform(4.2, 6.0))
    mix = np.clip(0.5 + stripes * radius, 0, 1)  # one pixel wide borders
    one, two = _pair_of_colours(rng)
    across, down = (x - thing.x).astype(np.float32)[None, :], (y - thing.y).astype(np.float32)[:, None]
    lit = 1 + (across * np.float32(np.cos(light)) + down * np.float32(np.sin(light))) * np.float32(0.3 / thing.radius)
    lit *= 0.7 + 0.3 * np.clip(-distance / np.float32(0.12 * radius), 0, 1)  # rounded rim
    cover = np.clip(0.5 - distance, 0, 1)
    patch += ((one[:, None, None] + (two - one)[:, None, None] * mix) * lit - patch) * cover
    return mask


def paint(rng: Generator, things: Sequence[Thing], size: int) -> tuple[Picture, NDArray[np.bool_]]:
    """A picture of the things before a cluttered ground, (3, size, size) in [0, 1], and their masks (S, size, size)."""
    picture = ground(rng, size)
    light = rng.uniform(0, 2 * np.pi)
    masks = [_paint_thing(rng, picture, thing, light) for thing in things]
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    slant = np.float32(np.cos(light)) * axis[None, :] + np.float32(np.sin(light)) * axis[:, None]
    picture *= np.float32(rng.uniform(0.8, 1.1)) + np.float32(rng.uniform(0, 0.25)) * slant
    picture += rng.standard_normal((size, size), dtype=np.float32) * np.float32(rng.uniform(0, 0.03))
    return np.clip(picture, 0, 1, out=picture), np.array(masks).reshape(-1, size, size)
