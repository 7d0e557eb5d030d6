"""What does a walk through prompts and noise look like, as a film?

Each frame is a picture of its own: the embeddings go in straight lines from prompt to prompt, the
noise goes from seed to seed, once round a circle (the film then repeats without a seam), or at
random. Frames are kept in frames/ as soon as they are made; after an interruption the same command
with --resume makes only those that are missing.

How to read it: film.mp4 and film.gif are the walk. figures/walk.png tells how evenly it goes:
the noise changes by equal steps, the embedding from one prompt to the next as well (but with
--easing smooth, and the noise with --noise seeds), the picture does not. It rests while its layout
lasts, and jumps where another one wins. data.zarr has the steps and the latent of every frame.
"""

from typing import Annotated

from typer import Option

from xray import options, script
from xray.experiment import experiment

PROMPTS = ("a red star above a blue moon", "a yellow house on the grass", "a big green fish")
FOUND = ["step", "mean", "largest", "largest/mean", "at frame"]


def main(
    prompt: Annotated[list[str], Option(help="A stop of the walk; repeat it for more.")] = PROMPTS,
    seed: Annotated[list[int], Option(min=0, help="Of the noise; can be repeated.")] = (4,),
    noise: Annotated[str, Option(help="seeds, circle (closed) or random.")] = "circle",
    loop: Annotated[bool, Option("--loop", help="Come back to the first stop.")] = False,
    frames: Annotated[int, Option(min=2, help="Pictures from the first to the last.")] = 49,
    fps: Annotated[float, Option(min=0.1, max=50, help="Frames per second.")] = 12,
    hold: Annotated[
        float,
        Option(min=0, help="Seconds that each stop is shown longer.", callback=options.number()),
    ] = 0.5,
    easing: Annotated[
        str,
        Option(
            help="Pace between stops: linear or smooth.",
            callback=options.one_of("linear", "smooth"),
        ),
    ] = "linear",
    angle: Annotated[
        float | None,
        Option(
            help="Degrees a frame, of a random walk.",
            callback=options.number(above=0, most=90),
            show_default="8",
        ),
    ] = None,
    caption: Annotated[bool, Option("--caption", help="The prompt under the picture.")] = False,
    inset: Annotated[str, Option(help="latent, or a word for its heat map.")] = "",
    negative: options.Negative = "",
    model: options.Model = "mini",
    steps: options.Steps = 10,
    guidance: options.Guidance = 5.0,
    sampler: options.Sampler = "ddim",
    eta: options.Eta = None,
    width: options.Width = None,
    height: options.Height = None,
    batch: Annotated[
        int | None, Option(min=1, help="Frames at once.", show_default="by their size")
    ] = None,
    resume: Annotated[
        bool, Option("--resume", help="Keep the frames in --out, or of the last run.")
    ] = False,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    svg: options.Svg = False,
) -> None:
    with experiment("latent_walk", out, overwrite=overwrite, resume=resume, svg=svg) as this:
        from xray import walks
        from xray.progress import bar, counted
        from xray.rendering import batch_size, render, tokens_with

        way = {"frames": frames, "noise": noise, "loop": loop}
        walks.order_of_stops(prompt, seed, **way)
        word = None if inset in ("", "latent") else inset
        if word:
            tokens_with(options.tokenizer_of(model), prompt, word)
        way |= {"easing": easing, "width": width, "height": height}
        if noise == "random":
            way["angle"] = 8.0 if angle is None else angle
        elif angle is not None:
            raise ValueError(f"--angle is of a random walk, and --noise is {noise}: leave one out")
        generator = this.load(model)
        from xray.frames import Frames
        from xray.studies import latent_walk as study

        walk = walks.plan(generator, prompt, seed, **way)
        asked = {"steps": steps, "guidance": guidance, "sampler": sampler, "eta": eta}
        asked |= {"negative": negative}
        # What is wrong is said before anything is removed.
        first = list(range(min(batch or batch_size(walk), frames)))
        start = {"latent": walk.noise[first], "seed": seed[0], "record": []}
        generator.plan(list(walk.context(first)), **start, **asked)
        asked |= {"word": word}
        settings = {"prompt": prompt, "seed": seed, **way, **asked, "digest": generator.digest}
        if not resume:
            this.clear("frames")
        kept = Frames(this.folder / "frames", settings, resume=resume)
        this.clock.lap("plan")

        report = bar("frames")
        asked |= {"batch": batch, "seed": seed[0], "progress": lambda done: report(done, frames)}
        try:
            made = render(generator, walk, kept, **asked)
        finally:
            report(None, frames)
        this.clock.lap("frames")

        shown = {"hold": round(hold * fps), "captions": caption, "inset": inset}
        shown["matrix"] = generator.rgb_matrix
        this.clear("film.*", "figures/*", "data.zarr", "summary.json")
        with counted("films", 2 * len(walk)) as tick:
            films = study.write_films(this.folder, walk, kept, fps=fps, tick=tick, **shown)
        this.clock.lap("films")
        data = study.measure(walk, kept)
        this.save_data(data)
        about = f"{generator.name} · noise: {noise} · seed {', '.join(map(str, seed))}"
        this.save_figures({"walk": study.figure(walk, kept, data, about)})
        this.clock.lap("figures")

        found = study.evenness(data)
        columns = ["film", *next(iter(films.values()))]
        print(script.table(columns, [[name, *each.values()] for name, each in films.items()]))
        print("\n" + script.table(FOUND, found))
        this.finish(settings | {"computed": made, "films": films, "steps": found})


if __name__ == "__main__":
    script.run(main)
