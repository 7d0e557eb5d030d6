"""The options that experiments share, so that each means the same everywhere.

    def main(model: options.Model = "mini", seed: options.Seed = 7, out: options.Out = None): ...

The defaults are the script's own. What can be refused before TensorFlow is imported is refused
here, the rest by `generate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xray.script import one_line_errors

if TYPE_CHECKING:
    from xray.tokenizer import Tokenizer

# ------------------------------------------------------------------------- what an option may be


def number(*, above: float = -math.inf, most: float = math.inf) -> Callable:
    """A callback of numeric options: every number is finite, above one limit, at most another.

    Example:
        >>> typer.Option(help="Share that is left to do.", callback=number(above=0, most=1))
    """
    limits = [f"above {above:g}"] * (above > -math.inf) + [f"at most {most:g}"] * (most < math.inf)
    wanted = " and ".join(limits) or "a number"

    @one_line_errors
    def check(param: typer.CallbackParam, value: Any) -> Any:
        for each in _each(value):
            if not (math.isfinite(each) and above < each <= most):
                raise ValueError(f"{param.name} must be {wanted}, got {each}")
        return value

    return check


def one_of(*known: str) -> Callable:
    """A callback of options that take one of a few words, once or several times."""

    @one_line_errors
    def check(param: typer.CallbackParam, value: Any) -> Any:
        for each in _each(value):
            if each not in known:
                raise ValueError(f"{param.name} {each!r} is not one of {', '.join(known)}")
        return value

    return check


@one_line_errors
def not_empty(prompt: str) -> str:
    from xray import batch

    return batch.not_empty(prompt)


@one_line_errors
def known_sites(patterns: list[str]) -> list[str]:
    # Only the first part of a name is the same in every model.
    from xray.taps import SiteError, as_observations, reaches

    for asked in as_observations(patterns):
        if not any(reaches(asked.pattern, root) for root in ROOTS):
            raise SiteError(
                f"{asked.pattern!r} names no site: their names begin {', '.join(ROOTS)}"
            )
    return patterns


@one_line_errors
def known_sampler(name: str) -> str:
    from xray.samplers import sampler_named

    sampler_named(name)
    return name


@one_line_errors
def known_spacing(name: str | None) -> str | None:
    from xray.schedule import SPACINGS

    if name is not None and name not in SPACINGS:
        raise ValueError(f"spacing {name!r} is not one of {', '.join(SPACINGS)}")
    return name


@one_line_errors
def taken_by_all(name: str) -> str:
    from xray.schedule import WHOLE_SPACINGS

    if name not in WHOLE_SPACINGS:
        raise ValueError(
            f"spacing {name!r} is not one that every sampler takes: {', '.join(WHOLE_SPACINGS)}"
        )
    return name


@one_line_errors
def known_model(name: str | None) -> str | None:
    if name is not None:
        from xray.checkpoints import check_name

        check_name(name)
    return name


@one_line_errors
def whole_blocks(side: int | None) -> int | None:
    # The U-Net halves the latent, which is an eighth of the picture, three times.
    if side is not None and side % 64:
        raise ValueError(f"width and height must be multiples of 64, got {side}")
    return side


@one_line_errors
def known_picture(source: Any) -> Any:
    from xray.images import check_image

    for each in _each(source):
        check_image(each)
    return source


@one_line_errors
def known_mask(mask: str) -> str:
    from xray.masks import check_mask

    check_mask(mask)
    return mask


# -------------------------------------------------------------- what options may be together

TEXTS = ("prompt", "negative", "other", "words", "other_words")
"""What scripts call options that the text encoder reads."""


def check_sampling(given: Mapping[str, Any]) -> None:
    """Refuse a sampler that cannot be run as told, and a negative prompt that would do nothing.

    Args:
        given: the options of a script, by name.
    """
    from xray.batch import eta_of
    from xray.samplers import sampler_named

    negative = given.get("negative")
    # `guidance` takes several, and no scale of 1.
    if negative and isinstance(negative, str) and given["guidance"] == 1:
        raise ValueError(
            f"--negative {negative!r} does nothing at guidance 1, which is none: leave it out, or "
            "give another --guidance"
        )
    for name in _each(given.get("sampler")):
        eta_of(name, given.get("eta"))
        for steps in _each(given["steps"]) if given.get("spacing") else ():
            sampler_named(name).timesteps(steps, given["spacing"])


def check_prompts(given: Mapping[str, Any]) -> None:
    """Refuse texts that the model cannot read, such as too long ones; its weights are not read.

    Args:
        given: the options of a script, by name.
    """
    texts = [text for name in TEXTS for text in _each(given.get(name)) if text]
    tokenizer = tokenizer_of(given["model"]) if texts else None
    for text in texts:
        tokenizer.tokens(text)


def tokenizer_of(model: str) -> Tokenizer:
    """The tokenizer of a model whose weights are not read.

    Raises:
        ValueError: it has none, such as a single file.
    """
    from xray.checkpoints import open_checkpoint

    tokenizer = open_checkpoint(model, weights=False).tokenizer
    if tokenizer is None:
        raise ValueError(
            f"{model} comes without a vocabulary and cannot read prompts: load it in Python with "
            "tokenizer=…, save it with xray.checkpoints.save, and give that folder"
        )
    return tokenizer


def _each(option: Any) -> Sequence[Any]:
    """The values of an option that may be given once, several times or not at all."""
    if option is None:
        return ()
    return option if isinstance(option, (list, tuple)) else (option,)


# ------------------------------------------------------------------------------------ the options

ROOTS = ("sampler", "text", "unet", "decoder", "encoder", "image")
MODEL_HELP = "mini, sd-v1-4, … or the path of a model."

Prompt = Annotated[str, typer.Option(help="What the picture is to show.", callback=not_empty)]
Text = Annotated[str, typer.Option(help="A prompt; it may be empty.")]
Negative = Annotated[str, typer.Option(help="What it is to keep away from; not at --guidance 1.")]
Model = Annotated[
    str,
    typer.Option(help=MODEL_HELP, callback=known_model),
]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch the model's weights if they are not here.")
]
Steps = Annotated[int, typer.Option(min=1, max=1000, help="Sampler steps.")]
Guidance = Annotated[
    float,
    typer.Option(
        help="Scale of classifier-free guidance; 1 is none, at half the work.", callback=number()
    ),
]
Seed = Annotated[
    int,
    # scikit-learn takes no larger one.
    typer.Option(min=0, max=2**32 - 1, help="Of the initial noise and all noise put back."),
]
Sampler = Annotated[
    str,
    typer.Option(
        help="ddim, ddpm, pndm, euler, euler_ancestral, heun, lms or dpmpp_2m.",
        callback=known_sampler,
    ),
]
Spacing = Annotated[
    str | None,
    typer.Option(
        help="Of timesteps: leading, trailing, linspace; for euler, euler_ancestral, heun, lms and "
        "dpmpp_2m also karras, exponential.",
        callback=known_spacing,
        show_default="the model's own",
    ),
]
WholeSpacing = Annotated[
    str, typer.Option(help="Of timesteps: leading, trailing or linspace.", callback=taken_by_all)
]
Images = Annotated[
    int, typer.Option(min=1, help="How many pictures, of as many seeds counted from --seed.")
]
Eta = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="How much of the noise taken out is put back by ddim, ddpm, euler_ancestral.",
        show_default="the sampler's own",
    ),
]
Width = Annotated[
    int | None,
    typer.Option(
        min=64,
        help="Of the picture, a multiple of 64.",
        callback=whole_blocks,
        show_default="the model's own",
    ),
]
Height = Width
Record = Annotated[
    list[str],
    typer.Option(
        help="Sites to record, as a glob; can be repeated. `xray sites` lists them.",
        callback=known_sites,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="A new folder for the results.", show_default="runs/NAME, numbered"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier results in --out.")]
Svg = Annotated[bool, typer.Option("--svg", help="Write the figures as SVG too.")]
Picture = Annotated[
    str,
    typer.Option(
        help="A file; or china or flower, two photographs; or scene:SEED, a drawing.",
        callback=known_picture,
    ),
]
