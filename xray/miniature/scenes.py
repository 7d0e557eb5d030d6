"""Captioned scenes with known truth, endlessly, from integer seeds.

    s = scene(20)
    s.caption                          # 'a small red house'
    s.objects[0].thing, s.background   # the scene graph: what is there, whatever the caption says
    image(s)                           # uint8 (128, 128, 3)
    render(s).masks[2]                 # bool (128, 128): the pixels that 'red' speaks of

The scene graph comes first; the picture and the caption are both made from it. Positions and
sizes are whole pixels of a 128×128 picture, so that a painted thing can be used again and a scene
costs well under a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from xray.miniature import drawing
from xray.miniature.captions import (
    WORDS,
    Random,
    Word,
    alternatives,
    describe,
    join,
    pick,
    replace_word,
)
from xray.miniature.drawing import BACKGROUNDS, COLOURS, THINGS

SIDE = 128  # the picture that positions and sizes refer to
SIZES: dict[str, tuple[int, ...]] = {
    "small": (15, 16),
    "medium": (24, 25, 26),
    "large": (35, 36, 37),
}
FILLS: tuple[str, ...] = ("plain", "striped", "dotted", "outlined")
RELATIONS: tuple[str, ...] = tuple(WORDS["relation"])
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
CLEAR = 32  # pixels between centres from which on a relation is beyond doubt: a quarter
MAX_WORDS = 18  # of a caption, punctuation included, so that the text encoder can be short
_CONTAINERS = ("circle", "square", "ring", "heart")
_CONTAINER_HALF = 40
_MARGIN, _GAP = 2, 3
# Fills that a thing's shape has no room for; and the things that have it even when small.
_UNFIT = {("ring", "outlined"), ("moon", "outlined"), ("ring", "dotted")}
_COMPACT = ("circle", "square", "triangle", "heart", "tree", "mushroom")
_SIZE_SHARES = ("small", "small", "medium", "medium", "medium", "medium", "large", "large")
_CONTRAST = 120.0  # least `drawing.distance` between an object and what is behind it


@dataclass(frozen=True)
class Object:
    """One thing in a scene.

    Attributes:
        thing: one of `THINGS`.
        colour: a key of `COLOURS`.
        size: "small", "medium" or "large".
        fill: one of `FILLS`.
        centre: (x, y) of its box's middle, in pixels of a 128×128 picture, y downwards.
        half: half the side of its box, in the same pixels.
    """

    thing: str
    colour: str
    size: str
    fill: str
    centre: tuple[int, int]
    half: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom), in pixels of a 128×128 picture."""
        (x, y), r = self.centre, self.half
        return (x - r, y - r, x + r, y + r)


@dataclass(frozen=True)
class Scene:
    """What is there, and one way to say it.

    Attributes:
        background: a key of `BACKGROUNDS`.
        variant: which of its pictures (clouds, waves, …).
        objects: what is in front of it; later ones cover earlier ones.
        relation: (index, relation, index) as stated by the caption, or None.
        words: the caption's words with what each means. Punctuation counts, as it does in the
            tokenizer's `word_index`.
    """

    background: str
    variant: int
    objects: tuple[Object, ...]
    relation: tuple[int, str, int] | None
    words: tuple[Word, ...]

    @property
    def caption(self) -> str:
        """The words as people type them."""
        return join(self.words)


@dataclass(frozen=True)
class Rendered:
    """A picture and its truth.

    Attributes:
        image: uint8 (y, x, channel), RGB.
        objects: bool (object, y, x): the visible pixels of each object. The hole of a ring and
            the inside of an outlined thing are not painted and do not belong to it.
        background: bool (y, x): what no object covers.
        masks: for the position of each content word among the caption's words, bool (y, x): the
            pixels it speaks of. Colour, size and fill words speak of their object, words of the
            background of it as a whole, even those that name a part: "clouds" has the mask that
            "sky" has, and that of "grass" has the sky above the hill in it. Relations have none.
    """

    image: np.ndarray
    objects: np.ndarray
    background: np.ndarray
    masks: dict[int, np.ndarray]


# -------------------------------------------------------------------------------------- held out

# A tenth of all (thing, colour) pairs: one colour of each thing, none that people would miss.
HELD_OUT_PAIRS: frozenset[tuple[str, str]] = frozenset(
    {
        ("circle", "brown"),
        ("square", "purple"),
        ("triangle", "yellow"),
        ("star", "green"),
        ("heart", "orange"),
        ("ring", "red"),
        ("cross", "pink"),
        ("moon", "purple"),
        ("house", "black"),
        ("tree", "blue"),
        ("fish", "white"),
        ("flower", "brown"),
        ("boat", "yellow"),
        ("cat", "green"),
        ("mushroom", "blue"),
        ("car", "pink"),
    }
)


def _held_out_triples() -> frozenset[tuple[str, str, str]]:
    """About a tenth of all (thing, relation, thing), closed under saying it the other way round."""
    triples = set()
    for i, first in enumerate(THINGS):
        for j, second in enumerate(THINGS):
            for k, relation in enumerate(("left of", "above")):
                if (5 * i + 3 * j + 7 * k) % 10 == 0 and (first, second) != ("star", "moon"):
                    triples |= {(first, relation, second), (second, INVERSE[relation], first)}
            if second in _CONTAINERS and (3 * i + j) % 10 == 4:
                triples.add((first, "inside", second))
    return frozenset(triples)


HELD_OUT_TRIPLES: frozenset[tuple[str, str, str]] = _held_out_triples()


def holds(first: Object, relation: str, second: Object) -> bool:
    """Whether a relation between two objects is beyond doubt in the picture.

    For "left of", "right of", "above" and "below": the centres are at least a quarter of the
    picture apart in that direction, and at most half as far in the other. "inside": the box of
    the first lies in the box of the second.
    """
    if relation == "inside":
        a, b = first.box, second.box
        return a[0] > b[0] and a[1] > b[1] and a[2] < b[2] and a[3] < b[3]
    if relation not in INVERSE:
        raise ValueError(f"relation {relation!r}; one of {', '.join(RELATIONS)}")
    dx = second.centre[0] - first.centre[0]
    dy = second.centre[1] - first.centre[1]
    along, across = (dx, dy) if relation in ("left of", "right of") else (dy, dx)
    if relation in ("right of", "below"):
        along = -along
    return along >= CLEAR and 2 * abs(across) <= along


def held_out(scene: Scene, *, stated: bool = False) -> bool:
    """Whether a scene has a combination that training never sees.

    Args:
        scene: any scene.
        stated: count only what the caption says, not what merely is in the picture.
    """
    objects = scene.objects
    if stated:
        said = {(w.value, k) for w in scene.words if w.role == "colour" for k in w.objects}
        pairs = ((objects[k].thing, colour) for colour, k in said)
        links = () if scene.relation is None else (scene.relation,)
    else:
        pairs = ((o.thing, o.colour) for o in objects)
        links = (
            (i, relation, j)
            for i, a in enumerate(objects)
            for j, b in enumerate(objects)
            for relation in RELATIONS
            if i != j and holds(a, relation, b)
        )
    return any(pair in HELD_OUT_PAIRS for pair in pairs) or any(
        (objects[i].thing, relation, objects[j].thing) in HELD_OUT_TRIPLES
        for i, relation, j in links
    )


# -------------------------------------------------------------------------------------- sampling


def _visible(colour: str, background: str) -> bool:
    tones = BACKGROUNDS[background]
    return colour != background and all(
        drawing.distance(COLOURS[colour], tone) >= _CONTRAST for tone in tones
    )


_COLOURS_ON: dict[str, list[str]] = {b: [c for c in COLOURS if _visible(c, b)] for b in BACKGROUNDS}


def _fill(random: Random, thing: str, size: str) -> str:
    fill = "plain" if random() < 0.7 else pick(random, FILLS[1:])
    if (thing, fill) in _UNFIT or (size == "small" and thing not in _COMPACT):
        return "plain"
    return fill


def _object(
    random: Random, size: str, colours: Sequence[str], things: Sequence[str] = THINGS
) -> Object:
    """One object of a size, not placed yet."""
    thing = pick(random, things)
    fill = _fill(random, thing, size)
    return Object(thing, pick(random, colours), size, fill, (0, 0), pick(random, SIZES[size]))


def _anywhere(random: Random, half: int) -> tuple[int, int]:
    low, places = half + _MARGIN, SIDE - 2 * (half + _MARGIN) + 1
    return low + int(random() * places), low + int(random() * places)


def _apart(centre: tuple[int, int], half: int, other: Object) -> bool:
    (x, y), (u, v) = centre, other.centre
    return max(abs(x - u), abs(y - v)) >= half + other.half + _GAP


def _nested(random: Random, background: str) -> tuple[Object, Object]:
    """A large thing that leaves room, and a small one inside it."""
    colours = _COLOURS_ON[background]
    half = _CONTAINER_HALF
    outer = _object(random, "large", colours, _CONTAINERS)
    if outer.fill in ("striped", "dotted"):  # a pattern around a small thing drowns it
        outer = replace(outer, fill="plain")
    x, y = _anywhere(random, half)
    if outer.thing != "ring" and outer.fill == "plain":  # else the background shows through
        behind = COLOURS[outer.colour]
        colours = [c for c, rgb in COLOURS.items() if drawing.distance(rgb, behind) >= _CONTRAST]
    inner = _object(random, "small", colours)
    lift = 3 if outer.thing == "heart" else 0
    return replace(outer, centre=(x, y), half=half), replace(inner, centre=(x, y - lift))


def _placed(
    random: Random, objects: Sequence[Object], before: Sequence[Object], relation: str | None
) -> tuple[Object, ...] | None:
    """The objects where there is room beside those before, the first two in relation.

    None when a few tries find no such place.
    """
    done = list(before)
    for unplaced in objects:
        for _ in range(12):
            centre = _anywhere(random, unplaced.half)
            if not all(_apart(centre, unplaced.half, other) for other in done):
                continue
            new = replace(unplaced, centre=centre)
            if relation is None or len(done) != 1 or holds(done[0], relation, new):
                done.append(new)
                break
        else:
            return None
    return tuple(done)


def _graph(
    random: Random, count: int
) -> tuple[str, tuple[Object, ...], tuple[int, str, int] | None]:
    """A background, objects, and the relation to state."""
    background = pick(random, tuple(BACKGROUNDS))
    kind = random() if count > 1 else 0.9
    nested, alike = kind < 0.1, kind >= 0.93
    relation = pick(random, tuple(INVERSE)) if 0.1 <= kind < 0.62 else None
    while True:
        sizes = [pick(random, _SIZE_SHARES) for _ in range(count)]
        objects = [_object(random, size, _COLOURS_ON[background]) for size in sizes]
        if alike:
            objects = [objects[0]] * count
        before = _nested(random, background) if nested else ()
        placed = _placed(random, objects[len(before) :], before, relation)
        if placed is not None:
            stated = (1, "inside", 0) if nested else (0, relation, 1) if relation else None
            return background, placed, stated


def scene(seed: int, *, split: str = "train", objects: Sequence[int] = (1, 2, 3)) -> Scene:
    """The scene that belongs to a seed.

    Args:
        seed: an integer ≥ 0. The same arguments give the same scene, always.
        split: "train" (no held-out combination, neither stated nor in the picture), "held_out"
            (the caption states at least one) or "any".
        objects: how many things, drawn evenly from these; (1,) is the easiest curriculum and
            (1, 1, 2, 3) has two of four scenes with one thing.

    Raises:
        ValueError: for an unknown split or a number of objects other than 1, 2, 3.

    Example:
        >>> scene(7).caption == scene(7).caption
        True
    """
    if split not in ("train", "held_out", "any"):
        raise ValueError(f"split {split!r}; one of 'train', 'held_out', 'any'")
    if not objects or not set(objects) <= {1, 2, 3}:
        raise ValueError(f"objects {objects!r}; a sequence of 1, 2, 3")
    random = np.random.Generator(np.random.PCG64(seed)).random
    count = pick(random, objects)
    while True:
        background, things, relation = _graph(random, count)
        variant = int(random() * drawing.VARIANTS)
        words = describe(things, relation, background, random)
        result = Scene(background, variant, things, relation, words)
        if len(words) > MAX_WORDS:
            continue
        if split == "any" or (
            held_out(result, stated=True) if split == "held_out" else not held_out(result)
        ):
            return result


# ------------------------------------------------------------------------------------- rendering


def _painted(scene: Scene, size: int) -> tuple[Image.Image, list[tuple[Image.Image, int, int]]]:
    scale = size / SIDE
    canvas = drawing.backdrop(scene.background, scene.variant, size).copy()
    tiles = []
    for o in scene.objects:
        tile = drawing.tile(o.thing, o.colour, o.fill, o.half * scale)
        left = round(o.centre[0] * scale) - tile.width // 2
        top = round(o.centre[1] * scale) - tile.height // 2
        canvas.paste(tile, (left, top), tile)
        tiles.append((tile, left, top))
    return canvas, tiles


def image(scene: Scene, size: int = SIDE) -> np.ndarray:
    """The picture of a scene alone, uint8 (size, size, 3)."""
    return np.asarray(_painted(scene, size)[0])


def render(scene: Scene, size: int = SIDE) -> Rendered:
    """The picture of a scene with the pixels that each content word speaks of, see `Rendered`.

    Args:
        scene: any scene.
        size: pixels a side.

    Example:
        >>> house = scene(20)  # "a small red house"
        >>> sorted(render(house).masks)
        [1, 2, 3]
    """
    canvas, tiles = _painted(scene, size)
    visible = np.zeros((len(tiles), size, size), bool)
    for k, (tile, left, top) in enumerate(tiles):
        layer = Image.new("L", (size, size))
        layer.paste(tile.getchannel("A"), (left, top))
        visible[k] = np.asarray(layer) >= 128
        visible[:k] &= ~visible[k]
    background = ~visible.any(axis=0)
    masks = {}
    for position, word in enumerate(scene.words):
        if word.role == "background":
            masks[position] = background
        elif word.role and word.role != "relation":
            masks[position] = visible[list(word.objects)].any(axis=0)
    return Rendered(np.asarray(canvas), visible, background, masks)


# --------------------------------------------------------------------------------- caption pairs


def caption_pairs(seed: int, *, same: bool, split: str = "any") -> Iterator[tuple[str, str]]:
    """Endless pairs of captions that differ in one word.

    Args:
        seed: of the first scene; the following scenes have the following seeds.
        same: True for a word replaced by a synonym, False for one replaced by a word of the
            same role that means something else.
        split: as for `scene`.

    Example:
        >>> pairs = caption_pairs(0, same=True)
        >>> next(pairs)  # doctest: +SKIP
        ('a red star', 'a crimson star')
    """
    while True:
        original = scene(seed, split=split)
        other = reworded(original, [seed, 1], same=same)
        if other is not None:
            yield original.caption, other
        seed += 1


def reworded(
    scene: Scene, seed: Sequence[int], *, same: bool, role: str | None = None
) -> str | None:
    """The scene's caption with one word replaced: by a synonym, or by one that means another thing.

    Args:
        seed: of which word is replaced by which.
        same: True for a synonym.
        role: of the word; any word's without.

    Returns:
        None if the caption has no word that can be replaced so.

    Example:
        >>> reworded(scene(20), [0], same=False, role="size")  # of "a small red house"
        'a large red house'
    """
    random = np.random.Generator(np.random.PCG64(seed)).random
    options = [
        (index, words)
        for index, said in enumerate(scene.words)
        if role in (None, said.role) and (words := alternatives(said, same=same))
    ]
    if not options:
        return None
    index, words = pick(random, options)
    return replace_word(scene.caption, index, pick(random, words))
