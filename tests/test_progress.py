"""What a progress bar is told, also when the work is broken off."""

from __future__ import annotations

import pytest

from xray.progress import each


def test_each_item_comes_once_and_is_told_when_done():
    told = []
    for item in each("abc", lambda done, total: told.append((done, total))):
        told.append(item)
    assert told == [(0, 3), "a", (1, 3), "b", (2, 3), "c", (3, 3), (None, 3)]
    assert list(each([1, 2], None)) == [1, 2]


def test_a_bar_ends_where_the_work_does():
    told = []
    with pytest.raises(KeyboardInterrupt):
        for _ in each(range(5), lambda done, total: told.append(done)):
            if told[-1] == 2:
                raise KeyboardInterrupt
    assert told == [0, 1, 2, None]
