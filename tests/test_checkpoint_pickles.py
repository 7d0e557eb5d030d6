"""Torch's own files, with torch: the same weights where they hold tensors, refused where not."""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile

import numpy as np
import pytest
from ldm_layout import ldm_state
from loading import all_variables, assert_same_weights, into, weights_of
from safetensors.numpy import load_file
from test_checkpoint_damage import Payload
from test_checkpoint_forms import LDM_1

import xray
from xray.checkpoints import building, export_diffusers

torch = pytest.importorskip("torch", reason="needs the extra parity: torch")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def networks():
    return building.build(LDM_1, lambda shape: np.zeros(shape, np.float32))


@pytest.fixture
def weights(networks):
    random = np.random.default_rng(0)
    for variable in all_variables(networks).values():
        variable.assign(random.standard_normal(variable.shape, np.float32))
    return {key: v.numpy() for key, v in all_variables(networks).items()}


@pytest.fixture
def state(weights, networks):
    return {name: torch.from_numpy(value.copy()) for name, value in ldm_state(networks).items()}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_a_checkpoint_of_tensors_is_read(state, weights, networks, tmp_path, zipped, nested):
    content = {"state_dict": state, "global_step": 470000, "epoch": 3} if nested else state
    path = tmp_path / "model.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with into(networks):
        loaded = xray.load(path)
    assert_same_weights(weights_of(loaded), weights)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(state, networks, tmp_path, dtype):
    halves = {
        n: v.to(getattr(torch, dtype)) if v.is_floating_point() else v for n, v in state.items()
    }
    torch.save(halves, tmp_path / "model.ckpt")
    with into(networks):
        loaded = xray.load(tmp_path / "model.ckpt")
    name, key = "first_stage_model.quant_conv.bias", "encoder/conv_out.1/bias"
    np.testing.assert_array_equal(weights_of(loaded)[key], halves[name].float().numpy())


@pytest.mark.parametrize("zipped", [True, False])
def test_what_would_run_is_refused_and_does_not(state, networks, tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    content = {"state_dict": state, "callbacks": Payload()}
    torch.save(content, "model.ckpt", _use_new_zipfile_serialization=zipped)
    with into(networks), pytest.raises(ValueError, match="is not opened, because a pickle can run"):
        xray.load("model.ckpt")
    assert os.listdir(tmp_path) == ["model.ckpt"]
    assert not any(v.numpy().any() for v in all_variables(networks).values())


def test_what_is_no_tensor_is_named(state, networks, tmp_path):
    torch.save({**state, "lr": 0.1}, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="besides named tensors it holds lr. Have it converted"):
        xray.load(tmp_path / "model.ckpt")
    torch.save([1, 2], tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="holds a list and not tensors by name"):
        xray.load(tmp_path / "model.ckpt")


def test_names_in_a_zip_lead_nowhere(state, weights, networks, tmp_path):
    """Torch's format is a zip archive, of which nothing is unpacked to the disk."""
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    torch.save(state, folder / "model.ckpt")
    with zipfile.ZipFile(folder / "model.ckpt", "a") as archive:
        for name in ("../escaped", "../../escaped", str(tmp_path / "absolute")):
            archive.writestr(name, b"executed")
    with into(networks), contextlib.suppress(ValueError):
        assert_same_weights(weights_of(xray.load(folder / "model.ckpt")), weights)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["model.ckpt"]


def test_a_truncated_checkpoint_is_damaged(state, tmp_path):
    torch.save(state, tmp_path / "model.ckpt")
    content = (tmp_path / "model.ckpt").read_bytes()
    (tmp_path / "model.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="model.ckpt is damaged, or holds more than tensors"):
        xray.load(tmp_path / "model.ckpt")


def test_a_diffusers_folder_of_pickles(model, spare, tmp_path):
    export_diffusers(model, tmp_path / "tiny")
    for path in (tmp_path / "tiny").glob("*/*.safetensors"):
        stem = "pytorch_model" if path.stem == "model" else path.stem
        tensors = {name: torch.from_numpy(v) for name, v in load_file(path).items()}
        torch.save(tensors, path.with_name(f"{stem}.bin"))
        path.unlink()
    with into(spare):
        loaded = xray.load(tmp_path / "tiny")
    assert_same_weights(weights_of(loaded), weights_of(model))
    shutil.rmtree(tmp_path / "tiny")
