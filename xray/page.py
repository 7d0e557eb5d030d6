"""The page that figures are drawn on: one width, one set of colours, places in inches.

    figure = page.new("What the encoder keeps", ["china.jpg · mini"], below=4.0)
    axes = page.axes(figure, x=0.6, y=0.5, width=4.0, height=3.0)
    page.style(axes, "Standard deviation", x="step", y="latent units")

`y` counts from the lower edge. The heading stands above the `below` inches that were asked for.
"""

from __future__ import annotations

import io
import textwrap
import unicodedata
from collections.abc import Sequence, Sized
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text

WIDTH = 10.0  # inches, of every figure
DPI = 150
MARGIN = 0.25
INK, QUIET, FAINT = "#1a1a1a", "#5c5c5c", "#b8b8b8"
# Okabe & Ito's colours, told apart with any colour vision.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY = "#E69F00", "#56B4E9"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, INK)
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
MAPS = "inferno"  # colour map of what is never negative
SIGNED = "PuOr_r"  # of what has a sign, with zero in the middle


def new(title: str, lines: Sequence[str | tuple[str, str]] = (), *, below: float) -> Figure:
    """A figure with a heading and, under it, `below` inches to draw in.

    Args:
        title: says what is seen.
        lines: how it was made, wrapped, in a quiet colour; as ``(text, INK)`` in another.
        below: inches.
    """
    wrapped = []
    for each in lines:
        text_, colour = (each, QUIET) if isinstance(each, str) else each
        size, characters = (10, 125) if colour == QUIET else (12, 100)
        wrapped += [(part, colour, size) for part in textwrap.wrap(text_, characters)]
    line = 0.22
    height = below + 0.55 + line * len(wrapped) + 0.12
    height = round(height * DPI) / DPI  # so that what is placed on a whole dot falls on one
    figure = _Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    y = height - 0.42
    text(figure, MARGIN, y, title, size=15, weight="bold")
    for part, colour, size in wrapped:
        y -= line + 0.02 * (colour == INK)
        text(figure, MARGIN, y, part, size=size, color=colour)
    return figure


def text(figure: Figure, x: float, y: float, words: str, *, size: float = 10, **style: Any) -> Text:
    """Words at a place in inches."""
    # A prompt may hold dollar signs, which are no mathematics.
    style = {"color": INK, "ha": "left", "va": "baseline", "parse_math": False, **style}
    x, y = x / WIDTH, y / figure.get_figheight()
    return figure.text(x, y, printable(words), fontsize=size, **style)


def printable(words: str) -> str:
    """`words` with the characters that the figures' font lacks spelled out.

    Example:
        >>> printable("a 🐟 by 猫")
        'a [fish] by [U+732B]'
    """
    if words.isascii():
        return words
    font = get_font(findfont(FontProperties()))
    return "".join(
        c if c.isspace() or font.get_char_index(ord(c)) else _spelled_out(c) for c in words
    )


def _spelled_out(character: str) -> str:
    name = unicodedata.name(character, "").lower()
    # A letter's name would make a word longer than the line.
    picture = name and unicodedata.category(character) == "So"
    return f"[{name}]" if picture else f"[U+{ord(character):04X}]"


def axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes whose lower left corner and size are given in inches."""
    tall = figure.get_figheight()
    return figure.add_axes((x / WIDTH, y / tall, width / WIDTH, height / tall))


def picture(
    figure: Figure, x: float, y: float, width: float, height: float, pixels: np.ndarray
) -> Axes:
    """A picture, every pixel a rectangle, at a place in inches."""
    made = axes(figure, x, y, width, height)
    made.imshow(pixels, interpolation="nearest", aspect="auto")
    made.set_axis_off()
    return made


def shades(count: int) -> np.ndarray:
    """Colours of curves that stand in an order, the first dark: (count, 4)."""
    return colormaps["viridis"](np.linspace(0, 0.9, count))


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items to show, evenly spaced, the first and the last among them.

    Example:
        >>> evenly(range(25), 5)
        [0, 6, 12, 18, 24]
    """
    at = np.linspace(0, len(items) - 1, min(max(most, 0), len(items)))
    return [items[round(place)] for place in at]


def dot(points: Sized) -> str | None:
    """A marker for a line through a single point, of which nothing would show; else none."""
    return "o" if len(points) == 1 else None


def style(axes: Axes, title: str = "", *, x: str = "", y: str = "") -> Axes:
    """Quiet axes with a title to the left, labels and a light horizontal grid."""
    axes.set_title(title, fontsize=12, loc="left", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.set_xlabel(x, fontsize=11, color=QUIET)
    axes.set_ylabel(y, fontsize=11, color=QUIET)
    axes.tick_params(labelsize=10, color=FAINT, labelcolor=QUIET)
    axes.grid(axis="y", color=FAINT, alpha=0.4, linewidth=0.6)
    return axes


class _Figure(Figure):
    """A figure that a notebook shows although pyplot never heard of it."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()
