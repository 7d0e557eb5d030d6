"""What is in an embedding: norms, similarities, growth through the layers, attention, pooling.

Two prompts go through the text encoder, and every stage of it is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray

from xray.batch import prompt_tokens
from xray.embeddings import angle, end_of

if TYPE_CHECKING:
    from xray.generator import Generator

AFTER_END = 2  # padding positions that figures show


def inside(model: Generator, prompts: Sequence[str]) -> xarray.Dataset:
    """Everything the text encoder makes of the prompts on the way.

    Args:
        model: with a tokenizer.
        prompts: any number, one length or not.

    Returns:
        ``state`` (prompt, token, channel), the last hidden state, which the U-Net attends to;
        ``pooled`` (prompt, channel), of it the row at the first end token, at ``end`` (prompt);
        ``norm`` (prompt, stage, token), of the residual stream after the embedding and each layer
        and of the last hidden state; ``turned`` (prompt, stage, token), the angle from the
        embedding, in degrees; ``added`` (prompt, layer, part, token), the norm of what attention
        and feed-forward add to the stream; ``attention`` (prompt, layer, head, token, key_token);
        ``cosine`` (prompt, token, other_prompt, other_token), of the last hidden states;
        ``to_pooled`` (prompt, token), the angle of each row to its prompt's pooled vector; and
        ``word`` (prompt, token).

    Raises:
        PromptTooLong: as `Tokenizer.tokens`.
    """
    rows = [prompt_tokens(model, prompt, truncate=False) for prompt in prompts]
    ends = np.array([end_of(row) for row in rows])
    layers = range(len(model.networks["text"].layers))
    names = ["text/embedding", *(f"text/layer.{i}/out" for i in layers)]
    parts = ["attention", "ff"]
    wanted = [*names, *(f"text/layer.*/{part}/out" for part in parts)]
    ids = np.array([[token.id for token in row] for row in rows], np.int32)
    state, sites = model.text.record([*wanted, "text/layer.*/attention/weights"], ids)
    stream = np.stack([*(sites[name] for name in names), state], axis=1)
    added = [[sites[f"text/layer.{i}/{part}/out"] for part in parts] for i in layers]
    weights = np.stack([sites[f"text/layer.{i}/attention/weights"] for i in layers], axis=1)
    unit = state / np.linalg.norm(state, axis=-1, keepdims=True)
    pooled = state[np.arange(len(prompts)), ends]
    stages = ["embedding", *(f"layer {i}" for i in layers), "out"]
    return xarray.Dataset(
        {
            "state": (("prompt", "token", "channel"), state),
            "pooled": (("prompt", "channel"), pooled),
            "norm": (("prompt", "stage", "token"), np.linalg.norm(stream, axis=-1)),
            "turned": (("prompt", "stage", "token"), angle(stream[:, :1], stream)),
            "added": (
                ("prompt", "layer", "part", "token"),
                np.moveaxis(np.linalg.norm(added, axis=-1), 2, 0),
            ),
            "attention": (
                ("prompt", "layer", "head", "token", "key_token"),
                weights.astype(np.float32),
            ),
            "cosine": (
                ("prompt", "token", "other_prompt", "other_token"),
                np.einsum("ptc,quc->ptqu", unit, unit),
            ),
            "to_pooled": (("prompt", "token"), angle(state, pooled[:, None])),
        },
        coords={
            "prompt": list(prompts),
            "stage": stages,
            "part": parts,
            "word": (("prompt", "token"), [[token.word for token in row] for row in rows]),
            "end": ("prompt", ends),
        },
    )


def moved(data: xarray.Dataset) -> np.ndarray:
    """Degrees between the last hidden states of the first two prompts, position by position."""
    return angle(*data["state"].values[:2])


def findings(data: xarray.Dataset) -> dict[str, float]:
    """The numbers of `inside`'s two prompts that say most.

    Returns:
        ``pooled_angle`` and ``whole_angle`` between the two prompts' pooled vectors and whole
        last hidden states, in degrees; ``word_angle``, the mean over the positions that hold
        words in both; ``unchanged``, how many positions are the same in both because nothing
        before them differs; ``padding_to_pooled``, the mean angle of the first prompt's padding
        to its pooled vector (NaN without any) and ``words_to_pooled`` that of its words;
        ``growth``, the norm of the last layer's stream over that of the embedding, mean.
    """
    state, ends = data["state"].values, data["end"].values
    apart = moved(data)
    to_pooled, end = data["to_pooled"].values[0], ends[0]
    norm = data["norm"].values[0]
    padding = to_pooled[end + 1 :]
    return {
        "pooled_angle": float(angle(*data["pooled"].values[:2])),
        "whole_angle": float(angle(*state[:2].reshape(2, -1))),
        "word_angle": float(apart[1 : ends.min()].mean()) if ends.min() > 1 else float("nan"),
        "unchanged": int(np.cumprod(apart < 1e-3).sum()),  # but for rounding
        "padding_to_pooled": float(padding.mean()) if padding.size else float("nan"),
        "words_to_pooled": float(to_pooled[1:end].mean()) if end > 1 else float("nan"),
        "growth": float(np.mean(norm[-2] / norm[0])),
    }


def token_table(data: xarray.Dataset) -> tuple[list[str], list[list]]:
    """Header and rows: what each position of the first prompt is, up to the first padding."""
    first = data.isel(prompt=0)
    apart = moved(data)
    last_layer = first["attention"].isel(layer=-1).mean("head").values
    rows = []
    for t in range(shown(data)):
        # The start token is where heads look that have nothing to look at.
        looks = 1 + int(last_layer[t, 1 : t + 1].argmax()) if t else 0
        word = str(first["word"].values[t])
        rows.append([t, word, *(float(first["norm"].values[k, t]) for k in (0, -2, -1)),
                     float(first["to_pooled"].values[t]), float(apart[t]),
                     str(first["word"].values[looks])])  # fmt: skip
    header = ["token", "word", "embedded", "last layer", "out", "to pooled", "to other", "looks at"]
    return header, rows


def shown(data: xarray.Dataset) -> int:
    """How many positions are worth drawing: to the longest prompt's end and a little padding."""
    return min(int(data["end"].max()) + 1 + AFTER_END, data.sizes["token"])
