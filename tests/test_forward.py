"""The flat networks are what KerasCV's own layers compute, site by site, at any size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from xray import forward, winograd
from xray.architecture import build_text_encoder
from xray.conv import conv2d
from xray.networks import set_numerics
from xray.taps import Tap, observe

SIZES = [(8, 8), (8, 16), (16, 8)]  # of the latent, (y, x)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def close(ours, theirs, tolerance=2e-5):
    """max|a − b| / std(b), the project's measure of error."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * max(theirs.std(), 1e-3)


@pytest.fixture(scope="module")
def nets(model):
    """Networks that compute as KerasCV does, so that its layers can be compared with."""
    set_numerics("keras_cv", *model.networks.values())
    yield model.networks
    set_numerics(model.numerics, *model.networks.values())


def sites(network, *inputs):
    """A network's output and every site's tensor, computed eagerly."""
    tap = Tap([observe("**", dtype="float32")])
    output = network(*inputs, tap)
    return output, {site: x.numpy() for site, x in tap.observed.items()}


# --- whole networks against KerasCV's layers, called themselves ------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_every_block_of_the_unet_is_kerascvs(nets, size):
    """Each of KerasCV's layers is given what our network gave its own, and compared at its site."""
    import keras

    net = nets["unet"]
    latent, context = normal(0, 2, *size, 4), normal(1, 2, 20, 16)
    embedding = np.stack([forward.timestep_embedding(t, 8) for t in (801.0, 3.0)])
    out, seen = sites(forward.unet, net, latent, embedding, context)

    time = net.time[1](keras.activations.silu(net.time[0](embedding)))
    close(seen["unet/time"], time)
    time = seen["unet/time"]
    close(seen["unet/conv_in/out"], net.conv_in(latent))
    x = seen["unet/conv_in/out"]
    skips = [x]

    def blocks(name, level, j, x):
        close(seen[f"{name}/res.{j}/out"], level.res[j]([x, time]))
        x = seen[f"{name}/res.{j}/out"]
        if level.attn and j < len(level.attn):
            close(seen[f"{name}/attn.{j}/out"], level.attn[j]([x, context]))
            x = seen[f"{name}/attn.{j}/out"]
        return x

    for i, level in enumerate(net.down):
        for j in range(len(level.res)):
            x = blocks(f"unet/down.{i}", level, j, x)
            skips.append(x)
        if level.resample:
            close(seen[f"unet/down.{i}/downsample/out"], level.resample(x))
            x = seen[f"unet/down.{i}/downsample/out"]
            skips.append(x)
    x = blocks("unet/mid", net.mid, 0, x)
    x = blocks("unet/mid", net.mid, 1, x)
    for i, level in enumerate(net.up):
        for j in range(len(level.res)):
            skip = skips.pop()
            np.testing.assert_array_equal(seen[f"unet/up.{i}/skip.{j}"], skip)
            x = blocks(f"unet/up.{i}", level, j, np.concatenate([x, skip], axis=-1))
        if level.resample:
            close(seen[f"unet/up.{i}/upsample/out"], level.resample(x))
            x = seen[f"unet/up.{i}/upsample/out"]
    assert not skips
    close(seen["unet/out"], net.conv_out(keras.activations.silu(net.norm_out(x))))
    np.testing.assert_array_equal(out, seen["unet/out"])
    assert out.shape == (2, *size, 4)


def test_the_text_encoder_is_kerascvs(nets):
    net = nets["text"]
    tokens = np.random.default_rng(0).integers(0, 500, (3, 20)).astype(np.int32)
    out, seen = sites(forward.text_encoder, net, tokens)
    x = net.embedding([tokens, np.arange(20, dtype=np.int32)[None]])
    close(seen["text/embedding"], x)
    for i, layer in enumerate(net.layers):
        close(seen[f"text/layer.{i}/attention/out"], layer.clip_attn(layer.layer_norm1(x)))
        x = layer(x)
        close(seen[f"text/layer.{i}/out"], x)
    close(out, net.norm(x))


def test_a_text_encoder_with_gelu_is_kerascvs(tiny):
    net = build_text_encoder(dataclasses.replace(tiny, text_activation="gelu", text_layers=1))
    assert not net.quick_gelu
    tokens = np.arange(20, dtype=np.int32)[None]
    _, seen = sites(forward.text_encoder, net, tokens)
    close(seen["text/layer.0/out"], net.layers[0](net.embedding([tokens, tokens])))


def test_no_token_sees_a_later_one(nets):
    tokens = np.random.default_rng(0).integers(0, 500, (1, 20)).astype(np.int32)
    changed = tokens.copy()
    changed[0, 7] += 1
    a, seen = sites(forward.text_encoder, nets["text"], tokens)
    b, _ = sites(forward.text_encoder, nets["text"], changed)
    np.testing.assert_allclose(a[:, :7], b[:, :7], atol=1e-6)
    assert (np.abs(np.asarray(a) - b)[0, 7:].max(axis=-1) > 1e-3).all()
    late = np.triu_indices(20, k=1)
    assert not seen["text/layer.1/attention/weights"][..., late[0], late[1]].any()


@pytest.mark.parametrize("size", SIZES)
def test_the_decoder_is_kerascvs(nets, size):
    import keras

    net = nets["decoder"]
    latent = normal(0, 2, *size, 4)
    out, seen = sites(forward.decoder, net, latent)
    x = net.conv_in[1](net.conv_in[0](latent / np.float32(net.scaling_factor)))
    close(seen["decoder/conv_in/out"], x)
    x = middle("decoder/mid", net.mid, x, seen)
    for i, level in enumerate(net.levels):
        for j, block in enumerate(level.res):
            x = block(x)
            close(seen[f"decoder/up.{i}/res.{j}/out"], x, 1e-4)
        if level.resample:
            x = level.resample(keras.layers.UpSampling2D(2)(x))
            close(seen[f"decoder/up.{i}/upsample/out"], x, 1e-4)
    close(out, net.conv_out[0](keras.activations.silu(net.norm_out(x))), 1e-4)
    assert out.shape == (2, 8 * size[0], 8 * size[1], 3)


@pytest.mark.parametrize("size", SIZES)
def test_the_encoder_is_kerascvs(nets, size):
    import keras

    net = nets["encoder"]
    pixels = np.tanh(normal(0, 2, 8 * size[0], 8 * size[1], 3))
    out, seen = sites(forward.encoder, net, pixels)
    x = net.conv_in[0](pixels)
    for i, level in enumerate(net.levels):
        for j, block in enumerate(level.res):
            x = block(x)
            close(seen[f"encoder/down.{i}/res.{j}/out"], x, 1e-4)
        if level.resample:
            x = level.resample(x)
    x = middle("encoder/mid", net.mid, x, seen)
    x = net.conv_out[0](keras.activations.silu(net.norm_out(x)))
    moments = net.conv_out[1](x)
    close(seen["encoder/moments"], moments, 1e-4)
    close(out, moments[..., :4] * net.scaling_factor, 1e-4)
    assert out.shape == (2, *size, 4)


def middle(name, mid, x, seen):
    x = mid.res[0](x)
    close(seen[f"{name}/res.0/out"], x, 1e-4)
    attended = mid.attn[0](x)
    close(seen[f"{name}/attn.0/out"], attended - x, 1e-4)
    x = mid.res[1](attended)
    close(seen[f"{name}/res.1/out"], x, 1e-4)
    return x


def test_the_original_numerics_are_others_than_kerascvs(nets):
    """Otherwise the comparisons above would not tell which of the two is computed."""
    latent, context = normal(0, 1, 8, 8, 4), normal(1, 1, 20, 16)
    embedding = forward.timestep_embedding(801, 8)[None]
    ours = {}
    for numerics in ("reference", "keras_cv"):  # the last is the fixture's own
        set_numerics(numerics, nets["unet"])
        ours[numerics] = forward.unet(nets["unet"], latent, embedding, context, Tap())
    distance = np.abs(ours["reference"] - ours["keras_cv"]).max() / np.std(ours["keras_cv"])
    assert 1e-5 < distance < 1e-2


# --- what recorded tensors say of each other -------------------------------------------------


def softmax_of(q, k, mask=0.0):
    """The slow way, in float64: (n, head, …, d) of any grid → (n, head, queries, keys)."""
    q, k = (x.astype(np.float64).reshape(*x.shape[:2], -1, x.shape[-1]) for x in (q, k))
    scores = np.einsum("nhqd,nhkd->nhqk", q, k) / np.sqrt(q.shape[-1])
    return scipy.special.softmax(scores + mask, axis=-1)


@pytest.mark.parametrize("part", ["text", "unet", "encoder", "decoder"])
def test_recorded_weights_are_those_of_the_recorded_query_and_key(nets, part):
    inputs = {
        "text": [np.arange(40, dtype=np.int32).reshape(2, 20)],
        "unet": [normal(0, 2, 8, 16, 4), normal(2, 2, 8), normal(1, 2, 20, 16)],
        "encoder": [np.tanh(normal(0, 2, 64, 128, 3))],
        "decoder": [normal(0, 2, 8, 16, 4)],
    }[part]
    network = forward.text_encoder if part == "text" else getattr(forward, part)
    _, seen = sites(network, nets[part], *inputs)
    attentions = [s.removesuffix("/weights") for s in seen if s.endswith("/weights")]
    assert len(attentions) == {"text": 2, "unet": 20, "encoder": 1, "decoder": 1}[part]
    for name in attentions:
        weights, v = seen[f"{name}/weights"], seen[f"{name}/value"]
        mask = np.triu(np.full((20, 20), -np.inf), k=1) if part == "text" else 0.0
        expected = softmax_of(seen[f"{name}/query"], seen[f"{name}/key"], mask)
        np.testing.assert_allclose(weights.reshape(expected.shape), expected, atol=1e-6)
        np.testing.assert_allclose(
            weights.reshape(expected.shape).sum(-1, dtype=np.float64), 1, atol=1e-5
        )
        # What went on from there, before the projection, is the weighted values.
        if name.endswith("/cross") and name.startswith("unet/mid"):
            mixed = np.einsum("nhqk,nhkd->nqhd", expected, v.reshape(*v.shape[:2], -1, v.shape[-1]))
            mixed = mixed.reshape(*mixed.shape[:2], -1)
            layer = nets["unet"].mid.attn[0].transformer_block.attn2.out_proj
            out = mixed @ layer.kernel.numpy() + layer.bias.numpy()
            close(seen[f"{name}/out"].reshape(out.shape), out)


def test_recording_changes_no_bit_of_the_output(nets):
    latent, embedding, context = normal(0, 2, 8, 16, 4), normal(2, 2, 8), normal(1, 2, 20, 16)
    plain = forward.unet(nets["unet"], latent, embedding, context, Tap())
    recorded, _ = sites(forward.unet, nets["unet"], latent, embedding, context)
    np.testing.assert_array_equal(plain, recorded)


def test_the_order_of_sites_is_the_order_of_computation(nets):
    tap = Tap()
    forward.unet(nets["unet"], normal(0, 1, 8, 8, 4), normal(2, 1, 8), normal(1, 1, 20, 16), tap)
    order = list(tap.visited)
    assert order[0] == "unet/time" and order[-1] == "unet/out"
    assert order.index("unet/down.3/res.0/out") < order.index("unet/mid/res.0/out")
    assert order.index("unet/up.0/skip.0") < order.index("unet/up.0/res.0/out")


# --- other convolutions ----------------------------------------------------------------------


def test_another_convolution_gives_the_same_and_is_put_back(nets):
    latent = normal(0, 1, 8, 8, 4)
    usual = forward.decoder(nets["decoder"], latent, Tap())
    used = []

    def counted(*args, **kwargs):
        used.append(1)
        return winograd.conv2d(*args, **kwargs)

    with forward.convolution(counted):
        other = forward.decoder(nets["decoder"], latent, Tap())
    assert len(used) > 20
    close(other, usual)
    with pytest.raises(RuntimeError), forward.convolution(counted):
        raise RuntimeError
    assert forward._conv2d.get() is conv2d


# --- layers against NumPy and SciPy ----------------------------------------------------------


class Norm:
    def __init__(self, width, groups=1, epsilon=1e-5):
        self.gamma, self.beta = 1 + normal(8, width), normal(9, width)
        self.groups, self.epsilon = groups, epsilon


@given(st.integers(1, 4), st.integers(1, 4), st.tuples(st.integers(1, 6), st.integers(1, 6)))
def test_group_norm_is_over_positions_and_the_channels_of_a_group(groups, each, size):
    x = 3 * normal(0, 2, *size, groups * each) + 2
    layer = Norm(groups * each, groups)
    grouped = x.astype(np.float64).reshape(2, -1, groups, each)
    mean = grouped.mean((1, 3), keepdims=True)
    variance = grouped.var((1, 3), keepdims=True)
    expected = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    expected = expected * layer.gamma + layer.beta
    # Where a group has one value it is its own mean, and 0/√ε amplifies what is left.
    np.testing.assert_allclose(forward.group_norm(layer, x), expected, atol=2e-4)


@given(st.integers(1, 9))
def test_layer_norm_is_over_the_last_axis(width):
    x = 3 * normal(0, 2, 5, width) + 2
    layer, exact = Norm(width), x.astype(np.float64)
    expected = exact - exact.mean(-1, keepdims=True)
    expected = expected / np.sqrt(exact.var(-1, keepdims=True) + 1e-5) * layer.gamma + layer.beta
    np.testing.assert_allclose(forward.layer_norm(layer, x), expected, atol=2e-4)


def test_gelu_is_exact_or_the_approximation_that_kerascv_has():
    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    exact = x * scipy.special.ndtr(x.astype(np.float64))
    tanh = 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x.astype(np.float64) ** 3)))
    np.testing.assert_allclose(forward.gelu(x, True), exact, atol=1e-6)
    np.testing.assert_allclose(forward.gelu(x, False), tanh, atol=1e-6)
    assert 1e-4 < np.abs(exact - tanh).max() < 1e-3  # the two can be told apart


def test_upsampling_repeats_every_position():
    x = normal(0, 2, 3, 5, 4)
    np.testing.assert_array_equal(forward.upsample(tf.constant(x)), x.repeat(2, 1).repeat(2, 2))


@settings(max_examples=50)
@given(st.floats(0, 999), st.sampled_from([8, 32, 320]))
def test_the_timestep_embedding_is_cosines_then_sines(timestep, width):
    values = forward.timestep_embedding(timestep, width)
    assert values.shape == (width,) and values.dtype == np.float32
    periods = 10000.0 ** (np.arange(width // 2) / (width // 2))
    np.testing.assert_allclose(values[: width // 2], np.cos(timestep / periods), atol=2e-4)
    np.testing.assert_allclose(values[width // 2 :], np.sin(timestep / periods), atol=2e-4)


def test_timestep_embeddings_are_all_different():
    embeddings = np.stack([forward.timestep_embedding(t, 320) for t in np.arange(0, 1000, 0.5)])
    steps = np.abs(np.diff(embeddings, axis=0)).max(axis=1)
    assert steps.min() > 0.1
