"""The untapped loop is KerasCV's own: its StableDiffusion beside ours, on the same weights."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xray import forward
from xray.architecture import Architecture, build_unet, initial_weights
from xray.checkpoints import from_keras_cv
from xray.networks import read_unet, set_numerics, variables
from xray.taps import Tap

pytestmark = pytest.mark.slow

STEPS = 5
GUIDANCE = 7.5


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def fan_in(shape):
    """Weights that keep their input's size; drawing a billion at once would take long."""
    block = np.random.default_rng(math.prod(shape) % 65521).standard_normal(1 << 20, np.float32)
    return np.resize(block, shape) * np.float32(math.prod(shape[:-1])) ** -0.5


class Spy:
    """Stands where KerasCV keeps a network, and remembers what it was given and gave."""

    def __init__(self, network):
        self.network, self.calls = network, []

    def __getattr__(self, name):
        return getattr(self.network, name)

    def predict_on_batch(self, inputs):
        output = self.network.predict_on_batch(inputs)
        latent = inputs["latent"] if isinstance(inputs, dict) else inputs
        self.calls.append((np.array(latent), np.array(output)))
        return output


@pytest.fixture(scope="module")
def stock():
    """KerasCV's StableDiffusion with random weights in place of the downloads."""
    import keras_cv
    from keras_cv.src.models.stable_diffusion.decoder import Decoder
    from keras_cv.src.models.stable_diffusion.diffusion_model import DiffusionModel
    from keras_cv.src.models.stable_diffusion.image_encoder import ImageEncoder
    from keras_cv.src.models.stable_diffusion.text_encoder import TextEncoder

    stock = keras_cv.models.StableDiffusion(128, 128, jit_compile=False)
    with initial_weights(fan_in):
        stock._text_encoder = TextEncoder(77, download_weights=False)
        stock._diffusion_model = DiffusionModel(128, 128, 77, download_weights=False)
        stock._decoder = Decoder(128, 128, download_weights=False)
        stock._image_encoder = ImageEncoder(download_weights=False)
    parts = [stock.text_encoder, stock.diffusion_model, stock.decoder, stock.image_encoder]
    for i, variable in enumerate(v for part in parts for v in part.weights):
        if len(variable.shape) == 1:  # zeros and ones, which would hide a forgotten one
            variable.assign(variable + 0.1 * normal(i, *variable.shape))
    return stock


@pytest.fixture(scope="module")
def ours(stock, tokenizer):
    return from_keras_cv(stock, tokenizer=tokenizer, exact=True)


@pytest.fixture(scope="module")
def contexts(stock):
    """Embeddings of a prompt of random tokens, and of KerasCV's empty one."""
    tokens = np.random.default_rng(0).integers(0, 49406, (1, 77)).astype(np.int32)
    inputs = {"tokens": tokens, "positions": np.arange(77, dtype=np.int32)[None]}
    embedded = np.asarray(stock.text_encoder.predict_on_batch(inputs))
    return tokens, embedded, np.asarray(stock._get_unconditional_context())


def error(a, b):
    """max|a − b| / std(b), the project's measure."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    return np.abs(a - b).max() / b.std()


def test_generate_image_is_ours(stock, ours, contexts):
    _, prompt, empty = contexts
    noise = normal(7, 16, 16, 4)
    unet, decoder = Spy(stock._diffusion_model), Spy(stock._decoder)
    stock._diffusion_model, stock._decoder = unet, decoder
    try:
        images = stock.generate_image(
            prompt,
            num_steps=STEPS,
            unconditional_guidance_scale=GUIDANCE,
            diffusion_noise=noise,
        )
    finally:
        stock._diffusion_model, stock._decoder = unet.network, decoder.network

    assert len(unet.calls) == 2 * STEPS  # unconditional first
    ((last, pixels),) = decoder.calls

    trace = ours.generate(
        prompt,
        negative=empty,
        steps=STEPS,
        guidance=GUIDANCE,
        latent=noise,
        record=["sampler/*"],
    )
    assert trace.attrs["spacing"] == "linspace" and trace.attrs["numerics"] == "keras_cv"
    assert trace.timesteps == [999, 749, 500, 250, 0]
    latents, noises = {"last": error(trace["sampler/out"], last)}, {}
    for k in range(STEPS):
        (latent, uncond), (_, cond) = unet.calls[2 * k : 2 * k + 2]
        latents[k] = error(trace.sel("sampler/latent", step=k), latent)
        noises[k, "uncond"] = error(trace.sel("sampler/noise_uncond", step=k), uncond)
        noises[k, "cond"] = error(trace.sel("sampler/noise_cond", step=k), cond)
    print(f"largest error: latents {max(latents.values()):.1e}, noises {max(noises.values()):.1e}")
    assert max(latents.values()) < 1e-4, latents
    assert max(noises.values()) < 2e-4, noises
    assert error(ours.decoder(last), pixels) < 1e-4
    # KerasCV cuts the decimals off, we round them.
    distance = images.astype(int) - trace["image"].values.astype(int)
    assert set(np.unique(distance)) <= {-1, 0}
    assert images.std() > 10  # a picture, not a clipped plane


def test_the_text_encoder_is_ours(ours, contexts):
    tokens, embedded, _ = contexts
    assert error(ours.text(tokens), embedded) < 1e-4


def test_the_image_encoder_is_ours(stock, ours):
    pixels = np.tanh(normal(3, 1, 64, 128, 3))
    assert error(ours.encoder(pixels), stock.image_encoder.predict_on_batch(pixels)) < 1e-4


# --- the same topology at a tenth of the width, so that building it is quick ------------------

NARROW = {320: 32, 640: 64, 1280: 128}
VERSIONS = {
    "DiffusionModel": (768, {"heads": (8, 8, 8, 8)}),
    "DiffusionModelV2": (
        1024,
        {"text_heads": 16, "heads": (1, 2, 4, 4), "linear_projections": True},
    ),
}


@pytest.fixture(params=VERSIONS)
def narrow(request):
    """KerasCV's own U-Net classes, with the widths written into them made smaller."""
    from keras_cv.src.models.stable_diffusion import diffusion_model as module

    conv, res, transformer = module.PaddedConv2D, module.ResBlock, module.SpatialTransformer

    def transformer_at(heads, size, fully_connected):
        # 8 heads of 40, 80, 160 channels in 1.x; 5, 10, 20 heads of 64 in 2.x.
        heads, width = (heads // 5 if fully_connected else heads), NARROW[heads * size]
        return transformer(heads, width // heads, fully_connected=fully_connected)

    with pytest.MonkeyPatch.context() as patch, initial_weights(fan_in):
        patch.setattr(module, "PaddedConv2D", lambda w, *a, **k: conv(NARROW.get(w, w), *a, **k))
        patch.setattr(module, "ResBlock", lambda width: res(NARROW[width]))
        patch.setattr(module, "SpatialTransformer", transformer_at)
        built = getattr(module, request.param)(128, 64, 77, download_weights=False)
    text_width, sizes = VERSIONS[request.param]
    sizes = {"widths": (32, 64, 128, 128), "text_width": text_width, **sizes}
    return built, Architecture(**sizes)


def test_a_functional_unet_is_read_as_it_runs(narrow):
    built, arch = narrow
    net = read_unet(built)
    set_numerics("keras_cv", net)
    latent, context = normal(0, 2, 16, 8, 4), normal(1, 2, 77, arch.text_width)
    embedding = np.stack([forward.timestep_embedding(t, 320) for t in (999, 5)])
    expected = built([latent, embedding, context])
    assert error(forward.unet(net, latent, embedding, context, Tap()), expected) < 1e-4

    # What the builder makes of these sizes has the same variables, under the same names. The
    # timestep's own widths are written into KerasCV's class another way.
    with initial_weights(np.zeros):
        ours = shapes(build_unet(arch))
    theirs = shapes(net)
    assert ours.keys() == theirs.keys()
    assert not [k for k in ours if ours[k] != theirs[k] and "/time" not in k]
    assert len(theirs) == len(built.weights)


def shapes(net):
    return {name: tuple(v.shape) for name, v in variables("unet", net).items()}
