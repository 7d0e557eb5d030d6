"""When are layout, colour and detail of a picture decided?

At every step the model has a whole picture in mind, its denoised estimate. Several pictures are
made, and each estimate is compared with the last one: its coarse light and dark (layout), the hue
of large areas (colour), all that is smaller than an eighth of the picture (detail), and every
octave of frequencies.

How to read it: figures/steps.png has latent, estimate and noise at each step. figures/settling.png
has the estimates' distance from the last one: 0 is settled, 1 as far as an empty picture. What is
coarse goes first. The lower panels say why: noise is as strong in every octave, a picture is not,
so its coarse structure stands out of the noise first. Dotted, the same for a denoiser that knows
this spectrum and nothing else of pictures: where the model is below, it knows more. Samplers that
put noise back have no dotted line, which is that of a run without.
"""

from xray import options, script
from xray.experiment import experiment


def main(
    prompt: options.Prompt = "a large red boat on the sea",
    negative: options.Negative = "",
    model: options.Model = "mini",
    images: options.Images = 4,
    steps: options.Steps = 25,
    guidance: options.Guidance = 5.0,
    seed: options.Seed = 7,
    sampler: options.Sampler = "ddim",
    width: options.Width = None,
    height: options.Height = None,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    svg: options.Svg = False,
) -> None:
    with experiment("denoising_steps", out, overwrite=overwrite, svg=svg) as this:
        print(f"{prompt!r} by {model} in {steps} steps, {images} times")
        generator = this.load(model)
        from xray import plots
        from xray.progress import counted
        from xray.studies import denoising_steps as study

        asked = {
            "negative": negative,
            "steps": steps,
            "guidance": guidance,
            "sampler": sampler,
            "width": width,
            "height": height,
        }
        seeds = range(seed, seed + images)
        with counted("pictures", images * steps) as tick:
            traces = [generator.generate(prompt, seed=s, **asked, progress=tick) for s in seeds]
        this.clock.lap("pictures")

        data = study.settling(traces, generator.schedule)
        rows = study.findings(data)
        this.clear("figures/*", "data.zarr", "summary.json")
        this.save_figures(
            {
                "steps": plots.timeline(traces[0], generator, count=9),
                "settling": study.figure(data, traces[0], generator),
            }
        )
        this.save_data(data)
        this.clock.lap("figures")

        header = ["", "half settled", "within a tenth", "energy", "clear of noise"]
        keys = ["what", "half", "tenth", "energy", "clear"]
        print(script.table(header, [[row.get(key) for key in keys] for row in rows]))
        this.finish({"prompt": prompt, "model": model, "images": images, **asked, "found": rows})


if __name__ == "__main__":
    script.run(main)
