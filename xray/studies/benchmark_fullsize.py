"""How fast a guided step is, beside others, each system in a process of its own.

    results = measure(commands(folder, size=512, steps=6), rounds(["ours", "diffusers"]))
    results["ours"].median("step"), results["ours"].peak

All systems of a round are kept open and take turns step by step, so that what else the machine does
hits all alike. Where not all fit into memory, each is a round of its own. Who waits for its turn is
halted with all of its threads: what a step has recorded is written beside the next, as in any run,
and not while another is timed.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from xray import memory
from xray.resources import shipped
from xray.stats import format_bytes
from xray.studies import fullsize_systems

EACH = 10 * 10**9  # bytes that a system may take
EVERY = 0.05  # seconds between two looks at its memory
NAMES = {
    "recording": "diffusion-xray, recording",
    "pooled": "recording self-attention",
    "ours": "diffusion-xray",
    "miniature": "the miniature, recording",
    "keras_cv": "KerasCV with XLA",
    "diffusers": "diffusers on torch",
}


@dataclass
class Result:
    """What was measured of one system.

    Attributes:
        turns: (phase, seconds) in their order: ``"import"``, ``"load"``, then every ``"step"`` and
            every ``"decode"``. The first of each compiles, or asks for memory for the first time.
        memory: (seconds, bytes of its own), every 50 ms that it did not wait for its turn.
        highest_with_files: bytes; what the kernel calls VmHWM.
    """

    turns: list[tuple[str, float]] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    highest_with_files: int = 0

    def seconds(self, phase: str) -> list[float]:
        """Of every turn of a phase but the first; of a phase of one turn, that one's."""
        found = [seconds for name, seconds in self.turns if name == phase]
        return found[1:] or found

    def first(self, phase: str) -> float:
        return next(seconds for name, seconds in self.turns if name == phase)

    def median(self, phase: str) -> float:
        return statistics.median(self.seconds(phase))

    @property
    def until_first_step(self) -> float:
        """Seconds from loading, imports done, to the end of the first step."""
        return self.first("load") + self.first("step")

    @property
    def peak(self) -> int:
        return max((held for _, held in self.memory), default=0)


class System:
    """A process that does one thing each time it is told to go on. Made by `running`."""

    def __init__(self, name: str, process: subprocess.Popen, complaints: TextIO):
        self.name, self.result = name, Result()
        self._process, self._complaints = process, complaints
        self._worked, self._since = 0.0, time.perf_counter()  # None while it waits

    def watch(self) -> None:
        """Look at its memory every 50 ms that it does not wait, until it has ended."""
        while self._process.poll() is None:
            if (since := self._since) is not None:
                worked = self._worked + time.perf_counter() - since
                self.result.memory.append((worked, memory.own(self._process.pid)))
            time.sleep(EVERY)

    def go_on(self) -> str | None:
        """Let it do the next thing.

        Returns:
            The phase it was, or None when it has come to its end.

        Raises:
            ValueError: it ended with an error, which is told.
        """
        if self._since is None:
            # Asked for while it waits: there is nothing left of a process that has ended.
            self.result.highest_with_files = memory.status(self._process.pid).get("VmHWM", 0)
            self._since = time.perf_counter()
            self._signal("SIGCONT")
            print(file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if line:  # else it ends, and has to come to that
            self._signal("SIGSTOP")
        self._worked, self._since = self._worked + time.perf_counter() - self._since, None
        if not line:
            self._check_end()
            return None
        told = json.loads(line)
        self.result.turns.append((told["phase"], told["seconds"]))
        return told["phase"]

    def _signal(self, name: str) -> None:
        if hasattr(signal, name):  # Windows halts no process
            self._process.send_signal(getattr(signal, name))

    def _check_end(self) -> None:
        if code := self._process.wait():
            self._complaints.seek(0)
            lines = self._complaints.read().strip().splitlines() or ["it said nothing"]
            killed = ", killed, as the system does when memory runs out" if code == -9 else ""
            raise ValueError(f"{self.name} ended with status {code}{killed}: {lines[-1]}")


@contextmanager
def running(name: str, command: Sequence[str]) -> Iterator[System]:
    """A system whose process lasts no longer than the block."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(command, stderr=complaints, **pipes) as process,
    ):
        system = System(name, process, complaints)
        watch = threading.Thread(target=system.watch)
        watch.start()
        try:
            yield system
        finally:
            process.kill()
            watch.join()


def rounds(systems: Sequence[str], available: int | None = None) -> list[list[str]]:
    """Which systems take turns: all, or each runs alone where not all fit into memory.

    Args:
        systems: their names.
        available: bytes of memory that all may take together; by default, what is free.
    """
    available = memory.available() if available is None else available
    together = available is None or len(systems) * EACH <= available
    return [list(systems)] if together else [[name] for name in systems]


def measure(
    command: Callable[[str], Sequence[str]],
    rounds: Sequence[Sequence[str]],
    *,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Result]:
    """Run systems, those of a round in turns.

    Args:
        command: what starts the process of a system; see `xray.studies.fullsize_systems`.
        rounds: names of systems; see `rounds`.
        progress: called after each turn.

    Returns:
        What was measured, by name.

    Raises:
        ValueError: a system ended with an error, which is told.
    """
    results = {}
    for names in rounds:
        results |= _round(command, names, progress)
    return results


def _round(
    command: Callable[[str], Sequence[str]], names: Sequence[str], progress: Callable[[], None]
) -> dict[str, Result]:
    with ExitStack() as stack:
        systems = []
        for name in names:
            system = stack.enter_context(running(name, command(name)))
            systems.append(system)
            # While one loads and compiles the others wait.
            while system.go_on() not in ("step", None):
                progress()
            progress()
        left = systems
        while left:
            left = [system for system in left if system.go_on() is not None]
            for _ in left:
                progress()
    return {system.name: system.result for system in systems}


# ----------------------------------------------------------------------------------- what to run


def commands(
    folder: Path,
    size: int,
    steps: int,
    record: Sequence[str],
    dtype: str,
    memory: str,
    *,
    scratch: Path,
) -> Callable[[str], list[str]]:
    """What starts the process of a system.

    Args:
        folder: a diffusers folder, which all but KerasCV open.
        size: of the picture, a side.
        steps: in all.
        record: sites, for the system ``"recording"``; ``"pooled"`` records self-attention, averaged
            over heads and over 16 × 16 parts of the keys, and ``"miniature"`` is the shipped one at
            128×128.
        dtype: of our weights in memory.
        memory: ``"fast"`` or ``"low"``, as `xray.load` has it.
        scratch: a folder where the recording lies as long as it runs.
    """
    scratched = ["--scratch", str(scratch)]
    kept = ["--dtype", dtype, "--memory", memory]
    recorded = ["--record", *record]
    own = {
        "recording": recorded,
        "pooled": ["--pooled"],
        "miniature": [*recorded, "--size", "128"],
    }

    def command(name: str) -> list[str]:
        system = "ours" if name in own else name
        model = shipped("weights") / "mini" if name == "miniature" else folder
        asked = [str(model), "--size", str(size), "--steps", str(steps), *scratched, *kept]
        module = fullsize_systems.__name__
        return [sys.executable, "-m", module, system, *asked, *own.get(name, [])]

    return command


def turns(systems: Sequence[str], steps: int) -> int:
    """How many turns all systems take together."""
    decodes = 1 + fullsize_systems.DECODES  # the first ends the run
    return len(systems) * (2 + steps + decodes)  # import and load


# ---------------------------------------------------------------------------------- what was found

ROWS: dict[str, Callable[[Result], str]] = {
    "import": lambda r: f"{r.first('import'):.1f} s",
    "load": lambda r: f"{r.first('load'):.1f} s",
    "first step": lambda r: f"{r.first('step'):.1f} s",
    "load to first step": lambda r: f"{r.until_first_step:.1f} s",
    "step, median": lambda r: f"{r.median('step'):.2f} s",
    "step, from … to": lambda r: "{:.2f} … {:.2f} s".format(
        min(r.seconds("step")), max(r.seconds("step"))
    ),
    "decode, median": lambda r: f"{r.median('decode'):.2f} s",
    "memory, peak": lambda r: format_bytes(r.peak),
    "memory, peak, with files": lambda r: format_bytes(r.highest_with_files),
}
RATIOS = (
    ("step: recording / not", "step", "recording", "ours"),
    ("step: recording self-attention / not", "step", "pooled", "ours"),
    ("step: recording / KerasCV", "step", "recording", "keras_cv"),
    ("step: recording / diffusers", "step", "recording", "diffusers"),
    ("decode: ours / KerasCV", "decode", "ours", "keras_cv"),
    ("decode: ours / diffusers", "decode", "ours", "diffusers"),
)


def table(results: Mapping[str, Result]) -> list[list[str]]:
    """A row for each figure, a column for each system."""
    return [[name, *(tell(r) for r in results.values())] for name, tell in ROWS.items()]


def ratios(results: Mapping[str, Result]) -> list[list[str | float]]:
    """Of medians, where both systems were measured."""
    return [
        [name, results[a].median(phase) / results[b].median(phase)]
        for name, phase, a, b in RATIOS
        if a in results and b in results
    ]


def summary(results: Mapping[str, Result]) -> dict[str, dict[str, Any]]:
    """What `table` shows, as numbers."""
    return {
        name: {
            "import_seconds": r.first("import"),
            "load_seconds": r.first("load"),
            "first_step_seconds": r.first("step"),
            "step_seconds": r.median("step"),
            "step_seconds_each": r.seconds("step"),
            "decode_seconds": r.median("decode"),
            "peak_memory": r.peak,
            "peak_memory_with_files": r.highest_with_files,
        }
        for name, r in results.items()
    }


def turn_rows(results: Mapping[str, Result]) -> list[tuple[str, str, float]]:
    return [(name, *turn) for name, r in results.items() for turn in r.turns]


def memory_rows(results: Mapping[str, Result]) -> list[tuple[str, float, int]]:
    return [(name, *look) for name, r in results.items() for look in r.memory]


def machine() -> str:
    """The processor, and how many of its cores this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        cores = len(os.sched_getaffinity(0))
    except (OSError, StopIteration):
        model, cores = platform.processor() or platform.machine(), os.cpu_count()
    return f"{cores} cores of {model}"
