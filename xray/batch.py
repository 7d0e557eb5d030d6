"""What is asked of a run, checked and laid out image by image before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.samplers import SAMPLERS, initial_noise, sampler_named
from xray.taps import BRANCHES
from xray.tokenizer import Token

if TYPE_CHECKING:
    from xray.generator import Generator

EMBEDDED = "<embedding>"  # stands in a trace for a prompt that was given as one


@dataclass
class Batch:
    """What is asked for, image by image: texts or embeddings for each branch, and seeds."""

    prompts: dict[str, list[Any]]
    tokens: dict[str, list[list[Token] | None]]
    seeds: list[int]

    def shown(self, branch: str) -> list[str]:
        return [p if isinstance(p, str) else EMBEDDED for p in self.prompts[branch]]

    @property
    def given(self) -> list[str]:
        """The branches for which an embedding was given in place of a text."""
        return [b for b in BRANCHES if not all(isinstance(p, str) for p in self.prompts[b])]

    def texts(self, branches: Sequence[str]) -> dict[str, tuple]:
        return {
            b: tuple(tuple(t.text for t in row or ()) for row in self.tokens[b]) for b in branches
        }

    def tokens_json(self, branches: Sequence[str]) -> dict[str, list]:
        keys = ("text", "word", "word_index")
        return {
            b: [[{k: getattr(t, k) for k in keys} for t in row or ()] for row in self.tokens[b]]
            for b in branches
        }

    def words(self, branches: Sequence[str]) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """Coordinates along the token axis: the word each token belongs to, and which one it is.

        Along branch and image as well, where these have other words; ``""`` and −1 for what was
        given as an embedding, and nothing at all where everything was.
        """
        rows = [[row or () for row in self.tokens[b]] for b in branches]
        length = max(len(row) for images in rows for row in images)
        if not length:
            return {}
        labels = {
            name: np.array(
                [
                    [[getattr(t, name) for t in row] or [absent] * length for row in images]
                    for images in rows
                ]
            )
            for name, absent in (("word", ""), ("word_index", -1))
        }
        dims = ["branch", "image", "token"]
        for axis in (1, 0):
            firsts = {name: np.take(v, [0], axis) for name, v in labels.items()}
            if all((labels[name] == first).all() for name, first in firsts.items()):
                labels = {name: first.squeeze(axis) for name, first in firsts.items()}
                del dims[axis]
        return {name: (tuple(dims), values) for name, values in labels.items()}


def read_batch(model: Generator, prompt: Any, negative: Any, seed: Any, truncate: bool) -> Batch:
    prompts, negatives = rows_of(prompt), rows_of(negative)
    several = isinstance(seed, (list, tuple, range)) or np.ndim(seed) > 0
    seeds = list(seed) if several else [seed]
    lengths = {len(x) for x in (prompts, negatives, seeds)} - {1}
    if not prompts or not seeds or not negatives or len(lengths) > 1:
        raise ValueError(
            f"{len(prompts)} prompts, {len(negatives)} negative prompts and {len(seeds)} seeds "
            "do not make a batch: give one, or the same number of each"
        )
    count = lengths.pop() if lengths else 1
    for s in seeds:
        if not _whole(s) or s < 0:
            raise ValueError(f"seed {s!r} is not a whole number from 0 up")
    for p in prompts:
        if isinstance(p, str):
            not_empty(p)
    widened = [x * count if len(x) == 1 else x for x in (prompts, negatives, seeds)]
    by_branch = {"cond": widened[0], "uncond": widened[1]}
    for branch, items in by_branch.items():
        by_branch[branch] = [p if isinstance(p, str) else embedding_for(model, p) for p in items]
    tokens = {
        branch: [prompt_tokens(model, p, truncate) if isinstance(p, str) else None for p in items]
        for branch, items in by_branch.items()
    }
    return Batch(by_branch, tokens, [int(s) for s in widened[2]])


def not_empty(prompt: str) -> str:
    if not prompt.strip():
        raise ValueError(
            "the prompt is empty; for a picture without one, give guidance=0 and any prompt, "
            "or model.embed('') as the prompt"
        )
    return prompt


def rows_of(prompt: Any) -> list[Any]:
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, (list, tuple)):
        return list(prompt)
    if hasattr(prompt, "__array__"):
        array = np.asarray(prompt)
        return list(array) if array.ndim == 3 else [array]
    raise TypeError(f"a prompt is text or an embedding, got {type(prompt).__name__}: {prompt!r}")


def embedding_for(model: Generator, value: Any) -> np.ndarray:
    if not hasattr(value, "__array__"):
        raise TypeError(f"a prompt is text or an embedding, got {type(value).__name__}: {value!r}")
    array = np.asarray(value, np.float32)
    expected = (model.architecture.text_length, model.architecture.text_width)
    if array.shape == (1, *expected):
        array = array[0]
    if array.shape != expected:
        raise ValueError(f"an embedding for {model.name} is {expected}, got shape {array.shape}")
    return numbers("the embedding", array)


def prompt_tokens(model: Generator, prompt: str, truncate: bool) -> list[Token]:
    """The prompt's tokens, padded to the model's length."""
    if model.tokenizer is None:
        raise ValueError(
            f"{model.name} was loaded without a vocabulary and cannot read {prompt!r}; "
            "load it with tokenizer=PATH (CLIP's bpe_simple_vocab_16e6.txt.gz, or the tokenizer "
            "folder of a diffusers model), or give embeddings in place of text"
        )
    return model.tokenizer.tokens(prompt, truncate=truncate)


def token_coords(tokens: Sequence[Token]) -> dict[str, Any]:
    """Coordinates along the token axis: the word each token belongs to, and which one it is."""
    return {
        "word": ("token", [t.word for t in tokens]),
        "word_index": ("token", [t.word_index for t in tokens]),
    }


def start_latent(
    model: Generator,
    batch: Batch,
    latent: Any,
    width: int | None,
    height: int | None,
    start_step: int,
    steps: int,
) -> tuple[np.ndarray, int]:
    """The latent the run starts from: (n, h/8, w/8, 4)."""
    for name, value, least in (("steps", steps, 1), ("start_step", start_step, 0)):
        if not _whole(value) or value < least:
            raise ValueError(f"{name} must be a whole number from {least} up, got {value!r}")
    if start_step >= steps:
        raise ValueError(f"start_step must be 0 … {steps - 1}, got {start_step}")
    if latent is None:
        if start_step:
            raise ValueError(f"start_step {start_step} needs the latent that this step receives")
        width, height = model.architecture.sides(width, height)
        for name, side in (("width", width), ("height", height)):
            if not _whole(side) or side % 64 or side < 64:
                raise ValueError(f"{name} must be a multiple of 64, got {side!r}")
        shape = (height // 8, width // 8, 4)
        return np.stack([initial_noise(s, shape) for s in batch.seeds]), start_step
    start = np.array(latent, np.float32)
    if start.ndim == 3:
        start = start[None]
    if start.ndim != 4:
        raise ValueError(f"latent must be (y, x, 4) or (n, y, x, 4), got {start.shape}")
    count = len(batch.seeds)
    if len(start) == 1:
        start = np.repeat(start, count, axis=0)
    if start.shape[-1] != 4 or len(start) != count:
        raise ValueError(f"latent must be (y, x, 4) or ({count}, y, x, 4), got {start.shape}")
    for name, side, asked in (("height", start.shape[1], height), ("width", start.shape[2], width)):
        if side % 8 or side < 8:
            raise ValueError(f"{name} must be a multiple of 64, got {side * 8} by the latent")
        if asked is not None and asked != side * 8:
            raise ValueError(f"{name} is {asked}, but the latent is for {side * 8}")
    return numbers("the latent", start), start_step


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def numbers(what: str, array: np.ndarray, error: type[Exception] = ValueError) -> np.ndarray:
    """`array`, refused by the name `what` if it holds anything that is no number."""
    if not np.isfinite(array).all():
        raise error(f"{what} holds {int((~np.isfinite(array)).sum())} NaN or infinite values")
    return array


def finite(name: str, value: float) -> float:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not np.isfinite(value):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return float(value)


def guidance_of(guidance: Any, steps: int) -> float | list[float]:
    """One scale for the whole run, or a list with one for each step."""
    if not isinstance(guidance, (list, tuple)) and np.ndim(guidance) == 0:
        return finite("guidance", guidance)
    if len(guidance) != steps:
        raise ValueError(
            f"guidance has {len(guidance)} scales and the run {steps} steps: give one scale, or "
            "one for each step"
        )
    return [finite("guidance", scale) for scale in guidance]


def guidance_text(guidance: float | Sequence[float]) -> str:
    """``5``, or ``1 to 7`` where it changes during the run."""
    scales = np.atleast_1d(guidance)
    low, high = scales.min(), scales.max()
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def eta_of(sampler: str, eta: float | None) -> float:
    own = sampler_named(sampler).eta
    eta = finite("eta", (own or 0.0) if eta is None else eta)
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be 0 … 1, got {eta}")
    if eta and own is None:
        others = ", ".join(name for name, s in SAMPLERS.items() if s.eta is not None)
        raise ValueError(f"{sampler} puts no noise back, so eta {eta} means nothing: {others} do")
    return eta
