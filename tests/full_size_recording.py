"""What recording costs a guided step, with and without in turns in one process.

    python tests/full_size_recording.py FOLDER --size 512 --steps 7 --rounds 3

`experiments/benchmark_fullsize.py` has each in a process of its own, which writes what a step left
while another has its turn: its figures are without the writing. FOLDER is any model that
`xray.load` opens; random weights are written by ``python -m xray.studies.random_weights FOLDER``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from xray.script import quiet_tensorflow, table

RECORD = ["unet/**/cross/weights", "sampler/*"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    import xray

    model = xray.load(args.folder, memory="fast")

    def seconds(record: list[str]) -> list[float]:
        """Of every step of a run but the first."""
        ends: list[float] = []
        with tempfile.TemporaryDirectory(dir=".") as folder:
            model.generate(
                "a red boat",
                steps=args.steps,
                guidance=7.5,
                width=args.size,
                height=args.size,
                record=record,
                store=Path(folder) / "trace.zarr" if record else None,
                progress=lambda done, steps: ends.append(time.perf_counter()),
            )
        return [b - a for a, b in zip(ends, ends[1:], strict=False)]

    found: dict[str, list[float]] = {"recording": [], "not": []}
    for _ in range(args.rounds):
        found["not"] += seconds([])
        found["recording"] += seconds(RECORD)
    medians = {name: statistics.median(each) for name, each in found.items()}
    rows = [[name, f"{medians[name]:.3f} s", f"{min(each):.3f} s"] for name, each in found.items()]
    print(table(["", "step, median", "shortest"], rows))
    print(f"recording / not: {medians['recording'] / medians['not']:.3f} (to reach: 1.02)")


if __name__ == "__main__":
    with quiet_tensorflow():
        main()
