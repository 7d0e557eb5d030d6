"""The optimizer of the miniature's training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from xray.miniature.optimizer import Muon, orthogonalized


def newton_schulz(matrix):
    """Jordan's iteration on the whole matrix, in double precision."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", [(24, 96), (40, 40), (90, 20)])
def test_singular_values_come_near_to_one_and_the_vectors_stay(shape):
    matrix = np.random.default_rng(1).standard_normal(shape)
    found = orthogonalized(tf.constant(matrix, tf.float32)).numpy()
    wide = shape[0] <= shape[1]
    expected = newton_schulz(matrix) if wide else newton_schulz(matrix.T).T
    np.testing.assert_allclose(found, expected, atol=1e-3 * expected.std())
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    values = np.diag(left.T @ found @ right.T)
    assert values.min() > 0.6 and values.max() < 1.3


def one_step(value, gradient, name="kernel"):
    variable = keras.Variable(value, name=name)
    optimizer = Muon(0.1)
    optimizer.build([variable])
    optimizer.apply([tf.constant(gradient)], [variable])
    return variable.numpy() - value


def test_a_convolution_is_taken_as_a_matrix():
    random = np.random.default_rng(2)
    kernel, gradient = random.standard_normal((2, 3, 3, 16, 32)).astype(np.float32)
    moved = one_step(kernel, gradient)
    as_matrix = one_step(kernel.reshape(144, 32), gradient.reshape(144, 32))
    np.testing.assert_allclose(moved.reshape(144, 32), as_matrix, atol=1e-6)
    # Scaled so that an entry moves a fifth of the learning rate, root mean square.
    assert np.sqrt((moved**2).mean()) == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize(
    ("shape", "name"), [((64,), "bias"), ((3, 3, 64, 4), "kernel"), ((90, 32), "embeddings")]
)
def test_the_rest_moves_as_adam_does(shape, name):
    value, random = np.random.default_rng(3).standard_normal((2, *shape)).astype(np.float32)
    gradient = 1e-3 * np.sign(random)  # far below the limit on the gradient's norm
    moved = one_step(value, gradient, name)
    np.testing.assert_allclose(moved, -0.1 * np.sign(gradient), rtol=1e-2)
