"""What is it made of?

Every network and block with its parameters, the shape that it leaves, multiply-adds, memory and
time, for one picture and one guidance branch; no weights are needed, but with --model sd-v1-4 some
5.5 GB of memory and more than a minute. A guided run computes the U-Net twice in each step, the
text encoder twice and the decoder once in all, and the image encoder not at all.

How to read it: figures/map.png draws the networks to scale: a block is as wide as it has channels
and as high as its grid; lines over the U are the skip connections. figures/costs.png has a bar for
each block: where parameters are, there is little to compute, and the other way round. blocks.csv
has the numbers. Multiply-adds are those of convolutions and matrix products. Convolutions are
counted and timed by their definition; elsewhere large ones go by Winograd's algorithm, which
multiplies less. Memory is that of the tensors alive at once, in the order of the code and without
weights or the operations' own working space; the process takes more. Each block is timed alone, as
a function of its own.
"""

from typing import Annotated

import typer

from xray import options, script
from xray.experiment import experiment

# Not options.Model, which would ask for weights.
Model = Annotated[
    str, typer.Option("--model", help=options.MODEL_HELP, callback=options.known_model)
]
Repeats = Annotated[int, typer.Option(min=0, help="Runs to take the time of; 0 leaves it out.")]


def main(
    name: Model = "mini",
    width: options.Width = None,
    height: options.Height = None,
    repeats: Repeats = 5,
    svg: options.Svg = False,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
) -> None:
    with experiment("pipeline_map", out, overwrite=overwrite, svg=svg) as this:
        model = this.load(name, weights=None, exact=True)
        from xray.progress import bar
        from xray.studies import pipeline_map as study
        from xray.studies.pipeline_map_figures import figures

        size = {"width": width, "height": height}
        parts = study.measure(model, **size, progress=bar("networks"))
        this.clock.lap("dissect")
        if repeats:
            parts = study.timed(parts, repeats, progress=bar("blocks and networks timed"))
            this.clock.lap("time")

        tokenizer = study.tokenizer_row(model, repeats)
        rows = [tokenizer, *study.table(parts)]
        this.clear("blocks.csv", "figures/*", "summary.json")
        this.save_table("blocks", study.HEADER, rows)
        this.save_figures(figures(parts, model.name))
        this.clock.lap("figures")

        print(script.table(study.READING, [study.for_reading(row) for row in rows if row[1]]))
        whole = [tokenizer, *study.table(parts, blocks=False)]
        print("\n" + script.table(study.READING, [study.for_reading(row) for row in whole]))
        found = {row[0]: dict(zip(study.HEADER[3:], row[3:], strict=True)) for row in whole}
        asked = {"model": model.name, **size, "repeats": repeats}
        this.finish({**asked, "parts": found, "parameters": model.parameters})


if __name__ == "__main__":
    script.run(main)
