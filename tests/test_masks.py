"""Masks: whole places of the latent, from a box or from a picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from xray.masks import check_mask, read_mask


def test_a_box_is_shares_of_the_sides():
    mask = read_mask("0.5,0.25,1,0.75", 128, 64)
    expected = np.zeros((64, 128), bool)
    expected[16:48, 64:] = True
    np.testing.assert_array_equal(mask, expected)


def test_a_place_is_inside_if_half_of_it_is():
    mask = read_mask("0,0,0.2,1", 64, 64)  # 12.8 pixels wide: one place, and more than half of one
    assert mask[:, :16].all() and not mask[:, 16:].any()
    mask = read_mask("0,0,0.17,1", 64, 64)
    assert mask[:, :8].all() and not mask[:, 8:].any()


def test_a_picture_is_inside_where_it_is_light(tmp_path):
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:32, 32:] = 200
    pixels[40:, 40:] = 100
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    mask = read_mask(str(tmp_path / "mask.png"), 64, 64)
    np.testing.assert_array_equal(mask, pixels == 200)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("0.5,0,0.5,1", ValueError, "left < right"),
        ("-1,0,1,1", ValueError, "shares from 0 to 1"),
        ("0,0,1,1", ValueError, "everything is inside"),
        ("0,0,0.01,0.01", ValueError, "nothing is inside"),
        ("0,0,1", ValueError, "neither a picture nor a box"),
        ("no.png", FileNotFoundError, "no.png"),
    ],
)
def test_what_is_no_mask_is_refused(given, error, said):
    with pytest.raises(error, match=said):
        read_mask(given, 64, 64)
    if "inside" in said:  # which depends on the size
        check_mask(given)
    else:
        with pytest.raises(error, match=said):
            check_mask(given)


def test_a_file_may_have_commas_in_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.repeat([0, 255], 32).astype(np.uint8)
    Image.fromarray(np.tile(pixels, (64, 1))).save("0,0,1,1.png")
    check_mask("0,0,1,1.png")
    np.testing.assert_array_equal(read_mask("0,0,1,1.png", 64, 64)[0], pixels > 0)
