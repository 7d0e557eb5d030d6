"""A streamed generation in a process of its own, for `test_streaming.py` to kill or measure.

Usage: streamed_run.py STORE STEPS. Prints "step K" after each step and, at the end, the largest
anonymous memory seen, in kB.
"""

import re
import sys
from pathlib import Path

import xray

RECORD = ["sampler/*", "unet/**/cross/weights"]
PROMPT = "a red star above a blue moon"


def anonymous_memory() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1])


def main(store: str, steps: int) -> None:
    model = xray.load("mini")
    memory = []

    def progress(done: int, steps: int) -> None:
        memory.append(anonymous_memory())
        print(f"step {done}", flush=True)

    model.generate(
        PROMPT,
        steps=steps,
        seed=7,
        record=RECORD,
        store=store,
        progress=progress,
        width=64,
        height=64,
    )
    print(max(memory), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
