"""Runs with every sampler: what is recorded is what was computed, evaluation by evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import typer
import xarray as xr

import xray
from xray import edits, plots, summary, wordmaps
from xray.samplers import SAMPLERS, NoiseSchedule, initial_noise
from xray.taps import edit

PROMPT = "a red star above a blue moon"
SCHEDULE = NoiseSchedule()
SKIP = "unet/up.1/skip.0"
f32 = np.float32


def run(model, sampler, **kwargs):
    return model.generate(PROMPT, sampler=sampler, **{"steps": 5, "seed": 7, **kwargs})


def equal(a, b, *sites):
    return all(np.array_equal(a[s].values, b[s].values, equal_nan=True) for s in sites)


# --- the equation, from the recording ---------------------------------------------------------


class Recorded:
    """What stands in a trace of step k, and the noise levels of the step."""

    def __init__(self, trace, timesteps):
        self.sites = {s: trace[f"sampler/{s}"].values for s in ("latent", "noise", "denoised")}
        self.added = trace["sampler/added_noise"].values if trace.attrs["eta"] else None
        self.sigmas = [SCHEDULE.sigma(t) for t in timesteps]
        self.alphas = [SCHEDULE.alpha_cumprod(t) for t in timesteps]

    def at(self, site, k, evaluation=0):
        values = self.sites[site][k]
        return values[evaluation] if values.ndim == 5 else values

    def big(self, k, evaluation=0):
        """x₀ + σ ε."""
        sigma = self.sigmas[k + evaluation]
        return self.at("latent", k, evaluation) * f32((1 + sigma**2) ** 0.5)

    def slope(self, k, evaluation=0):
        above = self.big(k, evaluation) - self.at("denoised", k, evaluation)
        return above / f32(self.sigmas[k + evaluation])

    def small(self, big, k):
        return big / f32((1 + self.sigmas[k + 1] ** 2) ** 0.5)


def ddim(r, k):
    a_next = r.alphas[k + 1]
    return f32(a_next**0.5) * r.at("denoised", k) + f32((1 - a_next) ** 0.5) * r.at("noise", k)


def ddpm(r, k):
    a, a_next = r.alphas[k], r.alphas[k + 1]
    return (
        f32(a_next**0.5 * (1 - a / a_next) / (1 - a)) * r.at("denoised", k)
        + f32((a / a_next) ** 0.5 * (1 - a_next) / (1 - a)) * r.at("latent", k)
        + r.added[k]
    )


def euler(r, k):
    return r.small(r.big(k) + f32(r.sigmas[k + 1] - r.sigmas[k]) * r.slope(k), k)


def euler_ancestral(r, k):
    sigma, sigma_next = r.sigmas[k], r.sigmas[k + 1]
    up = (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5
    down = (sigma_next**2 - up**2) ** 0.5
    return r.small(r.big(k) + f32(down - sigma) * r.slope(k), k) + r.added[k]


def heun(r, k):
    ahead = f32(r.sigmas[k + 1] - r.sigmas[k])
    there = r.small(r.big(k) + ahead * r.slope(k), k)
    if not r.sigmas[k + 1]:
        return there
    np.testing.assert_array_equal(there, r.at("latent", k, 1))
    return r.small(r.big(k) + ahead * ((r.slope(k) + r.slope(k, 1)) / 2), k)


def lms(r, k):
    """The integrals of Lagrange's polynomials, by NumPy's polynomials."""
    nodes = r.sigmas[max(0, k - 3) : k + 1][::-1]
    x = r.big(k)
    for j, own in enumerate(nodes):
        others = nodes[:j] + nodes[j + 1 :]
        lagrange = np.polynomial.Polynomial.fromroots(others) if others else 1
        lagrange = lagrange / np.prod([own - other for other in others])
        integral = (np.polynomial.Polynomial([1]) * lagrange).integ()
        x = x + f32(integral(r.sigmas[k + 1]) - integral(nodes[0])) * r.slope(k - j)
    return r.small(x, k)


def pndm(r, k):
    a, a_next = r.alphas[k], r.alphas[k + 1]
    of_x = f32((a_next / a) ** 0.5)
    root = ((1 - a_next) * a) ** 0.5 + ((1 - a) * a_next) ** 0.5
    of_noise = f32((a_next - a) / (a**0.5 * root))
    x, noise = r.at("latent", k), [r.at("noise", max(k - j, 0)) for j in range(4)]
    if k == 0:
        there = of_x * x - of_noise * noise[0]
        np.testing.assert_array_equal(there, r.at("latent", 0, 1))
        mixed = (noise[0] + r.at("noise", 0, 1)) / 2
    elif k == 1:
        mixed = f32(3 / 2) * noise[0] + f32(-1 / 2) * noise[1]
    elif k == 2:
        mixed = f32(23 / 12) * noise[0] + f32(-16 / 12) * noise[1] + f32(5 / 12) * noise[2]
    else:
        mixed = f32(55 / 24) * noise[0] + f32(-59 / 24) * noise[1]
        mixed = mixed + f32(37 / 24) * noise[2] + f32(-9 / 24) * noise[3]
    return of_x * x - of_noise * mixed


def dpmpp_2m(r, k):
    a, a_next = r.alphas[k], r.alphas[k + 1]
    shrink = r.sigmas[k + 1] / r.sigmas[k]
    guess = r.at("denoised", k)
    if k and shrink:
        ratio = np.log(shrink) / np.log(r.sigmas[k] / r.sigmas[k - 1]) / 2
        guess = guess + f32(ratio) * (guess - r.at("denoised", k - 1))
    part = f32(((1 - a_next) / (1 - a)) ** 0.5) * r.at("latent", k)
    return part + f32(a_next**0.5 * (1 - shrink)) * guess


BY_HAND = [ddim, ddpm, euler, euler_ancestral, heun, lms, pndm, dpmpp_2m]


@pytest.mark.parametrize("by_hand", BY_HAND)
def test_the_next_latent_follows_from_what_is_recorded_to_the_bit(model, by_hand):
    sampler = by_hand.__name__
    for spacing in ("leading", "linspace" if by_hand in (ddim, ddpm, pndm) else "karras"):
        trace = run(model, sampler, steps=6, spacing=spacing)
        end = -1 if by_hand is ddpm else SAMPLERS[sampler].timesteps(6, spacing)[-1]
        recorded = Recorded(trace, [*trace.timesteps, end])
        out = trace["sampler/out"].values
        for k in trace.steps:
            following = recorded.at("latent", k + 1) if k < 5 else out
            np.testing.assert_array_equal(by_hand(recorded, k), following, err_msg=f"step {k}")


def test_every_sampler_is_recomputed_here():
    assert {by_hand.__name__ for by_hand in BY_HAND} == set(SAMPLERS)


# --- two evaluations in a step ----------------------------------------------------------------

SITES = ["sampler/*", "unet/time", "unet/mid/attn.0/cross/weights"]
TWICE = {"heun": [0, 1, 2, 3], "pndm": [0]}  # of five steps


@pytest.fixture(scope="module", params=TWICE)
def trace(request, model):
    return run(model, request.param, record=SITES)


def test_what_is_recorded_at_every_step_has_the_dimension_evaluation(model, trace):
    for site, spec in trace.specs.items():
        assert ("evaluation" in spec.dims) == spec.per_step, site
    assert trace["unet/time"].dims == ("step", "evaluation", "branch", "image", "channel")
    assert trace["sampler/latent"].coords["evaluation"].values.tolist() == [0, 1]
    twice = TWICE[trace.attrs["sampler"]]
    for site in ("sampler/latent", "sampler/noise", "sampler/denoised", "unet/time", SITES[2]):
        first, second = (trace.sel(site, evaluation=e).values for e in (0, 1))
        assert np.isfinite(first).all()
        for k in trace.steps:
            assert (np.isfinite if k in twice else np.isnan)(second[k]).all(), (site, k)


def test_the_second_evaluation_is_at_the_next_timestep(model, trace):
    first, second = (trace.sel("unet/time", evaluation=e).values for e in (0, 1))
    for k in TWICE[trace.attrs["sampler"]]:
        np.testing.assert_array_equal(second[k], first[k + 1])
    context = np.concatenate([model.embed("").values, model.embed(PROMPT).values])
    latent = trace.sel("sampler/latent", step=0, evaluation=1).values
    said = model.predict(np.repeat(latent, 2, axis=0), trace.timesteps[1], context)
    recorded = trace.sel("sampler/noise_cond", step=0, evaluation=1).values
    assert np.abs(said[1] - recorded[0]).max() <= 1e-5 * recorded.std()


def test_evaluations_are_selected_by_number(model, trace):
    one = trace.sel("sampler/latent", step=0, evaluation=1)
    assert one.dims == ("image", "y", "x", "channel")
    np.testing.assert_array_equal(one.values, trace["sampler/latent"].values[0, 1])
    with pytest.raises(xray.TraceError, match="sampler/latent has no evaluation 2; it has 0 to 1"):
        trace.sel("sampler/latent", evaluation=2)
    single = run(model, "ddim")
    np.testing.assert_array_equal(
        single.sel("sampler/latent", step=1, evaluation=0).values,
        single.sel("sampler/latent", step=1).values,
    )
    with pytest.raises(xray.TraceError, match="has no evaluation 1; it has 0 to 0"):
        single.sel("sampler/latent", evaluation=1)


def test_recording_two_evaluations_changes_no_bit(model, trace):
    nothing = run(model, trace.attrs["sampler"], record=[])
    assert equal(nothing, trace, "sampler/out", "image")


def test_two_evaluations_are_stored_opened_and_replayed(model, trace, tmp_path):
    sampler = trace.attrs["sampler"]
    stored = run(model, sampler, record=SITES, store=tmp_path / "run.zarr")
    assert stored.sites == trace.sites and equal(stored, trace, *trace.sites)
    with xr.open_datatree(tmp_path / "run.zarr", engine="zarr") as tree:
        assert tree["sampler/latent/value"].dims[:2] == ("step", "evaluation")
    again = xray.open(tmp_path / "run.zarr").replay(model)
    assert again.equal and len(again.rows) > 5


def test_edits_are_on_in_both_evaluations(model):
    damped = run(model, "heun", edit=edit("sampler/denoised", edits.scale, factor=0.5, steps=[1]))
    plain = run(model, "heun")
    for site in ("latent", "denoised"):
        np.testing.assert_array_equal(
            damped.sel(f"sampler/{site}", step=0).values,
            plain.sel(f"sampler/{site}", step=0).values,
        )
    noise, x, said = (
        damped.sel(f"sampler/{s}", step=1, evaluation=1).values
        for s in ("noise", "latent", "denoised")
    )
    whole = SCHEDULE.to_denoised(noise, x, damped.timesteps[2])
    np.testing.assert_array_equal(said, f32(0.5) * whole)


def test_an_interrupted_run_keeps_whole_steps_only(model):
    def stop(done, steps):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        run(model, "heun", progress=stop)
    kept = raised.value.trace
    assert kept.steps == [0, 1] and np.isfinite(kept["sampler/latent"].values).all()


def test_figures_and_numbers_are_of_the_first_evaluation(model, trace):
    by_step = plots.step_statistics(trace)
    first = trace.sel("sampler/latent", evaluation=0)
    assert by_step["latent_std"] == pytest.approx([x.std() for x in first.values[:, 0]], rel=1e-6)
    assert None not in by_step["cosine"]
    made = plots.figures(trace, model)
    assert set(made) == {"timeline", "statistics", "word_maps", "special_tokens"}
    words = [t.get_text() for f in made.values() for t in f.texts]
    assert sum("first evaluation of each step" in each for each in words) == 4
    maps = wordmaps.word_maps(trace)
    assert maps.coords["maps"].item() == 5 * 2 and np.isfinite(maps.values).all()
    whole = summary.overall(trace, "sampler/latent")
    assert whole["nan"] == 0 and whole["std"] == pytest.approx(first.values.std(), rel=1e-6)
    assert summary.of_trace(trace)["sites"]["sampler/latent"]["shape"] == [5, 2, 1, 8, 8, 4]


def test_studies_take_the_first_evaluation(trace):
    from xray.studies import denoising_steps, guidance

    settled = denoising_steps.settling([trace], SCHEDULE)
    assert settled.distance.shape[:2] == (1, 5) and np.isfinite(settled.distance).all()
    push = guidance.push(trace, SCHEDULE)
    cond, uncond = (
        trace.sel(f"sampler/noise_{b}", step=2, evaluation=0).values[0] for b in ("cond", "uncond")
    )
    expected = -SCHEDULE.sigma(trace.timesteps[2]) * (cond - uncond)
    np.testing.assert_allclose(push.push.sel(step=2), expected, rtol=1e-4, atol=1e-6)


# --- starting in the middle -------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "heun"])
def test_a_recorded_latent_leads_to_the_rest_of_its_run_to_the_bit(model, sampler):
    whole = run(model, sampler)
    latent = whole.sel("sampler/latent", step=2, evaluation=0)
    rest = run(model, sampler, latent=latent, start_step=2)
    assert rest.steps == [2, 3, 4] and rest.timesteps == whole.timesteps[2:]
    np.testing.assert_array_equal(rest["sampler/latent"].values, whole["sampler/latent"].values[2:])
    assert equal(rest, whole, "sampler/out", "image")
    assert equal(model.resume(whole, 3), whole, "sampler/out", "image")


@pytest.mark.parametrize("sampler", ["lms", "pndm", "dpmpp_2m"])
def test_a_multistep_run_from_the_middle_remembers_nothing_and_is_replayed(model, sampler):
    whole = run(model, sampler)
    latent = whole.sel("sampler/latent", step=2, evaluation=0)
    rest = run(model, sampler, latent=latent, start_step=2)
    first = rest.sel("sampler/noise", step=2, evaluation=0).values
    np.testing.assert_array_equal(first, whole.sel("sampler/noise", step=2, evaluation=0).values)
    assert not equal(rest, whole, "sampler/out")
    if sampler == "pndm":  # its first step is repeated, whichever that is
        second = rest.sel("sampler/latent", evaluation=1).values
        assert np.isfinite(second[0]).all() and np.isnan(second[1:]).all()
    assert model.replay(rest).equal


@pytest.mark.parametrize("sampler", ["heun", "pndm"])
def test_one_step_may_have_one_evaluation_only(model, sampler):
    trace = run(model, sampler, steps=1)
    second = trace.sel("sampler/latent", evaluation=1).values
    assert second.shape == (1, 1, 8, 8, 4) and np.isnan(second).all()
    assert trace.image.size == (64, 64)


# --- what is asked ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"sampler": "heun", "eta": 0.5}, "heun puts no noise back, so eta 0.5 .*: ddim, ddpm, eu"),
        ({"sampler": "pndm", "spacing": "karras"}, "'karras' is not leading, trailing or linspace"),
        ({"sampler": "lms", "spacing": "even"}, "'even' is not one of leading, .* exponential"),
        ({"sampler": "plms"}, "'plms' is not one of ddim, ddpm, pndm, euler, euler_ancestral, heu"),
        ({"sampler": "dpmpp_2m", "steps": 1001}, "steps must be a whole number 1 … 1000, got 1001"),
    ],
)
def test_what_a_sampler_cannot_do_is_refused(model, asked, message):
    with pytest.raises(ValueError, match=message):
        model.plan(PROMPT, **asked)


def test_all_names_stand_where_people_look_for_them(model):
    from xray import options
    from xray.samplers import SPACINGS

    said = {name: getattr(options, name).__metadata__[0].help for name in ("Sampler", "Spacing")}
    for sampler in SAMPLERS:
        assert sampler in said["Sampler"] and f'``"{sampler}"``' in model.generate.__doc__
    for spacing in SPACINGS:
        assert spacing in said["Spacing"] and f'``"{spacing}"``' in model.generate.__doc__


@pytest.mark.parametrize(("check", "name"), [("known_sampler", "plms"), ("known_spacing", "even")])
def test_an_unknown_name_is_refused_before_anything_is_loaded(capsys, check, name):
    from xray import options

    with pytest.raises(typer.Exit):
        getattr(options, check)(name)
    assert f"{name!r} is not one of" in capsys.readouterr().err


def test_without_eta_no_noise_is_recorded(model):
    assert "sampler/added_noise" not in run(model, "heun", eta=0)
    assert "sampler/added_noise" in run(model, "euler_ancestral")
    with pytest.raises(xray.SiteError, match="at eta 0 no noise is put back"):
        model.plan(PROMPT, sampler="lms", record=["sampler/added_noise"])


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_a_noised_picture_starts_at_the_samplers_own_timestep(model, sampler):
    picture = np.full((64, 64, 3), 128, np.uint8)
    latent, start = model.noised(picture, 0.5, steps=4, sampler=sampler, spacing="karras")
    trace = run(model, sampler, steps=4, spacing="karras", latent=latent, start_step=start)
    expected = SCHEDULE.add_noise(
        model.encode(picture).values, initial_noise(0, (1, 8, 8, 4)), trace.timesteps[0]
    )
    np.testing.assert_array_equal(latent, expected)
    with pytest.raises(ValueError, match="sampler 'plms' is not one of"):
        model.noised(picture, 0.5, sampler="plms")
