"""The figure of `xray.studies.benchmark_fullsize`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from xray import page
from xray.page import CYCLE, DASHES, INK, QUIET
from xray.studies.benchmark_fullsize import NAMES, Result


def figures(results: Mapping[str, Result], made: str) -> dict[str, Figure]:
    """``steps``: every step's seconds, and memory over a whole run.

    Args:
        results: by system.
        made: says at which size, on what.
    """
    rows = len(results)
    each = 0.42
    high = max(rows * each, 1.2)
    figure = page.new("A guided step, and the memory of a whole run", [made], below=high + 4.9)

    left = 2.2
    steps = page.axes(figure, left, 4.5, 7.4, high)
    page.style(steps, "Every step after the first, and their median", x="seconds")
    for k, result in enumerate(results.values()):
        seconds, colour = result.seconds("step"), CYCLE[k]
        steps.plot(seconds, np.full(len(seconds), k), "o", color=colour, alpha=0.6, ms=6)
        median = result.median("step")
        steps.plot([median] * 2, [k - 0.3, k + 0.3], color=INK, lw=1.6)
        steps.annotate(
            f"{median:.2f} s",
            (max(seconds), k),
            (10, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
            color=QUIET,
        )
    longest = max(max(r.seconds("step")) for r in results.values())
    steps.set(xlim=(0, longest * 1.15), ylim=(rows - 0.5, -0.5))
    steps.set_yticks(range(rows), [NAMES[name] for name in results])
    steps.grid(visible=False)

    held = page.axes(figure, 0.75, 0.6, 8.85, 3.0)
    page.style(
        held,
        "Memory of a whole run: load, text, steps, decode",
        x="seconds at work",
        y="GB, without mapped files",
    )
    for k, (name, result) in enumerate(results.items()):
        when, much = np.array(result.memory).T
        label = f"{NAMES[name]}: {result.peak / 1e9:.1f} GB at most"
        held.plot(when, much / 1e9, color=CYCLE[k], ls=DASHES[k], lw=1.6, label=label)
    held.set_xlim(0, None)
    held.set_ylim(0, 1.35 * max(r.peak for r in results.values()) / 1e9)
    held.legend(loc="upper left", fontsize=9.5, frameon=False, ncols=2)
    return {"steps": figure}
