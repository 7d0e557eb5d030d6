"""What captions say, as the questions that the text encoder is taught with."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.miniature import meaning as module
from xray.miniature.meaning import ANSWERS, ASKED, QUESTIONS, meaning
from xray.miniature.scenes import scene
from xray.miniature.scoring import ATTRIBUTES


@pytest.mark.parametrize(
    "seed, caption, said",
    [
        (20, "a small red house", {0: ["house", "red", "small"]}),
        (
            39,
            "purple cross to the right of black mushroom",
            {
                0: ["cross", "purple"],
                1: ["mushroom", "black"],
                "left of": ["mushroom", "black"],
                "right of": ["cross", "purple"],
            },
        ),
        (  # the moon comes first in the caption, and it is the ring that is above
            63,
            "above a little orange moon is a blue ring",
            {
                0: ["moon", "orange", "small"],
                1: ["ring", "blue"],
                "above": ["ring", "blue"],
                "below": ["moon", "orange", "small"],
            },
        ),
        (
            5_000_000_008,
            "within a large black circle is a small yellow ring",
            {
                0: ["circle", "black", "large"],
                1: ["ring", "yellow", "small"],
                "inside": ["ring", "yellow", "small"],
                "around": ["circle", "black", "large"],
            },
        ),
        (
            5_000_000_009,
            "two small triangles",
            {0: ["triangle", "small"], 1: ["triangle", "small"]},
        ),
    ],
)
def test_what_a_caption_says(seed, caption, said):
    assert scene(seed).caption == caption
    answers = zip(QUESTIONS, meaning(scene(seed)), strict=True)
    found = [options[a - 1] if a else None for options, a in answers]
    by_thing = {
        asked: [v for v in found[k * len(ATTRIBUTES) :][: len(ATTRIBUTES)] if v is not None]
        for k, asked in enumerate(ASKED)
    }
    assert {asked: values for asked, values in by_thing.items() if values} == said
    assert found[-1] is None  # none of them has a background


@given(st.integers(0, 10**9))
def test_everything_that_is_stated_is_an_answer_and_nothing_else(seed):
    s = scene(seed)
    answers = meaning(s)
    assert all(0 <= a < n for a, n in zip(answers, ANSWERS, strict=True))
    of_things = {(w.role, k) for w in s.words if w.role in ATTRIBUTES for k in w.objects}
    placed = {k for w in s.words if w.role == "relation" for k in w.objects}
    background = any(w.role == "background" for w in s.words)
    again = {(role, k) for role, k in of_things if k in placed}  # by its place, too
    assert np.count_nonzero(answers) == len(of_things) + len(again) + background


def test_its_example_runs():
    assert doctest.testmod(module) == (0, 2)
