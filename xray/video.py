"""Films: pictures to MP4 and GIF, one at a time, and back.

    write_mp4("walk.mp4", frames, fps=12)         # frames: any iterable of pictures of one size
    write_gif("walk.gif", frames, fps=12)
    probe("walk.mp4")                             # Film(frames=48, fps=12.0, width=384, …)
    first = next(read("walk.mp4"))                # (h, w, 3) uint8

FFmpeg comes with PyAV; nothing needs to be installed beside it. A film appears under its name when
it is whole: an error or a kill leaves what was there before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.whole import whole

if TYPE_CHECKING:
    from PIL import Image

FASTEST_GIF = 50  # frames per second; players slow down what is faster, most of them to 10
QUALITY = "16"  # x264's constant rate factor: below 18 no difference to the frames is seen


def write_mp4(path: str | os.PathLike, frames: Iterable[Any], *, fps: float) -> int:
    """Write an H.264 film that every browser and player shows, at a steady rate.

    Args:
        path: where to; a film that is there already is replaced once this one is whole.
        frames: PIL images or uint8 (h, w, 3), all of one size; taken one by one. Half of a pixel's
            colour is shared with its neighbours (4:2:0), so an odd side is made even by repeating
            its last line.
        fps: frames per second, 0.1 … 240.

    Returns:
        The number of frames.

    Raises:
        ValueError: no frames, frames of several sizes, not pictures, or no such rate.
        OSError: it cannot be written; the disk is full.
    """
    import av
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    rate = _rate(fps)
    with _film(path) as partial:
        frames = _checked(frames)
        first = next(frames)
        options = {"movflags": "+faststart"}  # plays while it loads
        with av.open(partial, "w", format="mp4", options=options) as container:
            stream = container.add_stream("libx264", rate=rate, options={"crf": QUALITY})
            stream.height, stream.width = (side + side % 2 for side in first.shape[:2])
            stream.pix_fmt = "yuv420p"
            # Said in the file, because players guess by the size, and red would turn orange.
            context = stream.codec_context
            context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
            context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
            count = 0
            for count, pixels in enumerate(_and_then(first, frames), 1):
                frame = av.VideoFrame.from_ndarray(_even(pixels), format="rgb24")
                frame = frame.reformat(
                    format="yuv420p",
                    dst_colorspace=Colorspace.ITU709,
                    dst_color_range=ColorRange.MPEG,
                )
                frame.pts, frame.time_base = count - 1, 1 / rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return count


def write_gif(
    path: str | os.PathLike, frames: Iterable[Any], *, fps: float, colours: int = 256
) -> int:
    """Write a GIF that repeats for ever, each frame with the colours that suit it best.

    A GIF counts time in hundredths of a second. Where the rate does not divide them, some frames
    stay one longer, and the film as a whole keeps time. Equal frames in a row become one that
    stays for as long as they would.

    Args:
        path, frames: as for `write_mp4`; any sides.
        fps: 0.1 … 50.
        colours: of each frame, 2 … 256; with fewer the file is smaller.

    Returns:
        The number of frames taken.

    Raises:
        ValueError, OSError: as `write_mp4`.
    """
    from PIL import GifImagePlugin

    rate = _rate(fps)
    if rate > FASTEST_GIF:
        raise ValueError(
            f"a GIF has at most {FASTEST_GIF} frames per second, got {fps:g}; write an MP4, or "
            "leave frames out"
        )
    if not 2 <= colours <= 256:
        raise ValueError(f"a frame of a GIF has 2 … 256 colours, got {colours}")
    with _film(path) as partial, open(partial, "wb") as file:
        # Pillow's own `save` holds all frames until the last; these two take one at a time.
        shown, since, count = None, 0, 0
        for pixels in _checked(frames):
            if shown is None:
                first = _paletted(pixels, colours)
                file.writelines(GifImagePlugin.getheader(first, info={"loop": 0})[0])
            elif not np.array_equal(pixels, shown):
                file.writelines(_gif_frame(_paletted(shown, colours), since, count, rate))
                since = count
            shown, count = pixels, count + 1
        file.writelines(_gif_frame(_paletted(shown, colours), since, count, rate))
        file.write(b";")
    return count


def read(path: str | os.PathLike) -> Iterator[np.ndarray]:
    """The frames of a film (MP4, GIF, or anything that FFmpeg reads), (h, w, 3) uint8, one by one.

    Raises:
        OSError: no such file.
        ValueError: it is no film, or damaged.
    """
    with _opened(path) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


@dataclass(frozen=True)
class Film:
    """What a film turned out to be.

    Attributes:
        frames: how many; of a GIF, those that differ from the one before.
        fps: their mean rate.
        seconds: how long it runs.
        width, height: in pixels.
        seam: mean distance of the last frame from the first, 0 … 255: how much the picture jumps
            when the film begins anew.
    """

    frames: int
    fps: float
    seconds: float
    width: int
    height: int
    seam: float


def probe(path: str | os.PathLike) -> Film:
    """Decode a film from end to end and say what it is.

    Raises:
        OSError, ValueError: as `read`.

    Example:
        >>> probe("walk.mp4")
        Film(frames=48, fps=12.0, seconds=4.0, width=384, height=384, seam=0.3)
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        rate, length = stream.average_rate, stream.duration
        seconds = float(length * stream.time_base) if length else None
    first = last = None
    count = 0
    for last in read(path):
        first = last if first is None else first
        count += 1
    if first is None:
        raise ValueError(f"{path} holds no frame")
    return Film(
        frames=count,
        fps=float(rate),
        seconds=seconds if seconds is not None else count / float(rate),
        width=first.shape[1],
        height=first.shape[0],
        seam=float(np.abs(last.astype(np.float64) - first).mean()),
    )


# ---------------------------------------------------------------------------------------- frames


def _rate(fps: float) -> Fraction:
    if not isinstance(fps, Real) or isinstance(fps, bool) or not 0.1 <= fps <= 240:
        raise ValueError(f"fps must be 0.1 … 240, got {fps!r}")
    return Fraction(fps).limit_denominator(1001)  # 23.976 is 24000/1001


def _checked(frames: Iterable[Any]) -> Iterator[np.ndarray]:
    """The frames as uint8 (h, w, 3), of which there must be one at least, all of one size."""
    size, count = None, 0
    for frame in frames:
        pixels = np.asarray(frame.convert("RGB") if hasattr(frame, "convert") else frame)
        if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
            raise ValueError(
                f"frame {count} is not a picture: expected uint8 (h, w, 3), got {pixels.dtype} "
                f"{pixels.shape}"
            )
        size = size or pixels.shape
        if pixels.shape != size:
            raise ValueError(
                f"frame {count} is {pixels.shape[1]}×{pixels.shape[0]}, and those before it "
                f"{size[1]}×{size[0]}: a film has one size"
            )
        count += 1
        yield pixels
    if not count:
        raise ValueError("a film needs at least one frame")


def _and_then(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _even(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _paletted(pixels: np.ndarray, colours: int) -> Image.Image:
    from PIL import Image

    # No dithering: its grain would crawl from frame to frame and double the file.
    return Image.fromarray(pixels).quantize(colours)


def _gif_frame(picture: Image.Image, since: int, until: int, rate: Fraction) -> list[bytes]:
    """One picture, shown from frame number `since` to `until`."""
    from PIL import GifImagePlugin

    begin, end = (round(100 * frame / rate) for frame in (since, until))
    duration = 10 * min(end - begin, 65535)  # Pillow takes milliseconds
    return GifImagePlugin.getdata(picture, duration=duration, include_color_table=True)


# ----------------------------------------------------------------------------------------- files


@contextlib.contextmanager
def _film(path: str | os.PathLike) -> Iterator[str]:
    """`whole`, whose errors name the film."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to")
    with whole(path) as partial:
        try:
            yield str(partial)
        except OSError as error:
            if error.filename in (None, str(partial)):  # and not one of the frames that were read
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Any]:
    import av

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no film at {path}")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} holds no pictures")
            yield container
    except av.FFmpegError as error:
        raise ValueError(f"{path} cannot be read as a film: {error.strerror}") from error
