"""Tensors in files: what is there is known from the headers, and each is read when it is asked for.

    tensors = open_tensors("unet/diffusion_pytorch_model.safetensors")
    tensors["conv_in.weight"].shape             # nothing is read yet
    tensors["conv_in.weight"].read()            # a NumPy array

Files come from strangers. Safetensors hold numbers only; a pickle, which can run code when it is
opened, goes to torch's ``weights_only=True`` or nowhere.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xray.whole import whole

PICKLES = (".ckpt", ".bin", ".pt", ".pth")
WEIGHTS = (".safetensors", *PICKLES)

_HEADER_MOST = 100_000_000  # bytes; the same as in the format's own library
_TEXT_MOST = 50_000_000  # bytes; of vocabularies and indices the largest have a few million
_CONVERT = (
    "have it converted to .safetensors, "
    "for example by https://huggingface.co/spaces/safetensors/convert"
)
_CONVERT_IT = _CONVERT[0].upper() + _CONVERT[1:]


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file.

    Attributes:
        shape: as it lies in the file.
        dtype: by the names of safetensors: F32, F16, BF16, …
        read: gives its values; a new array each time.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]

    def rows(self, start: int, stop: int) -> Tensor:
        """A part of it along the first axis, as a tensor of its own."""
        shape = (stop - start, *self.shape[1:])
        return Tensor(shape, self.dtype, lambda: self.read()[start:stop])


def open_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one file by name.

    Args:
        path: ``.safetensors``; an index of shards, ``….index.json``; or torch's ``.ckpt``,
            ``.bin``, ``.pt``, ``.pth``.

    Raises:
        ValueError: it is no such file, or damaged; says what it looks like instead.
        FileNotFoundError: nothing is there.
    """
    if path.suffix == ".json":
        return _open_shards(path)
    start = _head(path)
    if _is_safetensors(start):
        return _open_safetensors(path)
    if start.startswith((b"PK\x03\x04", b"\x80")):
        if path.suffix in PICKLES:
            return _open_pickle(path)
        raise ValueError(
            f"{path} is a pickle named as something else; a pickle can run code when it is opened, "
            f"so this one is not. If you trust it, name it .ckpt, or {_CONVERT}"
        )
    if (mistaken := _mistaken(start)) is not None:
        raise ValueError(f"{path} {mistaken}")
    length, size = int.from_bytes(start[:8], "little"), path.stat().st_size
    if start[8:9] == b"{":
        raise ValueError(f"{path} is damaged: of its {size:,} bytes, {length:,} are to be header")
    raise ValueError(f"{path} is no safetensors file: it begins with {start[:12]!r}")


def save_tensors(
    values: dict[str, np.ndarray], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, which is there only when it is whole.

    Raises:
        OSError: it cannot be written, as where the disk is full; what was there is as it was.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        with whole(path) as partial:
            save_file(values, partial, metadata)
    except SafetensorError as error:
        raise OSError(
            f"{path} cannot be written: {error}. If the disk is full, make room, or write it "
            "elsewhere"
        ) from error


def unchanged(path: Path, read: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    """``read``, refused once the file is not the one that it is now.

    Weights are read at any time, for the next run with ``memory="low"`` or to take a LoRA out
    again, and what a trace says of their digest has to stay true.
    """
    path = path.absolute()
    before = _stamp(path)

    def checked() -> np.ndarray:
        if _stamp(path) != before:
            raise ValueError(
                f"the model's files have changed: {path} was changed or removed after it was "
                "opened; load the model again"
            )
        return read()

    return checked


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def sha256(path: Path) -> str:
    """The digest of a file's bytes; of an index, that of its shards' digests."""
    if path.suffix == ".json":
        shards = sorted(set(_weight_map(path).values()))
        digests = "\n".join(sha256(path.parent / shard) for shard in shards)
        return hashlib.sha256(digests.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mistaken(path: Path) -> str | None:
    """What is often found where weights should be, to go after the path; None if it is not that."""
    return _mistaken(_head(path))


def read_text(path: Path) -> str:
    """A configuration or vocabulary.

    Raises:
        ValueError: it is no text, or larger than any of them; names the file.
        FileNotFoundError: nothing is there.
    """
    if (size := path.stat().st_size) > _TEXT_MOST:
        raise ValueError(f"{path} is refused: {size:,} bytes are no configuration or vocabulary")
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: it is none; names the file.
        FileNotFoundError: nothing is there.
    """
    text = read_text(path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        mistaken = _mistaken(_head(path))
        reason = f"it {mistaken}" if mistaken else str(error)
        raise ValueError(f"{path} is damaged: {reason}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} is damaged: it holds a {type(data).__name__}, not an object")
    return data


# ----------------------------------------------------------------------------------- safetensors


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _is_safetensors(start: bytes) -> bool:
    """Eight bytes of length, then a JSON object; nothing else that is met begins so."""
    return int.from_bytes(start[:8], "little") <= _HEADER_MOST and start[8:9] == b"{"


def _mistaken(start: bytes) -> str | None:
    """What is often found where weights should be, to go after its path."""
    if not start:
        return "is empty: the download or copy did not begin; fetch it again"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page: fetch the file itself, not the page that shows it"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file: run git lfs pull where it came from"
    return None


def _open_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            told = {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or cut short ({error}); fetch it again") from error
    whole = path.absolute()  # the working directory may be another when it is read
    return {
        name: Tensor(
            shape, dtype, unchanged(whole, functools.partial(_read_safetensors, whole, name))
        )
        for name, (shape, dtype) in told.items()
    }


def _read_safetensors(path: Path, name: str) -> np.ndarray:
    """One tensor.

    The file is opened for it alone, in half a millisecond: while it is open it is mapped, and what
    was read of it would count as this process's memory beside the weights made of it.
    """
    import ml_dtypes  # noqa: F401  tells NumPy of bfloat16
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return file.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


# ---------------------------------------------------------------------------------------- shards


def _weight_map(index: Path) -> dict[str, str]:
    """Which shard holds which tensor, each the plain name of a file beside the index."""
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{index} is damaged: it has no weight_map")
    for shard in found.values():
        plain = isinstance(shard, str) and shard == Path(shard).name and "\\" not in shard
        if not plain or shard in ("", ".."):
            raise ValueError(
                f"{index} names {shard!r}; a shard is a file in the same folder, and nothing "
                "outside it is opened"
            )
        if not shard.endswith(WEIGHTS):
            raise ValueError(f"{index} names {shard!r}, which is no weights file")
    return found


def _open_shards(index: Path) -> dict[str, Tensor]:
    weight_map = _weight_map(index)
    shards = {}
    for shard in sorted(set(weight_map.values())):
        path = index.parent / shard
        if not path.is_file():
            raise ValueError(f"{index} names {shard}, which is missing; fetch it too")
        shards[shard] = open_tensors(path)
    told = {(name, shard) for name, shard in weight_map.items()}
    held = {(name, shard) for shard, tensors in shards.items() for name in tensors}
    if told != held:
        wrong = sorted(name for name, _ in told ^ held)
        raise ValueError(
            f"{index} and its shards do not agree on {len(wrong)} tensors: {shown(wrong)}"
        )
    return {name: tensor for tensors in shards.values() for name, tensor in tensors.items()}


def shown(names: list[str], most: int = 4) -> str:
    """The first few of many names."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


# --------------------------------------------------------------------------------------- pickles


def _open_pickle(path: Path) -> dict[str, Tensor]:
    """Torch's own format, by its unpickler that makes tensors and nothing else."""
    if importlib.util.find_spec("torch") is None:
        raise ValueError(
            f"{path} is a pickle, which can run code when it is opened. It is read only by torch's "
            f"weights_only=True, and torch is not installed: pip install torch, or {_CONVERT}"
        )
    version = importlib.metadata.version("torch")
    if tuple(map(int, version.split(".")[:2])) < (2, 6):
        raise ValueError(
            f"{path} is a pickle, and the weights_only=True of torch {version} can be made to run "
            f"code (CVE-2025-32434): pip install 'torch>=2.6', or {_CONVERT}"
        )
    import torch

    mapped = _head(path).startswith(b"PK")  # torch's older layout cannot be mapped
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # of many types, by the decoder that stumbles
        reason = str(error).strip().splitlines()[0] if str(error) else repr(error)
        raise ValueError(
            f"{path} is damaged, or holds more than tensors and is not opened, because a pickle "
            f"can run code ({reason[:200]}). {_CONVERT_IT}"
        ) from error
    state = held.get("state_dict", held) if isinstance(held, dict) else held
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__} and not tensors by name")
    others = [
        str(name)
        for name, value in state.items()
        if not (
            isinstance(name, str)
            and isinstance(value, torch.Tensor)
            and value.layout == torch.strided
        )
    ]
    if others:
        raise ValueError(
            f"{path} is refused: besides named tensors it holds {shown(others)}. {_CONVERT_IT}"
        )
    return {
        name: Tensor(
            tuple(value.shape),
            _torch_dtype(value),
            unchanged(path, functools.partial(_array, value)),
        )
        for name, value in state.items()
    }


def _torch_dtype(value: Any) -> str:
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}
    names |= {"int64": "I64", "int32": "I32"}
    name = str(value.dtype).removeprefix("torch.")
    return names.get(name, name)


def _array(value: Any) -> np.ndarray:
    return value.detach().float().numpy()
