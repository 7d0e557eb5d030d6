"""Training the miniature, in two minutes: that it resumes, and that what it exports opens."""

import itertools
import json
import shutil

import numpy as np
import pytest

import xray
from xray.miniature import train
from xray.miniature.corpus import pictured
from xray.miniature.training import averages

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("training")
    train.main(["--quick", "--out", str(out)])
    return out


def progress(out, stage):
    return json.loads((out / stage / "progress.json").read_text())


def test_the_export_opens_and_draws(out):
    model = xray.load(out / "mini")
    assert model.generate("a red star", steps=2, record=[]).image.size == (128, 128)
    assert model.parameters < 10_000_000


def test_latents_have_unit_variance_under_the_exported_scaling_factor(out):
    model = xray.load(out / "mini")
    pictures = [
        np.asarray(train.image(s)) for s in itertools.islice(pictured(), train.QUICK.scenes)
    ]
    assert model.encode(np.stack(pictures)).values.std() == pytest.approx(1.0, abs=0.02)


def test_a_second_call_goes_on_where_the_first_stopped(out):
    before = progress(out, "diffusion")
    train.main(["--quick", "--out", str(out), "--stage", "diffusion", "--minutes", "0.5"])
    after = progress(out, "diffusion")
    assert after["steps"] > before["steps"] and after["seconds"] > before["seconds"]
    # The budget is of the whole, not of the second call; one step may go over.
    assert after["seconds"] == pytest.approx(30, abs=5)


def test_a_start_from_an_exported_model_keeps_its_words_and_begins_at_its_weights(out, tmp_path):
    begin = ["--quick", "--out", str(tmp_path), "--start", str(out / "mini")]
    train.main([*begin, "--stage", "tokenizer"])
    assert (tmp_path / "tokenizer.json").read_bytes() == (out / "tokenizer.json").read_bytes()
    train.main([*begin, "--stage", "autoencoder", "--minutes", "1e-9"])  # one step
    assert progress(tmp_path, "autoencoder")["steps"] == 1
    before = averages(out / "autoencoder")
    for name, value in averages(tmp_path / "autoencoder").items():
        np.testing.assert_allclose(value, before[name], atol=2e-3, rtol=2e-3)


def test_the_text_encoder_learns_what_captions_say_before_it_meets_the_unet(out, tmp_path):
    losses = np.loadtxt(out / "text" / "loss.csv", delimiter=",", ndmin=2)[:, 2]
    assert losses[-1] < 0.8 * losses[0]

    for name in ("tokenizer.json", "latents.safetensors"):
        shutil.copy(out / name, tmp_path / name)
    shutil.copytree(out / "text", tmp_path / "text")
    begin = ["--quick", "--out", str(tmp_path), "--stage", "diffusion"]
    train.main([*begin, "--minutes", "1e-9"])  # one step
    taught, begun = averages(out / "text"), averages(tmp_path / "diffusion")
    for name in begun.keys() & taught.keys():
        np.testing.assert_allclose(begun[name], taught[name], atol=2e-3, rtol=2e-3)
    assert any(name.startswith("text/") for name in begun.keys() & taught.keys())


def test_a_start_must_be_a_saved_model(tmp_path, capsys):
    with pytest.raises(SystemExit):
        train.main(["--out", str(tmp_path), "--start", str(tmp_path)])
    assert "no weights.safetensors in it" in capsys.readouterr().err


def test_minutes_belong_to_a_stage(out, capsys):
    with pytest.raises(SystemExit):
        train.main(["--out", str(out), "--minutes", "3"])
    assert "--minutes goes with --stage" in capsys.readouterr().err
