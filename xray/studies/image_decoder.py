"""What the decoder draws from which number: the numbers of `experiments/image_decoder.py`.

data = measure(model, load_image("china", 512, 512))
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import xarray

from xray import pictures
from xray.fidelity import psnr
from xray.pixels import to_uint8
from xray.progress import Report, each
from xray.samplers import initial_noise
from xray.taps import observe

if TYPE_CHECKING:
    from xray.generator import Generator

VALUES = (-3.0, -1.5, 1.5, 3.0)  # of constant latents
IMPULSE = 3.0  # added to the one position
HELD = (0.5, 0.9, 0.99)  # shares of the squared change that a receptive field is to hold
NOISES = 5


def measure(
    model: Generator, pixels: np.ndarray, *, seed: int = 0, progress: Report | None = None
) -> xarray.Dataset:
    """Decode latents that are made to ask the decoder one thing each.

    Args:
        pixels: uint8 (h, w, 3), multiples of 8: the picture whose latent is meddled with.
        seed: of the random latents.
        progress: told ``(done, total)`` in pictures decoded.

    Returns:
        Pictures, uint8 (…, row, column, rgb). ``undisturbed`` (base): a latent of zeros, and the
        picture's. ``constant`` (channel, value): one channel has a value everywhere, the others
        are 0. ``noise`` (source, number): standard normal latents, and the picture's own numbers
        at random places. ``meddled`` (how): the picture's latent with a channel at 0, or turned in
        sign, or two channels swapped, and ``meddled_psnr`` against the undisturbed. ``block``
        (site): after each block, the first three principal components of its channels, and
        ``block_channels``, how many there are.

        ``change`` (base, channel, row, column): what is changed in the picture by one position in
        the middle, if `IMPULSE` is added to it; root mean square over colours, on the decoder's
        scale from −1 to 1. ``held`` (base, channel, share): the side in pixels of the square about
        the position's block which holds such a share of the squared change.
    """
    latent = model.encode(pixels).values[0]
    asked = _latents(latent, seed)
    queue = [(name, z) for name, batch in asked.items() for z in batch.reshape(-1, *latent.shape)]
    decoded: dict[str, list] = {name: [] for name in asked}
    for name, z in each(queue, progress):
        decoded[name].append(model.decoder(z[None])[0])
    floats = {
        name: np.reshape(decoded[name], (*batch.shape[:-3], *pixels.shape))
        for name, batch in asked.items()
    }
    drawn = {name: to_uint8(values) for name, values in floats.items()}
    change = floats["impulse"] - floats["undisturbed"][:, None]
    change = np.sqrt((change**2).mean(-1, dtype=np.float64))
    held = [[_sides(each_, latent.shape[:2]) for each_ in row] for row in change]
    blocks, widths = _blocks(model, latent, len(pixels))

    leading = {
        "undisturbed": ("base",),
        "constant": ("channel", "value"),
        "noise": ("source", "number"),
        "meddled": ("how",),
    }
    image, swaps = ("row", "column", "rgb"), list(_meddled(latent))
    undisturbed = np.broadcast_to(drawn["undisturbed"][1], drawn["meddled"].shape)
    return xarray.Dataset(
        {
            "picture": (image, pixels),
            **{name: ((*dims, *image), drawn[name]) for name, dims in leading.items()},
            "meddled_psnr": ("how", psnr(undisturbed, drawn["meddled"])),
            "change": (("base", "channel", "row", "column"), change),
            "held": (("base", "channel", "share"), np.array(held)),
            "block": (("site", *image), np.stack(list(blocks.values()))),
            "block_channels": ("site", widths),
        },
        {
            "base": ["zeros", "picture"],
            "channel": np.arange(latent.shape[-1]),
            "value": list(VALUES),
            "source": ["standard normal", "shuffled"],
            "how": swaps,
            "share": list(HELD),
            "site": list(blocks),
        },
        {"seed": seed, "factor": pixels.shape[0] // latent.shape[0]},
    )


def _latents(latent: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """What is decoded, by what it asks: (…, y, x, channel), named as `measure` says."""
    zero, channels = np.zeros_like(latent), latent.shape[-1]
    unit = np.eye(channels, dtype=np.float32)
    one = np.zeros((*latent.shape[:2], 1), np.float32)
    one[latent.shape[0] // 2, latent.shape[1] // 2] = IMPULSE
    places, seeds = latent.reshape(-1, channels), range(seed, seed + NOISES)
    normal = [initial_noise(s, latent.shape) for s in seeds]
    shuffled = [np.random.default_rng(s).permutation(places).reshape(latent.shape) for s in seeds]
    return {
        "undisturbed": np.stack([zero, latent]),
        "constant": np.stack([[zero + v * unit[c] for v in VALUES] for c in range(channels)]),
        "impulse": np.stack([[base + one * u for u in unit] for base in (zero, latent)]),
        "noise": np.stack([normal, shuffled]),
        "meddled": np.stack(list(_meddled(latent).values())),
    }


def _meddled(latent: np.ndarray) -> dict[str, np.ndarray]:
    channels, unit = latent.shape[-1], np.eye(latent.shape[-1], dtype=np.float32)
    found = {f"without channel {c}": latent * (1 - unit[c]) for c in range(channels)}
    found |= {f"channel {c} × −1": latent * (1 - 2 * unit[c]) for c in range(channels)}
    for a, b in combinations(range(channels), 2):
        order = list(range(channels))
        order[a], order[b] = b, a
        found[f"channels {a} ↔ {b}"] = latent[..., order]
    return found


def _sides(change: np.ndarray, grid: tuple[int, int]) -> list[int]:
    """Sides of the squares about the middle position's block that hold `HELD` of the change."""
    energy, away = change**2, []
    for size, places in zip(energy.shape, grid, strict=True):
        factor = size // places
        first = places // 2 * factor
        at = np.arange(size)
        # 0 in the block itself, then 1, 2, … pixels away from it.
        away.append(np.maximum(np.maximum(first - at, at - (first + factor - 1)), 0))
    rings = np.bincount(np.maximum.outer(*away).ravel(), energy.ravel()).cumsum()
    reached = np.searchsorted(rings, np.array(HELD) * rings[-1])
    return np.minimum(factor + 2 * reached, max(energy.shape)).tolist()


def _blocks(
    model: Generator, latent: np.ndarray, height: int
) -> tuple[dict[str, np.ndarray], list[int]]:
    """What each block puts out, as pictures by site, and how many channels each has."""
    sites = [
        site
        for site in model.decoder.program([latent[None]]).sites
        if site.endswith("/out") and "/attn." not in site and site != "decoder/out"
    ]
    # Half precision, for at full size the finest levels are hundreds of megabytes.
    _, observed = model.decoder.record([observe(s, dtype="float16") for s in sites], latent[None])
    found, widths = {}, []
    for site in sites:
        values = observed.pop(site)[0]
        factor = height // len(values)
        name = site.removeprefix("decoder/").removesuffix("/out")
        found[name] = pictures.pca(values).repeat(factor, 0).repeat(factor, 1)
        widths.append(values.shape[-1])
    return found, widths


def colours(data: xarray.Dataset) -> dict[str, dict[float, str]]:
    """The mean colour of each constant latent, as ``#rrggbb``, by channel and value."""
    means = np.rint(data["constant"].mean(("row", "column")).values).astype(int)
    return {
        f"channel {c}": {
            v: "#{:02x}{:02x}{:02x}".format(*means[c, k]) for k, v in enumerate(VALUES)
        }
        for c in data.channel.values
    }
