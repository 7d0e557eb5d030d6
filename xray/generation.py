"""One run, from a prompt to a picture and its trace: what `Generator.generate` does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.batch import numbers
from xray.clock import Clock
from xray.pixels import to_uint8
from xray.plan import DEFAULT_RECORD, SAMPLER_SITES, Plan, plan, reduced_array
from xray.program import edits_of
from xray.recorder import MemoryRecorder, Recorder, StoreRecorder
from xray.samplers import SAMPLERS, Prediction
from xray.taps import Context, Edit, EditError, Observation, applied, check_edited, matches
from xray.trace import Trace

if TYPE_CHECKING:
    from xray.generator import Generator


def generate(
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
    progress: bool | Callable[[int, int], None] | None = None,
) -> Trace:
    """Make pictures, and a recording of how they were made.

    Args:
        prompt: text, or an embedding (length, width), or a list of them: the batch.
        negative: what the unconditional branch is given; one for all, or a list.
        steps: sampler steps, 1 … 1000.
        guidance: scale of classifier-free guidance (Ho & Salimans 2022); at 1 the
            unconditional branch is not computed and a step costs half. A list has one for each
            step, for guidance in an interval (Kynkäänniemi et al. 2024) or as a ramp; both
            branches are then computed at every step, unless all are 1.
        seed: of the initial noise and all noise put back; a list is the batch. One seed for a
            list of prompts starts all of them from the same noise.
        sampler: ``"ddim"``, ``"ddpm"``, ``"pndm"``, ``"euler"``, ``"euler_ancestral"``,
            ``"heun"``, ``"lms"`` or ``"dpmpp_2m"``; see `xray.samplers`. Heun evaluates the
            network twice in a step, PNDM in its first: what is recorded at every step then has
            the dimension ``evaluation``, NaN where there was no second.
        eta: how much of the noise taken out is put back at each step; by default the sampler's
            own. 0 for all but ``"ddpm"`` and ``"euler_ancestral"``; ``"ddim"`` takes it too.
        spacing: ``"leading"``, ``"trailing"`` or ``"linspace"``; by default the model's. For
            those from ``"euler"`` on also ``"karras"`` and ``"exponential"``.
        width, height: of the picture, multiples of 64; by default the model's size.
        latent: (h/8, w/8, 4) or (n, h/8, w/8, 4), variance preserving, where the run starts
            in place of noise from `seed`. With `start_step`, the latent that this step
            receives: `noised(image, strength)` gives both.
        start_step: the step to begin with; needs `latent` unless 0. Multistep samplers (PNDM,
            LMS, DPM-Solver++) begin without their memory of the steps before.
        record: site patterns or `xray.observe(...)`; see `xray sites`. ``**`` takes everything
            that this run computes.
        edit: from `xray.edit(...)`, applied in order.
        store: where to stream the trace to, a new folder; by default it stays in memory.
        overwrite: replace a trace that is already at `store`.
        truncate: cut prompts that are too long, with a warning, in place of an error.
        progress: show a progress bar (by default on a terminal), or ``progress(done, steps)``
            called after each step.

    Returns:
        A `Trace`; ``trace.image`` is the picture.

    Raises:
        ValueError, TypeError: an argument is wrong; said before anything is computed.
        PromptTooLong: by how many tokens.
        SiteError: a pattern names nothing that this run computes; says why or what is near.
        TraceError: the recording will not fit, or cannot be written.
        EditError: an edit made another shape, another dtype or NaN; names site and step.
        KeyboardInterrupt: as always. Whatever ends the run, complete steps are kept: on disk
            at `store`, otherwise in the exception's ``trace``.

    Example:
        >>> trace = model.generate("a red star", seed=7, record=["unet/**/cross/weights"])
        >>> trace["unet/mid/attn.0/cross/weights"].dims
        ('step', 'branch', 'image', 'head', 'y', 'x', 'token')
    """
    clock = Clock()
    planned = plan(
        model,
        prompt,
        negative=negative,
        steps=steps,
        guidance=guidance,
        seed=seed,
        sampler=sampler,
        eta=eta,
        spacing=spacing,
        width=width,
        height=height,
        latent=latent,
        start_step=start_step,
        record=record,
        edit=edit,
        store=store,
        overwrite=overwrite,
        truncate=truncate,
    )
    clock.lap("prepare")
    if store is None:
        recorder = MemoryRecorder(planned.header)
    else:
        recorder = StoreRecorder(store, planned.header, overwrite=overwrite)
    run = _Run(planned, recorder, clock, _reporter(progress, str(planned)))
    try:
        run.text()
        run.finish(run.denoise())
        return recorder.close(attrs={"seconds": clock.seconds})
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        reason = "interrupted by the user" if interrupted else f"{type(error).__name__}: {error}"
        error.trace = recorder.close("interrupted" if interrupted else "failed", reason)
        raise
    finally:
        run.report(None, steps)


class _Run:
    """The state of one run between its steps."""

    def __init__(
        self,
        plan: Plan,
        recorder: Recorder,
        clock: Clock,
        report: Callable[[int | None, int], None],
    ):
        self.plan, self.recorder, self.clock, self.report = plan, recorder, clock, report
        self.context: np.ndarray
        self.open_step: int | None = None
        self.evaluation = 0
        self.added: np.ndarray | None = None

    def denoise(self) -> np.ndarray:
        """The sampler's loop: from the start to the latent that is decoded."""
        p = self.plan
        if p.latent_given:
            self.keep("sampler/start", p.start)
        return SAMPLERS[p.sampler].run(
            self.evaluate,
            p.start,
            p.timesteps,
            p.model.schedule,
            self.fresh_noise,
            eta=p.eta,
            first_step=p.start_step,
        )

    def keep(self, site: str, array: np.ndarray, step: int | None = None) -> None:
        """Record one array where it was asked for."""
        spec = self.plan.header.sites.get(site)
        if spec is not None:
            if site in SAMPLER_SITES:  # the networks' own sites leave them reduced
                array = reduced_array(self.plan.observation(site), site, array)
            index = None if step is None else step - self.plan.start_step
            evaluation = self.evaluation if "evaluation" in spec.dims else None
            self.recorder.write(site, array, index, evaluation)

    def edited(self, site: str, x: np.ndarray, step: int, timestep: float) -> np.ndarray:
        """Edits of the sampler's own arrays, between the compiled steps."""
        branch = {"sampler/noise_cond": "cond", "sampler/noise_uncond": "uncond"}.get(site)
        for e in self.plan.edits:
            if matches(e.pattern, site) and e.active(step, [branch])[0]:
                tokens = self.plan.batch.texts(self.plan.branches).get(branch, ())
                context = Context(site, branch, tokens, np.int32(step), np.float32(timestep))
                try:
                    result = applied(e, x.copy(), context, e.params, as_array=np.asarray)
                    x = check_edited(x, result, site)
                except EditError as error:
                    raise EditError(f"{error} (step {step})") from error
                if np.isnan(x).any():
                    raise EditError(f"the edit at {site} at step {step} made a NaN out of numbers")
        return x

    def text(self) -> None:
        """Embed the prompts: what the U-Net attends to, (branches · images, length, width)."""
        p, arch = self.plan, self.plan.model.architecture
        count = len(p.batch.seeds)
        context = np.zeros((len(p.branches), count, arch.text_length, arch.text_width), np.float32)
        if p.reads_text:
            empty = [0] * arch.text_length
            rows = [row for branch in p.branches for row in p.batch.tokens[branch]]
            ids = np.array([[t.id for t in row] if row else empty for row in rows], np.int32)
            values, observed = p.programs["text"]([ids], edits_of("text", p.edits))
            context[:] = values.reshape(context.shape)
            unread = np.array([[not row for row in p.batch.tokens[b]] for b in p.branches])
            for site, array in observed.items():
                if site != "text/out":
                    beside = np.expand_dims(unread, tuple(range(2, array.ndim)))
                    self.keep(site, np.where(beside, np.nan, array))
        for b, branch in enumerate(p.branches):
            for i, prompt in enumerate(p.batch.prompts[branch]):
                if not isinstance(prompt, str):
                    context[b, i] = prompt
        if p.given:
            self.keep("text/given", context)
        if p.reads_text and (o := p.observation("text/out")) is not None:
            self.keep("text/out", reduced_array(o, "text/out", context))
        self.context = context.reshape(-1, *context.shape[2:])
        self.clock.lap("text")

    def evaluate(self, x: np.ndarray, timestep: float, step: int) -> Prediction:
        """One evaluation of the network under guidance: the heart of the loop."""
        if step == self.open_step:
            self.evaluation += 1
        else:
            self._close_step()
            self.open_step, self.evaluation = step, 0
        p, schedule = self.plan, self.plan.model.schedule
        x = self._edited_and_kept("sampler/latent", x, step, timestep)

        embedding = np.tile(p.model.timestep_embedding(timestep), (len(x), 1))
        output, observed = p.programs["unet"](
            [x, embedding, self.context], edits_of("unet", p.edits), step=step, timestep=timestep
        )
        at = f"the U-Net's output at step {step} (timestep {timestep:g})"
        numbers(at, output, FloatingPointError)
        for site, array in observed.items():
            self.keep(site, array, step)

        noises = {}
        for branch, o in zip(p.branches, np.split(output, len(p.branches)), strict=True):
            noise = schedule.to_noise(p.model.architecture.prediction, o, x, timestep)
            noises[branch] = self._edited_and_kept(f"sampler/noise_{branch}", noise, step, timestep)
        noise = noises["cond"]
        if "uncond" in noises:
            noise = noises["uncond"] + p.guidance_at(step) * (noise - noises["uncond"])
        noise = self._edited_and_kept("sampler/noise", noise, step, timestep)
        denoised = schedule.to_denoised(noise, x, timestep)
        changed = self._edited_and_kept("sampler/denoised", denoised, step, timestep)
        if not np.array_equal(changed, denoised):  # some samplers read the one, some the other
            noise = schedule.to_noise("sample", changed, x, timestep)
        return Prediction(noise, changed, x)

    def _edited_and_kept(self, site: str, x: np.ndarray, step: int, timestep: float) -> np.ndarray:
        x = self.edited(site, x, step, timestep)
        self.keep(site, x, step)
        return x

    def fresh_noise(self, step: int, scale: np.float32) -> np.ndarray:
        """The noise that is put back: fixed by each image's seed and the step."""
        drawn = [
            np.random.default_rng([seed, step + 1]).standard_normal(
                self.plan.start.shape[1:], np.float32
            )
            for seed in self.plan.batch.seeds
        ]
        timestep = self.plan.timesteps[step - self.plan.start_step]
        self.added = self.edited("sampler/added_noise", scale * np.stack(drawn), step, timestep)
        return self.added

    def finish(self, latent: np.ndarray) -> None:
        """Decode, and record what comes once."""
        self._close_step()
        self.keep("sampler/out", latent)
        decoder, edits = self.plan.programs["decoder"], edits_of("decoder", self.plan.edits)
        if decoder.observed or edits:  # of the whole batch
            pixels, observed = decoder([latent], edits)
            for site, array in observed.items():
                self.keep(site, array)
        else:
            pixels = self.plan.model.pixels(latent)
        self.keep("image", to_uint8(pixels))
        self.clock.lap("decode")

    def _close_step(self) -> None:
        """All of the open step is known: record it as complete."""
        if self.open_step is None:
            return
        step, self.open_step = self.open_step, None
        if "sampler/added_noise" in self.plan.header.sites:
            # A sampler asks for none where its variance is zero: the last step of DDPM.
            none = np.zeros_like(self.plan.start)
            self.keep("sampler/added_noise", none if self.added is None else self.added, step)
            self.added = None
        self.recorder.complete(step - self.plan.start_step)
        self.clock.lap("first step" if step == self.plan.start_step else "other steps")
        self.report(step + 1, self.plan.steps)


def _reporter(progress: Any, label: str) -> Callable[[int | None, int], None]:
    """``report(done, steps)`` after each step, and ``report(None, steps)`` at the end."""
    if callable(progress):
        return lambda done, steps: None if done is None else progress(done, steps)
    if progress is False or (progress is None and not sys.stderr.isatty()):
        return lambda done, steps: None
    from xray.progress import bar

    return bar(label)
