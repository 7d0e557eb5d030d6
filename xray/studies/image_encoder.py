"""What the encoder keeps of a picture: the numbers of `experiments/image_encoder.py`.

data = measure(model, load_image("china", 512, 512))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray

from xray import pictures, stats
from xray.fidelity import psnr
from xray.pixels import LUMA
from xray.progress import Report, each

if TYPE_CHECKING:
    from xray.generator import Generator

# Of the block of pixels that a position of the latent stands for.
PROPERTIES = (
    "brightness",
    "red vs green",
    "blue vs yellow",
    "detail",
    "brighter right",
    "brighter below",
)
NUMBERS = ("mean", "std", "skewness", "kurtosis", "ks", "posterior_std", "signal_to_noise")


def measure(
    model: Generator, pixels: np.ndarray, *, seed: int = 0, progress: Report | None = None
) -> xarray.Dataset:
    """Encode a picture, look at its latent from all sides, and decode it again.

    Args:
        pixels: uint8 (h, w, 3), multiples of 8.
        seed: of the sample of the posterior.
        progress: told ``(done, total)`` in pictures decoded.

    Returns:
        By position (y, x, channel): ``mean``, ``std`` and ``sample`` of the posterior. Pictures,
        uint8 (row, column, rgb): ``picture``, ``decoded``, ``decoded_sample``, and
        ``latent_colour``, one pixel a position. By channel: what `stats.normality` says of the
        mean, ``channel_mean`` to ``channel_ks``; ``channel_posterior_std``, root mean square; and
        ``channel_signal_to_noise``, variance of the mean over that of the posterior, in dB. Also
        ``correlation`` between channels over positions, and ``picture_correlation`` of each
        channel with `PROPERTIES` of the block of pixels that a position stands for. Attributes:
        ``psnr`` and ``psnr_sample`` in dB, and ``colour_r2``, how much of the blocks' mean
        colours a linear function of the four numbers explains.
    """
    mean, std = model.posterior(pixels)
    sample = model.encode(pixels, sample_seed=seed)
    decoded, decoded_sample = (
        np.asarray(model.decode(z)[0]) for z in each((mean, sample), progress)
    )
    matrix = model.rgb_matrix
    latent = mean.values[0]

    channels = latent.shape[-1]
    normality = [stats.normality(latent[..., c]) for c in range(channels)]
    noise = np.sqrt((std.values[0].astype(np.float64) ** 2).mean((0, 1)))
    with np.errstate(divide="ignore"):
        signal_to_noise = 20 * np.log10([n["std"] for n in normality] / noise)
    by_channel = {name: [n[name] for n in normality] for name in normality[0]}
    by_channel |= {"posterior_std": noise, "signal_to_noise": signal_to_noise}

    image, place = ("row", "column", "rgb"), ("y", "x", "channel")
    blocks = _properties(pixels, latent.shape[0])
    return xarray.Dataset(
        {
            "mean": (place, latent),
            "std": (place, std.values[0]),
            "sample": (place, sample.values[0]),
            "picture": (image, pixels),
            "decoded": (image, decoded),
            "decoded_sample": (image, decoded_sample),
            "latent_colour": (("y", "x", "rgb"), pictures.latent_colours(latent, matrix)),
            **{f"channel_{k}": ("channel", np.asarray(v)) for k, v in by_channel.items()},
            "correlation": (("channel", "other"), _correlation(latent, latent)),
            "picture_correlation": (("channel", "property"), _correlation(latent, blocks)),
        },
        {"channel": np.arange(channels), "property": list(PROPERTIES)},
        {
            "psnr": float(psnr(pixels[None], decoded[None])[0]),
            "psnr_sample": float(psnr(pixels[None], decoded_sample[None])[0]),
            "colour_r2": _colour_r2(latent, pixels),
            "colour_by": "principal components" if matrix is None else "the model’s matrix",
        },
    )


def _properties(pixels: np.ndarray, height: int) -> np.ndarray:
    """`PROPERTIES` of each block, (y, x, property)."""
    factor = pixels.shape[0] // height
    blocks = _blocks(pixels / 255.0, factor)
    red, green, blue = np.moveaxis(blocks, -1, 0)
    light = blocks @ LUMA  # (y, x, factor, factor)
    half = factor // 2
    found = [
        light.mean((2, 3)),
        (red - green).mean((2, 3)),
        (blue - (red + green) / 2).mean((2, 3)),
        light.std((2, 3)),
        (light[..., half:] - light[..., :half]).mean((2, 3)),
        (light[..., half:, :] - light[..., :half, :]).mean((2, 3)),
    ]
    return np.stack(found, axis=-1)


def _blocks(pixels: np.ndarray, factor: int) -> np.ndarray:
    """(h, w, 3) → (y, x, row, column, 3)."""
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    return pixels.reshape(height, factor, width, factor, 3).swapaxes(1, 2)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each channel of a with each of b over positions; NaN where one of them is constant."""
    unit = []
    for values in (a, b):
        flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
        centred = flat - flat.mean(axis=0)
        lengths = np.linalg.norm(centred, axis=0)
        lengths[lengths <= 1e-9 * np.linalg.norm(flat, axis=0)] = np.nan  # only rounding is left
        unit.append(centred / lengths)
    return unit[0].T @ unit[1]


def _colour_r2(latent: np.ndarray, pixels: np.ndarray) -> float:
    """R² of the least-squares guess of each block's mean colour from its numbers."""
    colours = _blocks(pixels / 127.5 - 1, pixels.shape[0] // latent.shape[0]).mean((2, 3))
    matrix = pictures.fit_rgb_matrix(latent[None], pixels[None]).astype(np.float64)
    left = ((colours - (latent @ matrix[:-1] + matrix[-1])) ** 2).sum()
    spread = ((colours - colours.mean((0, 1))) ** 2).sum()
    return float(1 - left / spread) if spread > 1e-9 else float("nan")
