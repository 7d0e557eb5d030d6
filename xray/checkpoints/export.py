"""A model as a folder of the diffusers library.

export_diffusers(model, "my_model")
# elsewhere: StableDiffusionPipeline.from_pretrained("my_model", safety_checker=None)
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xray.checkpoints.building import as_torch, cast
from xray.checkpoints.checkpoint import COMPONENTS
from xray.checkpoints.diffusers import FOLDERS, INDEX, PREDICTIONS, SCHEDULER, STEMS
from xray.checkpoints.files import save_tensors
from xray.checkpoints.names import diffusers_name

if TYPE_CHECKING:
    from xray.architecture import Architecture
    from xray.generator import Generator

DTYPES = ("float32", "float16")


def export_diffusers(
    model: Generator,
    folder: str | Path,
    *,
    dtype: str = "float32",
    shard_bytes: int = 10 * 10**9,
    overwrite: bool = False,
) -> None:
    """Write a model so that diffusers opens it.

    There it computes what it computes here with ``numerics="reference"`` and the sampler ``ddim``.
    Its shapes stay its own: prompts are padded to its `text_length`, pictures are of its `size`.

    Args:
        model: with a tokenizer.
        folder: a new one. What opens there is whole: an interrupted one has no model_index.json.
        dtype: of the stored weights, ``"float32"`` or ``"float16"``.
        shard_bytes: how large a file of weights may be; a component that is larger becomes several
            files and an index. What goes into one file is in memory beside the model.
        overwrite: replace a model that is there.

    Raises:
        ValueError: the model has no tokenizer; something is at `folder`; unknown `dtype`, or
            numbers that are too large for it; it was opened with ``memory="low"``.
        OSError: it cannot be written.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    model.check_whole()
    if model.tokenizer is None:
        raise ValueError(f"{model.name} has no tokenizer, which a diffusers model needs")
    folder = Path(os.path.abspath(folder))  # "." has no name
    if not overwrite and folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not empty; choose another, or overwrite it")
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        _write(model, partial, dtype, shard_bytes)
        folder.mkdir(exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        for path in sorted(partial.iterdir(), key=lambda path: path.name == INDEX):
            if (folder / path.name).is_dir():
                shutil.rmtree(folder / path.name)
            path.rename(folder / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(model: Generator, folder: Path, dtype: str, shard_bytes: int) -> None:
    from xray.checkpoints.vocabulary import save_vocabulary

    folder.mkdir(parents=True)
    for name, place in FOLDERS.items():
        (folder / place).mkdir()
        _write_json(folder / place / "config.json", _CONFIGS[name](model))
        _write_weights(_tensors(model, name, dtype), folder / place, STEMS[name][0], shard_bytes)
    save_vocabulary(model.tokenizer, folder / "tokenizer")
    (folder / SCHEDULER).parent.mkdir()
    _write_json(folder / SCHEDULER, _scheduler(model))
    _write_json(folder / INDEX, _INDEX)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", "utf-8")


# --------------------------------------------------------------------------------------- weights


class _Stored(NamedTuple):
    """A tensor that is to be written."""

    name: str
    nbytes: int
    values: Callable[[], np.ndarray]


def _tensors(model: Generator, name: str, dtype: str) -> list[_Stored]:
    """The tensors of a component, by diffusers' names and as torch has them."""
    from xray.networks import variables

    def stored(key: str, variable: Any) -> _Stored:
        def values() -> np.ndarray:
            value = cast(key, as_torch(key, variable.numpy()), dtype)
            if name == "autoencoder" and "/attn." in key and value.ndim == 4:
                value = value[:, :, 0, 0]  # the 1×1 convolutions here are matrices there
            return np.ascontiguousarray(value)

        size = int(np.prod(variable.shape)) * np.dtype(dtype).itemsize
        return _Stored(diffusers_name(key), size, values)

    return [
        stored(key, variable)
        for network in COMPONENTS[name]
        for key, variable in variables(network, model.networks[network]).items()
    ]


def _write_weights(tensors: Sequence[_Stored], folder: Path, stem: str, shard_bytes: int) -> None:
    shards: list[list[_Stored]] = [[]]
    for tensor in tensors:
        if shards[-1] and sum(t.nbytes for t in shards[-1]) + tensor.nbytes > shard_bytes:
            shards.append([])
        shards[-1].append(tensor)
    names = [f"{stem}-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    if len(shards) == 1:
        names = [f"{stem}.safetensors"]
    for name, shard in zip(names, shards, strict=True):
        # Older readers want to be told that kernels lie as PyTorch has them.
        save_tensors({t.name: t.values() for t in shard}, folder / name, {"format": "pt"})
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(t.nbytes for t in tensors)},
            "weight_map": {
                t.name: name for name, shard in zip(names, shards, strict=True) for t in shard
            },
        }
        _write_json(folder / f"{stem}.safetensors.index.json", index)


# --------------------------------------------------------------------------------- configurations

_VERSION = {"_diffusers_version": "0.30.0"}

_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    **_VERSION,
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def _text_encoder(model: Generator) -> dict[str, Any]:
    arch: Architecture = model.architecture
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": arch.vocab_size,
        "max_position_embeddings": arch.text_length,
        "hidden_size": arch.text_width,
        "intermediate_size": 4 * arch.text_width,
        "projection_dim": arch.text_width,
        "num_attention_heads": arch.text_heads,
        "num_hidden_layers": arch.text_layers,
        "hidden_act": arch.text_activation,
        "layer_norm_eps": 1e-5,
        "bos_token_id": model.tokenizer.start,
        "eos_token_id": model.tokenizer.end,
        "pad_token_id": model.tokenizer.pad,
    }


def _unet(model: Generator) -> dict[str, Any]:
    arch = model.architecture
    return {
        "_class_name": "UNet2DConditionModel",
        **_VERSION,
        "sample_size": arch.size // 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": arch.widths,
        "layers_per_block": arch.blocks,
        "attention_head_dim": arch.heads,
        "cross_attention_dim": arch.text_width,
        "use_linear_projection": arch.linear_projections,
        "norm_num_groups": arch.groups,
        "norm_eps": 1e-5,
        "act_fn": "silu",
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    }


def _autoencoder(model: Generator) -> dict[str, Any]:
    arch = model.architecture
    return {
        "_class_name": "AutoencoderKL",
        **_VERSION,
        "sample_size": arch.size,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": arch.ae_widths,
        "layers_per_block": arch.ae_blocks,
        "norm_num_groups": arch.ae_groups,
        "scaling_factor": arch.scaling_factor,
        "act_fn": "silu",
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }


_CONFIGS = {"text_encoder": _text_encoder, "unet": _unet, "autoencoder": _autoencoder}


def _scheduler(model: Generator) -> dict[str, Any]:
    arch = model.architecture
    theirs = {ours: name for name, ours in PREDICTIONS.items()}
    return {
        "_class_name": "DDIMScheduler",
        **_VERSION,
        "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear",
        "beta_start": arch.beta_start,
        "beta_end": arch.beta_end,
        "prediction_type": theirs[arch.prediction],
        "timestep_spacing": model.spacing,
        "steps_offset": 1,
        # Where the last step leads: to timestep 0 when spacing is leading, else to the picture.
        "set_alpha_to_one": model.spacing != "leading",
        "clip_sample": False,
    }
