"""The things of a synthetic picture: twelve looks, their exact outlines, and where they stand.

A look is a shape and a texture together: every shape comes with two textures and every texture on three shapes, so
neither alone says the class, and colours are drawn anew for each thing. A scene is arranged in units of the frame
before it is painted, so the same scene can be painted at any size.

Conventions
    Frames are square, of side 1; x to the right, y downwards. Areas are fractions of the frame. A thing's own
    coordinates (u, v) have its circumscribed circle as the unit circle. A pixel belongs to a thing if its centre does.
    Things lie wholly inside the frame and never overlap: nothing that sounds is hidden, and masks are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Plane = NDArray[Any]  # (H, W) float32
Coordinates = tuple[Plane, Plane]

GAP = 0.01  # sides of the frame left free between the circumscribed circles of two things
STRETCH = 1.08  # a thing is at most that much longer than wide, and the other way round
ROUNDS, TRIES = 12, 24  # draws of sizes, draws of places for each


@dataclass(frozen=True)
class Thing:
    """One object of a scene, in units of the frame; colours and light come with the paint."""

    look: int  # index into LOOKS
    area: float  # fraction of the frame
    x: float = 0.5  # of the centre
    y: float = 0.5
    angle: float = 0.0  # radians
    stretch: float = 1.0  # length over width, at constant area

    @property
    def radius(self) -> float:
        """Radius of the circumscribed circle before stretching, in sides of the frame."""
        return float(np.sqrt(self.area / _filled(LOOKS[self.look][0])))


def _disc(u: Plane, v: Plane) -> Plane:
    return np.hypot(u, v) - 1


def _ring(u: Plane, v: Plane) -> Plane:
    return np.abs(np.hypot(u, v) - 0.7) - 0.3


def _cross(u: Plane, v: Plane) -> Plane:
    u, v = np.abs(u), np.abs(v)
    return np.maximum(np.maximum(u, v) - 0.91, np.minimum(u, v) - 0.38)


def _triangle(u: Plane, v: Plane) -> Plane:
    """Equilateral, with round corners."""
    half, corner, slope = 0.6, 0.3, np.float32(np.sqrt(3))
    x, y = np.abs(u) - half, half / slope - v
    beyond = x + slope * y > 0
    x, y = np.where(beyond, (x - slope * y) / 2, x), np.where(beyond, (-slope * x - y) / 2, y)
    return -np.hypot(x - np.clip(x, -2 * half, 0), y) * np.sign(y) - corner


def _star(u: Plane, v: Plane) -> Plane:
    """Five points, by folding the plane about two mirrors, with round corners."""
    cosine, sine, reach, corner = 0.809017, 0.587785, 0.88, 0.12
    x, y = np.abs(u), -v
    fold = 2 * np.maximum(cosine * x - sine * y, 0)
    x, y = x - fold * cosine, y + fold * sine
    fold = 2 * np.maximum(-cosine * x - sine * y, 0)
    x, y = np.abs(x + fold * cosine), y + fold * sine - reach
    edge_x, edge_y = 0.58 * sine, 0.58 * cosine - 1
    along = np.clip((x * edge_x + y * edge_y) / (edge_x**2 + edge_y**2), 0, reach)
    return np.hypot(x - edge_x * along, y - edge_y * along) * np.sign(y * edge_x - x * edge_y) - corner


def _heart(u: Plane, v: Plane) -> Plane:
    scale = 0.6306  # of the circle about both lobes and the tip
    x, y = np.abs(u) * scale, scale - v * scale
    lobe = np.hypot(x - 0.25, y - 0.75) - 0.353553
    foot = np.maximum(x + y, 0) / 2
    flank = np.minimum(np.hypot(x, y - 1), np.hypot(x - foot, y - foot)) * np.sign(x - y)
    return np.where(x + y > 1, lobe, flank) / scale


def _striped(u: Plane, v: Plane, count: float) -> Plane:
    return np.sin(np.float32(np.pi * count) * u) / np.float32(np.pi * count)


def _dotted(u: Plane, v: Plane, count: float) -> Plane:
    turn = np.float32(np.pi * count * 0.9)
    return (np.cos(turn * u) + np.cos(turn * v) - 0.55) / turn


def _chequered(u: Plane, v: Plane, count: float) -> Plane:
    turn = np.float32(np.pi * count * 0.55)
    one, two = np.sin(turn * u), np.sin(turn * v)
    return np.sign(one * two) * np.minimum(np.abs(one), np.abs(two)) / turn


def _rayed(u: Plane, v: Plane, count: float) -> Plane:
    spokes = np.float32(np.round(1.9 * count))
    return np.sin(spokes * np.arctan2(v, u)) * np.hypot(u, v) / spokes


SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "disc": _disc,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "triangle": _triangle,
    "ring": _ring,
}  # signed distance to the outline in own units, negative inside
TEXTURES: dict[str, Callable[[Plane, Plane, float], Plane]] = {
    "striped": _striped,
    "dotted": _dotted,
    "chequered": _chequered,
    "rayed": _rayed,
}  # about the distance to the border between two colours, given about how many repeats fit across
LOOKS: tuple[tuple[str, str], ...] = (
    ("disc", "striped"),
    ("star", "dotted"),
    ("heart", "chequered"),
    ("cross", "rayed"),
    ("triangle", "dotted"),
    ("ring", "chequered"),
    ("disc", "dotted"),
    ("star", "striped"),
    ("heart", "rayed"),
    ("cross", "striped"),
    ("triangle", "chequered"),
    ("ring", "rayed"),
)  # (shape, texture) of each class


@cache
def _filled(shape: str) -> float:
    """Area of a shape with unit circumscribed circle."""
    axis = np.linspace(-1.2, 1.2, 961, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    return float((SHAPES[shape](u, v) <= 0).sum()) * float(axis[1] - axis[0]) ** 2


def coordinates(thing: Thing, x: NDArray[Any], y: NDArray[Any]) -> Coordinates:
    """Points of the frame, x (W,) and y (H,) in [0, 1], in the thing's own coordinates: u and v, each (H, W)."""
    scale, root = 1 / thing.radius, float(np.sqrt(thing.stretch))
    cosine, sine = float(np.cos(thing.angle)) * scale, float(np.sin(thing.angle)) * scale
    across, down = (x - thing.x).astype(np.float32)[None, :], (y - thing.y).astype(np.float32)[:, None]
    return (across * (cosine / root) + down * (sine / root)), (down * (cosine * root) - across * (sine * root))


def outline(thing: Thing, u: Plane, v: Plane) -> Plane:
    """Signed distance to the outline in sides of the frame (exact up to the stretch), negative inside: (H, W)."""
    return SHAPES[LOOKS[thing.look][0]](u, v) * np.float32(thing.radius)


def window(thing: Thing, size: int, margin: float = 1.0) -> tuple[slice, slice]:
    """Rows and columns of a frame of `size` pixels that can hold the thing and `margin` pixels around it."""
    reach = thing.radius * float(np.sqrt(STRETCH)) * size + margin
    rows, columns = (
        slice(max(int(centre * size - reach), 0), min(int(centre * size + reach) + 1, size))
        for centre in (thing.y, thing.x)
    )
    return rows, columns


def arrange(rng: Generator, looks: Sequence[int], areas: tuple[float, float]) -> list[Thing]:
    """One thing per look, sizes log-uniform in `areas`, anywhere in the frame, at any angle, none overlapping.

    Sizes and places are drawn again together while they do not fit, in the end from a range that closes towards the
    smaller size: crowded frames hold smaller things, but no place in `looks` is favoured. Raises RuntimeError if they
    never fit.
    """
    low, high = np.log(areas)
    for attempt in range(2 * ROUNDS):
        ceiling = low + (high - low) * (1 - max(attempt - ROUNDS, 0) / (ROUNDS - 1))
        drawn = np.exp(rng.uniform(low, ceiling, len(looks)))
        things = [Thing(look, float(area)) for look, area in zip(looks, drawn, strict=True)]
        places = _free_places(rng, np.array([thing.radius for thing in things]) * np.sqrt(STRETCH) + GAP / 2)
        if places is not None:
            angles, stretches = rng.uniform(0, 2 * np.pi, len(looks)), STRETCH ** rng.uniform(-1, 1, len(looks))
            poses = zip(things, places.tolist(), angles.tolist(), stretches.tolist(), strict=True)
            return [replace(thing, x=x, y=y, angle=angle, stretch=stretch) for thing, (x, y), angle, stretch in poses]
    raise RuntimeError(f"expected room for {len(looks)} things of {areas[0]:.3f} of the frame, got a frame too full")


def _free_places(rng: Generator, radii: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Centres (S, 2) that keep circles of `radii` (S,) inside the frame and apart; None if none were found.

    Many arrangements are grown side by side, the largest circle first, each next one at the first free of several
    places drawn uniformly; the first complete arrangement is taken.
    """
    if (radii**2).sum() * np.pi > 0.65 or radii.max() > 0.5:  # denser than circles at random get
        return None
    centres = np.empty((TRIES, len(radii), 2))
    alive, everyone, order = np.ones(TRIES, bool), np.arange(TRIES), np.argsort(-radii)
    for k, n in enumerate(order):
        drawn = radii[n] + (1 - 2 * radii[n]) * rng.random((TRIES, TRIES if k else 1, 1, 2))
        apart = np.square(drawn - centres[:, None, order[:k]]).sum(-1) > (radii[n] + radii[order[:k]]) ** 2
        free = apart.all(-1)  # (arrangements, places)
        centres[:, n] = drawn[everyone, free.argmax(1), 0]
        alive &= free.any(1)
    return centres[alive.argmax()] if alive.any() else None
