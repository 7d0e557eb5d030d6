"""Winograd's convolution is the convolution, and stays within what rounding may do to a run."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import into
from test_attention import ancestors

import xray
from xray import conv, winograd


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


BASES = {2: winograd.F2, 4: winograd.F4}


@given(seed=st.integers(0, 2**32), tile=st.sampled_from([2, 4]))
def test_the_three_matrices_are_a_convolution(seed, tile):
    """Y = Aᵀ ((G g) ⊙ (Bᵀ d)) is `tile` positions of the 3-tap correlation, exactly."""
    inputs, kernel, output = (np.array(m, np.float64) for m in BASES[tile])
    random = np.random.default_rng(seed)
    d, g = random.standard_normal(tile + 2), random.standard_normal(3)
    found = output @ ((kernel @ g) * (inputs @ d))
    np.testing.assert_allclose(found, np.correlate(d, g, "valid"), atol=1e-13)


@settings(max_examples=25)
@given(
    n=st.integers(1, 2),
    tiles=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    held=st.sampled_from([40, 200, 2**20]),
    tile=st.sampled_from([2, 4]),
)
def test_it_is_the_convolution(n, tiles, channels, held, tile):
    """In bands of the picture and shares of the kernel as whole."""
    height, width = (tile * count for count in tiles)
    x, kernel = normal(0, n, height, width, channels[0]), normal(1, 3, 3, *channels)
    expected = conv.conv2d(tf.constant(x), kernel, 0.0, padding=winograd.SAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "HELD", held)
        found = winograd.winograd(tf.constant(x), tf.constant(kernel), BASES[tile])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 16, 16)])  # in each of the two bases
def test_at_full_size_the_error_is_a_ten_thousandth_of_the_standard_deviation(shape):
    x, kernel = normal(0, *shape, 320), normal(1, 3, 3, 320, 128) * np.float32(0.02)
    arguments = (tf.constant(x), tf.constant(kernel), normal(2, 128))
    fast = winograd.conv2d(*arguments, padding=winograd.SAME)
    plain = conv.conv2d(*arguments, padding=winograd.SAME).numpy()
    assert 0 < np.abs(fast - plain).max() < 2e-4 * plain.std()


@pytest.mark.parametrize(
    ("side", "channels", "taps", "strides", "padding"),
    [
        (8, (128, 128), 3, 1, winograd.SAME),  # few positions
        (16, (128, 128), 3, 1, winograd.SAME),  # the most that are few
        (32, (4, 320), 3, 1, winograd.SAME),  # few channels
        (32, (128, 128), 3, 2, ((0, 1), (0, 1))),
        (32, (128, 128), 1, 1, ((0, 0), (0, 0))),
        (34, (128, 128), 3, 1, winograd.SAME),  # no multiple of 4
    ],
)
def test_where_it_does_not_pay_it_is_plain_convolution_to_the_bit(
    side, channels, taps, strides, padding
):
    x, kernel = tf.constant(normal(0, 1, side, side, channels[0])), normal(1, taps, taps, *channels)
    found, plain = (
        f(x, kernel, 0.0, strides=strides, padding=padding) for f in (winograd.conv2d, conv.conv2d)
    )
    np.testing.assert_array_equal(found, plain)


def test_what_a_model_computes_by_stands_in_its_mode(tiny, model, spare):
    assert model.mode == {"jit": False, "exact": False}
    with into(spare):
        exact = xray.load(tiny, weights=None, exact=True)
        xla = xray.load(tiny, weights=None, jit=True)
    assert exact.mode == {"jit": False, "exact": True} and "exact" in repr(exact)
    assert xla.mode == {"jit": True, "exact": False} and "XLA" in repr(xla)


def test_bands_are_computed_one_after_the_other(monkeypatch):
    monkeypatch.setattr(winograd, "HELD", 36 * 8)
    specs = tf.TensorSpec((1, 8, 8, 4)), tf.TensorSpec((3, 3, 4, 4))
    convolution = functools.partial(winograd.winograd, basis=winograd.F4)
    graph = tf.function(convolution).get_concrete_function(*specs).graph
    gathers = [op for op in graph.get_operations() if op.type == "GatherV2"]
    assert len(gathers) > 1
    for before, after in itertools.pairwise(gathers):
        assert before in ancestors(after)


@pytest.mark.slow
def test_a_whole_run_stays_where_it_was(monkeypatch):
    """25 steps of the miniature with every 3×3 convolution that can be so: latents and pixels."""
    asked = {"prompt": "a red star above a blue moon", "steps": 25, "seed": 7}
    plain = xray.load("mini", exact=True).generate(**asked)
    monkeypatch.setattr(winograd, "POSITIONS", 0)
    monkeypatch.setattr(winograd, "POSITIONS_F4", 2 * 8 * 8)
    monkeypatch.setattr(winograd, "CHANNELS", 0)
    fast = xray.load("mini").generate(**asked)
    for step in (0, 12, 24):
        a, b = (t["sampler/latent"].sel(step=step).values for t in (fast, plain))
        assert np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)) < 1e-3
    a, b = fast["sampler/out"].values, plain["sampler/out"].values
    assert 0 < np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)) < 1e-3
    apart = np.abs(fast["image"].values.astype(int) - plain["image"].values)
    assert np.mean(apart <= 1) > 0.999
