"""How long full-size weights take to load, and how much memory they take meanwhile.

    python tests/full_size_loading.py FOLDER --dtype float32

Unless a model is there, a diffusers folder of Stable Diffusion 1.4's sizes is written first, 2.1 GB
of random weights in float16, and left there. A process of its own loads it, and is looked at from
outside every 50 ms: what counts is memory of its own (anonymous and shared), without mapped files,
which the system can take back. For Linux.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from xray import memory
from xray.script import quiet_tensorflow, table
from xray.stats import format_bytes
from xray.studies import random_weights


def load(folder: Path, dtype: str) -> None:
    """Load it, and print what only this process can know."""
    import xray.generator  # noqa: F401  so that imports are not counted as loading
    from xray.architecture import Architecture, build_text_encoder

    build_text_encoder(Architecture(text_layers=1, vocab_size=2, text_width=12))
    before, started, worked = memory.own("self"), time.perf_counter(), time.process_time()
    model = xray.load(folder, dtype=dtype)
    seconds, processor = time.perf_counter() - started, time.process_time() - worked
    print(
        json.dumps(
            {
                "seconds": seconds,
                "processor_seconds": processor,
                "weights": np.dtype(dtype).itemsize * model.parameters,
                "before": before,
                "after": memory.own("self"),
                "highest_with_files": memory.peak(),
            }
        )
    )


def measure(folder: Path, dtype: str) -> dict[str, float]:
    """Load a folder's model in a process of its own.

    Returns:
        ``seconds`` of loading, imports apart, and ``processor_seconds``; in bytes, ``weights`` as
        they are kept, and the process's memory ``before`` loading, ``after`` it, and the ``peak``.
    """
    command = [sys.executable, __file__, folder, "--dtype", dtype, "--here"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, memory.own(process.pid))
            time.sleep(0.05)
        told = process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"the process that was to load {folder} ended with {process.returncode}")
    return {**json.loads(told), "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="float32", help="float32 or float16")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        with quiet_tensorflow():
            load(args.folder, args.dtype)
        return
    if not args.folder.exists():
        random_weights.write_apart(args.folder)
    found = measure(args.folder, args.dtype)
    rows = [[k, f"{v:.1f} s" if "seconds" in k else format_bytes(v)] for k, v in found.items()]
    share = (found["peak"] - found["before"]) / found["weights"]
    print(table(["", ""], [*rows, ["peak above before, of the weights", f"{share:.0%}"]]))


if __name__ == "__main__":
    main()
