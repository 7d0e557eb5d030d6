"""How much memory there is, and how much processes hold.

total()                  # bytes that this process may use, of the machine's
available()              # bytes that can be had without swapping
peak()                   # the most that this process ever held
own(pid)                 # what another holds now, without mapped files (Linux)
give_back()              # what TensorFlow keeps of memory that is free

Reference:
    proc(5), /proc/meminfo and /proc/pid/status; Linux's cgroup-v2.rst, memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path


def total() -> int | None:
    """Bytes of the machine, or of its share that a container or service was given (cgroup v2).

    The same whatever runs beside. None where the system does not say.
    """
    found = _sizes("/proc/meminfo").get("MemTotal") or _pages("SC_PHYS_PAGES")
    return min((size for size in (found, *_limits()) if size is not None), default=None)


def available() -> int | None:
    """Bytes that can be had without swapping, of the machine and of a container's share.

    None where the system does not say.
    """
    found = _sizes("/proc/meminfo").get("MemAvailable") or _pages("SC_AVPHYS_PAGES")
    return min((size for size in (found, *_rooms()) if size is not None), default=None)


def peak() -> int | None:
    """The most bytes of memory that this process ever held, or None where none can say."""
    # Not getrusage on Linux: there a process starts with the peak of the one it was forked of.
    if held := status("self").get("VmHWM"):
        return held
    try:
        import resource
    except ImportError:  # Windows
        return None
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024


def status(pid: int | str) -> dict[str, int]:
    """The memory of a process in bytes, by the kernel's names; of none that is there, nothing."""
    return _sizes(f"/proc/{pid}/status")


def own(pid: int | str) -> int:
    """Anonymous and shared memory: what a process holds without mapped files.

    Files that are mapped can be taken back by the system at any time, and do not count.
    """
    found = status(pid)
    return found.get("RssAnon", 0) + found.get("RssShmem", 0)


def keep_freed() -> None:
    """Have the C library keep up to a gigabyte that tensors gave back, for those that follow.

    glibc otherwise returns every large one to the system and asks for it anew, in pages that are
    cleared before they come: a tenth of a step at full size. Other C libraries are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    arenas, trim, mapped = -8, -1, -3  # M_ARENA_MAX, M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    for option, value in ((arenas, 1), (trim, 2**30), (mapped, 2**28)):
        mallopt(option, value)


def give_back() -> None:
    """Return to the system the pages that TensorFlow's allocator keeps free (Linux; else nothing).

    It returns none by itself, so that a network's temporaries would add to the next one's. So this
    takes all of its free room, a large tensor after the other, tells the system that these pages
    are not needed, and lets go of the tensors.
    """
    if sys.platform != "linux":
        return
    import mmap

    import numpy as np
    import tensorflow as tf

    advise, page, rooms, size = ctypes.CDLL(None).madvise, mmap.PAGESIZE, [], 2**28
    # Where the system promises no more than it has, it may have no room to ask for: so be it.
    with contextlib.suppress(tf.errors.ResourceExhaustedError), tf.device("CPU"):
        while size >= 2**20:
            before = own("self")
            rooms.append(tf.raw_ops.Empty(shape=[size], dtype=tf.uint8, init=False))
            start = np.frombuffer(memoryview(rooms[-1]), np.uint8).ctypes.data
            skipped = -start % page
            pages = (size - skipped) // page * page
            advise(ctypes.c_void_p(start + skipped), ctypes.c_size_t(pages), mmap.MADV_DONTNEED)
            if before - own("self") < size // 8:  # no room as large was kept: this one is new
                size //= 2


def _groups() -> list[Path]:
    """The folders of this process's cgroup and of those above it."""
    try:
        line = next(x for x in Path("/proc/self/cgroup").read_text().splitlines() if x[:3] == "0::")
    except (OSError, StopIteration):
        return []
    own = Path("/sys/fs/cgroup", line[3:].lstrip("/"))
    return [own, *own.parents]


def _limits() -> list[int]:
    """How much each group may hold, of those that have a limit."""
    found = []
    for folder in _groups():
        with contextlib.suppress(OSError, ValueError):  # "max" where there is none
            found.append(int((folder / "memory.max").read_text()))
    return found


def _rooms() -> list[int]:
    """How much more each group may hold, of those that have a limit."""
    found = []
    for folder in _groups():
        with contextlib.suppress(OSError, ValueError):
            limit, held = (
                int((folder / f"memory.{name}").read_text()) for name in ("max", "current")
            )
            lines = (folder / "memory.stat").read_text().splitlines()
            kinds = dict(line.split() for line in lines)
            # Files that were read count as held, and give way: as MemAvailable has it.
            files = int(kinds["inactive_file"]) + int(kinds["active_file"])
            found.append(max(0, limit - held + files))
    return found


def _pages(name: str) -> int | None:
    try:
        return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _sizes(path: str) -> dict[str, int]:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return {}
    return {
        name: int(value.split()[0]) * 1024
        for name, value in (line.split(":", 1) for line in lines)
        if value.endswith("kB")
    }
