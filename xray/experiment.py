"""One run of an experiment: the folder for its results, its clock, and how it ends.

with experiment("record_generation", out) as this:
    model = this.load("mini")
    ...
    this.save_figures({"timeline": figure})
    this.save_data(dataset)                      # data.zarr, for xarray
    this.save_table("prompts", ["prompt", "norm"], rows)
    this.finish({"prompt": prompt})              # summary.json, and a word on where things are
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xray import script
from xray.clock import Clock
from xray.script import start_tensorflow

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from xray.generator import Generator


ELSEWHERE = {"out", "overwrite", "resume", "svg", "download"}  # options that change no number


@dataclass
class Experiment:
    """What `experiment` gives.

    Attributes:
        name: of the script.
        folder: for its results.
        svg: write figures as SVG too.
        clock: running since its beginning.
    """

    name: str
    folder: Path
    svg: bool = False
    clock: Clock = field(default_factory=Clock)

    def load(self, model: str, **asked: Any) -> Generator:
        """Open a model, as `xray.load`, without TensorFlow's start-up lines."""
        # `load` would import it too; here the clock can tell it from the weights.
        start_tensorflow()
        importlib.import_module("xray.generator")
        self.clock.lap("import")
        from xray.checkpoints import load

        generator = load(model, **asked)
        self.clock.lap("load")
        return generator

    def clear(self, *patterns: str) -> None:
        """Remove what an earlier run left in the folder, by globs such as ``figures/*.png``.

        To be called when nothing can refuse the run any more.
        """
        for pattern in patterns:
            for path in self.folder.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def save_figures(self, figures: Mapping[str, Figure]) -> None:
        """Write each figure to ``figures/STEM.png``, and ``STEM.svg`` where that was asked for."""
        save_figures(figures, self.folder / "figures", svg=self.svg)

    def save_data(self, data: xarray.Dataset) -> None:
        """Write what the figures show to ``data.zarr``: ``xarray.open_zarr`` reads it."""
        # Zarr v3 has no fixed-length text; as objects the labels become its variable-length text.
        text = {n: v.astype(object) for n, v in data.variables.items() if v.dtype.kind == "U"}
        with warnings.catch_warnings():
            # Consolidated metadata is an extension of Zarr v3, and zarr says so on every write.
            warnings.filterwarnings("ignore", "Consolidated metadata")
            data.assign(text).to_zarr(
                self.folder / "data.zarr", mode="w", consolidated=True, zarr_format=3
            )

    def save_table(self, stem: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Write a table to ``STEM.csv``."""
        with (self.folder / f"{stem}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])

    def finish(self, values: dict[str, Any]) -> None:
        """Write ``summary.json`` and say where things are.

        It holds the command's options, `values`, seconds by phase and the peak of memory.
        """
        from xray import memory, summary
        from xray.stats import format_bytes

        seconds, peak = self.clock.seconds, memory.peak()
        total = round(sum(seconds.values()), 3)
        summary.write(
            self.folder / "summary.json",
            {
                "experiment": self.name,
                "options": {k: v for k, v in script.asked.get().items() if k not in ELSEWHERE},
                **values,
                "seconds": {**seconds, "total": total},
                "peak_memory": peak,
            },
        )
        phases = ", ".join(f"{phase} {each:.1f}" for phase, each in seconds.items())
        most = "" if peak is None else f", {format_bytes(peak)} of memory at most"
        print(f"\n{total:.1f} s ({phases}){most}")
        for path in sorted(self.folder.iterdir()):
            print(path)


@contextlib.contextmanager
def experiment(
    name: str,
    out: Path | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    svg: bool = False,
) -> Iterator[Experiment]:
    """An experiment that begins now. Arguments and errors as for `output_folder`."""
    with output_folder(name, out, overwrite=overwrite, resume=resume) as folder:
        yield Experiment(name, folder, svg)


@contextlib.contextmanager
def output_folder(
    name: str, out: Path | None = None, *, overwrite: bool = False, resume: bool = False
) -> Iterator[Path]:
    """The folder for a script's results: made at once, gone again if nothing came into it.

    Args:
        name: of the script.
        out: the folder; by default ``runs/NAME`` under the current folder, or the first of
            ``runs/NAME-2``, ``runs/NAME-3``, … that is free.
        overwrite: accept that there is something in it, also in ``runs/NAME``.
        resume: likewise, and by default take the highest-numbered of them that is there.

    Yields:
        The folder. An interrupted run's exception leaves with a note of what is kept in it.

    Raises:
        ValueError: there is something at `out` already.
        OSError: it cannot be made or written to.
    """
    if out is None and resume:
        out = _last_folder(name)
    folder, made = _make_folder(name, out, overwrite or resume)
    try:
        tempfile.TemporaryFile(dir=folder).close()
        yield folder
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or hasattr(error, "trace"):
            error.add_note(_kept(folder, error))
        raise
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()


def _make_folder(name: str, out: Path | None, overwrite: bool) -> tuple[Path, list[Path]]:
    """The folder, and those that had to be made for it, innermost first."""
    if out is None and overwrite:
        out = Path("runs", name)
    if out is None:
        numbered = (Path("runs", f"{name}-{n}" if n > 1 else name) for n in itertools.count(1))
        folder = next(path for path in numbered if not os.path.lexists(path))
    else:
        folder = out
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=out is not None)
    if not overwrite and any(folder.iterdir()):
        raise ValueError(
            f"{folder} exists and is not empty; choose another --out, or replace what is there "
            "with --overwrite"
        )
    return folder, made


def _last_folder(name: str) -> Path:
    """Where the last run without ``--out`` put its results, or the first is to put them."""
    numbers = [path.name.removeprefix(f"{name}-") for path in Path("runs").glob(f"{name}-*")]
    last = max((int(n) for n in numbers if n.isascii() and n.isdecimal()), default=1)
    return Path("runs", f"{name}-{last}" if last > 1 else name)


def _kept(folder: Path, error: BaseException) -> str:
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return "nothing was written"
    trace = getattr(error, "trace", None)
    if trace is not None and trace.path is not None:
        steps = trace.attrs["steps"] - trace.attrs["start_step"]
        complete = f"{trace.path.name} ({len(trace.steps)} of {steps} steps)"
        names = [complete if name == trace.path.name else name for name in names]
    return f"kept in {folder}: {', '.join(names)}"


def save_figures(figures: Mapping[str, Figure], folder: Path, *, svg: bool = False) -> list[Path]:
    """Write each figure to ``folder/STEM.png`` (and ``.svg``); the folder is made if absent."""
    folder.mkdir(parents=True, exist_ok=True)
    endings = ("png", "svg") if svg else ("png",)
    paths = []
    for stem, figure in figures.items():
        for ending in endings:
            paths.append(folder / f"{stem}.{ending}")
            figure.savefig(paths[-1])
    return paths
