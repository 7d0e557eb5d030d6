"""How much noise a latent bears: the numbers and figures of `experiments/noise_corruption.py`.

data = measure(model, load_image("china", 512, 512))
figures(data, "china · sd-v1-4")["grid"]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray import page, panels
from xray.fidelity import psnr, ssim
from xray.page import CYCLE, DASHES
from xray.pixels import pixels_of, to_uint8
from xray.progress import Report, each
from xray.samplers import initial_noise

if TYPE_CHECKING:
    from xray.generator import Generator

AMPLITUDES = (0.25, 0.5, 1.0, 2.0, 4.0)
SHARES = (0.01, 0.05, 0.25, 1.0)
# Where everything gets noise at once; "pixels, autoencoded" are encoded and decoded after that.
KINDS = ("latent", "pixels", "pixels, autoencoded")


def measure(
    model: Generator,
    pixels: np.ndarray,
    *,
    amplitudes: Sequence[float] = AMPLITUDES,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    progress: Report | None = None,
) -> xarray.Dataset:
    """Corrupt a picture's latent in many ways, decode it, and say how far that is from undisturbed.

    Noise is standard normal times an amplitude, the same noise everywhere, so that two results
    differ by nothing else; what is corrupted at a small share of positions is so at a larger one.

    Args:
        pixels: uint8 (h, w, 3), multiples of 8.
        amplitudes: of the noise, in standard deviations of the whole latent, also where a single
            channel gets it; of noise in the pixels, of the pixels.
        shares: of the latent's positions that get it, above 0 and up to 1.
        seed: of the noise and of the choice of positions.
        progress: told ``(done, total)`` in pictures decoded.

    Returns:
        For a ``grid`` of corrupted latents (share, amplitude), for ``kind`` of corruption of
        everything (kind, amplitude; see `KINDS`) and for ``channel`` alone (channel, amplitude):
        ``…_picture``, uint8, and ``…_psnr`` and ``…_ssim`` against the same without noise: the
        undisturbed latent decoded, ``clean``, or for noise in the pixels the ``picture`` itself.
        Each share has its number of ``positions``.
    """
    for name, values, most in (("amplitude", amplitudes, np.inf), ("share", shares, 1.0)):
        if wrong := [v for v in values if not 0 < v <= most] or not len(values):
            limit = "above 0" + (" and at most 1" if most == 1 else "")
            raise ValueError(f"{name} must be {limit}, got {wrong[0] if len(values) else 'none'}")
    latent = model.encode(pixels).values[0]
    clean = _decoded(model, latent)
    noise = initial_noise(seed, latent.shape) * latent.std()
    places = latent.shape[0] * latent.shape[1]
    counts = [round(share * places) for share in shares]
    if not min(counts):
        raise ValueError(f"share {min(shares):g} is none of the latent's {places} positions")
    order = np.random.default_rng(seed).permutation(places).reshape(*latent.shape[:2], 1)
    floats = pixels_of(pixels)[0]
    pixel_noise = initial_noise(seed, floats.shape) * floats.std()

    def corrupted(kind: str, part: float, amplitude: float) -> np.ndarray:
        if kind.startswith("pixels"):
            noisy = to_uint8(floats + np.float32(amplitude) * pixel_noise)
            return noisy if kind == "pixels" else _decoded(model, model.encode(noisy).values[0])
        if kind == "channel":
            where = np.arange(latent.shape[-1]) == part
        else:
            where = order < round(part * places)
        return _decoded(model, latent + np.float32(amplitude) * noise * where)

    sets = {
        "grid": [("latent", share) for share in shares],
        "kind": [(kind, 1.0) for kind in KINDS],
        "channel": [("channel", c) for c in range(latent.shape[-1])],
    }
    cells = [(name, *row, a) for name, rows in sets.items() for row in rows for a in amplitudes]
    made: dict[str, list] = {name: [] for name in sets}
    for name, kind, part, amplitude in each(cells, progress):
        picture = corrupted(kind, part, amplitude)
        pair = (pixels if kind == "pixels" else clean)[None], picture[None]
        made[name].append((picture, psnr(*pair)[0], ssim(*pair)[0]))

    image, variables = ("row", "column", "rgb"), {}
    for name, rows in made.items():
        dims = ("share" if name == "grid" else name, "amplitude")
        shape = (len(sets[name]), len(amplitudes))
        for suffix, values in zip(
            ("picture", "psnr", "ssim"), zip(*rows, strict=True), strict=True
        ):
            stacked = np.stack(values).reshape(*shape, *np.shape(values[0]))
            variables[f"{name}_{suffix}"] = (dims + image[: stacked.ndim - 2], stacked)
    coords = {"share": list(shares), "amplitude": list(amplitudes), "kind": list(KINDS)}
    coords |= {"positions": ("share", counts)}
    coords |= {"channel": np.arange(latent.shape[-1])}
    variables |= {"picture": (image, pixels), "clean": (image, clean)}
    attrs = {"seed": seed, "positions": places, "latent_std": float(latent.std())}
    return xarray.Dataset(variables, coords, attrs)


def _decoded(model: Generator, latent: np.ndarray) -> np.ndarray:
    return np.asarray(model.decode(latent)[0])


# ---------------------------------------------------------------------------------------- figures


def figures(data: xarray.Dataset, made: str) -> dict[str, Figure]:
    """``grid``, ``curves``, ``kinds`` and ``channels``; `made` says of which picture by what."""
    return {
        "grid": grid(data, made),
        "curves": curves(data, made),
        "kinds": kinds(data, made),
        "channels": channels(data, made),
    }


def _heads(data: xarray.Dataset) -> list[str]:
    return [f"amplitude {a:g}" for a in data.amplitude.values]


def _quality(data: xarray.Dataset, name: str) -> list[list[str]]:
    """Under each picture its PSNR and SSIM."""
    pairs = zip(data[f"{name}_psnr"].values, data[f"{name}_ssim"].values, strict=True)
    return [[f"{p:.1f} dB, SSIM {s:.2f}" for p, s in zip(*row, strict=True)] for row in pairs]


def grid(data: xarray.Dataset, made: str) -> Figure:
    """Decoded latents, by amplitude of the noise and share of the positions that got it."""
    return panels.sheet(
        "How much noise a latent bears",
        [
            "Rows: share of the latent’s positions that get noise. Columns: its amplitude, in "
            "standard deviations of the latent. dB: PSNR against the undisturbed latent decoded.",
            f"{made} · {', '.join(map(str, data.positions.values))} of "
            f"{data.attrs['positions']} positions",
        ],
        list(data["grid_picture"].values),
        heads=_heads(data),
        sides=[f"{100 * share:g} %" for share in data.share.values],
        captions=_quality(data, "grid"),
    )


def kinds(data: xarray.Dataset, made: str) -> Figure:
    """The same noise, relative to the signal, in the latent and in the pixels."""
    return panels.sheet(
        "The same noise in the latent and in the pixels",
        [
            "Upper: in the latent. Middle: in the pixels. Lower: in the pixels, which are then "
            "encoded and decoded. Amplitudes are in standard deviations of the whole latent, or of "
            "the pixels. dB: PSNR against the same without noise.",
            made,
        ],
        list(data["kind_picture"].values),
        heads=_heads(data),
        captions=_quality(data, "kind"),
    )


def channels(data: xarray.Dataset, made: str) -> Figure:
    """Noise in one channel alone: what it does to the picture."""
    middle = data.sizes["amplitude"] // 2
    chosen = data.isel(amplitude=middle)
    pictures = chosen["channel_picture"].values
    change, factor = panels.difference(data["clean"].values[None], pictures)
    quality = zip(chosen["channel_psnr"].values, chosen["channel_ssim"].values, strict=True)
    heads = [(f"channel {c}", f"{p:.1f} dB, SSIM {s:.2f}") for c, (p, s) in enumerate(quality)]
    return panels.sheet(
        "Noise in one channel of the latent alone",
        [
            f"Amplitude {chosen.amplitude.item():g}, in standard deviations of the whole latent, "
            f"at all positions. Lower: what it changed, ×{factor}, mid grey where nothing.",
            made,
        ],
        [[data["clean"].values, *pictures], [None, *change]],
        heads=["undisturbed", *heads],
    )


def curves(data: xarray.Dataset, made: str) -> Figure:
    """PSNR and SSIM over the amplitude: by share, by kind, by channel."""
    lines = [
        "Against the same picture without noise. Amplitudes are in standard deviations of the "
        "whole latent, also for a single channel, or of the pixels.",
        made,
    ]
    if any(np.isinf(data[f"{name}_psnr"]).any() for name in ("grid", "kind", "channel")):
        lines.insert(1, "At the upper edge: no difference at all.")
    figure = page.new("Quality by amplitude of the noise", lines, below=5.9)
    sets = {
        "grid": ("Some of the latent’s positions", [f"{100 * s:g} %" for s in data.share.values]),
        "kind": ("Everything", list(data.kind.values)),
        "channel": ("One channel of the latent", [f"channel {c}" for c in data.channel.values]),
    }
    for row, (measure_, unit) in enumerate((("psnr", "PSNR, dB"), ("ssim", "SSIM"))):
        finite = np.concatenate([data[f"{name}_{measure_}"].values.ravel() for name in sets])
        finite = finite[np.isfinite(finite)]
        for column, (name, (title, labels)) in enumerate(sets.items()):
            axes = page.axes(figure, 0.75 + 3.2 * column, 3.3 - 2.7 * row, 2.6, 2.1)
            page.style(axes, "" if row else title, x="amplitude" if row else "", y=unit)
            _plot(axes, data.amplitude.values, data[f"{name}_{measure_}"].values, labels)
            axes.set_ylim(min(0, finite.min()), 1.05 * finite.max(initial=1.0))
            if not row:
                axes.legend(
                    frameon=False, fontsize=9, loc="upper right", borderpad=0, handlelength=2.8
                )
    return figure


def _plot(axes: Axes, amplitudes: np.ndarray, rows: np.ndarray, labels: Sequence[str]) -> None:
    for k, values in enumerate(rows):
        style = {"color": CYCLE[k % len(CYCLE)], "linestyle": DASHES[k % len(DASHES)]}
        axes.plot(
            amplitudes, values, marker="o", markersize=4, linewidth=2, label=labels[k], **style
        )
        if len(same := amplitudes[np.isinf(values)]):
            edge = {"marker": "^", "linestyle": "", "transform": axes.get_xaxis_transform()}
            axes.plot(same, np.ones(len(same)), color=style["color"], clip_on=False, **edge)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(amplitudes, [f"{a:g}" for a in amplitudes])
