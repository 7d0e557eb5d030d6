"""A film's way: every stop is a frame to the bit, and what makes no walk is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xray.samplers import initial_noise
from xray.walks import order_of_stops, plan

PROMPTS = ["a red star", "a big green fish", "a blue moon"]
SHAPE = (8, 8, 4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    prompts=st.integers(1, 3),
    seeds=st.integers(1, 3),
    loop=st.booleans(),
    easing=st.sampled_from(["linear", "smooth"]),
    frames=st.integers(4, 40),
)
def test_each_stop_is_a_frame_with_its_prompt_and_its_seed(
    model, prompts, seeds, loop, easing, frames
):
    texts, numbers = PROMPTS[:prompts], list(range(5, 5 + seeds))
    if prompts == seeds == 1 or (prompts != seeds and 1 not in (prompts, seeds)):
        with pytest.raises(ValueError):
            plan(model, texts, numbers, frames=frames, loop=loop)
        return
    walk = plan(model, texts, numbers, frames=frames, loop=loop, easing=easing)
    count = max(prompts, seeds)
    assert len(walk) == frames and walk.closed == loop
    assert walk.stops[0] == 0 and walk.stops[-1] == frames - 1
    assert len(walk.stops) == count + loop
    assert np.ptp(np.diff(walk.stops)) <= 1  # legs are equally long, give or take a frame
    for stop, frame in enumerate(walk.stops):
        text = texts[stop % count if prompts > 1 else 0]
        seed = numbers[stop % count if seeds > 1 else 0]
        np.testing.assert_array_equal(walk.noise[frame], initial_noise(seed, SHAPE))
        np.testing.assert_array_equal(walk.context(frame), model.embed(text).values[0])
        assert walk.caption(frame) == (text, 1.0)


def test_noise_keeps_its_norm_on_the_way_and_embeddings_go_straight(model):
    walk = plan(model, PROMPTS[:2], [1, 2], frames=21)
    norms = np.linalg.norm(walk.noise.reshape(21, -1), axis=1)
    np.testing.assert_allclose(norms, np.linspace(norms[0], norms[-1], 21), rtol=1e-5)
    first, last = (model.embed(p).values[0] for p in PROMPTS[:2])
    np.testing.assert_allclose(walk.context(5), 0.75 * first + 0.25 * last, atol=1e-5)
    np.testing.assert_allclose(walk.shares.sum(axis=1), 1, atol=1e-6)


def test_a_circle_closes_to_the_bit_also_in_its_prompts(model):
    walk = plan(model, PROMPTS, [7], frames=31, noise="circle")
    assert walk.closed
    np.testing.assert_array_equal(walk.noise[0], initial_noise(7, SHAPE))
    np.testing.assert_array_equal(walk.noise[-1], walk.noise[0])
    np.testing.assert_array_equal(walk.context(30), walk.context(0))
    assert walk.stops == [0, 10, 20, 30]


def test_a_circle_through_two_seeds_lies_in_their_plane(model):
    walk = plan(model, PROMPTS[:1], [7, 8], frames=13, noise="circle")
    a, b = (initial_noise(seed, SHAPE).ravel() for seed in (7, 8))
    plane, _ = np.linalg.qr(np.stack([a, b], axis=1).astype(np.float64))
    points = walk.noise.reshape(13, -1)
    np.testing.assert_allclose(points @ plane @ plane.T, points, atol=1e-4)


def test_a_random_walk_starts_at_its_seed_and_stays_with_one_prompt(model):
    walk = plan(model, PROMPTS[:1], [7], frames=9, noise="random", angle=20)
    np.testing.assert_array_equal(walk.noise[0], initial_noise(7, SHAPE))
    assert (walk.stops, walk.closed) == ([0], False)
    assert all(walk.caption(frame) == (PROMPTS[0], 1.0) for frame in range(9))


def test_size_is_that_of_the_latent(model):
    walk = plan(model, PROMPTS[:2], [1], frames=3, width=128, height=64)
    assert walk.noise.shape == (3, 8, 16, 4)


def test_smooth_rests_at_the_stops(model):
    walk = plan(model, PROMPTS[:2], [1], frames=41, easing="smooth")
    steps = np.diff(walk.shares[:, 1])
    assert steps[0] < 0.2 * steps[20] and steps[-1] < 0.2 * steps[20]


@pytest.mark.parametrize(
    ("prompts", "seeds", "choices", "said"),
    [
        (["a"], [1], {}, "one prompt and one seed are no walk"),
        (["a"], [1], {"loop": True}, "one prompt and one seed are no walk"),
        (["a", "b"], [1, 2, 3], {}, "2 prompts and 3 seeds make no stops"),
        (["a"], [1, 2, 3], {"noise": "circle"}, "at most 2 seeds, got 3"),
        (["a"], [4, 4], {"noise": "circle"}, "two seeds' noise needs two, got 4 twice"),
        (["a"], [1, 2], {"noise": "random"}, "at most 1 seeds, got 2"),
        (["a"], [1], {"noise": "random", "loop": True}, "does not come back"),
        (["a"], [1], {"noise": "spiral"}, "not one of seeds, circle, random"),
        (["a", " "], [1], {}, "a prompt is empty"),
        ([], [1], {}, "a prompt and a seed at least"),
        (["a"], [], {}, "a prompt and a seed at least"),
        (["a", "b", "c"], [1], {"frames": 2}, "at least 3 frames, got 2"),
        (["a", "b", "c"], [1], {"frames": 3, "loop": True}, "at least 4 frames, got 3"),
        (["a"], [1], {"noise": "circle", "frames": 2}, "at least 3 frames, got 2"),
    ],
)
def test_what_makes_no_walk_is_refused_with_the_reason(prompts, seeds, choices, said):
    asked = {"frames": 9, "noise": "seeds", "loop": False} | choices
    with pytest.raises(ValueError, match=said):
        order_of_stops(prompts, seeds, **asked)
