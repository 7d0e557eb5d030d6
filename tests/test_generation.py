"""A run: recording changes nothing, what is recorded is right, and the same can be run again."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xray
from xray import edits, generator, store
from xray.generator import initial_noise
from xray.program import Part
from xray.samplers import NoiseSchedule, spaced_timesteps
from xray.taps import EditError, SiteError, edit, observe
from xray.tokenizer import PromptTooLong

PROMPT = "a red star above a blue moon"
OTHER = "a big green fish"
SKIP = "unet/up.1/skip.0"
WEIGHTS = "unet/mid/attn.0/cross/weights"
WHOLE = [observe("**", dtype="float32")]
HALF = ["sampler/*", "unet/conv_in/out", "text/out"]
TOKENS = [2, 3, 5]
REDUCED = [
    observe("unet/mid/**/cross/weights", mean="head", dtype="float32"),
    observe("unet/up.3/attn.0/cross/weights", tokens=TOKENS, dtype="float32"),
    observe("unet/up.3/attn.1/cross/weights", mean=("y", "x"), tokens=TOKENS),
    observe("sampler/latent", mean="channel"),
    observe("unet/time", dtype="float16"),
]


def run(model, prompt=PROMPT, **kwargs):
    return model.generate(prompt, **{"steps": 3, "seed": 7, **kwargs})


@pytest.fixture(scope="module")
def plain(model):
    return run(model)


@pytest.fixture(scope="module")
def whole(model):
    return run(model, record=WHOLE)


def equal(a, b, *sites, step=None):
    return all(
        np.array_equal(a.sel(s, step=step).values, b.sel(s, step=step).values) for s in sites
    )


def near(a, b, tolerance=1e-5):
    """max|a − b| / std(b), the project's measure of error."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= tolerance * b.std()


# --- 1: recording changes nothing ------------------------------------------------------------


def test_recording_everything_changes_no_bit(model, plain, whole):
    nothing = run(model, record=[])
    everything = run(model, record=["**"])
    assert nothing.sites == ["sampler/out", "image"]
    assert len(everything.sites) > 200
    for trace in (everything, whole, plain):
        assert equal(nothing, trace, "sampler/out", "image")
    assert equal(plain, everything, *plain.sites)


def test_self_attention_averaged_over_keys_is_that_of_the_whole(model, whole):
    asked = observe("unet/**/self/weights", mean="head", pool=2, dtype="float32")
    pooled = run(model, record=[asked])
    assert equal(whole, pooled, "sampler/out", "image")
    assert len(pooled.sites) == 12  # ten of them, and the picture twice
    for site in pooled.sites:
        if site.endswith("self/weights"):
            full = whole[site].values.mean(3)  # (step, branch, image, head, y, x, key_y, key_x)
            *lead, side, _ = full.shape
            parts = min(side, 2)
            means = full.reshape(*lead, parts, side // parts, parts, side // parts).mean((-3, -1))
            assert pooled[site].dims[-4:] == ("y", "x", "key_y", "key_x")
            np.testing.assert_allclose(pooled[site].values, means, atol=1e-6)
    assert model.replay(pooled).equal


def test_averaged_keys_of_edited_weights_are_the_edited_ones(model):
    site = "unet/up.3/attn.0/self/weights"
    uniform = edit(site, edits.uniform)
    pooled = run(model, record=[observe(site, pool=4, dtype="float32")], edit=uniform)
    keys = 8 * 8
    np.testing.assert_allclose(pooled[site].values, 1 / keys, rtol=1e-5)


def test_keys_that_cannot_be_cut_into_equal_parts_are_refused(model):
    message = "8 keys a side, as at unet/.*, are not 3 equal parts: give pool=2"
    with pytest.raises(ValueError, match=message):
        run(model, record=[observe("unet/**/self/weights", pool=3)])


def test_on_disk_is_what_is_in_memory(model, tmp_path):
    memory = run(model, record=REDUCED)
    stored = run(model, record=REDUCED, store=tmp_path / "run.zarr")
    opened = xray.open(tmp_path / "run.zarr")
    assert stored.sites == opened.sites == memory.sites
    assert equal(opened, memory, *memory.sites)
    assert opened["unet/time"].coords["timestep"].values.tolist() == memory.timesteps


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(model, plain):
    assert equal(run(model), plain, *plain.sites)
    assert not equal(run(model, seed=8), plain, "sampler/latent", step=0)


# --- 2: what is recorded is right ------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-3)])
def test_weights_sum_to_one_over_what_they_look_at(model, whole, dtype, tolerance):
    trace = whole if dtype == "float32" else run(model, record=["**"])
    found = [s for s in trace.sites if s.endswith("/weights")]
    assert len(found) == 23 and {trace[s].dtype for s in found} == {np.dtype(dtype)}
    for site in found:
        weights = trace[site]
        keys = 2 if weights.dims[-1] == "key_x" else 1
        sums = weights.values.astype(np.float64).sum(axis=tuple(range(-keys, 0)))
        np.testing.assert_allclose(sums, 1, atol=tolerance)


def test_the_guided_noise_is_the_formula_to_the_bit(model, plain):
    for guidance in (5.0, 7.3, 0.0, -2.0):
        trace = run(model, guidance=guidance)
        uncond, cond = (trace[f"sampler/noise_{b}"].values for b in ("uncond", "cond"))
        expected = uncond + np.float32(guidance) * (cond - uncond)
        np.testing.assert_array_equal(trace["sampler/noise"].values, expected)


def test_the_branches_noise_is_what_the_unet_said(whole):
    out = whole["unet/out"]
    for branch in ("uncond", "cond"):
        np.testing.assert_array_equal(
            out.sel(branch=branch).values, whole[f"sampler/noise_{branch}"].values
        )


ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def alpha(timestep):
    return 1.0 if timestep == -1 else ALPHAS[int(timestep)]


def ddim_by_hand(trace, k, t, t_next, eta):
    a, a_next = alpha(t), alpha(t_next)
    sigma = eta * ((1 - a_next) / (1 - a) * (1 - a / a_next)) ** 0.5
    x = (
        np.float32(a_next**0.5) * trace["sampler/denoised"].values[k]
        + np.float32((1 - a_next - sigma**2) ** 0.5) * trace["sampler/noise"].values[k]
    )
    return x + trace["sampler/added_noise"].values[k] if eta else x


def ddpm_by_hand(trace, k, t, t_next, eta):
    a, a_next = alpha(t), alpha(t_next)
    mean = (
        np.float32(a_next**0.5 * (1 - a / a_next) / (1 - a)) * trace["sampler/denoised"].values[k]
        + np.float32((a / a_next) ** 0.5 * (1 - a_next) / (1 - a))
        * trace["sampler/latent"].values[k]
    )
    return mean + trace["sampler/added_noise"].values[k] if t_next >= 0 else mean


@pytest.mark.parametrize(
    ("sampler", "eta", "by_hand", "end"),
    [
        ("ddim", 0.0, ddim_by_hand, 0),
        ("ddim", 0.5, ddim_by_hand, 0),
        ("ddpm", 1.0, ddpm_by_hand, -1),
    ],
)
def test_the_next_latent_follows_from_what_is_recorded_to_the_bit(
    model, sampler, eta, by_hand, end
):
    trace = run(model, steps=4, sampler=sampler, eta=eta)
    latents = trace["sampler/latent"].values
    following = [*latents[1:], trace["sampler/out"].values]
    visited = [*trace.timesteps, end]
    for k, (t, t_next) in enumerate(zip(visited, visited[1:])):
        noise_rate, signal_rate = np.float32((1 - alpha(t)) ** 0.5), np.float32(alpha(t) ** 0.5)
        denoised = (latents[k] - noise_rate * trace["sampler/noise"].values[k]) / signal_rate
        np.testing.assert_array_equal(trace["sampler/denoised"].values[k], denoised)
        np.testing.assert_array_equal(by_hand(trace, k, t, t_next, eta), following[k])


def test_the_picture_is_the_last_latent_decoded(model, plain):
    decoded = model.decode(plain["sampler/out"])[0]
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(plain.image))
    assert plain.image.size == (64, 64)


def test_large_pictures_are_decoded_one_after_the_other(model, monkeypatch):
    monkeypatch.setattr(generator, "DECODED", 8 * 8 + 1)
    shapes, call = [], Part.__call__

    def counted(part, *arrays):
        if part is model.decoder:
            shapes.append(arrays[0].shape)
        return call(part, *arrays)

    monkeypatch.setattr(Part, "__call__", counted)
    trace = run(model, seed=[7, 8, 9])
    assert shapes == [(1, 8, 8, 4)] * 3
    whole = run(model, seed=[7, 8, 9], record=["decoder/out"])  # of the whole batch
    assert len(shapes) == 3
    np.testing.assert_allclose(trace["image"].values, whole["image"].values, atol=1)
    alone = [np.asarray(model.decode(x)[0]) for x in trace["sampler/out"].values]
    np.testing.assert_array_equal(trace["image"].values, alone)


def test_the_initial_latent_is_the_seeds_noise(plain):
    np.testing.assert_array_equal(
        plain.sel("sampler/latent", step=0).values[0], initial_noise(7, (8, 8, 4))
    )


def test_noise_put_back_depends_on_seed_and_step_alone(model):
    a, b = run(model, eta=0.5), run(model, OTHER, eta=0.5, guidance=2.0)
    assert equal(a, b, "sampler/added_noise")
    noise = a["sampler/added_noise"].values
    assert not np.array_equal(noise[0] / noise[0].std(), noise[1] / noise[1].std())


def test_a_site_is_recorded_as_it_was_asked_for(model, whole):
    """Reduced inside the compiled step as the whole would be after it."""
    trace = run(model, record=REDUCED)
    near(trace[WEIGHTS].values, whole[WEIGHTS].values.mean(axis=3))
    site = "unet/up.3/attn.0/cross/weights"
    np.testing.assert_array_equal(trace[site].values, whole[site].values[..., TOKENS])
    assert trace[site].coords["token"].values.tolist() == TOKENS
    words = whole[site].coords["word"].values[:, TOKENS]
    assert trace[site].coords["word"].values.tolist() == words.tolist()
    site = "unet/up.3/attn.1/cross/weights"
    assert trace[site].dims == ("step", "branch", "image", "head", "token")
    expected = whole[site].values.mean(axis=(4, 5))[..., TOKENS]
    np.testing.assert_allclose(trace[site].values, expected, atol=1e-3)
    latent = whole["sampler/latent"].values.mean(axis=-1)
    np.testing.assert_array_equal(trace["sampler/latent"].values, latent)
    assert trace["unet/time"].dtype == np.float16


def test_words_stand_where_their_tokens_are(model, whole):
    tokens = model.tokenizer.tokens(PROMPT)
    weights = whole[WEIGHTS].sel(branch="cond")
    assert weights.coords["word"].values.tolist() == [t.word for t in tokens]
    assert [w["word"] for w in whole.words] == PROMPT.split()
    star = [i for i, t in enumerate(tokens) if t.word == "star"]
    np.testing.assert_allclose(
        weights.word("star").values, weights.values[..., star].sum(-1), rtol=1e-6
    )


def test_words_are_those_of_each_branch_and_image(model, tmp_path):
    prompts, negatives = ["a red star above a moon", "moon"], ["a blue fish", ""]
    run = {"negative": negatives, "steps": 1, "record": ["text/out"]}
    kept = model.generate(prompts, store=tmp_path / "run.zarr", **run)
    for trace in (kept, xray.open(tmp_path / "run.zarr"), model.generate(prompts, **run)):
        for branch, texts in (("cond", prompts), ("uncond", negatives)):
            for i, text in enumerate(texts):
                one = trace["text/out"].sel(branch=branch).isel(image=i)
                alone = model.embed(text)
                for name in ("word", "word_index"):
                    assert one.coords[name].values.tolist() == alone.coords[name].values.tolist()
                for word in set(text.split()) - {"a"}:
                    near(one.word(word).values, alone.word(word).values[0])
        with pytest.raises(ValueError, match=r"for each branch and image.*sel.*isel\(image=0\)"):
            trace["text/out"].word("moon")
        with pytest.raises(KeyError, match="no word 'star'.*moon"):
            trace["text/out"].sel(branch="cond").isel(image=1).word("star")


def test_words_of_equal_prompts_need_no_choice_of_image(model):
    trace = model.generate(PROMPT, seed=[1, 2], guidance=1, steps=1, record=["text/out"])
    assert trace["text/out"].coords["word"].dims == ("token",)
    trace = model.generate(PROMPT, seed=[1, 2], steps=1, record=["text/out"])
    assert trace["text/out"].coords["word"].dims == ("branch", "token")


def test_what_was_given_as_an_embedding_has_no_words(model):
    given = model.embed("a red star").values[0]
    trace = model.generate([given, "moon"], guidance=1, steps=1, record=["text/out"])
    first, second = (trace["text/out"].sel(branch="cond").isel(image=i) for i in range(2))
    assert set(first.coords["word"].values) == {""} and set(first.coords["word_index"].values) == {
        -1
    }
    assert second.coords["word"].values[1] == "moon"


def test_a_trace_says_how_it_was_made(plain):
    a = json.loads(json.dumps(plain.attrs, default=np.ndarray.tolist))
    assert (a["prompt"], a["negative"], a["seeds"]) == ([PROMPT], [""], [7])
    assert (a["sampler"], a["steps"], a["guidance"], a["eta"]) == ("ddim", 3, 5.0, 0.0)
    assert (a["width"], a["height"], a["spacing"]) == (64, 64, "leading")
    assert plain.timesteps == spaced_timesteps(3)[:-1].tolist() and plain.steps == [0, 1, 2]
    assert plain.status == "complete" and {"numpy", "keras"} <= set(a["versions"])


# --- 7: sizes, batches, branches, embeddings -------------------------------------------------


@pytest.fixture(scope="module")
def wide(model):
    return run(model, width=128, height=64, record=["sampler/*", "unet/*/attn.0/*/weights"])


def test_a_picture_need_not_be_square(model, wide):
    assert wide.image.size == (128, 64)
    assert wide["sampler/latent"].shape[2:4] == (8, 16)
    assert wide["unet/mid/attn.0/self/weights"].shape[4:] == (1, 2, 1, 2)
    assert wide["unet/down.0/attn.0/cross/weights"].shape[4:6] == (8, 16)
    np.testing.assert_array_equal(np.asarray(model.decode(wide["sampler/out"])[0]), wide.image)


def test_a_wide_latent_says_the_size_itself(model, wide):
    latent = wide.sel("sampler/latent", step=1).values
    rest = run(model, latent=latent, start_step=1, record=["sampler/*", "unet/*/attn.0/*/weights"])
    assert rest.image.size == (128, 64) and equal(rest, wide, "sampler/out", "image")


def test_an_item_of_a_batch_is_the_run_of_its_seed(model):
    prompts, seeds = [PROMPT, OTHER], [7, 11]
    batch = run(model, prompts, seed=seeds, eta=0.5)
    assert len(batch.images) == 2 and batch.attrs["prompt"] == prompts
    for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        single = run(model, prompt, seed=seed, eta=0.5)
        for site in ("sampler/latent", "sampler/noise", "sampler/added_noise"):
            near(batch[site].values[:, i], single[site].values[:, 0])
        near(batch["sampler/out"].values[i], single["sampler/out"].values[0])
        distance = np.asarray(batch.images[i], int) - np.asarray(single.image, int)
        assert np.abs(distance).max() <= 1


def test_one_seed_for_several_prompts_is_one_noise(model):
    batch = run(model, [PROMPT, OTHER])
    first, second = batch.sel("sampler/latent", step=0).values
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(*batch.sel("sampler/noise_cond", step=0).values)
    near(*batch.sel("sampler/noise_uncond", step=0).values)


def test_one_prompt_for_several_seeds_is_the_same_prompt(model):
    batch = run(model, seed=[7, 11])
    assert batch.attrs["prompt"] == [PROMPT] * 2
    near(batch["sampler/latent"].values[:, :1], run(model)["sampler/latent"].values)


def test_prompt_and_negative_prompt_play_swapped_roles(model):
    """u + g (c − u) = c + (1 − g)(u − c), to the end of the run."""
    one = run(model, negative=OTHER, guidance=3.0)
    other = run(model, OTHER, negative=PROMPT, guidance=-2.0)
    for step in one.steps:
        for a, b in (("cond", "uncond"), ("uncond", "cond")):
            near(
                one.sel(f"sampler/noise_{a}", step=step).values,
                other.sel(f"sampler/noise_{b}", step=step).values,
                1e-4,
            )
    near(one["sampler/out"].values, other["sampler/out"].values, 1e-4)
    assert not equal(one, run(model, guidance=3.0), "sampler/noise_uncond", step=0)


@pytest.fixture(scope="module")
def single(model):
    return run(model, guidance=1, record=HALF)


def test_at_guidance_one_only_the_conditional_branch_is_computed(plain, single):
    noise = single["sampler/noise"].values
    np.testing.assert_array_equal(noise, single["sampler/noise_cond"].values)
    near(noise[0], plain.sel("sampler/noise_cond", step=0).values)
    assert "sampler/noise_uncond" not in single
    # Half the work: one row went through the networks where two do otherwise.
    assert single["unet/conv_in/out"].shape[:3] == (3, 1, 1)
    assert single["text/out"].coords["branch"].values.tolist() == ["cond"]


def test_guidance_can_change_from_step_to_step(model):
    scales = [1, 6.5, 2.0]
    trace = run(model, guidance=scales)
    for step, scale in enumerate(scales):
        uncond, cond, noise = (
            trace[f"sampler/noise{b}"].sel(step=step).values for b in ("_uncond", "_cond", "")
        )
        np.testing.assert_array_equal(noise, uncond + np.float32(scale) * (cond - uncond))
    assert equal(run(model, guidance=[5.0] * 3), run(model), "sampler/out")
    again = model.replay(trace)
    assert again.equal and again.trace.attrs["guidance"] == scales
    resumed = run(model, guidance=scales, latent=trace["sampler/latent"].sel(step=1), start_step=1)
    np.testing.assert_array_equal(resumed["image"].values, trace["image"].values)


def test_guidance_one_at_every_step_is_guidance_one(model, single):
    assert run(model, guidance=np.ones(3), record=HALF).sites == single.sites


def test_guidance_is_continuous_at_one(model, single):
    near(
        run(model, guidance=1.000001)["sampler/out"].values,
        single["sampler/out"].values,
        1e-4,
    )


def test_an_embedding_in_place_of_its_text_is_the_same_run(model, plain):
    embedded = run(model, model.embed(PROMPT))
    near(embedded["sampler/latent"].values, plain["sampler/latent"].values)
    both = run(model, model.embed(PROMPT), negative=model.embed(""))
    near(both["sampler/latent"].values, plain["sampler/latent"].values)
    assert both.attrs["prompt"] == both.attrs["negative"] == ["<embedding>"]


def test_the_text_encoders_inside_is_not_there_for_what_it_did_not_read(model):
    given = model.embed("moon").values[0]
    trace = run(model, [given, PROMPT], steps=1, record=["text/**"])
    alone = run(model, PROMPT, steps=1, record=["text/**"])
    for site in [s for s in trace.sites if s.startswith("text/layer")]:
        cond = trace[site].sel(branch="cond").values
        assert (
            np.isnan(cond[0]).all() and np.isfinite(trace[site].sel(branch="uncond").values).all()
        )
        near(cond[1], alone[site].sel(branch="cond").values[0], 1e-3)
    np.testing.assert_array_equal(trace["text/out"].sel(branch="cond").values[0], given)
    with pytest.raises(ValueError, match="for branch 'cond', .* it was given as an embedding"):
        model.plan([given], edit=edit("text/layer.0/out", edits.zero, branch="cond"))
    model.plan([given, PROMPT], edit=edit("text/layer.0/out", edits.zero, branch="cond"))


def test_an_embedding_given_is_recorded_to_the_bit(model):
    embedding = model.embed(PROMPT).values * np.float32(1.1)  # prompt weighting
    trace = run(model, embedding)
    np.testing.assert_array_equal(
        trace["text/given"].sel(branch="cond").values, embedding.reshape(1, 20, 16)
    )
    near(trace["text/given"].sel(branch="uncond").values, model.embed("").values)


@pytest.mark.parametrize("guidance", [5.0, 1])
def test_texts_and_embeddings_can_share_a_batch(model, guidance):
    batch = run(model, [PROMPT, model.embed(OTHER).values[0]], guidance=guidance)
    near(
        batch["sampler/latent"].values,
        run(model, [PROMPT, OTHER], guidance=guidance)["sampler/latent"].values,
    )


# --- starting in the middle, or from a picture -----------------------------------------------


@pytest.mark.parametrize(("sampler", "eta"), [("ddim", None), ("ddim", 0.5), ("ddpm", None)])
@pytest.mark.parametrize("step", [1, 3])
def test_a_recorded_latent_leads_to_the_rest_of_its_run_to_the_bit(model, sampler, eta, step):
    trace = run(model, steps=4, sampler=sampler, eta=eta)
    rest = run(
        model,
        steps=4,
        sampler=sampler,
        eta=eta,
        latent=trace.sel("sampler/latent", step=step),
        start_step=step,
    )
    assert rest.steps == list(range(step, 4)) and rest.timesteps == trace.timesteps[step:]
    for site in ("sampler/latent", "sampler/noise", "sampler/denoised"):
        np.testing.assert_array_equal(rest[site].values, trace[site].values[step:])
    assert equal(rest, trace, "sampler/out", "image")


def test_noise_given_as_an_array_is_the_noise_of_its_seed(model, plain):
    assert equal(run(model, latent=initial_noise(7, (8, 8, 4))), plain, *plain.sites)


picture = np.random.default_rng(3).integers(0, 256, (64, 64, 3)).astype(np.uint8)


@settings(max_examples=20)
@given(
    st.floats(0.001, 1), st.integers(1, 50), st.sampled_from(["leading", "trailing", "linspace"])
)
def test_a_noised_picture_starts_where_its_noise_belongs(model, strength, steps, spacing):
    latent, start = model.noised(picture, strength, steps=steps, seed=5, spacing=spacing)
    assert 0 <= start < steps and abs((steps - start) / steps - strength) <= 1 / steps
    timestep = spaced_timesteps(steps, spacing)[start]
    noise = initial_noise(5, (8, 8, 4))[None]
    expected = NoiseSchedule().add_noise(model.encode(picture).values, noise, timestep)
    np.testing.assert_array_equal(latent, expected)


def test_at_full_strength_nearly_only_noise_is_left(model):
    latent, start = model.noised(picture, 1.0, steps=25, seed=5, spacing="trailing")
    noise = initial_noise(5, (8, 8, 4))
    assert start == 0 and np.corrcoef(latent.ravel(), noise.ravel())[0, 1] > 0.99
    _, start = model.noised(picture, 0.6, steps=25)
    assert start == 10
    latent, start = model.noised(picture, 0.01, steps=25)
    assert start == 24  # at least one step is left to do
    assert np.corrcoef(latent.ravel(), model.encode(picture).values.ravel())[0, 1] > 0.9


def test_a_run_from_a_picture_goes_on_from_its_noise(model):
    latent, start = model.noised(picture, 0.5, steps=4, seed=5)
    trace = run(model, steps=4, latent=latent, start_step=start)
    assert trace.steps == [2, 3]
    np.testing.assert_array_equal(trace["sampler/start"].values, latent)
    np.testing.assert_array_equal(trace.sel("sampler/latent", step=2).values, latent)


@pytest.mark.parametrize("strength", [0, -0.1, 1.01, float("nan")])
def test_a_strength_that_is_no_share_is_refused(model, strength):
    with pytest.raises(ValueError, match="strength must be above 0 and at most 1"):
        model.noised(picture, strength)


# --- the parts alone -------------------------------------------------------------------------


def test_the_unet_alone_predicts_what_the_run_recorded(model, plain):
    contexts = [model.embed(""), model.embed(PROMPT)]
    for branch, context in zip(("uncond", "cond"), contexts, strict=True):
        noise = model.predict(
            plain.sel("sampler/latent", step=1).values, plain.timesteps[1], context
        )
        near(noise, plain.sel(f"sampler/noise_{branch}", step=1).values)


def test_pictures_are_encoded_from_any_form(model):
    from PIL import Image

    expected = model.encode(picture).values
    assert expected.shape == (1, 8, 8, 4)
    floats = picture.astype(np.float32) / 127.5 - 1
    for form in (Image.fromarray(picture), picture[None], floats):
        np.testing.assert_array_equal(model.encode(form).values, expected)
    np.testing.assert_array_equal(model.encode(picture).values[0], model.encoder(floats[None])[0])


def test_the_posterior_is_what_the_encoder_says(model):
    mean, std = model.posterior(picture)
    np.testing.assert_array_equal(mean.values, model.encode(picture).values)
    floats = picture.astype(np.float32)[None] / 127.5 - 1
    moments = model.encoder.record("encoder/moments", floats)[1]["encoder/moments"]
    variance = (std.values / model.architecture.scaling_factor) ** 2
    np.testing.assert_allclose(np.log(variance), moments[..., 4:], atol=1e-4)


def test_samples_of_the_posterior_have_its_mean_and_spread(model):
    mean, std = model.posterior(picture)
    samples = np.stack([model.encode(picture, sample_seed=seed).values for seed in range(200)])
    z = (samples - mean.values) / std.values
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02
    again = model.encode(picture, sample_seed=3)
    np.testing.assert_array_equal(again.values, samples[3])
    assert again.site == model.encode(picture).site == "encoder/out"


def test_a_sample_is_the_same_alone_and_in_a_batch(model):
    batch = model.encode(np.stack([picture[::-1], picture]), sample_seed=3).values
    near(batch[1:], model.encode(picture, sample_seed=3).values)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((64, 60, 3), np.uint8), "multiples of 8, got 64×60"),
        (np.zeros((64, 64), np.uint8), r"\(h, w, 3\) or \(n, h, w, 3\), got shape \(64, 64\)"),
        (np.zeros((64, 64, 4), np.uint8), "got shape"),
        (np.full((64, 64, 3), 2.0), r"must lie in \[-1, 1\]"),
        (np.full((64, 64, 3), np.nan), "hold no NaN"),
    ],
)
def test_what_is_no_picture_is_refused(model, image, message):
    with pytest.raises(ValueError, match=message):
        model.encode(image)


def test_a_latent_has_four_channels(model):
    with pytest.raises(ValueError, match=r"a latent is \(…, y, x, 4\), got shape \(8, 8, 3\)"):
        model.decode(np.zeros((8, 8, 3)))


def test_a_part_records_its_sites_and_refuses_others(model):
    latent = initial_noise(1, (1, 8, 8, 4))
    plain = model.decoder(latent)
    pixels, seen = model.decoder.record(["decoder/up.*/res.0/out", "decoder/out"], latent)
    np.testing.assert_array_equal(pixels, plain)
    np.testing.assert_array_equal(seen["decoder/out"], pixels)
    assert len(seen) == 5
    with pytest.raises(SiteError, match="'decoder/uq' names no site of the decoder; nearest: "):
        model.decoder.record("decoder/uq", latent)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.predict(np.zeros((2, 8, 8, 4)), 5, np.zeros((1, 20, 16))), "context"),
        (lambda m: m.predict(np.zeros((1, 8, 8, 4)), 5, np.zeros((1, 20, 15))), "context"),
        (lambda m: m.predict(np.zeros((1, 8, 8, 3)), 5, np.zeros((1, 20, 16))), "latent"),
        (lambda m: m.predict(np.zeros((1, 8, 9, 4)), 5, np.zeros((1, 20, 16))), "latent"),
        (lambda m: m.predict(np.zeros((8, 8, 4)), 5, np.zeros((1, 20, 16))), "latent"),
        (lambda m: m.predict(np.zeros((1, 8, 8, 4)), 5, np.full((1, 20, 16), np.nan)), "context"),
        (
            lambda m: m.predict(np.zeros((1, 8, 8, 4)), 1500, np.zeros((1, 20, 16))),
            "0 … 999.* 1500",
        ),
        (lambda m: m.predict(np.zeros((1, 8, 8, 4)), -1, np.zeros((1, 20, 16))), "timestep must"),
        (lambda m: m.predict(np.zeros((1, 8, 8, 4)), "5", np.zeros((1, 20, 16))), "timestep must"),
        (lambda m: m.decode(np.full((8, 8, 4), np.nan)), "NaN"),
        (lambda m: m.embed(5), "prompt"),
        (lambda m: m.embed(["a star", 5]), "prompt"),
        (lambda m: m.embed([]), "prompt"),
    ],
)
def test_the_parts_refuse_what_they_cannot_read(model, monkeypatch, call, message):
    def work(*args, **kwargs):
        raise AssertionError("a network was prepared")

    for part in model.parts.values():
        monkeypatch.setattr(part, "program", work)
    with pytest.raises((TypeError, ValueError), match=message):
        call(model)


# --- again -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"sampler": "ddpm", "seed": [1, 2], "negative": OTHER},
        {"guidance": 1, "eta": 0.5, "spacing": "trailing", "record": HALF},
        {"latent": initial_noise(9, (8, 8, 4)), "start_step": 1},
        {"record": REDUCED},
        {"edit": [edit(SKIP, edits.scale, factor=0.3, steps=[1], branch="cond")]},
        {"edit": [edit("sampler/noise", edits.scale, factor=0.1)], "record": []},
    ],
    ids=["plain", "batch", "guidance 1", "latent", "reduced", "edited", "sampler edited"],
)
def test_a_replay_has_the_same_bits(model, asked, tmp_path):
    trace = run(model, **asked, store=tmp_path / "run.zarr")
    again = xray.open(tmp_path / "run.zarr").replay(model)
    assert again.equal and all(row.equal for row in again.rows)
    assert {row.site for row in again.rows} == set(trace.sites)


def test_a_replay_of_embeddings_has_the_same_bits(model):
    trace = run(model, [model.embed(PROMPT).values[0], OTHER], negative=model.embed(OTHER))
    assert model.replay(trace).equal
    assert trace.attrs["prompt"] == ["<embedding>", OTHER]  # untouched
    assert model.replay(trace).equal


@pytest.mark.parametrize(
    "asked",
    [
        {"eta": 0.5, "seed": [1, 2], "negative": OTHER, "spacing": "trailing"},
        {"edit": [edit(SKIP, edits.scale, factor=0.3, steps=[0])]},
        {"edit": [edit("sampler/noise", edits.scale, factor=0.5, steps=[2])], "guidance": 2.0},
    ],
)
def test_a_run_resumed_as_it_was_has_the_same_bits(model, asked):
    trace = run(model, **asked)
    for step in (0, 1, 2):
        rest = model.resume(trace, step)
        assert rest.steps == trace.steps[step:]
        assert equal(rest, trace, "sampler/out", "image")


def test_a_step_is_not_resumed_where_its_latent_would_not_be_the_same(model, plain):
    scale = edit("sampler/latent", edits.scale, factor=0.9, steps=[1])
    edited = run(model, edit=scale)
    with pytest.raises(
        ValueError, match="latent recorded at step 1 is what the edit .* made of it"
    ):
        model.resume(edited, 1)
    assert equal(model.resume(edited, 1, edit=[]), edited, "sampler/out")  # it is edited already
    assert equal(model.resume(edited, 2), edited, "sampler/out")
    half = run(model, record=observe("sampler/latent", dtype="float16"))
    with pytest.raises(xray.TraceError, match="recorded as float16 .* record it whole"):
        model.resume(half, 1)
    for change in ({"steps": 8}, {"spacing": "trailing"}, {"sampler": "dpmpp_2m"}):
        with pytest.raises(ValueError, match="recorded latent has the noise of 334"):
            model.resume(plain, 1, **change)
    latent = plain.sel("sampler/latent", step=1).values
    assert model.resume(plain, 1, steps=8, latent=latent).steps == list(range(1, 8))


def test_a_run_can_be_resumed_with_something_changed(model, plain):
    other = model.resume(plain, 1, prompt=OTHER)
    assert equal(other, plain, "sampler/latent", step=1)
    assert not equal(other, plain, "sampler/out")
    assert equal(model.resume(plain, 0, prompt=OTHER), run(model, OTHER), "sampler/out", "image")
    ones = np.ones((8, 8, 4), np.float32)
    np.testing.assert_array_equal(
        model.resume(plain, 2, latent=ones)["sampler/latent"].values[0, 0], ones
    )
    with pytest.raises(xray.TraceError, match="step 3 is not in this trace"):
        model.resume(plain, 3)


@pytest.mark.parametrize("before, after", [("ddim", "euler_ancestral"), ("ddpm", "euler")])
def test_a_run_resumed_by_another_sampler_has_that_ones_eta(model, before, after):
    latent, alone = np.ones((1, 8, 8, 4), np.float32), {"sampler": after, "start_step": 1}
    resumed = model.resume(run(model, sampler=before), 1, sampler=after, latent=latent)
    assert equal(resumed, run(model, latent=latent, **alone), "sampler/out")


def test_a_run_is_resumed_with_a_latent_of_another_size(model, plain):
    resumed = model.resume(plain, 1, latent=np.ones((16, 8, 4), np.float32))
    assert resumed.image.size == (64, 128)


def test_an_embedding_that_guidance_one_does_not_use_is_no_difference(model):
    assert model.replay(run(model, guidance=1, negative=model.embed(OTHER), record=HALF)).equal


def test_a_negative_prompt_that_guidance_one_does_not_use_is_not_forgotten(model):
    resumed = model.resume(run(model, guidance=1, negative=OTHER), 1, guidance=5)
    assert resumed.attrs["negative"] == [OTHER]
    embedded = run(model, guidance=1, negative=model.embed(OTHER))
    with pytest.raises(ValueError, match=r"negative prompt was given as an embedding.*negative="):
        model.resume(embedded, 1, guidance=5)
    assert model.resume(embedded, 1, guidance=5, negative="").attrs["negative"] == [""]


def test_a_replay_does_not_take_the_place_of_its_trace(model, tmp_path):
    trace = run(model, store=tmp_path / "run.zarr")
    for place in (trace.path, tmp_path / "other" / ".." / "run.zarr"):
        with pytest.raises(ValueError, match=r"run.zarr' is the trace itself: choose another"):
            trace.replay(model, store=place, overwrite=True)
    assert trace["sampler/latent"].size


def test_ctrl_c_while_the_end_is_written_keeps_everything(model, tmp_path, monkeypatch):
    finish = store.StoreWriter.finish
    calls = iter([KeyboardInterrupt, None])

    def slow(self, *args, **kwargs):
        if error := next(calls):
            raise error
        return finish(self, *args, **kwargs)

    monkeypatch.setattr(store.StoreWriter, "finish", slow)
    with pytest.raises(KeyboardInterrupt) as raised:
        run(model, store=tmp_path / "run.zarr")
    trace = raised.value.trace
    assert trace.status == xray.open(tmp_path / "run.zarr").status == "interrupted"
    assert len(trace.steps) == 3 and trace.image.size


def test_a_replay_can_go_to_disk(model, plain, tmp_path):
    again = plain.replay(model, store=tmp_path / "again.zarr")
    assert again.equal and xray.open(tmp_path / "again.zarr").sites == plain.sites


def test_a_replay_of_nothing_agrees_with_nothing(model):
    broken = edit(SKIP, lambda x, context: x + np.nan)
    with pytest.raises(EditError) as failed:
        run(model, record=["sampler/latent"], edit=broken)
    assert failed.value.trace.steps == [] and not model.replay(failed.value.trace, edit=[]).equal


def test_a_text_can_be_any_text(model):
    assert model.replay(run(model, "<embedding>")).equal


def test_a_replay_says_where_the_bits_differ(model):
    trace = run(model, edit=edit("sampler/noise", edits.scale, factor=0.5, steps=[2]))
    again = model.replay(trace, edit=[])
    assert not again.equal
    differing = {(row.site, row.step) for row in again.rows if not row.equal}
    assert ("sampler/noise", 2) in differing and ("sampler/out", None) in differing
    assert not [step for _, step in differing if step in (0, 1)]


def test_an_edit_of_ones_own_must_be_handed_in_again(model):
    own = edit("sampler/noise", lambda x, context, by: x * by, by=0.5)
    trace = run(model, edit=own)
    with pytest.raises(ValueError, match="'<lambda>' at 'sampler/noise' is not one of xray.edits"):
        model.replay(trace)
    assert model.replay(trace, edit=[own]).equal


def test_a_large_tensor_put_in_place_must_be_handed_in_again(model, plain):
    latent = plain["sampler/out"].values[0]
    small = edit("sampler/latent", edits.replace, value=latent, steps=[1])
    assert model.replay(run(model, edit=small)).equal
    site, value = "unet/up.3/attn.0/self/weights", np.full((2, 8, 8, 8, 8), 1 / 64, np.float32)
    large = edit(site, edits.replace, value=value)
    trace = run(model, record=["sampler/*"], edit=large)
    assert len(json.dumps(trace.attrs["edits"])) < 1000
    with pytest.raises(ValueError, match="a large tensor, and a trace holds neither"):
        model.replay(trace)
    assert model.replay(trace, edit=[large]).equal


def test_a_function_that_only_bears_a_named_edits_name_is_not_it(model):
    def scale(x, context, *, factor):
        return x * factor * 0

    trace = run(model, edit=edit("sampler/noise", scale, factor=1.0))
    with pytest.raises(ValueError, match="a trace holds neither code"):
        model.replay(trace)


def test_another_models_trace_is_refused(model, plain, monkeypatch):
    monkeypatch.setattr(model, "digest", "0123456789abcdef")
    with pytest.raises(ValueError, match="weights random-0.*; this is .* weights 0123456789ab"):
        model.replay(plain)


def test_a_truncated_prompt_is_replayed_as_it_was_cut(model):
    with pytest.warns(UserWarning, match="is cut off"):
        trace = run(model, " ".join([PROMPT] * 3), truncate=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert model.replay(trace).equal


def test_a_replay_of_an_interrupted_run_agrees_in_what_there_is(model):
    assert model.replay(interrupted(model).trace).equal


# --- ending early ----------------------------------------------------------------------------


def interrupted(model, **kwargs):
    def progress(done, steps):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        run(model, **kwargs, progress=progress)
    return raised.value


@pytest.mark.parametrize("stored", [False, True])
def test_an_interrupted_run_keeps_its_complete_steps(model, plain, tmp_path, stored):
    path = tmp_path / "run.zarr"
    trace = interrupted(model, store=path if stored else None).trace
    if stored:
        trace = xray.open(path)
    assert (trace.status, trace.reason) == ("interrupted", "interrupted by the user")
    assert trace.steps == [0, 1] and "image" not in trace
    np.testing.assert_array_equal(
        trace["sampler/latent"].values, plain["sampler/latent"].values[:2]
    )


def test_progress_is_told_of_every_step(model):
    told = []
    run(model, progress=lambda done, steps: told.append((done, steps)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_latent_that_has_run_away_is_reported_not_painted(model):
    too_large = edit("sampler/noise", edits.scale, factor=3e38, steps=[0])
    with (
        np.errstate(all="ignore"),
        pytest.raises(
            FloatingPointError, match="U-Net's output at step 1 .* holds .* NaN"
        ) as raised,
    ):
        run(model, edit=too_large)
    assert (raised.value.trace.status, raised.value.trace.steps) == ("failed", [0])


def test_a_picture_of_no_numbers_is_reported_not_painted_black(model, plain):
    too_large = edit("decoder/conv_in/out", edits.scale, factor=1e38)
    with pytest.raises(FloatingPointError, match="decoder's output holds .* NaN") as raised:
        run(model, edit=too_large)
    assert raised.value.trace.steps == [0, 1, 2] and "sampler/out" in raised.value.trace
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="decoder's output"):
        model.decode(np.full_like(plain["sampler/out"].values, 1e38))


def test_noise_levels_are_the_models_own(model, monkeypatch):
    schedule = NoiseSchedule(beta_start=0.001, beta_end=0.02)
    monkeypatch.setattr(model, "schedule", schedule)
    for sampler in ("euler", "dpmpp_2m"):
        found = model.plan(PROMPT, steps=5, sampler=sampler, spacing="karras").timesteps
        levels = [schedule.sigma(t) ** (1 / 7) for t in found[:-1]]
        np.testing.assert_allclose(np.diff(levels, 2), 0, atol=1e-6)  # they fall evenly
    picture = np.zeros((64, 64, 3), np.float32)
    latent, start = model.noised(picture, 0.5, steps=5, sampler="euler", spacing="karras")
    noise = initial_noise(0, latent.shape[1:])
    expected = schedule.add_noise(model.encode(picture).values, noise, found[start])
    np.testing.assert_array_equal(latent, expected)


@pytest.mark.parametrize(
    ("part", "arrays", "message"),
    [
        ("text", np.full((1, 20), 1.7), "whole numbers 0 … .*, got 1.7"),
        ("text", np.full((1, 20), 99999), "whole numbers 0 … .*, got 99999"),
        ("text", np.full((1, 20), -1), "got -1"),
        ("text", np.full((1, 20), np.nan), "got nan"),
        ("text", np.zeros(20, int), r"must be \(n, 1 … 20\), got shape \(20,\)"),
        ("text", np.zeros((1, 21), int), r"must be \(n, 1 … 20\), got shape \(1, 21\)"),
        ("decoder", np.zeros((8, 8, 4)), r"a latent must be \(n, y, x, 4\) here, .*\(8, 8, 4\)"),
        ("encoder", np.zeros((1, 64, 64, 4)), r"pixels must be \(n, y, x, 3\)"),
    ],
)
def test_a_part_alone_refuses_what_it_cannot_read(model, part, arrays, message):
    with pytest.raises(ValueError, match=message):
        model.parts[part](arrays)


# --- 8: bad input, said before any work ------------------------------------------------------

BAD = [
    # prompts
    ({"prompt": ""}, ValueError, "the prompt is empty"),
    ({"prompt": " \n"}, ValueError, "the prompt is empty"),
    ({"prompt": [PROMPT, ""]}, ValueError, "the prompt is empty"),
    ({"prompt": " ".join([PROMPT] * 3)}, PromptTooLong, "12 more than the 18 .*cut off"),
    ({"negative": " ".join([PROMPT] * 3)}, PromptTooLong, "12 more than the 18"),
    ({"prompt": 5}, TypeError, "a prompt is text or an embedding, got int: 5"),
    ({"prompt": None}, TypeError, "a prompt is text or an embedding, got NoneType"),
    ({"prompt": b"star"}, TypeError, "got bytes"),
    ({"prompt": ["star", 3]}, TypeError, "a prompt is text or an embedding, got int: 3"),
    ({"prompt": []}, ValueError, "0 prompts"),
    ({"prompt": ["a star"] * 2, "seed": [1, 2, 3]}, ValueError, "2 prompts, .*3 seeds"),
    # embeddings and latents
    ({"prompt": np.zeros((19, 16))}, ValueError, r"is \(20, 16\), got shape \(19, 16\)"),
    ({"negative": np.zeros((20, 15))}, ValueError, r"is \(20, 16\), got shape \(20, 15\)"),
    ({"prompt": np.full((20, 16), np.nan)}, ValueError, "the embedding holds 320 NaN"),
    ({"latent": np.zeros((8, 8, 3))}, ValueError, r"latent must be .*, got \(1, 8, 8, 3\)"),
    ({"latent": np.zeros((2, 8, 8, 4))}, ValueError, r"latent must be .*, got \(2, 8, 8, 4\)"),
    ({"latent": np.zeros((8, 9, 4))}, ValueError, "width must be a multiple of 64, got 72"),
    ({"latent": np.full((8, 8, 4), np.inf)}, ValueError, "the latent holds 256 NaN or inf"),
    ({"latent": np.zeros((8, 8, 4)), "width": 128}, ValueError, "width is 128, but the latent"),
    # sizes and numbers
    ({"width": 100}, ValueError, "width must be a multiple of 64, got 100"),
    ({"height": 32}, ValueError, "height must be a multiple of 64, got 32"),
    ({"height": 64.5}, ValueError, "height must be a multiple of 64, got 64.5"),
    ({"height": -64}, ValueError, "height must be a multiple of 64, got -64"),
    ({"steps": 0}, ValueError, "steps must be a whole number from 1 up, got 0"),
    ({"steps": -1}, ValueError, "steps must be"),
    ({"steps": 2.5}, ValueError, "steps must be a whole number from 1 up, got 2.5"),
    ({"steps": True}, ValueError, "steps must be"),
    ({"steps": "3"}, ValueError, "steps must be a whole number from 1 up, got '3'"),
    ({"steps": 1001}, ValueError, "steps must be a whole number 1 … 1000, got 1001"),
    ({"start_step": 1}, ValueError, "start_step 1 needs the latent"),
    ({"start_step": 3}, ValueError, "start_step must be 0 … 2, got 3"),
    ({"start_step": -1}, ValueError, "start_step must be a whole number from 0 up, got -1"),
    ({"guidance": float("nan")}, ValueError, "guidance must be a number, got nan"),
    ({"guidance": float("inf")}, ValueError, "guidance must be a number"),
    ({"guidance": [5.0, 5.0]}, ValueError, "2 scales and the run 3 steps"),
    ({"guidance": [5.0, "high", 1.0]}, ValueError, "guidance must be a number, got 'high'"),
    ({"seed": -1}, ValueError, "seed -1 is not a whole number from 0 up"),
    ({"seed": 1.5}, ValueError, "seed 1.5 is not a whole number"),
    ({"seed": "7"}, ValueError, "seed '7' is not a whole number"),
    ({"seed": []}, ValueError, "0 seeds"),
    ({"eta": 1.5}, ValueError, "eta must be 0 … 1, got 1.5"),
    ({"eta": float("nan")}, ValueError, "eta must be a number, got nan"),
    # names
    ({"sampler": "dimm"}, ValueError, "sampler 'dimm' is not one of ddim, ddpm"),
    ({"spacing": "even"}, ValueError, "spacing 'even' is not leading, trailing or linspace"),
]


@pytest.mark.parametrize(
    ("asked", "error", "message"), BAD, ids=[str(case[0])[:40] for case in BAD]
)
def test_bad_input_is_refused_before_any_work(model, tmp_path, monkeypatch, asked, error, message):
    def work(*args, **kwargs):
        raise AssertionError("a network was prepared")

    for part in model.parts.values():
        monkeypatch.setattr(part, "program", work)
    asked = {"prompt": PROMPT, "steps": 3, "store": tmp_path / "run.zarr", **asked}
    with pytest.raises(error, match=message):
        model.generate(**asked)
    assert not (tmp_path / "run.zarr").exists()


UNCLEAR = [
    ({"width": 0}, "width"),
    ({"width": "64"}, "width"),
    ({"width": 64.0}, "width"),
    ({"guidance": "5"}, "guidance"),
    ({"guidance": None}, "guidance"),
    ({"guidance": np.array(5.0)}, "guidance"),
    ({"seed": np.array(5)}, "seed"),
    ({"latent": 0.5}, "latent"),
    ({"start_step": 1.5, "latent": np.zeros((8, 8, 4))}, "start_step"),
    ({"record": [3]}, "record"),
    ({"edit": SKIP}, "edit"),
    ({"record": [observe("text/out", tokens=[99])]}, "token"),
    ({"record": [observe("text/out", tokens=[-1])]}, "token"),
    ({"record": [observe("sampler/out", mean="channel")]}, "sampler/out"),
    ({"record": [observe("image", dtype="float16")]}, "image"),
]


@pytest.mark.parametrize(("asked", "named"), UNCLEAR, ids=[str(case[0])[:40] for case in UNCLEAR])
def test_bad_input_is_refused_by_its_name(model, asked, named):
    with pytest.raises((ValueError, TypeError), match=named):
        run(model, **asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"record": ["text/layer.0/ou"]}, "names no site .*nearest: text/layer.0/out"),
        ({"record": ["sampler/noise_uncond"], "guidance": 1}, "guidance 1 .* no unconditional"),
        ({"record": ["sampler/added_noise"]}, "at eta 0 no noise is put back"),
        ({"record": ["encoder/**"]}, "starts from noise and does not run the encoder"),
        ({"record": [""]}, "names no site"),
        (
            {"record": ["text/layer.0/out"], "prompt": np.zeros((20, 16)), "guidance": 1},
            "given as embeddings, so the text encoder does not run",
        ),
    ],
)
def test_a_site_that_this_run_cannot_reach_is_refused_with_the_reason(model, asked, message):
    with pytest.raises(SiteError, match=message):
        run(model, **{"prompt": PROMPT, **asked})


@pytest.mark.parametrize("site", ["sampler/start", "text/given"])
def test_what_was_not_given_cannot_be_recorded(model, site):
    with pytest.raises(SiteError, match="given"):
        run(model, record=[site])
    given = {"latent": initial_noise(3, (8, 8, 4)), "negative": model.embed(OTHER)}
    assert site in run(model, record=[site], steps=1, **given)


def test_an_embedding_that_guidance_one_does_not_use_was_not_given(model):
    with pytest.raises(SiteError, match="no embedding was given"):
        run(model, record=["text/given"], guidance=1, negative=model.embed(OTHER))


def test_a_wide_pattern_takes_what_this_run_computes(model):
    embedded = run(
        model, np.ones((20, 16), np.float32), guidance=1, record=["s*/*", "t*/*", "d*/*"]
    )
    assert "decoder/out" in embedded
    assert [s for s in embedded.sites if s.startswith(("sampler/", "text/"))] == [
        "sampler/latent",
        "sampler/noise_cond",
        "sampler/noise",
        "sampler/denoised",
        "text/given",
        "sampler/out",
    ]


def test_a_place_that_cannot_be_written_is_refused_first(model, tmp_path, monkeypatch):
    def work(*args, **kwargs):
        raise AssertionError("a network was prepared")

    for part in model.parts.values():
        monkeypatch.setattr(part, "program", work)
    (tmp_path / "there").mkdir()
    for path, message in [
        (tmp_path / "there", "exists already"),
        (tmp_path / "no" / "run.zarr", "is not an existing folder"),
        ("/proc/run.zarr", "cannot be written"),
    ]:
        with pytest.raises(xray.TraceError, match=message):
            run(model, store=path)


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_a_place_that_is_too_small_is_refused_with_the_numbers(model, tmp_path, monkeypatch, place):
    if place == "disk":
        usage = store.shutil.disk_usage(tmp_path)._replace(free=10_000)
        monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage)
    else:
        monkeypatch.setattr(store.memory, "available", lambda: 10_000)
    path = tmp_path / "run.zarr" if place == "disk" else None
    with pytest.raises(xray.TraceError, match=f"needs .*kB and 10 kB of {place}.*image"):
        run(model, store=path)
    assert not list(tmp_path.iterdir())


def test_a_model_without_vocabulary_says_so(model, monkeypatch):
    monkeypatch.setattr(model, "tokenizer", None)
    with pytest.raises(ValueError, match="without a vocabulary and cannot read 'a red star"):
        run(model)


def test_what_is_recorded_elsewhere_does_not_compile_the_unet_again(model, plain):
    before = model.unet.traces
    run(model, record=["sampler/latent", "text/out"])
    assert model.unet.traces == before


def test_an_embedding_beside_text_can_be_recorded_reduced(model):
    trace = run(model, model.embed(PROMPT), record=[observe("text/out", dtype="float16")])
    assert model.replay(trace).equal
