"""Does the U-Net hear a word? Its error under a caption that says something else in one place.

    heard(model, scenes, (500, 900), seed=0)["relation"].rise     # by timestep, 0.01: one per cent

A network that hears "left" predicts a picture with the thing on the left worse when it is told
"right". Nothing has to be drawn or judged for this, and it shows long before pictures do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xray.generator import Generator
from xray.miniature.captions import WORDS
from xray.miniature.noised import noised
from xray.miniature.scenes import Scene, reworded


class Heard(NamedTuple):
    """How much worse noise is predicted with another word of one role, relative to the own one."""

    rise: np.ndarray
    """(timestep,): 0 if the word makes no difference."""
    error: np.ndarray
    """(timestep,): standard error of `rise`, from how scenes differ; nan where there is but one."""
    scenes: int


def heard(
    model: Generator, scenes: Sequence[Scene], timesteps: Sequence[float], seed: int
) -> dict[str, Heard]:
    """The rise of the squared error of the predicted noise, by the role of the word changed.

    Args:
        model: a miniature.
        scenes: rendered, encoded and noised, and seen once with each caption.
        timesteps: how far they are noised.
        seed: of the noise, that of seed + i for scene i, and of which word is changed to which.
    """
    noise, seen = noised(model, scenes, timesteps, seed)

    def errors(captions: Sequence[str]) -> np.ndarray:
        """Mean squared error of each scene at each timestep, (timestep, scene)."""
        context = model.text(np.array([model.tokenizer.ids(c) for c in captions], np.int32))
        found = []
        for t, x, embedding in seen:
            output = model.unet(x, embedding, context)
            told = model.schedule.to_noise(model.architecture.prediction, output, x, t)
            found.append(np.mean((told - noise) ** 2, axis=(1, 2, 3)))
        return np.stack(found)

    own = errors([s.caption for s in scenes])
    results = {}
    for role in WORDS:
        changed = [reworded(s, [seed + i, 2], same=False, role=role) for i, s in enumerate(scenes)]
        chosen = [i for i, caption in enumerate(changed) if caption is not None]
        if not chosen:
            continue
        # All scenes again, so that the networks are traced for one size of batch.
        others = errors([c or s.caption for c, s in zip(changed, scenes, strict=True)])
        results[role] = Heard(*_ratio((others - own)[:, chosen], own[:, chosen]), len(chosen))
    return results


def _ratio(above: np.ndarray, below: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of the first over means of the second, and its standard error: (timestep,) each.

    The error is of the ratio (delta method): what is as large as it should be beside its own
    denominator adds none, however large both are.

    Args:
        above, below: (timestep, scene).
    """
    count, usual = above.shape[1], below.mean(axis=1)
    ratio = above.mean(axis=1) / usual
    if count == 1:
        return ratio, np.full_like(ratio, np.nan)
    spread = (above - ratio[:, None] * below).std(axis=1, ddof=1)
    return ratio, spread / np.sqrt(count) / usual
