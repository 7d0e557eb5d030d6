"""Whether a model fits into memory, whole or one network at a time.

mode = choose("auto", open_checkpoint("sd-v1-4"), "float32")
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from xray import memory
from xray.stats import format_bytes

if TYPE_CHECKING:
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
    total, free = memory.total(), memory.available()
    mode = asked
    if asked == "auto":
        mode = "low" if total is not None and fast > SHARE * total else "fast"
        if mode == "low":
            print(
                f"one network in memory at a time: {checkpoint.name} takes {format_bytes(fast)} "
                f"and this machine has {format_bytes(total)} (memory='fast' keeps all)",
                file=sys.stderr,
            )
    takes = {"fast": fast, "low": low}[mode]
    if free is not None and takes > free:
        half = needed(checkpoint, "float16")
        ways = [
            f"{how} takes {format_bytes(size)}"
            for how, size in (
                ('memory="low"', low),
                ('dtype="float16"', half[0]),
                ('dtype="float16" with memory="low"', half[1]),
            )
            if size < min(takes, free)
        ]
        raise ValueError(
            f"{checkpoint.name} takes about {format_bytes(takes)} of memory and "
            f"{format_bytes(free)} is free: "
            + (" or ".join(ways) if ways else "end other programs first")
        )
    return mode


def needed(checkpoint: Checkpoint, dtype: str) -> tuple[int, int]:
    """About how many bytes a run takes: with all weights in memory, with one component's."""
    arch = checkpoint.architecture
    sizes = [
        sum(int(np.prod(tensor.shape)) for tensor in part.tensors.values())
        for part in checkpoint.components.values()
    ]
    work = WORK * (arch.size / 512) ** 2 * arch.widths[0] / 320
    beside, each = int(LIBRARIES + work), np.dtype(dtype).itemsize
    return beside + each * sum(sizes), beside + each * max(sizes)
