"""Arrays and tensors whose memory is their own: all of it goes back to the system with them.

array = reserved((3, 3, 1280, 1280))       # takes no memory until it is written
variable.assign(as_tensor(array))          # is not copied
"""

from __future__ import annotations

import contextlib
import math
import mmap
from typing import Any

import numpy as np

ALONE = 2**20  # bytes, from which on an array is a mapping of its own


def reserved(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """An unwritten array that begins where TensorFlow's tensors do, at a multiple of 64.

    The system gives memory to what is written, page by page.
    """
    count, size = math.prod(shape), np.dtype(dtype).itemsize
    if count * size >= ALONE:
        return np.frombuffer(_pages(count * size), dtype).reshape(shape)
    room = np.empty(count + 64 // size, dtype)
    start = -room.ctypes.data % 64 // size
    return room[start : start + count].reshape(shape)


def _pages(size: int) -> mmap.mmap:
    """Memory of its own, on Linux in pages as large as it has: fewer to clear and to look up."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return mmap.mmap(-1, size)
    # Shared, which is what Python takes by default, it would be in small ones all the same.
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel that has none refuses
        pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


def as_tensor(array: np.ndarray) -> Any:
    """A tensor on an array's own memory: a variable that is assigned the array copies it."""
    import tensorflow as tf

    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
