"""Why put noise back?

At each step some of the noise that the U-Net predicts is taken out of the latent. DDPM takes out
more than must go and puts fresh noise in its place; DDIM does not, and eta goes from the one (1)
to the other (0): noise is exchanged. Then DDPM's fresh noise is left out and as much is taken out
as before: the latent has less noise than the U-Net is told, the U-Net takes what is left of a
picture's beginnings for noise, and the picture loses detail. Without guidance, which
puts contrast back and so covers up the loss: --guidance 5 shows how much.

How to read it: figures/pictures.png: in the upper rows every eta makes another picture, in the
lower ones pictures grow smoother the less noise is put back. figures/steps.png has the
noise itself, what is taken out and what is put back, with its scale at every step; more can come
back than went, since it stands across the noise that is left, and lengths at right angles add by
their squares. figures/balance.png has the latent by what the U-Net expects, a real latent with as
much noise: near 1 at every eta, far below where noise is left out, most of all in the finest
structure. Dotted is what follows from the schedule alone, for a U-Net that sees through to the
picture: without its noise, DDPM's latent keeps only σ/σ₀ of the noise that it should have.
"""

from typing import Annotated

import typer

from xray import options, script
from xray.experiment import experiment
from xray.images import load_image

ETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
PICTURES = tuple(f"scene:{seed}" for seed in range(6))


def main(
    prompt: options.Prompt = "a red star above a blue moon",
    negative: options.Negative = "",
    eta: Annotated[
        list[float],
        typer.Option(min=0, max=1, help="Share of the noise put back; can be repeated."),
    ] = ETAS,
    picture: Annotated[
        list[str],
        typer.Option(
            help="A real picture: a file, china, flower, scene:SEED; can be repeated.",
            callback=options.known_picture,
        ),
    ] = PICTURES,
    model: options.Model = "mini",
    images: options.Images = 2,
    steps: options.Steps = 20,
    spacing: options.WholeSpacing = "trailing",
    guidance: options.Guidance = 1.0,
    seed: options.Seed = 7,
    width: options.Width = None,
    height: options.Height = None,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    svg: options.Svg = False,
) -> None:
    with experiment("stabilizing_noise", out, overwrite=overwrite, svg=svg) as this:
        print(f"{prompt!r} by {model} in {steps} steps, {images} times")
        generator = this.load(model)
        import numpy as np

        from xray.plots import how_made
        from xray.progress import bar, counted, each
        from xray.studies import stabilizing_noise as study
        from xray.studies.stabilizing_noise_figures import figures

        etas = sorted({0.0, 1.0, *eta})
        asked = {"negative": negative, "steps": steps, "guidance": guidance, "spacing": spacing}
        size = {"width": width, "height": height}
        generator.plan(prompt, **asked, **size)  # what is wrong is said before anything is made
        sides = generator.architecture.sides(width, height)
        real = np.concatenate(
            [
                generator.encode(load_image(p, *sides)).values
                for p in each(picture, bar("real pictures"))
            ]
        )
        with counted("steps", images * len(study.WAYS) * len(etas) * steps) as tick:
            seeds = range(seed, seed + images)
            data = study.measure(
                generator, prompt, etas=etas, seeds=seeds, real=real, tick=tick, **asked, **size
            )
        this.clock.lap("pictures")

        made = how_made({"prompt": prompt, "model": model, **asked})
        drawn = figures(data, generator, f"{made} · timesteps {spacing}")
        this.clear("figures/*", "data.zarr", "summary.json")
        this.save_figures(drawn)
        this.save_data(data)
        this.clock.lap("figures")

        rows = study.findings(data)
        print(script.table(list(rows[0]), [list(row.values()) for row in rows]))
        asked |= {"prompt": prompt, "model": model, "images": images, "seed": seed}
        this.finish({**asked, "pictures": list(picture), "found": rows})


if __name__ == "__main__":
    script.run(main)
