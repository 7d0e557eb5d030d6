"""How near one picture is to another.

psnr(pictures, decoded)            # dB, one for each picture
ssim(pictures, decoded)            # at most 1
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

_WINDOW = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
_WINDOW /= _WINDOW.sum()


def psnr(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio.

    Args:
        first, second: uint8 (n, y, x, channel).

    Returns:
        (n,) in dB; infinite for equal pictures.
    """
    difference = first.astype(np.float64) - second.astype(np.float64)
    with np.errstate(divide="ignore"):
        return 10.0 * np.log10(255.0**2 / (difference**2).mean((1, 2, 3)))


def ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Structural similarity, with the paper's constants and its Gaussian window of 11×11.

    The mean over all places where the window lies inside the picture, and over the channels.

    Args:
        first, second: uint8 (n, y, x, channel), at least 11×11.

    Returns:
        (n,), at most 1.

    Reference:
        Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural
        Similarity".
    """
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    results = []
    for a, b in zip(first.astype(np.float64), second.astype(np.float64), strict=True):
        mean_a, mean_b = _blurred(a), _blurred(b)
        variance_a = _blurred(a * a) - mean_a**2
        variance_b = _blurred(b * b) - mean_b**2
        covariance = _blurred(a * b) - mean_a * mean_b
        luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
        results.append((luminance * structure).mean())
    return np.array(results)


def _blurred(x: np.ndarray) -> np.ndarray:
    """(y, x, channel) → (y − 10, x − 10, channel)."""
    for axis in (0, 1):
        x = sliding_window_view(x, len(_WINDOW), axis=axis) @ _WINDOW
    return x
