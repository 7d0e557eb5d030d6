"""Schedules and samplers: tables of the field, and what the equations promise of each other."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.samplers import (
    PREDICTIONS,
    SAMPLERS,
    SPACINGS,
    NoiseSchedule,
    Prediction,
    ddim,
    ddpm,
    euler,
    euler_ancestral,
    heun,
    lms,
    pndm,
    spaced_timesteps,
)
from xray.schedule import dpm_timesteps, sigma_timesteps

SCHEDULE = NoiseSchedule()
SHAPE = (2, 4, 3, 4)

latents = hnp.arrays(np.float32, SHAPE, elements=st.floats(-4, 4, width=32))
timesteps = st.integers(0, 999)


def normal(seed, shape=SHAPE):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


# --- the schedule --------------------------------------------------------------------------


def test_alphas_are_stable_diffusions():
    # Printed by diffusers for runwayml/stable-diffusion-v1-5's scheduler.
    assert SCHEDULE.alphas_cumprod[0] == pytest.approx(0.99915, abs=1e-5)
    assert SCHEDULE.alphas_cumprod[-1] == pytest.approx(0.0046601, abs=1e-6)


def test_alphas_are_kerascvs_to_the_digits_it_prints():
    # KerasCV keeps them as a literal table; read from its file, since importing it takes seconds.
    package = Path(importlib.util.find_spec("keras_cv").origin).parent
    table = runpy.run_path(str(package / "src/models/stable_diffusion/constants.py"))
    expected = np.array(table["_ALPHAS_CUMPROD"])
    assert expected.shape == SCHEDULE.alphas_cumprod.shape
    np.testing.assert_allclose(SCHEDULE.alphas_cumprod, expected, rtol=1e-4, atol=0)


@given(st.floats(-1, 999))
def test_shares_of_picture_and_noise_have_unit_power(timestep):
    signal, noise = SCHEDULE.rates(timestep)
    assert signal.dtype == noise.dtype == np.float32
    assert float(signal) ** 2 + float(noise) ** 2 == pytest.approx(1, abs=1e-6)


@given(st.floats(-1, 998), st.floats(0.01, 1))
def test_noise_grows_with_the_timestep_also_between_whole_ones(timestep, more):
    assert SCHEDULE.alpha_cumprod(timestep + more) < SCHEDULE.alpha_cumprod(timestep)


@given(st.integers(0, 998))
def test_half_way_the_noise_level_is_the_geometric_mean(timestep):
    ends = SCHEDULE.sigma(timestep) * SCHEDULE.sigma(timestep + 1)
    assert SCHEDULE.sigma(timestep + 0.5) == pytest.approx(ends**0.5, rel=1e-9)


@given(st.floats(-1, 999))
def test_the_noise_level_is_noise_beside_picture(timestep):
    alpha = SCHEDULE.alpha_cumprod(timestep)
    assert SCHEDULE.sigma(timestep) ** 2 == pytest.approx((1 - alpha) / alpha, rel=1e-9, abs=1e-15)


@given(st.floats(0, 999))
def test_a_noise_level_leads_back_to_its_timestep(timestep):
    found = SCHEDULE.timesteps(SCHEDULE.sigma(timestep))
    assert float(found) == pytest.approx(timestep, abs=1e-8)


def test_noise_levels_are_stable_diffusions():
    # The ends that k-diffusion prints for it: sigma_min 0.0292, sigma_max 14.6146.
    assert SCHEDULE.sigmas[[0, -1]] == pytest.approx([0.0292, 14.6146], abs=5e-5)
    assert SCHEDULE.timesteps([1e-3, 100]).tolist() == [0, 999]


@pytest.mark.parametrize("timestep", [-1.5, -2, 999.5, 1000, float("nan"), float("inf")])
def test_a_timestep_outside_is_refused(timestep):
    with pytest.raises(ValueError, match=r"timestep .* is outside -1 … 999"):
        SCHEDULE.alpha_cumprod(timestep)


def test_a_shorter_schedule_is_as_long_as_asked():
    short = NoiseSchedule(train_timesteps=10)
    assert short.alphas_cumprod.shape == (10,)
    with pytest.raises(ValueError, match="outside -1 … 9"):
        short.rates(10)


@given(latents, latents)
def test_adding_noise_at_minus_one_changes_no_bit(x0, noise):
    np.testing.assert_array_equal(SCHEDULE.add_noise(x0, noise, -1), x0)


def test_the_last_timestep_leaves_almost_only_noise():
    x0, noise = normal(0), normal(1)
    x = SCHEDULE.add_noise(x0, noise, 999)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, noise, atol=0.07 * np.abs(x0).max() + 0.01)


@given(latents, latents, timesteps)
def test_the_denoised_latent_undoes_adding_noise(x0, noise, timestep):
    x = SCHEDULE.add_noise(x0, noise, timestep)
    signal, _ = SCHEDULE.rates(timestep)
    # float32 keeps x to 4e-7; dividing by the share of the picture enlarges that.
    np.testing.assert_allclose(
        SCHEDULE.to_denoised(noise, x, timestep), x0, atol=4e-6 / float(signal)
    )


@pytest.mark.parametrize("kind", PREDICTIONS)
@given(x0=latents, noise=latents, timestep=timesteps)
def test_every_kind_of_prediction_tells_the_same_noise(kind, x0, noise, timestep):
    x = SCHEDULE.add_noise(x0, noise, timestep)
    signal, share = SCHEDULE.rates(timestep)
    said = {"epsilon": noise, "v": signal * noise - share * x0, "sample": x0}[kind]
    told = SCHEDULE.to_noise(kind, said, x, timestep)
    assert told.dtype == np.float32
    np.testing.assert_allclose(told, noise, atol=4e-6 / float(share))


def test_an_unknown_kind_of_prediction_is_refused():
    with pytest.raises(ValueError, match="'score' is not one of epsilon, v, sample"):
        SCHEDULE.to_noise("score", normal(0), normal(0), 5)


# --- which timesteps -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spacing", "steps", "expected"),
    [
        # What diffusers' DDIMScheduler visits with Stable Diffusion's configuration.
        ("leading", 1, [1, 0]),
        ("leading", 4, [751, 501, 251, 1, 0]),
        ("leading", 3, [667, 334, 1, 0]),
        ("leading", 10, [901, 801, 701, 601, 501, 401, 301, 201, 101, 1, 0]),
        ("trailing", 1, [999, -1]),
        ("trailing", 3, [999, 666, 332, -1]),
        ("linspace", 3, [999, 500, 0, -1]),
        # Lin et al. 2024, table 2, counted from 0 as code does.
        ("trailing", 10, [999, 899, 799, 699, 599, 499, 399, 299, 199, 99, -1]),
        ("linspace", 10, [999, 888, 777, 666, 555, 444, 333, 222, 111, 0, -1]),
    ],
)
def test_timesteps_are_those_of_the_field(spacing, steps, expected):
    assert spaced_timesteps(steps, spacing).tolist() == expected


def test_fifty_leading_steps_start_where_the_original_does():
    visited = spaced_timesteps(50)
    assert visited[:3].tolist() == [981, 961, 941] and visited[-2:].tolist() == [1, 0]
    assert spaced_timesteps(50, offset=0)[:3].tolist() == [980, 960, 940]


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_fall_by_whole_numbers_for_every_number_of_steps(spacing):
    for steps in range(1, 1001):
        visited = spaced_timesteps(steps, spacing)
        assert len(visited) == steps + 1
        assert (np.diff(visited) < 0).all() and (visited == visited.round()).all()
        assert visited[-2] >= 0 and visited[0] <= 999 and visited[-1] in (-1, 0)


@pytest.mark.parametrize("steps", [0, -3, 1001])
def test_too_few_or_too_many_steps_are_refused(steps):
    with pytest.raises(ValueError, match=f"steps must be a whole number 1 … 1000, got {steps}"):
        spaced_timesteps(steps)


def test_an_unknown_spacing_is_refused():
    with pytest.raises(ValueError, match="'even' is not leading, trailing or linspace$"):
        spaced_timesteps(4, "even")
    with pytest.raises(ValueError, match="'karras' is not .* linspace: that is for samplers of no"):
        spaced_timesteps(4, "karras")
    for visited in (sigma_timesteps, dpm_timesteps):
        with pytest.raises(ValueError, match="'even' is not one of leading, .*, exponential"):
            visited(4, "even")


def test_timesteps_of_noise_levels_are_those_of_the_field():
    # Karras et al. 2022, equation 5, by hand.
    first, last = SCHEDULE.sigmas[0] ** (1 / 7), SCHEDULE.sigmas[-1] ** (1 / 7)
    expected = [(last + i / 4 * (first - last)) ** 7 for i in range(5)]
    levels = [SCHEDULE.sigma(t) for t in sigma_timesteps(5, "karras")]
    assert levels == pytest.approx([*expected, 0], rel=1e-9)

    levels = [SCHEDULE.sigma(t) for t in sigma_timesteps(5, "exponential")[:-1]]
    ratios = np.array(levels[1:]) / levels[:-1]
    assert ratios == pytest.approx([ratios[0]] * 4, rel=1e-9)

    evenly = np.linspace(999, 0, 26)
    assert np.abs(sigma_timesteps(26, "linspace")[:-1] - evenly).max() < 0.03
    for spacing in ("leading", "trailing"):
        visited = sigma_timesteps(25, spacing)
        assert visited[:-1].tolist() == spaced_timesteps(25, spacing)[:-1].tolist()
        assert visited[-1] == -1


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        # What diffusers' DPMSolverMultistepScheduler visits with Stable Diffusion's configuration.
        ("leading", [801, 601, 401, 201, -1]),
        ("linspace", [999, 749, 500, 250, -1]),
        ("trailing", [999, 749, 499, 249, -1]),
    ],
)
def test_dpm_solver_leaps_to_the_picture_from_further_out(spacing, expected):
    assert dpm_timesteps(4, spacing).tolist() == expected


@pytest.mark.parametrize("visited", [sigma_timesteps, dpm_timesteps])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_noise_levels_fall_for_every_number_of_steps(visited, spacing):
    for steps in (1, 2, 3, 30, 333, 999, 1000):
        times = visited(steps, spacing)
        assert len(times) == steps + 1 and (np.diff(times) < 0).all()
        assert times[0] <= 999 and times[-2] >= 0 and times[-1] == -1
    for steps in (0, 1001):
        with pytest.raises(ValueError, match="steps must be"):
            visited(steps, spacing)


# --- samplers ------------------------------------------------------------------------------


def knows(x0):
    """A network that sees through every latent to x0."""

    def evaluate(x, timestep, step):
        signal, noise = SCHEDULE.rates(timestep)
        return Prediction((x - signal * x0) / noise, x0, x)

    return evaluate


def guesses(x, timestep, step):
    """A network that is often wrong, to tell equations apart that agree on perfect ones."""
    noise = np.tanh(x * np.float32(1.3) + np.float32(timestep / 1000)).astype(np.float32)
    return Prediction(noise, SCHEDULE.to_denoised(noise, x, timestep), x)


def fresh(step, scale):
    return scale * normal([3, step])


def no_noise(step, scale):
    raise AssertionError(f"fresh noise asked for at step {step}")


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 13])
def test_with_a_network_that_knows_the_picture_it_is_reached(sampler, eta, steps):
    x0, visited = normal(0), SAMPLERS[sampler].timesteps(steps, "trailing")
    x = SAMPLERS[sampler].run(knows(x0), normal(1), visited, SCHEDULE, fresh, eta=eta)
    assert x.dtype == np.float32
    # From the last timestep the clean picture is x / √ᾱ less nearly all of it: 15 times rounding.
    np.testing.assert_allclose(x, x0, atol=2e-5 if steps < 3 else 4e-6)


def test_ddim_stays_on_the_line_between_picture_and_noise():
    x0, noise, seen = normal(0), normal(1), []

    def evaluate(x, timestep, step):
        np.testing.assert_allclose(x, SCHEDULE.add_noise(x0, noise, timestep), atol=1e-5)
        seen.append((timestep, step))
        return knows(x0)(x, timestep, step)

    visited = spaced_timesteps(10)
    x = ddim(evaluate, SCHEDULE.add_noise(x0, noise, visited[0]), visited, SCHEDULE, no_noise)
    assert seen == list(zip(visited[:-1], range(10), strict=True))
    # Leading timesteps end at 0, which is not quite the clean picture.
    np.testing.assert_allclose(x, SCHEDULE.add_noise(x0, noise, 0), atol=1e-5)


@settings(max_examples=20)
@given(latents, st.integers(1, 40), st.sampled_from(["leading", "trailing", "linspace"]))
def test_ddpm_is_ddim_with_all_the_noise_put_back(x, steps, spacing):
    visited = spaced_timesteps(steps, spacing)
    visited[-1] = -1  # where DDPM always ends
    one = ddim(guesses, x, visited, SCHEDULE, fresh, eta=1.0)
    other = ddpm(guesses, x, visited, SCHEDULE, fresh)
    np.testing.assert_allclose(one, other, atol=1e-5 * max(1, np.abs(other).max()))


@pytest.mark.parametrize(("sampler", "spacing"), [(ddim, "leading"), (ddpm, "leading")])
def test_noise_put_back_has_the_deviation_of_the_posterior(sampler, spacing):
    # Ho et al. 2020, equation 7, of the chain that visits only these timesteps.
    visited, scales = spaced_timesteps(5, spacing), {}
    visited[-1] = -1

    def record(step, scale):
        scales[step] = scale
        return fresh(step, scale)

    sampler(guesses, normal(0), visited, SCHEDULE, record, eta=1.0)
    alphas = [SCHEDULE.alpha_cumprod(t) for t in visited]
    for step, (a, a_next) in enumerate(zip(alphas[:-2], alphas[1:-1], strict=True)):
        variance = (1 - a_next) / (1 - a) * (1 - a / a_next)
        assert scales[step] == pytest.approx(variance**0.5, rel=1e-6)
    assert set(scales) == {0, 1, 2, 3}  # none at the last: the clean picture has no variance


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_without_eta_no_noise_is_asked_for(sampler):
    s = SAMPLERS[sampler]
    s.run(guesses, normal(0), s.timesteps(4), SCHEDULE, no_noise, eta=0.0)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "euler", "euler_ancestral", "heun"])
@pytest.mark.parametrize("middle", [1, 4])
def test_starting_in_the_middle_is_the_rest_of_the_whole_to_the_bit(sampler, middle):
    s, seen = SAMPLERS[sampler], {}
    visited = s.timesteps(6)

    def evaluate(x, timestep, step):
        seen.setdefault(step, x)
        return guesses(x, timestep, step)

    whole = s.run(evaluate, normal(0), visited, SCHEDULE, fresh, eta=0.7)
    start = seen[middle]
    rest = s.run(guesses, start, visited[middle:], SCHEDULE, fresh, eta=0.7, first_step=middle)
    np.testing.assert_array_equal(whole, rest)


@pytest.mark.parametrize("sampler", ["pndm", "lms", "dpmpp_2m"])
def test_a_multistep_sampler_that_starts_in_the_middle_remembers_nothing(sampler):
    s = SAMPLERS[sampler]
    visited = s.timesteps(9)[4:]
    rest = s.run(guesses, normal(0), visited, SCHEDULE, no_noise, first_step=4)
    np.testing.assert_array_equal(rest, s.run(guesses, normal(0), visited, SCHEDULE, no_noise))


@pytest.mark.parametrize(("sampler", "eta"), [(ddim, 0.0), (ddim, 1.0), (ddpm, 1.0)])
def test_a_model_of_white_noise_keeps_noise_white(sampler, eta):
    # If pictures are standard normal, so is every latent; this is the best guess then.
    def evaluate(x, timestep, step):
        signal, noise = SCHEDULE.rates(timestep)
        return Prediction(noise * x, signal * x, x)

    shape = (1, 64, 64, 4)
    x = sampler(
        evaluate,
        normal(1, shape),
        spaced_timesteps(250, "trailing"),
        SCHEDULE,
        lambda step, scale: scale * normal([2, step], shape),
        eta=eta,
    )
    assert x.std() == pytest.approx(1, abs=0.03)


def test_every_sampler_says_what_a_caller_must_know():
    etas = {name: s.eta for name, s in SAMPLERS.items() if s.eta is not None}
    assert etas == {"ddim": 0.0, "ddpm": 1.0, "euler_ancestral": 1.0}
    for s in SAMPLERS.values():
        steps = [step for _, step in told(s.run, s.timesteps(5))]
        assert max(steps.count(step) for step in range(5)) == s.evaluations


def told(sampler, visited):
    """Every evaluation's (timestep, step)."""
    seen = []

    def evaluate(x, timestep, step):
        seen.append((timestep, step))
        return guesses(x, timestep, step)

    sampler(evaluate, normal(0), visited, SCHEDULE, fresh)
    return seen


def test_heun_evaluates_at_both_ends_of_every_step_but_the_last():
    assert told(heun, [900, 500, 100, -1]) == [(900, 0), (500, 0), (500, 1), (100, 1), (100, 2)]
    assert told(heun, [900, 500, 100]) == [(900, 0), (500, 0), (500, 1), (100, 1)]


def test_pndm_repeats_its_first_step():
    assert told(pndm, [900, 500, 100, 0]) == [(900, 0), (500, 0), (500, 1), (100, 2)]
    assert told(pndm, [900, 0]) == [(900, 0)]


# --- what samplers are to each other ---------------------------------------------------------


def test_ancestral_steps_without_noise_are_eulers_to_the_bit():
    visited = sigma_timesteps(20, "karras")
    one = euler_ancestral(guesses, normal(0), visited, SCHEDULE, no_noise, eta=0.0)
    np.testing.assert_array_equal(one, euler(guesses, normal(0), visited, SCHEDULE, no_noise))


@settings(max_examples=20)
@given(latents, st.sampled_from(SPACINGS), st.floats(0, 1))
def test_eulers_path_is_ddims_with_the_same_noise_put_back(x, spacing, eta):
    visited = sigma_timesteps(15, spacing)
    one = euler_ancestral(guesses, x, visited, SCHEDULE, fresh, eta=eta)
    other = ddim(guesses, x, visited, SCHEDULE, fresh, eta=eta)
    np.testing.assert_allclose(one, other, atol=1e-5 * max(1, np.abs(other).max()))


def test_linear_multistep_of_order_one_is_euler():
    visited = sigma_timesteps(12, "karras")
    one = lms(guesses, normal(0), visited, SCHEDULE, no_noise, order=1)
    np.testing.assert_array_equal(one, euler(guesses, normal(0), visited, SCHEDULE, no_noise))


def test_linear_multistep_over_even_noise_levels_has_adams_and_bashforths_weights():
    from xray.samplers import _lagrange_integrals

    weights = _lagrange_integrals([5.0, 5.5, 6.0, 6.5], 4.5)
    assert weights == pytest.approx(-0.5 * np.array([55, -59, 37, -9]) / 24, rel=1e-12)
    uneven = _lagrange_integrals([5.0, 5.1, 7.0, 7.5], 1.0)  # exact for every cubic
    assert sum(uneven) == pytest.approx(-4)
    cubes = np.dot(uneven, np.power([5.0, 5.1, 7.0, 7.5], 3))
    assert cubes == pytest.approx((1 - 5**4) / 4)


# --- on pictures whose answer is known: every pixel drawn from N(0, 0.7²) ----------------------

SPREAD = 0.7


def best(x, timestep, step):
    """The exact denoiser; float64 where x is."""
    sigma = SCHEDULE.sigma(timestep)
    signal = 1 / (1 + sigma**2) ** 0.5
    denoised = x / signal * (SPREAD**2 / (SPREAD**2 + sigma**2))
    return Prediction((x - signal * denoised) / (signal * sigma), denoised, x)


def exact_path(start, end):
    """By how much x grows: d(x√(1+σ²))/dσ = σ x√(1+σ²) / (0.7² + σ²), solved."""

    def size(sigma):
        return ((SPREAD**2 + sigma**2) / (1 + sigma**2)) ** 0.5

    return size(SCHEDULE.sigma(end)) / size(SCHEDULE.sigma(start))


def error(sampler, steps):
    visited = np.linspace(900, 100, steps + 1)
    x = SAMPLERS[sampler].run(best, np.ones(1), visited, SCHEDULE, no_noise, eta=0.0)
    return abs(x.item() / exact_path(900, 100) - 1)


@pytest.mark.parametrize(
    ("sampler", "order"),
    # Fourth-order memories fill up over steps of lower order, which count in the end.
    [("ddim", 1), ("euler", 1), ("heun", 2), ("pndm", 2), ("lms", 2), ("dpmpp_2m", 2)],
)
def test_the_error_falls_with_the_steps_as_the_order_says(sampler, order):
    coarse, fine = error(sampler, 80), error(sampler, 160)
    assert np.log2(coarse / fine) == pytest.approx(order, abs=0.5)
    if order > 1:
        assert fine < error("euler", 160) / 50


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("sampler", ["euler", "heun", "lms", "dpmpp_2m"])
def test_every_spacing_leads_to_the_picture(sampler, spacing):
    s = SAMPLERS[sampler]
    visited = s.timesteps(100, spacing)
    x = s.run(best, normal(0), visited, SCHEDULE, no_noise)
    expected = exact_path(visited[0], -1) * normal(0)
    np.testing.assert_allclose(x, expected, atol=0.06 if sampler == "euler" else 0.02)


def test_without_noise_put_back_ddpm_collapses():
    visited = spaced_timesteps(100, "trailing")
    ends = {
        eta: ddpm(best, normal(0, (1, 32, 32, 4)), visited, SCHEDULE, big_fresh, eta=eta).std()
        for eta in (0.0, 1.0)
    }
    assert ends[1.0] == pytest.approx(SPREAD, rel=0.05) and ends[0.0] < 0.1 * SPREAD


def big_fresh(step, scale):
    return scale * normal([3, step], (1, 32, 32, 4))
