"""What is put round and into the pictures of a film: a caption below, an inset in the corner.

frame = caption(inset(enlarge(picture), heat, "star"), "a red star above a blue moon")
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from xray import page, pictures

LEAST = 384  # pixels of the shorter side of a film: a caption must have room
LINES = 2
_BACK, _INK = (17, 17, 17), (240, 240, 240)


def enlarge(picture: Image.Image) -> Image.Image:
    """Every pixel a square, so that the shorter side has 384 pixels at least."""
    scale = max(1, math.ceil(LEAST / min(picture.size)))
    return pictures.enlarge(np.asarray(picture.convert("RGB")), scale)


def caption(picture: Image.Image, text: str, strength: float = 1.0) -> Image.Image:
    """The picture with two lines of text under it; longer text is cut.

    Args:
        strength: 0 … 1, of the text on its dark ground.
    """
    font = _font(max(13, picture.width // 24))
    line = round(1.35 * font.size)
    framed = Image.new("RGB", (picture.width, picture.height + (LINES + 1) * line), _BACK)
    framed.paste(picture)
    draw = ImageDraw.Draw(framed)
    lines = _wrapped(text, font, picture.width - 2 * line)
    colour = tuple(round(b + strength * (i - b)) for b, i in zip(_BACK, _INK))
    top = picture.height + ((LINES + 1) - len(lines)) * line // 2
    for row, words in enumerate(lines):
        place = picture.width // 2, top + row * line + line // 2
        draw.text(place, words, font=font, fill=colour, anchor="mm")
    return framed


def inset(picture: Image.Image, small: np.ndarray, label: str) -> Image.Image:
    """The picture with a small one, uint8 (y, x, 3), and its name in the lower right corner."""
    font = _font(max(11, picture.width // 34))
    width = round(0.27 * picture.width)
    height = round(width * small.shape[0] / small.shape[1])
    band, border = round(1.5 * font.size), max(2, picture.width // 192)
    box = Image.new("RGB", (width + 2 * border, height + band + 2 * border), _BACK)
    pixels = Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST)
    box.paste(pixels, (border, band + border))
    words = _wrapped(label, font, width, lines=1)[0]
    place = box.width // 2, (band + border) // 2 + 1
    ImageDraw.Draw(box).text(place, words, font=font, fill=_INK, anchor="mm")
    framed = picture.copy()
    framed.paste(box, (picture.width - box.width - border, picture.height - box.height - border))
    return framed


def heat(values: np.ndarray, largest: float) -> np.ndarray:
    """A map (y, x) in the colours that word maps have, from 0 to `largest`; uint8 (y, x, 3)."""
    level = np.clip(values.astype(np.float64) / (largest or 1.0), 0, 1)
    return np.rint(colormaps[page.MAPS](level)[..., :3] * 255).astype(np.uint8)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib's own, which has letters of most languages; Pillow's has Latin ones.
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def _wrapped(
    text: str, font: ImageFont.FreeTypeFont, width: float, lines: int = LINES
) -> list[str]:
    """The text in at most so many lines, each no wider than `width` pixels."""
    made = [""]
    for word in text.split():
        longer = f"{made[-1]} {word}".strip()
        if font.getlength(longer) <= width or not made[-1]:
            made[-1] = longer
        else:
            made.append(word)
    if len(made) > lines:
        made = [*made[: lines - 1], " ".join(made[lines - 1 :])]
    return [_cut(each, font, width) for each in made]


def _cut(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
