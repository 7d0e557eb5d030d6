"""Word maps: how much each place of the picture attended to each word of the prompt.

    trace = model.generate("a red star above a blue moon", record=["unet/**/cross/weights"])
    maps = word_maps(trace)                                 # (word 7, y 128, x 128)
    maps.word("star").image("channels")
    word_maps(trace, words="star", layers="unet/up.*/**", heads=[0, 3], steps=range(5))

Reference:
    Tang et al. 2022, "What the DAAM: Interpreting Stable Diffusion Using Cross Attention".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from xray.taps import matches
from xray.tensor import DebugTensor
from xray.trace import Trace

WEIGHTS = "/cross/weights"
SPECIAL = ("<start>", "<end>", "<pad>")
METHODS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


class NotRecorded(ValueError):
    """The trace does not hold what this takes; the message says what to record."""


def word_maps(
    trace: Trace,
    *,
    words: str | Sequence[str] | None = None,
    steps: int | Iterable[int] | None = None,
    layers: str | Sequence[str] | None = None,
    heads: int | Iterable[int] | None = None,
    image: int = 0,
    branch: str = "cond",
    size: tuple[int, int] | None = None,
    method: str = "bicubic",
) -> DebugTensor:
    """Cross-attention weights per word, enlarged to the picture and summed.

    What is summed: every layer's map, enlarged on its own, over the chosen heads, layers and
    steps, and over a word's tokens. It is a plain sum of attention weights, none of them scaled,
    clipped or normalised. In one head, layer and step the weights of all tokens add up to 1 at
    each place, so a map divided by ``maps.coords["maps"]`` is the share of attention, 0 … 1, that
    the place gave to the word. Where heads were averaged while recording, the average counts as
    one map. Bicubic enlargement (Keys' kernel, a = -0.5) can undershoot 0 next to a sharp peak.

    The published code of DAAM differs from its definition, followed here: it averages where this
    sums, leaves out the layers of lowest resolution, sets undershoots to 0, has a = -0.75, and
    stretches each word to 0 … 1 for show.

    Where a sampler evaluates the network more than once in a step, the first evaluation counts.

    Reads one step of one layer at a time.

    Args:
        trace: with ``unet/**/cross/weights`` recorded, some of them at least.
        words: the words to map, upper or lower case, in this order; of a word that the prompt
            has several times, every occurrence. By default all words of the prompt. ``"<start>"``,
            ``"<end>"`` and ``"<pad>"`` are the special tokens, each kind summed.
        steps: step numbers; by default all.
        layers: names or patterns of layers, such as ``"unet/up.*/**"`` or ``"unet/mid/attn.0"``;
            by default all that were recorded.
        heads: head numbers, the same in every layer; by default all.
        image: which one of the batch.
        branch: ``"cond"``, or ``"uncond"`` for the words of the negative prompt.
        size: (height, width) of the maps in pixels; by default the picture's.
        method: ``"bicubic"``, ``"bilinear"`` or ``"nearest"``, which shows each layer's own
            places.

    Returns:
        float32 (word, y, x). Coordinates: ``word``; ``word_index``, the word's place in the
        prompt, -1 for special tokens; and the number ``maps``, of how many (heads × layers ×
        steps) it is the sum.

    Raises:
        NotRecorded: the trace has not the weights, the heads or the tokens that this takes.
        ValueError: no such word, layer, head, image, branch or method; says which there are.
        TraceError: no such step.

    Example:
        >>> maps = word_maps(trace, words=["star", "moon"])
        >>> y, x = np.unravel_index(maps.word("star").values.argmax(), maps.shape[1:])
        >>> early, late = (word_maps(trace, steps=range(*part)) for part in ((0, 12), (12, 25)))
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is not one of {', '.join(METHODS)}")
    if not trace.steps:
        raise NotRecorded("no step of this trace is complete")
    steps = sorted(set(several("steps", steps) or trace.steps))
    heads = several("heads", heads)
    found = _tokens_of_words(trace, image, branch)
    sites = cross_layers(trace, layers)
    _check_heads(trace, sites, heads)
    chosen = _choose(found, several("words", words), _recorded_tokens(trace, sites))
    size = size or (trace.attrs["height"], trace.attrs["width"])

    total, count = np.zeros((len(chosen), *size)), 0
    for site in sites:
        weights, maps = _summed(trace, site, steps, heads, image, branch)
        position = {token: at for at, token in enumerate(_recorded_tokens(trace, [site]))}
        layer = [weights[..., [position[t] for t in w.tokens]].sum(axis=-1) for w in chosen]
        total += _resized(np.stack(layer), size, METHODS[method])
        count += maps
    return DebugTensor(
        total.astype(np.float32),
        ("word", "y", "x"),
        {
            "word": [w.word for w in chosen],
            "word_index": ("word", [w.index for w in chosen]),
            "maps": count,
        },
        site="word_maps",
        model=trace.attrs.get("model", ""),
        prompt=_prompt(trace, image, branch),
    )


def special_maps(
    trace: Trace, *, image: int = 0, branch: str = "cond", **choices: Any
) -> DebugTensor:
    """`word_maps` of the start, end and padding tokens, those that the prompt has.

    They often take most of the attention: it must go somewhere, whether a word fits or not.

    Args:
        trace, image, branch: as for `word_maps`.
        **choices: `steps`, `layers`, `heads`, `size`, `method`, as for `word_maps`.

    Raises:
        NotRecorded, ValueError, TraceError: as `word_maps`.

    Example:
        >>> maps = special_maps(trace)
        >>> (maps / maps.coords["maps"].item()).mean(("y", "x"))      # the share each kind gets
    """
    there = {word.word for word in _tokens_of_words(trace, image, branch) if word.index < 0}
    words = [word for word in SPECIAL if word in there]
    return word_maps(trace, words=words, image=image, branch=branch, **choices)


def cross_layers(trace: Trace, layers: str | Sequence[str] | None = None) -> list[str]:
    """The sites of recorded cross-attention weights that can be mapped.

    Args:
        trace: any.
        layers: names or patterns of layers, with ``/cross/weights`` or without; None for all.

    Raises:
        NotRecorded: there are none, or not with a place and a token for each weight.
        ValueError: a pattern matches none of them.
    """
    sites = [s for s in trace.sites if s.endswith(WEIGHTS)]
    if not sites:
        raise NotRecorded(
            "this trace holds no cross-attention weights: generate it with "
            'record=["unet/**/cross/weights"]'
        )
    if (patterns := several("layers", layers)) is not None:
        chosen = {p: [s for s in sites if _names(p, s)] for p in patterns}
        for pattern, found in chosen.items():
            if not found:
                raise ValueError(
                    f"layers: {pattern!r} names none of the recorded layers, which are "
                    f"{', '.join(s.removesuffix(WEIGHTS) for s in sites)}"
                )
        sites = [s for s in sites if any(s in found for found in chosen.values())]
    for site in sites:
        if lost := {"y", "x", "token"} - set(trace.specs[site].dims):
            raise NotRecorded(
                f"{site} was averaged over {', '.join(sorted(lost))} while it was recorded, and a "
                "word map needs all three of y, x and token: record it without that mean="
            )
    return sites


def _names(pattern: str, site: str) -> bool:
    return matches(pattern, site) or matches(pattern, site.removesuffix(WEIGHTS))


def several(name: str, value: Any) -> list | None:
    """What may be given as one thing, as several, or not at all: a list, or None.

    Raises:
        ValueError: an empty list; `name` is whose it is.
    """
    if value is None:
        return None
    value = [value] if isinstance(value, str | int | np.integer) else list(value)
    if not value:
        raise ValueError(f"{name} is empty: leave it out to take all")
    return value


# ---------------------------------------------------------------------------------------- words


class _Word(NamedTuple):
    """A word of the prompt in one place, or all special tokens of a kind."""

    word: str
    index: int
    tokens: list[int]


def _tokens_of_words(trace: Trace, image: int, branch: str) -> list[_Word]:
    branches = trace.attrs.get("tokens") or {}
    if not branches:
        raise NotRecorded("this trace does not know the tokens of its prompt")
    if branch not in branches:
        why = " (guidance 1 needs no unconditional branch)" if branch == "uncond" else ""
        raise ValueError(f"no branch {branch!r} in this trace{why}; it has {', '.join(branches)}")
    if not 0 <= image < len(branches[branch]):
        raise ValueError(f"no image {image} in this trace, which has {len(branches[branch])}")
    words: dict[tuple[str, int], _Word] = {}
    for position, token in enumerate(branches[branch][image]):
        key = token["word"], token["word_index"]
        words.setdefault(key, _Word(*key, [])).tokens.append(position)
    if not words:
        raise NotRecorded(
            f"the prompt of image {image} was given as an embedding, so no words are known"
        )
    return list(words.values())


def _choose(found: list[_Word], asked: list[str] | None, recorded: Sequence[int]) -> list[_Word]:
    content = [w for w in found if w.index >= 0]
    whole = [w for w in found if set(w.tokens) <= set(recorded)]
    if asked is None:
        if not content:
            raise NotRecorded("the prompt is empty and has no words to map")
        if not (chosen := [w for w in whole if w.index >= 0]):
            raise NotRecorded("no word of the prompt was recorded: see tokens= of xray.observe(…)")
        return chosen
    chosen = []
    for word in asked:
        places = [w for w in found if w.word.casefold() == word.casefold()]
        if not places:
            known = ", ".join(dict.fromkeys(w.word for w in (*content, *found)))
            raise ValueError(f"no word {word!r} in the prompt, whose words are {known}")
        if lost := [t for w in places for t in w.tokens if t not in recorded]:
            raise NotRecorded(
                f"the word {word!r} has the tokens {lost}, and only tokens "
                f"{', '.join(map(str, recorded))} were recorded in every layer"
            )
        chosen += [w for w in places if w not in chosen]
    return chosen


def _recorded_tokens(trace: Trace, sites: Sequence[str]) -> list[int]:
    """Positions of the tokens that all of the sites hold, in the order of the first."""
    per_site = []
    for site in sites:
        spec, coords = trace.specs[site], trace.lazy(site).coords
        length = spec.shape[spec.dims.index("token")]
        per_site.append(coords["token"].values.tolist() if "token" in coords else range(length))
    return [t for t in per_site[0] if all(t in tokens for tokens in per_site)]


def _prompt(trace: Trace, image: int, branch: str) -> str:
    prompts = trace.attrs.get("prompt" if branch == "cond" else "negative") or []
    return prompts[image] if image < len(prompts) else ""


# --------------------------------------------------------------------------------------- weights


def _check_heads(trace: Trace, sites: Sequence[str], heads: list[int] | None) -> None:
    averaged = [s for s in sites if "head" not in trace.specs[s].dims]
    if heads is not None:
        if averaged:
            raise NotRecorded(
                f"heads cannot be chosen: {averaged[0]} was averaged over heads while it was "
                'recorded; record it without mean="head"'
            )
        for site in sites:
            count = trace.specs[site].shape[trace.specs[site].dims.index("head")]
            if wrong := [h for h in heads if not 0 <= h < count]:
                raise ValueError(f"no head {wrong[0]} in {site}, which has {count}: choose layers=")
    elif averaged and len(averaged) < len(sites):
        raise NotRecorded(
            f"the sum over layers would weigh them unequally: {averaged[0]} was averaged over "
            f"heads while it was recorded, {next(s for s in sites if s not in averaged)} was not; "
            "choose layers= of one kind"
        )


def _summed(
    trace: Trace, site: str, steps: list[int], heads: list[int] | None, image: int, branch: str
) -> tuple[np.ndarray, int]:
    """One layer's weights, float64 (y, x, token), and of how many maps they are the sum."""
    total, count = 0.0, 0
    for step in steps:
        weights = trace.sel(site, step=step, evaluation=0, branch=branch).isel(image=image)
        if heads is not None:
            weights = weights.isel(head=sorted(set(heads)))
        values = weights.transpose(..., "y", "x", "token").values
        values = values.reshape(-1, *values.shape[-3:])
        # NumPy's sum, not the tensor's: a weight that is NaN is a fault and must stay visible.
        total = total + values.sum(axis=0, dtype=np.float64)
        count += len(values)
    return total, count


def _resized(maps: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    """(word, y, x) → (word, *size)."""
    images = (Image.fromarray(each.astype(np.float32)) for each in maps)
    return np.stack([np.asarray(each.resize(size[::-1], method)) for each in images])
