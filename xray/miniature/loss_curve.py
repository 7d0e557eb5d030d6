"""How a training went, as a figure.

loss_figure(Path("runs/c/diffusion/loss.csv")).savefig("loss.png")
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from xray import page


def loss_figure(curve: Path) -> Figure:
    """The loss over the samples seen.

    Args:
        curve: rows of samples, seconds and loss, as `xray.miniature.training.fit` writes them.
    """
    samples, seconds, loss = np.loadtxt(curve, delimiter=",", ndmin=2).T
    told = (
        f"{samples[-1]:,.0f} samples in {seconds[-1] / 60:.0f} minutes; "
        "every dot is the mean of 50 steps"
    )
    figure = page.new(f"Loss of the {curve.parent.name} stage", [told], below=3.9)
    axes = page.style(page.axes(figure, 0.9, 0.6, 8.6, 3.1), x="samples", y="loss")
    axes.plot(samples, loss, ".-", color=page.BLUE, lw=1, ms=5)
    axes.set_yscale("log")
    far = loss.max() > 30 * loss.min()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if far else (1, 1.5, 2, 3, 4, 5, 7)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return figure
