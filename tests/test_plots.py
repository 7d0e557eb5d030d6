"""Figures show the recorded numbers, say what they show, and can be read."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import scipy.stats
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image
from synthetic_attention import PROMPT, TOKENS, attention, run

from xray import pictures, plots, wordmaps
from xray.trace import TraceError

STEPS = 9
MATRIX = np.random.default_rng(9).normal(0, 0.2, (5, 3)).tolist()


def make_latents(*names: str, images: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    return {name: rng.normal(0.1, 1.5, (STEPS, images, 8, 8, 4)) for name in names}


ALL = make_latents("latent", "noise_uncond", "noise_cond", "noise", "denoised")
PIXELS = np.random.default_rng(5).integers(0, 256, (1, 64, 64, 3), np.uint8)
LAYERS = {
    f"unet/up.{i}/attn.0": attention(np.random.default_rng(i), STEPS, 2, 1, 2, 4 * i, 4 * i)
    for i in (1, 2)
}


@pytest.fixture(scope="module")
def trace():
    return run(
        LAYERS, latents=ALL, negatives=[TOKENS], pixels=PIXELS, rgb_matrix=MATRIX, digest="d" * 64
    )


class Decoder:
    """Stands for a model: decodes a latent to flat grey that tells which one it was."""

    name, digest = "synthetic", "d" * 64

    def decode(self, latent):
        assert latent.shape == (8, 8, 4)  # one at a time
        grey = int(abs(float(latent[0, 0, 0])) * 1000) % 256
        return [Image.new("RGB", (64, 64), (grey, grey, grey))]


def texts(figure) -> str:
    return " ".join(each.get_text() for each in figure.findobj(match=lambda a: hasattr(a, "_text")))


def drawn(figure) -> list[np.ndarray]:
    """The picture in each of the axes, in the order they were placed."""
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


# --- statistics ----------------------------------------------------------------------------


def test_step_statistics_are_those_of_numpy(trace):
    found = plots.step_statistics(trace)
    assert found["step"] == list(range(STEPS))
    assert found["timestep"] == trace.timesteps
    for name in ("latent", "noise", "denoised"):
        for step, values in enumerate(ALL[name][:, 0].astype(np.float32).astype(np.float64)):
            expected = {
                "norm": np.sqrt((values**2).sum()),
                "mean": values.mean(),
                "std": values.std(),
                "min": values.min(),
                "max": values.max(),
                "ks": scipy.stats.kstest(values.ravel(), "norm").statistic,
            }
            for key, number in expected.items():
                assert found[f"{name}_{key}"][step] == pytest.approx(number, rel=1e-6)
    a, b = (ALL[f"noise_{branch}"].reshape(STEPS, -1) for branch in ("cond", "uncond"))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(found["cosine"], cosine, rtol=1e-5)
    assert len(found) == 2 + 3 * 6 + 1


def test_step_statistics_are_json_and_what_is_not_defined_is_null():
    latents = ALL | {"noise_uncond": np.zeros((STEPS, 1, 8, 8, 4))}
    found = plots.step_statistics(run(latents=latents, negatives=[TOKENS]))
    assert found["cosine"] == [None] * STEPS
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_step_statistics_leave_out_what_was_not_recorded_whole():
    reduced = {"latent": ALL["latent"].mean(axis=-1), "noise": ALL["noise"]}
    found = plots.step_statistics(run(latents=reduced))
    assert {key.split("_")[0] for key in found} == {"step", "timestep", "noise"}


def test_statistics_of_one_image_of_a_batch():
    latents = make_latents("latent", "noise", "denoised", images=2)
    trace = run(latents=latents, prompts=[TOKENS, TOKENS])
    second = run(latents={name: values[:, 1:] for name, values in latents.items()})
    assert plots.step_statistics(trace, image=1) == plots.step_statistics(second)
    with pytest.raises(ValueError, match="no image 2.*has 2"):
        plots.step_statistics(trace, image=2)


def test_the_statistics_figure_draws_these_numbers(trace):
    data = plots.step_statistics(trace)
    norms, spreads, angle, distance = plots.statistics(trace).axes

    def curves(axes):
        return {line.get_label(): list(line.get_ydata()) for line in axes.lines}

    for axes, key, normal in ((norms, "norm", 16), (spreads, "std", 1)):
        found = curves(axes)
        for name in ("latent", "noise", "denoised"):
            assert found[name] == data[f"{name}_{key}"]
        assert found["standard normal sample (KS: 95 % are below)"] == [normal, normal]
        assert axes.get_ylabel() == "latent units"
    assert curves(angle) == {"cosine": data["cosine"]}
    assert curves(distance)["latent"] == data["latent_ks"]
    assert distance.lines[-1].get_ydata()[0] == pytest.approx(1.36 / 16)
    for axes in (norms, spreads, angle, distance):
        assert axes.lines[0].get_xdata().tolist() == data["step"]
        assert axes.get_xlabel() == "step"
        low, high = axes.get_ylim()
        for line in axes.lines:
            assert low <= min(line.get_ydata()) <= max(line.get_ydata()) <= high


def test_curves_are_told_apart_without_colour(trace):
    lines = plots.statistics(trace).axes[0].lines[:3]
    assert len({line.get_linestyle() for line in lines}) == 3
    assert len({line.get_color() for line in lines}) == 3


def test_a_panel_without_its_tensors_says_why():
    single = {name: values for name, values in ALL.items() if name != "noise_uncond"}
    angle = plots.statistics(run(latents=single)).axes[2]
    assert "guidance 1" in angle.texts[0].get_text() and not angle.lines
    figure = plots.statistics(run(latents=make_latents("noise"), negatives=[TOKENS]))
    assert "noise_uncond not recorded" in figure.axes[2].texts[0].get_text()
    assert "latent not recorded" in figure.axes[3].texts[0].get_text()


# --- timeline ------------------------------------------------------------------------------


def test_the_timeline_shows_steps_from_the_first_to_the_last(trace):
    figure = plots.timeline(trace, count=5)
    shown = [0, 2, 4, 6, 8]
    for step in range(STEPS):
        assert (f"step {step}" in texts(figure)) == (step in shown)
    for step in shown:
        assert f"t = {trace.timesteps[step]:.5g}" in texts(figure)
    rows = [ALL[name][shown, 0].astype(np.float32) for name in ("latent", "denoised", "noise")]
    expected = [*pictures.rgb(np.concatenate(rows), np.array(MATRIX)), PIXELS[0]]
    for found, pixels in zip(drawn(figure), expected, strict=True):
        np.testing.assert_array_equal(found, pixels)


def test_the_timeline_decodes_the_denoised_estimate_with_the_model(trace):
    figure = plots.timeline(trace, Decoder(), steps=[1, 7])
    assert "decoded" in texts(figure) and "not decoded" not in texts(figure)
    middle = drawn(figure)[2:4]
    for pixels, step in zip(middle, (1, 7), strict=True):
        expected = Decoder().decode(ALL["denoised"][step, 0].astype(np.float32))[0]
        np.testing.assert_array_equal(pixels, expected)
    assert "not decoded" in texts(plots.timeline(trace, steps=[1, 7]))


def test_without_a_colour_matrix_a_row_shows_components_on_one_scale():
    trace = run(latents={"latent": ALL["latent"]})
    figure = plots.timeline(trace, steps=[0, 3])
    expected = pictures.pca(ALL["latent"][[0, 3], 0].astype(np.float32))
    np.testing.assert_array_equal(drawn(figure), expected)
    assert "principal components" in texts(figure)


def test_the_timeline_refuses_another_models_decoder_and_unknown_steps(trace):
    other = Decoder()
    other.digest = "e" * 64
    with pytest.raises(ValueError, match="weights dddddddddddd .*weights eeeeeeeeeeee"):
        plots.timeline(trace, other)
    with pytest.raises(TraceError, match="step 12"):
        plots.timeline(trace, steps=[12])
    for choice in ({"count": 0}, {"steps": []}):
        with pytest.raises(ValueError, match="no steps to show"):
            plots.timeline(trace, **choice)


def test_the_timeline_of_a_models_own_run(model):
    trace = model.generate("a red star", steps=3, seed=1, width=128, height=64)
    figure = plots.timeline(trace, model)
    *rows, picture = drawn(figure)
    denoised = [model.decode(trace["sampler/denoised"].sel(step=s))[0] for s in range(3)]
    np.testing.assert_array_equal(rows[3:6], np.stack(denoised))
    np.testing.assert_array_equal(picture, trace.image)


# --- word maps -----------------------------------------------------------------------------


def maps_of(figure) -> list:
    """The maps' own images, without pictures, outlines and the colour bar."""
    return [axes.images[0] for axes in figure.axes if len(axes.images) == 2]


def test_word_maps_are_drawn_on_one_scale_that_the_bar_shows(trace):
    expected = wordmaps.word_maps(trace).values
    figure = plots.word_maps(trace)
    images = maps_of(figure)
    np.testing.assert_array_equal([image.get_array() for image in images], expected)
    assert {image.get_clim() for image in images} == {(0, expected.max())}
    assert figure.axes[-1].get_ylim() == (0, expected.max())
    assert "One colour scale for all maps" in texts(figure).replace("\n", " ")
    np.testing.assert_array_equal(drawn(figure)[0], PIXELS[0])


def test_with_a_scale_for_each_word_the_figure_says_so(trace):
    expected = wordmaps.word_maps(trace).values
    figure = plots.word_maps(trace, scale="word")
    limits = [image.get_clim() for image in maps_of(figure)]
    assert limits == [(0, each.max()) for each in expected]
    assert "Each map has its own colour scale" in texts(figure)
    assert [label.get_text() for label in figure.axes[-1].get_yticklabels()][0] == "0"
    with pytest.raises(ValueError, match="'each' is not 'shared' or 'word'"):
        plots.word_maps(trace, scale="each")


def test_maps_carry_their_word_and_its_share_of_the_attention(trace):
    figure = plots.word_maps(trace)
    maps = wordmaps.word_maps(trace)
    shown = [text.get_text() for text in figure.texts]
    names = ["a", "red (1)", "stargazer", "and", "red (2)", "red (3)"]
    for name, each in zip(names, maps.values, strict=True):
        share = f"{each.mean() / maps.coords['maps'].item():.1%}"
        assert shown[shown.index(name) + 1] == share


def test_the_figure_says_what_was_summed(trace):
    assert "all heads, unet/up.1/attn.0 and unet/up.2/attn.0 and all 9 steps: 36 maps" in (
        texts(plots.word_maps(trace))
    )
    choices = {"heads": np.int64(1), "layers": "unet/up.1/**", "steps": iter([2, 3, 4, 3])}
    figure = plots.word_maps(trace, words=["and"], branch="uncond", **choices)
    said = "unconditional branch, summed over head 1, unet/up.1/attn.0 and steps 2 to 4: 3 maps"
    assert said in texts(figure)
    expected = wordmaps.word_maps(
        trace, words=["and"], branch="uncond", heads=[1], layers="unet/up.1/**", steps=[2, 3, 4]
    )
    np.testing.assert_array_equal(maps_of(figure)[0].get_array(), expected.values[0])


def test_special_tokens_have_a_figure_of_their_own(trace):
    expected = wordmaps.special_maps(trace).values
    figure = plots.special_tokens(trace)
    np.testing.assert_array_equal([image.get_array() for image in maps_of(figure)], expected)
    for kind in ("<start>", "<end>", "<pad>"):
        assert kind in texts(figure) and kind not in texts(plots.word_maps(trace))


def test_outlines_follow_the_edges_of_the_picture():
    pixels = np.full((1, 64, 64, 3), 200, np.uint8)
    pixels[:, :, 32:] = (200, 40, 200)  # an edge in green alone
    figure = plots.word_maps(run(LAYERS, negatives=[TOKENS], pixels=pixels), words="and")
    lines = figure.axes[1].images[1].get_array()
    assert (lines[:, 31:33, 3] > 0.4).all()
    assert not lines[:, :31, 3].any() and not lines[:, 33:, 3].any()


def test_a_hole_in_a_map_does_not_look_like_a_value():
    broken = {name: weights.copy() for name, weights in LAYERS.items()}
    broken["unet/up.1/attn.0"][0, 1, 0, 0, 0, 0, 5] = np.nan
    figure = plots.word_maps(run(broken, negatives=[TOKENS]))
    image = figure.axes[3].images[0]
    assert np.isfinite(image.get_clim()).all()
    holes = np.ma.getmaskarray(image.get_array())
    assert holes.any() and not holes.all()
    assert (image.to_rgba(image.get_array())[holes] == (1, 0, 1, 1)).all()


# --- all of them ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"layers": LAYERS, "latents": ALL}, "timeline statistics word_maps special_tokens"),
        ({"latents": ALL}, "timeline statistics"),
        ({"layers": LAYERS}, "word_maps special_tokens"),
        ({"latents": make_latents("noise_cond")}, ""),
        ({"layers": LAYERS, "prompts": [[]]}, ""),
        ({"layers": LAYERS, "latents": ALL, "complete": 0}, ""),
    ],
)
def test_figures_are_those_that_the_recording_allows(parts, expected):
    figures = plots.figures(run(negatives=[TOKENS], **parts))
    assert " ".join(figures) == expected


LONG = "a very long prompt about $x and $y_1 with \\frac{} and {braces} " * 6


@pytest.mark.parametrize(
    "attrs",
    [
        {"rgb_matrix": MATRIX, "pixels": PIXELS},
        {"prompt": [LONG], "negative": [LONG], "pixels": PIXELS[:, :, :32], "width": 32},
        {"prompts": [[(w if i < 0 else w * 9, i) for w, i in TOKENS]], "pixels": PIXELS},
        {"height": 32, "pixels": PIXELS[:, :32], "edits": [{"name": "zero", "pattern": "unet/x"}]},
        {"complete": 1},
    ],
    ids=["usual", "long and tall", "long words", "wide", "interrupted"],
)
def test_all_text_can_be_read(attrs, monkeypatch):
    written = []
    draw = Text.draw
    monkeypatch.setattr(Text, "draw", lambda self, r: (written.append(self), draw(self, r)))
    trace = run(LAYERS, latents=ALL, negatives=[TOKENS], **attrs)
    figures = plots.figures(trace) | {"all steps": plots.timeline(trace, steps=trace.steps)}
    for name, figure in figures.items():
        written.clear()
        FigureCanvasAgg(figure).draw()
        seen = [text for text in written if text.get_text() and text.get_visible()]
        boxes = [(text.get_text(), text.get_window_extent()) for text in seen]
        assert min(text.get_fontsize() for text in seen) >= 9
        right, top = figure.bbox.x1, figure.bbox.y1
        for text, box in boxes:
            inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= right and box.y1 <= top
            assert inside, f"{name}: {text!r}"
        for (a, first), (b, second) in itertools.combinations(boxes, 2):
            assert not first.padded(-1).overlaps(second.padded(-1)), f"{name}: {a!r} over {b!r}"


def test_every_figure_says_how_its_picture_was_made(trace):
    for figure in plots.figures(trace).values():
        assert f"“{PROMPT}”" in texts(figure)
        assert "synthetic · seed 7 · ddim, steps 9 · guidance 5" in texts(figure)
    changed = run(
        LAYERS,
        latents=ALL,
        negatives=[TOKENS],
        negative=["fog"],
        edits=[{"name": "zero", "pattern": "unet/up.1/skip.0"}],
        complete=4,
    )
    for figure in plots.figures(changed).values():
        for part in ("negative prompt “fog”", "edit zero at unet/up.1/skip.0", "interrupted"):
            assert part in texts(figure).replace("\n", " ")


def test_a_figure_shows_itself_in_a_notebook(trace):
    assert plots.statistics(trace)._repr_png_().startswith(b"\x89PNG")
