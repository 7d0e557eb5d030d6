"""The figures of `xray.studies.text_interpolation`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from xray import page
from xray.page import (
    BLUE,
    DASHES,
    FAINT,
    GREEN,
    INK,
    MARGIN,
    ORANGE,
    PURPLE,
    QUIET,
    VERMILLION,
    WIDTH,
)
from xray.plots import how_made
from xray.studies.text_interpolation import findings

if TYPE_CHECKING:
    from xray.generator import Generator

COLOURS = (GREEN, PURPLE, ORANGE)  # other than the prompts’
MOST_SHOWN = 11  # pictures in a row


def figures(data: xarray.Dataset, model: Generator) -> dict[str, Figure]:
    """All of them, by name.

    Args:
        data: from `between`; its attributes may say what else was asked of `generate`.
        model: that made it.
    """
    return {
        "pictures": pictures_figure(data, model),
        "steps": steps_figure(data, model),
        "pairs": pairs_figure(data, model),
    }


def pictures_figure(data: xarray.Dataset, model: Generator) -> Figure:
    """The pictures along each way; where the largest step is, a bar."""
    t, found = data["t"].values, {row["way"]: row for row in findings(data)}
    shown = page.evenly(range(len(t)), MOST_SHOWN)
    left, gap = 1.15, 0.09
    width = (WIDTH - left - MARGIN + gap) / len(shown) - gap
    height = width * data.sizes["y"] / data.sizes["x"]
    pitch = max(height, 0.62) + 0.2
    below = len(data["way"]) * pitch + 0.55
    told = "from one noise; the bar is where the picture changes most from one frame to the next"
    figure = _page(data, model, "Between two prompts", told, below=below)
    for row, way in enumerate(data["way"].values):
        y = below - 0.35 - (row + 1) * pitch + 0.2
        page.text(figure, left - 0.12, y + height / 2, str(way), size=12, ha="right", va="center")
        for column, k in enumerate(shown):
            x = left + column * (width + gap)
            page.picture(figure, x, y, width, height, data["image"].values[row, k])
            if row == 0:
                told = f"t = {t[k]:.3g}"
                page.text(figure, x + width / 2, y + height + 0.08, told, color=QUIET, ha="center")
        after = int(np.searchsorted(t[shown], found[str(way)]["flip"]))
        x = (left + after * (width + gap) - gap / 2) / WIDTH
        tall = figure.get_figheight()
        figure.add_artist(
            Line2D([x, x], [(y - 0.06) / tall, (y + height + 0.06) / tall], color=INK,
                   linewidth=3.5, solid_capstyle="butt")
        )  # fmt: skip
    return figure


def steps_figure(data: xarray.Dataset, model: Generator) -> Figure:
    """Steps from frame to frame, distance to both ends, norm of the rows, length of each way."""
    figure = _page(
        data,
        model,
        "Steps and distances along the ways",
        f"{data.sizes['frame']} frames on each way",
        below=6.95,
    )
    wide, tall, t = 3.95, 2.2, data["t"].values
    left, right, top, bottom = 0.75, 5.75, 4.0, 0.65
    middle = (t[1:] + t[:-1]) / 2
    found = findings(data)
    styles = list(zip(data["way"].values.tolist(), COLOURS, DASHES, strict=False))

    steps = page.axes(figure, left, top, wide, tall)
    page.style(steps, "From one picture to the next", x="t", y="step of the latent, rms")
    ends = page.axes(figure, right, top, wide, tall)
    page.style(ends, "Distance to the first, (pale) to the second", x="t", y="of latents, rms")
    norms = page.axes(figure, left, bottom, wide, tall)
    page.style(norms, "Norm of the embedding’s rows, mean", x="t", y="‖row‖")
    for row, (way, colour, dash) in zip(found, styles, strict=True):
        own = data.sel(way=way)
        steps.plot(middle, own["latent_step"], dash, color=colour, marker="o", markersize=4,
                   label=way)  # fmt: skip
        ends.plot(t, own["to_first"], dash, color=colour)
        ends.plot(t, own["to_second"], dash, color=colour, alpha=0.45)
        ends.plot([row["crossing"]], [np.interp(row["crossing"], t, own["to_first"])], "o",
                  color=colour, markersize=5)  # fmt: skip
        norms.plot(t, own["row_norm"], dash, color=colour)
    steps.axhline(
        data["latent_step"].values.mean(), color=FAINT, linewidth=1, label="mean of all steps"
    )
    steps.set_ylim(bottom=0)
    figure.legend(
        *steps.get_legend_handles_labels(), loc="lower left", ncols=4, fontsize=11, frameon=False,
        handlelength=3, bbox_to_anchor=(left / WIDTH, 6.5 / figure.get_figheight()), borderpad=0,
    )  # fmt: skip
    ends.set_ylim(bottom=0)
    _bars(page.axes(figure, right, bottom, wide, tall), found)
    return figure


def _bars(axes: Axes, found: list[dict]) -> None:
    """The length of each way, of the latents, as a multiple of the straight line."""
    page.style(axes, "Length of the way of the latents", y="over the distance of its ends")
    for k, (row, colour) in enumerate(zip(found, COLOURS, strict=False)):
        axes.bar(k, row["detour"], 0.6, color=colour)
        axes.annotate(
            f"{row['detour']:.2f}", (k, row["detour"]), (0, 3), textcoords="offset points",
            ha="center", fontsize=10, color=QUIET,
        )  # fmt: skip
    axes.axhline(1, color=INK, linestyle=":", linewidth=1)
    axes.set_xticks(range(len(found)), [row["way"] for row in found], fontsize=11)
    axes.margins(y=0.15)


def pairs_figure(data: xarray.Dataset, model: Generator) -> Figure:
    """Which token walks to which on the aligned way."""
    words, others = data["word"].values.tolist(), data["other_word"].values.tolist()
    pairs = [(i, int(j)) for i, j in enumerate(data["pair"].values)]
    told = [(i, j) for i, j in pairs if {words[i], others[j]} != {"<pad>"}]
    # Of the padding only what a word walks to or comes from, right after the words.
    tops, bottoms = ({k: n for n, k in enumerate(sorted(ks))} for ks in zip(*told, strict=True))
    wide = min(1.1, (WIDTH - 2 * MARGIN) / len(told))
    longest = 0.09 * max(len(word) for i, j in told for word in (words[i], others[j])) + 0.05
    upright = longest > wide
    room = longest if upright else 0.2
    hidden = f"{len(pairs) - len(told)} pairs of padding are not shown"
    below = 1.35 + 2 * room
    figure = _page(data, model, "Which token walks to which, aligned", hidden, below=below)
    axes = page.axes(figure, MARGIN, 0.1, wide * len(told), below - 0.2)
    axes.set(xlim=(-0.5, len(told) - 0.5), ylim=(0, below - 0.2))
    axes.set_axis_off()
    style = {
        "fontsize": min(10.0, 72 * 0.85 * wide) if upright else 12,
        "rotation": 90 if upright else 0,
        "ha": "center",
        "parse_math": False,
    }
    for i, j in told:
        top, bottom = tops[i], bottoms[j]
        colour = INK if words[i] != others[j] else FAINT
        axes.plot([top, bottom], [room + 1.05, room + 0.05], color=colour, linewidth=1.6)
        word, other = page.printable(words[i]), page.printable(others[j])
        axes.text(top, room + 1.12, word, va="bottom", color=BLUE, **style)
        axes.text(bottom, room - 0.02, other, va="top", color=VERMILLION, **style)
    return figure


def _page(data: xarray.Dataset, model: Generator, title: str, told: str, *, below: float) -> Figure:
    first, second = data.attrs["first"], data.attrs["second"]
    made = how_made({**data.attrs, "model": model.name})
    heading = [(f"“{first}”", BLUE), (f"“{second}”", VERMILLION), f"{made} · {told}"]
    return page.new(title, heading, below=below)
