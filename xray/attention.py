"""Attention whose memory is bounded, and that yields its weights only when asked.

Vaswani et al. 2017, "Attention Is All You Need", equation 1: softmax(q kᵀ / √d) v.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

CHUNK = 1024  # queries at a time: 4096 × 4096 weights of 8 heads would be 512 MB


def attention(q: Any, k: Any, v: Any, *, mask: Any = None) -> Any:
    """softmax(q kᵀ / √d + mask) v, never holding the weights of more than `CHUNK` queries.

    Args:
        q: (n, heads, queries, d).
        k, v: (n, heads, keys, d).
        mask: (queries, keys), added to the scores, or None.

    Returns:
        (n, heads, queries, d).
    """
    out = [w @ v for w in _weights_in_chunks(q, k, mask)]
    return out[0] if len(out) == 1 else tf.concat(out, axis=2)


def attention_weights(q: Any, k: Any, *, mask: Any = None) -> Any:
    """softmax(q kᵀ / √d + mask), whole: (n, heads, queries, keys)."""
    return tf.concat(list(_weights_in_chunks(q, k, mask)), axis=2)


def weighted_values(weights: Any, v: Any) -> Any:
    """weights v in the same chunks as `attention`, so that unchanged weights give the same bits."""
    out = [weights[:, :, i : i + CHUNK] @ v for i in range(0, weights.shape[2], CHUNK)]
    return out[0] if len(out) == 1 else tf.concat(out, axis=2)


def _weights_in_chunks(q: Any, k: Any, mask: Any) -> Any:
    q = q * q.shape[-1] ** -0.5
    for i in range(0, q.shape[2], CHUNK):
        scores = tf.matmul(q[:, :, i : i + CHUNK], k, transpose_b=True)
        if mask is not None:
            scores += mask[i : i + CHUNK]
        yield tf.nn.softmax(scores)
