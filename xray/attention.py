"""Attention whose memory is bounded, and that yields its weights only when asked.

Vaswani et al. 2017, "Attention Is All You Need", equation 1: softmax(q kᵀ / √d) v.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

HELD = 2**21  # weights at a time: 8 MB, which stay in a processor's cache; 8 heads of 4096² are 512


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
    weights at a time: of one head after the other, and of some queries after the other.
    """
    n, heads, queries = first.shape[:3]
    keys = others[0].shape[2]
    if n * heads * queries * keys <= HELD:
        return function(first, mask, *others)
    rows = max(1, HELD // keys)

    def of_one_head(arrays: Any) -> Any:
        first, *others = arrays
        out = []
        for i in range(0, queries, rows):
            part = slice(i, i + rows)
            with tf.control_dependencies(out[-1:]):  # not all at once
                out.append(function(first[part], None if mask is None else mask[part], *others))
        return tf.concat(out, axis=0)

    flat = [tf.reshape(x, (n * heads, *x.shape[2:])) for x in (first, *others)]
    out = tf.map_fn(of_one_head, flat, parallel_iterations=1, fn_output_signature=tf.float32)
    return tf.reshape(out, (n, heads, *out.shape[1:]))
