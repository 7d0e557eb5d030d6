"""One network, traced and compiled once for one set of shapes and taps.

    part = Part("decoder", lambda tap, latent: forward.decoder(net, latent, tap), jit=True)
    pixels = part(latent)                                            # nothing recorded
    pixels, sites = part.record(["decoder/up.*/res.0/out"], latent)  # the same bits, and the sites

What is observed leaves as extra outputs of the one compiled function. What an edit is told (its
numbers, and whether it is on at this step, for this branch) enters as inputs, so that a sweep
over values or steps compiles once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from xray.edits import NAMED
from xray.taps import (
    Edit,
    EditError,
    Observation,
    SiteError,
    Tap,
    as_edits,
    as_observations,
    matches,
    nearest,
    reaches,
    unmatched,
)

Network = Callable[..., Any]

KEPT = 16  # programs of one part; on the miniature one of the U-Net takes 50 MB, at full size more


def _fence(x: Any) -> Any:
    # Without it TensorFlow's graph optimizer fuses a product, its bias and the residual addition
    # where nothing in between is observed, and rounds differently.
    return tf.ensure_shape(x, x.shape)


def _xla_fence(x: Any) -> Any:
    from tensorflow.compiler.tf2xla.python import xla

    return xla.optimization_barrier(x)[0]


class Program:
    """A traced and compiled network. Made by `Part.program`; see there.

    Attributes:
        sites: every site it passes, with the shape of one image's tensor.
        observed: those recorded: ``(dims, shape, dtype)`` as they come out.
        loop: whether it runs in the denoising loop, so that step and timestep mean something.
    """

    def __init__(
        self,
        name: str,
        network: Network,
        shapes: Sequence[tuple[tuple[int, ...], str]],
        observations: Sequence[Observation],
        edits: Sequence[Edit],
        branches: Sequence[str | None],
        tokens: Mapping[str | None, tuple],
        *,
        loop: bool,
        jit: bool,
        before: Callable[[], None],
    ):
        self.name, self.branches, self.loop, self._before = name, tuple(branches), loop, before
        self.sites: dict[str, tuple[int, ...]] = {}
        self.observed: dict[str, tuple[tuple[str, ...], tuple[int, ...], str]] = {}

        def run(arrays: Sequence[Any], step: Any, timestep: Any, taps: Sequence[Any]) -> Any:
            tap = Tap(
                observations,
                edits,
                branches=self.branches,
                tokens=tokens,
                step=step if loop else None,
                timestep=timestep if loop else None,
                inputs=taps,
                fence=_xla_fence if jit else _fence,
            )
            output = network(tap, *arrays)
            self.sites = tap.visited
            lead = ("branch", "image") if self.branches != (None,) else ("image",)
            self.observed = {
                site: (
                    (*lead, *tap.observation(site).reduced_dims(site)),
                    tuple(x.shape),
                    x.dtype.name,
                )
                for site, x in tap.observed.items()
            }
            return output, tap.observed, tap.broken

        self._function = tf.function(run, jit_compile=jit, autograph=False)
        self._function.get_concrete_function(
            tuple(tf.TensorSpec(shape, dtype) for shape, dtype in shapes),
            tf.TensorSpec((), tf.int32),
            tf.TensorSpec((), tf.float32),
            self._taps(edits, None, spec=True),
        )

    @property
    def traces(self) -> int:
        """How often it was traced: once, unless an edit's inputs changed shape."""
        return self._function.experimental_get_tracing_count()

    def check(self, observations: Sequence[Observation], edits: Sequence[Edit]) -> None:
        """Refuse positions that one of its sites does not have."""
        for site, shape in self.sites.items():
            observed = [o for o in observations if matches(o.pattern, site)]
            for asked in (*observed[:1], *(e for e in edits if matches(e.pattern, site))):
                asked.check(site, shape)

    def _taps(self, edits: Sequence[Edit], step: int | None, *, spec: bool = False) -> tuple:
        values = [
            (e.active(step, self.branches), {k: np.asarray(v) for k, v in e.inputs.items()})
            for e in edits
        ]
        make = tf.TensorSpec.from_tensor if spec else tf.identity
        return tf.nest.map_structure(lambda v: make(tf.constant(v)), tuple(values))

    def __call__(
        self,
        arrays: Sequence[np.ndarray],
        edits: Sequence[Edit] = (),
        *,
        step: int | None = None,
        timestep: float = -1.0,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Run it.

        Returns:
            The output, and the observed sites' tensors.

        Raises:
            EditError: an edit made a NaN; site and step are named.
        """
        self._before()
        output, observed, broken = self._function(
            tuple(tf.constant(a) for a in arrays),
            tf.constant(-1 if step is None else step, tf.int32),
            tf.constant(timestep, tf.float32),
            self._taps(edits, step),
        )
        at = "" if step is None else f" at step {step}"
        for site, is_broken in broken.items():
            if is_broken.numpy():
                raise EditError(f"the edit at {site}{at} made a NaN out of numbers")
        return output.numpy(), {site: x.numpy() for site, x in observed.items()}


def edits_of(part: str, edits: Sequence[Edit]) -> list[Edit]:
    """Those edits that can name sites of this part, which are those its programs take."""
    return [e for e in edits if reaches(e.pattern, part)]


class Part:
    """A network of the model that can be called alone and keeps what it has compiled.

    It keeps the `KEPT` programs that were used last: an edit that is a new function each time would
    fill the memory.

    Args:
        name: ``"text"``, ``"unet"``, ``"encoder"`` or ``"decoder"``, the first part of its sites.
        network: ``network(tap, *arrays)``.
        jit: compile with XLA.
        before: called before each run; what puts the network's weights where it finds them.
        check: called with the arrays of a call of the network alone; raises where they are wrong.

    Example:
        >>> model = xray.load("mini")
        >>> model.decoder(np.zeros((1, 16, 16, 4), np.float32)).shape
        (1, 128, 128, 3)
    """

    def __init__(
        self,
        name: str,
        network: Network,
        *,
        jit: bool,
        before: Callable[[], None] = lambda: None,
        check: Callable[..., Any] = lambda *arrays: None,
    ):
        self.name, self.network, self.jit, self.before = name, network, jit, before
        self.check = check
        self._programs: OrderedDict[tuple, Program] = OrderedDict()
        self._forgotten = 0  # traces of programs that are no longer kept

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """The network's output; arrays as its forward function documents them."""
        arrays = self._typed(arrays)
        return self.program(arrays)(arrays)[0]

    def record(
        self,
        record: str | Observation | Sequence[str | Observation],
        *arrays: np.ndarray,
        edit: Edit | Sequence[Edit] = (),
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The output, and the tensors of the sites that `record` names.

        Args:
            record: as for `Generator.generate`.
            arrays: as for the part itself.
            edit: from `xray.edit(...)`, without steps and branch, which a part alone does not have.

        Raises:
            SiteError: a pattern names nothing in this network.
            ValueError: an edit is for steps or a branch.
        """
        arrays, observations, edits = self._typed(arrays), as_observations(record), as_edits(edit)
        for e in edits:
            if e.steps is not None or e.branch is not None:
                what = "steps" if e.steps is not None else f"branch {e.branch!r}"
                raise ValueError(
                    f"the edit at {e.pattern!r} is for {what}, and the {self.name} alone has "
                    "neither steps nor branches: leave it out, or edit a whole generation"
                )
        program = self.program(arrays, observations, edits)
        patterns = [asked.pattern for asked in (*observations, *edits)]
        for pattern in unmatched(patterns, program.sites):
            near = ", ".join(nearest(pattern, program.sites))
            raise SiteError(f"{pattern!r} names no site of the {self.name}; nearest: {near}")
        return program(arrays, edits_of(self.name, edits))

    def _typed(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        """Token ids as int32, all else as float32, whatever they came as."""
        self.check(*arrays)
        dtype = np.int32 if self.name == "text" else np.float32
        return [np.asarray(a, dtype) for a in arrays]

    def program(
        self,
        arrays: Sequence[np.ndarray],
        observations: Sequence[Observation] = (),
        edits: Sequence[Edit] = (),
        branches: Sequence[str | None] = (None,),
        tokens: Mapping[str | None, tuple] | None = None,
        *,
        loop: bool = False,
    ) -> Program:
        """The compiled program for arrays of these shapes, traced now if it is new.

        Args:
            arrays: anything with ``shape`` and ``dtype``.
            observations, edits: what is asked of its sites; patterns that match nothing here are
                no error, since a run has several networks.
            branches, tokens: as for `xray.taps.Tap`.
            loop: whether edits are told step and timestep.

        Raises:
            EditError, ValueError: what is asked cannot be done at one of its sites.
        """
        observations = [o for o in observations if reaches(o.pattern, self.name)]
        edits = edits_of(self.name, edits)
        shapes = tuple((tuple(a.shape), np.dtype(a.dtype).name) for a in arrays)
        # Edits of one's own may look at the tokens while they are traced; nothing else does.
        own = any(e.fn not in NAMED.values() for e in edits)
        tokens = dict(tokens or {}) if own else {}
        key = (
            shapes,
            tuple(observations),
            tuple(e.signature for e in edits),
            tuple(branches),
            tuple(sorted(tokens.items(), key=str)),
            loop,
        )
        program = self._programs.get(key)
        if program is None:
            program = self._programs[key] = Program(
                self.name,
                self.network,
                shapes,
                observations,
                edits,
                branches,
                tokens,
                loop=loop,
                jit=self.jit,
                before=self.before,
            )
        self._programs.move_to_end(key)
        if len(self._programs) > KEPT:
            _, oldest = self._programs.popitem(last=False)
            self._forgotten += oldest.traces
        program.check(observations, edits)
        return program

    def forget(self) -> None:
        """Drop what was compiled, as where the network is given another variable."""
        self._forgotten = self.traces
        self._programs.clear()

    @property
    def traces(self) -> int:
        """How often this network was traced and compiled so far."""
        return self._forgotten + sum(p.traces for p in self._programs.values())
