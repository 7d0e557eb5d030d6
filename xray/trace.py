"""`Trace`: everything that was recorded while one picture was made.

    trace = xray.open("run.zarr")
    trace["sampler/latent"].sel(step=12).image("rgb")
    trace.sel("unet/mid/attn.0/cross/weights", step=12, branch="cond")   # reads one step only
    xray.diff(trace, xray.open("other.zarr")).rows

A trace lives in memory or on disk and reads the same. From disk, tensors are read when asked for.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray
import zarr

from xray.stats import format_bytes
from xray.store import (
    ROOT_ARRAYS,
    Header,
    SiteSpec,
    StoreWriter,
    TraceError,
    chunk_file,
    read_root,
)
from xray.tensor import DebugTensor

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["Difference", "Row", "Trace", "TraceError", "UnknownSite", "diff", "open"]

SPECIAL_WORDS = ("", "<start>", "<end>", "<pad>")


class UnknownSite(TraceError, KeyError):
    """The trace holds no such site; the message gives the nearest names."""

    __str__ = TraceError.__str__  # KeyError's would quote the message


class Trace:
    """One recorded run: the tensors of its sites, and all that is needed to run it again.

    Made by `generate(…)`, by a recorder's `close`, or by `open`. Only steps that were recorded
    whole are in it, so a trace of an interrupted run ends at the last complete step.

    Attributes:
        attrs: prompt, tokens, seeds, sampler, model, weights' digest, edits, … as JSON values.
        steps: numbers of the complete steps.
        timesteps: the timestep of each of them; may be fractional.
        specs: `SiteSpec` (dims and shape without `step`, dtype) of every site, in the order in
            which the run comes to them; reads nothing. Coordinates are left out.
        path: where it is on disk, or None.

    Example:
        >>> trace = xray.load("mini").generate("a red star", record=["sampler/*"])
        >>> trace.sites
        ['sampler/latent', ..., 'image']
        >>> trace["sampler/latent"]
        DebugTensor sampler/latent (step 25, image 1, y 16, x 16, channel 4) float32 ...
    """

    def __init__(
        self,
        *,
        attrs: Mapping[str, Any],
        steps: Sequence[int],
        timesteps: Sequence[float],
        specs: Mapping[str, SiteSpec],
        load: Callable[[str], xarray.DataArray],
        path: Path | None = None,
    ):
        self.attrs = dict(attrs)
        self.steps = list(steps)
        self.timesteps = list(timesteps)
        self.specs = dict(specs)
        self.path = path
        self._load = load

    # --- tensors ---------------------------------------------------------------------------

    @property
    def sites(self) -> list[str]:
        """Names of what was recorded; a site outside the steps only if the run came to it."""
        return list(self.specs)

    def __contains__(self, site: object) -> bool:
        return site in self.specs

    def __getitem__(self, site: str) -> DebugTensor:
        """All complete steps of one site, in memory."""
        return self.sel(site)

    def sel(
        self,
        site: str,
        *,
        step: int | None = None,
        evaluation: int | None = None,
        **labels: Any,
    ) -> DebugTensor:
        """One site, or the part of it that the labels select.

        Args:
            site: its full name.
            step: a step number; from disk, only this step is read.
            evaluation: of the network in the step, for samplers that evaluate it more than once
                (Heun; PNDM in its first step). 0 is at the step's own timestep and, where there
                is one evaluation only, that one; 1 is at the timestep of the next step.
            **labels: further labels as `DebugTensor.sel` takes them, such as `branch="cond"`.

        Raises:
            UnknownSite: with the nearest names.
            TraceError: there is no such step or evaluation, or a file of the trace is damaged.
        """
        array = self.lazy(site)
        if evaluation is not None:
            count = array.sizes.get("evaluation", 1)
            if not 0 <= evaluation < count:
                raise TraceError(f"{site} has no evaluation {evaluation}; it has 0 to {count - 1}")
            if "evaluation" in array.dims:
                array = array.isel(evaluation=evaluation)
        if step is not None:
            if "step" not in array.dims:
                raise TraceError(f"{site} is recorded once, not at every step")
            array = array.isel(step=self._index(step))
        try:
            array = array.compute()
        except MemoryError:
            raise
        except Exception as error:  # of many types, by the decoder that stumbles
            raise TraceError(f"{self.path} is damaged: {site} cannot be read: {error}") from error
        prompt = self.attrs.get("prompt", "")
        tensor = DebugTensor(
            array,
            site=site,
            model=self.attrs.get("model", ""),
            prompt=prompt[0] if isinstance(prompt, list) and len(prompt) == 1 else prompt,
            rgb_matrix=self.attrs.get("rgb_matrix"),
        )
        return tensor.sel(**labels) if labels else tensor

    def at(self, step: int) -> dict[str, DebugTensor]:
        """Every per-step site at one step, by name."""
        self._index(step)
        return {
            site: self.sel(site, step=step) for site, spec in self.specs.items() if spec.per_step
        }

    def lazy(self, site: str) -> xarray.DataArray:
        """One site as a DataArray that reads from disk what is selected of it, when it is used.

        Raises:
            UnknownSite: with the nearest names.
            TraceError: files of the site are missing or damaged, or of another run by now.
        """
        if site not in self.specs:
            near = difflib.get_close_matches(site, self.specs, n=3, cutoff=0.4)
            hint, known = "nearest" if near else "it has", ", ".join(near or self.specs) or "none"
            ended = "" if self.status == "complete" else f" (the run is {self.status})"
            raise UnknownSite(f"no site {site!r} in this trace{ended}; {hint}: {known}")
        return self._load(site)

    def _index(self, step: int) -> int:
        if step not in self.steps:
            known = f"{self.steps[0]} to {self.steps[-1]}" if self.steps else "none"
            raise TraceError(f"step {step} is not in this trace; complete steps: {known}")
        return self.steps.index(step)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, as they are in memory."""
        return sum(s.nbytes * (len(self.steps) if s.per_step else 1) for s in self.specs.values())

    # --- the run ---------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """`complete`, `interrupted` or `failed`; `running` also after the process was killed."""
        return self.attrs["status"]

    @property
    def reason(self) -> str:
        """Why the run did not come to its end, or empty."""
        return self.attrs["reason"]

    @property
    def images(self) -> list[PIL.Image.Image]:
        """The pictures that were made, one for each item of the batch."""
        from PIL import Image

        return [Image.fromarray(pixels) for pixels in self["image"].values]

    @property
    def image(self) -> PIL.Image.Image:
        """The picture that was made; of a batch the first."""
        return self.images[0]

    @property
    def words(self) -> list[dict[str, Any]]:
        """The words of the first image's prompt: `word`, its `tokens` (positions), its `index`.

        Two equal words side by side are two entries. Start, end and padding are left out.
        """
        words: dict[int, dict[str, Any]] = {}
        tokens = self.attrs.get("tokens") or {"cond": [[]]}  # none where embeddings were given
        for position, token in enumerate(tokens["cond"][0]):
            if token["word"] not in SPECIAL_WORDS:
                index = token["word_index"]
                entry = {"word": token["word"], "tokens": [], "index": index}
                words.setdefault(index, entry)["tokens"].append(position)
        return list(words.values())

    def replay(self, model: Any, **asked: Any) -> Any:
        """Run again with `model` and say whether the bits agree: `model.replay(trace, …)`."""
        return model.replay(self, **asked)

    def save(self, path: str | os.PathLike) -> None:
        """Write the complete steps and all else to a new store at `path`.

        Raises:
            TraceError: `path` cannot be used, the disk is full, or no step is complete.
        """
        if not self.steps:
            raise TraceError("there is nothing to save: no step of this trace is complete")
        sites = {}
        for site, spec in self.specs.items():
            coords = {
                name: (coord.dims, coord.values)
                for name, coord in self.lazy(site).coords.items()
                if coord.dims != ("step",)
            }
            sites[site] = dataclasses.replace(spec, coords=coords)
        header = Header(self.steps, self.timesteps, sites, self.attrs)
        writer = StoreWriter(path, header)
        try:
            for index, step in enumerate(self.steps):
                for site, tensor in self.at(step).items():
                    writer.write(site, tensor.values, index)
                writer.complete(index)
            for site, spec in self.specs.items():
                if not spec.per_step:
                    writer.write(site, self[site].values)
            writer.finish(self.status, self.reason)
        except BaseException:  # half a copy is of no use, whatever stopped it
            shutil.rmtree(path, ignore_errors=True)
            raise

    def __repr__(self) -> str:
        return (
            f"Trace {self.attrs.get('prompt', '')!r} {self.attrs.get('model', '')} "
            f"({len(self.steps)} steps, {len(self.specs)} sites, {format_bytes(self.nbytes)}, "
            f"{self.status}) {self.path or 'in memory'}"
        )


# --- from disk -----------------------------------------------------------------------------


def open(path: str | os.PathLike) -> Trace:
    """Open a trace on disk. Tensors are read when they are asked for.

    A trace whose run is still going on can be opened too; it holds the steps that were complete
    at that moment. Nothing in it is ever executed or unpickled.

    Args:
        path: the folder that a run was recorded to.

    Raises:
        TraceError: nothing is there, it is no trace, it is damaged, or a newer version wrote it.

    Example:
        >>> trace = xray.open("runs/a.zarr")
        >>> trace["sampler/denoised"].sel(step=3).image("rgb")
    """
    path = Path(path).absolute()
    made, root = _made(path), read_root(path)
    nodes = root["consolidated_metadata"]["metadata"]
    try:
        step, timestep, complete = (_root_array(path, nodes, name) for name in ROOT_ARRAYS)
        specs = {}
        for site in root["attributes"]["sites"]:
            node = nodes[f"{site}/value"]
            dims, shape = node.get("dimension_names") or [], node["shape"]
            first = 1 if dims[:1] == ["step"] else 0
            dtype = np.dtype(node["data_type"])
            specs[site] = SiteSpec(dims[first:], shape[first:], dtype, per_step=first == 1)
    except TraceError:
        raise
    except Exception as error:  # of many types, by the decoder that stumbles
        raise TraceError(f"{path} is damaged: {error!r}") from error
    count = int(np.argmin(np.append(complete, False)))  # steps are completed in order
    if root["attributes"].get("status") == "complete":
        if count < len(step):
            raise TraceError(f"{path} is damaged: {count} of {len(step)} steps of a complete run")
    else:
        specs = {
            site: spec
            for site, spec in specs.items()
            if spec.per_step or chunk_file(path, nodes, f"{site}/value").exists()
        }
    opened = functools.cache(lambda site: _open_site(path, nodes, site, specs[site], count))

    def load(site: str) -> xarray.DataArray:
        if _made(path) != made:
            raise TraceError(
                f"{path} was removed or replaced after this trace of it was opened: open it again"
            )
        return opened(site)

    return Trace(
        attrs=root["attributes"],
        steps=step[:count].tolist(),
        timesteps=timestep[:count].tolist(),
        specs=specs,
        load=load,
        path=path,
    )


def _made(path: Path) -> tuple[int, int] | None:
    """What tells a store from another in its place: of a file that is written once."""
    try:
        file = (path / "complete" / "zarr.json").stat()
    except OSError:
        return None
    return file.st_ino, file.st_mtime_ns


def _root_array(path: Path, nodes: Mapping[str, Any], name: str) -> np.ndarray:
    _check_there(path, chunk_file(path, nodes, name))
    return zarr.open_array(path / name, mode="r", zarr_format=3)[:]


def _check_there(path: Path, file: Path) -> None:
    # Zarr reads a chunk whose file is gone as fill values, without a word.
    if not file.exists():
        raise TraceError(f"{path} is damaged: {file.relative_to(path)} is missing")


def _open_site(
    path: Path, nodes: Mapping[str, Any], site: str, spec: SiteSpec, count: int
) -> xarray.DataArray:
    try:
        for step in range(count if spec.per_step else 1):
            _check_there(path, chunk_file(path, nodes, f"{site}/value", step))
        # The site's own metadata: looking it up in that of the root takes twenty times as long.
        # Not cached, so that memory goes when a tensor does.
        dataset = xarray.open_dataset(
            path, engine="zarr", group=site, consolidated=False, cache=False, chunks=None
        )
        array = dataset["value"].rename(site)
        for name in array.coords:
            _check_there(path, chunk_file(path, nodes, f"{site}/{name}"))
        coords = {name: (coord.dims, _text(coord.values)) for name, coord in array.coords.items()}
    except TraceError:
        raise
    except Exception as error:  # of many types, by the decoder that stumbles
        raise TraceError(f"{path} is damaged: {site} cannot be read: {error}") from error
    array = array.assign_coords(coords)
    return array.isel(step=slice(count)) if spec.per_step else array


def _text(values: np.ndarray) -> np.ndarray:
    """Strings of variable length, as Zarr returns them, as NumPy's ordinary strings."""
    return values if values.dtype.kind in "biuf" else np.array(values.tolist(), dtype=str)


# --- comparing -----------------------------------------------------------------------------


class Row(NamedTuple):
    """Distance at one site and step; `step` is None for what has none."""

    site: str
    step: int | None
    relative_rms: float
    max_abs: float
    equal: bool


class Difference(NamedTuple):
    """How far two traces are apart.

    `rows`: one for every common site and step. `only_a`, `only_b`: sites in one of them only.
    `mismatched`: common sites whose dimensions or shapes differ, and so have no distance.
    """

    rows: list[Row]
    only_a: list[str]
    only_b: list[str]
    mismatched: list[str]


def diff(a: Trace, b: Trace) -> Difference:
    """Distance of trace `a` from trace `b`, site by site and step by step.

    Steps are matched by number. Reads one step of one site at a time.

    Returns:
        `rows` with `relative_rms` rms(a - b) / rms(b), `max_abs` max|a - b|, and `equal`, whether
        type and bits agree; and the names of the sites that have no distance.

    Example:
        >>> [row for row in xray.diff(a, b).rows if not row.equal][0]   # where they part
        Row(site='unet/mid/attn.0/cross/out', step=3, relative_rms=0.013, max_abs=0.4, equal=False)
    """
    rows, mismatched = [], []
    for site in (site for site in a.sites if site in b):
        left, right = a.specs[site], b.specs[site]
        if (left.dims, left.shape, left.per_step) != (right.dims, right.shape, right.per_step):
            mismatched.append(site)
            continue
        for step in [step for step in a.steps if step in b.steps] if left.per_step else [None]:
            distance = a.sel(site, step=step).diff(b.sel(site, step=step))
            rows.append(Row(site, step, *(distance[name] for name in Row._fields[2:])))
    return Difference(
        rows,
        only_a=[site for site in a.sites if site not in b],
        only_b=[site for site in b.sites if site not in a],
        mismatched=mismatched,
    )
