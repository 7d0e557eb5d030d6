"""The same noise denoised by every sampler, and how far each ends from where a long run ends.

All deterministic samplers solve one and the same differential equation, the probability flow (Song
et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations"): with more
and more steps they end in the same latent, and how far from it they end with few is their error.
Samplers that put noise back draw from the same distribution of pictures, but another picture.

planned = plan(steps=(4, 8, 16), reference=80)
data = compare(make(model, "a red star", planned, seeds=[7]), planned)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray

from xray.samplers import SAMPLERS, SPACINGS, sampler_named

if TYPE_CHECKING:
    from xray.generator import Generator
    from xray.trace import Trace

# What the others are measured with: of those here it nears its end fastest, in evaluations.
REFERENCE, REFERENCE_SPACING = "dpmpp_2m", "karras"
SAME = 1e-3  # relative distance below which two samplers are said to go the same path

LATENT = ("y", "x", "channel")
PICTURE = ("pixel_y", "pixel_x", "rgb")


class Run(NamedTuple):
    """One run, as `generate` is asked for it."""

    sampler: str
    steps: int
    spacing: str


@dataclass(frozen=True)
class Plan:
    """Which runs are made, and what of them is compared.

    Attributes:
        reference, half: the long run, and one of half its length to tell how exact it is.
        by_steps: for each sampler and number of steps.
        by_spacing: for each deterministic sampler and each spacing that it takes.
        spacing: of all in `by_steps`.
    """

    reference: Run
    half: Run
    by_steps: dict[tuple[str, int], Run]
    by_spacing: dict[tuple[str, str], Run]
    spacing: str

    @property
    def all(self) -> list[Run]:
        """Each once, the reference first."""
        found = [self.reference, self.half, *self.by_steps.values(), *self.by_spacing.values()]
        return list(dict.fromkeys(found))

    @property
    def steps(self) -> int:
        """Of all runs together."""
        return sum(run.steps for run in self.all)


def deterministic(sampler: str) -> bool:
    """Whether a sampler puts no noise back, as it is by default."""
    return not SAMPLERS[sampler].eta


def plan(
    samplers: Sequence[str] = tuple(SAMPLERS),
    steps: Sequence[int] = (4, 8, 16),
    *,
    spacing: str = "trailing",
    reference: int = 80,
) -> Plan:
    """Lay out the runs; nothing is computed.

    Args:
        samplers: which to compare.
        steps: numbers of steps. Spacings are compared at the middle one.
        spacing: of the timesteps, one that every sampler takes: ``"leading"``, ``"trailing"`` or
            ``"linspace"``. Runs of ``"leading"`` begin at less noise the fewer steps they have,
            and are off before their first step.
        reference: steps of the long run, more than any of `steps`.

    Raises:
        ValueError: a name that is not known, or numbers that make no comparison.
    """
    counts = sorted(set(steps))
    if not samplers or not counts or counts[0] < 1:
        raise ValueError("a comparison needs a sampler, and numbers of steps from 1 up")
    if not max(counts) < reference <= 1000:
        raise ValueError(
            f"the reference of {reference} steps must have more than those compared with it, "
            f"which have up to {counts[-1]}, and at most 1000"
        )
    names = list(dict.fromkeys(samplers))
    for name in names:
        sampler_named(name)
    middle = counts[len(counts) // 2]
    return Plan(
        reference=Run(REFERENCE, reference, REFERENCE_SPACING),
        half=Run(REFERENCE, max(1, reference // 2), REFERENCE_SPACING),
        by_steps={(name, n): Run(name, n, spacing) for name in names for n in counts},
        by_spacing={
            (name, each): Run(name, middle, each)
            for name in names
            for each in SPACINGS
            if deterministic(name) and takes(name, each)
        },
        spacing=spacing,
    )


def takes(sampler: str, spacing: str) -> bool:
    """Whether a sampler can visit timesteps that are spaced so."""
    try:
        SAMPLERS[sampler].timesteps(1, spacing)
    except ValueError:
        return False
    return True


# -------------------------------------------------------------------------------------- the runs


class Made(NamedTuple):
    """What is kept of a run: its path, its picture and what it cost."""

    path: np.ndarray  # (steps + 1, y, x, channel), at the beginning of each step and at the end
    pixels: np.ndarray  # (pixel_y, pixel_x, rgb) uint8
    evaluations: int
    seconds: float


def make(
    model: Generator,
    prompt: Any,
    planned: Plan,
    seeds: Sequence[int],
    tick: Callable[..., None] = lambda *_: None,
    **asked: Any,
) -> dict[tuple[Run, int], Made]:
    """Make every run from every seed's noise. One traced program serves them all.

    Args:
        tick: called after every step.
        **asked: of `generate`, the same for all.
    """
    asked = {"record": "sampler/latent", **asked}
    for run in planned.all:  # what is wrong is said before the first is made
        model.plan(prompt, **run._asdict(), **asked)
    return {
        (run, seed): kept(
            model.generate(prompt, seed=seed, progress=tick, **run._asdict(), **asked)
        )
        for seed in seeds
        for run in planned.all
    }


def kept(trace: Trace) -> Made:
    """Of a trace with ``sampler/latent`` what is compared; of a batch the first image."""
    latents = trace["sampler/latent"].values
    seconds = trace.attrs["seconds"]
    return Made(
        path=np.concatenate(
            [trace.sel("sampler/latent", evaluation=0).values[:, 0], trace["sampler/out"].values]
        ),
        pixels=trace["image"].values[0],
        # Where a step had no second evaluation, NaN stands for it.
        evaluations=int(np.isfinite(latents[..., 0, 0, 0, 0]).sum()),
        seconds=sum(seconds.get(phase, 0.0) for phase in ("first step", "other steps")),
    )


# -------------------------------------------------------------------------------- the comparison


def distance(latent: np.ndarray, other: np.ndarray) -> float:
    """‖a − b‖ / ‖b‖."""
    a, b = np.asarray(latent, np.float64), np.asarray(other, np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def compare(made: Mapping[tuple[Run, int], Made], planned: Plan) -> xarray.Dataset:
    """How far every run ends from the reference's end, what it cost, and the plane of all paths.

    Args:
        made: from `make`.
        planned: from `plan`, what it was made for.

    Returns:
        ``distance`` (sampler, steps, image), `distance` of the last latent from the reference's:
        an error where ``deterministic`` (sampler) holds, another picture where it does not;
        ``doubt`` (image), that of a reference with half the steps, whose last step, down from the
        schedule's least noise, is the same; ``evaluations`` and ``seconds``
        (sampler, steps), the mean; ``spaced`` (sampler, spacing, image), as ``distance``, NaN where
        a sampler does not take the spacing or puts noise back.

        Of the first image: ``path`` (sampler, point, y, x, channel), the variance-preserving latent
        at the beginning of each step and at the end, with the most steps; ``few`` (sampler,
        few_point, …), the same with the fewest, and ``long`` (long_point, …), the reference's;
        ``path_plane``, ``few_plane``, ``long_plane`` (…, axis), where these are in the plane of the
        first two principal components of ``path``, and ``explained`` (axis), their share of its
        variance. ``picture`` (sampler, steps, pixel_y, pixel_x, rgb) and ``long_picture``.
    """
    seeds = list(dict.fromkeys(seed for _, seed in made))
    names = list(dict.fromkeys(name for name, _ in planned.by_steps))
    counts = sorted({n for _, n in planned.by_steps})
    first = seeds[0]

    def each(value: Callable[[Made, int], float], by: Mapping, rows: Sequence, columns: Sequence):
        """value(run, seed) by (row, column, seed), NaN where there is no such run."""
        return np.array([
            [[value(made[by[r, c], s], s) if (r, c) in by else np.nan for s in seeds]
             for c in columns] for r in rows
        ])  # fmt: skip

    def apart(run: Made, seed: int) -> float:
        return distance(run.path[-1], made[planned.reference, seed].path[-1])

    long = made[planned.reference, first]
    shown = {n: [made[planned.by_steps[name, n], first] for name in names] for n in counts}
    path, few = (np.stack([run.path for run in shown[n]]) for n in (counts[-1], counts[0]))
    (path_plane, few_plane, long_plane), explained = in_plane(path, few, long.path)
    by_steps = (planned.by_steps, names, counts)
    return xarray.Dataset(
        {
            "distance": (("sampler", "steps", "image"), each(apart, *by_steps)),
            "doubt": ("image", [apart(made[planned.half, s], s) for s in seeds]),
            "evaluations": (
                ("sampler", "steps"),
                each(lambda run, _: run.evaluations, *by_steps)[..., 0].astype(int),
            ),
            "seconds": (
                ("sampler", "steps"),
                each(lambda run, _: run.seconds, *by_steps).mean(axis=-1),
            ),
            "spaced": (
                ("sampler", "spacing", "image"),
                each(apart, planned.by_spacing, names, SPACINGS),
            ),
            "path": (("sampler", "point", *LATENT), path),
            "few": (("sampler", "few_point", *LATENT), few),
            "long": (("long_point", *LATENT), long.path),
            "path_plane": (("sampler", "point", "axis"), path_plane),
            "few_plane": (("sampler", "few_point", "axis"), few_plane),
            "long_plane": (("long_point", "axis"), long_plane),
            "explained": ("axis", explained),
            "picture": (
                ("sampler", "steps", *PICTURE),
                np.stack([[run.pixels for run in shown[n]] for n in counts], axis=1),
            ),
            "long_picture": (PICTURE, long.pixels),
        },
        coords={
            "sampler": names,
            "deterministic": ("sampler", [deterministic(name) for name in names]),
            "steps": counts,
            "spacing": list(SPACINGS),
            "image": seeds,
        },
        attrs={
            "reference": f"{REFERENCE}, {planned.reference.steps} steps, {REFERENCE_SPACING}",
            "compared_spacing": planned.spacing,
            "middle": counts[len(counts) // 2],
        },
    )


def in_plane(path: np.ndarray, *others: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Latents in the plane in which `path` spreads most.

    Args:
        path: (…, y, x, channel), which the plane is fitted to.
        others: the same, to be seen in it.

    Returns:
        The places of `path` and `others`, (…, 2) each, and each axis's share of the variance of
        `path`.

    Reference:
        Pearson 1901, "On Lines and Planes of Closest Fit to Systems of Points in Space".
    """

    def flat(x: np.ndarray) -> np.ndarray:
        return x.reshape(*x.shape[:-3], -1).astype(np.float64)

    points = flat(path)
    points = points.reshape(-1, points.shape[-1])
    centre = points.mean(axis=0)
    _, lengths, axes = np.linalg.svd(points - centre, full_matrices=False)
    powers = lengths**2
    return [(flat(x) - centre) @ axes[:2].T for x in (path, *others)], powers[:2] / powers.sum()


# ------------------------------------------------------------------------------------- findings


def same_path(data: xarray.Dataset) -> dict[str, str]:
    """Samplers that go the same way at every step as one before them, and which one that is."""
    found: dict[str, str] = {}
    names = data["sampler"].values.tolist()
    for i, name in enumerate(names):
        for other in names[:i]:
            # With many steps different ways come near each other, with one all are the same.
            ways = (
                (data[k].sel(sampler=name), data[k].sel(sampler=other)) for k in ("few", "path")
            )
            if other not in found and all(distance(*each) < SAME for each in ways):
                found[name] = other
                break
    return found


def findings(data: xarray.Dataset) -> list[dict[str, Any]]:
    """A row for each sampler: what it cost, and where it ended; the median over the images.

    Returns:
        ``sampler``; ``evaluations`` and ``seconds`` with the most steps; ``error N`` for each
        number of steps, None where noise is put back: these have ``other`` instead, the distance
        from the reference with the most steps; and ``path of``, an earlier one that goes the same.
    """
    same, median = same_path(data), data["distance"].median("image")
    rows = []
    for name in data["sampler"].values.tolist():
        last = data.sel(sampler=name).isel(steps=-1)
        solves = bool(last["deterministic"])
        errors = {
            f"error {n}": float(median.sel(sampler=name, steps=n)) if solves else None
            for n in data["steps"].values.tolist()
        }
        rows.append(
            {
                "sampler": name,
                "evaluations": int(last["evaluations"]),
                "seconds": float(last["seconds"]),
                **errors,
                "other": None if solves else float(median.sel(sampler=name).isel(steps=-1)),
                "path of": same.get(name),
            }
        )
    return rows


def spacing_findings(data: xarray.Dataset) -> list[dict[str, Any]]:
    """A row for each deterministic sampler: its error under each spacing, None where not taken."""
    median = data["spaced"].sel(sampler=data["deterministic"]).median("image")
    return [
        {"sampler": name}
        | {
            each: None if np.isnan(row.sel(spacing=each)) else float(row.sel(spacing=each))
            for each in data["spacing"].values.tolist()
        }
        for name, row in zip(median["sampler"].values.tolist(), median, strict=True)
    ]
