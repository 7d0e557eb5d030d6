"""The `xray` command: recordings, sites, experiments; `cli_weights` has those about weights."""

from __future__ import annotations

import ast
import difflib
import runpy
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import xray
from xray import cli_weights, options
from xray.experiment import output_folder, save_figures
from xray.script import command, quiet_tensorflow, start_tensorflow, table

if TYPE_CHECKING:
    from xray.trace import Difference, Trace

app = typer.Typer(
    help="See what happens inside Stable Diffusion, on a CPU laptop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_weights.app, name="weights")


def main() -> None:
    """The entry point of the `xray` command."""
    app()


def _version(asked: bool) -> None:
    if asked:
        print(f"diffusion-xray {xray.__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which it is.")
    ] = False,
) -> None:
    pass


# ------------------------------------------------------------------------------------- recordings


@command(app)
def show(
    path: Annotated[Path, typer.Argument(metavar="TRACE", help="A recording: RUN/trace.zarr.")],
    site: Annotated[
        str, typer.Argument(metavar="SITE", help="One site, or a glob over them.")
    ] = "**",
    figures: Annotated[
        Path | None, typer.Option(help="Draw the figures again, into this new folder.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            callback=options.known_model,
            help="The model that made it, to decode the denoised estimates in the figures with.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace figures in that folder.")
    ] = False,
) -> None:
    """List what a recording holds, with statistics; of one site step by step.

    Where a step evaluates the network more than once, the statistics are of the first evaluation.
    """
    if model is not None and figures is None:
        raise ValueError("--model is for the figures: say where to, with --figures FOLDER")
    trace = xray.open(path)
    list_site = _show_site if site in trace else _show_sites
    if figures is None:
        list_site(trace, site)
        return
    with output_folder("figures", figures, overwrite=overwrite):
        list_site(trace, site)
        _draw(trace, figures, model)


def _show_sites(trace: Trace, pattern: str) -> None:
    from xray import summary
    from xray.stats import format_bytes
    from xray.taps import SiteError, matches, nearest

    chosen = [s for s in trace.sites if matches(pattern, s)]
    if not chosen and pattern != "**":
        near = ", ".join(nearest(pattern, trace.sites))
        raise SiteError(f"{pattern!r} names no site of this trace; nearest: {near}")
    _show_run(trace)
    rows = []
    for site in chosen:
        row, values = summary.site_row(trace, site), summary.overall(trace, site)
        numbers = [float(values[name]) for name in ("min", "max", "mean", "std")]
        bad = values["nan"] + values["inf"]
        shape = _shape(row["dims"], row["shape"])
        rows.append([site, shape, row["dtype"], *numbers, bad or None, format_bytes(row["bytes"])])
    header = ["site", "shape", "dtype", "min", "max", "mean", "std", "not finite", "size"]
    print(table(header, rows))


def _show_run(trace: Trace) -> None:
    from xray.batch import guidance_text
    from xray.stats import format_bytes

    a = trace.attrs
    told = {
        "prompt": ", ".join(map(repr, a.get("prompt") or ())),
        "model": a.get("model"),
        "weights": a.get("digest"),
        "seed": ", ".join(map(str, a.get("seeds") or ())),
        "sampler": a.get("sampler"),
        "guidance": guidance_text(a["guidance"]) if "guidance" in a else None,
        "recorded": f"{len(trace.steps)} steps, {len(trace.sites)} sites, "
        f"{format_bytes(trace.nbytes)}, {trace.status}",
        "reason": trace.reason,
    }
    for name, value in told.items():
        if value not in (None, ""):
            print(f"{name:9} {value}")
    print()


def _show_site(trace: Trace, site: str) -> None:
    from xray import summary
    from xray.stats import format_bytes

    row = summary.site_row(trace, site)
    print(f"{site}  {_shape(row['dims'], row['shape'])}  {row['dtype']}", end="  ")
    print(format_bytes(row["bytes"]))
    described = trace.sel(site, evaluation=0).describe()
    facts = {k: v for k, v in described.items() if isinstance(v, (int, float)) and k != "nbytes"}
    facts |= {k: v for k, v in described["normality"].items() if k not in facts}
    print("\n" + table(list(facts), [[float(v) for v in facts.values()]]))
    if trace.specs[site].per_step:
        times = dict(zip(trace.steps, trace.timesteps, strict=True))
        names = ["min", "max", "mean", "std"]
        rows = [
            [step, times[step], *(float(values[name]) for name in names)]
            for step, values in summary.by_step(trace, site)
        ]
        print("\n" + table(["step", "timestep", *names], rows))


def _draw(trace: Trace, folder: Path, model: str | None) -> None:
    generator = None
    if model is not None:
        start_tensorflow()
        generator = xray.load(model)
    from xray import plots

    print()
    for path in save_figures(plots.figures(trace, generator), folder):
        print(path)


@command(app)
def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A recording.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The one it is compared with.")],
    steps: Annotated[bool, typer.Option("--steps", help="Every step, not only the worst.")] = False,
) -> None:
    """Distance of two recordings, site by site and step by step.

    As `diff` does, it exits with 0 where all bits agree, with 1 where not, with 2 on errors.
    The distance is rms(a - b) / rms(b).
    """
    left, right = xray.open(a), xray.open(b)
    found = xray.diff(left, right)
    others = _others(left, right, found)
    step = "step" if steps else "worst step"
    print(table(["site", step, "distance", "max |a-b|", ""], _distances(found, steps)))
    for line in others:
        print(line)
    differ = sorted({row.site for row in found.rows if not row.equal})
    common = len({row.site for row in found.rows})
    print(f"\n{common - len(differ)} of {common} common sites are equal to the bit")
    if differ or others:
        raise typer.Exit(1)


def _distances(found: Difference, every_step: bool) -> list[list[Any]]:
    """Rows of the table: each step of each site, or the worst of each."""
    by_site: dict[str, list] = {}
    for row in found.rows:
        by_site.setdefault(row.site, []).append(row)
    cells = []
    for site, rows in by_site.items():
        for row in rows if every_step else [max(rows, key=_badness)]:
            step = row.step if every_step or not row.equal else None
            verdict = "equal" if row.equal else "differs"
            cells.append([site, step, row.relative_rms, row.max_abs, verdict])
    return cells


def _badness(row: Any) -> tuple:
    # NaN in one of the two has no distance, and is worse than any.
    return not row.equal, row.relative_rms != row.relative_rms, row.relative_rms


def _runs(numbers: Sequence[int]) -> str:
    """``0 to 2, 6 to 9, 12`` for ascending numbers."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda at: at[1] - at[0])]
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _others(a: Trace, b: Trace, found: Difference) -> list[str]:
    """What the two have apart, besides numbers; one line each."""
    lines = []
    for name, trace, other, sites in (("A", a, b, found.only_a), ("B", b, a, found.only_b)):
        if sites:
            lines.append(f"only in {name}: {', '.join(sites)}")
        if only := [step for step in trace.steps if step not in other.steps]:
            lines.append(f"only in {name}: steps {_runs(only)}")
    for site in found.mismatched:
        shapes = [_shape(t.specs[site].dims, t.specs[site].shape) for t in (a, b)]
        lines.append(f"no distance, for the shapes differ: {site} {shapes[0]} and {shapes[1]}")
    return lines


# ------------------------------------------------------------------------------------------ sites


@command(app)
def sites(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", callback=options.known_model, help=options.MODEL_HELP)
    ],
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="A glob over sites.")] = "**",
    width: options.Width = None,
    height: options.Height = None,
) -> None:
    """List the sites of a model: shape for one picture, dtype and size as recorded.

    Marked with * is what a generation records if it is not told; encoder/** is recorded by
    model.encoder.record. Weights are not needed.
    """
    with quiet_tensorflow():
        from xray.checkpoints import outline

        generator = outline(model)
    from xray.sitelist import by_default, sites_of
    from xray.stats import format_bytes
    from xray.taps import SiteError, matches, nearest

    everything = sites_of(generator, width=width, height=height)
    chosen = {s: spec for s, spec in everything.items() if matches(pattern, s)}
    if not chosen:
        near = ", ".join(nearest(pattern, everything))
        raise SiteError(f"{pattern!r} names no site of {model}; nearest: {near}")
    rows = [
        [
            "*" if by_default(site) else "",
            site,
            _shape(spec.dims, spec.shape),
            str(spec.dtype),
            format_bytes(spec.nbytes) + (" a step" if spec.per_step else " once"),
        ]
        for site, spec in chosen.items()
    ]
    print(table(["", "site", "shape", "dtype", "size"], rows))
    a_step = sum(spec.nbytes for spec in chosen.values() if spec.per_step)
    once = sum(spec.nbytes for spec in chosen.values() if not spec.per_step)
    print(f"\n{len(chosen)} sites, {format_bytes(a_step)} a step and {format_bytes(once)} once")


def _shape(dims: Any, shape: Any) -> str:
    return " ".join(f"{dim} {length}," for dim, length in zip(dims, shape, strict=True))[:-1]


# ----------------------------------------------------------------------------------------- models


@command(app)
def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", callback=options.known_model, help=options.MODEL_HELP)
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    form: Annotated[
        str, typer.Option("--format", help="diffusers, or xray: what this program saves itself.")
    ] = "diffusers",
    dtype: Annotated[str, typer.Option(help="Of the weights: float32 or float16.")] = "float32",
    prediction: Annotated[
        str | None, typer.Option(help="Of a single file of 2.x, which does not say: epsilon or v.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model there.")] = False,
) -> None:
    """Write a model for other programs, such as diffusers.

    There, StableDiffusionPipeline.from_pretrained(DIR) opens it and makes the same pictures.
    """
    for option, value, known in (
        ("--format", form, ("diffusers", "xray")),
        ("--dtype", dtype, ("float32", "float16")),
        ("--prediction", prediction, (None, "epsilon", "v")),
    ):
        if value not in known:
            raise ValueError(f"{option} {value!r} is not {' or '.join(filter(None, known))}")
    with output_folder("export", folder, overwrite=overwrite):
        start_tensorflow()
        # What is written is all in memory.
        generator = xray.load(model, memory="fast", prediction=prediction)
        from xray.checkpoints import export_diffusers, save

        if form == "diffusers":
            export_diffusers(generator, folder, dtype=dtype, overwrite=True)
        else:
            save(generator, folder, dtype=dtype)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(path)


# ------------------------------------------------------------------------------------ experiments


@command(app)
def experiments() -> None:
    """List the experiments, and the question that each asks."""
    rows = []
    for name, path in shipped_experiments().items():
        lines = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").splitlines()
        rows.append([name, lines[0] if lines else ""])
    print(table(["experiment", "question"], rows))


# Everything after NAME belongs to the experiment, --help too.
@command(app, context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def experiment(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Its name; `xray experiments` lists them.")
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="OPTIONS", help="Its options; --help explains them."),
    ] = None,
) -> None:
    """Run an experiment: the same as `python experiments/NAME.py …`."""
    found = shipped_experiments()
    if name not in found:
        near = difflib.get_close_matches(name, found, n=1) or found
        raise ValueError(f"there is no experiment {name!r}; there is {', '.join(near)}")
    sys.argv = [str(found[name]), *(arguments or ())]
    runpy.run_path(str(found[name]), run_name="__main__")


def shipped_experiments() -> dict[str, Path]:
    """The shipped scripts by name."""
    from xray.resources import shipped

    return {path.stem: path for path in sorted(shipped("experiments").glob("*.py"))}
