"""Prompts to compare: sets that come with the package, and files of one's own.

    prompts = read("animals")                 # or "places", "counting", …: the names of SETS
    prompts = read("mine.txt")                # one a line
    prompts.texts, prompts.groups

A set is in groups of what a person would say is alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SETS: dict[str, dict[str, tuple[str, ...]]] = {
    # In the miniature's words: groups of synonyms, that differ from each other in what is drawn.
    "drawn": {
        "red star": ("a red star", "a crimson star", "a scarlet star"),
        "blue star": ("a blue star", "an azure star"),
        "green boat": ("a green boat", "an emerald boat", "a green ship"),
        "yellow house": ("a yellow house", "a golden house", "a yellow cottage"),
        "large brown cat": ("a large brown cat", "a big brown cat", "a huge chestnut kitten"),
        "small brown cat": ("a small brown cat", "a little brown cat", "a tiny chestnut kitten"),
        "moon above fish": ("a moon above a fish", "a crescent over a fish"),
        "moon below fish": ("a moon below a fish", "a crescent beneath a fish"),
    },
    "synonyms": {
        "happy": ("a happy dog", "a joyful dog", "a cheerful dog"),
        "sad": ("a sad dog", "an unhappy dog", "a sorrowful dog"),
        "big": ("a big house", "a large house", "a huge house"),
        "small": ("a small house", "a little house", "a tiny house"),
        "fast": ("a fast car", "a quick car", "a speedy automobile"),
        "slow": ("a slow car", "a sluggish car", "a slow automobile"),
        "old": ("an old man", "an elderly man", "an aged man"),
        "young": ("a young man", "a youthful man", "a boyish man"),
        "beautiful": ("a beautiful garden", "a lovely garden", "a gorgeous garden"),
        "ugly": ("an ugly garden", "a hideous garden", "an unsightly garden"),
    },
    "counting": {"cat": tuple(" ".join(["cat"] * n) for n in range(1, 11))},
    "order": {
        "red above blue": ("a red star above a blue moon", "a blue moon below a red star"),
        "blue above red": ("a blue moon above a red star", "a red star below a blue moon"),
        "colours swapped": ("a blue star above a red moon", "a red moon below a blue star"),
        "dog bites": ("a dog bites a man", "a man is bitten by a dog"),
        "man bites": ("a man bites a dog", "a dog is bitten by a man"),
        "horse rides": ("a horse riding an astronaut", "an astronaut ridden by a horse"),
        "astronaut rides": ("an astronaut riding a horse", "a horse ridden by an astronaut"),
        "no order": ("red blue star moon", "moon blue star red", "star star red moon blue"),
    },
    "articles": {
        "cat": ("cat", "a cat", "the cat", "one cat", "this cat", "my cat", "some cat", "any cat"),
        "cats": ("cats", "the cats", "two cats", "some cats", "many cats"),
        "star": ("star", "a star", "the star", "one star", "this star", "my star"),
        "mountain": ("mountain", "a mountain", "the mountain", "one mountain", "this mountain"),
    },
    "places": {
        "city": ("a busy street in Tokyo", "the skyline of New York", "a square in Paris",
                 "a market in Marrakesh"),
        "water": ("a lake in the mountains", "a sandy beach", "a waterfall", "a river delta"),
        "land": ("a desert with dunes", "a pine forest", "a green valley", "a snowy peak"),
        "building": ("a gothic cathedral", "a castle on a hill", "a lighthouse", "a wooden barn"),
        "indoors": ("a cosy kitchen", "a quiet library", "a hospital corridor", "a train station"),
    },
    "furniture": {
        "to sit": ("a chair", "an armchair", "a sofa", "a stool", "a bench"),
        "to lie": ("a bed", "a hammock", "a cradle", "a mattress"),
        "to put on": ("a table", "a desk", "a sideboard", "a shelf"),
        "to put in": ("a wardrobe", "a cupboard", "a chest of drawers", "a bookcase"),
        "light": ("a floor lamp", "a chandelier", "a desk lamp", "a candlestick"),
    },
    "animals": {
        "pets": ("a cat", "a dog", "a hamster", "a rabbit", "a parrot"),
        "farm": ("a cow", "a sheep", "a pig", "a horse", "a hen"),
        "savanna": ("a lion", "an elephant", "a giraffe", "a zebra", "a rhinoceros"),
        "sea": ("a shark", "a dolphin", "an octopus", "a whale", "a jellyfish"),
        "insects": ("a bee", "a butterfly", "an ant", "a beetle", "a dragonfly"),
    },
}  # fmt: skip
EVERYTHING = "all"


@dataclass(frozen=True)
class Prompts:
    """What `read` gives.

    Attributes:
        name: of the set or file.
        texts: every prompt once, in its order.
        groups: the group of each, or nothing where none are known.
        empty, repeated: how many lines of the file were left out because of that.
    """

    name: str
    texts: list[str]
    groups: list[str]
    empty: int = 0
    repeated: int = 0


def read(source: str) -> Prompts:
    """A set by its name; ``"all"`` sets, each a group; or a text file in UTF-8, one prompt a line.

    Empty lines are skipped, and what was there before.

    Raises:
        ValueError: neither a set nor a file; a file that is no text, or has no prompt.
        OSError: the file cannot be read.
    """
    if source in SETS or source == EVERYTHING:
        if source == EVERYTHING:
            grouped = {name: sum(groups.values(), ()) for name, groups in SETS.items()}
        else:
            grouped = SETS[source]
        group_of: dict[str, str] = {}
        for group, texts in grouped.items():
            for text in texts:
                group_of.setdefault(text, group)
        return Prompts(source, list(group_of), list(group_of.values()))
    path = Path(source)
    if not path.exists():
        names = ", ".join([*SETS, EVERYTHING])
        raise ValueError(f"{source!r} is neither a set of prompts ({names}) nor a file")
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error}") from error
    kept = [text for text in map(str.strip, lines) if text]
    if not kept:
        raise ValueError(f"{path} holds no prompt; write one a line")
    texts = list(dict.fromkeys(kept))
    return Prompts(path.name, texts, [], len(lines) - len(kept), len(kept) - len(texts))
