"""The figures of `xray.studies.samplers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from xray import page
from xray.page import BLUE, FAINT, GREEN, INK, MARGIN, ORANGE, PURPLE, QUIET, SKY, VERMILLION, WIDTH
from xray.schedule import sigma_timesteps
from xray.sheet import Sheet
from xray.studies.samplers import same_path

if TYPE_CHECKING:
    from xray.samplers import NoiseSchedule

# Name, colour, dash and marker. Those that go the same path are drawn so that both are seen.
LOOKS = {
    "ddim": ("DDIM", BLUE, "-", "o"),
    "ddpm": ("DDPM", VERMILLION, "-", "X"),
    "pndm": ("PNDM", PURPLE, "-.", "v"),
    "euler": ("Euler", SKY, "--", "s"),
    "euler_ancestral": ("Euler ancestral", INK, ":", "*"),
    "heun": ("Heun", INK, "-", "D"),
    "lms": ("LMS", GREEN, "-", "^"),
    "dpmpp_2m": ("DPM-Solver++(2M)", ORANGE, "-", "P"),
}
SPACING_LOOKS = {
    "leading": (BLUE, "-", "o"),
    "trailing": (VERMILLION, "--", "s"),
    "linspace": (GREEN, "-.", "^"),
    "karras": (PURPLE, "-", "D"),
    "exponential": (ORANGE, ":", "v"),
}


def figures(data: xarray.Dataset, schedule: NoiseSchedule, made: str) -> dict[str, Figure]:
    """All of them, by name, as far as there is something to show.

    Args:
        data: from `compare`.
        schedule: the model's.
        made: says of what, and by which model.
    """
    found = {"paths": paths_figure(data, made), "pictures": pictures_figure(data, made)}
    if data["deterministic"].any():
        found["errors"] = errors_figure(data, made)
        found["spacings"] = spacings_figure(data, schedule, made)
    return found


def _reference(data: xarray.Dataset) -> str:
    name, *rest = data.attrs["reference"].split(", ")
    return ", ".join([LOOKS[name][0], *rest])


# ------------------------------------------------------------------------------------------ paths


def paths_figure(data: xarray.Dataset, made: str) -> Figure:
    """Every sampler's way from the noise to its picture, with the most steps and the fewest."""
    names, counts = data["sampler"].values.tolist(), data["steps"].values.tolist()
    aspect = data.sizes["pixel_y"] / data.sizes["pixel_x"]
    sheet = Sheet(1, len(names) + 1, aspect, head=0.5)
    tall, low = 3.6, 0.75
    top = low + tall + 0.4 + sheet.tall
    share = data["explained"].values.sum()
    figure = page.new(
        "From one noise to the picture, by every sampler",
        [
            f"{made} · seed {int(data.image[0])} · timesteps {data.attrs['compared_spacing']}",
            f"The latent at every step, in the plane of most variance ({share:.0%} of it). "
            f"Grey, the long run: {_reference(data)}. Pictures of {counts[-1]} steps.",
        ],
        below=top,
    )
    half = (WIDTH - 2 * MARGIN - 0.3) / 2
    all_of_them = page.axes(figure, MARGIN, low, half, tall)
    _draw_paths(all_of_them, data, data["path_plane"])
    _title(all_of_them, f"{counts[-1]} steps")
    figure.legend(
        *all_of_them.get_legend_handles_labels(), loc="lower left", ncols=8, frameon=False,
        fontsize=9, bbox_to_anchor=(MARGIN / WIDTH, 0.25 / figure.get_figheight()),
        handlelength=2.2, columnspacing=1.0, borderpad=0,
    )  # fmt: skip
    if data["deterministic"].any():
        solving = page.axes(figure, MARGIN + half + 0.3, low, half, tall)
        _draw_paths(solving, data, data["few_plane"].sel(sampler=data["deterministic"]))
        _title(solving, f"{counts[0]} steps, no noise put back")

    pictures = [data["long_picture"].values, *data["picture"].isel(steps=-1).values]
    columns = [("long run", f"{data.sizes['long_point'] - 1} steps")]
    same = same_path(data)
    for name in names:
        columns.append((_short(name), f"as {LOOKS[same[name]][0]}" if name in same else ""))
    sheet.draw(figure, top, [pictures], column_names=columns)
    return figure


def _title(axes: Axes, words: str) -> None:
    axes.set_title(words, fontsize=12, loc="left", color=INK)


def _short(name: str) -> str:
    return {"dpmpp_2m": "DPM++(2M)", "euler_ancestral": "Euler anc."}.get(name, LOOKS[name][0])


def _draw_paths(axes: Axes, data: xarray.Dataset, planes: xarray.DataArray) -> None:
    long = data["long_plane"].values
    axes.plot(*long.T, color=FAINT, linewidth=6, solid_capstyle="round")
    for name, way in zip(planes["sampler"].values.tolist(), planes.values, strict=True):
        label, colour, dash, marker = LOOKS[name]
        axes.plot(
            *way.T, dash, color=colour, marker=marker, markersize=4, linewidth=1.4, label=label
        )
    axes.annotate(
        "noise", long[0], (-8, 6), textcoords="offset points", fontsize=10, color=QUIET, ha="right"
    )
    axes.set(xticks=[], yticks=[])
    axes.margins(0.14)
    axes.spines[:].set_color(FAINT)
    axes.set_aspect("equal", "datalim")  # its axes have one unit


# ------------------------------------------------------------------------------------------ errors


def _images(data: xarray.Dataset) -> str:
    count = data.sizes["image"]
    return f"{count} images, the median" if count > 1 else "1 image"


def errors_figure(data: xarray.Dataset, made: str) -> Figure:
    """Distance from the long run's end over evaluations, steps and seconds."""
    solving = data.sel(sampler=data["deterministic"])
    error, doubt = solving["distance"].median("image"), float(data["doubt"].median())
    figure = page.new(
        "How far from the long run’s end, and at what cost",
        [
            f"{made} · timesteps {data.attrs['compared_spacing']} · {_images(data)}",
            f"Compared with {_reference(data)}; grey, how far a run of half its length ends from "
            "it. Samplers that put noise back make another picture and have no such error.",
        ],
        below=3.9,
    )
    left, gap = 0.8, 0.2
    width = (WIDTH - left - MARGIN - 2 * gap) / 3
    shared = _limits(np.append(error.values, doubt))
    for k, what in enumerate(("evaluations", "steps", "seconds")):
        axes = page.axes(figure, left + k * (width + gap), 0.95, width, 2.8)
        page.style(axes, x=_COSTS[what], y="error, ‖x − x*‖ / ‖x*‖" if k == 0 else "")
        axes.axhspan(shared[0], doubt, color=FAINT, alpha=0.35, linewidth=0)
        for name in solving["sampler"].values.tolist():
            label, colour, dash, marker = LOOKS[name]
            row = solving.sel(sampler=name)
            cost = row["steps"] if what == "steps" else row[what]
            axes.plot(
                cost, error.sel(sampler=name), dash, color=colour, marker=marker, markersize=6,
                linewidth=2, label=label,
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", ylim=shared)
        _plain_ticks(axes)
        if k:
            axes.tick_params(labelleft=False)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="lower left", ncols=6, frameon=False, fontsize=10,
        bbox_to_anchor=(left / WIDTH, 0.1 / figure.get_figheight()), handlelength=2.4,
        columnspacing=1.2, borderpad=0,
    )  # fmt: skip
    return figure


_COSTS = {
    "evaluations": "evaluations of the network",
    "steps": "steps",
    "seconds": "seconds in the steps",
}


def _limits(values: np.ndarray) -> tuple[float, float]:
    good = values[np.isfinite(values) & (values > 0)]
    return (0.7 * float(good.min(initial=1.0)), 1.4 * float(good.max(initial=1e-3)))


def _plain_ticks(axes: Axes) -> None:
    """1, 2, 5, 10, … in place of powers of ten."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())


# ---------------------------------------------------------------------------------------- spacings


def spacings_figure(data: xarray.Dataset, schedule: NoiseSchedule, made: str) -> Figure:
    """The noise levels that Euler visits under each spacing, and every sampler's error there.

    Where other samplers take a spacing, they visit the same or nearly so; see `xray.schedule`.
    """
    steps, spacings = data.attrs["middle"], data["spacing"].values.tolist()
    figure = page.new(
        f"Where {steps} steps are spent",
        [
            f"{made} · {_images(data)}",
            f"Compared with {_reference(data)}. Leading timesteps begin at less noise than the "
            "latent has: the run is off before its first step.",
        ],
        below=4.2,
    )
    half = (WIDTH - 0.8 - MARGIN - 0.9) / 2
    axes = page.axes(figure, 0.8, 1.1, half, 2.8)
    page.style(axes, "Noise levels that Euler visits", x="step", y="σ = √((1−ᾱ)/ᾱ)")
    for spacing in spacings:
        colour, dash, marker = SPACING_LOOKS[spacing]
        levels = [schedule.sigma(t) for t in sigma_timesteps(steps, spacing, schedule)[:-1]]
        axes.plot(
            range(steps), levels, dash, color=colour, marker=marker, markersize=5, label=spacing
        )
    axes.set_yscale("log")
    _plain_ticks(axes)
    axes.xaxis.set_major_locator(FixedLocator(range(0, steps, max(1, steps // 5))))
    axes.legend(frameon=False, fontsize=10, loc="lower left", handlelength=2.8)

    axes = page.axes(figure, 0.8 + half + 0.9, 1.1, half, 2.8)
    page.style(axes, "Error", y="‖x − x*‖ / ‖x*‖")
    median = data["spaced"].sel(sampler=data["deterministic"]).median("image")
    for name in median["sampler"].values.tolist():
        label, colour, dash, marker = LOOKS[name]
        axes.plot(
            range(len(spacings)), median.sel(sampler=name), dash, color=colour, marker=marker,
            markersize=7, linewidth=0.8, label=label,
        )  # fmt: skip
    axes.set(yscale="log", ylim=_limits(median.values))
    _plain_ticks(axes)
    axes.xaxis.set_major_locator(FixedLocator(range(len(spacings))))
    axes.set_xticklabels(spacings)
    axes.set_xlim(-0.4, len(spacings) - 0.6)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="lower left", ncols=6, frameon=False, fontsize=10,
        bbox_to_anchor=(0.8 / WIDTH, 0.1 / figure.get_figheight()), handlelength=2.4,
        columnspacing=1.2, borderpad=0,
    )  # fmt: skip
    return figure


# ---------------------------------------------------------------------------------------- pictures


def pictures_figure(data: xarray.Dataset, made: str) -> Figure:
    """Every sampler's picture at every number of steps, and the long run's."""
    names, counts = data["sampler"].values.tolist(), data["steps"].values.tolist()
    aspect = data.sizes["pixel_y"] / data.sizes["pixel_x"]
    rows = [[*line, data["long_picture"].values] for line in
            data["picture"].transpose("steps", "sampler", ...).values]  # fmt: skip
    for line in rows[1:]:
        line[-1] = None  # the long run once
    first = data["distance"].isel(image=0)  # whose pictures are shown
    captions = [
        [
            ("error {:.2f}" if data["deterministic"].sel(sampler=name) else "{:.2f} away").format(
                float(first.sel(sampler=name, steps=n))
            )
            for name in names
        ]
        for n in counts
    ]
    sheet = Sheet(len(rows), len(names) + 1, aspect, left=0.95, head=0.5, most=1.4, caption=0.24)
    figure = page.new(
        "With more and more steps",
        [
            f"{made} · seed {int(data.image[0])} · timesteps {data.attrs['compared_spacing']}",
            f"Under the pictures, the distance from the long run’s end: {_reference(data)}.",
        ],
        below=sheet.tall + MARGIN,
    )
    sheet.draw(
        figure, sheet.tall + MARGIN, rows, captions=captions,
        row_names=[f"{n} steps" for n in counts],
        column_names=[*map(_short, names), "long run"],
    )  # fmt: skip
    return figure
