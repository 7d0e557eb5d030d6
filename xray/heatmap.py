"""A table of numbers as colours, with a name for each row and column that still has room for one.

drawn = labelled(axes, cosines, words, words, low=0, high=1)
colour_bar(figure, drawn, x=9.2, y=0.6, height=3, label="cosine")
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from xray import page
from xray.page import FAINT, INK, MAPS, QUIET
from xray.pixels import LUMA


def labelled(
    axes: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    low: float,
    high: float,
    colours: str = MAPS,
    numbers: bool = False,
    size: float = 10,
) -> AxesImage:
    """Draw (row, column) values; names that would overlap are thinned out.

    Args:
        axes: whose size is known, from `page.axes`.
        values: (row, column); NaN is left white.
        rows, columns: their names, or none; of columns upright unless they are short.
        low, high: what the two ends of the colours mean.
        colours: name of a colour map.
        numbers: write each value into its cell, where it has room.
        size: of the names, in points.
    """
    drawn = axes.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto")
    figure = axes.figure
    box = axes.get_position()
    wide = box.width * figure.get_figwidth() / values.shape[1]
    tall = box.height * figure.get_figheight() / values.shape[0]
    _names(axes.set_yticks, rows, tall, size)
    longest = max(map(len, columns), default=0)
    upright = longest * size * 0.62 / 72 > wide  # a letter is some 0.62 as wide as high
    _names(axes.set_xticks, columns, wide, size, rotation=90 if upright else 0)
    axes.tick_params(length=0, pad=3, labelcolor=INK)
    axes.spines[:].set_visible(False)
    if numbers and wide > 0.33 and tall > 0.18:
        _write_values(axes, values, low, high, colours, min(9, 22 * wide))
    return drawn


def colour_bar(
    figure: Figure, drawn: AxesImage, x: float, y: float, height: float, *, label: str
) -> None:
    """What the colours mean, at a place in inches."""
    bar = figure.colorbar(drawn, cax=page.axes(figure, x, y, 0.14, height))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=9, color=FAINT, labelcolor=QUIET)
    bar.set_label(label, fontsize=10, color=QUIET)


def _names(
    set_ticks: object, names: Sequence[str], room: float, size: float, rotation: int = 0
) -> None:
    every = max(1, math.ceil(size * 1.15 / 72 / room))
    shown = [page.printable(name) for name in names[::every]]
    set_ticks(
        range(0, len(names), every), shown, fontsize=size, rotation=rotation, parse_math=False
    )


def _write_values(
    axes: Axes, values: np.ndarray, low: float, high: float, colours: str, size: float
) -> None:
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            shade = colormaps[colours]((value - low) / (high - low or 1))
            dark = np.dot(shade[:3], LUMA) < 0.5
            told = f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.0f}"
            colour = "white" if dark else INK
            axes.text(column, row, told, ha="center", va="center", fontsize=size, color=colour)
