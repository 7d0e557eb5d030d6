"""The judge: a small network that says what is in a picture and where.

    judge = load_judge()
    seen = judge(pictures)                       # one `Seen` for each
    seen[0].things[0]                            # Thing('star', 'red', 'large', 'plain', (40, 61))

Train it: ``python -m xray.miniature.judge --out runs/judge --minutes 60``. It is taught rendered
scenes, of every split, and what is left of scenes after the autoencoder; it never sees a picture
that the miniature made from a caption.

The picture is divided into 16×16 cells of 8 pixels. For each cell and each size ("small",
"medium", "large") the network says whether a thing of that size has its middle near there, which
thing, colour and fill, and where exactly. Sizes are kept apart because a small thing inside a
large one has the same middle.

Reference:
    Zhou et al. 2019, "Objects as Points".
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xray.miniature import numbers
from xray.miniature.drawing import BACKGROUNDS, COLOURS, THINGS
from xray.miniature.scenes import FILLS, SIDE, SIZES, Scene, image, scene
from xray.miniature.scoring import Seen, Thing, score, shares, statement, truth
from xray.resources import shipped

CELLS = 16
CELL = SIDE // CELLS  # pixels
BATCH = 32
_SPREAD = 6.0  # pixels: the farthest middle of a cell is 5.7 from a thing's, where 0.64 is left
_NEAR = 0.3  # cells that expect at least this much are taught what the thing is
_PRESENT = 0.4  # cells that say at least this much hold a thing
_NAMES = {
    "thing": tuple(THINGS),
    "colour": tuple(COLOURS),
    "fill": FILLS,
    "size": tuple(SIZES),
    "background": tuple(BACKGROUNDS),
}
_CHANNELS = {"present": 1, "thing": len(THINGS), "colour": len(COLOURS), "fill": 4, "offset": 2}


class Judge:
    """The judge network, opened. Usually made by `load_judge`.

    Args:
        network: from `build_network`, with its weights.
    """

    def __init__(self, network: Any):
        import tensorflow as tf

        self.network = network
        pixels = tf.TensorSpec((None, SIDE, SIDE, 3), tf.float32)
        self._run = tf.function(network, input_signature=[pixels], autograph=False)

    def __call__(self, pictures: np.ndarray) -> list[Seen]:
        """What is in pictures.

        Args:
            pictures: uint8 (n, 128, 128, 3).

        Raises:
            ValueError: another shape or dtype.
        """
        if pictures.dtype != np.uint8 or pictures.shape[1:] != (SIDE, SIDE, 3):
            raise ValueError(
                f"the judge looks at uint8 (n, {SIDE}, {SIDE}, 3), got {pictures.dtype} "
                f"{pictures.shape}"
            )
        seen: list[Seen] = []
        for start in range(0, len(pictures), BATCH):
            cells, backgrounds = self._run(_pixels(pictures[start : start + BATCH]))
            cells, backgrounds = cells.numpy(), backgrounds.numpy()
            seen += [read(c, b) for c, b in zip(cells, backgrounds, strict=True)]
        return seen


def shipped_judge() -> Path:
    """The file of the judge that is shipped."""
    return shipped("weights") / "mini" / "judge.safetensors"


def load_judge(path: str | Path | None = None) -> Judge:
    """Open a judge.

    Args:
        path: of its safetensors file; by default `shipped_judge`.

    Raises:
        ValueError: there is no such file, or it does not hold this network.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = shipped_judge() if path is None else Path(path)
    if not path.is_file():
        raise ValueError(f"there is no judge at {path}; train one: python -m xray.miniature.judge")
    try:
        values = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read: {error}; copy it again") from error
    network = build_network()
    wanted = variables(network)
    wrong = sorted(
        name
        for name in wanted.keys() | values.keys()
        if name not in wanted
        or name not in values
        or values[name].shape != tuple(wanted[name].shape)
    )
    if wrong:
        raise ValueError(
            f"{path} does not hold this judge: {len(wrong)} tensors are missing, surplus or of "
            f"other shapes, such as {wrong[0]}"
        )
    for name, variable in wanted.items():
        variable.assign(values[name].astype(np.float32))
    return Judge(network)


# ------------------------------------------------------------------------------------ the network


def build_network(seed: int = 0) -> Any:
    """The network: pixels (n, 128, 128, 3) in [-1, 1] → cells and background.

    Three strided convolutions to the cells; a fourth to places twice as large, where two residual
    blocks see around; back, and a residual block at the cells. 955,452 parameters.

    Args:
        seed: of the initial weights.

    Returns:
        A Keras model with two outputs: (n, 16, 16, size, channel), channels as in `_CHANNELS`,
        and (n, background); logits, offsets in cells.
    """
    import keras
    from keras import layers

    seeds = iter(range(seed * 1000, seed * 1000 + 1000))

    def conv(x: Any, width: int, name: str, *, stride: int = 1, size: int = 3) -> Any:
        kernel = keras.initializers.HeNormal(next(seeds))
        return layers.Conv2D(
            width, size, stride, padding="same", kernel_initializer=kernel, name=name
        )(x)

    def norm(x: Any, name: str) -> Any:
        return layers.ReLU()(layers.GroupNormalization(8, name=name)(x))

    def block(x: Any, name: str) -> Any:
        y = norm(conv(x, x.shape[-1], f"{name}.conv1"), f"{name}.norm1")
        y = conv(y, x.shape[-1], f"{name}.conv2")
        return layers.ReLU()(
            layers.Add()([x, layers.GroupNormalization(8, name=f"{name}.norm2")(y)])
        )

    pixels = keras.Input((SIDE, SIDE, 3))
    x = layers.ReLU()(conv(pixels, 24, "half", stride=2, size=5))
    x = norm(conv(x, 48, "quarter", stride=2), "quarter.norm")
    x = cells = norm(conv(x, 96, "eighth", stride=2), "eighth.norm")
    x = norm(conv(x, 128, "sixteenth", stride=2), "sixteenth.norm")
    for k in range(2):
        x = block(x, f"block.{k}")
    pooled = layers.GlobalAveragePooling2D()(x)
    x = layers.UpSampling2D(2)(x)
    x = norm(conv(layers.Concatenate()([cells, x]), 96, "join", size=1), "join.norm")
    x = block(x, "block.2")
    x = conv(x, len(SIZES) * sum(_CHANNELS.values()), "cells", size=1)
    x = layers.Reshape((CELLS, CELLS, len(SIZES), -1))(x)
    background = layers.Dense(len(BACKGROUNDS), name="background")(pooled)
    network = keras.Model(pixels, [x, background], name="judge")
    # Almost all cells are empty; not knowing so from the start would drown all else at first.
    bias = np.zeros((len(SIZES), sum(_CHANNELS.values())), np.float32)
    bias[:, 0] = -4.0
    network.get_layer("cells").bias.assign(bias.ravel())
    return network


def variables(network: Any) -> dict[str, Any]:
    """The network's variables by name, as they stand in the file."""
    return {v.path: v for v in network.trainable_variables}


def _pixels(pictures: np.ndarray) -> np.ndarray:
    return pictures.astype(np.float32) / 127.5 - 1.0


# ------------------------------------------------------------------- what its outputs should say


class Targets(NamedTuple):
    """What the network should say of a picture, cell by cell.

    Attributes:
        present: float32 (16, 16, size): 1 where a thing's middle is, falling off around it.
        thing, colour, fill: int32 (16, 16, size).
        offset: float32 (16, 16, size, 2): from a cell's middle to the thing's, (x, y) in cells.
        background: int32 ().
    """

    present: np.ndarray
    thing: np.ndarray
    colour: np.ndarray
    fill: np.ndarray
    offset: np.ndarray
    background: np.ndarray


def targets(seen: Seen) -> Targets:
    """What the network should say of a picture in which this is to be seen."""
    grid = (CELLS, CELLS, len(SIZES))
    present, offset = np.zeros(grid, np.float32), np.zeros((*grid, 2), np.float32)
    kinds = {role: np.zeros(grid, np.int32) for role in ("thing", "colour", "fill")}
    middles = (np.arange(CELLS) + 0.5) * CELL
    for thing in seen.things:
        dx, dy = thing.centre[0] - middles[None, :], thing.centre[1] - middles[:, None]
        near = np.exp(-(dx**2 + dy**2) / (2 * _SPREAD**2))
        slot = _NAMES["size"].index(thing.size)
        closest = near > present[..., slot]
        present[closest, slot] = near[closest]
        offset[closest, slot] = np.stack(np.broadcast_arrays(dx, dy), -1)[closest] / CELL
        for role, values in kinds.items():
            values[closest, slot] = _NAMES[role].index(getattr(thing, role))
    background = np.array(_NAMES["background"].index(seen.background), np.int32)
    return Targets(present, **kinds, offset=offset, background=background)


def read(cells: np.ndarray, background: np.ndarray) -> Seen:
    """What the network's outputs for one picture say.

    A thing is where a cell is surer than its eight neighbours and sure enough. Where neighbouring
    sizes both see one thing in one place, the surer one counts.

    Args:
        cells: (16, 16, size, channel).
        background: (background,).
    """
    parts = _split(cells)
    sure = 1.0 / (1.0 + np.exp(-parts["present"][..., 0]))
    padded = np.pad(sure, ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
    peaks = np.argwhere((sure >= _PRESENT) & (sure >= windows.max((-2, -1))))
    found: list[tuple[Thing, int]] = []
    for y, x, slot in sorted(peaks.tolist(), key=lambda at: -sure[tuple(at)]):
        dx, dy = parts["offset"][y, x, slot]
        centre = (float((x + 0.5 + dx) * CELL), float((y + 0.5 + dy) * CELL))
        names = {r: _NAMES[r][parts[r][y, x, slot].argmax()] for r in ("thing", "colour", "fill")}
        thing = Thing(size=_NAMES["size"][slot], centre=centre, **names)
        if not any(_same(thing, slot, *other) for other in found):
            found.append((thing, slot))
    return Seen(tuple(t for t, _ in found), _NAMES["background"][int(background.argmax())])


def _same(a: Thing, slot: int, b: Thing, other: int) -> bool:
    # Two small things never are this close; a small one in a large one's middle is another thing.
    apart = max(abs(p - q) for p, q in zip(a.centre, b.centre, strict=True))
    return apart < 1.5 * CELL and abs(slot - other) <= 1


def _split(cells: Any) -> dict[str, Any]:
    """The channels by what they say."""
    ends = np.cumsum(list(_CHANNELS.values()))
    return {
        name: cells[..., end - width : end]
        for (name, width), end in zip(_CHANNELS.items(), ends, strict=True)
    }


# -------------------------------------------------------------------------------------- training


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m xray.miniature.judge", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and curve")
    parser.add_argument(
        "--minutes", type=numbers.above_zero, default=60.0, help="of training, in all"
    )
    parser.add_argument("--model", default="mini", help="whose autoencoder makes the round trips")
    parser.add_argument(
        "--round-trips", type=numbers.from_zero, default=4000, help="0 needs no model"
    )
    parser.add_argument(
        "--tests", type=numbers.counted, default=1000, help="pictures of each kind at last"
    )
    parser.add_argument("--seed", type=numbers.seed, default=0)
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)

    scenes = _scenes(args.seed, 5, range(args.round_trips))
    decoded = _round_trips(args.out / "round_trips.safetensors", args.model, scenes, args.seed)
    train_judge(args.out, scenes, decoded, args.minutes, args.seed)

    judge = load_judge(args.out / "judge.safetensors")
    tests = _scenes(args.seed, 6, range(args.tests))
    for name, share in accuracy(judge, _rendered(tests), tests).items():
        print(f"rendered: {name} {share:.2%}")
    if args.round_trips:
        path = args.out / "test_round_trips.safetensors"
        pictures = _round_trips(path, args.model, tests, args.seed)
        for name, share in accuracy(judge, pictures, tests).items():
            print(f"round trips: {name} {share:.2%}")


def accuracy(judge: Any, pictures: np.ndarray, scenes: Sequence[Scene]) -> dict[str, float]:
    """How often a judge is right about pictures of which the truth is known.

    Args:
        judge: pictures → a `Seen` for each.
        pictures: uint8 (n, 128, 128, 3).
        scenes: what they show.

    Returns:
        "captions": the share of which it says, rightly, that all the caption states is there and
        nothing else. "scenes": the share of which it sees every attribute of everything rightly,
        stated or not.
    """
    seen = judge(pictures)
    captions = shares(score(statement(s), what) for s, what in zip(scenes, seen, strict=True))
    whole = [_plain(truth(s)) == _plain(what) for s, what in zip(scenes, seen, strict=True)]
    return {"captions": captions["all right"][0], "scenes": float(np.mean(whole))}


def _plain(seen: Seen) -> tuple:
    return sorted(t[:4] for t in seen.things), seen.background


def train_judge(
    out: Path, scenes: Sequence[Scene], decoded: np.ndarray, minutes: float, seed: int = 0
) -> None:
    """Train a judge into ``out/judge.safetensors``, resumed from its checkpoint.

    Args:
        out: an existing folder.
        scenes, decoded: a store of round trips, uint8 (n, 128, 128, 3), and what they show. A
            quarter of each batch comes from it, the rest is rendered anew.
        minutes: of training in all, over all resumptions.
        seed: of initial weights and pictures.
    """
    from xray.checkpoints.files import save_tensors
    from xray.miniature.training import averages, fit

    network = build_network(seed)

    def batches(start: int) -> Iterator[tuple[np.ndarray, ...]]:
        old = BATCH // 4 if len(decoded) else 0
        new, step = BATCH - old, start
        while True:
            random = np.random.default_rng([seed, 5, step])
            fresh = _scenes(seed, 5, range(10**8 + step * new, 10**8 + (step + 1) * new))
            chosen = random.integers(0, len(decoded), old) if old else np.array([], int)
            pictures = np.concatenate([_rendered(fresh), decoded[chosen]])
            teach = [targets(truth(s)) for s in (*fresh, *(scenes[k] for k in chosen))]
            yield _disturbed(pictures, random), *(np.stack(part) for part in zip(*teach))
            step += 1

    def loss(pixels: Any, *wanted: Any) -> Any:
        return _loss(network(pixels), Targets(*wanted))

    fit(
        out,
        variables(network),
        loss,
        batches,
        minutes=minutes,
        checkpoint_minutes=2.0,
        learning_rate=2e-3,
    )
    weights = {k: v.astype(np.float16) for k, v in averages(out).items()}
    save_tensors(weights, out / "judge.safetensors")


def _loss(outputs: Any, wanted: Targets) -> Any:
    import tensorflow as tf

    cells, background = outputs
    said = _split(cells)
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
    near = tf.cast(wanted.present > _NEAR, tf.float32)
    things = tf.reduce_sum(near)
    present = tf.nn.sigmoid_cross_entropy_with_logits(wanted.present, said["present"][..., 0])
    # Of that, what no answer could avoid, because cells beside a thing expect a part of one.
    certain = tf.math.xlogy(wanted.present, wanted.present)
    certain += tf.math.xlogy(1.0 - wanted.present, 1.0 - wanted.present)
    total = 3.0 * tf.reduce_sum(present + certain)
    for role in ("thing", "colour", "fill"):
        total += tf.reduce_sum(near * cross_entropy(getattr(wanted, role), said[role]))
    total += tf.reduce_sum(near[..., None] * tf.abs(wanted.offset - said["offset"]))
    return total / things + tf.reduce_mean(cross_entropy(wanted.background, background))


def _disturbed(pictures: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Pictures with a little noise and of slightly other colours, in [-1, 1]."""
    n = len(pictures)
    noise = random.standard_normal(pictures.shape, np.float32)
    noise *= random.uniform(0.0, 0.05, (n, 1, 1, 1)).astype(np.float32)
    gain = random.uniform(0.95, 1.05, (n, 1, 1, 3)).astype(np.float32)
    shift = random.uniform(-0.05, 0.05, (n, 1, 1, 3)).astype(np.float32)
    return np.clip(_pixels(pictures) * gain + shift + noise, -1.0, 1.0)


def _scenes(seed: int, stream: int, indices: Sequence[int]) -> list[Scene]:
    from xray.miniature.corpus import stream_seed

    return [scene(stream_seed(seed, stream, i), split="any") for i in indices]


def _rendered(scenes: Sequence[Scene]) -> np.ndarray:
    return np.stack([image(s) for s in scenes])


def _round_trips(path: Path, model: str, scenes: Sequence[Scene], seed: int) -> np.ndarray:
    """Pictures of a seed's scenes through the autoencoder, uint8; kept at `path`, since it takes
    minutes.

    Raises:
        ValueError: what is kept there is of another seed or model, or of more or fewer scenes.
    """
    from safetensors import safe_open

    from xray.checkpoints import load
    from xray.checkpoints.files import save_tensors

    if not scenes:
        return np.zeros((0, SIDE, SIDE, 3), np.uint8)
    autoencoder = load(model)
    of = {"scenes": str(len(scenes)), "seed": str(seed), "weights": autoencoder.digest}
    if not path.exists():
        pictures = round_trip(autoencoder, _rendered(scenes))
        save_tensors({"pictures": pictures}, path, of)
        return pictures
    with safe_open(path, "np") as file:
        told = file.metadata() or {}
        for name, wanted in of.items():
            if (found := told.get(name, "untold")) != wanted:
                raise ValueError(
                    f"{path} holds round trips of {name} {found}, not {wanted}: delete it, or "
                    "choose another --out"
                )
        return file.get_tensor("pictures")


def round_trip(model: Any, pictures: np.ndarray) -> np.ndarray:
    """Pictures through a model's encoder and decoder, uint8 as they were."""
    from xray.pixels import to_uint8

    parts = []
    for start in range(0, len(pictures), BATCH):
        latents = model.encode(pictures[start : start + BATCH]).values
        parts.append(to_uint8(model.decoder(latents)))
    return np.concatenate(parts)


if __name__ == "__main__":
    main()
