"""What happens inside while a picture is made?

One picture is generated, and everything that --record names is kept, step by step.

How to read it: figures/timeline.png shows the latent turning from noise into the picture, and what
picture the model has in mind at each step. figures/statistics.png tells when it is decided: the
denoised estimate stops growing, the latent leaves the normal distribution. figures/word_maps.png
shows which places attended to each word. trace.zarr holds it all, for `xray show`, `xray.open` or
plain xarray; summary.json has the settings and the numbers.
"""

from xray import options, script
from xray.experiment import experiment

SHOWN = ["step", "timestep", "latent_std", "latent_ks", "noise_std", "denoised_std", "cosine"]


def main(
    prompt: options.Prompt = "a large red boat on the sea",
    negative: options.Negative = "",
    model: options.Model = "mini",
    steps: options.Steps = 25,
    guidance: options.Guidance = 5.0,
    seed: options.Seed = 7,
    sampler: options.Sampler = "ddim",
    eta: options.Eta = None,
    spacing: options.Spacing = None,
    width: options.Width = None,
    height: options.Height = None,
    record: options.Record = ("sampler/*", "unet/**/cross/weights"),
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    svg: options.Svg = False,
) -> None:
    with experiment("record_generation", out, overwrite=overwrite, svg=svg) as this:
        print(f"{prompt!r} by {model} in {steps} steps")
        generator = this.load(model)
        from xray import plots, summary

        asked = {
            "negative": negative,
            "steps": steps,
            "guidance": guidance,
            "seed": seed,
            "sampler": sampler,
            "eta": eta,
            "spacing": spacing,
            "width": width,
            "height": height,
            "record": record,
        }
        store = this.folder / "trace.zarr"
        plan = generator.plan(prompt, **asked, store=store, overwrite=overwrite)
        print(f"recording {plan} to {store}")
        this.clear("image.png", "summary.json", "figures/*")
        this.clock.lap("plan")

        trace = generator.generate(prompt, **asked, store=store, overwrite=overwrite)
        trace.image.save(this.folder / "image.png")
        this.clock.adopt(trace.attrs["seconds"])

        by_step = plots.step_statistics(trace)
        this.save_figures(plots.figures(trace, generator))
        this.clock.lap("figures")

        shown = [name for name in SHOWN if name in by_step]
        rows = list(zip(*(by_step[name] for name in shown), strict=True))
        print(script.table(shown, rows[:: max(1, len(rows) // 6)]))
        this.finish(summary.of_trace(trace) | {"by_step": by_step})


if __name__ == "__main__":
    script.run(main)
