"""The frames of a walk, computed batch by batch into a folder.

frames = Frames("film/frames", settings, resume=True)
render(model, walk, frames, steps=25, seed=7, word="star")      # those that are missing
frames.picture(12), frames.array(12, "latent"), frames.array(12, "heat")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xray import taps, wordmaps
from xray.frames import Frames
from xray.trace import Trace
from xray.walks import Walk

if TYPE_CHECKING:
    from xray.generator import Generator
    from xray.tokenizer import Tokenizer

BATCH_PIXELS = 4 * 128 * 128  # of all pictures of a batch: more at once is no faster on a CPU


def batch_size(walk: Walk) -> int:
    """How many frames to compute at once, by their size: 4 at 128×128, 1 from 256×256 on."""
    _, height, width, _ = walk.noise.shape
    return max(1, BATCH_PIXELS // (64 * height * width))


def render(
    model: Generator,
    walk: Walk,
    frames: Frames,
    *,
    negative: str = "",
    word: str | None = None,
    batch: int | None = None,
    progress: Callable[[float], None] = lambda done: None,
    **asked: Any,
) -> int:
    """Compute the frames that are not there yet, batch by batch, each kept as soon as it is known.

    With each frame's picture its latent is kept, and with `word` how much each place of the
    picture attended to it: the share of attention, 0 … 1, averaged over heads, layers and steps.
    Between two prompts it is the shares' mean of what the word got where it stands in each.

    Args:
        negative, **asked: as for `Generator.generate`; one seed for the noise put back.
        word: of one of the prompts at least.
        batch: how many at once; by default `batch_size`.
        progress: told how many frames are there, also in between.

    Returns:
        How many frames were computed.

    Raises:
        ValueError: no prompt has the word, or as `generate`.
        KeyboardInterrupt, …: whatever ends it, with a note of how many frames are kept.
    """
    tokens = tokens_with(model.tokenizer, walk.prompts, word) if word else []
    record = [_observed(tokens, word)] if word else []
    last = len(walk) - 1
    missing = frames.missing(len(walk))
    # Of a closed walk the last frame is the first, and not computed again.
    todo = [f for f in missing if not (walk.closed and f == last)]
    batch = min(batch or batch_size(walk), max(1, len(todo)))
    there = len(walk) - len(missing)
    away = model.embed(negative).values[0]

    def within(done: int, steps: int) -> None:
        progress(there + len(now) * done / steps)

    progress(there)
    try:
        for begin in range(0, len(todo), batch):
            now = todo[begin : begin + batch]
            # Always of one size, because a network is traced and compiled for it.
            filled = now + now[-1:] * (batch - len(now))
            trace = model.generate(
                list(walk.context(filled)),
                negative=away,
                latent=walk.noise[filled],
                record=record,
                progress=within,
                **asked,
            )
            for i, (frame, picture) in enumerate(zip(now, trace.images)):
                arrays = {"latent": trace["sampler/out"].values[i]}
                if word:
                    arrays["heat"] = _heat(trace, i, tokens, walk.shares[frame], word)
                frames.keep(frame, picture, **arrays)
            there += len(now)
        if walk.closed and last in missing:
            names = ["latent", *(["heat"] if word else [])]
            frames.keep(last, frames.picture(0), **{n: frames.array(0, n) for n in names})
            progress(len(walk))
    except BaseException as error:
        kept = len(walk) - len(frames.missing(len(walk)))
        error.add_note(f"{kept} of {len(walk)} frames are kept: resume to go on with the others")
        raise
    return len(todo)


def tokens_with(
    tokenizer: Tokenizer, prompts: Sequence[str], word: str
) -> list[list[dict[str, Any]]]:
    """Each prompt's tokens as a trace has them.

    Raises:
        ValueError: no prompt has the word; PromptTooLong, a kind of it.
    """
    keys = ("text", "word", "word_index")
    tokens = [
        [{key: getattr(token, key) for key in keys} for token in tokenizer.tokens(prompt)]
        for prompt in prompts
    ]
    if not any(_positions(each, word) for each in tokens):
        words = dict.fromkeys(t["word"] for each in tokens for t in each if t["word_index"] >= 0)
        raise ValueError(f"no word {word!r} in the prompts, whose words are {', '.join(words)}")
    return tokens


def _positions(tokens: Sequence[dict[str, Any]], word: str) -> list[int]:
    return [i for i, token in enumerate(tokens) if token["word"].casefold() == word.casefold()]


def _observed(tokens: Sequence[Sequence[dict[str, Any]]], word: str) -> taps.Observation:
    places = sorted({place for each in tokens for place in _positions(each, word)})
    return taps.observe("unet/**/cross/weights", mean="head", tokens=places)


def _heat(
    trace: Trace,
    image: int,
    tokens: Sequence[Sequence[dict[str, Any]]],
    shares: np.ndarray,
    word: str,
) -> np.ndarray:
    """Attention to the word, (y, x) float32: each prompt's places of it, by the prompt's share."""
    total = np.zeros((trace.attrs["height"], trace.attrs["width"]), np.float32)
    for share, each in zip(shares, tokens, strict=True):
        if share and _positions(each, word):
            # The run was given embeddings; the words are the prompts' from which these were made.
            attrs = trace.attrs | {"tokens": {"cond": [each] * len(trace.attrs["seeds"])}}
            told = Trace(
                attrs=attrs,
                steps=trace.steps,
                timesteps=trace.timesteps,
                specs=trace.specs,
                load=trace.lazy,
            )
            maps = wordmaps.word_maps(told, words=word, image=image)
            total += share * maps.values.sum(axis=0) / maps.coords["maps"].item()
    return total
