"""`experiments/image_decoder.py`: what is decoded is what it says."""

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
from xray.pixels import to_uint8
from xray.resources import shipped
from xray.samplers import initial_noise
from xray.studies import image_decoder as study
from xray.studies.image_decoder_figures import figures

APP = script.app(runpy.run_path(str(shipped("experiments") / "image_decoder.py"))["main"])
PICTURE = load_image("china", 128, 64)


@pytest.fixture(scope="module")
def data(model):
    return study.measure(model, PICTURE, seed=3)


@pytest.fixture(scope="module")
def latent(model):
    return model.encode(PICTURE).values[0]


def decoded(model, latent):
    return to_uint8(model.decoder(latent[None]))[0]


def test_constant_latents_are_constant(model, data):
    flat = np.zeros((8, 16, 4), np.float32)
    np.testing.assert_array_equal(data["undisturbed"].sel(base="zeros"), decoded(model, flat))
    flat[..., 2] = -1.5
    shown = data["constant"].sel(channel=2, value=-1.5)
    np.testing.assert_array_equal(shown, decoded(model, flat))
    mean = np.rint(shown.values.reshape(-1, 3).mean(0)).astype(int).tolist()
    assert study.colours(data)["channel 2"][-1.5] == "#" + bytes(mean).hex()


def test_noise_is_normal_and_what_is_shuffled_keeps_its_numbers(model, data, latent):
    shown = data["noise"].sel(source="standard normal")[1]
    np.testing.assert_array_equal(shown, decoded(model, initial_noise(4, (8, 16, 4))))
    shuffled = study._latents(latent, 3)["noise"][1]
    assert not np.array_equal(shuffled[0], shuffled[1])

    def as_set(z):
        return sorted(map(tuple, z.reshape(-1, 4).tolist()))

    assert all(as_set(z) == as_set(latent) for z in shuffled)


def test_channels_are_left_out_turned_and_swapped_as_named(model, data, latent):
    meddled = study._meddled(latent)
    assert len(meddled) == 4 + 4 + 6 and data.how.values.tolist() == list(meddled)
    for how, change in {
        "without channel 1": lambda z: z * [1, 0, 1, 1],
        "channel 3 × −1": lambda z: z * [1, 1, 1, -1],
        "channels 0 ↔ 2": lambda z: z[..., [2, 1, 0, 3]],
    }.items():
        expected = change(latent).astype(np.float32)
        np.testing.assert_array_equal(meddled[how], expected)
        np.testing.assert_array_equal(data["meddled"].sel(how=how), decoded(model, expected))


def test_the_change_is_that_of_one_position(model, data, latent):
    for base, start in (("zeros", np.zeros_like(latent)), ("picture", latent)):
        poked = start.copy()
        poked[4, 8, 1] += study.IMPULSE
        difference = model.decoder(poked[None])[0] - model.decoder(start[None])[0]
        expected = np.sqrt((difference.astype(float) ** 2).mean(-1))
        np.testing.assert_allclose(data["change"].sel(base=base, channel=1), expected, atol=1e-6)


def test_the_squares_hold_the_share_they_say(data):
    """Counted the slow way, for squares about the block of 8×8 whose corner is (32, 64)."""

    def within(energy, side):
        away = (side - 8) // 2
        rows = slice(max(0, 32 - away), 40 + away)
        return energy[rows, max(0, 64 - away) : 72 + away].sum() / energy.sum()

    for base, channel in (("zeros", 0), ("picture", 3)):
        at = {"base": base, "channel": channel}
        energy = data["change"].sel(at).values ** 2
        for share, side in zip(study.HELD, data["held"].sel(at).values, strict=True):
            assert side == 128 or within(energy, side) >= share - 1e-9  # 128 is all of it
            assert side == 8 or within(energy, side - 2) < share


def test_squares_of_known_fields():
    change = np.zeros((64, 64))
    change[32:40, 32:40] = 1  # the block in the middle, and nothing else
    assert study._sides(change, (8, 8)) == [8, 8, 8]
    change[27, 35] = 2  # 4 of 68 of the energy, five pixels above the block
    assert study._sides(change, (8, 8)) == [8, 8, 18]
    assert study._sides(np.ones((64, 64)), (8, 8))[-1] == 64


def test_each_block_is_shown_in_order_from_coarse_to_fine(data, tiny):
    sites = data.site.values.tolist()
    assert sites[:3] == ["conv_in", "mid/res.0", "mid/res.1"] and sites[-1] == "up.3/res.1"
    assert data["block_channels"].values[0] == tiny.ae_widths[-1]
    assert data["block_channels"].values[-1] == tiny.ae_widths[0]
    for site, side in (("mid/res.1", 8), ("up.1/res.0", 4), ("up.3/res.1", 1)):
        shown = data["block"].sel(site=site).values
        squares = shown.reshape(64 // side, side, 128 // side, side, 3)
        assert (squares == squares[:, :1, :, :1]).all()  # one colour for each square
        assert not (shown[::2] == shown[1::2]).all() or side > 1


def test_figures_show_the_pictures_in_their_places(data):
    drawn = figures(data, "tiny", "china")

    def shown(name):
        return [axes.images[0].get_array() for axes in drawn[name].axes]

    flat = data["undisturbed"].sel(base="zeros").values
    second = data["constant"].sel(channel=1).values
    expected = [second[0], second[1], flat, second[2], second[3]]  # -3, -1.5, 0, 1.5, 3
    np.testing.assert_array_equal(shown("constants")[5:10], expected)
    np.testing.assert_array_equal(shown("noise"), data["noise"].values.reshape(10, 64, 128, 3))
    np.testing.assert_array_equal(shown("swaps")[1:], data["meddled"])
    np.testing.assert_array_equal(shown("blocks")[:-1], data["block"])
    told = [text.get_text() for text in drawn["receptive_field"].texts]
    sides = data["held"].sel(base="picture", channel=2).values.tolist()
    assert ", ".join(map(str, sides)) + " px" in told
    # The first row is the picture's; no change is brighter than the largest, at 0 dB.
    change = data["change"].sel(base="picture", channel=0).values
    bright = shown("receptive_field")[0].astype(int).sum(axis=-1)
    assert bright.max() == bright[np.unravel_index(change.argmax(), change.shape)]


def test_a_whole_run(model, monkeypatch, tmp_path):
    monkeypatch.setattr(Experiment, "load", lambda self, name: model)
    told = CliRunner().invoke(APP, ["--out", str(tmp_path / "run")])  # square, at its own size
    assert told.exit_code == 0, told.output
    names = sorted(path.stem for path in tmp_path.glob("run/figures/*"))
    assert names == ["blocks", "constants", "noise", "receptive_field", "swaps"]
    data = xarray.open_zarr(tmp_path / "run" / "data.zarr")
    assert data["constant"].shape == (4, len(study.VALUES), 64, 64, 3)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["receptive_field"]["channel 2"]["90%"] == int(
        data["held"].sel(base="picture", channel=2, share=0.9)
    )
    assert summary["colours"]["channel 0"]["-3.0"].startswith("#")
    assert summary["psnr"]["channels 0 ↔ 1"] == pytest.approx(
        float(data["meddled_psnr"].sel(how="channels 0 ↔ 1"))
    )
    assert summary["colours"]["channel 3"]["3.0"] in told.stdout
