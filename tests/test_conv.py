"""The kernels are the sums that SciPy computes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from xray import conv
from xray.conv import conv2d, matmul


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def slow_conv(x, kernel, bias, strides, padding):
    """One output channel at a time, in float64."""
    x = np.pad(x.astype(np.float64), [(0, 0), *padding, (0, 0)])
    flipped = kernel[::-1, ::-1].astype(np.float64)
    out = np.stack(
        [
            sum(
                scipy.signal.convolve(x[..., i], flipped[None, ..., i, o], "valid")
                for i in range(x.shape[-1])
            )
            for o in range(kernel.shape[-1])
        ],
        axis=-1,
    )
    return out[:, ::strides, ::strides] + bias


cases = st.fixed_dictionaries(
    {
        "size": st.tuples(st.integers(3, 9), st.integers(3, 9)),
        "kernel": st.sampled_from([1, 3]),
        "channels": st.tuples(st.integers(1, 3), st.integers(1, 4)),
        "strides": st.sampled_from([1, 2]),
        "padding": st.sampled_from([((0, 0), (0, 0)), ((1, 1), (1, 1)), ((0, 1), (0, 1))]),
    }
)


@settings(max_examples=40)
@given(case=cases)
def test_a_convolution_is_the_sum_over_its_window(case):
    size, (cin, cout), k = case["size"], case["channels"], case["kernel"]
    strides, padding = case["strides"], case["padding"]
    x, kernel, bias = normal(0, 2, *size, cin), normal(1, k, k, cin, cout), normal(2, cout)
    out = conv2d(x, kernel, bias, strides=strides, padding=padding)
    np.testing.assert_allclose(
        out, slow_conv(x, kernel, bias, strides, padding), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("strides", [1, 2])
def test_few_windows_and_a_large_kernel_make_the_same_sum(strides, monkeypatch):
    x, kernel, bias = normal(0, 2, 5, 4, 12), normal(1, 3, 3, 12, 50), normal(2, 50)
    settings = {"strides": strides, "padding": ((1, 1), (0, 1))}
    expected = conv2d(x, kernel, bias, **settings)
    monkeypatch.setattr(conv, "LARGE", kernel.size)
    monkeypatch.setattr(conv.tf.nn, "conv2d", None)
    found = conv2d(x, kernel, bias, **settings)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(found, slow_conv(x, kernel, bias, *settings.values()), atol=2e-5)


def test_a_product_applies_to_the_last_axis():
    x, kernel = normal(0, 2, 3, 4, 5), normal(1, 5, 6)
    out = matmul(x, kernel)
    assert out.shape == (2, 3, 4, 6)
    np.testing.assert_allclose(out, np.einsum("nijc,cd->nijd", x, kernel), atol=1e-5)
