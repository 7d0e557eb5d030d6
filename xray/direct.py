"""Files written past the system's page cache, where it offers that (Linux's direct I/O).

    write("chunk", content)

What nobody reads soon gains nothing from lying in the cache. There it costs memory, which on a
small machine holds the weights, and the time of cores that are wanted for something else.

Reference:
    open(2), "O_DIRECT": what is written must begin, in memory and in the file, at whole blocks.
"""

from __future__ import annotations

import errno
import mmap
import os
from typing import Any

import numpy as np

PIECE = 2**20  # bytes; a longer call costs the kernel ten times as much (Linux 6.18)
LARGE = 2**20  # bytes of a file for which waiting for the device is worth it


def write(path: str | os.PathLike, content: Any) -> None:
    """Write a file, past the cache if it is large and its file system can do that.

    Args:
        path: the file, replaced if it is there.
        content: bytes, or what has their interface.

    Raises:
        OSError: it cannot be written.
    """
    content = memoryview(content).cast("B")
    direct = getattr(os, "O_DIRECT", 0) if len(content) >= LARGE else 0
    try:
        _write(path, content, direct)
    except OSError as error:
        if not direct or error.errno != errno.EINVAL:
            raise
        _write(path, content, 0)  # a file system without it


def _write(path: str | os.PathLike, content: memoryview, flags: int) -> None:
    def opened(path: str, usual: int) -> int:
        return os.open(path, usual | flags, 0o666)

    room = np.empty(PIECE + mmap.PAGESIZE, np.uint8)
    first = -room.ctypes.data % mmap.PAGESIZE
    pages = memoryview(room)[first : first + PIECE]
    with open(path, "wb", buffering=0, opener=opened) as file:
        for start in range(0, len(content), PIECE):
            piece = content[start : start + PIECE]
            pages[: len(piece)] = piece
            rest = pages[: -(-len(piece) // mmap.PAGESIZE) * mmap.PAGESIZE]
            while rest:
                rest = rest[file.write(rest) :]
        file.truncate(len(content))
