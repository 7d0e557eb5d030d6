"""Do samplers differ?

From the same noise, all samplers that put no noise back solve the same equation: with enough steps
they end in the same latent, and how far from it they end with few is their error. It is measured
against a long run, and shown over the evaluations of the network that it took, the steps and the
seconds. DDPM and Euler ancestral put fresh noise back and so make another picture: they have no
such error. All begin at the last timestep and end at the clean picture (--spacing trailing); which
timesteps a sampler visits between can matter more than which sampler it is. Without guidance unless
--guidance says otherwise: then it is the model's own equation that is solved, at half the work.

How to read it: in figures/paths.png all start from one point; those that put noise back leave the
others. figures/errors.png: the lower the better, and a point further left has cost less; in the
grey an error cannot be told from the reference's own. figures/spacings.png has the noise
levels that are visited and what comes of it. figures/pictures.png has all pictures. Euler's method
is DDIM, and Euler ancestral is DDPM, under other names: the table says which paths are the same.
"""

from typing import Annotated

import typer

from xray import options, script
from xray.experiment import experiment
from xray.samplers import SAMPLERS


def main(
    prompt: options.Prompt = "a large red boat on the sea",
    negative: options.Negative = "",
    model: options.Model = "mini",
    sampler: Annotated[list[str], typer.Option(help="Which to compare; can be repeated.")] = tuple(
        SAMPLERS
    ),
    steps: Annotated[
        list[int], typer.Option(min=1, max=999, help="A number of steps; can be repeated.")
    ] = (4, 8, 16),
    spacing: options.WholeSpacing = "trailing",
    reference: Annotated[
        int, typer.Option(min=2, max=1000, help="Steps of the run to compare with.")
    ] = 80,
    images: options.Images = 1,
    guidance: options.Guidance = 1.0,
    seed: options.Seed = 7,
    width: options.Width = None,
    height: options.Height = None,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    svg: options.Svg = False,
) -> None:
    from xray.studies import samplers as study

    planned = study.plan(sampler, steps, spacing=spacing, reference=reference)
    with experiment("samplers", out, overwrite=overwrite, svg=svg) as this:
        print(f"{prompt!r} by {model}, {len(planned.all)} runs, {images} times")
        generator = this.load(model)
        from xray.plots import how_made
        from xray.progress import counted
        from xray.studies.samplers_figures import figures

        asked = {"negative": negative, "guidance": guidance, "width": width, "height": height}
        with counted("steps", images * planned.steps) as tick:
            seeds = range(seed, seed + images)
            made = study.make(generator, prompt, planned, seeds, tick, **asked)
        this.clock.lap("runs")

        data = study.compare(made, planned)
        told = how_made({"prompt": prompt, "model": model, **asked})
        drawn = figures(data, generator.schedule, told)
        this.clear("figures/*", "data.zarr", "summary.json")
        this.save_figures(drawn)
        this.save_data(data)
        this.clock.lap("figures")

        rows, spacings = study.findings(data), study.spacing_findings(data)
        doubt = float(data["doubt"].median())
        print(f"compared with {data.attrs['reference']}; with half the steps it ends {doubt:.2g} "
              "from there")  # fmt: skip
        for each in (rows, spacings):
            if each:
                print("\n" + script.table(list(each[0]), [list(row.values()) for row in each]))
        found = {"reference": data.attrs["reference"], "doubt": doubt, "found": rows}
        asked |= {"prompt": prompt, "model": model, "images": images, "seed": seed}
        this.finish({**asked, **found, "spacing": spacing, "spacings": spacings})


if __name__ == "__main__":
    script.run(main)
