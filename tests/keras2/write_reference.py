"""Run by Keras 2.15 and keras-cv 0.6.4: KerasCV's models with random weights, what they compute.

    python write_reference.py OUT v1 text unet encoder decoder           # narrow
    python write_reference.py OUT v1 unet --full                         # Stable Diffusion's sizes

Writes OUT/PART.h5, as Keras 2 saves weights, and OUT/PART.npz with inputs and output. The widths
are written into KerasCV's classes; the narrow ones stand in their place while a model is built.
"""

import math
import sys
from pathlib import Path
from unittest import mock

import keras
import keras_cv  # noqa: F401
import numpy as np
from keras_cv.src.models.stable_diffusion import (
    decoder,
    diffusion_model,
    image_encoder,
    text_encoder,
)

UNET = {320: 32, 640: 64, 1280: 128}
INPUT = {320: 32, 768: 64, 1024: 64}
AUTOENCODER = {128: 32, 256: 32, 512: 64}
TEXT_WIDTH, TEXT_HEADS, VOCABULARY = 64, 4, 1000
LATENT = 8


class NarrowLayers:
    """`keras.layers`, with the widths that DiffusionModel gives to Dense and Input made smaller."""

    def __getattr__(self, name):
        return getattr(keras.layers, name)

    def Dense(self, units, **settings):
        return keras.layers.Dense(UNET.get(units, units), **settings)

    def Input(self, shape, **settings):
        return keras.layers.Input(tuple(INPUT.get(n, n) for n in shape), **settings)


class NarrowKeras:
    layers = NarrowLayers()

    def __getattr__(self, name):
        return getattr(keras, name)


def narrow(cls, widths):
    return lambda width, *args, **settings: cls(widths.get(width, width), *args, **settings)


def narrow_transformer(cls):
    def make(heads, size, fully_connected):
        width = UNET[heads * size]
        heads = heads // 5 if fully_connected else heads  # 5, 10, 20 heads in 2.x
        return cls(heads, width // heads, fully_connected=fully_connected)

    return make


def built(part, version, full):
    v2 = version == "v2"
    module, make = {
        "text": (text_encoder, lambda vocabulary: (
            text_encoder.TextEncoderV2 if v2 else text_encoder.TextEncoder
        )(77, vocabulary, download_weights=False)),
        "unet": (diffusion_model, lambda _: (
            diffusion_model.DiffusionModelV2 if v2 else diffusion_model.DiffusionModel
        )(8 * LATENT, 8 * LATENT, 77, download_weights=False)),
        "encoder": (image_encoder, lambda _: image_encoder.ImageEncoder(download_weights=False)),
        "decoder": (decoder, lambda _: decoder.Decoder(
            8 * LATENT, 8 * LATENT, download_weights=False
        )),
    }[part]  # fmt: skip
    if full:
        return make(49408)
    m = module
    if part == "text":
        layer, embedding = m.CLIPEncoderLayer, m.CLIPEmbedding
        changes = {
            "CLIPEncoderLayer": lambda w, h, **k: layer(TEXT_WIDTH, TEXT_HEADS, **k),
            "CLIPEmbedding": lambda n, w, length: embedding(n, TEXT_WIDTH, length),
        }
    elif part == "unet":
        changes = {
            "keras": NarrowKeras(),
            "SpatialTransformer": narrow_transformer(m.SpatialTransformer),
            **{n: narrow(getattr(m, n), UNET) for n in ("PaddedConv2D", "ResBlock", "Upsample")},
        }
    else:
        names = ("PaddedConv2D", "ResnetBlock", "AttentionBlock")
        changes = {n: narrow(getattr(m, n), AUTOENCODER) for n in names}
    with mock.patch.multiple(module, **changes):
        return make(VOCABULARY)


def normal(seed, shape):
    """Normal numbers; of many, a million again and again."""
    block = np.random.default_rng(seed).standard_normal(1 << 20).astype(np.float32)
    return np.resize(block, shape)


def inputs_of(part, model, full):
    if part == "text":
        tokens = np.random.default_rng(1).integers(0, 49408 if full else VOCABULARY, (2, 77))
        return {"tokens": tokens, "positions": np.tile(np.arange(77), (2, 1))}
    if part == "unet":
        shapes = {x.name.split(":")[0]: (2, *x.shape[1:]) for x in model.inputs}
        return {n: normal(2 + i, s) for i, (n, s) in enumerate(sorted(shapes.items()))}
    if part == "encoder":
        return {"pixels": np.tanh(normal(5, (1, 8 * LATENT, 8 * LATENT, 3)))}
    return {"latent": normal(6, (1, LATENT, LATENT, 4))}


def main(out, version, *parts, full=False):
    for part in parts:
        model = built(part, version, full)
        for i, weight in enumerate(model.weights):
            shape = tuple(weight.shape)
            name = weight.name.split("/")[-1]
            if len(shape) == 1:
                weight.assign((1.0 if name.startswith("gamma") else 0.0) + 0.1 * normal(i, shape))
            else:
                # The tables of the text encoder keep their width; kernels keep their input's size.
                size = 1.0 if name.startswith("embeddings") else math.prod(shape[:-1]) ** -0.5
                weight.assign(np.float32(size) * normal(i, shape))
        inputs = inputs_of(part, model, full)
        given = list(inputs.values())
        names = [x.name.split(":")[0] for x in model.inputs] if part in ("text", "unet") else []
        output = model([inputs[n] for n in names] if names else given[0])
        model.save_weights(str(Path(out, f"{part}.h5")))
        np.savez(Path(out, f"{part}.npz"), output=output.numpy(), **inputs)
        print(part, len(model.weights), output.shape, float(np.std(output)))


if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if a != "--full"]
    main(*arguments, full="--full" in sys.argv)
