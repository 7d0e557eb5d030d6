"""`experiments/denoising_steps.py`: which part of a picture is settled at which step."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from running import run, summary

from xray import bands
from xray.samplers import NoiseSchedule
from xray.store import SiteSpec
from xray.studies import denoising_steps as study
from xray.trace import Trace

STEPS, SIDE = 12, 16
MATRIX = [[0.3, 0.1, -0.2], [-0.1, 0.3, 0.1], [0.2, -0.2, 0.3], [0.0, 0.1, 0.1], [0.1, 0.2, 0.3]]
WAVES = {cycles: np.sin(2 * np.pi * cycles * np.arange(SIDE) / SIDE) for cycles in (1, 3, 6)}


def trace_of(estimates, matrix=MATRIX, seed=0):
    """A run whose denoised estimates, (step, y, x, channel), are these."""
    dims = ("image", "y", "x", "channel")
    steps = list(range(len(estimates)))
    array = xr.DataArray(estimates[:, None], dims=("step", *dims), coords={"step": steps})
    return Trace(
        attrs={"seeds": [seed], "rgb_matrix": matrix},
        steps=steps,
        timesteps=np.linspace(961, 1, len(steps)).tolist(),
        specs={"sampler/denoised": SiteSpec(dims, array.shape[1:], "float32", True)},
        load=lambda site: array,
    )


def arriving(at: dict[int, int]) -> np.ndarray:
    """Estimates in which each wave, by its cycles per picture, appears whole at its step."""
    picture = np.zeros((STEPS, SIDE, SIDE, 4), np.float32)
    for cycles, step in at.items():
        picture[step:] += WAVES[cycles][:, None, None]
    return picture


def test_every_octave_settles_when_its_wave_arrives():
    data = study.settling([trace_of(arriving({1: 2, 3: 5, 6: 9}))], NoiseSchedule())
    rows = {row["what"]: row for row in study.findings(data)}
    for what, step in (("1–2 cycles", 2), ("2–4 cycles", 5), ("4–8 cycles", 9), ("detail", 9)):
        assert (rows[what]["half"], rows[what]["tenth"]) == (step, step)
    distance = data["band_distance"].isel(image=0).sel(band="2–4").values
    np.testing.assert_allclose(distance, np.arange(STEPS) < 5, atol=1e-6)


def test_light_is_layout_and_hue_is_colour():
    matrix = np.array(MATRIX)[:-1]
    # Latent directions that change nothing but the light, or nothing but the hue.
    grey = np.linalg.lstsq(matrix.T, np.ones(3), rcond=None)[0]
    hue = np.linalg.lstsq(matrix.T, np.array([1.0, 0.0, -0.299 / 0.114]), rcond=None)[0]
    wave = WAVES[1][:, None, None]
    estimates = np.zeros((STEPS, SIDE, SIDE, 4), np.float32)
    estimates[3:] += (wave * grey).astype(np.float32)
    estimates[7:] += (wave * hue).astype(np.float32)
    data = study.settling([trace_of(estimates)], NoiseSchedule())
    assert study.settled(data["distance"].isel(image=0).sel(part="layout"), 0.01) == 3
    assert study.settled(data["distance"].isel(image=0).sel(part="colour"), 0.01) == 7
    without = study.settling([trace_of(estimates, matrix=None)], NoiseSchedule())
    assert without["part"].values.tolist() == ["layout", "detail"]


def test_the_linear_line_is_the_run_of_a_linear_denoiser():
    """Gaussian pictures of a known spectrum, denoised step by step by what is best for them."""
    schedule, timesteps = NoiseSchedule(), np.linspace(961, 1, 60)
    energy = 2.5
    x, estimates = 1.7, []
    for t, t_next in zip(timesteps, [*timesteps[1:], -1]):
        a, a_next = schedule.alpha_cumprod(t), schedule.alpha_cumprod(t_next)
        estimate = a**0.5 * energy / (a * energy + 1 - a) * x
        noise = (x - a**0.5 * estimate) / (1 - a) ** 0.5
        x = a_next**0.5 * estimate + (1 - a_next) ** 0.5 * noise
        estimates.append(estimate)
    pattern = np.random.default_rng(0).standard_normal((SIDE, SIDE, 4))
    pattern *= (energy / bands.energy(pattern, bands.octaves(SIDE, SIDE))[2]) ** 0.5
    estimated = np.float32(estimates)[:, None, None, None] / estimates[-1] * pattern
    data = study.settling([trace_of(estimated)], schedule).sel(band="2–4")
    np.testing.assert_allclose(data["band_distance"].isel(image=0), data["linear"], atol=0.06)


def test_settled_needs_all_later_steps_below():
    distance = xr.DataArray([1.0, 0.4, 0.6, 0.5, 0.2, 0.0], dims="step", coords={"step": range(6)})
    assert study.settled(distance, 0.5) == 3
    assert study.settled(distance, 0.0) == 5
    assert study.settled(distance, 2.0) == 0


def test_the_figure_draws_the_medians_the_octaves_and_the_estimates(model):
    traces = [model.generate("a big green fish", steps=3, seed=seed) for seed in (5, 6)]
    data = study.settling(traces, model.schedule)
    parts, *pictures, octaves, noise = study.figure(data, traces[0], model).axes
    curves = {line.get_label(): line.get_ydata() for line in parts.lines}
    for part in data["part"].values:
        median = data["distance"].sel(part=part).median("image")
        np.testing.assert_array_equal(curves[study.LABELS[part]], median)
    for axes, dash, expected in (
        (octaves, "-", data["band_distance"].median("image")),
        (octaves, ":", data["linear"]),
        (noise, "-", data["snr"]),
    ):
        drawn = {x.get_label(): x.get_ydata() for x in axes.lines if x.get_linestyle() == dash}
        for band in data["band"].values:
            np.testing.assert_array_equal(drawn[band], expected.sel(band=band))
    estimates = traces[0]["sampler/denoised"].values
    for axes, estimate in zip(pictures, estimates, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), model.decode(estimate)[0])


def test_the_linear_line_is_drawn_of_runs_that_put_no_noise_back_only(model):
    for sampler, dotted in (("euler", True), ("ddpm", False)):
        trace = model.generate("a big green fish", sampler=sampler, steps=2)
        data = study.settling([trace], model.schedule)
        octaves = study.figure(data, trace, model).axes[-2]
        assert any(line.get_linestyle() == ":" for line in octaves.lines) == dotted
        assert ("linear denoiser" in octaves.get_title("left")) == dotted


@pytest.fixture(scope="module")
def ended(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "steps"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "rgb_matrix", np.array(MATRIX, np.float32))
        result = run(
            patch, model, "denoising_steps", "--prompt", "a big green fish", "--images", 2,
            "--steps", 3, "--width", 128, "--height", 64, "--seed", 5,
            "--negative", "fog", "--guidance", 3, "--out", out,
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    return out, result


def test_the_script_leaves_figures_data_and_summary(ended):
    out, result = ended
    assert sorted(p.name for p in out.iterdir()) == ["data.zarr", "figures", "summary.json"]
    assert sorted(p.name for p in (out / "figures").iterdir()) == ["settling.png", "steps.png"]
    found = summary(out)
    assert [row["what"] for row in found["found"]][:3] == ["layout", "colour", "mean"]
    assert found["steps"] == 3 and "half settled" in result.stdout


def test_headings_say_how_the_pictures_were_made(ended):
    """Also what they were to keep away from."""
    told = ended[1].headings
    for part in ("negative prompt “fog”", "guidance 3", "ddim, steps 3"):
        assert told and all(part in each for each in told)


def test_the_data_opens_with_plain_xarray(ended):
    data = xr.open_zarr(ended[0] / "data.zarr").load()
    assert data["distance"].shape == (2, 3, 2)
    np.testing.assert_array_equal(data["distance"].isel(step=-1), 0)
    assert data["seed"].values.tolist() == [5, 6]
    assert data["band"].values.tolist() == ["mean", "1–2", "2–4"]
    np.testing.assert_allclose(data["linear"], 1 - np.sqrt(data["snr"] / (1 + data["snr"])))
