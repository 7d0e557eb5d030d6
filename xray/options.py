"""The options that experiments share, so that each means the same everywhere.

    def main(model: options.Model = "mini", seed: options.Seed = 7, out: options.Out = None): ...

The defaults are the script's own. What can be refused before TensorFlow is imported is refused
here, the rest by `generate`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xray.script import one_line_errors


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
def known_picture(source: str) -> str:
    from xray.images import check_image

    check_image(source)
    return source


MODEL_HELP = "mini, sd-v1-4, … or the path of a model."

Prompt = Annotated[str, typer.Option(help="What the picture is to show.")]
Negative = Annotated[str, typer.Option(help="What it is to keep away from.")]
Model = Annotated[
    str,
    typer.Option(help=MODEL_HELP, callback=known_model),
]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch the model's weights if they are not here.")
]
Steps = Annotated[int, typer.Option(min=1, max=1000, help="Sampler steps.")]
Guidance = Annotated[
    float, typer.Option(help="Scale of classifier-free guidance; 1 is none, at half the work.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of the initial noise and all noise put back.")]
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
    typer.Option(help="Sites to record, as a glob; can be repeated. `xray sites` lists them."),
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
