"""`experiments/latent_walk.py`: frames are computed once, and the films hold just them."""

from __future__ import annotations

import json
import runpy
from types import SimpleNamespace

import numpy as np
import pytest
import xarray
from typer.testing import CliRunner

import xray
from xray import script, video
from xray.experiment import Experiment
from xray.frames import Frames
from xray.rendering import batch_size, render
from xray.resources import shipped
from xray.studies import latent_walk as study
from xray.walks import plan

APP = script.app(runpy.run_path(str(shipped("experiments") / "latent_walk.py"))["main"])
PROMPTS = ["a red star above a blue moon", "a big green fish"]
ASKED = {"steps": 2, "guidance": 3.0, "seed": 5}


def run(*arguments):
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


@pytest.fixture
def loaded(monkeypatch, model):
    monkeypatch.setattr(Experiment, "load", lambda self, name: model)


@pytest.fixture
def computed(monkeypatch, model):
    """How many pictures each call of `generate` was asked for."""
    calls = []
    generate = type(model).generate

    def counted(self, prompt, **asked):
        calls.append(len(prompt))
        return generate(self, prompt, **asked)

    monkeypatch.setattr(type(model), "generate", counted)
    return calls


@pytest.fixture(scope="module")
def walk(model):
    return plan(model, PROMPTS, [5], frames=7, noise="circle")


@pytest.fixture(scope="module")
def frames(model, walk, tmp_path_factory):
    """A whole film's frames, with a word's heat."""
    made = Frames(tmp_path_factory.mktemp("film"), {})
    assert render(model, walk, made, word="star", batch=2, **ASKED) == 6
    return made


def pixels(frames, count):
    return np.stack([np.asarray(frames.picture(frame)) for frame in range(count)])


# --- frames --------------------------------------------------------------------------------


def test_each_frame_is_what_its_noise_and_embedding_give_alone(model, walk, frames):
    for frame in (0, 2, 5):
        alone = model.generate(walk.context(frame), latent=walk.noise[frame], **ASKED)
        found = np.asarray(frames.picture(frame), float)
        assert np.abs(found - np.asarray(alone.image)).max() <= 1
        latent = alone["sampler/out"].values[0]
        np.testing.assert_allclose(frames.array(frame, "latent"), latent, atol=1e-4)


def test_a_stop_is_the_picture_of_its_prompt_and_seed(model, frames):
    whole = model.generate(PROMPTS[0], **ASKED)
    assert np.abs(np.asarray(whole.image, float) - np.asarray(frames.picture(0))).max() <= 1


def test_the_last_frame_of_a_circle_is_the_first_to_the_bit(frames):
    for path in (frames.path, lambda f: frames.path(f).with_suffix(".npz")):
        assert path(0).read_bytes() == path(6).read_bytes()


def test_the_heat_at_a_stop_is_its_word_map(model, walk, frames):
    trace = model.generate(PROMPTS[0], record=["unet/**/cross/weights"], **ASKED)
    maps = xray.wordmaps.word_maps(trace, words="star")
    share = maps.values[0] / maps.coords["maps"].item()
    np.testing.assert_allclose(frames.array(0, "heat"), share, atol=2e-4)
    assert walk.stops[1] == 3 and not frames.array(3, "heat").any()  # a fish has no star


def test_heat_between_two_prompts_follows_the_word_to_its_place(model, tmp_path):
    """The word is another token in each prompt; half-way it is both places' mean."""
    way = plan(model, ["a red star", "a blue moon above a star"], [5], frames=3)
    kept = Frames(tmp_path, {})
    render(model, way, kept, word="STAR", batch=1, **ASKED)
    trace = model.generate(
        way.context(1), latent=way.noise[1], record=["unet/**/cross/weights"], **ASKED
    )
    expected = 0
    for prompt in way.prompts:
        tokens = [t.word for t in model.tokenizer.tokens(prompt)]
        places = [i for i, each in enumerate(tokens) if each == "star"]
        for site in (s for s in trace.sites if s.endswith("cross/weights")):
            weights = trace[site].sel(branch="cond").isel(image=0).values.astype(float)
            expected = expected + 0.5 * weights[..., places].sum(-1).mean((0, 1)).mean()
    count = sum(s.endswith("cross/weights") for s in trace.sites)
    # Enlarged maps keep their mean, but for the edges.
    assert kept.array(1, "heat").mean() == pytest.approx(expected / count, rel=0.02)


def test_a_word_that_no_prompt_has_is_refused_before_anything_is_computed(
    model, walk, tmp_path, computed
):
    with pytest.raises(ValueError, match="no word 'tree' in the prompts, whose words are a, red"):
        render(model, walk, Frames(tmp_path, {}), word="tree", **ASKED)
    assert computed == []


@pytest.mark.parametrize("stopped_at", [0, 1, 4])
def test_resumed_after_an_interruption_nothing_is_computed_twice(
    model, walk, frames, computed, monkeypatch, tmp_path, stopped_at
):
    keep = Frames.keep

    def interrupted(self, index, *arguments, **arrays):
        if index == stopped_at:
            raise KeyboardInterrupt
        keep(self, index, *arguments, **arrays)

    monkeypatch.setattr(Frames, "keep", interrupted)
    with pytest.raises(KeyboardInterrupt) as stop:
        render(model, walk, Frames(tmp_path, {}), word="star", batch=2, **ASKED)
    assert stop.value.__notes__ == [
        f"{stopped_at} of 7 frames are kept: resume to go on with the others"
    ]
    monkeypatch.setattr(Frames, "keep", keep)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.png")}
    assert len(before) == stopped_at

    del computed[:]
    told = []
    again = Frames(tmp_path, {}, resume=True)
    made = render(model, walk, again, word="star", batch=2, progress=told.append, **ASKED)
    assert made == 6 - stopped_at
    assert computed == [2] * -(-made // 2)  # the last is filled up: one size, one program
    assert told[0] == stopped_at and told == sorted(told) and told[-1] == 7
    assert {path: path.stat().st_mtime_ns for path in before} == before
    found, whole = pixels(again, 7).astype(int), pixels(frames, 7)
    assert np.abs(found - whole).max() <= 1  # as if never interrupted
    assert render(model, walk, again, word="star", **ASKED) == 0


def test_the_batch_suits_the_size_of_the_pictures():
    def of(height, width):
        return batch_size(SimpleNamespace(noise=np.zeros((9, height // 8, width // 8, 4))))

    assert [of(128, 128), of(128, 256), of(256, 256), of(512, 512)] == [4, 2, 1, 1]


# --- the film ------------------------------------------------------------------------------


def test_the_film_holds_at_the_stops_and_closes(walk, frames):
    assert walk.stops == [0, 3, 6]
    sent = [np.asarray(each) for each in study.film(walk, frames, hold=2)]
    assert len(sent) == 7 + 2 * 2
    np.testing.assert_array_equal(sent[0], sent[2])
    np.testing.assert_array_equal(sent[5], sent[7])
    np.testing.assert_array_equal(sent[0], sent[-1])
    repeated = [np.asarray(each) for each in study.film(walk, frames, hold=2, open_end=True)]
    np.testing.assert_array_equal(repeated, sent[:-1])


def test_without_caption_and_inset_the_film_is_the_frames(walk, frames):
    for frame, picture in enumerate(study.film(walk, frames)):
        assert picture.size == (384, 384)  # from 64
        np.testing.assert_array_equal(np.asarray(picture)[::6, ::6], pixels(frames, 7)[frame])


def test_captions_and_insets_are_of_their_frame(walk, frames, model):
    latents = list(study.film(walk, frames, inset="latent", matrix=model.rgb_matrix))
    heats = list(study.film(walk, frames, inset="star", captions=True))
    assert latents[0].size == (384, 384) and heats[0].height > 384
    corner = np.asarray(heats[0])[300:370, 290:370].astype(int)
    none = np.asarray(heats[3])[300:370, 290:370].astype(int)
    assert corner.max() > 200 and none.max() < 10  # at the second stop no prompt has a star
    band = [np.asarray(each)[384:] for each in heats]
    assert band[0].max() > 200 and not np.array_equal(band[0], band[3])


def test_films_are_what_a_decoder_finds(walk, frames, tmp_path):
    found = study.write_films(tmp_path, walk, frames, fps=10, hold=1)
    assert list(found) == ["film.mp4", "film.gif"]
    mp4, gif = found.values()
    assert (mp4["frames"], mp4["fps"], mp4["seconds"]) == (9, 10, pytest.approx(0.9))
    assert (mp4["width"], mp4["height"]) == (gif["width"], gif["height"]) == (384, 384)
    assert gif["seconds"] == pytest.approx(0.8)  # without the last, which is the first
    first, *_, last = video.read(tmp_path / "film.mp4")
    steps = study.measure(walk, frames)["picture_step"].values[1:]
    seam = np.sqrt(np.mean((first.astype(float) - last) ** 2))
    assert seam < 0.5 * steps.min()  # and so the seam is not seen
    for sent, decoded in zip(study.film(walk, frames, hold=1), video.read(tmp_path / "film.mp4")):
        assert np.abs(np.asarray(sent, float) - decoded).mean() < 6


# --- the numbers ---------------------------------------------------------------------------


def test_noise_goes_in_equal_steps_and_the_rest_is_measured(walk, frames):
    data = study.measure(walk, frames)
    np.testing.assert_allclose(data["noise_step"][1:], 60, atol=1e-3)  # six steps round
    assert np.isnan(data["noise_step"][0])
    sent = pixels(frames, 7).astype(float)
    rms = np.sqrt(((sent[4] - sent[3]) ** 2).mean())
    assert float(data["picture_step"][4]) == pytest.approx(rms)
    first, second = (walk.context(f) for f in (0, 3))
    whole = np.linalg.norm(second - first) / np.linalg.norm(first)
    np.testing.assert_allclose(data["context_step"][1:], whole / 3, rtol=1e-4)
    np.testing.assert_array_equal(data["latent"][2], frames.array(2, "latent"))
    assert data["stop"].values.nonzero()[0].tolist() == [0, 3, 6]


def test_evenness_names_the_largest_step_and_leaves_out_what_stands_still():
    steps = np.array([np.nan, 1.0, 1.0, 4.0, 2.0])
    still = np.array([np.nan, 0, 0, 0, 0])
    data = xarray.Dataset(
        {name: ("frame", still) for name in study.STEPS} | {"picture_step": ("frame", steps)}
    )
    assert study.evenness(data) == [["picture step", 2.0, 4.0, 2.0, 3]]


def test_the_figure_shows_each_curve_over_its_mean(walk, frames):
    data = study.measure(walk, frames)
    drawn = study.figure(walk, frames, data, "made so")
    *pictures, axes = drawn.axes
    assert len(pictures) == 8
    curves = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert {"embedding", "noise", "picture", "a stop of the walk"} <= set(curves)
    np.testing.assert_allclose(np.nanmean(curves["picture"]), 1)
    np.testing.assert_allclose(curves["noise"][1:], 1, atol=1e-5)
    shown = [each.images[0].get_array() for each in pictures]
    jump = int(np.nanargmax(data["picture_step"]))
    np.testing.assert_array_equal(shown[0], frames.picture(0))
    np.testing.assert_array_equal(shown[-2:], pixels(frames, 7)[[jump - 1, jump]])
    texts = [text.get_text() for text in drawn.texts]
    assert f"largest step: {jump - 1}" in texts and "made so" in texts


# --- the script ----------------------------------------------------------------------------

SMALL = [
    "--prompt", PROMPTS[0], "--prompt", PROMPTS[1], "--seed", 5, "--frames", 5, "--steps", 2,
    "--fps", 10, "--hold", 0.1, "--batch", 1,
]  # fmt: skip


@pytest.mark.usefixtures("loaded")
def test_a_run_leaves_films_frames_figure_data_and_summary(tmp_path, computed):
    result = run(*SMALL, "--caption", "--inset", "latent", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "data.zarr", "figures", "film.gif", "film.mp4", "frames", "summary.json",
    ]  # fmt: skip
    assert sum(computed) == 4
    assert len(list((tmp_path / "frames").glob("*.png"))) == 5
    assert [p.name for p in (tmp_path / "figures").iterdir()] == ["walk.png"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["computed"], summary["frames"], summary["noise"]) == (4, 5, "circle")
    assert summary["films"]["film.mp4"] == vars(video.probe(tmp_path / "film.mp4"))
    assert summary["films"]["film.mp4"]["frames"] == 7
    data = xarray.open_zarr(tmp_path / "data.zarr")
    assert data["latent"].shape == (5, 8, 8, 4)
    assert data["prompt"].values.tolist() == PROMPTS
    steps = {row[0]: row for row in summary["steps"]}
    assert steps["picture step"][2] == pytest.approx(float(data["picture_step"].max()))
    assert "film.mp4" in result.stdout and "picture step" in result.stdout


@pytest.mark.usefixtures("loaded")
def test_ctrl_c_and_resume(tmp_path, computed, monkeypatch):
    keep = Frames.keep

    def interrupted(self, index, *arguments, **arrays):
        if index == 2:
            raise KeyboardInterrupt
        keep(self, index, *arguments, **arrays)

    monkeypatch.setattr(Frames, "keep", interrupted)
    stopped = run(*SMALL, "--out", tmp_path / "film")
    assert stopped.exit_code == 130
    assert "interrupted; 2 of 5 frames are kept: resume to go on" in stopped.stderr
    assert f"kept in {tmp_path / 'film'}: frames" in stopped.stderr
    monkeypatch.setattr(Frames, "keep", keep)

    del computed[:]
    refused = run(*SMALL, "--angle", 20, "--out", tmp_path / "other")
    assert refused.exit_code == 2 and "--angle is of a random walk" in refused.stderr
    refused = run(*SMALL, "--out", tmp_path / "film")
    assert refused.exit_code == 2 and "is not empty" in refused.stderr
    other = run(*SMALL, "--steps", 3, "--resume", "--out", tmp_path / "film")
    assert other.exit_code == 2 and "were made with steps 2, not 3" in other.stderr
    assert computed == []

    resumed = run(*SMALL, "--resume", "--out", tmp_path / "film")
    assert resumed.exit_code == 0, resumed.output
    assert computed == [1, 1]
    # What does not touch the frames may change: another film of the same frames.
    slower = run(*SMALL, "--fps", 5, "--caption", "--resume", "--out", tmp_path / "film")
    assert slower.exit_code == 0 and computed == [1, 1]
    assert video.probe(tmp_path / "film" / "film.mp4").fps == 5

    anew = run(*SMALL, "--steps", 3, "--overwrite", "--out", tmp_path / "film")
    assert anew.exit_code == 0 and sum(computed[2:]) == 4
    settings = json.loads((tmp_path / "film" / "frames" / "settings.json").read_text())
    assert settings["steps"] == 3


@pytest.mark.usefixtures("loaded")
def test_a_finished_film_is_there_until_the_next_one_is(tmp_path, monkeypatch, model):
    assert run(*SMALL, "--out", tmp_path).exit_code == 0
    names = ("film.mp4", "figures/walk.png", "summary.json")
    before = {name: (tmp_path / name).read_bytes() for name in names}
    anew = [*SMALL, "--steps", 1, "--overwrite", "--out", tmp_path]

    def refuse(self, *_, **__):
        raise MemoryError("too large")

    with monkeypatch.context() as patch:
        patch.setattr(type(model), "plan", refuse)
        assert isinstance(run(*anew).exception, MemoryError)
    assert len(list(tmp_path.glob("frames/*.png"))) == 5
    with monkeypatch.context() as patch:
        patch.setattr(Frames, "keep", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(*anew).exit_code == 130
    assert {name: (tmp_path / name).read_bytes() for name in names} == before
    assert run(*anew, "--resume").exit_code == 0
    after = {name: (tmp_path / name).read_bytes() for name in names}
    assert all(after[name] != before[name] for name in names)
