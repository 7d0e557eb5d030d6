"""`xray weights`: the published weights, and what of them is on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from xray.script import command, table

if TYPE_CHECKING:
    from xray.checkpoints.registry import Published

app = typer.Typer(
    help="List, fetch, verify and remove published weights.",
    no_args_is_help=True,
    add_completion=False,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `xray weights list` has it.")]


@command(app, name="list")
def list_() -> None:
    """List the weights there are: what they are, size, licence, and whether they are here."""
    from xray.checkpoints.registry import registered
    from xray.resources import shipped
    from xray.stats import format_bytes

    mini = sum(path.stat().st_size for path in (shipped("weights") / "mini").iterdir())
    rows = [["mini", format_bytes(mini), "Apache-2.0", "shipped", "the miniature (128×128)"]]
    for model in registered().values():
        size = ("" if model.exact else "about ") + format_bytes(model.size)
        rows.append([model.name, size, model.licence.name, _here(model), model.what])
    print(table(["name", "size", "licence", "here", "what"], rows))


def _here(model: Published) -> str:
    from xray.stats import format_bytes

    if not model.missing:
        return "yes"
    here = sum(file.here for file in model.files.values())
    return format_bytes(here) if here else "no"


@command(app)
def fetch(
    name: Name,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FOLDER|ADDRESS",
            help="A folder, or the address of one, that has the files: a mirror, a disk, or "
            "~/.keras/datasets, where KerasCV keeps them.",
            show_default="where they are published",
        ),
    ] = None,
) -> None:
    """Fetch weights into the cache; what was interrupted goes on, what is damaged comes anew.

    Each file's sha256 is checked before it gets its name. The licence is shown first.
    """
    from xray.checkpoints import fetching
    from xray.checkpoints.registry import published

    fetching.fetch(published(name), source, print)


@command(app)
def verify(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", show_default="all that are here")
    ] = None,
) -> None:
    """Read what is in the cache and compare it with the published digests.

    Ends with 1 if a file is damaged or, of a model that was named, absent.
    """
    from xray.checkpoints import fetching
    from xray.checkpoints.registry import published, registered

    models = [published(name)] if name else registered().values()
    found = {}
    for model in models:
        if name or any(file.here for file in model.files.values()):
            found |= fetching.verify(model)
    print(table(["file", ""], list(found.items())) if found else "nothing has been fetched")
    if "damaged" in found.values():
        print("\nWhat is damaged is fetched again with `xray weights fetch NAME`.")
    if "damaged" in found.values() or (name and set(found.values()) != {"ok"}):
        raise typer.Exit(1)


@command(app)
def where(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Of one model the files.", show_default="")
    ] = None,
) -> None:
    """Say where weights are kept: $XRAY_CACHE, or diffusion-xray in the user's cache folder."""
    from xray.checkpoints.registry import cache, published

    for path in [cache()] if name is None else [f.path for f in published(name).files.values()]:
        print(path)


@command(app)
def remove(name: Name) -> None:
    """Delete fetched weights, but no file that another whole model uses."""
    from xray.checkpoints import fetching
    from xray.checkpoints.registry import published

    removed = fetching.remove(published(name))
    print("\n".join(file.name for file in removed) if removed else "nothing to delete")
