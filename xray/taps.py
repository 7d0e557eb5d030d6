"""Sites and taps: what may be observed or edited inside a network, and how to ask for it.

The three lines one would type::

    xray.observe("unet/**/cross/weights", mean="head")       # record, averaged over heads
    xray.edit("unet/up.1/skip.0", xray.edits.scale, factor=0.0, steps=range(5))
    model.generate("a red star", record=["sampler/*"], edit=[...])

A *site* is a named place in the forward pass, a path such as ``unet/down.0/res.1/out``. Patterns
are globs over such paths: ``*`` and ``?`` match inside one part, ``**`` any number of parts.

A *tap* is what is asked of a site: `observe` (leave as an extra output, perhaps reduced) or
`edit` (be replaced by a function of itself). Both happen inside the compiled step, so a `Tap` is
created while a network is traced and lives no longer than that.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

BRANCHES = ("uncond", "cond")


class SiteError(ValueError):
    """A pattern that names nothing this run computes."""


class EditError(ValueError):
    """An edit whose result cannot take the place of what it edits."""


# --------------------------------------------------------------------------------------- grammar


_WILDCARDS = {"*": "[^/]*", "?": "[^/]"}  # neither crosses a slash


@functools.cache
def _regex(pattern: str) -> re.Pattern[str]:
    parts = []
    for part in pattern.split("/"):
        if part == "**":
            parts.append("(?:[^/]+/)*")
        else:
            parts.append("".join(_WILDCARDS.get(c, re.escape(c)) for c in part) + "/")
    return re.compile("".join(parts))


def matches(pattern: str, site: str) -> bool:
    """Whether `pattern` names `site`.

    Args:
        pattern: a glob over path parts; ``*`` stays inside a part, ``**`` is any depth.
        site: a site name.

    Example:
        >>> matches("unet/**/cross/weights", "unet/mid/attn.0/cross/weights")
        True
        >>> matches("unet/*", "unet/mid/attn.0/out")
        False
    """
    return _regex(pattern).fullmatch(site + "/") is not None


def reaches(pattern: str, root: str) -> bool:
    """Whether `pattern` can name sites under `root`, the first part of their names.

    Example:
        >>> reaches("**/cross/weights", "unet"), reaches("sampler/*", "unet")
        (True, False)
    """
    return matches(pattern.split("/")[0], root)


def nearest(pattern: str, sites: Iterable[str]) -> list[str]:
    """The few site names that look most like `pattern`, best first."""
    sites = list(sites)
    close = difflib.get_close_matches(pattern, sites, n=4, cutoff=0.5)
    return close or sites[:4]


_DIMS = (
    (r"sampler/.*", "y x channel"),
    (r"image", "y x channel"),
    (r"(unet/time|.*/res\.\d+/time)", "channel"),
    (r"text/.*/attention/(query|key|value)", "head token channel"),
    (r"text/.*/attention/weights", "head token key_token"),
    (r"text/.*", "token channel"),
    (r".*/cross/(key|value)", "head token channel"),
    (r".*/cross/weights", "head y x token"),
    (r".*/(query|key|value)", "head y x channel"),
    (r".*/weights", "head y x key_y key_x"),
    (r".*", "y x channel"),
)


def dims(site: str) -> tuple[str, ...]:
    """The names of a site's own axes: after ``step``, ``evaluation``, ``branch`` and ``image``.

    Example:
        >>> dims("unet/mid/attn.0/cross/weights")
        ('head', 'y', 'x', 'token')
    """
    return next(tuple(names.split()) for rule, names in _DIMS if re.fullmatch(rule, site))


# ------------------------------------------------------------------------------------------ taps


@dataclass(frozen=True)
class Observation:
    """What `observe` returns: a pattern and the reduction done inside the compiled step."""

    pattern: str
    mean: tuple[str, ...] = ()
    tokens: tuple[int, ...] | None = None
    dtype: str | None = None
    pool: int | None = None

    def reduced_dims(self, site: str) -> tuple[str, ...]:
        return tuple(d for d in dims(site) if d not in self.mean)

    def reduce(self, site: str, x: Any, *, gather: Callable, mean: Callable, cast: Callable) -> Any:
        """What is left of the site's tensor, by NumPy's or TensorFlow's functions."""
        names = dims(site)
        lead = len(x.shape) - len(names)
        if self.tokens is not None and "token" in names:
            x = gather(x, self.tokens, axis=lead + names.index("token"))
        if axes := tuple(lead + names.index(d) for d in self.mean if d in names):
            x = mean(x, axis=axes)
        return cast(x, self.record_dtype(site))

    def check(self, site: str, shape: Sequence[int]) -> None:
        """Refuse token positions that a site of this shape does not have, and unequal parts."""
        length = dict(zip(dims(site), shape, strict=True)).get("token")
        if self.tokens and length and not all(0 <= t < length for t in self.tokens):
            raise ValueError(
                f"observe: tokens {list(self.tokens)} are not all 0 … {length - 1}, as at {site}"
            )
        if self.pool and "key_y" in dims(site):
            for side in shape[-2:]:
                if side > self.pool and side % self.pool:
                    most = max(n for n in range(1, self.pool) if side % n == 0)
                    raise ValueError(
                        f"observe: {side} keys a side, as at {site}, are not {self.pool} equal "
                        f"parts: give pool={most}"
                    )

    def record_dtype(self, site: str) -> str:
        # Attention weights are by far the largest thing to record and lie in [0, 1].
        return self.dtype or ("float16" if site.endswith("/weights") else "float32")


def observe(
    pattern: str,
    *,
    mean: str | Sequence[str] = (),
    tokens: Sequence[int] | None = None,
    dtype: str | None = None,
    pool: int | None = None,
) -> Observation:
    """Ask for sites to be recorded, reduced before they leave the compiled step.

    Args:
        pattern: site glob, e.g. ``"unet/**/cross/weights"``.
        mean: axes to average over, e.g. ``"head"`` or ``("y", "x")``.
        tokens: token positions to keep (sites with a ``token`` axis).
        dtype: ``"float16"`` or ``"float32"``; by default attention weights are float16 and all
            else float32.
        pool: of self-attention, average the keys over a grid of so many parts a side, equal ones:
            16 at 512×512, 12 at 768×768; layers with fewer keys a side keep all. The weights are
            then never in memory whole, which at 512×512 are 1 GB for each of the finest layers.

    Returns:
        An `Observation`, to be given to ``generate(record=[...])``. A plain string there means
        ``observe(string)``.

    Raises:
        TypeError: `pattern` is no text, `tokens` are not whole numbers, or `pool` is none.
        ValueError: no such axis or dtype; `tokens` is empty, `pool` is under 1. Positions that a
            site does not have are refused where its length is known, by the run.

    Example:
        >>> observe("unet/**/cross/weights", mean="head", tokens=[2, 3]).tokens
        (2, 3)
        >>> observe("unet/**/self/weights", mean="head", pool=16).pool
        16
    """
    if not isinstance(pattern, str):
        raise TypeError(f"observe: a site's name is text, got {pattern!r}")
    if dtype not in (None, "float16", "float32"):
        raise ValueError(f"observe: dtype {dtype!r} is not 'float16' or 'float32'")
    mean = (mean,) if isinstance(mean, str) else tuple(mean)
    known = {d for _, names in _DIMS for d in names.split()}
    if unknown := [d for d in mean if d not in known]:
        raise ValueError(
            f"observe: no axis is named {unknown[0]!r}; axes: {', '.join(sorted(known))}"
        )
    if tokens is not None:
        tokens = _whole_numbers("observe: tokens", tokens)
        if not tokens:
            raise ValueError("observe: tokens names no position; leave it out to keep all")
    if pool is not None:
        (pool,) = _whole_numbers("observe: pool", [pool])
        if pool < 1:
            raise ValueError(f"observe: pool must be 1 or more, got {pool}")
    return Observation(pattern, mean, tokens, dtype, pool)


def _whole_numbers(what: str, given: Any) -> tuple[int, ...]:
    numbers = list(given) if isinstance(given, Iterable) else [given]
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in numbers)
    if not whole or not isinstance(given, Iterable):
        raise TypeError(f"{what} must be a list of whole numbers, got {given!r}")
    return tuple(int(n) for n in numbers)


class Context(NamedTuple):
    """What an edit is told besides the tensor.

    Attributes:
        site: the site's name.
        branch: ``"uncond"`` or ``"cond"``; ``None`` where guidance has no part (the decoder).
        tokens: for each image the token texts of this branch's prompt, ``()`` where unknown.
        step: scalar int32 tensor, the sampler step; ``None`` outside the denoising loop.
        timestep: scalar float32 tensor; ``None`` outside the denoising loop.
    """

    site: str
    branch: str | None
    tokens: tuple[tuple[str, ...], ...]
    step: Any
    timestep: Any


@dataclass(frozen=True, eq=False)
class Edit:
    """What `edit` returns: `static` parameters are compiled in, `inputs` enter the program."""

    pattern: str
    fn: Callable
    steps: frozenset[int] | None
    branch: str | None
    static: Mapping[str, Any]
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def params(self) -> dict[str, Any]:
        return {**self.static, **self.inputs}

    @property
    def signature(self) -> tuple:
        """What two edits must share to share one compiled program."""
        shapes = tuple((k, v.shape, v.dtype.str) for k, v in sorted(self.inputs.items()))
        return self.pattern, self.fn, tuple(sorted(self.static.items())), shapes

    def active(self, step: int | None, branches: Sequence[str | None]) -> np.ndarray:
        """For each branch, whether the edit applies at `step`; bool (branches,)."""
        now = self.steps is None or step in self.steps
        return np.array([now and self.branch in (None, b) for b in branches])

    def check(self, site: str, shape: Sequence[int]) -> None:
        """Refuse positions that a site of this shape does not have.

        They enter the compiled step as inputs, where TensorFlow would take none, and XLA the last,
        without a word.
        """
        lengths = dict(zip(dims(site), shape, strict=True))
        for name, dim in getattr(self.fn, "positions", {}).items():
            asked, last = np.ravel(self.params[name]), lengths[dim] - 1
            if ((asked < 0) | (asked > last)).any():
                raise EditError(
                    f"the edit {self.fn.__name__!r} at {site} names {dim} "
                    f"{', '.join(map(str, asked))}; there are 0 … {last}"
                )


def edit(
    pattern: str,
    fn: Callable,
    *,
    steps: Iterable[int] | None = None,
    branch: str | None = None,
    **params: Any,
) -> Edit:
    """Ask for sites to be changed while the network runs.

    Args:
        pattern: site glob, e.g. ``"unet/up.1/skip.0"``.
        fn: ``fn(x, context, **params) -> tensor`` of the shape and dtype of `x`. `x` is one
            guidance branch's tensor, ``(image, *dims(site))``; `context` is a `Context`. Written
            with TensorFlow operations, since it becomes part of the compiled step: what it reads
            from outside is fixed when it is first compiled, so hand over as a parameter what shall
            change. At ``sampler/*`` it is called on NumPy arrays between steps; an edited
            ``sampler/denoised`` counts as what the network said, for all samplers alike.
        steps: the sampler steps at which it applies; all by default.
        branch: ``"cond"`` or ``"uncond"`` to edit one branch only; both by default.
        **params: handed to `fn`. Numbers and arrays enter the compiled step as inputs, so that a
            sweep over their values compiles once; strings, booleans and ``None`` are fixed in it.
            Whole numbers stay whole unless `fn` annotates the parameter as ``float``.

    Returns:
        An `Edit`, to be given to ``generate(edit=[...])``.

    Raises:
        TypeError: `pattern` is no text; `fn` is not callable or does not take these parameters;
            `steps` are not whole numbers.
        ValueError: `branch` is not a branch, a step is negative, a parameter is not finite.

    Example:
        >>> off = edit("unet/up.1/skip.0", lambda x, context, factor: x * factor, factor=0.0)
        >>> off.params
        {'factor': array(0., dtype=float32)}
    """
    if not isinstance(pattern, str):
        raise TypeError(f"edit: a site's name is text, got {pattern!r}")
    if not callable(fn):
        raise TypeError(f"edit: fn must be a function, got {fn!r}")
    signature = inspect.signature(fn)
    try:
        signature.bind(None, None, **params)
    except TypeError as error:
        raise TypeError(
            f"edit: {getattr(fn, '__name__', fn)} cannot be called so: {error}"
        ) from None
    if branch not in (None, *BRANCHES):
        raise ValueError(f"edit: branch {branch!r} is not 'cond' or 'uncond'")
    if steps is not None:
        steps = frozenset(_whole_numbers("edit: steps", steps))
        if negative := [s for s in steps if s < 0]:
            raise ValueError(f"edit: steps count from 0, got {negative[0]}")
    static, inputs = {}, {}
    for name, value in params.items():
        if value is None or isinstance(value, (str, bool)):
            static[name] = value
            continue
        array = np.asarray(value)
        if array.dtype.kind not in "iufb":
            raise TypeError(f"edit: parameter {name}={value!r} is neither number, array nor text")
        declared = signature.parameters.get(name)
        if array.dtype.kind in "iu" and declared and declared.annotation in (float, "float"):
            array = array.astype(float)  # 2 and 2.0 are one program
        kind = {"f": np.float32, "i": np.int32, "u": np.int32, "b": bool}[array.dtype.kind]
        with np.errstate(over="ignore"):
            inputs[name] = array.astype(kind)
        if kind is np.float32 and not np.isfinite(inputs[name]).all():
            raise ValueError(f"edit: parameter {name} holds NaN or infinity")
        if kind is np.int32 and (inputs[name] != array).any():
            raise ValueError(f"edit: parameter {name} does not fit into 32 bits")
    return Edit(pattern, fn, steps, branch, static, inputs)


def as_observations(record: str | Observation | Iterable[str | Observation]) -> list[Observation]:
    """`record` as people give it, as a list of observations."""
    if isinstance(record, (str, Observation)):
        record = [record]
    observations = [observe(r) if isinstance(r, str) else r for r in record]
    if wrong := [o for o in observations if not isinstance(o, Observation)]:
        raise TypeError(f"record takes site patterns and xray.observe(…), got {wrong[0]!r}")
    return observations


def as_edits(edit: Edit | Iterable[Edit]) -> list[Edit]:
    """`edit` as people give it, as a list of edits."""
    edits = [edit] if isinstance(edit, (Edit, str)) else list(edit)
    if wrong := [e for e in edits if not isinstance(e, Edit)]:
        raise TypeError(f"edit takes what xray.edit(…) returns, got {wrong[0]!r}")
    return edits


# ----------------------------------------------------------------------------- inside the forward


class Tap:
    """Stands in the forward pass: ``x = tap("unet/mid/res.0/out", x)``.

    Made anew for each trace of a network, which it sees once: it notes every site it passes in
    `visited`, gathers what is observed in `observed`, applies the edits, and gathers in `broken`
    one flag for each edited site: whether the edit made a NaN.

    Args:
        observations: what is recorded; the first that matches a site counts.
        edits: applied in the order given.
        branches: the guidance branches that share the batch, outermost; ``(None,)`` for networks
            that guidance does not reach.
        tokens: for each branch, for each image, the token texts.
        step, timestep: scalar tensors, or None outside the loop.
        inputs: for each edit its ``(active, inputs)`` as tensors.
        fence: an identity that compilers do not fuse across. It stands at every site, asked for
            or not, so that asking changes no bit.
    """

    def __init__(
        self,
        observations: Sequence[Observation] = (),
        edits: Sequence[Edit] = (),
        *,
        branches: Sequence[str | None] = (None,),
        tokens: Mapping[str | None, tuple] | None = None,
        step: Any = None,
        timestep: Any = None,
        inputs: Sequence[tuple[Any, Mapping[str, Any]]] = (),
        fence: Callable[[Any], Any] = lambda x: x,
    ):
        self.observations = observations
        self.edits = edits
        self.branches = branches
        self.tokens = tokens or {}
        self.step, self.timestep = step, timestep
        self.inputs = inputs
        self.fence = fence
        self.visited: dict[str, tuple[int, ...]] = {}
        self.observed: dict[str, Any] = {}
        self.broken: dict[str, Any] = {}

    def observation(self, site: str) -> Observation | None:
        return next((o for o in self.observations if matches(o.pattern, site)), None)

    def wants(self, site: str) -> bool:
        """Whether anything is asked of `site`; for tensors that exist only when asked for."""
        return self.observation(site) is not None or self.edits_at(site)

    def pool(self, site: str, shape: Sequence[int]) -> int | None:
        """Parts a side, if all that is asked of `site` is to see averages over its keys."""
        observation = self.observation(site)
        if observation is None or self.edits_at(site) or "key_y" not in dims(site):
            return None
        observation.check(site, shape)
        return observation.pool

    def see(self, site: str, shape: Sequence[int], x: Any) -> None:
        """Take what is left of a site's tensor that is never there whole; `shape` without batch."""
        self.passes(site, shape)
        self.observed[site] = self._observe(self.observation(site), site, x)

    def edits_at(self, site: str) -> bool:
        return any(matches(e.pattern, site) for e in self.edits)

    def passes(self, site: str, shape: Sequence[int]) -> None:
        """Note a site whose tensor is not there because nobody wants it; `shape` without batch."""
        self.visited[site] = tuple(shape)

    def __call__(self, site: str, x: Any) -> Any:
        self.passes(site, x.shape[1:])
        x = self.fence(x)
        if self.edits_at(site):
            x = self._edit(site, x)
        if (observation := self.observation(site)) is not None:
            self.observed[site] = self._observe(observation, site, x)
        return x

    def same_for_branches(self, run: Callable[[Tap], Any]) -> Any:
        """Run what knows nothing of guidance branches once for all of them.

        If it is edited, it runs for each branch on its own, always on the images of one: edits that
        change nothing, or only the other branch, change no bit.

        Args:
            run: ``run(tap)``, which returns tensors of the images of one branch.

        Returns:
            Such tensors of all branches.
        """
        import tensorflow as tf

        if len(self.branches) == 1:
            return run(self)
        taps, outputs = [], []
        for b, branch in enumerate(self.branches):
            inputs = [(active[b : b + 1], params) for active, params in self.inputs]
            tap = Tap(
                self.observations,
                self.edits,
                branches=(branch,),
                tokens=self.tokens,
                step=self.step,
                timestep=self.timestep,
                inputs=inputs,
                fence=self.fence,
            )
            outputs.append(run(tap))
            taps.append(tap)
            if not tap.broken:  # no edit was met
                break

        def together(*each: Any) -> Any:
            return tf.concat(each * (len(self.branches) // len(each)), axis=0)

        self.visited |= taps[0].visited
        self.observed |= tf.nest.map_structure(together, *(t.observed for t in taps))
        self.broken |= tf.nest.map_structure(lambda *b: tf.reduce_any(b), *(t.broken for t in taps))
        return tf.nest.map_structure(together, *outputs)

    def _edit(self, site: str, x: Any) -> Any:
        import tensorflow as tf

        edited, broken = [], []
        for b, (branch, part) in enumerate(
            zip(self.branches, tf.split(x, len(self.branches)), strict=True)
        ):
            context = Context(site, branch, self.tokens.get(branch, ()), self.step, self.timestep)
            for e, (active, inputs) in zip(self.edits, self.inputs, strict=True):
                if matches(e.pattern, site):
                    params = {**e.static, **inputs}
                    result = applied(e, part, context, params, as_array=tf.convert_to_tensor)
                    result = check_edited(part, result, site)
                    broken.append(tf.reduce_any(tf.math.is_nan(result)) & active[b])
                    part = tf.where(active[b], result, part)
            edited.append(part)
        self.broken[site] = tf.reduce_any(tf.stack(broken))
        return tf.concat(edited, axis=0)

    def _observe(self, observation: Observation, site: str, x: Any) -> Any:
        import tensorflow as tf

        from xray.attention import pooled

        count = len(self.branches)
        if self.branches != (None,):
            x = tf.reshape(x, (count, x.shape[0] // count, *x.shape[1:]))
        if observation.pool and "key_y" in dims(site):
            observation.check(site, x.shape[-len(dims(site)) :])
            *lead, height, width = x.shape
            grid = [min(side, observation.pool) for side in (height, width)]
            flat = tf.reshape(x, (*lead, height * width))
            x = tf.reshape(pooled(flat, (height, width), observation.pool), (*lead, *grid))
        return observation.reduce(site, x, gather=tf.gather, mean=tf.reduce_mean, cast=tf.cast)


def applied(
    edit: Edit, x: Any, context: Context, params: Mapping[str, Any], *, as_array: Callable
) -> Any:
    """What the edit's function returns, as an array; what goes wrong, with the site's name."""
    name = getattr(edit.fn, "__name__", repr(edit.fn))
    try:
        result = edit.fn(x, context, **params)
        if result is not None:
            return as_array(result)
    except Exception as error:
        raise EditError(
            f"the edit {name!r} at {context.site} failed: {type(error).__name__}: {error}"
        ) from error
    raise EditError(f"the edit {name!r} at {context.site} returned nothing: it must return x")


def check_edited(before: Any, after: Any, site: str) -> Any:
    """`after` if it can stand in the place of `before`, else an `EditError` that names the site."""
    if tuple(after.shape) != tuple(before.shape) or after.dtype != before.dtype:
        raise EditError(
            f"the edit at {site} returned shape {tuple(after.shape)} {_name(after.dtype)}, "
            f"but {tuple(before.shape)} {_name(before.dtype)} must come out as it went in"
        )
    return after


def _name(dtype: Any) -> str:
    return getattr(dtype, "name", str(dtype))


def unmatched(patterns: Iterable[str], sites: Iterable[str]) -> list[str]:
    """Those patterns that match none of the sites."""
    sites = list(sites)
    return [p for p in patterns if not any(matches(p, s) for s in sites)]
