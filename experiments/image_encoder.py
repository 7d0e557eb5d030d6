"""What does the encoder keep of a picture?

A picture is encoded, its latent looked at from all sides, and decoded again.

How to read it: figures/channels.png shows the four numbers of each 8×8 block of pixels as four
small pictures. figures/statistics.png says how far they are from the standard normal that the U-Net
starts from, which of them say the same, and what each says of its block: its brightness, its
colours, its detail. figures/posterior.png compares the mean of the encoder's answer with a sample
of it; where the two decode alike, the encoder is sure. data.zarr holds all of it.
"""

from xray import options, script
from xray.experiment import experiment
from xray.images import load_image


def main(
    picture: options.Picture = "china",
    model: options.Model = "mini",
    seed: options.Seed = 7,
    width: options.Width = None,
    height: options.Height = None,
    svg: options.Svg = False,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
) -> None:
    with experiment("image_encoder", out, overwrite=overwrite, svg=svg) as this:
        print(f"{picture} encoded by {model}")
        generator = this.load(model)
        from xray.progress import bar
        from xray.studies import image_encoder as study
        from xray.studies.image_encoder_figures import figures

        pixels = load_image(picture, *generator.architecture.sides(width, height))
        data = study.measure(generator, pixels, seed=seed, progress=bar("pictures"))
        this.clock.lap("encode and decode")

        this.clear("data.zarr", "figures/*", "summary.json")
        this.save_data(data)
        this.save_figures(figures(data, f"{picture} · {model}"))
        this.clock.lap("figures")

        columns = {name: data[f"channel_{name}"].values.tolist() for name in study.NUMBERS}
        rows = [[f"channel {c}", *row] for c, row in enumerate(zip(*columns.values(), strict=True))]
        print(script.table(["", *columns], rows))
        print(
            f"\nmean colours of the blocks, as a linear function of their four numbers: "
            f"R² {data.attrs['colour_r2']:.3f}\n"
            f"decoded again: {data.attrs['psnr']:.2f} dB from the mean, "
            f"{data.attrs['psnr_sample']:.2f} dB from a sample of the posterior"
        )
        asked = {"picture": picture, "model": generator.name, "digest": generator.digest}
        this.finish(asked | {"seed": seed} | data.attrs | {"channels": columns})


if __name__ == "__main__":
    script.run(main)
