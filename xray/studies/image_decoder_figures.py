"""The figures of `xray.studies.image_decoder`."""

from __future__ import annotations

import numpy as np
import xarray
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from xray import page, panels
from xray.page import MAPS
from xray.studies.image_decoder import HELD, IMPULSE, NOISES, VALUES

DEEPEST = -60  # dB, black in maps of the receptive field
WINDOW = 16  # positions across, in those maps


def figures(data: xarray.Dataset, model: str, picture: str) -> dict[str, Figure]:
    """``constants``, ``receptive_field``, ``noise``, ``swaps`` and ``blocks``.

    Args:
        model, picture: what they are called.
    """
    return {
        "constants": constants(data, model),
        "receptive_field": receptive_field(data, f"{picture} · {model}"),
        "noise": noise(data, f"{picture} · {model} · seed {data.attrs['seed']}"),
        "swaps": swaps(data, f"{picture} · {model}"),
        "blocks": blocks(data, f"{picture} · {model}"),
    }


def constants(data: xarray.Dataset, made: str) -> Figure:
    """One channel at a value everywhere, the others at 0."""
    flat, rows = data["undisturbed"].values[0], data["constant"].values
    below = sum(v < 0 for v in VALUES)
    return panels.sheet(
        "Latents that are the same everywhere, decoded",
        ["Rows: the channel. Columns: its value at all positions; the others are 0.", made],
        [[*row[:below], flat, *row[below:]] for row in rows],
        heads=[f"{v:g}".replace("-", "−") for v in (*VALUES[:below], 0, *VALUES[below:])],
        sides=[str(c) for c in data.channel.values],
    )


def receptive_field(data: xarray.Dataset, made: str) -> Figure:
    """What one position changes, by channel, in decibels below the largest change."""
    factor, size = data.attrs["factor"], data["change"].shape[-2:]
    middle = [side // factor // 2 * factor for side in size]
    cut = [slice(max(0, m - WINDOW // 2 * factor), m + WINDOW // 2 * factor) for m in middle]
    rows = []
    for change in data["change"].values[::-1]:
        with np.errstate(divide="ignore", invalid="ignore"):
            decibels = 20 * np.log10(change / change.max((1, 2), keepdims=True))
        decibels = np.maximum(decibels, DEEPEST)[:, cut[0], cut[1]]
        rows.append([panels.coloured(each_, MAPS, DEEPEST, 0) for each_ in decibels])
    shares = ", ".join(f"{share * 100:.0f} %" for share in HELD)
    figure = panels.sheet(
        "How far one position of a latent reaches",
        [
            f"One channel at one position gets {IMPULSE:g} more; its block of {factor}×{factor} is "
            f"outlined. Squares about it of so many pixels a side hold {shares} of the squared "
            "change.",
            f"{made} · the middle {rows[0][0].shape[1]}×{rows[0][0].shape[0]} pixels",
        ],
        rows,
        heads=[f"channel {c}" for c in data.channel.values],
        sides=["in the picture", "on zeros"],
        captions=[
            [f"{', '.join(map(str, sides))} px" for sides in row]
            for row in data["held"].values[::-1]
        ],
        right=0.9,
    )
    corner = [m - c.start for m, c in zip(middle, cut, strict=True)][::-1]
    for axes in figure.axes:
        axes.add_patch(Rectangle(corner, factor, factor, fill=False, edgecolor="white"))
    last, tall = figure.axes[data.sizes["channel"] - 1].get_position(), figure.get_figheight()
    x, y = last.x1 * page.WIDTH + 0.12, last.y0 * tall
    panels.bar(figure, x, y, last.height * tall, MAPS, DEEPEST, 0, "dB, each largest is 0")
    return figure


def noise(data: xarray.Dataset, made: str) -> Figure:
    """Latents without a picture in them: normal noise, and a picture's numbers in disorder."""
    return panels.sheet(
        "Noise, decoded",
        [
            "Upper: standard normal latents. Lower: the numbers of the picture’s latent, at random "
            "positions.",
            made,
        ],
        list(data["noise"].values),
        heads=[f"seed {data.attrs['seed'] + k}" for k in range(NOISES)],
    )


def swaps(data: xarray.Dataset, made: str) -> Figure:
    """A picture's latent with a channel left out, turned in sign, or swapped with another."""
    cells = [data["undisturbed"].values[1], *data["meddled"].values]
    quality = zip(data.how.values, data.meddled_psnr.values, strict=True)
    captions = ["undisturbed", *(f"{how}: {q:.1f} dB" for how, q in quality)]
    return panels.sheet(
        "Channels left out, turned and swapped",
        ["dB: PSNR against the undisturbed latent decoded.", made],
        panels.wrapped(cells),
        captions=panels.wrapped(captions, ""),
    )


def blocks(data: xarray.Dataset, made: str) -> Figure:
    """What the picture looks like after each block of the decoder."""
    factor = data.attrs["factor"]
    names = [
        f"{site}: {width}"
        for site, width in zip(data.site.values, data.block_channels.values, strict=True)
    ]
    cells = [*data["block"].values, data["undisturbed"].values[1]]
    return panels.sheet(
        "From the latent to the picture, block by block",
        [
            "The first three principal components of each block’s channels as colour. The latent "
            f"has one position for {factor}×{factor} pixels; each upsampling doubles the grid. "
            "Numbers are those of the channels.",
            made,
        ],
        panels.wrapped(cells),
        captions=panels.wrapped([*names, "picture"], ""),
    )
