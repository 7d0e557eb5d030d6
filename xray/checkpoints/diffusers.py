"""Folders of the diffusers library: a configuration and weights for each component.

    checkpoint = open_folder(Path("stable-diffusion-2-1"))
    autoencoder = open_component(Path("sd-vae-ft-ema"), "autoencoder")

The sizes are read from the configurations, and whatever stands there that our networks do not do
is refused: a model that opens here computes what it computes there.

Reference:
    The configurations as registered by diffusers 0.42 and transformers 5.23, whose defaults hold
    where a key is not written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xray.checkpoints.checkpoint import Checkpoint, Component
from xray.checkpoints.files import open_tensors, read_json, sha256
from xray.checkpoints.names import diffusers_name, modern
from xray.checkpoints.sizes import check_sizes
from xray.checkpoints.vocabulary import open_vocabulary
from xray.schedule import WHOLE_SPACINGS

FOLDERS = {"text_encoder": "text_encoder", "unet": "unet", "autoencoder": "vae"}
"""Where a model's folder has its components."""

STEMS = {
    "text_encoder": ("model", "pytorch_model"),
    "unet": ("diffusion_pytorch_model",),
    "autoencoder": ("diffusion_pytorch_model",),
}
"""What their weights are called, without variant and ending."""

INDEX = "model_index.json"
"""By which a folder is known to be a model's."""

SCHEDULER = Path("scheduler", "scheduler_config.json")
PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "sample"}

# Which schedulers space timesteps so if they are not told; others that are met take linspace.
_LEADING = ("DDIM", "DDIMParallel", "DDPM", "DDPMParallel", "LCM", "PNDM", "TCD")

# Never used for pictures: a buffer of numbers 0, 1, 2, …, and what compares texts with images.
_UNUSED = ("position_ids", "text_projection.weight", "logit_scale")


def is_folder(folder: Path) -> bool:
    """Whether it is a model's folder."""
    return (folder / INDEX).is_file()


def is_component(folder: Path) -> bool:
    """Whether it is the folder of one component."""
    path = folder / "config.json"
    return path.is_file() and bool({"_class_name", "model_type"} & read_json(path).keys())


def open_folder(folder: Path, *, variant: str | None = None, weights: bool = True) -> Checkpoint:
    """A model's folder.

    Args:
        folder: the one with ``model_index.json``.
        variant: ``"fp16"`` and the like, of which the files' names tell; by default the files
            without, or those of the only variant that is there.
        weights: False where only the sizes are wanted.

    Raises:
        ValueError: something is missing, damaged, or not of Stable Diffusion 1.x or 2.x.
    """
    lacking = [
        name
        for name in (*FOLDERS.values(), "scheduler", "tokenizer")
        if not (folder / name).is_dir()
    ]
    if lacking:
        told = read_json(folder / INDEX).get("_class_name", "model")
        raise ValueError(
            f"{folder} is a {told} without {', '.join(lacking)}; fetch it whole, a model of the "
            "Hub with download=True"
        )
    components = {
        name: open_component(folder / place, name, variant=variant, weights=weights)
        for name, place in FOLDERS.items()
    }
    length = components["text_encoder"].sizes["text_length"]
    scheduler = _scheduler(folder / SCHEDULER)
    spacing = scheduler.pop("spacing")
    side = read_json(folder / "unet" / "config.json").get("sample_size")
    return Checkpoint(
        name=folder.resolve().name,
        components=components,
        settings={**scheduler, "size": 8 * side if isinstance(side, int) else 512},
        tokenizer=open_vocabulary(folder / "tokenizer", length),
        spacing=spacing,
    )


def predicted(folder: Path) -> str | None:
    """What a model's U-Net predicts, if the folder tells; parts of it may be lacking."""
    path = folder / SCHEDULER
    return _scheduler(path)["prediction"] if path.is_file() else None


def open_component(
    folder: Path, name: str, *, variant: str | None = None, weights: bool = True
) -> Component:
    """One component's folder.

    Args:
        folder: the one with the component's ``config.json``.
        name: ``"text_encoder"``, ``"unet"`` or ``"autoencoder"``.
        variant, weights: as for `open_folder`.

    Raises:
        ValueError: it is another component, or something is missing or damaged.
    """
    sizes = _SIZES[name](_Config(folder / "config.json"))
    if not weights:
        return Component(str(folder), sizes, {}, diffusers_name, "")
    path = _weights_file(folder, name, variant)
    tensors = {
        _full_name(name, key): tensor
        for key, tensor in modern(open_tensors(path)).items()
        if not key.endswith(_UNUSED)
    }
    component = Component(str(folder), sizes, tensors, diffusers_name, sha256(path))
    check_sizes(folder, name, component)
    return component


def _full_name(component: str, key: str) -> str:
    """Transformers 5 leaves out what every name of a text encoder began with."""
    if component == "text_encoder" and not key.startswith("text_model."):
        return f"text_model.{key}"
    return key


def _weights_file(folder: Path, name: str, variant: str | None) -> Path:
    """The component's weights: safetensors before pickles, whole before sharded."""
    there = sorted(path.name for path in folder.iterdir())
    variants = {_variant(file) for file in there} - {""}
    wanted = [variant or "", *(variants if variant is None and len(variants) == 1 else ())]
    for dotted in (f".{chosen}" if chosen else "" for chosen in wanted):
        for ending in ("safetensors", "bin"):
            for stem in STEMS[name]:
                for file in (f"{stem}{dotted}.{ending}", f"{stem}.{ending}.index{dotted}.json"):
                    if file in there:
                        return folder / file
    asked = "" if variant is None else f" of variant {variant!r}"
    raise ValueError(
        f"{folder} has no weights{asked}; there is {', '.join(there)}. From the Hub no pickles are "
        'fetched, and variants only by name: variant="fp16"'
    )


def _variant(file: str) -> str:
    """``fp16`` of ``model.fp16.safetensors`` and of ``model.safetensors.index.fp16.json``.

    And of one of several: ``model.fp16-00001-of-00002.safetensors``.
    """
    stem, *parts = re.sub(r"-\d{5}-of-\d{5}\.", ".", file).split(".")
    if stem not in sum(STEMS.values(), ()):
        return ""
    return parts[-2] if len(parts) == 2 or parts[1:2] == ["index"] and len(parts) == 4 else ""


# --------------------------------------------------------------------------------- configurations


class _Config:
    """A configuration, of which every value is asked for with what is known to work."""

    def __init__(self, path: Path):
        if not path.is_file():
            raise ValueError(f"{path} is missing; it tells how the model is built")
        self.path, self.values = path, read_json(path)

    def get(self, key: str, default: Any = None) -> Any:
        """A value, where null and absence mean the default."""
        value = self.values.get(key)
        return default if value is None else value

    def whole(self, key: str, default: int) -> int:
        """A whole number, or a list that is the same for every level."""
        value = self.get(key, default)
        if isinstance(value, list) and len(set(map(str, value))) == 1:
            value = value[0]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{self.path}: {key} is {value!r}, and one whole number is read")
        return value

    def wholes(self, key: str, default: Any, length: int = 4) -> tuple[int, ...]:
        """A whole number for each level, or one for all."""
        value = self.get(key, default)
        value = [value] * length if isinstance(value, int) else value
        if (
            not isinstance(value, list)
            or len(value) != length
            or not all(isinstance(v, int) and v > 0 for v in value)
        ):
            raise ValueError(f"{self.path}: {key} is {value!r}, and {length} numbers are read")
        return tuple(value)

    def number(self, key: str, default: float) -> float:
        value = self.get(key, default)
        if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise ValueError(f"{self.path}: {key} is {value!r}, and a number above 0 is read")
        return float(value)

    def one_of(self, key: str, default: Any, known: Any) -> Any:
        value = self.get(key, default)
        if value not in known:
            raise ValueError(f"{self.path}: {key} is {value!r}; known are {', '.join(known)}")
        return value

    def require(self, **fixed: Any) -> None:
        """Refuse what differs from the only value that our networks can do."""
        odd = []
        for key, value in fixed.items():
            found = self.get(key, value)
            every_level = isinstance(found, list) and not isinstance(value, list)
            if any(f != value for f in found) if every_level else found != value:
                odd.append(f"{key} {found!r}, not {value!r}")
        if odd:
            raise ValueError(
                f"{self.path}: Stable Diffusion 1.x and 2.x can be read; this has {', '.join(odd)}"
            )


def _text_sizes(config: _Config) -> dict[str, Any]:
    width = config.whole("hidden_size", 512)
    config.require(layer_norm_eps=1e-5, intermediate_size=4 * width, use_attention_mask=False)
    return {
        "vocab_size": config.whole("vocab_size", 49408),
        "text_length": config.whole("max_position_embeddings", 77),
        "text_width": width,
        "text_heads": config.whole("num_attention_heads", 8),
        "text_layers": config.whole("num_hidden_layers", 12),
        "text_activation": config.one_of("hidden_act", "quick_gelu", ("quick_gelu", "gelu")),
    }


def _unet_sizes(config: _Config) -> dict[str, Any]:
    config.require(
        _class_name="UNet2DConditionModel",
        in_channels=4,
        out_channels=4,
        down_block_types=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        addition_embed_type=None,
        class_embed_type=None,
        num_class_embeds=None,
        encoder_hid_dim=None,
        encoder_hid_dim_type=None,
        num_attention_heads=None,
        time_cond_proj_dim=None,
        time_embedding_type="positional",
        time_embedding_dim=None,
        time_embedding_act_fn=None,
        timestep_post_act=None,
        transformer_layers_per_block=1,
        center_input_sample=False,
        flip_sin_to_cos=True,
        freq_shift=0,
        only_cross_attention=False,
        dual_cross_attention=False,
        mid_block_only_cross_attention=False,
        cross_attention_norm=None,
        attention_type="default",
        downsample_padding=1,
        mid_block_scale_factor=1,
        act_fn="silu",
        norm_eps=1e-5,
        resnet_time_scale_shift="default",
        resnet_skip_time_act=False,
        resnet_out_scale_factor=1,
        conv_in_kernel=3,
        conv_out_kernel=3,
    )
    return {
        "text_width": config.whole("cross_attention_dim", 1280),
        "widths": config.wholes("block_out_channels", [320, 640, 1280, 1280]),
        # Named for the width of a head, it is the number of heads; diffusers keeps the error
        # because thousands of configurations have it.
        "heads": config.wholes("attention_head_dim", 8),
        "blocks": config.whole("layers_per_block", 2),
        "linear_projections": bool(config.get("use_linear_projection", False)),
        "groups": config.whole("norm_num_groups", 32),
    }


def _autoencoder_sizes(config: _Config) -> dict[str, Any]:
    config.require(
        _class_name="AutoencoderKL",
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        act_fn="silu",
        mid_block_add_attention=True,
        use_quant_conv=True,
        use_post_quant_conv=True,
        shift_factor=None,
        latents_mean=None,
        latents_std=None,
    )
    return {
        "ae_widths": config.wholes("block_out_channels", [64]),
        "ae_blocks": config.whole("layers_per_block", 1),
        "ae_groups": config.whole("norm_num_groups", 32),
        "scaling_factor": config.number("scaling_factor", 0.18215),
    }


_SIZES: dict[str, Callable[[_Config], dict[str, Any]]] = {
    "text_encoder": _text_sizes,
    "unet": _unet_sizes,
    "autoencoder": _autoencoder_sizes,
}


def _scheduler(path: Path) -> dict[str, Any]:
    """What a scheduler's configuration says of the model, whichever sampler it is for.

    `steps_offset` is 1 whatever is written, because diffusers' own pipelines set it so.
    """
    config = _Config(path)
    config.require(
        num_train_timesteps=1000,
        trained_betas=None,
        rescale_betas_zero_snr=False,
    )
    config.one_of("beta_schedule", "linear", ("scaled_linear",))
    prediction = config.one_of("prediction_type", "epsilon", PREDICTIONS)
    leading = {f"{name}Scheduler" for name in _LEADING} | {None}
    spaced = "leading" if config.get("_class_name") in leading else "linspace"
    return {
        "prediction": PREDICTIONS[prediction],
        "beta_start": config.number("beta_start", 0.0001),
        "beta_end": config.number("beta_end", 0.02),
        "spacing": config.one_of("timestep_spacing", spaced, WHOLE_SPACINGS),
    }
