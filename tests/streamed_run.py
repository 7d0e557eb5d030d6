"""A streamed generation in a process of its own, for `test_streaming.py` to kill or measure.

Usage: streamed_run.py STORE STEPS. Prints "step K" after each step and, at the end, the largest
anonymous memory seen, in kB.
"""

import sys

import xray
from xray import memory

RECORD = ["sampler/*", "unet/**/cross/weights"]
PROMPT = "a red star above a blue moon"


def main(store: str, steps: int) -> None:
    model = xray.load("mini")
    held = []

    def progress(done: int, steps: int) -> None:
        held.append(memory.status("self")["RssAnon"] // 1024)
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
    print(max(held), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
