"""LoRA files: changes of low rank to a model's weights.

    changes = open_lora(Path("toy_style.safetensors"), kernels(model), model.architecture)
    changes["unet/mid/attn.0/cross/to_q/kernel"].read(shape)      # what is added to that kernel

A layer's change is the product of two thin matrices, `up` and `down`, times alpha by rank. Every
tool has its own way to write the layer's name; flattened, with ``_`` for every dot, they come to
few.

Reference:
    Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models". Names as written by
    diffusers 0.12 to 0.42, PEFT, kohya-ss/sd-scripts and its LoCon for convolutions.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.checkpoints.building import FLOATS, accepted_shapes, as_keras
from xray.checkpoints.files import PICKLES, Tensor, open_tensors, read_json, sha256, shown
from xray.checkpoints.names import diffusers_name, ldm_name

if TYPE_CHECKING:
    from xray.architecture import Architecture

WHOLES = ("I8", "U8", "I16", "I32", "I64")

FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""What diffusers and PEFT call the file in a folder."""

_KEY = re.compile(
    r"""(?:base_model\.model\.)?
    (?P<component>unet\.|text_encoder\.|lora_unet_|lora_te1?_)?
    (?P<layer>.+?)
    (?:
        \.lora_(?P<peft>A|B)(?:\.default)?\.weight
        | \.lora_(?P<kohya>down|up)\.weight
        | [._]lora(?:_linear_layer)?\.(?P<diffusers>down|up)\.weight
        | \.(?P<alpha>alpha)
    )""",
    re.VERBOSE,
)
_PLACE = {"A": "down", "B": "up", "down": "down", "up": "up", "alpha": "alpha"}

# Other ways to write a small change, which are not a product of two matrices.
_OTHERS = {
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "lora_mid": "LoCon in Tucker form",
    "lora_te2_": "for SDXL",
    "text_encoder_2.": "for SDXL",
}


@dataclass(frozen=True)
class Change:
    """What a file adds to one kernel.

    Attributes:
        up: (out, rank), or such a 1×1 convolution.
        down: (rank, in), or a convolution (rank, in, y, x).
        factor: alpha by rank.
    """

    up: Tensor
    down: Tensor
    factor: float

    def read(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """The change of the kernel `key`, in float32 and of its shape."""
        up, down = (t.read().astype(np.float32) for t in (self.up, self.down))
        with np.errstate(invalid="ignore", over="ignore"):  # told by who merges it
            change = up.reshape(len(up), -1) @ down.reshape(len(down), -1)
        return as_keras(key, change * np.float32(self.factor), shape, keras=False)


def open_lora(
    path: Path, shapes: Mapping[str, tuple[int, ...]], arch: Architecture
) -> dict[str, Change]:
    """What a file changes.

    Args:
        path: ``.safetensors``, or the folder that diffusers or PEFT wrote it to.
        shapes: of the kernels that there are to change, by our names.
        arch: the model's sizes.

    Returns:
        By our names.

    Raises:
        ValueError: it is no LoRA, or one for another model: names what does not fit.
        FileNotFoundError: nothing is there.
    """
    path = lora_file(path)
    tensors = open_tensors(path)
    _refuse_others(path, tensors)
    layers: dict[str, dict[str, Tensor]] = {}
    strange = []
    for name, tensor in tensors.items():
        match = _KEY.fullmatch(name)
        # Alpha may be a whole number: diffusers' converter to kohya's names writes the rank so.
        if match is None or tensor.dtype not in FLOATS + (WHOLES if match["alpha"] else ()):
            strange.append(name)
            continue
        part = next(_PLACE[v] for k in _PARTS if (v := match[k]))
        layers.setdefault(_flat(match["layer"]), {})[part] = tensor
    if strange or not layers:
        told = f" holds {shown(strange)}, which is" if strange else " is empty, which is"
        raise ValueError(f"{path}{told} no LoRA as diffusers, PEFT or kohya write it")
    known = {flat: key for key in shapes for flat in _flat_names(key, arch)}
    foreign = [name for name in layers if name not in known]
    if foreign:
        raise ValueError(
            f"{path} is for another model: of its {len(layers)} layers {len(foreign)} are not in "
            f"this one: {shown(sorted(foreign))}"
        )
    settings = _settings(path)
    changes = {}
    for name, parts in layers.items():
        key = known[name]
        if key in changes:
            raise ValueError(f"{path} changes {key} twice")
        changes[key] = _change(path, name, parts, key, shapes[key], settings)
    return changes


_PARTS = ("peft", "kohya", "diffusers", "alpha")


def lora_file(path: Path) -> Path:
    """The file itself, where a folder is given.

    Raises:
        ValueError: the folder has none.
    """
    if not path.is_dir():
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
    raise ValueError(f"{path} has no {' or '.join(FILES)}: give the file")


def _refuse_others(path: Path, names: Iterable[str]) -> None:
    for name in names:
        for sign, kind in _OTHERS.items():
            if sign in name:
                raise ValueError(f"{path} is {kind} ({name}); plain LoRA for 1.x and 2.x is read")


def _change(
    path: Path,
    name: str,
    parts: dict[str, Tensor],
    key: str,
    shape: tuple[int, ...],
    settings: Mapping[str, Any],
) -> Change:
    lacking = [part for part in ("up", "down") if part not in parts]
    if lacking:
        raise ValueError(f"{path}: {name} has no {' and no '.join(lacking)}")
    up, down = parts["up"], parts["down"]
    rank = down.shape[0] if down.shape else 0
    ones = (1,) * (len(up.shape) - 2)
    whole = (up.shape[:1] + down.shape[1:]) if up.shape[1:] == (rank, *ones) else None
    fitting = accepted_shapes(key, shape, keras=False)
    if whole not in fitting:
        raise ValueError(
            f"{path}: {name} is {up.shape} by {down.shape}, which does not make the {fitting[0]} "
            "that this model has there: it is for another model, or damaged"
        )
    if not rank:
        raise ValueError(f"{path}: {name} is of rank 0, which changes nothing: it is damaged")
    alpha: Any = rank
    if "alpha" in parts:
        values = parts["alpha"].read().reshape(-1).tolist()
        alpha = values[0] if len(values) == 1 else values
    elif settings:
        alpha = _configured_alpha(path, name, key, rank, settings)
    if not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise ValueError(f"{path}: {name} has the alpha {alpha!r:.80}, and a number is read")
    return Change(up, down, alpha / rank)


# --------------------------------------------------------------------------------------- names


def _flat(layer: str) -> str:
    """A layer's name with everything left out in which tools differ."""
    flat = layer.replace(".processor", "").replace(".", "_")
    flat = re.sub(r"_to_out$", "_to_out_0", flat)
    # The first releases named the text encoder's projections as the U-Net's.
    flat = re.sub(r"_self_attn_to_([qkv])$", r"_self_attn_\1_proj", flat)
    flat = re.sub(r"_self_attn_to_out_0$", "_self_attn_out_proj", flat)
    return f"text_model_{flat}" if flat.startswith("encoder_layers_") else flat


def _flat_names(key: str, arch: Architecture) -> list[str]:
    """What the layer of one of our kernels may be called."""
    names = [diffusers_name(key)]
    if key.startswith("unet/"):
        names.append(ldm_name(key, blocks=arch.blocks))
    return [_flat(name.removesuffix(".weight")) for name in names]


# ------------------------------------------------------------------------------------ settings


def lora_digest(path: Path) -> str:
    """sha256 of a LoRA's file or, where PEFT's configuration beside it has a say, of both."""
    beside = _beside(path)
    if beside is None:
        return sha256(path)
    return hashlib.sha256(sha256(path).encode() + beside.read_bytes()).hexdigest()


def _beside(path: Path) -> Path | None:
    beside = path.parent / "adapter_config.json"
    return beside if path.name in FILES and beside.is_file() else None


def _settings(path: Path) -> dict[str, Any]:
    """What stands beside the tensors of alpha, where they do not tell: PEFT's configuration.

    diffusers writes it into the file, one for each component; PEFT into a file of its own.
    """
    from safetensors import safe_open

    if beside := _beside(path):
        return read_json(beside)
    if path.suffix in PICKLES:
        return {}
    with safe_open(path, framework="numpy") as file:
        written = (file.metadata() or {}).get("lora_adapter_metadata")
    try:
        settings = json.loads(written) if written else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: its lora_adapter_metadata: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is damaged: its lora_adapter_metadata is no object")
    return settings


def _configured_alpha(
    path: Path, name: str, key: str, rank: int, settings: Mapping[str, Any]
) -> Any:
    """Alpha as PEFT has it: by a layer's name, or the same for all; by √rank where so asked.

    Whatever stands there, which in a damaged file may be no number. For PEFT a name is a regular
    expression; as such it is not run, because a stranger's can take forever.
    """
    component = {"unet": "unet", "text": "text_encoder"}[key.split("/")[0]]

    def get(what: str, default: Any) -> Any:
        value = settings.get(f"{component}.{what}", settings.get(what))
        return default if value is None else value

    alpha, patterns = get("lora_alpha", rank), get("alpha_pattern", {})
    if isinstance(patterns, dict):
        if odd := [p for p in patterns if not re.fullmatch(r"\^?[\w.]+", p)]:
            raise ValueError(
                f"{path}: its alpha_pattern has {shown(odd)}, a regular expression, and only "
                "layers' names are read: write out the layers that it is for"
            )
        named = (p for p in patterns if _names(p, name))
        alpha = next((patterns[p] for p in named), alpha)  # the first, as PEFT has it
    if get("use_rslora", False) and isinstance(alpha, (int, float)):
        alpha *= math.sqrt(rank)
    return alpha


def _names(pattern: str, name: str) -> bool:
    """Whether it is the end of a layer's flattened name, or with ``^`` the whole of it."""
    flat = _flat(pattern.removeprefix("^"))
    return name == flat or (pattern[0] != "^" and name.endswith(f"_{flat}"))
