"""A run without a model whose attention and latents are what a test says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xray.recorder import MemoryRecorder, StoreRecorder
from xray.store import Header, SiteSpec
from xray.trace import Trace

# "stargazer" has two tokens, "red" stands twice and the second time next to itself.
TOKENS = [
    ("<start>", -1),
    ("a", 0),
    ("red", 1),
    ("stargazer", 2),
    ("stargazer", 2),
    ("and", 3),
    ("red", 4),
    ("red", 5),
    ("<end>", -1),
    ("<pad>", -1),
    ("<pad>", -1),
]
PROMPT = "a red stargazer and red red"
LATENT = ("image", "y", "x", "channel")


def attention(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights (…, token) that add up to 1 over the tokens, as a softmax gives them."""
    weights = np.exp(2 * rng.standard_normal((*shape, len(TOKENS))))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def run(
    layers: Mapping[str, np.ndarray] | None = None,
    *,
    latents: Mapping[str, np.ndarray] | None = None,
    prompts: Sequence[Sequence[tuple[str, int]]] = (TOKENS,),
    negatives: Sequence[Sequence[tuple[str, int]]] | None = None,
    tokens: Sequence[int] | None = None,
    pixels: np.ndarray | None = None,
    complete: int | None = None,
    path: Any = None,
    **attrs: Any,
) -> Trace:
    """A trace of given tensors.

    Args:
        layers: by layer name, cross weights (step, branch, image, head, y, x, token), or without
            head where these were averaged.
        latents: by name, such as ``"noise_cond"``, (step, image, y, x, channel).
        prompts, negatives: for each image the tokens as (word, word index); without `negatives`
            the run has one branch.
        tokens: positions that were recorded, if not all.
        pixels: uint8 (image, y, x, 3).
        complete: how many steps were completed before the run was interrupted.
        path: where to write it; by default it stays in memory.
        **attrs: further attributes.
    """
    layers, latents = dict(layers or {}), dict(latents or {})
    spoken = {"cond": prompts} if negatives is None else {"uncond": negatives, "cond": prompts}
    sites, values = {}, {}
    for name, value in latents.items():
        sites[f"sampler/{name}"] = SiteSpec(LATENT[-value.ndim + 1 :], value.shape[1:], "f4", True)
        values[f"sampler/{name}"] = value.astype(np.float32)
    for name, value in layers.items():
        dims = ["branch", "image", "head", "y", "x", "token"]
        if value.ndim == 6:
            dims.remove("head")
        coords = {"branch": ("branch", list(spoken))}
        if tokens is not None:
            coords["token"] = ("token", list(tokens))
        site = f"{name}/cross/weights"
        sites[site] = SiteSpec(dims, value.shape[1:], value.dtype, True, coords)
        values[site] = value
    if pixels is not None:
        sites["image"] = SiteSpec(LATENT, pixels.shape, "uint8", False)
    count = len(next(iter(values.values())))
    header = Header(
        range(count),
        np.linspace(951, 1, count),
        sites,
        {
            "prompt": [PROMPT] * len(prompts),
            "negative": [""] * len(prompts),
            "tokens": {
                branch: [[{"text": w, "word": w, "word_index": i} for w, i in row] for row in rows]
                for branch, rows in spoken.items()
            },
            "seeds": list(range(7, 7 + len(prompts))),
            "sampler": "ddim",
            "steps": count,
            "guidance": 1.0 if negatives is None else 5.0,
            "height": 64,
            "width": 64,
            "model": "synthetic",
            **attrs,
        },
    )
    recorder = MemoryRecorder(header) if path is None else StoreRecorder(path, header)
    for step in range(count if complete is None else complete):
        for site, value in values.items():
            recorder.write(site, value[step], step)
        recorder.complete(step)
    if complete is not None:
        return recorder.close("interrupted", "interrupted by the user")
    if pixels is not None:
        recorder.write("image", pixels)
    return recorder.close()
