"""`experiments/image_encoder.py`: the numbers it shows are those of the latent."""

from __future__ import annotations

import json
import runpy

import numpy as np
import pytest
import xarray
from typer.testing import CliRunner

from xray import script
from xray.experiment import Experiment
from xray.images import load_image
from xray.resources import shipped
from xray.stats import normality
from xray.studies import image_encoder as study
from xray.studies.image_encoder_figures import figures

APP = script.app(runpy.run_path(str(shipped("experiments") / "image_encoder.py"))["main"])
PICTURE = load_image("china", 128, 64)


@pytest.fixture(scope="module")
def data(model):
    return study.measure(model, PICTURE, seed=3)


def test_it_is_the_model_s_latent_and_what_is_decoded_from_it(model, data):
    latent = model.encode(PICTURE)
    np.testing.assert_array_equal(data["mean"], latent.values[0])
    np.testing.assert_array_equal(data["sample"], model.encode(PICTURE, sample_seed=3).values[0])
    np.testing.assert_array_equal(data["decoded"], np.asarray(model.decode(latent)[0]))
    np.testing.assert_array_equal(data["picture"], PICTURE)


def test_the_channels_numbers_are_those_of_their_values(data):
    for c in range(4):
        values = data["mean"].values[..., c]
        for name, value in normality(values).items():
            assert data[f"channel_{name}"].values[c] == value
        noise = np.sqrt((data["std"].values[..., c].astype(float) ** 2).mean())
        assert data.channel_posterior_std[c] == pytest.approx(noise)
        ratio = 10 * np.log10(values.astype(float).var() / noise**2)
        assert data.channel_signal_to_noise[c] == pytest.approx(ratio)


def test_the_correlations_are_pearsons(data):
    flat = data["mean"].values.reshape(-1, 4).T
    np.testing.assert_allclose(data["correlation"], np.corrcoef(flat), atol=1e-6)
    brightness = PICTURE @ [0.299, 0.587, 0.114]
    brightness = brightness.reshape(8, 8, 16, 8).mean((1, 3)).ravel()
    together = np.corrcoef(np.vstack([flat, brightness]))[-1, :4]
    np.testing.assert_allclose(
        data["picture_correlation"].sel(property="brightness"), together, atol=1e-6
    )


def test_properties_of_blocks_that_are_known():
    """One block each of: red, blue, black and white columns, white right, white below."""
    blocks = np.zeros((5, 8, 8, 3), np.uint8)
    blocks[0, ..., 0] = blocks[1, ..., 2] = 255
    blocks[2, :, ::2] = blocks[3, :, 4:] = blocks[4, 4:] = 255
    found = study._properties(np.concatenate(blocks, axis=1), 1)[0]
    expected = [
        [0.299, 1, -0.5, 0, 0, 0],
        [0.114, 0, 1, 0, 0, 0],
        [0.5, 0, 0, 0.5, 0, 0],
        [0.5, 0, 0, 0.5, 1, 0],
        [0.5, 0, 0, 0.5, 0, 1],
    ]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_colours_that_are_a_linear_function_of_the_latent_are_fully_explained():
    latent = np.random.default_rng(0).uniform(-1, 1, (8, 8, 4)).astype(np.float32)
    colours = np.rint(127.5 + 100 * latent[..., :3]).astype(np.uint8)
    assert study._colour_r2(latent, colours.repeat(8, 0).repeat(8, 1)) > 0.999
    unrelated = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    assert study._colour_r2(latent, unrelated) < 0.3


def test_figures_show_the_numbers(data):
    made = figures(data, "china")
    spreads, correlation, properties = made["statistics"].axes[1:4]
    drawn = {line.get_label(): line.get_ydata() for line in spreads.lines}
    for label, name in (("mean over the picture", "std"), ("posterior", "posterior_std")):
        line = drawn[f"spread of the {label} (std)"]
        np.testing.assert_array_equal(line, data[f"channel_{name}"])
    np.testing.assert_array_equal(correlation.images[0].get_array(), data["correlation"])
    np.testing.assert_array_equal(properties.images[0].get_array(), data["picture_correlation"])
    densities = [patch.get_data().values for patch in made["statistics"].axes[0].patches]
    edges = made["statistics"].axes[0].patches[0].get_data().edges
    for density, values in zip(densities, np.moveaxis(data["mean"].values, -1, 0), strict=True):
        assert (density * np.diff(edges)).sum() == pytest.approx(1)
        counts = density * np.diff(edges) * values.size
        np.testing.assert_allclose(counts, np.histogram(values, edges)[0], atol=1e-6)
    whole = [axes.images[0].get_array() for axes in made["posterior"].axes[:3]]
    names = ("picture", "decoded", "decoded_sample")
    np.testing.assert_array_equal(whole, [data[name] for name in names])


def test_a_picture_of_one_colour_has_no_correlations_and_still_has_figures(model):
    data = study.measure(model, np.full((64, 64, 3), 90, np.uint8))
    assert np.isnan(data["picture_correlation"].sel(property="brightness")).all()
    assert np.isnan(data.attrs["colour_r2"])
    made = figures(data, "grey")
    words = [t.get_text() for axes in made["statistics"].axes for t in axes.texts]
    assert "1" in words and "nan" not in words


def test_a_whole_run(model, monkeypatch, tmp_path):
    monkeypatch.setattr(Experiment, "load", lambda self, name: model)
    arguments = ["--picture", "china", "--width", "128", "--height", "64", "--seed", "3"]
    told = CliRunner().invoke(APP, [*arguments, "--out", str(tmp_path / "run")])
    assert told.exit_code == 0, told.output
    names = sorted(path.name for path in tmp_path.glob("run/**/*.png"))
    assert names == ["channels.png", "posterior.png", "statistics.png"]
    data = xarray.open_zarr(tmp_path / "run" / "data.zarr")
    np.testing.assert_array_equal(data["mean"], model.encode(PICTURE).values[0])
    assert data["property"].values.tolist() == list(study.PROPERTIES)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["picture"], summary["seed"]) == ("china", 3)
    assert summary["channels"]["std"] == pytest.approx(data["channel_std"].values.tolist())
    row = next(line.split() for line in told.stdout.splitlines() if line.startswith("channel 2"))
    assert float(row[3]) == pytest.approx(summary["channels"]["std"][2], rel=1e-3)


def test_what_is_no_picture_is_refused_before_the_model_is_loaded(tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    for source, said in (
        (tmp_path / "notes.png", "no picture of a kind"),
        ("nowhere.png", "scene:SEED"),
    ):
        told = CliRunner().invoke(APP, ["--picture", str(source), "--out", str(tmp_path / "run")])
        assert told.exit_code == 2 and said in told.stderr and told.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
