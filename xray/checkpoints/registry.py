"""Which published weights there are, and what of them is on this machine.

    registered()["sd-v1-4"].missing          # its files that are not here yet
    cache()                                  # where they are kept

The data (addresses, sizes, digests, licences) is `weights/registry.json`. Fetched files lie side by
side in the cache, under the names by which they were published, and models share them: the
autoencoder of Stable Diffusion 1.4 serves 2.1 too.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from xray.resources import shipped
from xray.stats import format_bytes


def cache() -> Path:
    """Where fetched weights are kept: ``$XRAY_CACHE``, or ``diffusion-xray`` in the user's cache.

    That is ``$XDG_CACHE_HOME`` or else ``~/.cache``. Nothing is created.
    """
    if own := os.environ.get("XRAY_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffusion-xray"


@dataclass(frozen=True)
class File:
    """One published file.

    Attributes:
        name: under which it is published and kept.
        url: where.
        sha256: of its content.
        bytes: its size, or None where only `about_bytes` is known, from what must be in it.
    """

    name: str
    url: str
    sha256: str
    bytes: int | None
    about_bytes: int | None = None

    @property
    def path(self) -> Path:
        return cache() / self.name

    @property
    def part(self) -> Path:
        """What has been fetched so far, until it is whole and checked."""
        return cache() / f"{self.name}.part"

    @property
    def present(self) -> bool:
        """Whether it is here, whole by its size; `xray.checkpoints.fetching.verify` reads it."""
        return self.path.is_file() and self.bytes in (None, self.path.stat().st_size)

    @property
    def size(self) -> int:
        return self.bytes or self.about_bytes or 0

    @property
    def here(self) -> int:
        """How many bytes of it are here."""
        found = self.path if self.present else self.part
        return found.stat().st_size if found.is_file() else 0


@dataclass(frozen=True)
class Licence:
    """A licence's name, where its text is, and what it comes to."""

    name: str
    url: str
    summary: str


@dataclass(frozen=True)
class Published:
    """A model whose weights can be fetched.

    Attributes:
        name: as `xray.load` takes it.
        what: it is, in a line.
        licence: of the weights.
        files: by what they are for: the four networks and ``"tokenizer"``.
    """

    name: str
    what: str
    licence: Licence
    files: dict[str, File]

    @property
    def missing(self) -> list[File]:
        return [file for file in self.files.values() if not file.present]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files.values())

    @property
    def exact(self) -> bool:
        """Whether `size` is known and not estimated."""
        return all(file.bytes is not None for file in self.files.values())


def registered() -> dict[str, Published]:
    """All models whose weights can be fetched, by name."""
    data = json.loads((shipped("weights") / "registry.json").read_text("utf-8"))
    files = {name: File(name, **facts) for name, facts in data["files"].items()}
    licences = {name: Licence(name, **facts) for name, facts in data["licences"].items()}
    return {
        name: Published(
            name,
            facts["what"],
            licences[facts["licence"]],
            {use: files[file] for use, file in facts["files"].items()},
        )
        for name, facts in data["models"].items()
    }


def about_missing(model: Published) -> str:
    """What to tell who wants weights that are not, or not all, on this machine."""
    here = sum(file.here for file in model.files.values())
    size = ("" if model.exact else "about ") + format_bytes(model.size)
    told = f"{format_bytes(here)} of {size} are in {cache()}" if here else size
    return (
        f"the weights of {model.name} are not on this machine: {told}, under the "
        f"{model.licence.name} licence. Fetch them with `xray weights fetch {model.name}`, with "
        f"xray.load({model.name!r}, download=True) or with an experiment's --download; "
        f"xray.load({model.name!r}, weights=None) builds the model without them, for shape work"
    )


def published(name: str) -> Published:
    """The registered model of that name.

    Raises:
        ValueError: there is none; says which there are.
    """
    models = registered()
    if name not in models:
        raise ValueError(f"{name!r} is not among the weights to fetch: {', '.join(models)}")
    return models[name]
