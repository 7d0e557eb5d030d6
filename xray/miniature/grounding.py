"""Does attention know where? Cross-attention of one denoising step against known masks.

    trace = denoised_once(model, scenes, (100, 500, 900), seed=0)
    maps = word_maps(trace, image=0, method="bilinear")         # the project's word maps
    grades = grade(trace, scenes, threshold=0.4)                # mean over words, by role
    grades["thing"].pointing.sel(layer="all", head="all", timestep="all")

A trace here has no run behind it: its "steps" are the same rendered scenes, noised to several
timesteps, each seen once by the U-Net with the scene's caption.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray

from xray.generator import Generator
from xray.miniature.metrics import centre_blob, overlap, pointing
from xray.miniature.noised import noised
from xray.miniature.scenes import SIDE, Scene, render
from xray.recorder import MemoryRecorder
from xray.store import Header, SiteSpec
from xray.trace import Trace
from xray.wordmaps import WEIGHTS, cross_layers, word_maps

THRESHOLDS = np.linspace(0.05, 0.95, 19)
_DIMS = ("branch", "image", "head", "y", "x", "token")


class SpokenOf(NamedTuple):
    """A content word of a caption and the pixels that it speaks of."""

    role: str
    index: int
    """Which word of the caption: two reds are two words with two masks."""
    mask: np.ndarray


def denoised_once(
    model: Generator, scenes: Sequence[Scene], timesteps: Sequence[float], seed: int
) -> Trace:
    """The cross-attention of the U-Net on noised scenes, each with its own caption.

    Args:
        model: a miniature.
        scenes: the pictures; together they are the trace's batch.
        timesteps: how far they are noised; together they are the trace's steps.
        seed: of the noise: image i is noised by that of seed + i, at every timestep the same.

    Returns:
        A trace with ``unet/**/cross/weights``, branch "cond" only.
    """
    tokens = [model.tokenizer.tokens(s.caption) for s in scenes]
    context = model.text(np.array([[t.id for t in row] for row in tokens], np.int32))
    _, seen = noised(model, scenes, timesteps, seed)
    weights = [
        model.unet.record([f"unet/**{WEIGHTS}"], one.latents, one.embedding, context)[1]
        for one in seen
    ]
    keys = ("text", "word", "word_index")
    attrs = {
        "model": model.name,
        "prompt": [s.caption for s in scenes],
        "tokens": {"cond": [[{k: getattr(t, k) for k in keys} for t in row] for row in tokens]},
        "width": SIDE,
        "height": SIDE,
    }
    return cross_trace(weights, timesteps, attrs)


def cross_trace(
    weights: Sequence[Mapping[str, np.ndarray]], timesteps: Sequence[float], attrs: dict[str, Any]
) -> Trace:
    """A trace of cross-attention weights.

    Args:
        weights: for each timestep, by site, (image, head, y, x, token).
        timesteps: as many.
        attrs: of the trace; "tokens", "prompt", "width" and "height" at least.
    """
    sites = {
        site: SiteSpec(_DIMS, (1, *w.shape), w.dtype, True, {"branch": ("branch", ["cond"])})
        for site, w in weights[0].items()
    }
    recorder = MemoryRecorder(Header(range(len(timesteps)), timesteps, sites, attrs))
    for step, arrays in enumerate(weights):
        for site, array in arrays.items():
            recorder.write(site, array[None], step)
        recorder.complete(step)
    return recorder.close()


def spoken_of(scene: Scene) -> list[SpokenOf]:
    """The content words of a caption whose pixels are known: all but relations."""
    return [
        SpokenOf(scene.words[index].role, index, mask)
        for index, mask in render(scene).masks.items()
        if mask.any()
    ]


# ------------------------------------------------------------------------------------- grading


class Grade(NamedTuple):
    """How well maps agree with masks, mean over words: (layer, head, timestep), each with "all".

    Among the layers also "finest", the sum of those with the most places.
    """

    pointing: xarray.DataArray
    iou: xarray.DataArray
    words: int


def fixed_threshold(trace: Trace, scenes: Sequence[Scene]) -> float:
    """The threshold of `overlap` that suits the things of these scenes best.

    To be chosen on scenes that are not graded.
    """
    scores = [
        [overlap(word_map, word.mask, t) for t in THRESHOLDS]
        for i, s in enumerate(scenes)
        for word, word_map in _mapped(trace, i, spoken_of(s))
        if word.role == "thing"
    ]
    return float(THRESHOLDS[np.mean(scores, axis=0).argmax()])


def grade(trace: Trace, scenes: Sequence[Scene], threshold: float) -> dict[str, Grade]:
    """Every word's map against its mask, for every layer, head and timestep and for their sums.

    Args:
        trace: from `denoised_once`.
        scenes: its pictures.
        threshold: of all maps alike, see `xray.miniature.metrics.region`.

    Returns:
        By role ("thing", "colour", "size", "fill", "background").
    """
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for i, s in enumerate(scenes):
        words = spoken_of(s)
        for word, maps in zip(words, _all_maps(trace, i, words), strict=True):
            cells = maps.reshape(-1, *maps.shape[-2:])
            points = np.array([pointing(m, word.mask) for m in cells])
            ious = np.array([overlap(m, word.mask, threshold) for m in cells])
            shape = maps.shape[:3]
            found.setdefault(word.role, []).append((points.reshape(shape), ious.reshape(shape)))
    coords = _coords(trace)
    return {
        role: Grade(*(xarray.DataArray(np.mean(v, 0), coords) for v in zip(*pairs)), len(pairs))
        for role, pairs in found.items()
    }


def baselines(scenes: Sequence[Scene], threshold: float) -> dict[str, dict[str, Grade]]:
    """What maps score that know nothing of the picture: "uniform" and "centre blob", by role."""
    ignorant = {"uniform": np.ones((SIDE, SIDE)), "centre blob": centre_blob(SIDE)}
    words = [word for s in scenes for word in spoken_of(s)]
    results: dict[str, dict[str, Grade]] = {}
    for name, word_map in ignorant.items():
        for role in dict.fromkeys(w.role for w in words):
            masks = [w.mask for w in words if w.role == role]
            points = np.mean([pointing(word_map, m) for m in masks])
            ious = np.mean([overlap(word_map, m, threshold) for m in masks])
            grades = (xarray.DataArray(points), xarray.DataArray(ious), len(masks))
            results.setdefault(name, {})[role] = Grade(*grades)
    return results


def _mapped(
    trace: Trace, picture: int, words: Sequence[SpokenOf], **choices: Any
) -> Iterator[tuple[SpokenOf, np.ndarray]]:
    """Each word with its word map, (128, 128)."""
    maps = word_maps(trace, image=picture, method="bilinear", **choices)
    place = {int(index): k for k, index in enumerate(maps.coords["word_index"].values)}
    for word in words:
        yield word, maps.values[place[word.index]]


def _coords(trace: Trace) -> dict[str, list]:
    sites = cross_layers(trace)
    spec = trace.specs[sites[0]]  # the miniature has as many heads in every layer
    heads = range(spec.shape[spec.dims.index("head")])
    return {
        "layer": [*(s.removesuffix(WEIGHTS) for s in sites), "finest", "all"],
        "head": [*map(str, heads), "all"],
        "timestep": [*map(str, trace.timesteps), "all"],
    }


def _all_maps(trace: Trace, picture: int, words: Sequence[SpokenOf]) -> np.ndarray:
    """(word, layer, head, timestep, y, x): each alone, and last along each axis their sums.

    A word map is a plain sum over layers, heads and steps, so the sums need no further calls.
    """
    coords = _coords(trace)
    sites = cross_layers(trace)
    places = [math.prod(trace.specs[s].shape[-3:-1]) for s in sites]
    finest = np.flatnonzero(np.equal(places, max(places)))
    maps = np.zeros((len(words), *(len(c) for c in coords.values()), SIDE, SIDE), np.float32)
    for i, layer in enumerate(coords["layer"][:-2]):
        for head in range(len(coords["head"]) - 1):
            for k, step in enumerate(trace.steps):
                mapped = _mapped(trace, picture, words, layers=layer, heads=head, steps=step)
                for w, (_, word_map) in enumerate(mapped):
                    maps[w, i, head, k] = word_map
    maps[:, -2], maps[:, -1] = maps[:, finest].sum(axis=1), maps[:, :-2].sum(axis=1)
    maps[:, :, -1] = maps[:, :, :-1].sum(axis=2)
    maps[:, :, :, -1] = maps[:, :, :, :-1].sum(axis=3)
    return maps
