"""What a step takes out of the noise and what it puts back, and latents with too little of it.

A step of DDPM (Ho et al. 2020) takes out some of the noise that the U-Net predicts and puts fresh
noise in its place; DDIM (Song et al. 2021) takes out less and puts none back, and eta goes from
the one to the other. Either way the latent has as much noise as the U-Net is told. Where DDPM's
fresh noise is only left out, it has less and less.

data = measure(model, "a red star", etas=(0, 0.5, 1), seeds=[7], real=latents)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray

from xray import bands
from xray.stats import rms

if TYPE_CHECKING:
    from xray.generator import Generator
    from xray.samplers import NoiseSchedule
    from xray.trace import Trace

# DDIM at eta, which takes out the more the more it puts back; and DDPM with only a share of what
# it puts back, which takes out as much as ever.
WAYS = {"exchanged": "ddim", "left out": "ddpm"}
LATENT = ("y", "x", "channel")
PICTURE = ("pixel_y", "pixel_x", "rgb")


# ---------------------------------------------------------------------------------- closed forms


def exchange(
    schedule: NoiseSchedule, t: float, t_next: float, eta: float, way: str = "exchanged"
) -> tuple[float, float]:
    """How much predicted noise a step takes out and how much fresh noise it puts in.

    x' = √(ᾱ'/ᾱ) x − taken ε̂ + fresh z,  fresh = eta √((1 − ᾱ')/(1 − ᾱ) (1 − ᾱ/ᾱ')),
    taken = √(ᾱ'/ᾱ) √(1 − ᾱ) − √(1 − ᾱ' − fresh²), with eta 1 there where noise is left out.

    Args:
        t, t_next: the step's timesteps.
        eta: 0 … 1.
        way: one of `WAYS`.

    Reference:
        Song et al. 2021, "Denoising Diffusion Implicit Models", equations 12 and 16. At eta 1
        ``taken`` is β / (√α √(1 − ᾱ)): Ho et al. 2020, algorithm 2.

    Example:
        >>> exchange(model.schedule, 500, 460, eta=0)[1]
        0.0
    """
    a, a_next = schedule.alpha_cumprod(t), schedule.alpha_cumprod(t_next)
    whole = ((1 - a_next) / (1 - a) * (1 - a / a_next)) ** 0.5
    kept = (1 - a_next - (whole * (eta if way == "exchanged" else 1)) ** 2) ** 0.5
    return (a_next / a * (1 - a)) ** 0.5 - kept, eta * whole


def noise_left(schedule: NoiseSchedule, timesteps: Sequence[float], share: float) -> np.ndarray:
    """Noise in the latent by what the U-Net is told, where DDPM puts back only a `share` of its.

    √(share² + (1 − share²) σ² / σ₀²), if the U-Net knows the picture: what a step leaves is
    σ'²/σ² of the noise that it should, so that without any put back only σ/σ₀ is left.

    Args:
        timesteps: (n,), the first of which is where the run begins.
        share: 0 … 1.

    Returns:
        (n,), 1 at the first; at the clean picture, where there is to be none, `share`.
    """
    levels = np.array([schedule.sigma(t) for t in timesteps])
    return np.sqrt(share**2 + (1 - share**2) * (levels / levels[0]) ** 2)


def strength(
    schedule: NoiseSchedule, timesteps: Sequence[float], power: Any, left: Any = 1.0
) -> np.ndarray:
    """Root mean square of a latent at each timestep: √(ᾱ power + left² (1 − ᾱ)).

    Args:
        power: mean square of the clean latent, or of one octave of it; (n, 1) for several.
        left: the noise that is there, by what should be.
    """
    alphas = np.array([schedule.alpha_cumprod(t) for t in timesteps])
    return np.sqrt(alphas * power + np.asarray(left) ** 2 * (1 - alphas))


# --------------------------------------------------------------------------------------- measured


def measure(
    model: Generator,
    prompt: Any,
    *,
    etas: Sequence[float],
    seeds: Sequence[int],
    real: np.ndarray,
    tick: Callable[..., None] = lambda *_: None,
    **asked: Any,
) -> xarray.Dataset:
    """Make pictures with more and less noise put back, in both `WAYS`.

    Args:
        etas: 0 … 1, ascending.
        real: (n, y, x, 4), latents of real pictures.
        tick: called after every step.
        **asked: of `generate`, the same for all.

    Returns:
        By (way, eta, image, step): ``taken`` and ``fresh``, root mean squares of the noise taken
        out and put back; by (way, eta, step) ``taken_rate`` and ``fresh_rate``, what `exchange`
        says. By (way, eta, image, point), a point more than steps, the last the finished latent:
        ``rms`` of the latent and ``fine``, of its finest octave; for each of these (real, point)
        ``rms_expected`` and ``fine_expected``, those of the real latents noised so far, and (eta,
        point) ``rms_left`` and ``fine_left``, their mean over the real latents with `noise_left`.

        ``picture`` (way, eta, image, pixel_y, pixel_x, rgb). Of the first image, by (way, eta,
        step, y, x, channel): ``noise``, as predicted, ``added``, as put back, and ``denoised``.
    """
    asked = {"record": "sampler/*", **asked}
    for sampler in WAYS.values():  # what is wrong is said before the first is made
        for eta in etas:
            planned = model.plan(prompt, seed=seeds[0], sampler=sampler, eta=eta, **asked)
    found = bands.octaves(*real.shape[1:3])
    runs = {
        (way, eta, seed): kept(
            model.generate(prompt, seed=seed, sampler=sampler, eta=eta, progress=tick, **asked),
            found,
        )
        for seed in seeds
        for way, sampler in WAYS.items()
        for eta in etas
    }

    def each(name: str) -> np.ndarray:
        return np.array(
            [[[runs[way, eta, s][name] for s in seeds] for eta in etas] for way in WAYS]
        )

    schedule, times = model.schedule, planned.timesteps.tolist()
    # DDPM's last step leads to the clean picture, wherever others end.
    ends = {"exchanged": times[-1], "left out": -1.0}
    steps = {way: list(pairwise([*times[:-1], end])) for way, end in ends.items()}
    rates = np.array(
        [[[exchange(schedule, *step, eta, way) for step in steps[way]] for eta in etas]
         for way in WAYS]
    )  # fmt: skip
    powers = {
        "rms": np.mean(real.astype(np.float64) ** 2, axis=(1, 2, 3)),
        "fine": bands.energy(real, found)[:, -1],
    }
    left = [noise_left(schedule, times, eta) for eta in etas]
    by = ("way", "eta", "image")
    values: dict[str, Any] = {
        "taken": ((*by, "step"), rates[:, :, None, :, 0] * each("noise_rms")),
        "fresh": ((*by, "step"), each("added_rms")),
        "taken_rate": (("way", "eta", "step"), rates[..., 0]),
        "fresh_rate": (("way", "eta", "step"), rates[..., 1]),
        "picture": ((*by, *PICTURE), each("pixels")),
    }
    for name, power in powers.items():
        each_power = power[:, None]
        expected = strength(schedule, times, each_power)
        lacking = np.array([strength(schedule, times, each_power, s).mean(axis=0) for s in left])
        values |= {
            name: ((*by, "point"), each(name)),
            f"{name}_expected": (("real", "point"), expected),
            f"{name}_left": (("eta", "point"), lacking),
        }
    for name in ("noise", "added", "denoised"):
        values[name] = (("way", "eta", "step", *LATENT), each(name)[:, :, 0])
    return xarray.Dataset(
        values,
        coords={
            "way": list(WAYS),
            "eta": list(etas),
            "image": list(seeds),
            "timestep": ("step", times[:-1]),
            "end": ("point", times),
        },
        attrs={"octave": found[-1].name},
    )


def kept(trace: Trace, found: Sequence[bands.Band]) -> dict[str, np.ndarray]:
    """Of a trace with ``sampler/*`` what is measured; of a batch the first image."""
    latent, noise, denoised = (
        trace[f"sampler/{name}"].values[:, 0] for name in ("latent", "noise", "denoised")
    )
    added = (
        trace["sampler/added_noise"].values[:, 0]
        if "sampler/added_noise" in trace
        else np.zeros_like(noise)
    )
    path = np.concatenate([latent, trace["sampler/out"].values[:1]])
    return {
        "noise": noise,
        "added": added,
        "denoised": denoised,
        "pixels": trace["image"].values[0],
        "rms": rms(path),
        "fine": np.sqrt(bands.energy(path, found)[:, -1]),
        "noise_rms": rms(noise),
        "added_rms": rms(added),
    }


def findings(data: xarray.Dataset) -> list[dict[str, Any]]:
    """A row for each way and eta, the mean over images.

    Returns:
        ``noise`` (the way), ``eta``; ``taken`` and ``put back``, the mean over the steps of what
        a step takes out and puts back; ``latent`` and ``finest``, the latent and its finest octave
        half way by what the U-Net expects there (1), and ``finished``, the finest octave of the
        finished latent by that of real ones.
    """
    middle = data.sizes["step"] // 2
    ratio = {name: (data[name] / data[f"{name}_expected"].mean("real")).mean("image")
             for name in ("rms", "fine")}  # fmt: skip
    mean = data[["taken", "fresh"]].mean(["image", "step"])
    return [
        {
            "noise": way,
            "eta": eta,
            "taken": float(mean["taken"].sel(way=way, eta=eta)),
            "put back": float(mean["fresh"].sel(way=way, eta=eta)),
            "latent": float(ratio["rms"].sel(way=way, eta=eta)[middle]),
            "finest": float(ratio["fine"].sel(way=way, eta=eta)[middle]),
            "finished": float(ratio["fine"].sel(way=way, eta=eta)[-1]),
        }
        for way in data["way"].values.tolist()
        for eta in data["eta"].values.tolist()
    ]
