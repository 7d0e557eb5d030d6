"""Load models into networks that are there already, and compare what is in them."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from xray.checkpoints import building
from xray.networks import variables


def all_variables(networks):
    return {k: v for part, net in networks.items() for k, v in variables(part, net).items()}


def weights_of(model):
    return {key: v.numpy() for key, v in all_variables(model.networks).items()}


@contextlib.contextmanager
def into(networks):
    """Models are loaded into these networks, emptied before, where building takes seconds.

    Each takes the weights of the one before: it is for one test, or one after the other in it.
    """
    for variable in all_variables(networks).values():
        variable.assign(np.zeros(variable.shape, np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "build", lambda *args: networks)
        yield


def assert_same_weights(found, expected):
    assert found.keys() == expected.keys() and len(found) > 100
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values, err_msg=key)
