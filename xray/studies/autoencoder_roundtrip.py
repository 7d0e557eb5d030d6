"""What an autoencoder loses: the numbers and figures of `experiments/autoencoder_roundtrip.py`.

data = measure(model, load_image("china", 512, 512), trips=25)
figures(data, "china · sd-v1-4")["spectrum"]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from xray import page, panels
from xray.fidelity import psnr, ssim
from xray.page import BLUE, FAINT, GREEN, INK, MARGIN, QUIET, VERMILLION, WIDTH
from xray.progress import Report, each
from xray.spectrum import EVEN, OCTAVES, centres, radial_power

if TYPE_CHECKING:
    from xray.generator import Generator

ZOOM = 4  # of the close-up: a fourth of the sides
MOST_SHOWN = 5


def measure(
    model: Generator, pixels: np.ndarray, *, trips: int = 25, progress: Report | None = None
) -> xarray.Dataset:
    """Encode and decode a picture again and again, and say what has become of it.

    Between two trips the picture is rounded to 8 bits, as a file is.

    Args:
        pixels: uint8 (h, w, 3), multiples of 8.
        trips: how often, at least once.
        progress: told ``(done, trips)``.

    Returns:
        ``trip_picture`` (shown, row, column, rgb), uint8: the pictures after `shown` trips, the
        first of them the picture itself, the second what is called decoded elsewhere. By trip,
        from 1: ``psnr`` and ``ssim`` against the picture, ``psnr_step`` against the trip before.
        ``power`` (of, frequency): of the picture, of what is decoded from it, and of their
        difference, with frequencies in cycles per pixel and levels from 0 to 1;
        ``octave_power`` (of, octave), the same in octaves.
    """
    now, shown, rows = pixels, _shown(trips), []
    kept = [pixels]
    for trip in each(range(1, trips + 1), progress):
        latent = model.encode(now)
        before, now = now, np.asarray(model.decode(latent)[0])
        pair = [picture[None] for picture in (pixels, now)]
        rows.append((psnr(*pair)[0], ssim(*pair)[0], psnr(before[None], now[None])[0]))
        if trip in shown:
            kept.append(now)
    decoded = kept[1]
    three = [pixels / 255, decoded / 255, decoded / 255 - pixels / 255]
    image = ("row", "column", "rgb")
    psnrs, ssims, steps = np.array(rows).T
    return xarray.Dataset(
        {
            "trip_picture": (("shown", *image), np.stack(kept)),
            "psnr": ("trip", psnrs),
            "ssim": ("trip", ssims),
            "psnr_step": ("trip", steps),
            "power": (("of", "frequency"), np.stack([radial_power(p, EVEN) for p in three])),
            "octave_power": (("of", "octave"), np.stack([radial_power(p, OCTAVES) for p in three])),
        },
        {
            "shown": shown,
            "trip": np.arange(1, trips + 1),
            "of": ["picture", "decoded", "difference"],
            "frequency": centres(EVEN),
            "octave": list(OCTAVES[:-1]),
        },
        {"latent_factor": pixels.shape[0] // latent.shape[1]},
    )


def _shown(trips: int) -> list[int]:
    """0, 1 and the last trip, and some between, ever farther apart."""
    between = np.geomspace(1, trips, MOST_SHOWN - 1)
    return sorted({0, *(round(trip) for trip in between)})


def bands(data: xarray.Dataset) -> list[tuple[str, float, float]]:
    """What is lost by size of detail: ``(pixels, difference / picture, decoded / picture)``.

    The ratios are of power: 0 of the difference is nothing lost, 1 is as much as there was.
    """
    edges = [*data.octave.values, 0.5]
    rows = []
    for low, high, power in zip(edges, edges[1:], data.octave_power.values.T, strict=False):
        name = f"{1 / high:.0f} to {1 / low:.0f}" if low else f"over {1 / high:.0f}"
        with np.errstate(invalid="ignore", divide="ignore"):
            rows.append((name, float(power[2] / power[0]), float(power[1] / power[0])))
    return [row for row in rows if not np.isnan(row[1])]  # coarser than a small picture is


# ---------------------------------------------------------------------------------------- figures


def figures(data: xarray.Dataset, made: str) -> dict[str, Figure]:
    """``roundtrip``, ``spectrum`` and ``drift``; `made` says of which picture by what."""
    return {
        "roundtrip": roundtrip(data, made),
        "spectrum": spectrum(data, made),
        "drift": drift(data, made),
    }


def roundtrip(data: xarray.Dataset, made: str) -> Figure:
    """Picture, decoded and their difference, whole and close up where most is lost."""
    picture, decoded = data["trip_picture"].values[:2]
    change, factor = panels.difference(picture, decoded)
    top, left, height, width = _where_most_is_lost(picture, decoded)
    whole = [picture, decoded, change]
    close = [p[top : top + height, left : left + width] for p in whole]
    quality = f"PSNR {data.psnr[0]:.2f} dB, SSIM {data.ssim[0]:.3f}"
    heads = ["picture", ("decoded", quality), (f"difference ×{factor}", "mid grey: none")]
    figure = panels.sheet(
        "Through the autoencoder and back",
        [made],
        [whole, [p.repeat(ZOOM, 0).repeat(ZOOM, 1) for p in close]],
        heads=heads,
        sides=["whole", (f"close-up, ×{ZOOM}", "where most is lost")],
    )
    for axes in figure.axes[:3]:
        axes.add_patch(
            Rectangle((left, top), width, height, fill=False, edgecolor="white", linewidth=2.5)
        )
        axes.add_patch(
            Rectangle((left, top), width, height, fill=False, edgecolor=INK, linewidth=1)
        )
    return figure


def _where_most_is_lost(picture: np.ndarray, decoded: np.ndarray) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the window with the largest squared difference."""
    height, width = (side // ZOOM for side in picture.shape[:2])
    lost = ((picture.astype(np.float64) - decoded) ** 2).sum(-1)
    sums = np.pad(lost.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    windows = (sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width]) + sums[
        :-height, :-width
    ]
    top, left = np.unravel_index(windows.argmax(), windows.shape)
    return int(top), int(left), height, width


def spectrum(data: xarray.Dataset, made: str) -> Figure:
    """Power by frequency, and the share of it that is lost."""
    figure = page.new("Which frequencies are lost", [made], below=3.85)
    frequency, power = data.frequency.values, data["power"].values
    nyquist = 1 / (2 * data.attrs["latent_factor"])

    axes = page.style(
        page.axes(figure, 0.85, 0.65, 3.9, 2.9),
        "Power by frequency",
        x="cycles per pixel",
        y="power of levels 0 … 1, log scale",
    )
    looks = (("picture", INK, "-"), ("decoded", BLUE, "--"), ("difference", VERMILLION, "-."))
    for values, (name, colour, dash) in zip(power, looks, strict=True):
        axes.plot(frequency, values, dash, color=colour, linewidth=2, label=name)
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=10)

    with np.errstate(invalid="ignore", divide="ignore"):
        shares = power[1:] / power[0]
    right = page.style(
        page.axes(figure, 5.75, 0.65, 4.0, 2.9),
        "As a share of the picture’s",
        x="cycles per pixel",
        y="power ÷ power of the picture",
    )
    for values, (name, colour, dash) in zip(shares, looks[1:], strict=True):
        right.plot(frequency, values, dash, color=colour, linewidth=2, label=name)
    right.axhline(1, color=FAINT, linewidth=1)
    right.set_ylim(0, min(max(2.1, 1.05 * np.nanmax(shares)), 4))
    right.text(0.5, 1.1, "as much as was there", ha="right", fontsize=9, color=QUIET)
    for each_axes in (axes, right):
        each_axes.set_xlim(0, 0.5)
        each_axes.axvline(nyquist, color=GREEN, linestyle=":", linewidth=1.5)
    axes.annotate(
        f"1/{round(1 / nyquist)}: the finest stripes\nthat the latent’s grid can hold",
        (nyquist, 0.03),
        (nyquist + 0.012, 0.03),
        xycoords=("data", "axes fraction"),
        fontsize=9,
        color=GREEN,
    )
    return figure


def drift(data: xarray.Dataset, made: str) -> Figure:
    """Pictures after several trips, and how fast they leave the first."""
    shown = data.shown.values.tolist()
    captions = ["", *(f"{data.psnr.sel(trip=t).item():.1f} dB" for t in shown[1:])]
    heads = ["picture", *(f"{t} trip" + "s" * (t > 1) for t in shown[1:])]
    figure = panels.sheet(
        "Encoded and decoded again and again",
        ["dB: PSNR against the picture. Rounded to 8 bits after each trip.", made],
        [list(data["trip_picture"].values)],
        heads=heads,
        captions=[captions],
        under=2.8,
    )
    axes = page.style(
        page.axes(figure, 0.85, 0.6, WIDTH - 0.85 - MARGIN, 2.1),
        x="trips",
        y="PSNR, dB",
    )
    curves = (
        ("psnr", "against the picture", BLUE, "-o"),
        ("psnr_step", "against the trip before", VERMILLION, "--s"),
    )
    for name, label, colour, look in curves:
        axes.plot(data.trip, data[name], look, color=colour, linewidth=2, markersize=4, label=label)
    axes.legend(frameon=False, fontsize=10, loc="center right")
    axes.set_xlim(0.5, data.trip.values[-1] + 0.5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return figure
