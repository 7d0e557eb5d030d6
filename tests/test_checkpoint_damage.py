"""Files from strangers: what is damaged says so, and changes, runs and reads nothing else."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import pickle
import shutil
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import xray
from xray.checkpoints import building, export_diffusers
from xray.checkpoints.files import open_tensors
from xray.networks import variables

FILE = "unet/diffusion_pytorch_model.safetensors"
NAME = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q.weight"


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "tiny"
    export_diffusers(model, folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


@pytest.fixture
def unchanged(model, tmp_path, monkeypatch):
    """Loading goes into the session's model; afterwards it and all files must be as before."""
    monkeypatch.setattr(building, "build", lambda *args: model.networks)
    monkeypatch.chdir(tmp_path)

    def weights():
        return [
            v.numpy() for name, net in model.networks.items() for v in variables(name, net).values()
        ]

    def files():
        return {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}

    before = weights()

    class Check:
        def __enter__(self):
            self.files = files()

        def __exit__(self, *error):
            assert files() == self.files
            for a, b in zip(before, weights(), strict=True):
                np.testing.assert_array_equal(a, b)

    return Check()


def retensored(**changes):
    """Other tensors in a file that is well formed; None takes one away."""

    def damage(path):
        held = load_file(path) | changes
        save_file({name: value for name, value in held.items() if value is not None}, path)

    return damage


def rewritten(change):
    """Other bytes."""
    return lambda path: path.write_bytes(change(path.read_bytes()))


class Payload:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch executed",)


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def header_of(length, rest=b"{}"):
    return lambda content: struct.pack("<Q", length) + rest


HTML = b"<!DOCTYPE html>\n<html><body><h1>404 Not Found</h1></body></html>\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 3438167534\n"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rewritten(lambda c: c[:-1000]), "is damaged or cut short .*fetch it again"),
        (rewritten(lambda c: c[:500]), "is damaged or cut short"),
        (rewritten(lambda c: c[:5]), "is no safetensors file"),
        (rewritten(lambda c: b""), "is empty: the download or copy did not begin"),
        (rewritten(lambda c: flipped(c, c.index(b'"F32"') + 1)), "is damaged or cut short"),
        (rewritten(lambda c: flipped(c, c.index(b"mid_block"))), "1 tensors are missing.*surplus"),
        (retensored(**{NAME: np.zeros((16, 16), np.int32)}), f"no floating-point.*: {NAME} I32"),
        (retensored(**{NAME: None}), f"1 tensors are missing: {NAME}"),
        (retensored(extra=np.zeros(3, np.float32)), "1 tensors are surplus: extra"),
        (
            retensored(**{NAME: np.zeros((16, 32), np.float32)}),
            rf"1 tensors are of wrong shape: {NAME} \(16, 32\) for \(16, 16\)",
        ),
        (rewritten(header_of(1 << 62)), "is damaged: of its 10 bytes, 4,611,.* are to be header"),
        (rewritten(header_of(99_000_000)), "is damaged or cut short"),
        (rewritten(header_of(60, b"[" * 60)), "is no safetensors file"),
        (rewritten(lambda c: pickle.dumps(Payload())), "is a pickle named as something else"),
        (rewritten(lambda c: pickle.dumps(Payload(), 2)), "is a pickle named as something else"),
        (rewritten(lambda c: b"PK\x03\x04" + c), "is a pickle named as something else"),
        (rewritten(lambda c: HTML), "is a web page: fetch the file itself"),
        (rewritten(lambda c: POINTER), "is a pointer of Git LFS.*run git lfs pull"),
    ],
)
def test_damaged_weights_change_and_run_nothing(folder, unchanged, damage, message):
    damage(folder / FILE)
    with unchanged, pytest.raises(ValueError, match=message) as caught:
        xray.load(folder)
    assert str(folder / "unet") in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "C:\\x", 3]
)
def test_an_index_opens_nothing_outside_its_folder(folder, unchanged, name):
    shutil.copy(folder / FILE, folder / "secret.safetensors")
    names = load_file(folder / FILE)
    (folder / FILE).unlink()
    index = {"weight_map": dict.fromkeys(names, name)}
    (folder / f"{FILE}.index.json").write_text(json.dumps(index))
    with unchanged, pytest.raises(ValueError, match="nothing outside it is opened"):
        xray.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: {}, "has no weight_map"),
        (lambda index: {"weight_map": [1]}, "has no weight_map"),
        (lambda index: {"weight_map": dict.fromkeys(index["weight_map"], "x.py")}, "no weights fi"),
        (lambda index: {"weight_map": index["weight_map"] | {"x": "gone.bin"}}, "gone.bin, which"),
        (lambda index: {"weight_map": dict(list(index["weight_map"].items())[1:])}, "do not agree"),
    ],
)
def test_shards_and_their_index_must_agree(model, tmp_path, unchanged, change, message):
    export_diffusers(model, tmp_path / "model", shard_bytes=100_000)
    path = tmp_path / "model" / f"{FILE}.index.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with unchanged, pytest.raises(ValueError, match=message):
        xray.load(tmp_path / "model")


@pytest.mark.parametrize("file", ["unet/config.json", "model_index.json", "tokenizer/vocab.json"])
@pytest.mark.parametrize("content", [b"", HTML, b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_damaged_configurations_are_named(folder, unchanged, file, content):
    if file == "model_index.json":
        shutil.rmtree(folder / "vae")  # it is read to say what the folder was to be
    (folder / file).write_bytes(content)
    with unchanged, pytest.raises(ValueError, match=f"{file} is damaged"):
        xray.load(folder)


@pytest.mark.parametrize("file", ["unet/config.json", "tokenizer/vocab.json", FILE + ".index.json"])
def test_a_configuration_of_gigabytes_is_not_read(folder, unchanged, file):
    if file.endswith(".index.json"):
        (folder / FILE).unlink()
    with (folder / file).open("wb") as bomb:
        bomb.truncate(1 << 40)  # takes no room on the disk, and would take all memory
    with unchanged, pytest.raises(ValueError, match=f"{file} is refused: 1,099,511,627,776 bytes"):
        xray.load(folder)


def test_all_that_is_wrong_is_one_error(folder, unchanged):
    retensored(**{NAME: None, "one": np.zeros(1), "two": np.zeros(1)})(folder / FILE)
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({n: v for n, v in load_file(vae).items() if not n.startswith("decoder.up")}, vae)
    with unchanged, pytest.raises(ValueError) as caught:
        xray.load(folder)
    told = str(caught.value)
    assert f"1 tensors are missing: {NAME}; 2 tensors are surplus: one, two" in told
    assert f"{folder / 'vae'}: " in told and "…" in told and len(told) < 1000


@given(data=st.data())
def test_no_flipped_bit_of_a_header_goes_unnoticed(whole, tmp_path_factory, data):
    """Except in what says nothing of the tensors."""
    content = (whole / FILE).read_bytes()
    size = 8 + int.from_bytes(content[:8], "little")
    at = data.draw(st.integers(0, size - 1))
    bit = data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])

    def told(path):
        return {name: (t.shape, t.dtype) for name, t in open_tensors(path).items()}

    about = content[content.index(b"__metadata__") - 1 :].index(b"}") + content.index(b"__meta")
    try:
        assert told(path) != told(whole / FILE) or at <= about or content[at : at + 1].isspace()
    except ValueError as error:
        assert "flipped.safetensors" in str(error)


# --- pickles ---------------------------------------------------------------------------------


def test_without_torch_a_pickle_is_refused_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "model.ckpt").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match="torch is not installed: pip install torch, or have it"):
        xray.load(tmp_path / "model.ckpt")
    assert os.listdir(tmp_path) == ["model.ckpt"]


def test_a_torch_that_can_be_tricked_is_not_used(tmp_path, monkeypatch):
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(
        importlib.metadata, "version", lambda n: "2.5.1+cpu" if n == "torch" else version(n)
    )
    (tmp_path / "model.ckpt").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match=r"torch 2\.5\.1\+cpu can be made to run code"):
        xray.load(tmp_path / "model.ckpt")


def test_safetensors_may_have_any_name(whole, tmp_path):
    shutil.copy(whole / FILE, tmp_path / "model.ckpt")
    assert open_tensors(tmp_path / "model.ckpt").keys() == open_tensors(whole / FILE).keys()
