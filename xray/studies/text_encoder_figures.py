"""The figures of `xray.studies.text_encoder`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from xray import page
from xray.heatmap import colour_bar, labelled
from xray.page import BLUE, DASHES, INK, MAPS, MARGIN, QUIET, SKY, VERMILLION, WIDTH
from xray.studies.text_encoder import findings, moved, shown

if TYPE_CHECKING:
    from xray.generator import Generator


def figures(data: xarray.Dataset, model: Generator) -> dict[str, Figure]:
    """All of them, by name."""
    return {
        "tokens": tokens_figure(data, model),
        "pooled": pooled_figure(data, model),
        "layers": layers_figure(data, model),
        "attention": attention_figure(data, model),
    }


def tokens_figure(data: xarray.Dataset, model: Generator) -> Figure:
    """Norm of each token's vector, and which of them are alike, in one prompt and across two."""
    count, reach, words = shown(data), _reach(data), _words_height(data)
    cosine = data["cosine"].isel(prompt=0).values[:count, :2, :count]
    left, bottom = MARGIN + reach, 0.15 + reach
    side = (WIDTH - left - 1.25) / 2
    above = bottom + side + 0.65 + words
    figure = _page(data, model, "The last hidden state, token by token", below=above + 1.45)
    norms = page.axes(figure, left, above, WIDTH - left - MARGIN, 1.1)
    page.style(norms, "Norm of each row")
    _pairs_of_bars(norms, data["norm"].values[:, -1, :count])
    _write_words(norms, data)

    low = min(float(cosine.min()), 0.9)
    for k, title in enumerate(("Cosines within the first prompt", "First and second prompt")):
        axes = page.axes(figure, left + k * (side + 0.25), bottom, side, side)
        rows = _words(data, 0) if k == 0 else [""] * count
        drawn = labelled(axes, cosine[:, k], rows, _words(data, k), low=low, high=1, numbers=True)
        axes.set_title(title, fontsize=12, loc="left", color=INK)
    colour_bar(figure, drawn, WIDTH - 0.85, bottom, side, label="cosine of two rows")
    return figure


def pooled_figure(data: xarray.Dataset, model: Generator) -> Figure:
    """How far each row is from the pooled vector, and how far it moves from prompt to prompt."""
    count, apart, found, words = shown(data), moved(data), findings(data), _words_height(data)
    figure = _page(
        data, model, "The last hidden state and the pooled vector", below=4.5 + 2 * words
    )
    near = page.axes(figure, 0.85, 2.5 + 2 * words, WIDTH - 0.85 - MARGIN, 1.7)
    page.style(
        near, "Angle of each row to the pooled vector, which is the row at <end>", y="degrees"
    )
    _pairs_of_bars(near, data["to_pooled"].values[:, :count])
    _write_words(near, data)

    far = page.axes(figure, 0.85, 0.15 + words, WIDTH - 0.85 - MARGIN, 1.7)
    page.style(far, "Angle between the rows of the two prompts", y="degrees")
    far.bar(np.arange(count), apart[:count], 0.6, color=QUIET)
    for name, told, dash in (
        ("pooled", "the two pooled vectors", DASHES[1]),
        ("whole", "all rows as one vector", DASHES[3]),
    ):
        degrees = found[f"{name}_angle"]
        far.axhline(
            degrees, color=INK, linestyle=dash, linewidth=1.2, label=f"{told}: {degrees:.1f}"
        )
    far.legend(fontsize=10, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.97), ncols=2)
    _write_words(far, data)
    return figure


def layers_figure(data: xarray.Dataset, model: Generator) -> Figure:
    """How the residual stream grows and turns, and what attention and feed-forward add to it."""
    first, end = data.isel(prompt=0), int(data["end"].values[0])
    figure = _page(data, model, "Through the layers, first prompt", below=4.1)
    width, y, stages = 2.55, 1.35, np.arange(data.sizes["stage"])
    kinds = {
        "<pad>": (slice(end + 1, None), SKY, 0.6),
        "words": (slice(1, end), VERMILLION, 0.9),
        "<start>": (slice(0, 1), INK, 1.8),
        "<end>": (slice(end, end + 1), BLUE, 1.8),
    }
    for k, (name, title, unit) in enumerate(
        (("norm", "Norm of the rows", ""), ("turned", "Angle to the embedding", "degrees"))
    ):
        axes = page.axes(figure, 0.75 + k * (width + 0.75), y, width, 2.3)
        page.style(axes, title, y=unit)
        for kind, (places, colour, thick) in kinds.items():
            for i, line in enumerate(first[name].values[:, places].T):
                label = kind if i == 0 else None
                axes.plot(stages, line, color=colour, linewidth=thick, label=label)
        names = first["stage"].values
        every = -(-len(names) // 16)
        axes.set_xticks(stages[::every], names[::every], rotation=90, fontsize=9)
        if name == "norm":
            axes.set_yscale("log")
    added = page.axes(figure, 0.75 + 2 * (width + 0.75), y, width, 2.3)
    page.style(added, "Added by each layer", x="layer", y="norm, mean of the words")
    heights = first["added"].values[..., 1:end]
    _pairs_of_bars(added, heights.mean(axis=-1).T if end > 1 else np.zeros(heights.shape[1::-1]))
    added.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, 0.6, *axes.get_legend_handles_labels())
    _legend(figure, 7.2, added.containers, ["attention", "feed-forward"])
    return figure


def attention_figure(data: xarray.Dataset, model: Generator) -> Figure:
    """Where each token looks: means over heads of a few layers, and every head small."""
    count, reach = shown(data), _reach(data)
    maps = data["attention"].isel(prompt=0).values[..., :count, :count]
    maps = np.where(np.tri(count, dtype=bool), maps, np.nan)  # no token looks ahead
    layers, heads = maps.shape[:2]
    large = page.evenly(range(layers), 3)
    left, gap = MARGIN + reach, 0.12
    side = (WIDTH - left - 1.1) / 3 - gap
    pitch = min((WIDTH - 0.8 - MARGIN) / heads, 1.3)
    below = 0.4 + side + reach + 0.5 + layers * pitch + 0.1
    figure = _page(data, model, "Where each token looks, first prompt", below=below)
    y = below - 0.4 - side
    for k, layer in enumerate(large):
        axes = page.axes(figure, left + k * (side + gap), y, side, side)
        rows = _words(data, 0) if k == 0 else [""] * count
        mean = maps[layer].mean(axis=0)
        drawn = labelled(axes, np.sqrt(mean), rows, _words(data, 0), low=0, high=1, size=9)
        axes.set_title(f"layer {layer}, mean of {heads} heads", fontsize=11, loc="left", color=INK)
    colour_bar(figure, drawn, WIDTH - 0.85, y, side, label="√ attention weight")
    y -= reach + 0.35
    page.text(figure, MARGIN, y, f"All {heads} heads of each layer", size=12)
    y -= 0.1
    for layer in range(layers):
        y -= pitch
        page.text(figure, 0.68, y + pitch / 2 - 0.05, str(layer), color=QUIET, ha="right")
        for head in range(heads):
            axes = page.axes(figure, 0.8 + head * pitch, y, pitch - 0.06, pitch - 0.06)
            axes.imshow(np.sqrt(maps[layer, head]), cmap=MAPS, vmin=0, vmax=1)
            axes.set_axis_off()
    return figure


def _page(data: xarray.Dataset, model: Generator, title: str, *, below: float) -> Figure:
    first, second = data["prompt"].values[:2]
    lines = [(f"“{first}”", BLUE), (f"“{second}”", VERMILLION), f"text encoder of {model.name}"]
    return page.new(title, lines, below=below)


def _legend(figure: Figure, x: float, handles: list, labels: list[str]) -> None:
    place = (x / WIDTH, 0.08 / figure.get_figheight())
    figure.legend(
        handles, labels, loc="lower left", ncols=4, fontsize=10, frameon=False, bbox_to_anchor=place
    )


def _pairs_of_bars(axes: Axes, heights: np.ndarray) -> None:
    for k, colour in enumerate((BLUE, VERMILLION)):
        axes.bar(np.arange(heights.shape[1]) + 0.4 * k - 0.2, heights[k], 0.36, color=colour)


def _upright(data: xarray.Dataset) -> bool:
    """Whether the words have no room side by side under a page-wide axis."""
    return shown(data) * _reach(data) > 0.9 * WIDTH


def _words_height(data: xarray.Dataset) -> float:
    return 2 * _reach(data) + 0.1 if _upright(data) else 0.55


def _write_words(axes: Axes, data: xarray.Dataset) -> None:
    """The words of both prompts under their positions."""
    count, upright = shown(data), _upright(data)
    axes.set(xticks=[], xlim=(-0.6, count - 0.4))
    size = min(10.0, 72 * 0.85 * axes.get_position().width * WIDTH / count) if upright else 10.0
    for k, colour in enumerate((BLUE, VERMILLION)):
        down = 4 + k * (72 * _reach(data) if upright else 14)
        for place, word in enumerate(_words(data, k)):
            axes.annotate(
                word, (place, 0), (0, -down), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="center", va="top", fontsize=size, color=colour,
                parse_math=False, rotation=90 if upright else 0,
            )  # fmt: skip


def _words(data: xarray.Dataset, prompt: int) -> list[str]:
    words = map(page.printable, data["word"].values[prompt, : shown(data)].tolist())
    return [word if len(word) <= 14 else word[:13] + "…" for word in words]


def _reach(data: xarray.Dataset) -> float:
    """Inches that the longest word takes."""
    return 0.1 + 0.085 * max(map(len, _words(data, 0) + _words(data, 1)))
