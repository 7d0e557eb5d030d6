"""Whether weights are of the sizes that a configuration says, told before networks are built.

    check_sizes(folder, "unet", component)

They are built before all tensors are compared, and of absurd sizes that would never end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from xray.checkpoints.building import accepted_shapes
from xray.checkpoints.checkpoint import Component
from xray.checkpoints.files import shown

Shape = tuple[int, ...]

# Of each size one variable that has it, the last of those that are counted.
_ANCHORS: dict[str, Callable[[dict[str, Any]], dict[str, Shape]]] = {
    "text_encoder": lambda s: {
        "text/embedding/token/embeddings": (s["vocab_size"], s["text_width"]),
        "text/embedding/position/embeddings": (s["text_length"], s["text_width"]),
        f"text/layer.{s['text_layers'] - 1}/fc1/bias": (4 * s["text_width"],),
    },
    "unet": lambda s: {
        "unet/mid/attn.0/cross/to_k/kernel": (s["text_width"], s["widths"][-1]),
        **{
            f"unet/down.{level}/res.{s['blocks'] - 1}/conv2/bias": (width,)
            for level, width in enumerate(s["widths"])
        },
    },
    "autoencoder": lambda s: {
        f"encoder/level.{level}/res.{s['ae_blocks'] - 1}/conv2/bias": (width,)
        for level, width in enumerate(s["ae_widths"])
    },
}


def check_sizes(folder: Path, name: str, component: Component) -> None:
    """Refuse a configuration that is not the weights'.

    Args:
        folder: of the configuration, for the error.
        name: ``"text_encoder"``, ``"unet"`` or ``"autoencoder"``.
        component: its `sizes` are the configuration's.

    Raises:
        ValueError: names the tensors that are missing or of another size.
    """
    differ = []
    for key, shape in _ANCHORS[name](component.sizes).items():
        theirs, wanted = component.name_of(key), accepted_shapes(key, shape, component.keras)
        found = component.tensors[theirs].shape if theirs in component.tensors else "missing"
        if found not in wanted:
            differ.append(f"{theirs} is {found}, not {wanted[0]}")
    if differ:
        raise ValueError(f"{folder}: the weights are not of config.json's sizes: {shown(differ)}")
