"""Captions and insets: the picture stays as it is, and nothing leaves its place."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from xray import framing

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
LONG = "a red star above a blue moon and " * 12


@pytest.fixture
def picture():
    return Image.fromarray(PIXELS)


def test_a_small_picture_is_enlarged_by_whole_squares(picture):
    large = framing.enlarge(picture)
    assert large.size == (768, 384)
    np.testing.assert_array_equal(np.asarray(large)[3::6, 3::6], PIXELS)
    whole = Image.new("RGB", (512, 768))
    assert framing.enlarge(whole).size == (512, 768)


@pytest.mark.parametrize("text", ["a red star", LONG, "", "x" * 400, "星と月 — étoile"])
def test_a_caption_stands_below_and_has_one_height_for_all_texts(picture, text):
    large = framing.enlarge(picture)
    framed = framing.caption(large, text)
    assert framed.width == large.width
    assert framed.height == framing.caption(large, "short").height > large.height
    np.testing.assert_array_equal(np.asarray(framed)[: large.height], np.asarray(large))
    band = np.asarray(framed)[large.height :]
    assert (band.max() > 150) == bool(text)
    assert (band[:, :4].max(), band[:, -4:].max()) == (17, 17)  # cut before the edge


def test_a_caption_fades_with_its_strength(picture):
    bright = [np.asarray(framing.caption(picture, "a star", s))[64:].max() for s in (0, 0.5, 1)]
    assert bright[0] == 17 < bright[1] < bright[2] and bright[2] > 200


def test_an_inset_covers_its_corner_and_nothing_else(picture):
    large = framing.enlarge(picture)
    small = np.zeros((8, 16, 3), np.uint8)
    small[:, :8] = (255, 0, 0)
    framed = np.asarray(framing.inset(large, small, "latent"))
    changed = np.argwhere((framed != np.asarray(large)).any(axis=-1))
    top, left = changed.min(axis=0)
    assert top > 0.5 * large.height and left > 0.6 * large.width
    red = np.argwhere((framed == (255, 0, 0)).all(axis=-1))
    width = np.ptp(red[:, 1]) + 1
    assert width == pytest.approx(0.27 * large.width / 2, abs=2)  # its left half


def test_heat_is_dark_at_nothing_and_bright_at_the_largest():
    colours = framing.heat(np.array([[0.0, 0.5, 1.0, 7.0]], np.float32), 1.0)
    assert colours.shape == (1, 4, 3) and colours.dtype == np.uint8
    levels = colours.astype(float).sum(axis=-1)[0]
    assert levels[0] < 10 < levels[1] < levels[2] == levels[3]
    assert framing.heat(np.zeros((2, 2)), 0.0).max() < 10  # a word that nothing attended to
