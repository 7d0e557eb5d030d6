"""What is lost on the way through the autoencoder and back?

A picture is encoded and decoded, once and then again and again.

How to read it: figures/roundtrip.png shows the picture, what comes back and the difference, whole
and close up where most is lost. figures/spectrum.png says which frequencies: where "decoded" stays
at 1, the decoder draws as much detail as there was; where "difference" is above 0 too, it is not
the same detail (at 2, it has nothing to do with what was there). figures/drift.png repeats the trip
until the picture drifts off; trips that change nothing any more have found a picture that the
autoencoder can hold. data.zarr has the pictures and the numbers.
"""

from typing import Annotated

import typer

from xray import options, script
from xray.experiment import experiment
from xray.images import load_image


def main(
    picture: options.Picture = "china",
    model: options.Model = "mini",
    trips: Annotated[int, typer.Option(min=1, help="Round trips, one after another.")] = 25,
    width: options.Width = None,
    height: options.Height = None,
    svg: options.Svg = False,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
) -> None:
    with experiment("autoencoder_roundtrip", out, overwrite=overwrite, svg=svg) as this:
        print(f"{picture} through {model}'s autoencoder and back, {trips} times")
        generator = this.load(model)
        from xray.progress import bar
        from xray.studies import autoencoder_roundtrip as study

        pixels = load_image(picture, *generator.architecture.sides(width, height))
        data = study.measure(generator, pixels, trips=trips, progress=bar("round trips"))
        this.clock.lap("trips")

        this.clear("data.zarr", "figures/*", "summary.json")
        this.save_data(data)
        this.save_figures(study.figures(data, f"{picture} · {model}"))
        this.clock.lap("figures")

        bands = study.bands(data)
        print(script.table(["detail, pixels a period", "difference", "decoded"], bands))
        print("(power, as a share of the picture's)\n")
        shown = [trip for trip in data.shown.values.tolist() if trip]
        columns = {
            name: data[name].sel(trip=shown).values.tolist()
            for name in data
            if "trip" in data[name].dims
        }
        print(script.table(["trips", *columns], list(zip(shown, *columns.values(), strict=True))))
        asked = {"picture": picture, "model": generator.name, "digest": generator.digest}
        numbers = {"bands": bands, "trips": {"trip": shown} | columns}
        this.finish(asked | {"width": pixels.shape[1], "height": pixels.shape[0]} | numbers)


if __name__ == "__main__":
    script.run(main)
