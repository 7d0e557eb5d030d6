"""The figures of `xray.studies.tokenizer`."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from xray import page
from xray.page import BLUE, CYCLE, FAINT, INK, MARGIN, QUIET, SIGNED, WIDTH
from xray.studies.tokenizer import (
    MERGED,
    PHRASE,
    WORDS,
    YARDSTICK,
    Spelling,
    merges,
    shown,
    token_rows,
)
from xray.tokenizer import MergeStep, symbol_bytes

if TYPE_CHECKING:
    from xray.generator import Generator


def merges_figure(model: Generator, words: Sequence[str] = MERGED) -> Figure:
    """From the bytes of each word to its tokens, one merge at a time, and on to ids and vectors.

    Raises:
        ValueError: a word is empty or too long to draw.
    """
    steps = merges(model.tokenizer, words)
    wide, line, foot = (WIDTH - 3 * MARGIN) / 2, 0.3, 1.3
    pairs = [list(words)[k : k + 2] for k in range(0, len(words), 2)]
    heights = [max(len(steps[word]) for word in pair) * line + foot for pair in pairs]
    figure = page.new(
        "From bytes to tokens to vectors",
        [
            "Each line joins the pair of neighbours (blue) that comes first in the list of merges, "
            "counted to the right. A bar at its right edge marks a symbol that ends a word. "
            f"What is left are the tokens: ids, and rows of the token embedding of {model.name}."
        ],
        below=sum(heights),
    )
    y = sum(heights)
    for pair, height in zip(pairs, heights, strict=True):
        y -= height
        for column, word in enumerate(pair):
            x = MARGIN + column * (wide + MARGIN)
            axes = page.axes(figure, x, y, wide, height)
            axes.set(xlim=(0, wide), ylim=(0, height))
            axes.set_axis_off()
            _merging(axes, model, word, steps[word], line)
    return figure


def _merging(axes: Axes, model: Generator, word: str, steps: list[MergeStep], line: float) -> None:
    wide, top = axes.get_xlim()[1], axes.get_ylim()[1]
    _write(axes, 0, top - 0.25, word, size=13, weight="bold")
    cell = min(0.36, (wide - 1.0) / max(len(steps[0].symbols), 1))
    y = top - 0.4
    for step in steps:
        y -= line
        made = None if step.rank is None else "".join(model.tokenizer.merges[step.rank])
        spans = _boxes(axes, step.symbols, cell, y, line - 0.05, made)
        told = f"{len(step.symbols)} bytes" if made is None else f"merge {step.rank:,}"
        _write(axes, spans[-1][1] + 0.15, y + 0.09, told, size=9, color=QUIET)
    tokens = model.tokenizer.encode(word)
    rows = token_rows(model, [token.id for token in tokens])
    # Some of CLIP's rows have single numbers far beyond all others.
    limit = 3 * float(rows.std())
    for token, row, (left, right) in zip(tokens, rows, spans, strict=True):
        _write(axes, (left + right) / 2, y - 0.2, str(token.id), size=9, ha="center")
        axes.imshow(
            row[None],
            cmap=SIGNED,
            vmin=-limit,
            vmax=limit,
            extent=(left + 0.02, right - 0.02, y - 0.52, y - 0.27),
            aspect="auto",
        )
    axes.set(xlim=(0, wide), ylim=(0, top))
    _write(axes, right + 0.15, y - 0.2, "id" if len(tokens) == 1 else "ids", size=9, color=QUIET)
    told = f"{rows.shape[1]} numbers" + (" each" if len(tokens) > 1 else "")
    _write(axes, right + 0.15, y - 0.44, told, size=9, color=QUIET)


def _boxes(
    axes: Axes, symbols: list[str], cell: float, y: float, height: float, made: str | None
) -> list[tuple[float, float]]:
    """Symbols side by side, as wide as they have bytes; what was just `made` in blue."""
    x, spans = 0.0, []
    for symbol in symbols:
        new, right = symbol == made, x + cell * len(symbol_bytes(symbol))
        left, width = x + 0.015, right - x - 0.03
        axes.add_patch(Rectangle((left, y), width, height, color=BLUE if new else "#ececec"))
        if symbol.endswith("</w>"):
            axes.add_patch(Rectangle((right - 0.05, y), 0.035, height, color=INK))
        _write(
            axes, (x + right) / 2, y + height / 2, shown(symbol),
            size=10, ha="center", va="center_baseline", color="white" if new else INK,
        )  # fmt: skip
        spans.append((x, right))
        x = right
    return spans


def words_figure(model: Generator, words: Sequence[str] = WORDS) -> Figure:
    """Words cut into their tokens, those of few tokens first."""
    cut = [(word, [shown(t.text) for t in model.tokenizer.encode(word)]) for word in words]
    cut.sort(key=lambda each: len(each[1]))
    line, left = 0.34, 2.0
    below = line * len(cut) + 0.35 + MARGIN
    figure = page.new(
        "Words and the tokens they are read as",
        [f"What is common in the captions that the vocabulary of {model.name} was made from is one "
         "token; what is rare falls into pieces, at worst into the bytes of each character."],
        below=below,
    )  # fmt: skip
    axes = page.axes(figure, 0, 0, WIDTH, below)
    axes.set(xlim=(0, WIDTH), ylim=(0, below))
    axes.set_axis_off()
    _write(axes, WIDTH - MARGIN, below - 0.2, "tokens", size=10, color=QUIET, ha="right")
    for k, (word, tokens) in enumerate(cut):
        y = below - 0.3 - line * (k + 1)
        _write(axes, left - 0.12, y + 0.1, word, size=12, ha="right")
        room = WIDTH - MARGIN - 0.5 - left
        unit = min(0.115, room / sum(len(t) + 1.2 for t in tokens))
        x = left
        for i, token in enumerate(tokens):
            width = unit * (len(token) + 1.2)
            colour = CYCLE[i % 6]
            axes.add_patch(
                Rectangle((x + 0.015, y), width - 0.03, line - 0.06, color=colour, alpha=0.25)
            )
            _write(axes, x + width / 2, y + 0.1, token, size=11, ha="center", family="monospace")
            x += width
        _write(axes, WIDTH - MARGIN, y + 0.1, str(len(tokens)), size=12, ha="right")
    return figure


def spellings_figure(
    costs: Sequence[Spelling], phrase: str = PHRASE, measure: float | None = None
) -> Figure:
    """Each spelling's distance from the word as it is usually written, kind by kind.

    Args:
        costs: of `spelling_costs`.
        phrase: the words were put into.
        measure: of `yardstick`, drawn as a line.
    """
    line, gap, kinds = 0.27, 0.14, list(dict.fromkeys(each.kind for each in costs))
    below = line * len(costs) + gap * len(kinds) + 0.95
    figure = page.new(
        "What another spelling costs",
        [
            f"How far the pooled vector of “{phrase.replace('{}', '…')}” moves when the word is "
            "written in another way, and what the other way is read as. 0: no difference at all."
        ],
        below=below,
    )
    bars = page.axes(figure, 4.35, 0.55, 2.9, below - 0.95)
    page.style(bars, x="angle between the pooled vectors, degrees")
    y = below - 0.4
    page.text(figure, 7.5, y + 0.1, "the variant as it is read", size=10, color=QUIET)
    largest = max(each.angle for each in costs) or 1.0
    for kind in kinds:
        page.text(figure, MARGIN, y - line + 0.07, kind, size=10, color=QUIET)
        for each in (each for each in costs if each.kind == kind):
            y -= line
            name = f"{each.word} → {_marked(each.variant)}"
            page.text(figure, 4.25, y + 0.07, name, size=11, ha="right")
            colour = FAINT if kind == YARDSTICK else BLUE
            bars.barh(y + line / 2, each.angle, 0.19, color=colour)
            told = f"{each.angle:.1f}" if each.angle else "0"
            bars.annotate(
                told, (each.angle, y + line / 2), (3, 0), textcoords="offset points",
                va="center_baseline", size=9, color=QUIET,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
            page.text(figure, 7.5, y + 0.07, _clipped(each.variant_reading), size=10)
        y -= gap
    bars.set(ylim=(0.55, below - 0.4), xlim=(0, 1.15 * largest), yticks=[])
    bars.grid(False)
    bars.spines["left"].set_color(INK)
    if measure:
        bars.axvline(measure, color=QUIET, linestyle=":", zorder=0)
        told = f"another word: {measure:.1f}"
        bars.text(measure, below - 0.3, told, ha="center", fontsize=10, color=QUIET)
    return figure


def _marked(word: str) -> str:
    """A combining mark, which nobody can tell from a letter that has it, by its number."""
    return "".join(f"[U+{ord(c):04X}]" if unicodedata.combining(c) else c for c in word)


def _clipped(words: str, most: int = 30) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"


def _write(axes: Axes, x: float, y: float, words: str, *, size: float, **style: object) -> None:
    style = {"color": INK, "parse_math": False, **style}
    axes.text(x, y, page.printable(words), fontsize=size, **style)
