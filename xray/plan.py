"""What a run will compute and record, known and checked before its first step.

plan = model.plan("a red star", steps=50, record=["unet/**/cross/weights"])
print(plan)                                     # 50 steps, 12 sites, 19.5 MB
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.batch import Batch, eta_of, guidance_of, read_batch, start_latent
from xray.edits import NAMED
from xray.environment import versions
from xray.program import Program
from xray.replay import edit_json
from xray.samplers import SAMPLERS
from xray.stats import format_bytes
from xray.store import Header, SiteSpec, check_output, check_room, estimate
from xray.taps import (
    BRANCHES,
    Context,
    Edit,
    Observation,
    SiteError,
    applied,
    as_edits,
    as_observations,
    check_edited,
    matches,
    nearest,
    unmatched,
)

if TYPE_CHECKING:
    from xray.generator import Generator

DEFAULT_RECORD = ("sampler/*",)
SAMPLER_SITES = (
    "sampler/latent",
    "sampler/noise_uncond",
    "sampler/noise_cond",
    "sampler/noise",
    "sampler/denoised",
    "sampler/added_noise",
)
ONCE = ("text/given", "sampler/start", "sampler/out", "image")  # recorded always; given: if so


def plan(
    model: Generator,
    prompt: Any,
    *,
    negative: Any = "",
    steps: int = 25,
    guidance: float | Sequence[float] = 5.0,
    seed: int | Sequence[int] = 0,
    sampler: str = "ddim",
    eta: float | None = None,
    spacing: str | None = None,
    width: int | None = None,
    height: int | None = None,
    latent: Any = None,
    start_step: int = 0,
    record: str | Observation | Iterable[str | Observation] = DEFAULT_RECORD,
    edit: Edit | Sequence[Edit] = (),
    store: Any = None,
    overwrite: bool = False,
    truncate: bool = False,
) -> Plan:
    """Check what `generate` would be asked, and say what it would record; nothing is computed.

    Args:
        prompt, …: as for `Generator.generate`.

    Returns:
        A `Plan`.

    Raises:
        ValueError, TypeError, PromptTooLong, SiteError, TraceError: as `generate`.

    Example:
        >>> model.plan("a red star", steps=50).nbytes
        1077248
    """
    if store is not None:
        check_output(store, overwrite=overwrite)
    batch = read_batch(model, prompt, negative, seed, truncate)
    start, start_step = start_latent(model, batch, latent, width, height, start_step, steps)
    planned = Plan(
        model=model,
        batch=batch,
        start=start,
        latent_given=latent is not None,
        steps=steps,
        start_step=start_step,
        guidance=guidance_of(guidance, steps),
        sampler=sampler,
        eta=eta_of(sampler, eta),
        spacing=spacing or model.spacing,
        observations=as_observations(record),
        edits=as_edits(edit),
    )
    check_room(planned.header, store)
    return planned


@dataclass(eq=False)
class Plan:
    """One run before its first step. Made by `plan`.

    Attributes:
        batch: prompts, tokens and seeds, image by image.
        start: the latent it starts from, (n, h/8, w/8, 4).
        timesteps: (steps − start_step + 1,), noisiest first; the last is where the run ends.
        branches: of guidance: ``("uncond", "cond")``, or only the latter at guidance 1.
        programs: the traced networks by name.
        header: steps, sites and attributes of the trace.
    """

    model: Generator
    batch: Batch
    start: np.ndarray
    latent_given: bool
    steps: int
    start_step: int
    guidance: float | list[float]
    sampler: str
    eta: float
    spacing: str
    observations: Sequence[Observation]
    edits: Sequence[Edit]
    branches: tuple[str, ...] = field(init=False)
    timesteps: np.ndarray = field(init=False)
    programs: dict[str, Program] = field(init=False)
    header: Header = field(init=False)

    def __post_init__(self) -> None:
        self.branches = ("cond",) if np.all(np.equal(self.guidance, 1.0)) else BRANCHES
        visited = self.model.timesteps(self.steps, self.sampler, self.spacing)
        self.timesteps = visited[self.start_step :]
        self.programs = self._trace_networks()
        self._check_patterns()
        self._check_edits()
        self.header = Header(
            steps=range(self.start_step, self.steps),
            timesteps=self.timesteps[:-1],
            sites=self._specs(),
            attrs=self._attrs(),
        )

    def guidance_at(self, step: int) -> np.float32:
        return np.float32(self.guidance[step] if isinstance(self.guidance, list) else self.guidance)

    @property
    def nbytes(self) -> int:
        """Bytes that the recording takes, uncompressed."""
        return estimate(self.header)

    def __str__(self) -> str:
        steps, sites = len(self.header.steps), len(self.header.sites)
        return f"{steps} steps, {sites} sites, {format_bytes(self.nbytes)}"

    @property
    def evaluations(self) -> int:
        """Of the network in one step, at most."""
        return SAMPLERS[self.sampler].evaluations

    @property
    def reads_text(self) -> bool:
        """Whether a prompt is text, so that the text encoder runs."""
        return any(map(self.reads_text_of, self.branches))

    def reads_text_of(self, branch: str) -> bool:
        return any(self.batch.tokens[branch])

    @property
    def given(self) -> list[str]:
        """The branches of this run for which an embedding was given in place of a text."""
        return [b for b in self.batch.given if b in self.branches]

    def _trace_networks(self) -> dict[str, Program]:
        """Which tells what sites there are and how large."""
        arch, tokens = self.model.architecture, self.batch.texts(self.branches)
        latent, count = self.start.shape, len(self.start)
        rows = count * len(self.branches)
        programs = {}
        embedding, ids = (count, arch.widths[0]), (rows, arch.text_length)
        for name, shapes, branches in (
            ("text", [ids], self.branches),
            ("unet", [latent, embedding, (*ids, arch.text_width)], self.branches),
            ("decoder", [latent], (None,)),
        ):
            dtype = np.int32 if name == "text" else np.float32
            programs[name] = self.model.parts[name].program(
                [np.broadcast_to(np.zeros((), dtype), s) for s in shapes],
                self.observations,
                self.edits,
                branches,
                tokens,
                loop=name == "unet",
            )
        return programs

    @property
    def sampler_sites(self) -> list[str]:
        absent = set()
        if len(self.branches) == 1:
            absent.add("sampler/noise_uncond")
        if not self.eta:
            absent.add("sampler/added_noise")
        return [s for s in SAMPLER_SITES if s not in absent]

    @property
    def sites(self) -> list[str]:
        """Every site that this run computes, in its order."""
        text = list(self.programs["text"].sites) if self.reads_text else []
        networks = [*self.programs["unet"].sites, *self.programs["decoder"].sites]
        absent = set()
        if not self.given:
            absent.add("text/given")
        if not self.latent_given:
            absent.add("sampler/start")
        return [*text, *self.sampler_sites, *networks, *(s for s in ONCE if s not in absent)]

    def _check_edits(self) -> None:
        """Refuse edits that would never be on, and our own where they cannot be done."""
        fixed = {"sampler/noise_cond": {"cond"}, "sampler/noise_uncond": {"uncond"}}
        of = {
            "unet": set(self.branches),
            "text": {b for b in self.branches if self.reads_text_of(b)},
        }
        for e in self.edits:
            sites = [s for s in self.sites if matches(e.pattern, s)]
            if e.fn in NAMED.values():  # a network's sites were tried when it was traced
                for s in sites:
                    if s in SAMPLER_SITES:
                        self._try_edit(e, s)
            looped = [s for s in sites if s.startswith(("unet/", "sampler/"))]
            run = range(self.start_step, self.steps)
            if looped and e.steps is not None and not e.steps.intersection(run):
                raise ValueError(
                    f"the edit at {e.pattern!r} is on at steps {sorted(e.steps)}, and this run has "
                    f"{run.start} … {run.stop - 1}"
                )
            reached = set().union(*(fixed.get(s, of.get(s.split("/")[0], set())) for s in sites))
            if e.branch is not None and e.branch not in reached:
                given = e.branch in self.branches and sites[0].startswith("text/")
                raise ValueError(
                    f"the edit at {e.pattern!r} is for branch {e.branch!r}, which "
                    f"{sites[0]} does not have in this run"
                    f"{': it was given as an embedding' if given else ''}"
                )

    def _try_edit(self, e: Edit, site: str) -> None:
        x = np.zeros_like(self.start)
        context = Context(site, None, (), np.int32(self.start_step), np.float32(self.timesteps[0]))
        check_edited(x, applied(e, x, context, e.params, as_array=np.asarray), site)

    def _check_patterns(self) -> None:
        """Refuse patterns that this run can never reach, with the reason."""
        sites = self.sites
        patterns = [o.pattern for o in self.observations] + [e.pattern for e in self.edits]
        for pattern in unmatched(patterns, sites):
            reasons = {
                "sampler/noise_uncond": "at guidance 1 there is no unconditional branch",
                "sampler/added_noise": "at eta 0 no noise is put back",
                "sampler/start": "no latent was given to start from",
                "text/given": "no embedding was given in place of a prompt",
            }
            why = next((r for s, r in reasons.items() if matches(pattern, s)), None)
            if why is None and pattern.startswith("encoder/"):
                why = (
                    "a generation starts from noise and does not run the encoder; "
                    "use model.encoder.record([...], pixels)"
                )
            if why is None and pattern.startswith("text/") and not self.reads_text:
                why = "the prompts were given as embeddings, so the text encoder does not run"
            why = why or f"nearest: {', '.join(nearest(pattern, sites))}"
            raise SiteError(f"{pattern!r} names no site that this run computes: {why}")
        for o in self.observations:
            named = [s for s in sites if matches(o.pattern, s)]
            if o != Observation(o.pattern) and set(named) <= set(ONCE):
                raise SiteError(
                    f"the observation of {', '.join(named)} asks for less than all of it, and this "
                    "is always kept whole, in float32: name it alone, or not at all"
                )
        for e in self.edits:
            once = [
                s for s in sites if matches(e.pattern, s) and not s.startswith(("unet", "samp"))
            ]
            if once and e.steps is not None:
                raise SiteError(
                    f"the edit at {e.pattern!r} has steps, but {once[0]} runs only once"
                )
            if any(matches(e.pattern, s) for s in ONCE):
                raise SiteError(
                    f"the edit at {e.pattern!r} names {', '.join(ONCE)}: results, not sites"
                )

    def observation(self, site: str) -> Observation | None:
        return next((o for o in self.observations if matches(o.pattern, site)), None)

    def _specs(self) -> dict[str, SiteSpec]:
        """What will be recorded, in the order of `sites`."""
        start = self.start
        coords = {
            "evaluation": ("evaluation", range(self.evaluations)),
            "branch": ("branch", list(self.branches)),
        }
        words = self.batch.words(self.branches)
        count, height, width, _ = start.shape

        def spec(dims: Sequence[str], shape: Sequence[int], dtype: str, per_step: bool, o=None):
            if per_step and self.evaluations > 1:
                dims, shape = ("evaluation", *dims), (self.evaluations, *shape)
            kept = {k: v for k, v in coords.items() if k in dims}
            if "token" in dims:
                positions = o.tokens if o is not None and o.tokens is not None else None
                positions = positions or range(self.model.architecture.text_length)
                kept["token"] = ("token", list(positions))
                kept |= {k: (d, v[..., list(positions)]) for k, (d, v) in words.items()}
            return SiteSpec(tuple(dims), tuple(shape), dtype, per_step, kept)

        latent_dims = ("image", "y", "x", "channel")
        found = {}
        for site in self.sites:
            o = self.observation(site)
            program = self.programs.get(site.split("/")[0])
            if program is not None and site in program.observed:
                dims, shape, dtype = program.observed[site]
                found[site] = spec(dims, shape, dtype, program.loop, o)
            elif site in SAMPLER_SITES and o is not None:
                reduced = reduced_array(o, site, np.broadcast_to(np.float32(0), start.shape))
                dims = ("image", *o.reduced_dims(site))
                found[site] = spec(dims, reduced.shape, o.record_dtype(site), True)
            elif site in ("sampler/start", "sampler/out"):
                found[site] = spec(latent_dims, start.shape, "float32", False)
            elif site == "image":
                shape = (count, height * 8, width * 8, 3)
                found[site] = spec(latent_dims, shape, "uint8", False)
            elif site == "text/given":
                arch = self.model.architecture
                shape = (len(self.branches), count, arch.text_length, arch.text_width)
                found[site] = spec(("branch", "image", "token", "channel"), shape, "float32", False)
        return found

    def _attrs(self) -> dict[str, Any]:
        """All that is needed to run it again."""
        return {
            "prompt": self.batch.shown("cond"),
            "negative": self.batch.shown("uncond"),
            "tokens": self.batch.tokens_json(self.branches),
            "seeds": self.batch.seeds,
            "sampler": self.sampler,
            "eta": self.eta,
            "spacing": self.spacing,
            "steps": self.steps,
            "start_step": self.start_step,
            "guidance": self.guidance,
            "width": self.start.shape[2] * 8,
            "height": self.start.shape[1] * 8,
            "model": self.model.name,
            "digest": self.model.digest,
            "sources": self.model.sources,
            "adapters": [a.to_json() for a in self.model.adapters],
            "numerics": self.model.numerics,
            "mode": self.model.mode,
            "memory": self.model.memory,
            "scaling_factor": self.model.architecture.scaling_factor,
            "rgb_matrix": self.model.rgb_matrix,
            "record": [asdict(o) for o in self.observations],
            "edits": [edit_json(e) for e in self.edits],
            "versions": versions(),
        }


def reduced_array(o: Observation, site: str, array: np.ndarray) -> np.ndarray:
    """What an observation leaves of one of the sampler's arrays."""
    return o.reduce(
        site, array, gather=np.take, mean=np.mean, cast=lambda x, dtype: np.asarray(x, dtype)
    )
