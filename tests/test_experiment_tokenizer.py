"""How a word becomes numbers: what the experiment measures, draws and writes."""

from __future__ import annotations

import csv
import json
import runpy

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from xray import embeddings, script
from xray.experiment import Experiment
from xray.resources import shipped
from xray.studies import tokenizer as study

APP = script.app(runpy.run_path(str(shipped("experiments") / "tokenizer.py"))["main"])


def run(*arguments):
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def costs(mini):
    return {(each.word, each.variant): each for each in study.spelling_costs(mini)}


@pytest.fixture
def loaded(monkeypatch, mini):
    monkeypatch.setattr(Experiment, "load", lambda self, name: mini)


# --- vectors of many prompts ---------------------------------------------------------------

PROMPTS = ["a red star", "", "a big green fish", "a red star", "a red moon above a red star", "a"]


@pytest.mark.parametrize("at_once", [1, 2, 4, 32])
def test_pooled_vectors_are_the_outputs_at_the_first_end_token(model, monkeypatch, at_once):
    monkeypatch.setattr(embeddings, "AT_ONCE", at_once)
    found = embeddings.vectors(model, PROMPTS)
    for prompt, vector in zip(PROMPTS, found, strict=True):
        end = 1 + len(model.tokenizer.encode(prompt))
        np.testing.assert_allclose(vector, model.embed(prompt).values[0, end], atol=1e-5)


def test_whole_vectors_are_what_the_u_net_attends_to(model, monkeypatch):
    monkeypatch.setattr(embeddings, "AT_ONCE", 4)
    done = []
    found = embeddings.vectors(model, PROMPTS, "whole", tick=lambda: done.append(1))
    assert len(done) == len(PROMPTS)
    np.testing.assert_allclose(
        found.reshape(len(PROMPTS), 20, 16), model.embed(PROMPTS).values, atol=1e-5
    )


def test_vectors_that_cannot_be_are_refused_before_anything_is_computed(model, monkeypatch):
    monkeypatch.setattr(type(model.text), "__call__", None)
    with pytest.raises(ValueError, match="whole embeddings of 1000000 prompts take 1.28 GB"):
        embeddings.vectors(model, ["a"] * 1_000_000, "whole")
    with pytest.raises(ValueError, match="pooled or whole, got 'mean'"):
        embeddings.vectors(model, ["a"], "mean")
    with pytest.raises(ValueError, match="tokens"):
        embeddings.vectors(model, ["a", "a red star " * 9])


def test_angles_are_exact_where_cosines_are_not():
    a = np.array([1.0, 0.0])
    assert embeddings.angle(a, 3 * a) == 0 and embeddings.angle(a, -a) == 180
    assert embeddings.angle(a, [1, 1e-9]) == pytest.approx(np.degrees(1e-9), rel=1e-6)
    assert embeddings.angle(a, [[0, 2], [1, 1]]).tolist() == pytest.approx([90, 45])
    assert np.isnan(embeddings.angle(a, 0 * a))


# --- what spelling costs -------------------------------------------------------------------


def test_what_is_the_same_to_the_tokenizer_costs_nothing(costs):
    assert costs["star", "STAR"].angle == 0
    assert costs["café", "cafe\N{COMBINING ACUTE ACCENT}"].angle == 0
    assert all(each.angle > 0 for each in costs.values() if each.reading != each.variant_reading)


def test_a_synonym_costs_less_than_another_colour(costs):
    assert costs["red star", "crimson star"].angle < costs["red star", "blue star"].angle / 3


def test_costs_are_angles_between_the_phrases_end_tokens(model):
    spellings = {"colour": [("red", "green"), ("red", "red")]}
    different, same = study.spelling_costs(model, spellings, "a {} fish")
    ends = [model.embed(f"a {c} fish").values[0] for c in ("red", "green")]
    ends = [
        states[1 + len(model.tokenizer.encode(f"a {colour} fish"))]
        for states, colour in zip(ends, ("red", "green"), strict=True)
    ]
    assert different.angle == pytest.approx(float(embeddings.angle(*ends)), abs=1e-3)
    assert same.angle == 0


def test_a_reading_shows_where_a_word_was_cut(mini):
    assert study.reading(mini.tokenizer, "a stargazer") == "a star·g·az·er"
    assert study.reading(mini.tokenizer, "star fish") == "star fish"
    assert study.reading(mini.tokenizer, "é猫") == "c3·a9·e7·8c·ab"


def test_rows_are_those_of_the_embedding(model):
    tokens = model.tokenizer.tokens("a red star")
    # The text encoder adds a vector for each position to them.
    _, sites = model.text.record(["text/embedding"], model.tokenizer.ids("a red star")[None])
    _, empty = model.text.record(["text/embedding"], np.full((1, 20), tokens[0].id))
    rows = study.token_rows(model, [token.id for token in tokens])
    positions = empty["text/embedding"][0] - rows[0]
    np.testing.assert_allclose(sites["text/embedding"][0], rows + positions, atol=1e-6)


# --- the script ----------------------------------------------------------------------------


@pytest.mark.usefixtures("loaded")
def test_the_script_writes_figures_tables_and_a_summary(tmp_path, mini):
    arguments = ["--word", "moonstar", "--word", "🐟", "--spelling", "red = bed", "--svg"]
    result = run(*arguments, "--phrase", "a {}", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        f"{name}.{ending}" for name in ("merges", "spellings", "words") for ending in ("png", "svg")
    ]
    for path in tmp_path.glob("figures/*.png"):
        pixels = np.asarray(Image.open(path).convert("L"))
        assert 0.01 < np.mean(pixels < 250) < 0.6

    with (tmp_path / "merges.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"word": "moonstar", "step": "0", "rank": "", "symbols": "m o o n s t a r"}
    last = [row for row in rows if row["word"] == "moonstar"][-1]
    assert last["symbols"].split() == [
        token.text.removesuffix("</w>") for token in mini.tokenizer.encode("moonstar")
    ]
    with (tmp_path / "spellings.csv").open(encoding="utf-8", newline="") as file:
        first, *others = csv.DictReader(file)
    assert (first["kind"], first["word"], first["variant"]) == ("yours", "red", "bed")
    summary = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert (summary["phrase"], summary["digest"]) == ("a {}", mini.digest)
    assert summary["spellings"][0]["angle"] == float(first["angle"]) > 0
    assert len(summary["spellings"]) == 1 + len(others)
    yardstick = [float(row["angle"]) for row in others if row["kind"] == "another word"]
    assert summary["another_word"] == pytest.approx(np.median(yardstick))
    assert "red" in result.stdout and "bed" in result.stdout
