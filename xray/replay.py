"""Running a trace again: what of a run stands in its trace, and whether the bits agree."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xray import edits as named_edits
from xray.adapters import weighed
from xray.batch import EMBEDDED
from xray.store import TraceError
from xray.taps import Edit, Observation, matches
from xray.taps import edit as make_edit
from xray.trace import Trace, diff

if TYPE_CHECKING:
    from xray.generator import Generator

LISTED = 4096  # numbers of an edit's parameter that a trace keeps: as text, 20 bytes each


class Replay(NamedTuple):
    """What `Generator.replay` found.

    Attributes:
        trace: the new run.
        equal: whether every recorded tensor has the same bits; not where there is none.
        rows: site by site and step by step, as `xray.diff` gives them.
    """

    trace: Trace
    equal: bool
    rows: list


def replay(
    model: Generator,
    trace: Trace,
    *,
    edit: Iterable[Edit] | None = None,
    store: Any = None,
    overwrite: bool = False,
) -> Replay:
    """Run a trace again with its own settings and compare the bits.

    Args:
        trace: from this model.
        edit: the run's edits, needed where one of them is not in `xray.edits`.
        store, overwrite: as for `Generator.generate`, where the new run does not fit into memory.

    Returns:
        A `Replay`: the new trace, whether every recorded bit agrees, and where not.

    Raises:
        ValueError: the trace is another model's, its edits cannot be made again, or `store` is
            where it is itself.

    Example:
        >>> model.replay(xray.open("runs/a.zarr")).equal
        True
    """
    if store is not None and trace.path and Path(store).resolve() == trace.path.resolve():
        raise ValueError(f"store={os.fspath(store)!r} is the trace itself: choose another place")
    a = trace.attrs
    then, now = a.get("adapters", []), [adapter.to_json() for adapter in model.adapters]
    if a["digest"] != model.digest and [*map(weighed, then)] != [*map(weighed, now)]:
        raise ValueError(
            f"the trace was made with the adapters {then} and this model has {now}: load and "
            "unload until they agree"
        )
    if a["digest"] != model.digest:
        raise ValueError(
            f"the trace was made by {a['model']} with weights {a['digest'][:12]}; "
            f"this is {model.name} with weights {model.digest[:12]}"
        )
    for name, own in (("numerics", model.numerics), ("mode", model.mode)):
        if a[name] != own:
            raise ValueError(
                f"the trace was made with {name} {a[name]} and this model has {own}; the bits "
                f"would differ: load it with the trace's own"
            )
    again = model.generate(
        **_asked(trace, edit),
        latent=trace["sampler/start"].values if "sampler/start" in trace else None,
        start_step=a["start_step"],
        record=[_observation_from_json(o) for o in a["record"]],
        store=store,
        overwrite=overwrite,
    )
    found = diff(trace, again)
    # A run that ended early has not everything; what it has must agree.
    missing = found.only_a or found.mismatched or (trace.status == "complete" and found.only_b)
    equal = bool(found.rows) and not missing and all(row.equal for row in found.rows)
    return Replay(again, equal, found.rows)


def resume(
    model: Generator, trace: Trace, step: int, *, latent: Any = None, **changes: Any
) -> Trace:
    """Go on with a recorded run from one of its steps, as it was or with something changed.

    Args:
        trace: with ``sampler/latent``.
        step: the step to begin with.
        latent: what this step receives, in place of what it received then.
        **changes: what `generate` is to be asked in place of what it was asked then: another
            prompt, seed (of the noise put back; the run starts from the latent), guidance, edits,
            sampler (with its own eta then, unless that is given too).

    Returns:
        A `Trace` of the steps from `step` on. With nothing changed its picture has the same bits,
        but for the samplers that remember earlier steps (PNDM, LMS, DPM-Solver++): they begin anew.

    Raises:
        TraceError: no such step, or ``sampler/latent`` was not recorded, or not whole in float32.
        ValueError: one of the run's edits is not in `xray.edits`, or has changed the recorded
            latent already: give ``edit=[...]``. What is changed gives the step another timestep,
            or asks for guidance where the negative prompt is not known.

    Example:
        >>> trace = model.generate("a red star", seed=7)
        >>> model.resume(trace, 10, prompt="a blue star").image
    """
    edit = changes.pop("edit", None)
    asked = _asked(trace, edit)
    if changes.get("sampler", asked["sampler"]) != asked["sampler"]:
        del asked["eta"]  # which was that sampler's
    del asked["width"], asked["height"]  # the latent has them
    asked |= changes
    if edit is None:  # an edit that is over by now would be refused as a mistake
        asked["edit"] = [e for e in asked["edit"] if e.steps is None or max(e.steps) >= step]
    lost = "uncond" not in trace.attrs["tokens"] and EMBEDDED in trace.attrs["negative"]
    if lost and "guidance" in changes and "negative" not in changes:
        raise ValueError(
            "the negative prompt was given as an embedding, which a run at guidance 1 does not "
            "record: say negative= with the other guidance"
        )
    if latent is None:
        latent = _recorded_latent(trace, step)
        for e in asked["edit"] if edit is None else ():
            if matches(e.pattern, "sampler/latent") and e.active(step, [None])[0]:
                raise ValueError(
                    f"the latent recorded at step {step} is what the edit at {e.pattern!r} made of "
                    "it, which would be made twice: say edit=[…], which edits go on from here"
                )
        steps, sampler, spacing = (asked[k] for k in ("steps", "sampler", "spacing"))
        now = model.timesteps(steps, sampler, spacing)[step : step + 1]
        then = trace.timesteps[trace.steps.index(step)]
        if now.size and now[0] != then:
            raise ValueError(
                f"step {step} of {steps} steps of {sampler} ({spacing or model.spacing}) is at "
                f"timestep {now[0]:g}, and the recorded latent has the noise of {then:g}: keep "
                "steps, sampler and spacing, or give latent="
            )
    return model.generate(**asked, latent=latent, start_step=step)


def _recorded_latent(trace: Trace, step: int) -> np.ndarray:
    latent = trace.sel("sampler/latent", step=step, evaluation=0)
    if latent.dims != ("image", "y", "x", "channel") or latent.dtype != np.float32:
        raise TraceError(
            f"sampler/latent was recorded as {latent.dtype} {latent.dims}, from which no run goes "
            "on with the same bits: record it whole, or give latent="
        )
    return latent.values


def _asked(trace: Trace, edit: Iterable[Edit] | None) -> dict[str, Any]:
    """What `generate` was asked for a trace, but for where it started and what it recorded."""
    a = trace.attrs
    if edit is None:
        edit = [_edit_from_json(e) for e in a["edits"]]
    prompts = {"prompt": list(a["prompt"]), "negative": list(a["negative"])}
    for key, branch in (("prompt", "cond"), ("negative", "uncond")):
        for i in range(len(prompts[key])):
            if branch not in a["tokens"]:  # at guidance 1 it plays no part
                if prompts[key][i] == EMBEDDED:
                    prompts[key][i] = prompts["prompt"][i]
            elif not a["tokens"][branch][i]:
                prompts[key][i] = trace["text/given"].sel(branch=branch).isel(image=i).values
    return {
        **prompts,
        "steps": a["steps"],
        "guidance": a["guidance"],
        "seed": a["seeds"],
        "sampler": a["sampler"],
        "eta": a["eta"],
        "spacing": a["spacing"],
        "width": a["width"],
        "height": a["height"],
        "truncate": True,  # what was too long was cut then too
        "edit": edit if isinstance(edit, Edit) else list(edit),
    }


def _observation_from_json(data: dict[str, Any]) -> Observation:
    tokens = data["tokens"]
    listed = {"mean": tuple(data["mean"]), "tokens": None if tokens is None else tuple(tokens)}
    return Observation(**{**data, **listed})


def edit_json(e: Edit) -> dict[str, Any]:
    """What a trace keeps of an edit; "named" is whether it can be made again from that."""
    name = getattr(e.fn, "__name__", repr(e.fn))
    large = any(_is_large(value) for value in e.params.values())
    return {
        "pattern": e.pattern,
        "name": name,
        "named": named_edits.NAMED.get(name) is e.fn and not large,
        "steps": None if e.steps is None else sorted(e.steps),
        "branch": e.branch,
        "params": {k: _listed(v) for k, v in e.params.items()},
    }


def _is_large(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.size > LISTED


def _listed(value: Any) -> Any:
    if _is_large(value):
        digest = hashlib.sha256(np.ascontiguousarray(value)).hexdigest()
        return {"shape": list(value.shape), "dtype": str(value.dtype), "sha256": digest}
    return value.tolist() if isinstance(value, np.ndarray) else value


def _edit_from_json(data: dict[str, Any]) -> Edit:
    if not data["named"]:
        raise ValueError(
            f"the edit {data['name']!r} at {data['pattern']!r} is not one of xray.edits, or was "
            "given a large tensor, and a trace holds neither code nor such: hand the run's edits "
            "in again: replay(trace, edit=[...])"
        )
    return make_edit(
        data["pattern"],
        named_edits.NAMED[data["name"]],
        steps=data["steps"],
        branch=data["branch"],
        **data["params"],
    )
