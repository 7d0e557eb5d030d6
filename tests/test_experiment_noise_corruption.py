"""`experiments/noise_corruption.py`: the noise is where and as strong as it says."""

from __future__ import annotations

import json
import runpy

import numpy as np
import pytest
import xarray
from typer.testing import CliRunner

from xray import script
from xray.experiment import Experiment
from xray.fidelity import psnr, ssim
from xray.images import load_image
from xray.resources import shipped
from xray.studies import noise_corruption as study

APP = script.app(runpy.run_path(str(shipped("experiments") / "noise_corruption.py"))["main"])
PICTURE = load_image("china", 128, 64)
AMPLITUDES, SHARES = (0.5, 2.0), (0.01, 0.25, 1.0)


class Seen:
    """A model that remembers which latents it decoded."""

    def __init__(self, model):
        self.model, self.encode, self.latents = model, model.encode, []

    def decode(self, latent):
        self.latents.append(np.array(latent))
        return self.model.decode(latent)


@pytest.fixture(scope="module")
def measured(model):
    seen = Seen(model)
    data = study.measure(seen, PICTURE, amplitudes=AMPLITUDES, shares=SHARES, seed=5)
    return data, seen.latents


@pytest.fixture(scope="module")
def noises(measured):
    """What was added to the latent, for each cell of the grid, and for each channel."""
    clean, *others = measured[1]
    added = [np.squeeze(each) - clean for each in others]
    return np.reshape(added[:6], (3, 2, 8, 16, 4)), np.reshape(added[10:], (4, 2, 8, 16, 4))


def test_as_many_positions_get_noise_as_it_says_and_the_same_ones(noises):
    hit = (noises[0] != 0).any(-1)
    assert hit.sum((2, 3)).tolist() == [[1, 1], [32, 32], [128, 128]]
    assert (hit[0] <= hit[1]).all() and (hit[:, 0] == hit[:, 1]).all()


def test_the_noise_is_of_the_amplitude_it_says_and_the_same_everywhere(measured, noises):
    grid, channels = noises
    std = measured[1][0].std()
    np.testing.assert_allclose(grid[2].std((1, 2, 3)) / std, AMPLITUDES, rtol=0.1)
    np.testing.assert_allclose(grid[:, 1], 4 * grid[:, 0], atol=1e-5)
    everywhere = grid[2, 1]
    at = grid[1, 1] != 0
    np.testing.assert_allclose(grid[1, 1][at], everywhere[at], atol=1e-5)
    for c in range(4):
        np.testing.assert_allclose(channels[c, 1, ..., c], everywhere[..., c], atol=1e-5)
        assert not np.delete(channels[c, 1], c, axis=-1).any()


def test_quality_is_against_the_same_without_noise(model, measured):
    data = measured[0]
    clean = np.asarray(model.decode(model.encode(PICTURE))[0])
    np.testing.assert_array_equal(data["clean"], clean)
    np.testing.assert_array_equal(data["picture"], PICTURE)
    for name, reference in (("grid", clean), ("channel", clean)):
        for index in np.ndindex(data[f"{name}_psnr"].shape):
            pair = reference[None], data[f"{name}_picture"].values[index][None]
            assert data[f"{name}_psnr"].values[index] == psnr(*pair)[0]
            assert data[f"{name}_ssim"].values[index] == ssim(*pair)[0]
    noisy = data["kind_picture"].sel(kind="pixels", amplitude=0.5).values
    assert (
        data["kind_psnr"].sel(kind="pixels", amplitude=0.5) == psnr(PICTURE[None], noisy[None])[0]
    )
    through = data["kind_picture"].sel(kind="pixels, autoencoded", amplitude=0.5)
    np.testing.assert_array_equal(through, np.asarray(model.decode(model.encode(noisy))[0]))
    np.testing.assert_array_equal(
        data["kind_picture"].sel(kind="latent"), data["grid_picture"].sel(share=1)
    )


def test_noise_in_the_pixels_is_as_strong_as_it_says(model):
    grey = np.random.default_rng(0).normal(128, 10, (64, 64, 3)).astype(np.uint8)
    data = study.measure(model, grey, amplitudes=[1], shares=[1])
    added = data["kind_picture"].sel(kind="pixels").values[0].astype(float) - grey
    assert added.std() == pytest.approx(grey.std(), rel=0.05)
    # PSNR of an error as strong as the picture's own spread is known.
    expected = 20 * np.log10(255 / grey.std())
    assert data["kind_psnr"].sel(kind="pixels").values[0] == pytest.approx(expected, abs=0.3)


def test_the_same_seed_gives_the_same_and_another_another(model):
    def corrupted(seed):
        data = study.measure(model, PICTURE[:, :64], amplitudes=[1], shares=[0.25], seed=seed)
        return data["grid_picture"].values

    np.testing.assert_array_equal(corrupted(1), corrupted(1))
    assert not np.array_equal(corrupted(1), corrupted(2))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"amplitudes": [0.5, 0]}, "amplitude must be above 0, got 0"),
        ({"amplitudes": [float("nan")]}, "amplitude must be above 0, got nan"),
        ({"shares": [1.5]}, "share must be above 0 and at most 1, got 1.5"),
        ({"shares": [0.5, 1e-4]}, "share 0.0001 is none of the latent's .* positions"),
        ({"shares": []}, "share must be above 0 and at most 1, got none"),
    ],
)
def test_what_is_no_amplitude_or_share_is_refused(model, asked, said):
    with pytest.raises(ValueError, match=said):
        study.measure(model, PICTURE, **asked)


def test_what_noise_does_not_change_is_marked_at_the_upper_edge(measured):
    data = measured[0].copy(deep=True)
    data["kind_psnr"][1, :] = np.inf
    figure = study.curves(data, "so")
    axes = figure.axes[1]
    (edge,) = [line for line in axes.lines if line.get_marker() == "^"]
    assert edge.get_xdata().tolist() == data.amplitude.values.tolist()
    assert edge.get_color() == axes.lines[1].get_color()
    assert any("upper edge: no difference" in text.get_text() for text in figure.texts)


def test_figures_show_the_pictures_and_the_curves(measured):
    data = measured[0]
    drawn = study.figures(data, "china")
    curves = iter(drawn["curves"].axes)
    for quality in ("psnr", "ssim"):
        for name in ("grid", "kind", "channel"):
            lines = [line.get_ydata() for line in next(curves).lines]
            np.testing.assert_array_equal(lines, data[f"{name}_{quality}"])
    for name, figure in (("grid", "grid"), ("kind", "kinds")):
        shown = [axes.images[0].get_array() for axes in drawn[figure].axes]
        pictures = data[f"{name}_picture"].values.reshape(-1, 64, 128, 3)
        np.testing.assert_array_equal(shown, pictures)
        told = [text.get_text() for text in drawn[figure].texts]
        last = (float(data[f"{name}_{quality}"][-1, -1]) for quality in ("psnr", "ssim"))
        assert "{:.1f} dB, SSIM {:.2f}".format(*last) in told
    for name in ("curves", "kinds", "channels"):  # for a channel too it is that of all four
        told = " ".join(text.get_text() for text in drawn[name].texts)
        assert "in standard deviations of the whole latent" in told


def test_a_whole_run(model, monkeypatch, tmp_path):
    monkeypatch.setattr(Experiment, "load", lambda self, name: model)
    arguments = ["--width", "64", "--amplitude", "2", "--amplitude", "0.5", "--share", "1"]
    told = CliRunner().invoke(APP, [*arguments, "--out", str(tmp_path / "run")])
    assert told.exit_code == 0, told.output
    names = sorted(path.name for path in tmp_path.glob("run/figures/*"))
    assert names == ["channels.png", "curves.png", "grid.png", "kinds.png"]
    data = xarray.open_zarr(tmp_path / "run" / "data.zarr")
    assert data["amplitude"].values.tolist() == [0.5, 2]
    assert data["kind"].values.tolist() == list(study.KINDS)
    assert data["grid_psnr"].sel(share=1, amplitude=0.5) > data["grid_psnr"].sel(
        share=1, amplitude=2
    )
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    given = {"width": 64, "height": None, "amplitude": [2.0, 0.5], "share": [1.0], "seed": 7}
    assert summary["options"].items() >= given.items() and "out" not in summary["options"]
    assert summary["psnr"]["channel 3"] == data["channel_psnr"].sel(channel=3).values.tolist()
    assert "100 % of positions" in told.stdout
