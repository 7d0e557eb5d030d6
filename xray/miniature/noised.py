"""Rendered scenes under noise, as the U-Net meets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xray.generator import Generator
from xray.miniature.scenes import Scene, image
from xray.samplers import initial_noise


class Noised(NamedTuple):
    """The latents of some scenes at one timestep."""

    timestep: float
    latents: np.ndarray
    """(scene, y, x, 4)."""
    embedding: np.ndarray
    """(scene, frequency): of the timestep, as the U-Net takes it."""


def noised(
    model: Generator, scenes: Sequence[Scene], timesteps: Sequence[float], seed: int
) -> tuple[np.ndarray, list[Noised]]:
    """The noise, (scene, y, x, 4), and the scenes noised by it to each of the timesteps.

    Args:
        model: a miniature, whose encoder and noise schedule are used.
        scenes: rendered and encoded.
        timesteps: how far they are noised, always by the same noise.
        seed: of the noise: that of seed + i for scene i.

    Example:
        >>> noise, [early, late] = noised(xray.load(), [scene(20)], (900, 100), seed=0)
    """
    x0 = model.encode(np.stack([image(s) for s in scenes])).values
    noise = np.stack([initial_noise(seed + i, x.shape) for i, x in enumerate(x0)])
    return noise, [
        Noised(
            timestep,
            model.schedule.add_noise(x0, noise, timestep),
            np.tile(model.timestep_embedding(timestep), (len(x0), 1)),
        )
        for timestep in timesteps
    ]
