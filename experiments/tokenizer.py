"""How does a word become numbers?

A word is cut into bytes, and neighbours are joined again in the order of a list that was learned
from captions; what is left are tokens, each of which has a number and a row of the embedding.

How to read it: figures/merges.png follows some words from bytes to vectors. figures/words.png
shows words by the number of their tokens: what is rare falls into pieces. figures/spellings.png
asks what it costs to write a word in another way: capitals nothing, for they are never seen; a
slip of the finger can cost more than another word. The dotted line is the median distance of
another word.
"""

from typing import Annotated

import typer

from xray import options, script
from xray.experiment import experiment

Words = Annotated[
    list[str] | None, typer.Option("--word", help="A word to look at; can be repeated.")
]
Spellings = Annotated[
    list[str] | None,
    typer.Option("--spelling", metavar="WORD=VARIANT", help="What to compare; can be repeated."),
]
Phrase = Annotated[str, typer.Option(help="What the spellings are put into, at {}.")]


def main(
    word: Words = None,
    spelling: Spellings = None,
    phrase: Phrase = "a picture of a {}",
    model: options.Model = "mini",
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    svg: options.Svg = False,
) -> None:
    with experiment("tokenizer", out, overwrite=overwrite, svg=svg) as this:
        from xray.studies import tokenizer as study

        merged, words = (word, word) if word else (study.MERGED, study.WORDS)
        yours = {"yours": study.pairs(spelling)} if spelling else {}
        spellings = yours | study.SPELLINGS
        tokenizer = options.tokenizer_of(model)
        study.merges(tokenizer, merged)  # what is wrong is said before the model is opened
        for text in study.phrases(spellings, phrase):
            tokenizer.tokens(text)
        generator = this.load(model)
        from xray.studies import tokenizer_figures as drawn

        costs = study.spelling_costs(generator, spellings, phrase)
        measure = study.yardstick(costs)
        this.clock.lap("spellings")

        figures = {
            "merges": drawn.merges_figure(generator, merged),
            "words": drawn.words_figure(generator, words),
            "spellings": drawn.spellings_figure(costs, phrase, measure),
        }
        this.clear("figures/*", "*.csv", "summary.json")
        this.save_figures(figures)
        this.save_table("merges", *study.merges_table(generator.tokenizer, words))
        this.save_table("spellings", *study.spellings_table(costs))
        this.clock.lap("figures")

        rows = [[c.kind, c.word, c.variant, c.tokens, c.variant_tokens, c.angle, c.angle / measure]
                for c in costs]  # fmt: skip
        header = ["kind", "word", "variant", "tokens", "of variant", "degrees", "in other words"]
        print(script.table(header, rows))
        found = {"another_word": measure, "spellings": [each._asdict() for each in costs]}
        this.finish({"model": model, "digest": generator.digest, "phrase": phrase, **found})


if __name__ == "__main__":
    script.run(main)
