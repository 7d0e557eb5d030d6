"""A run without a model: its header, and values that a test can predict."""

from __future__ import annotations

import functools

import numpy as np

from xray.recorder import Recorder
from xray.store import Header, SiteSpec
from xray.trace import Trace

WORDS = ["<start>", "a", "rötlicher", "star", "star", "<end>"]
WORD_INDEX = [-1, 0, 1, 2, 3, -1]
BRANCH = ("branch", ["uncond", "cond"])
TOKENS = {"token": ("token", range(6)), "word": ("token", WORDS)}
TOKENS["word_index"] = ("token", WORD_INDEX)

SITES = {
    "text/out": SiteSpec(
        ("branch", "image", "token", "channel"),
        (2, 1, 6, 8),
        "float32",
        per_step=False,
        coords={"branch": BRANCH, **TOKENS},
    ),
    "sampler/latent": SiteSpec(
        ("image", "y", "x", "channel"), (1, 8, 8, 4), "float32", per_step=True
    ),
    "unet/mid/attn.0/cross/weights": SiteSpec(
        ("branch", "image", "head", "y", "x", "token"),
        (2, 1, 2, 16, 16, 6),
        "float16",
        per_step=True,
        coords={"branch": BRANCH, **TOKENS},
    ),
    "unet/up.1/skip.0": SiteSpec(
        ("branch", "image", "y", "x", "channel"),
        (2, 1, 32, 32, 128),
        "float32",
        per_step=True,
        coords={"branch": BRANCH},
    ),
    "image": SiteSpec(("image", "y", "x", "channel"), (1, 64, 64, 3), "uint8", per_step=False),
}

ATTRS = {
    "prompt": ["a rötlicher star star"],
    "model": "synthetic",
    "seeds": [7],
    "tokens": {
        "cond": [
            [
                {"text": word, "word": word, "word_index": index}
                for word, index in zip(WORDS, WORD_INDEX, strict=True)
            ]
        ]
    },
    "rgb_matrix": np.eye(5, 3).tolist(),
}


def header(steps: int = 5, sites: list[str] | None = None) -> Header:
    """A header of so many steps, of all sites or of the given ones."""
    chosen = {site: SITES[site] for site in sites or SITES}
    return Header(range(steps), np.linspace(981.5, 1, steps), chosen, ATTRS)


@functools.cache
def values(site: str, step: int = 0) -> np.ndarray:
    """What is recorded at `site` in `step`: nothing in it that a fill value could be."""
    spec = SITES[site]
    numbers = np.random.default_rng([len(site), step]).integers(1, 256, spec.shape, np.uint8)
    return numbers.astype(spec.dtype)


def write_step(recorder: Recorder, step: int) -> None:
    """Everything that belongs to a step; before the first also what has no step but the image."""
    for site, spec in recorder.header.sites.items():
        if spec.per_step:
            recorder.write(site, values(site, step), step)
        elif step == 0 and site != "image":
            recorder.write(site, values(site))


def record(recorder: Recorder, **close: str) -> Trace:
    """A whole run."""
    for step in range(len(recorder.header.steps)):
        write_step(recorder, step)
        recorder.complete(step)
    if "image" in recorder.header.sites:
        recorder.write("image", values("image"))
    return recorder.close(**close)


def assert_holds_run(trace: Trace, steps: int) -> None:
    """`trace` holds exactly the first `steps` steps, to the bit."""
    assert trace.steps == list(range(steps))
    for site, spec in trace.specs.items():
        recorded = trace[site].values
        assert recorded.dtype == spec.dtype
        if spec.per_step:
            assert recorded.shape == (steps, *spec.shape)
            for step in range(steps):
                np.testing.assert_array_equal(recorded[step], values(site, step), strict=True)
        else:
            np.testing.assert_array_equal(recorded, values(site), strict=True)
