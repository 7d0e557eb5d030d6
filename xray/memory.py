"""How much memory there is, and how much processes hold.

available()              # bytes that can be had without swapping
peak()                   # the most that this process ever held
own(pid)                 # what another holds now, without mapped files (Linux)

Reference:
    proc(5), /proc/meminfo and /proc/pid/status.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def available() -> int | None:
    """Bytes that can be had without swapping, or None where the system does not say."""
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


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
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {
        name: int(value.split()[0]) * 1024
        for name, value in (line.split(":", 1) for line in lines)
        if value.endswith("kB")
    }


def own(pid: int | str) -> int:
    """Anonymous and shared memory: what a process holds without mapped files.

    Files that are mapped can be taken back by the system at any time, and do not count.
    """
    found = status(pid)
    return found.get("RssAnon", 0) + found.get("RssShmem", 0)
