"""Which sites a model has and how large they are, without running it.

sites_of(model, width=128, height=128)["unet/mid/attn.0/cross/weights"].nbytes
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xray.plan import DEFAULT_RECORD, ONCE, SAMPLER_SITES
from xray.store import SiteSpec
from xray.taps import BRANCHES, as_observations, matches

if TYPE_CHECKING:
    from xray.generator import Generator
    from xray.program import Program


def sites_of(
    model: Generator, *, width: int | None = None, height: int | None = None
) -> dict[str, SiteSpec]:
    """Every site of a model for one picture, with both guidance branches where there are two.

    The networks are traced and not run, so a model without weights will do.

    Args:
        model: any, also `xray.checkpoints.outline`'s.
        width, height: of the picture, multiples of 64; by default the model's size.

    Returns:
        By name, in the order of the computation: dims, shape and dtype as they are recorded.
        ``encoder/**`` comes last; it is no part of a generation.

    Example:
        >>> sites_of(xray.load("mini"))["unet/mid/attn.0/cross/weights"].dims
        ('branch', 'image', 'head', 'y', 'x', 'token')
    """
    arch = model.architecture
    width, height = arch.sides(width, height)
    for name, side in (("width", width), ("height", height)):
        if side % 64 or side < 64:
            raise ValueError(f"{name} must be a multiple of 64, got {side}")
    latent = SiteSpec(
        ("image", "y", "x", "channel"), (1, height // 8, width // 8, 4), "float32", per_step=True
    )
    picture = SiteSpec(latent.dims, (1, height, width, 3), "uint8", per_step=False)
    ids, embedding = (len(BRANCHES), arch.text_length), (1, arch.widths[0])

    def traced(part: str, *shapes: tuple[int, ...], branches: Any = (None,)) -> dict[str, SiteSpec]:
        dtype = np.int32 if part == "text" else np.float32
        program: Program = model.parts[part].program(
            [np.broadcast_to(np.zeros((), dtype), shape) for shape in shapes],
            as_observations("**"),
            branches=branches,
            loop=part == "unet",
        )
        return {
            site: SiteSpec(*program.observed[site], per_step=program.loop) for site in program.sites
        }

    context = (*ids, arch.text_width)
    once = SiteSpec(latent.dims, latent.shape, latent.dtype, per_step=False)
    return {
        **traced("text", ids, branches=BRANCHES),
        **dict.fromkeys(SAMPLER_SITES, latent),
        **traced("unet", latent.shape, embedding, context, branches=BRANCHES),
        **traced("decoder", latent.shape),
        "sampler/out": once,
        "image": picture,
        **traced("encoder", picture.shape),
    }


def by_default(site: str) -> bool:
    """Whether a generation records this site without being asked to.

    Example:
        >>> by_default("sampler/latent"), by_default("unet/out")
        (True, False)
    """
    return site in ONCE or any(matches(p, site) for p in DEFAULT_RECORD)
