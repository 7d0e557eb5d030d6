"""What classifier-free guidance adds: the push itself, and pictures under more and less of it.

The guided noise is ε_u + g (ε_c − ε_u) (Ho & Salimans 2022): one direction, ε_c − ε_u, times a
scale. In the denoised estimate the same push is −σ (ε_c − ε_u), with σ = √((1 − ᾱ) / ᾱ).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray

from xray import stats
from xray.pixels import LUMA, to_uint8
from xray.stats import rms

if TYPE_CHECKING:
    from xray.generator import Generator
    from xray.samplers import NoiseSchedule
    from xray.trace import Trace


def in_interval(
    scale: float, low: float, high: float, timesteps: Sequence[float], schedule: NoiseSchedule
) -> list[float]:
    """Guidance only where the noise level is above `low` and at most `high`: a scale per step.

    Reference:
        Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval Improves Sample and
        Distribution Quality in Diffusion Models".

    Example:
        >>> scales = in_interval(7.5, 0.28, 5.42, spaced_timesteps(25)[:-1], model.schedule)
        >>> model.generate("a red star", steps=25, guidance=scales)
    """
    return [scale if low < schedule.sigma(t) <= high else 1.0 for t in timesteps]


def intervals(
    scale: float, low: float, high: float, timesteps: Sequence[float], schedule: NoiseSchedule
) -> dict[str, list[float]]:
    """Guidance at the noise above `high` only, between, and below `low` only; see `in_interval`."""
    if not 0 <= low < high:
        raise ValueError(f"an interval of noise levels goes up from 0, got {low:g} to {high:g}")
    bounds = {
        f"σ > {high:g}": (high, np.inf),
        f"{low:g} < σ ≤ {high:g}": (low, high),
        f"σ ≤ {low:g}": (0.0, low),
    }
    return {name: in_interval(scale, *each, timesteps, schedule) for name, each in bounds.items()}


# --------------------------------------------------------------------------------- the push itself


def push(trace: Trace, schedule: NoiseSchedule) -> xarray.Dataset:
    """The two noise predictions, their difference, and what it does to the estimate, by step.

    Args:
        trace: guided, with ``sampler/*``; of a batch the first image.
        schedule: the model's.

    Returns:
        By ``step``: ``cond``, ``uncond``, ``difference``, root mean square of the noise
        predictions and of ε_c − ε_u; ``shift``, of what guidance moves the denoised estimate by,
        (g − 1) σ (ε_c − ε_u); ``cosine`` of ε_c with ε_u; ``steady``, of the push with that of the
        next step (NaN at the last); ``parallel``, of the push, −(ε_c − ε_u), with the conditional
        estimate: what is parallel only lengthens it, and saturates (Sadat et al. 2024). And
        ``push`` (step, y, x, channel), −σ (ε_c − ε_u), in the units of the estimate.
    """
    latent, cond, uncond = (
        trace.sel(f"sampler/{name}", evaluation=0).values[:, 0].astype(np.float64)
        for name in ("latent", "noise_cond", "noise_uncond")
    )
    sigmas = np.array([schedule.sigma(t) for t in trace.timesteps])
    scales = np.broadcast_to(np.asarray(trace.attrs["guidance"], np.float64), trace.attrs["steps"])
    pushes = -sigmas[:, None, None, None] * (cond - uncond)
    estimates = np.stack(
        [schedule.to_denoised(*each) for each in zip(cond, latent, trace.timesteps, strict=True)]
    )
    rows = {
        "cond": rms(cond),
        "uncond": rms(uncond),
        "difference": rms(cond - uncond),
        "shift": np.abs(scales[trace.steps] - 1) * rms(pushes),
        "cosine": _cosines(cond, uncond),
        "steady": np.append(_cosines(pushes[1:], pushes[:-1]), np.nan),
        "parallel": _cosines(pushes, estimates),
    }
    return xarray.Dataset(
        {name: ("step", values) for name, values in rows.items()}
        | {"push": (("step", "y", "x", "channel"), pushes.astype(np.float32))},
        coords={
            "step": trace.steps,
            "timestep": ("step", trace.timesteps),
            "sigma": ("step", sigmas),
            "guidance": ("step", scales[trace.steps]),
        },
    )


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return stats.cosine(a, b, axis=(1, 2, 3))


# --------------------------------------------------------------------------- pictures under it


def pictures(
    model: Generator,
    prompt: Any,
    choices: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    tick: Callable[..., None] = lambda *_: None,
    **asked: Any,
) -> xarray.Dataset:
    """One picture for each choice and seed, with statistics of its colours.

    Args:
        choices: for each name what is asked of `generate`, such as ``{"guidance": 7.5}``.
        tick: called after every step.
        **asked: the same for all.

    Returns:
        ``picture`` (choice, seed, pixel_y, pixel_x, rgb) uint8; by (choice, seed) what
        `colour_statistics` gives; and ``latent_std``, the standard deviation of the last latent.
    """
    for choice in choices.values():  # what is wrong is said before the first is made
        model.plan(prompt, record="decoder/out", **{**asked, **choice})
    made, rows = [], []
    for choice in choices.values():
        for seed in seeds:
            trace = model.generate(
                prompt, seed=seed, record="decoder/out", progress=tick, **{**asked, **choice}
            )
            pixels = trace["decoder/out"].values[0]
            made.append(to_uint8(pixels))
            spread = {"latent_std": trace["sampler/out"].std()}
            rows.append(colour_statistics(pixels) | spread)
    shape = (len(choices), len(seeds))
    return xarray.Dataset(
        {
            "picture": (
                ("choice", "seed", "pixel_y", "pixel_x", "rgb"),
                np.reshape(made, (*shape, *made[0].shape)),
            )
        }
        | {
            name: (("choice", "seed"), np.reshape([row[name] for row in rows], shape))
            for name in rows[0]
        },
        coords={"choice": list(choices), "seed": list(seeds)},
    )


def colour_statistics(pixels: np.ndarray) -> dict[str, float]:
    """How saturated a picture is.

    Args:
        pixels: (y, x, 3), the decoder's output before it is clipped to [-1, 1].

    Returns:
        ``overshoot``, the mean of what clipping cuts off, as a share of the range; of the clipped
        picture ``saturation``, the mean of HSV's 1 − min/max, 0 … 1; ``contrast``, the standard
        deviation of the luma, 0 … ½; ``colourfulness``, about 0 (grey) … 110, of Hasler &
        Süsstrunk 2003.
    """
    pixels = np.asarray(pixels, np.float64)
    rgb = np.clip((pixels + 1) / 2, 0, 1)
    most, least = rgb.max(axis=-1), rgb.min(axis=-1)
    red_green = rgb[..., 0] - rgb[..., 1]
    yellow_blue = (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]
    spread = np.hypot(red_green.std(), yellow_blue.std())
    centre = np.hypot(red_green.mean(), yellow_blue.mean())
    return {
        "overshoot": float(np.mean(np.maximum(np.abs(pixels) - 1, 0)) / 2),
        "saturation": float(np.mean(np.where(most > 0, 1 - least / np.maximum(most, 1e-9), 0))),
        "contrast": float((rgb @ LUMA).std()),
        "colourfulness": float(255 * (spread + 0.3 * centre)),
    }


def distance(data: xarray.Dataset, choice: str) -> xarray.DataArray:
    """How far pictures are from those under `choice`: (choice, seed), root mean square, 0 … 1."""
    values = data["picture"].astype(np.float64) / 255
    return ((values - values.sel(choice=choice)) ** 2).mean(["pixel_y", "pixel_x", "rgb"]) ** 0.5


def table(data: xarray.Dataset) -> list[dict[str, Any]]:
    """The statistics of `pictures`, a row for each choice, averaged over the seeds."""
    names = [name for name in data if data[name].dims == ("choice", "seed")]
    mean = data[names].mean("seed")
    return [
        {"guidance": str(choice)} | {n: float(mean[n].sel(choice=choice)) for n in names}
        for choice in data["choice"].values
    ]
