"""Figures that explain a trace. Each takes a `Trace` and returns a matplotlib `Figure`.

    xray.plots.timeline(trace, model)
    xray.plots.word_maps(trace, words=["star", "moon"])
    for name, figure in xray.plots.figures(trace, model).items():
        figure.savefig(f"{name}.png")

Nothing here is pyplot: no window, no state. In a notebook a figure shows itself. Where a step
evaluates the network more than once, the first evaluation is shown, and the figure says so.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from xray import page, pictures, stats, wordmaps
from xray.batch import guidance_text
from xray.page import BLUE, FAINT, GREEN, INK, MAPS, MARGIN, PURPLE, QUIET, VERMILLION, WIDTH
from xray.pixels import decoded
from xray.tensor import DebugTensor
from xray.wordmaps import NotRecorded

if TYPE_CHECKING:
    from xray.generator import Generator
    from xray.trace import Trace

__all__ = [
    "NotRecorded",
    "figures",
    "how_made",
    "special_tokens",
    "statistics",
    "step_statistics",
    "timeline",
    "word_maps",
]

CURVES = {
    "latent": (BLUE, "-"),
    "noise": (VERMILLION, "--"),
    "denoised": (GREEN, "-."),
    "cosine": (PURPLE, "-"),
}
LATENT_DIMS = ("image", "y", "x", "channel")


# -------------------------------------------------------------------------------- all of them


def figures(trace: Trace, model: Generator | None = None) -> dict[str, Figure]:
    """Every figure that the recorded sites allow.

    Args:
        trace: any trace; of a batch the first image is shown.
        model: to decode the denoised estimates with.

    Returns:
        Figures by name, which is also the stem of a file's name: ``timeline``, ``statistics``,
        ``word_maps``, ``special_tokens``.
    """
    makers: dict[str, Callable[[], Figure]] = {
        "timeline": lambda: timeline(trace, model),
        "statistics": lambda: statistics(trace),
        "word_maps": lambda: word_maps(trace),
        "special_tokens": lambda: special_tokens(trace),
    }
    made = {}
    for name, make in makers.items():
        with suppress(NotRecorded):
            made[name] = make()
    return made


# -------------------------------------------------------------------------------- the timeline


def timeline(
    trace: Trace,
    model: Generator | None = None,
    *,
    steps: Iterable[int] | None = None,
    count: int = 6,
    image: int = 0,
) -> Figure:
    """How the picture came about: latent, denoised estimate and noise at several steps.

    Latent and noise are shown as colours through the model's ``rgb_matrix``, a linear guess of the
    decoded colours; without one as their first three principal components over the steps shown.
    The denoised estimate, what the picture would be if the noise predicted now were all of it, is
    decoded with `model`; without `model` it is shown as colours too. The labels say which.

    Args:
        trace: with ``sampler/latent``, ``sampler/denoised`` or ``sampler/noise``.
        model: the one that made the trace.
        steps: step numbers to show; by default `count` of them, evenly spaced, first and last
            included. The page has one width: more than about ten get small.
        count: how many, if `steps` is not given.
        image: which one of the batch.

    Raises:
        NotRecorded: none of the three sites was recorded whole.
        ValueError: `model` is another one than made the trace; no steps; no such image.
        TraceError: no such step.

    Example:
        >>> xray.plots.timeline(trace, model, steps=[0, 2, 4, 8, 16])
    """
    rows = _shown(trace, ("latent", "denoised", "noise"))
    if model is not None and trace.attrs.get("digest", model.digest) != model.digest:
        raise ValueError(
            f"the trace was made with weights {trace.attrs['digest'][:12]} of "
            f"{trace.attrs.get('model')}, and {model.name} has weights {model.digest[:12]}, whose "
            "decoder would show another picture"
        )
    shown = page.evenly(trace.steps, count) if steps is None else list(steps)
    if not shown:
        raise ValueError("no steps to show: steps is empty, or count is below 1")
    drawn = {row: _as_colours(trace, row, shown, image, model) for row in rows}
    names = {"latent": "latent", "denoised": "denoised estimate", "noise": "noise prediction"}

    left, gap, picture = 1.75, 0.06, 1.75 if "image" in trace else 0.0
    room = WIDTH - left - MARGIN - picture - (0.25 if picture else 0.0)
    width = min(room / len(shown) - gap, 1.75)
    aspect = trace.attrs["height"] / trace.attrs["width"]
    height, side = width * aspect, picture * aspect
    pitch = max(height + gap, 0.65)  # room for a row's name and how it was made
    grid = max(len(rows) * pitch - gap, side)
    top = 0.5 + grid + MARGIN
    figure = _page(trace, "Denoising step by step", image, below=top)
    for row, (pixels, how) in enumerate(drawn.values()):
        y = top - 0.5 - row * pitch - height
        name = names[rows[row]]
        page.text(
            figure, left - 0.12, y + height / 2 + 0.03, name, size=11, ha="right", va="bottom"
        )
        page.text(
            figure, left - 0.12, y + height / 2, how, size=9, color=QUIET, ha="right", va="top"
        )
        for column, each in enumerate(pixels):
            page.picture(figure, left + column * (width + gap), y, width, height, each)
    for column in range(0, len(shown), math.ceil(0.7 / (width + gap))):  # as many as have room
        step = shown[column]
        x = left + column * (width + gap) + width / 2
        t = trace.timesteps[trace.steps.index(step)]
        page.text(figure, x, top - 0.24, f"step {step}", size=11, ha="center", va="bottom")
        page.text(figure, x, top - 0.27, f"t = {t:.5g}", size=9, color=QUIET, ha="center", va="top")
    if picture:
        x, y = left + len(shown) * (width + gap) + 0.2, top - 0.5 - grid / 2 - side / 2
        page.picture(figure, x, y, picture, side, trace["image"].values[image])
        page.text(figure, x + picture / 2, y + side + 0.08, "picture", size=11, ha="center")
    return figure


def _as_colours(
    trace: Trace, name: str, steps: Sequence[int], image: int, model: Generator | None
) -> tuple[Sequence[np.ndarray], str]:
    """Pixels, uint8 (y, x, 3) for each step, and how they were made."""
    values = np.stack([_latent(trace, name, step, image).values for step in steps])
    if name == "denoised" and model is not None:
        return decoded(model, values), "decoded"
    matrix = trace.attrs.get("rgb_matrix")
    if matrix is not None and len(matrix) == values.shape[-1] + 1:
        how = "latent as colour,\nnot decoded" if name == "denoised" else "as colour"
        return pictures.rgb(values, np.asarray(matrix)), how
    return pictures.pca(values), "principal components,\none scale for the row"


# -------------------------------------------------------------------------------- statistics


def step_statistics(trace: Trace, *, image: int = 0) -> dict[str, list]:
    """Numbers by step of what the sampler handles: the data behind `statistics`.

    Args:
        trace: any; what it does not hold is left out.
        image: which one of the batch.

    Returns:
        Lists of equal length, JSON values: ``step``, ``timestep``; for each of ``latent``,
        ``noise`` (guided) and ``denoised`` that was recorded whole, ``…_norm`` (Euclidean, over
        all numbers of the latent), ``…_mean``, ``…_std`` (population), ``…_min``, ``…_max`` and
        ``…_ks``, the Kolmogorov–Smirnov distance to N(0, 1); and ``cosine``, of the conditional
        with the unconditional noise, if there are both. Where a number is not defined, None.

    Example:
        >>> pandas.DataFrame(step_statistics(trace)).set_index("step").latent_ks.plot()
    """
    found: dict[str, list] = {"step": list(trace.steps), "timestep": list(trace.timesteps)}
    names = [n for n in ("latent", "noise", "denoised") if _whole(trace, f"sampler/{n}")]
    both = all(_whole(trace, f"sampler/noise_{branch}") for branch in ("cond", "uncond"))
    for step in trace.steps:
        row: dict[str, float] = {}
        for name in names:
            tensor = _latent(trace, name, step, image)
            values = stats.summary(tensor.values) | {
                "norm": tensor.norm(),
                "ks": tensor.normality()["ks"],
            }
            row |= {f"{name}_{k}": values[k] for k in ("norm", "mean", "std", "min", "max", "ks")}
        if both:
            cond, uncond = (_latent(trace, f"noise_{b}", step, image) for b in ("cond", "uncond"))
            row["cosine"] = cond.cosine(uncond)
        for name, value in row.items():
            found.setdefault(name, []).append(value if math.isfinite(value) else None)
    return found


def statistics(trace: Trace, *, image: int = 0) -> Figure:
    """Norms, standard deviations, guidance cosine and distance from noise, step by step.

    Dotted lines are what a standard normal sample of the latent's size has: norm √n, standard
    deviation 1, and the Kolmogorov–Smirnov distance that it exceeds one time in twenty.

    Args:
        trace: with ``sampler/latent``, ``sampler/denoised`` or ``sampler/noise``; a panel without
            its sites says so.
        image: which one of the batch.

    Raises:
        NotRecorded: none of the three sites was recorded whole.
        ValueError: no such image.
    """
    names = _shown(trace, ("latent", "noise", "denoised"))
    data = step_statistics(trace, image=image)
    size = math.prod(trace.specs[f"sampler/{names[0]}"].shape[-3:])
    top = 6.6
    figure = _page(trace, "Latent, noise and denoised estimate by step", image, below=top)
    tall = figure.get_figheight()
    axes = figure.subplots(
        2,
        2,
        gridspec_kw={
            "left": 0.8 / WIDTH,
            "right": 1 - MARGIN / WIDTH,
            "bottom": 0.6 / tall,
            "top": (top - 0.75) / tall,
            "wspace": 0.24,
            "hspace": 0.42,
        },
    ).flat
    steps = data["step"]
    norms = {name: data[f"{name}_norm"] for name in names}
    _panel(axes[0], "Euclidean norm", "latent units", steps, norms, normal=math.sqrt(size))
    spreads = {name: data[f"{name}_std"] for name in names}
    _panel(axes[1], "Standard deviation", "latent units", steps, spreads, normal=1.0)
    angle = {"cosine": data["cosine"]} if "cosine" in data else {}
    absent = "sampler/noise_cond and\nsampler/noise_uncond not recorded"
    if trace.attrs["guidance"] == 1:
        absent = "guidance 1:\nthere is no unconditional branch"
    _panel(axes[2], "Conditional and unconditional noise", "cosine", steps, angle, absent=absent)
    _panel(
        axes[3],
        "Latent’s distance from a standard normal",
        "KS distance, sup |Fₙ − Φ|",
        steps,
        {"latent": data["latent_ks"]} if "latent" in names else {},
        normal=1.36 / math.sqrt(size),
        absent="sampler/latent not recorded",
    )
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="upper left",
        bbox_to_anchor=((MARGIN - 0.05) / WIDTH, top / tall),
        ncols=4,
        frameon=False,
        fontsize=11,
        handlelength=2.6,
        borderpad=0,
    )
    return figure


def _panel(
    axes: Axes,
    title: str,
    unit: str,
    steps: Sequence[int],
    curves: dict[str, list],
    *,
    normal: float | None = None,
    absent: str = "",
) -> None:
    """Curves by step, with what a standard normal sample has; or why there is none."""
    page.style(axes, title)
    if not curves:
        axes.text(0.5, 0.5, absent, transform=axes.transAxes, ha="center", va="center", color=QUIET)
        axes.set(xticks=[], yticks=[])
        return
    for name, values in curves.items():
        colour, dash = CURVES[name]
        values = np.array(values, np.float64)  # None becomes NaN, a gap
        marker = page.dot(steps)
        axes.plot(steps, values, dash, color=colour, linewidth=2, marker=marker, label=name)
    axes.margins(y=0.1)
    if normal is not None:
        label = "standard normal sample (KS: 95 % are below)"
        axes.axhline(normal, color=QUIET, linestyle=":", label=label)
        axes.set_ylim(bottom=0)
    axes.set(xlabel="step", ylabel=unit)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


# -------------------------------------------------------------------------------- word maps


def word_maps(trace: Trace, *, scale: str = "shared", image: int = 0, **choices: Any) -> Figure:
    """Where each word of the prompt was attended to, over the picture.

    Args:
        trace: with ``unet/**/cross/weights`` recorded.
        scale: ``"shared"``, one scale from 0 to the largest of all maps, so that colours compare
            between words; or ``"word"``, each map from 0 to its own largest, to see the shape of
            faint ones. The figure says which.
        image: which one of the batch.
        **choices: `words`, `steps`, `layers`, `heads`, `branch`, `size`, `method` as for
            `xray.wordmaps.word_maps`, which sums the maps and says of what.

    Raises:
        NotRecorded, ValueError, TraceError: as `xray.wordmaps.word_maps`.

    Example:
        >>> xray.plots.word_maps(trace, words=["star", "moon"], steps=range(8), scale="word")
    """
    return _maps(trace, "Attention to each word", wordmaps.word_maps, scale, image, choices)


def special_tokens(
    trace: Trace, *, scale: str = "shared", image: int = 0, **choices: Any
) -> Figure:
    """As `word_maps`, of the start, end and padding tokens.

    Raises:
        NotRecorded, ValueError, TraceError: as `xray.wordmaps.special_maps`.
    """
    title = "Attention to start, end and padding"
    return _maps(trace, title, wordmaps.special_maps, scale, image, choices)


def _maps(
    trace: Trace,
    title: str,
    make: Callable[..., DebugTensor],
    scale: str,
    image: int,
    choices: dict[str, Any],
) -> Figure:
    if scale not in ("shared", "word"):
        raise ValueError(f"scale {scale!r} is not 'shared' or 'word'")
    for name in choices.keys() & {"words", "steps", "layers", "heads"}:
        choices[name] = wordmaps.several(name, choices[name])  # an iterator is gone once read
    maps = make(trace, image=image, **choices)
    words, count = maps.coords["word"].values.tolist(), maps.coords["maps"].item()
    peaks = np.nanmax(maps.values, axis=(1, 2), initial=0.0)
    if scale == "shared":
        peaks[:] = peaks.max()
    pixels = trace["image"].values[image] if "image" in trace else None
    panels = len(words) + (pixels is not None)

    columns = math.ceil(panels / math.ceil(panels / 5))
    rows = math.ceil(panels / columns)
    gap, label, beside = 0.12, 0.34, 1.15
    room = WIDTH - 2 * MARGIN - beside
    width = min((room - (columns - 1) * gap) / columns, 2.4)
    height = width * maps.shape[1] / maps.shape[2]
    pitch = height + label + 0.1
    note = textwrap.wrap(_summed_over(trace, maps, scale, choices), 125)
    top = rows * pitch + 0.2 + 0.2 * len(note) + MARGIN
    figure = _page(trace, title, image, below=top)

    share = maps.values.mean(axis=(1, 2), dtype=np.float64) / count
    cells = [("picture", "", None)] if pixels is not None else []
    cells += [(word, f"{share[i]:.1%}", i) for i, word in enumerate(_numbered(words))]
    for cell, (name, value, index) in enumerate(cells):
        x = MARGIN + cell % columns * (width + gap)
        y = top - cell // columns * pitch - label - height
        if index is None:
            page.picture(figure, x, y, width, height, pixels)
        else:
            axes = page.axes(figure, x, y, width, height)
            drawn = _overlay(axes, maps.values[index], peaks[index], pixels)
        y += height + 0.06
        left = page.text(figure, x, y, name, size=12)
        right = page.text(figure, x + width, y, value, size=10, color=QUIET, ha="right")
        room = right.get_window_extent().x0 - 6
        while len(left.get_text()) > 1 and left.get_window_extent().x1 > room:
            left.set_text(left.get_text()[:-2] + "…")

    x, tall = MARGIN + columns * (width + gap) + 0.08, min(rows * pitch - label - 0.1, 3.2)
    bar = figure.colorbar(drawn, cax=page.axes(figure, x, top - label - tall, 0.16, tall))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=10, color=FAINT, labelcolor=QUIET)
    if scale == "shared":
        bar.set_label("attention, summed", fontsize=10, color=QUIET)
    else:
        bar.set_ticks([0, drawn.norm.vmax], labels=["0", "each\nmap’s\nlargest"], va="top")
    for line, text in enumerate(note):
        y = top - rows * pitch - 0.2 - 0.2 * line
        page.text(figure, MARGIN, y, text, size=10, color=QUIET)
    return figure


def _overlay(axes: Axes, values: np.ndarray, peak: float, pixels: np.ndarray | None) -> AxesImage:
    """One map on a scale from 0 to `peak`, with the outlines of the picture drawn over it.

    Outlines, because a picture shining through would lighten and darken the map's colours, and a
    dark thing would seem to get less attention than it does.
    """
    height, width = values.shape
    extent = (0, width, height, 0)
    axes.set_axis_off()
    colours = colormaps[MAPS].with_extremes(bad=np.array(pictures.MISSING) / 255)
    drawn = axes.imshow(
        values, cmap=colours, norm=Normalize(0, peak or 1.0), extent=extent, interpolation="nearest"
    )
    if pixels is not None:
        lines = np.ones((*pixels.shape[:2], 4))
        lines[..., 3] = 0.5 * _outlines(pixels)
        axes.imshow(lines, extent=extent)
    return drawn


def _outlines(pixels: np.ndarray) -> np.ndarray:
    """How much of an edge each place of a picture is, 0 … 1."""
    across = np.abs(np.gradient(pixels.astype(np.float64), axis=(0, 1)))
    edges = np.hypot(*across).max(axis=-1)
    # All but the strongest edges keep their contrast; a picture without any stays empty.
    return np.clip(edges / max(np.percentile(edges, 98), 12.0), 0, 1)


def _numbered(words: Sequence[str]) -> list[str]:
    """Words, with a number where the same word comes several times."""
    seen: Counter[str] = Counter()
    names = []
    for word in words:
        seen[word] += 1
        names.append(f"{word} ({seen[word]})" if words.count(word) > 1 else word)
    return names


def _summed_over(trace: Trace, maps: DebugTensor, scale: str, choices: dict[str, Any]) -> str:
    """What the maps are the sum of, and how to read them."""
    branch = {"cond": "conditional", "uncond": "unconditional"}[choices.get("branch", "cond")]
    sites = wordmaps.cross_layers(trace, choices.get("layers"))
    averaged = "head" not in trace.specs[sites[0]].dims
    heads = _listed(
        "head", choices.get("heads"), "the heads' averages" if averaged else "all heads"
    )
    layers = [site.removesuffix(wordmaps.WEIGHTS) for site in sites]
    layers = f"{len(layers)} layers" if len(layers) > 2 else " and ".join(layers)
    only = trace.steps if len(trace.steps) == 1 else None
    steps = _listed("step", choices.get("steps") or only, f"all {len(trace.steps)} steps")
    scales = {
        "shared": "One colour scale for all maps.",
        "word": "Each map has its own colour scale: colours do not compare between maps.",
    }
    return (
        f"Weights of the {branch} branch, summed over {heads}, {layers} and {steps}: "
        f"{maps.coords['maps'].item()} maps. Percentages are shares of all attention, averaged "
        f"over the picture. {scales[scale]}"
    )


def _listed(name: str, numbers: Sequence[int] | None, everything: str) -> str:
    if numbers is None:
        return everything
    numbers = sorted(set(numbers))
    if len(numbers) == 1:
        return f"{name} {numbers[0]}"
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{name}s {numbers[0]} to {numbers[-1]}"
    return f"{name}s {', '.join(map(str, numbers))}"


# -------------------------------------------------------------------------------- the page
# Everything is placed in inches from the lower left corner, so that text keeps its distance
# whatever the number of panels.


def _page(trace: Trace, title: str, image: int, *, below: float) -> Figure:
    """A figure with a heading and `below` inches under it."""
    prompt = f"“{_item(trace.attrs.get('prompt'), image)}”"
    return page.new(title, [(prompt, INK), " · ".join(_run(trace, image))], below=below)


def how_made(asked: Mapping[str, Any]) -> str:
    """How pictures were made, as a line in a figure's heading.

    Args:
        asked: of `generate`, and ``prompt`` and ``model``. What is not there is not said, nor a
            negative prompt where guidance is 1 and it did nothing.

    Example:
        >>> how_made({"model": "mini", "seed": 7, "steps": 25, "guidance": 5, "negative": "fog"})
        'negative prompt “fog” · mini · seed 7 · steps 25 · guidance 5'
    """
    words = []
    if asked.get("prompt"):
        words.append(f"“{asked['prompt']}”")
    if asked.get("negative") and asked["guidance"] != 1:
        words.append(f"negative prompt “{asked['negative']}”")
    if "model" in asked:
        words.append(asked["model"])
    if "seed" in asked:
        words.append(f"seed {asked['seed']}")
    run = [asked["sampler"]] if "sampler" in asked else []
    run += [f"steps {asked['steps']}"] if "steps" in asked else []
    words += [", ".join(run)] if run else []
    if "guidance" in asked:
        words.append(f"guidance {guidance_text(asked['guidance'])}")
    return " · ".join(words)


def _run(trace: Trace, image: int) -> Iterator[str]:
    """How the picture was made, in a few words each."""
    attrs = trace.attrs
    asked = {key: attrs[key] for key in ("model", "sampler", "steps", "guidance")}
    asked |= {"seed": _item(attrs["seeds"], image), "negative": _item(attrs.get("negative"), image)}
    yield how_made(asked)
    if any("evaluation" in spec.dims for spec in trace.specs.values()):
        yield "first evaluation of each step"
    for edit in attrs.get("edits", ()):
        yield f"edit {edit['name']} at {edit['pattern']}"
    if trace.status != "complete":
        yield f"{trace.status}, complete steps {len(trace.steps)}"


# -------------------------------------------------------------------------------- the trace


def _shown(trace: Trace, names: Sequence[str]) -> list[str]:
    """Those of the sampler's sites that can be shown, of which there must be one."""
    shown = [name for name in names if _whole(trace, f"sampler/{name}")]
    if not shown or not trace.steps:
        raise NotRecorded(
            f'no complete step of {", ".join(names)}: generate with record=["sampler/*"]'
        )
    return shown


def _whole(trace: Trace, site: str) -> bool:
    """Whether a sampler's site was recorded at every place and channel."""
    spec = trace.specs.get(site)
    if spec is None or not spec.per_step:
        return False
    return tuple(dim for dim in spec.dims if dim != "evaluation") == LATENT_DIMS


def _latent(trace: Trace, name: str, step: int, image: int) -> DebugTensor:
    tensor = trace.sel(f"sampler/{name}", step=step, evaluation=0)
    if not 0 <= image < len(tensor):
        raise ValueError(f"no image {image} in this trace, which has {len(tensor)}")
    return tensor.isel(image=image)


def _item(values: Sequence[Any] | None, image: int) -> Any:
    return values[image] if values else ""
