"""What captions say, as the questions that the text encoder is taught with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.miniature.meaning import ANSWERS, QUESTIONS, meaning
from xray.miniature.scenes import scene


@pytest.mark.parametrize(
    "seed, caption, said",
    [
        (20, "a small red house", ["house", "red", "small"]),
        (
            39,
            "purple cross to the right of black mushroom",
            ["cross", "purple", "mushroom", "black", (0, "right of")],
        ),
        (  # the moon comes first in the caption, so it is the moon that is below
            63,
            "above a little orange moon is a blue ring",
            ["moon", "orange", "small", "ring", "blue", (0, "below")],
        ),
        (
            5_000_000_008,
            "within a large black circle is a small yellow ring",
            ["circle", "black", "large", "ring", "yellow", "small", (0, "around")],
        ),
        (5_000_000_009, "two small triangles", ["triangle", "small", "triangle", "small"]),
    ],
)
def test_what_a_caption_says(seed, caption, said):
    assert scene(seed).caption == caption
    answers = meaning(scene(seed))
    assert [options[a - 1] for options, a in zip(QUESTIONS, answers, strict=True) if a] == said


@given(st.integers(0, 10**9))
def test_everything_that_is_stated_is_an_answer_and_nothing_else(seed):
    s = scene(seed)
    answers = meaning(s)
    assert all(0 <= a < n for a, n in zip(answers, ANSWERS, strict=True))
    relations = {w.objects for w in s.words if w.role == "relation"}
    stated = {(w.role, k) for w in s.words if w.role for k in w.objects or ("background",)}
    others = {(role, k) for role, k in stated if role != "relation"}
    assert np.count_nonzero(answers) == len(others) + len(relations)
