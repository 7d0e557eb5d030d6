"""Single files of CompVis and Stability AI (latent-diffusion), and all that were made after them.

    checkpoint = open_file(Path("v1-5-pruned-emaonly.safetensors"))
    autoencoder = open_file(Path("vae-ft-mse-840000.safetensors")).components["autoencoder"]

One file holds the components, told apart by how each name begins. There is no configuration: sizes
follow from the tensors' shapes, and what shapes do not tell is as in the published models: groups
of 32, eight heads a level in 1.x, heads of 64 channels in 2.x and in the text encoders.

Reference:
    Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models"; the
    published configurations v1-inference.yaml, v2-inference.yaml and v2-inference-v.yaml.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xray.checkpoints.checkpoint import Checkpoint, Component
from xray.checkpoints.files import Tensor, open_tensors, sha256, shown
from xray.checkpoints.names import ldm_name, modern
from xray.checkpoints.vocabulary import fetched_clips

UNET, AUTOENCODER, EMA = "model.diffusion_model.", "first_stage_model.", "model_ema."
CLIP, OPENCLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
LEVELS = 4

# What training leaves in a file and pictures do not need: the noise schedule, averages, the
# autoencoder's discriminator, buffers, and what compares texts with images.
_UNUSED = re.compile(
    r"(betas|alphas_cumprod(_prev)?|(sqrt|log|posterior)_.*|lvlb_weights|logvar|scale_factor"
    r"|model_ema\..*|(first_stage_model\.)?(loss\..*|model_ema\..*)"
    r"|cond_stage_model\.transformer\..*(position_ids|text_projection(\.weight)?|logit_scale)"
    r"|cond_stage_model\..*attn_mask)"
)

# What compares texts with images in OpenCLIP's own text encoder.
_COMPARING = ("text_projection", "logit_scale")


def open_file(
    path: Path, *, ema: bool = False, prediction: str | None = None, weights: bool = True
) -> Checkpoint:
    """A file with all of the components, or some, or an autoencoder alone.

    Args:
        path: safetensors, or a pickle of torch.
        ema: take the U-Net's exponential moving average, where the file has it beside the weights
            as they were trained.
        prediction: ``"epsilon"`` or ``"v"``; by default the first. Of 2.x there are models of
            either kind and the file does not tell, so it must be said.
        weights: False where only the sizes are wanted.

    Raises:
        ValueError: it is no such file, or damaged; it has no average; 2.x without `prediction`.
    """
    tensors = open_tensors(path)
    if ema:
        tensors = _averaged(path, tensors)
    tensors = {name: t for name, t in modern(tensors).items() if not _UNUSED.fullmatch(name)}
    if {"encoder.conv_in.weight", "encoder.down.0.block.0.conv1.weight"} <= tensors.keys():
        tensors = {AUTOENCODER + name: tensor for name, tensor in tensors.items()}
    if "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight" in tensors:
        raise ValueError(f"{path} is Stable Diffusion XL; 1.x and 2.x can be read")

    source, digest = str(path), ""
    if weights:
        digest = sha256(path) + ("-ema" if ema else "")
    components = {}
    for name, prefix, read in (
        ("text_encoder", CLIP, _clip),
        ("text_encoder", OPENCLIP, _openclip),
        ("unet", UNET, _unet),
        ("autoencoder", AUTOENCODER, _autoencoder),
    ):
        own = {key: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        if own:
            tensors = {key: tensor for key, tensor in tensors.items() if key not in own}
            sizes, own, name_of = read(_Part(path, prefix, own))
            components[name] = Component(source, sizes, own, name_of, digest)
    if not components:
        raise ValueError(
            f"{path} is no Stable Diffusion in one file: it has {shown(sorted(tensors))}. "
            "Of a diffusers model, give the folder"
        )
    if tensors:  # of no component: surplus in the first that is there
        next(iter(components.values())).tensors.update(tensors)

    version_2 = "unet" in components and components["unet"].sizes["linear_projections"]
    if version_2 and prediction is None:
        raise ValueError(
            f"{path} is of version 2.x, and does not say what the U-Net predicts: give "
            "prediction='epsilon' for a 512-base model, prediction='v' for a 768-v model; or write "
            "it as a folder, which says: xray export FILE DIR --prediction epsilon (or v)"
        )
    prediction = prediction or "epsilon"
    size = 768 if version_2 and prediction == "v" else 512
    tokenizer = None
    if "text_encoder" in components:
        text = components["text_encoder"].sizes
        pad = 0 if text["text_activation"] == "gelu" else None
        tokenizer = fetched_clips(text["vocab_size"], text["text_length"], pad)
    settings = {"prediction": prediction, "size": size}
    return Checkpoint(path.stem, components, settings, tokenizer)


def _averaged(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the moving average in place of the U-Net; its names have lost their dots."""
    averages = {
        name: EMA + name.removeprefix("model.").replace(".", "")
        for name in tensors
        if name.startswith(UNET)
    }
    absent = [name for name in averages.values() if name not in tensors]
    if absent or not averages:
        raise ValueError(f"{path} has no moving average of the U-Net (no {shown(absent or [EMA])})")
    return tensors | {name: tensors[average] for name, average in averages.items()}


# -------------------------------------------------------------------------------------- components


@dataclass(frozen=True)
class _Part:
    """The tensors of one component, whose sizes are asked for by name."""

    path: Path
    prefix: str
    tensors: dict[str, Tensor]

    def shape(self, name: str, rank: int | tuple[int, ...]) -> tuple[int, ...]:
        tensor = self.tensors.get(self.prefix + name)
        if tensor is None:
            raise ValueError(f"{self.path}: {self.prefix + name} is missing; it tells the sizes")
        if len(tensor.shape) not in (rank if isinstance(rank, tuple) else (rank,)):
            raise ValueError(f"{self.path}: {self.prefix + name} is of shape {tensor.shape}")
        return tensor.shape

    def count(self, name: str) -> int:
        """How many are numbered after a name: 12 where there are layers.0 … layers.11."""
        pattern = re.compile(re.escape(self.prefix + name) + r"\.(\d+)\.")
        return len({match[1] for key in self.tensors if (match := pattern.match(key))})


def _unet(part: _Part) -> tuple[dict[str, Any], dict[str, Tensor], Any]:
    blocks, rest = divmod(part.count("input_blocks") - LEVELS, LEVELS)
    if blocks < 1 or rest:
        raise ValueError(
            f"{part.path}: the U-Net has {part.count('input_blocks')} input blocks, which is not "
            f"one number of blocks at {LEVELS} levels"
        )
    if (channels := part.shape("input_blocks.0.0.weight", 4)[1]) != 4:
        raise ValueError(
            f"{part.path}: the U-Net reads {channels} channels, not 4: it is for inpainting, "
            "depth or upscaling, and text-to-image can be read"
        )
    places = [1 + level * (blocks + 1) for level in range(LEVELS)]
    widths = [part.shape(f"input_blocks.{i}.0.out_layers.3.weight", 4)[0] for i in places]
    linear = len(part.shape("input_blocks.1.1.proj_in.weight", (2, 4))) == 2
    context = part.shape("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", 2)[1]
    sizes = {
        "text_width": context,
        "widths": tuple(widths),
        "heads": tuple(max(1, width // 64) if linear else 8 for width in widths),
        "blocks": blocks,
        "linear_projections": linear,
        "groups": 32,
    }
    return sizes, part.tensors, _namer(part, blocks=blocks)


def _autoencoder(part: _Part) -> tuple[dict[str, Any], dict[str, Tensor], Any]:
    names = [f"encoder.down.{level}.block.0.conv1.weight" for level in range(LEVELS)]
    sizes = {
        "ae_widths": tuple(part.shape(name, 4)[0] for name in names),
        "ae_blocks": part.count("encoder.down.0.block"),
        "ae_groups": 32,
    }
    return sizes, part.tensors, _namer(part, levels=LEVELS)


def _clip(part: _Part) -> tuple[dict[str, Any], dict[str, Tensor], Any]:
    inner = part.prefix + "text_model."  # which some programs leave out
    tensors = {
        key if key.startswith(inner) else inner + key.removeprefix(part.prefix): tensor
        for key, tensor in part.tensors.items()
    }
    whole = _Part(part.path, part.prefix, tensors)
    vocabulary, width = whole.shape("text_model.embeddings.token_embedding.weight", 2)
    length, _ = whole.shape("text_model.embeddings.position_embedding.weight", 2)
    layers = whole.count("text_model.encoder.layers")
    sizes = _text_sizes(vocabulary, length, width, layers, "quick_gelu")
    return sizes, tensors, _namer(part)


def _openclip(part: _Part) -> tuple[dict[str, Any], dict[str, Tensor], Any]:
    """Of 2.x, which ends one layer before OpenCLIP's last.

    Stability AI's files have the last layer too. Files that were converted from diffusers' folders
    have only those that are used, and nothing of what compares texts with images.
    """
    vocabulary, width = part.shape("token_embedding.weight", 2)
    length, _ = part.shape("positional_embedding", 2)
    comparing = {part.prefix + name for name in _COMPARING}
    layers = part.count("transformer.resblocks")
    if width == 1024 and layers in (23, 24):  # 2.x itself, whose last layer is known
        layers = 23
    elif comparing & part.tensors.keys():
        layers -= 1
    last = f"{part.prefix}transformer.resblocks.{layers}."
    tensors = {
        key: tensor
        for key, tensor in part.tensors.items()
        if not key.startswith(last) and key not in comparing
    }
    sizes = _text_sizes(vocabulary, length, width, layers, "gelu")
    return sizes, tensors, _namer(part, openclip=True)


def _text_sizes(
    vocabulary: int, length: int, width: int, layers: int, activation: str
) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "text_length": length,
        "text_width": width,
        "text_heads": max(1, width // 64),
        "text_layers": layers,
        "text_activation": activation,
    }


def _namer(part: _Part, **sizes: Any) -> Any:
    name_of = functools.partial(ldm_name, **sizes)
    return lambda key: part.prefix + name_of(key)
