"""Where models come from.

model = xray.load("mini")                               # the shipped miniature
model = xray.load("stable-diffusion-2-1")               # a diffusers folder
model = xray.load("owner/model", download=True)         # one of the Hugging Face Hub
model = xray.load("v1-5-pruned.safetensors", ema=True)  # one file, as CompVis wrote them
model = xray.load("sd-v1-4")                            # what `xray weights fetch` brought
model = xray.load("sd-v1-4", weights=None)              # full size, random weights, for shape work
save(model, "runs/my_model")                            # the project's own form

One file for each form: it says of a model what it is and which tensors there are to read
(`checkpoint.Checkpoint`), and `building` makes the model.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xray.checkpoints import building, diffusers, hub, keras_h5, ldm, native, registry, room
from xray.checkpoints.checkpoint import Checkpoint, Component
from xray.checkpoints.export import export_diffusers
from xray.checkpoints.fetching import ensure
from xray.checkpoints.files import WEIGHTS
from xray.checkpoints.native import save
from xray.checkpoints.stock import from_keras_cv
from xray.checkpoints.vocabulary import open_vocabulary
from xray.environment import check_environment
from xray.resources import shipped

if TYPE_CHECKING:
    from xray.architecture import Architecture
    from xray.generator import Generator
    from xray.tokenizer import Tokenizer

__all__ = ["MODELS", "export_diffusers", "form_of", "from_keras_cv", "load", "outline", "save"]

FULL_SIZE = {"sd-v1-4": "SD1", "sd-v2-1-base": "SD2", "sd-v2-1": "SD2_V"}
MODELS = ("mini", *FULL_SIZE)


def load(
    name: str | Path | Architecture = "mini",
    *,
    weights: str | None = "pretrained",
    seed: int = 0,
    tokenizer: Tokenizer | str | Path | None = None,
    numerics: str | None = None,
    jit: bool = False,
    exact: bool = False,
    dtype: str = "float32",
    memory: str = "auto",
    text_encoder: str | Path | None = None,
    unet: str | Path | None = None,
    autoencoder: str | Path | None = None,
    variant: str | None = None,
    ema: bool = False,
    prediction: str | None = None,
    download: bool = False,
) -> Generator:
    """Open a model.

    Args:
        name: ``"mini"``, a model in `MODELS`, or a path: the folder of a diffusers model, a single
            file as CompVis and Stability AI publish them (``.safetensors``, or ``.ckpt`` where
            torch is installed), a folder of KerasCV's .h5 files, a folder that `save` wrote. Or a
            diffusers model's name on the Hugging Face Hub, ``"owner/model"``. Or an `Architecture`
            (with ``weights=None``).
        weights: ``"pretrained"``, or None for random weights drawn from `seed`: enough for shapes,
            memory and time, not for pictures.
        seed: of random weights.
        tokenizer: in place of the model's own; or the path of one, CLIP's
            ``bpe_simple_vocab_16e6.txt.gz`` or the ``tokenizer`` folder of a diffusers model.
            Single files have none: they get CLIP's if any weights have been fetched, with which it
            comes. Without one, as where ``weights=None``, prompts are embeddings.
        numerics: ``"reference"`` or ``"keras_cv"``; by default what the weights were made for.
            KerasCV's own weights come with its ways of spacing timesteps and padding prompts too.
        jit: compile with XLA: the miniature's steps take half the time, after 8 s of compiling.
            At full size it is no faster, and takes more memory.
        exact: every convolution by its definition. By default large ones of 3×3 go by Winograd's
            algorithm, in under half the time; the largest error is 1e-4 of an output's standard
            deviation, the root mean square 4e-6 (`xray.winograd`).
        dtype: in which the weights are kept in memory, ``"float32"`` or, in half of it,
            ``"float16"``: of files in float16 nothing is lost, others are rounded. All is computed
            in float32; compiled with XLA, a network makes itself float32 copies while it runs.
        memory: ``"fast"`` keeps all weights in memory; ``"low"`` one network's at a time, which are
            read from their files when it runs, and let go when another does. ``"auto"`` is fast
            where that takes no more than 0.7 of the machine's memory. The bits are the same.
        text_encoder, unet, autoencoder: take this component from elsewhere: its folder in a
            diffusers model, its name on the Hub, or any model. Must be of the same sizes.
        variant: of a diffusers folder's files, such as ``"fp16"``.
        ema: of a single file, take the U-Net's exponential moving average.
        prediction: of a single file of 2.x, which does not tell: ``"epsilon"`` or ``"v"``.
        download: fetch the weights of a model in `MODELS` or of the Hub if they are not here,
            gigabytes; without it nothing is ever downloaded.

    Returns:
        A `Generator`. Its weights are read tensor by tensor and never twice in memory; ``sources``
        says which component came from where.

    Raises:
        ValueError: unknown name; weights that are damaged, missing, surplus or of other shapes;
            says what is there. Nothing is built from a part of what is needed. Or too little
            memory is free, with what would fit.
        ConnectionError: what was to be downloaded cannot be.
        EnvironmentProblem: two TensorFlow distributions at once, or Keras on another backend.

    Example:
        >>> xray.load("mini").generate("a red star", seed=7).image
        >>> xray.load("sd-v1-4", autoencoder="stabilityai/sd-vae-ft-ema", download=True)
    """
    check_environment()
    from xray import architecture as architectures
    from xray.networks import NUMERICS

    if weights not in ("pretrained", None):
        raise ValueError(f"weights must be 'pretrained' or None, got {weights!r}")
    if numerics not in (*NUMERICS, None):
        raise ValueError(f"numerics {numerics!r} is not one of {', '.join(NUMERICS)}")
    if prediction not in ("epsilon", "v", None):
        raise ValueError(f"prediction must be 'epsilon' or 'v', got {prediction!r}")
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype must be 'float32' or 'float16', got {dtype!r}")
    if memory not in room.MODES:
        raise ValueError(f"memory {memory!r} is not one of {', '.join(room.MODES)}")
    if memory == "low" and weights is None:
        raise ValueError("memory='low' reads weights again from their files; random ones have none")
    _check_options(name, variant=variant, ema=ema, prediction=prediction)
    if isinstance(name, architectures.Architecture):
        if weights is not None:
            raise ValueError("an Architecture has no pretrained weights; give weights=None")
        words = _tokenizer("it", tokenizer, name, numerics)
        return building.random_model("random", name, seed, words, numerics, jit, exact, dtype)
    if name in FULL_SIZE and weights is None:
        arch = getattr(architectures, FULL_SIZE[name])
        words = _tokenizer(name, tokenizer, arch, numerics)
        return building.random_model(str(name), arch, seed, words, numerics, jit, exact, dtype)
    if isinstance(name, str):
        ensure(name, download=download, variant=variant)
    checkpoint = open_checkpoint(
        name,
        variant=variant,
        ema=ema,
        prediction=prediction,
        numerics=numerics,
        weights=weights is not None,
    )
    others = {"text_encoder": text_encoder, "unet": unet, "autoencoder": autoencoder}
    checkpoint = checkpoint.exchanged(
        {
            part: open_component(path, part, download=download)
            for part, path in others.items()
            if path is not None
        }
    )
    arch, numerics = checkpoint.architecture, numerics or checkpoint.numerics
    words = _tokenizer(name, tokenizer or checkpoint.tokenizer, arch, numerics)
    if weights is None:
        return building.random_model(
            checkpoint.name, arch, seed, words, numerics, jit, exact, dtype
        )
    checkpoint = replace(checkpoint, tokenizer=words)
    return building.assemble(
        checkpoint,
        numerics=numerics,
        jit=jit,
        exact=exact,
        dtype=dtype,
        memory=room.choose(memory, checkpoint, dtype),
    )


def _tokenizer(
    name: str | Path,
    found: Tokenizer | str | Path | None,
    arch: Architecture,
    numerics: str | None,
) -> Tokenizer | None:
    """A tokenizer for a model of these sizes, opened if it is a path."""
    from xray.tokenizer import Tokenizer

    if isinstance(found, (str, Path)) and Path(found).is_dir():
        found = open_vocabulary(Path(found), arch.text_length)
    elif isinstance(found, (str, Path)):
        pads = 0 if arch.linear_projections and numerics != "keras_cv" else None
        found = Tokenizer.from_bpe(found, arch.text_length, pads)
    if found and len(found.vocabulary) > arch.vocab_size:
        raise ValueError(
            f"{name} has embeddings for {arch.vocab_size} tokens, and the tokenizer has "
            f"{len(found.vocabulary)}: it is of another model"
        )
    if found and found.length != arch.text_length:
        raise ValueError(
            f"{name} reads {arch.text_length} tokens, and the tokenizer makes {found.length}: it "
            "is of another model"
        )
    return found


def outline(name: str | Path) -> Generator:
    """A model without weights, in seconds and in no memory: for `xray.sitelist`, and not to be run.

    Args:
        name: as for `load`; the weights need not be there.

    Example:
        >>> from xray.sitelist import sites_of
        >>> sites_of(outline("sd-v1-4"))["unet/mid/attn.0/cross/weights"].shape
        (2, 1, 8, 8, 8, 77)
    """
    check_environment()
    from xray import architecture as architectures

    if name in FULL_SIZE:
        return building.outline(str(name), getattr(architectures, FULL_SIZE[name]))
    # What a single file of 2.x predicts does not change its sites.
    prediction = "epsilon" if form_of(name) == "file" else None
    checkpoint = open_checkpoint(name, prediction=prediction, weights=False)
    return building.outline(checkpoint.name, checkpoint.architecture)


def form_of(name: str | os.PathLike) -> str | None:
    """In which form a path holds a model; None if in none. Looks at names only.

    Returns:
        ``"diffusers"``, ``"keras_cv"``, ``"xray"`` or ``"file"``.
    """
    path = _path(name)
    if diffusers.is_folder(path):
        return "diffusers"
    if keras_h5.is_folder(path):
        return "keras_cv"
    if (path / "config.json").is_file():
        return "xray"
    return "file" if path.suffix in WEIGHTS and path.is_file() else None


def _path(name: str | os.PathLike) -> Path:
    """Where a model is: a path is its own, one of the Hub's is in the Hub's cache."""
    return hub.cached(name) or Path(name)


def check_name(name: str | os.PathLike) -> None:
    """Refuse what is no model, before anything heavy is imported.

    What may be one of the Hub's passes: whether it is here, `ensure` asks.

    Raises:
        ValueError: says which models there are.
    """
    if str(name) not in MODELS and form_of(name) is None and not hub.is_id(name):
        raise ValueError(f"{str(name)!r} is neither a model ({', '.join(MODELS)}) nor one's path")


def open_checkpoint(
    name: str | Path,
    *,
    variant: str | None = None,
    ema: bool = False,
    prediction: str | None = None,
    numerics: str | None = None,
    weights: bool = True,
) -> Checkpoint:
    """What the files of a model say, in whichever form; arguments and errors as for `load`."""
    if name == "mini":
        return native.open_folder(shipped("weights") / "mini", source="mini", weights=weights)
    if name in registry.registered():
        return keras_h5.open_published(str(name), numerics=numerics)
    if name in FULL_SIZE:
        raise ValueError(
            f"{name} is not among the weights to fetch: give the path of a diffusers folder or "
            "single file of it, or a diffusers model's name on the Hugging Face Hub, or build it "
            f"without: xray.load({name!r}, weights=None)"
        )
    check_name(name)
    path, form = _path(name), form_of(name)
    if form is None:
        raise ValueError(hub.about_missing(name))
    if form == "diffusers":
        checkpoint = diffusers.open_folder(path, variant=variant, weights=weights)
        return replace(checkpoint, name=str(name)) if hub.is_id(name) else checkpoint
    if form == "keras_cv":
        return keras_h5.open_folder(path, numerics=numerics, weights=weights)
    if form == "file":
        return ldm.open_file(path, ema=ema, prediction=prediction, weights=weights)
    if diffusers.is_component(path):
        raise ValueError(
            f"{path} is one component of a model: give it as text_encoder=, unet= or autoencoder="
        )
    return native.open_folder(path, weights=weights)


def open_component(name: str | Path, part: str, *, download: bool = False) -> Component:
    """One component, from its own folder or out of any model.

    Args:
        name: as for `load`.
        part: ``"text_encoder"``, ``"unet"`` or ``"autoencoder"``.
        download: as for `load`; of a model of the Hub, only this component.
    """
    if isinstance(name, str):
        ensure(name, download=download, parts=(part,))
    path = _path(name)
    if path.suffix == ".h5":
        return keras_h5.open_component(path, part)
    if diffusers.is_component(path):
        component = diffusers.open_component(path, part)
        told = diffusers.predicted(path.absolute().parent)  # if it lies in a model's folder
    elif diffusers.is_folder(path):
        component = diffusers.open_component(path / diffusers.FOLDERS[part], part)
        told = diffusers.predicted(path)
    else:
        # A single file does not say what its U-Net predicts, and yet one of 2.x must be told.
        file = form_of(name) == "file"
        checkpoint = open_checkpoint(name, prediction="epsilon" if file else None)
        if part not in checkpoint.components:
            raise ValueError(f"{name} holds no {part}")
        component = checkpoint.components[part]
        told = None if file else checkpoint.settings["prediction"]
    return replace(component, prediction=told if part == "unet" else None)


def _check_options(name: str | Path | Architecture, **given: str | bool | None) -> None:
    """Refuse what can only be said of another form of weights."""
    path = isinstance(name, (str, os.PathLike)) and str(name) not in MODELS
    form = form_of(name) if path else None
    if path and hub.is_id(name):
        form = "diffusers"  # or will be, once it is fetched
    for option, value in given.items():
        what = "diffusers folders" if option == "variant" else "single files"
        if value and form != {"variant": "diffusers"}.get(option, "file"):
            raise ValueError(f"{option}={value!r} is for {what}, and {name} is none")
