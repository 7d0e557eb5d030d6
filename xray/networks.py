"""KerasCV's models taken apart: which layer is which, by name and not by running number.

    net = read_unet(keras_model)
    net.down[0].res[1]          # the second residual block of the finest level

Works on what KerasCV's own classes build and on what `xray.architecture` builds, because both put
the same kinds of layer in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Level:
    """One resolution: residual blocks, the transformers that follow them, the change of size."""

    res: list
    attn: list = field(default_factory=list)
    resample: Any = None


@dataclass
class TextEncoder:
    """CLIP's text encoder."""

    embedding: Any
    layers: list
    norm: Any
    quick_gelu: bool
    exact_gelu: bool = False


@dataclass
class UNet:
    """The noise predictor."""

    time: tuple[Any, Any]
    conv_in: Any
    down: list[Level]
    mid: Level
    up: list[Level]
    norm_out: Any
    conv_out: Any
    exact_gelu: bool = False

    @property
    def width(self) -> int:
        """Channels of the finest level, which is also the length of the timestep embedding."""
        return self.time[0].kernel.shape[0]


@dataclass
class Autoencoder:
    """Encoder or decoder: convolutions at the ends, levels in the order they run, a middle."""

    conv_in: list
    levels: list[Level]
    mid: Level
    norm_out: Any
    conv_out: list
    scaling_factor: float


def _by_type(model: Any) -> dict[str, list]:
    found: dict[str, list] = {}
    for layer in model.layers:
        found.setdefault(type(layer).__name__, []).append(layer)
    return found


def _take(items: list, count: int) -> list:
    taken, items[:count] = items[:count], []
    return taken


def read_text_encoder(model: Any) -> TextEncoder:
    """The parts of a KerasCV ``TextEncoder`` or ``TextEncoderV2``."""
    kinds = _by_type(model)
    layers = kinds["CLIPEncoderLayer"]
    return TextEncoder(
        embedding=kinds["CLIPEmbedding"][0],
        layers=layers,
        norm=kinds["LayerNormalization"][0],
        quick_gelu=getattr(layers[0].activation, "__name__", "") == "quick_gelu",
    )


def read_unet(model: Any) -> UNet:
    """The parts of a KerasCV ``DiffusionModel`` or ``DiffusionModelV2``."""
    kinds = _by_type(model)
    convs, res = list(kinds["PaddedConv2D"]), list(kinds["ResBlock"])
    attn, ups = list(kinds["SpatialTransformer"]), list(kinds["Upsample"])
    # n blocks at each of the levels down, two in the middle, n + 1 at each of the levels up.
    levels = len(ups) + 1
    blocks = (len(res) - 2 - levels) // (2 * levels)
    conv_in, conv_out = convs[0], convs[-1]
    down = [
        Level(
            res=_take(res, blocks),
            attn=_take(attn, blocks if i < levels - 1 else 0),
            resample=convs[1 + i] if i < levels - 1 else None,
        )
        for i in range(levels)
    ]
    mid = Level(res=_take(res, 2), attn=_take(attn, 1))
    up = [
        Level(
            res=_take(res, blocks + 1),
            attn=_take(attn, blocks + 1 if i else 0),
            resample=ups[i] if i < levels - 1 else None,
        )
        for i in range(levels)
    ]
    return UNet(
        time=tuple(kinds["Dense"]),
        conv_in=conv_in,
        down=down,
        mid=mid,
        up=up,
        norm_out=kinds["GroupNormalization"][0],
        conv_out=conv_out,
    )


def read_encoder(model: Any, scaling_factor: float = 0.18215) -> Autoencoder:
    """The parts of a KerasCV ``ImageEncoder``."""
    kinds = _by_type(model)
    convs, res = list(kinds["PaddedConv2D"]), list(kinds["ResnetBlock"])
    levels = len(convs) - 2
    blocks = (len(res) - 2) // levels
    downs = convs[1:levels] + [None]
    return Autoencoder(
        conv_in=[convs[0]],
        levels=[Level(res=_take(res, blocks), resample=down) for down in downs],
        mid=Level(res=res, attn=kinds["AttentionBlock"]),
        norm_out=kinds["GroupNormalization"][0],
        conv_out=convs[levels:],
        scaling_factor=scaling_factor,
    )


def read_decoder(model: Any) -> Autoencoder:
    """The parts of a KerasCV ``Decoder``."""
    kinds = _by_type(model)
    convs, res = list(kinds["PaddedConv2D"]), list(kinds["ResnetBlock"])
    levels = len(convs) - 2
    mid = Level(res=_take(res, 2), attn=kinds["AttentionBlock"])
    blocks = len(res) // levels
    ups = convs[2:-1] + [None]
    return Autoencoder(
        conv_in=convs[:2],
        levels=[Level(res=_take(res, blocks), resample=up) for up in ups],
        mid=mid,
        norm_out=kinds["GroupNormalization"][0],
        conv_out=convs[-1:],
        scaling_factor=1.0 / float(kinds["Rescaling"][0].scale),
    )


# -------------------------------------------------------------------------------------- numerics

NUMERICS = ("reference", "keras_cv")


def set_numerics(numerics: str, *networks: TextEncoder | UNet | Autoencoder) -> None:
    """Make networks compute as the original Stable Diffusion or as KerasCV does.

    KerasCV has 1e-5 in the group norms of the spatial transformers and of the autoencoder where
    the original has 1e-6, and GELU's tanh approximation where the original has the error function.

    Args:
        numerics: ``"reference"`` or ``"keras_cv"``.
        networks: changed in place.
    """
    if numerics not in NUMERICS:
        raise ValueError(f"numerics {numerics!r} is not one of {', '.join(NUMERICS)}")
    epsilon = {"reference": 1e-6, "keras_cv": 1e-5}[numerics]
    for net in networks:
        if isinstance(net, Autoencoder):
            for level in (*net.levels, net.mid):
                for block in level.res:
                    block.norm1.epsilon = block.norm2.epsilon = epsilon
                for block in level.attn:
                    block.norm.epsilon = epsilon
            net.norm_out.epsilon = epsilon
        else:
            net.exact_gelu = numerics == "reference"
        if isinstance(net, UNet):
            for level in (*net.down, net.mid, *net.up):
                for transformer in level.attn:
                    transformer.norm.epsilon = epsilon


# ------------------------------------------------------------------------------------- variables


def variables(prefix: str, net: TextEncoder | UNet | Autoencoder) -> dict[str, Any]:
    """Every Keras variable of a network by a name that says where it stands.

    Names follow the sites: what belongs to the block with the site ``unet/down.0/res.1/out`` is
    called ``unet/down.0/res.1/…``.

    Args:
        prefix: ``"text"``, ``"unet"``, ``"encoder"`` or ``"decoder"``.
        net: the network.

    Example:
        >>> unet = variables("unet", model.networks["unet"])
        >>> tuple(unet["unet/mid/attn.0/cross/to_q/kernel"].shape)
        (128, 128)
    """
    found: dict[str, Any] = {}

    def add(name: str, layer: Any) -> None:
        inner = getattr(layer, "conv2d", layer)
        for variable in inner.weights:
            found[f"{prefix}/{name}/{variable.name}"] = variable

    if isinstance(net, TextEncoder):
        add("embedding/token", net.embedding.token_embedding)
        add("embedding/position", net.embedding.position_embedding)
        for i, layer in enumerate(net.layers):
            for part in ("layer_norm1", "layer_norm2", "fc1", "fc2"):
                add(f"layer.{i}/{part}", getattr(layer, part))
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                add(f"layer.{i}/attention/{part}", getattr(layer.clip_attn, part))
        add("norm", net.norm)
        return found

    def add_res(name: str, block: Any) -> None:
        if hasattr(block, "entry_flow"):
            add(f"{name}/norm1", block.entry_flow[0])
            add(f"{name}/conv1", block.entry_flow[2])
            add(f"{name}/time", block.embedding_flow[1])
            add(f"{name}/norm2", block.exit_flow[0])
            add(f"{name}/conv2", block.exit_flow[2])
        else:
            for part in ("norm1", "conv1", "norm2", "conv2"):
                add(f"{name}/{part}", getattr(block, part))
        if hasattr(block.residual_projection, "conv2d"):
            add(f"{name}/shortcut", block.residual_projection)

    def add_attn(name: str, block: Any) -> None:
        if not hasattr(block, "transformer_block"):
            for part in ("norm", "q", "k", "v", "proj_out"):
                add(f"{name}/{part}", getattr(block, part))
            return
        inner = block.transformer_block
        add(f"{name}/norm", block.norm)
        add(f"{name}/proj_in", block.proj1)
        for kind, a in (("self", inner.attn1), ("cross", inner.attn2)):
            for part in ("to_q", "to_k", "to_v", "out_proj"):
                add(f"{name}/{kind}/{part}", getattr(a, part))
        for part in ("norm1", "norm2", "norm3"):
            add(f"{name}/{part}", getattr(inner, part))
        add(f"{name}/ff/in", inner.geglu.dense)
        add(f"{name}/ff/out", inner.dense)
        add(f"{name}/proj_out", block.proj2)

    def add_level(name: str, level: Level) -> None:
        for i, block in enumerate(level.res):
            add_res(f"{name}/res.{i}", block)
        for i, block in enumerate(level.attn):
            add_attn(f"{name}/attn.{i}", block)
        if level.resample is not None:
            add(f"{name}/resample", getattr(level.resample, "conv", level.resample))

    if isinstance(net, UNet):
        for i, layer in enumerate(net.time):
            add(f"time.{i}", layer)
        add("conv_in", net.conv_in)
        for i, level in enumerate(net.down):
            add_level(f"down.{i}", level)
        add_level("mid", net.mid)
        for i, level in enumerate(net.up):
            add_level(f"up.{i}", level)
        add("norm_out", net.norm_out)
        add("conv_out", net.conv_out)
        return found

    for i, layer in enumerate(net.conv_in):
        add(f"conv_in.{i}", layer)
    for i, level in enumerate(net.levels):
        add_level(f"level.{i}", level)
    add_level("mid", net.mid)
    add("norm_out", net.norm_out)
    for i, layer in enumerate(net.conv_out):
        add(f"conv_out.{i}", layer)
    return found
