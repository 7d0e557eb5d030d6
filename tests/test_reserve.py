"""Reserved arrays lie where TensorFlow takes them, hold nothing, and give all back."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from xray import memory
from xray.architecture import unwritten
from xray.reserve import as_tensor, reserved

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def test_arrays_begin_in_memory_where_tensorflow_takes_them_as_they_are():
    shapes = [(), (3,), (5, 7), (3, 3, 40, 50), (1000, 1201)] * 5
    for shape, dtype in itertools.product(shapes, ("float32", "float16")):
        made = reserved(shape, dtype)
        assert made.shape == shape and made.dtype == dtype
        assert made.ctypes.data % 64 == 0 and made.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("shape", [(7,), (600, 500)])
def test_a_tensor_and_its_variable_are_on_the_arrays_memory(shape):
    array = reserved(shape)
    array[...] = 1.0
    tensor = as_tensor(array)
    variable = tf.Variable(unwritten(shape))
    variable.assign(tensor)
    array[...] = 2.0
    assert (tensor.numpy() == 2.0).all() and (variable.numpy() == 2.0).all()


@pytest.mark.skipif(sys.platform != "linux", reason="looks at memory in /proc")
def test_what_is_not_written_takes_no_memory_and_what_is_let_go_is_given_back():
    before, size = memory.own("self"), 2**28
    variable = tf.Variable(unwritten((size // 4,)))
    assert memory.own("self") - before < size / 8
    array = reserved((size // 4,))
    array[...] = 1.0
    variable.assign(as_tensor(array))
    del array
    assert memory.own("self") - before > size * 7 / 8
    variable.assign(unwritten((size // 4,)))
    assert memory.own("self") - before < size / 8
    assert np.prod(variable.shape) == size // 4


def huge_pages() -> int:
    """Kilobytes of this process in pages larger than usual."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))


@pytest.mark.skipif(not HUGE.is_file() or "[never]" in HUGE.read_text(), reason="no huge pages")
def test_large_arrays_lie_in_large_pages():
    before = huge_pages()
    array = reserved((2**26,))
    array[...] = 1.0
    assert huge_pages() - before > 0.9 * array.nbytes / 1024
