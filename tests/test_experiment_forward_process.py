"""`experiments/forward_process.py`: errors of denoisers that are known, noise of known strength."""

from __future__ import annotations

import json
import runpy
from types import SimpleNamespace

import numpy as np
import pytest
import xarray
from typer.testing import CliRunner

from xray import bands, script
from xray.experiment import Experiment
from xray.images import load_image
from xray.resources import shipped
from xray.samplers import NoiseSchedule, initial_noise
from xray.stats import normality
from xray.studies import forward_process as study

APP = script.app(runpy.run_path(str(shipped("experiments") / "forward_process.py"))["main"])
PICTURE = load_image("scene:7", 64, 64)
LATENT = np.random.default_rng(0).normal(0.3, 1, (1, 16, 16, 4)).astype(np.float32)
TIMESTEPS = (0, 250, 500, 999)


class Denoiser:
    """A model whose latents are all `LATENT` and whose U-Net is a function of (x, t)."""

    schedule, rgb_matrix = NoiseSchedule(), None

    def __init__(self, predict):
        self.predict = lambda x, t, context: predict(x, t)

    def encode(self, pixels):
        return SimpleNamespace(values=LATENT)

    def embed(self, prompt):
        return SimpleNamespace(values=np.zeros((1, 4, 4), np.float32))

    def decode(self, latent):
        return [np.zeros((64, 64, 3), np.uint8)]


def measured(predict, **asked):
    asked = {"timesteps": TIMESTEPS, "noises": 2, "seed": 3} | asked
    return study.measure(Denoiser(predict), PICTURE, "a star", **asked)


def knows_the_picture(x, t):
    signal, noise = NoiseSchedule().rates(t)
    return (x - signal * LATENT) / noise


def best_linear(x, t):
    """Wiener's filter for the spectrum of `LATENT`, octave by octave."""
    found = bands.octaves(16, 16)
    alpha = NoiseSchedule().alpha_cumprod(t)
    energy = bands.energy(LATENT[0], found)
    share = np.sqrt(1 - alpha) / (alpha * energy + 1 - alpha)
    return np.tensordot(share, bands.split(x, found), 1).astype(np.float32)


def test_who_knows_the_picture_makes_no_error():
    data = measured(knows_the_picture)
    assert data["noise_error"].max() < 1e-6 and data["picture_error"].max() < 1e-5
    assert data["band_error"].max() < 1e-5


def test_who_finds_no_noise_misses_all_of_it():
    data = measured(lambda x, t: np.zeros_like(x))
    np.testing.assert_allclose(data["noise_error"], 1)
    np.testing.assert_allclose(data["band_error"], 1)


def test_the_dotted_curve_is_what_the_best_linear_denoiser_leaves():
    data = measured(best_linear, noises=16)
    many = data["band_error"].sel(band=["2–4", "4–8"]).mean("noise")
    np.testing.assert_allclose(many, data["linear"].sel(band=["2–4", "4–8"]), rtol=0.15)


def test_the_error_in_the_picture_is_the_error_in_the_noise_times_the_noise():
    data = measured(lambda x, t: 0.9 * x)
    alpha = data["alpha_cumprod"]
    energies = [(initial_noise(s, LATENT.shape[1:]) ** 2).sum() / (LATENT**2).sum() for s in (3, 4)]
    for n, ratio in enumerate(energies):
        expected = data["noise_error"][:, n] * (1 - alpha) / alpha * ratio
        np.testing.assert_allclose(data["picture_error"][:, n], expected, rtol=1e-4)


def test_what_training_sees_is_the_forward_process():
    seen = {}

    def remember(x, t):
        seen.setdefault(t, []).append(x)
        return x

    data = measured(remember)
    for t in TIMESTEPS:
        for n in range(2):
            noise = initial_noise(3 + n, LATENT.shape[1:])[None]
            x = NoiseSchedule().add_noise(LATENT, noise, t)
            np.testing.assert_array_equal(seen[t][n], x)
            at = data.sel(timestep=t, noise=3 + n)
            assert (at["ks"], at["std"]) == (normality(x)["ks"], normality(x)["std"])
    alpha = NoiseSchedule().alphas_cumprod[list(TIMESTEPS)]
    energy = bands.energy(LATENT[0], bands.octaves(16, 16))
    np.testing.assert_allclose(data["snr"], np.outer(alpha / (1 - alpha), energy))
    decibels = [row[1] for row in study.table(data)]
    np.testing.assert_allclose(
        decibels, 10 * np.log10(alpha / (1 - alpha) * np.mean(LATENT.astype(float) ** 2)), rtol=1e-6
    )
    assert (np.diff(decibels) < 0).all()


def test_curves_are_the_means_over_the_noises():
    data = measured(lambda x, t: 0.9 * x)
    ratio, normal, octaves, both = study.curves(data, "a star").axes
    bands_ = data["band"].values
    for line, band in zip(ratio.lines, bands_, strict=False):
        np.testing.assert_allclose(line.get_ydata(), 10 * np.log10(data["snr"].sel(band=band)))
    np.testing.assert_array_equal(normal.lines[0].get_ydata(), data["ks"].mean("noise"))
    # 19 of 20 samples of n numbers: Kolmogorov's 1.36 / √n.
    assert normal.lines[1].get_ydata()[0] == pytest.approx(1.36 / 32, rel=1e-3)
    for lines, expected in (
        (octaves.lines[: len(bands_)], data["band_error"].mean("noise")),
        (octaves.lines[len(bands_) :], data["linear"]),
    ):
        drawn = {line.get_label(): line.get_ydata() for line in lines}
        for band in bands_:
            np.testing.assert_array_equal(drawn[band], expected.sel(band=band))
    for line, name in zip(both.lines, ("noise_error", "picture_error"), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), data[name].mean("noise"))


def test_pictures_are_those_of_the_model(model):
    data = study.measure(model, PICTURE, "a red star", timesteps=[10, 600], noises=1, seed=5)
    assert data.shown.values.tolist() == [10, 600]
    x0, noise = model.encode(PICTURE).values, initial_noise(5, (8, 8, 4))[None]
    x = model.schedule.add_noise(x0, noise, 600)
    np.testing.assert_array_equal(data["noised"].sel(shown=600), np.asarray(model.decode(x)[0]))
    said = model.predict(x, 600, model.embed("a red star"))
    clean = model.schedule.to_denoised(said, x, 600)
    np.testing.assert_array_equal(
        data["denoised"].sel(shown=600), np.asarray(model.decode(clean)[0])
    )


@pytest.mark.parametrize("count", [2, 3, 7, 21, 1000])
def test_the_last_timestep_is_shown(count):
    timesteps = list(range(count))
    shown = study._evenly(timesteps)
    assert shown[-1] == timesteps[-1] and len(shown) <= study.SHOWN and shown == sorted(set(shown))


def test_a_whole_run(model, monkeypatch, tmp_path):
    monkeypatch.setattr(Experiment, "load", lambda self, name: model)
    out = tmp_path / "run"
    arguments = ["--prompt", "a red star", "--timesteps", "3", "--noises", "2", "--out", str(out)]
    told = CliRunner().invoke(APP, arguments)
    assert told.exit_code == 0, told.output
    assert sorted(path.name for path in out.glob("figures/*")) == ["curves.png", "noised.png"]
    data = xarray.open_zarr(out / "data.zarr")
    assert data["timestep"].values.tolist() == [0, 500, 999]
    assert data["noise"].values.tolist() == [7, 8]
    assert data["band"].values.tolist() == ["mean", "1–2", "2–4"]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["prompt"] == "a red star"
    assert summary["by_timestep"]["noise error"] == pytest.approx(
        data["noise_error"].mean("noise").values.tolist()
    )
    assert "picture error" in told.stdout


def test_a_scene_brings_its_own_caption(model, monkeypatch, tmp_path):
    asked = []

    def measure(generator, pixels, prompt, **rest):
        asked.append(prompt)
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "load", lambda self, name: model)
    monkeypatch.setattr(study, "measure", measure)
    for picture in ("scene:7", "china"):
        CliRunner().invoke(APP, ["--picture", picture, "--out", str(tmp_path / picture)])
    assert asked == ["a little black cat and a yellow moon", ""]
