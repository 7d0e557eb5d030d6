"""Ways from one tensor to another.

    slerp(noise_a, noise_b, 0.25)                 # keeps the norm, as noise must
    lerp(embedding_a, embedding_b, 0.25)
    walk([a, b, c], frames=60, loop=True)         # (60, …) through all of them and back

Arrays in, arrays out; a batch is a matter of the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

EASINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda t: t,
    "smooth": lambda t: t * t * (3 - 2 * t),  # begins and ends at rest
}


def lerp(a: Any, b: Any, t: float) -> np.ndarray:
    """a at t = 0, b at t = 1, to the bit, and the straight line between them, float32."""
    a, b = _pair(a, b, t)
    if t in (0, 1):  # to the bit
        return (b if t else a).copy()
    return ((1 - t) * a.astype(np.float64) + t * b.astype(np.float64)).astype(np.float32)


def slerp(a: Any, b: Any, t: float) -> np.ndarray:
    """From a to b along the great circle, the norm going evenly from one to the other.

    The mean of two independent standard normal tensors has the norm of neither (it is √2 shorter);
    on the circle every point looks like noise to a diffusion model.

    Args:
        a, b: of one shape, taken as single vectors. Vectors of one direction are joined by the
            straight line, and so are those that have no direction: zeros, and single numbers.
            Opposite ones leave the plane open; a fixed one is taken.
        t: 0 … 1.

    Returns:
        float32; a and b themselves at 0 and 1, to the bit.

    Raises:
        ValueError: the shapes differ, or `t` is not 0 … 1.

    Reference:
        Shoemake 1985, "Animating Rotation with Quaternion Curves".
    """
    a, b = _pair(a, b, t)
    if t in (0, 1):
        return (b if t else a).copy()
    flat_a, flat_b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    norm_a, norm_b = np.linalg.norm(flat_a), np.linalg.norm(flat_b)
    if not norm_a or not norm_b or a.size == 1:
        return lerp(a, b, t)
    unit_a, unit_b = flat_a / norm_a, flat_b / norm_b
    # The angle by atan2 is exact where arccos of the dot product is not: near 0 and near π.
    angle = 2 * np.arctan2(np.linalg.norm(unit_a - unit_b), np.linalg.norm(unit_a + unit_b))
    aside = unit_b - (unit_a @ unit_b) * unit_a
    length = np.linalg.norm(aside)
    if length < 1e-9:
        if angle < 1:
            return lerp(a, b, t)
        aside = _any_perpendicular(unit_a)
        length = 1.0
    direction = np.cos(t * angle) * unit_a + np.sin(t * angle) * aside / length
    norm = (1 - t) * norm_a + t * norm_b
    return (norm * direction).astype(np.float32).reshape(a.shape)


def walk(
    stops: Sequence[Any],
    frames: int,
    *,
    between: Callable[[Any, Any, float], np.ndarray] = slerp,
    loop: bool = False,
    easing: str = "linear",
) -> np.ndarray:
    """`frames` points along a way through all stops, (frames, …) float32.

    Every stop is one of the frames, to the bit, whatever their number: a prompt that a film goes
    through is seen in it. `stop_frames` says which.

    Args:
        stops: at least two, of one shape.
        frames: at least as many as there are stops.
        between: `slerp` or `lerp`.
        loop: go back to the first stop, which is then the first and the last frame.
        easing: of the pace between two stops: ``"linear"`` or ``"smooth"``.

    Raises:
        ValueError: too few stops or frames, stops of different shapes, an unknown easing.

    Example:
        >>> contexts = walk([model.embed(p).values[0] for p in prompts], frames=60, between=lerp)
    """
    if len(stops) < 2:
        raise ValueError(f"a walk needs at least two stops, got {len(stops)}")
    if easing not in EASINGS:
        raise ValueError(f"easing {easing!r} is not one of {', '.join(EASINGS)}")
    stops = [*stops, stops[0]] if loop else list(stops)
    if frames < len(stops):
        raise ValueError(f"{len(stops)} stops need at least as many frames, got {frames}")
    made = [between(stops[0], stops[1], 0.0)]
    legs = zip(pairwise(stops), pairwise(stop_frames(len(stops), frames)), strict=True)
    for (a, b), (begin, end) in legs:
        for k in range(1, end - begin + 1):
            t = float(EASINGS[easing](np.float64(k / (end - begin))))
            made.append(between(a, b, t))
    return np.stack(made)


def stop_frames(stops: int, frames: int) -> list[int]:
    """The frames in which the stops of a walk stand: equally far apart, give or take one.

    Example:
        >>> stop_frames(3, 6)
        [0, 3, 5]
    """
    legs = max(stops - 1, 1)
    return [(2 * leg * (frames - 1) + legs) // (2 * legs) for leg in range(stops)]  # rounded


def _pair(a: Any, b: Any, t: float) -> tuple[np.ndarray, np.ndarray]:
    if not 0 <= t <= 1:
        raise ValueError(f"between two tensors t is 0 … 1, got {t}")
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    if a.shape != b.shape:
        raise ValueError(f"cannot go from shape {a.shape} to shape {b.shape}")
    return a, b


def _any_perpendicular(unit: np.ndarray) -> np.ndarray:
    axis = np.zeros_like(unit)
    axis[np.argmin(np.abs(unit))] = 1.0
    aside = axis - (axis @ unit) * unit
    return aside / np.linalg.norm(aside)
