"""Convolution kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
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
    rows, columns, c, d = kernel.shape
    if (rows, columns) == (1, 1) and strides == 1:
        return matmul(x, kernel[0, 0]) + bias
    n, height, width = x.shape[:3]
    tops = np.arange(0, height - rows + 1, strides)
    lefts = np.arange(0, width - columns + 1, strides)
    if math.prod(kernel.shape) >= LARGE and n * tops.size * lefts.size < d:
        y = np.arange(n)[:, None, None] * height + tops[:, None] + np.arange(rows)
        where = y[:, :, None, :, None] * width + (lefts[:, None] + np.arange(columns))[:, None]
        windows = tf.gather(tf.reshape(x, (-1, c)), where.astype(np.int32))
        windows = tf.reshape(windows, (n, tops.size, lefts.size, -1))
        return matmul(windows, tf.reshape(kernel, (-1, d))) + bias
    return tf.nn.conv2d(x, kernel, strides, "VALID") + bias
