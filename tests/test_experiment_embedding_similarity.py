"""Which prompts are near: what the experiment measures, draws and writes; sets and files."""

from __future__ import annotations

import csv
import itertools
import json
import runpy
import warnings

import numpy as np
import pytest
import xarray
from PIL import Image
from scipy.cluster.hierarchy import is_valid_linkage, leaves_list
from scipy.spatial.distance import pdist, squareform
from typer.testing import CliRunner

from xray import embeddings, page, prompts, script
from xray.experiment import Experiment
from xray.miniature.scenes import caption_pairs
from xray.prompts import Prompts
from xray.resources import shipped
from xray.studies import embedding_similarity as study
from xray.studies import embedding_similarity_figures as drawn

APP = script.app(runpy.run_path(str(shipped("experiments") / "embedding_similarity.py"))["main"])


def run(*arguments):
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data(mini):
    return study.compare(mini, prompts.read("drawn"))


@pytest.fixture
def loaded(monkeypatch, model):
    monkeypatch.setattr(Experiment, "load", lambda self, name: model)


# --- sets and files ------------------------------------------------------------------------


@pytest.mark.parametrize("name", prompts.SETS)
def test_sets_hold_each_prompt_once_with_its_group(name):
    read = prompts.read(name)
    assert len(read.texts) == len(set(read.texts)) == len(read.groups) >= 3
    assert sum(map(len, prompts.SETS[name].values())) == len(read.texts)


def test_all_sets_are_one_with_their_names_as_groups():
    read = prompts.read("all")
    assert set(read.groups) == set(prompts.SETS)
    assert len(read.texts) == len(set(read.texts)) > 150


def test_a_file_has_a_prompt_a_line_and_empty_and_repeated_ones_are_left_out(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeffa red star\r\n\r\n  a fish \n\t\na red star\na 🐟\n\n".encode())
    read = prompts.read(str(path))
    assert read == Prompts("mine.txt", ["a red star", "a fish", "a 🐟"], [], empty=3, repeated=1)


def test_what_holds_no_prompts_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    Image.new("RGB", (9, 9), "red").save(tmp_path / "picture.png")
    for source, said in (
        ("animalz", "'animalz' is neither a set of prompts .drawn, .*, all. nor a file"),
        (tmp_path / "empty.txt", "holds no prompt; write one a line"),
        (tmp_path / "picture.png", "is not text in UTF-8"),
    ):
        with pytest.raises(ValueError, match=said):
            prompts.read(str(source))
    with pytest.raises(IsADirectoryError):
        prompts.read(str(tmp_path))


# --- what is near --------------------------------------------------------------------------


def test_synonyms_are_nearer_than_other_words(mini):
    def median_angle(same):
        pairs = list(itertools.islice(caption_pairs(100, same=same), 60))
        vectors = embeddings.vectors(mini, [text for pair in pairs for text in pair])
        return np.median(embeddings.angle(vectors[::2], vectors[1::2]))

    assert median_angle(True) < median_angle(False) / 2


def test_groups_of_synonyms_keep_together(data):
    groups = study.by_group(data)
    assert sum(row["prompts"] for row in groups) == data.sizes["prompt"]
    assert all(row["within"] > row["others"] for row in groups)
    assert (
        np.average([r["own_nearest"] for r in groups], weights=[r["prompts"] for r in groups]) > 0.8
    )


def test_group_means_are_those_over_all_pairs(data):
    cosine = 1 - squareform(pdist(data["vector"].values.astype(np.float64), "cosine"))
    groups = data["group"].values
    for row in study.by_group(data):
        own = groups == row["group"]
        inside = cosine[np.ix_(own, own)][~np.eye(own.sum(), dtype=bool)]
        assert row["within"] == pytest.approx(inside.mean(), abs=1e-6)
        assert row["others"] == pytest.approx(cosine[np.ix_(own, ~own)].mean(), abs=1e-6)


def test_the_heat_map_is_in_the_order_of_the_dendrogram(data):
    order = data["shown"].values
    assert sorted(order) == list(range(data.sizes["prompt"]))
    vectors = data["vector"].values[order].astype(np.float64)
    np.testing.assert_allclose(data["cosine"], 1 - squareform(pdist(vectors, "cosine")), atol=1e-5)
    join = data["join"].values
    assert is_valid_linkage(join) and leaves_list(join).tolist() == list(range(len(order)))
    first = join[0]  # the two nearest are joined first, at their distance
    a, b = first[:2].astype(int)
    off = data["cosine"].values - 2 * np.eye(len(order))
    assert off[a, b] == pytest.approx(off.max(), abs=1e-6)
    assert first[2] == pytest.approx(1 - off[a, b], abs=1e-5)


def test_groups_are_told_apart_in_the_heat_map_by_more_than_colour(mini, data):
    axes = drawn.similarity_figure(data, mini).axes[1]
    groups = data["group"].values[data["shown"].values]
    signs = {line.get_label(): line for line in axes.lines}
    assert set(signs) == set(groups) and len(signs) > len(page.CYCLE)
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == len(signs)
    for name, line in signs.items():
        np.testing.assert_array_equal(line.get_ydata(), np.flatnonzero(groups == name))
    assert {label.get_color() for label in axes.get_yticklabels()} == {page.INK}  # all legible


def test_neighbours_are_the_nearest_first_and_never_oneself():
    unit = np.random.default_rng(0).normal(size=(1500, 8)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    found, cosines = study.neighbours(unit, 4)
    every = unit.astype(np.float64) @ unit.T.astype(np.float64) - 3 * np.eye(len(unit))
    np.testing.assert_array_equal(found, np.argsort(-every, axis=1)[:, :4])
    np.testing.assert_allclose(cosines, -np.sort(-every, axis=1)[:, :4], atol=1e-5)


def test_maps_keep_a_plane_as_it_is():
    rng = np.random.default_rng(1)
    angles = rng.uniform(0, 2 * np.pi, 30)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    unit = circle @ np.linalg.qr(rng.normal(size=(16, 2)))[0].T  # the circle, turned in 16 dims
    pca, share = study.pca_map(unit)
    np.testing.assert_allclose(pdist(pca), pdist(circle), atol=1e-6)
    assert share.sum() == pytest.approx(1)
    mds, stress = study.mds_map(unit, pca + rng.normal(size=pca.shape) / 10)
    np.testing.assert_allclose(pdist(mds), pdist(circle), atol=2e-2)
    assert stress < 0.01


def test_the_same_seed_gives_the_same_maps(model):
    read = Prompts(
        "mine", [f"a {c} {t}" for c in ("red", "big", "blue") for t in ("star", "fish")], []
    )
    one, two = (study.compare(model, read, seed=3) for _ in range(2))
    xarray.testing.assert_identical(one, two)
    assert one["group"].values.tolist() == ["all"] * 6 and not one.attrs["groups_given"]


def test_whole_embeddings_can_be_compared_too(model):
    read = Prompts("mine", ["a red star", "a blue star", "a fish"], ["star", "star", "fish"])
    data = study.compare(model, read, "whole")
    states = model.embed(read.texts).values.reshape(3, -1)
    np.testing.assert_allclose(data["vector"], states, atol=1e-5)
    assert study.by_group(data)[1]["within"] is None  # one alone


# --- many ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many():
    """Eight directions, 40 vectors about each."""
    rng = np.random.default_rng(2)
    centres = np.linalg.qr(rng.normal(size=(16, 8)))[0].T
    unit = np.repeat(centres, 40, axis=0) + 0.02 * rng.normal(size=(320, 16))
    return unit / np.linalg.norm(unit, axis=1, keepdims=True)


def test_of_many_those_in_the_middle_stand_for_the_rest(many):
    chosen = study.representatives(many, 8, seed=0)
    assert sorted(chosen // 40) == list(range(8))
    np.testing.assert_array_equal(study.representatives(many, 320), range(320))


def test_groups_are_found_where_none_are_given(many):
    texts = [f"{k // 40}: {k}" for k in range(320)]
    found = np.array(study.find_groups(many[: 6 * 40], texts))
    assert len(set(found)) == 6
    for k in range(6):
        assert set(found[40 * k : 40 * k + 40]) == {found[40 * k]} and found[40 * k][0] == str(k)


def test_ten_thousand_prompts_are_brought_to_what_can_be_looked_at(model, monkeypatch):
    monkeypatch.setattr(study, "MOST_SHOWN", 12)
    monkeypatch.setattr(study, "MOST_TSNE", 50)
    words = ["red", "big", "green", "blue", "a", "and", "star", "fish", "moon", "heart"]
    texts = [" ".join(each) for each in itertools.product(words, repeat=2)] + ["red star " * 10]
    done = []
    data = study.compare(model, Prompts("mine", texts, []), tick=lambda: done.append(1))
    assert len(done) == 101 and data["cut"].values.sum() == 1
    shown = data.sizes["shown"]
    assert shown <= 12 and data["cosine"].shape == (shown, shown)
    assert data["stands_for"].values.sum() == 101 and data["stands_for"].values.min() >= 1
    assert np.isfinite(data["tsne"]).all("axis").sum() == 50
    assert np.flatnonzero(np.isfinite(data["mds"][:, 0])).tolist() == sorted(data["shown"].values)
    assert np.isfinite(data["pca"]).all() and data["nearest"].shape == (101, 5)
    figures = drawn.figures(data, study.difference(model, *texts[:2]), model)
    labels = [t.get_text() for t in figures["similarity"].axes[1].get_yticklabels()]
    assert len(labels) == shown and all(label.endswith(")") for label in labels)


def test_the_same_in_other_letters_is_refused_and_two_that_differ_are_not(model, monkeypatch):
    same = ["".join(each) for each in itertools.product(*zip("a red s", "A RED S", strict=True))]
    same = list(dict.fromkeys(f"{each}tar" for each in same))
    with pytest.raises(ValueError, match=f"reads all {len(same)} prompts of mine the same"):
        study.compare(model, Prompts("mine", same, []))
    monkeypatch.setattr(study, "MOST_SHOWN", 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k-means looks for more clusters than there are
        data = study.compare(model, Prompts("mine", [*same, "a fish"], []))
    assert data["group"].values[-1] not in data["group"].values[:-1]
    assert np.isfinite(data["tsne"]).all() and data.sizes["shown"] == 2
    drawn.figures(data, study.difference(model, same[0], "a fish"), model)
    # Of more than t-SNE takes, its sample may hold one of the two only.
    unit = np.repeat(np.eye(3), [300, 1, 0], axis=0)
    monkeypatch.setattr(study, "MOST_TSNE", 10)
    assert np.isfinite(study.tsne_map(unit)).all(1).sum() == 10


# --- the difference of two -----------------------------------------------------------------


def test_the_difference_is_nothing_before_the_first_other_word(model):
    apart = study.difference(model, "a red star", "a red fish")
    states = model.embed(["a red star", "a red fish"]).values
    np.testing.assert_array_equal(apart["difference"], states[0] - states[1])
    same = 1 + len(model.tokenizer.encode("a red"))
    assert np.abs(apart["difference"][:same]).max() < 1e-5 < np.abs(apart["difference"][same]).max()
    assert apart["word"].values[same] == "star" and apart["other_word"].values[same] == "fish"


def test_a_prompt_that_is_too_long_is_cut_for_the_difference_too(model):
    with pytest.warns(UserWarning, match="is cut off"):
        apart = study.difference(model, "red star " * 12, "a fish")
    assert apart["word"].values[-1] == "<end>"


def test_blocks_keep_their_extremes():
    values = np.array([[0, 3, -1, 1, 0, -4], [0, 0, 2, -2, -1, 1]], np.float32)
    np.testing.assert_array_equal(drawn._extremes(values, 3), [[3, -1, -4], [0, 2, -1]])
    np.testing.assert_array_equal(drawn._extremes(values, 100), values)


# --- the script ----------------------------------------------------------------------------


@pytest.mark.usefixtures("loaded")
def test_the_script_writes_what_plain_xarray_and_csv_read(tmp_path):
    path, out = tmp_path / "mine.txt", tmp_path / "run"
    texts = ["a red star", "a red moon", "a big green fish", "a green fish"]
    path.write_text("\n\n".join([*texts, texts[0], "a red star " * 9]), "utf-8")
    result = run("--prompts", path, "--first", "a fish", "--svg", "--out", out)
    assert result.exit_code == 0, result.output
    assert "5 prompts, 5 empty lines and 1 repeated" in result.stdout
    names = {f"{n}.{e}" for n in ("similarity", "maps", "difference") for e in ("png", "svg")}
    assert {each.name for each in (out / "figures").iterdir()} == names
    for each in out.glob("figures/*.png"):
        pixels = np.asarray(Image.open(each).convert("L"))
        assert 0.02 < np.mean(pixels < 250) < 0.9
    stored = xarray.open_zarr(out / "data.zarr")
    assert stored["vector"].shape == (5, 16) and stored["pca"].shape == (5, 2)
    assert stored["prompt"].values[:4].tolist() == texts
    assert stored["other_word"].values[2] == "red" and stored["word"].values[2] == "fish"
    with (out / "neighbours.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 4 and rows[0]["prompt"] == "a red star"
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    told = [summary[k] for k in ("count", "empty", "repeated", "cut", "prompts", "vector")]
    assert told == [5, 5, 1, 1, "mine.txt", "pooled"]
    assert summary["difference"] == ["a fish", "a red moon"]


@pytest.mark.usefixtures("loaded")
def test_the_script_compares_whole_embeddings(tmp_path):
    result = run("--prompts", "articles", "--vector", "whole", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    stored = xarray.open_zarr(tmp_path / "data.zarr")
    assert stored["vector"].shape[1] == stored["difference"].size == 20 * 16


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prompts", "{tmp}/same.txt"], "reads all 3 prompts of same.txt the same, as 'Cat'"),
        (["--prompts", "{tmp}/two.txt"], "two.txt has 2 prompts; a map needs at least 3"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments, said, tmp_path):
    files, out = {"two": "a star\na fish\n", "same": "Cat\ncat\nCAT\n"}, tmp_path / "out"
    for name, text in files.items():
        (tmp_path / f"{name}.txt").write_text(text)
    result = run("--out", out, *(each.replace("{tmp}", str(tmp_path)) for each in arguments))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and said in result.stderr
    assert result.stderr.count("\n") == 1 and not out.exists()
