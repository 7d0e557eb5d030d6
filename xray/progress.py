"""Progress bars with time left, on the terminal's error stream."""

from __future__ import annotations

from collections.abc import Callable


def bar(label: str) -> Callable[[int | None, int], None]:
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
