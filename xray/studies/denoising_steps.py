"""When layout, colour and detail of a picture settle while it is denoised.

Measured on the denoised estimates: at every step the model has a whole picture in mind, and its
distance to the last of them, part by part and octave by octave, tells what is still open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from xray import bands, page
from xray.page import BLUE, GREEN, MARGIN, QUIET, VERMILLION, WIDTH
from xray.pixels import LUMA, decoded
from xray.plots import how_made

if TYPE_CHECKING:
    from xray.generator import Generator
    from xray.samplers import NoiseSchedule
    from xray.trace import Trace

FINE = 4.0  # cycles per picture: what is smaller than an eighth of it is detail
COLOURS = {"layout": (BLUE, "-"), "colour": (VERMILLION, "--"), "detail": (GREEN, "-.")}


# -------------------------------------------------------------------------------------- measured


def settling(traces: Sequence[Trace], schedule: NoiseSchedule) -> xarray.Dataset:
    """How far each denoised estimate is from the last one, by part and by octave.

    Distances are relative: ‖P(x̂ₖ − x̂)‖ / ‖P x̂‖, where x̂ is the last estimate and P takes a part:
    ``layout``, the light and dark of what is coarser than 4 cycles per picture; ``colour``, the
    hues at the same scale, with the mean; ``detail``, all that is finer. Light and hue are those
    of the model's ``rgb_matrix``; without one layout is all that is coarse and colour is left out.

    Args:
        traces: runs of the same length and size with ``sampler/denoised``; of each the first image.
        schedule: the model's.

    Returns:
        ``distance`` (image, step, part); ``band_distance`` (image, step, band); ``energy``
        (image, band), mean |coefficient|² of the last estimate; ``snr`` (step, band), that energy
        against the noise's in the latent, ᾱ E / (1 − ᾱ); ``linear`` (step, band), the distance
        1 − √(snr / (1 + snr)) in a deterministic run of the best linear denoiser (Wiener 1949),
        which knows this spectrum and nothing else of pictures. Coordinates: ``timestep``,
        ``seed``, and ``low`` and ``high`` of each band in cycles per picture.
    """
    first = traces[0]
    found = bands.octaves(*first.specs["sampler/denoised"].shape[-3:-1])
    matrix = first.attrs.get("rgb_matrix")
    parts, octaves, energies = [], [], []
    for trace in traces:
        estimates = trace.sel("sampler/denoised", evaluation=0).values[:, 0].astype(np.float64)
        layers = bands.split(estimates, found)
        octaves.append(np.stack([_relative(each) for each in layers], axis=-1))
        parts.append({name: _relative(p) for name, p in _parts(layers, found, matrix).items()})
        energies.append(bands.energy(estimates[-1], found))
    alphas = np.array([schedule.alpha_cumprod(t) for t in first.timesteps])
    snr = (alphas / (1 - alphas))[:, None] * np.mean(energies, axis=0)
    names = list(parts[0])
    return xarray.Dataset(
        {
            "distance": (
                ("image", "step", "part"),
                np.stack([np.stack([p[name] for name in names], axis=-1) for p in parts]),
            ),
            "band_distance": (("image", "step", "band"), np.stack(octaves)),
            "energy": (("image", "band"), np.stack(energies)),
            "snr": (("step", "band"), snr),
            # Such a denoiser says x̂ = √ᾱ E / (ᾱE + 1 − ᾱ) x, and its run keeps x / √(ᾱE + 1 − ᾱ).
            "linear": (("step", "band"), 1 - np.sqrt(snr / (1 + snr))),
        },
        coords={
            "step": first.steps,
            "timestep": ("step", first.timesteps),
            "seed": ("image", [trace.attrs["seeds"][0] for trace in traces]),
            "part": names,
            "band": [band.name for band in found],
            "low": ("band", [band.low for band in found]),
            "high": ("band", [band.high for band in found]),
        },
    )


def _parts(
    layers: np.ndarray, found: Sequence[bands.Band], matrix: list | None
) -> dict[str, np.ndarray]:
    """(band, step, y, x, channel) → for each part (step, y, x, …)."""
    coarse = np.array([band.low < FINE for band in found])
    low, fine = layers[coarse].sum(axis=0), layers[~coarse].sum(axis=0)
    detail = {"detail": fine} if len(layers[~coarse]) else {}
    if matrix is None or len(matrix) != layers.shape[-1] + 1:
        return {"layout": low - layers[0], **detail}
    rgb = low @ np.asarray(matrix, np.float64)[:-1]  # differences only: the constant has no part
    light = (rgb @ LUMA)[..., None]
    mean = light.mean(axis=(1, 2), keepdims=True)
    return {"layout": light - mean, "colour": rgb - light, **detail}


def _relative(part: np.ndarray) -> np.ndarray:
    """Distance of each step's part from the last one's, in lengths of the last."""
    flat = part.reshape(len(part), -1)
    length = np.linalg.norm(flat[-1])
    gap = np.linalg.norm(flat - flat[-1], axis=1)
    return gap / length if length else np.where(gap, np.inf, 0.0)


def settled(distance: xarray.DataArray, limit: float) -> int:
    """The step from which a distance (step,) stays at or below `limit`.

    Example:
        >>> settled(data.band_distance.median("image").sel(band="1–2"), 0.5)
        6
    """
    above = np.flatnonzero(~(distance.values <= limit))
    return int(distance["step"].values[above[-1] + 1 if len(above) else 0])


def findings(data: xarray.Dataset) -> list[dict]:
    """For each part and octave, the steps at which it is half settled and settled.

    Returns:
        ``what``; ``half`` and ``tenth``, the steps from which the median distance stays below
        that; and for octaves ``energy`` and ``clear``, the first step at which the latent holds
        more of the picture than of noise there (None if it never does).
    """
    rows = []
    for part in data["part"].values.tolist():
        median = data["distance"].sel(part=part).median("image")
        rows.append({"what": part, "half": settled(median, 0.5), "tenth": settled(median, 0.1)})
    for band in data["band"].values.tolist():
        median = data["band_distance"].sel(band=band).median("image")
        clear = data["step"].values[data["snr"].sel(band=band).values > 1].tolist()
        rows.append(
            {
                "what": "mean" if band == "mean" else f"{band} cycles",
                "half": settled(median, 0.5),
                "tenth": settled(median, 0.1),
                "energy": float(data["energy"].sel(band=band).mean()),
                "clear": clear[0] if clear else None,
            }
        )
    return rows


# ----------------------------------------------------------------------------------------- drawn


def figure(data: xarray.Dataset, trace: Trace, model: Generator) -> Figure:
    """The estimates along the steps, what of them is settled, and why in this order.

    Args:
        data: from `settling`.
        trace: one of the runs, whose estimates are decoded and shown.
        model: that made it.
    """
    steps = data["step"].values
    left, right = 0.85, MARGIN + 0.1
    room = WIDTH - left - right
    shown = page.evenly(steps.tolist(), 9)
    side = min(room / len(shown) - 0.06, 1.6)
    tall = side * trace.attrs["height"] / trace.attrs["width"]
    half = (room - 1.9) / 2
    low, middle = 0.65, 3.9
    top = middle + 2.75 + 0.25 + tall
    a = trace.attrs
    told = how_made({**a, "prompt": a["prompt"][0], "negative": a["negative"][0]})
    made = page.new(
        "What is decided when",
        [f"{told} · {len(data['image'])} pictures; above, the denoised estimates of the first"],
        below=top + 0.1,
    )
    axes = page.axes(made, left, middle, room, 2.5)
    page.style(axes, y="distance from the last estimate", x="step")
    for part in data["part"].values:
        colour, dash = COLOURS[part]
        values = data["distance"].sel(part=part)
        axes.plot(steps, values.T, "-", color=colour, linewidth=0.7, alpha=0.35)
        look = {"color": colour, "linewidth": 2.5, "marker": page.dot(steps)}
        axes.plot(steps, values.median("image"), dash, label=LABELS[part], **look)
    axes.axhline(0.5, color=QUIET, linewidth=0.8, linestyle=":")
    pad = 0.5 * (steps[-1] - steps[0] or 1) / len(shown)
    axes.set(xlim=(steps[0] - pad, steps[-1] + pad), ylim=(0, _ceiling(data["distance"])))
    axes.legend(frameon=False, fontsize=11, loc="upper right", handlelength=2.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))

    estimates = trace.sel("sampler/denoised", evaluation=0)
    drawn = decoded(model, (estimates.sel(step=step) for step in shown))
    for step, pixels in zip(shown, drawn, strict=True):
        x = left + room * (step - steps[0] + pad) / (steps[-1] - steps[0] + 2 * pad)
        page.picture(made, x - side / 2, middle + 2.75, side, tall, pixels)
        page.text(made, x, middle + 2.82 + tall, f"step {step}", size=10, ha="center", color=QUIET)

    axes = page.axes(made, left, low, half, 2.3)
    claim = "" if a["eta"] else "; dotted, a linear denoiser"  # known without noise put back only
    page.style(axes, f"By octave{claim}", x="step", y="distance from the last")
    _octaves(axes, data, data["band_distance"].median("image"), "-")
    if claim:
        _octaves(axes, data, data["linear"], ":")
    axes.set_ylim(0, _ceiling(data["band_distance"].median("image")))
    axes = page.axes(made, left + half + 0.8, low, half, 2.3)
    page.style(axes, "Picture against noise in the latent", x="step", y="signal-to-noise ratio")
    _octaves(axes, data, data["snr"], "-")
    axes.set_yscale("log")
    axes.axhline(1, color=QUIET, linewidth=1)
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.legend(
        frameon=False, fontsize=10, loc="center left", bbox_to_anchor=(1.0, 0.5),
        title="cycles per\npicture", title_fontsize=10, labelcolor=QUIET,
    )  # fmt: skip
    return made


LABELS = {
    "layout": "layout: light and dark, coarse",
    "colour": "colour: hue of large areas",
    "detail": "detail: under an eighth of the picture",
}


def _octaves(axes: Axes, data: xarray.Dataset, values: xarray.DataArray, dash: str) -> None:
    for band, colour in zip(data["band"].values, page.shades(data.sizes["band"]), strict=True):
        look = {"linewidth": 2.2 if dash == "-" else 1.4, "marker": page.dot(data["step"])}
        axes.plot(data["step"], values.sel(band=band), dash, color=colour, label=band, **look)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _ceiling(distance: xarray.DataArray) -> float:
    """Room for every curve but the first estimates that overshoot by far."""
    return float(min(max(1.1, 1.05 * distance.max()), 2.0))
