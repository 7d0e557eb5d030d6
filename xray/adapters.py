"""What can be added to a model and taken off again: LoRA, and words of textual inversion.

    lora = model.load_lora("toy_style.safetensors", scale=0.8)
    model.load_textual_inversion("cat_toy.safetensors", "<cat-toy>")
    model.generate("a <cat-toy> on a beach")
    model.unload(lora)                                 # the weights are what they were, to the bit

A model's weights are its own with all adapters applied in the order of `model.adapters`. To take
one off, what it changed is read again, and those that stay are applied again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.batch import finite
from xray.networks import variables

if TYPE_CHECKING:
    from xray.checkpoints.lora import Change
    from xray.generator import Generator
    from xray.tokenizer import Tokenizer

TOKENS = "text/embedding/token/embeddings"


@dataclass(frozen=True, eq=False)
class Adapter:
    """Something that has been added to a model.

    Attributes:
        kind: ``"lora"`` or ``"textual inversion"``.
        source: the file.
        digest: its sha256; of a LoRA with PEFT's ``adapter_config.json`` beside it, both files'.
        scale: of a LoRA.
        token: the word of a textual inversion.
        changes: by the names of `xray.networks.variables`, of a LoRA.
        vectors: (n, width), of a textual inversion.
    """

    kind: str
    source: str
    digest: str
    scale: float | None = None
    token: str | None = None
    changes: dict[str, Change] = field(default_factory=dict, repr=False)
    vectors: np.ndarray | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """As traces have it."""
        facts = {k: getattr(self, k) for k in ("kind", "source", "digest", "scale", "token")}
        return {k: v for k, v in facts.items() if v is not None}


def weighed(facts: dict[str, Any]) -> dict[str, Any]:
    """What of `Adapter.to_json` decides the weights: the same file elsewhere makes the same."""
    return {k: v for k, v in facts.items() if k != "source"}


@dataclass
class Own:
    """What a model is without adapters.

    Attributes:
        digest: of its weights.
        read: one of its variables by name, as it is in its files; None if it came from none, and
            what an adapter changes is copied before.
        kept: of what has been changed, a function that gives the original values again.
        tokenizer: its vocabulary, once words have been added.
    """

    digest: str
    read: Callable[[str, tuple[int, ...]], np.ndarray] | None
    kept: dict[str, Callable[[], np.ndarray]] = field(default_factory=dict)
    tokenizer: Tokenizer | None = None


def load_lora(model: Generator, path: str | Path, scale: float = 1.0) -> Adapter:
    """Merge a LoRA into the weights of the U-Net and the text encoder.

    Names as diffusers, PEFT and kohya write them; convolutions too. Several can be merged. What is
    compiled stays compiled.

    Args:
        path: ``.safetensors``, or the folder that diffusers or PEFT wrote it to.
        scale: how much of it; 1 as it was trained, 0 nothing, negative the opposite.

    Returns:
        What `unload` takes to remove it again. Traces have it among their ``adapters``.

    Raises:
        ValueError: it is no LoRA, or for another model, or makes numbers that are too large; the
            model is unchanged. Or it was opened with ``memory="low"``.
        FileNotFoundError: nothing is there.

    Reference:
        Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models".

    Example:
        >>> lora = model.load_lora("toy_style.safetensors", scale=0.8)
    """
    from xray.checkpoints.lora import lora_digest, lora_file, open_lora

    scale = finite("scale", scale)
    model.check_whole()
    path = lora_file(Path(path))
    kernels = _kernels(model)
    shapes = {key: tuple(variable.shape) for key, variable in kernels.items()}
    changes = open_lora(path, shapes, model.architecture)
    adapter = Adapter("lora", str(path), lora_digest(path), scale=scale, changes=changes)
    for key in changes:
        _keep(model.own, key, kernels[key])
    try:
        for key in changes:
            kernels[key].assign(_added(adapter, key, kernels[key].numpy()))
    except BaseException:
        _restore(model, model.adapters, changes)
        raise
    _use(model, [*model.adapters, adapter])
    return adapter


def load_textual_inversion(model: Generator, path: str | Path, token: str | None = None) -> Adapter:
    """Teach the model a word: prompts may then use `token` like any other.

    The tokenizer and the table of token embeddings grow by as many tokens as the file has vectors;
    all of them are one word in word maps.

    Args:
        path: ``.safetensors``, in the layout of diffusers or of the A1111 web UI.
        token: the word, such as ``"<cat-toy>"``; by default the one in the file, or
            ``"<NAME-OF-THE-FILE>"``.

    Returns:
        What `unload` takes to remove it again. Traces have it among their ``adapters``.

    Raises:
        ValueError: it is no textual inversion, or for another model; the word is taken or cannot
            be one; the model has no vocabulary, or was opened with ``memory="low"``.
        FileNotFoundError: nothing is there.

    Reference:
        Gal et al. 2022, "An Image is Worth One Word".

    Example:
        >>> model.load_textual_inversion("cat_toy.safetensors", "<cat-toy>")
        >>> model.generate("a <cat-toy> on a beach", seed=7).image
    """
    from xray.checkpoints.files import sha256
    from xray.checkpoints.inversion import open_inversion

    model.check_whole()
    path = Path(path)
    if model.tokenizer is None:
        raise ValueError(f"{model.name} was loaded without a vocabulary, to which words are added")
    rows, words = model.architecture.vocab_size, len(model.tokenizer.vocabulary)
    if rows != words:
        raise ValueError(f"{model.name} has {rows} embeddings for a vocabulary of {words} tokens")
    vectors, name = open_inversion(path, model.architecture.text_width)
    adapter = Adapter(
        "textual inversion", str(path), sha256(path), token=token or name, vectors=vectors
    )
    model.tokenizer.adding(adapter.token, len(vectors))  # refuses what is no word
    if not any(a.token for a in model.adapters):
        model.own.tokenizer = model.tokenizer
    _use(model, [*model.adapters, adapter])
    return adapter


def unload(model: Generator, adapter: Adapter) -> None:
    """Take an adapter off again: every weight has the bits that it would have without it.

    Args:
        adapter: one of `model.adapters`.

    Raises:
        ValueError: it is not one of them; or the model's own files have changed, or what stays
            makes numbers that are too large, and the model is left as it is.

    Example:
        >>> model.unload(model.adapters[-1])
    """
    left = [a for a in model.adapters if a is not adapter]
    if len(left) == len(model.adapters):
        raise ValueError(f"{adapter!r} is not among this model's adapters")
    for key in adapter.changes:
        _merged(model, left, key)  # all can be had: only then is anything changed
    try:
        _restore(model, left, adapter.changes)
    except BaseException:
        _restore(model, model.adapters, adapter.changes)
        raise
    _use(model, left)


# -------------------------------------------------------------------------------------- weights


def _kernels(model: Generator) -> dict[str, Any]:
    """The variables that a LoRA can change."""
    found = variables("text", model.networks["text"]) | variables("unet", model.networks["unet"])
    return {key: v for key, v in found.items() if key.endswith("/kernel")}


def _keep(own: Own, key: str, variable: Any) -> None:
    """Make sure that this variable's own values can be had again."""
    if key in own.kept:
        return
    values = variable.numpy()
    if own.read is None:
        own.kept[key] = lambda: values
        return
    digest, shape, dtype, read = _digest(values), values.shape, values.dtype, own.read

    def again() -> np.ndarray:
        values = read(key, shape).astype(dtype)
        if _digest(values) != digest:  # a file can be exchanged under the same size and date
            raise ValueError(f"{key} is not what was loaded: the model's files have changed")
        return values

    own.kept[key] = again


def _added(adapter: Adapter, key: str, values: np.ndarray) -> np.ndarray:
    """A variable's values with what a LoRA adds to them."""
    change = adapter.changes[key].read(key, values.shape)
    if not np.isfinite(change).all():
        raise ValueError(f"{adapter.source} is damaged: what it adds to {key} is not finite")
    with np.errstate(over="ignore", invalid="ignore"):  # told below
        merged = values.astype(np.float32) + np.float32(adapter.scale) * change
        merged = merged.astype(values.dtype)
    if not np.isfinite(merged).all():
        raise ValueError(
            f"{key} with {adapter.scale:g} of {adapter.source} has numbers that are too large for "
            f"{values.dtype}: give a smaller scale"
        )
    return merged


def _merged(model: Generator, adapters: list[Adapter], key: str) -> np.ndarray:
    """A variable's own values, with what these adapters add to them."""
    values = model.own.kept[key]()
    for adapter in adapters:
        if key in adapter.changes:
            values = _added(adapter, key, values)
    return values


def _restore(model: Generator, adapters: list[Adapter], keys: Collection[str]) -> None:
    """Give variables what `_merged` has for them."""
    kernels = _kernels(model)
    for key in keys:
        kernels[key].assign(_merged(model, adapters, key))
    for key in keys:  # once nothing has to be undone
        if not any(key in adapter.changes for adapter in adapters):
            del model.own.kept[key]


def _digest(values: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(values)).digest()


# ---------------------------------------------------------------------------------- the model


def _use(model: Generator, adapters: list[Adapter]) -> None:
    """Have the model say, and its tokenizer know, what it has."""
    words = [a for a in adapters if a.vectors is not None]
    if words != [a for a in model.adapters if a.vectors is not None]:
        _teach(model, words)
    model.adapters = adapters
    model.digest = model.own.digest
    if adapters:
        told = [model.own.digest, *(weighed(a.to_json()) for a in adapters)]
        model.digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _teach(model: Generator, words: list[Adapter]) -> None:
    """The model's own vocabulary and embeddings, and these words after them."""
    from xray.architecture import build_text_embedding, initial_weights
    from xray.checkpoints.building import cast

    tokenizer = model.own.tokenizer
    for word in words:
        tokenizer = tokenizer.adding(word.token, len(word.vectors))
    net = model.networks["text"]
    old = net.embedding
    own = old.token_embedding.embeddings.numpy()[: len(model.own.tokenizer.vocabulary)]
    added = (cast(word.token, word.vectors, own.dtype.name) for word in words)
    table = np.concatenate([own, *added])
    architecture = replace(model.architecture, vocab_size=len(table))
    # A layer of its own: the other may belong to a KerasCV model, and cannot grow.
    with initial_weights(lambda shape: np.zeros(shape, np.float32), own.dtype.name):
        embedding = build_text_embedding(architecture)
    embedding.token_embedding.embeddings.assign(table)
    embedding.position_embedding.embeddings.assign(old.position_embedding.embeddings)
    net.embedding, model.architecture, model.tokenizer = embedding, architecture, tokenizer
    model.text.forget()  # what was compiled for the old table
