"""Files that Keras 2.15 and keras-cv 0.6.4 write, and what they compute there, to 1e-5.

The pair needs an environment of its own, with Python 3.11, which is made here: some 2 GB. It is
kept in pytest's cache, or wherever XRAY_KERAS2_ENV says. XRAY_FULL_SIZE=1 compares Stable
Diffusion's own sizes too, which needs 5 GB of memory and of disk.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xray import architecture, forward
from xray.architecture import SD1, SD2
from xray.checkpoints import keras_h5
from xray.networks import set_numerics, variables
from xray.taps import Tap

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent / "keras2" / "write_reference.py"
PACKAGES = ["tensorflow-cpu==2.15.*", "keras-cv==0.6.4", "tensorflow-metadata<1.16"]

_narrow = {"vocab_size": 1000, "text_width": 64, "text_heads": 4, "widths": (32, 64, 128, 128)}
_narrow |= {"ae_widths": (32, 32, 64, 64)}
NARROW = {"v1": replace(SD1, **_narrow), "v2": replace(SD2, **_narrow, heads=(1, 2, 4, 4))}
FULL = {"v1": SD1, "v2": SD2}


@pytest.fixture(scope="module")
def keras2(request):
    """The Python of an environment with Keras 2.15."""
    place = Path(os.environ.get("XRAY_KERAS2_ENV") or request.config.cache.mkdir("keras2"))
    python = place / "bin" / "python"
    if not list(place.glob("lib/*/site-packages/keras_cv")):
        base = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11")
        if base is None:
            pytest.skip("TensorFlow 2.15 needs Python 3.11, and there is none")
        subprocess.run([base, "-m", "venv", "--clear", place], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


def written(keras2, out, *arguments):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("PYTHONPATH", None)
    command = [keras2, SCRIPT, out, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def error(a, b):
    """max|a − b| / std(b), the project's measure."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    return np.abs(a - b).max() / b.std()


def loaded(part, folder, arch):
    """Our network with the weights of the file."""
    files = {part: folder / f"{part}.h5"}
    tensors = keras_h5._named(part, keras_h5.read_layers(files[part]), arch, files[part])
    with architecture.initial_weights(lambda shape: np.zeros(shape, np.float32)):
        net = getattr(architecture, f"build_{BUILDERS[part]}")(arch)
    own = variables(part, net)
    assert own.keys() == tensors.keys()
    for key, variable in own.items():
        variable.assign(tensors[key].read())
    set_numerics("keras_cv", net)
    return net


BUILDERS = {"text": "text_encoder", "unet": "unet", "encoder": "encoder", "decoder": "decoder"}
RUN = {
    "text": lambda net, given: forward.text_encoder(net, given["tokens"].astype(np.int32), Tap()),
    "unet": lambda net, given: forward.unet(
        net, given["latent"], given["timestep_embedding"], given["context"], Tap()
    ),
    "encoder": lambda net, given: forward.encoder(net, given["pixels"], Tap()),
    "decoder": lambda net, given: forward.decoder(net, given["latent"], Tap()),
}


def compare(part, folder, arch):
    given = np.load(folder / f"{part}.npz")
    before, start = resident(), time.process_time()
    net = loaded(part, folder, arch)
    used = f"{time.process_time() - start:.1f} s of processor, {resident() - before:.1f} GB more"
    found = error(RUN[part](net, given), given["output"])
    print(f"{part}: {found:.1e}; loaded in {used} at most")
    assert found < 1e-5, part


def resident():
    """The most memory that this process has had, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_narrow_models_compute_the_same(keras2, tmp_path, version):
    parts = ["text", "unet", *(["encoder", "decoder"] if version == "v1" else [])]
    written(keras2, tmp_path, version, *parts)
    for part in parts:
        compare(part, tmp_path, NARROW[version])


@pytest.mark.skipif("XRAY_FULL_SIZE" not in os.environ, reason="XRAY_FULL_SIZE is not set")
@pytest.mark.parametrize("part", ["unet", "text", "encoder", "decoder"])
def test_full_size_computes_the_same(keras2, tmp_path, part):
    written(keras2, tmp_path, "v1", part, "--full")
    compare(part, tmp_path, FULL["v1"])
