"""3×3 convolution in a quarter of the multiplications: Winograd's F(4×4, 3×3).

Every 4×4 positions of the output depend on 6×6 of the input. In the basis of the three matrices
below the convolution is a product number by number, summed over channels: 36 products of matrices
for 16 positions, in place of 144.

Reference:
    Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from xray import conv

TILE, WINDOW = 4, 6
# From the points 0, 1, −1, 2, −2 and infinity.
INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
SAME = ((1, 1), (1, 1))
POSITIONS = 32 * 32  # at least: each kernel's change of basis is spread over them
CHANNELS = 128  # at least: each position's change of basis is spread over them


def conv2d(
    x: Any, kernel: Any, bias: Any, *, strides: int = 1, padding: tuple = ((0, 0), (0, 0))
) -> Any:
    """`xray.conv.conv2d`, by Winograd's algorithm where that pays; for XLA, which fuses its sums.

    The largest error is 1e-4 of the output's standard deviation.
    """
    _, height, width, channels = x.shape
    if (
        tuple(kernel.shape[:2]) == (3, 3)
        and strides == 1
        and padding == SAME
        and height % TILE == width % TILE == 0
        and height * width >= POSITIONS
        and min(channels, kernel.shape[-1]) >= CHANNELS
    ):
        return winograd(x, kernel) + bias
    return conv.conv2d(x, kernel, bias, strides=strides, padding=padding)


def winograd(x: Any, kernel: Any) -> Any:
    """3×3 convolution of a picture with a row and a column of zeros around it.

    Args:
        x: (n, y, x, c), y and x multiples of 4.
        kernel: (3, 3, c, d).

    Returns:
        (n, y, x, d).
    """
    n, height, width, c = x.shape
    down, across, d = height // TILE, width // TILE, kernel.shape[-1]
    x = tf.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    # The columns of a window, i, lie behind all else until they have their place: (n, y, i, x, c),
    # then (j, n, y, i, x, c).
    rows = _along(INPUT, _windows(x, 1), axis=2)
    patches = _along(INPUT, _windows(rows, 3), axis=4, to=0)
    patches = tf.reshape(tf.transpose(patches, (0, 3, 1, 2, 4, 5)), (WINDOW**2, -1, c))
    kernel = _along(KERNEL, _along(KERNEL, kernel, axis=0), axis=1, to=0)
    products = tf.matmul(patches, tf.reshape(kernel, (WINDOW**2, c, d)))
    products = tf.reshape(products, (WINDOW, WINDOW, n, down, across, d))
    tiles = _along(OUTPUT, _along(OUTPUT, products, axis=0), axis=1)  # (j, i, n, y, x, d)
    return tf.reshape(tf.transpose(tiles, (2, 3, 1, 4, 0, 5)), (n, height, width, d))


def _windows(x: Any, axis: int) -> Any:
    """An axis of 4 m + 2 as m windows of 6, each 4 after the one before: two axes, (m, 6)."""
    before = (slice(None),) * axis
    count = x.shape[axis] // TILE
    tiles = (*x.shape[:axis], count, TILE, *x.shape[axis + 1 :])
    first = tf.reshape(x[(*before, slice(TILE * count))], tiles)
    end = tf.expand_dims(x[(*before, slice(TILE * count, None))], axis)
    next_two = tf.concat([first[(*before, slice(1, None), slice(2))], end], axis)
    return tf.concat([first, next_two], axis + 1)


def _along(matrix: Sequence[Sequence[float]], x: Any, axis: int, to: int | None = None) -> Any:
    """A matrix by the vectors along an axis, which becomes axis `to`."""
    each = tf.unstack(x, axis=axis)
    # Most factors are zero or one.
    return tf.stack(
        [
            sum(v if f == 1 else f * v for f, v in zip(row, each, strict=True) if f)
            for row in matrix
        ],
        axis=axis if to is None else to,
    )
