"""One builder for every size of Stable Diffusion, from KerasCV's own blocks.

    net = build_unet(SD1)              # what keras_cv's DiffusionModel is made of
    net = build_unet(MINI)             # the same topology at small width

KerasCV's model classes have their widths written into them. Here the widths are data; the blocks
(ResBlock, SpatialTransformer, CLIPEncoderLayer, ResnetBlock, …) are KerasCV's, and what comes out
is what `xray.networks` reads from KerasCV's own models. Each layer is built for the shapes it will
see, without calling it: tracing a whole model symbolically costs Keras ten seconds.
"""

from __future__ import annotations

import contextlib
import math
import numbers
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from xray.networks import Autoencoder, Level, TextEncoder, UNet
from xray.reserve import as_tensor, reserved
from xray.schedule import PREDICTIONS


@dataclass(frozen=True)
class Architecture:
    """The sizes of one Stable Diffusion.

    Attributes:
        vocab_size, text_length: of the tokenizer; `text_length` counts start and end.
        text_width, text_heads, text_layers: of the causal CLIP text encoder.
        text_activation: ``"quick_gelu"`` (1.x) or ``"gelu"`` (2.x).
        widths: channels of the U-Net's four levels, finest first.
        heads: attention heads at each of the four levels (the fourth is the middle's).
        blocks: residual blocks a level on the way down; one more on the way up.
        linear_projections: dense instead of 1×1-convolution projections in transformers (2.x).
        groups: groups of every group normalisation in the U-Net. 32 in Stable Diffusion; at 32
            channels that would be instance normalisation, which forgets each channel's scale.
        ae_widths, ae_blocks, ae_groups: the same of the autoencoder.
        scaling_factor: latents are the encoder's mean times this.
        prediction: what the U-Net predicts: ``"epsilon"``, ``"v"`` or ``"sample"``.
        beta_start, beta_end: of the noise it learned to see, see `xray.samplers.NoiseSchedule`.
        size: side of the picture it was trained on, in pixels.

    Raises:
        ValueError: one of them cannot be; names it and its value.
    """

    vocab_size: int = 49408
    text_length: int = 77
    text_width: int = 768
    text_heads: int = 12
    text_layers: int = 12
    text_activation: str = "quick_gelu"
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    heads: tuple[int, ...] = (8, 8, 8, 8)
    blocks: int = 2
    linear_projections: bool = False
    groups: int = 32
    ae_widths: tuple[int, ...] = (128, 256, 512, 512)
    ae_blocks: int = 2
    ae_groups: int = 32
    scaling_factor: float = 0.18215
    prediction: str = "epsilon"
    beta_start: float = 0.00085
    beta_end: float = 0.012
    size: int = 512

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (kind, fits) = getattr(self, field.name), _KINDS[field.type]
            if not fits(value):
                raise ValueError(f"{field.name} is {value!r:.80}, not {kind}")
        for what, known in _CHOICES.items():
            if getattr(self, what) not in known:
                raise ValueError(
                    f"{what} {getattr(self, what)!r:.80} is not one of {', '.join(known)}"
                )
        for what in ("widths", "heads", "ae_widths"):
            if len(getattr(self, what)) != 4:
                raise ValueError(f"{what} {getattr(self, what)!r:.80} are not of four levels")
        for what, counts, widths in (
            ("text_heads", [self.text_heads], [self.text_width]),
            ("heads", self.heads, self.widths),
            ("groups", [self.groups] * len(self.widths), self.widths),
            ("ae_groups", [self.ae_groups] * len(self.ae_widths), self.ae_widths),
        ):
            if any(c < 1 or width % c for c, width in zip(counts, widths, strict=True)):
                raise ValueError(f"{what} {counts} do not divide the widths {widths}")

    @property
    def time_width(self) -> int:
        return 4 * self.widths[0]

    def sides(self, width: int | None = None, height: int | None = None) -> tuple[int, int]:
        """Width and height of a picture: the model's own size where none is given."""
        return (self.size if width is None else width, self.size if height is None else height)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Architecture:
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})


def _whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value > 0


# By the annotations of `Architecture`: what its numbers are, for errors, and whether one is.
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a whole number above 0", _whole),
    "tuple[int, ...]": (
        "whole numbers above 0",
        lambda value: isinstance(value, tuple) and all(map(_whole, value)),
    ),
    "float": (
        "a number above 0",
        lambda v: isinstance(v, numbers.Real) and not isinstance(v, bool) and 0 < v < math.inf,
    ),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "str": ("a word", lambda value: isinstance(value, str)),
}

_CHOICES = {
    "text_activation": ("quick_gelu", "gelu"),
    "prediction": PREDICTIONS,
}


SD1 = Architecture()
SD2 = replace(
    SD1,
    text_width=1024,
    text_heads=16,
    text_layers=23,
    text_activation="gelu",
    heads=(5, 10, 20, 20),
    linear_projections=True,
)
SD2_V = replace(SD2, prediction="v", size=768)


def build_text_encoder(arch: Architecture) -> TextEncoder:
    """CLIP's causal text encoder: (n, length) token ids → (n, length, width)."""
    from keras_cv.src.backend import keras, ops
    from keras_cv.src.models.stable_diffusion import text_encoder as kcv

    width = arch.text_width
    embedding = build_text_embedding(arch)
    activation = {"quick_gelu": kcv.quick_gelu, "gelu": ops.gelu}[arch.text_activation]
    layers = []
    for _ in range(arch.text_layers):
        layer = kcv.CLIPEncoderLayer(width, arch.text_heads, activation=activation)
        a = layer.clip_attn
        for part in (layer.layer_norm1, a.q_proj, a.k_proj, a.v_proj, a.out_proj):
            part.build((None, None, width))
        for part in (layer.layer_norm2, layer.fc1):
            part.build((None, None, width))
        layer.fc2.build((None, None, 4 * width))
        layers.append(layer)
    norm = keras.layers.LayerNormalization(epsilon=1e-5)
    norm.build((None, None, width))
    return TextEncoder(embedding, layers, norm, arch.text_activation == "quick_gelu")


def build_text_embedding(arch: Architecture) -> Any:
    """The tables of the text encoder, of tokens and of positions."""
    from keras_cv.src.models.stable_diffusion.text_encoder import CLIPEmbedding

    embedding = CLIPEmbedding(arch.vocab_size, arch.text_width, arch.text_length)
    embedding.token_embedding.build()
    embedding.position_embedding.build()
    return embedding


def build_unet(arch: Architecture) -> UNet:
    """The noise predictor: four levels down, a middle, four levels up."""
    from keras_cv.src.backend import keras
    from keras_cv.src.models.stable_diffusion.diffusion_model import Upsample

    widths, deepest = arch.widths, len(arch.widths) - 1
    time = tuple(keras.layers.Dense(arch.time_width) for _ in range(2))
    time[0].build((None, widths[0]))
    time[1].build((None, arch.time_width))

    skips = [widths[0]]
    width = widths[0]
    down = []
    for i, out in enumerate(widths):
        level = Level([], [])
        for _ in range(arch.blocks):
            level.res.append(_res_block(arch, width, out))
            if i < deepest:
                level.attn.append(_transformer(arch, i))
            width = out
            skips.append(width)
        if i < deepest:
            level.resample = _conv(width, width, 3, padding=1, strides=2)
            skips.append(width)
        down.append(level)

    mid = Level([_res_block(arch, width, width) for _ in range(2)], [_transformer(arch, deepest)])

    up = []
    for i in reversed(range(len(widths))):
        level = Level([], [])
        for _ in range(arch.blocks + 1):
            level.res.append(_res_block(arch, width + skips.pop(), widths[i]))
            if i < deepest:
                level.attn.append(_transformer(arch, i))
            width = widths[i]
        if i:
            level.resample = Upsample(width)
            _build_conv(level.resample.conv, width)
        up.append(level)

    return UNet(
        time=time,
        conv_in=_conv(4, widths[0], 3, padding=1),
        down=down,
        mid=mid,
        up=up,
        norm_out=_group_norm(arch.groups, width),
        conv_out=_conv(width, 4, 3, padding=1),
    )


def build_encoder(arch: Architecture) -> Autoencoder:
    """Pixels → moments of the latent, three halvings."""
    width = arch.ae_widths[0]
    conv_in = [_conv(3, width, 3, padding=1)]
    levels = []
    for i, out in enumerate(arch.ae_widths):
        level = Level([])
        for _ in range(arch.ae_blocks):
            level.res.append(_resnet_block(arch, width, out))
            width = out
        if i < len(arch.ae_widths) - 1:
            level.resample = _conv(width, width, 3, padding=((0, 1), (0, 1)), strides=2)
        levels.append(level)
    return Autoencoder(
        conv_in=conv_in,
        levels=levels,
        mid=_autoencoder_mid(arch),
        norm_out=_group_norm(arch.ae_groups, width),
        conv_out=[_conv(width, 8, 3, padding=1), _conv(8, 8, 1)],
        scaling_factor=arch.scaling_factor,
    )


def build_decoder(arch: Architecture) -> Autoencoder:
    """Latents → pixels, three doublings."""
    width = arch.ae_widths[-1]
    levels = []
    conv_in = [_conv(4, 4, 1), _conv(4, width, 3, padding=1)]
    for i in reversed(range(len(arch.ae_widths))):
        level = Level([])
        for _ in range(arch.ae_blocks + 1):
            level.res.append(_resnet_block(arch, width, arch.ae_widths[i]))
            width = arch.ae_widths[i]
        if i:
            level.resample = _conv(width, width, 3, padding=1)
        levels.append(level)
    return Autoencoder(
        conv_in=conv_in,
        levels=levels,
        mid=_autoencoder_mid(arch),
        norm_out=_group_norm(arch.ae_groups, width),
        conv_out=[_conv(width, 3, 3, padding=1)],
        scaling_factor=arch.scaling_factor,
    )


# ------------------------------------------------------------------------------------ built blocks


def _conv(cin: int, cout: int, kernel: int, *, padding: Any = 0, strides: int = 1) -> Any:
    from keras_cv.src.models.stable_diffusion.padded_conv2d import PaddedConv2D

    layer = PaddedConv2D(cout, kernel, padding=padding, strides=strides)
    _build_conv(layer, cin)
    return layer


def _build_conv(layer: Any, cin: int) -> None:
    layer.conv2d.build((None, None, None, cin))


def _group_norm(groups: int, width: int) -> Any:
    from keras_cv.src.backend import keras

    layer = keras.layers.GroupNormalization(groups=groups, epsilon=1e-5)
    layer.build((None, None, None, width))
    return layer


def _build_norm(layer: Any, groups: int, width: int) -> None:
    # KerasCV's blocks take no group argument.
    layer.groups = groups
    layer.build((None, None, None, width))


def _res_block(arch: Architecture, cin: int, cout: int) -> Any:
    from keras_cv.src.models.stable_diffusion.diffusion_model import ResBlock

    block = ResBlock(cout)
    _build_norm(block.entry_flow[0], arch.groups, cin)
    _build_conv(block.entry_flow[2], cin)
    block.embedding_flow[1].build((None, arch.time_width))
    _build_norm(block.exit_flow[0], arch.groups, cout)
    _build_conv(block.exit_flow[2], cout)
    block.build([(None, None, None, cin), (None, arch.time_width)])
    if cin != cout:
        _build_conv(block.residual_projection, cin)
    return block


def _transformer(arch: Architecture, level: int) -> Any:
    from keras_cv.src.models.stable_diffusion.diffusion_model import SpatialTransformer

    heads, width = arch.heads[level], arch.widths[level]
    block = SpatialTransformer(heads, width // heads, fully_connected=arch.linear_projections)
    _build_norm(block.norm, arch.groups, width)
    for projection in (block.proj1, block.proj2):
        if arch.linear_projections:
            projection.build((None, None, None, width))
        else:
            _build_conv(projection, width)
    inner = block.transformer_block
    for part in (inner.norm1, inner.norm2, inner.norm3, inner.geglu.dense):
        part.build((None, None, width))
    inner.dense.build((None, None, 4 * width))
    for a, source in ((inner.attn1, width), (inner.attn2, arch.text_width)):
        a.to_q.build((None, None, width))
        a.to_k.build((None, None, source))
        a.to_v.build((None, None, source))
        a.out_proj.build((None, None, width))
    return block


def _resnet_block(arch: Architecture, cin: int, cout: int) -> Any:
    from keras_cv.src.models.stable_diffusion.resnet_block import ResnetBlock

    block = ResnetBlock(cout)
    _build_norm(block.norm1, arch.ae_groups, cin)
    _build_conv(block.conv1, cin)
    _build_norm(block.norm2, arch.ae_groups, cout)
    _build_conv(block.conv2, cout)
    block.build((None, None, None, cin))
    if cin != cout:
        _build_conv(block.residual_projection, cin)
    return block


def _autoencoder_mid(arch: Architecture) -> Level:
    from keras_cv.src.models.stable_diffusion.attention_block import AttentionBlock

    width = arch.ae_widths[-1]
    block = AttentionBlock(width)
    _build_norm(block.norm, arch.ae_groups, width)
    for part in (block.q, block.k, block.v, block.proj_out):
        _build_conv(part, width)
    return Level([_resnet_block(arch, width, width) for _ in range(2)], [block])


@contextlib.contextmanager
def initial_weights(fill: Callable[[tuple[int, ...]], Any], dtype: str = "float32"):
    """While it lasts, Keras takes new kernels and embeddings from ``fill(shape)``.

    Drawing the initial weights of a full-size model takes Keras half a minute, and they are
    overwritten at once. Restored afterwards, also on an error.

    Args:
        fill: values for a shape, such as ``np.zeros`` or `unwritten`.
        dtype: in which all new weights are kept; the networks compute in float32 whatever it is.

    Example:
        >>> with initial_weights(unwritten):
        ...     net = build_unet(SD1)
    """
    from keras_cv.src.backend import keras

    classes = [keras.initializers.GlorotUniform, keras.initializers.RandomUniform]
    own = [vars(cls).get("__call__") for cls in classes]  # None where it is inherited

    def filled(self: Any, shape: tuple[int, ...], dtype: Any = None) -> Any:
        return keras.ops.convert_to_tensor(fill(tuple(shape)), dtype or "float32")

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    for cls in classes:
        cls.__call__ = filled
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        for cls, call in zip(classes, own, strict=True):
            if call is None:
                del cls.__call__
            else:
                cls.__call__ = call


def unwritten(shape: tuple[int, ...], dtype: str = "float32") -> Any:
    """Initial weights that hold no memory: a place for them is reserved, and nothing written there.

    What they are is undefined until they are assigned. A network made of them can be traced at any
    size, for the shapes of what it computes.
    """
    return as_tensor(reserved(shape, dtype))
