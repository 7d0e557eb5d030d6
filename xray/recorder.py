"""Recorders: where a run puts what it observes, in memory or on disk.

recorder = StoreRecorder("run.zarr", header)          # or MemoryRecorder(header)
for index, step in enumerate(header.steps):
    recorder.write("sampler/latent", latent, index)   # every per-step site
    recorder.complete(index)
recorder.write("image", pixels)                       # what has no step
trace = recorder.close()
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import xarray

from xray.store import Header, StoreWriter, TraceError, final_attrs
from xray.trace import Trace
from xray.trace import open as open_trace

Arrays = dict[str, np.ndarray]


class Recorder(ABC):
    """Takes the arrays of a run step by step, and gives the `Trace` at its end.

    Steps come in order. What is written to a step is kept when the step is complete; a site
    without step is kept as soon as the next step is complete or the recorder closed.
    """

    def __init__(self, header: Header):
        self.header = header
        self._next = 0
        self._step: Arrays = {}
        self._once: Arrays = {}
        self._seen: set[tuple[str, int | None, int | None]] = set()
        self._trace: Trace | None = None

    def write(
        self,
        site: str,
        array: np.ndarray,
        step: int | None = None,
        evaluation: int | None = None,
    ) -> None:
        """Record one array.

        Args:
            site: a site of the header.
            array: of the shape and dtype that the header gives. It is taken over: it must not
                be changed afterwards.
            step: index into the header's steps, or None for a site without step.
            evaluation: index along `evaluation`, the first of the site's dimensions, of which
                `array` is a part. Parts that are not written stay NaN.

        Raises:
            ValueError: unknown site, wrong shape, dtype or step, or written already.
            TraceError: an earlier step could not be stored.
        """
        spec = self.header.sites.get(site)
        if spec is None:
            raise ValueError(f"site {site!r} is not in the header of this recording")
        expected = self._next if spec.per_step else None
        if step != expected:
            raise ValueError(f"{site}: step {expected} is to be written next, got {step}")
        array = np.asarray(array)
        shape = spec.shape if evaluation is None else spec.shape[1:]
        if array.shape != shape or array.dtype != spec.dtype:
            raise ValueError(
                f"{site}: expected {spec.dtype} {shape}, got {array.dtype} {array.shape}"
            )
        part = site, step, evaluation
        if part in self._seen:
            raise ValueError(f"{site} is written already" + ("" if step is None else f" at {step}"))
        self._seen.add(part)
        if evaluation is not None:
            if site not in self._step:
                self._step[site] = np.full(spec.shape, np.nan, spec.dtype)
            self._step[site][evaluation] = array
        elif spec.per_step:
            self._step[site] = array
        else:
            self._once[site] = array

    def complete(self, step: int) -> None:
        """Declare a step recorded, after all of its sites are written.

        Raises:
            ValueError: not the next step, or a site was not written.
            TraceError: this or an earlier step could not be stored.
        """
        if step != self._next or step >= len(self.header.steps):
            raise ValueError(f"step {step} cannot be completed, {self._next} is next")
        missing = [
            s for s, spec in self.header.sites.items() if spec.per_step and s not in self._step
        ]
        if missing:
            raise ValueError(f"step {step} is not complete without {', '.join(missing)}")
        arrays, self._step = self._step, {}
        once, self._once = self._once, {}
        self._seen = {part for part in self._seen if part[1] is None}
        self._keep(step, arrays, once)
        self._next += 1

    def close(
        self,
        status: str = "complete",
        reason: str = "",
        attrs: Mapping[str, Any] | None = None,
    ) -> Trace:
        """End the recording. Whatever the status, what was complete is in the trace.

        Args:
            status: `"complete"`, `"interrupted"` or `"failed"`.
            reason: why it did not come to its end.
            attrs: attributes known only now, such as seconds per phase.

        Returns:
            The trace; on a second call the same.

        Raises:
            TraceError: something could not be stored and no earlier call has said so. The
                status is then `"failed"`, whatever was asked.
        """
        if status not in ("complete", "interrupted", "failed"):
            raise ValueError(f"status must be complete, interrupted or failed, got {status!r}")
        if self._trace is None:
            self._trace = self._finish(status, reason, attrs)
        return self._trace

    @property
    @abstractmethod
    def completed(self) -> int:
        """How many steps are safe: in memory, or on disk whatever happens to this process."""

    @abstractmethod
    def _keep(self, step: int, arrays: Arrays, once: Arrays) -> None: ...

    @abstractmethod
    def _finish(self, status: str, reason: str, attrs: Mapping[str, Any] | None) -> Trace: ...


class MemoryRecorder(Recorder):
    """Keeps everything in memory. See `Recorder`."""

    def __init__(self, header: Header):
        super().__init__(header)
        # At full length from the start, because joining at the end would need the memory twice.
        count = len(header.steps)
        self._arrays = {
            site: np.empty((count, *spec.shape), spec.dtype)
            for site, spec in header.sites.items()
            if spec.per_step
        }

    @property
    def completed(self) -> int:
        return self._next

    def _keep(self, step: int, arrays: Arrays, once: Arrays) -> None:
        for site, array in arrays.items():
            self._arrays[site][step] = array
        self._arrays |= once

    def _finish(self, status: str, reason: str, attrs: Mapping[str, Any] | None) -> Trace:
        header = self.header
        self._arrays |= self._once
        steps, timesteps = header.steps[: self._next], header.timesteps[: self._next]
        along_step = {"step": ("step", steps), "timestep": ("step", timesteps)}
        arrays = {}
        for site, spec in header.sites.items():
            if spec.per_step:
                values, dims = self._arrays[site][: self._next], ("step", *spec.dims)
                coords = {**along_step, **spec.coords}
            elif site in self._arrays:
                values, dims, coords = self._arrays[site], spec.dims, spec.coords
            else:
                continue
            values = values.view()
            values.flags.writeable = False
            arrays[site] = xarray.DataArray(values, coords, dims, name=site)
        return Trace(
            attrs=final_attrs(header, status, reason, attrs),
            steps=steps,
            timesteps=timesteps,
            specs={site: header.sites[site] for site in arrays},
            load=arrays.__getitem__,
        )


class StoreRecorder(Recorder):
    """Streams to a Zarr store while the run goes on. See `Recorder` and `store`.

    One thread writes a step while the next is computed; if it is not done by then, `complete`
    waits. So at most two steps are in memory, however long the run.

    Args:
        path: where the store is created; its parent must exist.
        header: what will be recorded.
        overwrite: replace a trace that is there already.

    Raises:
        TraceError: `path` cannot be used, or the disk is full.
    """

    def __init__(self, path: str | os.PathLike, header: Header, *, overwrite: bool = False):
        super().__init__(header)
        self._writer = StoreWriter(path, header, overwrite=overwrite)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trace-writer")
        self._writing: Future | None = None
        self._waiting: tuple[int, Arrays, Arrays] | None = None  # for the step before to be stored
        self._failure: TraceError | None = None
        self._completed = 0

    @property
    def completed(self) -> int:
        return self._completed

    def write(
        self,
        site: str,
        array: np.ndarray,
        step: int | None = None,
        evaluation: int | None = None,
    ) -> None:
        if self._failure or (self._writing and self._writing.done()):
            self._wait()  # says at once that the step before was not stored
        super().write(site, array, step, evaluation)

    def _keep(self, step: int, arrays: Arrays, once: Arrays) -> None:
        self._waiting = step, arrays, once  # whoever is interrupted while waiting keeps the step
        self._wait()
        self._writing = self._thread.submit(self._store, step, arrays, once)
        self._waiting = None

    def _store(self, step: int, arrays: Arrays, once: Arrays) -> None:
        for site, array in once.items():
            self._writer.write(site, array)
        for site, array in arrays.items():
            self._writer.write(site, array, step)
        self._writer.complete(step)
        self._completed = step + 1

    def _wait(self) -> None:
        """Until the step before is stored; raises if it, or any before it, could not be."""
        if self._failure:
            raise self._failure
        if self._writing:
            try:
                self._writing.result()
            except TraceError as error:
                self._failure = error
                raise
            self._writing = None

    def _finish(self, status: str, reason: str, attrs: Mapping[str, Any] | None) -> Trace:
        told = self._failure is not None
        try:
            self._wait()
            if self._waiting:
                self._store(*self._waiting)
            for site, array in self._once.items():
                self._writer.write(site, array)
            self._writer.finish(status, reason, attrs)
        except TraceError as error:
            self._failure = error
            with suppress(TraceError):  # without room even for the reason it is readable still
                self._writer.finish("failed", str(error), attrs)
            if not told:
                raise
        finally:
            self._thread.shutdown()
        return open_trace(self._writer.path)
