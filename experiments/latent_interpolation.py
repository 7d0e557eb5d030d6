"""What lies between two noises, and between two pictures?

Between two noises: along the straight line (lerp), and along the circle (slerp). Between two
pictures: along the straight line from one latent to the other, and along the circle between the
noises that they would have come from, which DDIM finds by running backwards.

How to read it: figures/noise.png has the pictures from both ways. Half-way on the straight line the
noise has only 0.71 of its norm; the model takes that for a picture with little in it.
figures/pictures.png sets a cross-fade of two latents against pictures that were drawn.
figures/inversion.png says how far to trust the noise that was found: a round trip comes back nearer
the more steps it has, and not at all where guidance is put on. All trips go to the noisiest
timestep (trailing spacing), however few their steps.
"""

from typing import Annotated

import typer

from xray import options, script
from xray.experiment import experiment
from xray.images import caption, load_image

Frames = Annotated[int, typer.Option(min=3, help="Pictures on each way, with both ends.")]
OtherSeed = Annotated[int, typer.Option(min=0, help="Of the noise at the other end.")]
Words = Annotated[
    str | None,
    typer.Option(help="What the picture shows.", show_default="a scene's own words, or none"),
]


def main(
    prompt: options.Prompt = "a red star at night",
    seed: options.Seed = 7,
    other_seed: OtherSeed = 8,
    picture: options.Picture = "scene:5",
    other_picture: options.Picture = "scene:8",
    words: Words = None,
    other_words: Words = None,
    model: options.Model = "mini",
    frames: Frames = 7,
    steps: options.Steps = 10,
    guidance: options.Guidance = 5.0,
    width: options.Width = None,
    height: options.Height = None,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    svg: options.Svg = False,
) -> None:
    with experiment("latent_interpolation", out, overwrite=overwrite, svg=svg) as this:
        pair = (picture, other_picture)
        told = [caption(p) if w is None else w for p, w in zip(pair, (words, other_words))]
        print(
            f"{prompt!r} from seed {seed} to {other_seed}, and {pair[0]} to {pair[1]}, by {model}"
        )
        generator = this.load(model)
        import numpy as np
        import xarray

        from xray.progress import counted
        from xray.studies import latent_interpolation as study
        from xray.studies.latent_interpolation_figures import figures

        sides = generator.architecture.sides(width, height)
        size = dict(zip(("width", "height"), sides, strict=True))
        pixels = np.stack([load_image(p, *sides) for p in pair])
        contexts = generator.embed(told).values
        asked = {"steps": steps, "guidance": guidance}
        total = study.ticks(generator, frames=frames, size=sides, **asked)
        with counted("pictures", total) as tick:
            at = {"frames": frames, "tick": tick}
            seeds = (seed, other_seed)
            noises = study.between_noises(generator, prompt, seeds, **at, **asked, **size)
            this.clock.lap("noises")
            trips = study.round_trips(generator, pixels, contexts, tick=tick, **asked)
            this.clock.lap("round trips")
            pictures = study.between_pictures(generator, trips, contexts, **at, steps=steps)
        this.clock.lap("pictures")

        asked |= {"prompt": prompt, "seed": seed, "other_seed": other_seed}
        asked |= {"picture": picture, "other_picture": other_picture, "words": told}
        data = xarray.merge([noises, trips, pictures]).assign_attrs(asked)
        drawn = figures(data, generator)
        this.clear("figures/*", "data.zarr", "summary.json")
        this.save_figures(drawn)
        this.save_data(data)
        this.clock.lap("figures")

        ways, errors = study.findings(data)
        for rows in (ways, errors):
            print(script.table(list(rows[0]), [list(row.values()) for row in rows]) + "\n")
        asked |= {"model": model, "digest": generator.digest, "frames": frames, **size}
        this.finish({**asked, "ways": ways, "round_trips": errors})


if __name__ == "__main__":
    script.run(main)
