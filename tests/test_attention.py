"""Attention is the equation, in pieces as whole, and never holds more weights than it says."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from xray import attention as module
from xray.attention import (
    attention,
    attention_and_pooled,
    attention_weights,
    pooled,
    weighted_values,
)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def slow(q, k, mask=0.0):
    """Vaswani et al., equation 1, in float64."""
    q, k = q.astype(np.float64), k.astype(np.float64)
    return scipy.special.softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]) + mask, axis=-1)


shapes = st.tuples(*(st.integers(1, n) for n in (2, 3, 9, 7, 6)))


@settings(max_examples=30)
@given(shapes, st.integers(1, 200))
def test_it_is_the_equation_whatever_is_held(shape, held):
    n, heads, queries, keys, d = shape
    q, k = 2 * normal(0, n, heads, queries, d), normal(1, n, heads, keys, d)
    v = normal(2, n, heads, keys, d)
    expected = slow(q, k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HELD", held)
        weights = attention_weights(q, k)
        out = attention(q, k, v)
        np.testing.assert_array_equal(weighted_values(weights, v), out)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    np.testing.assert_allclose(out, expected @ v, atol=3e-6)


def test_a_mask_is_cut_into_the_same_pieces(monkeypatch):
    q, k, v = (normal(i, 2, 3, 10, 4) for i in range(3))
    mask = np.triu(np.full((10, 10), -np.inf, np.float32), k=1)
    whole = attention(q, k, v, mask=mask).numpy()
    monkeypatch.setattr(module, "HELD", 3 * 10)
    np.testing.assert_allclose(attention(q, k, v, mask=mask), whole, atol=1e-6)
    weights = attention_weights(q, k, mask=mask).numpy()
    np.testing.assert_allclose(weights, slow(q, k, mask), atol=1e-6)
    assert (weights[..., np.triu_indices(10, k=1)[0], np.triu_indices(10, k=1)[1]] == 0).all()


def test_pieces_and_whole_agree_at_the_size_of_a_picture():
    q, k, v = (normal(i, 1, 2, 2500, 8) for i in range(3))  # three pieces, the last one short
    expected = slow(q, k) @ v
    np.testing.assert_allclose(attention(q, k, v), expected, atol=1e-6)


def test_large_scores_do_not_overflow():
    q = k = np.full((1, 1, 3, 4), 1e4, np.float32)
    weights = attention_weights(q, k).numpy()
    np.testing.assert_allclose(weights, 1 / 3, rtol=1e-6)


def largest_tensor(fn, *shapes):
    """Elements of the largest tensor in the graph that `fn` becomes, loops' bodies included."""
    graph = tf.function(fn).get_concrete_function(*(tf.TensorSpec(s) for s in shapes)).graph
    graphs = [graph, *(f.graph for f in graph._functions.values())]
    outputs = [t for g in graphs for op in g.get_operations() for t in op.outputs]
    return max(t.shape.num_elements() or 0 for t in outputs)


@pytest.mark.parametrize("queries", [64, 256])
def test_no_tensor_is_larger_than_the_weights_held(monkeypatch, queries):
    monkeypatch.setattr(module, "HELD", 2 * 16 * queries)  # by two pieces together
    shape = (1, 2, queries, 4)
    assert largest_tensor(attention, shape, shape, shape) == 16 * queries
    assert largest_tensor(attention_weights, shape, shape) == 2 * queries * queries


def test_pieces_of_no_more_than_two_heads_are_there_at_once(monkeypatch):
    """Each waits for the one before it: at once they would be as large as the whole."""
    monkeypatch.setattr(module, "HELD", 2 * 16 * 64)
    spec = tf.TensorSpec((1, 3, 64, 4))
    graph = tf.function(attention).get_concrete_function(spec, spec, spec).graph
    loop = next(op for op in graph.get_operations() if op.type in ("While", "StatelessWhile"))
    assert loop.get_attr("parallel_iterations") == 2
    body = next(f.graph for name, f in graph._functions.items() if "body" in str(name))
    products = [
        op for op in body.get_operations() if op.type == "BatchMatMulV2" or op.type == "MatMul"
    ]
    assert len(products) == 2 * 64 // 16
    for before, op in zip(products[1::2], products[2::2], strict=False):
        assert before in ancestors(op)


def ancestors(op):
    found, left = set(), [op]
    while left:
        for near in (*(t.op for t in left[-1].inputs), *left.pop().control_inputs):
            if near not in found:
                found.add(near)
                left.append(near)
    return found


@pytest.mark.parametrize("held", [2**21, 16 * 48, 5 * 48])
def test_pooled_weights_are_the_averages_and_the_output_has_the_same_bits(monkeypatch, held):
    monkeypatch.setattr(module, "HELD", held)
    q, k, v = (normal(i, 2, 3, 48, 4) for i in range(3))
    out, found = attention_and_pooled(q, k, v, (6, 8), 2)
    np.testing.assert_array_equal(out, attention(q, k, v))
    means = slow(q, k).reshape(2, 3, 48, 2, 3, 2, 4).mean((4, 6))
    np.testing.assert_allclose(found, means.reshape(2, 3, 48, 4), atol=1e-7)


def test_weights_that_are_pooled_are_never_there_whole(monkeypatch):
    monkeypatch.setattr(module, "HELD", 16 * 256)
    spec = (1, 2, 256, 4)
    found = largest_tensor(lambda *x: attention_and_pooled(*x, (16, 16), 4), spec, spec, spec)
    assert found == 2 * 256 * 16  # what is left of the weights


def test_a_grid_that_is_no_finer_stays_as_it_is():
    weights = normal(0, 2, 5, 12)
    np.testing.assert_allclose(pooled(weights, (3, 4), 8), weights, atol=1e-7)
