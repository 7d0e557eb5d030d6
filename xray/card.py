"""How a `DebugTensor` presents itself: one line in a terminal, a table and a picture in a notebook.

Both look at no more than `SAMPLE` values and say so, so that showing 10 GB takes no time.
"""

from __future__ import annotations

import base64
import html
import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from xray import pictures, stats

if TYPE_CHECKING:
    import PIL.Image

    from xray.tensor import DebugTensor

SAMPLE = 1 << 18
CHANNELS = 9  # that a thumbnail shows
PIXELS = 64  # on a side of what a thumbnail shows
LONGEST = 512  # pixels of a thumbnail's side, where it is a narrow strip


def one_line(tensor: DebugTensor) -> str:
    """`DebugTensor sampler/latent (step 25, …) float32 [-3.1, 3.4] mean 0.01 std 0.98 …`."""
    facts = _facts(tensor)
    parts = ["DebugTensor", facts["site"], facts["selected"], f"({facts['dims']})", facts["dtype"]]
    parts += [facts["range"], *(f"{name} {facts[name]}" for name in ("mean", "std", "nan"))]
    if facts["inf"] != "0":
        parts.append(f"inf {facts['inf']}")
    parts.append(facts["bytes"])
    if facts["sampled"]:
        parts.append(f"(sampled {facts['sampled']})")
    return " ".join(" ".join(parts).split())


def table(tensor: DebugTensor) -> str:
    """The same as HTML, with a thumbnail; plain text if that fails for any reason."""
    try:
        rows = {name: text for name, text in _facts(tensor).items() if text}
        cells = "".join(
            f"<tr><th style='text-align:left'>{name}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in rows.items()
        )
        picture = thumbnail(tensor)
        shown = "" if picture is None else _img(picture)
    except Exception as error:  # a display hook that raises hides the very value to be debugged
        text = f"DebugTensor {tensor.site} {tensor.dims} {tensor.shape} {tensor.dtype} ({error})"
        return f"<pre>{html.escape(text)}</pre>"
    return (
        "<div style='display:flex;gap:1em;align-items:flex-start'>"
        f"{shown}<table>{cells}</table></div>"
    )


def thumbnail(tensor: DebugTensor) -> PIL.Image.Image | None:
    """A small picture of one item, at the last step, or None if there is nothing to show.

    A tensor without `y` and `x` is shown as the plane of its last two dimensions.
    """
    if tensor.size == 0 or tensor.ndim == 0:
        return None
    sizes = dict(zip(tensor.dims, tensor.shape, strict=True))
    if "y" not in sizes or "x" not in sizes:
        plane = np.atleast_2d(tensor.values[(0,) * (tensor.ndim - 2)])
        plane = plane[tuple(_stride(size, 2 * PIXELS) for size in plane.shape)]
        if len(plane) == 1:  # a line is hard to see
            plane = plane.repeat(math.ceil(plane.size / 8), axis=0)
        return pictures.enlarge(pictures.grey(plane), math.ceil(2 * PIXELS / max(plane.shape)))
    positions: dict[str, Any] = {dim: -1 if dim == "step" else 0 for dim in sizes}
    positions |= {dim: _stride(sizes[dim], PIXELS) for dim in ("y", "x")}
    kind, channels = "channels", sizes.get("channel", 0)
    if channels:
        matrix = tensor.rgb_matrix
        coloured = channels == 3 or (matrix is not None and len(matrix) == channels + 1)
        kind = "rgb" if coloured else "channels"
        positions["channel"] = slice(None) if coloured else slice(CHANNELS)
    item = tensor.isel(**positions)
    size = item.image(kind, scale=1).size
    usual = math.ceil(pictures.SMALLEST_SIDE / min(size))
    return item.image(kind, scale=max(1, min(usual, LONGEST // max(size))))


def _stride(size: int, most: int) -> slice:
    return slice(None, None, math.ceil(size / most))


def _facts(tensor: DebugTensor) -> dict[str, str]:
    values = stats.sample(tensor.values, SAMPLE)
    numbers = {name: f"{value:.3g}" for name, value in stats.summary(values).items()}
    labels = {name: coord.item() for name, coord in tensor.coords.items() if coord.ndim == 0}
    sizes = zip(tensor.dims, tensor.shape, strict=True)
    return {
        "site": tensor.site,
        "model": tensor.model,
        "prompt": str(tensor.prompt),
        "selected": " ".join(f"{name}={_short(label)}" for name, label in labels.items()),
        "dims": ", ".join(f"{dim} {size}" for dim, size in sizes),
        "dtype": str(tensor.dtype),
        "range": f"[{numbers.pop('min')}, {numbers.pop('max')}]",
        **numbers,
        "bytes": stats.format_bytes(tensor.nbytes),
        "sampled": f"{values.size} of {tensor.size}" if values.size < tensor.size else "",
    }


def _img(picture: PIL.Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='' style='max-height:16em' src='data:image/png;base64,{data}'>"


def _short(label: Any) -> str:
    return f"{label:.6g}" if isinstance(label, float) else str(label)
