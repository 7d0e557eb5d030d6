"""What the other forms of weights call our variables.

    diffusers_name("unet/down.0/res.1/conv1/kernel")         # down_blocks.0.resnets.1.conv1.weight
    ldm_name("unet/down.0/res.1/conv1/kernel", blocks=2)     # input_blocks.2.0.in_layers.2.weight

Our names (`xray.networks.variables`) follow the sites; theirs are the attributes of torch modules.
In a table every line that matches is applied, from top to bottom; ``/`` becomes ``.`` at the end.
Names are without the prefix by which a file tells its components apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from xray.checkpoints.files import Tensor

# A pattern, and what stands in its place.
_Table = list[tuple[str, str | Callable[[re.Match], str]]]

_CLIP: _Table = [
    (r"^embedding/(token|position)$", r"embeddings/\1_embedding"),
    (r"/attention/", "/self_attn/"),
    (r"/(fc[12])$", r"/mlp/\1"),
    (r"^layer\.", "encoder/layers/"),
    (r"^norm$", "final_layer_norm"),
    (r"^", "text_model/"),
]

_OPENCLIP: _Table = [
    (r"^embedding/token$", "token_embedding"),
    (r"^embedding/position$", "positional_embedding"),
    (r"/layer_norm([12])$", r"/ln_\1"),
    (r"/attention/", "/attn/"),
    (r"/fc1$", "/mlp/c_fc"),
    (r"/fc2$", "/mlp/c_proj"),
    (r"^layer\.", "transformer/resblocks/"),
    (r"^norm$", "ln_final"),
]

_TRANSFORMER: _Table = [
    (r"(/attn\.\d+)/(?=self|cross|norm[123]$|ff)", r"\1/transformer_blocks/0/"),
    (r"/self/", "/attn1/"),
    (r"/cross/", "/attn2/"),
    (r"/out_proj$", "/to_out/0"),
    (r"/ff/in$", "/ff/net/0/proj"),
    (r"/ff/out$", "/ff/net/2"),
]

_BLOCKS: _Table = [
    (r"^mid/", "mid_block/"),
    (r"/res\.", "/resnets/"),
    (r"/attn\.", "/attentions/"),
    (r"/shortcut$", "/conv_shortcut"),
    (r"^norm_out$", "conv_norm_out"),
]

_AUTOENCODER_ATTENTION: _Table = [
    (r"^mid/attn\.0/norm$", "mid/attn.0/group_norm"),
    (r"/([qkv])$", r"/to_\1"),
    (r"/proj_out$", "/to_out/0"),
]

_DIFFUSERS: dict[str, _Table] = {
    "text": _CLIP,
    "unet": [
        *_TRANSFORMER,
        (r"^time\.0$", "time_embedding/linear_1"),
        (r"^time\.1$", "time_embedding/linear_2"),
        (r"^(down|up)\.(\d+)/resample$", r"\1.\2/\1samplers/0/conv"),
        (r"^(down|up)\.", r"\1_blocks/"),
        *_BLOCKS,
        (r"/time$", "/time_emb_proj"),
    ],
    "encoder": [
        *_AUTOENCODER_ATTENTION,
        (r"^(conv_in|conv_out)\.0$", r"\1"),
        (r"^level\.(\d+)/resample$", r"level.\1/downsamplers/0/conv"),
        (r"^level\.", "down_blocks/"),
        *_BLOCKS,
        (r"^", "encoder/"),
        (r"^encoder/conv_out\.1$", "quant_conv"),
    ],
    "decoder": [
        *_AUTOENCODER_ATTENTION,
        (r"^conv_in\.1$", "conv_in"),
        (r"^conv_out\.0$", "conv_out"),
        (r"^level\.(\d+)/resample$", r"level.\1/upsamplers/0/conv"),
        (r"^level\.", "up_blocks/"),
        *_BLOCKS,
        (r"^", "decoder/"),
        (r"^decoder/conv_in\.0$", "post_quant_conv"),
    ],
}


def diffusers_name(key: str) -> str:
    """Of a variable in diffusers' and transformers' files.

    Example:
        >>> diffusers_name("text/layer.3/attention/q_proj/bias")
        'text_model.encoder.layers.3.self_attn.q_proj.bias'
    """
    return _renamed(key, _DIFFUSERS[key.split("/")[0]])


def ldm_name(key: str, *, blocks: int = 0, levels: int = 0, openclip: bool = False) -> str:
    """Of a variable in the files of CompVis and Stability AI.

    Args:
        key: its name here.
        blocks: residual blocks a level on the way down, for the U-Net.
        levels: of the autoencoder.
        openclip: the text encoder is OpenCLIP's, as in 2.x, and not transformers'.

    Example:
        >>> ldm_name("unet/up.0/resample/bias", blocks=2)
        'output_blocks.2.1.conv.bias'
    """
    tables = {
        "text": lambda: _OPENCLIP if openclip else _CLIP,
        "unet": lambda: _ldm_unet(blocks),
        "encoder": lambda: _LDM_ENCODER,
        "decoder": lambda: _ldm_decoder(levels),
    }
    return _renamed(key, tables[key.split("/")[0]]())


def _renamed(key: str, table: _Table) -> str:
    path, variable = key.split("/", 1)[1].rsplit("/", 1)
    for pattern, replacement in table:
        path = re.sub(pattern, replacement, path)
    if path == "positional_embedding":  # in OpenCLIP no layer is around this one
        return path
    kind = {"kernel": "weight", "gamma": "weight", "embeddings": "weight", "beta": "bias"}
    return f"{path.replace('/', '.')}.{kind.get(variable, variable)}"


def _ldm_unet(blocks: int) -> _Table:
    """LDM numbers what comes one after the other, and not by level."""

    def down(match: re.Match) -> str:
        level, block = int(match[1]), int(match[2])
        return f"input_blocks/{1 + level * (blocks + 1) + block}"

    def up(match: re.Match) -> str:
        level, block = int(match[1]), int(match[2])
        return f"output_blocks/{level * (blocks + 1) + block}"

    def downsample(match: re.Match) -> str:
        return f"input_blocks/{(int(match[1]) + 1) * (blocks + 1)}/0/op"

    def upsample(match: re.Match) -> str:
        level = int(match[1])
        place = 2 if level else 1  # after the transformer, which the coarsest level lacks
        return f"output_blocks/{level * (blocks + 1) + blocks}/{place}/conv"

    return [
        *_TRANSFORMER,
        (r"(res\.\d+)/norm1$", r"\1/in_layers/0"),
        (r"(res\.\d+)/conv1$", r"\1/in_layers/2"),
        (r"(res\.\d+)/time$", r"\1/emb_layers/1"),
        (r"(res\.\d+)/norm2$", r"\1/out_layers/0"),
        (r"(res\.\d+)/conv2$", r"\1/out_layers/3"),
        (r"(res\.\d+)/shortcut$", r"\1/skip_connection"),
        (r"^down\.(\d+)/resample$", downsample),
        (r"^down\.(\d+)/res\.(\d+)", lambda match: down(match) + "/0"),
        (r"^down\.(\d+)/attn\.(\d+)", lambda match: down(match) + "/1"),
        (r"^mid/res\.0", "middle_block/0"),
        (r"^mid/attn\.0", "middle_block/1"),
        (r"^mid/res\.1", "middle_block/2"),
        (r"^up\.(\d+)/resample$", upsample),
        (r"^up\.(\d+)/res\.(\d+)", lambda match: up(match) + "/0"),
        (r"^up\.(\d+)/attn\.(\d+)", lambda match: up(match) + "/1"),
        (r"^time\.0$", "time_embed/0"),
        (r"^time\.1$", "time_embed/2"),
        (r"^conv_in$", "input_blocks/0/0"),
        (r"^norm_out$", "out/0"),
        (r"^conv_out$", "out/2"),
    ]


_LDM_BLOCKS: _Table = [
    (r"^mid/res\.0/", "mid/block_1/"),
    (r"^mid/attn\.0/", "mid/attn_1/"),
    (r"^mid/res\.1/", "mid/block_2/"),
    (r"/res\.", "/block/"),
    (r"/shortcut$", "/nin_shortcut"),
]

_LDM_ENCODER: _Table = [
    (r"^(conv_in|conv_out)\.0$", r"\1"),
    (r"^level\.(\d+)/resample$", r"level.\1/downsample/conv"),
    (r"^level\.", "down/"),
    *_LDM_BLOCKS,
    (r"^", "encoder/"),
    (r"^encoder/conv_out\.1$", "quant_conv"),
]


def _ldm_decoder(levels: int) -> _Table:
    """LDM numbers its levels from the finest, the last that runs."""
    return [
        (r"^conv_in\.1$", "conv_in"),
        (r"^conv_out\.0$", "conv_out"),
        (r"^level\.(\d+)/resample$", r"level.\1/upsample/conv"),
        (r"^level\.(\d+)", lambda match: f"up/{levels - 1 - int(match[1])}"),
        *_LDM_BLOCKS,
        (r"^", "decoder/"),
        (r"^decoder/conv_in\.0$", "post_quant_conv"),
    ]


# ---------------------------------------------------------------------- how names have changed

_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_FUSED = {
    "in_proj_": ("q_proj.", "k_proj.", "v_proj."),  # PyTorch's MultiheadAttention, in OpenCLIP
    "to_qkv.": ("to_q.", "to_k.", "to_v."),  # diffusers' fuse_qkv_projections
    "to_kv.": ("to_k.", "to_v."),
}


def modern(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors by today's names, those that hold several projections taken apart."""
    found = {}
    for name, tensor in tensors.items():
        old = re.fullmatch(r"(.*\.)(query|key|value|proj_attn)(\.(?:weight|bias))", name)
        fused = re.fullmatch(r"(.*\.)(in_proj_|to_qkv\.|to_kv\.)(weight|bias)", name)
        if old:
            found[old[1] + _OLD[old[2]] + old[3]] = tensor
        elif fused and tensor.shape:
            parts = _FUSED[fused[2]]
            rows = tensor.shape[0] // len(parts)
            for i, part in enumerate(parts):
                found[fused[1] + part + fused[3]] = tensor.rows(i * rows, (i + 1) * rows)
        else:
            found[name] = tensor
    return found
