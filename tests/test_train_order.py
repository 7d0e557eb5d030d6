"""Stages of the miniature's training belong together; what does not is refused, not used."""

import functools
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from keras import Variable
from safetensors import safe_open
from safetensors.numpy import load_file

from xray.architecture import build_decoder, build_encoder
from xray.checkpoints.files import save_tensors
from xray.miniature import train
from xray.miniature.corpus import pictured
from xray.miniature.sizes import MINI
from xray.miniature.training import CHECKPOINT, fit
from xray.networks import variables
from xray.tokenizer import Tokenizer


def stage(out, name, *options):
    train.main(["--quick", "--out", str(out), "--stage", name, *options])


@functools.cache
def random_weights():
    net = variables("encoder", build_encoder(MINI)) | variables("decoder", build_decoder(MINI))
    return {f"average/{name}": np.asarray(v) for name, v in net.items()}


def autoencoder(out, samples, seconds=10**9):
    """A checkpoint that says how much it was trained."""
    told = {"progress": json.dumps({"steps": 1, "seconds": seconds, "samples": samples})}
    (out / "autoencoder").mkdir(exist_ok=True)
    save_tensors(random_weights(), out / "autoencoder" / CHECKPOINT, told)


@pytest.fixture(scope="module")
def once_encoded(tmp_path_factory):
    out = tmp_path_factory.mktemp("encoded")
    stage(out, "tokenizer")
    autoencoder(out, 4800)
    stage(out, "latents", "--scenes", "8")
    return out


@pytest.fixture
def encoded(once_encoded, tmp_path):
    """A folder with a tokenizer, an autoencoder and its latents."""
    return shutil.copytree(once_encoded, tmp_path / "encoded")


# ---------------------------------------------------------------------------------------- latents


def test_latents_of_another_autoencoder_are_not_used(encoded):
    autoencoder(encoded, 144_000)
    for name in ("latents", "diffusion", "export"):
        with pytest.raises(ValueError, match=r"of 4,800 samples.*144,000. Delete .*latents"):
            stage(encoded, name)
    (encoded / "latents.safetensors").unlink()
    stage(encoded, "latents", "--scenes", "8")
    assert train._encoded(encoded).autoencoder == 144_000


def test_latents_that_do_not_tell_their_autoencoder_are_taken(encoded):
    path = encoded / "latents.safetensors"
    save_tensors(load_file(path), path, {"scaling_factor": "0.5", "seed": "3"})
    autoencoder(encoded, 144_000)
    stage(encoded, "latents", "--scenes", "16")
    assert train._encoded(encoded) == (0.5, 3, None)
    assert len(load_file(path)["latents"]) == 16


def test_an_autoencoder_is_not_trained_on_behind_its_latents(encoded, monkeypatch):
    monkeypatch.setattr(train, "fit", lambda *args, **kwargs: None)
    stage(encoded, "autoencoder")  # it has had its time
    autoencoder(encoded, 4800, seconds=6)
    with pytest.raises(ValueError, match=r"after 0\.1 of 0\.25 minutes.*delete"):
        stage(encoded, "autoencoder")
    (encoded / "latents.safetensors").unlink()
    stage(encoded, "autoencoder")


def test_encoding_that_is_stopped_goes_on_where_it_was(encoded, monkeypatch):
    path, saved = encoded / "latents.safetensors", []

    def stopped(*args):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(save_tensors(*args))

    monkeypatch.setattr(train, "PART", 5)
    monkeypatch.setattr(train, "save_tensors", stopped)
    before = train._encoded(encoded)
    with pytest.raises(KeyboardInterrupt):
        stage(encoded, "latents", "--scenes", "24")
    assert len(load_file(path)["latents"]) == 8 + 2 * 5
    monkeypatch.undo()
    stage(encoded, "latents", "--scenes", "24")
    assert train._encoded(encoded) == before

    tokenizer = Tokenizer.load(encoded / "tokenizer.json")
    shown = [s for _, s in zip(range(24), pictured())]
    found = load_file(path)
    np.testing.assert_array_equal(found["ids"], [tokenizer.ids(s.caption) for s in shown])
    encode = train._encoder(encoded, tokenizer)
    wanted = encode(shown)["latents"] * before.scaling_factor
    np.testing.assert_allclose(found["latents"], wanted, atol=1e-2)


# -------------------------------------------------------------------------------- the tokenizer


def test_a_quick_runs_tokenizer_is_not_a_full_runs(tmp_path):
    stage(tmp_path, "tokenizer")
    stage(tmp_path, "tokenizer")
    for name in ("all", "tokenizer", "text"):
        with pytest.raises(ValueError, match=r"tokenizer.json is of 300 captions.*100,000"):
            train.main(["--out", str(tmp_path), "--stage", name])


def test_a_tokenizer_that_does_not_tell_its_captions_is_taken(tmp_path):
    stage(tmp_path, "tokenizer")
    (tmp_path / "tokenizer_captions.txt").unlink()
    train.main(["--out", str(tmp_path), "--stage", "tokenizer"])


# ----------------------------------------------------------------------------- stages out of order


def test_what_an_earlier_stage_makes_is_asked_for(encoded):
    def asks_for(wanted, *names):
        for name in names:
            with pytest.raises(FileNotFoundError, match=f"no .*; run --stage {wanted} first"):
                stage(encoded, name)

    asks_for("diffusion", "export")
    (encoded / "latents.safetensors").unlink()
    asks_for("latents", "diffusion", "export")
    (encoded / "autoencoder" / CHECKPOINT).unlink()
    asks_for("autoencoder", "latents")
    (encoded / "tokenizer.json").unlink()
    asks_for("tokenizer", "latents", "text", "diffusion", "export")


def test_a_text_stage_without_a_checkpoint_is_as_if_there_were_none(encoded, monkeypatch):
    (encoded / "text").mkdir()
    (encoded / "text" / "loss.csv").touch()
    begun = []
    monkeypatch.setattr(train, "fit", lambda folder, *args, **kwargs: begun.append(folder.name))
    stage(encoded, "diffusion")
    assert begun == ["diffusion"]


@pytest.mark.parametrize("checkpointed", [True, False])
def test_a_loss_curve_of_lost_steps_alone_is_no_obstacle(tmp_path, checkpointed):
    def run():
        weight = Variable(np.eye(16, dtype=np.float32), name="kernel")
        ones = np.ones((4, 16), np.float32)
        asked = {"minutes": 1e-9, "checkpoint_minutes": 1, "learning_rate": 1e-2}
        fit(
            tmp_path,
            {"kernel": weight},
            lambda x: tf.reduce_mean((x @ weight.value) ** 2),
            lambda start: iter([(ones,)] * 9),
            **asked,
        )

    if checkpointed:
        run()
    curve = tmp_path / "loss.csv"
    curve.write_text("1600,20.0,0.5\n")  # as a run leaves it that is killed before it could save
    run()
    assert not curve.exists()
    with safe_open(tmp_path / CHECKPOINT, "np") as file:
        assert json.loads(file.metadata()["progress"])["samples"] == 4


# ------------------------------------------------------------------------------------ the numbers


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--stage", "text", "--minutes", "0"), "--minutes: 0: it must be above 0"),
        (("--stage", "text", "--minutes", "-3"), "--minutes: -3: it must be above 0"),
        (("--stage", "text", "--minutes", "inf"), "--minutes: inf: it must be above 0, and finite"),
        (("--stage", "text", "--minutes", "nan"), "--minutes: nan: it must be above 0"),
        (("--learning-rate", "inf"), "--learning-rate: inf: it must be above 0, and finite"),
        (("--scenes", "0"), "--scenes: 0: it must be a whole number of at least 1"),
        (("--seed", "-1"), "--seed: -1: a seed is a whole number from 0 to 2³²−1"),
        (("--seed", str(2**32)), "a seed is a whole number"),
        (("--scenes", "1.5"), "--scenes: 1.5: it must be a whole number of at least 1"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path, options, told, capsys):
    with pytest.raises(SystemExit):
        train.main(["--out", str(tmp_path / "out"), *options])
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
