"""Attention whose memory is bounded, and that yields its weights only when asked.

Vaswani et al. 2017, "Attention Is All You Need", equation 1: softmax(q kᵀ / √d) v.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

HELD = 2**21  # weights at a time: 8 MB, which stay in a processor's cache; 8 heads of 4096² are 512
AT_ONCE = 2  # pieces that share these: while one waits for its last thread another goes on


def attention(q: Any, k: Any, v: Any, *, mask: Any = None) -> Any:
    """softmax(q kᵀ / √d + mask) v, never holding more than `HELD` weights.

    Args:
        q: (n, heads, queries, d).
        k, v: (n, heads, keys, d).
        mask: (queries, keys), added to the scores, or None.

    Returns:
        (n, heads, queries, d).
    """

    (x,) = _in_pieces(lambda q, mask, k, v: [_softmax(q, mask, k) @ v], q, mask, k, v)
    return x


def attention_and_pooled(q: Any, k: Any, v: Any, grid: tuple[int, int], side: int) -> Any:
    """`attention`, and its weights as `pooled` leaves them, which are never there whole.

    Returns:
        (n, heads, queries, d), to the bit what `attention` gives, and (n, heads, queries, pooled
        keys).
    """

    def rows(q: Any, mask: Any, k: Any, v: Any) -> list:
        weights = _softmax(q, mask, k)
        return [weights @ v, pooled(weights, grid, side)]

    return _in_pieces(rows, q, None, k, v, results=2)


def pooled(weights: Any, grid: tuple[int, int], side: int) -> Any:
    """(…, keys) averaged over the parts of a grid that cut it into `side` × `side`, or fewer.

    Args:
        weights: of keys in the order of the grid, row by row.
        grid: (y, x) of the keys; each a multiple of `side`, or no more than that.
        side: parts of a side.
    """
    height, width = grid
    down, across = min(side, height), min(side, width)
    # As one product: reducing neighbours in memory takes four times as long.
    row = np.kron(np.eye(across), np.ones((width // across, 1)))
    average = np.tile(row, (height // down, 1)) * (down * across / (height * width))
    means = tf.matmul(tf.reshape(weights, (-1, len(average))), average.astype(np.float32))
    return tf.reshape(means, (*weights.shape[:-1], down * across))


def attention_weights(q: Any, k: Any, *, mask: Any = None) -> Any:
    """softmax(q kᵀ / √d + mask), whole: (n, heads, queries, keys)."""
    (weights,) = _in_pieces(lambda q, mask, k: [_softmax(q, mask, k)], q, mask, k)
    return weights


def weighted_values(weights: Any, v: Any) -> Any:
    """weights v in the same pieces as `attention`, so that unchanged weights give the same bits."""
    (x,) = _in_pieces(lambda weights, _, v: [weights @ v], weights, None, v)
    return x


def _softmax(q: Any, mask: Any, k: Any) -> Any:
    scores = tf.matmul(q * q.shape[-1] ** -0.5, k, transpose_b=True)
    return tf.nn.softmax(scores if mask is None else scores + mask)


def _in_pieces(
    function: Callable[..., list], first: Any, mask: Any, *others: Any, results: int = 1
) -> list:
    """``function(first, mask, *others)`` of (n, heads, queries or keys, any), no more than `HELD`
    weights at a time: of a few heads after the other or, if one has more, of its queries, in two
    rows of pieces side by side.

    It returns a list of so many `results`, all (n, heads, queries, any).
    """
    n, heads, queries = first.shape[:3]
    count, each = n * heads, queries * others[0].shape[2]
    if count * each <= HELD:
        return function(first, mask, *others)
    piece = HELD // AT_ONCE
    few = max(d for d in range(1, max(1, piece // each) + 1) if count % d == 0)
    rows = max(1, piece // (few * others[0].shape[2]))

    def of_a_few(arrays: Any) -> list:
        first, *others = arrays
        out: list[list] = [[]]
        for i in range(0, queries, rows):
            part = slice(i, i + rows)
            with tf.control_dependencies(out[-1]):  # not all at once
                masked = None if mask is None else mask[part]
                out.append(function(first[:, part], masked, *others))
        return [tf.concat(parts, axis=1) for parts in zip(*out[1:], strict=True)]

    flat = [tf.reshape(x, (count // few, few, *x.shape[2:])) for x in (first, *others)]
    signature = [tf.float32] * results
    out = tf.map_fn(of_a_few, flat, parallel_iterations=AT_ONCE, fn_output_signature=signature)
    return [tf.reshape(x, (n, heads, *x.shape[2:])) for x in out]
