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

    def rows(q: Any, mask: Any, k: Any, v: Any) -> Any:
        return _softmax(q, mask, k) @ v

    return _in_pieces(rows, q, mask, k, v)


def attention_and_pooled(q: Any, k: Any, v: Any, grid: tuple[int, int], side: int) -> Any:
    """`attention`, and its weights as `pooled` leaves them, which are never there whole.

    Returns:
        (n, heads, queries, d), to the bit what `attention` gives, and (n, heads, queries, pooled
        keys).
    """

    def rows(q: Any, mask: Any, k: Any, v: Any) -> Any:
        weights = _softmax(q, mask, k)
        return tf.concat([weights @ v, pooled(weights, grid, side)], axis=-1)

    both = _in_pieces(rows, q, None, k, v)
    return tf.split(both, [v.shape[-1], both.shape[-1] - v.shape[-1]], axis=-1)


def pooled(weights: Any, grid: tuple[int, int], side: int) -> Any:
    """(…, keys) averaged over the parts of a grid that cut it into `side` × `side`, or fewer.

    Args:
        weights: of keys in the order of the grid, row by row.
        grid: (y, x) of the keys; each a multiple of `side`, or no more than that.
        side: parts of a side.
    """
    height, width = grid
    down, across = min(side, height), min(side, width)
    rows = tf.reduce_mean(tf.reshape(weights, (-1, down, height // down, width)), axis=2)
    # The other average as a product: reducing neighbours in memory takes four times as long.
    average = np.kron(np.eye(across), np.full((width // across, 1), across / width))
    means = tf.matmul(tf.reshape(rows, (-1, width)), average.astype(np.float32))
    return tf.reshape(means, (*weights.shape[:-1], down * across))


def attention_weights(q: Any, k: Any, *, mask: Any = None) -> Any:
    """softmax(q kᵀ / √d + mask), whole: (n, heads, queries, keys)."""
    return _in_pieces(_softmax, q, mask, k)


def weighted_values(weights: Any, v: Any) -> Any:
    """weights v in the same pieces as `attention`, so that unchanged weights give the same bits."""
    return _in_pieces(lambda weights, _, v: weights @ v, weights, None, v)


def _softmax(q: Any, mask: Any, k: Any) -> Any:
    scores = tf.matmul(q * q.shape[-1] ** -0.5, k, transpose_b=True)
    return tf.nn.softmax(scores if mask is None else scores + mask)


def _in_pieces(function: Callable, first: Any, mask: Any, *others: Any) -> Any:
    """``function(first, mask, *others)`` of (n, heads, queries or keys, any), no more than `HELD`
    weights at a time: of a few heads after the other or, if one has more, of its queries, in two
    rows of pieces side by side.
    """
    n, heads, queries = first.shape[:3]
    count, each = n * heads, queries * others[0].shape[2]
    if count * each <= HELD:
        return function(first, mask, *others)
    piece = HELD // AT_ONCE
    few = max(d for d in range(1, max(1, piece // each) + 1) if count % d == 0)
    rows = max(1, piece // (few * others[0].shape[2]))

    def of_a_few(arrays: Any) -> Any:
        first, *others = arrays
        out = []
        for i in range(0, queries, rows):
            part = slice(i, i + rows)
            with tf.control_dependencies(out[-1:]):  # not all at once
                masked = None if mask is None else mask[part]
                out.append(function(first[:, part], masked, *others))
        return tf.concat(out, axis=1)

    flat = [tf.reshape(x, (count // few, few, *x.shape[2:])) for x in (first, *others)]
    out = tf.map_fn(of_a_few, flat, parallel_iterations=AT_ONCE, fn_output_signature=tf.float32)
    return tf.reshape(out, (n, heads, *out.shape[2:]))
