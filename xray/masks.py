"""Where to paint: masks from a box or a picture, in whole places of the latent.

read_mask("0.5,0.25,1,0.75", 512, 512)       # a box: left, top, right, bottom
read_mask("mask.png", 512, 512)              # painted where it is light
"""

from __future__ import annotations

import numpy as np

from xray.images import load_image
from xray.pictures import resize_mask

BLOCK = 8  # pixels along a place of the latent


def read_mask(mask: str, width: int, height: int) -> np.ndarray:
    """What is inside a mask.

    Args:
        mask: ``"left,top,right,bottom"``, as shares of the sides; or a picture that `load_image`
            reads, inside where it is lighter than mid grey.
        width, height: in pixels, multiples of 8.

    Returns:
        bool (height, width), the same all over each place of the latent: inside where half of its
        pixels are.

    Raises:
        OSError: no such file.
        ValueError: not a box, not a picture; nothing is inside, or everything.
    """
    inside = _box(mask, width, height)
    if inside is None:
        inside = load_image(mask, width, height).mean(axis=-1) > 127.5
    places = resize_mask(inside, (height // BLOCK, width // BLOCK))
    if places.all() or not places.any():
        raise ValueError(f"{mask}: {'everything' if places.all() else 'nothing'} is inside")
    return places.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)


def _box(mask: str, width: int, height: int) -> np.ndarray | None:
    try:
        left, top, right, bottom = map(float, mask.split(","))
    except ValueError:
        return None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"{mask} is no box: left < right and top < bottom, shares from 0 to 1")
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    return ((y > top) & (y < bottom))[:, None] & (x > left) & (x < right)
