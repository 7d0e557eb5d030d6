"""What a network is made of, block by block: parameters, multiply-adds, memory, time.

    net = dissect(model.decoder, [(1, 16, 16, 4)])
    net.blocks[0].multiply_adds, net.peak_bytes
    seconds = time_blocks(net, repeats=3)

Nothing is estimated from the architecture: the network is traced as it is run, and the operations
of its graph are counted. Which of them belong to which block is known from its sites.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from xray.taps import Tap

if TYPE_CHECKING:
    from xray.program import Part

_BLOCK = re.compile(r"(.*?/(?:res\.\d+|attn\.\d+|layer\.\d+|conv_in|downsample|upsample))(?:/|$)")

# Operations that give another name or shape to what is there.
_ALIASES = {"Reshape", "Identity", "EnsureShape", "ExpandDims", "Squeeze", "StopGradient"}
# Operations that TensorFlow lets write over an operand that nothing else needs any more.
_IN_PLACE = {
    "AddV2", "Sub", "Mul", "RealDiv", "Neg", "Square", "SquaredDifference", "Rsqrt",
    "Sigmoid", "Tanh", "Erf", "Erfc", "Exp", "Softmax",
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """One block of a network, such as ``unet/down.0/res.1``.

    Attributes:
        name: its sites begin with it.
        shape: of what it leaves, of one image: (y, x, channel) or (token, channel).
        parameters: how many numbers it has learned.
        multiply_adds: of its convolutions and matrix products, attention's two among them. What is
            done number by number (normalisation, activation, softmax) is not counted; products
            with the zeros around a picture are, for they are computed.
        peak_bytes: the most bytes of tensors alive at once while it runs, see `alive`.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    peak_bytes: int

    @property
    def kind(self) -> str:
        """``"residual"``, ``"attention"``, ``"resampling"`` or ``"other"``."""
        last = self.name.split("/")[-1].split(".")[0]
        kinds = {"res": "residual", "attn": "attention", "layer": "attention"}
        return kinds.get(last, "resampling" if last.endswith("sample") else "other")


@dataclass(frozen=True)
class Network:
    """A network, dissected. Made by `dissect`.

    Attributes:
        name: ``"text"``, ``"unet"``, ``"encoder"`` or ``"decoder"``.
        blocks: in the order in which they run.
        skips: what is kept for later: (block it comes from, block it goes to, bytes).
        output_shape: with the image axis.
    """

    name: str
    blocks: list[Block]
    skips: list[tuple[str, str, int]]
    output_shape: tuple[int, ...]
    _traced: Any = field(repr=False)
    _ranges: list[tuple[int, int]] = field(repr=False)

    @property
    def parameters(self) -> int:
        return sum(block.parameters for block in self.blocks)

    @property
    def multiply_adds(self) -> int:
        return sum(block.multiply_adds for block in self.blocks)

    @property
    def peak_bytes(self) -> int:
        return max(block.peak_bytes for block in self.blocks)


def block_of(site: str) -> str:
    """The block that a site belongs to.

    Example:
        >>> block_of("unet/down.0/attn.1/self/query"), block_of("unet/out")
        ('unet/down.0/attn.1', 'unet/out')
    """
    found = _BLOCK.match(site)
    return found.group(1) if found else site


def dissect(part: Part, shapes: Sequence[tuple[int, ...]]) -> Network:
    """Trace a network for arrays of these shapes and count what each of its blocks does.

    It is not run, so random weights will do.

    Args:
        part: of a `Generator`: ``model.unet`` and so on.
        shapes: of its arrays, as it documents them, for one image or several.
    """
    sites = _Sites()
    dtype = tf.int32 if part.name == "text" else tf.float32
    traced = tf.function(
        lambda *arrays: part.network(sites, *arrays), autograph=False
    ).get_concrete_function(*(tf.TensorSpec(shape, dtype) for shape in shapes))
    ops = traced.graph.get_operations()
    place = {op.name: k for k, op in enumerate(ops)}
    ends = {name: place[x.op.name] + 1 for name, x in sites.last.items()}
    begins = [0, *list(ends.values())[:-1]]
    ranges = list(zip(begins, ends.values(), strict=True))
    variables = {inner.name for _, inner in traced.graph.captures}
    bytes_alive = alive(ops, [x for x in traced.inputs if x.name not in variables], traced.outputs)

    blocks, seen = [], set()
    for (name, x), (begin, end) in zip(sites.last.items(), ranges, strict=True):
        read = {op.inputs[0].name: op for op in ops[begin:end] if op.type == "ReadVariableOp"}
        new = [op for variable, op in read.items() if variable not in seen]
        seen |= set(read)
        blocks.append(
            Block(
                name=name,
                shape=tuple(x.shape[1:]),
                parameters=sum(op.outputs[0].shape.num_elements() for op in new),
                multiply_adds=sum(map(multiply_adds, ops[begin:end])),
                peak_bytes=max(bytes_alive[begin:end]),
            )
        )
    skips = []
    for site, x in sites.skips.items():
        source = next(n for n, end in ends.items() if place[x.op.name] < end)
        skips.append((source, site.replace("/skip.", "/res."), _bytes(x)))
    return Network(part.name, blocks, skips, tuple(traced.outputs[0].shape), traced, ranges)


class _Sites(Tap):
    """Asks for nothing, and takes down where the sites are."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[str, Any] = {}  # what each block left at its last site
        self.skips: dict[str, Any] = {}

    def __call__(self, site: str, x: Any) -> Any:
        if "/skip." in site:
            self.skips[site] = x
        else:
            self.last[block_of(site)] = x
        return x


def multiply_adds(op: Any) -> int:
    """Of one operation of a graph: a convolution, a matrix product, a loop; 0 for any other.

    As it is computed: a convolution by Winograd's algorithm is matrix products, and fewer numbers.
    """
    if op.type in ("While", "StatelessWhile"):
        body = op.graph._functions[op.get_attr("body").name].graph
        turns = tf.get_static_value(op.inputs[1])
        return int(turns) * sum(map(multiply_adds, body.get_operations()))
    if op.type == "Conv2D":
        height, width, channels, _ = op.inputs[1].shape
        return op.outputs[0].shape.num_elements() * height * width * channels
    if op.type in ("MatMul", "BatchMatMulV2"):
        turned = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
        return op.outputs[0].shape.num_elements() * op.inputs[0].shape[-2 if turned else -1]
    return 0


def alive(ops: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> list[int]:
    """How many bytes of tensors are alive while each operation runs, in the order of the code.

    Counted is every tensor that depends on the inputs, the inputs too, from the operation that
    makes it to the last that reads it; outputs stay. A reshaped tensor is the same one. What works
    number by number writes over an operand that is read for the last time, as TensorFlow lets it.

    Not counted are weights, what operations need for themselves while they run (a convolution may
    rearrange its input), what the allocator keeps for later, and that operations which do not wait
    for each other may run at once. What a process takes is more: measured as the growth of its
    resident memory at 1024×1024, 1.4 times as much in the miniature's decoder and 2.1 times in its
    U-Net, where chunks of attention overlap.

    Args:
        ops: of a graph, in the order in which they were made.
        inputs, outputs: tensors of it.

    Returns:
        Bytes for each operation.
    """
    buffer: dict[str, int] = {}  # by tensor
    sizes: list[int] = []

    def new(x: Any) -> int:
        sizes.append(_bytes(x))
        return len(sizes) - 1

    given = {x.name for x in inputs}
    for op in ops:
        depends = any(x.name in buffer for x in op.inputs)
        for x in op.outputs:
            if x.name in given:
                buffer[x.name] = new(x)
            elif depends:
                shared = op.type in _ALIASES
                buffer[x.name] = buffer[op.inputs[0].name] if shared else new(x)
    last = {buffer[x.name]: k for k, op in enumerate(ops) for x in op.inputs if x.name in buffer}
    last |= {buffer[x.name]: len(ops) for x in outputs if x.name in buffer}

    found, there = [], set()
    for k, op in enumerate(ops):
        mine = {buffer[x.name] for x in op.outputs if x.name in buffer}
        read = {buffer[x.name] for x in op.inputs if x.name in buffer}
        over = {b for b in read if last[b] == k and sizes[b] in {sizes[m] for m in mine}}
        written_over = next(iter(over), None) if op.type in _IN_PLACE else None
        during = there | mine
        found.append(sum(sizes[b] for b in during if b != written_over))
        there = {b for b in during if last.get(b, k) > k}
    return found


def _bytes(x: Any) -> int:
    return x.shape.num_elements() * x.dtype.size


# ------------------------------------------------------------------------------------------ time


def time_whole(net: Network, repeats: int) -> float:
    """Seconds of one run of the whole network, the shortest of `repeats` after one more."""
    captured = len(net._traced.graph.captures)
    specs = net._traced.inputs[: len(net._traced.inputs) - captured]
    return _timed(net._traced, [_filled(x) for x in specs], repeats)


def time_blocks(net: Network, repeats: int) -> Iterator[float]:
    """Seconds of one run of each block alone, in their order, the shortest of `repeats`.

    Each block is cut out of the graph, made a function of its own, and given normal numbers. Their
    sum is not quite the time of the whole: each has its own call, and nothing runs beside it.
    """
    for function, reads, _ in pieces(net):
        yield _timed(function, [_filled(x) for x in reads], repeats)


def pieces(net: Network) -> Iterator[tuple[Callable, list[Any], list[str]]]:
    """Each block as a function of its own, in their order: ``(function, reads, leaves)``.

    `reads` are the tensors of the whole graph that it takes, `leaves` the names of those that it
    gives, in a list.
    """
    graph = net._traced.graph
    whole, ops = graph.as_graph_def(), graph.get_operations()
    nodes = {node.name: node for node in whole.node}
    captures = {inner.name: outer for outer, inner in graph.captures}
    for begin, end in net._ranges:
        mine = [op for op in ops[begin:end] if op.type != "Placeholder"]
        names = {op.name for op in mine}
        outside = {x.name: x for op in mine for x in op.inputs if x.op.name not in names}
        reads = [x for name, x in outside.items() if name not in captures]
        weights = {name: captures[name] for name in outside if name in captures}
        leaves = [
            x.name
            for op in mine
            for x in op.outputs
            if any(user.name not in names for user in x.consumers())
        ]
        piece = tf.compat.v1.GraphDef(
            node=[_alone(nodes[op.name], names) for op in mine], library=whole.library
        )
        yield _function(piece, reads, weights, leaves), reads, leaves


def _alone(node: Any, names: set[str]) -> Any:
    """A node that waits only for others of its piece."""
    kept = [x for x in node.input if not x.startswith("^") or x[1:] in names]
    copy = type(node)()
    copy.CopyFrom(node)
    copy.ClearField("input")
    copy.input.extend(kept)
    return copy


def _function(
    piece: Any, reads: Sequence[Any], weights: dict[str, Any], leaves: Sequence[str]
) -> Callable:
    """A function that runs a piece of a graph, given the tensors and variables that it reads."""

    def run(*given: Any) -> Any:
        inside = tf.compat.v1.get_default_graph()
        known = {x.name: value for x, value in zip(reads, given, strict=True)}
        known |= {name: inside.capture(outer) for name, outer in weights.items()}
        return tf.graph_util.import_graph_def(
            piece, input_map=known, return_elements=list(leaves), name=""
        )

    specs = [tf.TensorSpec(x.shape, x.dtype) for x in reads]
    return tf.function(run, autograph=False).get_concrete_function(*specs)


def _filled(x: Any) -> Any:
    if x.dtype.is_integer:
        return tf.zeros(x.shape, x.dtype)
    return tf.constant(np.random.default_rng(0).standard_normal(x.shape, np.float32))


def _timed(function: Callable, arrays: Sequence[Any], repeats: int) -> float:
    function(*arrays)  # the first call optimises the graph
    shortest = np.inf  # the others were held up by what else the machine does
    for _ in range(repeats):
        begin = time.perf_counter()
        function(*arrays)
        shortest = min(shortest, time.perf_counter() - begin)
    return shortest
