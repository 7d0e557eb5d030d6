"""What does the decoder draw from which number?

Latents that no picture has are decoded: the same everywhere, zero but for one position, noise, a
picture's latent with its channels turned and swapped.

How to read it: figures/constants.png is the decoder's palette, a channel a row.
figures/receptive_field.png shows how far one position reaches, with the squares that hold half and
nearly all of its effect in pixels; on a latent of zeros, where nothing else varies, the group
normalisations carry it through the whole picture. figures/noise.png has what comes of pure noise
and of a picture's numbers in disorder: where they look alike, it is the order that makes the
picture. figures/swaps.png shows what each channel is for, by leaving it out or taking it for
another. figures/blocks.png follows the picture through the decoder's blocks.
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
    with experiment("image_decoder", out, overwrite=overwrite, svg=svg) as this:
        print(f"Latents decoded by {model}")
        generator = this.load(model)
        from xray.progress import bar
        from xray.studies import image_decoder as study
        from xray.studies.image_decoder_figures import figures

        pixels = load_image(picture, *generator.architecture.sides(width, height))
        data = study.measure(generator, pixels, seed=seed, progress=bar("pictures"))
        this.clock.lap("decode")

        this.clear("data.zarr", "figures/*", "summary.json")
        this.save_data(data)
        this.save_figures(figures(data, model, picture))
        this.clock.lap("figures")

        colours = study.colours(data)
        held = {
            f"channel {c}": {
                f"{share:.0%}": side
                for share, side in zip(
                    study.HELD, data.held.sel(base="picture").values[c].tolist(), strict=True
                )
            }
            for c in data.channel.values
        }
        header = [
            "",
            *(f"all {v:g}" for v in study.VALUES),
            *(f"{s:.0%} in, px" for s in study.HELD),
        ]
        rows = [[c, *colours[c].values(), *held[c].values()] for c in colours]
        print(script.table(header, rows))
        asked = {"picture": picture, "model": generator.name, "digest": generator.digest}
        turned = dict(zip(data.how.values.tolist(), data.meddled_psnr.values.tolist(), strict=True))
        found = {"colours": colours, "receptive_field": held, "psnr": turned}
        this.finish(asked | {"seed": seed} | found)


if __name__ == "__main__":
    script.run(main)
