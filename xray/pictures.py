"""Arrays of numbers as small pictures, in NumPy and Pillow only.

`rgb`, `pca`, `channels` and `grey` turn numbers into colours over arrays of any leading dimensions;
`grid` and `lay_out` put pictures side by side; `enlarge` makes the Pillow image.
NaN is painted magenta, which no map here uses: a hole must not look like a value.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import PIL.Image

MISSING = (255, 0, 255)
GAP = (255, 255, 255)
SMALLEST_SIDE = 128  # pixels; smaller pictures are enlarged to it
MOST_PIXELS = 1 << 26


def rgb(values: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Latents as colours: every pixel's channels times a matrix.

    Args:
        values: (..., y, x, channel), the latents; or three channels that are colours already,
            uint8 or float in [-1, 1], when `matrix` is None.
        matrix: (channel + 1, 3), from channels to red, green and blue in [-1, 1]; the last row
            is added to every pixel.

    Returns:
        uint8 (..., y, x, 3).
    """
    if matrix is None and values.dtype == np.uint8:
        return values
    values = values.astype(np.float64)
    with np.errstate(invalid="ignore"):  # an infinity times zero is NaN, and painted as such
        colours = values if matrix is None else values @ matrix[:-1] + matrix[-1]
    return _to_bytes((colours + 1) / 2)


def pca(values: np.ndarray) -> np.ndarray:
    """Feature maps as colours: the first three principal components over all positions.

    The components are red, green and blue around mid grey, on one scale, so that a component
    that explains little also looks faint. A component's sign is arbitrary; it is chosen such
    that the position farthest from the mean is bright.

    Args:
        values: (..., y, x, channel). Positions with a NaN or an infinity are left out.

    Returns:
        uint8 (..., y, x, 3).
    """
    flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
    good = np.isfinite(flat).all(axis=1)
    components = np.full((len(flat), 3), np.nan)
    # A decoder's finest level is half a gigabyte: no copy where nothing is left out.
    components[good] = _principal_components(flat if good.all() else flat[good])
    colours = 0.5 + 0.5 * components / _extent(components[good])
    return _to_bytes(colours).reshape(*values.shape[:-1], 3)


def latent_colours(latent: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Latents as colours: by the model's ``rgb_matrix``, or by `pca` for a model without one.

    Args:
        latent: (..., y, x, channel).
        matrix: as for `rgb`.

    Returns:
        uint8 (..., y, x, 3).
    """
    return pca(latent) if matrix is None else rgb(latent, matrix)


def _principal_components(rows: np.ndarray) -> np.ndarray:
    """(position, channel) → (position, 3): projections, 0 where there are fewer than three.

    The rows, float64, are centred in place.
    """
    found = np.zeros((len(rows), 3))
    if len(rows) == 0:
        return found
    rows -= rows.mean(axis=0)
    # The smaller of the two Gram matrices has the same spectrum at a fraction of an SVD's cost.
    if len(rows) < rows.shape[1]:
        strength, vectors = np.linalg.eigh(rows @ rows.T)
        projections = vectors * np.sqrt(np.maximum(strength, 0))
    else:
        projections = rows @ np.linalg.eigh(rows.T @ rows)[1]
    projections = projections[:, ::-1][:, :3]  # eigh sorts upwards
    farthest = np.abs(projections).argmax(axis=0)
    sign = np.where(projections[farthest, np.arange(projections.shape[1])] < 0, -1.0, 1.0)
    found[:, : projections.shape[1]] = projections * sign
    return found


def grey(values: np.ndarray) -> np.ndarray:
    """Numbers as grey levels on one scale for the whole array.

    If anything is negative, the scale is symmetric: 0 is mid grey, and white and black are plus
    and minus the magnitude that 99.5 % of the values stay below, or a tenth of the largest if
    that is more: some activations exceed all others a hundredfold and would leave the rest grey.
    Otherwise (weights, masks) 0 is black and the largest value white.

    Args:
        values: (..., y, x), any real type.

    Returns:
        uint8 (..., y, x, 3).
    """
    values = values.astype(np.float64)
    good = values[np.isfinite(values)]
    if (values < 0).any():
        level = 0.5 + 0.5 * values / _extent(good)
    else:
        level = values / (good.max(initial=0.0) or 1.0)
    return _to_bytes(np.repeat(level[..., None], 3, axis=-1))


def channels(values: np.ndarray) -> np.ndarray:
    """Feature maps as a grid of `grey` maps on one scale, about as many across as down.

    Args:
        values: (..., y, x, channel).

    Returns:
        uint8 (..., y', x', 3), where y' and x' hold the whole grid.
    """
    maps = np.moveaxis(grey(np.moveaxis(values, -1, 0)), 0, -4)
    *outer, count, height, width, _ = maps.shape
    columns = math.ceil(math.sqrt(count))
    grids = [grid(each, columns) for each in maps.reshape(-1, count, height, width, 3)]
    return np.stack(grids).reshape(*outer, *grids[0].shape)


def _extent(values: np.ndarray) -> float:
    """The magnitude to show as full contrast; see `grey`."""
    magnitudes = np.abs(values)
    largest = magnitudes.max(initial=0.0)
    if largest == 0:
        return 1.0
    return float(max(np.percentile(magnitudes, 99.5, method="higher"), largest / 10))


def _to_bytes(colours: np.ndarray) -> np.ndarray:
    """(..., 3) in [0, 1] to uint8, cut off outside, with NaN painted over."""
    missing = np.isnan(colours).any(axis=-1)
    colours = np.where(missing[..., None], 0.0, colours)
    pixels = np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)
    pixels[missing] = MISSING
    return pixels


def grid(pictures: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """uint8 (picture, y, x, 3) → one (y, x, 3), row by row, with white lines between."""
    count, height, width, _ = pictures.shape
    rows = math.ceil(count / columns)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, 3)
    if shape[0] * shape[1] > MOST_PIXELS:
        raise ValueError(
            f"a picture of {shape[1]}×{shape[0]} pixels is too large to look at "
            f"(limit {MOST_PIXELS}): choose fewer maps first, with sel() or isel()"
        )
    canvas = np.full(shape, GAP, np.uint8)
    for index in range(count):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[top : top + height, left : left + width] = pictures[index]
    return canvas


def lay_out(pictures: np.ndarray) -> np.ndarray:
    """uint8 (..., y, x, 3) → one (y, x, 3): the last leading dimension across, others down."""
    *outer, height, width, _ = pictures.shape
    if not outer:
        return pictures
    return grid(pictures.reshape(-1, height, width, 3), columns=outer[-1], gap=2)


def enlarge(picture: np.ndarray, scale: int | None = None) -> PIL.Image.Image:
    """uint8 (y, x, 3) → an image, every pixel a square of `scale` pixels.

    Without `scale`, the smallest whole number that makes the shorter side 128 pixels.
    """
    import PIL.Image

    height, width, _ = picture.shape
    if scale is None:
        scale = math.ceil(SMALLEST_SIDE / min(height, width))
    elif scale < 1 or scale != int(scale):
        raise ValueError(f"scale must be a whole number of at least 1, not {scale!r}")
    size = (width * int(scale), height * int(scale))
    return PIL.Image.fromarray(picture).resize(size, PIL.Image.Resampling.NEAREST)


def resize_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bring a mask to another resolution, each side by a whole factor.

    Args:
        mask: bool (y, x).
        shape: (y, x) to reach.

    Returns:
        bool of `shape`. Made smaller, a place is inside if at least half of its block was; made
        larger, every place is repeated.

    Raises:
        ValueError: if a side is neither a multiple nor a divisor of the side asked for.
    """
    weights = mask.astype(np.float64)
    for axis, (have, want) in enumerate(zip(mask.shape, shape, strict=True)):
        if have and want and have % want == 0:
            split = [*weights.shape[:axis], want, have // want, *weights.shape[axis + 1 :]]
            weights = weights.reshape(split).mean(axis=axis + 1)
        elif have and want and want % have == 0:
            weights = weights.repeat(want // have, axis=axis)
        else:
            raise ValueError(
                f"a mask of {mask.shape[0]}×{mask.shape[1]} does not fit {shape[0]}×{shape[1]}: "
                "each side must be a whole multiple of the other's, or the reverse"
            )
    return weights >= 0.5


def fit_rgb_matrix(latents: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The matrix that best guesses an autoencoder's pictures from its latents, pixel by pixel.

    Each latent pixel's channels and a constant are fitted by least squares to the mean colour of
    the block of picture pixels it stands for. Crude, but instant and good enough to watch a
    latent come into being.

    Args:
        latents: float (image, y, x, channel), scaled as the U-Net sees them.
        images: (image, factor · y, factor · x, 3), the pictures they were encoded from; uint8,
            or float in [-1, 1]. For Stable Diffusion the factor is 8.

    Returns:
        float32 (channel + 1, 3), (5, 3) for Stable Diffusion: one row per channel and one to add.

    Raises:
        ValueError: if the shapes do not belong together, or the pixels are too few to fit.

    Example:

    ```python
    matrix = fit_rgb_matrix(model.encode(images).values, images)
    trace["sampler/latent"].isel(step=-1).image("rgb", matrix=matrix)
    ```
    """
    latents, images = np.asarray(latents), np.asarray(images)
    if latents.ndim != 4 or images.ndim != 4:
        raise ValueError(
            "expected latents (image, y, x, channel) and images (image, y, x, 3), "
            f"got shapes {latents.shape} and {images.shape}"
        )
    count, height, width, channels = latents.shape
    factor = images.shape[1] // height if height else 0
    if not factor or images.shape != (count, height * factor, width * factor, 3):
        raise ValueError(
            f"images of shape {images.shape} are not whole blocks of pixels for latents of shape "
            f"{latents.shape}: expected ({count}, {height}·k, {width}·k, 3), with one whole k"
        )
    if count * height * width < channels + 1:
        raise ValueError(
            f"{count * height * width} latent pixels cannot determine {channels + 1} rows: "
            "give more or larger pictures"
        )
    pixels = images.astype(np.float64)
    if images.dtype == np.uint8:
        pixels = pixels / 127.5 - 1
    blocks = pixels.reshape(count, height, factor, width, factor, 3).mean(axis=(2, 4))
    rows = latents.reshape(-1, channels).astype(np.float64)
    rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    return np.linalg.lstsq(rows, blocks.reshape(-1, 3), rcond=None)[0].astype(np.float32)
