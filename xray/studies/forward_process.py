"""What training sees: the numbers and figures of `experiments/forward_process.py`.

data = measure(model, load_image("scene:7", 128, 128), "a little black cat and a yellow moon")
figures(data, "scene:7 · mini")["curves"]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray import bands, page, panels, pictures, stats
from xray.page import BLUE, INK, QUIET, VERMILLION
from xray.progress import Report, each
from xray.samplers import initial_noise

if TYPE_CHECKING:
    from xray.generator import Generator

SHOWN = 5


def measure(
    model: Generator,
    pixels: np.ndarray,
    prompt: str,
    *,
    timesteps: Sequence[int] = tuple(range(0, 1000, 50)),
    noises: int = 4,
    seed: int = 0,
    progress: Report | None = None,
) -> xarray.Dataset:
    """Noise a picture's latent as training does, and ask the U-Net for the noise.

    x = √ᾱ x₀ + √(1−ᾱ) ε, with one and the same ε at all timesteps.

    Args:
        pixels: uint8 (h, w, 3), multiples of 8.
        prompt: what the U-Net is told of the picture.
        timesteps: at which, 0 … 999.
        noises: how many ε, of as many seeds counted from `seed`.
        progress: told ``(done, total)`` in timesteps.

    Returns:
        By timestep: ``snr`` (timestep, band), the picture's power against the noise's in each
        octave, ᾱ E / (1 − ᾱ); ``ks`` and ``std`` (timestep, noise) of the noised latent, its
        distance from a standard normal and standard deviation; ``noise_error`` and
        ``picture_error`` (timestep, noise), the squared error of the noise found, ‖ε̂ − ε‖² / ‖ε‖²,
        and of the clean latent that follows from it, ‖x̂₀ − x₀‖² / ‖x₀‖²; ``band_error``
        (timestep, noise, band), as ``noise_error`` by octave, and ``linear`` (timestep, band),
        what the best linear denoiser would leave (Wiener 1949), which knows the spectrum E of this
        picture and nothing else: ᾱ E / (ᾱ E + 1 − ᾱ).

        Pictures of the first noise at some timesteps, uint8: ``noised_colour`` (shown, y, x, rgb),
        the latent as colour; ``noised`` and ``denoised`` (shown, row, column, rgb), decoded: the
        noised latent, and the clean one that the U-Net sees behind it.
    """
    x0 = model.encode(pixels).values
    context = model.embed(prompt).values
    found = bands.octaves(*x0.shape[1:3])
    energy = bands.energy(x0[0], found)
    alphas = np.array([model.schedule.alpha_cumprod(t) for t in timesteps])
    with np.errstate(divide="ignore"):
        snr = (alphas / (1 - alphas))[:, None] * energy
    shown = _evenly(timesteps)
    rows: list[list[tuple]] = []
    drawn: dict[str, list[np.ndarray]] = {"noised_colour": [], "noised": [], "denoised": []}
    for t in each(timesteps, progress):
        rows.append([])
        for n in range(noises):
            noise = initial_noise(seed + n, x0.shape[1:])[None]
            x = model.schedule.add_noise(x0, noise, t)
            said = model.predict(x, t, context)
            denoised = model.schedule.to_denoised(said, x, t)
            normality = stats.normality(x)
            octaves = bands.energy(said[0] - noise[0], found) / bands.energy(noise[0], found)
            rows[-1].append((
                normality["ks"], normality["std"], _share(said - noise, noise),
                _share(denoised - x0, x0), octaves,
            ))  # fmt: skip
            if t in shown and n == 0:
                drawn["noised_colour"].append(pictures.latent_colours(x[0], model.rgb_matrix))
                drawn["noised"].append(np.asarray(model.decode(x)[0]))
                drawn["denoised"].append(np.asarray(model.decode(denoised)[0]))

    names = ("ks", "std", "noise_error", "picture_error", "band_error")
    by_name = {
        name: np.array([[cell[k] for cell in row] for row in rows]) for k, name in enumerate(names)
    }
    image = ("shown", "row", "column", "rgb")
    return xarray.Dataset(
        {
            "picture": (image[1:], pixels),
            "snr": (("timestep", "band"), snr),
            "linear": (("timestep", "band"), snr / (snr + 1)),
            **{k: (("timestep", "noise", "band")[: v.ndim], v) for k, v in by_name.items()},
            "noised_colour": (("shown", "y", "x", "rgb"), np.stack(drawn.pop("noised_colour"))),
            **{name: (image, np.stack(values)) for name, values in drawn.items()},
        },
        {
            "timestep": list(timesteps),
            "alpha_cumprod": ("timestep", alphas),
            "noise": np.arange(seed, seed + noises),
            "band": [band.name for band in found],
            "energy": ("band", energy),
            "shown": shown,
        },
        {"prompt": prompt, "numbers": x0.size, "power": float(np.mean(x0.astype(np.float64) ** 2))},
    )


def _evenly(timesteps: Sequence[int]) -> list[int]:
    """Those to show pictures of, the last of them included."""
    at = np.linspace(0, len(timesteps) - 1, SHOWN + 1)[1:]
    return sorted({int(timesteps[round(place)]) for place in at})


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    squares = [(values.astype(np.float64) ** 2).sum() for values in (part, whole)]
    return float(squares[0] / squares[1])


HEADER = ("timestep", "SNR, dB", "std", "KS", "noise error", "picture error")


def table(data: xarray.Dataset) -> list[list[Any]]:
    """By timestep what `HEADER` names, the mean over noises; SNR that of all frequencies."""
    alphas = data["alpha_cumprod"].values
    decibels = 10 * np.log10(alphas / (1 - alphas) * data.attrs["power"])
    means = [data[k].mean("noise").values for k in ("std", "ks", "noise_error", "picture_error")]
    columns = [data["timestep"].values, decibels, *means]
    return [list(row) for row in zip(*(c.tolist() for c in columns), strict=True)]


# ---------------------------------------------------------------------------------------- figures


def figures(data: xarray.Dataset, made: str) -> dict[str, Figure]:
    """``noised`` and ``curves``; `made` says of which picture by what."""
    return {"noised": noised(data, made), "curves": curves(data, made)}


def noised(data: xarray.Dataset, made: str) -> Figure:
    """The latent at several timesteps, and what the U-Net sees behind it in one step."""
    factor = data.sizes["row"] // data.sizes["y"]
    colour = data["noised_colour"].values.repeat(factor, 1).repeat(factor, 2)
    by_timestep = {row[0]: row for row in table(data)}
    heads = [(f"t = {t}", f"SNR {by_timestep[t][1]:.1f} dB".replace("-", "−"))
             for t in data.shown.values.tolist()]  # fmt: skip
    return panels.sheet(
        "What training sees, and what the U-Net sees in it",
        [
            (f"“{data.attrs['prompt']}”", INK),
            "Upper: the noised latent as colour. Middle: decoded. Lower: what the U-Net sees "
            "behind it in one step, decoded.",
            made,
        ],
        [list(colour), list(data["noised"].values), list(data["denoised"].values)],
        heads=heads,
    )


def curves(data: xarray.Dataset, made: str) -> Figure:
    """Signal against noise, distance from normal, and errors of one step, by timestep."""
    noises = data.sizes["noise"]
    lines = [f"{made} · mean over {noises} noise{'s' * (noises > 1)}"]
    figure = page.new("Noise in a latent, and how much of it is found", lines, below=6.6)
    places = [(x, y) for y in (3.75, 0.65) for x in (0.85, 5.75)]
    upper_left, upper_right, left, right = (page.axes(figure, *p, 4.0, 2.35) for p in places)

    page.style(upper_left, "Picture against noise, by octave", y="signal-to-noise ratio, dB")
    with np.errstate(divide="ignore"):
        _octaves(upper_left, data, 10 * np.log10(data["snr"]), "-")
    upper_left.axhline(0, color=QUIET, linewidth=1)
    upper_left.legend(
        title="cycles per picture", title_fontsize=9, frameon=False, fontsize=9, ncols=2
    )

    title = "The noised latent’s distance from normal"
    page.style(upper_right, title, y="KS distance, sup |Fₙ − Φ|")
    upper_right.plot(data.timestep, data["ks"].mean("noise"), color=BLUE, linewidth=2)
    normal = 1.36 / np.sqrt(data.attrs["numbers"])
    upper_right.axhline(normal, color=QUIET, linestyle=":")
    note = "19 of 20 samples of a normal are below"
    upper_right.text(0, 0.93 * normal, note, va="top", fontsize=9, color=QUIET)
    upper_right.set_ylim(0, max(1.4 * normal, 1.1 * float(data["ks"].mean("noise").max())))

    page.style(left, "Noise not found in one step", x="timestep", y="‖ε̂ − ε‖² / ‖ε‖²")
    _octaves(left, data, data["band_error"].mean("noise"), "-")
    _octaves(left, data, data["linear"], ":")
    left.set_ylim(0, min(1.6, max(1.05, 1.05 * float(data["band_error"].mean("noise").max()))))
    note = "dotted: the best linear denoiser"
    left.text(1, 0.93, note, transform=left.transAxes, ha="right", fontsize=9, color=QUIET)

    page.style(right, "The same error, in noise and in picture", x="timestep", y="log scale")
    for name, label, look in (
        ("noise_error", "noise, ‖ε̂ − ε‖² / ‖ε‖²", {"color": BLUE}),
        ("picture_error", "picture, ‖x̂₀ − x₀‖² / ‖x₀‖²", {"color": VERMILLION, "linestyle": "--"}),
    ):
        right.plot(data.timestep, data[name].mean("noise"), linewidth=2, label=label, **look)
    right.set_yscale("log")
    right.minorticks_off()
    right.legend(frameon=False, fontsize=9)
    return figure


def _octaves(axes: Axes, data: xarray.Dataset, values: xarray.DataArray, dash: str) -> None:
    """A curve for each octave, coarse ones dark."""
    for band, colour in zip(data["band"].values, page.shades(data.sizes["band"]), strict=True):
        style = {"color": colour, "linewidth": 2 if dash == "-" else 1.4, "label": band}
        axes.plot(data.timestep, values.sel(band=band), dash, **style)
