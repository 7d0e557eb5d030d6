"""Does a picture show what a caption states? Pure bookkeeping, no network.

    seen = judge(pictures)                              # a list of `Seen`
    score(statement(scene), seen[0])["colours"]         # (right, stated)

A caption states things, some of their colours, sizes and fills, perhaps a relation and a
background. What it leaves open is not scored, except that there must be nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import permutations
from typing import NamedTuple

from xray.miniature.scenes import INVERSE, SIZES, Scene

ATTRIBUTES = ("thing", "colour", "size", "fill")
_INSIDE = 17.0  # pixels between centres
_MOST = 6  # things looked at in a picture; no caption states more than three

Score = Mapping[str, tuple[int, int]]


class Thing(NamedTuple):
    """One thing as it is stated or seen; None where a caption leaves it open."""

    thing: str
    colour: str | None
    size: str | None
    fill: str | None
    centre: tuple[float, float] | None = None
    """(x, y) in pixels of a 128×128 picture, y downwards."""


class Seen(NamedTuple):
    """What is in a picture, the surest thing first."""

    things: tuple[Thing, ...]
    background: str


class Statement(NamedTuple):
    """What a caption says."""

    things: tuple[Thing, ...]
    background: str | None
    relation: tuple[int, str, int] | None


def statement(scene: Scene) -> Statement:
    """What a scene's caption says of it."""
    said = {(w.role, k): w.value for w in scene.words for k in w.objects if w.role in ATTRIBUTES}
    things = tuple(
        Thing(*(said.get((role, k)) for role in ATTRIBUTES)) for k in range(len(scene.objects))
    )
    background = next((w.value for w in scene.words if w.role == "background"), None)
    return Statement(things, background, scene.relation)


def truth(scene: Scene) -> Seen:
    """What a perfect judge sees in a scene's picture."""
    things = (Thing(o.thing, o.colour, o.size, o.fill, o.centre) for o in scene.objects)
    return Seen(tuple(things), scene.background)


def related(first: Thing, relation: str, second: Thing) -> bool:
    """Whether located things satisfy a relation.

    "inside": the centres are at most 17 pixels apart, less than half of a container's half side,
    and the first is the smaller one where both sizes are seen. For "left of", "right of", "above"
    and "below" they are further apart than that, as things beside each other are by 33 and more,
    and the direction from one to the other lies within 45°.
    """
    dx = second.centre[0] - first.centre[0]
    dy = second.centre[1] - first.centre[1]
    if relation == "inside":
        sizes = [list(SIZES).index(thing.size) for thing in (first, second) if thing.size]
        return max(abs(dx), abs(dy)) <= _INSIDE and (len(sizes) < 2 or sizes[0] < sizes[1])
    if relation not in INVERSE:
        raise ValueError(f"relation {relation!r}; one of inside, {', '.join(INVERSE)}")
    along, across = (dx, dy) if relation in ("left of", "right of") else (dy, dx)
    if relation in ("right of", "below"):
        along = -along
    return along > _INSIDE and along >= abs(across)


def score(stated: Statement, seen: Seen) -> Score:
    """How much of what a caption states is in the picture.

    Each stated thing is matched with another thing seen, in the way that makes most things right
    and then most else. A thing's colour, size and fill are wrong where the thing is not there,
    and so is a relation where one of its two things is not.

    Returns:
        For each of "things", "colours", "sizes", "fills", "backgrounds" and "relations": how many
        are right and how many are stated. "pairs": (1, 1) where the stated (thing, colour) pairs
        are what is seen, as a multiset. "all right": (1, 1) where everything is right and there
        is nothing else.
    """
    places = [*seen.things[:_MOST], *[None] * len(stated.things)]
    results = (_matched(stated, chosen) for chosen in permutations(places, len(stated.things)))
    result = max(results, key=lambda r: (r["things"][0], sum(right for right, _ in r.values())))
    if stated.background is not None:
        result["backgrounds"] = (int(seen.background == stated.background), 1)
    whole = len(seen.things) == len(stated.things) and all(r == n for r, n in result.values())
    result["pairs"] = int(_paired(stated.things, seen.things)), 1
    return {**result, "all right": (int(whole), 1)}


def _paired(asked: tuple[Thing, ...], seen: tuple[Thing, ...]) -> bool:
    """Whether things and their colours are the same in some order; an open colour is any."""
    return len(asked) == len(seen) and any(
        all(
            a.thing == s.thing and a.colour in (None, s.colour)
            for a, s in zip(asked, order, strict=True)
        )
        for order in permutations(seen)
    )


def _matched(stated: Statement, chosen: tuple[Thing | None, ...]) -> dict[str, tuple[int, int]]:
    """The score of one way to match stated things with things seen."""
    result = {}
    there = [
        found is not None and found.thing == asked.thing
        for asked, found in zip(stated.things, chosen, strict=True)
    ]
    for role in ATTRIBUTES:
        asked = [getattr(thing, role) for thing in stated.things]
        right = [
            ok and getattr(found, role) == value
            for ok, found, value in zip(there, chosen, asked, strict=True)
            if value is not None
        ]
        result[f"{role}s"] = (sum(right), len(right))
    result["relations"] = result["backgrounds"] = (0, 0)
    if stated.relation is not None:
        first, relation, second = stated.relation
        right = there[first] and there[second] and related(chosen[first], relation, chosen[second])
        result["relations"] = (int(right), 1)
    return result


def shares(scores: Iterable[Score]) -> dict[str, tuple[float, int]]:
    """Many captions' scores together: of what was stated at all, the share right and how many."""
    right: dict[str, int] = {}
    asked: dict[str, int] = {}
    for one in scores:
        for name, (r, a) in one.items():
            right[name] = right.get(name, 0) + r
            asked[name] = asked.get(name, 0) + a
    return {name: (right[name] / n, n) for name, n in asked.items() if n}
