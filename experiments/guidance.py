"""What does guidance add to a picture?

Classifier-free guidance makes two noise predictions, with the prompt and without it (or with a
negative prompt), and goes further along their difference than the model itself would: times a
scale. Shown are this push, step by step, pictures under scales from 0 to 15, under negative
prompts, and with guidance in only a part of the run.

How to read it: figures/push.png has the estimates without, with and under guidance, and where the
push is strong. figures/scales.png: 0 ignores the prompt, 1 is the model itself; more follows the
prompt better and ends in burnt colours, which the curves show as numbers. figures/negative.png:
what is named goes away, with a harder push than from nothing in particular. figures/interval.png:
guidance at low noise changes nothing; most of what it does it does between the two levels
(Kynkäänniemi et al. 2024, who found that above them it costs variety).
"""

from typing import Annotated

import typer

from xray import options, script
from xray.experiment import experiment

SCALES = (0, 1, 2, 3, 5, 8, 15)


def main(
    prompt: options.Prompt = "a red star above a blue moon",
    negative: Annotated[
        list[str], typer.Option(help="What to keep away from; can be repeated.")
    ] = ("green grass", "a night sky"),
    scale: Annotated[
        list[float],
        typer.Option(help="A guidance scale; can be repeated.", callback=options.number()),
    ] = SCALES,
    interval: Annotated[
        tuple[float, float], typer.Option(help="Noise levels σ between which to guide.")
    ] = (0.28, 5.42),
    model: options.Model = "mini",
    images: options.Images = 2,
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
    if guidance == 1:
        raise ValueError("at --guidance 1 there is no push to look at: give another scale")
    low, high = interval
    if not 0 <= low < high:
        raise ValueError(f"an interval of noise levels goes up from 0, got {low:g} to {high:g}")
    with experiment("guidance", out, overwrite=overwrite, svg=svg) as this:
        print(f"{prompt!r} by {model} in {steps} steps, {images} seeds")
        generator = this.load(model)
        from xray.progress import counted
        from xray.studies import guidance as study
        from xray.studies.guidance_figures import figures

        asked = {"steps": steps, "sampler": sampler, "width": width, "height": height}
        seeds = range(seed, seed + images)
        scales = sorted({1.0, guidance, *scale})
        timesteps = generator.plan(prompt, guidance=guidance, **asked).timesteps[:-1]
        parts = study.intervals(guidance, *interval, timesteps, generator.schedule)
        avoid = {f"not “{n}”": {"guidance": guidance, "negative": n} for n in negative}
        choices = {f"{s:g}": {"guidance": s} for s in scales} | avoid
        choices |= {name: {"guidance": by_step} for name, by_step in parts.items()}
        with counted("pictures", (1 + images * len(choices)) * steps) as tick:
            made = study.pictures(generator, prompt, choices, seeds, tick, **asked)
            trace = generator.generate(prompt, guidance=guidance, seed=seed, **asked, progress=tick)
        this.clock.lap("pictures")

        push = study.push(trace, generator.schedule)
        drawn = figures(
            push, made, trace, generator, scales=scales, avoided=list(avoid), parts=parts
        )
        this.clear("figures/*", "data.zarr", "summary.json")
        this.save_figures(drawn)
        this.save_data(made.merge(push))
        this.clock.lap("figures")

        rows = study.table(made)
        print(script.table(list(rows[0]), [list(row.values()) for row in rows]))
        found = {"pictures": rows, "interval": interval, "negative": negative, "scales": scales}
        this.finish({"prompt": prompt, "model": model, "guidance": guidance, **asked, **found})


if __name__ == "__main__":
    script.run(main)
