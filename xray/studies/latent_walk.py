"""A film of a model's pictures along a way through prompts and noise.

walk = plan(model, ["a red star", "a blue moon"], [7], frames=49, noise="circle")
render(model, walk, frames, steps=25, seed=7)            # into a folder of frames
write_mp4("film.mp4", film(walk, frames, hold=6), fps=12)
data = measure(walk, frames)                             # how evenly does it move?
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from xray import framing, page, pictures, video
from xray.embeddings import angle
from xray.frames import Frames
from xray.page import BLUE, FAINT, GREEN, INK, MARGIN, QUIET, VERMILLION, WIDTH
from xray.walks import Walk

STEPS = ("noise_step", "context_step", "latent_step", "picture_step")
CURVES = {
    "context_step": ("embedding", GREEN, "-."),
    "noise_step": ("noise", BLUE, "--"),
    "picture_step": ("picture", VERMILLION, "-"),
}
STILL = 1e-9  # a largest step below it is rounding


def write_films(
    folder: Path, walk: Walk, frames: Frames, *, fps: float, **shown: Any
) -> dict[str, dict[str, float]]:
    """Write ``film.mp4`` and ``film.gif``, and decode them again.

    Args:
        fps: 0.1 … 50.
        **shown: `hold`, `captions`, `inset`, `matrix`, `tick` as for `film`.

    Returns:
        For each file what `xray.video.probe` found in it.
    """
    found = {}
    for name, write in {"film.mp4": video.write_mp4, "film.gif": video.write_gif}.items():
        # A GIF repeats by itself, and would show a closed walk's first frame twice.
        pictures = film(walk, frames, open_end=name == "film.gif", **shown)
        write(folder / name, pictures, fps=fps)
        found[name] = vars(video.probe(folder / name))
    return found


def film(
    walk: Walk,
    frames: Frames,
    *,
    hold: int = 0,
    open_end: bool = False,
    captions: bool = False,
    inset: str = "",
    matrix: np.ndarray | None = None,
    tick: Callable[[], object] = lambda: None,
) -> Iterator[Image.Image]:
    """The frames as they are shown, one by one.

    Args:
        hold: how many frames longer each stop is shown, the first also for the last.
        open_end: leave out the last frame of a closed walk, which is the first.
        captions: write the nearest prompt under the picture, the fainter the farther it is.
        inset: show in a corner ``"latent"``, as colour, or the heat map of the word that
            `render` was given, on one scale for the whole film.
        matrix: the model's ``rgb_matrix``.
        tick: called once for each frame of the walk.
    """
    heats = inset not in ("", "latent")
    largest = max(frames.array(f, "heat").max() for f in range(len(walk))) if heats else 0.0
    end = len(walk) - 1 if walk.closed else None
    for frame in range(len(walk)):
        tick()
        if open_end and frame == end:
            return
        picture = framing.enlarge(frames.picture(frame))
        if heats:
            small = framing.heat(frames.array(frame, "heat"), largest)
            picture = framing.inset(picture, small, inset)
        elif inset:
            small = pictures.latent_colours(frames.array(frame, "latent"), matrix)
            picture = framing.inset(picture, small, inset)
        if captions:
            text, share = walk.caption(frame)
            picture = framing.caption(picture, text, min(1.0, max(0.0, 2 * share - 1) + 0.1))
        for _ in range(1 + (hold if frame in walk.stops and frame != end else 0)):
            yield picture


def measure(walk: Walk, frames: Frames) -> xarray.Dataset:
    """How far each frame is from the one before: what goes in, and what comes out.

    Returns:
        Along ``frame``: ``noise_step``, degrees between the noises; ``context_step``, the
        embeddings' distance over the first one's norm; ``latent_step`` and ``picture_step``, root
        mean square differences of the latents, and of the pictures (0 … 255); NaN for the first.
        ``share`` (frame, prompt), ``stop`` (frame), and ``latent`` (frame, y, x, channel), what
        was decoded.
    """
    count = len(walk)
    steps = np.full((4, count), np.nan)
    latents = np.stack([frames.array(f, "latent") for f in range(count)])
    before = np.asarray(frames.picture(0), np.float64)
    for f in range(1, count):
        now = np.asarray(frames.picture(f), np.float64)
        context = walk.context([f - 1, f])
        steps[:, f] = (
            angle(walk.noise[f - 1].ravel(), walk.noise[f].ravel()),
            np.linalg.norm(context[1] - context[0]) / np.linalg.norm(walk.embeddings[0]),
            np.sqrt(np.mean((latents[f] - latents[f - 1]) ** 2)),
            np.sqrt(np.mean((now - before) ** 2)),
        )
        before = now
    return xarray.Dataset(
        {name: ("frame", values) for name, values in zip(STEPS, steps, strict=True)}
        | {
            "share": (("frame", "prompt"), walk.shares),
            "stop": ("frame", np.isin(np.arange(count), walk.stops)),
            "latent": (("frame", "y", "x", "channel"), latents),
        },
        coords={"frame": np.arange(count), "prompt": np.array(walk.prompts, dtype=object)},
    )


def figure(walk: Walk, frames: Frames, data: xarray.Dataset, made: str = "") -> Figure:
    """Frames of the film, those at its largest step, and how far each is from the one before.

    Args:
        data: from `measure`.
        made: how the film was made, for the heading.
    """
    picture = frames.picture(0)
    steps = data["picture_step"].values
    jump = int(np.nanargmax(steps))
    ratio = steps[jump] / (np.nanmean(steps) or 1.0)
    back = " → the first again" if walk.closed and len(walk.prompts) > 1 else ""
    count, gap, apart = min(6, len(walk)), 0.06, 0.3
    width = min((WIDTH - 2 * MARGIN - apart + gap) / (count + 2) - gap, 1.8)
    height = width * picture.height / picture.width
    drawn = page.new(
        "A walk, and how far each frame is from the one before",
        [
            (" → ".join(f"“{p}”" for p in walk.prompts) + back, INK),
            made,
            f"The picture’s largest step, at frame {jump}, is {ratio:.1f} times its mean.",
        ],
        below=height + 3.3,
    )
    shown = [*page.evenly(range(len(walk)), count), jump - 1, jump]
    for column, frame in enumerate(shown):
        x = MARGIN + column * (width + gap) + (apart if column >= count else 0)
        page.picture(drawn, x, 3.0, width, height, np.asarray(frames.picture(frame)))
        label = {count: "largest step: ", count + 1: "→ "}.get(column, "frame ")
        page.text(drawn, x, 3.0 + height + 0.08, f"{label}{frame}", size=10, color=QUIET)

    axes = page.style(
        page.axes(drawn, 0.75, 0.6, WIDTH - 0.75 - MARGIN, 1.9),
        "Change from the frame before, each curve over its mean",
        x="frame",
        y="times the mean",
    )
    for stop in walk.stops:
        label = "a stop of the walk" if stop == walk.stops[-1] else None
        axes.axvline(stop, color=FAINT, linewidth=1.2, linestyle=":", label=label)
    for name, (label, colour, dash) in CURVES.items():
        values = data[name].values
        if np.nanmax(values) > STILL:
            axes.plot(values / np.nanmean(values), dash, color=colour, linewidth=2, label=label)
    axes.set(xlim=(0, len(walk) - 1), ylim=(0, 1.3 * axes.get_ylim()[1]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, ncols=4, fontsize=10, loc="upper right")
    return drawn


def evenness(data: xarray.Dataset) -> list[list]:
    """What changes from frame to frame: rows of name, mean, largest, their ratio, and where.

    Args:
        data: from `measure`.
    """
    rows = []
    for name in STEPS:
        steps = data[name].values[1:]
        if steps.max() > STILL:
            ratio = float(steps.max() / steps.mean())
            row = [float(steps.mean()), float(steps.max()), ratio, int(steps.argmax()) + 1]
            rows.append([name.replace("_", " "), *row])
    return rows
