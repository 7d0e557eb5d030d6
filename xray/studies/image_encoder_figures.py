"""The figures of `xray.studies.image_encoder`."""

from __future__ import annotations

import numpy as np
import xarray
from matplotlib.figure import Figure

from xray import heatmap, page, panels
from xray.fidelity import psnr
from xray.page import CYCLE, DASHES, FAINT, MAPS, MARGIN, QUIET, SIGNED


def figures(data: xarray.Dataset, made: str) -> dict[str, Figure]:
    """``channels``, ``statistics`` and ``posterior``; `made` says of which picture by what."""
    return {
        "channels": channels(data, made),
        "statistics": statistics(data, made),
        "posterior": posterior(data, made),
    }


def channels(data: xarray.Dataset, made: str) -> Figure:
    """The picture, its latent as colour, and the four channels on one scale."""
    latent, picture = data["mean"].values, data["picture"].values
    count = latent.shape[-1]
    room = page.WIDTH - 2 * MARGIN
    scale = panels.scale_of(picture.shape, room / 3 - 0.2, 3.2)
    wide, tall = panels.extent(picture.shape, scale)
    small = panels.scale_of(latent.shape, (room - 1.0) / count - 0.15, 2.4)
    narrow, low = panels.extent(latent.shape, small)
    lines = [
        f"{made} · {_size(picture)} pixels become {_size(latent)} × {count} numbers, "
        f"{picture.size / latent.size:.3g} times fewer"
    ]
    below = tall + 0.5 + low + 0.75 + MARGIN
    figure = page.new("What the encoder keeps of a picture", lines, below=below)
    top = below - 0.35 - tall
    factor = picture.shape[0] // latent.shape[0]
    shown = {
        f"picture, {panels.in_words(scale)}": (picture, scale),
        f"latent as colour, by {data.attrs['colour_by']}": (
            data["latent_colour"].values,
            scale * factor,
        ),
        f"decoded again, {data.attrs['psnr']:.1f} dB": (data["decoded"].values, scale),
    }
    for column, (name, (pixels, size)) in enumerate(shown.items()):
        x = MARGIN + column * max(wide + 0.1, room / 3)
        panels.place(figure, x, top, pixels, size)
        page.text(figure, x, top + tall + 0.08, name, size=11)

    largest = float(np.abs(latent).max())
    y = MARGIN + 0.1
    for channel in range(count):
        x = MARGIN + channel * (narrow + 0.12)
        drawn = panels.coloured(latent[..., channel], SIGNED, -largest, largest)
        panels.place(figure, x, y, drawn, small)
        page.text(figure, x, y + low + 0.27, f"channel {channel}", size=11, color=CYCLE[channel])
        words = f"mean {data.channel_mean[channel]:.2f}, std {data.channel_std[channel]:.2f}"
        page.text(figure, x, y + low + 0.08, words.replace("-", "−"), size=9, color=QUIET)
    x = MARGIN + count * (narrow + 0.12) + 0.02
    panels.bar(figure, x, y, low, SIGNED, -largest, largest, "scaled latent")
    return figure


def statistics(data: xarray.Dataset, made: str) -> Figure:
    """Distributions, information, and correlations of the channels."""
    latent = data["mean"].values
    lines = [f"{made} · over {latent.shape[0] * latent.shape[1]} positions of the latent"]
    figure = page.new("The four channels of a latent in numbers", lines, below=7.1)

    axes = page.style(
        page.axes(figure, 0.75, 4.25, 4.0, 2.4),
        "Values and a standard normal",
        x="scaled latent",
        y="density",
    )
    extreme = max(3.5, float(np.abs(latent).max()))
    edges = np.linspace(-extreme, extreme, 41)
    for c, dash in zip(data.channel.values, DASHES, strict=False):
        density, _ = np.histogram(latent[..., c], edges, density=True)
        axes.stairs(density, edges, color=CYCLE[c], linestyle=dash, linewidth=2, label=f"{c}")
    x = np.linspace(-extreme, extreme, 200)
    normal = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    axes.plot(x, normal, color=QUIET, linestyle=":", label="N(0, 1)")
    axes.legend(title="channel", frameon=False, fontsize=9, title_fontsize=9)

    axes = page.style(
        page.axes(figure, 5.75, 4.25, 4.0, 2.4),
        "How sure the encoder is",
        x="channel",
        y="scaled latent, log scale",
    )
    spreads, noises = data.channel_std.values, data.channel_posterior_std.values
    at = np.arange(len(spreads))
    axes.vlines(at, noises, spreads, color=FAINT, linewidth=2)
    for values, colour, marker, label in (
        (spreads, CYCLE[0], "o", "spread of the mean over the picture (std)"),
        (noises, CYCLE[1], "s", "spread of the posterior (std)"),
    ):
        axes.plot(at, values, marker, color=colour, markersize=8, label=label)
        for k, value in enumerate(values):
            axes.text(k + 0.1, value, f"{value:.2g}", va="center", fontsize=10, color=QUIET)
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.set_xlim(-0.5, len(at) - 0.3)
    axes.set_ylim(noises[noises > 0].min(initial=1.0) / 4, max(spreads.max(), noises.max()) * 30)
    axes.set_xticks(at)
    axes.legend(frameon=False, fontsize=9, loc="upper left", borderpad=0.1)

    block = data["picture"].shape[0] // latent.shape[0]
    names = [f"channel {c}" for c in data.channel.values]
    look = {"low": -1, "high": 1, "colours": SIGNED, "numbers": True}
    axes = page.style(page.axes(figure, 1.1, 0.95, 2.3, 2.3), "Correlation between channels")
    heatmap.labelled(axes, data["correlation"].values, names, [str(c) for c in at], **look)
    title = f"Correlation with what is in the {block}×{block} block"
    axes = page.style(page.axes(figure, 5.75, 0.95, 4.0, 2.3), title)
    properties = data.property.values
    heatmap.labelled(axes, data["picture_correlation"].values, names, properties, **look)
    axes.set_xticks(
        range(len(properties)), [p.replace(" ", "\n", 1) for p in properties], rotation=0
    )
    for each in figure.axes[-2:]:
        each.grid(False)
    return figure


def posterior(data: xarray.Dataset, made: str) -> Figure:
    """The mean decoded, a sample decoded, and where they differ."""
    mean, sample = data["decoded"].values, data["decoded_sample"].values
    apart = psnr(mean[None], sample[None])[0]
    change, factor = panels.difference(mean, sample)
    spread = np.sqrt((data["std"].values.astype(np.float64) ** 2).mean(-1))
    block = mean.shape[0] // spread.shape[0]
    spread_map = panels.coloured(spread.repeat(block, 0).repeat(block, 1), MAPS, 0, spread.max())
    cells = {
        ("picture", ""): data["picture"].values,
        ("mean, decoded", f"{data.attrs['psnr']:.2f} dB"): mean,
        ("sample, decoded", f"{data.attrs['psnr_sample']:.2f} dB"): sample,
        (f"sample − mean, ×{factor}", f"{apart:.1f} dB apart, grey is equal"): change,
        ("posterior’s spread", f"0 (black) to {spread.max():.2g}"): spread_map,
    }
    lines = [
        "The encoder gives a normal distribution for each number of the latent. dB: PSNR against "
        "the picture. The spread is in units of the scaled latent, root mean square over channels.",
        made,
    ]
    title = "The posterior: its mean, a sample, and its spread"
    return panels.sheet(title, lines, [list(cells.values())], heads=list(cells))


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}×{pixels.shape[0]}"
