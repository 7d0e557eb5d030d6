"""How long full-size weights take to load, and how much memory they take meanwhile.

    python tests/full_size_loading.py FOLDER

Unless a model is there, a diffusers folder of Stable Diffusion 1.4's sizes is written first, 2.1 GB
of random weights in float16, and left there. A process of its own loads it, and is looked at from
outside every 50 ms: what counts is memory of its own (anonymous and shared), without mapped files,
which the system can take back. For Linux.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

from xray.script import quiet_tensorflow, table
from xray.stats import format_bytes


def write(folder: Path) -> None:
    """A model with random weights, and a vocabulary of as many words."""
    import xray
    from xray.architecture import SD1
    from xray.checkpoints import export_diffusers
    from xray.tokenizer import Tokenizer

    letters = Tokenizer([]).vocabulary[:256]
    pairs = itertools.product(letters, letters)
    merges = list(itertools.islice(pairs, SD1.vocab_size - len(Tokenizer([]).vocabulary)))
    model = xray.load("sd-v1-4", weights=None, tokenizer=Tokenizer(merges))
    export_diffusers(model, folder, dtype="float16")


def load(folder: Path) -> None:
    """Load it, and print what only this process can know."""
    import xray.generator  # noqa: F401  so that imports are not counted as loading
    from xray.architecture import Architecture, build_text_encoder

    build_text_encoder(Architecture(text_layers=1, vocab_size=2, text_width=12))
    before, started, worked = own_memory("self"), time.perf_counter(), time.process_time()
    model = xray.load(folder)
    seconds, processor = time.perf_counter() - started, time.process_time() - worked
    print(
        json.dumps(
            {
                "seconds": seconds,
                "processor_seconds": processor,
                "weights": 4 * model.parameters,
                "before": before,
                "after": own_memory("self"),
                "highest_with_files": status("self")["VmHWM"],
            }
        )
    )


def status(pid: int | str) -> dict[str, int]:
    """The memory of a process in bytes, by the kernel's names."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {
        name: int(value.split()[0]) * 1024
        for name, value in (line.split(":", 1) for line in lines)
        if value.endswith("kB")
    }


def own_memory(pid: int | str) -> int:
    found = status(pid)
    return found.get("RssAnon", 0) + found.get("RssShmem", 0)  # none any more once it has ended


def measure(folder: Path) -> dict[str, float]:
    """Load a folder's model in a process of its own.

    Returns:
        ``seconds`` of loading, imports apart, and ``processor_seconds``; in bytes, ``weights``, all
        in float32, and the process's memory ``before`` loading, ``after`` it, and the ``peak``.
    """
    command = [sys.executable, __file__, "--load", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, own_memory(process.pid))
            time.sleep(0.05)
        told = process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"the process that was to load {folder} ended with {process.returncode}")
    return {**json.loads(told), "peak": peak}


if __name__ == "__main__":
    *option, place = sys.argv[1:]
    with quiet_tensorflow():
        if option == ["--load"]:
            load(Path(place))
        elif option == ["--write"] or not Path(place).exists():
            write(Path(place))
    if not option:
        found = measure(Path(place))
        rows = [[k, f"{v:.1f} s" if "seconds" in k else format_bytes(v)] for k, v in found.items()]
        share = (found["peak"] - found["before"]) / found["weights"]
        print(table(["", ""], [*rows, ["peak above before, of the weights", f"{share:.0%}"]]))
