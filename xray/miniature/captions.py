"""A small grammar: what a scene's content is called, and the many ways to say it.

A caption is built as a list of `Word`s, each of which remembers what it speaks of; nothing ever
parses a caption to find out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

_T = TypeVar("_T")
Random = Callable[[], float]  # numpy's Generator.random: the one draw whose bits never change

# What each role can mean, and the words that mean it; the first is the canonical name.
WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "thing": {
        "circle": ("circle", "disc"),
        "square": ("square", "box"),
        "triangle": ("triangle",),
        "star": ("star",),
        "heart": ("heart",),
        "ring": ("ring", "hoop"),
        "cross": ("cross", "plus"),
        "moon": ("moon", "crescent"),
        "house": ("house", "cottage"),
        "tree": ("tree",),
        "fish": ("fish",),
        "flower": ("flower", "blossom"),
        "boat": ("boat", "ship"),
        "cat": ("cat", "kitten"),
        "mushroom": ("mushroom", "toadstool"),
        "car": ("car", "automobile"),
    },
    "colour": {
        "red": ("red", "crimson", "scarlet"),
        "orange": ("orange",),
        "yellow": ("yellow", "golden"),
        "green": ("green", "emerald"),
        "blue": ("blue", "azure"),
        "purple": ("purple", "violet"),
        "pink": ("pink", "rosy"),
        "brown": ("brown", "chestnut"),
        "black": ("black",),
        "white": ("white",),
    },
    "size": {
        "small": ("small", "little", "tiny"),
        "medium": ("medium",),
        "large": ("large", "big", "huge"),
    },
    "fill": {
        "plain": ("plain", "solid"),
        "striped": ("striped", "stripy"),
        "dotted": ("dotted", "spotted"),
        "outlined": ("outlined", "hollow"),
    },
    "relation": {
        "left of": ("left",),
        "right of": ("right",),
        "above": ("above", "over"),
        "below": ("below", "under", "beneath"),
        "inside": ("inside", "within", "in"),
    },
    "background": {
        "white": ("white",),
        "grey": ("grey", "gray"),
        "black": ("black",),
        "yellow": ("yellow",),
        "pink": ("pink",),
        "sky": ("sky",),
        "sea": ("sea", "ocean"),
        "night": ("night",),
        "grass": ("grass", "meadow"),
    },
}

# Ways to mention a background; starred words speak of it. "&" stands for its name or a synonym.
_PLAIN = ("on a *& *background", "on a *& *background", "on *&", "in front of a *& *wall")
_MENTIONS = {
    "sky": ("in the *&", "in the *blue *&", "in the *clouds"),
    "sea": ("on the *&", "in the *&", "on the *waves", "on the *water"),
    "night": ("at *&", "at *&", "in the *& *sky", "on a *starry *&"),
    "grass": ("on the *&", "in the *&", "in the *green *&", "on the *lawn"),
}

# Meanings whose words fit where another's stood: "at night" is not said like "on the sea".
_EXCHANGEABLE = {
    "relation": (("left of", "right of"), ("above", "below", "inside")),
    "background": (("white", "grey", "black", "yellow", "pink"), ("sky", "sea", "grass")),
}

_OPENINGS = ("a picture of", "a drawing of", "there is", "here is", "i see")
_NUMBERS = {2: "two", 3: "three"}
_WITH = {"striped": ("stripes",), "dotted": ("dots", "spots")}


class Described(Protocol):
    """What a noun phrase needs to know of an object."""

    thing: str
    colour: str
    size: str
    fill: str


@dataclass(frozen=True)
class Word:
    """One word, or punctuation mark, of a caption and what it speaks of.

    Attributes:
        text: as it stands in the caption.
        role: "thing", "colour", "size", "fill", "relation", "background"; "" for a word without
            content and for punctuation.
        value: what is meant, by its canonical name: "red" for "crimson".
        objects: indices of the scene's objects that are meant; empty for the background.
    """

    text: str
    role: str = ""
    value: str = ""
    objects: tuple[int, ...] = ()


def pick(random: Random, options: Sequence[_T]) -> _T:
    """One of the options, all equally likely."""
    return options[int(random() * len(options))]


def plural(noun: str) -> str:
    """The plural of a thing's name: "stars", "boxes", "fish"."""
    if noun == "fish":
        return noun
    return noun + ("es" if noun.endswith(("s", "x")) else "s")


def join(words: Sequence[Word]) -> str:
    """The caption as people type it."""
    return re.sub(r" (?=[,:])", "", " ".join(word.text for word in words))


_WORD = re.compile(r"[a-z]+|[^a-z\s]+")


def words_of(caption: str) -> list[str]:
    """The words of a caption as the tokenizer counts them: punctuation is a word too.

    Example:
        >>> words_of("two things: a star, a moon")
        ['two', 'things', ':', 'a', 'star', ',', 'a', 'moon']
    """
    return _WORD.findall(caption)


def replace_word(caption: str, index: int, word: str) -> str:
    """The caption with another word in one place, and "a" or "an" before it as it should be.

    Args:
        caption: any caption.
        index: which of `words_of(caption)`.
        word: what to put there.

    Example:
        >>> replace_word("a red star", 1, "orange")
        'an orange star'
    """
    places = list(_WORD.finditer(caption))
    if not 0 <= index < len(places):
        raise IndexError(f"word {index} of {caption!r}, which has {len(places)} words")
    start, end = places[index].span()
    before = caption[:start]
    if index and places[index - 1].group() in ("a", "an"):
        before = before[: places[index - 1].start()] + _article(word) + " "
    return before + word + caption[end:]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _plainly(text: str) -> list[Word]:
    return [Word(word) for word in text.split()]


def _noun_phrase(
    thing: Described, index: tuple[int, ...], random: Random, article: str | None
) -> list[Word]:
    """One object, or several that look alike: "a big striped fish that is red"."""
    many = len(index) > 1

    def word(role: str) -> Word:
        value = getattr(thing, role)
        # The canonical name half of the time: it is what people type.
        options = WORDS[role][value]
        text = options[0] if random() < 0.5 else pick(random, options)
        return Word(plural(text) if role == "thing" and many else text, role, value, index)

    noun = word("thing")
    named = {
        "size": random() < (0.04 if thing.size == "medium" else 0.9),
        "fill": thing.fill != "plain" or (thing.thing != "ring" and random() < 0.05),
        "colour": random() < 0.92,
    }
    order = ("size", "fill", "colour") if random() < 0.6 else ("size", "colour", "fill")
    after: list[Word] = []
    style = random()
    if style < 0.08 and named["colour"] and not many:
        named["colour"] = False
        after = _plainly("that is") + [word("colour")]
    elif style > 0.75 and named["fill"] and thing.fill in _WITH:
        named["fill"] = False
        after = [Word("with"), Word(pick(random, _WITH[thing.fill]), "fill", thing.fill, index)]
    words = [word(role) for role in order if named[role]] + [noun] + after
    if article is None:
        article = _NUMBERS[len(index)] if many else _article(words[0].text)
    return _plainly(article) + words


def _background_phrase(background: str, random: Random) -> list[Word]:
    mention = pick(random, _MENTIONS.get(background, _PLAIN))
    words = []
    for text in mention.split():
        content = text.startswith("*")
        text = text.lstrip("*").replace("&", pick(random, WORDS["background"][background]))
        words.append(Word(text, "background" if content else "", background if content else ""))
    return words


def _relation_phrase(relation: str, objects: tuple[int, int], random: Random) -> list[Word]:
    text = pick(random, WORDS["relation"][relation])
    word = Word(text, "relation", relation, objects)
    if relation in ("left of", "right of"):
        return (_plainly("to the") if random() < 0.6 else []) + [word, Word("of")]
    return [word]


def describe(
    objects: Sequence[Described],
    relation: tuple[int, str, int] | None,
    background: str,
    random: Random,
) -> tuple[Word, ...]:
    """One of the many captions of a scene, as words that know what they mean.

    Args:
        objects: the scene's objects.
        relation: what the caption states of two of them, (index, relation, index), or None.
        background: a background's name; it is mentioned in some of the captions.
        random: a source of numbers in [0, 1).
    """
    # "a red star", now and then without articles or with "the"; one choice for the whole caption.
    style = random()
    article = "" if style < 0.08 else "the" if style < 0.12 else None

    def phrase(*index: int) -> list[Word]:
        return _noun_phrase(objects[index[0]], index, random, article if len(index) == 1 else None)

    look = [(thing.thing, thing.colour, thing.size, thing.fill) for thing in objects]
    comma, and_ = Word(","), Word("and")
    if relation is not None:
        first, name, second = relation
        middle = _relation_phrase(name, (first, second), random)
        order = random()
        if order < 0.12:
            words = [*middle, *phrase(second), Word("is"), *phrase(first)]
        else:
            link = [Word("is")] if order < 0.24 else []
            words = [*phrase(first), *link, *middle, *phrase(second)]
        for other in set(range(len(objects))) - {first, second}:
            if random() < 0.7:
                words += [comma, and_, *phrase(other)]
            else:
                words = [*phrase(other), comma, and_, *words]
    elif len(objects) > 1 and len(set(look)) == 1:
        words = phrase(*range(len(objects)))
    else:
        words = phrase(0)
        for k in range(1, len(objects)):
            joint = pick(random, ([and_], [and_], [Word("with")], [comma]))
            words += joint if k == len(objects) - 1 else [comma]
            words += phrase(k)
        if random() < 0.06 and len(objects) > 1:
            noun = pick(random, ("things", "objects"))
            words = [Word(_NUMBERS[len(objects)]), Word(noun), Word(":"), *words]
    if random() < 0.06 and words[0].text in ("a", "an"):
        words = _plainly(pick(random, _OPENINGS)) + words
    if random() < 0.4:
        where = _background_phrase(background, random)
        if random() < 0.25:
            words = where + ([comma] if random() < 0.6 else []) + words
        else:
            words = words + ([comma] if random() < 0.1 else []) + where
    return tuple(words)


def alternatives(word: Word, *, same: bool) -> list[str]:
    """The words that could stand in a word's place.

    Args:
        word: a word of a caption.
        same: True for those that mean the same, False for those that mean something else.

    Returns:
        Words that fit the grammar there; none for words without content and for fixed phrases.
    """
    meanings = WORDS.get(word.role, {})
    many = word.role == "thing" and len(word.objects) > 1
    inflect = plural if many else str
    if word.text not in {inflect(w) for w in meanings.get(word.value, ())}:
        return []
    if same:
        return [w for w in map(inflect, meanings[word.value]) if w != word.text]
    groups = _EXCHANGEABLE.get(word.role, (tuple(meanings),))
    others = (v for group in groups if word.value in group for v in group if v != word.value)
    return [inflect(w) for value in others for w in meanings[value]]
