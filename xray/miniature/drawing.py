"""How the miniature's things and backgrounds are painted (Pillow, no state but caches).

A thing is data: a list of (paint, shape) in a box that reaches from -1 to 1, x to the right and
y downwards. Everything is drawn four times too large and reduced, which is all the anti-aliasing
there is. Details are coarse on purpose: what is thinner than about four pixels at 128×128 does
not survive an autoencoder that reduces eightfold.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

Rgb = tuple[int, int, int]

COLOURS: dict[str, Rgb] = {
    "red": (222, 36, 36),
    "orange": (247, 132, 20),
    "yellow": (250, 208, 24),
    "green": (26, 140, 60),
    "blue": (38, 84, 222),
    "purple": (134, 50, 182),
    "pink": (250, 112, 182),
    "brown": (126, 76, 40),
    "black": (26, 26, 32),
    "white": (252, 252, 252),
}

# The colours that cover most of each background, from top to bottom.
BACKGROUNDS: dict[str, tuple[Rgb, ...]] = {
    "white": ((244, 244, 242),),
    "grey": ((166, 170, 178),),
    "black": ((14, 14, 18),),
    "yellow": ((252, 236, 160),),
    "pink": ((252, 206, 218),),
    "sky": ((108, 176, 242), (178, 216, 250)),
    "sea": ((180, 216, 246), (112, 200, 220), (64, 160, 204)),
    "night": ((16, 20, 60), (52, 50, 116)),
    "grass": ((174, 214, 248), (170, 218, 112), (126, 194, 82)),
}

_OVERSAMPLING = 4
_CREAM: Rgb = (252, 246, 232)
_INK: Rgb = (24, 24, 30)
_OVERLAID = (
    "cream",
    "ink",
    "gold",
    "steel",
)  # paints that lie on a thing and are no part of its outline
_DRAWN = ("ink", "gold")  # of these, the ones that an outlined thing keeps, in its own colour


def _mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))


def _luminance(rgb: Rgb) -> float:
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def distance(a: Rgb, b: Rgb) -> float:
    """How different two colours look: the "redmean" approximation, 0 to about 765."""
    mean = (a[0] + b[0]) / 2
    red, green, blue = (x - y for x, y in zip(a, b, strict=True))
    return math.sqrt((2 + mean / 256) * red**2 + 4 * green**2 + (2 + (255 - mean) / 256) * blue**2)


# ---------------------------------------------------------------------------------------- things


def _disc(x: float, y: float, rx: float, ry: float | None = None) -> tuple:
    return ("ellipse", (x, y, rx, rx if ry is None else ry))


def _polygon(*points: tuple[float, float]) -> tuple:
    return ("polygon", points)


def _box(left: float, top: float, right: float, bottom: float) -> tuple:
    return _polygon((left, top), (right, top), (right, bottom), (left, bottom))


def _star() -> tuple:
    points = []
    for k in range(10):
        radius = 1.05 if k % 2 == 0 else 0.5
        angle = math.pi * k / 5
        points.append((radius * math.sin(angle), 0.09 - radius * math.cos(angle)))
    return _polygon(*points)


def _heart() -> tuple:
    points = []
    for k in range(64):
        t = 2 * math.pi * k / 64
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 16, -(y + 2.5) / 15))
    return _polygon(*points)


def _dome(y: float, rx: float, ry: float) -> tuple:
    angles = [math.pi * k / 32 for k in range(33)]
    return _polygon(*((rx * math.cos(a), y - ry * math.sin(a)) for a in angles))


def _petals() -> list[tuple]:
    turns = [math.pi / 3 * k for k in range(6)]
    return [("body", _disc(0.43 * math.sin(a), -0.28 - 0.43 * math.cos(a), 0.29)) for a in turns]


_PARTS: dict[str, list[tuple[str, tuple]]] = {
    "circle": [("body", _disc(0, 0, 1))],
    "square": [("body", _box(-0.9, -0.9, 0.9, 0.9))],
    "triangle": [("body", _polygon((0, -0.92), (1, 0.86), (-1, 0.86)))],
    "star": [("body", _star())],
    "heart": [("body", _heart())],
    "ring": [("body", _disc(0, 0, 1)), ("hole", _disc(0, 0, 0.6))],
    "cross": [("body", _box(-0.34, -1, 0.34, 1)), ("body", _box(-1, -0.34, 1, 0.34))],
    "moon": [("body", _disc(0, 0, 1)), ("hole", _disc(0.5, -0.18, 0.78))],
    "house": [
        ("body", _box(-0.76, -0.1, 0.76, 1)),
        ("shade", _polygon((-1, 0), (0, -1), (1, 0))),
        ("gold", _box(-0.52, 0.34, -0.08, 1)),
        ("cream", _box(0.14, 0.26, 0.56, 0.66)),
    ],
    "tree": [
        ("wood", _box(-0.19, 0.2, 0.19, 1)),
        ("body", _disc(0, -0.5, 0.5)),
        ("body", _disc(-0.44, 0, 0.46)),
        ("body", _disc(0.44, 0, 0.46)),
        ("body", _disc(0, 0.05, 0.4)),
    ],
    "fish": [
        ("shade", _polygon((0.2, 0), (1, -0.6), (0.84, 0), (1, 0.6))),
        ("body", _disc(-0.28, 0, 0.72, 0.56)),
        ("cream", _disc(-0.6, -0.14, 0.2)),
        ("ink", _disc(-0.64, -0.14, 0.12)),
    ],
    "flower": [
        ("leaf", _box(-0.1, 0, 0.1, 1)),
        ("leaf", _disc(0.36, 0.72, 0.32, 0.15)),
        *_petals(),
        ("body", _disc(0, -0.28, 0.4)),
        ("gold", _disc(0, -0.28, 0.25)),
    ],
    "boat": [
        ("wood", _box(-0.08, -1, 0.08, 0.4)),
        ("tint", _polygon((0.08, -0.95), (0.08, 0.22), (0.86, 0.22))),
        ("tint", _polygon((-0.08, -0.7), (-0.08, 0.22), (-0.72, 0.22))),
        ("body", _polygon((-1, 0.34), (1, 0.34), (0.64, 0.96), (-0.64, 0.96))),
    ],
    "cat": [
        ("body", _polygon((-0.94, -0.95), (-0.1, -0.5), (-0.86, 0.2))),
        ("body", _polygon((0.94, -0.95), (0.1, -0.5), (0.86, 0.2))),
        ("body", _disc(0, 0.18, 0.96, 0.78)),
        ("ink", _disc(-0.4, 0.04, 0.16, 0.2)),
        ("ink", _disc(0.4, 0.04, 0.16, 0.2)),
        ("cream", _disc(0, 0.58, 0.34, 0.22)),
        ("ink", _polygon((-0.18, 0.4), (0.18, 0.4), (0, 0.62))),
    ],
    "mushroom": [
        ("bone", _polygon((-0.28, 0), (0.28, 0), (0.42, 0.95), (-0.42, 0.95))),
        ("body", _dome(0.2, 1, 1.15)),
    ],
    "car": [
        ("body", _polygon((-0.68, 0), (-0.4, -0.78), (0.42, -0.78), (0.76, 0))),
        (
            "body",
            _polygon((-1, 0.04), (-0.9, -0.1), (0.86, -0.1), (1, 0.12), (1, 0.58), (-1, 0.58)),
        ),
        ("cream", _polygon((-0.46, -0.1), (-0.28, -0.56), (-0.05, -0.56), (-0.05, -0.1))),
        ("cream", _polygon((0.13, -0.1), (0.13, -0.56), (0.32, -0.56), (0.52, -0.1))),
        ("tyre", _disc(-0.52, 0.54, 0.3)),
        ("tyre", _disc(0.52, 0.54, 0.3)),
        ("steel", _disc(-0.52, 0.54, 0.13)),
        ("steel", _disc(0.52, 0.54, 0.13)),
    ],
}

THINGS: tuple[str, ...] = tuple(_PARTS)


def _paints(colour: str) -> dict[str, Rgb]:
    """The few paints a thing of one colour is made of."""
    rgb = COLOURS[colour]
    dark = _luminance(rgb) < 45
    bright = _luminance(rgb) > 180
    return {
        "body": rgb,
        "pattern": _mix(rgb, (0, 0, 0), 0.42) if bright else _mix(rgb, _CREAM, 0.78),
        "shade": _mix(rgb, (255, 255, 255), 0.3) if dark else _mix(rgb, (0, 0, 0), 0.34),
        "tint": _mix(rgb, (0, 0, 0), 0.16) if colour == "white" else _mix(rgb, _CREAM, 0.55),
        "wood": (112, 66, 38) if colour != "brown" else (74, 42, 22),
        "leaf": (60, 160, 60) if colour != "green" else (110, 190, 60),
        "bone": (236, 212, 172),
        "cream": _CREAM if colour != "white" else (186, 208, 226),
        "ink": _INK if not dark else (240, 220, 90),
        "tyre": (52, 54, 62) if not dark else (104, 106, 114),
        "steel": (206, 208, 214),
        "gold": COLOURS["yellow"] if colour not in ("yellow", "white") else COLOURS["orange"],
    }


def _shape_mask(shape: tuple, half: float, side: int) -> Image.Image:
    """One shape, oversampled: an "L" picture of `side`² with 255 inside."""
    kind, geometry = shape
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    middle, scale = side / 2, half * _OVERSAMPLING
    if kind == "ellipse":
        x, y, rx, ry = (g * scale for g in geometry)
        draw.ellipse((middle + x - rx, middle + y - ry, middle + x + rx, middle + y + ry), fill=255)
    else:
        draw.polygon([(middle + x * scale, middle + y * scale) for x, y in geometry], fill=255)
    return mask


def _eroded(mask: Image.Image, width: float) -> Image.Image:
    """`mask` without a rim of about `width` pixels (an octagon's erosion)."""
    inside = np.pad(np.asarray(mask) > 0, 1)
    for k in range(round(width)):
        inner = inside.copy()
        inner[1:] &= inside[:-1]
        inner[:-1] &= inside[1:]
        inner[:, 1:] &= inside[:, :-1]
        inner[:, :-1] &= inside[:, 1:]
        if k % 5 < 2:  # every so often the diagonals too, or a disc's hole becomes a diamond
            inner[1:, 1:] &= inside[:-1, :-1]
            inner[:-1, :-1] &= inside[1:, 1:]
            inner[1:, :-1] &= inside[:-1, 1:]
            inner[:-1, 1:] &= inside[1:, :-1]
        inside = inner
    return Image.fromarray(inside[1:-1].astype(np.uint8)[:, 1:-1] * 255)


def _pattern_mask(fill: str, half: float, side: int) -> Image.Image:
    """Where a striped or dotted body shows its second colour."""
    y, x = (np.mgrid[:side, :side] + 0.5 - side / 2) / _OVERSAMPLING
    period = max(10.0, 0.5 * half)
    if fill == "striped":
        second = ((x + y) / (period * math.sqrt(2)) + 0.25) % 1 < 0.5
    else:
        u = (x / period + 0.5 + 0.5 * (np.floor(y / period + 0.5) % 2)) % 1 - 0.5
        v = (y / period + 0.5) % 1 - 0.5
        second = u**2 + v**2 < 0.3**2
    return Image.fromarray(second.astype(np.uint8) * 255)


@lru_cache(maxsize=4096)
def tile(thing: str, colour: str, fill: str, half: float) -> Image.Image:
    """One thing alone.

    Args:
        thing: one of `THINGS`.
        colour: a key of `COLOURS`.
        fill: "plain", "striped", "dotted" or "outlined".
        half: half the side of the thing's box, in pixels.

    Returns:
        An RGBA picture, square, its middle the middle of the box. It is cached: do not draw on it.
    """
    pixels = 2 * math.ceil(half + 1)
    side = pixels * _OVERSAMPLING
    paints = _paints(colour)
    picture = Image.new("RGBA", (side, side))
    parts = [(paint, _shape_mask(shape, half, side)) for paint, shape in _PARTS[thing]]
    silhouette = Image.new("L", (side, side))
    for paint, mask in parts:
        if paint == "hole":
            silhouette = ImageChops.subtract(silhouette, mask)
        elif paint not in _OVERLAID:
            silhouette = ImageChops.lighter(silhouette, mask)
    if fill == "outlined":
        hollow = _eroded(silhouette, max(4.5, 0.2 * half) * _OVERSAMPLING)
        rim = ImageChops.subtract(silhouette, hollow)
        for paint, mask in parts:
            if paint in _DRAWN:
                rim = ImageChops.lighter(rim, mask)
        picture.paste(paints["body"], mask=rim)
        return picture.reduce(_OVERSAMPLING)
    pattern = None
    if fill != "plain":
        # A rim stays plain, or dots and stripes would eat the shape's edge.
        within = _eroded(silhouette, max(1.5, 0.09 * half) * _OVERSAMPLING)
        pattern = ImageChops.multiply(_pattern_mask(fill, half, side), within)
    for paint, mask in parts:
        if paint == "hole":
            continue
        mask = ImageChops.multiply(mask, silhouette) if paint not in _OVERLAID else mask
        picture.paste(paints[paint], mask=mask)
        if pattern is not None and paint in ("body", "tint"):
            second = paints["pattern" if paint == "body" else "body"]
            picture.paste(second, mask=ImageChops.multiply(mask, pattern))
    return picture.reduce(_OVERSAMPLING)


# ----------------------------------------------------------------------------------- backgrounds

VARIANTS = 64  # of each background: where the clouds, waves, stars and horizons are


def _gradient(size: int, top: Rgb, bottom: Rgb) -> Image.Image:
    ramp = np.linspace(np.array(top), np.array(bottom), size)[:, None]
    return Image.fromarray(np.broadcast_to(ramp.round().astype(np.uint8), (size, size, 3)).copy())


@lru_cache(maxsize=512)
def backdrop(background: str, variant: int, size: int) -> Image.Image:
    """A background alone.

    Args:
        background: a key of `BACKGROUNDS`.
        variant: 0 to `VARIANTS` - 1.
        size: pixels a side.

    Returns:
        An RGB picture of `size`². It is cached: copy it before drawing on it.
    """
    tones = BACKGROUNDS[background]
    if len(tones) == 1:
        return Image.new("RGB", (size, size), tones[0])
    random = np.random.default_rng([variant, list(BACKGROUNDS).index(background)]).random
    side = size * _OVERSAMPLING
    unit = side / 128
    picture = _gradient(side, *tones[:2])
    draw = ImageDraw.Draw(picture)

    def disc(x: float, y: float, rx: float, ry: float, rgb: Rgb) -> None:
        box = (x - rx, y - ry, x + rx, y + ry)
        draw.ellipse([b * unit for b in box], fill=rgb)

    if background == "sky":
        for k in range(2):
            x, y = 18 + 56 * k + 36 * random(), 16 + 96 * random()
            for dx, dy, r in ((-11, 2, 7), (0, -2, 10), (11, 2, 7), (0, 4, 8)):
                disc(x + dx, y + dy, r * 1.2, r * 0.8, (226, 240, 252))
    elif background == "night":
        for _ in range(12):
            x, y, r = 128 * random(), 128 * random(), 1.6 + 0.8 * random()
            disc(x, y, r, r, (236, 230, 190))
    elif background == "sea":
        horizon = round((40 + 16 * random()) * unit)
        picture.paste(tones[0], (0, 0, side, horizon))
        water = _gradient(side, *tones[1:]).resize((side, side - horizon))
        picture.paste(water, (0, horizon))
        for row in range(3):
            y = horizon / unit + 12 + 22 * row + 4 * random()
            shift = 40 * random()
            for x in np.arange(shift - 40, 140, 40):
                box = [b * unit for b in (x, y - 8, x + 22, y + 6)]
                draw.arc(box, 30, 150, fill=(196, 234, 242), width=round(3.5 * unit))
    else:
        picture.paste(tones[0], (0, 0, side, side))
        top, middle = 44 + 14 * random(), 128 * random()
        field = _gradient(side, *tones[1:])
        hill = Image.new("L", (side, side))
        box = [b * unit for b in (middle - 260, top, middle + 260, top + 520)]
        ImageDraw.Draw(hill).ellipse(box, fill=255)
        picture.paste(field, mask=hill)
        for _ in range(7):
            x, y = 6 + 116 * random(), top + 22 + (100 - top) * random()
            tuft = [(x - 5, y - 7), (x - 1, y - 2), (x + 1, y - 9), (x + 3, y - 2), (x + 7, y - 6)]
            tuft += [(x + 4, y + 3), (x - 2, y + 3)]
            draw.polygon([(a * unit, b * unit) for a, b in tuft], fill=(104, 172, 70))
    return picture.reduce(_OVERSAMPLING)
