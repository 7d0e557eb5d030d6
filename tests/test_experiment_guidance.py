"""`experiments/guidance.py`: the push, its strength, and what becomes of the colours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr
from running import run, summary

from xray.samplers import NoiseSchedule, spaced_timesteps
from xray.studies import guidance as study
from xray.studies import guidance_figures as drawn

PROMPT = "a big green fish"


@pytest.fixture(scope="module")
def trace(model):
    return model.generate(PROMPT, negative="a red star", steps=3, guidance=4.0, seed=3)


# --- the push --------------------------------------------------------------------------------


def test_the_push_is_what_guidance_adds_to_the_estimate(trace, model):
    data = study.push(trace, model.schedule)
    latent, cond, guided = (
        trace[f"sampler/{name}"].values[:, 0] for name in ("latent", "noise_cond", "denoised")
    )
    for i, t in enumerate(trace.timesteps):
        conditional = model.schedule.to_denoised(cond[i], latent[i], t)
        added = guided[i] - conditional
        np.testing.assert_allclose(added, 3 * data["push"].values[i], atol=2e-3)
        assert float(data["shift"][i]) == pytest.approx(np.sqrt(np.mean(added**2)), rel=2e-3)


def test_the_push_s_cosines_are_those_of_numpy(trace, model):
    data = study.push(trace, model.schedule)
    push = data["push"].values.reshape(3, -1)
    unit = push / np.linalg.norm(push, axis=1, keepdims=True)
    np.testing.assert_allclose(data["steady"][:-1], (unit[1:] * unit[:-1]).sum(1), rtol=1e-4)
    assert math.isnan(data["steady"][-1])
    cond, uncond = (trace[f"sampler/noise_{b}"].values.reshape(3, -1) for b in ("cond", "uncond"))
    cosine = (cond * uncond).sum(1) / np.linalg.norm(cond, axis=1) / np.linalg.norm(uncond, axis=1)
    np.testing.assert_allclose(data["cosine"], cosine, rtol=1e-5)


def test_a_scale_that_changes_is_followed(model):
    trace = model.generate(PROMPT, steps=3, guidance=[1.0, 4.0, 2.0])
    data = study.push(trace, model.schedule)
    assert data["guidance"].values.tolist() == [1, 4, 2]
    assert data["shift"].values[0] == 0 and (data["shift"].values[1:] > 0).all()


# --- intervals -------------------------------------------------------------------------------


def test_an_interval_guides_between_its_noise_levels_only():
    schedule, timesteps = NoiseSchedule(), spaced_timesteps(50)[:-1]
    scales = np.array(study.in_interval(7.5, 0.28, 5.42, timesteps, schedule))
    alphas = schedule.alphas_cumprod[timesteps.astype(int)]
    level = np.sqrt((1 - alphas) / alphas)
    np.testing.assert_array_equal(scales == 7.5, (level > 0.28) & (level <= 5.42))
    assert set(scales) == {1.0, 7.5}


def test_the_three_intervals_share_the_steps():
    schedule, timesteps = NoiseSchedule(), spaced_timesteps(20)[:-1]
    parts = study.intervals(5.0, 0.28, 5.42, timesteps, schedule)
    np.testing.assert_array_equal(np.sum([np.equal(p, 5) for p in parts.values()], axis=0), 1)
    with pytest.raises(ValueError, match="5 to 2"):
        study.intervals(5.0, 5, 2, timesteps, schedule)


# --- colours ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((0, 0, 0), {"saturation": 0, "colourfulness": 0, "overshoot": 0}),
        ((1, -1, -1), {"saturation": 1, "colourfulness": 255 * 0.3 * math.hypot(1, 0.5)}),
        ((-1, -1, -1), {"saturation": 0, "contrast": 0}),
        ((1.5, 1.5, 1.5), {"saturation": 0, "overshoot": 0.25}),
        ((1, 0, 0), {"saturation": 0.5}),
    ],
)
def test_colours_that_are_known(colour, expected):
    found = study.colour_statistics(np.broadcast_to(np.float32(colour), (8, 8, 3)))
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6)


def test_black_and_white_has_all_the_contrast_there_is():
    pixels = np.ones((8, 8, 3))
    pixels[:4] = -1
    found = study.colour_statistics(pixels)
    assert found["contrast"] == pytest.approx(0.5) and found["colourfulness"] == pytest.approx(0)


def test_pictures_are_those_of_generate(model):
    choices = {"1": {"guidance": 1}, "4": {"guidance": 4.0}}
    ticks = []
    data = study.pictures(model, PROMPT, choices, [3, 4], lambda *_: ticks.append(1), steps=2)
    assert len(ticks) == 8
    alone = model.generate(PROMPT, guidance=4.0, seed=4, steps=2)
    shown = data["picture"].sel(choice="4", seed=4)
    np.testing.assert_array_equal(shown, alone["image"].values[0])
    assert float(data["latent_std"].sel(choice="4", seed=4)) == alone["sampler/out"].std()
    apart = study.distance(data, "4")
    assert (apart.sel(choice="4") == 0).all() and (apart.sel(choice="1") > 0).all()


# --- drawn -----------------------------------------------------------------------------------


def test_the_push_is_drawn_beside_the_estimates(trace, model):
    data = study.push(trace, model.schedule)
    *pictures, strength, direction = drawn.push_figure(data, trace, model).axes
    shown = np.array([axes.images[0].get_array() for axes in pictures[:9]]).reshape(3, 3, 64, 64, 3)
    for step, estimate in enumerate(trace["sampler/denoised"].values):
        np.testing.assert_array_equal(shown[2, step], model.decode(estimate)[0])
    latent, uncond = (trace[f"sampler/{name}"].values[0] for name in ("latent", "noise_uncond"))
    without = model.schedule.to_denoised(uncond, latent, trace.timesteps[0])
    np.testing.assert_array_equal(shown[0, 0], model.decode(without)[0])
    for line, name in zip(strength.lines, ("difference", "shift"), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), data[name])
    for line, name in zip(direction.lines, drawn.COSINES, strict=False):
        np.testing.assert_array_equal(line.get_ydata(), data[name])


def test_statistics_are_drawn_over_the_scales(model):
    choices = {f"{scale:g}": {"guidance": scale} for scale in (0.0, 1.0, 4.0)}
    data = study.pictures(model, PROMPT, choices, [3, 4], steps=1)
    *pictures, one, two, three, four = drawn.scales_figure(data, []).axes
    assert len(pictures) == 6
    np.testing.assert_array_equal(pictures[5].images[0].get_array(), data["picture"][2, 1])
    for axes, name in zip((one, two, three, four), drawn.STATISTICS, strict=True):
        mean = axes.lines[2]  # after a thin line for each seed
        np.testing.assert_array_equal(mean.get_xdata(), [0, 1, 4])
        np.testing.assert_array_equal(mean.get_ydata(), data[name].mean("seed"))


def test_a_schedule_is_drawn_for_as_long_as_its_steps(model):
    choices = {"all": {"guidance": 4.0}}
    data = study.pictures(model, PROMPT, choices, [3], steps=2)
    for scales in ([4.0], [1.0, 4.0]):
        figure = drawn.choices_figure("", data, ["all"], [], {"all": scales})
        shape = figure.axes[-1].patches[0].get_data()
        np.testing.assert_array_equal(shape.values, scales)
        np.testing.assert_array_equal(shape.edges, np.arange(len(scales) + 1) - 0.5)
        assert figure.axes[-1].get_xlim() == (-0.5, len(scales) - 0.5)


# --- the script ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ended(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "guidance"
    with pytest.MonkeyPatch.context() as patch:
        result = run(
            patch, model, "guidance", "--prompt", PROMPT, "--negative", "a red star", "--scale", 0,
            "--scale", 4, "--guidance", 4, "--interval", 0.5, 3, "--images", 1, "--steps", 3,
            "--width", 128, "--height", 64, "--seed", 5, "--out", out,
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    return out, result.stdout


def test_the_script_leaves_figures_data_and_summary(ended):
    out, said = ended
    assert sorted(p.name for p in out.iterdir()) == ["data.zarr", "figures", "summary.json"]
    assert sorted(p.stem for p in (out / "figures").iterdir()) == [
        "interval", "negative", "push", "scales",
    ]  # fmt: skip
    choices = ["0", "1", "4", "not “a red star”", "σ > 3", "0.5 < σ ≤ 3", "σ ≤ 0.5"]
    assert [row["guidance"] for row in summary(out)["pictures"]] == choices
    assert "colourfulness" in said


def test_the_data_opens_with_plain_xarray(ended):
    data = xr.open_zarr(ended[0] / "data.zarr").load()
    assert data["picture"].shape == (7, 1, 64, 128, 3) and data["picture"].dtype == np.uint8
    assert data["push"].shape == (3, 8, 16, 4)
    row = summary(ended[0])["pictures"][2]
    assert row["contrast"] == pytest.approx(float(data["contrast"].sel(choice="4").mean()))
