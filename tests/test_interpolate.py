"""Ways between tensors: where they begin and end, how long they are, what they pass through."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from xray.interpolate import EASINGS, lerp, slerp, stop_frames, walk
from xray.stats import bit_equal

shapes = hnp.array_shapes(max_dims=3, max_side=5)
numbers = st.floats(-100, 100, width=32)
pairs = shapes.flatmap(lambda s: st.tuples(*[hnp.arrays(np.float32, s, elements=numbers)] * 2))
portions = st.floats(0, 1)
ways = st.sampled_from([lerp, slerp])


def norm(x):
    return np.linalg.norm(np.asarray(x, np.float64))


def noise(seed, shape=(16, 16, 4)):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def between(low, value, high):
    """Within rounding to float32."""
    slack = 1e-6 * max(abs(low), abs(high))
    return low - slack <= value <= high + slack


# --- one step of the way -------------------------------------------------------------------


@given(ways, pairs)
def test_both_ends_are_exact_to_the_bit_and_copies(way, pair):
    for t, end in zip((0, 1), pair, strict=True):
        made = way(*pair, t)
        assert bit_equal(made, end) and not np.shares_memory(made, end)


@given(ways, pairs, portions)
def test_points_are_finite_float32_of_the_same_shape(way, pair, t):
    made = way(*pair, t)
    assert made.shape == pair[0].shape and made.dtype == np.float32
    assert np.isfinite(made).all()


@given(pairs, portions)
def test_lerp_is_the_weighted_mean(pair, t):
    a, b = (x.astype(np.float64) for x in pair)
    np.testing.assert_allclose(lerp(*pair, t), a + t * (b - a), rtol=1e-6, atol=1e-5)


@given(pairs, portions)
def test_along_slerp_the_norm_goes_evenly_from_one_to_the_other(pair, t):
    a, b = pair
    # Opposite numbers have no circle to go along: the line through 0 is all there is.
    assume(a.size > 1 and norm(a) > 1e-3 and norm(b) > 1e-3)
    assert norm(slerp(a, b, t)) == pytest.approx((1 - t) * norm(a) + t * norm(b), rel=1e-5)


@given(pairs, portions)
def test_slerp_divides_the_angle_as_it_divides_the_time(pair, t):
    a, b = (x.ravel() for x in pair)
    assume(norm(a) > 1 and norm(b) > 1)
    cosine = a.astype(np.float64) @ b / norm(a) / norm(b)
    assume(abs(cosine) < 0.999)  # else rounding to float32 hides the angle
    made = slerp(a, b, t).astype(np.float64)
    angle = np.arccos(np.clip(a @ made / norm(a) / norm(made), -1, 1))
    assert angle == pytest.approx(t * np.arccos(cosine), abs=2e-3)


@given(ways, pairs, portions)
def test_there_and_back_is_the_same_way(way, pair, t):
    a, b = pair
    np.testing.assert_allclose(way(a, b, t), way(b, a, 1 - t), rtol=1e-4, atol=2e-3)


def test_noise_keeps_its_norm_along_slerp_and_loses_it_along_lerp():
    a, b = noise(1), noise(2)
    assert norm(slerp(a, b, 0.5)) == pytest.approx((norm(a) + norm(b)) / 2, rel=1e-6)
    assert norm(lerp(a, b, 0.5)) == pytest.approx(norm(a) / np.sqrt(2), rel=0.05)


def test_a_quarter_of_a_right_angle():
    made = slerp([1, 0, 0], [0, 2, 0], 0.25)
    expected = 1.25 * np.array([np.cos(np.pi / 8), np.sin(np.pi / 8), 0])
    np.testing.assert_allclose(made, expected, rtol=1e-6, atol=1e-7)


@given(hnp.arrays(np.float32, shapes, elements=numbers), portions, st.floats(0.125, 8, width=32))
def test_between_vectors_of_one_direction_there_is_the_straight_line(a, t, factor):
    b = (a * np.float32(factor)).astype(np.float32)
    np.testing.assert_allclose(slerp(a, b, t), lerp(a, b, t), rtol=1e-4, atol=1e-4)
    for way in (lerp, slerp):
        assert bit_equal(way(a, a, t), a)


@given(hnp.arrays(np.float32, shapes, elements=numbers), st.floats(0.1, 0.9))
def test_opposite_vectors_are_joined_by_half_a_circle_always_the_same(a, t):
    assume(a.size > 1 and norm(a) > 1e-2)
    made = slerp(a, -a, t)
    assert bit_equal(made, slerp(a, -a, t))
    assert norm(made) == pytest.approx(norm(a), rel=1e-5)
    assert a.ravel().astype(np.float64) @ made.ravel() == pytest.approx(
        np.cos(t * np.pi) * norm(a) ** 2, rel=1e-4, abs=1e-5 * norm(a) ** 2
    )


def test_opposite_numbers_and_zeros_have_the_straight_line():
    assert slerp(np.float32(2), np.float32(-2), 0.25) == 1
    np.testing.assert_array_equal(slerp([2], [-2], 0.75), [-1])
    np.testing.assert_array_equal(slerp([0, 0], [0, 4], 0.25), [0, 1])
    np.testing.assert_array_equal(slerp([0, 0], [0, 0], 0.25), [0, 0])


def test_nearly_opposite_vectors_stay_on_the_circle():
    a = noise(3)
    b = -a
    b[0, 0, 0] += np.float32(1e-3)
    for t in (0.25, 0.5, 0.75):
        assert norm(slerp(a, b, t)) == pytest.approx(norm(a), rel=1e-5)


@pytest.mark.parametrize("way", [lerp, slerp])
def test_what_has_no_way_between_is_refused(way):
    with pytest.raises(ValueError, match=r"\(2,\) to shape \(3,\)"):
        way([1, 2], [1, 2, 3], 0.5)
    for t in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"t is 0 … 1, got {t}"):
            way([1, 2], [2, 1], t)


# --- walks ---------------------------------------------------------------------------------

walks = st.tuples(
    st.integers(2, 5), st.integers(0, 30), st.booleans(), ways, st.sampled_from(list(EASINGS))
)


def made(count, more, loop, way, easing):
    """The stops and a walk with `more` frames than it needs at least."""
    stops = [noise(seed, (3, 2)) for seed in range(count)]
    frames = count + loop + more
    return stops, walk(stops, frames, between=way, loop=loop, easing=easing)


@given(walks)
def test_a_walk_has_the_frames_asked_for(asked):
    stops, frames = made(*asked)
    assert frames.shape == (asked[0] + asked[2] + asked[1], 3, 2) and frames.dtype == np.float32
    assert np.isfinite(frames).all()


@given(walks)
def test_every_stop_is_a_frame_to_the_bit_and_in_order(asked):
    stops, frames = made(*asked)
    at = [[k for k, frame in enumerate(frames) if bit_equal(frame, stop)] for stop in stops]
    assert all(at) and at[0][0] == 0
    firsts = [places[0] for places in at]
    assert firsts == sorted(firsts)
    last = stops[0] if asked[2] else stops[-1]
    assert bit_equal(frames[-1], last)


@given(walks)
def test_legs_have_the_same_number_of_frames_give_or_take_one(asked):
    stops, frames = made(*asked)
    at = [k for k, frame in enumerate(frames) if any(bit_equal(frame, s) for s in stops)]
    legs = np.diff(at)
    assert len(legs) == len(stops) - 1 + asked[2] and legs.max() - legs.min() <= 1


@given(st.integers(2, 5), st.integers(0, 20), ways)
def test_a_loop_ends_where_it_began_to_the_bit(count, more, way):
    _, frames = made(count, more, True, way, "linear")
    assert bit_equal(frames[0], frames[-1])


def test_a_straight_walk_has_even_steps():
    frames = walk([[0.0], [3.0], [6.0]], 7, between=lerp)
    np.testing.assert_allclose(frames[:, 0], range(7), rtol=1e-6)


def test_a_smooth_walk_slows_down_at_each_stop():
    frames = walk([[0.0], [1.0], [2.0]], 21, between=lerp, easing="smooth")[:, 0]
    np.testing.assert_allclose(frames[:11], [3 * t**2 - 2 * t**3 for t in np.linspace(0, 1, 11)])
    steps = np.diff(frames)
    assert steps[[0, 9, 10, 19]].max() < 0.03 < 0.14 < steps[[4, 5, 14, 15]].min()


@given(portions, portions)
def test_easings_go_forward_from_0_to_1(early, late):
    for ease in EASINGS.values():
        assert (ease(np.float64(0)), ease(np.float64(1))) == (0, 1)
        low, high = (ease(np.float64(t)) for t in sorted((early, late)))
        assert between(0, low, high) and between(low, high, 1)


def test_equal_stops_are_a_walk_that_stands_still():
    a = noise(5)
    assert all(bit_equal(frame, a) for frame in walk([a, a], 5))


def test_walks_that_cannot_be_walked_are_refused():
    a = [1.0, 2.0]
    with pytest.raises(ValueError, match="at least two stops, got 1"):
        walk([a], 10)
    with pytest.raises(ValueError, match="3 stops need at least as many frames, got 2"):
        walk([a, a], 2, loop=True)
    with pytest.raises(ValueError, match="'bouncy' is not one of linear, smooth"):
        walk([a, a], 5, easing="bouncy")
    with pytest.raises(ValueError, match=r"shape \(2,\) to shape \(3,\)"):
        walk([a, a, [1, 2, 3]], 10)


@given(st.integers(1, 9), st.integers(0, 60))
def test_stops_stand_equally_far_apart_from_the_first_frame_to_the_last(stops, more):
    frames = stops + more
    at = stop_frames(stops, frames)
    assert len(at) == stops and at[0] == 0
    if stops > 1:
        assert at[-1] == frames - 1
        legs = np.diff(at)
        assert legs.min() >= 1 and np.ptp(legs) <= 1
        walked = walk(np.arange(stops), frames, between=lerp)
        np.testing.assert_array_equal(walked[at], np.arange(stops))
