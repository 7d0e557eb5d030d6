"""The statistics agree with SciPy's, and sampling and formatting keep their promises."""

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from xray import stats

samples = hnp.arrays(
    np.float32, st.integers(1, 200), elements=st.floats(-8, 8, width=32, allow_subnormal=False)
)


@given(samples)
def test_ks_distance_is_scipys(values):
    expected = scipy.stats.kstest(values.astype(np.float64), "norm").statistic
    assert stats.normality(values)["ks"] == pytest.approx(expected, abs=1e-12)


def test_ks_distance_does_not_depend_on_the_block():
    ordered = np.sort(np.random.default_rng(0).normal(size=1000))
    assert stats._ks_to_standard_normal(ordered, block=7) == stats._ks_to_standard_normal(ordered)


def test_moments_are_scipys():
    values = np.random.default_rng(0).gamma(2, size=5000).astype(np.float32)
    result = stats.normality(values)
    exact = values.astype(np.float64)
    assert result["skewness"] == pytest.approx(scipy.stats.skew(exact))
    assert result["kurtosis"] == pytest.approx(scipy.stats.kurtosis(exact))


def test_noise_is_near_normal_and_a_constant_far():
    noise = np.random.default_rng(0).normal(size=10_000).astype(np.float16)
    assert stats.normality(noise)["ks"] < 1.36 / math.sqrt(noise.size)
    constant = stats.normality(np.full(10, 0.1))
    assert constant["ks"] == pytest.approx(scipy.stats.norm.cdf(0.1))
    assert math.isnan(constant["skewness"]) and math.isnan(constant["kurtosis"])


@given(
    hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=12),
    st.integers(1, 100),
)
def test_a_sample_is_a_view_of_few_values_in_every_dimension(shape, limit):
    values = np.arange(math.prod(shape)).reshape(shape)
    sample = stats.sample(values, limit)
    assert sample.ndim == values.ndim and sample.size <= max(limit, 0 if 0 in shape else 1)
    assert np.shares_memory(sample, values) or sample.size == 0
    assert sample.size * 2**values.ndim >= min(limit, values.size)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (102_400, "102 kB"), (999_999, "1 MB"),
     (133_000_000, "133 MB"), (5 * 10**15, "5e+03 TB")],
)  # fmt: skip
def test_bytes_in_words(count, text):
    assert stats.format_bytes(count) == text
