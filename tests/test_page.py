"""What figures choose to show."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xray import page


@given(st.integers(1, 200), st.integers(2, 20))
def test_the_first_the_last_and_some_between_are_shown(count, most):
    shown = page.evenly(range(count), most)
    assert len(shown) == min(count, most)
    assert (shown[0], shown[-1]) == (0, count - 1)
    steps = [b - a for a, b in zip(shown, shown[1:], strict=False)]
    assert all(step >= 1 for step in steps) and max(steps, default=0) - min(steps, default=0) <= 1


def test_none_are_shown_where_none_are_wanted():
    assert page.evenly([1, 2], 0) == page.evenly([1, 2], -1) == []
