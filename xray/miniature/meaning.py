"""What a caption says, as questions with one answer each: what the text encoder is taught first.

    meaning(scene(20))       # for 'a small red house': one thing; a house; red; small; …

Things are numbered as the caption mentions them, so that the answers depend on the words alone,
never on the picture.
"""

from __future__ import annotations

import numpy as np

from xray.miniature.captions import WORDS
from xray.miniature.scenes import INVERSE, Scene
from xray.miniature.scoring import ATTRIBUTES, statement

_MOST = 3  # things of a scene
_OTHER_WAY = {**INVERSE, "inside": "around"}
_RELATIONS = tuple(
    (k, relation) for k in range(_MOST - 1) for relation in (*WORDS["relation"], "around")
)
# Answer 0 of every question is "the caption does not say".
QUESTIONS: tuple[tuple, ...] = (
    *(tuple(WORDS[role]) for _ in range(_MOST) for role in ATTRIBUTES),
    tuple(WORDS["background"]),
    _RELATIONS,
)
ANSWERS = tuple(1 + len(options) for options in QUESTIONS)


def meaning(scene: Scene) -> np.ndarray:
    """The answers to `QUESTIONS` for a scene's caption.

    Returns:
        int64 (question,): thing, colour, size and fill of the first, second and third thing
        mentioned; the background; the relation of two things mentioned one after the other. 0
        where the caption does not say, else one more than the place among the question's options.

    Example:
        >>> [QUESTIONS[q][a - 1] for q, a in enumerate(meaning(scene(20))) if a]  # doctest: +SKIP
        ['house', 'red', 'small']
    """
    stated = statement(scene)
    words = (w for w in scene.words if w.role != "relation")
    mentioned = list(dict.fromkeys(k for w in words for k in w.objects))
    said: list = [value for k in mentioned for value in stated.things[k][: len(ATTRIBUTES)]]
    said += [None] * (_MOST * len(ATTRIBUTES) - len(said))
    said += [stated.background, None]
    if stated.relation is not None:
        first, relation, second = stated.relation
        i, j = mentioned.index(first), mentioned.index(second)
        said[-1] = (i, relation) if i < j else (j, _OTHER_WAY[relation])
    return np.array(
        [0 if v is None else 1 + o.index(v) for o, v in zip(QUESTIONS, said, strict=True)]
    )
