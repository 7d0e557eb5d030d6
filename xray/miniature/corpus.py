"""Which scenes each stage of training sees, so that evaluation can keep clear of them.

    itertools.islice(pictured(), 3)     # the scenes whose pictures diffusion is trained on
    captions_seen({0: 100_000}, {0: 320_000})     # by seed; what not to evaluate with

Scenes come from streams of seeds, one for each purpose: 0 vocabulary, 1 autoencoder, 2 diffusion,
3 text encoder, 4 the colours of latents, 5 and 6 the judge, 7 evaluation.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from xray.miniature.scenes import Scene, scene

OBJECT_SHARES = (0.6, 0.3, 0.1)  # of the first training scenes with one, two and three things
LATER, LATER_SHARES = 60_000, (0.2, 0.4, 0.4)  # of those after the first 60,000
TRAINED_SHARES = (0.1, 0.35, 0.55)  # of the samples that diffusion is trained with
_PART = 10_000  # captions that a process makes at a time


def stream_seed(seed: int, stream: int, index: int) -> int:
    """Scene seeds of one stream of one run: far apart, never shared between streams."""
    return (seed * 8 + stream) * 1_000_000_000 + index


def pictured(seed: int = 0, start: int = 0) -> Iterator[Scene]:
    """The scenes that diffusion is trained on, endlessly, in the order of their latents."""
    for i, things in enumerate(_things(seed, start), start):
        yield scene(stream_seed(seed, 2, i), split="train", objects=(things,))


def chances(count: int, seed: int = 0) -> np.ndarray:
    """How likely diffusion is trained on each of the first `count` scenes, (count,); sum 1.

    Those of several things come more often than they are there: they take longest to learn.
    """
    things = np.fromiter(itertools.islice(_things(seed), count), int)
    each = np.array(TRAINED_SHARES) / np.maximum(np.bincount(things, minlength=4)[1:], 1)
    return each[things - 1] / each[things - 1].sum()


def _things(seed: int, start: int = 0) -> Iterator[int]:
    """How many things each scene has."""
    draws = np.random.default_rng([seed, 2])
    draws.random(start)
    for i in itertools.count(start):
        shares = OBJECT_SHARES if i < LATER else LATER_SHARES
        yield 1 + int(np.searchsorted(np.cumsum(shares[:-1]), draws.random(), side="right"))


def described(seed: int = 0, start: int = 0) -> Iterator[Scene]:
    """The scenes whose captions, without their pictures, the text encoder is taught with."""
    return (scene(stream_seed(seed, 3, i), split="train") for i in itertools.count(start))


def captions_seen(scenes: Mapping[int, int], captions: Mapping[int, int]) -> set[str]:
    """The captions of the first pictured and described scenes: how many, by the seed of the stage.

    Made anew in as many processes as there are processors: half a minute for a hundred thousand.
    """
    jobs = [
        (stream, seed, start, min(_PART, count - start))
        for stream, counts in ((pictured, scenes), (described, captions))
        for seed, count in counts.items()
        for start in range(0, count, _PART)
    ]
    if sum(count for *_, count in jobs) <= _PART:
        return set().union(*map(_captions, jobs))
    spawn = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
        return set().union(*pool.map(_captions, jobs))


def _captions(job: tuple) -> set[str]:
    stream, seed, start, count = job
    return {s.caption for s in itertools.islice(stream(seed, start), count)}
