"""The figures of `xray.studies.pipeline_map`: networks drawn to scale, and what blocks cost."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from xray import page
from xray.anatomy import Block
from xray.page import BLUE, FAINT, GREEN, INK, MARGIN, QUIET, VERMILLION, WIDTH
from xray.stats import format_bytes
from xray.studies.pipeline_map import NAMES, Measured, written

COLOURS = {"residual": BLUE, "attention": VERMILLION, "resampling": GREEN, "other": FAINT}
KINDS = {
    "residual": "residual block",
    "attention": "attention (in the U-Net to the text too)",
    "resampling": "half or double size",
    "other": "first, last, embeddings",
}
GAP = 0.035  # inches between blocks
LEAST = 0.03  # inches, that a block be seen
LEFT = 0.95  # inches for the names of the U-Net's levels
HIGHEST = {"unet": 1.0, "text": 0.8, "encoder": 1.3, "decoder": 1.3}  # inches
BESIDE = ("text", "encoder", "decoder")
COLUMN = 3.15  # inches for each of them
STAPLE = 0.07  # inches between skip connections


def figures(parts: dict[str, Measured], model: str) -> dict[str, Figure]:
    """``map`` and ``costs``; `model` is what it is called."""
    return {"map": map_figure(parts, model), "costs": costs_figure(parts, model)}


# ------------------------------------------------------------------------------------------- map


def map_figure(parts: dict[str, Measured], model: str) -> Figure:
    """The networks to scale: as wide as their channels, as high as their grids."""
    scale = _inches_a_channel(parts)
    levels = _levels(parts["unet"])
    below_unet = 2.75
    below = below_unet + sum(level["room"] for level in levels.values()) + 0.75
    size = parts["encoder"].shapes[0]
    figure = page.new(
        "What it is made of",
        [
            f"{model}, for a picture of {size[1]}×{size[0]} and one guidance branch. Width of a "
            "block: channels, one scale for all. Height: side of the grid (text: tokens), each "
            "network to its own scale. Lines over the U: skip connections.",
        ],
        below=below,
    )
    axes = page.axes(figure, 0, 0, WIDTH, below)
    axes.set(xlim=(0, WIDTH), ylim=(0, below))
    axes.set_axis_off()
    _heading(figure, MARGIN, below - 0.2, "unet", parts["unet"])
    _unet(axes, parts["unet"], scale, levels, top=below - 0.55)
    for k, name in enumerate(BESIDE):
        x = MARGIN + k * (COLUMN + 0.02)
        _heading(figure, x, 2.15, name, parts[name], lines=2)
        _row(axes, parts[name], scale, x, middle=0.95, highest=HIGHEST[name])
    handles = [Patch(color=COLOURS[kind], label=label) for kind, label in KINDS.items()]
    figure.legend(
        handles=handles, loc="lower left", ncols=4, fontsize=10, frameon=False,
        bbox_to_anchor=(MARGIN / WIDTH, 0), borderpad=0.2, handlelength=1.2, columnspacing=1.5,
    )  # fmt: skip
    return figure


def _inches_a_channel(parts: dict[str, Measured]) -> float:
    """The largest at which the U-Net fits the page, and each of the others its column."""

    def fits(blocks: list[Block], room: float) -> float:
        return (room - GAP * len(blocks)) / sum(block.shape[-1] for block in blocks)

    unet = fits(_drawn(parts["unet"]), WIDTH - LEFT - MARGIN)
    return min(unet, *(fits(_drawn(parts[name]), COLUMN - 0.25) for name in BESIDE))


def _drawn(part: Measured) -> list[Block]:
    """Blocks with a grid or tokens: not the embedding of the time."""
    return [block for block in part.net.blocks if len(block.shape) > 1]


def _levels(part: Measured) -> dict[int, dict[str, Any]]:
    """By the number of rows of the grid, finest first: channels, and inches it is high and takes.

    A level needs room for the skip connections that lie over it.
    """
    blocks, found = {block.name: block for block in part.net.blocks}, {}
    heights = sorted({block.shape[0] for block in _drawn(part)}, reverse=True)
    for rows in heights:
        own = [b for b in _drawn(part) if b.shape[0] == rows]
        tall = max(LEAST, HIGHEST["unet"] * rows / heights[0])
        skips = sum(blocks[source].shape[0] == rows for source, _, _ in part.net.skips)
        found[rows] = {
            "channels": next(b.shape[-1] for b in own if b.kind == "residual"),
            "tall": tall,
            "room": max(tall, 0.3) + STAPLE * (skips + 1) + 0.12,
        }
    return found


def _unet(
    axes: Axes, part: Measured, scale: float, levels: dict[int, dict[str, Any]], top: float
) -> None:
    """Left to right in the order of computation, a level of the grid in each row."""
    middle, y = {}, top
    for rows, level in levels.items():
        y -= level["room"]
        middle[rows] = y + max(level["tall"], 0.3) / 2
    x, end, places, named = LEFT, None, {}, set()
    for block in _drawn(part):
        width, rows = max(LEAST, scale * block.shape[-1]), block.shape[0]
        y, tall = middle[rows], levels[rows]["tall"]
        if end is not None:
            turn = x - GAP / 2
            axes.plot(
                [end[0], turn, turn, x], [end[1], end[1], y, y], color=INK, linewidth=1, zorder=0
            )
        if rows not in named:
            named.add(rows)
            channels = levels[rows]["channels"]
            look = {"fontsize": 10, "ha": "right"}
            axes.text(x - 0.12, y + 0.02, f"{rows}×{block.shape[1]}", color=INK, **look)
            axes.text(x - 0.12, y - 0.02, f"× {channels}", va="top", color=QUIET, **look)
        _block(axes, block, x, y - tall / 2, width, tall)
        places[block.name] = (x + width / 2, y + tall / 2)
        end = (x + width, y)
        x += width + GAP
    _staples(axes, part, places)


def _staples(axes: Axes, part: Measured, places: dict[str, tuple[float, float]]) -> None:
    """The skip connections, from above one block to above another; the outermost highest."""
    over: dict[float, int] = {}
    for source, target, _ in part.net.skips:
        (x, y), (to, _) = places[source], places[target]
        over[y] = over.get(y, 0) + 1
        level = y + STAPLE * over[y]
        axes.plot([x, x, to, to], [y, level, level, y], color=QUIET, linewidth=0.9)
        axes.plot([to], [y + 0.012], marker="v", markersize=3, color=QUIET)


def _row(
    axes: Axes, part: Measured, scale: float, x: float, *, middle: float, highest: float
) -> None:
    """The blocks of a network side by side on one line."""
    blocks = _drawn(part)
    most = max(block.shape[0] for block in blocks)
    widths = [max(LEAST, scale * block.shape[-1]) for block in blocks]
    end = x + sum(widths) + GAP * (len(blocks) - 1)
    axes.plot([x, end], [middle] * 2, color=INK, linewidth=1, zorder=0)
    for block, width in zip(blocks, widths, strict=True):
        tall = max(LEAST, highest * block.shape[0] / most)
        _block(axes, block, x, middle - tall / 2, width, tall)
        x += width + GAP


def _block(axes: Axes, block: Block, x: float, y: float, width: float, tall: float) -> None:
    axes.add_patch(
        Rectangle((x, y), width, tall, facecolor=COLOURS[block.kind], linewidth=0, gid=block.name)
    )


def _heading(
    figure: Figure, x: float, y: float, name: str, part: Measured, *, lines: int = 1
) -> None:
    """What a network is called, what goes in and comes out, and what it costs."""
    net = part.net
    inside = [written(shape) for shape in part.shapes if len(shape) > 1 or name == "text"]
    shapes = f"{' and '.join(inside)} → {written(net.output_shape[1:])}"
    costs = [f"{_short(net.parameters)} parameters", f"{_short(net.multiply_adds)} multiply-adds"]
    if lines == 1:
        costs.append(f"{format_bytes(net.peak_bytes)} of tensors at once")
    title = NAMES[name][0].upper() + NAMES[name][1:]
    page.text(figure, x, y, title, size=12, weight="bold")
    told = [shapes, " · ".join(costs)]
    if lines == 1:
        page.text(figure, x + 0.65, y, " · ".join(told), size=10, color=QUIET)
        return
    for k, words in enumerate(told):
        page.text(figure, x, y - 0.2 - 0.18 * k, words, size=9, color=QUIET)


def _short(count: float) -> str:
    """``860 M``, three digits."""
    for unit, name in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= unit:
            return f"{float(f'{count / unit:.3g}'):g}{name}"
    return f"{count:g}"


# ----------------------------------------------------------------------------------------- costs


def costs_figure(parts: dict[str, Measured], model: str) -> Figure:
    """A bar for each block, networks side by side: parameters, multiply-adds, memory, time."""
    timed = all(part.seconds is not None for part in parts.values())
    blocks = [block for part in parts.values() for block in part.net.blocks]
    large = max(block.multiply_adds for block in blocks) > 1e10
    unit, factor = ("thousand millions", 1e-9) if large else ("millions", 1e-6)
    columns: list[tuple[str, str, float, list[float]]] = [
        ("Parameters", "millions", 1e-6, [block.parameters for block in blocks]),
        ("Multiply-adds", unit, factor, [block.multiply_adds for block in blocks]),
        ("Tensors alive at once", "megabytes", 1e-6, [block.peak_bytes for block in blocks]),
    ]
    if timed:
        seconds = [s for part in parts.values() for s in part.block_seconds]
        columns.append(("Time, each block alone", "milliseconds", 1e3, seconds))
    starts = np.cumsum([0, *(len(part.net.blocks) + 2 for part in parts.values())])
    x = np.concatenate(
        [
            start + np.arange(len(part.net.blocks))
            for start, part in zip(starts[:-1], parts.values(), strict=True)
        ]
    )
    pitch, tall, foot = 1.85, 1.3, 0.6
    size = parts["encoder"].shapes[0]
    figure = page.new(
        "What its blocks cost",
        [
            f"{model}, {size[1]}×{size[0]}, one guidance branch; each network from left to right "
            "as it runs. A guided run computes the U-Net twice in every step, what precedes its "
            "first cross-attention only once; the text encoder twice and the decoder once in all, "
            "the encoder not at all.",
        ],
        below=foot + pitch * len(columns),
    )
    for row, (title, unit, factor, values) in enumerate(columns):
        y = foot + pitch * (len(columns) - 1 - row)
        axes = page.axes(figure, 0.85, y, WIDTH - 0.85 - MARGIN, tall)
        page.style(axes, title, y=unit)
        values = np.asarray(values, np.float64) * factor
        axes.bar(x, values, 0.85, color=[COLOURS[block.kind] for block in blocks])
        most = int(values.argmax())
        axes.annotate(
            blocks[most].name, (x[most], values[most]), (0, 2), textcoords="offset points",
            ha="right" if most > len(x) / 2 else "left", fontsize=9, color=QUIET,
        )  # fmt: skip
        axes.set(xlim=(-1, starts[-1] - 1.5), ylim=(0, 1.16 * values.max() or 1))
        centres = [(a + b - 3) / 2 for a, b in zip(starts, starts[1:], strict=False)]
        axes.set_xticks(centres, [NAMES[name] for name in parts] if y == foot else [])
        axes.tick_params(axis="x", length=0, labelsize=11, labelcolor=INK)
        for start in starts[1:-1]:
            axes.axvline(start - 1.5, color=FAINT, linewidth=0.8)
    handles = [Patch(color=COLOURS[kind], label=label) for kind, label in KINDS.items()]
    figure.legend(
        handles=handles, loc="lower left", ncols=4, fontsize=10, frameon=False,
        bbox_to_anchor=(0.85 / WIDTH, 0), borderpad=0.2, handlelength=1.2, columnspacing=1.5,
    )  # fmt: skip
    return figure
