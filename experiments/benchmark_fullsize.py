"""How long does a guided step take at full size, and how much memory?

Stable Diffusion 1.4's sizes: diffusion-xray, recording cross-attention to disk, recording averaged
self-attention, and recording nothing, beside KerasCV's own loop and, where they are installed (the
extra "parity"), diffusers and torch; and the miniature. Each is a process of its own; they take
turns step by step, so that what else the machine does hits all alike. Where they do not all fit
into memory, one follows the other, which it says: their ratios are then of different minutes, and
two at a time (--system ours --system recording) tell more. Times do not depend on what the weights
are: unless --model names one, random ones are written to runs/random_weights once, 2.1 GB.

How to read it: the table has medians after the first step, which traces or compiles. In
figures/steps.png every dot is a step, and a curve is the memory of a whole run: load, text, steps,
decode. Memory is a process's own, anonymous and shared, looked at every 50 ms; "with files" is what
the system calls VmHWM. --quick is for a first look: smaller pictures, fewer steps, and only
diffusion-xray, recording cross-attention and recording nothing, and the miniature.
"""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from xray import options, script
from xray.experiment import experiment
from xray.studies import benchmark_fullsize as study

ONE_BY_ONE = (
    "these systems do not fit into free memory together and run one after the other: their ratios "
    "are of different minutes. Name two with --system to have them take turns"
)
LONG = ("pooled", "keras_cv", "diffusers")  # left out by --quick


def main(
    folder: Annotated[  # not options.Model: the other systems read nothing else
        Path | None,
        typer.Option(
            "--model",
            help="A diffusers folder.",
            exists=True,
            file_okay=False,
            show_default="random, in runs/random_weights",
        ),
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(
            help="Which to run; can be repeated.",
            callback=options.one_of(*study.NAMES),
            show_default="all that are installed",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=64, help="Of the picture.", callback=options.whole_blocks, show_default="512"
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=999, help="After the first.", show_default="5")
    ] = None,
    dtype: Annotated[
        str,
        typer.Option(
            help="Of our weights in memory: float32 or float16.",
            callback=options.one_of("float32", "float16"),
        ),
    ] = "float32",
    memory: Annotated[
        str,
        typer.Option(
            help="Of our model: fast, all weights in memory, or low, one network's at a time.",
            callback=options.one_of("fast", "low"),
        ),
    ] = "fast",
    record: options.Record = ("sampler/*", "unet/**/cross/weights"),
    quick: Annotated[
        bool, typer.Option("--quick", help="--size 256 --steps 2, fewer systems.")
    ] = False,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    svg: options.Svg = False,
) -> None:
    if quick and (size or steps):
        raise ValueError("--quick is --size 256 --steps 2: leave these out")
    size, steps = (256, 2) if quick else (size or 512, steps or 5)
    system = system or [name for name in study.NAMES if not (quick and name in LONG)]
    if "diffusers" in system and not importlib.util.find_spec("diffusers"):
        print("diffusers is not installed (pip install 'diffusion-xray[parity]'), and left out")
        system = [name for name in system if name != "diffusers"]
    with experiment("benchmark_fullsize", out, overwrite=overwrite, svg=svg) as this:
        from xray.progress import counted
        from xray.studies import random_weights
        from xray.studies.benchmark_fullsize_figures import figures

        if folder is None:
            folder = Path("runs", "random_weights")
            if not folder.exists():
                print(f"writing random weights to {folder} …")
                random_weights.write_apart(folder)
                this.clock.lap("random weights")
        commands = study.commands(
            folder, size, steps + 1, record, dtype, memory, scratch=this.folder
        )
        rounds = study.rounds(system)
        if len(rounds) > 1:
            print(ONE_BY_ONE)
        with counted("turns", study.turns(system, steps + 1)) as tick:
            results = study.measure(commands, rounds, progress=tick)
        this.clock.lap("measure")

        this.clear("turns.csv", "memory.csv", "figures/*", "summary.json")
        this.save_table("turns", ["system", "phase", "seconds"], study.turn_rows(results))
        this.save_table("memory", ["system", "seconds", "bytes"], study.memory_rows(results))
        kept = dtype if memory == "fast" else f"{dtype}, one network's at a time"
        made = f"{size}×{size}, our weights in {kept}, {study.machine()}"
        this.save_figures(figures(results, made))
        this.clock.lap("figures")

        names = [study.NAMES[name] for name in results]
        print(f"\n{made}\n")
        print(script.table(["", *names], study.table(results)))
        if ratios := study.ratios(results):
            print("\n" + script.table(["ratio", ""], ratios))
        asked = {
            "model": str(folder),
            "size": size,
            "steps": steps,
            "dtype": dtype,
            "memory": memory,
            "record": list(record),
            "rounds": rounds,
        }
        this.finish({**asked, "machine": study.machine(), "systems": study.summary(results)})


if __name__ == "__main__":
    script.run(main)
