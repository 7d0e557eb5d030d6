"""`experiments/samplers.py`: errors against an equation whose solution is known, costs, planes."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from running import run, summary

from xray.samplers import SAMPLERS, SPACINGS, NoiseSchedule, Prediction, initial_noise
from xray.studies import samplers as study
from xray.studies import samplers_figures as drawn

PROMPT = "a big green fish"
SCHEDULE = NoiseSchedule()
MEAN, SPREAD = np.float32(0.6), np.float32(0.4)
SHAPE = (4, 4, 4)


# --- an equation that is solved -------------------------------------------------------------


def denoised(x, t):
    """The best estimate where pictures are normal: their mean, and what x says beside it."""
    a = SCHEDULE.alpha_cumprod(t)
    share = np.float32(a**0.5 * SPREAD**2 / (a * SPREAD**2 + 1 - a))
    return MEAN + share * (x - np.float32(a**0.5) * MEAN)


def solution(x):
    """Where the probability flow of such pictures, which only scales, leads from the last timestep.

    To the first timestep, whose noise is the least there is; from there every run takes one step.
    """
    (a, spread), (a0, spread0) = (
        (alpha, (alpha * SPREAD**2 + 1 - alpha) ** 0.5)
        for alpha in map(SCHEDULE.alpha_cumprod, (999, 0))
    )
    least = a0**0.5 * MEAN + spread0 / spread * (x - a**0.5 * MEAN)
    return denoised(least, 0)


def solved(asked: study.Run, seed: int) -> study.Made:
    """A run in which the network is `denoised`."""
    path, count, last = [], [0], [-1]

    def evaluate(x, t, step):
        count[0] += 1
        if step != last[0]:
            last[0] = step
            path.append(x[0])
        found = denoised(x, t)
        signal, noise = SCHEDULE.rates(t)
        return Prediction((x - signal * found) / noise, found, x)

    def fresh(step, scale):
        return scale * np.random.default_rng([seed, step + 1]).standard_normal(
            (1, *SHAPE), np.float32
        )

    sampler = SAMPLERS[asked.sampler]
    x = initial_noise(seed, SHAPE)[None]
    end = sampler.run(
        evaluate, x, sampler.timesteps(asked.steps, asked.spacing), SCHEDULE, fresh,
        eta=sampler.eta or 0.0,
    )  # fmt: skip
    pixels = np.zeros((8, 8, 3), np.uint8)
    return study.Made(np.stack([*path, end[0]]), pixels, count[0], 0.1 * count[0])


def all_solved(seeds=(3, 4), **asked):
    planned = study.plan(**asked)
    made = {(each, seed): solved(each, seed) for seed in seeds for each in planned.all}
    return study.compare(made, planned), made, planned


@pytest.fixture(scope="module")
def gaussian():
    return all_solved(steps=(10, 20, 40, 80), reference=200)


def test_the_reference_is_the_solution_within_its_doubt(gaussian):
    data, made, planned = gaussian
    for seed, doubt in zip((3, 4), data["doubt"].values, strict=True):
        true = solution(initial_noise(seed, SHAPE))
        error = study.distance(made[planned.reference, seed].path[-1], true)
        assert error < 2 * doubt < 5e-3


def test_errors_are_those_from_the_true_solution(gaussian):
    data, made, planned = gaussian
    true = solution(initial_noise(3, SHAPE))
    for (name, n), asked in planned.by_steps.items():
        if study.deterministic(name):
            error = study.distance(made[asked, 3].path[-1], true)
            found = float(data["distance"].sel(sampler=name, steps=n, image=3))
            assert found == pytest.approx(error, abs=2 * float(data["doubt"].max()))


@pytest.mark.parametrize("sampler", ["ddim", "euler", "heun", "lms", "dpmpp_2m"])
def test_errors_fall_with_the_steps(gaussian, sampler):
    errors = gaussian[0]["distance"].median("image").sel(sampler=sampler).values
    assert (np.diff(errors) < 0).all()
    # DDIM is of first order: half the error for twice the steps.
    assert errors[-1] / errors[-2] < 0.6


def test_higher_orders_pay(gaussian):
    errors = gaussian[0]["distance"].median("image").sel(steps=80)
    assert float(errors.sel(sampler="lms")) < 0.5 * float(errors.sel(sampler="ddim"))
    assert float(errors.sel(sampler="dpmpp_2m")) < 0.5 * float(errors.sel(sampler="ddim"))


def test_two_samplers_are_others_under_another_name(gaussian):
    assert study.same_path(gaussian[0]) == {"euler": "ddim", "euler_ancestral": "ddpm"}


def test_only_who_puts_no_noise_back_has_an_error(gaussian):
    data = gaussian[0]
    for row in study.findings(data):
        errors = [value for key, value in row.items() if key.startswith("error")]
        solves = row["sampler"] not in ("ddpm", "euler_ancestral")
        assert len(errors) == 4
        assert all((value is not None) == solves for value in errors)
        assert (row["other"] is None) == solves
    found = {row["sampler"] for row in study.spacing_findings(data)}
    assert found == set(SAMPLERS) - {"ddpm", "euler_ancestral"}


def test_under_a_picture_stands_its_own_distance(gaussian):
    """Not that of other seeds, whose pictures are not shown."""
    data = gaussian[0]
    told = [text.get_text() for text in drawn.pictures_figure(data, "").texts]
    noisy = data["distance"].sel(sampler="ddpm")
    own, median = (
        [f"{each:.2f} away" for each in values.values.tolist()]
        for values in (noisy.sel(image=3), noisy.median("image"))
    )
    assert own != median and set(own) <= set(told)
    error = float(data["distance"].sel(sampler="ddim", steps=10, image=3))
    assert f"error {error:.2f}" in told


def test_curves_are_the_median_error_over_each_cost(gaussian):
    data = gaussian[0]
    evaluations, steps, seconds = drawn.errors_figure(data, "").axes
    curves = {line.get_label(): line for line in evaluations.lines}
    assert set(curves) == {"DDIM", "PNDM", "Euler", "Heun", "LMS", "DPM-Solver++(2M)"}
    heun = data.sel(sampler="heun")
    np.testing.assert_array_equal(curves["Heun"].get_xdata(), 2 * heun["steps"] - 1)
    np.testing.assert_array_equal(curves["Heun"].get_ydata(), heun["distance"].median("image"))
    for axes in (steps, seconds):
        assert len(axes.lines) == 6 and axes.get_ylim() == evaluations.get_ylim()


def test_a_spacing_is_compared_where_it_is_taken(gaussian):
    data, made, planned = gaussian
    rows = {row["sampler"]: row for row in study.spacing_findings(data)}
    assert data.attrs["middle"] == 40
    for name in ("ddim", "pndm"):
        assert rows[name]["karras"] is None and rows[name]["exponential"] is None
    ends = [made[study.Run("heun", 40, "karras"), s].path[-1] for s in (3, 4)]
    long = [made[planned.reference, s].path[-1] for s in (3, 4)]
    expected = np.median([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(ends, long)])
    assert rows["heun"]["karras"] == pytest.approx(expected, rel=1e-5)
    same = float(data["distance"].median("image").sel(sampler="lms", steps=40))
    assert rows["lms"]["trailing"] == same


# --- the plane ------------------------------------------------------------------------------


def test_what_lies_in_a_plane_keeps_its_distances():
    random = np.random.default_rng(0)
    axes = np.linalg.qr(random.standard_normal((64, 2)))[0].T.reshape(2, 4, 4, 4)
    places = random.standard_normal((3, 5, 2)) * [3.0, 1.0]
    aside = random.standard_normal((4, 4, 4))
    latents = np.tensordot(places, axes, 1) + aside
    (found, other), explained = study.in_plane(latents, latents[0])
    np.testing.assert_allclose(other, found[0])
    flat, flat_places = found.reshape(-1, 2), places.reshape(-1, 2)
    apart = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    np.testing.assert_allclose(
        apart, np.linalg.norm(flat_places[:, None] - flat_places[None], axis=-1), atol=1e-9
    )
    assert explained.sum() == pytest.approx(1) and explained[0] > explained[1]
    assert explained == pytest.approx(flat.var(axis=0) / places.reshape(-1, 2).var(axis=0).sum())


# --- what is asked --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"samplers": ["plms"]}, "'plms' is not one of ddim"),
        ({"steps": (5, 50), "reference": 50}, "50 steps must have more .* which have up to 50"),
        ({"steps": ()}, "a comparison needs"),
        ({"reference": 1001}, "at most 1000"),
    ],
)
def test_what_makes_no_comparison_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        study.plan(**asked)


def test_runs_that_serve_twice_are_made_once():
    planned = study.plan(["lms", "ddpm", "lms"], [4, 2, 4, 8], reference=16)
    assert len(planned.all) == 2 + 2 * 3 + len(SPACINGS) - 1
    assert planned.all[0] == planned.reference
    assert planned.steps == 16 + 8 + 2 * (2 + 4 + 8) + 4 * (len(SPACINGS) - 1)


# --- runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(model):
    planned = study.plan(steps=(2, 3), reference=4)
    ticks, before = [], model.unet.traces
    found = study.make(model, PROMPT, planned, [5], lambda *_: ticks.append(1), guidance=4.0)
    return found, planned, len(ticks), model.unet.traces - before


def test_one_traced_program_serves_all(made):
    _, planned, ticks, traced = made
    assert traced <= 1 and ticks == planned.steps


def test_evaluations_are_counted(made):
    found, planned, *_ = made
    twice = {"heun": 2 * 3 - 1, "pndm": 3 + 1}
    for name in SAMPLERS:
        assert found[planned.by_steps[name, 3], 5].evaluations == twice.get(name, 3)
    assert all(each.seconds > 0 for each in found.values())


def test_paths_lead_from_the_noise_to_generate_s_end(made, model):
    found, planned, *_ = made
    for name in ("heun", "ddpm"):
        one = found[planned.by_steps[name, 3], 5]
        trace = model.generate(
            PROMPT, sampler=name, steps=3, spacing="trailing", seed=5, guidance=4.0
        )
        np.testing.assert_array_equal(one.path[0], initial_noise(5, (8, 8, 4)))
        np.testing.assert_array_equal(one.path[-1], trace["sampler/out"].values[0])
        np.testing.assert_array_equal(one.pixels, trace["image"].values[0])
        middle = trace.sel("sampler/latent", step=1, evaluation=0).values[0]
        np.testing.assert_array_equal(one.path[1], middle)


# --- the script -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ended(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "samplers"
    with pytest.MonkeyPatch.context() as patch:
        result = run(
            patch, model, "samplers", "--prompt", PROMPT, "--steps", 2, "--steps", 3,
            "--reference", 4, "--images", 2, "--width", 128, "--height", 64, "--seed", 5,
            "--negative", "fog", "--guidance", 3, "--out", out,
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    return out, result


def test_the_script_leaves_figures_data_and_summary(ended):
    out, result = ended
    assert sorted(p.name for p in out.iterdir()) == ["data.zarr", "figures", "summary.json"]
    assert sorted(p.stem for p in (out / "figures").iterdir()) == [
        "errors", "paths", "pictures", "spacings",
    ]  # fmt: skip
    assert "compared with dpmpp_2m, 4 steps, karras" in result.stdout
    found = summary(out)
    assert [row["sampler"] for row in found["found"]] == list(SAMPLERS)
    assert found["found"][3]["path of"] == "ddim" and found["doubt"] > 0


def test_headings_say_how_the_pictures_were_made(ended):
    """Also what they were to keep away from."""
    told = ended[1].headings
    for part in ("negative prompt “fog”", "guidance 3"):
        assert told and all(part in each for each in told)


def test_the_data_opens_with_plain_xarray(ended):
    data = xr.open_zarr(ended[0] / "data.zarr").load()
    assert data["distance"].shape == (8, 2, 2) and data["image"].values.tolist() == [5, 6]
    assert data["path"].shape == (8, 4, 8, 16, 4) and data["long"].shape == (5, 8, 16, 4)
    assert data["picture"].shape == (8, 2, 64, 128, 3) and data["picture"].dtype == np.uint8
    end, long = (data[k].values.astype(float) for k in ("path", "long"))
    apart = [np.linalg.norm(x - long[-1]) / np.linalg.norm(long[-1]) for x in end[:, -1]]
    np.testing.assert_allclose(data["distance"].sel(steps=3, image=5), apart, rtol=1e-6)


def test_samplers_that_all_put_noise_back_are_shown_without_errors(model, monkeypatch, tmp_path):
    result = run(
        monkeypatch, model, "samplers", "--sampler", "ddpm", "--steps", 2, "--reference", 3,
        "--out", tmp_path / "a",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert sorted(p.stem for p in (tmp_path / "a" / "figures").iterdir()) == ["paths", "pictures"]
    assert summary(tmp_path / "a")["spacings"] == []
