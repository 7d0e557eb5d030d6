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

from xray.checkpoints.checkpoint import COMPONENTS, Checkpoint, Component
from xray.checkpoints.files import Tensor, shown

if TYPE_CHECKING:
    from xray.architecture import Architecture
    from xray.generator import Generator
    from xray.tokenizer import Tokenizer

FLOATS = ("F64", "F32", "F16", "BF16")


def assemble(
    checkpoint: Checkpoint,
    *,
    numerics: str | None = None,
    jit: bool | None = None,
    dtype: str = "float32",
) -> Generator:
    """The model of a checkpoint, its weights read tensor by tensor and kept as `dtype`.

    Raises:
        ValueError: the files do not hold what a model of these sizes needs, or numbers that are
            too large for `dtype`.
    """
    from xray.architecture import unwritten
    from xray.generator import Generator

    arch, matrix = checkpoint.architecture, checkpoint.rgb_matrix
    networks = build(arch, functools.partial(unwritten, dtype=dtype), dtype)
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
        jit=pays_to_compile(arch) if jit is None else jit,
    )


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
    jit: bool | None = None,
    dtype: str = "float32",
) -> Generator:
    """A model with random weights that `seed` decides."""
    from xray.generator import Generator
    from xray.networks import variables

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
        jit=pays_to_compile(arch) if jit is None else jit,
    )


def outline(name: str, arch: Architecture) -> Generator:
    """A model without weights, to be traced and never run: what it would compute is undefined."""
    from xray.architecture import unwritten
    from xray.generator import Generator

    networks = build(arch, unwritten)
    return Generator(name, arch, None, **networks, digest="unwritten", jit=pays_to_compile(arch))


class _QuickNormal:
    """Normal numbers by the billion: one block of a million, repeated from random places.

    Drawing them all would take half a minute for a full-size model.
    """

    def __init__(self, random: np.random.Generator):
        self.random, self.block = random, random.standard_normal(1 << 20, np.float32)

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        start = int(self.random.integers(self.block.size))
        return np.resize(np.roll(self.block, -start), shape)


def pays_to_compile(arch: Architecture) -> bool:
    """Whether a step takes seconds, so that XLA saves more time than compiling costs."""
    return arch.widths[0] >= 256


def build(
    arch: Architecture, fill: Callable[[tuple[int, ...]], Any], dtype: str = "float32"
) -> dict[str, Any]:
    """The networks of these sizes, their kernels and embeddings from ``fill(shape)``."""
    from xray import architecture as a

    with a.initial_weights(fill, dtype):
        return {
            "text": a.build_text_encoder(arch),
            "unet": a.build_unet(arch),
            "encoder": a.build_encoder(arch),
            "decoder": a.build_decoder(arch),
        }


# ------------------------------------------------------------------------------------- assigning


def assign(networks: dict[str, Any], components: dict[str, Component]) -> None:
    """Give every variable its value, after checking that all are there and fit.

    Every tensor is read, turned as Keras has it, and made of the variable's dtype in one pass.

    Raises:
        ValueError: what is missing, surplus, of wrong shape or type, in all components; a number
            is too large for a variable's dtype.
    """
    from xray.networks import variables

    wanted, problems = [], []
    for name, component in components.items():
        own = [
            (key, variable, component.name_of(key))
            for network in COMPONENTS[name]
            for key, variable in variables(network, networks[network]).items()
        ]
        wanted += [(key, variable, component, theirs) for key, variable, theirs in own]
        shapes = {theirs: accepted_shapes(key, v.shape, component.keras) for key, v, theirs in own}
        if differ := _differences(component.tensors, shapes):
            problems.append(f"{component.source}: {differ}")
    if problems:
        raise ValueError("; ".join(problems))

    def read(key: str, variable: Any, component: Component, theirs: str) -> np.ndarray:
        tensor = component.tensors[theirs]
        return _value(key, tensor, variable.shape, component.keras, variable.dtype)

    report = _reporter("reading weights")
    # What is read ahead takes no more memory: it stays where it is, and is the variable's.
    with ThreadPoolExecutor(max_workers=2) as pool:
        values = pool.map(read, *zip(*wanted, strict=True))
        for done, (_, variable, *_) in enumerate(wanted):
            variable.assign(_shared(next(values)))
            report(done + 1, len(wanted))
    report(None, len(wanted))


def reader(components: dict[str, Component]) -> Callable[[str, tuple[int, ...]], np.ndarray]:
    """What gives a variable's values by its name and shape, from the files, any time later."""
    parts = {part: components[name] for name, parts in COMPONENTS.items() for part in parts}

    def read(key: str, shape: tuple[int, ...]) -> np.ndarray:
        component = parts[key.split("/")[0]]
        return _value(key, component.tensors[component.name_of(key)], shape, component.keras)

    return read


def _value(
    key: str, tensor: Tensor, shape: tuple[int, ...], keras: bool, dtype: str = "float32"
) -> np.ndarray:
    """What a variable is to hold, of a tensor in a file: in one pass turned and made `dtype`."""
    value = _aligned(shape, dtype)
    try:
        with np.errstate(over="raise"):
            np.copyto(value, as_keras(key, tensor.read(), shape, keras), casting="unsafe")
    except FloatingPointError as error:
        raise ValueError(
            f"{key} has numbers that are too large for {dtype}, whose largest is "
            f"{np.finfo(dtype).max:g}: load the model as float32"
        ) from error
    return value


def _aligned(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """Unwritten floats that begin in memory where TensorFlow's tensors do, at multiples of 64."""
    count, size = math.prod(shape), np.dtype(dtype).itemsize
    room = np.empty(count + 64 // size, dtype)
    start = -room.ctypes.data % 64 // size
    return room[start : start + count].reshape(shape)


def _shared(value: np.ndarray) -> Any:
    """A tensor on an array's own memory.

    A variable that is assigned an array copies it, and the system's first touch of so many small
    pages takes longer than all reading; NumPy asks for large ones.
    """
    import tensorflow as tf

    return tf.experimental.dlpack.from_dlpack(value.__dlpack__())


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
