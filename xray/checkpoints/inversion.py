"""Textual inversion: a word for something that the model has never been told of.

    vectors, name = open_inversion(Path("learned_embeds.safetensors"), width=768)

The file holds one or several vectors, rows for the table of token embeddings, as diffusers writes
them (under the word itself) or as the A1111 web UI does (``emb_params``).

Reference:
    Gal et al. 2022, "An Image is Worth One Word".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xray.checkpoints.building import FLOATS
from xray.checkpoints.files import open_tensors, shown

_NAMELESS = ("emb_params", "*", "string_to_param", "string_to_param.*")


def open_inversion(path: Path, width: int) -> tuple[np.ndarray, str]:
    """The vectors of a file.

    Args:
        path: ``.safetensors``.
        width: of the model's token embeddings.

    Returns:
        (n, width) float32, and the word that stands in the file, or one made of its name.

    Raises:
        ValueError: it holds something else, or vectors for another model.
        FileNotFoundError: nothing is there.
    """
    tensors = open_tensors(path)
    if {"clip_l", "clip_g"} & tensors.keys():
        raise ValueError(f"{path} is for SDXL (clip_l, clip_g); 1.x and 2.x have one text encoder")
    if len(tensors) != 1:
        raise ValueError(
            f"{path} holds {len(tensors)} tensors ({shown(sorted(tensors))}); a textual inversion "
            "holds one"
        )
    ((name, tensor),) = tensors.items()
    if tensor.shape[-1:] != (width,) or len(tensor.shape) > 2 or tensor.dtype not in FLOATS:
        others = {768: ": it is for Stable Diffusion 1.x", 1024: ": it is for Stable Diffusion 2.x"}
        hint = others.get(tensor.shape[-1] if tensor.shape else 0, "")
        raise ValueError(
            f"{path}: {name} is {tensor.shape} {tensor.dtype}, and this model's embeddings are "
            f"(n, {width}){hint}"
        )
    vectors = tensor.read().astype(np.float32).reshape(-1, width)
    if not len(vectors) or not np.isfinite(vectors).all():
        raise ValueError(f"{path}: {name} holds no vectors, or some that are no numbers")
    return vectors, f"<{path.stem}>" if name in _NAMELESS else name
