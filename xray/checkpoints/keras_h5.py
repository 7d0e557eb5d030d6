"""KerasCV's published .h5 files: Keras 2's layout, in which weights have an order and no names.

    checkpoint = open_folder(Path("~/.keras/datasets").expanduser())
    checkpoint = open_published("sd-v1-4")               # what `xray weights fetch` brought

A file lists its layers in the order of KerasCV's model, and each layer its weights in the order in
which the layer's class made them. That order is written down here, with our names in it.

Reference:
    `load_weights_from_hdf5_group` of Keras, and the model classes of KerasCV 0.9 and 0.6.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray.checkpoints.checkpoint import COMPONENTS, SIZES, Checkpoint, Component
from xray.checkpoints.fetching import ensure
from xray.checkpoints.files import Tensor, mistaken, sha256, unchanged
from xray.checkpoints.registry import published
from xray.checkpoints.vocabulary import CLIPS

if TYPE_CHECKING:
    from xray.architecture import Architecture

FILES = {
    "text": ("kcv_encoder.h5", "text_encoder_v2_1.h5"),
    "unet": ("kcv_diffusion_model.h5", "diffusion_model_v2_1.h5"),
    "encoder": ("vae_encoder.h5",),
    "decoder": ("kcv_decoder.h5",),
}
"""What KerasCV calls each network's file, in 1.x and in 2.x."""


def is_folder(folder: Path) -> bool:
    """Whether it holds KerasCV's files."""
    return any((folder / name).is_file() for name in FILES["unet"])


def open_folder(folder: Path, *, numerics: str | None = None, weights: bool = True) -> Checkpoint:
    """A folder with the four networks' files, and CLIP's vocabulary if it is there.

    Args:
        folder: such as ``~/.keras/datasets``, where KerasCV keeps what it has downloaded.
        numerics: ``"keras_cv"``, what these weights were made for, or ``"reference"``.
        weights: False where only the sizes are wanted.

    Raises:
        ValueError: a file is missing or damaged; there are several of one kind.
    """
    found = {part: [n for n in names if (folder / n).is_file()] for part, names in FILES.items()}
    for part, names in found.items():
        if not names:
            raise ValueError(f"{folder} has no {' or '.join(FILES[part])}")
    if len(found["unet"]) == 2:
        raise ValueError(
            f"{folder} holds 1.x and 2.x: move {found['unet'][1]} or {found['unet'][0]} elsewhere"
        )
    # The text encoder that goes with the U-Net, should there be both.
    version = FILES["unet"].index(found["unet"][0])
    text = FILES["text"][version]
    if text not in found["text"]:
        raise ValueError(f"{folder} has {found['unet'][0]} but not {text}")
    files = {part: folder / names[0] for part, names in found.items()} | {"text": folder / text}
    vocabulary = folder / CLIPS
    return open_files(
        folder.resolve().name,
        files,
        _version(version),
        vocabulary=vocabulary if vocabulary.is_file() else None,
        numerics=numerics,
        digests={} if weights else dict.fromkeys(FILES, ""),
    )


def open_published(name: str, *, numerics: str | None = None) -> Checkpoint:
    """A model of the registry, from the cache.

    Raises:
        ValueError: it is not all here.
    """
    ensure(name, download=False)
    model = published(name)
    files = {part: model.files[part].path for part in FILES}
    return open_files(
        name,
        files,
        _version(FILES["unet"].index(files["unet"].name)),
        vocabulary=model.files["tokenizer"].path,
        numerics=numerics,
        digests={part: model.files[part].sha256 for part in FILES},
    )


def open_component(path: Path, name: str, arch: Architecture | None = None) -> Component:
    """The text encoder or U-Net of one file, as a fine-tuning with KerasCV saves it.

    Raises:
        ValueError: it is another network's, or damaged.
    """
    if name == "autoencoder":
        raise ValueError(f"{path} is half of an autoencoder at most: give a folder with both files")
    (part,) = COMPONENTS[name]
    layers = read_layers(path)
    return _component(name, {part: path}, {part: layers}, arch or _version_of(path, layers), {})


def open_files(
    name: str,
    files: dict[str, Path],
    arch: Architecture,
    *,
    vocabulary: Path | None = None,
    numerics: str | None = None,
    digests: dict[str, str] | None = None,
) -> Checkpoint:
    """The four networks' files.

    Args:
        name: of the model.
        files: by network.
        arch: their sizes.
        vocabulary: CLIP's, or None.
        numerics: decides how timesteps are spaced and prompts padded, too, since KerasCV has its
            own ways there.
        digests: of the files where they are known.
    """
    from xray.tokenizer import Tokenizer

    numerics = numerics or "keras_cv"
    layers = {part: read_layers(path) for part, path in files.items()}
    pads = 0 if arch.linear_projections and numerics == "reference" else None
    return Checkpoint(
        name=name,
        components={
            component: _component(component, files, layers, arch, digests or {})
            for component in COMPONENTS
        },
        settings={"prediction": arch.prediction, "size": arch.size},
        tokenizer=vocabulary and Tokenizer.from_bpe(vocabulary, arch.text_length, pads),
        numerics=numerics,
        spacing="linspace" if numerics == "keras_cv" else "leading",
    )


def _version(version: int) -> Architecture:
    from xray.architecture import SD1, SD2

    return (SD1, SD2)[version]


def _version_of(path: Path, layers: list[Layer]) -> Architecture:
    """By the width of the text encoder's output, which the U-Net has among its inputs."""
    widths = {tensor.shape[0] for layer in layers for tensor in layer if len(tensor.shape) == 2}
    known = [version for width, version in {768: 0, 1024: 1}.items() if width in widths]
    if len(known) != 1:
        raise ValueError(f"{path} is neither of Stable Diffusion 1.x nor of 2.x")
    return _version(known[0])


def _component(
    name: str,
    files: dict[str, Path],
    layers: dict[str, list[Layer]],
    arch: Architecture,
    digests: dict[str, str],
) -> Component:
    tensors, told = {}, []
    for part in COMPONENTS[name]:
        tensors |= _named(part, layers[part], arch, files[part])
        told.append(digests[part] if part in digests else sha256(files[part]))
    sizes = {key: getattr(arch, key) for key in SIZES[name]}
    if name == "text_encoder":  # an embedding that was learned makes it longer
        sizes["vocab_size"] = tensors["text/embedding/token/embeddings"].shape[0]
    return Component(
        source=" and ".join(str(files[part]) for part in COMPONENTS[name]),
        sizes=sizes,
        tensors=tensors,
        name_of=str,
        digest=told[0] if len(told) == 1 else hashlib.sha256("\n".join(told).encode()).hexdigest(),
        keras=True,
    )


# ------------------------------------------------------------------------------------ the file

Layer = list[Tensor]


def read_layers(path: Path) -> list[Layer]:
    """The weights of each layer that has any, both in the order of the file.

    Raises:
        ValueError: it is no such file, or damaged, or points at other files.
        FileNotFoundError: nothing is there.
    """
    import h5py

    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    try:
        with h5py.File(path, "r") as file:
            root = file
            if "layer_names" not in file.attrs and "layer_names0" not in file.attrs:
                root = _inside(file, "model_weights", path) if "model_weights" in file else file
            return [layer for layer in _layers(root, path) if layer]
    except (OSError, KeyError, RuntimeError, TypeError, UnicodeError) as error:
        reason = mistaken(path) or f"is no HDF5 file, or damaged ({error}); fetch it again"
        raise ValueError(f"{path} {reason}") from error


def _layers(root: Any, path: Path) -> Iterator[Layer]:
    names = _attribute(root, "layer_names")
    if names is None:
        raise ValueError(
            f"{path} has no layer_names: it is not in the layout of Keras 2 (Keras 3 writes that "
            "with model.save_weights only where the name ends in .h5 and not in .weights.h5)"
        )
    for name in names:
        group = _inside(root, name, path)
        yield [
            _tensor(_inside(group, weight, path), path)
            for weight in _attribute(group, "weight_names") or ()
        ]


def _attribute(group: Any, name: str) -> list[str] | None:
    """A list of names; Keras splits one that is too long for HDF5's header into several."""
    if name in group.attrs:
        values = list(group.attrs[name])
    elif f"{name}0" in group.attrs:
        values, i = [], 0
        while f"{name}{i}" in group.attrs:
            values += list(group.attrs[f"{name}{i}"])
            i += 1
    else:
        return None
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _inside(group: Any, name: str, path: Path) -> Any:
    """What a group holds under a path of names, if it lies in this file.

    HDF5 can point at other files, by links and by datasets whose numbers are elsewhere.
    """
    import h5py

    for step in name.strip("/").split("/"):
        if not isinstance(group, h5py.Group) or step not in group:
            raise ValueError(f"{path} is damaged: it names {name}, which is not there")
        if not isinstance(group.get(step, getlink=True), h5py.HardLink):
            raise ValueError(f"{path} is refused: {name} is a link, perhaps to another file")
        group = group[step]
    return group


def _tensor(dataset: Any, path: Path) -> Tensor:
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{path} is damaged: {dataset.name} is no array")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{path} is refused: the numbers of {dataset.name} are in another file")
    kind = f"{dataset.dtype.kind}{8 * dataset.dtype.itemsize}".upper()
    return Tensor(tuple(dataset.shape), kind, unchanged(path, _reader(path, dataset.name)))


def _reader(path: Path, name: str) -> Callable[[], np.ndarray]:
    path = path.absolute()  # the working directory may be another when it is read

    def read() -> np.ndarray:
        import h5py

        try:
            with h5py.File(path, "r") as file:
                return file[name][()]
        except (OSError, KeyError) as error:
            raise ValueError(f"{path} cannot be read: {name}: {error}") from error

    return read


# ----------------------------------------------------------------------------------- the order


def _named(part: str, layers: list[Layer], arch: Architecture, path: Path) -> dict[str, Tensor]:
    """The tensors of a file by our names."""
    if part == "unet":
        # The two layers for the timestep stand beside the others, somewhere among the first.
        layers = sorted(layers, key=lambda layer: [len(t.shape) for t in layer] != [2, 1])
    expected = list(_ORDER[part](arch))
    if len(layers) != len(expected):
        raise ValueError(
            f"{path} has {len(layers)} layers with weights where the {part} has {len(expected)}"
        )
    found = {}
    for i, (layer, names) in enumerate(zip(layers, expected, strict=True)):
        if names[-1].endswith("shortcut/bias") and len(layer) == len(names) - 2:
            names = names[:-2]  # where the width does not change there is none
        if len(layer) != len(names):
            raise ValueError(
                f"{path}: its layer {i} has {len(layer)} weights, and {names[0]} and those that "
                f"belong to it are {len(names)}"
            )
        found |= {f"{part}/{name}": tensor for name, tensor in zip(names, layer, strict=True)}
    return found


def _text_order(arch: Architecture) -> Iterator[list[str]]:
    yield ["embedding/token/embeddings", "embedding/position/embeddings"]
    for i in range(arch.text_layers):
        p = f"layer.{i}"
        yield [
            *_norm(f"{p}/layer_norm1"),
            *_each(_linear, f"{p}/attention", "q_proj", "k_proj", "v_proj", "out_proj"),
            *_norm(f"{p}/layer_norm2"),
            *_each(_linear, p, "fc1", "fc2"),
        ]
    yield _norm("norm")


def _unet_order(arch: Architecture) -> Iterator[list[str]]:
    levels = range(len(arch.widths))
    yield _linear("time.0")
    yield _linear("time.1")
    yield _linear("conv_in")
    for i in levels:
        for j in range(arch.blocks):
            yield _res_block(f"down.{i}/res.{j}")
            if i < levels[-1]:
                yield _transformer(f"down.{i}/attn.{j}")
        if i < levels[-1]:
            yield _linear(f"down.{i}/resample")
    yield _res_block("mid/res.0")
    yield _transformer("mid/attn.0")
    yield _res_block("mid/res.1")
    for i in levels:
        for j in range(arch.blocks + 1):
            yield _res_block(f"up.{i}/res.{j}")
            if i:
                yield _transformer(f"up.{i}/attn.{j}")
        if i < levels[-1]:
            yield _linear(f"up.{i}/resample")
    yield _norm("norm_out")
    yield _linear("conv_out")


def _encoder_order(arch: Architecture) -> Iterator[list[str]]:
    yield _linear("conv_in.0")
    yield from _levels(arch, arch.ae_blocks)
    yield from _autoencoder_mid()
    yield _norm("norm_out")
    yield _linear("conv_out.0")
    yield _linear("conv_out.1")


def _decoder_order(arch: Architecture) -> Iterator[list[str]]:
    yield _linear("conv_in.0")
    yield _linear("conv_in.1")
    yield from _autoencoder_mid()
    yield from _levels(arch, arch.ae_blocks + 1)
    yield _norm("norm_out")
    yield _linear("conv_out.0")


_ORDER = {
    "text": _text_order,
    "unet": _unet_order,
    "encoder": _encoder_order,
    "decoder": _decoder_order,
}


def _levels(arch: Architecture, blocks: int) -> Iterator[list[str]]:
    last = len(arch.ae_widths) - 1
    for i in range(last + 1):
        for j in range(blocks):
            yield _resnet_block(f"level.{i}/res.{j}")
        if i < last:
            yield _linear(f"level.{i}/resample")


def _autoencoder_mid() -> Iterator[list[str]]:
    yield _resnet_block("mid/res.0")
    yield [*_norm("mid/attn.0/norm"), *_each(_linear, "mid/attn.0", "q", "k", "v", "proj_out")]
    yield _resnet_block("mid/res.1")


def _res_block(p: str) -> list[str]:
    return [
        *_norm(f"{p}/norm1"),
        *_each(_linear, p, "conv1", "time"),
        *_norm(f"{p}/norm2"),
        *_each(_linear, p, "conv2", "shortcut"),
    ]


def _resnet_block(p: str) -> list[str]:
    return [name for name in _res_block(p) if not name.startswith(f"{p}/time/")]


def _transformer(p: str) -> list[str]:
    def attention(kind: str) -> list[str]:
        kernels = [f"{p}/{kind}/{name}/kernel" for name in ("to_q", "to_k", "to_v")]
        return [*kernels, *_linear(f"{p}/{kind}/out_proj")]

    return [
        *_norm(f"{p}/norm"),
        *_linear(f"{p}/proj_in"),
        *_norm(f"{p}/norm1"),
        *attention("self"),
        *_norm(f"{p}/norm2"),
        *attention("cross"),
        *_norm(f"{p}/norm3"),
        *_each(_linear, p, "ff/in", "ff/out", "proj_out"),
    ]


def _linear(p: str) -> list[str]:
    """A dense layer or a convolution."""
    return [f"{p}/kernel", f"{p}/bias"]


def _norm(p: str) -> list[str]:
    return [f"{p}/gamma", f"{p}/beta"]


def _each(kind: Callable[[str], list[str]], p: str, *names: str) -> list[str]:
    return [variable for name in names for variable in kind(f"{p}/{name}")]
