"""Progress bars with time left, on the terminal's error stream."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
Report = Callable[[int | None, int], None]


def bar(label: str) -> Report:
    """A bar to be told ``(done, total)`` after each step and ``(None, total)`` at the end.

    Example:
        >>> report = bar("denoising")
        >>> report(1, 25)
        >>> report(None, 25)
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    task = progress.add_task(label, total=None)
    progress.start()

    def report(done: int | None, total: int) -> None:
        if done is None:
            progress.stop()
        else:
            progress.update(task, completed=done, total=total)

    return report


@contextlib.contextmanager
def counted(label: str, total: int) -> Iterator[Callable[..., None]]:
    """One bar over several runs: each call of what it yields, whatever it is told, counts one.

    Shown on a terminal only.

    Example:
        >>> with counted("pictures", 4 * steps) as tick:
        ...     for seed in range(4):
        ...         model.generate(prompt, seed=seed, steps=steps, progress=tick)
    """
    report = bar(label) if sys.stderr.isatty() else lambda done, total: None
    done = itertools.count(1)
    try:
        yield lambda *_: report(next(done), total)
    finally:
        report(None, total)


def each(items: Sequence[T], report: Report | None) -> Iterator[T]:
    """The items one by one, told to `report` as they are done.

    Example:
        >>> for latent in each(latents, bar("decoding")):
        ...     pictures.append(model.decode(latent)[0])
    """
    report = report or (lambda done, total: None)
    try:
        for done, item in enumerate(items):
            report(done, len(items))
            yield item
        report(len(items), len(items))
    finally:
        report(None, len(items))
