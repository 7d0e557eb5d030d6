"""What a model is made of: the numbers of `experiments/pipeline_map.py`.

parts = timed(measure(model, width=512, height=512), repeats=3)
table(parts)                                # every block: parameters, multiply-adds, memory, time
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xray.anatomy import Network, dissect, time_blocks, time_whole
from xray.progress import Report, each

if TYPE_CHECKING:
    from xray.generator import Generator

NAMES = {"text": "text encoder", "unet": "U-Net", "decoder": "decoder", "encoder": "encoder"}
HEADER = (
    "part",
    "block",
    "kind",
    "output",
    "parameters",
    "multiply_adds",
    "peak_bytes",
    "seconds",
)
TEXT = "a red star above a blue moon"  # that the tokenizer is timed with


@dataclass(frozen=True)
class Measured:
    """One network of a model.

    Attributes:
        net: its blocks.
        shapes: of what goes in, without the image axis.
        seconds: of the whole and of each block, or None where time was not measured.
    """

    net: Network
    shapes: list[tuple[int, ...]]
    seconds: float | None = None
    block_seconds: list[float] | None = None


def measure(
    model: Generator,
    *,
    width: int | None = None,
    height: int | None = None,
    progress: Report | None = None,
) -> dict[str, Measured]:
    """Dissect the networks of a model, for one picture and one guidance branch; nothing is run.

    Args:
        model: any; random weights will do.
        width, height: of the picture, multiples of 64; by default the model's size.
        progress: told ``(done, total)`` in networks.

    Returns:
        ``"text"``, ``"unet"``, ``"decoder"`` and ``"encoder"``.
    """
    arch = model.architecture
    width, height = arch.sides(width, height)
    latent, context = (height // 8, width // 8, 4), (arch.text_length, arch.text_width)
    shapes = {
        "text": [(arch.text_length,)],
        "unet": [latent, (arch.widths[0],), context],
        "decoder": [latent],
        "encoder": [(height, width, 3)],
    }
    found = {}
    for name, own in each(list(shapes.items()), progress):
        found[name] = Measured(dissect(model.parts[name], [(1, *shape) for shape in own]), own)
    return found


def timed(
    parts: dict[str, Measured], repeats: int, progress: Report | None = None
) -> dict[str, Measured]:
    """The same with the time of each network and of each block alone, without XLA.

    Args:
        parts: from `measure`.
        repeats: runs of which the shortest is taken.
        progress: told ``(done, total)`` in blocks and networks.
    """
    jobs = [(name, block) for name, part in parts.items() for block in (*part.net.blocks, None)]
    clocks = {name: time_blocks(part.net, repeats) for name, part in parts.items()}
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    whole = {}
    for name, block in each(jobs, progress):
        if block is None:
            whole[name] = time_whole(parts[name].net, repeats)
        else:
            seconds[name].append(next(clocks[name]))
    return {
        name: replace(part, seconds=whole[name], block_seconds=seconds[name])
        for name, part in parts.items()
    }


def tokenizer_row(model: Generator, repeats: int) -> list[Any]:
    """The tokenizer's row of `table`: it has a vocabulary and learns no numbers."""
    seconds = None
    if repeats and model.tokenizer is not None:
        begin = time.perf_counter()
        for _ in range(repeats):
            model.tokenizer.tokens(TEXT)
        seconds = (time.perf_counter() - begin) / repeats
    length = (model.architecture.text_length,)
    return ["tokenizer", "", "", written(length), 0, 0, None, seconds]


def table(parts: dict[str, Measured], *, blocks: bool = True) -> list[list[Any]]:
    """Rows of `HEADER`: each network and, after it, its blocks.

    ``output`` is of one image. ``peak_bytes`` is of the tensors alive at once, see
    `xray.anatomy.alive`; of a network the largest of its blocks'. ``seconds`` of a network are
    those of one run of the whole, not the sum.
    """
    rows = []
    for name, part in parts.items():
        net, seconds = part.net, part.block_seconds or [None] * len(part.net.blocks)
        numbers = [net.parameters, net.multiply_adds, net.peak_bytes, part.seconds]
        rows.append([NAMES[name], "", "", written(net.output_shape[1:]), *numbers])
        if blocks:
            rows += [
                [
                    NAMES[name],
                    block.name,
                    block.kind,
                    written(block.shape),
                    block.parameters,
                    block.multiply_adds,
                    block.peak_bytes,
                    own,
                ]
                for block, own in zip(net.blocks, seconds, strict=True)
            ]
    return rows


def written(shape: tuple[int, ...]) -> str:
    """``64×64×320``."""
    return "×".join(map(str, shape))


def for_reading(row: list[Any]) -> list[Any]:
    """A row of `table` in the units of `READING`."""
    part, block, kind, output, *numbers = row
    units = (1e-6, 1e-9, 1e-6, 1e3)
    scaled = [None if n is None else float(n * u) for n, u in zip(numbers, units, strict=True)]
    return [block or part, kind, output, *scaled]


READING = ("", "kind", "output", "parameters, M", "multiply-adds, G", "peak, MB", "time, ms")
