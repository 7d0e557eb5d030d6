"""What is in an embedding?

A prompt goes through the text encoder. What comes out is a row of numbers for each token, the last
hidden state, which the U-Net attends to; the row at the end token, which has seen every word, is
CLIP's summary of the prompt, the pooled vector. A second prompt shows what changes.

How to read it: figures/tokens.png has the norm of each row and which rows are alike.
figures/pooled.png has each row's distance from the pooled vector, and how far each moves when the
prompt changes: nothing before the first other word, for tokens see only what stands before them.
figures/layers.png shows how the rows grow and turn from layer to layer, figures/attention.png
where each token looks, which is never ahead.
"""

from typing import Annotated

import typer

from xray import options, script
from xray.experiment import experiment

Other = Annotated[str, typer.Option(help="The prompt to compare it with.")]


def main(
    prompt: options.Text = "a red star above a blue moon",
    other: Other = "a red star above a green moon",
    model: options.Model = "mini",
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    svg: options.Svg = False,
) -> None:
    with experiment("text_encoder", out, overwrite=overwrite, svg=svg) as this:
        print(f"{prompt!r} and {other!r} by {model}")
        generator = this.load(model)
        from xray.studies import text_encoder as study
        from xray.studies.text_encoder_figures import figures

        data = study.inside(generator, [prompt, other])
        found = study.findings(data)
        this.clock.lap("text")

        this.clear("figures/*", "data.zarr", "*.csv", "summary.json")
        header, rows = study.token_table(data)
        this.save_figures(figures(data, generator))
        this.save_data(data)
        this.save_table("tokens", header, rows)
        this.clock.lap("figures")

        print(script.table(header, rows))
        print("\n" + script.table(["", "number"], [[name, value] for name, value in found.items()]))
        asked = {"prompt": prompt, "other": other}
        this.finish({**asked, "model": model, "digest": generator.digest, **found})


if __name__ == "__main__":
    script.run(main)
