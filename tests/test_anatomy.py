"""Networks dissected: multiply-adds by closed forms, memory by hand, blocks run alone."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from xray import anatomy
from xray import conv as kernels
from xray.anatomy import alive, block_of, dissect, pieces, time_blocks, time_whole
from xray.attention import attention
from xray.networks import variables

LATENT = (8, 16, 4)


class Part:
    """A network of one block."""

    def __init__(self, compute):
        self.name = "decoder"
        self.network = lambda tap, *arrays: tap("decoder/out", compute(*arrays))


def shapes_of(arch):
    return {
        "text": [(1, arch.text_length)],
        "unet": [(1, *LATENT), (1, arch.widths[0]), (1, arch.text_length, arch.text_width)],
        "decoder": [(1, *LATENT)],
        "encoder": [(1, 8 * LATENT[0], 8 * LATENT[1], 3)],
    }


@pytest.fixture(scope="module")
def nets(model):
    shapes = shapes_of(model.architecture)
    return {name: dissect(model.parts[name], own) for name, own in shapes.items()}


# --- multiply-adds ---------------------------------------------------------------------------

SIDE, FEW = st.integers(2, 6), st.integers(1, 5)


@settings(max_examples=20)
@given(SIDE, SIDE, FEW, FEW, st.sampled_from([1, 3]), st.sampled_from([1, 2]), st.integers(0, 2))
def test_a_convolution_multiplies_its_whole_kernel_at_every_place(h, w, cin, cout, k, s, pad):
    kernel, padding = np.ones((k, k, cin, cout), np.float32), ((pad, pad), (pad, pad))
    net = dissect(
        Part(lambda x: kernels.conv2d(x, kernel, 0.0, strides=s, padding=padding)),
        [(2, h + k, w + k, cin)],
    )
    _, height, width, _ = net.output_shape
    assert (height, width) == tuple((n + 2 * pad) // s + 1 for n in (h, w))
    assert net.multiply_adds == 2 * height * width * k * k * cin * cout


@settings(max_examples=20)
@given(FEW, SIDE, FEW, FEW)
def test_a_linear_layer_multiplies_once_for_each_pair(n, tokens, cin, cout):
    kernel = np.ones((cin, cout), np.float32)
    net = dissect(Part(lambda x: kernels.matmul(x, kernel)), [(n, tokens, cin)])
    assert net.multiply_adds == n * tokens * cin * cout


@pytest.mark.parametrize("held", [2**21, 50])  # all at once, and one head after the other
def test_attention_multiplies_queries_by_keys_and_weights_by_values(held, monkeypatch):
    monkeypatch.setattr("xray.attention.HELD", held)
    n, heads, queries, keys, d = 2, 3, 7, 11, 5
    shapes = [(n, heads, count, d) for count in (queries, keys, keys)]
    net = dissect(Part(attention), shapes)
    assert net.multiply_adds == 2 * n * heads * queries * keys * d


def residual(h, w, cin, cout, time=0):
    shortcut = h * w * cin * cout if cin != cout else 0
    return 9 * h * w * (cin * cout + cout * cout) + shortcut + time * cout


def transformer(h, w, c, tokens, text):
    places = h * w
    linear = places * (2 * c * c + 4 * c * c + 2 * c * c + 8 * c * c + 4 * c * c)
    return linear + 2 * tokens * text * c + 2 * places * places * c + 2 * places * tokens * c


def test_blocks_multiply_as_their_sizes_say(nets, tiny):
    """The formulas know the topology; the count knows only the graph."""
    h, w, _ = LATENT
    tokens, text, time = tiny.text_length, tiny.text_width, tiny.time_width
    found = {b.name: b.multiply_adds for net in nets.values() for b in net.blocks}
    expected = {
        "text/embedding": 0,
        "text/layer.1": tokens * 12 * text**2 + 2 * tokens**2 * text,
        "unet/time": 8 * time + time * time,
        "unet/conv_in": 9 * h * w * 4 * 8,
        "unet/down.0/res.0": residual(h, w, 8, 8, time),
        "unet/down.0/attn.0": transformer(h, w, 8, tokens, text),
        "unet/down.0/downsample": 9 * (h // 2) * (w // 2) * 8 * 8,
        "unet/down.1/res.0": residual(h // 2, w // 2, 8, 16, time),
        "unet/mid/attn.0": transformer(h // 8, w // 8, 16, tokens, text),
        "unet/up.0/upsample": 9 * (h // 4) * (w // 4) * 16 * 16,
        "unet/up.3/res.0": residual(h, w, 16 + 8, 8, time),
        "unet/up.3/res.1": residual(h, w, 8 + 8, 8, time),
        "unet/out": 9 * h * w * 8 * 4,
        "decoder/conv_in": h * w * 4 * 4 + 9 * h * w * 4 * 8,
        "decoder/mid/attn.0": 4 * h * w * 8 * 8 + 2 * (h * w) ** 2 * 8,
        "decoder/up.3/res.0": residual(8 * h, 8 * w, 4, 4),
        "decoder/out": 9 * 64 * h * w * 4 * 3,
        "encoder/moments": 9 * h * w * 8 * 8 + h * w * 8 * 8,
        "encoder/out": 0,
    }
    assert {name: found[name] for name in expected} == expected


# --- parameters, shapes, skips -----------------------------------------------------------------


def test_parameters_are_those_of_the_network_and_stand_in_their_blocks(nets, model):
    for name, net in nets.items():
        sizes = {k: int(np.prod(v.shape)) for k, v in variables(name, model.networks[name]).items()}
        assert net.parameters == sum(sizes.values())
        if name in ("unet", "text"):
            for block in net.blocks:
                if block.kind in ("residual", "attention"):
                    own = sum(n for k, n in sizes.items() if k.startswith(block.name + "/"))
                    assert block.parameters == own
    assert sum(net.parameters for net in nets.values()) == model.parameters


def test_blocks_leave_the_shapes_that_their_sites_have(nets, model):
    for name, shapes in shapes_of(model.architecture).items():
        dtype = np.int32 if name == "text" else np.float32
        sites = model.parts[name].program([np.zeros(shape, dtype) for shape in shapes]).sites
        for block in nets[name].blocks:
            site = block.name if block.name in sites else f"{block.name}/out"
            assert block.shape == tuple(sites[site])
        assert {block_of(s) for s in sites if "/skip." not in s} == {
            block.name for block in nets[name].blocks
        }


def test_skips_go_from_each_level_down_to_the_same_level_up(nets):
    unet = nets["unet"]
    order = [block.name for block in unet.blocks]
    shapes = {block.name: block.shape for block in unet.blocks}
    sources, targets, sizes = zip(*unet.skips, strict=True)
    assert sources[-1] == "unet/conv_in" and targets[-1] == "unet/up.3/res.1"
    assert targets == tuple(f"unet/up.{i}/res.{j}" for i in range(4) for j in range(2))
    # The last that was put away is the first to be taken.
    assert [order.index(s) for s in sources] == sorted(map(order.index, sources), reverse=True)
    for source, target, size in unet.skips:
        assert shapes[source][:2] == shapes[target][:2]
        assert size == 4 * np.prod(shapes[source])
    assert not any(net.skips for name, net in nets.items() if name != "unet")


# --- memory ------------------------------------------------------------------------------------


def most_alive(compute, count=1000):
    traced = tf.function(compute).get_concrete_function(tf.TensorSpec((count,)))
    variables = {inner.name for _, inner in traced.graph.captures}
    inputs = [x for x in traced.inputs if x.name not in variables]
    return max(alive(traced.graph.get_operations(), inputs, traced.outputs))


def test_a_tensor_lives_until_it_is_read_for_the_last_time():
    double = lambda x: tf.concat([x, x], 0)  # noqa: E731
    assert most_alive(lambda x: tf.reduce_sum(double(x))) == 12_000
    # x is dead when the third is made, and the first double when the fourth is.
    assert most_alive(lambda x: tf.reduce_sum(double(double(x)))) == 24_000
    # x is read again at the end.
    assert most_alive(lambda x: tf.reduce_sum(double(double(x))) + x) == 28_000


def test_number_by_number_writes_over_what_nothing_needs_any_more():
    double = lambda x: tf.concat([x, x], 0)  # noqa: E731
    assert most_alive(lambda x: tf.reduce_sum(tf.sigmoid(double(x)))) == 12_000

    def kept(x):
        y = double(x)
        return tf.reduce_sum(y * tf.sigmoid(y))

    assert most_alive(kept) == 16_000
    # The input belongs to the caller no longer than to the network.
    assert most_alive(lambda x: tf.sigmoid(x)) == 4_000


def test_a_reshaped_tensor_is_the_same_one_and_weights_are_none():
    assert most_alive(lambda x: tf.concat([tf.reshape(x, (10, 100))] * 2, 0)) == 12_000
    weight = tf.Variable(tf.ones(1000))
    assert most_alive(lambda x: tf.concat([x * weight, weight * 2.0], 0)) == 12_000


def test_what_waits_for_later_is_counted_where_it_waits(nets):
    """In the middle of the U-Net all skips are alive."""
    unet = {block.name: block for block in nets["unet"].blocks}
    waiting = sum(size for _, _, size in nets["unet"].skips)
    assert unet["unet/mid/res.0"].peak_bytes > waiting
    assert nets["unet"].peak_bytes == max(block.peak_bytes for block in unet.values())
    most = max(nets["decoder"].blocks, key=lambda block: block.peak_bytes)
    assert most.peak_bytes >= 3 * 4 * np.prod(most.shape)  # input, output and one between


def test_twice_the_images_twice_the_work_and_memory(nets, model):
    two = dissect(model.decoder, [(2, *LATENT)])
    assert two.multiply_adds == 2 * nets["decoder"].multiply_adds
    assert two.peak_bytes == 2 * nets["decoder"].peak_bytes
    assert two.parameters == nets["decoder"].parameters


# --- time --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["text", "unet", "decoder"])
def test_blocks_one_after_the_other_do_what_the_network_does(nets, model, name):
    net, rng = nets[name], np.random.default_rng(0)
    arrays = [
        rng.integers(0, 20, shape).astype(np.int32)
        if name == "text"
        else rng.standard_normal(shape, np.float32)
        for shape in shapes_of(model.architecture)[name]
    ]
    known = {x.name: tf.constant(a) for x, a in zip(net._traced.inputs, arrays, strict=False)}
    for function, reads, leaves in pieces(net):
        known |= zip(leaves, function(*(known[x.name] for x in reads)), strict=True)
    expected = model.parts[name](*arrays)
    np.testing.assert_allclose(known[leaves[-1]], expected, atol=1e-4 * expected.std())


def test_a_time_is_the_shortest_of_the_repeats_for_every_block(nets, monkeypatch):
    clock = itertools.accumulate(itertools.cycle([10, 5, 10, 2, 10, 3]))  # runs take 5, 2 and 3
    fake = SimpleNamespace(perf_counter=lambda: next(clock))
    monkeypatch.setattr(anatomy, "time", fake)
    assert list(time_blocks(nets["text"], repeats=3)) == [2] * len(nets["text"].blocks)
    assert time_whole(nets["text"], repeats=3) == 2
