"""`experiments/stabilizing_noise.py`: noise out and noise in by the schedule's own equations."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from running import run, summary

from xray import bands
from xray.samplers import NoiseSchedule, Prediction, ddpm, initial_noise, spaced_timesteps
from xray.studies import stabilizing_noise as study
from xray.studies import stabilizing_noise_figures as drawn

PROMPT = "a big green fish"
SCHEDULE = NoiseSchedule()
REAL = np.random.default_rng(1).normal(0.2, 0.7, (3, 8, 8, 4)).astype(np.float32)

steps = st.tuples(st.integers(1, 999), st.integers(-1, 998)).filter(lambda pair: pair[0] > pair[1])
shares = st.floats(0, 1)


def alphas(t, t_next):
    return SCHEDULE.alpha_cumprod(t), SCHEDULE.alpha_cumprod(t_next)


# --- closed forms ---------------------------------------------------------------------------


@given(steps)
def test_at_eta_0_the_step_is_ddim_s(step):
    taken, fresh = study.exchange(SCHEDULE, *step, eta=0)
    a, a_next = alphas(*step)
    # x' = √ᾱ' x̂₀ + √(1−ᾱ') ε̂, with any x̂₀ and ε̂.
    denoised, noise = 0.7, -1.3
    x = a**0.5 * denoised + (1 - a) ** 0.5 * noise
    expected = a_next**0.5 * denoised + (1 - a_next) ** 0.5 * noise
    assert fresh == 0
    assert (a_next / a) ** 0.5 * x - taken * noise == pytest.approx(expected, abs=1e-9)


@given(steps, st.sampled_from(sorted(study.WAYS)))
def test_at_eta_1_the_step_is_ddpm_s(step, way):
    taken, fresh = study.exchange(SCHEDULE, *step, eta=1, way=way)
    a, a_next = alphas(*step)
    alpha, beta = a / a_next, 1 - a / a_next
    # Ho et al. 2020, algorithm 2 and equation 7.
    assert taken == pytest.approx(beta / (alpha * (1 - a)) ** 0.5, rel=1e-6, abs=1e-9)
    assert fresh**2 == pytest.approx((1 - a_next) / (1 - a) * beta, abs=1e-12)


@given(steps, shares)
def test_exchanged_noise_leaves_as_much_as_the_schedule_says(step, eta):
    taken, fresh = study.exchange(SCHEDULE, *step, eta)
    a, a_next = alphas(*step)
    kept = (a_next / a * (1 - a)) ** 0.5 - taken
    assert kept**2 + fresh**2 == pytest.approx(1 - a_next, abs=1e-9)


@given(steps, shares)
def test_where_noise_is_left_out_as_much_is_taken_out_as_ever(step, share):
    taken, fresh = study.exchange(SCHEDULE, *step, share, way="left out")
    all_taken, all_fresh = study.exchange(SCHEDULE, *step, 1.0)
    assert taken == all_taken and fresh == pytest.approx(share * all_fresh)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("count", [5, 20])
def test_noise_left_is_that_of_a_run_that_knows_the_picture(share, count):
    """The picture is nothing, so all that the latent holds is its noise."""
    timesteps, seen = spaced_timesteps(count, "trailing"), []

    def evaluate(x, t, step):
        seen.append(float(np.sqrt(np.mean(x**2)) / SCHEDULE.rates(t)[1]))
        return Prediction(x / SCHEDULE.rates(t)[1], np.zeros_like(x), x)

    def fresh(step, scale):
        return scale * initial_noise(step + 1, (1, 64, 64, 4))

    # All of the first latent is noise; the schedule says how much there should be.
    x = SCHEDULE.rates(timesteps[0])[1] * initial_noise(0, (1, 64, 64, 4))
    end = ddpm(evaluate, x, timesteps, SCHEDULE, fresh, eta=share)
    expected = study.noise_left(SCHEDULE, timesteps, share)
    np.testing.assert_allclose(seen, expected[:-1], rtol=0.03)
    assert np.abs(end).max() < 1e-6 and expected[-1] == share
    if share == 0:
        levels = [SCHEDULE.sigma(t) for t in timesteps[:-1]]
        np.testing.assert_allclose(seen, np.array(levels) / levels[0] * seen[0], rtol=1e-4)


@given(st.integers(0, 999))
def test_strength_is_that_of_a_noised_latent(timestep):
    real = np.random.default_rng(2).normal(0.3, 0.8, (1, 32, 32, 4)).astype(np.float32)
    power = float(np.mean(real**2))
    noised = SCHEDULE.add_noise(real, initial_noise(3, real.shape), timestep)
    expected = study.strength(SCHEDULE, [timestep], power)
    assert float(np.sqrt(np.mean(noised**2))) == pytest.approx(float(expected[0]), rel=0.04)


def test_strength_counts_only_the_noise_that_is_there():
    assert study.strength(SCHEDULE, [-1, 999], 4.0, [0.0, 0.0])[0] == 2
    assert study.strength(SCHEDULE, [999], 0.0, 0.5)[0] == pytest.approx(
        0.5 * SCHEDULE.rates(999)[1]
    )


# --- runs -----------------------------------------------------------------------------------


ETAS = (0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def measured(model):
    ticks, before = [], model.unet.traces
    data = study.measure(
        model, PROMPT, etas=ETAS, seeds=[5, 6], real=REAL, tick=lambda *_: ticks.append(1),
        steps=4, guidance=3.0, spacing="trailing",
    )  # fmt: skip
    assert len(ticks) == 2 * 3 * 2 * 4
    assert model.unet.traces - before <= 1
    return data


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("way", sorted(study.WAYS))
@pytest.mark.parametrize("eta", ETAS)
def test_latents_go_as_exchange_says(model, way, eta, spacing):
    trace = model.generate(
        PROMPT, sampler=study.WAYS[way], eta=eta, steps=4, seed=5, spacing=spacing
    )
    end = -1.0 if way == "left out" else spaced_timesteps(4, spacing)[-1]
    times = [*trace.timesteps, end]
    latents = np.concatenate([trace["sampler/latent"].values, trace["sampler/out"].values[None]])
    noise = trace["sampler/noise"].values
    added = trace["sampler/added_noise"].values if eta else np.zeros_like(noise)
    for k, (t, t_next) in enumerate(zip(times, times[1:], strict=False)):
        a, a_next = alphas(t, t_next)
        taken, _ = study.exchange(SCHEDULE, t, t_next, eta, way)
        expected = (a_next / a) ** 0.5 * latents[k] - taken * noise[k] + added[k]
        scale = (a_next / a) ** 0.5 * np.abs(latents[k]).max()
        np.testing.assert_allclose(latents[k + 1], expected, atol=1e-5 * scale)


def test_noise_put_back_has_the_scale_of_the_schedule(measured):
    assert (measured["fresh"].sel(eta=0) == 0).all() and (
        measured["fresh_rate"].sel(eta=0) == 0
    ).all()
    count = 8 * 8 * 4
    for eta in (0.5, 1.0):
        fresh, rate = (measured[k].sel(eta=eta) for k in ("fresh", "fresh_rate"))
        assert (fresh.isel(step=-1) == 0).all() and (rate.isel(step=-1) == 0).all()
        # The mean square of n standard normals is 1 ± √(2/n).
        square = (fresh / rate).isel(step=slice(0, -1)) ** 2
        assert float(abs(square - 1).max()) < 4.5 * (2 / count) ** 0.5


def test_noise_taken_out_is_the_rate_times_the_prediction(measured, model):
    trace = model.generate(
        PROMPT, sampler="ddim", eta=0.5, steps=4, seed=5, guidance=3.0, spacing="trailing"
    )
    row = measured.sel(way="exchanged", eta=0.5)
    noise = trace["sampler/noise"].values[:, 0]
    np.testing.assert_array_equal(row["noise"], noise)
    rms = np.sqrt((noise.astype(float) ** 2).mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(row["taken"].sel(image=5), row["taken_rate"] * rms, rtol=1e-6)


def test_at_eta_1_both_ways_are_ddpm(measured):
    """To rounding: the two write the same step in other words."""
    one, other = (measured.sel(way=way, eta=1.0) for way in study.WAYS)
    for name in ("taken_rate", "fresh_rate", "fresh"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-9)
    np.testing.assert_allclose(one["denoised"], other["denoised"], atol=1e-2)
    np.testing.assert_allclose(one["rms"], other["rms"], rtol=1e-4)


def test_what_is_expected_comes_from_the_real_latents(measured):
    power = (REAL.astype(float) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(measured["rms_expected"].isel(point=-1), np.sqrt(power))
    found = bands.octaves(8, 8)
    fine = np.sqrt(bands.energy(REAL, found)[:, -1])
    np.testing.assert_allclose(measured["fine_expected"].isel(point=-1), fine)
    a = SCHEDULE.alpha_cumprod(999)
    np.testing.assert_allclose(
        measured["rms_expected"].isel(point=0), np.sqrt(a * power + 1 - a), rtol=1e-12
    )
    mean = measured["rms_expected"].mean("real")
    np.testing.assert_allclose(measured["rms_left"].isel(point=0), mean[0])  # nothing lacks yet
    np.testing.assert_allclose(measured["rms_left"].sel(eta=1), mean)  # nor where all comes back


def test_the_table_compares_with_what_is_expected(measured):
    rows = study.findings(measured)
    assert [(row["noise"], row["eta"]) for row in rows] == [
        (way, eta) for way in study.WAYS for eta in ETAS
    ]
    row = rows[1]
    one = measured.sel(way="exchanged", eta=0.5)
    latent = one["rms"].isel(point=2) / measured["rms_expected"].isel(point=2).mean()
    assert row["latent"] == pytest.approx(float(latent.mean()))
    assert row["put back"] == pytest.approx(float(one["fresh"].mean()))
    finished = one["fine"].isel(point=-1) / measured["fine_expected"].isel(point=-1).mean()
    assert row["finished"] == pytest.approx(float(finished.mean()))


# --- drawn ----------------------------------------------------------------------------------


def test_the_balance_is_drawn_by_what_is_expected(measured):
    panels = iter(drawn.balance_figure(measured, "so").axes)
    for name in ("rms", "fine"):
        expected = measured[f"{name}_expected"].mean("real")
        for way in study.WAYS:
            lines = next(panels).lines
            solid = {line.get_label(): line.get_ydata() for line in lines}
            for eta in ETAS:
                ratio = measured[name].sel(way=way, eta=eta).mean("image") / expected
                np.testing.assert_allclose(solid[f"{eta:g}"], ratio)
            dotted = [line.get_ydata() for line in lines if line.get_linestyle() == ":"]
            left = measured[f"{name}_left"] / expected if way == "left out" else []
            np.testing.assert_allclose(dotted, left)


def test_pictures_stand_under_their_eta(measured):
    shown = [axes.images[0].get_array() for axes in drawn.pictures_figure(measured, "so").axes]
    pictures = measured["picture"].transpose("way", "image", "eta", ...).values
    np.testing.assert_array_equal(shown, pictures.reshape(-1, 64, 64, 3))


# --- the script -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ended(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "noise"
    with pytest.MonkeyPatch.context() as patch:
        result = run(
            patch, model, "stabilizing_noise", "--prompt", PROMPT, "--eta", 0.5, "--picture",
            "scene:3", "--picture", "china", "--images", 2, "--steps", 3, "--width", 128,
            "--height", 64, "--seed", 5,
            "--negative", "fog", "--guidance", 3, "--out", out,
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    return out, result


def test_the_script_leaves_figures_data_and_summary(ended):
    out, result = ended
    assert sorted(p.name for p in out.iterdir()) == ["data.zarr", "figures", "summary.json"]
    assert sorted(p.stem for p in (out / "figures").iterdir()) == ["balance", "pictures", "steps"]
    found = summary(out)
    assert [row["eta"] for row in found["found"]] == [0, 0.5, 1] * 2  # both ends are always there
    assert found["pictures"] == ["scene:3", "china"] and "put back" in result.stdout


def test_headings_say_how_the_pictures_were_made(ended):
    """Also what they were to keep away from."""
    told = ended[1].headings
    for part in ("negative prompt “fog”", "guidance 3", "steps 3"):
        assert told and all(part in each for each in told)


def test_the_data_opens_with_plain_xarray(ended):
    data = xr.open_zarr(ended[0] / "data.zarr").load()
    assert data["picture"].shape == (2, 3, 2, 64, 128, 3) and data["picture"].dtype == np.uint8
    assert data["rms"].shape == (2, 3, 2, 4) and data["noise"].shape == (2, 3, 3, 8, 16, 4)
    assert data["rms_expected"].shape == (2, 4) and data["image"].values.tolist() == [5, 6]
    assert data["end"].values.tolist() == [999, 666, 332, -1]
