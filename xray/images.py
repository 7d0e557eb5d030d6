"""Pictures to put into a model: from a file, from two photographs at hand, from drawn scenes.

pixels = load_image("holiday.jpg", 512, 512)         # (512, 512, 3) uint8
pixels = load_image("china", 128, 128)               # or "flower": scikit-learn's photographs
pixels = load_image("scene:7", 128, 128)             # the miniature's own kind, from a seed
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

PHOTOGRAPHS = ("china", "flower")
MOST_PIXELS = 100_000_000  # of a file: 300 MB decoded
# Their further frames are previews or layers, and the first is the picture itself.
FIRST_IS_ALL = ("MPO", "PSD")


class ImageError(ValueError):
    """A file that cannot be used as a picture: says which, why, and what to do."""


def load_image(source: str | Path, width: int, height: int) -> np.ndarray:
    """A picture of the size asked for: cut to its shape about the middle, then resampled.

    Args:
        source: a file that Pillow reads (turned as its EXIF data say, transparency laid on white,
            16 bits brought to 8, CMYK to RGB), ``"china"``, ``"flower"``, or ``"scene:SEED"``,
            which is drawn at the size asked for.
        width, height: in pixels.

    Returns:
        (height, width, 3) uint8.

    Raises:
        FileNotFoundError: no such file.
        ImageError: not a picture, a damaged one, one of several frames or pages, or one of more
            than 100 million pixels, which is refused before any of them is decoded.
    """
    if source in PHOTOGRAPHS:
        from sklearn.datasets import load_sample_image

        picture = Image.fromarray(load_sample_image(f"{source}.jpg"))
    elif (seed := _scene_seed(source)) is not None:
        from xray.miniature.scenes import image, scene

        picture = Image.fromarray(image(scene(seed), max(width, height)))
    else:
        with _opened(Path(source)) as file:
            picture = _to_rgb(ImageOps.exif_transpose(file))
    return np.array(ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS))


def check_image(source: str | Path) -> None:
    """Refuse what `load_image` refuses, as far as a file's header tells; decodes nothing."""
    if source not in PHOTOGRAPHS and _scene_seed(source) is None:
        with _opened(Path(source)):
            pass


def caption(source: str | Path) -> str:
    """What a scene shows, in the words that the miniature was taught; empty for other pictures."""
    seed = _scene_seed(source)
    if seed is None:
        return ""
    from xray.miniature.scenes import scene

    return scene(seed).caption


def _scene_seed(source: str | Path) -> int | None:
    kind, _, seed = str(source).partition(":")
    return int(seed) if kind == "scene" and seed.isdecimal() else None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file with its header read; what is wrong with it, now or while it is decoded, named."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no picture at {path}; give a file, {', '.join(PHOTOGRAPHS)}, or scene:SEED"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is near
            file = Image.open(path)
        with file:
            if file.width * file.height > MOST_PIXELS:
                raise _too_large(path, f"{file.width}×{file.height} pixels")
            frames = getattr(file, "n_frames", 1)
            if frames > 1 and file.format not in FIRST_IS_ALL:
                raise ImageError(
                    f"{path} holds {frames} pictures (an animation, or pages); "
                    "save one of them as a file of its own"
                )
            yield file
    except ImageError:
        raise
    except Image.DecompressionBombError:  # so large that Pillow does not open it
        raise _too_large(path, "far more pixels") from None
    except Image.UnidentifiedImageError:
        raise ImageError(
            f"{path} is no picture of a kind that can be read; save it as PNG or JPEG"
        ) from None
    except Exception as error:  # a damaged file makes Pillow's decoders raise many kinds
        raise ImageError(f"{path} cannot be read as a picture: {error}") from error


def _too_large(path: Path, size: str) -> ImageError:
    most = f"{MOST_PIXELS // 1_000_000} million"
    return ImageError(f"{path} has {size}; make it smaller first (at most {most} pixels)")


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F" or picture.mode.startswith("I"):  # Pillow would clip these at 255
        picture = _to_8_bits(picture)
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return picture.convert("RGB")


def _to_8_bits(picture: Image.Image) -> Image.Image:
    """A grey picture of 16 or 32 bits or of floats, as 8 bits."""
    values = np.asarray(picture, np.float64)
    largest = values.max()
    if picture.mode == "F":
        white = 1.0
    elif picture.mode == "I" and largest <= 255:
        white = 255.0
    else:
        white = 65535.0
    if not (values.min() >= 0 and largest <= white):
        raise ValueError(
            f"its grey levels go from {values.min():g} to {largest:g}, where black is 0 and white "
            f"{white:g}; save it with 8 or 16 bits"
        )
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))
