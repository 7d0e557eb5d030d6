"""A recorded run of a full-size model in a process of its own: used by test_full_size_memory.py.

Usage: full_size_run.py FOLDER STORE DTYPE SIDE. One network in memory at a time; two steps.
"""

import sys

import xray


def main(folder: str, store: str, dtype: str, side: str) -> None:
    model = xray.load(folder, dtype=dtype, memory="low")
    model.generate(
        "a red boat",
        steps=2,
        width=int(side),
        height=int(side),
        record=["sampler/*", "unet/**/cross/weights"],
        store=store,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
