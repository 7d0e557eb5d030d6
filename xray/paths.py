"""Ways through noise that lead between no two seeds: round a circle, and at random.

    circle(a, b, frames=49)                  # comes back: the last is the first, to the bit
    random_walk(a, frames=48, angle=8, seed=3)

Both stay on the sphere of their start: every point has its norm, and looks like noise to a model.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def circle(a: Any, b: Any, frames: int) -> np.ndarray:
    """`frames` points round the great circle through a and towards b, evenly spaced.

    cos θ · a + sin θ · b', with b' the part of b that is perpendicular to a, as long as a.

    Args:
        a: where it begins and ends, of any shape.
        b: of the same shape, and not along a.
        frames: at least 3; the last point is the first, to the bit.

    Returns:
        (frames, …) float32, all of a's norm.

    Raises:
        ValueError: too few frames, shapes that differ, or a and b that span no plane.
    """
    if frames < 3:
        raise ValueError(f"a circle needs at least 3 frames, got {frames}")
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    if a.shape != b.shape:
        raise ValueError(f"no circle through shapes {a.shape} and {b.shape}")
    along, aside = a.astype(np.float64), _aside(b, a)
    turns = 2 * np.pi * np.arange(1, frames - 1) / (frames - 1)
    turned = [np.cos(turn) * along + np.sin(turn) * aside for turn in turns]
    return np.stack([a, *turned, a]).astype(np.float32)


def random_walk(start: Any, frames: int, *, angle: float, seed: int) -> np.ndarray:
    """`frames` points from `start` on, each a turn by `angle` from the last, whither is random.

    A step is as long as every other, so a film moves evenly; over k steps the way back is lost:
    the cosine to the start is about cos(angle)^k.

    Args:
        start: the first point, to the bit.
        frames: at least 1.
        angle: degrees, above 0 and up to 90, where each point is fresh noise.
        seed: of the directions.

    Returns:
        (frames, …) float32, all of the start's norm.

    Raises:
        ValueError: no such angle or number of frames.
    """
    if frames < 1 or not 0 < angle <= 90:
        raise ValueError(
            f"a random walk needs a frame and an angle above 0 and up to 90 degrees, got {frames} "
            f"and {angle}"
        )
    random, turn = stream(seed), np.radians(angle)
    points = [np.asarray(start, np.float32)]
    for _ in range(frames - 1):
        here = points[-1].astype(np.float64)
        fresh = random.standard_normal(here.shape)
        point = np.cos(turn) * here + np.sin(turn) * _aside(fresh, here)
        points.append(point.astype(np.float32))
    return np.stack(points)


def stream(seed: int) -> np.random.Generator:
    """Random numbers of a walk's own: neither a seed's initial noise nor any that is put back.

    NumPy takes [seed, 0] for the seed itself, and samplers draw from [seed, 1], [seed, 2], ….
    """
    return np.random.default_rng([seed, 0, 1])


def _aside(b: np.ndarray, a: np.ndarray) -> np.ndarray:
    """The part of b that is perpendicular to a, made as long as a."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norm = np.linalg.norm(a)
    aside = b - (np.vdot(a, b) / norm**2) * a if norm else b
    length = np.linalg.norm(aside)
    if not norm or length <= 1e-6 * np.linalg.norm(b):
        raise ValueError("the two span no plane: one is zero, or they lie on one line")
    return aside * (norm / length)
