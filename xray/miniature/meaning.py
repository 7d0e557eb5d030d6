"""What a caption says, as questions with one answer each: what the text encoder is taught first.

    meaning(scene(20))       # for 'a small red house': one thing; a house; red; small; …

Things are asked for twice: in the order in which the caption mentions them, and by the place that
it gives them ("what is on the left?"). All answers depend on the words alone, never on the picture.
"""

from __future__ import annotations

import numpy as np

from xray.miniature.captions import WORDS
from xray.miniature.scenes import INVERSE, Scene
from xray.miniature.scoring import ATTRIBUTES, statement

_MOST = 3  # things of a scene
# Where the second of two things is, if the first is there.
_OTHER = {**INVERSE, "inside": "around"}
ASKED: tuple[int | str, ...] = (*range(_MOST), *_OTHER, "around")  # which thing is asked for
# Answer 0 of every question is "the caption does not say".
QUESTIONS: tuple[tuple[str, ...], ...] = (
    *(tuple(WORDS[role]) for _ in ASKED for role in ATTRIBUTES),
    tuple(WORDS["background"]),
)
ANSWERS = tuple(1 + len(options) for options in QUESTIONS)


def meaning(scene: Scene) -> np.ndarray:
    """The answers to `QUESTIONS` for a scene's caption.

    Returns:
        int64 (question,): thing, colour, size and fill of each that is `ASKED` for, the first,
        second and third mentioned and those that are said to be left, right, above, below, inside
        or around of another; then the background. 0 where the caption does not say, else one more
        than the place among the question's options.

    Example:
        >>> from xray.miniature.scenes import scene
        >>> [QUESTIONS[q][a - 1] for q, a in enumerate(meaning(scene(20))) if a]
        ['house', 'red', 'small']
    """
    stated = statement(scene)
    words = (w for w in scene.words if w.role != "relation")
    mentioned = dict(enumerate(dict.fromkeys(k for w in words for k in w.objects)))
    placed = {}
    if stated.relation is not None:
        first, relation, second = stated.relation
        placed = {relation: first, _OTHER[relation]: second}
    which = {**mentioned, **placed}
    said = [
        getattr(stated.things[which[asked]], role) if asked in which else None
        for asked in ASKED
        for role in ATTRIBUTES
    ]
    return np.array(
        [
            0 if value is None else 1 + options.index(value)
            for options, value in zip(QUESTIONS, [*said, stated.background], strict=True)
        ]
    )
