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


def conv2d_as_matmul(
    x: Any, kernel: Any, bias: Any, *, strides: int = 1, padding: tuple = ((0, 0), (0, 0))
) -> Any:
    """The same by gathering patches and one matrix product (im2col).

    XLA's CPU backend has no fast kernel for the gradients of a convolution; those of a matrix
    product and of slicing are fast, which makes this the one to train with.
    """
    if _is_product(kernel, strides, padding):
        return matmul(x, kernel[0, 0]) + bias
    x = tf.pad(x, [(0, 0), *padding, (0, 0)])
    kh, kw, cin, cout = kernel.shape
    h = (x.shape[1] - kh) // strides + 1
    w = (x.shape[2] - kw) // strides + 1
    patches = [
        x[:, i : i + strides * (h - 1) + 1 : strides, j : j + strides * (w - 1) + 1 : strides]
        for i in range(kh)
        for j in range(kw)
    ]
    flat = tf.reshape(tf.concat(patches, axis=-1), (-1, kh * kw * cin))
    return tf.reshape(tf.matmul(flat, tf.reshape(kernel, (-1, cout))), (-1, h, w, cout)) + bias
