"""Prompts as vectors, many at a time.

    vectors(model, ["a red star", "a crimson star"])              # (2, width): the pooled vectors
    vectors(model, prompts, "whole")                              # (n, length · width)

The *pooled* vector is CLIP's own summary of a prompt: the text encoder's output at the first end
token, which has seen every word. The *whole* is all of the output, what the U-Net attends to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from xray.batch import prompt_tokens
from xray.stats import format_bytes

if TYPE_CHECKING:
    from xray.generator import Generator
    from xray.tokenizer import Token

KINDS = ("pooled", "whole")
AT_ONCE = 32  # prompts; Stable Diffusion's text encoder then holds 0.3 GB
MOST_BYTES = 500_000_000  # of all vectors, which maps and groups hold several times


def vectors(
    model: Generator,
    prompts: Sequence[str],
    kind: str = "pooled",
    *,
    truncate: bool = False,
    tick: Callable[[], object] = lambda: None,
) -> np.ndarray:
    """One vector for each prompt.

    Args:
        model: with a tokenizer.
        prompts: any number of them.
        kind: ``"pooled"`` or ``"whole"``.
        truncate: cut prompts that are too long, with a warning, in place of an error.
        tick: called once for each prompt that is done.

    Returns:
        float32 (prompt, width), or (prompt, length · width) of the whole.

    Raises:
        ValueError: unknown kind, or half a gigabyte of vectors; PromptTooLong, a kind of it, as
            `Tokenizer.tokens`. Said before anything is computed.

    Example:
        >>> a, b = vectors(model, ["a red star", "a crimson star"])
        >>> angle(a, b)
    """
    if kind not in KINDS:
        raise ValueError(f"vectors are {' or '.join(KINDS)}, got {kind!r}")
    arch = model.architecture
    size = arch.text_width * (arch.text_length if kind == "whole" else 1)
    if 4 * size * len(prompts) > MOST_BYTES:
        raise ValueError(
            f"the {kind} embeddings of {len(prompts)} prompts take "
            f"{format_bytes(4 * size * len(prompts))}: give fewer, or ask for the pooled vectors"
        )
    rows = [prompt_tokens(model, prompt, truncate) for prompt in prompts]
    ends = [end_of(row) for row in rows]
    found = np.empty((len(prompts), size), np.float32)
    # Attention is causal: up to the end token nothing depends on what comes after, so that of
    # short prompts only their beginning need be computed. Prompts of like length go together.
    order = sorted(range(len(prompts)), key=ends.__getitem__)
    for start in range(0, len(order), AT_ONCE):
        chunk = order[start : start + AT_ONCE]
        longest = arch.text_length if kind == "whole" else ends[chunk[-1]] + 1
        length = min(-(-longest // 16) * 16, arch.text_length)  # few shapes, for each is compiled
        # The last chunk is filled up, for the same reason.
        filled = (chunk * AT_ONCE)[: min(AT_ONCE, len(prompts))]
        ids = np.array([[token.id for token in rows[i][:length]] for i in filled], np.int32)
        for i, states in zip(chunk, model.text(ids), strict=False):
            found[i] = states[ends[i]] if kind == "pooled" else states.ravel()
            tick()
    return found


def angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between vectors along the last axis: 0 for equal ones, exactly; NaN where one is 0.

    Reference:
        Kahan 2006, "How Futile are Mindless Assessments of Roundoff", section 12: arccos of the
        cosine has only half of the digits for small angles.
    """
    # Contiguous, for the order of summation follows the layout and equal vectors must stay equal.
    a, b = np.ascontiguousarray(a, np.float64), np.ascontiguousarray(b, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    return np.degrees(
        2 * np.arctan2(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1))
    )


def end_of(tokens: Sequence[Token]) -> int:
    """Where the first end token is: the place of the pooled vector.

    Reference:
        Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
        Supervision", section 2.4.
    """
    return next(i for i, token in enumerate(tokens) if token.special == "end")
