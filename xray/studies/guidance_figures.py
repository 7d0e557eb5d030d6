"""What `xray.studies.guidance` found, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from xray import page
from xray.batch import guidance_text
from xray.page import BLUE, GREEN, MAPS, MARGIN, PURPLE, QUIET, VERMILLION, WIDTH
from xray.pixels import decoded
from xray.sheet import Sheet
from xray.studies.guidance import distance

if TYPE_CHECKING:
    from xray.generator import Generator
    from xray.trace import Trace

STATISTICS = {
    "colourfulness": "colourfulness",
    "contrast": "contrast",
    "overshoot": "cut off by clipping",
    "latent_std": "spread of the latent",
}


def figures(
    push: xarray.Dataset,
    made: xarray.Dataset,
    trace: Trace,
    model: Generator,
    *,
    scales: Sequence[float],
    avoided: Sequence[str],
    parts: Mapping[str, Sequence[float]],
) -> dict[str, Figure]:
    """All four, by name.

    Args:
        push: from `push`, of `trace`.
        made: from `pictures`, with a choice for each of what follows.
        trace, model: one run, whose estimates are decoded and shown.
        scales: named ``f"{scale:g}"`` in `made`, with 1 and that of `trace` among them.
        avoided: negative prompts.
        parts: intervals with their scale by step.
    """
    a, full = trace.attrs, _text(trace.attrs)
    told = f"“{a['prompt'][0]}” · {a['model']} · {a['sampler']}, steps {a['steps']}"
    first = f"noise level σ, from {float(push.sigma[0]):.3g} at the first step down"
    by_step = {full: [a["guidance"]] * a["steps"], **parts, "1": [1.0] * a["steps"]}
    return {
        "push": push_figure(push, trace, model),
        "scales": scales_figure(made.sel(choice=[f"{scale:g}" for scale in scales]), [told]),
        "negative": choices_figure(
            "Negative prompts",
            made.sel(choice=[full, *avoided]),
            ["no negative prompt", *avoided],
            [f"{told} · guidance {full}"],
        ),
        "interval": choices_figure(
            "Guidance in a part of the run",
            made.sel(choice=list(by_step)),
            ["all steps", *parts, "no step"],
            [f"{told} · guidance {full} · {first}"],
            by_step,
        ),
    }


def push_figure(data: xarray.Dataset, trace: Trace, model: Generator, columns: int = 7) -> Figure:
    """Estimates without, with and under guidance, where it pushes, and how hard, by step.

    Args:
        data: from `push`.
        trace: the run, whose estimates are decoded and shown.
        model: that made it.
    """
    a = trace.attrs
    shown = page.evenly(trace.steps, columns)
    sheet = Sheet(4, len(shown), a["height"] / a["width"], left=1.55)
    panel, top = 2.3, 3.35 + 0.2
    figure = page.new(
        "What guidance adds, step by step",
        [f"“{a['prompt'][0]}” · {_run(a)} · denoised estimates, decoded"],
        below=top + sheet.tall,
    )
    strength = np.linalg.norm(data["push"].sel(step=shown).values, axis=-1)
    heat = colormaps[MAPS](strength / (strength.max() or 1))[..., :3]
    lines: list[list[np.ndarray]] = [[], [], []]
    for step in shown:
        latent, uncond, cond = (
            trace.sel(f"sampler/{name}", step=step, evaluation=0).values
            for name in ("latent", "noise_uncond", "noise_cond")
        )
        t = trace.timesteps[trace.steps.index(step)]
        for line, noise in zip(lines, (uncond, cond, None), strict=True):
            estimate = (
                trace.sel("sampler/denoised", step=step, evaluation=0).values
                if noise is None
                else model.schedule.to_denoised(noise, latent, t)
            )
            line.append(estimate[0])
    sheet.draw(
        figure,
        top + sheet.tall,
        [*(decoded(model, line) for line in lines), list(np.rint(heat * 255).astype(np.uint8))],
        row_names=[
            "without prompt" if not a["negative"][0] else "negative prompt",
            "with prompt",
            ("guided", f"{_text(a)} × their difference"),
            ("difference", f"strength, 0 to {strength.max():.2g}"),
        ],
        column_names=[
            (f"step {step}", f"σ = {float(data.sigma.sel(step=step)):.2g}") for step in shown
        ],
    )
    width = (WIDTH - 0.85 - MARGIN - 0.9) / 2
    axes = page.axes(figure, 0.85, 0.6, width, panel)
    page.style(axes, "How hard it pushes", x="step", y="root mean square, latent units")
    axes.plot(
        data.step,
        data.difference,
        color=BLUE,
        linewidth=2,
        marker=page.dot(data.step),
        label="difference of the two noises",
    )
    axes.plot(
        data.step,
        data["shift"],
        "--",
        color=VERMILLION,
        linewidth=2,
        marker=page.dot(data.step),
        label="shift of the estimate",
    )
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes = page.axes(figure, 0.85 + width + 0.9, 0.6, width, panel)
    page.style(axes, "Where to", x="step", y="cosine")
    for name, (colour, dash, label) in COSINES.items():
        look = {"color": colour, "linewidth": 2, "marker": page.dot(data.step)}
        axes.plot(data.step, data[name], dash, label=label, **look)
    axes.axhline(0, color=QUIET, linewidth=0.8)
    axes.set_ylim(min(-0.1, float(data[list(COSINES)].to_array().min()) - 0.05), 1.05)
    axes.legend(frameon=False, fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


COSINES = {
    "cosine": (BLUE, "-", "the two noises"),
    "steady": (GREEN, "--", "push with the next step’s"),
    "parallel": (PURPLE, "-.", "push with the estimate it lengthens"),
}


def scales_figure(data: xarray.Dataset, lines: Sequence[str]) -> Figure:
    """Pictures over guidance scales, a row for each seed, and what happens to their colours.

    Args:
        data: from `pictures`, the choices named by their scales, ascending.
        lines: how they were made.
    """
    sheet, scales = _sheet(data), [float(choice) for choice in data.choice.values]
    panel, top = 1.75, 2.75
    figure = page.new("More and more guidance", lines, below=top + sheet.tall)
    _draw(sheet, figure, top, data, [f"{scale:g}" for scale in scales])
    gap = 0.62
    width = (WIDTH - 0.7 - MARGIN - 3 * gap) / 4
    for i, (name, label) in enumerate(STATISTICS.items()):
        axes = page.axes(figure, 0.7 + i * (width + gap), 0.6, width, panel)
        page.style(axes, label, x="guidance scale")
        axes.plot(scales, data[name], color=BLUE, linewidth=0.8, alpha=0.5)
        axes.plot(scales, data[name].mean("seed"), "o-", color=BLUE, linewidth=2, markersize=4)
        axes.set_ylim(bottom=0)
        axes.axvline(1, color=QUIET, linewidth=0.8, linestyle=":")
        if name == "overshoot":
            most = max(float(data[name].max()), 1e-3)  # less is nothing to be seen
            axes.set_ylim(0, 1.05 * most)
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=2))
    return figure


def choices_figure(
    title: str,
    data: xarray.Dataset,
    names: Sequence[str],
    lines: Sequence[str],
    schedules: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """Pictures under several choices, a row for each seed.

    Args:
        title: says what is chosen.
        data: from `pictures`; the first choice is the one that others are compared with.
        names: of the choices.
        lines: how they were made.
        schedules: for each choice its guidance scale by step, drawn below.
    """
    sheet = _sheet(data)
    below = 0.65 + (1.05 if schedules else 0)
    figure = page.new(title, lines, below=below + sheet.tall)
    _draw(sheet, figure, below, data, names)
    apart = distance(data, data.choice.values[0]).mean("seed")
    for column, choice in enumerate(data.choice.values):
        x = sheet.x(column)
        told = f"colourfulness {float(data.colourfulness.sel(choice=choice).mean()):.0f}"
        if column:
            told += f"\n{float(apart.sel(choice=choice)):.2f} from “{names[0]}”"
        middle = x + sheet.width / 2
        page.text(figure, middle, below - 0.12, told, size=9, color=QUIET, ha="center", va="top")
        if schedules:
            axes = page.axes(figure, x, 0.5, sheet.width, 0.6)
            edges = np.arange(len(schedules[choice]) + 1) - 0.5
            axes.stairs(schedules[choice], edges, fill=True, color=BLUE, alpha=0.8)
            axes.set_ylim(0, 1.1 * max(map(max, schedules.values())))
            axes.set_xlim(-0.5, len(schedules[choice]) - 0.5)
            page.style(axes, x="step", y="scale" if column == 0 else "")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.tick_params(labelsize=8)
            if column:
                axes.set_yticklabels([])
    return figure


def _sheet(data: xarray.Dataset) -> Sheet:
    aspect = data.sizes["pixel_y"] / data.sizes["pixel_x"]
    return Sheet(data.sizes["seed"], data.sizes["choice"], aspect, left=1.0, head=0.3, most=2.6)


def _draw(
    sheet: Sheet, figure: Figure, below: float, data: xarray.Dataset, names: Sequence[str]
) -> None:
    rows = data["picture"].transpose("seed", "choice", "pixel_y", "pixel_x", "rgb").values
    seeds = [f"seed {seed}" for seed in data.seed.values]
    sheet.draw(figure, below + sheet.tall, rows, row_names=seeds, column_names=names)


def _text(attrs: Mapping[str, Any]) -> str:
    return guidance_text(attrs["guidance"])


def _run(attrs: Mapping[str, Any]) -> str:
    return (
        f"{attrs['model']} · seed {attrs['seeds'][0]} · {attrs['sampler']}, steps "
        f"{attrs['steps']} · guidance {_text(attrs)}"
    )
