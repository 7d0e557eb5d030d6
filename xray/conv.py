"""Convolution kernels."""

from __future__ import annotations

import itertools
import math
from typing import Any

import tensorflow as tf

LARGE = 2**20  # numbers of a kernel


def matmul(x: Any, kernel: Any) -> Any:
    """(…, c) by (c, d), as one product of two matrices.

    Left in its batched form it would be many small ones, and its gradient many more and their sum.
    """
    flat = tf.matmul(tf.reshape(x, (-1, x.shape[-1])), kernel)
    return tf.reshape(flat, (*x.shape[:-1], kernel.shape[-1]))


def conv2d(
    x: Any, kernel: Any, bias: Any, *, strides: int = 1, padding: tuple = ((0, 0), (0, 0))
) -> Any:
    """Convolution of NHWC by HWIO with zero padding given for (top, bottom), (left, right).

    oneDNN first copies the kernel into another order. Where that is more work than what follows, a
    large kernel and few windows, this is the product of all windows and the kernel as it lies.
    """
    x = tf.pad(x, [(0, 0), *padding, (0, 0)]) if any(map(any, padding)) else x
    rows, columns, _, d = kernel.shape
    places = [range(0, x.shape[i] - kernel.shape[i - 1] + 1, strides) for i in (1, 2)]
    count = x.shape[0] * len(places[0]) * len(places[1])
    if kernel.shape[:2] == (1, 1) or (math.prod(kernel.shape) >= LARGE and count < d):
        windows = [
            x[:, i : i + places[0].stop : strides, j : j + places[1].stop : strides]
            for i, j in itertools.product(range(rows), range(columns))
        ]
        return matmul(tf.concat(windows, -1), tf.reshape(kernel, (-1, d))) + bias
    return tf.nn.conv2d(x, kernel, strides, "VALID") + bias
