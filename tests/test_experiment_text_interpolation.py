"""What lies between two prompts: ways, pairs of tokens, pictures, and what the script writes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray
from running import run

from xray.stats import bit_equal
from xray.studies import text_interpolation as study
from xray.studies import text_interpolation_figures as drawn

PROMPTS = ("a red star", "a blue moon and a fish")
ASKED = {"steps": 2, "seed": 3, "guidance": 2.0}


def kinds(model, prompt):
    return [token.special for token in model.tokenizer.tokens(prompt)]


def rows(seed, count=6, width=16):
    return np.random.default_rng(seed).standard_normal((count, width), np.float32)


@pytest.fixture(scope="module")
def ticks():
    return []


@pytest.fixture(scope="module")
def data(model, ticks):
    return study.between(model, *PROMPTS, frames=4, tick=lambda *_: ticks.append(1), **ASKED)


# --- pairs ---------------------------------------------------------------------------------


def test_rows_in_another_order_are_found_again():
    a, order = rows(0), np.random.default_rng(1).permutation(6)
    pair = study.pairing(a, a[order] + rows(2) / 100, [""] * 6, [""] * 6)
    np.testing.assert_array_equal(order[pair], range(6))


def test_words_walk_to_words_and_the_rest_to_padding():
    first = ["start", "", "", "end", "pad", "pad"]
    second = ["start", "", "", "", "end", "pad"]
    for seed in range(5):
        pair = study.pairing(rows(seed), rows(seed + 100), first, second)
        assert sorted(pair) == list(range(6))
        assert pair[0] == 0 and pair[3] == 4
        assert {pair[1], pair[2]} <= {1, 2, 3}
        assert {second[pair[4]], second[pair[5]]} == {"", "pad"}


def test_no_other_pairing_is_shorter():
    a, b = rows(3), rows(4)
    pair = study.pairing(a, b, [""] * 6, [""] * 6)
    shortest = np.sum((a - b[pair]) ** 2)
    rng = np.random.default_rng(5)
    assert all(np.sum((a - b[rng.permutation(6)]) ** 2) >= shortest for _ in range(300))


def test_the_u_net_draws_the_same_picture_from_rows_in_another_order(model):
    embedding = model.embed(PROMPTS[1]).values[0]
    order = np.random.default_rng(6).permutation(len(embedding))
    latents, images = study.pictures(model, np.stack([embedding, embedding[order]]), **ASKED)
    np.testing.assert_allclose(latents[0], latents[1], atol=1e-3 * latents.std())
    assert np.abs(images[0].astype(int) - images[1]).max() <= 1


# --- ways ----------------------------------------------------------------------------------


def test_ways_go_from_one_embedding_to_the_other(model):
    a, b = model.embed(list(PROMPTS)).values
    pair = study.pairing(a, b, *(kinds(model, prompt) for prompt in PROMPTS))
    paths = study.ways(a, b, pair, 5)
    assert list(paths) == list(study.WAYS)
    assert all(path.shape == (5, *a.shape) and bit_equal(path[0], a) for path in paths.values())
    assert bit_equal(paths["lerp"][-1], b) and bit_equal(paths["slerp"][-1], b)
    assert bit_equal(paths["aligned"][-1], b[pair])
    np.testing.assert_allclose(paths["lerp"][2], (a + b) / 2, atol=1e-5)


def test_rows_keep_their_norm_along_slerp_and_lose_it_along_lerp(data):
    norm = {way: data["row_norm"].sel(way=way).values for way in study.WAYS}
    for way in ("slerp", "aligned"):
        np.testing.assert_allclose(
            norm[way], np.linspace(norm[way][0], norm[way][-1], 4), rtol=1e-5
        )
    assert (norm["lerp"][1:3] < norm["slerp"][1:3]).all()


def test_lerp_is_the_shortest_way_and_alignment_shortens_what_can_be(data, model):
    length = data["embedding_step"].sum("leg")
    a, b = model.embed(list(PROMPTS)).values
    assert float(length.sel(way="lerp")) == pytest.approx(np.linalg.norm(a - b), rel=1e-5)
    assert length.sel(way="slerp") > length.sel(way="lerp")
    swapped = "a blue moon above a red star", "a red moon above a blue star"
    a, b = model.embed(list(swapped)).values
    pair = study.pairing(a, b, *(kinds(model, prompt) for prompt in swapped))
    assert np.linalg.norm(a - b[pair]) <= np.linalg.norm(a - b)


# --- pictures ------------------------------------------------------------------------------


def test_all_ways_begin_and_end_with_the_prompts_pictures(data, model):
    for frame, prompt in ((0, PROMPTS[0]), (-1, PROMPTS[1])):
        alone = model.generate(prompt, **ASKED, record=[])
        for way in range(3):
            np.testing.assert_allclose(
                data["latent"].values[way, frame], alone["sampler/out"].values[0], atol=2e-3
            )
            gap = data["image"].values[way, frame].astype(int) - alone["image"].values[0]
            assert np.abs(gap).max() <= 2


def test_steps_and_distances_are_those_of_the_pictures(data):
    latents, images = data["latent"].values, data["image"].values.astype(float)
    for way in range(3):
        for k in range(3):
            step = np.sqrt(np.mean((latents[way, k + 1] - latents[way, k]) ** 2))
            assert float(data["latent_step"][way, k]) == pytest.approx(step, rel=1e-4)
            step = np.sqrt(np.mean((images[way, k + 1] - images[way, k]) ** 2))
            assert float(data["pixel_step"][way, k]) == pytest.approx(step, rel=1e-4)
    first, second = data["to_first"].values, data["to_second"].values
    assert (first[:, 0] == 0).all() and (second[:, -1] == 0).all()
    np.testing.assert_allclose(first[:, -1], second[:, 0])
    found = study.findings(data)
    for row, step in zip(found, data["latent_step"].values, strict=True):
        assert row["detour"] == pytest.approx(step.sum() / first[0, -1], rel=0.05) and (
            row["detour"] > 0.999
        )


def test_pictures_come_in_batches_of_one_size(data, ticks, model, monkeypatch):
    assert len(ticks) == ASKED["steps"] * study.batches(model, 4, None, None)
    sizes = []
    generate = type(model).generate
    monkeypatch.setattr(
        type(model),
        "generate",
        lambda self, p, **kw: sizes.append(len(p)) or generate(self, p, **kw),
    )
    monkeypatch.setattr(study, "AT_ONCE", 2)
    embedding = model.embed(list(PROMPTS)).values[[0, 1, 0, 1, 1]]
    latents, images = study.pictures(model, embedding, **ASKED)
    assert sizes == [2, 2, 2] and len(latents) == len(images) == 5
    np.testing.assert_allclose(latents[[0, 1, 1]], latents[[2, 3, 4]], atol=1e-4)


@pytest.mark.parametrize(
    ("width", "height", "total", "expected"),
    [
        (None, None, 25, 8),
        (None, None, 3, 3),
        (512, 512, 25, 1),
        (256, 256, 25, 4),
        (768, 768, 9, 1),
    ],
)
def test_large_pictures_are_made_one_at_a_time(model, width, height, total, expected):
    assert study.at_once(model, total, width, height) == expected


# --- findings ------------------------------------------------------------------------------


def test_the_flip_is_the_largest_step(data):
    steps = data["latent_step"].copy(data=[[1, 6, 1], [5, 1, 2], [2, 2, 4]])
    first, second, third = study.findings(data.assign(latent_step=steps))
    assert (first["flip"], first["flip_share"]) == (0.5, 0.75)
    assert second["flip"] == pytest.approx(1 / 6) and third["flip"] == pytest.approx(5 / 6)
    assert third["latent"] == 8 and third["flip_share"] == 0.5


def test_the_crossing_is_where_the_second_end_is_as_near_as_the_first():
    t = np.linspace(0, 1, 5)
    assert study.crossing(t, np.array([-4, -3, -1, 1, 4])) == pytest.approx(0.625)
    assert study.crossing(t, np.array([-1, 0, 1, 2, 3])) == pytest.approx(0.25)
    assert np.isnan(study.crossing(t, np.zeros(5)))


def test_from_a_prompt_to_itself_nothing_changes(model):
    data = study.between(model, "a red star", "a red star", frames=4, **ASKED)
    assert data["embedding_step"].values.max() == 0
    assert data["latent_step"].values.max() < 1e-4
    assert data["pair"].values.tolist() == list(range(20))
    assert all(np.isfinite(row["flip"]) for row in study.findings(data))
    assert set(drawn.figures(data, model)) == {"pictures", "steps", "pairs"}


# --- figures and the script ----------------------------------------------------------------


def test_figures_show_the_pictures_and_the_pairs(data, model):
    figures = drawn.figures(data, model)
    shown = [axes.images[0].get_array() for axes in figures["pictures"].axes]
    np.testing.assert_array_equal(shown, data["image"].values.reshape(12, 64, 64, 3))
    words = [text.get_text() for text in figures["pairs"].axes[0].texts]
    for prompt in PROMPTS:
        assert {token.word for token in model.tokenizer.encode(prompt)} <= set(words)
    steps = figures["steps"].axes[0]
    np.testing.assert_allclose(steps.lines[1].get_ydata(), data["latent_step"].sel(way="slerp"))


def test_the_script_writes_what_plain_xarray_reads(tmp_path, monkeypatch, model):
    asked = ["--prompt", PROMPTS[0], "--other", PROMPTS[1], "--frames", 3, "--steps", 2]
    asked += ["--negative", "fog", "--guidance", 3, "--width", 128, "--height", 64]
    result = run(monkeypatch, model, "text_interpolation", *asked, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    told = result.headings
    for part in ("negative prompt “fog”", "guidance 3", "ddim, steps 2", "seed 7"):
        assert told and all(part in each for each in told)
    assert len(list(tmp_path.glob("run/figures/*.png"))) == 3
    stored = xarray.open_zarr(tmp_path / "run" / "data.zarr")
    assert stored["image"].shape == (3, 3, 64, 128, 3) and stored["latent"].shape[2:] == (8, 16, 4)
    assert stored["way"].values.tolist() == list(study.WAYS)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text("utf-8"))
    assert [way["way"] for way in summary["ways"]] == list(study.WAYS)
    length = float(stored["latent_step"].sel(way="slerp").sum())
    assert summary["ways"][1]["latent"] == pytest.approx(length)
