"""The trace on disk: a Zarr v3 store that a kill cannot break.

    header = Header(steps=range(25), timesteps=times, sites={"sampler/latent": spec}, attrs={})
    store = StoreWriter("run.zarr", header)
    store.write("sampler/latent", latent, step=0)
    store.complete(0)
    store.finish("complete")

Layout: every site is a leaf group that holds one array `value` and its own coordinates
(`sampler/latent/value`, `sampler/latent/timestep`). The root holds `step`, `timestep`,
`complete` and the attributes. So plain `xarray.open_datatree(path, engine="zarr")` reads the
whole and `xarray.open_zarr(path, group=site)` one site.

Why a process killed at any moment leaves a readable store:

- all metadata is written before step 0, at full length, in a folder that is renamed to its name
  only when it is whole; floats read as NaN, integers as 0, until they are written;
- one step of one site is one chunk, written to a temporary file that is then renamed;
- `complete[step]` is written after all of the step's chunks. A step counts only if complete.

This is safety from a killed process. Nothing is flushed to the device, so a power cut may lose
the last seconds.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import MemoryStore

from xray import direct, memory
from xray.stats import format_bytes
from xray.whole import whole

FORMAT = 2
"""Version of the layout, `attrs["xray_format"]`; raised when an older reader would go wrong.

1 had a chunk in folders of its own, `c/3/0/0`, which took longer to make than a small chunk.
"""

SITE_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
ROOT_ARRAYS = ("step", "timestep", "complete")
RESERVE = "complete/.reserve"
RECORD_LESS = "Record fewer sites, reduce them (mean over heads, float16)"


class TraceError(ValueError):
    """A trace cannot be written or read; the message says which, why and what to do."""


@dataclass(frozen=True, eq=False)
class SiteSpec:
    """What will be recorded at one site.

    Args:
        dims: names of the dimensions, without `step`.
        shape: their lengths, likewise without `step`.
        dtype: bool, integer or float dtype.
        per_step: whether the site is recorded at every step, or once in a run.
        coords: coordinates `{name: (dim, values)}`, or `(dims, values)` along several, numbers or
            strings. `step` and `timestep` are added by the trace.

    Example:
        >>> coords = {"branch": ("branch", ["uncond", "cond"]), "word": ("token", ["a", "star"])}
        >>> SiteSpec(("branch", "token"), (2, 2), "float32", per_step=True, coords=coords)
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    per_step: bool
    coords: Mapping[str, tuple[str | tuple[str, ...], Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        dims, shape, dtype = tuple(self.dims), tuple(map(int, self.shape)), np.dtype(self.dtype)
        if len(dims) != len(shape) or len(set(dims)) != len(dims) or "step" in dims:
            raise ValueError(
                f"dims {dims} must be distinct, without 'step', one for each length of {shape}"
            )
        lengths = dict(zip(dims, shape, strict=True))
        if min(shape, default=1) < 1:
            raise ValueError(f"every length must be at least 1, got {lengths}")
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            raise ValueError(f"dtype must be bool, integer or float, got {dtype}")
        coords = {}
        for name, (along, values) in self.coords.items():
            along, values = (along,) if isinstance(along, str) else tuple(along), np.asarray(values)
            if values.shape != tuple(lengths.get(dim) for dim in along):
                raise ValueError(
                    f"coordinate {name!r} of shape {values.shape} does not lie along "
                    f"{', '.join(map(repr, along))} of {lengths}"
                )
            coords[name] = along, values
        for name, value in (("dims", dims), ("shape", shape), ("dtype", dtype), ("coords", coords)):
            object.__setattr__(self, name, value)

    @property
    def nbytes(self) -> int:
        """Bytes of one recording: of one step where the site is recorded per step."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Header:
    """What is known of a run before its first step.

    Args:
        steps: the step numbers, the coordinate `step`.
        timesteps: the timestep of each step, fractions allowed.
        sites: what will be recorded, by site name. No name may be a prefix path of another.
        attrs: everything needed to run again, as JSON values (NumPy numbers and arrays become
            numbers and lists).
    """

    steps: Sequence[int]
    timesteps: Sequence[float]
    sites: Mapping[str, SiteSpec]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps, timesteps = [int(s) for s in self.steps], [float(t) for t in self.timesteps]
        if len(steps) != len(timesteps) or not steps or len(set(steps)) != len(steps):
            raise ValueError(
                f"one timestep for each of at least one distinct step is needed, got steps {steps} "
                f"and timesteps {timesteps}"
            )
        for site in self.sites:
            if not SITE_NAME.fullmatch(site) or site.split("/")[0] in ROOT_ARRAYS:
                raise ValueError(f"{site!r} cannot be the name of a site")
            parts = site.split("/")
            for parent in ("/".join(parts[:n]) for n in range(1, len(parts))):
                if parent in self.sites:
                    raise ValueError(f"site {parent!r} is a prefix of site {site!r}")
        values = {"steps": steps, "timesteps": timesteps, "attrs": as_json(self.attrs)}
        for name, value in values.items():
            object.__setattr__(self, name, value)


def as_json(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """`attrs` as they will read after a round trip through JSON.

    Raises:
        TypeError: a value that JSON cannot hold, by its key.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        raise TypeError(f"a {type(value).__name__} cannot be kept in a trace's attributes")

    result = {}
    for key, value in attrs.items():
        try:
            result[key] = json.loads(json.dumps(value, default=plain))
        except (TypeError, ValueError) as error:
            raise TypeError(f"attribute {key!r}: {error}") from error
    return result


def final_attrs(header: Header, status: str, reason: str, attrs: Mapping | None) -> dict:
    """The root attributes of a run: the header's, those known at its end, and how it ended."""
    return {
        **header.attrs,
        **as_json(attrs or {}),
        "xray_format": FORMAT,
        "sites": list(header.sites),
        "status": status,
        "reason": reason,
    }


# --- room ----------------------------------------------------------------------------------


def estimate(header: Header) -> int:
    """Bytes that a whole recording takes, uncompressed."""
    return sum(_total(spec, header) for spec in header.sites.values())


def check_room(header: Header, path: str | os.PathLike | None) -> None:
    """Refuse a recording that would not fit, before it is begun.

    Args:
        header: what would be recorded.
        path: where the store would be, or None for memory.

    Raises:
        TraceError: it needs more than 90 % of the free disk or of the available memory; with
            the numbers and the three sites that take most.
    """
    needed = estimate(header)
    if path is None:
        available, place = memory.available(), "memory"
    else:
        existing = next(p for p in Path(path).absolute().parents if p.exists())
        available, place = shutil.disk_usage(existing).free, f"disk at {existing}"
    if available is None or needed <= 0.9 * available:
        return
    largest = sorted(header.sites, key=lambda site: -_total(header.sites[site], header))[:3]
    sizes = {site: _total(header.sites[site], header) for site in largest}
    listed = ", ".join(f"{site} ({format_bytes(size)})" for site, size in sizes.items())
    rest = format_bytes(needed - sum(sizes.values()))
    elsewhere = "stream them to disk with store=…" if path is None else "write elsewhere"
    raise TraceError(
        f"the recording needs {format_bytes(needed)} and {format_bytes(available)} of {place} is "
        f"free, of which at most 90 % is used. Most is taken by {listed}; without these it needs "
        f"{rest}. {RECORD_LESS}, or {elsewhere}"
    )


def _total(spec: SiteSpec, header: Header) -> int:
    return spec.nbytes * (len(header.steps) if spec.per_step else 1)


# --- where to write, what is there ---------------------------------------------------------


def check_output(path: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Make sure that a trace can be written at `path`, before any heavy work.

    Args:
        path: where the trace is to be.
        overwrite: accept a trace that is there already. Anything else that is there is never
            replaced.

    Raises:
        TraceError: the parent is missing, is no folder or cannot be written to; `path` exists.
    """
    path = Path(path)
    parent = path.absolute().parent
    if not parent.is_dir():
        raise TraceError(f"{path}: {parent} is not an existing folder; create it first")
    if os.path.lexists(path):
        if not overwrite:
            raise TraceError(f"{path} exists already; choose another place or remove it")
        read_root(path)  # raises unless it is a trace
    try:
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise TraceError(f"{path} cannot be written: {error.strerror}: {parent}") from error


def read_root(path: str | os.PathLike) -> dict[str, Any]:
    """The parsed metadata at the root of a trace: its attributes and all of its nodes.

    Raises:
        TraceError: nothing is there, it is no trace, it is damaged, or a newer version wrote it.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise TraceError(f"{path}: no such trace")
    if not path.is_dir():
        raise TraceError(f"{path} is not a trace: a trace is a folder (a Zarr store)")
    try:
        root = json.loads((path / "zarr.json").read_bytes())
    except FileNotFoundError:
        raise TraceError(f"{path} is not a trace: the folder holds no zarr.json") from None
    except ValueError as error:
        raise TraceError(f"{path} is damaged: zarr.json is not whole ({error})") from error
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror}") from error
    attrs = root.get("attributes") if isinstance(root, dict) else None
    version = attrs.get("xray_format") if isinstance(attrs, dict) else None
    if not isinstance(version, int):
        raise TraceError(f"{path} is not a trace: something else wrote this Zarr store")
    if version > FORMAT:
        raise TraceError(
            f"{path} has trace format {version} and this version reads up to {FORMAT}; "
            f"upgrade diffusion-xray"
        )
    if "metadata" not in (root.get("consolidated_metadata") or {}):
        raise TraceError(f"{path} is damaged: zarr.json lists no arrays")
    return root


def chunk_file(path: Path, nodes: Mapping[str, Any], array: str, step: int = 0) -> Path:
    """The file that holds one step of an array, or all of it.

    Args:
        path: of the store.
        nodes: the metadata of all its arrays, as its root lists them.
        array: its name.
        step: index of the step; 0 for an array without.
    """
    node = nodes[array]
    index = [step, *[0] * len(node["shape"])][: len(node["shape"])]
    separator = node["chunk_key_encoding"]["configuration"]["separator"]
    return path / array / separator.join(["c", *map(str, index)])


# --- writing -------------------------------------------------------------------------------


class StoreWriter:
    """Writes one trace, in the calling thread. See the module for the layout and its promise.

    Args:
        path: where the store is created; its parent must exist.
        header: what will be recorded.
        overwrite: replace a trace that is there already.

    Raises:
        TraceError: `path` cannot be used, or the disk is full.
    """

    def __init__(self, path: str | os.PathLike, header: Header, *, overwrite: bool = False):
        check_output(path, overwrite=overwrite)
        self.path, self.header = Path(path).absolute(), header
        self._complete = np.zeros(len(header.steps), bool)
        try:
            with whole(self.path) as building:
                _write_files(building, _skeleton(header))
                if overwrite and self.path.exists():
                    shutil.rmtree(self.path)
            self._root = zarr.open_group(self.path, mode="r+", zarr_format=3)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise TraceError(
                    f"{self.path} exists by now: another run has just begun there; choose another "
                    "place"
                ) from error
            raise self._error(error) from error
        # Without write_empty_chunks Zarr leaves out a chunk that is all NaN or all 0, and a
        # lost chunk could not be told from it.
        self._arrays = {
            name: self._root[name].with_config({"write_empty_chunks": True})
            for name in [*(f"{site}/value" for site in header.sites), "complete"]
        }

    def write(self, site: str, array: np.ndarray, step: int | None = None) -> None:
        """Write what was recorded at one site: at the given index of `steps`, or once."""
        spec, values = self.header.sites[site], self._arrays[f"{site}/value"]
        try:
            if spec.per_step and _plain(spec):
                # Not by Zarr, which makes a copy and takes 1.5 ms to come to a chunk of any size.
                chunk = values.metadata.encode_chunk_key((step, *[0] * array.ndim))
                with whole(self.path / values.path / chunk) as partial:
                    little_endian = spec.dtype.newbyteorder("<")
                    direct.write(partial, np.ascontiguousarray(array, little_endian))
            else:
                values[... if step is None else step] = array
        except Exception as error:
            raise self._error(error) from error

    def complete(self, step: int) -> None:
        """Declare that all sites of the step are written."""
        complete = self._complete.copy()
        complete[step] = True
        try:
            self._arrays["complete"][:] = complete
        except Exception as error:
            raise self._error(error) from error
        self._complete = complete

    def finish(self, status: str, reason: str = "", attrs: Mapping[str, Any] | None = None) -> None:
        """Write how the run ended, and the attributes that are known only then."""
        attrs = final_attrs(self.header, status, reason, attrs)
        try:
            (self.path / RESERVE).unlink(missing_ok=True)
            self._root.update_attributes(attrs)
        except Exception as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> TraceError:
        if getattr(error, "errno", None) not in (errno.ENOSPC, errno.EDQUOT):
            return TraceError(f"{self.path} cannot be written: {error!r}")
        steps, done = len(self.header.steps), int(self._complete.sum())
        stored = sum(s.nbytes for s in self.header.sites.values() if s.per_step) * done
        free = shutil.disk_usage(self.path.parent).free
        return TraceError(
            f"{self.path}: the disk is full. {done} of {steps} steps are recorded and stay "
            f"readable; the rest needs {format_bytes(estimate(self.header) - stored)} and "
            f"{format_bytes(free)} is free. {RECORD_LESS}, or write elsewhere"
        )


def _skeleton(header: Header) -> dict[str, bytes]:
    """All files of a store without its chunks of values, by name.

    They are made in memory and written as plain files, because Zarr's own creation of a small
    array on disk takes 5 ms: 11 s for 300 sites with six coordinates, against 0.7 s.
    """
    steps = {"step": (("step",), header.steps), "timestep": (("step",), header.timesteps)}
    made: dict[tuple, dict[str, bytes]] = {}  # sites share most of their coordinates

    def coordinates(group: str, coords: Mapping[str, tuple[tuple, Any]]) -> dict[str, bytes]:
        files = {}
        for name, (dims, values) in coords.items():
            values = np.asarray(values)
            key = (dims, values.shape, values.dtype.str, values.tobytes())
            if key not in made:
                made[key] = _array_files(dims, values.shape, values.dtype, values=values)
            files |= {f"{group}{name}/{file}": content for file, content in made[key].items()}
        return files

    count = len(header.steps)
    files = coordinates("", steps)
    complete = np.zeros(count, bool)
    files |= _prefixed(
        "complete", _array_files(("step",), (count,), bool, ["timestep"], values=complete)
    )
    group = {"attributes": {}, "zarr_format": 3, "node_type": "group"}
    for site, spec in header.sites.items():
        parts = site.split("/")
        for folder in ("/".join(parts[:n]) for n in range(1, len(parts) + 1)):
            files[f"{folder}/zarr.json"] = json.dumps(group).encode()
        coords = {**steps, **spec.coords} if spec.per_step else spec.coords
        files |= coordinates(f"{site}/", coords)
        extra = [name for name in coords if name not in ("step", *spec.dims)]
        dims, shape, chunk = spec.dims, spec.shape, spec.shape
        if spec.per_step:
            dims, shape, chunk = ("step", *dims), (count, *shape), (1, *shape)
        value = _array_files(dims, shape, spec.dtype, extra, chunk=chunk, plain=_plain(spec))
        files |= _prefixed(f"{site}/value", value)

    # Consolidated here and not at the end: nothing of it changes while the run goes on, and a
    # store whose writer was killed opens as fast as any other. In Zarr's own order, by depth and
    # name, because its reader takes siblings for granted to be neighbours.
    nodes = [name.removesuffix("/zarr.json") for name in files if name.endswith("/zarr.json")]
    nodes.sort(key=lambda node: (node.count("/"), node))
    metadata = {node: json.loads(files[f"{node}/zarr.json"]) for node in nodes}
    consolidated = {"kind": "inline", "must_understand": False, "metadata": metadata}
    attrs = final_attrs(header, "running", "", None)
    root = {**group, "attributes": attrs, "consolidated_metadata": consolidated}
    files["zarr.json"] = json.dumps(root).encode()
    # Given up at the end, so that a full disk has room for saying why the run ended: the root is
    # replaced by a new file. Random, or a compressing file system would reserve nothing.
    files[RESERVE] = os.urandom(len(files["zarr.json"]) + 65536)
    return files


def _plain(spec: SiteSpec) -> bool:
    """Whether a site's chunks are its bytes as they are.

    Compression must cost nothing: 20 MB of attention weights take 0.11 s with Zarr's default
    (zstd), 0.02 s as plain float16, and hardly shrink.
    """
    return spec.dtype == np.float16 or spec.nbytes > 1_000_000


def _array_files(
    dims: Sequence[str],
    shape: Sequence[int],
    dtype: np.dtype | type,
    coordinates: Sequence[str] = (),
    *,
    chunk: Sequence[int] | None = None,
    plain: bool = True,
    values: np.ndarray | None = None,
) -> dict[str, bytes]:
    """The files of one Zarr array; `coordinates` are those that xarray cannot tell by name."""
    files: dict[str, Any] = {}
    dtype = np.dtype(dtype)
    array = zarr.create_array(
        MemoryStore(files),
        shape=tuple(shape),
        chunks=tuple(chunk or shape),
        dtype=str if dtype.kind == "U" else dtype,  # variable-length UTF-8
        fill_value=np.nan if dtype.kind == "f" else "" if dtype.kind == "U" else 0,
        compressors=None if plain else "auto",
        dimension_names=list(dims),
        attributes={"coordinates": " ".join(coordinates)} if coordinates else {},
        config={"write_empty_chunks": True},
        chunk_key_encoding={"name": "default", "separator": "."},  # a file each, and no folders
        zarr_format=3,
    )
    if values is not None:
        array[:] = values
    return {name: content.to_bytes() for name, content in files.items()}


def _prefixed(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": content for name, content in files.items()}


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
