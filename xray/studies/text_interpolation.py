"""What lies between two prompts: ways from one embedding to another, and the pictures on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray

from xray.batch import prompt_tokens
from xray.interpolate import lerp, slerp, walk
from xray.stats import rms

if TYPE_CHECKING:
    from xray.generator import Generator

WAYS = ("lerp", "slerp", "aligned")
AT_ONCE = 8  # pictures, of small ones; of large ones as many as are one of 512×512


# ------------------------------------------------------------------------------------- the ways


def ways(
    first: np.ndarray, second: np.ndarray, pair: np.ndarray, frames: int
) -> dict[str, np.ndarray]:
    """Three ways from one embedding to another.

    ``"lerp"`` is the straight line. ``"slerp"`` takes every row along its own great circle, so that
    rows keep their norms, which the text encoder's last normalisation makes nearly equal.
    ``"aligned"`` does so too, not to the row at the same place but to the one that `pairing` found.

    Args:
        first, second: (token, channel).
        pair: of `pairing`.
        frames: on each way, with both ends.

    Returns:
        (frame, token, channel) by name.
    """
    return {
        "lerp": walk([first, second], frames, between=lerp),
        "slerp": walk([first, second], frames, between=slerp_rows),
        "aligned": walk([first, second[pair]], frames, between=slerp_rows),
    }


def slerp_rows(a: Any, b: Any, t: float) -> np.ndarray:
    """`xray.interpolate.slerp`, each row by itself."""
    return np.stack([slerp(x, y, t) for x, y in zip(a, b, strict=True)])


def pairing(
    first: np.ndarray, second: np.ndarray, kinds: Sequence[str], other_kinds: Sequence[str]
) -> np.ndarray:
    """For each row of one embedding a row of the other, so that all together have least to go.

    Cross-attention sums over the rows and knows nothing of their order: an embedding with its rows
    in another order draws the same picture. So a word may walk to the word that is most like it,
    wherever that stands. Words walk to words, as far as there are as many in both; the others come
    out of padding or become such.

    Args:
        first, second: (token, channel).
        kinds, other_kinds: what stands at each row, as `Token.special`: ``""`` for words.

    Returns:
        (token,) positions in `second`, each once, with the least sum of squared distances.

    Reference:
        Kuhn 1955, "The Hungarian method for the assignment problem".
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    cost = cdist(first, second, "sqeuclidean")
    of_another_kind = np.not_equal.outer(np.array(kinds), np.array(other_kinds))
    return linear_sum_assignment(cost + (1 + cost.sum()) * of_another_kind)[1]


# ------------------------------------------------------------------------------------- pictures


def between(
    model: Generator,
    first: str,
    second: str,
    *,
    frames: int = 9,
    tick: Callable[..., object] = lambda *_: None,
    **asked: Any,
) -> xarray.Dataset:
    """Pictures all along the three ways, from the same noise, and how far apart they are.

    Args:
        model: with a tokenizer.
        first, second: the prompts.
        frames: on each way, with both ends, at least three.
        tick: called after each sampler step of each batch; `batches` says how many there are.
        **asked: as for `Generator.generate`: steps, guidance, seed, sampler, width, height, …

    Returns:
        For each (way, frame): ``image`` uint8 (…, y, x, rgb), ``latent`` (…, row, column, channel),
        ``row_norm``, the mean norm of the embedding's rows, ``to_first`` and ``to_second``, the
        distance of the latent to those at the ends of its way; for each (way, leg) the step from
        one frame to the next: ``embedding_step``, Euclidean, ``latent_step``, root mean square in
        latent units, ``pixel_step``, root mean square of levels 0 … 255. ``pair`` (token) is the
        pairing, ``word`` and ``other_word`` (token) what stands where. Coordinate ``t`` (frame).

    Raises:
        ValueError: fewer than three frames; PromptTooLong, a kind of it.
    """
    if frames < 3:
        raise ValueError(f"between two prompts there is nothing to see in {frames} frames; give 3")
    a, b = model.embed([first, second]).values
    tokens = [prompt_tokens(model, prompt, False) for prompt in (first, second)]
    pair = pairing(a, b, *([token.special for token in row] for row in tokens))
    paths = np.stack(list(ways(a, b, pair, frames).values()))
    # All ways begin at the same embedding; it is drawn once.
    flat = np.concatenate([paths[0, :1], *paths[:, 1:]])
    latents, images = pictures(model, flat, tick=tick, **asked)
    where = np.arange(1, len(flat)).reshape(len(WAYS), frames - 1)
    where = np.insert(where, 0, 0, axis=1)
    latents, images = latents[where], images[where]
    steps = ("way", "leg")
    return xarray.Dataset(
        {
            "image": (("way", "frame", "y", "x", "rgb"), images),
            "latent": (("way", "frame", "row", "column", "channel"), latents),
            "row_norm": (("way", "frame"), np.linalg.norm(paths, axis=-1).mean(axis=-1)),
            "to_first": (("way", "frame"), rms(latents - latents[:, :1])),
            "to_second": (("way", "frame"), rms(latents - latents[:, -1:])),
            "embedding_step": (steps, np.linalg.norm(np.diff(paths, axis=1), axis=(2, 3))),
            "latent_step": (steps, rms(np.diff(latents, axis=1))),
            "pixel_step": (steps, rms(np.diff(images.astype(np.float32), axis=1))),
            "pair": ("token", pair),
        },
        coords={
            "way": list(WAYS),
            "t": ("frame", np.linspace(0, 1, frames)),
            "word": ("token", [token.word for token in tokens[0]]),
            "other_word": ("token", [token.word for token in tokens[1]]),
        },
        attrs={"first": first, "second": second},
    )


def pictures(
    model: Generator,
    embeddings: np.ndarray,
    starts: np.ndarray | None = None,
    *,
    most: int | None = None,
    tick: Callable[..., object] = lambda *_: None,
    **asked: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """One picture for each embedding, a batch at a time.

    Args:
        embeddings: (n, token, channel).
        starts: (n, h/8, w/8, 4), where each run starts; by default in the noise of one seed.
        most: pictures in a batch.

    Returns:
        Latents (n, h/8, w/8, 4) and pixels uint8 (n, h, w, 3).
    """
    height, width = asked.get("height"), asked.get("width")
    if starts is not None:
        height, width = (8 * side for side in starts.shape[1:3])
    count = at_once(model, len(embeddings), width, height, most)
    latents, images = [], []
    for start in range(0, len(embeddings), count):
        # The last batch is filled up: another size would be compiled again.
        rows = np.minimum(np.arange(start, start + count), len(embeddings) - 1)
        if starts is not None:
            asked["latent"] = starts[rows]
        trace = model.generate(list(embeddings[rows]), record=[], progress=tick, **asked)
        latents.append(trace["sampler/out"].values)
        images.append(trace["image"].values)
    return np.concatenate(latents)[: len(embeddings)], np.concatenate(images)[: len(embeddings)]


def at_once(
    model: Generator, total: int, width: int | None, height: int | None, most: int | None = None
) -> int:
    """Pictures in a batch: of all batches the same, one for what is as large as 512×512."""
    width, height = model.architecture.sides(width, height)
    return max(1, min(most or AT_ONCE, total, 512 * 512 // (width * height)))


def batches(model: Generator, frames: int, width: int | None, height: int | None) -> int:
    """How many batches `between` draws."""
    total = 1 + len(WAYS) * (frames - 1)
    return -(-total // at_once(model, total, width, height))


# ------------------------------------------------------------------------------------- findings


def findings(data: xarray.Dataset) -> list[dict[str, Any]]:
    """For each way the numbers that say most.

    Returns:
        ``embedding``, ``latent`` and ``pixel``: the length of the way, the sum of its steps;
        ``detour``, that of the latents over the distance of its ends; ``flip``, the t in the middle
        of the largest step of the latents, and ``flip_share``, its share of the whole length (one
        frame in `frames` − 1 if the picture changed evenly); ``crossing``, the t from which on the
        latent is nearer to the second end than to the first.
    """
    t = data["t"].values
    rows = []
    for way in data["way"].values:
        own = data.sel(way=way)
        latent = own["latent_step"].values
        length, straight = latent.sum(), float(own["to_first"][-1])
        rows.append(
            {
                "way": str(way),
                "embedding": float(own["embedding_step"].sum()),
                "latent": float(length),
                "pixel": float(own["pixel_step"].sum()),
                "detour": float(length / straight) if straight else float("nan"),
                "flip": float(t[latent.argmax() : latent.argmax() + 2].mean()),
                "flip_share": float(latent.max() / length) if length else float("nan"),
                "crossing": crossing(t, own["to_first"].values - own["to_second"].values),
            }
        )
    return rows


def crossing(t: np.ndarray, values: np.ndarray) -> float:
    """Where `values`, which begin below 0 and end above, first reach 0, by straight lines."""
    k = int(np.argmax(values >= 0))
    if k == 0:  # the ends are the same picture
        return float("nan")
    share = values[k - 1] / (values[k - 1] - values[k])
    return float(t[k - 1] + share * (t[k] - t[k - 1]))
