"""Runs in numbers: what a script's ``summary.json`` holds, and statistics of a trace on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xray import stats

if TYPE_CHECKING:
    from xray.store import SiteSpec
    from xray.trace import Trace

# The attributes of a trace that say what was asked for.
SETTINGS = (
    "prompt",
    "negative",
    "model",
    "digest",
    "numerics",
    "mode",
    "seeds",
    "sampler",
    "eta",
    "spacing",
    "steps",
    "start_step",
    "guidance",
    "width",
    "height",
    "edits",
)


def of_trace(trace: Trace) -> dict[str, Any]:
    """What a run was, as JSON values.

    Returns:
        The settings by name, ``tokens`` of each branch and image, ``versions`` of the packages,
        and ``sites``: for each its ``dims``, ``shape``, ``dtype`` and ``bytes``, uncompressed.
    """
    settings = {name: trace.attrs.get(name) for name in SETTINGS}
    sites = {site: site_row(trace, site) for site in trace.sites}
    return settings | {
        "tokens": trace.attrs.get("tokens"),
        "versions": trace.attrs.get("versions"),
        "sites": sites,
        "bytes": trace.nbytes,
    }


def site_row(trace: Trace, site: str) -> dict[str, Any]:
    """``dims``, ``shape``, ``dtype`` and ``bytes`` of one recorded site; reads nothing."""
    spec: SiteSpec = trace.specs[site]
    steps = len(trace.steps)
    return {
        "dims": ["step", *spec.dims] if spec.per_step else list(spec.dims),
        "shape": [steps, *spec.shape] if spec.per_step else list(spec.shape),
        "dtype": str(spec.dtype),
        "bytes": spec.nbytes * (steps if spec.per_step else 1),
    }


def by_step(trace: Trace, site: str) -> Iterator[tuple[int | None, dict[str, float]]]:
    """``(step, statistics)`` of one site, with `xray.stats.summary`'s; reads one step at a time.

    A site that is recorded once has the step None. Where a step evaluates the network more than
    once, the statistics are of the first evaluation.
    """
    for step in trace.steps if trace.specs[site].per_step else [None]:
        yield step, stats.summary(trace.sel(site, step=step, evaluation=0).values)


def overall(trace: Trace, site: str) -> dict[str, float]:
    """`xray.stats.summary` of all steps of a site, as `by_step` reads them."""
    parts = [part for _, part in by_step(trace, site)]
    spec = trace.specs[site]
    lengths = zip(spec.dims, spec.shape, strict=True)
    size = math.prod(length for dim, length in lengths if dim != "evaluation")
    total = {name: sum(part[name] for part in parts) for name in ("nan", "inf")}
    parts = [part | {"n": size - part["nan"] - part["inf"]} for part in parts]
    parts = [part for part in parts if part["n"]]
    if not parts:
        return dict.fromkeys(("min", "max", "mean", "std"), math.nan) | total
    count = sum(part["n"] for part in parts)
    mean = sum(part["n"] * part["mean"] for part in parts) / count
    # The variance of the whole is the mean variance of its parts and the variance of their means.
    spread = sum(p["n"] * (p["std"] ** 2 + (p["mean"] - mean) ** 2) for p in parts) / count
    return {
        "min": min(part["min"] for part in parts),
        "max": max(part["max"] for part in parts),
        "mean": mean,
        "std": math.sqrt(spread),
    } | total


def write(path: Path, values: dict[str, Any]) -> None:
    """Write a summary as JSON that any reader takes: what is not finite becomes null."""
    path.write_text(json.dumps(_plain(values), indent=1, ensure_ascii=False) + "\n", "utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
