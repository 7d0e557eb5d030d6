"""Numbers that commands are given, refused before anything has begun.

parser.add_argument("--minutes", type=above_zero)
parser.add_argument("--scenes", type=counted)
"""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T", int, float)


def above_zero(text: str) -> float:
    """A finite number above 0, as an argparse ``type``."""
    return _checked(text, float, lambda x: 0 < x < math.inf, "it must be above 0, and finite")


def counted(text: str) -> int:
    """A whole number of at least 1, as an argparse ``type``."""
    return _checked(text, int, lambda n: n >= 1, "it must be a whole number of at least 1")


def from_zero(text: str) -> int:
    """A whole number of at least 0, as an argparse ``type``."""
    return _checked(text, int, lambda n: n >= 0, "it must be a whole number of at least 0")


def seed(text: str) -> int:
    """What NumPy and Keras both take to draw from, as an argparse ``type``."""
    return _checked(text, int, lambda n: 0 <= n < 2**32, "a seed is a whole number from 0 to 2³²−1")


def _checked(text: str, kind: type[_T], fits: Callable[[_T], bool], wanted: str) -> _T:
    with contextlib.suppress(ValueError):
        if fits(value := kind(text)):
            return value
    raise argparse.ArgumentTypeError(f"{text}: {wanted}")
