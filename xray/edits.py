"""Named edits: small functions to be handed to `xray.edit`.

    off = xray.edit("unet/up.1/skip.0", xray.edits.scale, factor=0.0, steps=range(5))

Each is ``fn(x, context, **params)`` on one guidance branch's tensor ``(image, *dims)`` and is
stored in a trace by its name and parameters, so that the run can be replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from xray.taps import Context, dims


def _positions(**axes: str) -> Callable:
    """Which parameters are positions along which axis: `Edit.check` refuses what is not there."""

    def mark(fn: Callable) -> Callable:
        fn.positions = axes
        return fn

    return mark


def _axis(context: Context, dim: str) -> int:
    """Where `dim` stands in the tensors of this site, counting from the end."""
    names = dims(context.site)
    if dim not in names:
        raise ValueError(f"{context.site} has no {dim} axis; its axes are {', '.join(names)}")
    return names.index(dim) - len(names)


def _number(value: Any, x: Any) -> Any:
    """A parameter as a number of x's type; whole numbers come as integers."""
    return tf.cast(value, x.dtype) if tf.is_tensor(x) else np.asarray(value, x.dtype)


def _where(x: Any, context: Context, dim: str, index: Any) -> Any:
    """Boolean mask, broadcastable to x, of the positions `index` along `dim`."""
    axis = _axis(context, dim)
    chosen = tf.reduce_any(tf.range(x.shape[axis])[:, None] == tf.reshape(index, (1, -1)), axis=1)
    return tf.reshape(chosen, (-1, *[1] * (-axis - 1)))


def scale(x: Any, context: Context, *, factor: float) -> Any:
    """x times `factor`. 1 changes no bit."""
    return x * _number(factor, x)


def zero(x: Any, context: Context) -> Any:
    """Zeros in place of x."""
    return tf.zeros_like(x)


def replace(x: Any, context: Context, *, value: Any) -> Any:
    """`value`, broadcast to x's shape, in its place: a tensor recorded elsewhere, for instance."""
    return tf.broadcast_to(tf.cast(value, x.dtype), x.shape)


def add_noise(x: Any, context: Context, *, amount: float, seed: int) -> Any:
    """x plus `amount` times its own standard deviation of normal noise drawn from `seed`.

    To every image of a batch what it would be given alone.
    """
    noise = tf.random.stateless_normal(x.shape[1:], tf.stack([tf.cast(seed, tf.int32), 0]))
    own = tf.math.reduce_std(x, axis=tuple(range(1, len(x.shape))), keepdims=True)
    return x + _number(amount, x) * own * noise


def uniform(x: Any, context: Context) -> Any:
    """Attention weights that look at everything alike: 1 / number of keys."""
    names = dims(context.site)
    if names[-1] not in ("token", "key_token", "key_x"):
        raise ValueError(f"{context.site} holds no attention weights")
    keys = 2 if names[-1] == "key_x" else 1
    count = 1
    for length in x.shape[-keys:]:
        count *= length
    return tf.zeros_like(x) + 1.0 / count


@_positions(heads="head")
def scale_heads(x: Any, context: Context, *, heads: Any, factor: float) -> Any:
    """The given attention heads times `factor`; 0 on ``value`` or ``weights`` switches them off."""
    return tf.where(_where(x, context, "head", heads), scale(x, context, factor=factor), x)


@_positions(tokens="token")
def scale_tokens(x: Any, context: Context, *, tokens: Any, factor: float) -> Any:
    """The given token positions times `factor` (attention re-weighting, Hertz et al. 2022)."""
    return tf.where(_where(x, context, "token", tokens), scale(x, context, factor=factor), x)


@_positions(first="token", second="token")
def swap_tokens(x: Any, context: Context, *, first: int, second: int) -> Any:
    """Two token positions exchanged: what looked at one looks at the other."""
    axis = _axis(context, "token")
    order = tf.range(x.shape[axis])
    order = tf.where(
        order == first, tf.cast(second, tf.int32), tf.where(order == second, first, order)
    )
    return tf.gather(x, order, axis=len(x.shape) + axis)


NAMED = {
    f.__name__: f
    for f in (scale, zero, replace, add_noise, uniform, scale_heads, scale_tokens, swap_tokens)
}
