"""What is saved is what is loaded, to the bit; what is damaged says so before anything is built."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from loading import assert_same_weights, into, weights_of
from safetensors.numpy import load_file, save_file

import xray
from xray import checkpoints
from xray.checkpoints import building, files, native, registry, save
from xray.environment import EnvironmentProblem


@pytest.fixture
def copy(saved, tmp_path):
    """A saved model that a test may damage."""
    return shutil.copytree(saved, tmp_path / "copy")


def rewrite(folder, change):
    """Change the stored tensors by `change(values)`, as a careful hand would: with their digest."""
    path = folder / "weights.safetensors"
    values = load_file(path)
    change(values)
    save_file(values, path)
    sign(folder)


def sign(folder):
    config = json.loads((folder / "config.json").read_text())
    config["sha256"] = files.sha256(folder / "weights.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


# --- saved and loaded ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(saved, spare):
    with into(spare):  # no other test of this file loads into them
        return xray.load(saved, numerics="keras_cv")


def test_every_weight_comes_back_to_the_bit(model, loaded):
    assert_same_weights(weights_of(loaded), weights_of(model))
    assert loaded.architecture == model.architecture and loaded.spacing == model.spacing
    ids = model.tokenizer.ids("a red star above a moon")[None]
    np.testing.assert_array_equal(loaded.tokenizer.ids("a red star above a moon")[None], ids)


def test_a_model_stays_where_writing_over_it_is_interrupted(model, tmp_path, monkeypatch):
    save(model, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for owner, name in ((native, "sha256"), (model.tokenizer, "save")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                save(model, tmp_path, dtype="float32")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def interrupted(path):
    raise KeyboardInterrupt


def test_files_of_others_are_not_written_over(model, tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="config.json is not of a model that was saved here"):
        save(model, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2 and (tmp_path / "tokenizer.json").read_text() == "{}"


def test_the_digest_is_that_of_the_file(saved, loaded):
    content = (saved / "weights.safetensors").read_bytes()
    assert loaded.digest == hashlib.sha256(content).hexdigest()


def test_numerics_come_with_the_weights_and_can_be_overridden(saved, loaded):
    assert json.loads((saved / "config.json").read_text())["numerics"] == "reference"
    assert loaded.numerics == "keras_cv"
    assert loaded.networks["unet"].mid.attn[0].norm.epsilon == 1e-5
    assert loaded.networks["decoder"].mid.res[0].norm1.epsilon == 1e-5
    assert not loaded.networks["unet"].exact_gelu


def test_half_precision_is_rounded_and_half_as_large(model, saved, tmp_path):
    save(model, tmp_path / "half")
    stored = load_file(tmp_path / "half" / "weights.safetensors")
    for key, values in weights_of(model).items():
        assert stored[key].dtype == np.float16
        np.testing.assert_array_equal(stored[key], values.astype(np.float16), err_msg=key)
    whole, half = ((f / "weights.safetensors").stat().st_size for f in (saved, tmp_path / "half"))
    assert half < 0.6 * whole


def test_the_matrix_for_colours_is_kept(model, tmp_path, monkeypatch):
    matrix = np.arange(15, dtype=np.float32).reshape(5, 3) / 7
    monkeypatch.setattr(model, "rgb_matrix", matrix)
    save(model, tmp_path / "saved")
    monkeypatch.setattr(building, "build", lambda *args: model.networks)
    monkeypatch.setattr(building, "assign", lambda *args: None)
    np.testing.assert_array_equal(xray.load(tmp_path / "saved").rgb_matrix, matrix)


def test_a_model_without_vocabulary_can_be_saved(model, tmp_path, monkeypatch):
    save(model, tmp_path / "saved")
    monkeypatch.setattr(model, "tokenizer", None)
    save(model, tmp_path / "saved")  # in place of one that had a vocabulary
    monkeypatch.setattr(building, "build", lambda *args: model.networks)
    monkeypatch.setattr(building, "assign", lambda *args: None)
    assert xray.load(tmp_path / "saved").tokenizer is None


# --- random weights --------------------------------------------------------------------------


def test_random_weights_are_those_of_their_seed(model, tiny):
    again = weights_of(xray.load(tiny, weights=None, seed=0))
    for key, values in weights_of(model).items():
        np.testing.assert_array_equal(again[key], values, err_msg=key)
        assert values.std() > 0, f"{key} is constant: a forgotten one would not be noticed"


def test_random_weights_say_whose_they_are(model):
    assert model.digest.startswith("random-0-") and model.name == "random"


# --- what cannot be loaded -------------------------------------------------------------------


@pytest.fixture
def nothing_is_built(monkeypatch):
    def build(*args):
        raise AssertionError("networks were built")

    monkeypatch.setattr(building, "build", build)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("midi", {}, r"'midi' is neither a model \(mini, sd-v1-4, .*\) nor one's path"),
        ("", {}, "neither a model"),
        ("mini", {"numerics": "exact"}, "numerics 'exact' is not one of reference, keras_cv"),
        ("mini", {"prediction": "noise"}, "prediction must be 'epsilon' or 'v', got 'noise'"),
        ("mini", {"weights": "best"}, "weights must be 'pretrained' or None, got 'best'"),
        ("sd-v1-4", {}, r"not on this machine.*xray.load\('sd-v1-4', weights=None\)"),
    ],
)
@pytest.mark.usefixtures("nothing_is_built")
def test_an_unknown_model_is_refused_with_those_there_are(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        xray.load(name, **arguments)


def test_what_is_on_this_machine_does_not_depend_on_who_runs_the_tests():
    from huggingface_hub import constants

    for place in (registry.cache(), Path(constants.HF_HUB_CACHE), Path(constants.HF_HOME)):
        assert place.is_relative_to(tempfile.gettempdir())


@pytest.mark.usefixtures("nothing_is_built")
def test_an_architecture_alone_has_no_weights(tiny):
    with pytest.raises(ValueError, match="no pretrained weights; give weights=None"):
        xray.load(tiny)


@pytest.mark.usefixtures("nothing_is_built")
def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nor one's path"):
        xray.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"architecture": {"depth": 3}}', '{"architecture": {"text_heads": 0}}'],
)
@pytest.mark.usefixtures("nothing_is_built")
def test_a_damaged_configuration_is_named(copy, text):
    (copy / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        xray.load(copy)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text_layers": "2"}, "text_layers is '2', not a whole number above 0"),
        ({"text_layers": 0}, "text_layers is 0, not a whole number above 0"),
        ({"text_width": 16.0}, r"text_width is 16\.0, not a whole number"),
        ({"blocks": True}, "blocks is True, not a whole number"),
        ({"widths": 16}, "widths is 16, not whole numbers above 0"),
        ({"heads": [2, 2, 2, "2"]}, r"heads is \(2, 2, 2, '2'\), not whole numbers above 0"),
        ({"ae_widths": [4, 4, 8]}, r"ae_widths \(4, 4, 8\) are not of four levels"),
        ({"linear_projections": 1}, "linear_projections is 1, not true or false"),
        ({"beta_start": "x"}, "beta_start is 'x', not a number above 0"),
        ({"beta_end": float("inf")}, "beta_end is inf, not a number above 0"),
        ({"size": "64"}, "size is '64', not a whole number"),
        ({"prediction": "foo"}, "prediction 'foo' is not one of epsilon, v, sample"),
        ({"text_activation": []}, r"text_activation is \(\), not a word"),
        ({"text_activation": "relu"}, "text_activation 'relu' is not one of quick_gelu, gelu"),
        ({"numerics": "foo"}, "numerics 'foo' is not one of reference, keras_cv"),
        ({"spacing": "foo"}, "spacing 'foo' is not one of leading"),
        ({"spacing": ["leading"]}, r"spacing \['leading'\] is not one of leading"),
        ({"name": 5}, "name is 5, not a word"),
        ({"rgb_matrix": "x"}, "rgb_matrix is 'x', not 5 × 3 numbers"),
        ({"rgb_matrix": [[1, 2, 3]]}, r"rgb_matrix is \[\[1, 2, 3\]\], not 5 × 3 numbers"),
    ],
)
@pytest.mark.usefixtures("nothing_is_built")
def test_a_value_that_cannot_be_is_named_with_its_file(copy, values, message):
    config = json.loads((copy / "config.json").read_text())
    for key, value in values.items():
        (config if key in config else config["architecture"])[key] = value
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json is damaged: .*" + message):
        xray.load(copy)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text_layers": 10**9}, r"text/layer\.999999999/fc1/bias is missing, not \(64,\)"),
        ({"vocab_size": 10**12}, r"token/embeddings is \(\d+, 16\), not \(1000000000000, 16\)"),
        ({"blocks": 10**9}, r"unet/down\.0/res\.999999999/conv2/bias is missing"),
        ({"ae_widths": [4, 4, 8, 8 * 10**9]}, r"bias is \(8,\), not \(8000000000,\)"),
        (
            {"text_width": 32},
            r"embeddings is \(\d+, 16\), not \(\d+, 32\)",
        ),
    ],
)
@pytest.mark.usefixtures("nothing_is_built")
def test_sizes_that_the_weights_have_not_are_refused_before_building(copy, values, message):
    config = json.loads((copy / "config.json").read_text())
    config["architecture"].update(values)
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"the weights are not of config\.json's sizes: .*" + message
    ):
        xray.load(copy)


@pytest.mark.parametrize("key", ["sha256", "numerics", "spacing", "name", "rgb_matrix"])
def test_a_configuration_that_lacks_something_is_named(copy, key, model, monkeypatch):
    monkeypatch.setattr(building, "build", lambda *args: model.networks)
    config = json.loads((copy / "config.json").read_text())
    del config[key]
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        xray.load(copy)


@pytest.mark.usefixtures("nothing_is_built")
def test_missing_weights_are_named(copy):
    (copy / "weights.safetensors").unlink()
    with pytest.raises(ValueError, match=r"weights\.safetensors is missing; reinstall"):
        xray.load(copy)


def flip_a_bit(content):
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("damage", [flip_a_bit, lambda c: c[:-1], lambda c: b""])
@pytest.mark.usefixtures("nothing_is_built")
def test_damaged_weights_are_noticed_by_their_digest(copy, damage):
    path = copy / "weights.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"is damaged: its sha256 is .*config\.json says"):
        xray.load(copy)


@pytest.mark.usefixtures("nothing_is_built")
def test_what_is_no_safetensors_file_is_refused(copy):
    (copy / "weights.safetensors").write_bytes(b"\x80\x04cos\nsystem\n")
    sign(copy)
    with pytest.raises(ValueError, match=r"weights\.safetensors is a pickle named as"):
        xray.load(copy)


KERNEL = "unet/mid/attn.0/cross/to_q/kernel"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop(KERNEL), f"1 tensors are missing: {KERNEL}"),
        (lambda v: v.update(extra=np.zeros(3)), "1 tensors are surplus: extra"),
        (
            lambda v: v.update({KERNEL: np.zeros((16, 8), np.float32)}),
            rf"1 tensors are of wrong shape: {KERNEL} \(16, 8\) for \(16, 16\)",
        ),
    ],
)
def test_weights_of_another_model_change_nothing(copy, model, monkeypatch, change, message):
    before = weights_of(model)
    # Building takes seconds; the check comes before the first assignment.
    monkeypatch.setattr(building, "build", lambda *args: model.networks)
    rewrite(copy, change)
    with pytest.raises(ValueError, match=message):
        xray.load(copy)
    for key, values in weights_of(model).items():
        np.testing.assert_array_equal(values, before[key])


@pytest.mark.usefixtures("nothing_is_built")
def test_a_broken_environment_is_reported_first(monkeypatch):
    def broken():
        raise EnvironmentProblem("two of them")

    monkeypatch.setattr(checkpoints, "check_environment", broken)
    with pytest.raises(EnvironmentProblem, match="two of them"):
        xray.load("mini")
