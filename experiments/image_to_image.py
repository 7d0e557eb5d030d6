"""What comes of a picture, or of a recorded step, when a run starts from it?

A run need not start from pure noise. It is started from a picture with more and less noise; a
recorded run is taken up again at several steps with another prompt, with other noise, with its
latent mirrored, tiled or shifted; and a part of a picture is painted anew, with the rest, noised
as each step expects it, put back at every step.

How to read it: figures/strength.png: at low strength the picture stays, at high strength the
prompt wins. figures/resumed.png: the later something is changed, the less of the picture changes;
the curves say when it is decided. figures/operated.png: what is done to the latent early is
painted over, what is done late stays, seams and all. figures/painted.png: outside the mask little
but the autoencoder's own loss is left. Distances are root mean squares of the pixels, 0 … 1.
"""

from pathlib import Path
from typing import Annotated

import typer

from xray import options, script
from xray.experiment import experiment


def main(
    picture: options.Picture = "scene:8",
    prompt: options.Prompt = "a red house on the grass",
    other: Annotated[
        str, typer.Option(help="The prompt to change to on the way.", callback=options.not_empty)
    ] = "a yellow moon in the night sky",
    strength: Annotated[
        list[float],
        typer.Option(
            help="Share of a run that is left to do; can be repeated.",
            callback=options.number(above=0, most=1),
        ),
    ] = (0.2, 0.4, 0.6, 0.8, 1.0),
    paint: Annotated[
        str,
        typer.Option(
            help="Where: left,top,right,bottom, or a picture that is light there.",
            callback=options.known_mask,
        ),
    ] = "0.5,0.25,1,0.75",
    model: options.Model = "mini",
    images: options.Images = 3,
    steps: options.Steps = 20,
    guidance: options.Guidance = 5.0,
    seed: options.Seed = 7,
    width: options.Width = None,
    height: options.Height = None,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    svg: options.Svg = False,
) -> None:
    with experiment("image_to_image", out, overwrite=overwrite, svg=svg) as this:
        print(f"{picture} and {prompt!r} by {model} in {steps} steps")
        generator = this.load(model)
        import xarray

        from xray.images import load_image
        from xray.masks import read_mask
        from xray.progress import counted
        from xray.studies import image_to_image as study
        from xray.studies.image_to_image_figures import figures

        width, height = generator.architecture.sides(width, height)
        pixels = load_image(picture, width, height)
        mask = read_mask(paint, width, height)
        sizes = {"width": width, "height": height}
        asked = {"steps": steps, "guidance": guidance, "seed": seed, **sizes}
        for each in (prompt, other):
            generator.plan(each, **asked)  # what is wrong is said before anything is made
        taken_up = sorted({steps * i // 5 for i in range(5)})
        left, seeds = [steps - k for k in taken_up], range(seed, seed + images)
        strengths = sorted(set(strength))
        total = steps * (2 + images) + 2 * sum(left) + 3 * sum(left[:3])
        total += sum(max(1, round(share * steps)) for share in strengths)
        with counted("steps", total) as tick:
            parts = [study.by_strength(generator, prompt, pixels, strengths, tick, **asked)]
            run = generator.generate(prompt, progress=tick, **asked)
            noisy = generator.generate(prompt, eta=1.0, progress=tick, **asked)
            changes = {
                "another prompt": (run, {"prompt": other}),
                "other noise put back": (noisy, {"seed": seed + 1}),
            }
            parts += [study.resumed(generator, changes, taken_up, tick)]
            parts += [study.operated(generator, run, taken_up[:3], tick)]
            parts += [study.painted(generator, prompt, pixels, mask, seeds, tick, **asked)]
        this.clock.lap("pictures")

        data = xarray.merge(parts)
        told = [Path(picture).name, prompt, other, f"{model}, steps {steps}, guidance {guidance:g}"]
        this.clear("figures/*", "data.zarr", "summary.json")
        this.save_figures(figures(data, run, generator, told))
        this.save_data(data)
        this.clock.lap("figures")

        found = study.findings(data)
        print(script.table(["distance from what it was", ""], list(found.items())))
        given = {"picture": picture, "prompt": prompt, "other": other, "paint": paint}
        this.finish({**given, "model": model, "images": images, **asked, "distances": found})


if __name__ == "__main__":
    script.run(main)
