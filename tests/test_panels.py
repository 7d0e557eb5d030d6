"""Pictures on a page: every pixel a square of dots, and the differences between two."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from xray import page, panels
from xray.pictures import MISSING


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def drawn(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi="figure")
    return np.asarray(Image.open(buffer).convert("RGB"))


def positions(shown, part):
    """Where `part` stands on the page to the dot, each level right within one: [(y, x), …]."""
    shown, part = shown.astype(int), part.astype(int)
    height, width = part.shape[:2]
    candidates = np.argwhere((abs(shown - part[0, 0]) <= 1).all(-1))
    there = [shown[y : y + height, x : x + width] for y, x in candidates]
    return [
        (y, x)
        for (y, x), cut in zip(candidates, there, strict=True)
        if cut.shape == part.shape and abs(cut - part).max() <= 1
    ]


@given(st.integers(1, 2000), st.integers(1, 2000), st.floats(0.2, 10), st.floats(0.2, 10))
def test_the_scale_is_whole_and_the_largest_that_fits(height, width, wide, tall):
    scale = panels.scale_of((height, width, 3), wide, tall)
    assert 1 in (scale.numerator, scale.denominator)
    across, down = panels.extent((height, width), scale)
    assert across <= wide + 1e-9 and down <= tall + 1e-9
    larger = scale + 1 if scale >= 1 else Fraction(1, scale.denominator - 1)
    across, down = panels.extent((height, width), larger)
    assert across > wide - 1e-9 or down > tall - 1e-9


@pytest.mark.parametrize("side", [16, 64, 100])
def test_every_pixel_is_a_square_of_dots(side):
    picture = noise(side, side, 3)
    figure = page.new("a picture", below=3.0)
    scale = panels.scale_of(picture.shape, 2.7, 2.7)
    panels.place(figure, 1.2345, 0.1234, picture, scale)
    large = picture.repeat(int(scale), 0).repeat(int(scale), 1)
    inside = large[int(scale) : -int(scale), int(scale) : -int(scale)]  # within the thin edge
    assert len(positions(drawn(figure), inside)) == 1


def test_a_picture_too_large_for_its_place_is_shown_as_means_of_whole_blocks():
    picture = noise(300, 600, 3)
    assert panels.scale_of(picture.shape, 2.0, 2.0) == Fraction(1, 2)
    small = panels.reduced(picture, Fraction(1, 2))
    blocks = picture.reshape(150, 2, 300, 2, 3).mean((1, 3))
    np.testing.assert_array_equal(small, np.rint(blocks).astype(np.uint8))
    figure = page.new("a picture", below=3.0)
    panels.place(figure, 0.5, 0.5, picture, Fraction(1, 2))
    assert len(positions(drawn(figure), small[2:-2, 2:-2])) == 1  # within the thin edge
    assert panels.reduced(picture[:7, :5], Fraction(1, 3)).shape == (3, 2, 3)  # the rest counts too


def test_a_sheet_shows_every_picture_in_its_row_and_column():
    cells = [[noise(32, 48, 3, seed=3 * r + c) for c in range(3)] for r in range(2)]
    cells[1][1] = None
    figure = panels.sheet(
        "Six pictures",
        ["made up"],
        cells,
        heads=["one", ("two", "and more"), "three"],
        sides=["upper", ("lower", "row")],
        captions=[["a", "b", "c"], ["d", "", "f"]],
    )
    words = {t.get_text() for t in figure.texts}
    assert {"one", "two", "and more", "upper", "lower", "row", "a", "f"} <= words
    (scale,) = (w.split()[-3] for w in words if "enlarged" in w)
    shown = drawn(figure)
    places = {}
    for r, c in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 2)):
        large = cells[r][c].repeat(int(scale), 0).repeat(int(scale), 1)[5:-5, 5:-5]
        (places[r, c],) = positions(shown, large)
    assert places[0, 0][0] == places[0, 1][0] == places[0, 2][0] < places[1, 0][0]
    assert places[0, 0][1] == places[1, 0][1] < places[0, 1][1] < places[0, 2][1]


def test_a_difference_names_the_factor_that_fills_the_scale():
    before = np.full((20, 20, 3), 100, np.uint8)
    after = before.copy()
    after[:, 10:] += 5
    pixels, factor = panels.difference(before, after)
    assert factor == 16  # 32 × 5 would be cut off
    assert (pixels[:, :10] == 128).all() and (pixels[:, 10:] == 128 + 80).all()
    pixels, factor = panels.difference(after, before)
    assert (pixels[:, 10:] == 128 - 80).all()
    assert panels.difference(before, before)[1] == 128
    assert (
        panels.difference(np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8))[1] == 1
    )


def test_numbers_as_colours_reach_both_ends_and_show_holes():
    colours = panels.coloured(np.array([[0.0, 1.0, np.nan, 5.0]]), "gray", 0, 1)
    assert colours[0].tolist() == [[0] * 3, [255] * 3, list(MISSING), [255] * 3]
    assert panels.coloured(np.zeros((2, 2)), "gray", 0, 0).max() == 0


def test_words_that_say_the_scale():
    assert panels.in_words(Fraction(1)) == "shown pixel by pixel"
    assert panels.in_words(Fraction(3)) == "shown 3 × enlarged"
    assert panels.in_words(Fraction(1, 2)) == "shown at 1:2"
