"""The figures of `xray.studies.embedding_similarity`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from xray import page
from xray.heatmap import colour_bar, labelled
from xray.page import CYCLE, FAINT, INK, MARGIN, QUIET, SIGNED, WIDTH

if TYPE_CHECKING:
    from xray.generator import Generator

MARKERS = "osD^vPX*"
NUMBERED = 14  # prompts that have a number each in the maps; of more, groups have signs


def figures(data: xarray.Dataset, apart: xarray.Dataset, model: Generator) -> dict[str, Figure]:
    """All of them, by name: of `compare` and `difference`."""
    return {
        "similarity": similarity_figure(data, model),
        "maps": maps_figure(data, model),
        "difference": difference_figure(apart, model),
    }


def similarity_figure(data: xarray.Dataset, model: Generator) -> Figure:
    """Cosine of every two prompts, in the order of a dendrogram."""
    from scipy.cluster.hierarchy import dendrogram

    shown, count = data["shown"].values, data.sizes["prompt"]
    lines = _about(data, model)
    if len(shown) < count:
        lines.append(
            f"{len(shown)} of {count:,} prompts, those nearest to the centres of as many clusters; "
            "in brackets, how many each stands for"
        )
    names = _names(data, shown, with_count=len(shown) < count)
    left, tall = MARGIN + 1.4, max(4.5, 0.15 * len(shown))
    wide = min(6.2, WIDTH - left - MARGIN - 0.17 - 0.08 * max(map(len, names)))
    figure = page.new("Cosines of prompts", lines, below=tall + 0.85)
    tree = page.axes(figure, MARGIN, 0.6, 1.3, tall)
    dendrogram(
        data["join"].values, orientation="left", ax=tree, no_labels=True, color_threshold=0,
        above_threshold_color=QUIET,
    )  # fmt: skip
    tree.invert_yaxis()  # the first leaf is the first row
    tree.spines[["top", "left", "right"]].set_visible(False)
    tree.spines["bottom"].set_color(FAINT)
    tree.xaxis.set_major_locator(MaxNLocator(2))
    tree.tick_params(labelsize=9, color=FAINT, labelcolor=QUIET)
    tree.set_xlabel("1 − cosine", fontsize=10, color=QUIET)

    cosine = data["cosine"].values
    axes = page.axes(figure, left, 0.6, wide, tall)
    drawn = labelled(axes, cosine, names, [], low=float(cosine.min()), high=1, size=9, numbers=True)
    axes.yaxis.tick_right()
    axes.tick_params(length=0, pad=15)  # room for the groups' signs
    groups = data["group"].values[shown]
    for name, (colour, marker) in _styles(data).items():
        rows = np.flatnonzero(groups == name)
        axes.plot(np.full(len(rows), 1 + 0.1 / wide), rows, marker, color=colour, markersize=6,
                  markeredgewidth=0, transform=axes.get_yaxis_transform(), clip_on=False,
                  scalex=False, scaley=False, label=name)  # fmt: skip
    bar = page.axes(figure, left + 0.35, 0.38, wide - 0.7, 0.12)
    figure.colorbar(drawn, cax=bar, orientation="horizontal").outline.set_visible(False)
    bar.tick_params(labelsize=9, color=FAINT, labelcolor=QUIET)
    page.text(figure, left + wide + 0.04, 0.39, "cosine", color=QUIET)
    return figure


def maps_figure(data: xarray.Dataset, model: Generator) -> Figure:
    """The prompts in the plane, three times: by PCA, t-SNE and MDS."""
    width, height = 4.6, 3.6
    figure = page.new("Prompts in the plane", _about(data, model), below=2 * height + 1.05)
    share = data["explained"].values
    titles = {
        "pca": f"PCA: {share.sum():.0%} of the variance",
        "tsne": "t-SNE: who is whose neighbour",
        "mds": f"MDS: distances kept, stress {data.attrs['stress']:.2f}",
    }
    for k, (name, title) in enumerate(titles.items()):
        x, y = MARGIN + k % 2 * (width + 0.3), (1 - k // 2) * (height + 0.5) + 0.15
        axes = page.axes(figure, x, y, width, height)
        places = data[name].values
        here = np.isfinite(places[:, 0])
        if not here.all():
            title += f" ({here.sum():,} of {len(here):,})"
        axes.set_title(title, fontsize=12, loc="left", color=INK)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(FAINT)
        if name != "tsne":
            axes.set_aspect("equal", "datalim")  # its axes have one unit
        axes.margins(0.2, 0.14)
        _scatter(axes, data, places, here)
    legend = _number_key if data.sizes["prompt"] <= NUMBERED else _group_table
    legend(figure, data, MARGIN + width + 0.4, height)
    return figure


def _scatter(axes: Axes, data: xarray.Dataset, places: np.ndarray, here: np.ndarray) -> None:
    groups, styles, many = data["group"].values, _styles(data), here.sum() > 200
    halo = [patheffects.withStroke(linewidth=2.5, foreground="white")]
    for name, (colour, marker) in styles.items():
        own = here & (groups == name)
        axes.scatter(*places[own].T, s=5 if many else 40, color=colour, marker=marker,
                     alpha=0.5 if many else 0.9, linewidths=0)  # fmt: skip
    if len(here) <= NUMBERED:
        for i in np.flatnonzero(here):
            axes.annotate(
                str(i + 1), places[i], (5, 3), fontsize=10, textcoords="offset points",
                color=INK, path_effects=halo,
            )  # fmt: skip


def _number_key(figure: Figure, data: xarray.Dataset, x: float, y: float) -> None:
    styles = _styles(data)
    prompts = zip(data["prompt"].values.tolist(), data["group"].values.tolist(), strict=True)
    for i, (text, group) in enumerate(prompts):
        y -= 0.23
        page.text(figure, x + 0.25, y, str(i + 1), ha="right")
        figure.add_artist(_dot(figure, x + 0.4, y + 0.05, *styles[group]))
        page.text(figure, x + 0.52, y, _short(text, 46), size=9.5)


def _group_table(figure: Figure, data: xarray.Dataset, x: float, top: float) -> None:
    """What the colours mean, and how much the groups keep together."""
    from xray.studies.embedding_similarity import by_group

    rows, columns = by_group(data), (3.0, 3.6, 4.3)
    y = top + 0.1
    if not data.attrs["groups_given"] and len(rows) > 1:
        told = "clusters (k-means), each\ncalled as its central prompt"
        page.text(figure, x, y, told, size=9, color=QUIET, va="bottom")
    for place, head in zip(columns, ("within", "others", "nearest\nis own"), strict=True):
        page.text(figure, x + place, y, head, size=9, color=QUIET, ha="right", va="bottom")
    line = min(0.25, (top - 0.2) / max(len(rows), 1))
    for row in rows:
        y -= line
        colour, marker = _styles(data)[row["group"]]
        figure.add_artist(_dot(figure, x + 0.06, y + 0.05, colour, marker))
        name = _short(row["group"], 24) + f" ({row['prompts']:,})"
        page.text(figure, x + 0.2, y, name, size=9.5)
        numbers = [row["within"], row["others"], row["own_nearest"]]
        for place, value, form in zip(columns, numbers, (".3f", ".3f", ".0%"), strict=True):
            told = "" if value is None else format(value, form)
            page.text(figure, x + place, y, told, size=10, ha="right")


def _dot(figure: Figure, x: float, y: float, colour: str, marker: str) -> object:
    from matplotlib.lines import Line2D

    place = [x / WIDTH], [y / figure.get_figheight()]
    return Line2D(*place, marker=marker, color=colour, markersize=6, linestyle="none",
                  markeredgewidth=0)  # fmt: skip


def difference_figure(apart: xarray.Dataset, model: Generator) -> Figure:
    """Token by dimension, what one embedding has more than another: as a surface and as colours."""
    values = apart["difference"].values
    tokens, dimensions = values.shape
    limit = float(np.abs(values).max()) or 1.0
    tall, left = max(2.4, min(0.16 * tokens, 6.0)), 1.55
    title = "The difference of two embeddings"
    lines = [
        f"“{apart.attrs['first']}” less “{apart.attrs['second']}”, text encoder of {model.name}"
    ]
    figure = page.new(title, lines, below=4.0 + 0.95 + tall + 0.75)

    surface = figure.add_axes(
        (0.02, (tall + 1.6) / figure.get_figheight(), 0.96, 4.1 / figure.get_figheight()),
        projection="3d",
    )
    blocks = _extremes(values, 160)
    x, y = np.meshgrid(np.linspace(0, dimensions - 1, blocks.shape[1]), np.arange(tokens))
    surface.plot_surface(x, y, blocks, cmap="viridis", vmin=-limit, vmax=limit, rcount=tokens,
                         ccount=blocks.shape[1], linewidth=0, antialiased=False)  # fmt: skip
    surface.set_box_aspect((3.2, 1.3, 0.9), zoom=1.5)
    surface.view_init(elev=38, azim=-70)
    surface.set_xlabel("dimension", fontsize=10, color=QUIET, labelpad=14)
    surface.set_ylabel("token", fontsize=10, color=QUIET)
    surface.tick_params(labelsize=8, labelcolor=QUIET, pad=0)

    axes = page.axes(figure, left, 0.6, WIDTH - left - 2.15, tall)
    words = [
        a if a == b else f"{a} | {b}"
        for a, b in zip(apart["word"].values, apart["other_word"].values, strict=True)
    ]
    drawn = labelled(axes, values, [_short(w, 18) for w in words], [], low=-limit, high=limit,
                     colours=SIGNED, size=9)  # fmt: skip
    ticks = range(0, dimensions, _round_step(dimensions))
    axes.set_xticks(ticks, map(str, ticks))
    axes.set_xlabel("dimension", fontsize=10, color=QUIET)
    axes.tick_params(axis="x", labelsize=9, labelcolor=QUIET)
    norms = page.axes(figure, WIDTH - 2.05, 0.6, 0.95, tall)
    page.style(norms, x="‖row‖")
    norms.barh(np.arange(tokens), np.linalg.norm(values, axis=1), 0.8, color=QUIET)
    norms.set(ylim=axes.get_ylim(), yticks=[])
    norms.grid(False)
    spread = page.axes(figure, left, 0.65 + tall, WIDTH - left - 2.15, 0.6)
    page.style(spread, y="rms")
    spread.fill_between(np.arange(dimensions), np.sqrt(np.mean(values**2, axis=0)), step="mid",
                        color=QUIET, linewidth=0)  # fmt: skip
    spread.set(xlim=axes.get_xlim(), xticks=[], ylim=(0, None))
    spread.tick_params(labelsize=8)
    colour_bar(figure, drawn, WIDTH - 0.9, 0.6, tall, label="difference")
    return figure


def _extremes(values: np.ndarray, most: int) -> np.ndarray:
    """Columns in at most `most` blocks, of each block the value that is farthest from 0."""
    blocks = np.array_split(values, min(most, values.shape[1]), axis=1)
    return np.stack([b[np.arange(len(b)), np.abs(b).argmax(axis=1)] for b in blocks], axis=1)


def _round_step(length: int) -> int:
    return next(step for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if length / step <= 9)


def _about(data: xarray.Dataset, model: Generator) -> list[str]:
    cut = int(data["cut"].values.sum())
    told = f", {cut:,} of which were too long and were cut" if cut else ""
    count, name, kind = data.sizes["prompt"], data.attrs["set"], data.attrs["kind"]
    return [f"{count:,} prompts of “{name}”{told}; {kind} vectors of {model.name}"]


def _styles(data: xarray.Dataset) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each group; no two have both in common, as far as 56."""
    names = dict.fromkeys(data["group"].values.tolist())
    return {name: (CYCLE[k % 7], MARKERS[k % 8]) for k, name in enumerate(names)}


def _names(data: xarray.Dataset, places: np.ndarray, *, with_count: bool) -> list[str]:
    names = [_short(str(text), 40) for text in data["prompt"].values[places]]
    if with_count:
        stands_for = data["stands_for"].values
        names = [f"{name} ({n:,})" for name, n in zip(names, stands_for, strict=True)]
    return names


def _short(words: str, most: int) -> str:
    words = page.printable(words)
    return words if len(words) <= most else words[: most - 1] + "…"
