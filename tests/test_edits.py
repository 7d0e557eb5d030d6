"""Named edits do what they say, alone and inside a run."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import xray
from xray import edits
from xray.edits import NAMED
from xray.samplers import SAMPLERS
from xray.taps import Context, EditError, SiteError, edit, observe

PROMPT = "a red star above a blue moon"
CROSS = "unet/mid/attn.0/cross/weights"
SELF = "unet/down.0/attn.0/self/weights"
SKIP = "unet/up.1/skip.0"
VALUE = "unet/**/cross/value"


def context(site):
    return Context(site, "cond", (), None, None)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# --- each by itself ------------------------------------------------------------------------


def test_every_public_function_is_a_named_edit():
    public = {
        name: f
        for name, f in vars(edits).items()
        if inspect.isfunction(f) and f.__module__ == edits.__name__ and not name.startswith("_")
    }
    assert public == NAMED


@given(st.floats(-8, 8, width=16))
def test_scale_is_a_product_and_one_changes_no_bit(factor):
    x = normal(0, 2, 4, 5, 3)
    np.testing.assert_array_equal(edits.scale(x, context("unet/out"), factor=factor), x * factor)
    np.testing.assert_array_equal(edits.scale(x, context("unet/out"), factor=1.0), x)


def test_zero_is_nothing_left():
    x = tf.constant(normal(0, 2, 4, 5, 3))
    out = edits.zero(x, context("unet/out"))
    assert out.shape == x.shape and out.dtype == x.dtype and not np.any(out)


@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (4, 5, 3), (3,), ()])
def test_replace_puts_a_value_in_every_place_it_fits(shape):
    value = normal(1, *shape)
    out = edits.replace(tf.constant(normal(0, 2, 4, 5, 3)), context("unet/out"), value=value)
    np.testing.assert_array_equal(out, np.broadcast_to(value, (2, 4, 5, 3)))


def test_noise_is_in_proportion_and_fixed_by_its_seed():
    x = tf.constant(3 * normal(0, 1, 64, 64, 4) + 1)
    noise = lambda amount, seed: (  # noqa: E731
        edits.add_noise(x, context("unet/out"), amount=amount, seed=seed).numpy() - x.numpy()
    )
    assert noise(0.5, 7).std() == pytest.approx(0.5 * 3, rel=0.03)
    assert noise(0.5, 7).mean() == pytest.approx(0, abs=0.05)
    np.testing.assert_array_equal(noise(0.5, 7), noise(0.5, 7))
    np.testing.assert_allclose(noise(1.0, 7), 2 * noise(0.5, 7), atol=1e-5)
    assert abs(np.corrcoef(noise(0.5, 7).ravel(), noise(0.5, 8).ravel())[0, 1]) < 0.05
    assert not noise(0.0, 7).any()


def test_noise_of_an_image_does_not_depend_on_its_batch():
    x = normal(0, 3, 8, 8, 4) * np.float32([1, 100, 5]).reshape(3, 1, 1, 1)
    asked = {"context": context("unet/out"), "amount": 0.5, "seed": 7}
    together = edits.add_noise(tf.constant(x), **asked).numpy()
    for i in range(3):
        np.testing.assert_allclose(
            together[i], edits.add_noise(tf.constant(x[i : i + 1]), **asked)[0], rtol=1e-6
        )


@pytest.mark.parametrize(
    ("site", "shape", "keys"),
    [
        (CROSS, (1, 2, 4, 5, 20), 20),
        (SELF, (1, 2, 4, 5, 4, 5), 20),
        ("text/layer.0/attention/weights", (1, 2, 20, 20), 20),
    ],
)
def test_uniform_weights_sum_to_one_over_the_keys(site, shape, keys):
    out = edits.uniform(tf.constant(normal(0, *shape)), context(site))
    np.testing.assert_allclose(out, np.full(shape, 1 / keys, np.float32), rtol=1e-7)


@pytest.mark.parametrize("site", ["unet/out", "unet/mid/attn.0/cross/query"])
def test_only_attention_weights_can_be_uniform(site):
    with pytest.raises(ValueError, match=f"{site} holds no attention weights"):
        edits.uniform(normal(0, 1, 2, 4, 5, 3), context(site))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_only_the_named_heads_are_scaled(heads):
    x = normal(0, 2, 4, 3, 5, 6)
    expected = x.copy()
    expected[:, sorted(set(heads))] *= np.float32(0.25)
    heads = np.array(heads, np.int32)
    out = edits.scale_heads(x, context(CROSS), heads=heads, factor=np.float32(0.25))
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("site", [CROSS, "unet/mid/attn.0/cross/value", "text/layer.0/out"])
def test_only_the_named_tokens_are_scaled(site):
    shape = {CROSS: (2, 4, 3, 5, 6), "text/layer.0/out": (2, 6, 8)}.get(site, (2, 4, 6, 8))
    axis = {CROSS: 4, "text/layer.0/out": 1}.get(site, 2)
    x = normal(0, *shape)
    expected = np.moveaxis(x.copy(), axis, 0)
    expected[[1, 4]] *= np.float32(3)
    tokens = np.array([4, 1], np.int32)
    out = edits.scale_tokens(x, context(site), tokens=tokens, factor=np.float32(3))
    np.testing.assert_array_equal(out, np.moveaxis(expected, 0, axis))


@given(st.integers(0, 5), st.integers(0, 5))
def test_swapping_two_tokens_exchanges_them_and_twice_is_nothing(first, second):
    x = normal(0, 2, 4, 3, 5, 6)
    order = list(range(6))
    order[first], order[second] = order[second], order[first]
    swap = lambda x: edits.swap_tokens(  # noqa: E731
        x, context(CROSS), first=np.int32(first), second=np.int32(second)
    )
    np.testing.assert_array_equal(swap(x), x[..., order])
    np.testing.assert_array_equal(swap(swap(x)), x)


@pytest.mark.parametrize(
    ("fn", "site", "params", "axis"),
    [
        (edits.scale_heads, "unet/out", {"heads": 0, "factor": 0.0}, "head"),
        (edits.scale_tokens, SELF, {"tokens": 0, "factor": 0.0}, "token"),
        (edits.swap_tokens, "unet/time", {"first": 0, "second": 1}, "token"),
    ],
)
def test_an_axis_that_is_not_there_is_named(fn, site, params, axis):
    with pytest.raises(ValueError, match=f"{site} has no {axis} axis; its axes are .*channel|key"):
        fn(normal(0, 1, 4, 5, 3), context(site), **params)


# --- inside a run --------------------------------------------------------------------------


def run(model, *edit, **kwargs):
    return model.generate(PROMPT, **{"steps": 3, "seed": 7, **kwargs}, edit=list(edit))


@pytest.fixture(scope="module")
def plain(model):
    return run(model)


def same(a, b, *sites, step=None):
    return all(
        np.array_equal(a.sel(s, step=step).values, b.sel(s, step=step).values) for s in sites
    )


def test_scaling_a_skip_by_one_changes_no_bit(model, plain):
    one = run(model, edit(SKIP, edits.scale, factor=1.0))
    assert same(one, plain, *plain.sites)


def test_scaling_a_skip_by_zero_changes_the_picture(model, plain):
    none = run(model, edit(SKIP, edits.scale, factor=0.0))
    assert not same(none, plain, "sampler/out") and not same(none, plain, "image")


def test_an_edit_of_the_conditional_branch_leaves_the_other_untouched(model, plain):
    edited = run(model, edit(SKIP, edits.scale, factor=0.0, branch="cond"))
    assert same(edited, plain, "sampler/latent", "sampler/noise_uncond", step=0)
    assert not same(edited, plain, "sampler/noise_cond", step=0)
    # From then on the branches see another latent.
    assert not same(edited, plain, "sampler/noise_uncond", step=1)

    edited = run(model, edit(SKIP, edits.scale, factor=0.0, branch="uncond"))
    assert same(edited, plain, "sampler/noise_cond", step=0)
    assert not same(edited, plain, "sampler/noise_uncond", step=0)


def test_an_edit_is_on_at_its_steps_only(model, plain):
    edited = run(model, edit(SKIP, edits.scale, factor=0.0, steps=[1]))
    every = ["sampler/noise_uncond", "sampler/noise_cond", "sampler/noise", "sampler/denoised"]
    assert same(edited, plain, "sampler/latent", *every, step=0)
    assert same(edited, plain, "sampler/latent", step=1)
    assert not any(same(edited, plain, site, step=1) for site in every)


@pytest.mark.parametrize(
    "site", ["unet/time", "unet/conv_in/out", "unet/down.0/res.0/time", SELF, f"{SELF[:-7]}out"]
)
def test_an_edit_before_the_text_has_a_part_tells_the_branches_apart(model, plain, site):
    """Up to there both branches are computed once, and each for itself where one is edited."""
    asked = {"record": ["sampler/*", observe(site, dtype="float32")]}
    one = run(model, edit(site, edits.scale, factor=1.0), **asked)
    assert same(one, plain, *plain.sites)
    uncond, cond = (one.sel(site, branch=b).values for b in ("uncond", "cond"))
    np.testing.assert_array_equal(uncond, cond)

    half = run(model, edit(site, edits.scale, factor=0.5, branch="cond"), **asked)
    assert same(half, plain, "sampler/noise_uncond", step=0)
    assert not same(half, plain, "sampler/noise_cond", step=0)
    uncond, cond = (half.sel(site, step=0, branch=b).values for b in ("uncond", "cond"))
    np.testing.assert_array_equal(cond, 0.5 * uncond)
    np.testing.assert_array_equal(uncond, one.sel(site, step=0, branch="uncond").values)


def test_steps_are_counted_from_the_beginning_of_the_whole_run(model, plain):
    part = {"latent": plain.sel("sampler/latent", step=1).values, "start_step": 1}
    edited = run(model, edit(SKIP, edits.scale, factor=0.0, steps=[2]), **part)
    assert same(edited, plain, "sampler/noise", step=1)
    assert not same(edited, plain, "sampler/noise", step=2)


def test_a_sweep_traces_once(model, plain):
    """Over values, steps and branches: these enter the compiled step as inputs."""
    run(model, edit(SKIP, edits.scale, factor=0.0))
    before = model.unet.traces
    sweep = [run(model, edit(SKIP, edits.scale, factor=f)) for f in np.linspace(0, 2, 20)]
    for steps, branch in [([0], None), (range(2), "cond"), (None, "uncond")]:
        run(model, edit(SKIP, edits.scale, factor=0.5, steps=steps, branch=branch))
    model.generate("a star", steps=3, seed=7, edit=edit(SKIP, edits.scale, factor=0.5))
    assert model.unet.traces == before
    outcomes = [t["sampler/out"].values for t in sweep]
    assert len({o.tobytes() for o in outcomes}) == 20
    away = [np.abs(o - plain["sampler/out"].values).max() for o in outcomes]
    assert min(away[:3] + away[-3:]) > max(away[9:11])  # nearest to the plain run around 1


def test_a_sweep_over_heads_traces_once_and_heads_differ(model):
    one = run(model, edit(VALUE, edits.scale_heads, heads=[0], factor=0.0))
    before = model.unet.traces
    other = run(model, edit(VALUE, edits.scale_heads, heads=[1], factor=0.0))
    back = run(model, edit(VALUE, edits.scale_heads, heads=[0], factor=1.0))
    assert model.unet.traces == before
    assert not same(one, other, "sampler/noise", step=0)
    assert same(back, run(model), "sampler/out", "image")


def test_uniform_weights_give_the_mean_of_the_values(model):
    trace = run(
        model,
        edit("unet/**/cross/weights", edits.uniform),
        steps=1,
        record=[observe("unet/**/cross/*", dtype="float32")],
    )
    net = model.networks["unet"]
    blocks = {
        "unet/down.0/attn.0": net.down[0].attn[0],
        "unet/mid/attn.0": net.mid.attn[0],
        "unet/up.3/attn.1": net.up[3].attn[1],
    }
    for name, block in blocks.items():
        weights = trace[f"{name}/cross/weights"].values
        np.testing.assert_allclose(weights, 1 / 20, rtol=1e-6)
        # (step, branch, image, head, token, channel): heads lie side by side before the projection.
        mean = trace[f"{name}/cross/value"].values.mean(axis=-2)
        mean = mean.reshape(*mean.shape[:3], -1)
        layer = block.transformer_block.attn2.out_proj
        expected = mean @ layer.kernel.numpy() + layer.bias.numpy()
        out = trace[f"{name}/cross/out"].values
        expected = np.broadcast_to(expected[:, :, :, None, None], out.shape)
        np.testing.assert_allclose(out, expected, atol=1e-5)


def test_replacing_the_embedding_is_giving_that_embedding(model):
    other = model.embed("a big green fish")
    given_ = model.generate(other, steps=2, seed=7)
    replaced = run(model, edit("text/out", edits.replace, value=other, branch="cond"), steps=2)
    assert same(given_, replaced, "sampler/latent", "sampler/noise", "sampler/out", "image")


def test_an_edit_of_the_decoder_changes_the_picture_and_no_latent(model, plain):
    grey = run(model, edit("decoder/out", edits.zero))
    assert same(grey, plain, "sampler/latent", "sampler/out")
    assert np.unique(grey["image"].values).tolist() in ([127], [128])


def test_an_edit_sees_the_tokens_of_its_branch(model):
    told = {}

    def look(x, context):
        told[context.branch] = context.tokens
        return x

    run(model, edit("text/embedding", look), steps=1)
    assert set(told) == {"uncond", "cond"} and len(told["cond"]) == 1
    texts = [t.text for t in model.tokenizer.tokens(PROMPT)]
    assert told["cond"][0] == tuple(texts) and told["cond"][0] != told["uncond"][0]


# --- between the steps ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "site", ["sampler/noise_uncond", "sampler/noise_cond", "sampler/noise", "sampler/denoised"]
)
def test_the_samplers_own_arrays_are_edited_between_steps(model, plain, site):
    edited = run(model, edit(site, edits.scale, factor=0.5, steps=[1]))
    assert same(edited, plain, "sampler/latent", site, step=0)
    half = plain.sel(site, step=1).values * np.float32(0.5)
    np.testing.assert_array_equal(edited.sel(site, step=1).values, half)
    assert not same(edited, plain, "sampler/latent", step=2)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_an_edited_denoised_counts_as_what_the_network_said(model, sampler):
    asked = {
        "sampler": sampler,
        "steps": 3,
        **({} if SAMPLERS[sampler].eta is None else {"eta": 0}),
    }
    edited = run(model, edit("sampler/denoised", edits.zero, steps=[2]), **asked)
    plain = run(model, **asked)
    latents = (trace.sel("sampler/latent", step=2).values for trace in (edited, plain))
    np.testing.assert_array_equal(*latents)  # NaN where a step evaluates but once
    assert not same(edited, plain, "sampler/out")
    unchanged = run(model, edit("sampler/denoised", edits.scale, factor=1.0), **asked)
    assert same(unchanged, plain, "sampler/out")


def test_ddim_and_euler_stay_one_path_when_their_estimate_is_edited(model):
    half = edit("sampler/denoised", edits.scale, factor=0.5, steps=[1])
    ddim, euler = (
        run(model, half, sampler=s, steps=3, spacing="trailing")["sampler/out"].values
        for s in ("ddim", "euler")
    )
    np.testing.assert_allclose(ddim, euler, atol=1e-4 * ddim.std())


def test_an_edited_branch_counts_in_the_guidance(model, plain):
    edited = run(model, edit("sampler/noise_uncond", edits.replace, value=0.0), steps=1)
    cond = edited["sampler/noise_cond"].values
    np.testing.assert_array_equal(edited["sampler/noise"].values, np.float32(5) * cond)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_an_edited_latent_is_the_latent_the_sampler_goes_on_from(model, sampler):
    edited = run(model, edit("sampler/latent", edits.zero, steps=[1]), sampler=sampler, eta=0.0)
    assert not edited.sel("sampler/latent", step=1).values.any()
    latent = edited.sel("sampler/latent", step=1).values
    rest = run(model, sampler=sampler, eta=0.0, latent=latent, start_step=1)
    assert same(edited, rest, "sampler/out")


def test_the_noise_that_is_put_back_can_be_edited(model):
    edited = run(model, edit("sampler/added_noise", edits.zero), eta=0.5)
    assert not edited["sampler/added_noise"].values.any()
    assert not same(edited, run(model, eta=0.5), "sampler/out")


def test_an_edit_of_the_noise_that_is_put_back_is_told_the_steps_timestep(model):
    told = []

    def look(x, context):
        told.append((int(context.step), float(context.timestep)))
        return x

    trace = run(model, edit("sampler/added_noise", look), eta=0.5)
    assert told == list(zip(trace.steps, trace.timesteps, strict=True))


def test_a_function_of_ones_own_works_on_numpy_arrays(model, plain):
    told = []

    def flip(x, context):
        told.append((context.site, int(context.step), float(context.timestep)))
        return x[:, ::-1]

    edited = run(model, edit("sampler/noise", flip))
    noise = plain.sel("sampler/noise", step=0).values
    np.testing.assert_array_equal(edited.sel("sampler/noise", step=0).values, noise[:, ::-1])
    assert told == [("sampler/noise", k, t) for k, t in zip(range(3), plain.timesteps, strict=True)]


def test_an_edit_that_writes_into_its_array_changes_no_other(model):
    """NumPy invites to it, and what is recorded must not follow."""

    def blank(x, context):
        x *= 0
        return x

    start = normal(3, 8, 8, 4)
    trace = run(model, edit("sampler/latent", blank, steps=[0]), latent=start)
    assert not trace.sel("sampler/latent", step=0).values.any()
    np.testing.assert_array_equal(trace["sampler/start"].values[0], start)
    np.testing.assert_array_equal(start, normal(3, 8, 8, 4))


# --- what goes wrong -----------------------------------------------------------------------


def nan_at(x, context, *, at):
    return tf.where(context.step == at, np.float32("nan"), x)


def test_a_nan_ends_the_run_naming_site_and_step(model):
    with pytest.raises(EditError, match=f"the edit at {SKIP} at step 1 made a NaN") as raised:
        run(model, edit(SKIP, nan_at, at=1))
    trace = raised.value.trace
    assert (trace.status, trace.steps) == ("failed", [0])
    assert SKIP in trace.reason and "step 1" in trace.reason


@pytest.mark.parametrize(
    ("fn", "params", "message"),
    [
        (edits.scale_heads, {"heads": [0], "factor": 0.0}, "no head axis"),
        (edits.replace, {"value": np.zeros(3)}, "failed"),
        (edits.uniform, {}, "no attention weights"),
    ],
)
def test_what_cannot_be_done_between_steps_is_said_before_the_first(model, fn, params, message):
    with pytest.raises(EditError, match=f"sampler/noise .*{message}"):
        model.plan(PROMPT, steps=3, edit=edit("sampler/noise", fn, steps=[2], **params))


def test_a_nan_between_the_steps_names_site_and_step(model):
    with pytest.raises(EditError, match="the edit at sampler/noise at step 2 made a NaN") as raised:
        run(model, edit("sampler/noise", nan_at, at=2))
    assert raised.value.trace.steps == [0, 1]


@pytest.mark.parametrize("site", ["unet/conv_in/out", "text/embedding", "sampler/denoised"])
@pytest.mark.parametrize(
    ("fn", "returned"),
    [
        (lambda x, context: x[..., :1], r"shape \(1, .*1\) float32"),
        (lambda x, context: x > 0, r"shape \(1, .*\) bool"),
    ],
)
def test_another_shape_or_dtype_is_refused_by_name(model, site, fn, returned):
    with pytest.raises(
        EditError, match=f"the edit at {site} returned {returned}, but .* must come"
    ):
        run(model, edit(site, fn))


def test_the_step_of_a_wrong_shape_is_named_between_steps(model):
    with pytest.raises(EditError, match="sampler/noise .*step 1"):
        run(model, edit("sampler/noise", lambda x, context: x[:, :1], steps=[1]))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("unet/up.1/skip.9",), "'unet/up.1/skip.9' names no site .* nearest: .*unet/up.1/skip.1"),
        (("image",), "names .*image: results, not sites"),
        (("sampler/out",), "results, not sites"),
        (("decoder/mid/**",), "has steps, but decoder/mid/res.0/out runs only once"),
        (("encoder/out",), "does not run the encoder"),
    ],
)
def test_an_edit_of_what_cannot_be_edited_is_refused(model, asked, message):
    steps = [0] if asked[0].startswith("decoder") else None
    with pytest.raises(SiteError, match=message):
        run(model, edit(*asked, edits.zero, steps=steps))


@pytest.mark.parametrize(
    ("pattern", "asked", "run_with", "said"),
    [
        (SKIP, {"branch": "uncond"}, {"guidance": 1}, "is for branch 'uncond', which"),
        ("sampler/latent", {"branch": "cond"}, {}, "is for branch 'cond', which"),
        ("sampler/noise_cond", {"branch": "uncond"}, {}, "is for branch 'uncond', which"),
        ("decoder/out", {"branch": "cond"}, {}, "is for branch 'cond', which"),
        (SKIP, {"steps": [3, 4]}, {}, r"is on at steps \[3, 4\], and this run has"),
    ],
)
def test_an_edit_that_is_never_on_is_refused(model, pattern, asked, run_with, said):
    with pytest.raises(ValueError, match=said):
        run(model, edit(pattern, edits.scale, factor=0.0, **asked), **run_with)


@pytest.mark.parametrize("site", [SKIP, "sampler/noise"])
def test_a_whole_number_is_a_number(model, site):
    two = run(model, edit(site, edits.scale, factor=2), steps=1)
    assert same(two, run(model, edit(site, edits.scale, factor=2.0), steps=1), "sampler/out")


def test_two_and_two_point_nought_are_one_program(model):
    run(model, edit(SKIP, edits.scale, factor=2.0), steps=1)
    before = model.unet.traces
    run(model, edit(SKIP, edits.scale, factor=2), steps=1)
    run(model, edit(SKIP, edits.scale, factor=np.int64(3)), steps=1)
    assert model.unet.traces == before


@pytest.mark.parametrize("site", ["text/embedding", "sampler/noise"])
def test_an_edit_that_returns_nothing_is_refused_by_name(model, site):
    with pytest.raises(EditError, match=f"the edit '<lambda>' at {site} returned nothing"):
        run(model, edit(site, lambda x, context: None))


@pytest.mark.parametrize("site", ["text/embedding", "sampler/noise"])
def test_what_is_no_tensor_is_refused_by_name(model, site):
    with pytest.raises(EditError, match=f"the edit '<lambda>' at {site} failed"):
        run(model, edit(site, lambda x, context: [[1.0], [1.0, 2.0]]))


@pytest.mark.parametrize(
    ("site", "fn", "params", "said"),
    [
        ("text/layer.0/out", edits.swap_tokens, {"first": 1, "second": 20}, "token 20; .* 0 … 19"),
        ("text/layer.0/out", edits.scale_tokens, {"tokens": [3, 20], "factor": 0.0}, "token 3, 20"),
        (
            "text/layer.0/attention/value",
            edits.scale_heads,
            {"heads": [-1], "factor": 0.0},
            "head -1; there are 0 … 1",
        ),
        (VALUE, edits.scale_heads, {"heads": 2, "factor": 0.0}, "head 2; there are 0 … 1"),
    ],
)
def test_a_position_that_is_not_there_is_refused(model, site, fn, params, said):
    named = "unet/down.0/attn.0/cross/value" if site == VALUE else site
    with pytest.raises(EditError, match=f"'{fn.__name__}' at {named} names {said}"):
        model.plan(PROMPT, edit=edit(site, fn, **params))


def test_a_part_alone_refuses_a_position_that_is_not_there(model):
    ids = model.tokenizer.ids(PROMPT)[None]
    off = edit("text/layer.0/out", edits.scale_tokens, tokens=20, factor=0.0)
    with pytest.raises(EditError, match="at text/layer.0/out names token 20"):
        model.text.record("text/out", ids, edit=off)


def test_a_part_alone_is_edited(model):
    latent = normal(1, 1, 8, 8, 4)
    pixels, seen = model.decoder.record(
        "decoder/mid/res.1/out", latent, edit=[edit("decoder/mid/**", edits.zero)]
    )
    assert not seen["decoder/mid/res.1/out"].any()
    assert not np.array_equal(pixels, model.decoder(latent))


@pytest.mark.parametrize("asked", [{"branch": "cond"}, {"steps": [0]}, None])
def test_an_edit_of_a_part_alone_is_on_or_refused(model, asked):
    zero = edit("decoder/out", edits.zero, **(asked or {}))
    latent = normal(1, 1, 8, 8, 4)
    if asked:
        with pytest.raises(ValueError, match="the decoder alone has neither steps nor branches"):
            model.decoder.record("decoder/out", latent, edit=[zero])
    else:
        assert not model.decoder.record("decoder/out", latent, edit=zero)[0].any()


def test_the_public_name_is_the_same_module():
    assert xray.edits is edits and xray.edit is edit
