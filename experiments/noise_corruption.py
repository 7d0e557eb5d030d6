"""How much noise does a latent bear?

A picture's latent gets noise of growing amplitude at a growing share of its positions, and is
decoded; then the noise goes into single channels, and into the pixels instead.

How to read it: figures/grid.png has a decoded picture, PSNR and SSIM for each amplitude and share.
figures/curves.png has the same as curves: how steeply a channel's curve falls says how much hangs
on it. figures/kinds.png compares with the same noise in the pixels: noise in pixels stays where it
is and looks like grain, noise in the latent becomes wrong colours and shapes; encoding and decoding
noisy pixels shows whether the autoencoder takes noise for detail. figures/channels.png shows what
noise in each channel does.
"""

from typing import Annotated

import typer

from xray import options, script
from xray.experiment import experiment
from xray.images import load_image


def main(
    picture: options.Picture = "china",
    model: options.Model = "mini",
    amplitude: Annotated[
        list[float],
        typer.Option(
            help="Of the noise, in standard deviations of the whole latent, or of the pixels; can "
            "be repeated.",
            callback=options.number(above=0),
        ),
    ] = (0.25, 0.5, 1.0, 2.0, 4.0),
    share: Annotated[
        list[float],
        typer.Option(
            help="Of the latent's positions that get noise, up to 1; can be repeated.",
            callback=options.number(above=0, most=1),
        ),
    ] = (0.01, 0.05, 0.25, 1.0),
    seed: options.Seed = 7,
    width: options.Width = None,
    height: options.Height = None,
    svg: options.Svg = False,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
) -> None:
    with experiment("noise_corruption", out, overwrite=overwrite, svg=svg) as this:
        print(f"{picture} in the latent of {model}, corrupted")
        generator = this.load(model)
        from xray.progress import bar
        from xray.studies import noise_corruption as study

        pixels = load_image(picture, *generator.architecture.sides(width, height))
        data = study.measure(
            generator,
            pixels,
            amplitudes=sorted(set(amplitude)),
            shares=sorted(set(share)),
            seed=seed,
            progress=bar("pictures"),
        )
        this.clock.lap("corrupt and decode")

        this.clear("data.zarr", "figures/*", "summary.json")
        this.save_data(data)
        this.save_figures(study.figures(data, f"{picture} · {model} · seed {seed}"))
        this.clock.lap("figures")

        rows = {
            f"{100 * s:g} % of positions": data.grid_psnr.sel(share=s) for s in data.share.values
        }
        rows |= {f"channel {c}": data.channel_psnr.sel(channel=c) for c in data.channel.values}
        rows |= {f"{k}, all": data.kind_psnr.sel(kind=k) for k in data.kind.values}
        rows = {name: values.values.tolist() for name, values in rows.items()}
        header = ["PSNR in dB at amplitude", *(f"{a:g}" for a in data.amplitude.values)]
        print(script.table(header, [[name, *values] for name, values in rows.items()]))
        asked = {"picture": picture, "model": generator.name, "digest": generator.digest}
        this.finish(
            asked | data.attrs | {"amplitudes": data.amplitude.values.tolist(), "psnr": rows}
        )


if __name__ == "__main__":
    script.run(main)
