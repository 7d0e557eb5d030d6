"""Convolution kernels."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def matmul(x: Any, kernel: Any) -> Any:
    """(…, c) by (c, d), as one product of two matrices.

    Left in its batched form it would be many small ones, and its gradient many more and their sum.
    """
    flat = tf.matmul(tf.reshape(x, (-1, x.shape[-1])), kernel)
    return tf.reshape(flat, (*x.shape[:-1], kernel.shape[-1]))


def _is_product(kernel: Any, strides: int, padding: tuple) -> bool:
    """Whether each position is looked at once and alone: a 1×1 kernel that skips and adds none."""
    return kernel.shape[:2] == (1, 1) and strides == 1 and not any(map(any, padding))


def conv2d(
    x: Any, kernel: Any, bias: Any, *, strides: int = 1, padding: tuple = ((0, 0), (0, 0))
) -> Any:
    """Convolution of NHWC by HWIO with zero padding given for (top, bottom), (left, right)."""
    if _is_product(kernel, strides, padding):
        return matmul(x, kernel[0, 0]) + bias
    x = tf.pad(x, [(0, 0), *padding, (0, 0)])
    return tf.nn.conv2d(x, kernel, strides, "VALID") + bias
