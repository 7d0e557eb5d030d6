"""The figures of `xray.studies.latent_interpolation`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray
from matplotlib.figure import Figure

from xray import page, pictures
from xray.page import BLUE, GREEN, INK, QUIET, VERMILLION
from xray.sheet import Sheet
from xray.studies.latent_interpolation import lerp_norm

if TYPE_CHECKING:
    from xray.generator import Generator

MOST_SHOWN = 9  # pictures in a row
LOOKS = {"lerp": (VERMILLION, "s--"), "slerp": (BLUE, "o-")}
TRIPS = ((BLUE, "o-"), (VERMILLION, "s--"), (GREEN, "^-."))


def figures(data: xarray.Dataset, model: Generator) -> dict[str, Figure]:
    """``noise``, ``pictures`` and ``inversion``.

    Args:
        data: from all three of the study, merged; its attributes say what was asked: prompt, seed,
            other_seed, picture, other_picture, words, steps, guidance.
        model: that made it.
    """
    return {
        "noise": noise_figure(data, model),
        "pictures": pictures_figure(data, model),
        "inversion": inversion_figure(data, model),
    }


def noise_figure(data: xarray.Dataset, model: Generator) -> Figure:
    """The pictures from both ways between two noises, and what becomes of the norm."""
    told, t = data.attrs, data["t"].values
    shown = _shown(data)
    sheet = _sheet(data, rows=2, columns=len(shown), left=1.0)
    below, tall = 3.3, 2.2
    lines = [
        (f"“{told['prompt']}”", INK),
        f"from the noise of seed {told['seed']} to that of seed {told['other_seed']} · "
        f"{model.name}, {told['steps']} steps of DDIM, guidance {told['guidance']:g}",
    ]
    figure = page.new("Between two noises", lines, below=below + sheet.tall)
    rows = [data["noise_image"].sel(way=way).values[shown] for way in LOOKS]
    names = [f"t = {t[k]:.2g}" for k in shown]
    names[0], names[-1] = f"seed {told['seed']}", f"seed {told['other_seed']}"
    sheet.draw(figure, below + sheet.tall, rows, row_names=list(LOOKS), column_names=names)

    norms = page.axes(figure, 0.85, 0.6, 3.9, tall)
    page.style(norms, "Norm of the noise", x="t", y="norm ÷ √n")
    details = page.axes(figure, 5.75, 0.6, 4.0, tall)
    page.style(details, "Detail of the picture", x="t", y="levels from pixel to pixel, rms")
    fine = np.linspace(0, 1, 101)
    a, b = data["start_norm"].values[0, [0, -1]]
    norms.plot(fine, lerp_norm(fine, a, b, data.attrs["cosine"]), color=INK, linewidth=1)
    for way, (colour, look) in LOOKS.items():
        own = data.sel(way=way)
        norms.plot(t, own["start_norm"], look[0], color=colour, markersize=6, label=way)
        details.plot(t, own["detail"], look, color=colour, markersize=5, label=way)
    norms.lines[0].set_label("closed form of lerp")
    norms.set_ylim(0.4, 1.1)
    norms.legend(frameon=False, fontsize=10, loc="lower center", ncols=3)
    details.set_ylim(bottom=0)
    details.legend(frameon=False, fontsize=10, loc="lower center", ncols=2)
    return figure


def pictures_figure(data: xarray.Dataset, model: Generator) -> Figure:
    """Two pictures and what lies between them: of their latents, of their noises."""
    a, shown = data.attrs, _shown(data)
    t = np.linspace(0, 1, data.sizes["frame"])
    sheet = _sheet(data, rows=2, columns=len(shown) + 2, left=1.35)
    told = [f"“{words}”" if words else "no words" for words in a["words"]]
    lines = [
        (f"{a['picture']}: {told[0]}", BLUE),
        (f"{a['other_picture']}: {told[1]}", VERMILLION),
        f"{model.name} · noises by DDIM backwards, and pictures from them, in {a['steps']} steps "
        "without guidance · the words walk along",
    ]
    figure = page.new("Between two pictures", lines, below=sheet.tall + 0.15)
    first, last = data["original"].values
    rows = [
        [first, *data["encoded"].values[shown], last],
        [None, *data["inverted_image"].values[shown], None],
    ]
    sheet.draw(
        figure,
        sheet.tall + 0.15,
        rows,
        row_names=[("latents", "straight line"), ("noises", "circle")],
        column_names=["picture", *(f"t = {t[k]:.2g}" for k in shown), "picture"],
    )
    return figure


def inversion_figure(data: xarray.Dataset, model: Generator) -> Figure:
    """The noise found for each picture, what is drawn from it again, and how near that is."""
    a, trips, steps = data.attrs, data["trip"].values.tolist(), data["trip_steps"].values
    decoded = data["encoded"].values[[0, -1]]
    sheet = _sheet(
        data, rows=2, columns=3 + len(trips), left=1.35, most=1.3, head=0.62, caption=0.2
    )
    below = 3.0
    lines = [
        f"{model.name} · pictures of {a['steps']} steps, trailing spacing · by the guidance with "
        "which the noise was found, and with which a picture was drawn from it",
        "error: root mean square, of the latent that came back minus the picture’s, over the "
        "picture’s",
    ]
    figure = page.new("To noise and back", lines, below=below + sheet.tall)
    noise = data["inverted"].values[0]
    colours = pictures.latent_colours(noise, model.rgb_matrix)
    at = data["error"].sel(trip_steps=a["steps"])
    rows, captions = [], []
    for end in range(2):
        back = data["back"].values[:, end]
        rows.append([data["original"].values[end], decoded[end], colours[end], *back])
        errors = [f"error {float(at.sel(trip=trip)[end]):.2f}" for trip in trips]
        captions.append(["", "", f"std {float(noise[end].std()):.2f}", *errors])
    sheet.draw(
        figure,
        below + sheet.tall,
        rows,
        captions=captions,
        row_names=[a["picture"], a["other_picture"]],
        column_names=[
            "picture",
            "decoded",
            ("noise", "guidance 1"),
            *((f"guidance {trip.split(', ')[0]}", trip.split(", ")[1]) for trip in trips),
        ],
    )
    axes = page.axes(figure, 0.85, 0.6, 6.0, 2.0)
    page.style(axes, "Error of the round trip, mean of both pictures", x="steps", y="error")
    error = data["error"].mean("end")
    for (colour, look), trip in zip(TRIPS, trips, strict=False):
        axes.plot(steps, error.sel(trip=trip), look, color=colour, markersize=5, label=trip)
    axes.set(xscale="log", yscale="log")
    plain = error.values[0]
    if plain[-1] > 0:
        half = plain[-1] * steps[-1] / steps
        axes.plot(steps, half, color=QUIET, linewidth=1, linestyle=":", label="half with twice")
    axes.set_xticks(steps, [str(n) for n in steps])
    axes.minorticks_off()
    _round_ticks(axes)
    axes.legend(
        frameon=False, fontsize=10, title="guidance to noise", alignment="left",
        loc="upper left", bbox_to_anchor=(1.02, 1.05), title_fontsize=10,
    )  # fmt: skip
    return figure


def _round_ticks(axes: page.Axes) -> None:
    """On a logarithmic axis of errors 1, 2 and 5 of each decade, as plain numbers."""
    low, high = axes.get_ylim()
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = [n for n in np.outer(decades, [1, 2, 5]).ravel() if low <= n <= high]
    axes.set_yticks(ticks, [f"{n:g}" for n in ticks])


def _shown(data: xarray.Dataset) -> list[int]:
    return page.evenly(range(data.sizes["frame"]), MOST_SHOWN)


def _sheet(data: xarray.Dataset, **asked: float) -> Sheet:
    return Sheet(aspect=data.sizes["y"] / data.sizes["x"], **asked)
