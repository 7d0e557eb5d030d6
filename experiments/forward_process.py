"""What does training see?

A picture's latent is noised to timesteps from first to last, √ᾱ x₀ + √(1−ᾱ) ε, and at each the
U-Net is asked once for the noise that was put in.

How to read it: figures/noised.png shows the latent drown, and the picture that the U-Net still sees
behind it in a single step. figures/curves.png tells why in this order: the picture's power falls
below the noise's octave by octave, finest first, and once the distance from a standard normal is
under the dotted line, its numbers alone no longer tell the latent from pure noise. The lower row is
the error of that one step. In the noise it is largest where there is least noise to find, in the
picture where least of the picture is left. Where a curve is under the dotted one of its colour, the
U-Net knows more of pictures than their spectrum.
"""

from typing import Annotated

import typer

from xray import options, script
from xray.experiment import experiment
from xray.images import caption, load_image


def main(
    picture: options.Picture = "scene:7",
    prompt: Annotated[
        str | None,
        typer.Option(help="What the U-Net is told of it.", show_default="a scene's own caption"),
    ] = None,
    model: options.Model = "mini",
    timesteps: Annotated[
        int, typer.Option(min=2, max=1000, help="How many, evenly over all of training's.")
    ] = 21,
    noises: Annotated[int, typer.Option(min=1, help="How many, from as many seeds.")] = 4,
    seed: options.Seed = 7,
    width: options.Width = None,
    height: options.Height = None,
    svg: options.Svg = False,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
) -> None:
    with experiment("forward_process", out, overwrite=overwrite, svg=svg) as this:
        told = caption(picture) if prompt is None else prompt
        print(f"{picture}, {told!r}, noised and looked at by {model}")
        generator = this.load(model)
        from xray.progress import bar
        from xray.studies import forward_process as study

        pixels = load_image(picture, *generator.architecture.sides(width, height))
        last = len(generator.schedule.alphas_cumprod) - 1
        chosen = [round(k * last / (timesteps - 1)) for k in range(timesteps)]
        data = study.measure(
            generator,
            pixels,
            told,
            timesteps=chosen,
            noises=noises,
            seed=seed,
            progress=bar("timesteps"),
        )
        this.clock.lap("noise and predict")

        this.clear("data.zarr", "figures/*", "summary.json")
        rows = study.table(data)
        made = f"{picture} · {model} · seed {seed}"
        this.save_figures(study.figures(data, made))
        this.save_data(data)
        this.clock.lap("figures")

        print(script.table(study.HEADER, rows[:: max(1, len(rows) // 10)]))
        asked = {"picture": picture, "prompt": told, "model": generator.name}
        found = {"digest": generator.digest, "by_timestep": dict(zip(study.HEADER, zip(*rows)))}
        this.finish(asked | {"seed": seed, "noises": noises} | found)


if __name__ == "__main__":
    script.run(main)
