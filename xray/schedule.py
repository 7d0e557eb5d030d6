"""Noise schedules: how much noise each timestep has, and which timesteps a run visits.

    schedule = NoiseSchedule()                       # Stable Diffusion's
    x = schedule.add_noise(x0, noise, timestep=600)  # √ᾱ x₀ + √(1−ᾱ) ε
    spaced_timesteps(25, "trailing")                 # 999, 959, …, 39, and −1, the clean picture

Everything is variance preserving: x is what the U-Net receives. The noise level σ = √((1−ᾱ)/ᾱ) is
the noise beside a picture that keeps its size: x √(1+σ²) = x₀ + σ ε.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

PREDICTIONS = ("epsilon", "v", "sample")
WHOLE_SPACINGS = ("leading", "trailing", "linspace")
SPACINGS = (*WHOLE_SPACINGS, "karras", "exponential")


class NoiseSchedule:
    """How much of the picture is left at each timestep.

    Args:
        train_timesteps: number of timesteps the model was trained on.
        beta_start, beta_end: ends of the "scaled linear" schedule, whose square roots are linear.

    Attributes:
        alphas_cumprod: (train_timesteps,) float64; x_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε.
        sigmas: (train_timesteps,) float64, the noise levels √((1−ᾱ)/ᾱ): 0.029 … 14.6.

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
        self.sigmas = ((1.0 - self.alphas_cumprod) / self.alphas_cumprod) ** 0.5

    def alpha_cumprod(self, timestep: float) -> float:
        """ᾱ at a timestep, which may be fractional; see `sigma`.

        Timestep −1 is the clean picture, ᾱ = 1.

        Raises:
            ValueError: the timestep is outside [−1, train_timesteps − 1].
        """
        self._check(timestep)
        if timestep == int(timestep):
            return 1.0 if timestep == -1 else float(self.alphas_cumprod[int(timestep)])
        return 1.0 / (1.0 + self.sigma(timestep) ** 2)

    def sigma(self, timestep: float) -> float:
        """The noise level σ = √((1−ᾱ)/ᾱ) at a timestep, 0 at −1.

        Between two whole timesteps log σ is linear, as in k-diffusion (Crowson 2022); between −1
        and 0, where the logarithm has no end, σ is.

        Raises:
            ValueError: the timestep is outside [−1, train_timesteps − 1].
        """
        self._check(timestep)
        if timestep < 0:
            return float(self.sigmas[0] * (timestep + 1))
        if timestep == int(timestep):
            return float(self.sigmas[int(timestep)])
        whole = np.arange(len(self.sigmas))
        return float(np.exp(np.interp(timestep, whole, np.log(self.sigmas))))

    def timesteps(self, sigmas: Any) -> np.ndarray:
        """The timesteps, mostly fractional, that have these noise levels: the inverse of `sigma`.

        Levels outside the schedule's own get the nearest of its ends, 0 or train_timesteps − 1.
        """
        whole = np.arange(len(self.sigmas))
        found = np.interp(np.log(sigmas), np.log(self.sigmas), whole)
        return found.round(9)  # 999, not 998.9999999999

    def _check(self, timestep: float) -> None:
        last = len(self.alphas_cumprod) - 1
        if not -1 <= timestep <= last:
            raise ValueError(f"timestep {timestep} is outside -1 … {last}")

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
    steps: int, spacing: str = "leading", schedule: NoiseSchedule | None = None, *, offset: int = 1
) -> np.ndarray:
    """Which timesteps DDIM, DDPM and PNDM visit in `steps` steps, noisiest first; where they end.

    Args:
        steps: 1 … train_timesteps.
        spacing: ``"leading"`` (Stable Diffusion's own configuration: multiples of the step plus
            `offset`), ``"trailing"`` (ends of the intervals, from the very last timestep) or
            ``"linspace"`` (both ends included; KerasCV's).
        schedule: Stable Diffusion's by default; here only the number of its timesteps counts.

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
    train_timesteps = len((schedule or NoiseSchedule()).sigmas)
    _check_steps(steps, train_timesteps)
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
        hint = (
            ": that is for samplers of noise levels, such as euler" if spacing in SPACINGS else ""
        )
        raise ValueError(f"spacing {spacing!r} is not leading, trailing or linspace{hint}")
    return np.append(visited[:steps], -1).astype(np.float64)


def sigma_timesteps(
    steps: int, spacing: str = "leading", schedule: NoiseSchedule | None = None
) -> np.ndarray:
    """Which timesteps the samplers of noise levels visit (Euler, Heun, LMS); they end at −1.

    Args:
        steps: 1 … train_timesteps.
        spacing: ``"leading"`` and ``"trailing"`` as `spaced_timesteps`. ``"linspace"`` is not
            rounded: the noise levels are interpolated linearly at even timesteps, and the
            timesteps are those that have these levels, within 0.03 of the even ones.
            ``"karras"`` (σ^(1/7) falls evenly) and ``"exponential"`` (log σ does) go from the
            noise level of the last timestep to that of the first.
        schedule: Stable Diffusion's by default.

    Returns:
        (steps + 1,) float64.

    Reference:
        Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models",
        equation 5 with ρ = 7.

    Example:
        >>> sigma_timesteps(4, "karras").round(1).tolist()
        [999.0, 687.2, 145.9, 0.0, -1.0]
    """
    schedule = schedule or NoiseSchedule()
    count = len(schedule.sigmas)
    if spacing in ("leading", "trailing"):
        visited = spaced_timesteps(steps, spacing, schedule)[:-1]
        return np.append(visited, -1)
    if spacing not in SPACINGS:
        raise ValueError(f"spacing {spacing!r} is not one of {', '.join(SPACINGS)}")
    _check_steps(steps, count)
    share = np.linspace(1, 0, steps)
    first, last = schedule.sigmas[0], schedule.sigmas[-1]
    if spacing == "linspace":
        sigmas = np.interp(share * (count - 1), np.arange(count), schedule.sigmas)
    elif spacing == "karras":
        sigmas = (first ** (1 / 7) + share * (last ** (1 / 7) - first ** (1 / 7))) ** 7
    else:
        sigmas = np.exp(np.log(first) + share * (np.log(last) - np.log(first)))
    return np.append(schedule.timesteps(sigmas), -1)


def dpm_timesteps(
    steps: int, spacing: str = "leading", schedule: NoiseSchedule | None = None
) -> np.ndarray:
    """Which timesteps DPM-Solver++ visits: it leaps to the clean picture (−1) from further out.

    ``"leading"`` and ``"linspace"`` are the whole timesteps of one step more, of which the least
    noisy is left out. The rest is as `sigma_timesteps`, and so are arguments and result.

    Example:
        >>> dpm_timesteps(4).tolist()
        [801.0, 601.0, 401.0, 201.0, -1.0]
    """
    if spacing not in ("leading", "linspace"):
        return sigma_timesteps(steps, spacing, schedule)
    schedule = schedule or NoiseSchedule()
    count = len(schedule.sigmas)
    _check_steps(steps, count)
    visited = spaced_timesteps(min(steps + 1, count), spacing, schedule)
    return np.append(visited[:steps], -1)


def _check_steps(steps: int, most: int) -> None:
    if steps != int(steps) or not 1 <= steps <= most:
        raise ValueError(f"steps must be a whole number 1 … {most}, got {steps}")


def initial_noise(seed: int, shape: Sequence[int]) -> np.ndarray:
    """The standard normal latent that `seed` stands for, float32; e.g. shape (h/8, w/8, 4)."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)
