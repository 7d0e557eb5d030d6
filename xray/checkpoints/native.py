"""The project's own form: a folder with weights, sizes and vocabulary.

save(model, "runs/my_model")
model = xray.load("runs/my_model")
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.checkpoints.building import cast
from xray.checkpoints.checkpoint import COMPONENTS, SIZES, Checkpoint, Component
from xray.checkpoints.files import open_tensors, read_json, save_tensors, sha256
from xray.checkpoints.sizes import check_sizes
from xray.schedule import WHOLE_SPACINGS

if TYPE_CHECKING:
    from xray.generator import Generator


def save(model: Generator, folder: str | Path, *, dtype: str = "float16") -> None:
    """Write a model to a folder that `load` opens: weights, sizes and vocabulary.

    Args:
        model: the model.
        folder: created if absent.
        dtype: of the stored weights, ``"float16"`` or ``"float32"``.

    Raises:
        ValueError: the model was opened with ``memory="low"``, or has numbers that are too large
            for `dtype`; or the folder is another model's: of another form, which `load` would open
            in its place, or with a config.json that is not of a model saved here.
        OSError: it cannot be written; a model that is there stays.
    """
    from xray.checkpoints import form_of
    from xray.networks import variables

    model.check_whole()
    folder = Path(folder)
    if (form := form_of(folder)) not in (None, "xray"):
        raise ValueError(
            f"{folder} holds a model in the form {form}, which would stay: choose another"
        )
    known = folder / "config.json"
    if known.exists() and not {"architecture", "sha256"} <= read_json(known).keys():
        raise ValueError(f"{known} is not of a model that was saved here: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        key: cast(key, v.numpy(), dtype)
        for name, net in model.networks.items()
        for key, v in variables(name, net).items()
    }
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as partial:
        _write(model, values, Path(partial))
        # All is written, and takes its place in one moment.
        if model.tokenizer is None:
            (folder / "tokenizer.json").unlink(missing_ok=True)
        for path in Path(partial).iterdir():
            path.replace(folder / path.name)


def _write(model: Generator, values: dict[str, np.ndarray], folder: Path) -> None:
    save_tensors(values, folder / "weights.safetensors")
    config = {
        "name": model.name,
        "architecture": model.architecture.to_json(),
        "numerics": model.numerics,
        "spacing": model.spacing,
        "rgb_matrix": None if model.rgb_matrix is None else np.asarray(model.rgb_matrix).tolist(),
        "sha256": sha256(folder / "weights.safetensors"),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    if model.tokenizer is not None:
        model.tokenizer.save(folder / "tokenizer.json")


def open_folder(folder: Path, *, source: str | None = None, weights: bool = True) -> Checkpoint:
    """What `save` wrote.

    Args:
        folder: where.
        source: what traces say of where; by default the folder.
        weights: False where only the sizes are wanted.

    Raises:
        ValueError: something is missing or damaged.
    """
    from xray.architecture import Architecture
    from xray.networks import NUMERICS
    from xray.tokenizer import Tokenizer

    config = read_json(folder / "config.json")
    try:
        sizes = asdict(Architecture.from_json(config["architecture"]))
        form = {key: config[key] for key in ("name", "numerics", "spacing", "rgb_matrix")}
        told = str(config["sha256"])
        for key, known in (("numerics", NUMERICS), ("spacing", WHOLE_SPACINGS)):
            if form[key] not in known:
                raise ValueError(f"{key} {form[key]!r:.80} is not one of {', '.join(known)}")
        if not isinstance(form["name"], str):
            raise ValueError(f"name is {form['name']!r:.80}, not a word")
        form["rgb_matrix"] = _matrix(form["rgb_matrix"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'config.json'} is damaged: {error!r}") from error
    path = folder / "weights.safetensors"
    digest = _checked_digest(path, told) if weights else told
    tensors = open_tensors(path) if weights else {}
    vocabulary = folder / "tokenizer.json"
    decided = {key for keys in SIZES.values() for key in keys}
    components = {
        name: Component(
            source=source or str(folder),
            sizes={key: sizes[key] for key in SIZES[name]},
            tensors={k: t for k, t in tensors.items() if _component(k) == name},
            name_of=lambda key: key,
            digest=digest,
            keras=True,
        )
        for name in COMPONENTS
    }
    for name, component in components.items() if weights else ():
        check_sizes(folder, name, component)
    return Checkpoint(
        **form,
        components=components,
        settings={key: value for key, value in sizes.items() if key not in decided},
        tokenizer=Tokenizer.load(vocabulary) if vocabulary.exists() else None,
        own_digest=digest,
    )


def _matrix(told: Any) -> np.ndarray | None:
    """The matrix that shows latents as colour, where there is one."""
    if told is None:
        return None
    with contextlib.suppress(TypeError, ValueError):  # no numbers, or in rows of other lengths
        matrix = np.array(told, np.float32)
        if matrix.shape == (5, 3) and np.isfinite(matrix).all():
            return matrix
    raise ValueError(f"rgb_matrix is {told!r:.80}, not 5 × 3 numbers")


def _component(key: str) -> str:
    """Which component a variable belongs to; what belongs to none is told as surplus of one."""
    network = key.split("/")[0]
    return next((name for name, parts in COMPONENTS.items() if network in parts), "unet")


def _checked_digest(path: Path, told: str) -> str:
    if not path.is_file():
        raise ValueError(f"{path} is missing; reinstall, or copy it from where the model was saved")
    digest = sha256(path)
    if digest != told:
        raise ValueError(
            f"{path} is damaged: its sha256 is {digest[:12]}…, config.json says {told[:12]}…; "
            "copy it again"
        )
    return digest
