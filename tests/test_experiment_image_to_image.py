"""`experiments/image_to_image.py`: from a picture, from a recorded step, inside a mask."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from running import run, summary

from xray.images import load_image
from xray.masks import read_mask
from xray.samplers import initial_noise
from xray.studies import image_to_image as study
from xray.studies import image_to_image_figures as drawn

PROMPT, OTHER = "a big green fish", "a red star above a blue moon"
ASKED = {"steps": 4, "guidance": 3.0, "seed": 5}


@pytest.fixture(scope="module")
def pixels():
    return load_image("scene:8", 64, 64)


@pytest.fixture(scope="module")
def whole(model):
    return model.generate(PROMPT, **ASKED)


# --- strength ------------------------------------------------------------------------------------


def test_a_strength_is_a_run_from_the_noised_picture(model, pixels):
    ticks = []
    data = study.by_strength(
        model, PROMPT, pixels, [0.25, 1.0], lambda *_: ticks.append(1), **ASKED
    )
    assert len(ticks) == 1 + 4
    latent, step = model.noised(pixels, 0.25, steps=4, seed=5)
    np.testing.assert_array_equal(data["start"].sel(strength=0.25), latent[0])
    trace = model.generate(PROMPT, latent=latent, start_step=step, **ASKED)
    made = data["made"].sel(strength=0.25)
    np.testing.assert_array_equal(made, trace["image"].values[0])
    gap = made.values / 255 - pixels / 255
    assert float(data["changed"].sel(strength=0.25)) == pytest.approx(np.sqrt((gap**2).mean()))


def test_a_strength_that_is_none_is_said_before_anything_is_made(model, pixels):
    ticks = []
    with pytest.raises(ValueError, match="strength must be above 0"):
        study.by_strength(model, PROMPT, pixels, [0.5, 0], lambda *_: ticks.append(1), **ASKED)
    assert not ticks


# --- resumed ---------------------------------------------------------------------------------


def test_nothing_changed_departs_from_nothing_and_all_changed_is_another_run(model, whole):
    runs = {"nothing": (whole, {}), "prompt": (whole, {"prompt": OTHER})}
    data = study.resumed(model, runs, [0, 2])
    np.testing.assert_array_equal(data["departed"].sel(change="nothing"), 0)
    other = model.generate(OTHER, **ASKED)
    np.testing.assert_array_equal(
        data["resumed"].sel(change="prompt", from_step=0), other["image"].values[0]
    )
    assert (data["departed"].sel(change="prompt") > 0).all()


def test_other_noise_from_a_step_changes_what_comes_after_only(model):
    noisy = model.generate(PROMPT, eta=1.0, **ASKED)
    again = model.resume(noisy, 2, seed=6)
    for step, same in ((2, True), (3, False)):
        before, after = (t.sel("sampler/latent", step=step).values for t in (noisy, again))
        assert np.array_equal(before, after) == same


# --- by hand -----------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 9))
def test_operations_do_what_they_say(height, width, seed):
    x = np.random.default_rng(seed).standard_normal((2, 2 * height, 2 * width, 4))
    mirrored, tiled = study.mirrored(x), study.tiled(x)
    np.testing.assert_array_equal(mirrored, mirrored[..., ::-1, :])
    np.testing.assert_array_equal(mirrored[..., :width, :], x[..., :width, :])
    np.testing.assert_array_equal(tiled, np.roll(tiled, (height, width), axis=(-3, -2)))
    np.testing.assert_array_equal(study.shifted(study.shifted(x)), x)


def test_the_operated_latent_is_where_the_run_goes_on(model, whole):
    data = study.operated(model, whole, [2])
    latent = study.mirrored(whole.sel("sampler/latent", step=2).values)
    trace = model.generate(PROMPT, latent=latent, start_step=2, **ASKED)
    made = data["operated"].sel(operation="mirrored", from_step_operated=2)
    np.testing.assert_array_equal(made, trace["image"].values[0])


# --- painted -----------------------------------------------------------------------------------


def test_outside_the_mask_every_step_gets_the_noised_original(model, pixels):
    original = model.encode(pixels).values
    mask = read_mask("0.5,0,1,1", 64, 64)[::8, ::8]
    edit = study.inpaint(model, original, mask, seed=5)
    trace = model.generate(PROMPT, edit=edit, **ASKED)
    noise = initial_noise(5, (8, 8, 4))
    for step, t in zip(trace.steps, trace.timesteps, strict=True):
        latent = trace.sel("sampler/latent", step=step).values[0]
        expected = model.schedule.add_noise(original[0], noise, t)
        np.testing.assert_array_equal(latent[~mask], expected[~mask])
        assert not np.array_equal(latent[mask], expected[mask])
    assert np.array_equal(trace.sel("sampler/latent", step=0).values[0][mask], noise[mask])


def test_painted_says_what_was_kept(model, pixels):
    mask = read_mask("0.5,0,1,1", 64, 64)
    data = study.painted(model, PROMPT, pixels, mask, [5, 6], **ASKED)
    gap = data["painted"].sel(seed=6).values / 255 - pixels / 255
    for name, half in (("outside", gap[:, :32]), ("inside", gap[:, 32:])):
        assert float(data[name].sel(seed=6)) == pytest.approx(np.sqrt((half**2).mean()))
    assert (data["masked"].values[mask] == 128).all()
    np.testing.assert_array_equal(data["masked"].values[~mask], pixels[~mask])


# --- drawn -------------------------------------------------------------------------------------


def test_resumed_pictures_stand_before_the_run_they_left(model, whole):
    data = study.resumed(model, {"another prompt": (whole, {"prompt": OTHER})}, [0, 2])
    *pictures, curve = drawn.resumed_figure(data, ["so"]).axes
    shown = [axes.images[0].get_array() for axes in pictures]
    np.testing.assert_array_equal(shown, [*data["resumed"].values[0], data["whole"].values[0]])
    np.testing.assert_array_equal(curve.lines[0].get_xdata(), [0, 2])
    np.testing.assert_array_equal(curve.lines[0].get_ydata(), data["departed"][0])


def test_under_a_painted_picture_stands_what_was_kept(model, pixels):
    mask = read_mask("0.5,0,1,1", 64, 64)
    data = study.painted(model, PROMPT, pixels, mask, [5, 6], **ASKED)
    figure = drawn.painted_figure(data, pixels, ["so"])
    shown = [axes.images[0].get_array() for axes in figure.axes]
    np.testing.assert_array_equal(shown, [pixels, data["masked"], *data["painted"].values])
    told = [text.get_text() for text in figure.texts]
    assert all(f"outside {float(each):.3f} from it" in told for each in data["outside"])


# --- the script --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ended(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "image"
    with pytest.MonkeyPatch.context() as patch:
        result = run(
            patch, model, "image_to_image", "--prompt", PROMPT, "--other", OTHER, "--picture",
            "china", "--strength", 1, *("--strength", 0.5) * 2, "--paint", "0,0,0.5,0.5",
            "--images", 1, "--steps", 2, "--width", 128, "--height", 64, "--out", out,
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    return out, result.stdout


def test_the_script_leaves_figures_data_and_summary(ended):
    out, said = ended
    assert sorted(p.name for p in out.iterdir()) == ["data.zarr", "figures", "summary.json"]
    assert sorted(p.stem for p in (out / "figures").iterdir()) == [
        "operated", "painted", "resumed", "strength",
    ]  # fmt: skip
    distances = summary(out)["distances"]
    assert {"strength 0.5", "another prompt from step 0", "painted: outside"} <= set(distances)
    assert "strength 0.5" in said


def test_the_data_opens_with_plain_xarray(ended):
    data = xr.open_zarr(ended[0] / "data.zarr").load()
    assert data["made"].shape == (2, 64, 128, 3) and data["mask"].dtype == bool
    assert data["from_step"].values.tolist() == [0, 1]
    assert float(data["changed"][0]) == summary(ended[0])["distances"]["strength 0.5"]


def test_a_box_of_the_whole_picture_is_refused(model, monkeypatch, tmp_path):
    """Only with the model's own size can it be known to be one."""
    out = tmp_path / "run"
    given = ("--prompt", PROMPT, "--steps", 1, "--paint", "0,0,1,1", "--out", out)
    result = run(monkeypatch, model, "image_to_image", *given)
    assert result.exit_code == 2 and "everything is inside" in result.stderr, result.output
    assert not out.exists()
