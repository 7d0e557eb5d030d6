"""How much memory whole runs of a full-size model take, one network in memory at a time (Linux).

    python tests/full_size_memory.py FOLDER --steps 25 --dtype float32 --encode

FOLDER is any model that `xray.load` opens: of real weights, or of random ones, which ``python -m
xray.studies.random_weights FOLDER`` writes. Each run is recorded to disk and decodes its picture;
with --encode it starts from a picture, encoded first. The second is one more in the same process.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from xray import memory
from xray.script import quiet_tensorflow, table

RECORD = ["sampler/*", "unet/**/cross/weights"]


class Peak(threading.Thread):
    """Looks every 50 ms at what this process holds, mapped files apart."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0

    def run(self) -> None:
        while True:
            self.bytes = max(self.bytes, memory.own("self"))
            time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--encode", action="store_true")
    args = parser.parse_args()
    import xray

    peak, rows = Peak(), []
    peak.start()
    model = xray.load(args.folder, dtype=args.dtype, memory="low")
    picture = np.random.default_rng(0).integers(0, 256, (args.size, args.size, 3), np.uint8)
    for run in ("the first", "the second"):
        start = {}
        if args.encode:
            latent, step = model.noised(picture, 1.0, steps=args.steps)
            start = {"latent": latent, "start_step": step}
        with tempfile.TemporaryDirectory() as folder:
            model.generate(
                "a red boat",
                steps=args.steps,
                width=args.size,
                height=args.size,
                record=RECORD,
                store=Path(folder, "trace.zarr"),
                **start,
            )
        rows.append([run, f"{peak.bytes / 1e9:.2f} GB", f"{memory.peak() / 1e9:.2f} GB"])
        peak.bytes = 0
    print(table(["run", "peak", "so far, with files"], rows))


if __name__ == "__main__":
    with quiet_tensorflow():
        main()
