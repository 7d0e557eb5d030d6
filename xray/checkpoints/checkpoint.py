"""A model as its files describe it, whatever form they have; no weight has been read yet.

    checkpoint = diffusers.open_folder(path)
    checkpoint.architecture                          # from the configuration
    checkpoint.components["unet"].tensors            # what there is to read

A form of weights is a function that returns this. `building.assemble` makes the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from xray.checkpoints.files import Tensor

if TYPE_CHECKING:
    from xray.architecture import Architecture
    from xray.tokenizer import Tokenizer

COMPONENTS = {
    "text_encoder": ("text",),
    "unet": ("unet",),
    "autoencoder": ("encoder", "decoder"),
}
"""The three sets of weights that can be exchanged, and the networks that each is for."""

SIZES = {
    "text_encoder": (
        "vocab_size",
        "text_length",
        "text_width",
        "text_heads",
        "text_layers",
        "text_activation",
    ),
    "unet": ("text_width", "widths", "heads", "blocks", "linear_projections", "groups"),
    "autoencoder": ("ae_widths", "ae_blocks", "ae_groups", "scaling_factor"),
}
"""What of an `Architecture` each of them decides."""


@dataclass(frozen=True)
class Component:
    """One set of weights, as it lies in its files.

    Attributes:
        source: where, as errors and traces say it.
        sizes: those of `SIZES` that the files tell.
        tensors: by the names in the files, without those that are never used.
        name_of: from the name of one of our variables (`xray.networks.variables`) to the file's.
        digest: of the files.
        keras: kernels lie as Keras has them, (…, in, out), not as torch has, (out, in, …).
        prediction: of a U-Net out of another model, what that one says it predicts.
    """

    source: str
    sizes: dict[str, Any]
    tensors: dict[str, Tensor]
    name_of: Callable[[str], str]
    digest: str
    keras: bool = False
    prediction: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """All that a form of weights says of a model.

    Attributes:
        name: of the model, in traces.
        components: by the names of `COMPONENTS`; some may be lacking.
        settings: fields of `Architecture` that no component decides, such as ``prediction``.
        tokenizer: or None where the files have no vocabulary.
        numerics, spacing, rgb_matrix: as `xray.generator.Generator` takes them.
        own_digest: of the whole where the form has one.
    """

    name: str
    components: dict[str, Component]
    settings: dict[str, Any] = field(default_factory=dict)
    tokenizer: Tokenizer | None = None
    numerics: str = "reference"
    spacing: str = "leading"
    rgb_matrix: Any = None
    own_digest: str | None = None

    @property
    def architecture(self) -> Architecture:
        """The sizes of the whole.

        Raises:
            ValueError: a component is lacking, or two are not for each other.
        """
        from xray.architecture import Architecture

        lacking = [name for name in COMPONENTS if name not in self.components]
        if lacking:
            options = ", ".join(f"{name}=PATH" for name in lacking)
            raise ValueError(f"{self.name} holds no {' and no '.join(lacking)}: give {options}")
        text, unet = (self.components[name] for name in ("text_encoder", "unet"))
        if text.sizes["text_width"] != unet.sizes["text_width"]:
            raise ValueError(
                f"{text.source} makes embeddings of {text.sizes['text_width']} channels, and "
                f"{unet.source} reads {unet.sizes['text_width']}: they are not of one model"
            )
        sizes = {k: v for part in self.components.values() for k, v in part.sizes.items()}
        try:
            return Architecture(**sizes, **self.settings)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error

    @property
    def digest(self) -> str:
        """What identifies the weights, and how they are used."""
        if self.own_digest is not None:
            return self.own_digest
        told = [*(self.components[name].digest for name in COMPONENTS), repr(self.architecture)]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    @property
    def sources(self) -> dict[str, dict[str, str]]:
        """Where each component came from, for traces."""
        return {
            name: {"source": part.source, "digest": part.digest}
            for name, part in self.components.items()
        }

    def exchanged(self, others: dict[str, Component]) -> Checkpoint:
        """With other components in place of its own.

        Raises:
            ValueError: one is of other sizes, for another scaling factor, or predicts something
                else.
        """
        components = dict(self.components)
        for name, other in others.items():
            predicted = self.settings.get("prediction")
            if None not in (other.prediction, predicted) and other.prediction != predicted:
                raise ValueError(
                    f"{other.source} predicts {other.prediction}, and the U-Net of {self.name} "
                    f"{predicted}: open the U-Net's own model, and exchange its other parts"
                )
            own = components[name].sizes if name in components else {}
            differ = [key for key, value in other.sizes.items() if own.get(key, value) != value]
            if differ:
                told = ", ".join(f"{key} {other.sizes[key]}, not {own[key]}" for key in differ)
                raise ValueError(f"{other.source} is no {name} for {self.name}: it has {told}")
            # What a file does not tell, such as the scaling factor in one of LDM, stays.
            components[name] = replace(other, sizes={**own, **other.sizes})
        return replace(self, components=components, own_digest=None if others else self.own_digest)
