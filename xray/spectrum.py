"""How much of a picture lies at which spatial frequency, whatever its direction.

    centres(), radial_power(pixels / 255)      # cycles per pixel, and the power there
    radial_power(pixels / 255, OCTAVES)        # in octaves, coarse to fine

White noise of variance σ² has the power σ² at every frequency.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EVEN = tuple(np.linspace(0, 0.5, 33).tolist())  # edges, cycles per pixel
OCTAVES = (0.0, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)


def radial_power(values: np.ndarray, edges: Sequence[float] = EVEN) -> np.ndarray:
    """Power by spatial frequency, the mean over all directions and channels.

    A Hann window keeps the jump from one border of a picture to the opposite one, which a Fourier
    transform sees as an edge, out of the answer; the mean is taken away before.

    Args:
        values: (y, x) or (y, x, channel), more than 64 places a side for the default edges.
        edges: of the bands, in cycles per place, ascending; by default those of 32 even bands up
            to 0.5, the finest stripes that a grid can hold along a row.

    Returns:
        (band,) float64. Where the picture is too small for a band to hold any of its
        frequencies, NaN.
    """
    values = np.asarray(values, np.float64).reshape(*values.shape[:2], -1)
    height, width, _ = values.shape
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[1:-1]
    window /= np.sqrt((window**2).mean())
    mean = (values * window[..., None]).sum((0, 1)) / window.sum()
    transform = np.fft.fft2((values - mean) * window[..., None], axes=(0, 1), norm="ortho")
    power = (np.abs(transform) ** 2).mean(-1)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    band = np.digitize(frequency, edges) - 1
    band[frequency == edges[-1]] = len(edges) - 2
    inside = (band >= 0) & (band < len(edges) - 1) & (frequency > 0)
    sums = np.bincount(band[inside], power[inside], len(edges) - 1)
    counts = np.bincount(band[inside], minlength=len(edges) - 1)
    with np.errstate(invalid="ignore"):
        return sums / counts


def centres(edges: Sequence[float] = EVEN) -> np.ndarray:
    """The middle of each band of `radial_power`, in cycles per place."""
    return (np.array(edges[:-1]) + edges[1:]) / 2
