"""Networks are read and named whole, and KerasCV is left as it was."""

from __future__ import annotations

import dataclasses
import inspect
import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from xray import forward
from xray.architecture import SD1, SD2, Architecture, initial_weights
from xray.networks import (
    Level,
    read_decoder,
    read_encoder,
    read_text_encoder,
    set_numerics,
    variables,
)
from xray.taps import Tap


def layers_of(net):
    """Every Keras layer that a network holds."""
    for field in dataclasses.fields(net):
        stack = [getattr(net, field.name)]
        while stack:
            item = stack.pop()
            if isinstance(item, (list, tuple)):
                stack.extend(item)
            elif isinstance(item, Level):
                stack.extend([item.res, item.attn, item.resample])
            elif hasattr(item, "weights"):
                yield item


@pytest.mark.parametrize("part", ["text", "unet", "encoder", "decoder"])
def test_every_variable_has_one_name(model, part):
    net = model.networks[part]
    named = variables(part, net)
    assert all(name.startswith(f"{part}/") for name in named)
    held = {id(v) for layer in layers_of(net) for v in layer.weights}
    assert sorted(id(v) for v in named.values()) == sorted(held)


def test_names_follow_the_sites(model):
    named = variables("unet", model.networks["unet"])
    assert named["unet/mid/attn.0/cross/to_k/kernel"].shape == (16, 16)
    assert named["unet/down.1/res.0/shortcut/kernel"].shape == (1, 1, 8, 16)
    assert "unet/up.1/res.0/time/bias" in named and "unet/up.3/attn.1/ff/in/kernel" in named
    assert "unet/down.0/resample/kernel" in named and "unet/up.3/resample/kernel" not in named


def test_numerics_set_every_norm_that_differs(model):
    nets = model.networks
    try:
        for numerics, epsilon in (("keras_cv", 1e-5), ("reference", 1e-6)):
            set_numerics(numerics, *nets.values())
            unet = nets["unet"]
            for level in (*unet.down, unet.mid, *unet.up):
                assert all(t.norm.epsilon == epsilon for t in level.attn)
                # These are 1e-5 in both.
                assert all(
                    b.entry_flow[0].epsilon == b.exit_flow[0].epsilon == 1e-5 for b in level.res
                )
                assert all(t.transformer_block.norm1.epsilon == 1e-5 for t in level.attn)
            for part in ("encoder", "decoder"):
                net = nets[part]
                assert net.norm_out.epsilon == net.mid.attn[0].norm.epsilon == epsilon
                for level in (*net.levels, net.mid):
                    assert all(b.norm1.epsilon == b.norm2.epsilon == epsilon for b in level.res)
            assert unet.norm_out.epsilon == 1e-5
    finally:
        set_numerics(model.numerics, *nets.values())
    with pytest.raises(ValueError, match="'exact' is not one of reference, keras_cv"):
        set_numerics("exact", *nets.values())


def test_an_architecture_survives_json(tiny):
    for arch in (tiny, SD1, SD2):
        assert Architecture.from_json(json.loads(json.dumps(arch.to_json()))) == arch


def in_kerascvs_order(part, net):
    """A network's layers as KerasCV's own model lists them."""
    from keras_cv.src.backend import keras

    if part == "text":
        return [net.embedding, *net.layers, net.norm]
    mid = [net.mid.res[0], net.mid.attn[0], net.mid.res[1]]
    if part == "encoder":
        levels = [
            [*level.res, *([level.resample] if level.resample else [])] for level in net.levels
        ]
        before, after = [net.conv_in[0]], mid
    else:
        up = keras.layers.UpSampling2D(2)
        levels = [[*lvl.res, *([up, lvl.resample] if lvl.resample else [])] for lvl in net.levels]
        before, after = [keras.layers.Rescaling(1 / net.scaling_factor), *net.conv_in, *mid], []
    return [
        *before,
        *(layer for level in levels for layer in level),
        *after,
        net.norm_out,
        *net.conv_out,
    ]


@pytest.mark.parametrize(
    ("part", "read"),
    [("text", read_text_encoder), ("encoder", read_encoder), ("decoder", read_decoder)],
)
def test_what_is_read_is_what_was_built(model, part, read):
    """The U-Net, whose layers KerasCV lists in another order, is read in test_stock_keras_cv."""
    net = model.networks[part]
    found = read(SimpleNamespace(layers=in_kerascvs_order(part, net)))
    expected = dataclasses.replace(net)
    if part == "text":
        assert found.quick_gelu
        found.exact_gelu = net.exact_gelu  # set afterwards, by set_numerics
    else:
        assert found.scaling_factor == pytest.approx(net.scaling_factor)
        found.scaling_factor = net.scaling_factor
    assert found == expected


# --- KerasCV's own text encoders, much narrower --------------------------------------------


# The first, as a whole model, also in test_stock_keras_cv.
@pytest.fixture(params=[pytest.param("TextEncoder", marks=pytest.mark.slow), "TextEncoderV2"])
def stock_text(request):
    """KerasCV's own class with all its layers, and the widths written into it made smaller."""
    from keras_cv.src.models.stable_diffusion import text_encoder as module

    embedding, layer = module.CLIPEmbedding, module.CLIPEncoderLayer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CLIPEmbedding", lambda n, w, length: embedding(n, w // 64, length))
        patch.setattr(
            module,
            "CLIPEncoderLayer",
            lambda width, heads, activation: layer(width // 64, heads // 4, activation=activation),
        )
        built = getattr(module, request.param)(12, vocab_size=50, download_weights=False)
    return built, request.param == "TextEncoderV2"


def test_kerascvs_text_encoders_are_read_as_they_run(stock_text):
    built, version_2 = stock_text
    random = np.random.default_rng(0)
    for variable in built.weights:
        variable.assign(variable + 0.1 * random.standard_normal(variable.shape, np.float32))
    net = read_text_encoder(built)
    set_numerics("keras_cv", net)
    assert (len(net.layers), net.quick_gelu) == ((23, False) if version_2 else (12, True))
    assert len(variables("text", net)) == len(built.weights)
    ids = random.integers(0, 50, (2, 12)).astype(np.int32)
    expected = built.predict_on_batch(
        {"tokens": ids, "positions": np.arange(12)[None].repeat(2, 0)}
    )
    found = forward.text_encoder(net, tf.constant(ids), Tap()).numpy()
    assert np.abs(found - expected).max() < 1e-4 * expected.std()


# --- KerasCV unharmed ------------------------------------------------------------------------


def initial_values():
    from keras_cv.src.backend import keras

    kernels = [keras.initializers.GlorotUniform(seed=1), keras.initializers.RandomUniform(seed=1)]
    layer = keras.layers.Dense(4, kernel_initializer=kernels[0])
    layer.build((None, 3))
    return [np.array(init((3, 4))) for init in kernels] + [layer.kernel.numpy()]


def test_initializers_draw_as_before_also_after_an_error():
    from keras_cv.src.backend import keras

    before = initial_values()
    classes = [keras.initializers.GlorotUniform, keras.initializers.RandomUniform]
    own = [dict(vars(cls)) for cls in classes]
    assert all(values.any() for values in before)
    with initial_weights(lambda shape: np.full(shape, 2.0, np.float32)):
        assert all((values == 2).all() for values in initial_values())
    for a, b in zip(before, initial_values(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [dict(vars(cls)) for cls in classes] == own
    with pytest.raises(RuntimeError), initial_weights(np.zeros):
        raise RuntimeError
    for a, b in zip(before, initial_values(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [dict(vars(cls)) for cls in classes] == own


def test_no_class_of_kerascv_is_patched(model):
    """Every method of its Stable Diffusion is still its own code, with all of ours imported."""
    from keras_cv.src.models.stable_diffusion import (
        attention_block,
        decoder,
        diffusion_model,
        image_encoder,
        padded_conv2d,
        resnet_block,
        stable_diffusion,
        text_encoder,
    )

    for module in (
        attention_block,
        decoder,
        diffusion_model,
        image_encoder,
        padded_conv2d,
        resnet_block,
        stable_diffusion,
        text_encoder,
    ):
        own = [
            c for c in vars(module).values() if inspect.isclass(c) and "keras_cv" in c.__module__
        ]
        assert own
        for cls in own:
            for method in filter(inspect.isfunction, vars(cls).values()):
                code = inspect.unwrap(method).__code__
                assert "/xray/" not in code.co_filename, f"{cls.__name__}.{method.__name__}"
