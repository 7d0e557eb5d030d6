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
    from xray.batch import eta_of

    eta_of(name, None)
    return name


@one_line_errors
def known_model(name: str | None) -> str | None:
    from xray.checkpoints import MODELS

    if name is not None and name not in MODELS and not Path(name, "config.json").is_file():
        raise ValueError(
            f"{name!r} is neither a model ({', '.join(MODELS)}) nor a saved one's folder"
        )
    return name


@one_line_errors
def whole_blocks(side: int | None) -> int | None:
    # The U-Net halves the latent, which is an eighth of the picture, three times.
    if side is not None and side % 64:
        raise ValueError(f"width and height must be multiples of 64, got {side}")
    return side


MODEL_HELP = "mini, sd-v1-4, … or the folder of a saved model."

Prompt = Annotated[str, typer.Option(help="What the picture is to show.")]
Negative = Annotated[str, typer.Option(help="What it is to keep away from.")]
Model = Annotated[
    str,
    typer.Option(help=MODEL_HELP, callback=known_model),
]
Steps = Annotated[int, typer.Option(min=1, max=1000, help="Sampler steps.")]
Guidance = Annotated[
    float, typer.Option(help="Scale of classifier-free guidance; 1 is none, at half the work.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of the initial noise and all noise put back.")]
Sampler = Annotated[str, typer.Option(help="ddim or ddpm.", callback=known_sampler)]
Eta = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="How much of the noise taken out is put back.",
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
