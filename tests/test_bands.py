"""Octaves of a latent: every coefficient in one of them, and nothing lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray import bands

sides = st.integers(4, 40)


@given(sides, sides)
def test_every_coefficient_has_one_band(height, width):
    found = bands.octaves(height, width)
    members = bands.members(height, width, found)
    np.testing.assert_array_equal(members.sum(axis=0), 1)
    assert members.any(axis=(1, 2)).all()  # no band is empty
    assert members[0].sum() == 1 and members[0, 0, 0]


@given(sides, sides, st.integers(0, 99))
def test_the_bands_add_up_to_the_latent_and_are_orthogonal(height, width, seed):
    x = np.random.default_rng(seed).standard_normal((height, width, 4))
    found = bands.octaves(height, width)
    layers = bands.split(x, found)
    np.testing.assert_allclose(layers.sum(axis=0), x, atol=1e-12)
    assert (layers**2).sum() == pytest.approx((x**2).sum())
    counts = bands.members(height, width, found).sum(axis=(1, 2)) * 4
    np.testing.assert_allclose((layers**2).sum(axis=(1, 2, 3)), bands.energy(x, found) * counts)


@pytest.mark.parametrize(("cycles", "band"), [(0, "mean"), (1, "1–2"), (3, "2–4"), (7, "4–8")])
def test_a_wave_lies_in_its_octave(cycles, band):
    wave = np.cos(2 * np.pi * cycles * np.arange(16) / 16)[:, None, None] * np.ones((16, 16, 4))
    found = bands.octaves(16, 16)
    assert [b.name for b in found] == ["mean", "1–2", "2–4", "4–8"]
    energy = bands.energy(wave, found)
    assert found[int(energy.argmax())].name == band
    assert energy.max() > 0.99 * energy.sum()


def test_noise_has_the_same_energy_in_every_band():
    noise = np.random.default_rng(0).standard_normal((200, 24, 16, 4))
    found = bands.octaves(24, 16)
    np.testing.assert_allclose(bands.energy(noise, found).mean(axis=0), 1, rtol=0.1)


def test_too_small_a_grid_is_refused():
    with pytest.raises(ValueError, match="3×8"):
        bands.octaves(3, 8)
