"""The measures of the evaluation, in NumPy alone.

psnr(pictures, decoded)            # dB, one for each picture
ssim(pictures, decoded)
auc(synonyms, others)              # 0.5 … 1: how well the first are told from the second
pointing(word_map, mask)           # does the map's highest place lie in the mask?
overlap(word_map, mask, 0.4)       # intersection over union, above a threshold
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

_WINDOW = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
_WINDOW /= _WINDOW.sum()


# -------------------------------------------------------------------------------------- pictures


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


def pairwise_distance(pictures: np.ndarray) -> float:
    """Mean distance of two different pictures out of many: root mean square over pixels, 0 … 1.

    Args:
        pictures: uint8 (n, y, x, channel), n ≥ 2.
    """
    flat = pictures.reshape(len(pictures), -1) / 255.0
    squares = (flat**2).sum(axis=1)
    distances = squares[:, None] + squares - 2.0 * flat @ flat.T
    above = np.triu_indices(len(flat), k=1)
    return float(np.sqrt(np.maximum(distances[above], 0.0) / flat.shape[1]).mean())


# --------------------------------------------------------------------------------------- numbers


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive lies above a negative; ties count half.

    Reference:
        Hanley & McNeil 1982, "The Meaning and Use of the Area under a ROC Curve".
    """
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    not_above = np.searchsorted(ordered, positive, "right")
    return float((below + not_above).mean() / (2 * len(ordered)))


# -------------------------------------------------------------------------------------- word maps


def pointing(word_map: np.ndarray, mask: np.ndarray) -> float:
    """Whether the highest place of a map lies in the mask, with no tolerance.

    Several places that are equally high share the point, so that a uniform map scores what a
    random place would.

    Args:
        word_map: (y, x).
        mask: bool (y, x).

    Reference:
        Zhang et al. 2018, "Top-Down Neural Attention by Excitation Backprop" (pointing game).
    """
    return float(mask[word_map == word_map.max()].mean())


def region(word_map: np.ndarray, threshold: float) -> np.ndarray:
    """Where a map is high: above `threshold` of the way from its lowest to its highest value.

    Args:
        word_map: (…, y, x).
        threshold: 0 … 1.

    Returns:
        bool (…, y, x). All of a uniform map.
    """
    low = word_map.min((-2, -1), keepdims=True)
    high = word_map.max((-2, -1), keepdims=True)
    return word_map >= low + threshold * (high - low)


def overlap(word_map: np.ndarray, mask: np.ndarray, threshold: float) -> float:
    """Intersection over union of a map's `region` and the mask."""
    found = region(word_map, threshold)
    return float((found & mask).sum() / (found | mask).sum())


def centre_blob(size: int) -> np.ndarray:
    """What a map knows that has seen no picture: a Gaussian in the middle, a quarter wide."""
    profile = np.exp(-((np.arange(size) - (size - 1) / 2) ** 2) / (2 * (size / 4) ** 2))
    return np.outer(profile, profile)
