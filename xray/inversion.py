"""DDIM inversion: the noise that a picture would have come from.

    latent = model.encode(photo)
    noise = invert(model, latent, "a red star", steps=50)
    model.generate("a red star", latent=noise, steps=50, guidance=1).image        # photo, nearly

DDIM without fresh noise is a differential equation solved in steps, and can be run the other way
(Song et al. 2021, section 4.3). What comes out is noise that leads to this picture, which a run can
start from with something changed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.batch import embedding_for, finite, rows_of
from xray.samplers import SAMPLERS

if TYPE_CHECKING:
    from xray.generator import Generator


def invert(
    model: Generator,
    latent: Any,
    prompt: Any = "",
    *,
    negative: Any = "",
    steps: int = 25,
    guidance: float = 1.0,
    spacing: str | None = None,
    progress: Callable[[int, int], object] = lambda done, steps: None,
) -> np.ndarray:
    """The noise from which DDIM leads to a latent, up the timesteps that a run goes down.

    x' = √ᾱ' x̂₀ + √(1−ᾱ') ε̂,  x̂₀ = (x − √(1−ᾱ) ε̂) / √ᾱ,  ε̂ = ε(x, t')

    On the way down the step from t' to t asks the network about the latent at t', which on the way
    up is not known yet; the one at t is taken in its place. Each step is wrong by the square of its
    length, the whole way by its length: twice the steps, about half the error.

    Guidance magnifies the difference between two predictions, and their errors with it; what comes
    out is then less like normal noise the stronger it is, and a run from it goes astray. So a
    picture is inverted without it. A run from there with guidance still makes another picture:
    null-text inversion (Mokady et al. 2023) tunes the unconditional embedding of every step until
    it does not, which is not done here.

    Args:
        model: any.
        latent: (n, h/8, w/8, 4), scaled, from `Generator.encode` or ``"sampler/out"``.
        prompt: what is in the picture, "" for nothing: text or an embedding (length, width), one
            for all or a list of n.
        negative: what the unconditional branch is given; without guidance not used.
        steps: 1 … 1000, of the run that will follow.
        guidance: scale of classifier-free guidance.
        spacing: of timesteps, for ``"ddim"``; by default the model's.
        progress: told ``(done, steps)`` after each step.

    Returns:
        (n, h/8, w/8, 4) float32, for ``generate(prompt, latent=…, steps=steps, guidance=1)``.

    Raises:
        ValueError: an argument is wrong; latent and prompts do not fit the model or each other.
        PromptTooLong: by how many tokens.

    Reference:
        Song et al. 2021, "Denoising Diffusion Implicit Models", section 4.3; Mokady et al. 2023,
        "Null-text Inversion for Editing Real Images using Guided Diffusion Models".

    Example:
        >>> noise = invert(model, model.encode(photo), "a red star", steps=50)
        >>> float(noise.std())                                              # of noise it is 1
        0.97
    """
    schedule = model.schedule
    timesteps = SAMPLERS["ddim"].timesteps(steps, spacing or model.spacing)[::-1]
    guidance = finite("guidance", guidance)
    x = np.asarray(latent, np.float32)
    context = _context(model, prompt, len(x))
    away = context if guidance == 1 else _context(model, negative, len(x))
    for done, (t, t_next) in enumerate(pairwise(timesteps), 1):
        noise = model.predict(x, t_next, context)
        if guidance != 1:
            uncond = model.predict(x, t_next, away)
            noise = uncond + np.float32(guidance) * (noise - uncond)
        denoised = schedule.to_denoised(noise, x, t)
        x = schedule.add_noise(denoised, noise, t_next)
        progress(done, steps)
    return x


def _context(model: Generator, prompt: Any, count: int) -> np.ndarray:
    """What the U-Net attends to, (n, length, width); texts are embedded."""
    rows = [
        model.embed(row).values[0] if isinstance(row, str) else embedding_for(model, row)
        for row in rows_of(prompt)
    ]
    return np.stack(rows * count if len(rows) == 1 else rows)
