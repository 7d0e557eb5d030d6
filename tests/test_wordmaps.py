"""Word maps say what was attended to: exact sums, exact words, and clear refusals."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from synthetic_attention import TOKENS, attention, run

import xray.trace
from xray.trace import TraceError
from xray.wordmaps import NotRecorded, special_maps, word_maps

SIZES = {"unet/down.0/attn.0": (4, 6), "unet/mid/attn.0": (1, 2), "unet/up.3/attn.2": (8, 12)}
STEPS, HEADS = 3, 2


@pytest.fixture(scope="module")
def layers():
    rng = np.random.default_rng(0)
    return {name: attention(rng, STEPS, 2, 1, HEADS, *size) for name, size in SIZES.items()}


@pytest.fixture(scope="module")
def trace(layers):
    return run(layers, negatives=[TOKENS], height=16, width=24)


def keys_cubic(values: np.ndarray, length: int) -> np.ndarray:
    """Keys 1981, a = -0.5, along the first axis; weights beyond the border are left out."""
    scale = length / len(values)
    result = []
    for target in range(length):
        d = np.abs((target + 0.5) / scale - 0.5 - np.arange(len(values)))
        near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
        weights = np.where(d < 1, near, np.where(d < 2, far, 0))
        result.append(np.tensordot(weights / weights.sum(), values, axes=1))
    return np.stack(result)


def only_at(cell: tuple[int, int], token: int) -> np.ndarray:
    """Weights (1, 1, 1, 1, 8, 8, token): all places look at the start, but one at `token`."""
    weights = np.zeros((1, 1, 1, 1, 8, 8, len(TOKENS)), np.float32)
    weights[..., 0] = 1
    weights[..., *cell, :] = np.eye(len(TOKENS))[token]
    return weights


# --- known answers -------------------------------------------------------------------------


@given(st.integers(0, 7), st.integers(0, 7))
@settings(max_examples=10)
def test_a_map_peaks_where_the_word_is_looked_at(y, x):
    maps = word_maps(run({"unet/mid/attn.0": only_at((y, x), token=1)}))
    seen = maps.word("a").values
    row, column = np.unravel_index(seen.argmax(), seen.shape)
    assert seen.shape == (64, 64)
    assert (row // 8, column // 8) == (y, x)
    for word in ("stargazer", "and"):
        assert not maps.word(word).values.any()


def test_enlarging_is_keys_cubic_convolution():
    weights = attention(np.random.default_rng(1), 1, 1, 1, 1, 4, 6)
    expected = keys_cubic(keys_cubic(weights[0, 0, 0, 0, ..., 1], 32).swapaxes(0, 1), 48)
    maps = word_maps(run({"unet/mid/attn.0": weights}), words="a", size=(32, 48))
    np.testing.assert_allclose(maps.values[0], expected.swapaxes(0, 1), atol=1e-6)


@given(
    heads=st.sets(st.integers(0, HEADS - 1), min_size=1),
    steps=st.sets(st.integers(0, STEPS - 1), min_size=1),
    chosen=st.sets(st.sampled_from(list(SIZES)), min_size=1),
)
@settings(max_examples=15, deadline=None)
def test_the_sum_is_that_of_a_slow_loop(layers, trace, heads, steps, chosen):
    expected = np.zeros((16, 24))
    for layer in chosen:
        for step in steps:
            for head in heads:
                for token in (3, 4):  # of "stargazer"
                    one = Image.fromarray(layers[layer][step, 1, 0, head, ..., token])
                    expected += np.asarray(one.resize((24, 16), Image.Resampling.BICUBIC))
    maps = word_maps(trace, words=["stargazer"], heads=heads, steps=steps, layers=list(chosen))
    np.testing.assert_allclose(maps.values[0], expected, rtol=1e-5, atol=1e-6)
    assert maps.coords["maps"] == len(heads) * len(steps) * len(chosen)


@pytest.mark.parametrize("method", ["bicubic", "bilinear", "nearest"])
def test_all_tokens_together_have_all_the_attention(trace, method):
    words, special = word_maps(trace, method=method), special_maps(trace, method=method)
    everything = words.values.sum(axis=0) + special.values.sum(axis=0)
    assert words.coords["maps"] == special.coords["maps"] == 3 * STEPS * HEADS
    np.testing.assert_allclose(everything, 3 * STEPS * HEADS, rtol=1e-5)


def test_nearest_shows_each_layers_own_places(layers, trace):
    maps = word_maps(trace, words="a", layers="unet/mid/attn.0", method="nearest")
    places = layers["unet/mid/attn.0"][:, 1, 0, ..., 1].sum(axis=(0, 1))
    np.testing.assert_allclose(maps.values[0], places.repeat(16, 0).repeat(12, 1), rtol=1e-6)


def test_maps_have_the_size_of_the_picture_or_the_one_asked_for(trace):
    assert word_maps(trace).shape == (6, 16, 24)
    assert word_maps(trace, size=(8, 20)).shape == (6, 8, 20)


def test_a_weight_that_is_nan_is_not_hidden(layers):
    broken = {name: weights.copy() for name, weights in layers.items()}
    broken["unet/mid/attn.0"][1, 1, 0, 0, 0, 0, 1] = np.nan
    maps = word_maps(run(broken, negatives=[TOKENS]))
    assert np.isnan(maps.word("a").values).any()
    assert np.isfinite(maps.word("and").values).all()


# --- words ---------------------------------------------------------------------------------


def test_every_occurrence_of_a_word_is_its_own_map(layers, trace):
    maps = word_maps(trace)
    assert maps.coords["word"].values.tolist() == ["a", "red", "stargazer", "and", "red", "red"]
    assert maps.coords["word_index"].values.tolist() == [0, 1, 2, 3, 4, 5]
    one = word_maps(trace, layers="unet/up.3/attn.2", size=(8, 12), method="nearest")
    tokens = layers["unet/up.3/attn.2"][:, 1, 0].sum(axis=(0, 1))
    for position, token in ((1, 2), (4, 6), (5, 7)):
        np.testing.assert_allclose(one.values[position], tokens[..., token], rtol=1e-6)
    np.testing.assert_allclose(one.word("red", occurrence=2).values, tokens[..., 7], rtol=1e-6)


def test_words_come_as_asked(trace):
    maps = word_maps(trace, words=["and", "RED", "<start>", "red"])
    assert maps.coords["word"].values.tolist() == ["and", "red", "red", "red", "<start>"]
    assert maps.coords["word_index"].values.tolist() == [3, 1, 4, 5, -1]
    np.testing.assert_array_equal(maps.values[1], word_maps(trace).values[1])


def test_special_tokens_are_summed_by_kind(layers, trace):
    maps = special_maps(trace, layers="unet/up.3/attn.2", size=(8, 12), method="nearest")
    tokens = layers["unet/up.3/attn.2"][:, 1, 0].sum(axis=(0, 1))
    assert maps.coords["word"].values.tolist() == ["<start>", "<end>", "<pad>"]
    for each, positions in zip(maps.values, ([0], [8], [9, 10]), strict=True):
        np.testing.assert_allclose(each, tokens[..., positions].sum(axis=-1), rtol=1e-6)


def test_a_prompt_that_needs_no_padding_has_no_map_of_it(layers):
    full = [*TOKENS[:8], ("sky", 6), ("blue", 7), ("<end>", -1)]
    maps = special_maps(run(layers, prompts=[full], negatives=[TOKENS]))
    assert maps.coords["word"].values.tolist() == ["<start>", "<end>"]


def test_each_image_and_branch_has_its_own_words():
    weights = attention(np.random.default_rng(2), 1, 2, 2, 1, 4, 4)
    second = [("<start>", -1), ("fish", 0), *[("<pad>", -1)] * 9]
    negative = [("<start>", -1), ("ugly", 0), *[("<pad>", -1)] * 9]
    trace = run(
        {"unet/mid/attn.0": weights},
        prompts=[TOKENS, second],
        negatives=[TOKENS, negative],
        prompt=["first", "a fish"],
        negative=["", "ugly"],
    )
    for branch, word, row, prompt in (("cond", "fish", 1, "a fish"), ("uncond", "ugly", 0, "ugly")):
        maps = word_maps(trace, image=1, branch=branch, size=(4, 4), method="nearest")
        assert maps.coords["word"].values.tolist() == [word]
        assert maps.prompt == prompt
        np.testing.assert_allclose(maps.values[0], weights[0, row, 1, 0, ..., 1], rtol=1e-6)


def test_of_chosen_tokens_only_whole_words_are_mapped(layers):
    kept = [1, 2, 3, 6, 7]  # the first half of "stargazer", and "red" at all its places
    part = {name: weights[..., kept] for name, weights in layers.items()}
    trace = run(part, negatives=[TOKENS], tokens=kept, height=16, width=24)
    whole = word_maps(run(layers, negatives=[TOKENS], height=16, width=24))
    maps = word_maps(trace)
    assert maps.coords["word_index"].values.tolist() == [0, 1, 4, 5]
    np.testing.assert_array_equal(maps.values, whole.values[[0, 1, 4, 5]])
    with pytest.raises(NotRecorded, match=r"'stargazer' has the tokens \[4\].*1, 2, 3, 6, 7"):
        word_maps(trace, words="stargazer")
    with pytest.raises(NotRecorded, match="<start>"):
        special_maps(trace)


# --- which layers, heads, steps ------------------------------------------------------------


def test_layers_are_named_by_pattern_with_or_without_the_site(trace):
    first = word_maps(trace, layers="unet/down.0/attn.0").values
    for name in ("unet/down.*/**", "unet/down.0/*", "unet/down.0/attn.0/cross/weights"):
        np.testing.assert_array_equal(word_maps(trace, layers=name).values, first)
    both = word_maps(trace, layers=["unet/down.*/**", "unet/mid/**", "unet/mid/attn.0"])
    second = word_maps(trace, layers="unet/mid/attn.0").values
    np.testing.assert_allclose(both.values, first + second, rtol=1e-6)


def test_one_head_or_step_need_not_be_in_a_list(trace):
    one, listed = word_maps(trace, heads=1, steps=2), word_maps(trace, heads=[1], steps=[2])
    np.testing.assert_array_equal(one.values, listed.values)
    assert one.coords["maps"] == 3
    np.testing.assert_array_equal(word_maps(trace, heads=[1, 1], steps=[2, 2]).values, one.values)


def test_heads_averaged_while_recording_count_as_one(layers):
    means = {name: weights.mean(axis=3) for name, weights in layers.items()}
    averaged = run(means, negatives=[TOKENS])
    maps = word_maps(averaged)
    assert maps.coords["maps"] == 3 * STEPS
    whole = word_maps(run(layers, negatives=[TOKENS]))
    np.testing.assert_allclose(maps.values * HEADS, whole.values, rtol=1e-5)
    with pytest.raises(NotRecorded, match="unet/down.0/attn.0/cross/weights was averaged over"):
        word_maps(averaged, heads=[0])
    mixed = run(layers | {"unet/mid/attn.0": means["unet/mid/attn.0"]}, negatives=[TOKENS])
    with pytest.raises(NotRecorded, match="weigh them unequally.*choose layers="):
        word_maps(mixed)
    assert word_maps(mixed, layers="unet/up.*/**").coords["maps"] == STEPS * HEADS


def test_of_an_interrupted_run_the_complete_steps_count(layers):
    trace = run(layers, negatives=[TOKENS], complete=2)
    whole = run(layers, negatives=[TOKENS])
    np.testing.assert_array_equal(word_maps(trace).values, word_maps(whole, steps=range(2)).values)
    with pytest.raises(NotRecorded, match="no step"):
        word_maps(run(layers, negatives=[TOKENS], complete=0))


# --- from disk -----------------------------------------------------------------------------


def test_a_trace_on_disk_is_read_a_step_at_a_time(tmp_path):
    rng = np.random.default_rng(3)
    layers = {
        f"unet/up.{i}/attn.0": attention(rng, 8, 2, 1, 4, 32, 32).astype(np.float16)
        for i in range(3)
    }
    run(layers, negatives=[TOKENS], path=tmp_path / "run.zarr")
    expected = word_maps(run(layers, negatives=[TOKENS])).values
    trace = xray.trace.open(tmp_path / "run.zarr")
    recorded = sum(weights.nbytes for weights in layers.values())
    tracemalloc.start()
    maps = word_maps(trace)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(maps.values, expected)
    assert peak < recorded / 3


def test_maps_of_a_models_own_attention(model):
    trace = model.generate("a red star", steps=2, seed=1, record=["unet/**/cross/weights"])
    words, special = word_maps(trace), special_maps(trace)
    assert words.coords["word"].values.tolist() == ["a", "red", "star"]
    assert words.shape == (3, 64, 64)
    everything = words.values.sum(axis=0) + special.values.sum(axis=0)
    np.testing.assert_allclose(everything / words.coords["maps"].item(), 1, atol=2e-3)


# --- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        ({"words": "moon"}, ValueError, "no word 'moon'.*a, red, stargazer, and, <start>, <end>"),
        ({"words": []}, ValueError, "words is empty"),
        ({"layers": "unet/up.7/**"}, ValueError, "'unet/up.7/..'.*unet/down.0/attn.0, unet/mid"),
        ({"heads": [0, 2]}, ValueError, "no head 2 in unet/down.0/attn.0/cross/weights.*has 2"),
        ({"steps": [1, 9]}, TraceError, "step 9 .*0 to 2"),
        ({"steps": []}, ValueError, "steps is empty"),
        ({"image": 1}, ValueError, "no image 1"),
        ({"branch": "both"}, ValueError, "no branch 'both'.*uncond, cond"),
        ({"method": "cubic"}, ValueError, "'cubic'.*bicubic, bilinear, nearest"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(trace, choice, error, message):
    with pytest.raises(error, match=message):
        word_maps(trace, **choice)


def test_what_was_not_recorded_is_refused_with_how_to(layers):
    with pytest.raises(NotRecorded, match=r'record=\["unet/\*\*/cross/weights"\]'):
        word_maps(run(latents={"latent": np.zeros((2, 1, 8, 8, 4))}))
    with pytest.raises(NotRecorded, match="image 0 was given as an embedding"):
        word_maps(run(layers, prompts=[[]], negatives=[TOKENS]))
    with pytest.raises(NotRecorded, match="empty"):
        word_maps(run(layers, prompts=[[TOKENS[0], *TOKENS[8:]]], negatives=[TOKENS]))
    single = run({"unet/mid/attn.0": layers["unet/mid/attn.0"][:, 1:]})
    with pytest.raises(ValueError, match="guidance 1"):
        word_maps(single, branch="uncond")


def test_weights_without_places_cannot_be_mapped(model):
    observed = xray.observe("unet/mid/**/cross/weights", mean=("y", "x"))
    trace = model.generate("a red star", steps=1, record=[observed])
    with pytest.raises(NotRecorded, match="was averaged over x, y"):
        word_maps(trace)
