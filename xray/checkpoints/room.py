"""Whether a model fits into memory, whole or one network at a time.

mode = choose("auto", open_checkpoint("sd-v1-4"), "float32")
check_random("sd-v1-4", SD1, 1066235307, "float32")
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from xray import memory
from xray.stats import format_bytes

if TYPE_CHECKING:
    from xray.architecture import Architecture
    from xray.checkpoints.checkpoint import Checkpoint

MODES = ("auto", "low", "fast")
LIBRARIES = 600 * 10**6  # bytes that TensorFlow and Keras take once imported
WORK = 1100 * 10**6  # what a step of Stable Diffusion 1.x takes at 512×512 beside its weights
SHARE = 0.7  # of the machine's memory that one program may take without others being pushed out


def choose(asked: str, checkpoint: Checkpoint, dtype: str) -> str:
    """``"fast"``, all weights in memory, or ``"low"``, one network's at a time.

    By the memory of the whole machine and not by what is free, so that the same machine does the
    same every time; what is free only decides whether it is refused.

    Args:
        asked: one of `MODES`.
        checkpoint: the weights.
        dtype: in which they are to be kept.

    Raises:
        ValueError: too little memory is free, with what would fit.
    """
    fast, low = needed(checkpoint, dtype)
    total = memory.total()
    mode = asked
    if asked == "auto":
        mode = "low" if total is not None and fast > SHARE * total else "fast"
        if mode == "low":
            print(
                f"one network in memory at a time: {checkpoint.name} takes {format_bytes(fast)} "
                f"and this machine has {format_bytes(total)} (memory='fast' keeps all)",
                file=sys.stderr,
            )
    half = needed(checkpoint, "float16")
    ways = {
        'memory="low"': low,
        'dtype="float16"': half[0],
        'dtype="float16" with memory="low"': half[1],
    }
    _refuse_too_large(checkpoint.name, {"fast": fast, "low": low}[mode], ways)
    return mode


def check_random(name: str, arch: Architecture, count: int, dtype: str) -> None:
    """Refuse `count` random weights, which all have to be in memory, where they have no room.

    Raises:
        ValueError: too little memory is free, with what would fit.
    """
    sizes = {kept: _beside(arch) + np.dtype(kept).itemsize * count for kept in (dtype, "float16")}
    _refuse_too_large(name, sizes[dtype], {'dtype="float16"': sizes["float16"]})


def _refuse_too_large(name: str, takes: int, others: dict[str, int]) -> None:
    """An error where less than `takes` is free; `others` are other ways to load, and their size."""
    free = memory.available()
    if free is None or takes <= free:
        return
    ways = [
        f"{how} takes {format_bytes(size)}"
        for how, size in others.items()
        if size < min(takes, free)
    ]
    raise ValueError(
        f"{name} takes about {format_bytes(takes)} of memory and {format_bytes(free)} is free: "
        + (" or ".join(ways) if ways else "end other programs first")
    )


def needed(checkpoint: Checkpoint, dtype: str) -> tuple[int, int]:
    """About how many bytes a run takes: with all weights in memory, with one component's."""
    sizes = [
        sum(int(np.prod(tensor.shape)) for tensor in part.tensors.values())
        for part in checkpoint.components.values()
    ]
    beside, each = _beside(checkpoint.architecture), np.dtype(dtype).itemsize
    return beside + each * sum(sizes), beside + each * max(sizes)


def _beside(arch: Architecture) -> int:
    """About how many bytes a run takes beside the weights."""
    return int(LIBRARIES + WORK * (arch.size / 512) ** 2 * arch.widths[0] / 320)
