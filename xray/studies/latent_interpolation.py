"""What lies between two noises, two pictures: the numbers of `experiments/latent_interpolation.py`.

noises = between_noises(model, "a red star", (7, 8), frames=7, steps=20)
trips = round_trips(model, pixels, contexts, steps=20, guidance=5.0)
pictures = between_pictures(model, trips, contexts, frames=7, steps=20)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray

from xray.fidelity import psnr
from xray.interpolate import lerp, slerp, walk
from xray.inversion import invert
from xray.pixels import decoded
from xray.samplers import initial_noise
from xray.stats import cosine, rms
from xray.studies.text_interpolation import at_once, pictures

if TYPE_CHECKING:
    from xray.generator import Generator

Tick = Callable[..., object]
WAYS = {"lerp": lerp, "slerp": slerp}
AT_ONCE = 2  # pictures in a batch, both ends of a way: every network is then traced for one size
PLAIN = "1, back at 1"  # the round trip without guidance
SPACING = "trailing"  # all round trips go to the noisiest timestep: leading would stop short of it


# -------------------------------------------------------------------------------------- two noises


def between_noises(
    model: Generator,
    prompt: str,
    seeds: tuple[int, int],
    *,
    frames: int,
    tick: Tick = lambda *_: None,
    width: int | None = None,
    height: int | None = None,
    **asked: Any,
) -> xarray.Dataset:
    """Pictures of one prompt from the noises between two seeds' noises, by both ways.

    Args:
        model: with a tokenizer.
        prompt: one for all.
        seeds: of the noises at the ends.
        frames: on each way, with both ends; at least three.
        tick: called after each sampler step of each batch; `ticks` says how often in all.
        width, height: of the pictures, multiples of 64.
        **asked: of `Generator.generate`.

    Returns:
        By (way, frame): ``start_norm``, of the noise over √n, where independent standard normal
        numbers have 1; ``closed_form``, what it is to be: `lerp_norm`, and for slerp the straight
        line from one norm to the other; ``noise_image`` (…, y, x, rgb) uint8; and ``detail`` of
        the picture. ``t`` (frame). The attribute ``cosine`` is that of the noises at the ends.

    Raises:
        ValueError: fewer than three frames, or as `generate`.
    """
    if frames < 3:
        raise ValueError(f"between two noises there is nothing to see in {frames} frames; give 3")
    t, (width, height) = np.linspace(0, 1, frames), model.architecture.sides(width, height)
    shape = (height // 8, width // 8, 4)
    ends = [initial_noise(seed, shape) for seed in seeds]
    starts = np.stack([walk(ends, frames, between=way) for way in WAYS.values()])
    # Both ways have their ends in common; these are drawn once.
    flat = np.concatenate([starts[0], starts[1, 1:-1]])
    where = np.stack([np.arange(frames), np.r_[0, frames : len(flat), frames - 1]])
    contexts = np.repeat(model.embed(prompt).values, len(flat), axis=0)
    _, images = pictures(model, contexts, flat, most=AT_ONCE, tick=tick, **asked)
    by = ("way", "frame")
    norms = np.linalg.norm(starts.reshape(len(WAYS), frames, -1), axis=-1) / np.prod(shape) ** 0.5
    a, b = norms[0, [0, -1]]
    between = float(cosine(*ends))
    closed = np.stack([lerp_norm(t, a, b, between), (1 - t) * a + t * b])
    return xarray.Dataset(
        {
            "start_norm": (by, norms),
            "closed_form": (by, closed),
            "noise_image": ((*by, "y", "x", "rgb"), images[where]),
            "detail": (by, detail(images)[where]),
        },
        {"way": list(WAYS), "t": ("frame", t)},
        {"cosine": between},
    )


def lerp_norm(t: Any, first: float = 1.0, second: float = 1.0, cos: float = 0.0) -> np.ndarray:
    """The norm of (1 − t) a + t b: √((1−t)² |a|² + t² |b|² + 2 t (1−t) |a| |b| cos).

    Two noises of many numbers are nearly at right angles and of one norm, so that their mean has
    √½ of it.

    Args:
        t: 0 … 1.
        first, second: the norms of a and b.
        cos: of the angle between them.

    Example:
        >>> float(lerp_norm(0.5).round(4))
        0.7071
    """
    a, b = (1 - np.asarray(t)) * first, np.asarray(t) * second
    return np.sqrt(a**2 + b**2 + 2 * a * b * cos)


def detail(images: np.ndarray) -> np.ndarray:
    """Root mean square difference of neighbouring pixels, 0 … 255: (…, y, x, 3) → (…)."""
    values = images.astype(np.float64)
    square = [np.square(np.diff(values, axis=axis)).mean((-3, -2, -1)) for axis in (-3, -2)]
    return np.sqrt(np.mean(square, axis=0))


# ------------------------------------------------------------------------------------ two pictures


def round_trips(
    model: Generator,
    pixels: np.ndarray,
    contexts: np.ndarray,
    *,
    steps: int,
    guidance: float,
    tick: Tick = lambda *_: None,
) -> xarray.Dataset:
    """Pictures inverted to noise and drawn from it again, in more and more steps.

    Args:
        model: any.
        pixels: (end, y, x, 3) uint8.
        contexts: (end, token, channel), what is in each picture.
        steps: of the trip whose noise and pictures are kept; others have a fourth, half and twice
            as many, the guided ones at most these.
        guidance: of those trips that have any; 1 for none.
        tick: called after each step of each batch.

    Returns:
        ``original`` (end, y, x, rgb) and ``latent`` (end, row, column, channel) of the pictures;
        ``error`` (trip, trip_steps, end), rms(back − latent) / rms(latent), NaN where none was
        made. Of the trips in `steps` ``inverted`` (trip, end, row, column, channel), the noise, and
        ``back`` (trip, end, y, x, rgb). ``trip`` says the guidance on both ways.
    """
    latent = np.concatenate([model.encode(each).values for each in pixels])
    trips = {PLAIN: (1.0, 1.0)}
    if guidance != 1:
        trips |= {f"1, back at {guidance:g}": (1.0, guidance)}
        trips |= {f"{guidance:g}, back at {guidance:g}": (guidance, guidance)}
    every, rows = ladder(steps), at_once(model, len(latent), *pixels.shape[2:0:-1], AT_ONCE)
    error = np.full((len(trips), len(every), len(latent)), np.nan)
    noises: dict[tuple[float, int], np.ndarray] = {}
    backs = {}
    for trip, (up, down) in trips.items():
        for column, count in enumerate(every):
            if count > steps and trip != PLAIN:
                continue
            if (up, count) not in noises:
                asked = {"steps": count, "guidance": up, "spacing": SPACING, "progress": tick}
                noises[up, count] = np.concatenate(
                    [
                        invert(model, latent[i : i + rows], list(contexts[i : i + rows]), **asked)
                        for i in range(0, len(latent), rows)
                    ]
                )
            asked = {"steps": count, "guidance": down, "spacing": SPACING, "tick": tick}
            made, images = pictures(model, contexts, noises[up, count], most=AT_ONCE, **asked)
            error[list(trips).index(trip), column] = rms(made - latent) / rms(latent)
            if count == steps:
                backs[trip] = images
    inverted = [noises[up, steps] for up, _ in trips.values()]
    grid, picture = ("row", "column", "channel"), ("y", "x", "rgb")
    return xarray.Dataset(
        {
            "original": (("end", *picture), pixels),
            "latent": (("end", *grid), latent),
            "inverted": (("trip", "end", *grid), np.stack(inverted)),
            "back": (("trip", "end", *picture), np.stack(list(backs.values()))),
            "error": (("trip", "trip_steps", "end"), error),
        },
        {"trip": list(trips), "trip_steps": every},
    )


def between_pictures(
    model: Generator,
    trips: xarray.Dataset,
    contexts: np.ndarray,
    *,
    frames: int,
    steps: int,
    tick: Tick = lambda *_: None,
) -> xarray.Dataset:
    """Pictures between two pictures: of the latents between theirs, and of the noises.

    Args:
        model: any.
        trips: from `round_trips`, of two pictures.
        contexts: (2, token, channel), what is in each; on the way between them, a straight line.
        frames: with both ends.
        steps: of the sampler, without guidance.

    Returns:
        ``encoded`` and ``inverted_image`` (frame, y, x, rgb): the decoded straight line between the
        latents, and what is drawn from the circle between the noises. ``fade`` (frame): PSNR of
        ``encoded`` against the two decoded pictures faded into each other, in dB.
    """
    line = walk(trips["latent"].values, frames, between=lerp)
    encoded = np.stack(decoded(model, line))
    t = np.linspace(0, 1, frames)[:, None, None, None]
    faded = np.rint((1 - t) * encoded[0] + t * encoded[-1]).astype(np.uint8)
    noises = walk(trips["inverted"].sel(trip=PLAIN).values, frames, between=slerp)
    told = walk(contexts, frames, between=lerp)
    asked = {"steps": steps, "guidance": 1.0, "spacing": SPACING, "tick": tick}
    _, images = pictures(model, told, noises, most=AT_ONCE, **asked)
    picture = ("frame", "y", "x", "rgb")
    return xarray.Dataset(
        {
            "encoded": (picture, encoded),
            "inverted_image": (picture, images),
            "fade": ("frame", psnr(encoded, faded)),
        }
    )


def ladder(steps: int) -> list[int]:
    """How many steps the round trips have: a fourth, half, all and twice as many."""
    return sorted({max(1, steps // 4), max(1, steps // 2), steps, min(2 * steps, 1000)})


def ticks(model: Generator, *, frames: int, steps: int, guidance: float, size: Any) -> int:
    """How often all three call `tick`, for pictures of `size`, (width, height)."""

    def batches(total: int) -> int:
        return -(-total // at_once(model, total, *size, AT_ONCE))

    every = ladder(steps)
    plain = 2 * sum(every)
    guided = 3 * sum(n for n in every if n <= steps) if guidance != 1 else 0
    noises, between = batches(2 * frames - 2), batches(frames)
    return (noises + between) * steps + (plain + guided) * batches(2)


# ------------------------------------------------------------------------------------- findings


def findings(data: xarray.Dataset) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The numbers that say most, of the merged data.

    Returns:
        For each way between noises the norm at the middle frame, which is at ``t``, what it is to
        be by the closed form, and the detail there over its mean at the ends. For each round trip
        the error by steps, mean of both pictures, and the standard deviation of the noise in
        between.
    """
    middle = data.sizes["frame"] // 2
    ways = []
    for way in data["way"].values:
        own = data.sel(way=way)
        ends = float(own["detail"][[0, -1]].mean())
        ways.append(
            {
                "way": str(way),
                "t": float(own["t"][middle]),  # not ½ where frames are even in number
                "norm": float(own["start_norm"][middle]),
                "closed form": float(own["closed_form"][middle]),
                "detail": float(own["detail"][middle]),
                "of the ends'": float(own["detail"][middle]) / ends if ends else float("nan"),
            }
        )
    trips = []
    for trip in data["trip"].values:
        own = data.sel(trip=trip)
        errors = own["error"].mean("end").values.tolist()
        steps = data["trip_steps"].values.tolist()
        row = {"guidance": str(trip), "noise std": float(own["inverted"].std())}
        error = {f"error in {n} steps": e for n, e in zip(steps, errors, strict=True)}
        trips.append(row | {name: None if np.isnan(e) else e for name, e in error.items()})
    return ways, trips
