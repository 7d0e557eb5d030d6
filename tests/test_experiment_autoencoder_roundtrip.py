"""`experiments/autoencoder_roundtrip.py`: what is lost, on autoencoders whose loss is known."""

from __future__ import annotations

import json
import runpy

import numpy as np
import pytest
import xarray
from PIL import Image
from typer.testing import CliRunner

from xray import script
from xray.experiment import Experiment
from xray.fidelity import psnr, ssim
from xray.images import load_image
from xray.resources import shipped
from xray.studies import autoencoder_roundtrip as study

APP = script.app(runpy.run_path(str(shipped("experiments") / "autoencoder_roundtrip.py"))["main"])
PICTURE = load_image("china", 192, 128)


class Filter:
    """An autoencoder that keeps the frequencies up to `highest`, in cycles per pixel."""

    def __init__(self, highest):
        self.highest = highest

    def encode(self, pixels):
        height, width, _ = pixels.shape
        blocks = pixels.reshape(height // 8, 8, width // 8, 8, 3).swapaxes(1, 2)
        return blocks.reshape(1, height // 8, width // 8, 192).astype(np.float64)

    def decode(self, latent):
        _, height, width, _ = latent.shape
        pixels = latent.reshape(height, width, 8, 8, 3).swapaxes(1, 2)
        pixels = pixels.reshape(8 * height, 8 * width, 3)
        frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in pixels.shape[1::-1])))
        transform = np.fft.fft2(pixels, axes=(0, 1)) * (frequency <= self.highest)[..., None]
        pixels = np.fft.ifft2(transform, axes=(0, 1)).real
        return [Image.fromarray(np.rint(pixels.clip(0, 255)).astype(np.uint8))]


def test_what_a_filter_takes_away_is_what_is_lost():
    # Little contrast, so that nothing is cut off at black or white.
    noise = np.random.default_rng(0).normal(128, 12, (192, 128, 3)).clip(0, 255).astype(np.uint8)
    data = study.measure(Filter(1 / 8), noise, trips=2)
    lost, drawn = (data["power"].sel(of=of) for of in ("difference", "decoded"))
    whole = data["power"].sel(of="picture")
    below, above = data.frequency < 0.1, data.frequency > 0.15
    np.testing.assert_allclose((drawn / whole)[below], 1, atol=0.05)
    np.testing.assert_allclose((lost / whole)[above], 1, atol=0.05)
    assert (lost / whole)[below].max() < 0.05 and (drawn / whole)[above].max() < 0.05
    bands = {name: shares for name, *shares in study.bands(data)}
    assert list(bands) == ["over 64", "32 to 64", "16 to 32", "8 to 16", "4 to 8", "2 to 4"]
    assert bands["16 to 32"] == pytest.approx([0, 1], abs=0.05)
    assert bands["2 to 4"] == pytest.approx([1, 0], abs=0.05)
    assert data.psnr_step[1] > 50  # only rounding: there is nothing left to filter


def test_an_autoencoder_that_loses_nothing():
    data = study.measure(Filter(1), PICTURE, trips=3)
    assert np.isinf(data["psnr"]).all() and (data["ssim"] == 1).all()
    assert data["power"].sel(of="difference").max() == 0
    np.testing.assert_array_equal(data["trip_picture"], [PICTURE] * data.sizes["shown"])
    assert set(study.figures(data, "nothing lost")) == {"roundtrip", "spectrum", "drift"}


def test_each_trip_starts_from_the_picture_before(model):
    data = study.measure(model, PICTURE, trips=4)
    assert data.shown.values.tolist() == [0, 1, 2, 3, 4]
    now = PICTURE
    for trip in range(1, 5):
        before, now = now, np.asarray(model.decode(model.encode(now))[0])
        np.testing.assert_array_equal(data["trip_picture"].sel(shown=trip), now)
        assert data.psnr.sel(trip=trip) == psnr(PICTURE[None], now[None])[0]
        assert data.ssim.sel(trip=trip) == ssim(PICTURE[None], now[None])[0]
        assert data.psnr_step.sel(trip=trip) == psnr(before[None], now[None])[0]


def test_figures_show_the_powers_and_the_trips():
    data = study.measure(Filter(1 / 8), PICTURE, trips=2)
    made = study.figures(data, "china")
    powers, shares = made["spectrum"].axes
    for line, values in zip(powers.lines, data["power"].values, strict=False):
        np.testing.assert_array_equal(line.get_ydata(), values)
    for line, values in zip(shares.lines, data["power"].values[1:], strict=False):
        np.testing.assert_array_equal(line.get_ydata(), values / data["power"].values[0])
    *pictures, curves = made["drift"].axes
    shown = [axes.images[0].get_array() for axes in pictures]
    np.testing.assert_array_equal(shown, data["trip_picture"])
    lines = {line.get_label(): line.get_ydata() for line in curves.lines}
    np.testing.assert_array_equal(lines["against the picture"], data["psnr"])
    np.testing.assert_array_equal(lines["against the trip before"], data["psnr_step"])
    whole = [axes.images[0].get_array() for axes in made["roundtrip"].axes[:2]]
    np.testing.assert_array_equal(whole, data["trip_picture"][:2])


@pytest.mark.parametrize("trips", [1, 2, 7, 25, 400])
def test_first_and_last_trip_are_shown(trips):
    shown = study._shown(trips)
    assert {0, 1, trips} <= set(shown) and shown == sorted(set(shown)) and len(shown) <= 5


def test_the_close_up_is_where_most_is_lost():
    spoilt = PICTURE.copy()
    spoilt[70:90, 150:170] ^= 255
    top, left, height, width = study._where_most_is_lost(PICTURE, spoilt)
    assert (height, width) == (32, 48)
    assert top <= 70 and top + height >= 90 and left <= 150 and left + width >= 170


def test_a_whole_run_with_the_miniature(monkeypatch, tmp_path, mini):
    monkeypatch.setattr(Experiment, "load", lambda self, name: mini)
    out = tmp_path / "run"
    told = CliRunner().invoke(APP, ["--picture", "scene:20", "--trips", "2", "--out", str(out)])
    assert told.exit_code == 0, told.output
    names = sorted(path.name for path in out.glob("figures/*"))
    assert names == ["drift.png", "roundtrip.png", "spectrum.png"]
    data = xarray.open_zarr(out / "data.zarr")
    assert data["psnr"].values[0] > 25  # its own kind of picture, after training
    np.testing.assert_array_equal(data["trip_picture"][0], load_image("scene:20", 128, 128))
    shares = data["octave_power"].sel(of="difference") / data["octave_power"].sel(of="picture")
    assert shares[0] < 0.1 < shares[-1]  # coarse things are kept better than fine ones
    summary = json.loads((out / "summary.json").read_text())
    assert summary["trips"]["psnr"] == pytest.approx(data["psnr"].values.tolist())
    assert [name for name, *_ in summary["bands"]][-1] == "2 to 4"
    assert "4 to 8" in told.stdout
