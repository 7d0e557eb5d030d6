"""The networks as flat functions over the layers of a KerasCV model, with their sites in place.

    noise = unet(net, latent, timestep_embedding, context, tap)

Read them as the architecture diagram: every line with a ``tap(name, x)`` is a place where the
tensor can be recorded or replaced (`xray.taps`). They work for any picture size and any width,
and are plain TensorFlow, traced into one compiled function by `xray.program`.

Sources: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models"
(U-Net and autoencoder), Radford et al. 2021 (text encoder), as built by KerasCV.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np
import tensorflow as tf

from xray import conv as kernels
from xray.attention import (
    attention,
    attention_and_pooled,
    attention_weights,
    weighted_values,
)
from xray.networks import Autoencoder, Level, TextEncoder, UNet
from xray.taps import Tap

HELD = 2**22  # numbers of the widest layer at a time
_conv2d: ContextVar[Callable] = ContextVar("conv2d", default=kernels.conv2d)


@contextlib.contextmanager
def convolution(kernel: Callable):
    """While it lasts, networks are traced with this ``conv2d``, `xray.conv`'s or another.

    In this thread only: another may be tracing a model that is exact.
    """
    before = _conv2d.set(kernel)
    try:
        yield
    finally:
        _conv2d.reset(before)


# -------------------------------------------------------------------------------------- networks


def text_encoder(net: TextEncoder, tokens: Any, tap: Tap) -> Any:
    """Token ids (n, length) int32 → embedding (n, length, width) after the final norm."""
    length = tokens.shape[1]
    embedding = net.embedding
    x = tf.gather(weight(embedding.token_embedding.embeddings), tokens)
    x = tap("text/embedding", x + weight(embedding.position_embedding.embeddings)[:length])
    causal = np.triu(np.full((length, length), -np.inf, np.float32), k=1)
    for i, layer in enumerate(net.layers):
        name = f"text/layer.{i}"
        a = layer.clip_attn
        y = layer_norm(layer.layer_norm1, x)
        q, k, v = dense(a.q_proj, y), dense(a.k_proj, y), dense(a.v_proj, y)
        y = _attend(f"{name}/attention", q, k, v, a.num_heads, tap, mask=causal)
        x = x + tap(f"{name}/attention/out", dense(a.out_proj, y))
        y = dense(layer.fc1, layer_norm(layer.layer_norm2, x))
        y = y * tf.sigmoid(1.702 * y) if net.quick_gelu else gelu(y, net.exact_gelu)
        x = tap(f"{name}/out", x + tap(f"{name}/ff/out", dense(layer.fc2, y)))
    return tap("text/out", layer_norm(net.norm, x))


def unet(net: UNet, latent: Any, timestep_embedding: Any, context: Any, tap: Tap) -> Any:
    """One noise prediction for each guidance branch.

    Args:
        net: the U-Net's layers.
        latent: (n, h/8, w/8, 4), variance preserving.
        timestep_embedding: (n, width) sinusoids, see `timestep_embedding`.
        context: (branches · n, length, text width), the text encoder's output, of one of the tap's
            branches after the other.
        tap: what is observed and edited.

    Returns:
        (branches · n, h/8, w/8, 4): the noise, or what the model predicts instead.
    """
    first = net.down[0]

    def before_text(tap: Tap) -> Any:
        time = dense(net.time[1], silu(dense(net.time[0], timestep_embedding)))
        time = tap("unet/time", time)
        start = tap("unet/conv_in/out", conv(net.conv_in, latent))
        x = _res_block("unet/down.0/res.0", first.res[0], start, time, tap)
        return time, start, x, _self_attention("unet/down.0/attn.0", first.attn[0], x, tap)

    # Branches differ in their text, which nothing has seen before the first cross-attention.
    time, start, x, y = tap.same_for_branches(before_text)
    x = _cross_attention("unet/down.0/attn.0", first.attn[0], x, y, context, tap, net)
    skips = [start, x]
    for i, level in enumerate(net.down):
        for j in range(0 if i else 1, len(level.res)):
            x = _block(f"unet/down.{i}", level, j, x, time, context, tap, net)
            skips.append(x)
        if level.resample:
            x = tap(f"unet/down.{i}/downsample/out", conv(level.resample, x))
            skips.append(x)

    for j in range(len(net.mid.res)):
        x = _block("unet/mid", net.mid, j, x, time, context, tap, net)

    for i, level in enumerate(net.up):
        for j in range(len(level.res)):
            x = tf.concat([x, tap(f"unet/up.{i}/skip.{j}", skips.pop())], axis=-1)
            x = _block(f"unet/up.{i}", level, j, x, time, context, tap, net)
        if level.resample:
            x = conv(level.resample.conv, upsample(x))
            x = tap(f"unet/up.{i}/upsample/out", x)
    return tap("unet/out", conv(net.conv_out, silu(group_norm(net.norm_out, x))))


def encoder(net: Autoencoder, pixels: Any, tap: Tap) -> Any:
    """Pixels (n, h, w, 3) in [-1, 1] → scaled latent means (n, h/8, w/8, 4).

    The site ``encoder/moments`` holds the posterior itself: unscaled means, then log variances.
    """
    x = tap("encoder/conv_in/out", conv(net.conv_in[0], pixels))
    for i, level in enumerate(net.levels):
        for j, block in enumerate(level.res):
            x = _resnet_block(f"encoder/down.{i}/res.{j}", block, x, tap)
        if level.resample:
            x = tap(f"encoder/down.{i}/downsample/out", conv(level.resample, x))
    x = _autoencoder_mid("encoder/mid", net, x, tap)
    x = conv(net.conv_out[0], silu(group_norm(net.norm_out, x)))
    moments = tap("encoder/moments", conv(net.conv_out[1], x))
    return tap("encoder/out", moments[..., :4] * net.scaling_factor)


def decoder(net: Autoencoder, latent: Any, tap: Tap) -> Any:
    """Scaled latents (n, h/8, w/8, 4) → pixels (n, h, w, 3), about [-1, 1], not clipped."""
    x = conv(net.conv_in[0], latent * (1.0 / net.scaling_factor))
    x = tap("decoder/conv_in/out", conv(net.conv_in[1], x))
    x = _autoencoder_mid("decoder/mid", net, x, tap)
    for i, level in enumerate(net.levels):
        for j, block in enumerate(level.res):
            x = _resnet_block(f"decoder/up.{i}/res.{j}", block, x, tap)
        if level.resample:
            x = tap(f"decoder/up.{i}/upsample/out", conv(level.resample, upsample(x)))
    return tap("decoder/out", conv(net.conv_out[0], silu(group_norm(net.norm_out, x))))


def timestep_embedding(timestep: float, width: int) -> np.ndarray:
    """Sinusoids of a timestep, (width,) float32: first the cosines, then the sines.

    Ho et al. 2020 after Vaswani et al. 2017, with periods from 2π to 10000 · 2π.
    """
    half = width // 2
    frequencies = np.exp(-np.log(10000.0) * np.arange(half) / half).astype(np.float32)
    angles = np.float32(timestep) * frequencies
    return np.concatenate([np.cos(angles), np.sin(angles)])


# ---------------------------------------------------------------------------------------- blocks


def _block(
    at: str, level: Level, j: int, x: Any, time: Any, context: Any, tap: Tap, net: UNet
) -> Any:
    """A residual block and the transformer that follows it, if one does."""
    x = _res_block(f"{at}/res.{j}", level.res[j], x, time, tap)
    if j < len(level.attn):
        name, transformer = f"{at}/attn.{j}", level.attn[j]
        y = _self_attention(name, transformer, x, tap)
        x = _cross_attention(name, transformer, x, y, context, tap, net)
    return x


def _res_block(name: str, block: Any, x: Any, time: Any, tap: Tap) -> Any:
    y = conv(block.entry_flow[2], silu(group_norm(block.entry_flow[0], x)))
    shift = tap(f"{name}/time", dense(block.embedding_flow[1], silu(time)))
    y = y + shift[:, None, None]
    y = conv(block.exit_flow[2], silu(group_norm(block.exit_flow[0], y)))
    return tap(f"{name}/out", y + _shortcut(block, x))


def _resnet_block(name: str, block: Any, x: Any, tap: Tap) -> Any:
    y = conv(block.conv1, silu(group_norm(block.norm1, x)))
    y = conv(block.conv2, silu(group_norm(block.norm2, y)))
    return tap(f"{name}/out", y + _shortcut(block, x))


def _shortcut(block: Any, x: Any) -> Any:
    # Where the width does not change, KerasCV's residual_projection is a plain identity function.
    return x if x.shape[-1] == block.output_dim else conv(block.residual_projection, x)


def _self_attention(name: str, block: Any, x: Any, tap: Tap) -> Any:
    """A transformer's first half, (n, y, x, c) → (n, positions, c), which sees no text."""
    y = _off_grid(_project(block.proj1, group_norm(block.norm, x)))
    inner, grid = block.transformer_block, x.shape[1:3]
    z = layer_norm(inner.norm1, y)
    return y + _attention_layer(f"{name}/self", inner.attn1, z, z, tap, grid=grid, key_grid=grid)


def _cross_attention(
    name: str, block: Any, x: Any, y: Any, context: Any, tap: Tap, net: UNet
) -> Any:
    """Its second half, the feed-forward layers with it, for what the first made of x."""
    inner, grid = block.transformer_block, x.shape[1:3]
    z = layer_norm(inner.norm2, y)
    y = y + _attention_layer(f"{name}/cross", inner.attn2, z, context, tap, grid=grid)
    z = _on_grid(_feed_forward(inner, layer_norm(inner.norm3, y), net), grid)
    y = y + _off_grid(tap(f"{name}/ff/out", z))
    return tap(f"{name}/out", _project(block.proj2, _on_grid(y, grid)) + x)


def _attention_layer(
    name: str, a: Any, x: Any, source: Any, tap: Tap, *, grid: Any, key_grid: Any = None
) -> Any:
    q, k, v = dense(a.to_q, x), dense(a.to_k, source), dense(a.to_v, source)
    x = _attend(name, q, k, v, a.num_heads, tap, grid=grid, key_grid=key_grid)
    return _off_grid(tap(f"{name}/out", _on_grid(dense(a.out_proj, x), grid)))


def _feed_forward(inner: Any, x: Any, net: UNet) -> Any:
    """GEGLU (Shazeer 2020) of some positions after the other: inside it is eight times as wide."""
    flat, out = tf.reshape(x, (-1, x.shape[-1])), []
    for part in tf.split(flat, _shares(flat.shape[0], math.ceil(8 * math.prod(x.shape) / HELD))):
        with tf.control_dependencies(out[-1:]):  # not all at once
            value, gate = tf.split(dense(inner.geglu.dense, part), 2, axis=-1)
            out.append(dense(inner.dense, value * gelu(gate, net.exact_gelu)))
    return tf.reshape(tf.concat(out, 0) if len(out) > 1 else out[0], x.shape)


def _shares(count: int, parts: int) -> list[int]:
    """As many whole numbers, as equal as can be, with this sum."""
    return [(count + i) // parts for i in range(parts)]


def _autoencoder_mid(name: str, net: Autoencoder, x: Any, tap: Tap) -> Any:
    x = _resnet_block(f"{name}/res.0", net.mid.res[0], x, tap)
    a, grid = net.mid.attn[0], x.shape[1:3]
    y = _off_grid(group_norm(a.norm, x))
    q, k, v = (dense_1x1(p, y) for p in (a.q, a.k, a.v))
    y = _attend(f"{name}/attn.0", q, k, v, 1, tap, grid=grid, key_grid=grid)
    x = x + tap(f"{name}/attn.0/out", _on_grid(dense_1x1(a.proj_out, y), grid))
    return _resnet_block(f"{name}/res.1", net.mid.res[1], x, tap)


def _attend(
    name: str,
    q: Any,
    k: Any,
    v: Any,
    heads: int,
    tap: Tap,
    *,
    grid: Any = None,
    key_grid: Any = None,
    mask: Any = None,
) -> Any:
    """Multi-head attention of (n, queries, c) to (n, keys, c), with its four sites.

    Sites show positions as they lie in the picture: `grid` is (y, x) of the queries and
    `key_grid` of the keys; None where they are tokens.
    """

    def heads_first(x: Any, part: str, grid: Any) -> Any:
        shown = tuple(grid) if grid is not None else (x.shape[1],)
        n, d = x.shape[0], x.shape[2] // heads
        x = tf.transpose(tf.reshape(x, (n, x.shape[1], heads, d)), (0, 2, 1, 3))
        x = tap(f"{name}/{part}", tf.reshape(x, (n, heads, *shown, d)))
        return tf.reshape(x, (n, heads, -1, d))

    q = heads_first(q, "query", grid)
    k = heads_first(k, "key", key_grid)
    v = heads_first(v, "value", key_grid)
    queries = tuple(grid) if grid is not None else (q.shape[2],)
    keys = tuple(key_grid) if key_grid is not None else (k.shape[2],)

    site, shape = f"{name}/weights", (heads, *queries, *keys)
    if side := tap.pool(site, shape):
        x, seen = attention_and_pooled(q, k, v, keys, side)
        parts = (min(side, length) for length in keys)
        tap.see(site, shape, tf.reshape(seen, (*q.shape[:2], *queries, *parts)))
    elif tap.wants(site):
        weights = attention_weights(q, k, mask=mask)
        shown = tap(site, tf.reshape(weights, (q.shape[0], *shape)))
        x = weighted_values(tf.reshape(shown, weights.shape), v)
    else:
        tap.passes(site, shape)
        x = attention(q, k, v, mask=mask)
    return tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (x.shape[0], x.shape[2], heads * x.shape[3]))


# ------------------------------------------------------------------------------- layers by weight


def weight(variable: Any, before: Any = None) -> Any:
    """A variable's value in float32, whatever precision it is kept in.

    It is not made before the tensor is there that it will be used with: as it waits for nothing
    else, TensorFlow would begin with all casts of all kernels, and hold the results.
    """
    with tf.control_dependencies([] if before is None else [before]):
        return tf.cast(tf.convert_to_tensor(variable), tf.float32)


def dense(layer: Any, x: Any) -> Any:
    x = kernels.matmul(x, weight(layer.kernel, before=x))
    return x + weight(layer.bias) if layer.use_bias else x


def dense_1x1(layer: Any, x: Any) -> Any:
    """A 1×1 convolution applied to (n, positions, channels)."""
    kernel = weight(layer.conv2d.kernel, before=x)
    return kernels.matmul(x, kernel[0, 0]) + weight(layer.conv2d.bias)


def _project(layer: Any, x: Any) -> Any:
    """In and out of a transformer: dense in Stable Diffusion 2.x, a 1×1 convolution in 1.x."""
    return conv(layer, x) if hasattr(layer, "conv2d") else dense(layer, x)


def conv(layer: Any, x: Any) -> Any:
    """A KerasCV PaddedConv2D."""
    inner = layer.conv2d
    return _conv2d.get()(
        x,
        weight(inner.kernel, before=x),
        weight(inner.bias),
        strides=inner.strides[0],
        padding=layer.padding2d.padding,
    )


def group_norm(layer: Any, x: Any) -> Any:
    """Wu & He 2018, over (y, x) and the channels of a group."""
    # Positions are summed first and the few channel means of a group after: reducing (y, x) and
    # half of the channels at once is several times slower without XLA.
    mean = _group_mean(layer, tf.reduce_mean(x, (1, 2)))
    # x - mean is made twice: held between, it would be written and read once more.
    variance = _group_mean(layer, tf.reduce_mean(tf.math.squared_difference(x, mean), (1, 2)))
    scale = tf.math.rsqrt(variance + layer.epsilon) * weight(layer.gamma)
    return (x - mean) * scale + weight(layer.beta)


def _group_mean(layer: Any, channels: Any) -> Any:
    """(n, c) → (n, 1, 1, c), each channel with the mean of its group."""
    n, c = channels.shape
    groups = tf.reshape(channels, (n, layer.groups, c // layer.groups))
    groups = tf.broadcast_to(tf.reduce_mean(groups, -1, keepdims=True), groups.shape)
    return tf.reshape(groups, (n, 1, 1, c))


def layer_norm(layer: Any, x: Any) -> Any:
    """Ba et al. 2016, over the last axis."""
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    x = (x - mean) * tf.math.rsqrt(variance + layer.epsilon)
    return x * weight(layer.gamma) + weight(layer.beta)


def silu(x: Any) -> Any:
    """x σ(x), Elfwing et al. 2018.

    Not `tf.nn.silu`, whose gradient TensorFlow keeps for ever, and with it each graph it stood in.
    """
    return x * tf.sigmoid(x)


def gelu(x: Any, exact: bool) -> Any:
    """Hendrycks & Gimpel 2016: with the error function, or its tanh approximation (KerasCV)."""
    # TensorFlow's exact one takes 1 - erf where x is below 0, which is slower: its digits far out
    # are lost in the sum that follows.
    return 0.5 * x * (1.0 + tf.math.erf(x * 0.5**0.5)) if exact else tf.nn.gelu(x, True)


def upsample(x: Any) -> Any:
    """Each position repeated 2 × 2."""
    n, h, w, c = x.shape
    x = tf.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c))
    return tf.reshape(x, (n, 2 * h, 2 * w, c))


def _on_grid(x: Any, grid: Any) -> Any:
    return tf.reshape(x, (x.shape[0], *grid, x.shape[-1]))


def _off_grid(x: Any) -> Any:
    return tf.reshape(x, (x.shape[0], -1, x.shape[-1]))
