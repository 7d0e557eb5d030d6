"""A model of given sizes and weights, whatever form the weights came in."""

from __future__ import annotations

import functools
import hashlib
import math
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.checkpoints import room
from xray.checkpoints.checkpoint import COMPONENTS, Checkpoint, Component
from xray.checkpoints.files import Tensor, shown
from xray.memory import give_back, keep_freed
from xray.reserve import as_tensor, reserved

if TYPE_CHECKING:
    from xray.architecture import Architecture
    from xray.generator import Generator
    from xray.tokenizer import Tokenizer

LARGE = 256  # channels, from which on a network's tensors are large
FLOATS = ("F64", "F32", "F16", "BF16")


def assemble(
    checkpoint: Checkpoint,
    *,
    numerics: str | None = None,
    jit: bool = False,
    exact: bool = False,
    dtype: str = "float32",
    memory: str = "fast",
) -> Generator:
    """The model of a checkpoint, its weights read tensor by tensor and kept as `dtype`.

    With ``memory="low"`` a network's are read when it runs, and let go when another does.

    Raises:
        ValueError: the files do not hold what a model of these sizes needs, or numbers that are
            too large for `dtype`.
    """
    from xray.architecture import unwritten
    from xray.generator import Generator

    arch, matrix = checkpoint.architecture, checkpoint.rgb_matrix
    networks = build(arch, functools.partial(unwritten, dtype=dtype), dtype)
    check(networks, checkpoint.components)
    bring = OneAtATime(networks, checkpoint.components) if memory == "low" else None
    if bring is None:
        assign(networks, checkpoint.components)
    return Generator(
        checkpoint.name,
        arch,
        checkpoint.tokenizer,
        **networks,
        digest=_digest(checkpoint, dtype),
        sources=checkpoint.sources,
        read=reader(checkpoint.components),
        numerics=numerics or checkpoint.numerics,
        spacing=checkpoint.spacing,
        rgb_matrix=None if matrix is None else np.array(matrix, np.float32),
        jit=jit,
        exact=exact,
        bring=bring,
    )


class OneAtATime:
    """Keeps one network's weights in memory: ``bring("unet")`` reads them and lets go of others."""

    def __init__(self, networks: dict[str, Any], components: dict[str, Component]):
        self.networks, self.components = networks, components
        self._here: str | None = None

    def __call__(self, name: str) -> None:
        from xray.architecture import unwritten
        from xray.networks import variables

        if name == self._here:
            return
        old, self._here = self._here, None  # from now on: interrupted, none of them is whole
        if old is not None:
            for variable in variables(old, self.networks[old]).values():
                variable.assign(unwritten(variable.shape, variable.dtype))
            give_back()
        assign({name: self.networks[name]}, self.components)
        self._here = name


def _digest(checkpoint: Checkpoint, dtype: str) -> str:
    """Of the weights as they are kept: the files', if none of their numbers is rounded."""
    kept = {t.dtype for part in checkpoint.components.values() for t in part.tensors.values()}
    if dtype == "float32" or kept == {"F16"}:
        return checkpoint.digest
    return hashlib.sha256(f"{checkpoint.digest} {dtype}".encode()).hexdigest()


def random_model(
    name: str,
    arch: Architecture,
    seed: int,
    tokenizer: Tokenizer | None = None,
    numerics: str | None = None,
    jit: bool = False,
    exact: bool = False,
    dtype: str = "float32",
) -> Generator:
    """A model with random weights that `seed` decides.

    Raises:
        ValueError: too little memory is free.
    """
    from xray.generator import Generator
    from xray.networks import variables

    if arch.widths[0] >= LARGE:  # small ones fit anywhere, and are not built twice to be counted
        room.check_random(name, arch, outline(name, arch).parameters, dtype)
    random = np.random.default_rng(seed)
    normal = _QuickNormal(random)
    networks = build(
        arch, lambda shape: normal(shape) * np.float32(math.prod(shape[:-1])) ** -0.5, dtype
    )
    # Biases and gains, which Keras makes zeros and ones: no model has such, and tests that met
    # only these would miss a forgotten one.
    for part, net in networks.items():
        for variable in variables(part, net).values():
            if len(variable.shape) == 1:
                variable.assign(variable.numpy() + 0.1 * normal(tuple(variable.shape)))
    told = repr(arch) + ("" if dtype == "float32" else dtype)
    digest = f"random-{seed}-" + hashlib.sha256(told.encode()).hexdigest()[:16]
    return Generator(
        name,
        arch,
        tokenizer,
        **networks,
        digest=digest,
        sources={part: {"source": "random", "digest": digest} for part in COMPONENTS},
        numerics=numerics or "reference",
        jit=jit,
        exact=exact,
    )


def outline(name: str, arch: Architecture) -> Generator:
    """A model without weights, to be traced and never run: what it would compute is undefined."""
    from xray.architecture import unwritten
    from xray.generator import Generator

    networks = build(arch, unwritten)
    return Generator(name, arch, None, **networks, digest="unwritten")


class _QuickNormal:
    """Normal numbers by the billion: one block of a million, repeated from random places.

    Drawing them all would take half a minute for a full-size model.
    """

    def __init__(self, random: np.random.Generator):
        self.random, self.block = random, random.standard_normal(1 << 20, np.float32)

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        start = int(self.random.integers(self.block.size))
        return np.resize(np.roll(self.block, -start), shape)


def build(
    arch: Architecture, fill: Callable[[tuple[int, ...]], Any], dtype: str = "float32"
) -> dict[str, Any]:
    """The networks of these sizes, their kernels and embeddings from ``fill(shape)``."""
    from xray import architecture as a

    if arch.widths[0] >= LARGE:
        keep_freed()
    with a.initial_weights(fill, dtype):
        return {
            "text": a.build_text_encoder(arch),
            "unet": a.build_unet(arch),
            "encoder": a.build_encoder(arch),
            "decoder": a.build_decoder(arch),
        }


# ------------------------------------------------------------------------------------- assigning


def check(networks: dict[str, Any], components: dict[str, Component]) -> None:
    """Make sure that components hold what networks need, all of it and nothing else.

    Raises:
        ValueError: what is missing, surplus, of wrong shape or type, in all components.
    """
    problems = []
    for name, component in components.items():
        wanted = _wanted({n: networks[n] for n in COMPONENTS[name]}, components)
        shapes = {
            theirs: accepted_shapes(key, v.shape, component.keras) for key, v, _, theirs in wanted
        }
        if differ := _differences(component.tensors, shapes):
            problems.append(f"{component.source}: {differ}")
    if problems:
        raise ValueError("; ".join(problems))


def assign(networks: dict[str, Any], components: dict[str, Component]) -> None:
    """Give every variable of these networks its value.

    Every tensor is read, turned as Keras has it, and made of the variable's dtype in one pass.

    Raises:
        ValueError: a number is too large for a variable's dtype.
    """

    def read(key: str, variable: Any, component: Component, theirs: str) -> np.ndarray:
        tensor = component.tensors[theirs]
        return _value(key, tensor, variable.shape, component.keras, variable.dtype)

    wanted = _wanted(networks, components)
    report = _reporter("reading weights")
    # What is read ahead takes no more memory: it stays where it is, and is the variable's.
    with ThreadPoolExecutor(max_workers=2) as pool:
        values = pool.map(read, *zip(*wanted, strict=True))
        for done, (_, variable, *_) in enumerate(wanted):
            variable.assign(as_tensor(next(values)))
            report(done + 1, len(wanted))
    report(None, len(wanted))


def _wanted(
    networks: dict[str, Any], components: dict[str, Component]
) -> list[tuple[str, Any, Component, str]]:
    """Every variable by our name, with the component that holds it and its name there."""
    from xray.networks import variables

    owners = _owners(components)
    return [
        (key, variable, owners[part], owners[part].name_of(key))
        for part, network in networks.items()
        for key, variable in variables(part, network).items()
    ]


def _owners(components: dict[str, Component]) -> dict[str, Component]:
    """The component that holds each network."""
    return {part: held for name, held in components.items() for part in COMPONENTS[name]}


def reader(components: dict[str, Component]) -> Callable[[str, tuple[int, ...]], np.ndarray]:
    """What gives a variable's values by its name and shape, from the files, any time later."""
    owners = _owners(components)

    def read(key: str, shape: tuple[int, ...]) -> np.ndarray:
        component = owners[key.split("/")[0]]
        return _value(key, component.tensors[component.name_of(key)], shape, component.keras)

    return read


def _value(
    key: str, tensor: Tensor, shape: tuple[int, ...], keras: bool, dtype: str = "float32"
) -> np.ndarray:
    """What a variable is to hold, of a tensor in a file: in one pass turned and made `dtype`."""
    return cast(key, as_keras(key, tensor.read(), shape, keras), dtype, reserved(shape, dtype))


def cast(key: str, value: np.ndarray, dtype: str, out: np.ndarray | None = None) -> np.ndarray:
    """The numbers of a variable as `dtype`, written to `out` where it is given.

    Raises:
        ValueError: one is too large for `dtype` and would become infinite.
    """
    if value.dtype.name == "bfloat16":  # whose own casts do not say what is too large
        value = value.astype(np.float32)
    out = np.empty(value.shape, dtype) if out is None else out
    try:
        with np.errstate(over="raise"):
            np.copyto(out, value, casting="unsafe")
    except FloatingPointError as error:
        raise ValueError(
            f"{key} has numbers that are too large for {dtype}, whose largest is "
            f"{np.finfo(dtype).max:g}" + (": ask for float32" if dtype == "float16" else "")
        ) from error
    return out


def _differences(held: dict[str, Tensor], shapes: dict[str, list[tuple[int, ...]]]) -> str:
    """How what a file holds differs from what is wanted of it; empty if it does not."""
    common = [name for name in shapes if name in held]
    told = {
        "missing": [name for name in shapes if name not in held],
        "surplus": [name for name in held if name not in shapes],
        "of wrong shape": [
            f"{name} {held[name].shape} for {shapes[name][0]}"
            for name in common
            if held[name].shape not in shapes[name]
        ],
        "no floating-point numbers": [
            f"{name} {held[name].dtype}" for name in common if held[name].dtype not in FLOATS
        ],
    }
    return "; ".join(
        f"{len(names)} tensors are {what}: {shown(sorted(names))}"
        for what, names in told.items()
        if names
    )


def accepted_shapes(key: str, shape: tuple[int, ...], keras: bool) -> list[tuple[int, ...]]:
    """The shapes in which a file may hold one of our variables; the first is the usual one.

    A kernel that looks at one position may lie as a matrix or as a 1×1 convolution: the same
    projections are the one in some releases of a model and the other in others.
    """
    shape = tuple(shape)
    if keras or not key.endswith("/kernel"):
        return [shape]
    matrix, grid = shape[-2:][::-1], shape[:-2]
    if not grid:
        return [matrix, (*matrix, 1, 1)]
    return [(*matrix, *grid), matrix] if grid == (1, 1) else [(*matrix, *grid)]


def as_keras(key: str, value: np.ndarray, shape: tuple[int, ...], keras: bool) -> np.ndarray:
    """A tensor as it lies in a file, as our variable has it: kernels (…, in, out)."""
    if keras or not key.endswith("/kernel"):
        return value
    matrix, grid = tuple(shape[-2:][::-1]), tuple(shape[:-2])
    value = value.reshape(*matrix, *grid)
    return value.transpose(2, 3, 1, 0) if grid else value.T


def as_torch(key: str, value: np.ndarray) -> np.ndarray:
    """The inverse: kernels (out, in, …)."""
    if not key.endswith("/kernel"):
        return value
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def _reporter(label: str) -> Callable[[int | None, int], None]:
    if not sys.stderr.isatty():
        return lambda done, total: None
    from xray.progress import bar

    return bar(label)
