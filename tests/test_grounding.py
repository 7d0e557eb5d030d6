"""Word maps against masks: known maps get known grades; a real model's are its real attention."""

from dataclasses import replace

import numpy as np
import pytest

import xray
from xray.miniature.grounding import (
    baselines,
    cross_trace,
    denoised_once,
    fixed_threshold,
    grade,
    spoken_of,
)
from xray.miniature.metrics import overlap, pointing
from xray.miniature.scenes import SIDE, render, scene
from xray.samplers import initial_noise
from xray.tokenizer import Tokenizer, train_merges
from xray.wordmaps import word_maps

SITES = ("unet/down.0/attn.0/cross/weights", "unet/mid/attn.0/cross/weights")
TIMESTEPS = (100.0, 901.0)
ALL = {"layer": "all", "head": "all", "timestep": "all"}


@pytest.fixture(scope="module")
def scenes():
    return [scene(k, split="any") for k in (3, 20, 19)]


@pytest.fixture(scope="module")
def vocabulary():
    captions = [scene(k, split="any").caption for k in range(300)]
    return Tokenizer(train_merges(captions, 200), length=40)


@pytest.fixture(scope="module")
def miniature(tiny, vocabulary):
    sizes = replace(tiny, vocab_size=len(vocabulary.vocabulary), text_length=40, size=SIDE)
    return xray.load(sizes, weights=None, tokenizer=vocabulary)


def made_up(scenes, vocabulary, weights_of):
    """A trace of two layers, two heads and two timesteps with these weights."""
    rows = [vocabulary.tokens(s.caption) for s in scenes]
    keys = ("text", "word", "word_index")
    attrs = {
        "prompt": [s.caption for s in scenes],
        "tokens": {"cond": [[{k: getattr(t, k) for k in keys} for t in row] for row in rows]},
        "width": SIDE,
        "height": SIDE,
    }
    steps = []
    for k in range(2):
        arrays = {}
        for j, site in enumerate(SITES):
            side = 16 >> j
            arrays[site] = np.stack(
                [weights_of(s, row, side, (j, k)) for s, row in zip(scenes, rows, strict=True)]
            ).astype(np.float32)
        steps.append(arrays)
    return cross_trace(steps, TIMESTEPS, attrs)


def attending_to_masks(s, row, side, _):
    """Each token looks where the pixels of its word are."""
    masks, block = render(s).masks, SIDE // side
    weights = np.zeros((2, side, side, len(row)))
    for k, token in enumerate(row):
        if token.word_index in masks:
            mask = masks[token.word_index].reshape(side, block, side, block)
            weights[..., k] = mask.mean((1, 3))
    return weights


def test_maps_made_of_the_masks_find_them(scenes, vocabulary):
    trace = made_up(scenes, vocabulary, attending_to_masks)
    threshold = fixed_threshold(trace, scenes)
    grades = grade(trace, scenes, threshold)
    assert float(grades["thing"].pointing.sel(ALL)) == 1.0
    assert float(grades["thing"].iou.sel(ALL)) > 0.6
    assert 0.2 <= threshold <= 0.7
    # A coarser layer locates less well.
    fine, coarse = (
        grades["thing"].iou.sel(ALL | {"layer": s[: -len("/cross/weights")]}) for s in SITES
    )
    assert fine > coarse + 0.05


def test_two_equal_words_are_two_masks():
    s = scene(0)
    k = 0
    while (
        len({w.text for w in s.words if w.role == "colour"}) != 1
        or len([w for w in s.words if w.role == "colour"]) != 2
    ):
        k += 1
        s = scene(k, objects=(2,))
    first, second = (word for word in spoken_of(s) if word.role == "colour")
    assert first.index != second.index and not (first.mask & second.mask).any()


def test_uniform_attention_scores_what_the_uniform_baseline_scores(scenes, vocabulary):
    trace = made_up(scenes, vocabulary, lambda s, row, side, _: np.ones((2, side, side, len(row))))
    grades, blind = grade(trace, scenes, 0.4), baselines(scenes, 0.4)["uniform"]
    assert grades.keys() == blind.keys()
    for role, g in grades.items():
        np.testing.assert_allclose(g.pointing, float(blind[role].pointing))
        np.testing.assert_allclose(g.iou, float(blind[role].iou))
        assert g.words == blind[role].words


def test_each_cell_is_the_projects_word_map(scenes, vocabulary):
    random = np.random.default_rng(0)
    trace = made_up(
        scenes, vocabulary, lambda s, row, side, _: random.random((2, side, side, len(row)))
    )
    grades = grade(trace, scenes, 0.4)["thing"]
    for choice, cell in (
        ({}, ALL),
        ({"layers": "unet/mid/**"}, ALL | {"layer": "unet/mid/attn.0"}),
        ({"layers": "unet/down.0/**"}, ALL | {"layer": "finest"}),
        ({"heads": 1}, ALL | {"head": "1"}),
        ({"steps": 1}, ALL | {"timestep": "901.0"}),
        (
            {"layers": "unet/mid/attn.0", "heads": 0, "steps": 0},
            {"layer": "unet/mid/attn.0", "head": "0", "timestep": "100.0"},
        ),
    ):
        points, ious = [], []
        for i, s in enumerate(scenes):
            maps = word_maps(trace, image=i, method="bilinear", **choice)
            index = maps.coords["word_index"].values.tolist()
            for word in spoken_of(s):
                if word.role == "thing":
                    word_map = maps.values[index.index(word.index)]
                    points.append(pointing(word_map, word.mask))
                    ious.append(overlap(word_map, word.mask, 0.4))
        assert float(grades.pointing.sel(cell)) == pytest.approx(np.mean(points))
        assert float(grades.iou.sel(cell)) == pytest.approx(np.mean(ious), abs=1e-3)


def test_denoised_once_is_what_a_run_attends_to(miniature, scenes):
    site = "unet/up.3/attn.1/cross/weights"
    trace = denoised_once(miniature, scenes, TIMESTEPS, seed=5)
    x0 = miniature.encode(np.stack([render(s).image for s in scenes])).values
    noise = np.stack([initial_noise(5 + i, x0.shape[1:]) for i in range(3)])
    run = miniature.generate(
        [s.caption for s in scenes],
        latent=miniature.schedule.add_noise(x0, noise, 901.0),
        steps=10,
        guidance=1.0,
        record=[site],
    )
    assert run.timesteps[0] == trace.timesteps[1] == 901.0
    a, b = trace.sel(site, step=1).values, run.sel(site, step=0).values
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, atol=2e-3)  # float16 of weights up to 1
