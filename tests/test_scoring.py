"""Scoring: what a caption states against what is seen."""

import dataclasses

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xray.miniature.captions import Word
from xray.miniature.scenes import INVERSE, Object, Scene, scene
from xray.miniature.scoring import Seen, Statement, Thing, related, score, shares, statement, truth

SEEDS = st.integers(0, 2**32)
SPLITS = st.sampled_from(["train", "held_out"])


def thing(name, colour=None, size=None, fill=None, at=(64.0, 64.0)):
    return Thing(name, colour, size, fill, at)


def seen(*things, background="white"):
    return Seen(things, background)


def asked(*things, background=None, relation=None):
    return Statement(things, background, relation)


# ------------------------------------------------------------------------------------- statements


def test_a_statement_holds_what_the_caption_says_and_no_more():
    s = Scene(
        "grass",
        0,
        (
            Object("star", "red", "large", "striped", (30, 64), 28),
            Object("moon", "blue", "small", "plain", (100, 64), 13),
        ),
        (0, "left of", 1),
        (
            Word("crimson", "colour", "red", (0,)),
            Word("star", "thing", "star", (0,)),
            Word("left", "relation", "left of", (0, 1)),
            Word("of"),
            Word("tiny", "size", "small", (1,)),
            Word("moon", "thing", "moon", (1,)),
        ),
    )
    assert statement(s) == Statement(
        (Thing("star", "red", None, None), Thing("moon", None, "small", None)),
        None,
        (0, "left of", 1),
    )


# --------------------------------------------------------------------------------------- scoring


@given(SEEDS, SPLITS)
@settings(max_examples=100, deadline=None)
def test_the_truth_is_all_right(seed, split):
    s = scene(seed, split=split)
    result = score(statement(s), truth(s))
    assert all(right == n for right, n in result.values())
    assert result["all right"] == (1, 1)


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_the_order_in_which_things_are_seen_does_not_matter(seed):
    s = scene(seed)
    what = truth(s)
    assert score(statement(s), what._replace(things=what.things[::-1]))["all right"] == (1, 1)


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_any_wrong_thing_is_noticed(seed):
    s = scene(seed)
    what = truth(s)
    other = what.things[0]._replace(thing="tree" if s.objects[0].thing != "tree" else "car")
    result = score(statement(s), what._replace(things=(other, *what.things[1:])))
    assert result["things"] == (len(s.objects) - 1, len(s.objects))
    assert result["all right"] == (0, 1)


def test_other_captions_do_not_fit():
    scenes = [scene(k) for k in range(300)]
    shuffled = zip(scenes, scenes[1:] + scenes[:1], strict=True)
    found = shares(score(statement(a), truth(b)) for a, b in shuffled)
    assert found["all right"][0] < 0.02 and found["things"][0] < 0.25


def test_exchanged_colours_are_two_wrong_colours_and_no_wrong_thing():
    result = score(
        asked(thing("star", "red"), thing("moon", "blue")),
        seen(thing("star", "blue"), thing("moon", "red")),
    )
    assert result["things"] == (2, 2) and result["colours"] == (0, 2)
    assert result["pairs"] == (0, 1)


def test_pairs_match_as_a_multiset():
    two = asked(thing("star", "red"), thing("star", "blue"))
    assert score(two, seen(thing("star", "blue"), thing("star", "red")))["pairs"] == (1, 1)
    result = score(two, seen(thing("star", "blue"), thing("star", "blue")))
    assert result["things"] == (2, 2) and result["colours"] == (1, 2)
    # Nor do their sizes matter, by which they would be matched otherwise.
    sized = asked(thing("star", "red", "small", "plain"), thing("star", "blue", "large", "plain"))
    found = seen(thing("star", "blue", "small", "plain"), thing("star", "red", "large", "plain"))
    result = score(sized, found)
    assert result["pairs"] == (1, 1) and result["all right"] == (0, 1)
    # One star cannot stand for two.
    assert score(two, seen(thing("star", "red")))["things"] == (1, 2)


def test_what_was_not_asked_for_must_not_be_there():
    one = asked(thing("star", "red"))
    result = score(one, seen(thing("star", "red"), thing("fish", "red")))
    assert result["things"] == (1, 1) and result["colours"] == (1, 1)
    assert result["pairs"] == (0, 1) and result["all right"] == (0, 1)


def test_what_is_left_open_is_not_scored():
    result = score(asked(thing("star")), seen(thing("star", "red", "small", "dotted")))
    assert result["colours"] == result["sizes"] == result["backgrounds"] == (0, 0)
    assert result["all right"] == (1, 1)


def test_attributes_of_an_absent_thing_are_wrong():
    result = score(
        asked(thing("star", "red"), relation=None, background="sea"),
        seen(thing("moon", "red"), background="sea"),
    )
    assert result["colours"] == (0, 1) and result["backgrounds"] == (1, 1)


def test_an_empty_picture_is_all_wrong():
    stated = asked(thing("star", "red"), thing("moon"), relation=(0, "above", 1))
    result = score(stated, seen())
    assert result["things"] == (0, 2) and result["relations"] == (0, 1)


def test_alike_things_are_matched_so_that_the_relation_holds():
    stated = asked(thing("star"), thing("star"), relation=(0, "left of", 1))
    pair = (thing("star", at=(100, 60)), thing("star", at=(20, 64)))
    assert score(stated, seen(*pair))["relations"] == (1, 1)


@pytest.mark.parametrize("relation", INVERSE)
def test_relations_are_judged_by_the_centres(relation):
    places = {"left of": (20, 70), "right of": (100, 50), "above": (60, 20), "below": (70, 100)}
    a, b = thing("star", at=places[relation]), thing("moon", at=(64, 64))
    assert [r for r in (*INVERSE, "inside") if related(a, r, b)] == [relation]
    assert [r for r in (*INVERSE, "inside") if related(b, r, a)] == [INVERSE[relation]]


def test_inside_is_the_smaller_of_two_and_excludes_beside():
    star, ring = thing("star", size="small", at=(62, 64)), thing("ring", size="large", at=(65, 64))
    assert [r for r in (*INVERSE, "inside") if related(star, r, ring)] == ["inside"]
    assert [r for r in (*INVERSE, "inside") if related(ring, r, star)] == []
    assert related(star._replace(size=None), "inside", ring)


@given(SEEDS, SPLITS)
@example(6263, "held_out")  # "to the right of a pink fish is a small pink fish", and both are small
@settings(max_examples=100, deadline=None)
def test_a_relation_stated_the_other_way_round_fails(seed, split):
    s = scene(seed, split=split, objects=(2,))
    if s.relation is None or s.relation[1] == "inside":
        return
    first, relation, second = s.relation
    turned = dataclasses.replace(s, relation=(second, relation, first))
    # It holds all the same where what is said of each thing is true of the other.
    said, there = statement(s).things, truth(s).things
    either = all(fits(said[i], there[1 - i]) for i in (0, 1))
    assert score(statement(turned), truth(s))["relations"] == (int(either), 1)


def fits(said, there):
    return all(asked in (None, found) for asked, found in zip(said, there, strict=True))


def test_unknown_relations_are_refused():
    with pytest.raises(ValueError, match="'near'"):
        related(thing("star"), "near", thing("moon"))


def test_shares_count_cases_over_captions():
    found = shares([{"things": (1, 2), "relations": (0, 0)}, {"things": (2, 2)}])
    assert found == {"things": (0.75, 4)}
