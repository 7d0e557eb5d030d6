"""The measures of the evaluation besides `xray.fidelity`, in NumPy alone.

auc(synonyms, others)              # 0.5 … 1: how well the first are told from the second
pointing(word_map, mask)           # does the map's highest place lie in the mask?
overlap(word_map, mask, 0.4)       # intersection over union, above a threshold
"""

from __future__ import annotations

import numpy as np

# -------------------------------------------------------------------------------------- pictures


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
