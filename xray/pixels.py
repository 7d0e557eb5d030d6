"""Pictures as people have them and as the autoencoder takes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.batch import numbers
from xray.progress import counted

if TYPE_CHECKING:
    from xray.generator import Generator

LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue: ITU-R BT.601


def pixels_of(image: Any) -> np.ndarray:
    """Pictures as the encoder takes them: (n, h, w, 3) float32 in [-1, 1].

    Raises:
        ValueError: not three channels, sides not multiples of 8, floats beyond [-1, 1], NaN.
    """
    if hasattr(image, "convert"):
        image = image.convert("RGB")
    pixels = np.asarray(image)
    if pixels.ndim == 3:
        pixels = pixels[None]
    if pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise ValueError(f"a picture is (h, w, 3) or (n, h, w, 3), got shape {pixels.shape}")
    height, width = pixels.shape[1:3]
    if height % 8 or width % 8:
        raise ValueError(f"height and width must be multiples of 8, got {height}×{width}")
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / 127.5 - 1.0
    pixels = pixels.astype(np.float32)
    if not np.abs(pixels).max() <= 1.0:
        raise ValueError("a picture of floats must lie in [-1, 1] and hold no NaN")
    return pixels


def decoded(model: Generator, latents: Iterable[Any]) -> list[np.ndarray]:
    """Each latent as pixels, uint8 (y, x, 3), one after the other, with a bar on a terminal.

    Not in a batch: a decoder's feature maps are hundreds of times as large as a latent.

    Example:
        >>> decoded(model, trace["sampler/denoised"].values)
    """
    latents = list(latents)
    with counted("decoding", len(latents)) as tick:
        found = []
        for latent in latents:
            found.append(np.asarray(model.decode(latent)[0]))
            tick()
    return found


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Decoder output, about [-1, 1] → 0 … 255, clipped and rounded.

    Raises:
        FloatingPointError: it holds NaN or infinity, which would be painted black or white.
    """
    numbers("the decoder's output", pixels, FloatingPointError)
    return np.rint(np.clip((pixels + 1.0) * 127.5, 0, 255)).astype(np.uint8)
