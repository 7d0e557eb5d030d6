"""Circles close to the bit and random walks turn as far as was asked; both keep the norm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.paths import circle, random_walk, stream
from xray.samplers import initial_noise

SHAPE = (8, 8, 4)


def degrees(a, b):
    cosine = np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
    return np.degrees(np.arccos(np.clip(cosine.astype(np.float64), -1, 1)))


@given(seed=st.integers(0, 1000), frames=st.integers(3, 60))
def test_a_circle_begins_and_ends_at_a_to_the_bit_and_keeps_its_norm(seed, frames):
    a, b = initial_noise(seed, SHAPE), initial_noise(seed + 1, SHAPE)
    way = circle(a, b, frames)
    assert way.shape == (frames, *SHAPE) and way.dtype == np.float32
    np.testing.assert_array_equal(way[0], a)
    np.testing.assert_array_equal(way[-1], a)
    norms = np.linalg.norm(way.reshape(frames, -1), axis=1)
    np.testing.assert_allclose(norms, np.linalg.norm(a), rtol=1e-6)


def test_a_circle_goes_once_round_in_equal_steps():
    way = circle(initial_noise(1, SHAPE), initial_noise(2, SHAPE), 13)
    steps = [degrees(x, y) for x, y in zip(way, way[1:])]
    np.testing.assert_allclose(steps, 30, atol=1e-3)
    np.testing.assert_allclose(way[6], -way[0], atol=1e-6)  # the opposite is half-way


def test_a_circle_s_quarter_is_the_part_of_b_that_a_has_not():
    a, b = np.array([2.0, 0, 0]), np.array([5.0, 0.1, 0])
    np.testing.assert_allclose(circle(a, b, 5)[1], [0, 2, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "frames", "said"),
    [
        ([1.0, 2.0], [2.0, 4.0], 9, "span no plane"),
        ([0.0, 0.0], [2.0, 4.0], 9, "span no plane"),
        ([1.0, 2.0], [0.0, 0.0], 9, "span no plane"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], 9, "shapes"),
        ([1.0, 2.0], [2.0, 1.0], 2, "at least 3 frames, got 2"),
    ],
)
def test_what_makes_no_circle_is_refused(a, b, frames, said):
    with pytest.raises(ValueError, match=said):
        circle(np.array(a), np.array(b), frames)


@given(seed=st.integers(0, 1000), angle=st.floats(0.5, 90))
def test_a_random_walk_turns_by_its_angle_and_keeps_the_norm(seed, angle):
    start = initial_noise(seed, SHAPE)
    way = random_walk(start, 8, angle=angle, seed=seed)
    np.testing.assert_array_equal(way[0], start)
    steps = [degrees(x, y) for x, y in zip(way, way[1:])]
    np.testing.assert_allclose(steps, angle, atol=0.05)
    norms = np.linalg.norm(way.reshape(8, -1), axis=1)
    np.testing.assert_allclose(norms, np.linalg.norm(start), rtol=1e-6)


def test_a_random_walk_forgets_where_it_came_from_as_fast_as_is_said():
    start = initial_noise(3, (64, 64, 4))
    way = random_walk(start, 31, angle=10, seed=3)
    cosines = np.cos(np.radians([degrees(start, x) for x in way]))
    np.testing.assert_allclose(cosines, np.cos(np.radians(10)) ** np.arange(31), atol=0.03)


def test_a_random_walk_is_its_seed_s_and_a_longer_one_begins_alike():
    start = initial_noise(3, SHAPE)
    way = random_walk(start, 9, angle=5, seed=3)
    np.testing.assert_array_equal(way[:5], random_walk(start, 5, angle=5, seed=3))
    assert not np.array_equal(way[1], random_walk(start, 9, angle=5, seed=4)[1])


@pytest.mark.parametrize("angle", [0, -3, 91, float("nan")])
def test_an_angle_that_is_none_is_refused(angle):
    with pytest.raises(ValueError, match="up to 90 degrees"):
        random_walk(initial_noise(3, SHAPE), 9, angle=angle, seed=3)


@pytest.mark.parametrize("seed", [0, 7])
def test_a_walk_s_noise_is_neither_the_initial_nor_any_that_is_put_back(seed):
    own = stream(seed).standard_normal(SHAPE, np.float32)
    others = [initial_noise(seed, SHAPE)]
    others += [
        np.random.default_rng([seed, k]).standard_normal(SHAPE, np.float32) for k in range(9)
    ]
    for other in others:
        assert abs(np.corrcoef(own.ravel(), other.ravel())[0, 1]) < 0.3
