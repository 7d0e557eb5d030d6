"""Numbers that describe a tensor, or the distance between two: plain functions of NumPy arrays.

NaN means "not there" (outside a mask, a step that never ran), so the reductions leave it out and
`summary` counts it. Sums run in float64 whatever the input's type: a float16 attention map of a
million weights would otherwise overflow or stall.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np

Axis = int | tuple[int, ...] | None


def mean(values: np.ndarray, axis: Axis = None) -> np.ndarray:
    return _quietly(np.nanmean, values, axis)


def std(values: np.ndarray, axis: Axis = None) -> np.ndarray:
    """Population standard deviation."""
    # NumPy sums in float64, but keeps deviations and their squares in the input's own type.
    return _quietly(np.nanstd, np.asarray(values, np.float64), axis)


def total(values: np.ndarray, axis: Axis = None) -> np.ndarray:
    return _quietly(np.nansum, values, axis)


def norm(values: np.ndarray, axis: Axis = None) -> np.ndarray:
    """Euclidean norm, the square root of the sum of squares."""
    return np.sqrt(np.nansum(np.square(values, dtype=np.float64), axis=axis))


def minimum(values: np.ndarray, axis: Axis = None) -> np.ndarray:
    return np.fmin.reduce(values, axis=axis).astype(np.float64)


def maximum(values: np.ndarray, axis: Axis = None) -> np.ndarray:
    return np.fmax.reduce(values, axis=axis).astype(np.float64)


def _quietly(function: Callable, values: np.ndarray, axis: Axis) -> np.ndarray:
    with warnings.catch_warnings():
        # A slice of nothing but NaN has the mean NaN; that is an answer, not an accident.
        warnings.simplefilter("ignore", RuntimeWarning)
        return function(values, axis=axis, dtype=np.float64)


def finite(values: np.ndarray) -> np.ndarray:
    """The values that are neither NaN nor infinite, flat."""
    return values[np.isfinite(values)]


def summary(values: np.ndarray) -> dict[str, float | int]:
    """`min`, `max`, `mean`, `std` over the finite values, and how many are `nan` and `inf`.

    One overflow must not hide what the rest looks like, so infinities are counted, not averaged.
    Without any finite value the four are NaN.
    """
    good = finite(values)
    nan = int(np.count_nonzero(np.isnan(values)))
    counts = {"nan": nan, "inf": values.size - good.size - nan}
    if good.size == 0:
        return dict.fromkeys(("min", "max", "mean", "std"), math.nan) | counts
    with np.errstate(over="ignore"):  # the spread of values near 1e300 is infinite
        return {
            "min": float(good.min()),
            "max": float(good.max()),
            "mean": float(good.mean(dtype=np.float64)),
            "std": float(good.std(dtype=np.float64)),
        } | counts


def normality(values: np.ndarray) -> dict[str, float]:
    """How far the finite values are from a standard normal sample.

    Returns:
        `mean` (0 for a standard normal), `std` (1), `skewness` (0), excess `kurtosis` (0), as
        population moments, and `ks`, the Kolmogorov–Smirnov distance sup|F_n − Φ| (0). All NaN
        without a finite value; `skewness` and `kurtosis` NaN for a constant.

    Reference:
        - [Kolmogorov 1933](https://en.wikipedia.org/wiki/Kolmogorov-Smirnov_test)
    """
    sample = finite(values).astype(np.float64)
    if sample.size == 0:
        return dict.fromkeys(("mean", "std", "skewness", "kurtosis", "ks"), math.nan)
    sample.sort()
    centre, spread = float(sample.mean()), float(sample.std())
    result = {"mean": centre, "std": spread, "skewness": math.nan, "kurtosis": math.nan}
    if sample[0] < sample[-1] and spread > 0:  # a rounded mean gives constants a tiny spread
        z = (sample - centre) / spread
        square = z * z
        result["skewness"] = float(np.mean(square * z))
        result["kurtosis"] = float(np.mean(square * square) - 3)
    return result | {"ks": _ks_to_standard_normal(sample)}


def _ks_to_standard_normal(ordered: np.ndarray, block: int = 1 << 16) -> float:
    """sup|F_n − Φ| of a sorted sample: F_n jumps at each value, so both sides of it count."""
    count, distance = ordered.size, 0.0
    for start in range(0, count, block):  # by blocks: a Python float for each value takes 32 bytes
        part = ordered[start : start + block]
        scaled = (part / -math.sqrt(2)).tolist()
        phi = 0.5 * np.fromiter(map(math.erfc, scaled), np.float64, part.size)
        rank = np.arange(start, start + part.size)
        above, below = (rank + 1) / count - phi, phi - rank / count
        distance = max(distance, float(above.max()), float(below.max()))
    return distance


def histogram(
    values: np.ndarray, bins: int = 50, range: tuple[float, float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`(counts, edges)` of the finite values, with float64 edges."""
    return np.histogram(finite(values).astype(np.float64), bins=bins, range=range)


def cosine(a: np.ndarray, b: np.ndarray, axis: Axis = None) -> np.ndarray:
    """Cosine of the angle between `a` and `b`; NaN where one of them is all zero.

    Places that are NaN in both (outside a mask) are left out; NaN in only one gives NaN.
    """
    gone = np.isnan(a) & np.isnan(b)
    a, b = (np.where(gone, 0.0, values.astype(np.float64)) for values in (a, b))
    dot = np.sum(a * b, axis=axis)
    lengths = np.sqrt(np.sum(a * a, axis=axis)) * np.sqrt(np.sum(b * b, axis=axis))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(dot / lengths, -1.0, 1.0)


def difference(a: np.ndarray, b: np.ndarray) -> dict[str, float | bool]:
    """Distance of `a` from the reference `b`, two arrays of one shape.

    Returns:
        `max_abs` max|a−b|; `rms` of a−b; `relative_rms` rms(a−b) / rms(b); `max_over_std`
        max|a−b| / std(b); `cosine`; `equal`, whether type and bits agree (any NaN equals any
        NaN, 0.0 is not −0.0). Places that are NaN in both are left out of the distances; NaN in
        only one of the two makes them NaN.
    """
    there = ~(np.isnan(a) & np.isnan(b))
    left, right = (values[there].astype(np.float64) for values in (a, b))
    with np.errstate(invalid="ignore"):
        gap = np.where(left == right, 0.0, np.abs(left - right))  # inf − inf agrees, is not NaN
    max_abs, rms = float(gap.max(initial=0.0)), _rms(gap)
    return {
        "max_abs": max_abs,
        "rms": rms,
        "relative_rms": _ratio(rms, _rms(right)),
        "max_over_std": _ratio(max_abs, float(std(right)) if right.size else 0.0),
        "cosine": float(cosine(left, right)),
        "equal": bit_equal(a, b),
    }


def bit_equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether type, shape and bits agree, any NaN counting as equal to any NaN."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    same = a == b
    if a.dtype.kind == "f":
        same = (same & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))
    return bool(np.all(same))


def rms(latents: np.ndarray) -> np.ndarray:
    """Root mean square of each of many latents or pictures, (…, y, x, channel) → (…)."""
    return np.sqrt(np.mean(np.square(latents, dtype=np.float64), axis=(-3, -2, -1)))


def _rms(values: np.ndarray) -> float:
    return math.sqrt(float(np.mean(np.square(values)))) if values.size else 0.0


def _ratio(part: float, whole: float) -> float:
    """`part / whole`, where no difference from nothing is 0 and any difference infinite."""
    if whole == 0:
        return math.nan if math.isnan(part) else (0.0 if part == 0 else math.inf)
    return part / whole


def sample(values: np.ndarray, limit: int) -> np.ndarray:
    """A view of at most `limit` values, evenly spaced: always the same ones, nothing copied."""
    steps = [1] * values.ndim
    view = values
    while view.size > limit:
        longest = int(np.argmax(view.shape))
        steps[longest] *= 2
        view = values[tuple(slice(None, None, step) for step in steps)]
    return view


def format_bytes(count: int) -> str:
    """`102400` → `"102 kB"`, in powers of 1000 as disks are sold and files are listed."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"
