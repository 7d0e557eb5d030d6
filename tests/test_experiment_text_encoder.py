"""What is in an embedding: what the experiment measures, draws and writes."""

from __future__ import annotations

import csv
import json
import runpy

import numpy as np
import pytest
import xarray
from typer.testing import CliRunner

from xray import script
from xray.experiment import Experiment
from xray.resources import shipped
from xray.studies import text_encoder as study
from xray.studies import text_encoder_figures as drawn

APP = script.app(runpy.run_path(str(shipped("experiments") / "text_encoder.py"))["main"])
PROMPTS = ["a red star above a blue moon", "a red star and a fish"]


def run(*arguments):
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data(model):
    return study.inside(model, PROMPTS)


def test_the_last_hidden_state_is_the_embedding_and_the_pooled_vector_its_end(data, model):
    state = model.embed(PROMPTS).values
    np.testing.assert_allclose(data["state"], state, atol=1e-5)
    for k, prompt in enumerate(PROMPTS):
        end = 1 + len(model.tokenizer.encode(prompt))
        assert data["end"].values[k] == end and data["word"].values[k, end] == "<end>"
        np.testing.assert_array_equal(data["pooled"][k], data["state"][k, end])
        assert data["to_pooled"].values[k, end] == 0 < data["to_pooled"].values[k, end - 1]


def test_attention_is_causal_and_shared_out_completely(data):
    weights = data["attention"].values
    assert weights.shape == (2, 2, 2, 20, 20)  # prompt, layer, head, token, key_token
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=2e-3)  # recorded as float16
    assert (weights[..., ~np.tri(20, dtype=bool)] == 0).all()


def test_norms_are_those_of_the_residual_stream(data, model):
    ids = np.stack([model.tokenizer.ids(prompt) for prompt in PROMPTS])
    names = ["text/embedding", "text/layer.0/out", "text/layer.1/out"]
    out, sites = model.text.record([*names, "text/layer.1/ff/out"], ids)
    stream = [*(sites[name] for name in names), out]
    assert data["stage"].values.tolist() == ["embedding", "layer 0", "layer 1", "out"]
    for k, x in enumerate(stream):
        np.testing.assert_allclose(data["norm"][:, k], np.linalg.norm(x, axis=-1), rtol=1e-4)
    assert np.all(data["turned"][:, 0] == 0)
    cosine = np.sum(stream[0] * out, -1) / np.prod(
        [np.linalg.norm(x, axis=-1) for x in (stream[0], out)], axis=0
    )
    np.testing.assert_allclose(np.cos(np.radians(data["turned"][:, -1])), cosine, atol=1e-4)
    added = data["added"].sel(layer=1, part="ff")
    np.testing.assert_allclose(
        added, np.linalg.norm(sites["text/layer.1/ff/out"], axis=-1), rtol=1e-4
    )


def test_cosines_are_symmetric_with_ones_for_the_same_row(data):
    cosine = data["cosine"].values.reshape(40, 40)
    np.testing.assert_allclose(np.diag(cosine), 1, atol=1e-5)
    np.testing.assert_allclose(cosine, cosine.T, atol=1e-5)
    assert cosine.min() < 0.99


def test_nothing_before_the_first_other_word_moves(data, model):
    same = 1 + len(model.tokenizer.encode("a red star"))
    assert study.moved(data)[:same].max() < 1e-3 < 0.1 < study.moved(data)[same:].min()
    found = study.findings(data)
    assert found["unchanged"] == same
    assert found["pooled_angle"] > 0.1 and found["whole_angle"] > 0.1 and found["growth"] > 1


def test_a_prompt_is_no_distance_from_itself(model):
    found = study.findings(study.inside(model, ["a red star", "a red star"]))
    assert found["unchanged"] == 20
    assert max(found[f"{what}_angle"] for what in ("pooled", "whole", "word")) < 1e-3


def test_a_prompt_without_words_can_be_looked_at_too(model):
    data = study.inside(model, ["", "a"])
    found = study.findings(data)
    assert (data["end"].values == [1, 2]).all() and found["unchanged"] == 1
    assert np.isnan(found["words_to_pooled"]) and found["padding_to_pooled"] > 0
    words = [row[1] for row in study.token_table(data)[1]]
    assert words == ["<start>", "<end>", "<pad>", "<pad>", "<pad>"]
    assert set(drawn.figures(data, model)) == {"tokens", "pooled", "layers", "attention"}


def test_figures_show_what_was_measured(data, model):
    count = study.shown(data)
    assert count == int(data["end"].max()) + 3
    figures = drawn.figures(data, model)
    within, across = [axes for axes in figures["tokens"].axes if axes.images][:2]
    np.testing.assert_array_equal(
        within.images[0].get_array(), data["cosine"].values[0, :count, 0, :count]
    )
    np.testing.assert_array_equal(
        across.images[0].get_array(), data["cosine"].values[0, :count, 1, :count]
    )
    near, far = figures["pooled"].axes
    heights = [bar.get_height() for bar in far.patches]
    np.testing.assert_allclose(heights, study.moved(data)[:count])
    heights = [bar.get_height() for bar in near.patches]
    np.testing.assert_allclose(heights, data["to_pooled"].values[:, :count].ravel())
    maps = [axes.images[0].get_array() for axes in figures["attention"].axes if axes.images]
    large, small = maps[:2], maps[-4:]
    expected = np.sqrt(data["attention"].values[0, :, :, :count, :count])
    np.testing.assert_allclose(np.ma.filled(small[3], 0), expected[1, 1] * np.tri(count))
    assert len(large) == 2 and large[0].shape == (count, count)


def test_the_script_writes_what_plain_xarray_and_csv_read(tmp_path, monkeypatch, model):
    monkeypatch.setattr(Experiment, "load", lambda self, name: model)
    result = run("--prompt", PROMPTS[0], "--other", PROMPTS[1], "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert len(list(tmp_path.glob("figures/*.png"))) == 4
    stored = xarray.open_zarr(tmp_path / "data.zarr")
    assert stored["word"].values[0, 2] == "red" and stored["prompt"].values.tolist() == PROMPTS
    assert stored["state"].shape == (2, 20, 16)
    with (tmp_path / "tokens.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[2]["word"] == "red" and float(rows[2]["to other"]) < 1e-3
    assert float(rows[2]["out"]) == pytest.approx(float(stored["norm"][0, -1, 2]))
    summary = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert summary["pooled_angle"] == pytest.approx(study.findings(stored.load())["pooled_angle"])
    assert "<end>" in result.stdout
