"""Starting from something: a picture with noise, a recorded step, a latent changed by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray

from xray.samplers import initial_noise
from xray.taps import Context, Edit, edit

if TYPE_CHECKING:
    from xray.generator import Generator
    from xray.trace import Trace

Tick = Callable[..., None]
PICTURE = ("pixel_y", "pixel_x", "rgb")


def distance(pictures: Any, other: Any, where: np.ndarray | None = None) -> np.ndarray:
    """Root mean square of the difference of pictures (…, y, x, 3) uint8, 0 … 1.

    Args:
        where: bool (y, x); by default everywhere.
    """
    gap = (np.asarray(pictures, np.float64) - np.asarray(other, np.float64)) / 255
    square = (gap**2).mean(axis=-1)
    chosen = np.ones(square.shape[-2:], bool) if where is None else where
    return np.sqrt(square[..., chosen].mean(axis=-1))


# ------------------------------------------------------------------------------------- strength


def by_strength(
    model: Generator,
    prompt: str,
    pixels: np.ndarray,
    strengths: Sequence[float],
    tick: Tick = lambda *_: None,
    **asked: Any,
) -> xarray.Dataset:
    """A picture noised to several steps of a run, and what the run makes of it from there.

    Args:
        pixels: (y, x, 3) uint8.
        strengths: shares of the run that are left to do, above 0 … 1.
        tick: called after every step.
        **asked: of `generate`; ``steps``, ``seed`` and ``spacing`` also of `Generator.noised`.

    Returns:
        ``original`` and ``roundtrip`` (pixel_y, pixel_x, rgb), the picture and what the
        autoencoder alone makes of it; by ``strength``: ``start`` (y, x, channel), the latent it
        starts from, ``made``, the picture, and ``changed``, its `distance` from the original.

    Reference:
        Meng et al. 2022, "SDEdit".
    """
    noising = {name: asked[name] for name in ("steps", "seed", "spacing") if name in asked}
    starts = [model.noised(pixels, strength, **noising) for strength in strengths]
    made = [
        model.generate(prompt, latent=latent, start_step=step, record=[], progress=tick, **asked)[
            "image"
        ].values[0]
        for latent, step in starts
    ]
    return xarray.Dataset(
        {
            "original": (PICTURE, pixels),
            "roundtrip": (PICTURE, np.asarray(model.decode(model.encode(pixels))[0])),
            "start": (
                ("strength", "y", "x", "channel"),
                np.concatenate([latent for latent, _ in starts]),
            ),
            "made": (("strength", *PICTURE), np.stack(made)),
            "changed": ("strength", distance(made, pixels)),
        },
        coords={"strength": list(strengths)},
    )


# --------------------------------------------------------------------------------- another course


def resumed(
    model: Generator,
    runs: Mapping[str, tuple[Trace, Mapping[str, Any]]],
    steps: Sequence[int],
    tick: Tick = lambda *_: None,
) -> xarray.Dataset:
    """Recorded runs taken up again at several steps, with something changed from there on.

    Args:
        runs: for each name a run with ``sampler/latent`` and what is asked of
            `Generator.resume` in place of what was asked then.
        steps: to take them up at.

    Returns:
        ``whole`` (change, pixel_y, pixel_x, rgb), the runs' own pictures; ``resumed`` (change,
        from_step, …); and ``departed`` (change, from_step), the `distance` between the two: how
        much could still change.
    """
    whole = np.stack([trace["image"].values[0] for trace, _ in runs.values()])
    made = np.stack(
        [
            [
                model.resume(trace, step, record=[], progress=tick, **changes)["image"].values[0]
                for step in steps
            ]
            for trace, changes in runs.values()
        ]
    )
    return xarray.Dataset(
        {
            "whole": (("change", *PICTURE), whole),
            "resumed": (("change", "from_step", *PICTURE), made),
            "departed": (("change", "from_step"), distance(made, whole[:, None])),
        },
        coords={"change": list(runs), "from_step": list(steps)},
    )


# -------------------------------------------------------------------------- latents changed by hand


def mirrored(latent: np.ndarray) -> np.ndarray:
    """(…, y, x, channel): the right half is the left one's mirror image."""
    left = latent[..., : latent.shape[-2] // 2, :]
    return np.concatenate([left, left[..., ::-1, :]], axis=-2)


def tiled(latent: np.ndarray) -> np.ndarray:
    """(…, y, x, channel): the upper left quarter, four times."""
    quarter = latent[..., : latent.shape[-3] // 2, : latent.shape[-2] // 2, :]
    return np.concatenate([np.concatenate([quarter] * 2, axis=-2)] * 2, axis=-3)


def shifted(latent: np.ndarray) -> np.ndarray:
    """(…, y, x, channel): moved by half of its width; what leaves on the right enters left."""
    return np.roll(latent, latent.shape[-2] // 2, axis=-2)


OPERATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mirrored": mirrored,
    "tiled": tiled,
    "shifted": shifted,
}


def operated(
    model: Generator, trace: Trace, steps: Sequence[int], tick: Tick = lambda *_: None
) -> xarray.Dataset:
    """A run taken up at several steps with its latent mirrored, tiled or shifted.

    Returns:
        ``operated`` (operation, from_step, pixel_y, pixel_x, rgb), and ``differs`` (operation,
        from_step): the `distance` of the picture from the same operation done to the whole run's
        picture. 0 would be a run to which the operation is all the same.
    """
    whole = trace["image"].values[0]
    made = np.stack(
        [
            [
                model.resume(
                    trace,
                    step,
                    latent=operation(trace.sel("sampler/latent", step=step, evaluation=0).values),
                    record=[],
                    progress=tick,
                )["image"].values[0]
                for step in steps
            ]
            for operation in OPERATIONS.values()
        ]
    )
    differs = [distance(made[i], each(whole)) for i, each in enumerate(OPERATIONS.values())]
    return xarray.Dataset(
        {
            "operated": (("operation", "from_step_operated", *PICTURE), made),
            "differs": (("operation", "from_step_operated"), np.stack(differs)),
        },
        coords={"operation": list(OPERATIONS), "from_step_operated": list(steps)},
    )


# -------------------------------------------------------------------------------------- inpainting


def inpaint(model: Generator, original: np.ndarray, mask: np.ndarray, seed: int) -> Edit:
    """An edit that gives a run the noised original outside a mask, at every step.

    Args:
        original: (1, y, x, channel), a clean latent, from `Generator.encode`.
        mask: bool (y, x) of the latent, true where the run may paint.
        seed: of the noise on the original, always the same, so that it stays on one path.

    Reference:
        Song et al. 2021, "Score-Based Generative Modeling", appendix I; as in RePaint (Lugmayr et
        al. 2022) without its resampling.

    Example:
        >>> model.generate("a red house", edit=inpaint(model, latent, mask, seed=7), seed=7)
    """

    def keep_outside(x: Any, context: Context, *, mask: Any, original: Any, noise: Any) -> Any:
        known = model.schedule.add_noise(original, noise, float(context.timestep))
        return np.where(mask[..., None], x, known)

    noise = initial_noise(seed, original.shape[1:])
    return edit("sampler/latent", keep_outside, mask=mask, original=original, noise=noise)


def painted(
    model: Generator,
    prompt: str,
    pixels: np.ndarray,
    mask: np.ndarray,
    seeds: Sequence[int],
    tick: Tick = lambda *_: None,
    **asked: Any,
) -> xarray.Dataset:
    """A picture painted anew inside a mask.

    Args:
        pixels: (y, x, 3) uint8.
        mask: bool (y, x), from `xray.masks.read_mask`.
        seeds: one picture for each.

    Returns:
        ``mask``; ``masked``, the original without what is inside; by ``seed``: ``painted``, the
        pictures, ``inside`` and ``outside``, their `distance` from the original there; and
        ``autoencoder``, that of the original encoded and decoded, outside: what no mask can keep.
    """
    original = model.encode(pixels).values
    latent_mask = mask[::8, ::8]
    made = np.stack(
        [
            model.generate(
                prompt,
                edit=inpaint(model, original, latent_mask, seed),
                record=[],
                progress=tick,
                **{**asked, "seed": seed},
            )["image"].values[0]
            for seed in seeds
        ]
    )
    roundtrip = np.asarray(model.decode(original)[0])
    return xarray.Dataset(
        {
            "mask": (PICTURE[:2], mask),
            "masked": (PICTURE, np.where(mask[..., None], np.uint8(128), pixels)),
            "painted": (("seed", *PICTURE), made),
            "inside": ("seed", distance(made, pixels, mask)),
            "outside": ("seed", distance(made, pixels, ~mask)),
            "autoencoder": ((), distance(roundtrip, pixels, ~mask)),
        },
        coords={"seed": list(seeds)},
    )


def findings(data: xarray.Dataset) -> dict[str, float]:
    """Every distance in the merged data, by what it is."""
    found = {
        f"strength {float(s):g}": float(data["changed"].sel(strength=s)) for s in data.strength
    }
    for change in data["change"].values:
        for step in data["from_step"].values:
            each = data["departed"].sel(change=change, from_step=step)
            found[f"{change} from step {step}"] = float(each)
    found["painted: inside"] = float(data["inside"].mean())
    found["painted: outside"] = float(data["outside"].mean())
    return found | {"the autoencoder alone, outside": float(data["autoencoder"])}
