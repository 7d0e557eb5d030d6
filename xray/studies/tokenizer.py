"""How a word becomes numbers: merges step by step, words by their tokens, the cost of spelling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xray import embeddings, page
from xray.tokenizer import symbol_bytes

if TYPE_CHECKING:
    from xray.generator import Generator
    from xray.tokenizer import MergeStep, Tokenizer

MERGED = ("mushroom", "stargazer", "café", "🐟")
WORDS = (
    *("star", "mushroom", "stars", "starfish", "stargazer", "photograph", "archipelago"),
    *("daguerreotype", "supercalifragilistic", "don't", "e-mail", "1984", "3d", "café", "кот"),
    *("猫", "🐟", "👩\u200d🚀"),
)
PHRASE = "a picture of a {}"
SPELLINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "case": (("star", "STAR"),),
    "accent": (("café", "cafe\N{COMBINING ACUTE ACCENT}"), ("café", "cafe")),
    "British, American": (("grey cat", "gray cat"), ("colourful cat", "colorful cat")),
    "plural": (("cat", "cats"), ("mushroom", "mushrooms")),
    "punctuation": (("star", "star."), ("star", "star!")),
    "one word or two": (("toadstool", "toad stool"), ("starfish", "star fish")),
    "slip of the finger": (("mushroom", "mushrom"), ("flower", "flowre"), ("house", "huose")),
    "picture for a word": (("fish", "🐟"), ("heart", "❤")),
    "synonym": (("boat", "ship"), ("cat", "kitten"), ("red star", "crimson star")),
    "another word": (
        ("star", "fish"),
        ("boat", "house"),
        ("cat", "mushroom"),
        ("red star", "blue star"),
    ),
}
YARDSTICK = "another word"
MOST_DRAWN = 48  # bytes of a word


class Spelling(NamedTuple):
    """A word, another way to write it, and what that costs.

    Attributes:
        kind: of difference.
        word, variant: as written.
        tokens, variant_tokens: how many.
        reading, variant_reading: as read, see `reading`.
        angle: between the two pooled vectors, in degrees.
    """

    kind: str
    word: str
    variant: str
    tokens: int
    variant_tokens: int
    reading: str
    variant_reading: str
    angle: float


def spelling_costs(
    model: Generator,
    spellings: Mapping[str, Iterable[tuple[str, str]]] = SPELLINGS,
    phrase: str = PHRASE,
) -> list[Spelling]:
    """How far apart two spellings are for the text encoder.

    Args:
        model: with a tokenizer.
        spellings: pairs of word and variant, by kind of difference.
        phrase: what the words are put into, at ``{}``: by itself a word is no caption.

    Raises:
        ValueError: the phrase has no ``{}``; PromptTooLong, a kind of it, where one does not fit.
    """
    pairs = [(kind, *pair) for kind, pairs in spellings.items() for pair in pairs]
    vectors = embeddings.vectors(model, phrases(spellings, phrase)).reshape(len(pairs), 2, -1)
    angles = embeddings.angle(vectors[:, 0], vectors[:, 1])
    counts = [[len(model.tokenizer.encode(word)) for word in pair] for _, *pair in pairs]
    readings = [[reading(model.tokenizer, word) for word in pair] for _, *pair in pairs]
    return [
        Spelling(*pair, *count, *read, angle)
        for pair, count, read, angle in zip(pairs, counts, readings, angles.tolist(), strict=True)
    ]


def phrases(spellings: Mapping[str, Iterable[tuple[str, str]]], phrase: str = PHRASE) -> list[str]:
    """What the text encoder is given: every word and every variant, put into the phrase.

    Raises:
        ValueError: the phrase has no ``{}``.
    """
    if "{}" not in phrase:
        raise ValueError(f"the phrase {phrase!r} has no {{}} where the words would stand")
    words = [word for pairs in spellings.values() for pair in pairs for word in pair]
    return [phrase.replace("{}", word) for word in words]


def pairs(given: Iterable[str]) -> list[tuple[str, str]]:
    """``WORD=VARIANT`` as pairs.

    Raises:
        ValueError: one is something else.
    """
    found = [tuple(part.strip() for part in each.partition("=")[::2]) for each in given]
    for each, pair in zip(given, found, strict=True):
        if not all(pair):
            raise ValueError(f"{each!r} is no WORD=VARIANT, such as colour=color")
    return found


def yardstick(costs: Sequence[Spelling]) -> float | None:
    """The median angle to another word, which a cost can be compared with."""
    found = [each.angle for each in costs if each.kind == YARDSTICK]
    return float(np.median(found)) if found else None


def reading(tokenizer: Tokenizer, text: str) -> str:
    """A text as the tokenizer cuts it: ``"star·fish"`` is one word, ``"star fish"`` are two."""
    tokens = [token.text for token in tokenizer.encode(text)]
    return "".join(shown(t) + (" " if t.endswith("</w>") else "·") for t in tokens).strip()


def shown(symbol: str) -> str:
    """A symbol of the vocabulary as characters, or in hexadecimal where it is a part of one."""
    data = symbol_bytes(symbol)
    try:
        return page.printable(data.decode())
    except UnicodeDecodeError:
        return data.hex(" ")


def merges(tokenizer: Tokenizer, words: Iterable[str]) -> dict[str, list[MergeStep]]:
    """Each word on its way from bytes to tokens, to be drawn.

    Raises:
        ValueError: a word is empty or too long to draw.
    """
    steps = {word: tokenizer.merge_steps(word) for word in words}
    for word, (first, *_) in steps.items():
        if not 0 < len(first.symbols) <= MOST_DRAWN:
            raise ValueError(
                f"{word!r:.60} has {len(first.symbols)} bytes to join; words of 1 … {MOST_DRAWN} "
                "can be drawn"
            )
    return steps


def token_rows(model: Generator, ids: Sequence[int]) -> np.ndarray:
    """Rows of the token embedding: what the text encoder looks up, (token, width) float32."""
    from xray import forward  # which imports TensorFlow

    model.bring("text")
    table = forward.weight(model.networks["text"].embedding.token_embedding.embeddings)
    return np.stack([table[id].numpy() for id in ids])


def merges_table(tokenizer: Tokenizer, words: Iterable[str]) -> tuple[list[str], list[list]]:
    """Header and rows: every merge of every word, with what the word is made of after it."""
    rows = [
        [word, k, step.rank, " ".join(map(shown, step.symbols))]
        for word in words
        for k, step in enumerate(tokenizer.merge_steps(word))
    ]
    return ["word", "step", "rank", "symbols"], rows


def spellings_table(costs: Iterable[Spelling]) -> tuple[list[str], list[list]]:
    """Header and rows of what `spelling_costs` found."""
    return list(Spelling._fields), [list(each) for each in costs]
