"""What lies between two noises and two pictures: norms, ends, round trips, and the script."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import xarray
from hypothesis import given
from hypothesis import strategies as st
from running import run, summary

from xray.architecture import Architecture
from xray.fidelity import psnr
from xray.images import caption, load_image
from xray.interpolate import lerp, slerp
from xray.inversion import invert
from xray.samplers import initial_noise
from xray.studies import latent_interpolation as study
from xray.studies import latent_interpolation_figures as drawn
from xray.studies.text_interpolation import pictures

PROMPT, SEEDS = "a red star", (3, 4)
ASKED = {"steps": 2, "guidance": 2.0}
TOLD = ["a red star", "a big green fish"]


@pytest.fixture(scope="module")
def contexts(model):
    return model.embed(TOLD).values


@pytest.fixture(scope="module")
def pixels():
    return np.stack([load_image("china", 128, 64), load_image("scene:8", 128, 64)])


@pytest.fixture(scope="module")
def ticks():
    """One for each time that the three below have called `tick`."""
    return []


@pytest.fixture(scope="module")
def noises(model, ticks):
    asked = {"width": 128, "height": 64, "tick": lambda *_: ticks.append("noises"), **ASKED}
    return study.between_noises(model, PROMPT, SEEDS, frames=5, **asked)


@pytest.fixture(scope="module")
def trips(model, pixels, contexts, ticks):
    tick = lambda *_: ticks.append("trips")  # noqa: E731
    return study.round_trips(model, pixels, contexts, tick=tick, **ASKED)


@pytest.fixture(scope="module")
def between(model, trips, contexts, ticks):
    tick = lambda *_: ticks.append("between")  # noqa: E731
    return study.between_pictures(model, trips, contexts, frames=5, steps=2, tick=tick)


# --- noises --------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0.1, 10))
def test_the_norm_on_both_ways_is_that_of_the_closed_form(seed, t, scale):
    a, b = initial_noise(seed, (50,)), scale * initial_noise(seed + 1, (50,))
    norm = [float(np.linalg.norm(x.astype(np.float64))) for x in (a, b)]
    cos = float(a.astype(np.float64) @ b.astype(np.float64)) / norm[0] / norm[1]
    assert np.linalg.norm(lerp(a, b, t)) == pytest.approx(
        float(study.lerp_norm(t, *norm, cos)), rel=1e-5
    )
    assert np.linalg.norm(slerp(a, b, t)) == pytest.approx(
        (1 - t) * norm[0] + t * norm[1], rel=1e-5
    )


def test_half_way_on_the_straight_line_noise_has_root_half_of_its_norm(noises):
    assert float(study.lerp_norm(0.5)) == pytest.approx(0.5**0.5)
    for way in study.WAYS:
        own = noises.sel(way=way)
        np.testing.assert_allclose(own["start_norm"], own["closed_form"], rtol=1e-5)
    lines, circle = noises["start_norm"].values
    assert lines[2] == pytest.approx(0.5**0.5, abs=0.1)
    np.testing.assert_allclose(circle, 1, atol=0.1)
    assert float(noises.attrs["cosine"]) == pytest.approx(0, abs=0.2)


def test_both_ways_begin_and_end_with_the_seeds_own_pictures(noises, model):
    for frame, seed in ((0, SEEDS[0]), (-1, SEEDS[1])):
        alone = model.generate(PROMPT, seed=seed, width=128, height=64, record=[], **ASKED)
        for way in range(2):
            gap = noises["noise_image"].values[way, frame].astype(int) - alone["image"].values[0]
            assert np.abs(gap).max() <= 1


def test_pictures_from_given_noise_are_those_of_their_seeds(model, contexts):
    """Latents, not rounded pictures; the second batch is filled up and cut again."""
    starts = np.stack([initial_noise(seed, (8, 8, 4)) for seed in (3, 4, 5)])
    embeddings = contexts[[0, 1, 0]]
    latents, _ = study.pictures(model, embeddings, starts, most=2, **ASKED)
    assert len(latents) == 3
    for k, seed in enumerate((3, 4, 5)):
        alone = model.generate(embeddings[k], seed=seed, record=[], **ASKED)["sampler/out"].values
        np.testing.assert_allclose(latents[k], alone[0], atol=1e-5 * alone.std())


def test_detail_is_the_step_from_pixel_to_pixel():
    stripes = np.zeros((2, 6, 6, 3), np.uint8)
    stripes[0, :, ::2] = 100
    assert study.detail(stripes) == pytest.approx([100 / 2**0.5, 0])


# --- pictures ------------------------------------------------------------------------------


def test_the_error_is_of_what_comes_back_from_the_noise(trips, model, pixels, contexts):
    assert trips["trip_steps"].values.tolist() == [1, 2, 4]
    latent = model.encode(pixels).values
    for trip, (up, down) in zip(trips["trip"].values, ((1, 1), (1, 2), (2, 2)), strict=True):
        trailing = {"steps": 2, "spacing": "trailing"}
        noise = invert(model, latent, list(contexts), guidance=up, **trailing)
        own = trips.sel(trip=trip)
        np.testing.assert_allclose(own["inverted"], noise, atol=1e-5)
        asked = {**trailing, "guidance": down, "record": []}
        trace = model.generate(list(contexts), latent=noise, **asked)
        gap = np.abs(own["back"].values.astype(int) - trace["image"].values)
        assert gap.max() <= 1
        back = trace["sampler/out"].values
        for end in range(2):
            error = np.linalg.norm(back[end] - latent[end]) / np.linalg.norm(latent[end])
            assert float(own["error"].sel(trip_steps=2)[end]) == pytest.approx(error, rel=1e-3)
    # With guidance only as many steps as were asked for.
    assert np.isnan(trips["error"].sel(trip_steps=4)[1:]).all()
    assert np.isfinite(trips["error"].sel(trip_steps=[1, 2])).all()


@pytest.mark.usefixtures("noises", "trips", "between")
def test_every_step_is_counted_and_without_guidance_there_is_one_round_trip(
    model, pixels, contexts, ticks
):
    asked, seen = {"frames": 5, "steps": 2, "size": (128, 64)}, list(ticks)
    assert len(seen) == study.ticks(model, guidance=2.0, **asked)
    tick = lambda *_: seen.append("plain")  # noqa: E731
    trips = study.round_trips(model, pixels, contexts, steps=2, guidance=1.0, tick=tick)
    assert trips["trip"].values.tolist() == [study.PLAIN]
    assert trips["trip_steps"].values.tolist() == [1, 2, 4]
    assert len(seen) - seen.count("trips") == study.ticks(model, guidance=1.0, **asked)


def test_ways_between_pictures_begin_and_end_with_them(between, trips, model):
    decoded = np.stack([np.asarray(p) for p in model.decode(trips["latent"].values)])
    assert np.abs(between["encoded"].values[[0, -1]].astype(int) - decoded).max() <= 1
    back = trips["back"].sel(trip=study.PLAIN).values
    assert np.abs(between["inverted_image"].values[[0, -1]].astype(int) - back).max() <= 1
    middle = model.decode(trips["latent"].values.mean(axis=0))[0]
    assert np.abs(between["encoded"].values[2].astype(int) - np.asarray(middle)).max() <= 1
    ends = between["encoded"].values[[0, -1]].astype(float)
    faded = np.rint(0.25 * ends[1] + 0.75 * ends[0]).astype(np.uint8)
    expected = psnr(between["encoded"].values[1:2], faded[None])[0]
    assert float(between["fade"][1]) == pytest.approx(expected, abs=0.05)
    assert np.isinf(between["fade"].values[[0, -1]]).all()


def test_batches_are_as_large_as_pictures_of_that_size_allow():
    rows = []

    def generate(embeddings, latent, **_):
        rows.append(len(latent))
        found = {"sampler/out": latent, "image": np.zeros((len(latent), 8, 8, 3), np.uint8)}
        return {site: SimpleNamespace(values=values) for site, values in found.items()}

    small = SimpleNamespace(architecture=Architecture(size=128), generate=generate)
    contexts = np.zeros((4, 2, 8), np.float32)
    for side, sizes in ((64, [1, 1, 1, 1]), (32, [2, 2])):
        rows.clear()
        _, images = pictures(small, contexts, np.zeros((4, side, side, 4), np.float32), most=2)
        assert rows == sizes and len(images) == 4


def test_findings_are_those_of_the_middle_and_of_both_pictures(noises, trips):
    ways, errors = study.findings(xarray.merge([noises, trips]))
    assert (ways[0]["t"], ways[0]["norm"]) == (0.5, float(noises["start_norm"][0, 2]))
    detail = noises["detail"].values[1]
    assert ways[1]["of the ends'"] == pytest.approx(detail[2] / ((detail[0] + detail[4]) / 2))
    assert errors[0]["error in 4 steps"] == pytest.approx(float(trips["error"][0, 2].mean()))
    assert errors[1]["error in 4 steps"] is None


def test_of_an_even_number_of_frames_the_norm_is_told_with_its_place(noises, trips):
    four = noises.isel(frame=slice(4)).assign_coords(t=("frame", np.linspace(0, 1, 4)))
    for row in study.findings(xarray.merge([four, trips]))[0]:
        frame = int(np.flatnonzero(four["t"] == row["t"])[0])
        assert row["norm"] == float(four["start_norm"].sel(way=row["way"])[frame])


# --- figures and the script ----------------------------------------------------------------


def test_figures_show_the_pictures_and_the_curves(noises, trips, between, model):
    asked = {"prompt": PROMPT, "seed": 3, "other_seed": 4, "picture": "china"}
    asked |= {"other_picture": "scene:8", "words": TOLD, **ASKED}
    data = xarray.merge([noises, trips, between]).assign_attrs(asked)
    figures = drawn.figures(data, model)
    shown = [axes.images[0].get_array() for axes in figures["noise"].axes[:10]]
    np.testing.assert_array_equal(shown, data["noise_image"].values.reshape(10, 64, 128, 3))
    norms = {line.get_label(): line for line in figures["noise"].axes[10].lines}
    np.testing.assert_array_equal(norms["lerp"].get_ydata(), data["start_norm"][0])
    middle = norms["closed form of lerp"].get_ydata()[50]
    assert middle == pytest.approx(float(data["start_norm"][0, 2]), rel=1e-5)
    shown = [axes.images[0].get_array() for axes in figures["pictures"].axes]
    np.testing.assert_array_equal(shown[1:6], data["encoded"])
    np.testing.assert_array_equal(shown[7:], data["inverted_image"])
    curves = figures["inversion"].axes[-1].lines
    np.testing.assert_allclose(curves[0].get_ydata(), data["error"][0].mean("end"))


def test_the_script_writes_what_plain_xarray_reads(tmp_path, monkeypatch, model):
    asked = ["--picture", "flower", "--other-picture", "scene:8", "--words", "a red star"]
    asked += ["--other-words", "a big green fish", "--prompt", PROMPT]
    asked += ["--frames", 3, "--steps", 1, "--width", 128, "--height", 64]
    result = run(monkeypatch, model, "latent_interpolation", *asked, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in tmp_path.glob("run/figures/*"))
    assert names == ["inversion.png", "noise.png", "pictures.png"]
    stored = xarray.open_zarr(tmp_path / "run" / "data.zarr")
    np.testing.assert_array_equal(stored["original"][0], load_image("flower", 128, 64))
    told = summary(tmp_path / "run")
    assert told["words"] == TOLD
    assert told["ways"][0]["norm"] == pytest.approx(float(stored["start_norm"][0, 1]))
    assert told["round_trips"][0]["error in 1 steps"] == pytest.approx(
        float(stored["error"][0, 0].mean())
    )


def test_a_scenes_own_words_are_taken_where_none_are_given(tmp_path, monkeypatch, model):
    monkeypatch.setattr(study, "ticks", lambda *_, **asked: 1 / 0)  # far enough
    told = []
    embed = type(model).embed
    monkeypatch.setattr(
        type(model), "embed", lambda self, p, **_: told.append(p) or embed(self, TOLD)
    )
    arguments = ["--other-picture", "china", "--out", tmp_path / "run"]
    run(monkeypatch, model, "latent_interpolation", "--picture", "scene:3", *arguments)
    assert told == [[caption("scene:3"), ""]]
