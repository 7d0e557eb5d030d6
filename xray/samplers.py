"""Samplers: NumPy float32 on small latents, each one loop that reads like its paper.

    visited = SAMPLERS["heun"].timesteps(25, "karras")
    x = SAMPLERS["heun"].run(evaluate, x, visited, NoiseSchedule(), fresh_noise)

A sampler is a loop over (x, t, t_next). It sees the network as ``evaluate(x, t, step)``, which
returns what the network says of x as a `Prediction`, and takes fresh noise from
``fresh_noise(step, scale)``. x is variance preserving, what the U-Net receives, at the beginning
of every step. Samplers whose papers think in noise levels σ = √((1−ᾱ)/ᾱ) and in latents that grow
with them, x √(1+σ²), convert inside a step.

Multistep samplers (LMS, PNDM, DPM-Solver++) remember what was evaluated in the steps before. A run
that starts in the middle has no such memory and begins as the whole does, with a lower order.

In diffusers, with Stable Diffusion's configuration, these are DDIMScheduler, DDPMScheduler,
PNDMScheduler (``skip_prk_steps``), EulerDiscreteScheduler, EulerAncestralDiscreteScheduler,
HeunDiscreteScheduler, LMSDiscreteScheduler and DPMSolverMultistepScheduler, all with
``final_sigmas_type="zero"`` where they have it; `tests/test_sampler_parity.py` says what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from xray.schedule import (
    PREDICTIONS,
    SPACINGS,
    NoiseSchedule,
    dpm_timesteps,
    initial_noise,
    sigma_timesteps,
    spaced_timesteps,
)

__all__ = [
    "PREDICTIONS",
    "SAMPLERS",
    "SPACINGS",
    "NoiseSchedule",
    "Prediction",
    "Sampler",
    "initial_noise",
    "sampler_named",
    "spaced_timesteps",
]


class Prediction(NamedTuple):
    """What the network says of a latent: the noise in it and the picture behind it.

    `latent` is what it was said of: x itself, or what an edit made of it.
    """

    noise: np.ndarray
    denoised: np.ndarray
    latent: np.ndarray


# Reads as evaluate(x, timestep, step) and fresh_noise(step, scale).
Evaluate = Callable[[np.ndarray, float, int], Prediction]
FreshNoise = Callable[[int, np.float32], np.ndarray]


def ddim(
    evaluate: Evaluate,
    x: np.ndarray,
    timesteps: Sequence[float],
    schedule: NoiseSchedule,
    fresh_noise: FreshNoise,
    *,
    eta: float = 0.0,
    first_step: int = 0,
) -> np.ndarray:
    """Denoising diffusion implicit models: deterministic at eta 0, DDPM's variance at eta 1.

    x ← √ᾱ' x̂₀ + √(1 − ᾱ' − σ²) ε̂ + σ z,  σ² = eta² (1 − ᾱ')/(1 − ᾱ) (1 − ᾱ/ᾱ')

    Args:
        evaluate: ``evaluate(x, timestep, step)``.
        x: the latent at ``timesteps[0]``, (n, y, x, 4) float32.
        timesteps: (steps + 1,), noisiest first; the last is where the last step leads.
        schedule: of the noise.
        fresh_noise: ``fresh_noise(step, scale)``: scale times standard normal, fixed by the step.
        eta: 0 … 1, how much of the noise taken out is put back anew.
        first_step: the number of the first step, where a run starts in the middle.

    Returns:
        The latent at ``timesteps[-1]``.

    Reference:
        Song et al. 2021, "Denoising Diffusion Implicit Models", equations 12 and 16.
    """
    for step, (t, t_next) in enumerate(zip(timesteps, timesteps[1:]), first_step):
        a, a_next = schedule.alpha_cumprod(t), schedule.alpha_cumprod(t_next)
        sigma = eta * ((1 - a_next) / (1 - a) * (1 - a / a_next)) ** 0.5
        signal_rate, noise_rate = (
            np.float32(a_next**0.5),
            np.float32((1 - a_next - sigma**2) ** 0.5),
        )

        noise, denoised, _ = evaluate(x, t, step)
        x = signal_rate * denoised + noise_rate * noise
        if sigma:
            x = x + fresh_noise(step, np.float32(sigma))
    return x


def ddpm(
    evaluate: Evaluate,
    x: np.ndarray,
    timesteps: Sequence[float],
    schedule: NoiseSchedule,
    fresh_noise: FreshNoise,
    *,
    eta: float = 1.0,
    first_step: int = 0,
) -> np.ndarray:
    """Denoising diffusion probabilistic models: the posterior's mean, and noise put back.

    x ← √ᾱ' β/(1−ᾱ) x̂₀ + √α (1−ᾱ')/(1−ᾱ) x + eta √((1−ᾱ')/(1−ᾱ) β) z,  α = ᾱ/ᾱ', β = 1 − α

    Args:
        evaluate, x, timesteps, schedule, fresh_noise, first_step: as for `ddim`.
        eta: scale of the noise put back: 1 is DDPM; 0 leaves it out, and the latent has less and
            less of the noise that the network is told of: things and detail go missing from the
            picture (`xray.studies.stabilizing_noise.noise_left` says how much less).

    Returns:
        The clean latent, whatever ``timesteps[-1]`` is: the last step of DDPM adds no noise.

    Reference:
        Ho et al. 2020, "Denoising Diffusion Probabilistic Models", equations 6 and 7, and
        algorithm 2.
    """
    timesteps = [*timesteps[:-1], -1.0]
    for step, (t, t_next) in enumerate(zip(timesteps, timesteps[1:]), first_step):
        a, a_next = schedule.alpha_cumprod(t), schedule.alpha_cumprod(t_next)
        alpha, beta = a / a_next, 1 - a / a_next
        sigma = eta * ((1 - a_next) / (1 - a) * beta) ** 0.5

        _, denoised, x = evaluate(x, t, step)
        x = (
            np.float32(a_next**0.5 * beta / (1 - a)) * denoised
            + np.float32(alpha**0.5 * (1 - a_next) / (1 - a)) * x
        )
        if sigma:
            x = x + fresh_noise(step, np.float32(sigma))
    return x


# ------------------------------------------------------------- samplers that think in noise levels


def euler(
    evaluate: Evaluate,
    x: np.ndarray,
    timesteps: Sequence[float],
    schedule: NoiseSchedule,
    fresh_noise: FreshNoise,
    *,
    eta: float = 0.0,
    first_step: int = 0,
) -> np.ndarray:
    """Euler's method on the probability flow: straight along the slope. The same path as DDIM's.

    d = (x − x̂₀) / σ,  x ← x + (σ' − σ) d

    Args:
        evaluate, x, timesteps, schedule, first_step: as for `ddim`.
        fresh_noise, eta: not used.

    Returns:
        The latent at ``timesteps[-1]``.

    Reference:
        Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models",
        algorithm 2 with S_churn = 0, lines 4, 5 and 6.
    """
    for step, (t, t_next) in enumerate(zip(timesteps, timesteps[1:]), first_step):
        sigma, sigma_next = schedule.sigma(t), schedule.sigma(t_next)

        _, denoised, x = evaluate(x, t, step)
        x = _exploding(x, sigma)
        slope = (x - denoised) / np.float32(sigma)
        x = _preserving(x + np.float32(sigma_next - sigma) * slope, sigma_next)
    return x


def euler_ancestral(
    evaluate: Evaluate,
    x: np.ndarray,
    timesteps: Sequence[float],
    schedule: NoiseSchedule,
    fresh_noise: FreshNoise,
    *,
    eta: float = 1.0,
    first_step: int = 0,
) -> np.ndarray:
    """Euler's method further down than the next noise level, and fresh noise back up to it.

    σ_up = eta √(σ'² (σ² − σ'²) / σ²),  σ_down = √(σ'² − σ_up²)
    d = (x − x̂₀) / σ,  x ← x + (σ_down − σ) d + σ_up z

    Args:
        evaluate, x, timesteps, schedule, fresh_noise, first_step: as for `ddim`.
        eta: 0 … 1, how much noise is put back; 0 is `euler`, 1 has DDPM's variance.

    Returns:
        The latent at ``timesteps[-1]``.

    Reference:
        Crowson 2022, k-diffusion, ``sample_euler_ancestral``; σ_up is the posterior's deviation,
        Ho et al. 2020, equation 7.
    """
    for step, (t, t_next) in enumerate(zip(timesteps, timesteps[1:]), first_step):
        sigma, sigma_next = schedule.sigma(t), schedule.sigma(t_next)
        up = eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5
        down = (sigma_next**2 - up**2) ** 0.5

        _, denoised, x = evaluate(x, t, step)
        x = _exploding(x, sigma)
        slope = (x - denoised) / np.float32(sigma)
        x = _preserving(x + np.float32(down - sigma) * slope, sigma_next)
        if up:
            x = x + fresh_noise(step, np.float32(up / (1 + sigma_next**2) ** 0.5))
    return x


def heun(
    evaluate: Evaluate,
    x: np.ndarray,
    timesteps: Sequence[float],
    schedule: NoiseSchedule,
    fresh_noise: FreshNoise,
    *,
    eta: float = 0.0,
    first_step: int = 0,
) -> np.ndarray:
    """Heun's method: Euler's step, and again with the mean of the slopes at both of its ends.

    d = (x − x̂₀) / σ,  x' = x + (σ' − σ) d,  d' = (x' − x̂₀') / σ',  x ← x + (σ' − σ) (d + d') / 2

    Every step evaluates the network twice, at its own timestep and at the next, but the one that
    ends at σ' = 0, where there is no slope: that is Euler's.

    Args:
        evaluate, x, timesteps, schedule, first_step: as for `ddim`.
        fresh_noise, eta: not used.

    Returns:
        The latent at ``timesteps[-1]``.

    Reference:
        Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models",
        algorithm 1.
    """
    for step, (t, t_next) in enumerate(zip(timesteps, timesteps[1:]), first_step):
        sigma, sigma_next = schedule.sigma(t), schedule.sigma(t_next)
        ahead = np.float32(sigma_next - sigma)

        _, denoised, x = evaluate(x, t, step)
        x = _exploding(x, sigma)
        slope = (x - denoised) / np.float32(sigma)
        there = _preserving(x + ahead * slope, sigma_next)
        if sigma_next:
            _, denoised, there = evaluate(there, t_next, step)
            slope_there = (_exploding(there, sigma_next) - denoised) / np.float32(sigma_next)
            there = _preserving(x + ahead * ((slope + slope_there) / 2), sigma_next)
        x = there
    return x


def lms(
    evaluate: Evaluate,
    x: np.ndarray,
    timesteps: Sequence[float],
    schedule: NoiseSchedule,
    fresh_noise: FreshNoise,
    *,
    eta: float = 0.0,
    first_step: int = 0,
    order: int = 4,
) -> np.ndarray:
    """Linear multistep: along the polynomial in σ through the slopes of the last `order` steps.

    d = (x − x̂₀) / σ,  x ← x + Σ_j c_j d_{i−j},
    c_j = ∫ Π_{m≠j} (s − σ_{i−m}) / (σ_{i−j} − σ_{i−m}) ds from σ to σ'

    Args:
        evaluate, x, timesteps, schedule, first_step: as for `ddim`.
        fresh_noise, eta: not used.
        order: 1 … 4; the first steps have a lower one.

    Returns:
        The latent at ``timesteps[-1]``.

    Reference:
        Crowson 2022, k-diffusion, ``sample_lms``; the method is Adams' and Bashforth's with
        steps of unequal length (Hairer, Nørsett & Wanner, "Solving Ordinary Differential
        Equations I", section III.5).
    """
    sigmas, slopes = [], []  # the latest first
    for step, (t, t_next) in enumerate(zip(timesteps, timesteps[1:]), first_step):
        sigma, sigma_next = schedule.sigma(t), schedule.sigma(t_next)

        _, denoised, x = evaluate(x, t, step)
        x = _exploding(x, sigma)
        sigmas = [sigma, *sigmas][:order]
        slopes = [(x - denoised) / np.float32(sigma), *slopes][:order]
        for weight, slope in zip(_lagrange_integrals(sigmas, sigma_next), slopes, strict=True):
            x = x + np.float32(weight) * slope
        x = _preserving(x, sigma_next)
    return x


def _lagrange_integrals(nodes: Sequence[float], end: float) -> list[float]:
    """∫ from nodes[0] to `end` of each polynomial that is 1 at its own node and 0 at the others.

    Gauss's two points integrate a cubic exactly, so up to four nodes.
    """
    half = (end - nodes[0]) / 2
    points = nodes[0] + half + half * np.array([-1, 1]) / 3**0.5
    integrals = []
    for own in nodes:
        factors = [(points - other) / (own - other) for other in nodes if other != own]
        integrals.append(float(half * np.prod(factors, axis=0).sum()) if factors else 2 * half)
    return integrals


def _exploding(x: np.ndarray, sigma: float) -> np.ndarray:
    """The latent that grows with its noise, x₀ + σ ε, from what the U-Net receives."""
    return x * np.float32((1 + sigma**2) ** 0.5)


def _preserving(x: np.ndarray, sigma: float) -> np.ndarray:
    """What the U-Net receives, from x₀ + σ ε."""
    return x / np.float32((1 + sigma**2) ** 0.5)


# ----------------------------------------------------------------------------- other multistep ones


def pndm(
    evaluate: Evaluate,
    x: np.ndarray,
    timesteps: Sequence[float],
    schedule: NoiseSchedule,
    fresh_noise: FreshNoise,
    *,
    eta: float = 0.0,
    first_step: int = 0,
) -> np.ndarray:
    """Pseudo linear multistep: DDIM's step with a mean of the noise of the last four evaluations.

    ε' = (55 ε_i − 59 ε_{i−1} + 37 ε_{i−2} − 9 ε_{i−3}) / 24
    x ← √(ᾱ'/ᾱ) x − (ᾱ' − ᾱ) / (√ᾱ (√((1−ᾱ') ᾱ) + √((1−ᾱ) ᾱ'))) ε'

    As Stable Diffusion uses it: without the paper's Runge-Kutta steps at the beginning. The first
    step is repeated in their place, with the mean of the noise at both of its ends; the two after
    it have two and three evaluations to weigh. The weights are those of even timesteps.

    Args:
        evaluate, x, timesteps, schedule, first_step: as for `ddim`.
        fresh_noise, eta: not used.

    Returns:
        The latent at ``timesteps[-1]``.

    Reference:
        Liu et al. 2022, "Pseudo Numerical Methods for Diffusion Models on Manifolds", equations
        11 and 12.
    """
    noises = []  # the latest first
    for step, (t, t_next) in enumerate(zip(timesteps, timesteps[1:]), first_step):
        a, a_next = schedule.alpha_cumprod(t), schedule.alpha_cumprod(t_next)
        of_x = np.float32((a_next / a) ** 0.5)
        of_noise = np.float32(
            (a_next - a) / (a**0.5 * (((1 - a_next) * a) ** 0.5 + ((1 - a) * a_next) ** 0.5))
        )

        noise, _, x = evaluate(x, t, step)
        noises = [noise, *noises][:4]
        mixed = np.float32(_ADAMS_BASHFORTH[len(noises)][0]) * noise
        for weight, earlier in zip(_ADAMS_BASHFORTH[len(noises)][1:], noises[1:], strict=True):
            mixed = mixed + np.float32(weight) * earlier
        if len(noises) == 1 and len(timesteps) > 2:
            there = of_x * x - of_noise * noise
            mixed = (noise + evaluate(there, t_next, step).noise) / 2
        x = of_x * x - of_noise * mixed
    return x


_ADAMS_BASHFORTH = {
    1: (1,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


def dpmpp_2m(
    evaluate: Evaluate,
    x: np.ndarray,
    timesteps: Sequence[float],
    schedule: NoiseSchedule,
    fresh_noise: FreshNoise,
    *,
    eta: float = 0.0,
    first_step: int = 0,
) -> np.ndarray:
    """DPM-Solver++(2M): exact in the linear part, the denoised estimate extrapolated to mid-step.

    λ = −log σ,  h = λ' − λ,  r = h_before / h,  D = x̂₀ + (x̂₀ − x̂₀_before) / (2 r)
    x ← √(1−ᾱ')/√(1−ᾱ) x − √ᾱ' (e^{−h} − 1) D

    The first step and one that ends in the clean picture (h is infinite) take D = x̂₀.

    Args:
        evaluate, x, timesteps, schedule, first_step: as for `ddim`.
        fresh_noise, eta: not used.

    Returns:
        The latent at ``timesteps[-1]``.

    Reference:
        Lu et al. 2022, "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic
        Models", algorithm 2.
    """
    before, h_before = None, None
    for step, (t, t_next) in enumerate(zip(timesteps, timesteps[1:]), first_step):
        a, a_next = schedule.alpha_cumprod(t), schedule.alpha_cumprod(t_next)
        shrink = schedule.sigma(t_next) / schedule.sigma(t)  # e^{−h}
        h = -np.log(shrink) if shrink else np.inf

        _, denoised, x = evaluate(x, t, step)
        extrapolated = denoised
        if before is not None and shrink:
            extrapolated = denoised + np.float32(h / h_before / 2) * (denoised - before)
        x = (
            np.float32(((1 - a_next) / (1 - a)) ** 0.5) * x
            + np.float32(a_next**0.5 * (1 - shrink)) * extrapolated
        )
        before, h_before = denoised, h
    return x


# ------------------------------------------------------------------------------------- all of them


@dataclass(frozen=True)
class Sampler:
    """A sampler and what a caller must know of it before the first step.

    Attributes:
        run: the loop.
        timesteps: ``timesteps(steps, spacing, schedule)``, those it visits, and where it ends.
        eta: its default eta, or None where it puts no noise back.
        evaluations: of the network, at most, in one step.
    """

    run: Callable[..., np.ndarray]
    timesteps: Callable[..., np.ndarray] = spaced_timesteps
    eta: float | None = None
    evaluations: int = 1


SAMPLERS = {
    "ddim": Sampler(ddim, eta=0.0),
    "ddpm": Sampler(ddpm, eta=1.0),
    "pndm": Sampler(pndm, evaluations=2),
    "euler": Sampler(euler, sigma_timesteps),
    "euler_ancestral": Sampler(euler_ancestral, sigma_timesteps, eta=1.0),
    "heun": Sampler(heun, sigma_timesteps, evaluations=2),
    "lms": Sampler(lms, sigma_timesteps),
    "dpmpp_2m": Sampler(dpmpp_2m, dpm_timesteps),
}


def sampler_named(name: str) -> Sampler:
    """One of `SAMPLERS`.

    Raises:
        ValueError: there is none of that name; says which there are.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler {name!r} is not one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name]
