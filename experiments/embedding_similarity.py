"""Which prompts are near?

Every prompt of a set is brought to one vector: the pooled one, CLIP's summary, or the whole
embedding, which is what the U-Net attends to.

How to read it: figures/similarity.png has the cosine of every two, in the order of a dendrogram;
light blocks are what the text encoder takes for alike. figures/maps.png lays the prompts out in the
plane: PCA keeps the directions of most variance, MDS the distances, t-SNE who is near whom. In the
table, groups that mean something have more cosine within than to the others. neighbours.csv has the
nearest of each. figures/difference.png is what one prompt's embedding has more than another's.

Of more than 60 prompts the heat map has 60 that stand for the rest, t-SNE at most 1,000.
"""

from typing import Annotated

import typer

from xray import options, prompts, script
from xray.experiment import experiment

Source = Annotated[
    str,
    typer.Option(
        "--prompts",
        metavar="SET|FILE",
        help=f"{', '.join(prompts.SETS)}, all; or a text file with one prompt a line.",
    ),
]
Kind = Annotated[
    str,
    typer.Option(
        help="pooled, or whole: all tokens of the embedding.",
        callback=options.one_of("pooled", "whole"),
    ),
]
First = Annotated[
    str | None,
    typer.Option(help="For the difference.", show_default="the first of the prompts"),
]
Second = Annotated[str | None, typer.Option(help="Likewise.", show_default="the second")]


def main(
    source: Source = "drawn",
    vector: Kind = "pooled",
    first: First = None,
    second: Second = None,
    seed: options.Seed = 7,
    model: options.Model = "mini",
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    svg: options.Svg = False,
) -> None:
    with experiment("embedding_similarity", out, overwrite=overwrite, svg=svg) as this:
        from xray.studies import embedding_similarity as study

        read = prompts.read(source)
        study.enough(read)
        print(f"{len(read.texts)} prompts, {read.empty} empty lines and {read.repeated} repeated")
        generator = this.load(model)
        from xray.progress import counted
        from xray.studies.embedding_similarity_figures import figures

        with counted("prompts", len(read.texts)) as tick:
            data = study.compare(generator, read, vector, seed=seed, tick=tick)
        first = read.texts[0] if first is None else first
        second = read.texts[1] if second is None else second
        apart = study.difference(generator, first, second)
        this.clock.lap("vectors and maps")

        drawn = figures(data, apart, generator)
        this.clear("figures/*", "data.zarr", "*.csv", "summary.json")
        this.save_figures(drawn)
        this.save_data(data.merge(apart))
        header, rows = study.neighbour_table(data)
        this.save_table("neighbours", header, rows)
        this.clock.lap("figures")

        print(script.table(header, [row for row in rows if row[1] == 1][:12]), end="\n\n")
        groups = study.by_group(data)
        print(script.table(list(groups[0]), [list(group.values()) for group in groups]))
        this.finish({
            "model": model, "digest": generator.digest, "prompts": read.name, "vector": vector,
            "count": len(read.texts), "empty": read.empty, "repeated": read.repeated,
            "cut": int(data["cut"].sum()), "seed": seed, "groups": groups,
            "difference": [first, second],
        })  # fmt: skip


if __name__ == "__main__":
    script.run(main)
