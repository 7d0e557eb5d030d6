"""Train the miniature, on a CPU: ``python -m xray.miniature.train --out runs/miniature``.

Stages, each resumed from its last checkpoint when the command is given again:

1. ``tokenizer``: byte-pair merges from a hundred thousand captions.
2. ``autoencoder``: 64×64 crops of rendered scenes; squared error and a small KL term.
3. ``latents``: scenes encoded once, so that the next stage never runs the autoencoder; saved every
   few minutes.
4. ``text``: the text encoder alone, from captions alone: a linear layer on the end token, thrown
   away afterwards, has to tell what the caption says (`xray.miniature.meaning`). Stable
   Diffusion's text encoder knew language before it met a U-Net, too.
5. ``diffusion``: text encoder and U-Net together, v-prediction (Salimans & Ho 2022) under a
   weighting close to the min-SNR of Hang et al. 2023, one caption in ten left empty for
   classifier-free guidance, weights kept as an exponential moving average. The end token goes on
   being asked what the caption says, or synonyms drift apart.
6. ``export``: the averaged weights as a folder that `xray.load` opens.

The masks that scenes come with are never seen here: nothing about attention is taught.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from safetensors import safe_open
from safetensors.numpy import load_file

from xray import forward
from xray.architecture import (
    build_decoder,
    build_encoder,
    build_text_encoder,
    build_unet,
)
from xray.checkpoints.files import save_tensors
from xray.miniature import numbers
from xray.miniature.corpus import chances, described, pictured, stream_seed
from xray.miniature.meaning import ANSWERS, meaning
from xray.miniature.scenes import Scene, image, scene
from xray.miniature.sizes import MERGES, MINI, TEXT_LENGTH
from xray.miniature.training import CHECKPOINT, Report, assign, averages, fit, progress
from xray.networks import set_numerics, variables
from xray.samplers import NoiseSchedule
from xray.taps import Tap
from xray.tokenizer import Tokenizer, train_merges

STAGES = ("tokenizer", "autoencoder", "latents", "text", "diffusion", "export")
# Shares of a batch, and the timesteps up to which they reach: most where it is decided what stands
# where, and which things there are. Spread evenly, 400,000 samples did not teach left from right.
TIMESTEPS = (0, 0.12, 0.47, 0.82, 1), (0, 200, 600, 800, 1000)
# Of the end token's questions in the loss of diffusion.
ASKED_SHARE = 0.05
TIMED = ("autoencoder", "text", "diffusion")
PART = 20_000  # scenes that are encoded between two savings: three minutes or so
_LATENTS = "latents.safetensors"
_CAPTIONS = "tokenizer_captions.txt"  # how many the tokenizer is of


@dataclass(frozen=True)
class Budget:
    """How much of everything one run may use."""

    captions: int = 100_000
    autoencoder_minutes: float = 120.0
    autoencoder_batch: int = 16
    scenes: int = 100_000
    text_minutes: float = 8.0
    text_batch: int = 128
    diffusion_minutes: float = 600.0
    diffusion_batch: int = 32
    checkpoint_minutes: float = 4.0
    learning_rate: float = 2e-3
    start: Path | None = None


QUICK = Budget(
    captions=300,
    autoencoder_minutes=0.25,
    autoencoder_batch=4,
    scenes=64,
    text_minutes=0.1,
    text_batch=8,
    diffusion_minutes=0.25,
    diffusion_batch=8,
    checkpoint_minutes=0.1,
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m xray.miniature.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and curves")
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument(
        "--minutes", type=numbers.above_zero, help="budget of the stage named by --stage"
    )
    parser.add_argument(
        "--scenes", type=numbers.counted, help="scenes to encode in the latents stage"
    )
    parser.add_argument("--start", type=Path, help="begin from this model, such as weights/mini")
    parser.add_argument(
        "--learning-rate",
        type=numbers.above_zero,
        help=f"the highest, {Budget.learning_rate:g} by default; half of it after a long --start",
    )
    parser.add_argument("--seed", type=numbers.seed, default=0)
    parser.add_argument("--quick", action="store_true", help="a smoke run of about two minutes")
    args = parser.parse_args(arguments)

    budget = QUICK if args.quick else Budget()
    if args.minutes is not None:
        if args.stage not in TIMED:
            parser.error(f"--minutes goes with --stage {', '.join(TIMED[:-1])} or {TIMED[-1]}")
        budget = replace(budget, **{f"{args.stage}_minutes": args.minutes})
    if args.scenes is not None:
        budget = replace(budget, scenes=args.scenes)
    if args.learning_rate is not None:
        budget = replace(budget, learning_rate=args.learning_rate)
    if args.start is not None:
        if not (args.start / "weights.safetensors").is_file():
            parser.error(f"--start {args.start}: no weights.safetensors in it")
        budget = replace(budget, start=args.start)
    args.out.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(RuntimeError):  # TensorFlow runs already, in a notebook or a test
        tf.config.threading.set_inter_op_parallelism_threads(2)
        tf.config.threading.set_intra_op_parallelism_threads(max(1, (os.cpu_count() or 2) // 2))
    stages = {
        "tokenizer": make_tokenizer,
        "autoencoder": train_autoencoder,
        "latents": encode_scenes,
        "text": train_text,
        "diffusion": train_diffusion,
        "export": export,
    }
    for name in STAGES if args.stage == "all" else (args.stage,):
        keras.utils.set_random_seed(args.seed)  # of the weights that a stage begins with
        stages[name](args.out, budget, args.seed)


# ---------------------------------------------------------------------------------------- stages


def make_tokenizer(out: Path, budget: Budget, seed: int) -> None:
    """Stage 1: the byte-pair vocabulary, from captions of every split (words, not pictures)."""
    path, count = out / "tokenizer.json", out / _CAPTIONS
    if path.exists():
        _tokenizer(out, budget)
        return
    if budget.start:  # its embeddings belong to its vocabulary
        count.unlink(missing_ok=True)
        shutil.copy(budget.start / "tokenizer.json", path)
        return
    count.write_text(f"{budget.captions}\n")
    captions = [scene(stream_seed(seed, 0, i), split="any").caption for i in range(budget.captions)]
    Tokenizer(train_merges(captions, MERGES), length=TEXT_LENGTH).save(path)
    print(f"tokenizer: {budget.captions} captions, {MERGES} merges")


def train_autoencoder(out: Path, budget: Budget, seed: int) -> None:
    """Stage 2: encoder and decoder on 64×64 crops."""
    folder = out / "autoencoder"
    if (out / _LATENTS).exists() and (folder / CHECKPOINT).exists():
        _refuse_more(folder, budget.autoencoder_minutes)
    encoder, decoder = build_encoder(MINI), build_decoder(MINI)
    set_numerics("reference", encoder, decoder)
    net = {**variables("encoder", encoder), **variables("decoder", decoder)}
    _begin(net, budget)

    def loss(pixels: Any, noise: Any) -> Any:
        forward.encoder(encoder, pixels, tap := _Keep("encoder/moments"))
        mean, log_variance = tf.split(tap.kept, 2, axis=-1)
        log_variance = tf.clip_by_value(log_variance, -20.0, 10.0)
        decoded = forward.decoder(decoder, mean + tf.exp(0.5 * log_variance) * noise, Tap())
        kl = 0.5 * tf.reduce_mean(mean**2 + tf.exp(log_variance) - 1.0 - log_variance)
        error = decoded - pixels
        return tf.reduce_mean(error**2) + 0.05 * tf.reduce_mean(tf.abs(error)) + 3e-5 * kl

    def batches(start: int) -> Iterator[tuple[np.ndarray, ...]]:
        n = budget.autoencoder_batch
        for step in itertools.count(start):
            random = np.random.default_rng([seed, 1, step])
            crops = []
            for i in range(n // 2):  # two crops of each picture
                picture = image(scene(stream_seed(seed, 1, step * n + i), split="train"))
                for y, x in random.integers(0, 65, (2, 2)):
                    crops.append(picture[y : y + 64, x : x + 64])
            pixels = np.stack(crops).astype(np.float32) / 127.5 - 1.0
            yield pixels, random.standard_normal((n, 8, 8, 4)).astype(np.float32)

    _fit(folder, net, loss, batches, budget)


def encode_scenes(out: Path, budget: Budget, seed: int) -> None:
    """Stage 3: latents (float16), token ids and `meaning` of the training scenes.

    Given again, with more scenes or after it was stopped, it adds those that are not there yet, of
    the seed that the first ones are of. The latents of the first `PART` have unit variance.
    """
    path = out / _LATENTS
    known, told = (load_file(path), _encoded(out)) if path.exists() else (None, None)
    begun = len(known["latents"]) if known else 0
    if begun >= budget.scenes:
        return
    encode = _encoder(out, _tokenizer(out, budget))
    report = Report("latents", None)
    stream = pictured(told.seed if told else seed, begun)
    for start in range(begun, budget.scenes, PART):
        part = itertools.islice(stream, min(PART, budget.scenes - start))
        batches, done = [], start
        while chosen := list(itertools.islice(part, 32)):
            batches.append(encode(chosen))
            done += len(chosen)
            report(done, 0.0, (done - begun) / (budget.scenes - begun))
        new = {k: np.concatenate([batch[k] for batch in batches]) for k in batches[0]}
        if told is None:
            samples = progress(out / "autoencoder")["samples"]
            told = _Encoded(1.0 / float(new["latents"].std()), seed, samples)
        new["latents"] = (new["latents"] * told.scaling_factor).astype(np.float16)
        known = {k: np.concatenate([known[k], v]) for k, v in new.items()} if known else new
        save_tensors(known, path, told.metadata())


def _encoder(out: Path, tokenizer: Tokenizer) -> Callable[[Sequence[Scene]], dict[str, np.ndarray]]:
    """Scenes → what diffusion is trained on, latents not scaled yet."""
    encoder = build_encoder(MINI)
    set_numerics("reference", encoder)
    assign(variables("encoder", encoder), _averages(out, "autoencoder"))
    run = tf.function(lambda x: forward.encoder(encoder, x, Tap()), autograph=False)

    def encode(scenes: Sequence[Scene]) -> dict[str, np.ndarray]:
        pixels = np.stack([image(s) for s in scenes]).astype(np.float32) / 127.5 - 1.0
        return {
            "latents": run(pixels).numpy(),
            "ids": np.array([tokenizer.ids(s.caption) for s in scenes], np.int16),
            "truth": np.array([meaning(s) for s in scenes], np.int16),
        }

    return encode


def train_text(out: Path, budget: Budget, seed: int) -> None:
    """Stage 4: the text encoder, to say at its end token what a caption says."""
    tokenizer = _tokenizer(out, budget)
    text = build_text_encoder(replace(MINI, vocab_size=len(tokenizer.vocabulary)))
    set_numerics("reference", text)
    asked = _Asked(end=tokenizer.ids("")[-1])
    net = {**variables("text", text), **asked.variables}
    _begin(variables("text", text), budget)

    def loss(tokens: Any, truth: Any) -> Any:
        return asked.loss(forward.text_encoder(text, tokens, Tap()), tokens, truth)

    def batches(start: int) -> Iterator[tuple[np.ndarray, ...]]:
        n = budget.text_batch
        for step in itertools.count(start):
            scenes = list(itertools.islice(described(seed, step * n), n))
            tokens = np.array([tokenizer.ids(s.caption) for s in scenes], np.int32)
            yield tokens, np.stack([meaning(s) for s in scenes])

    _fit(out / "text", net, loss, batches, budget)


def train_diffusion(out: Path, budget: Budget, seed: int) -> None:
    """Stage 5: text encoder and U-Net."""
    tokenizer, of = _tokenizer(out, budget), _encoded(out)
    arch = replace(MINI, vocab_size=len(tokenizer.vocabulary))
    text, unet = build_text_encoder(arch), build_unet(arch)
    set_numerics("reference", text, unet)
    asked = _Asked(end=tokenizer.ids("")[-1])
    drawing = {**variables("text", text), **variables("unet", unet)}
    net = {**drawing, **asked.variables}
    _begin(drawing, budget)
    if (out / "text" / CHECKPOINT).exists():  # not so if it was stopped before its first
        assign({**variables("text", text), **asked.variables}, _averages(out, "text"))
    data = load_file(out / _LATENTS)
    latents, ids, truth = data["latents"], data["ids"], data["truth"]
    alphas_cumprod = NoiseSchedule().alphas_cumprod.astype(np.float32)
    upto = np.cumsum(chances(len(latents), of.seed))[:-1]
    embeddings = np.stack([forward.timestep_embedding(t, arch.widths[0]) for t in range(1000)])
    empty = tokenizer.ids("")

    def loss(x0: Any, noise: Any, alpha: Any, time: Any, tokens: Any, truth: Any) -> Any:
        a, s = tf.sqrt(alpha)[:, None, None, None], tf.sqrt(1.0 - alpha)[:, None, None, None]
        context = forward.text_encoder(text, tokens, Tap())
        predicted = forward.unet(unet, a * x0 + s * noise, time, context, Tap())
        error = tf.reduce_mean((predicted - (a * noise - s * x0)) ** 2, (1, 2, 3))
        snr = alpha / (1.0 - alpha)
        # In terms of x0 the weight is min(SNR + 1, 5). Plain min-SNR would hardly count the
        # noisiest timesteps, where layout and colour are decided and the caption matters most.
        diffusion = tf.reduce_mean(error * tf.minimum(snr + 1.0, 5.0) / (snr + 1.0))
        return diffusion + ASKED_SHARE * asked.loss(context, tokens, truth)

    def batches(start: int) -> Iterator[tuple[np.ndarray, ...]]:
        n = budget.diffusion_batch
        for step in itertools.count(start):
            random = np.random.default_rng([seed, 3, step])
            chosen = np.searchsorted(upto, random.random(n))
            # Stratified timesteps: each batch covers the whole schedule.
            t = np.interp((np.arange(n) + random.random(n)) / n, *TIMESTEPS).astype(int)
            unsaid = random.random((n, 1)) < 0.1
            tokens = np.where(unsaid, empty, ids[chosen]).astype(np.int32)
            told = np.where(unsaid, 0, truth[chosen]).astype(np.int32)
            noise = random.standard_normal((n, 16, 16, 4)).astype(np.float32)
            x0 = latents[chosen].astype(np.float32)
            yield x0, noise, alphas_cumprod[t], embeddings[t], tokens, told

    _fit(out / "diffusion", net, loss, batches, budget)


def export(out: Path, budget: Budget, seed: int) -> None:
    """Stage 6: ``out/mini``, what is shipped in ``weights/mini``."""
    from xray.checkpoints import save
    from xray.generator import Generator
    from xray.tensor import fit_rgb_matrix

    tokenizer = _tokenizer(out, budget)
    scaling_factor = _encoded(out).scaling_factor
    arch = replace(MINI, vocab_size=len(tokenizer.vocabulary), scaling_factor=scaling_factor)
    networks = {
        "text": build_text_encoder(arch),
        "unet": build_unet(arch),
        "encoder": build_encoder(arch),
        "decoder": build_decoder(arch),
    }
    values = {**_averages(out, "autoencoder"), **_averages(out, "diffusion")}
    for name, net in networks.items():
        assign(variables(name, net), values)
    model = Generator("mini", arch, tokenizer, **networks, digest="")
    pictures = np.stack([image(scene(stream_seed(seed, 4, i))) for i in range(64)])
    model.rgb_matrix = fit_rgb_matrix(model.encode(pictures).values, pictures)
    save(model, out / "mini")
    print(f"export: {model.parameters:,} parameters in {out / 'mini'}")


def _fit(
    folder: Path, net: dict[str, Any], loss: Callable, batches: Callable, budget: Budget
) -> None:
    fit(
        folder,
        net,
        loss,
        batches,
        minutes=getattr(budget, f"{folder.name}_minutes"),
        checkpoint_minutes=budget.checkpoint_minutes,
        learning_rate=budget.learning_rate,
    )


class _Asked:
    """A linear layer on the end token that has to tell what the caption says."""

    def __init__(self, end: int):
        layer = keras.layers.Dense(sum(ANSWERS), name="answer")
        layer.build((None, MINI.text_width))
        self.end, self.layer = end, layer
        self.variables = {"answer/kernel": layer.kernel, "answer/bias": layer.bias}

    def loss(self, context: Any, tokens: Any, truth: Any) -> Any:
        """The cross-entropies of all questions, added: (); from (n, token, width), (n, token) and
        (n, question)."""
        first_end = tf.argmax(tf.cast(tokens == self.end, tf.int32), axis=1)
        pooled = tf.gather(context, first_end, batch_dims=1)
        answers = tf.split(self.layer(pooled), ANSWERS, axis=1)
        return tf.add_n(
            [
                tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(truth[:, q], given))
                for q, given in enumerate(answers)
            ]
        )


class _Keep(Tap):
    """A tap that hands out one site's tensor as it passes."""

    def __init__(self, site: str):
        super().__init__()
        self.site, self.kept = site, None

    def __call__(self, site: str, x: Any) -> Any:
        if site == self.site:
            self.kept = x
        return x


def _begin(net: dict[str, Any], budget: Budget) -> None:
    if budget.start:
        assign(net, load_file(budget.start / "weights.safetensors"))


# ------------------------------------------------------------------------ what earlier stages made


class _Encoded(NamedTuple):
    """What latents tell of themselves."""

    scaling_factor: float
    seed: int
    autoencoder: int | None
    """Samples that it had been trained on; None in files that do not tell."""

    def metadata(self) -> dict[str, str]:
        return {name: repr(v) for name, v in self._asdict().items() if v is not None}


def _encoded(out: Path) -> _Encoded:
    """What the latents of a run tell of themselves.

    Raises:
        FileNotFoundError: there are none.
        ValueError: they are of another autoencoder than the one that is there.
    """
    path, folder = _made(out / _LATENTS, "latents"), out / "autoencoder"
    with safe_open(path, "np") as file:
        told = file.metadata()
    samples = int(told["autoencoder"]) if "autoencoder" in told else None
    if samples is not None and (folder / CHECKPOINT).exists():
        now = progress(folder)["samples"]
        if now != samples:
            raise ValueError(
                f"{path} was made by an autoencoder of {samples:,} samples; that in {folder} has "
                f"{now:,}. Delete {path}, and {out / 'diffusion'} if it learned from it, and run "
                "--stage latents"
            )
    return _Encoded(float(told["scaling_factor"]), int(told["seed"]), samples)


def _refuse_more(folder: Path, minutes: float) -> None:
    """Refuse to train an autoencoder further that latents are of.

    Raises:
        ValueError: it has not been trained for all these minutes yet.
    """
    done, out = progress(folder)["seconds"] / 60.0, folder.parent
    if done < minutes:
        raise ValueError(
            f"{out / _LATENTS} was made by {folder} as it is after {done:g} of {minutes:g} "
            f"minutes. To train it further, delete {out / _LATENTS}, and {out / 'diffusion'} if "
            "it learned from it"
        )


def _tokenizer(out: Path, budget: Budget) -> Tokenizer:
    """The tokenizer of a run.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is that of a run with ``--quick``, and this one is not, or the other way
            round. All later stages build on it, so the folder cannot be shared.
    """
    path, count = _made(out / "tokenizer.json", "tokenizer"), out / _CAPTIONS
    captions = int(count.read_text()) if count.exists() else budget.captions
    if captions != budget.captions:
        raise ValueError(
            f"{path} is of {captions:,} captions, and this run's would be of "
            f"{budget.captions:,}: a run with --quick and one without need an --out each"
        )
    return Tokenizer.load(path)


def _averages(out: Path, stage: str) -> dict[str, np.ndarray]:
    return averages(_made(out / stage / CHECKPOINT, stage).parent)


def _made(path: Path, stage: str) -> Path:
    """The path of what a stage makes.

    Raises:
        FileNotFoundError: it is not there yet.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; run --stage {stage} first")
    return path


if __name__ == "__main__":
    main()
