"""Where to paint: masks from a box or a picture, in whole places of the latent.

read_mask("0.5,0.25,1,0.75", 512, 512)       # a box: left, top, right, bottom
read_mask("mask.png", 512, 512)              # painted where it is light
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xray.images import check_image, load_image
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
    if _is_picture(mask):
        inside = load_image(mask, width, height).mean(axis=-1) > 127.5
    else:
        left, top, right, bottom = _sides(mask)
        y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
        inside = ((y > top) & (y < bottom))[:, None] & (x > left) & (x < right)
    places = resize_mask(inside, (height // BLOCK, width // BLOCK))
    if places.all() or not places.any():
        raise ValueError(
            f"{mask}: {'everything' if places.all() else 'nothing'} is inside, of a latent whose "
            f"places are {BLOCK}×{BLOCK} pixels of {width}×{height}"
        )
    return places.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)


def check_mask(mask: str) -> None:
    """Refuse what `read_mask` refuses for any size, as far as a picture's header tells."""
    if _is_picture(mask):
        check_image(mask)
    else:
        _sides(mask)


def _is_picture(mask: str) -> bool:
    return "," not in mask or Path(mask).exists()


def _sides(box: str) -> tuple[float, float, float, float]:
    try:
        left, top, right, bottom = map(float, box.split(","))
    except ValueError:
        raise ValueError(f"{box} is neither a picture nor a box: left,top,right,bottom") from None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"{box} is no box: left < right and top < bottom, shares from 0 to 1")
    return left, top, right, bottom
