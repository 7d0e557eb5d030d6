"""The figures of `xray.studies.stabilizing_noise`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from xray import page, panels
from xray.page import BLUE, FAINT, MARGIN, QUIET, SIGNED, VERMILLION, WIDTH
from xray.pixels import decoded
from xray.sheet import Sheet

if TYPE_CHECKING:
    from xray.generator import Generator


def figures(data: xarray.Dataset, model: Generator, made: str) -> dict[str, Figure]:
    """All of them, by name.

    Args:
        data: from `measure`.
        model: to decode estimates with.
        made: says of what, and by which model.
    """
    return {
        "pictures": pictures_figure(data, made),
        "steps": steps_figure(data, model, made),
        "balance": balance_figure(data, made),
    }


# --------------------------------------------------------------------------------------- pictures


def pictures_figure(data: xarray.Dataset, made: str) -> Figure:
    """A column for each eta; above noise is exchanged, below it is left out."""
    etas, seeds = data["eta"].values.tolist(), data["image"].values.tolist()
    aspect = data.sizes["pixel_y"] / data.sizes["pixel_x"]
    sheet = Sheet(len(seeds), len(etas), aspect, left=1.0, head=0.55, most=1.4)
    apart = 0.35
    figure = page.new(
        "Noise exchanged, and noise left out",
        [made],
        below=2 * (sheet.tall + apart) + MARGIN,
    )
    heads = {
        "exchanged": ("Exchanged: from DDIM to DDPM", [f"eta {eta:g}" for eta in etas]),
        "left out": (
            "Left out: DDPM with a part of its noise only",
            [f"{eta:.0%} put back" for eta in etas],
        ),
    }
    top = 2 * (sheet.tall + apart) + MARGIN
    for way, (title, names) in heads.items():
        page.text(figure, MARGIN, top - 0.2, title, size=12)
        rows = data["picture"].sel(way=way).transpose("image", "eta", ...).values
        sheet.draw(
            figure, top - 0.12, rows, row_names=[f"seed {seed}" for seed in seeds],
            column_names=names,
        )  # fmt: skip
        top -= sheet.tall + apart
    return figure


# ------------------------------------------------------------------------------------------ steps


def steps_figure(data: xarray.Dataset, model: Generator, made: str, columns: int = 7) -> Figure:
    """Noise taken out and put back by DDPM, what it thinks of the picture, and without its noise.

    Args:
        data: from `measure`, with eta 0 and 1.
        model: to decode estimates with.
        made: says of what.
    """
    shown = page.evenly(range(data.sizes["step"]), columns)
    ddpm, without = (data.sel(way="left out", eta=eta) for eta in (1.0, 0.0))
    taken = (ddpm["taken_rate"] * ddpm["noise"]).values[shown][..., 0]
    added = ddpm["added"].values[shown][..., 0]
    reach = float(np.percentile(np.abs([taken, added]), 99.5)) or 1.0
    rows = [[panels.coloured(x, SIGNED, -reach, reach) for x in noise] for noise in (taken, added)]
    for run in (ddpm, without):
        rows.append(decoded(model, run["denoised"].values[shown]))
    aspect = data.sizes["pixel_y"] / data.sizes["pixel_x"]
    sheet = Sheet(4, len(shown), aspect, left=1.75)
    panel, low = 2.2, 0.85
    top = low + panel + 0.45 + sheet.tall
    figure = page.new(
        "What a step takes out and puts back",
        [
            f"{made} · DDPM, seed {int(data.image[0])}",
            f"Noise: the first of the latent’s four channels, orange +{reach:.2g}, "
            f"violet −{reach:.2g}; below, its scale.",
        ],
        below=top,
    )
    sheet.draw(
        figure, top, rows,
        row_names=[
            ("taken out", "predicted noise"),
            ("put back", "fresh noise"),
            "estimate",
            ("estimate", "none put back"),
        ],
        column_names=[(f"step {k}", f"t = {data.timestep.values[k]:.0f}") for k in shown],
    )  # fmt: skip
    half = (WIDTH - 0.85 - MARGIN - 0.9) / 2
    for k, eta in enumerate((1.0, 0.0)):
        axes = page.axes(figure, 0.85 + k * (half + 0.9), low, half, panel)
        name = "DDPM, eta 1" if eta else "DDIM, eta 0"
        page.style(axes, name, x="step", y="root mean square, latent units")
        run = data.sel(way="exchanged", eta=eta)
        steps = np.arange(data.sizes["step"])
        for what, colour, marker, label in (
            ("taken", BLUE, "o", "taken out"),
            ("fresh", VERMILLION, "s", "put back"),
        ):
            rate = {"color": colour, "linewidth": 1.5, "marker": "_" if len(steps) == 1 else None}
            axes.plot(steps, run[f"{what}_rate"], ":", **rate)
            axes.plot(
                steps, run[what].mean("image"), marker, color=colour, markersize=5, label=label
            )
        axes.set_ylim(0, 1.1 * float(data[["taken", "fresh"]].to_array().max()))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.legend(frameon=False, fontsize=10)
    page.text(
        figure, 0.85, 0.1, "dotted: what the schedule says, for noise of variance 1",
        size=9, color=QUIET,
    )  # fmt: skip
    return figure


# ---------------------------------------------------------------------------------------- balance


def balance_figure(data: xarray.Dataset, made: str) -> Figure:
    """The latent, and its finest octave, by what a real one with as much noise has."""
    tall, low = 2.1, 0.65
    pitch = tall + 0.75
    figure = page.new(
        "The latent by what the U-Net expects",
        [
            made,
            f"1 is a real latent with the noise that the U-Net is told of; grey, "
            f"{data.sizes['real']} of them. Dotted: what the schedule says of a U-Net that sees "
            "through to the picture.",
        ],
        below=low + 2 * pitch - 0.4,
    )
    half = (WIDTH - 0.95 - 1.3 - 0.7) / 2
    names = {"rms": "root mean square", "fine": f"finest octave ({data.attrs['octave']} cycles)"}
    titles = {"exchanged": "Noise exchanged", "left out": "Noise left out"}
    for row, (name, label) in enumerate(names.items()):
        top = max(1.15, 1.05 * float((data[name] / data[f"{name}_expected"].mean("real")).max()))
        for column, way in enumerate(titles):
            axes = page.axes(
                figure, 0.95 + column * (half + 0.7), low + (1 - row) * pitch, half, tall
            )
            page.style(
                axes,
                titles[way] if row == 0 else "",
                x="step; the last is the finished latent" if row else "",
                y=f"{label},\nby what is expected" if column == 0 else "",
            )
            _ratios(axes, data, name, way)
            axes.set_ylim(0, min(top, 2.0))
    figure.legend(
        *axes.get_legend_handles_labels(), loc="center right", frameon=False, fontsize=10,
        title="eta, or the\nshare put back", title_fontsize=10, labelcolor=QUIET,
        bbox_to_anchor=(1 - 0.05 / WIDTH, 0.5),
    )  # fmt: skip
    return figure


def _ratios(axes: Axes, data: xarray.Dataset, name: str, way: str) -> None:
    expected = data[f"{name}_expected"].mean("real")
    points = np.arange(data.sizes["point"])
    spread = (data[f"{name}_expected"] / expected).values
    axes.fill_between(points, spread.min(axis=0), spread.max(axis=0), color=FAINT, alpha=0.4,
                      linewidth=0)  # fmt: skip
    axes.axhline(1, color=QUIET, linewidth=0.8)
    for eta, colour in zip(data["eta"].values, page.shades(data.sizes["eta"]), strict=True):
        ratio = (data[name].sel(way=way, eta=eta) / expected).mean("image")
        axes.plot(points, ratio, color=colour, linewidth=2, label=f"{eta:g}")
        if way == "left out":
            axes.plot(points, data[f"{name}_left"].sel(eta=eta) / expected, ":", color=colour)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
