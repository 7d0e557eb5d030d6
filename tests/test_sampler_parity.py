"""Samplers against diffusers' classes of the same name, evaluation by evaluation.

Both see the same network: the exact denoiser of a mixture of Gaussians, which is known at every
noise level. What they hand it, from the first step to the last, and what they end with must agree
to 1e-5 of its standard deviation.

What differs, and why:

- diffusers' DDIM and PNDM step down by 1000 // steps whatever timestep comes next, so that with
  ``linspace``, or ``trailing`` where the steps do not divide 1000, they evaluate at one timestep
  and step from another. Here a step always leads to the next timestep.
- diffusers' PNDM averages raw v-predictions of different timesteps. Here it averages the noise
  that they tell of, as the method's equation has it.
- diffusers' DPM-Solver++ tells the network a whole timestep even where the noise level lies
  between two. Here it is told the timestep that has the level.
- Of ``linspace``, see `sigma_timesteps`; noise starts at unit variance, not at σ / √(1+σ²).
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from xray.samplers import SAMPLERS, NoiseSchedule, Prediction

pytestmark = pytest.mark.slow

SCHEDULE = NoiseSchedule()
SHAPE = (2, 4, 4, 4)
STABLE_DIFFUSION = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}
VP = {"ddim": "DDIM", "ddpm": "DDPM", "pndm": "PNDM", "dpmpp_2m": "DPMSolverMultistep"}
SIGMA = {
    "euler": "EulerDiscrete",
    "euler_ancestral": "EulerAncestralDiscrete",
    "heun": "HeunDiscrete",
    "lms": "LMSDiscrete",
}
KIND = {"epsilon": "epsilon", "v": "v_prediction", "sample": "sample"}


def normal(*seed):
    return np.random.default_rng(seed).standard_normal(SHAPE, np.float32)


def exact(x, sigma, kind):
    """What a perfect network says of x where every pixel is drawn from three Gaussians."""
    signal = 1 / (1 + sigma**2) ** 0.5
    noisy = x.astype(np.float64) / signal
    means, variance = np.array([-0.8, 0.2, 1.1]), 0.4**2
    distance = (noisy[..., None] - means) ** 2 / (2 * (variance + sigma**2))
    weights = np.exp(distance.min(-1, keepdims=True) - distance)
    weights /= weights.sum(-1, keepdims=True)
    denoised = (weights * (means * sigma**2 + noisy[..., None] * variance)).sum(-1)
    denoised /= variance + sigma**2
    noise = (noisy - denoised) / sigma
    v = signal * noise - sigma * signal * denoised
    return {"epsilon": noise, "v": v, "sample": denoised}[kind].astype(np.float32)


def ours(sampler, steps, spacing, kind, eta):
    seen, told = [], []

    def evaluate(x, timestep, step):
        seen.append(x)
        told.append(timestep)
        output = exact(x, SCHEDULE.sigma(timestep), kind)
        noise = SCHEDULE.to_noise(kind, output, x, timestep)
        return Prediction(noise, SCHEDULE.to_denoised(noise, x, timestep), x)

    def fresh_noise(step, scale):
        return scale * normal(1, step)

    s = SAMPLERS[sampler]
    eta = s.eta if eta is None else eta
    visited = s.timesteps(steps, spacing)
    x = s.run(evaluate, normal(0), visited, SCHEDULE, fresh_noise, eta=eta or 0.0)
    return [*seen, x], told


def theirs(sampler, steps, spacing, kind, eta, monkeypatch):
    diffusers = pytest.importorskip("diffusers", reason="diffusers (the extra `parity`) is needed")
    import torch

    name = f"{(VP | SIGMA)[sampler]}Scheduler"
    cls = getattr(diffusers, name)
    config = STABLE_DIFFUSION | {"prediction_type": KIND[kind], "timestep_spacing": spacing}
    if spacing in ("karras", "exponential"):
        config |= {"timestep_spacing": "linspace", f"use_{spacing}_sigmas": True}
    if sampler in ("ddim", "pndm"):
        config["set_alpha_to_one"] = spacing != "leading"
    if sampler in ("ddim", "ddpm"):
        config["clip_sample"] = False
    if sampler == "pndm":
        config["skip_prk_steps"] = True
    scheduler = cls(**config)
    scheduler.set_timesteps(steps)

    step = iter(range(steps))
    if sampler in ("ddim", "ddpm", "euler_ancestral"):
        module = importlib.import_module(cls.__module__)
        draw = lambda *args, **kwargs: torch.from_numpy(normal(1, next(step)))  # noqa: E731
        monkeypatch.setattr(module, "randn_tensor", draw)
    extra = {"eta": eta} if sampler == "ddim" and eta is not None else {}

    x = torch.from_numpy(normal(0))
    if sampler in SIGMA:
        x = x * (scheduler.sigmas[0] ** 2 + 1) ** 0.5
    seen, told = [], []
    for index, timestep in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(x, timestep)
        if hasattr(scheduler, "sigmas"):
            sigma = float(scheduler.sigmas[index])
        else:
            alpha = float(scheduler.alphas_cumprod[int(timestep)])
            sigma = ((1 - alpha) / alpha) ** 0.5
        seen.append(scaled.numpy().copy())
        told.append(float(timestep))
        output = torch.from_numpy(exact(seen[-1], sigma, kind))
        x = scheduler.step(output, timestep, x, **extra).prev_sample
    return [*seen, x.numpy()], told


def check(sampler, steps, spacing, kind, monkeypatch, eta=None):
    own, own_told = ours(sampler, steps, spacing, kind, eta)
    other, other_told = theirs(sampler, steps, spacing, kind, eta, monkeypatch)
    assert len(own) == len(other)
    # Whole timesteps are equal. Fractional ones follow from the noise levels, which diffusers
    # has in float32; DPM-Solver++ rounds them.
    tolerance = 0 if spacing in ("leading", "trailing") else 0.04
    if sampler == "dpmpp_2m" and spacing in ("karras", "exponential"):
        tolerance = 1
    np.testing.assert_allclose(own_told, other_told, rtol=0, atol=tolerance)
    worst = max(np.abs(a - b).max() / b.std() for a, b in zip(own, other, strict=True))
    assert worst <= 1e-5, f"{worst:.1e}"


# One or two steps only with leading. The others start at the noisiest timestep, where a denoised
# estimate is nearly grey and the rounding of float32 in it enlarged by 1/√ᾱ = 15.
FEW, COUNTS = (1, 2, 7, 25, 50), (5, 7, 25, 50)
WHOLE = {"leading": FEW, "trailing": COUNTS, "linspace": COUNTS}
EVERY = WHOLE | {"karras": COUNTS, "exponential": COUNTS}
SPACINGS = {
    "ddim": {"leading": (*FEW, 300), "trailing": (5, 10, 25, 50)},
    "pndm": {"leading": (*FEW, 300), "trailing": (5, 10, 25, 50)},
    "ddpm": WHOLE,
    "euler_ancestral": WHOLE,
    "euler": EVERY,
    "heun": EVERY,
    # The last step to σ = 0 extrapolates the slopes of 50 exponential steps seven steps far, with
    # weights of hundreds: the rounding of either's float32 exceeds the bound.
    "lms": EVERY | {"exponential": (5, 7, 25)},
    "dpmpp_2m": EVERY,
}
CASES = [
    (sampler, steps, spacing)
    for sampler, spacings in SPACINGS.items()
    for spacing, counts in spacings.items()
    for steps in counts
]


@pytest.mark.parametrize(("sampler", "steps", "spacing"), CASES)
def test_every_evaluation_is_diffusers(sampler, steps, spacing, monkeypatch):
    check(sampler, steps, spacing, "epsilon", monkeypatch)


@pytest.mark.parametrize("kind", ["v", "sample"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_kind_of_prediction_is_diffusers(sampler, kind, monkeypatch):
    if sampler == "pndm":
        pytest.skip("diffusers' PNDM averages raw v-predictions, and takes no samples")
    if (sampler, kind) == ("euler_ancestral", "sample"):
        pytest.skip("diffusers has it not")
    for steps in (10, 25):
        check(sampler, steps, "leading", kind, monkeypatch)
        check(sampler, steps, "trailing", kind, monkeypatch)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddims_noise_is_diffusers(eta, monkeypatch):
    check("ddim", 25, "leading", "epsilon", monkeypatch, eta)
