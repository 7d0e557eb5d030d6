"""Files and folders that are there only when they are whole.

    with whole("evaluation.json") as partial:
        partial.write_text(text)

Whoever looks meanwhile sees what was there before; an error or an interruption leaves it there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """A name beside `path` to write a file or folder to: it takes its place once that is done.

    Args:
        path: a file, which is replaced if it is there, or a folder, which must not be.

    Raises:
        OSError: it cannot be written or moved.
    """
    path = Path(path).absolute()
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    _remove(partial)
    try:
        yield partial
        partial.replace(path)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
