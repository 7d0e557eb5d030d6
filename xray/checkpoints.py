"""Where models come from.

model = xray.load("mini")                          # the shipped miniature
model = xray.load("sd-v1-4", weights=None)         # full size, random weights, for shape work
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.environment import check_environment
from xray.resources import shipped

if TYPE_CHECKING:
    from xray.architecture import Architecture
    from xray.generator import Generator
    from xray.tokenizer import Tokenizer

FULL_SIZE = {"sd-v1-4": "SD1", "sd-v2-1-base": "SD2", "sd-v2-1": "SD2_V"}
MODELS = ("mini", *FULL_SIZE)


def load(
    name: str | Path | Architecture = "mini",
    *,
    weights: str | None = "pretrained",
    seed: int = 0,
    tokenizer: Tokenizer | None = None,
    numerics: str | None = None,
    jit: bool | None = None,
) -> Generator:
    """Open a model.

    Args:
        name: ``"mini"``, a model in `MODELS`, a folder that `save` wrote, or an `Architecture`
            (with ``weights=None``).
        weights: ``"pretrained"``, or None for random weights drawn from `seed`: enough for shapes,
            memory and time, not for pictures.
        seed: of random weights.
        tokenizer: in place of the model's own; full-size models built with ``weights=None`` have
            none, since CLIP's vocabulary comes with the weights.
        numerics: ``"reference"`` or ``"keras_cv"``; by default what the weights were made for.
        jit: compile with XLA. By default at full size, where a step takes seconds; not for the
            miniature, which would spend longer compiling than running.

    Returns:
        A `Generator`.

    Raises:
        ValueError: unknown name; weights that are damaged or of other shapes; says what is there.
        EnvironmentProblem: two TensorFlow distributions at once, or Keras on another backend.

    Example:
        >>> xray.load("mini").generate("a red star", seed=7).image
    """
    check_environment()
    from xray import architecture as architectures

    if weights not in ("pretrained", None):
        raise ValueError(f"weights must be 'pretrained' or None, got {weights!r}")
    if isinstance(name, architectures.Architecture):
        if weights is not None:
            raise ValueError("an Architecture has no pretrained weights; give weights=None")
        return _random("random", name, seed, tokenizer, numerics, bool(jit))
    if name in FULL_SIZE:
        if weights is not None:
            raise ValueError(
                f"the weights of {name} are not on this machine, and this version cannot read "
                f"them yet; xray.load({name!r}, weights=None) builds the model for shape work"
            )
        arch = getattr(architectures, FULL_SIZE[name])
        return _random(str(name), arch, seed, tokenizer, numerics, jit is None or jit)
    folder = shipped("weights") / "mini" if name == "mini" else Path(name)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{name!r} is neither a model ({', '.join(MODELS)}) nor a saved one's folder"
        )
    return _load_folder(folder, seed if weights is None else None, tokenizer, numerics, bool(jit))


def from_keras_cv(
    stock: Any, *, tokenizer: Tokenizer | None = None, jit: bool | None = None
) -> Generator:
    """Open KerasCV's own ``StableDiffusion`` or ``StableDiffusionV2``, whatever weights it holds.

    The layers are shared, not copied, and used with KerasCV's own numerics and spacing, so that
    both give the same pictures. Parts that KerasCV has not built yet are built now, for which it
    downloads their weights.

    Args:
        stock: the KerasCV model.
        tokenizer: in place of KerasCV's.
        jit: compile with XLA; by default what the KerasCV model was made with.

    Example:
        >>> model = from_keras_cv(keras_cv.models.StableDiffusion(512, 512))
    """
    check_environment()
    from xray import networks as n
    from xray.architecture import SD1, SD2
    from xray.tokenizer import Tokenizer

    version_2 = type(stock).__name__ == "StableDiffusionV2"
    parts = {
        "text": n.read_text_encoder(stock.text_encoder),
        "unet": n.read_unet(stock.diffusion_model),
        "encoder": n.read_encoder(stock.image_encoder),
        "decoder": n.read_decoder(stock.decoder),
    }
    digest = hashlib.sha256()
    for part, net in parts.items():
        for variable in n.variables(part, net).values():
            digest.update(variable.numpy())
    return _generator(
        {"name": type(stock).__name__, "spacing": "linspace", "rgb_matrix": None},
        SD2 if version_2 else SD1,
        tokenizer or Tokenizer(list(stock.tokenizer.bpe_ranks), pad=49407),
        parts,
        digest.hexdigest(),
        "keras_cv",
        stock.jit_compile if jit is None else jit,
    )


def save(model: Generator, folder: str | Path, *, dtype: str = "float16") -> None:
    """Write a model to a folder that `load` opens: weights, sizes and vocabulary.

    Args:
        model: the model.
        folder: created if absent.
        dtype: of the stored weights, ``"float16"`` or ``"float32"``.
    """
    from safetensors.numpy import save_file

    from xray.networks import variables

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        key: np.ascontiguousarray(v.numpy().astype(dtype))
        for name, net in model.networks.items()
        for key, v in variables(name, net).items()
    }
    path = folder / "weights.safetensors"
    save_file(values, path)
    config = {
        "name": model.name,
        "architecture": model.architecture.to_json(),
        "numerics": model.numerics,
        "spacing": model.spacing,
        "rgb_matrix": None if model.rgb_matrix is None else np.asarray(model.rgb_matrix).tolist(),
        "sha256": _sha256(path),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    if model.tokenizer is not None:
        model.tokenizer.save(folder / "tokenizer.json")


def _load_folder(
    folder: Path, seed: int | None, tokenizer: Any, numerics: str | None, jit: bool
) -> Generator:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from xray.architecture import Architecture
    from xray.tokenizer import Tokenizer

    try:
        config = json.loads((folder / "config.json").read_text())
        arch = Architecture.from_json(config["architecture"])
        for key in ("name", "numerics", "spacing", "rgb_matrix", "sha256"):
            config[key]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'} is damaged: {error!r}") from error
    if tokenizer is None and (folder / "tokenizer.json").exists():
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
    numerics = numerics or config["numerics"]
    if seed is not None:
        return _random(config["name"], arch, seed, tokenizer, numerics, jit)
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise ValueError(f"{path} is missing; reinstall, or copy it from where the model was saved")
    digest = _sha256(path)
    if digest != config["sha256"]:
        raise ValueError(
            f"{path} is damaged: its sha256 is {digest[:12]}…, config.json says "
            f"{config['sha256'][:12]}…; copy it again"
        )
    try:
        values = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    networks = _build(arch, lambda shape: np.zeros(shape, np.float32))
    _assign(networks, values, path)
    return _generator(config, arch, tokenizer, networks, digest, numerics, jit)


def _random(
    name: str, arch: Architecture, seed: int, tokenizer: Any, numerics: str | None, jit: bool
) -> Generator:
    from xray.networks import variables

    random = np.random.default_rng(seed)
    normal = _QuickNormal(random)
    networks = _build(arch, lambda shape: normal(shape) * np.float32(math.prod(shape[:-1])) ** -0.5)
    # Biases and gains, which Keras makes zeros and ones: no model has such, and tests that met
    # only these would miss a forgotten one.
    for part, net in networks.items():
        for variable in variables(part, net).values():
            if len(variable.shape) == 1:
                variable.assign(variable.numpy() + 0.1 * normal(tuple(variable.shape)))
    config = {"name": name, "spacing": "leading", "rgb_matrix": None}
    digest = f"random-{seed}-" + hashlib.sha256(repr(arch).encode()).hexdigest()[:16]
    return _generator(config, arch, tokenizer, networks, digest, numerics or "reference", jit)


class _QuickNormal:
    """Normal numbers by the billion: one block of a million, repeated from random places.

    Drawing them all would take half a minute for a full-size model.
    """

    def __init__(self, random: np.random.Generator):
        self.random, self.block = random, random.standard_normal(1 << 20, np.float32)

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        start = int(self.random.integers(self.block.size))
        return np.resize(np.roll(self.block, -start), shape)


def _generator(
    config: dict,
    arch: Architecture,
    tokenizer: Any,
    networks: dict,
    digest: str,
    numerics: str,
    jit: bool,
) -> Generator:
    from xray.generator import Generator

    matrix = config["rgb_matrix"]
    return Generator(
        config["name"],
        arch,
        tokenizer,
        **networks,
        digest=digest,
        numerics=numerics,
        spacing=config["spacing"],
        rgb_matrix=None if matrix is None else np.array(matrix, np.float32),
        jit=jit,
    )


def _build(arch: Architecture, fill: Callable[[tuple[int, ...]], np.ndarray]) -> dict[str, Any]:
    from xray import architecture as a

    with a.initial_weights(fill):
        return {
            "text": a.build_text_encoder(arch),
            "unet": a.build_unet(arch),
            "encoder": a.build_encoder(arch),
            "decoder": a.build_decoder(arch),
        }


def _assign(networks: dict[str, Any], values: dict[str, np.ndarray], path: Path) -> None:
    """Give every variable its value, after checking that all are there and fit."""
    from xray.networks import variables

    wanted = {k: v for name, net in networks.items() for k, v in variables(name, net).items()}
    missing, surplus = sorted(wanted.keys() - values.keys()), sorted(values.keys() - wanted.keys())
    wrong = [
        f"{k} {values[k].shape} for {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in values and values[k].shape != tuple(v.shape)
    ]
    for what, names in (("missing", missing), ("surplus", surplus), ("of wrong shape", wrong)):
        if names:
            raise ValueError(f"{path}: {len(names)} tensors are {what}: {', '.join(names[:4])}")
    for key, variable in wanted.items():
        variable.assign(values[key].astype(np.float32))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
