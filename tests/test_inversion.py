"""DDIM backwards: against the differential equation's own solution, and there and back."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from xray.inversion import invert
from xray.samplers import SAMPLERS, NoiseSchedule, Prediction, initial_noise

PROMPT = "a red star"


class Gaussian:
    """A model that knows its data: independent normal numbers of deviation `std`.

    Its best prediction of the noise in x is √(1−ᾱ) x / (ᾱ std² + 1 − ᾱ), whatever the prompt, and
    the equation that DDIM solves keeps x / √(ᾱ std² + 1 − ᾱ) as it is.
    """

    name, architecture = "normal numbers", SimpleNamespace(text_length=1, text_width=1)

    def __init__(self, std):
        self.schedule, self.spacing, self.std, self.asked = NoiseSchedule(), "trailing", std, []

    def predict(self, x, timestep, context):
        assert len(context) == len(x)
        self.asked.append(timestep)
        signal, noise = self.schedule.rates(timestep)
        return context[:, :, :, None] * noise * x / (signal**2 * self.std**2 + noise**2)


def latents(count=2, size=8):
    return np.stack([initial_noise(seed, (size, size, 4)) for seed in range(count)])


def one(count=1):
    return np.ones((1, 1), np.float32)


def test_the_noise_found_is_the_equations_solution_and_the_error_falls_with_the_steps():
    model, x = Gaussian(0.5), 0.5 * latents()
    exact = x / 0.5 * (model.schedule.alphas_cumprod[999] * (0.25 - 1) + 1) ** 0.5
    errors = [
        np.abs(invert(model, x, one(), steps=steps) - exact).max() for steps in (50, 100, 200)
    ]
    assert errors[2] < 0.05
    # Of the first order: exactly 2 where steps are small, which the first out of a clean picture,
    # whose noise level is 0, is not.
    assert 1.4 < errors[0] / errors[1] < 2.2 and 1.4 < errors[1] / errors[2] < 2.2


def test_down_again_with_the_sampler_itself_leads_back():
    model, x = Gaussian(0.5), 0.5 * latents()
    schedule = model.schedule

    def evaluate(x, timestep, step):
        noise = model.predict(x, timestep, np.ones((len(x), 1, 1)))
        return Prediction(noise, schedule.to_denoised(noise, x, timestep), x)

    errors = []
    for steps in (25, 50, 100):
        timesteps = SAMPLERS["ddim"].timesteps(steps, "trailing")
        noise = invert(model, x, one(), steps=steps)
        back = SAMPLERS["ddim"].run(evaluate, noise, timesteps, schedule, None)
        errors.append(np.abs(back - x).max())
    assert errors[0] > 1.4 * errors[1] > 1.4 * 1.4 * errors[2]


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_it_asks_at_the_timesteps_that_the_run_will_ask_at(spacing):
    model = Gaussian(1.0)
    invert(model, latents(), one(), steps=10, spacing=spacing)
    visited = SAMPLERS["ddim"].timesteps(10, spacing)
    assert model.asked == visited[:-1][::-1].tolist()


def test_guidance_is_between_the_two_predictions_and_beyond():
    """With predictions c ε and u ε, guidance g is the single prediction (u + g (c − u)) ε."""
    x, ticks = latents(), []
    guided = invert(
        Gaussian(0.5), x, one() * 0.9, negative=one() * 0.8, guidance=3.0, steps=10,
        progress=lambda done, steps: ticks.append((done, steps)),
    )  # fmt: skip
    np.testing.assert_allclose(
        guided, invert(Gaussian(0.5), x, one() * 1.1, steps=10), rtol=1e-5, atol=1e-5
    )
    assert ticks == [(k, 10) for k in range(1, 11)]
    unguided = invert(Gaussian(0.5), x, one(), negative=one() * np.nan, steps=10)
    assert np.isfinite(unguided).all()


def test_a_generation_from_the_noise_gives_the_latent_back_nearer_with_more_steps(model):
    latent = latents()
    errors = []
    for steps in (8, 40, 200):
        noise = invert(model, latent, PROMPT, steps=steps)
        asked = {"steps": steps, "guidance": 1, "seed": [0, 1], "record": []}
        back = model.generate(PROMPT, latent=noise, **asked)["sampler/out"].values
        errors.append(np.sqrt(np.mean((back - latent) ** 2)) / latent.std())
    assert errors[0] > errors[1] > 3 * errors[2], errors


def test_each_picture_has_its_own_words(model):
    latent, texts = latents(), ["a red star", "a big green fish"]
    both = invert(model, latent, texts, steps=3)
    for i, text in enumerate(texts):
        alone = invert(model, latent[i : i + 1], text, steps=3)
        np.testing.assert_allclose(both[i], alone[0], atol=1e-4)
    given = invert(model, latent, model.embed(texts).values[1], steps=3)
    np.testing.assert_allclose(given[1], both[1], atol=1e-4)
    for embedded in (model.embed(texts), list(model.embed(texts).values)):
        np.testing.assert_allclose(invert(model, latent, embedded, steps=3), both, atol=1e-4)
    one = invert(model, latent[:1], model.embed(texts[0]), steps=3)
    np.testing.assert_allclose(one[0], both[0], atol=1e-4)


def test_what_does_not_fit_is_refused(model):
    for latent, asked, said in (
        (latents(), {"steps": 0}, "steps"),
        (latents(), {"guidance": np.nan}, "guidance"),
        (latents(), {"prompt": ["a red star"] * 3}, "2 latents"),
        (latents()[..., :3], {}, "4"),
        (latents() * np.nan, {}, "NaN"),
        (latents(), {"prompt": "a red star " * 20}, "tokens"),
    ):
        with pytest.raises(ValueError, match=said):
            invert(model, latent, **asked)
