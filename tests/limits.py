"""A limit of memory for a process, by a control group: where the system lets us make one.

Reference:
    Linux's cgroup-v2.rst (memory.max) and cgroup-v1/memory.rst (memory.limit_in_bytes).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

HIERARCHIES = (  # where groups are made, and the file that limits them
    (Path("/sys/fs/cgroup"), "memory.max"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
)


@contextlib.contextmanager
def memory_limit(size: int) -> Iterator[Path | None]:
    """The file to which a process writes its number to be limited, or None where none can be."""
    for root, limit in HIERARCHIES:
        group = root / f"diffusion-xray-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / limit).exists():
                (group / limit).write_text(str(size))
                yield group / "cgroup.procs"
                return
        finally:
            group.rmdir()
    yield None
