"""What lies between two prompts?

An embedding walks to another in three ways: along the straight line (lerp), every row along its
own circle (slerp), and so to the row that fits best, wherever it stands (aligned; the U-Net does
not see the order of the rows). From the same noise a picture is made at every frame.

How to read it: figures/pictures.png has the pictures; they do not change as evenly as the
embedding, and the bar is where they flip. In figures/steps.png an even way would be flat; where the
distances to both ends cross, the picture leaves the first prompt; a way longer than its straight
line goes through something else. figures/pairs.png tells which token walks to which.
"""

from typing import Annotated

import typer

from xray import options, script
from xray.experiment import experiment

Other = Annotated[str, typer.Option(help="The prompt at the other end.")]
Frames = Annotated[int, typer.Option(min=3, help="Pictures on each way, with both ends.")]


def main(
    prompt: options.Text = "a red star at night",
    other: Other = "a yellow house on the grass",
    negative: options.Negative = "",
    model: options.Model = "mini",
    frames: Frames = 9,
    steps: options.Steps = 12,
    guidance: options.Guidance = 5.0,
    seed: options.Seed = 7,
    sampler: options.Sampler = "ddim",
    width: options.Width = None,
    height: options.Height = None,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    svg: options.Svg = False,
) -> None:
    with experiment("text_interpolation", out, overwrite=overwrite, svg=svg) as this:
        print(f"from {prompt!r} to {other!r} by {model}, {frames} pictures on each of three ways")
        generator = this.load(model)
        from xray.progress import counted
        from xray.studies import text_interpolation as study
        from xray.studies.text_interpolation_figures import figures

        asked = {
            "negative": negative,
            "steps": steps,
            "guidance": guidance,
            "seed": seed,
            "sampler": sampler,
            "width": width,
            "height": height,
        }
        with counted("pictures", steps * study.batches(generator, frames, width, height)) as tick:
            data = study.between(generator, prompt, other, frames=frames, tick=tick, **asked)
        this.clock.lap("pictures")

        found = study.findings(data)
        data = data.assign_attrs(asked)
        drawn = figures(data, generator)
        this.clear("figures/*", "data.zarr", "summary.json")
        this.save_figures(drawn)
        this.save_data(data)
        this.clock.lap("figures")

        print(script.table(list(found[0]), [list(row.values()) for row in found]))
        asked |= {"prompt": prompt, "other": other, "frames": frames}
        this.finish({"model": model, "digest": generator.digest, **asked, "ways": found})


if __name__ == "__main__":
    script.run(main)
