"""Latents by frequency: octaves of the picture, from its mean to its finest structure.

    bands = octaves(64, 64)                # mean, 1–2, 2–4, 4–8, 8–16, 16–32 cycles per picture
    split(latent, bands).sum(axis=0)       # the latent again
    energy(latent, bands)                  # (…, band): mean |coefficient|², 1 for standard noise

A frequency is counted in cycles along the picture's shorter side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Band(NamedTuple):
    """Frequencies from `low` up to, without, `high`, in cycles per picture; (0, 0) is the mean."""

    low: float
    high: float

    @property
    def name(self) -> str:
        return f"{self.low:g}–{self.high:g}" if self.high else "mean"


def octaves(height: int, width: int) -> list[Band]:
    """The mean, and octaves from 1 cycle per picture up to what the grid can hold.

    Args:
        height, width: of the latent; sides of at least 4 places.

    Example:
        >>> [band.name for band in octaves(16, 16)]
        ['mean', '1–2', '2–4', '4–8']
    """
    if min(height, width) < 4:
        raise ValueError(f"a grid of {height}×{width} has no octaves: at least 4×4")
    highest = min(height, width) / 2
    lows = [2.0**i for i in range(int(np.ceil(np.log2(highest))))]
    return [Band(0, 0), *(Band(low, min(2 * low, highest)) for low in lows)]


def members(height: int, width: int, bands: Sequence[Band]) -> np.ndarray:
    """Which Fourier coefficients of a grid each band has: bool (band, height, width).

    Every coefficient has one band, if the bands are those of `octaves`: what lies below 1 cycle
    (along the longer side of a picture) goes with the lowest octave, and the corners beyond the
    highest frequency of a row or column with the highest.
    """
    short = min(height, width)
    f = short * np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    octave = [b for b in bands if b.high]
    lowest, highest = min(b.low for b in octave), max(b.high for b in octave)
    inside = np.clip(f, lowest, np.nextafter(highest, 0))
    return np.stack(
        [(inside >= b.low) & (inside < b.high) & (f > 0) if b.high else f == 0 for b in bands]
    )


def split(x: Any, bands: Sequence[Band]) -> np.ndarray:
    """What of a latent lies in each band.

    Args:
        x: (…, y, x, channel).

    Returns:
        (band, …, y, x, channel) float64, whose sum over the bands is `x`.
    """
    spectrum = np.fft.fft2(np.asarray(x, np.float64), axes=(-3, -2))
    masks = members(*spectrum.shape[-3:-1], bands)[..., None]
    return np.stack([np.fft.ifft2(spectrum * mask, axes=(-3, -2)).real for mask in masks])


def energy(x: Any, bands: Sequence[Band]) -> np.ndarray:
    """Mean squared magnitude of a latent's Fourier coefficients in each band.

    In the normalisation in which standard normal noise has 1 in every band.

    Args:
        x: (…, y, x, channel).

    Returns:
        (…, band) float64.
    """
    power = np.abs(np.fft.fft2(np.asarray(x, np.float64), axes=(-3, -2), norm="ortho")) ** 2
    masks = members(*power.shape[-3:-1], bands)
    return np.stack([power[..., mask, :].mean(axis=(-2, -1)) for mask in masks], axis=-1)
