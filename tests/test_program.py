"""A part keeps what it has compiled, and not for ever."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from xray import program
from xray.edits import scale
from xray.program import Part
from xray.taps import edit

X = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)


@pytest.fixture
def part():
    """The smallest network there is: x² under one site."""
    return Part("decoder", lambda tap, x: tap("decoder/out", tf.square(x)), jit=False)


def test_what_is_asked_again_is_compiled_once(part):
    for factor in (1.0, 2.0, 3):
        asked = edit("decoder/out", scale, factor=factor)
        np.testing.assert_array_equal(part.record([], X, edit=asked)[0], X**2 * factor)
    assert part.traces == 1
    np.testing.assert_array_equal(part(X), X**2)
    assert part.traces == 2


def test_a_new_function_each_time_does_not_fill_the_memory(part, monkeypatch):
    monkeypatch.setattr(program, "KEPT", 3)
    alive = []
    for n in range(1, 7):
        fn = lambda x, context, n=n: x * n  # noqa: E731
        alive.append(weakref.ref(fn))
        np.testing.assert_array_equal(part.record([], X, edit=edit("**", fn))[0], X**2 * n)
        part(X)  # used each time, so never the oldest
        del fn
    assert part.traces == 7  # counted although most are gone
    gc.collect()
    assert [ref() is not None for ref in alive] == [False] * 4 + [True] * 2


def graphs():
    gc.collect()
    return sum(isinstance(held, tf.__internal__.FuncGraph) for held in gc.get_objects())


def test_what_is_forgotten_is_freed(model):
    """TensorFlow keeps a graph for ever if one of its operations has a gradient of its own."""
    shapes = {
        "text": [np.zeros((1, 20), np.int32)],
        "unet": [np.zeros(s, np.float32) for s in ((1, 8, 8, 4), (1, 8), (1, 20, 16))],
        "decoder": [np.zeros((1, 8, 8, 4), np.float32)],
    }
    before = graphs()
    parts = [Part(name, model.parts[name].network, jit=False) for name in shapes]
    for part in parts:
        part.program(shapes[part.name])
    assert graphs() >= before + len(parts)
    del part, parts
    assert graphs() == before
