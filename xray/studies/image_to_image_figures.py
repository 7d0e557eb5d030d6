"""What `xray.studies.image_to_image` made, drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from xray import page, pictures
from xray.page import BLUE, INK, MARGIN, VERMILLION, WIDTH
from xray.pixels import decoded
from xray.sheet import Sheet
from xray.studies.image_to_image import distance

if TYPE_CHECKING:
    from xray.generator import Generator
    from xray.trace import Trace


def figures(
    data: xarray.Dataset, run: Trace, model: Generator, told: Sequence[str]
) -> dict[str, Figure]:
    """All four, by name.

    Args:
        data: from `by_strength`, `resumed`, `operated` and `painted`, merged.
        run: the one whose latent was changed by hand.
        model: that made it.
        told: the picture, the prompt, what it was changed to, and how runs were made.
    """
    picture, prompt, other, how = told
    estimates = run.sel("sampler/denoised", evaluation=0)
    estimates = estimates.sel(step=data["from_step_operated"].values.tolist())
    return {
        "strength": strength_figure(
            data, [f"{picture} · “{prompt}” · {how}"], run.attrs["rgb_matrix"]
        ),
        "resumed": resumed_figure(
            data,
            [
                f"“{prompt}”; another: “{other}” · {how}",
                "Other noise put back: in a run with eta 1, which begins with the same noise and "
                "is another picture",
            ],
        ),
        "operated": operated_figure(
            data,
            decoded(model, estimates),
            [f"“{prompt}” · {how} · numbers: distance from the same done to the picture"],
        ),
        "painted": painted_figure(
            data, data["original"].values, [f"{picture} · “{prompt}” · {how}"]
        ),
    }


def strength_figure(
    data: xarray.Dataset, lines: Sequence[str], matrix: np.ndarray | None
) -> Figure:
    """From how much noise a picture is taken, and what comes of it.

    Args:
        data: from `by_strength`.
        lines: how it was made.
        matrix: (5, 3), that shows latents as colour; without one principal components do.
    """
    height, width = data["original"].shape[:2]
    sheet = Sheet(2, data.sizes["strength"] + 2, height / width, left=1.4)
    figure = page.new("A picture as the beginning", lines, below=sheet.tall + 0.4)
    starts = pictures.latent_colours(data["start"].values, matrix)
    alone = distance(data["roundtrip"], data["original"])
    made = [data["original"].values, data["roundtrip"].values, *data["made"].values]
    sheet.draw(
        figure,
        sheet.tall + 0.4,
        [[None, None, *starts], made],
        row_names=[("start", "latent as colour"), "picture"],
        column_names=["original", "decoded", *(f"strength {s:g}" for s in data["strength"].values)],
        captions=[[], ["", *(f"{c:.2f} from it" for c in [alone, *data["changed"].values])]],
    )
    return figure


def resumed_figure(data: xarray.Dataset, lines: Sequence[str]) -> Figure:
    """What can still change from which step on.

    Args:
        data: from `resumed`.
        lines: what was changed, and how the runs were made.
    """
    shape = data["whole"].shape
    steps = data["from_step"].values
    sheet = Sheet(shape[0], len(steps) + 1, shape[1] / shape[2], left=1.5)
    below = 2.75
    figure = page.new("Runs with something changed on the way", lines, below=below + sheet.tall)
    rows = [
        [*made, whole]
        for made, whole in zip(data["resumed"].values, data["whole"].values, strict=True)
    ]
    sheet.draw(
        figure,
        below + sheet.tall,
        rows,
        row_names=[tuple(textwrap.wrap(str(each), 13)) for each in data["change"].values],
        column_names=[*(f"from step {step}" for step in steps), "as it was"],
    )
    axes = page.axes(figure, sheet.left, 0.6, WIDTH - sheet.left - MARGIN, 1.75)
    page.style(axes, "How much still changes", x="changed from step", y="distance, 0 … 1")
    marks = zip((BLUE, VERMILLION, INK), ("o-", "s--", "^-."), strict=True)
    for change, (colour, mark) in zip(data["change"].values, marks):
        values = data["departed"].sel(change=change)
        axes.plot(steps, values, mark, color=colour, linewidth=2, markersize=5, label=str(change))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=10)
    return figure


def operated_figure(
    data: xarray.Dataset, estimates: Sequence[np.ndarray], lines: Sequence[str]
) -> Figure:
    """A latent changed by hand on the way.

    Args:
        data: from `operated`.
        estimates: the run's own estimates at these steps, decoded: (y, x, 3) uint8.
        lines: how it was made.
    """
    made = data["operated"].transpose("from_step_operated", "operation", ...).values
    differs = data["differs"].transpose("from_step_operated", "operation").values
    shape = made.shape[2:]
    sheet = Sheet(
        len(made), data.sizes["operation"] + 1, shape[0] / shape[1], left=1.2,
        head=0.3, most=1.9, caption=0.22,
    )  # fmt: skip
    figure = page.new("The latent, changed by hand", lines, below=sheet.tall + MARGIN)
    sheet.draw(
        figure,
        sheet.tall + MARGIN,
        [[estimate, *line] for estimate, line in zip(estimates, made, strict=True)],
        row_names=[f"at step {step}" for step in data["from_step_operated"].values],
        column_names=["estimate then", *(str(each) for each in data["operation"].values)],
        captions=[["", *(f"{each:.2f}" for each in line)] for line in differs],
    )
    return figure


def painted_figure(data: xarray.Dataset, original: np.ndarray, lines: Sequence[str]) -> Figure:
    """A picture painted anew inside a mask.

    Args:
        data: from `painted`.
        original: (y, x, 3) uint8.
        lines: how it was made.
    """
    seeds = data["seed"].values
    sheet = Sheet(
        1, len(seeds) + 2, original.shape[0] / original.shape[1], head=0.3, most=2.2, caption=0.3
    )
    figure = page.new("Painted anew inside a mask", lines, below=sheet.tall + 0.1)
    top = sheet.tall + 0.1
    told = [f"outside {float(each):.3f} from it" for each in data["outside"]]
    alone = f"only decoded, outside {float(data['autoencoder']):.3f}"
    sheet.draw(
        figure,
        top,
        [[original, data["masked"].values, *data["painted"].values]],
        column_names=["original", "mask", *(f"seed {seed}" for seed in seeds)],
        captions=[["", alone, *told]],
    )
    return figure
