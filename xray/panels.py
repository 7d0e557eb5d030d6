"""Pictures on a page at whole scales: every pixel a square of dots, or whole blocks averaged.

figure = panels.sheet("Original and decoded", ["china · mini"], [[before, after]],
                      heads=["original", "decoded"])

scale = panels.scale_of(before.shape, width=3.0, height=3.0)      # largest that fits, inches
panels.place(figure, 0.5, 0.5, before, scale)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from xray import page, pictures
from xray.page import DPI, MARGIN, QUIET, WIDTH

Words = str | tuple[str, str]  # the second in small and quiet, underneath
_GAP = 0.07  # inches between pictures
_LETTER = 0.085  # inches of a letter of size 11, about


def scale_of(shape: Sequence[int], width: float, height: float) -> Fraction:
    """The largest whole scale at which a picture fits: 1, 2, 3, … dots a pixel, or 1/2, 1/3, …

    Args:
        shape: (y, x, …) of the picture.
        width, height: room, in inches.
    """
    room = min(width * DPI / shape[1], height * DPI / shape[0])
    return Fraction(math.floor(room)) if room >= 1 else Fraction(1, math.ceil(1 / room))


def in_words(scale: Fraction) -> str:
    """`scale` as a caption says it: "shown 3 × enlarged"."""
    if scale == 1:
        return "shown pixel by pixel"
    return f"shown {scale} × enlarged" if scale > 1 else f"shown at 1:{scale.denominator}"


def extent(shape: Sequence[int], scale: Fraction) -> tuple[float, float]:
    """(width, height) in inches of a picture at a scale."""
    return shape[1] * float(scale) / DPI, shape[0] * float(scale) / DPI


def place(figure: Figure, x: float, y: float, pixels: np.ndarray, scale: Fraction) -> Axes:
    """A picture at a scale, its lower left corner at a place in inches, on whole dots.

    Args:
        pixels: uint8 (y, x, 3).

    Returns:
        Axes in which places are those of the picture's pixels, (0, 0) its upper left corner.
    """
    x, y = round(x * DPI) / DPI, round(y * DPI) / DPI
    made = page.picture(figure, x, y, *extent(pixels.shape, scale), reduced(pixels, scale))
    made.images[0].set_extent((0, pixels.shape[1], pixels.shape[0], 0))
    # A thin edge, since a white sky would run into the page.
    style = {"edgecolor": page.FAINT, "linewidth": 0.5, "clip_on": False}
    made.add_patch(Rectangle((0, 0), 1, 1, fill=False, transform=made.transAxes, **style))
    return made


def reduced(pixels: np.ndarray, scale: Fraction) -> np.ndarray:
    """For a scale below 1, the means of blocks; the last rows and columns may be of fewer."""
    if scale >= 1:
        return pixels
    factor, (height, width) = scale.denominator, pixels.shape[:2]
    rows, columns = np.arange(0, height, factor), np.arange(0, width, factor)
    sums = np.add.reduceat(np.add.reduceat(pixels, rows, 0, np.float64), columns, 1)
    counts = np.diff(rows, append=height)[:, None, None] * np.diff(columns, append=width)[:, None]
    return np.rint(sums / counts).astype(np.uint8)


def coloured(values: np.ndarray, colours: str, low: float, high: float) -> np.ndarray:
    """Numbers (y, x) as uint8 (y, x, 3) through a colour map from `low` to `high`; NaN magenta."""
    level = np.clip((values - low) / ((high - low) or 1.0), 0, 1)
    drawn = colormaps[colours](level, bytes=True)[..., :3].copy()
    drawn[np.isnan(values)] = pictures.MISSING
    return drawn


def difference(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, int]:
    """`after` − `before`, uint8 (y, x, 3), enlarged by a power of two until it fills the scale.

    Returns:
        uint8 (y, x, 3), mid grey where nothing changed; and the factor, 1 … 128, chosen such that
        no more than one value in two hundred is cut off.
    """
    change = after.astype(np.float64) - before.astype(np.float64)
    most = max(np.percentile(np.abs(change), 99.5), 127 / 128)
    factor = 2 ** max(0, math.floor(math.log2(127 / most)))
    return np.rint(np.clip(128 + factor * change, 0, 255)).astype(np.uint8), factor


def bar(
    figure: Figure,
    x: float,
    y: float,
    height: float,
    colours: str,
    low: float,
    high: float,
    label: str,
) -> Axes:
    """The scale that belongs to `coloured`, as a bar with numbers to its right."""
    axes = page.axes(figure, x, y, 0.14, height)
    ramp = np.linspace(0, 1, 256)[:, None]
    axes.imshow(ramp, cmap=colours, aspect="auto", origin="lower", extent=(0, 1, low, high))
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.set_ylabel(label, fontsize=10, color=QUIET)
    axes.tick_params(labelsize=10, color=page.FAINT, labelcolor=QUIET)
    axes.spines[:].set_visible(False)
    return axes


def sheet(
    title: str,
    lines: Sequence[str | tuple[str, str]],
    rows: Sequence[Sequence[np.ndarray | None]],
    *,
    heads: Sequence[Words] = (),
    sides: Sequence[Words] = (),
    captions: Sequence[Sequence[str]] = (),
    tallest: float = 2.6,
    under: float = 0.0,
    right: float = 0.0,
) -> Figure:
    """Pictures of one size in rows and columns, as large as the page has room for.

    Args:
        title: says what is seen.
        lines: how it was made; the scale is added to the last.
        rows: of pictures, uint8 (y, x, 3); None leaves a place empty.
        heads: over the columns.
        sides: before the rows.
        captions: under the pictures, row by row.
        tallest: inches that a picture may be high.
        under, right: inches to keep free at the foot and at the right, for axes and a `bar`.
    """
    shape = next(cell.shape for row in rows for cell in row if cell is not None)
    columns = max(len(row) for row in rows)
    beside = max((_LETTER * _letters(words) + 0.15 for words in sides), default=0.0)
    room = WIDTH - 2 * MARGIN - beside - right
    scale = scale_of(shape, room / columns - _GAP, tallest)
    width, height = extent(shape, scale)
    # Narrow pictures stand apart as far as the words over and under them need.
    longest = max((_letters(w) for w in [*heads, *(c for row in captions for c in row)]), default=0)
    across = min(max(width + _GAP, _LETTER * longest + 0.15), room / columns)
    down = max(height + _GAP + (0.2 if captions else 0.0), 0.45 if sides else 0.0)
    over = 0.26 + 0.2 * any(isinstance(words, tuple) for words in heads) if heads else 0.0
    lines = [*lines[:-1], f"{lines[-1]} · {in_words(scale)}"] if lines else [in_words(scale)]
    below = over + down * len(rows) + MARGIN + under
    figure = page.new(title, lines, below=below)

    left = MARGIN + beside
    for column, words in enumerate(heads):
        middle = left + column * across + width / 2
        _words(figure, middle, below - over + 0.08, words, ha="center", lowest=True)
    for row, cells in enumerate(rows):
        y = below - over - row * down - height
        if sides:
            _words(figure, left - 0.12, y + height / 2 - 0.06, sides[row], ha="right")
        for column, cell in enumerate(cells):
            x = left + column * across
            if cell is not None:
                place(figure, x, y, cell, scale)
            if captions and captions[row][column]:
                page.text(
                    figure,
                    x + width / 2,
                    y - 0.15,
                    captions[row][column],
                    size=9,
                    color=QUIET,
                    ha="center",
                )
    return figure


def wrapped(items: Sequence[Any], fill: Any = None, columns: int = 5) -> list[list[Any]]:
    """Items in rows for `sheet`, the last filled up with `fill`."""
    padded = [*items, *[fill] * (-len(items) % columns)]
    return [padded[i : i + columns] for i in range(0, len(padded), columns)]


def _letters(words: Words) -> float:
    """How long words are, in letters of size 11."""
    return len(words) if isinstance(words, str) else max(len(words[0]), 0.82 * len(words[1]))


def _words(
    figure: Figure, x: float, y: float, words: Words, *, ha: str, lowest: bool = False
) -> None:
    """Words in one line or two; `y` is the first one's base line, or the `lowest` one's."""
    first, second = (words, "") if isinstance(words, str) else words
    if second and lowest:
        y += 0.18
    page.text(figure, x, y, first, size=11, ha=ha)
    if second:
        page.text(figure, x, y - 0.18, second, size=9, color=QUIET, ha=ha)
