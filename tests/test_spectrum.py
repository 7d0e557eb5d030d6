"""Power by spatial frequency, on pictures whose spectrum is known."""

from __future__ import annotations

import numpy as np
import pytest

from xray.spectrum import EVEN, OCTAVES, centres, radial_power


def stripes(frequency, direction, shape=(128, 96)):
    """Of amplitude 1, `frequency` cycles per pixel, along `direction` in radians."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.cos(2 * np.pi * frequency * (np.cos(direction) * x + np.sin(direction) * y))


@pytest.mark.parametrize("direction", [0.0, 0.4, np.pi / 2, 2.5])
@pytest.mark.parametrize("frequency", [0.05, 0.2, 0.4])
def test_stripes_stand_at_their_frequency_whatever_their_direction(frequency, direction):
    power = radial_power(stripes(frequency, direction))
    assert abs(centres()[power.argmax()] - frequency) <= 1 / 64
    far = abs(centres() - frequency) > 3 / 64
    assert power[far].max() < 1e-3 * power.max()


@pytest.mark.parametrize("edges", [EVEN, OCTAVES])
def test_white_noise_has_its_variance_everywhere(edges):
    noise = np.random.default_rng(0).normal(5, 3, (256, 256, 16))
    np.testing.assert_allclose(radial_power(noise, edges), 9, rtol=0.2)


def test_the_brightness_of_a_picture_does_not_count():
    noise = np.random.default_rng(0).normal(0, 1, (96, 96))
    np.testing.assert_allclose(radial_power(noise + 1000), radial_power(noise), rtol=1e-6)
    assert radial_power(np.full((96, 96, 3), 7.0)).max() < 1e-20


def test_a_slope_is_not_taken_for_an_edge():
    """Its ends would meet in a jump, which has power at all frequencies."""
    slope = np.tile(np.linspace(0, 1, 128), (128, 1))
    power = radial_power(slope)
    assert power[4:].max() < 1e-3 * power[0]


def test_bands_that_a_grid_has_no_frequency_for_are_nan():
    """Its lowest is 1/8, where the last band but one begins."""
    power = radial_power(np.eye(8), OCTAVES)
    assert np.isnan(power).tolist() == [True] * 4 + [False] * 2
