"""Sites can be guessed and globbed; taps see the tensor in its place and change no other."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import xray
from xray import taps
from xray.plan import ONCE, SAMPLER_SITES
from xray.taps import EditError, Tap, dims, edit, matches, nearest, observe, reaches

CROSS = "unet/down.0/attn.0/cross/weights"

parts = st.text("ab.1", min_size=1, max_size=4)
globs = st.one_of(st.just("**"), st.text("ab.1*?", min_size=1, max_size=4))
names = st.lists(parts, min_size=1, max_size=4).map("/".join)
patterns = st.lists(globs, min_size=1, max_size=4).map("/".join)


@st.composite
def names_and_patterns(draw):
    """A name, and a pattern that often matches it: itself with some of its letters hidden."""
    site = draw(names)
    hidden = draw(st.lists(st.sampled_from("===*?a/"), min_size=len(site), max_size=len(site)))
    alike = "".join(c if h == "=" else h for c, h in zip(site, hidden, strict=True))
    return site, draw(st.sampled_from([alike, f"**/{alike}", f"{alike}/**"]) | patterns)


@pytest.fixture(scope="module")
def sites(model):
    """Every site of every network, with the shape of one image's tensor."""
    latent = np.zeros((1, 8, 16, 4), np.float32)
    ids = np.zeros((1, 20), np.int32)
    inputs = {
        "text": [ids],
        "unet": [latent, np.zeros((1, 8), np.float32), np.zeros((1, 20, 16), np.float32)],
        "encoder": [np.zeros((1, 64, 128, 3), np.float32)],
        "decoder": [latent],
    }
    found = {}
    for name, part in model.parts.items():
        found |= part.program(inputs[name]).sites
    return found


# --- grammar -------------------------------------------------------------------------------


def slow_match(pattern: list[str], site: list[str]) -> bool:
    """The grammar as one would say it, part by part."""
    if not pattern:
        return not site
    if pattern[0] == "**":
        return any(slow_match(pattern[1:], site[n:]) for n in range(len(site) + 1))
    return bool(site) and slow_glob(pattern[0], site[0]) and slow_match(pattern[1:], site[1:])


def slow_glob(pattern: str, part: str) -> bool:
    if not pattern:
        return not part
    if pattern[0] == "*":
        return any(slow_glob(pattern[1:], part[n:]) for n in range(len(part) + 1))
    return bool(part) and pattern[0] in ("?", part[0]) and slow_glob(pattern[1:], part[1:])


@settings(max_examples=500)
@given(names_and_patterns())
def test_matching_is_the_slow_matchers(case):
    site, pattern = case
    assert matches(pattern, site) == slow_match(pattern.split("/"), site.split("/"))


@given(names)
def test_a_name_matches_itself_and_two_stars_match_all(site):
    assert matches(site, site) and matches("**", site)
    assert not matches(site, site + "/more") and not matches(site + "/more", site)


@pytest.mark.parametrize(
    ("pattern", "site", "expected"),
    [
        ("unet/**/cross/weights", "unet/mid/attn.0/cross/weights", True),
        ("unet/**/cross/weights", "unet/cross/weights", True),
        ("unet/*", "unet/mid/attn.0/out", False),
        ("unet/*/*/out", "unet/mid/attn.0/out", True),
        ("unet/up.?/skip.*", "unet/up.1/skip.0", True),
        ("unet/up.?/skip.*", "unet/up.10/skip.0", False),
        # A dot is a dot, and nothing crosses a slash but two stars.
        ("unet/up.1/out", "unet/upx1/out", False),
        ("unet?out", "unet/out", False),
        ("unet*out", "unet/out", False),
        ("UNET/out", "unet/out", False),
        ("", "unet/out", False),
    ],
)
def test_known_patterns(pattern, site, expected):
    assert matches(pattern, site) is expected


@given(names_and_patterns())
def test_what_matches_a_site_reaches_its_network(case):
    site, pattern = case
    if matches(pattern, site):
        assert reaches(pattern, site.split("/")[0])


def test_a_pattern_of_one_network_does_not_reach_another():
    assert not reaches("unet/**", "text") and not reaches("sampler/*", "unet")
    assert reaches("*/out", "text") and reaches("**/weights", "decoder")


def test_unmatched_patterns_are_those_without_a_site():
    assert taps.unmatched(["a/*", "b/*", "**/x"], ["a/x", "c"]) == ["b/*"]


# --- names ---------------------------------------------------------------------------------


def test_no_site_is_a_prefix_of_another(sites):
    """Each is an array in a store of its own, where a folder cannot be an array too."""
    every = [*sites, *SAMPLER_SITES, *ONCE]
    assert len(set(every)) == len(every)
    for name in every:
        assert not [s for s in every if s.startswith(name + "/")], name


def test_every_attention_transformer_and_block_has_its_sites(sites):
    for name in sites:
        path, _, last = name.rpartition("/")
        if last == "query":
            for part in ("key", "value", "weights", "out"):
                assert f"{path}/{part}" in sites
        if path.endswith("/cross"):
            block = path.removesuffix("/cross")
            for part in ("self/weights", "cross/weights", "ff/out", "out"):
                assert f"{block}/{part}" in sites
    res = {s.rpartition("/")[0] for s in sites if "/res." in s}
    assert all(f"{r}/out" in sites for r in res)
    assert all((f"{r}/time" in sites) == r.startswith("unet/") for r in res)


def test_names_the_design_promises(sites):
    promised = """text/embedding text/layer.1/attention/weights text/layer.1/out text/out unet/time
    unet/down.0/res.0/out unet/down.0/attn.0/self/weights unet/mid/attn.0/cross/query
    unet/up.3/attn.1/cross/weights unet/up.1/skip.0 unet/out encoder/down.1/res.0/out
    encoder/out decoder/up.2/res.0/out decoder/out"""
    assert not [name for name in promised.split() if name not in sites]


def test_dims_name_every_axis_of_every_site(sites):
    grid = {"y": 8, "x": 16}
    for name, shape in sites.items():
        named = dict(zip(dims(name), shape, strict=True))
        assert len(named) == len(shape), f"{name} names an axis twice"
        # A picture of 64 × 128 stays twice as wide as high at every level.
        assert named.get("x") == (2 * named["y"] if "y" in named else None), name
        assert named.get("key_x") == (2 * named["key_y"] if "key_y" in named else None), name
        assert named.get("token", 20) == named.get("key_token", 20) == 20
        heads = 1 if name.startswith(("encoder", "decoder")) else 2
        assert named.get("head", heads) == heads, name
        if name.endswith("/self/weights"):
            assert (named["y"], named["x"]) == (named["key_y"], named["key_x"])
        if name.startswith("unet/down.0/attn.0") and "y" in named:
            assert {k: named[k] for k in grid} == grid
    assert set(dims("sampler/latent")) == {"y", "x", "channel"}
    assert dims("unet/time") == ("channel",)


@given(st.data())
def test_a_slip_of_the_pen_finds_the_site_that_was_meant(sites, data):
    site = data.draw(st.sampled_from(sorted(sites)))
    at = data.draw(st.integers(0, len(site) - 1).filter(lambda n: site[n].isalpha()))
    kind = data.draw(st.sampled_from(["dropped", "doubled", "swapped"]))
    slip = {
        "dropped": site[:at] + site[at + 1 :],
        "doubled": site[: at + 1] + site[at:],
        "swapped": site[:at] + site[at : at + 2][::-1] + site[at + 2 :],
    }[kind]
    assert site in nearest(slip, sites)


def test_what_resembles_nothing_still_gets_an_answer(sites):
    assert nearest("zzzz", sites) == list(sites)[:4]
    assert nearest("anything", []) == []


# --- observe -------------------------------------------------------------------------------


def test_a_string_is_an_observation_of_all():
    assert taps.as_observations("unet/**") == [observe("unet/**")]
    mixed = ["a", observe("b", mean="head")]
    assert taps.as_observations(iter(mixed)) == [observe("a"), observe("b", mean="head")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": "heads"}, "no axis is named 'heads'; axes: .*head"),
        ({"mean": ("head", "step")}, "no axis is named 'step'"),
        ({"dtype": "float64"}, "'float64' is not 'float16' or 'float32'"),
    ],
)
def test_what_cannot_be_observed_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        observe(CROSS, **arguments)


def test_a_site_is_asked_for_by_its_name():
    with pytest.raises(TypeError, match="observe: a site's name is text, got 3"):
        observe(3)
    with pytest.raises(TypeError, match="edit: a site's name is text, got 3"):
        edit(3, keep)


def test_weights_are_recorded_in_half_precision_unless_asked():
    assert observe("**").record_dtype(CROSS) == "float16"
    assert observe("**").record_dtype("unet/out") == "float32"
    assert observe("**", dtype="float32").record_dtype(CROSS) == "float32"


weights = np.random.default_rng(0).random((2, 3, 2, 4, 5, 20)).astype(np.float32)
axes = st.lists(st.sampled_from(["head", "y", "x", "token"]), unique=True)
positions = st.none() | st.lists(st.integers(0, 19), min_size=1, max_size=5)


@given(axes, positions, st.sampled_from(["float16", "float32"]))
def test_a_reduction_in_the_graph_is_the_reduction_of_the_whole(mean, tokens, dtype):
    asked = observe("unet/**", mean=mean, tokens=tokens, dtype=dtype)
    tap = Tap([asked], branches=("uncond", "cond"))
    flat = tf.constant(weights.reshape(6, 2, 4, 5, 20))
    assert tap(CROSS, flat) is not None
    seen = tap.observed[CROSS].numpy()

    whole = xray.DebugTensor(weights, dims=("branch", "image", *dims(CROSS)))
    expected = whole.values if tokens is None else whole.values[..., tokens]
    expected = expected.mean(tuple(whole.dims.index(d) for d in mean))
    assert seen.dtype == dtype
    assert len(asked.reduced_dims(CROSS)) == seen.ndim - 2
    np.testing.assert_allclose(seen, expected, atol=1e-3 if dtype == "float16" else 1e-6)


def test_a_reduction_over_an_axis_that_is_not_there_leaves_the_site_whole():
    tap = Tap([observe("**", mean="head", tokens=[1])])
    x = tf.random.stateless_normal((2, 4, 5, 3), [0, 0])
    tap("unet/out", x)
    np.testing.assert_array_equal(tap.observed["unet/out"], x)


def test_the_first_observation_that_matches_counts():
    tap = Tap([observe(CROSS, mean="head"), observe("**")])
    tap(CROSS, tf.zeros((1, 2, 4, 5, 20)))
    tap("unet/out", tf.zeros((1, 4, 5, 4)))
    assert tap.observed[CROSS].shape == (1, 4, 5, 20)
    assert tap.observed["unet/out"].shape == (1, 4, 5, 4)


# --- edit: what may be asked ---------------------------------------------------------------


def keep(x, context):
    return x


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "fn must be a function, got 3", {"fn": 3}),
        (TypeError, "keep cannot be called so: .*'factor'", {"fn": keep, "factor": 1.0}),
        (TypeError, "scale cannot be called so: missing .*'factor'", {"fn": xray.edits.scale}),
        (ValueError, "branch 'both' is not 'cond' or 'uncond'", {"fn": keep, "branch": "both"}),
        (ValueError, "steps count from 0, got -1", {"fn": keep, "steps": [0, -1]}),
        (ValueError, "factor holds NaN", {"fn": xray.edits.scale, "factor": float("nan")}),
        (ValueError, "factor holds NaN", {"fn": xray.edits.scale, "factor": [1.0, np.inf]}),
        (ValueError, "factor holds NaN", {"fn": xray.edits.scale, "factor": 1e39}),
        (
            ValueError,
            "heads does not fit",
            {"fn": xray.edits.scale_heads, "heads": 2**40, "factor": 0.0},
        ),
        (TypeError, "neither number, array nor text", {"fn": xray.edits.scale, "factor": 1j}),
        (TypeError, "neither number, array nor text", {"fn": xray.edits.scale, "factor": ["a"]}),
    ],
)
def test_an_edit_that_cannot_be_is_refused_where_it_is_written(error, message, arguments):
    with pytest.raises(error, match=message):
        edit("unet/out", **arguments)


@pytest.mark.parametrize("steps", [5, [0.5], ["1"], [True]])
def test_steps_that_are_no_list_of_steps_are_refused(steps):
    with pytest.raises((TypeError, ValueError), match="steps"):
        edit("unet/out", keep, steps=steps)


@pytest.mark.parametrize("tokens", [3, [1.5], "star", []])
def test_tokens_that_are_no_positions_are_refused(tokens):
    with pytest.raises((TypeError, ValueError), match="observe: tokens"):
        observe(CROSS, tokens=tokens)


def test_numbers_are_inputs_and_all_else_is_part_of_the_program():
    def fn(x, context, *, amount: float, where, mode, hard, extra):
        return x

    asked = edit("a", fn, amount=0.5, where=[1, 2], mode="soft", hard=True, extra=None)
    assert asked.static == {"mode": "soft", "hard": True, "extra": None}
    assert {k: (v.dtype, v.shape) for k, v in asked.inputs.items()} == {
        "amount": (np.float32, ()),
        "where": (np.int32, (2,)),
    }
    other = edit("a", fn, amount=9, where=[3, 4], mode="soft", hard=True, extra=None, steps=[1])
    assert asked.signature == other.signature
    harder = edit("a", fn, amount=0.5, where=[1, 2], mode="hard", hard=True, extra=None)
    longer = edit("a", fn, amount=0.5, where=[1], mode="soft", hard=True, extra=None)
    assert len({asked.signature, harder.signature, longer.signature}) == 3


@pytest.mark.parametrize(
    ("steps", "branch", "step", "expected"),
    [
        (None, None, 7, [True, True]),
        (None, "cond", 7, [False, True]),
        (None, "uncond", 7, [True, False]),
        (range(3), None, 2, [True, True]),
        (range(3), None, 3, [False, False]),
        ([1, 4], "cond", 4, [False, True]),
    ],
)
def test_an_edit_is_on_at_its_steps_and_branch(steps, branch, step, expected):
    asked = edit("a", keep, steps=steps, branch=branch)
    assert asked.active(step, ("uncond", "cond")).tolist() == expected


# --- edit: in its place --------------------------------------------------------------------


def tap_of(*edits, active=None, **kwargs):
    branches = kwargs.setdefault("branches", ("uncond", "cond"))
    kwargs.setdefault("step", tf.constant(3))
    on = [e.active(3, branches) if active is None else np.array(active) for e in edits]
    inputs = [(tf.constant(a), e.inputs) for a, e in zip(on, edits, strict=True)]
    return Tap([observe("**")], edits, inputs=inputs, **kwargs)


def add(x, context, *, amount):
    return x + amount


def times(x, context, *, factor):
    return x * factor


X = tf.reshape(tf.range(2 * 4 * 5 * 4, dtype=tf.float32), (2, 4, 5, 4))


def test_edits_apply_in_the_order_given():
    tap = tap_of(edit("unet/out", add, amount=1.0), edit("unet/**", times, factor=2.0))
    np.testing.assert_array_equal(tap("unet/out", X), (X + 1) * 2)
    tap = tap_of(edit("unet/**", times, factor=2.0), edit("unet/out", add, amount=1.0))
    np.testing.assert_array_equal(tap("unet/out", X), X * 2 + 1)


def test_what_is_observed_is_what_the_edit_left():
    tap = tap_of(edit("unet/out", add, amount=1.0))
    out = tap("unet/out", X)
    np.testing.assert_array_equal(tap.observed["unet/out"].numpy().reshape(2, 4, 5, 4), out)


def test_an_edit_of_one_branch_leaves_the_other_to_the_bit():
    tap = tap_of(edit("unet/out", add, amount=1.0, branch="cond"))
    uncond, cond = tf.split(tap("unet/out", X), 2)
    np.testing.assert_array_equal(uncond, X[:1])
    np.testing.assert_array_equal(cond, X[1:] + 1)


@pytest.mark.parametrize(
    ("asked", "times_run"),
    [([], 1), ([edit("unet/up.0/**", add, amount=1.0)], 1), ([edit("unet/out", keep)], 2)],
)
def test_what_branches_share_runs_once_unless_it_is_edited(asked, times_run):
    tap, runs = tap_of(*asked), []

    def run(tap):
        runs.append(tap.branches)
        return tap("unet/out", X[:1]), X[1:]

    out, rest = tap.same_for_branches(run)
    assert runs == [("uncond",), ("cond",)][:times_run]
    np.testing.assert_array_equal(out, tf.concat([X[:1]] * 2, 0))
    np.testing.assert_array_equal(rest, tf.concat([X[1:]] * 2, 0))
    assert tap.visited == {"unet/out": X.shape[1:]}
    np.testing.assert_array_equal(tap.observed["unet/out"], tf.stack([X[:1]] * 2))


def test_a_nan_in_one_branch_of_what_they_share_is_noticed():
    for factor, broken in [(2.0, False), (0.0, True)]:
        tap = tap_of(edit("unet/out", times, factor=factor, branch="cond"))
        tap.same_for_branches(lambda tap: tap("unet/out", tf.where(X[:1] > 3, X[:1], np.inf)))
        assert {site: bool(flag) for site, flag in tap.broken.items()} == {"unet/out": broken}


def test_an_edit_that_is_off_is_not_there_even_if_it_breaks():
    tap = tap_of(edit("unet/out", times, factor=0.0), active=[False, False])
    out = tap("unet/out", tf.where(X > 3, X, np.inf))  # times 0 is NaN
    np.testing.assert_array_equal(out, tf.where(X > 3, X, np.inf))
    assert not tap.broken["unet/out"]


def test_a_nan_is_noticed_where_it_is_made():
    tap = tap_of(edit("unet/out", times, factor=0.0))
    tap("unet/time", tf.zeros((2, 4)))
    tap("unet/out", tf.where(X > 3, X, np.inf))
    assert {site: bool(flag) for site, flag in tap.broken.items()} == {"unet/out": True}


def test_an_edit_is_told_where_it_is():
    told = []

    def look(x, context):
        told.append((context, x.shape))
        return x

    tokens = {"cond": (("a", "star"),), "uncond": (("", ""),)}
    tap = tap_of(edit("unet/*", look), tokens=tokens, timestep=tf.constant(501.0))
    tap("unet/out", X)
    (first, shape), (second, _) = told
    assert shape == (1, 4, 5, 4)
    assert (first.site, first.branch, first.tokens) == ("unet/out", "uncond", (("", ""),))
    assert (second.branch, second.tokens) == ("cond", (("a", "star"),))
    assert int(second.step) == 3 and float(second.timestep) == 501.0


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x, context: x[..., :1], r"unet/out returned shape \(1, 4, 5, 1\) float32, but"),
        (lambda x, context: x[0], r"returned shape \(4, 5, 4\)"),
        (lambda x, context: tf.cast(x, tf.float16), r"float16, but \(1, 4, 5, 4\) float32 must"),
        (lambda x, context: 0.0, r"returned shape \(\)"),
    ],
)
def test_another_shape_or_dtype_is_an_error_that_names_the_site(fn, message):
    with pytest.raises(EditError, match=message):
        tap_of(edit("unet/out", fn))("unet/out", X)


def test_the_fence_stands_at_every_site_asked_for_or_not():
    fenced = []
    fence = lambda x: fenced.append(1) or x  # noqa: E731
    tap = Tap([observe("a")], fence=fence)
    tap("a", X)
    tap("b", X)
    assert len(fenced) == 2 and set(tap.visited) == {"a", "b"} and set(tap.observed) == {"a"}


def test_wanted_is_what_is_observed_or_edited():
    tap = tap_of(edit("unet/**/cross/weights", keep))
    tap.observations = [observe("text/**")]
    assert tap.wants(CROSS) and tap.wants("text/layer.0/attention/weights")
    assert not tap.wants("decoder/mid/attn.0/weights")
    tap.passes("decoder/mid/attn.0/weights", (1, 8, 8, 8, 8))
    assert tap.visited == {"decoder/mid/attn.0/weights": (1, 8, 8, 8, 8)} and not tap.observed
