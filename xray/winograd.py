"""3×3 convolution in a quarter of the multiplications: Winograd's F(4×4, 3×3), and F(2×2, 3×3).

Every 4×4 positions of the output are computed from the 6×6 of the input that they depend on: both
these and the kernel are turned into another basis, in which the convolution is a product number by
number, summed over channels: 36 matrix products in place of 144. The changes of basis are matrix
products themselves. Of 2×2 positions it is 16 products in place of 36, and a kernel less than half
as large in the other basis.

Reference:
    Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks", sections 4.1 and 4.3.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from xray import conv

Matrix = tuple[tuple[float, ...], ...]


class Basis(NamedTuple):
    """What turns the input and the kernel into it, and their product back: rows first."""

    input: Matrix
    kernel: Matrix
    output: Matrix


# From the points 0, 1, −1 and infinity.
F2 = Basis(
    input=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, -1, 0, 1)),
    kernel=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    output=((1, 1, 1, 0), (0, 1, -1, 1)),
)
# From these, 2 and −2.
F4 = Basis(
    input=(
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    kernel=(
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    output=(
        (1, 1, 1, 1, 1, 0),
        (0, 1, -1, 2, -2, 0),
        (0, 1, 1, 4, 4, 0),
        (0, 1, -1, 8, -8, 1),
    ),
)
SAME = ((1, 1), (1, 1))
# Over all images; with no more than these, turning the kernel costs more than it saves, and turning
# it into F4's basis more than into F2's.
POSITIONS, POSITIONS_F4 = 16 * 16, 2 * 16 * 16
CHANNELS = 128  # at least, for the change of the input's basis to cost less than it saves
HELD = 2**23  # numbers of the input that are held in the other basis at a time


def conv2d(
    x: Any, kernel: Any, bias: Any, *, strides: int = 1, padding: tuple = ((0, 0), (0, 0))
) -> Any:
    """`xray.conv.conv2d`, by Winograd's algorithm where that pays.

    It does where there are many positions, over which the kernel's change of basis is spread, and
    many channels, over which the input's is. At Stable Diffusion's sizes the largest error against
    plain convolution in float32 is 1.3e-4 of the output's standard deviation, the root mean square
    4e-6 to 6e-6.
    """
    n, height, width, channels = x.shape
    basis = F4 if n * height * width > POSITIONS_F4 else F2
    tile = len(basis.output)
    if (
        tuple(kernel.shape[:2]) == (3, 3)
        and strides == 1
        and padding == SAME
        and height % tile == width % tile == 0
        and n * height * width > POSITIONS
        and min(channels, kernel.shape[-1]) >= CHANNELS
    ):
        return winograd(x, kernel, basis) + bias
    return conv.conv2d(x, kernel, bias, strides=strides, padding=padding)


def winograd(x: Any, kernel: Any, basis: Basis) -> Any:
    """3×3 convolution with one row and column of zeros around the picture.

    Args:
        x: (n, y, x, c), y and x multiples of 4, or of 2.
        kernel: (3, 3, c, d).
        basis: `F4`, or `F2`.

    Returns:
        (n, y, x, d).
    """
    n, height, width, c = x.shape
    d, tile, window = kernel.shape[-1], len(basis.output), len(basis.input)
    positions = tf.reshape(tf.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]), (-1, c))
    tops = np.arange(n)[:, None] * (height + 2) + np.arange(0, height, tile)
    lefts, inside = np.arange(0, width, tile), np.arange(window)
    bands = _split(tops.ravel(), window**2 * tops.size * lefts.size * c / HELD)
    shares = _split(np.arange(d), window**2 * c * d / (4 * HELD))  # of the kernels

    def inputs(band: np.ndarray) -> Any:
        rows = (band + inside[:, None])[:, None, :, None]
        columns = (lefts + inside[:, None])[None, :, None, :]
        where = (rows * (width + 2) + columns).reshape(window**2, -1)
        return _turned(basis.input, tf.gather(positions, where.astype(np.int32)))

    def outputs(products: Any) -> Any:
        tiles = _turned(basis.output, products)
        tiles = tf.reshape(tiles, (tile, tile, -1, len(lefts), len(share)))
        return tf.reshape(tf.transpose(tiles, (2, 0, 3, 1, 4)), (-1, width, len(share)))

    # Where it can be held whole, the input is turned once for all shares of the kernels.
    turned = inputs(bands[0]) if len(bands) == 1 else None
    done = [x]
    whole = []
    for share in shares:
        # One after the other, or all would be held at once, and the kernels of all layers.
        with tf.control_dependencies(done[-1:]):
            part = tf.reshape(kernel, (9, c, d))[..., share[0] : share[-1] + 1]
            kernels = _turned(basis.kernel, part)
        for band in bands:
            with tf.control_dependencies(done[-1:]):
                tiles = inputs(band) if turned is None else turned
                done.append(outputs(tf.matmul(tiles, kernels)))
        whole.append(tf.concat(done[-len(bands) :], 0))
    return tf.reshape(tf.concat(whole, -1), (n, height, width, d))


def _split(x: np.ndarray, parts: float) -> list[np.ndarray]:
    return np.array_split(x, min(len(x), math.ceil(parts)))


def _turned(matrix: Matrix, x: Any) -> Any:
    """``matrix · m · matrixᵀ`` of every square m: (rows · columns, …) → (rows' · columns', …)."""
    both = np.kron(matrix, matrix).astype(np.float32)
    return tf.reshape(tf.matmul(both, tf.reshape(x, (len(both[0]), -1))), (-1, *x.shape[1:]))
