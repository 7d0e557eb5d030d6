"""A film's way through prompts and noise: what each frame is made from.

walk = plan(model, ["a red star", "a blue moon"], [7], frames=49, noise="circle")
walk.noise[12], walk.context(12)            # where frame 12 starts, and what it attends to
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xray.interpolate import lerp, slerp, stop_frames, walk
from xray.paths import circle, random_walk, stream
from xray.samplers import initial_noise

if TYPE_CHECKING:
    from xray.generator import Generator

NOISES = ("seeds", "circle", "random")


@dataclass(frozen=True)
class Walk:
    """What each frame of a film is made from.

    Attributes:
        noise: (frame, h/8, w/8, 4) float32, where each run starts.
        prompts: those that the walk goes through, each once.
        embeddings: (prompt, length, width) float32.
        shares: (frame, prompt) float32, how much of each prompt is in a frame; they add up to 1.
        stops: the frames in which a prompt and a seed stand as they were given.
        closed: whether the last frame is the first.
    """

    noise: np.ndarray
    prompts: list[str]
    embeddings: np.ndarray
    shares: np.ndarray
    stops: list[int]
    closed: bool

    def __len__(self) -> int:
        return len(self.noise)

    def context(self, frames: int | Sequence[int]) -> np.ndarray:
        """What the U-Net attends to in these frames: (…, length, width) float32."""
        return np.tensordot(self.shares[frames], self.embeddings, axes=1)

    def caption(self, frame: int) -> tuple[str, float]:
        """The prompt that is nearest to a frame, and its share."""
        nearest = int(self.shares[frame].argmax())
        return self.prompts[nearest], float(self.shares[frame, nearest])


def plan(
    model: Generator,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    frames: int,
    noise: str = "seeds",
    loop: bool = False,
    easing: str = "linear",
    angle: float = 8.0,
    width: int | None = None,
    height: int | None = None,
) -> Walk:
    """Lay out a walk: embeddings on straight lines, noise on the sphere.

    Args:
        prompts, seeds: the stops; one prompt for all seeds, one seed for all prompts, or as many
            of both.
        frames: how many; each stop is one of them.
        noise: ``"seeds"`` from each seed's noise to the next one's; ``"circle"`` once round,
            through one or two seeds' noise; ``"random"`` from one seed's noise on.
        loop: come back to the first stop. A circle always does; a random walk cannot.
        easing: of the pace between two stops, as `xray.interpolate.walk` has it.
        angle: degrees that a random walk turns from frame to frame.
        width, height: of the pictures, multiples of 64.

    Raises:
        ValueError: the stops make no walk; says why.
        PromptTooLong: by how many tokens.
    """
    order = order_of_stops(prompts, seeds, frames=frames, noise=noise, loop=loop)
    count = max(order) + 1
    prompts = list(prompts) * (count if len(prompts) == 1 else 1)

    def through(stops: Sequence[np.ndarray], between: Callable) -> np.ndarray:
        if len(order) == 1:
            return np.repeat(np.asarray(stops[0], np.float32)[None], frames, axis=0)
        return walk([stops[stop] for stop in order], frames, between=between, easing=easing)

    names = list(dict.fromkeys(prompts))
    one_hot = dict(zip(names, np.eye(len(names)), strict=True))
    width, height = model.architecture.sides(width, height)
    shape = (height // 8, width // 8, 4)
    starts = [initial_noise(seed, shape) for seed in seeds]
    if noise == "circle":
        if len(starts) == 1:
            starts.append(stream(seeds[0]).standard_normal(shape, np.float32))
        latents = circle(*starts, frames)
    elif noise == "random":
        latents = random_walk(starts[0], frames, angle=angle, seed=seeds[0])
    else:
        latents = through(starts * (count if len(starts) == 1 else 1), slerp)
    return Walk(
        noise=latents,
        prompts=names,
        embeddings=np.concatenate([model.embed(name).values for name in names]),
        shares=through([one_hot[p] for p in prompts], lerp),
        stops=stop_frames(len(order), frames),
        closed=loop or noise == "circle",
    )


def order_of_stops(
    prompts: Sequence[str], seeds: Sequence[int], *, frames: int, noise: str, loop: bool
) -> list[int]:
    """The stops by number as a walk comes to them; a closed one ends with 0. Needs no model.

    Raises:
        ValueError: they make no walk; says why.
    """
    if noise not in NOISES:
        raise ValueError(f"noise {noise!r} is not one of {', '.join(NOISES)}")
    if not prompts or not seeds:
        raise ValueError("a walk needs a prompt and a seed at least")
    if any(not prompt.strip() for prompt in prompts):
        raise ValueError("a prompt is empty")
    most = {"seeds": len(seeds), "circle": 2, "random": 1}[noise]
    if len(seeds) > most:
        raise ValueError(f"noise {noise!r} takes at most {most} seeds, got {len(seeds)}")
    if noise == "circle" and len(set(seeds)) < len(seeds):
        raise ValueError(f"a circle through two seeds' noise needs two, got {seeds[0]} twice")
    if noise == "random" and loop:
        raise ValueError("a random walk does not come back: leave out the loop, or take a circle")
    lengths = {len(prompts), len(seeds) if noise == "seeds" else 1}
    if len(lengths - {1}) > 1:
        raise ValueError(
            f"{len(prompts)} prompts and {len(seeds)} seeds make no stops: give one of one kind, "
            "or as many of both"
        )
    if noise == "seeds" and lengths == {1}:
        raise ValueError(
            "one prompt and one seed are no walk: give another prompt or seed, or let the noise "
            "go in a circle or at random"
        )
    order = [*range(max(lengths)), *([0] if loop or noise == "circle" else [])]
    if frames < (least := max(len(order), 3 if noise == "circle" else 2)):
        raise ValueError(f"this walk needs at least {least} frames, got {frames}")
    return order
