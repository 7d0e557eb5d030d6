"""The evaluation's measures, on known answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.miniature.metrics import (
    auc,
    centre_blob,
    overlap,
    pairwise_distance,
    pointing,
    region,
)

NUMBERS = st.lists(st.integers(0, 5), min_size=1, max_size=12)


def pictures(seed, shape=(2, 20, 17, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@given(NUMBERS, NUMBERS)
@settings(deadline=None)
def test_auc_counts_pairs(positive, negative):
    wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auc(np.array(positive), np.array(negative)) == pytest.approx(np.mean(wins))


def test_auc_of_separated_and_of_mixed():
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert auc(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 0.0
    assert auc(np.ones(3), np.ones(5)) == 0.5


def test_pointing_takes_the_highest_place():
    mask = np.zeros((4, 4), bool)
    mask[1, 2] = True
    word_map = np.arange(16.0).reshape(4, 4)
    assert pointing(word_map, mask) == 0.0
    word_map[1, 2] = 99.0
    assert pointing(word_map, mask) == 1.0


def test_a_uniform_map_points_as_a_random_place_would():
    mask = np.zeros((8, 8), bool)
    mask[:2] = True
    assert pointing(np.ones((8, 8)), mask) == 0.25
    assert overlap(np.ones((8, 8)), mask, 0.9) == 0.25


def test_overlap_on_a_known_answer():
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    word_map = np.zeros((4, 4))
    word_map[1:3] = 1.0  # one row in common, three in all
    assert overlap(word_map, mask, 0.5) == pytest.approx(1 / 3)


@given(st.floats(0.01, 100.0), st.floats(-5.0, 5.0))
@settings(deadline=None, max_examples=30)
def test_a_region_depends_on_neither_scale_nor_floor(gain, floor):
    word_map = np.random.default_rng(0).random((6, 6))
    near = np.abs(word_map - word_map.min() - 0.5 * np.ptp(word_map)) < 1e-6
    again = region(word_map * gain + floor, 0.5)
    assert np.array_equal(again | near, region(word_map, 0.5) | near)


def test_the_blob_is_in_the_middle():
    blob = centre_blob(128)
    assert np.allclose(blob, blob[::-1]) and np.allclose(blob, blob.T)
    assert blob.argmax() // 128 in (63, 64)
    assert blob[64, 32] / blob[64, 64] == pytest.approx(np.exp(-0.5), rel=0.05)  # one sigma away


def test_pairwise_distance_is_the_mean_over_pairs():
    three = pictures(3, (3, 8, 8, 3))
    slow = [
        np.sqrt(((three[i] / 255.0 - three[j] / 255.0) ** 2).mean())
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert pairwise_distance(three) == pytest.approx(np.mean(slow))
    assert pairwise_distance(three[[0, 0]]) == pytest.approx(0.0, abs=1e-7)
