"""Stable Diffusion's own sizes, with random weights: shapes, names, counts."""

import gc
import subprocess
import sys

import numpy as np
import pytest

import xray

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["sd-v1-4", "sd-v2-1-base"])
def full(request):
    model = xray.load(request.param, weights=None, jit=False)
    yield model
    del model
    gc.collect()


PARAMETERS = {
    # As published with the models; 2.x keeps 23 of the 24 layers of OpenCLIP.
    "sd-v1-4": {"text": 123_060_480, "unet": 859_520_964},
    "sd-v2-1-base": {"text": 340_387_840, "unet": 865_910_724},
}


def test_parameters_are_as_published(full):
    from xray.networks import variables

    counts = {
        name: sum(int(np.prod(v.shape)) for v in variables(name, net).values())
        for name, net in full.networks.items()
    }
    expected = {"encoder": 34_163_664, "decoder": 49_490_199}
    assert counts == {**PARAMETERS[full.name], **expected}


OUTLINE = """
from xray.checkpoints import outline
from xray.sitelist import sites_of
from xray import memory

outline("mini")
before = memory.peak()
model = outline("sd-v1-4")
spec = sites_of(model)["unet/up.3/attn.2/cross/weights"]
print(*spec.shape, (memory.peak() - before) / (4 * model.parameters))
"""


def test_sites_are_listed_without_the_weights_in_memory():
    told = subprocess.run([sys.executable, "-c", OUTLINE], capture_output=True, text=True)
    *shape, share = told.stdout.split()
    assert shape == ["2", "1", "8", "64", "64", "77"]
    assert float(share) < 0.15, f"{share} of the weights' bytes were taken"


def test_cross_attention_is_where_it_is_known_to_be(full):
    """Sixteen maps, at 64² to 8² positions of a 512² picture, over 77 tokens."""
    heads = {64: (8, 5), 32: (8, 10), 16: (8, 20), 8: (8, 20)}
    program = full.unet.program(
        [
            np.broadcast_to(np.float32(0), (1, 64, 64, 4)),
            np.broadcast_to(np.float32(0), (1, 320)),
            np.broadcast_to(np.float32(0), (2, 77, full.architecture.text_width)),
        ],
        branches=("uncond", "cond"),
        loop=True,
    )
    maps = {s: shape for s, shape in program.sites.items() if s.endswith("cross/weights")}
    assert len(maps) == 16
    for head, y, x, token in maps.values():
        assert y == x and token == 77 and head == heads[y][full.name != "sd-v1-4"]


def test_a_generation_at_full_width(full):
    embedding = np.random.default_rng(0).standard_normal(
        (77, full.architecture.text_width), np.float32
    )
    trace = full.generate(
        embedding,
        negative=np.zeros_like(embedding),
        steps=1,
        width=128,
        height=64,
        record=["sampler/*", "unet/mid/attn.0/cross/weights"],
    )
    assert trace.image.size == (128, 64)
    weights = trace["unet/mid/attn.0/cross/weights"]
    assert weights.shape[1:] == (2, 1, weights.shape[3], 1, 2, 77)
    np.testing.assert_allclose(weights.values.astype(np.float64).sum(-1), 1, atol=2e-3)
