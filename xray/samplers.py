"""Noise schedules and samplers: NumPy float32 on small latents, as flat as the papers' algorithms.

    schedule = NoiseSchedule()                       # Stable Diffusion's
    x = schedule.add_noise(x0, noise, timestep=600)  # √ᾱ x₀ + √(1−ᾱ) ε

A sampler is one loop over (x, t, t_next). It sees the network as ``evaluate(x, t, step)``, which
returns what the network says about x as a `Prediction`, and takes fresh noise from
``fresh_noise(step, scale)``. Everything is variance preserving: x is what the U-Net receives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

PREDICTIONS = ("epsilon", "v", "sample")


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


class NoiseSchedule:
    """How much of the picture is left at each timestep.

    Args:
        train_timesteps: number of timesteps the model was trained on.
        beta_start, beta_end: ends of the "scaled linear" schedule, whose square roots are linear.

    Attributes:
        alphas_cumprod: (train_timesteps,) float64; x_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε.

    Reference:
        Ho et al. 2020, "Denoising Diffusion Probabilistic Models"; the constants are Stable
        Diffusion's (Rombach et al. 2022).

    Example:
        >>> float(NoiseSchedule().alphas_cumprod[0].round(5))
        0.99915
    """

    def __init__(
        self, train_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
    ):
        betas = np.linspace(beta_start**0.5, beta_end**0.5, train_timesteps) ** 2
        self.alphas_cumprod = np.cumprod(1.0 - betas)

    def alpha_cumprod(self, timestep: float) -> float:
        """ᾱ at a timestep, which may be fractional: log ᾱ is interpolated linearly.

        Timestep −1 is the clean picture, ᾱ = 1.

        Raises:
            ValueError: the timestep is outside [−1, train_timesteps − 1].
        """
        last = len(self.alphas_cumprod) - 1
        if not -1 <= timestep <= last:
            raise ValueError(f"timestep {timestep} is outside -1 … {last}")
        if timestep == int(timestep):
            return 1.0 if timestep == -1 else float(self.alphas_cumprod[int(timestep)])
        logs = np.log(np.concatenate([[1.0], self.alphas_cumprod]))
        return float(np.exp(np.interp(timestep + 1, np.arange(len(logs)), logs)))

    def rates(self, timestep: float) -> tuple[np.float32, np.float32]:
        """(√ᾱ, √(1−ᾱ)) in float32: the shares of picture and noise."""
        alpha = self.alpha_cumprod(timestep)
        return np.float32(alpha**0.5), np.float32((1.0 - alpha) ** 0.5)

    def add_noise(self, x0: Any, noise: Any, timestep: float) -> np.ndarray:
        """The forward process in one step: √ᾱ x₀ + √(1−ᾱ) ε.

        Args:
            x0: clean latents.
            noise: standard normal, of the same shape.
            timestep: how far, −1 (nothing happens) … train_timesteps − 1.
        """
        signal_rate, noise_rate = self.rates(timestep)
        return signal_rate * np.asarray(x0, np.float32) + noise_rate * np.asarray(noise, np.float32)

    def to_noise(self, kind: str, output: np.ndarray, x: np.ndarray, timestep: float) -> np.ndarray:
        """The noise that a network's output says is in x.

        Args:
            kind: what the network predicts: ``"epsilon"`` the noise; ``"v"`` √ᾱ ε − √(1−ᾱ) x₀
                (Salimans & Ho 2022); ``"sample"`` the clean latent.
            output, x: of the same shape.
        """
        signal_rate, noise_rate = self.rates(timestep)
        if kind == "epsilon":
            return output
        if kind == "v":
            return signal_rate * output + noise_rate * x
        if kind == "sample":
            return (x - signal_rate * output) / noise_rate
        raise ValueError(f"prediction type {kind!r} is not one of {', '.join(PREDICTIONS)}")

    def to_denoised(self, noise: np.ndarray, x: np.ndarray, timestep: float) -> np.ndarray:
        """The clean latent behind x if `noise` is in it: (x − √(1−ᾱ) ε) / √ᾱ."""
        signal_rate, noise_rate = self.rates(timestep)
        return (x - noise_rate * noise) / signal_rate


def spaced_timesteps(
    steps: int, spacing: str = "leading", *, train_timesteps: int = 1000, offset: int = 1
) -> np.ndarray:
    """Which timesteps a run of `steps` steps visits, noisiest first, and where it ends.

    Args:
        steps: 1 … train_timesteps.
        spacing: ``"leading"`` (Stable Diffusion's own configuration: multiples of the step plus
            `offset`), ``"trailing"`` (ends of the intervals, from the very last timestep) or
            ``"linspace"`` (both ends included; KerasCV's).

    Returns:
        (steps + 1,) float64. The last is where the last step leads: 0 for ``leading``, as Stable
        Diffusion is configured, and −1, the clean picture, for the others.

    Reference:
        Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed", table 2.

    Example:
        >>> spaced_timesteps(4).tolist()
        [751.0, 501.0, 251.0, 1.0, 0.0]
        >>> spaced_timesteps(4, "trailing").tolist()
        [999.0, 749.0, 499.0, 249.0, -1.0]
    """
    if not 1 <= steps <= train_timesteps:
        raise ValueError(f"steps must be 1 … {train_timesteps}, got {steps}")
    if spacing == "leading":
        # Where the offset would lead past the last timestep (1000 steps), it is left out.
        visited = np.arange(steps)[::-1] * (train_timesteps // steps)
        visited = visited + min(offset, train_timesteps - 1 - visited[0])
        return np.append(visited, 0 if visited[-1] > 0 else -1).astype(np.float64)
    if spacing == "trailing":
        visited = np.round(np.arange(train_timesteps, 0, -train_timesteps / steps)) - 1
    elif spacing == "linspace":
        visited = np.round(np.linspace(0, train_timesteps - 1, steps))[::-1]
    else:
        raise ValueError(f"spacing {spacing!r} is not leading, trailing or linspace")
    return np.append(visited[:steps], -1).astype(np.float64)


def initial_noise(seed: int, shape: Sequence[int]) -> np.ndarray:
    """The standard normal latent that `seed` stands for, float32; e.g. shape (h/8, w/8, 4)."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


# -------------------------------------------------------------------------------------- samplers


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
        eta: scale of the noise put back: 1 is DDPM; 0 leaves it out, and the picture collapses to
            a blur, because the mean alone has too little variance for the next step.

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


@dataclass(frozen=True)
class Sampler:
    """A sampler and what a caller must know of it before the first step.

    Attributes:
        run: the loop.
        eta: its default eta, or None where it takes none.
    """

    run: Callable[..., np.ndarray]
    eta: float | None = None


SAMPLERS = {"ddim": Sampler(ddim, eta=0.0), "ddpm": Sampler(ddpm, eta=1.0)}
