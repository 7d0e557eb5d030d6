"""`experiments/record_generation.py`: what a stranger runs first."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import xarray
from PIL import Image
from typer.testing import CliRunner

import xray
from xray import program, script
from xray.experiment import Experiment
from xray.resources import shipped
from xray.stats import format_bytes

SCRIPT = shipped("experiments") / "record_generation.py"
APP = script.app(runpy.run_path(str(SCRIPT))["main"])
PROMPT = "a big green fish"
FIGURES = ["special_tokens.png", "statistics.png", "timeline.png", "word_maps.png"]


def run(*arguments):
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


@pytest.fixture
def loaded(monkeypatch, model):
    """The script with a model that is loaded already, for what happens after."""
    monkeypatch.setattr(Experiment, "load", lambda self, name: model)


@pytest.fixture(scope="module")
def ended(saved, tmp_path_factory):
    """A whole run: the folder, and what it said."""
    out = tmp_path_factory.mktemp("runs") / "fish"
    asked = [
        "--model", saved, "--prompt", PROMPT, "--negative", "a red star", "--steps", 4,
        "--guidance", 3, "--seed", 11, "--sampler", "ddim", "--eta", 0.5, "--width", 128,
        "--height", 64, "--record", "sampler/*", "--record", "unet/**/cross/weights", "--out", out,
    ]  # fmt: skip
    with matplotlib.rc_context({"savefig.dpi": "figure"}):
        result = run(*asked)
    assert result.exit_code == 0, result.output
    return out, result.stdout


@pytest.fixture(scope="module")
def summary(ended):
    return json.loads((ended[0] / "summary.json").read_text("utf-8"))


# --- what is written -----------------------------------------------------------------------


def test_the_folder_holds_what_is_promised_and_nothing_else(ended):
    out, _ = ended
    assert sorted(p.name for p in out.iterdir()) == [
        "figures", "image.png", "summary.json", "trace.zarr",
    ]  # fmt: skip
    assert sorted(p.name for p in (out / "figures").iterdir()) == FIGURES


def test_the_picture_is_the_one_in_the_recording(ended):
    out, _ = ended
    picture = Image.open(out / "image.png")
    assert (picture.size, picture.mode) == ((128, 64), "RGB")
    np.testing.assert_array_equal(np.asarray(picture), xray.open(out / "trace.zarr")["image"][0])


def test_the_figures_are_pictures_fit_for_a_talk(ended):
    for name in FIGURES:
        pixels = np.asarray(Image.open(ended[0] / "figures" / name).convert("L"))
        assert pixels.shape[1] == 1500 and pixels.shape[0] >= 300
        assert 0.02 < np.mean(pixels < 250) < 0.9  # drawn on, on a white page


def test_the_recording_opens_with_plain_xarray(ended):
    tree = xarray.open_datatree(ended[0] / "trace.zarr", engine="zarr")
    assert tree["complete"].values.all() and tree.attrs["status"] == "complete"
    assert tree["sampler/latent/value"].shape == (4, 1, 8, 16, 4)
    assert np.isfinite(tree["sampler/added_noise/value"].values).all()
    weights = tree["unet/down.0/attn.0/cross/weights/value"]
    assert weights.dims == ("step", "branch", "image", "head", "y", "x", "token")
    np.testing.assert_allclose(weights.astype("float32").sum("token"), 1, atol=2e-3)
    assert sum(path.endswith("cross/weights") for path in tree.groups) == 10


def test_the_summary_says_what_was_asked_and_with_what(summary, ended, saved):
    told = {name: summary[name] for name in ("prompt", "negative", "seeds", "sampler", "eta")}
    assert told == {
        "prompt": [PROMPT], "negative": ["a red star"], "seeds": [11], "sampler": "ddim", "eta": 0.5
    }  # fmt: skip
    told = [summary[name] for name in ("steps", "guidance", "width", "height")]
    assert told == [4, 3.0, 128, 64]
    config = json.loads((saved / "config.json").read_text())
    assert (summary["model"], summary["digest"]) == (config["name"], config["sha256"])
    words = [token["word"] for token in summary["tokens"]["cond"][0]]
    assert list(dict.fromkeys(words)) == ["<start>", "a", "big", "green", "fish", "<end>", "<pad>"]


def test_the_summary_s_sites_are_those_of_the_recording(summary, ended):
    trace = xray.open(ended[0] / "trace.zarr")
    assert list(summary["sites"]) == trace.sites
    for site, row in summary["sites"].items():
        values = trace[site].values
        assert (row["shape"], row["dtype"]) == (list(values.shape), str(values.dtype))
        assert row["bytes"] == values.nbytes


def test_the_summary_s_numbers_are_those_of_the_recording(summary, ended):
    tree = xarray.open_datatree(ended[0] / "trace.zarr", engine="zarr")
    by_step = summary["by_step"]
    assert by_step["step"] == [0, 1, 2, 3]
    assert by_step["timestep"] == tree["timestep"].values.tolist()
    for name in ("latent", "noise", "denoised"):
        values = tree[f"sampler/{name}/value"].values.astype(np.float64).reshape(4, -1)
        np.testing.assert_allclose(by_step[f"{name}_std"], values.std(axis=1), rtol=1e-6)
        np.testing.assert_allclose(
            by_step[f"{name}_norm"], np.linalg.norm(values, axis=1), rtol=1e-6
        )
    cond, uncond = (
        tree[f"sampler/noise_{b}/value"].values.reshape(4, -1) for b in ("cond", "uncond")
    )
    cosine = (cond * uncond).sum(1) / np.linalg.norm(cond, axis=1) / np.linalg.norm(uncond, axis=1)
    np.testing.assert_allclose(by_step["cosine"], cosine, rtol=1e-5)


def test_the_summary_says_what_it_took(summary):
    seconds = dict(summary["seconds"])
    assert {"import", "load", "text", "first step", "other steps", "decode", "figures"} <= set(
        seconds
    )
    total = seconds.pop("total")
    assert total == pytest.approx(sum(seconds.values()), abs=0.01) and total > 0.5
    assert 200e6 < summary["peak_memory"] < 20e9


def test_the_terminal_shows_the_size_before_and_the_places_after(summary, ended):
    out, said = ended
    assert f"{len(summary['sites'])} sites, {format_bytes(summary['bytes'])}" in said
    rows = [line.split() for line in said.splitlines()]
    assert ["step", "timestep", "latent_std"] in [row[:3] for row in rows]
    last = f"{summary['by_step']['latent_std'][-1]:.4g}"
    assert ["3", "1", last] in [row[:3] for row in rows]
    for name in ("image.png", "trace.zarr", "summary.json", "figures"):
        assert str(out / name) in said.splitlines()


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prompt", " "], "the prompt is empty"),
        (["--prompt", "a red star above " * 9], "token"),
        (["--record", "unet/**/cross/weihgts"], "cross/weights"),
        (["--guidance", "nan"], "guidance"),
        (["--sampler", "dimm"], "ddim, ddpm"),
        (["--width", 100], "multiples of 64"),
        (["--model", "minni"], "mini, sd-v1-4"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments, said, saved, tmp_path):
    result = run("--model", saved, "--out", tmp_path / "new" / "run", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and said in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["--steps", 0], ["--eta", 2], ["--seed", -1], ["--steps", "many"], ["--promt", "a star"]],
)
def test_options_that_make_no_sense_are_refused(arguments, saved, tmp_path):
    result = run("--model", saved, "--out", tmp_path / "run", *arguments)
    assert result.exit_code == 2 and str(arguments[0]) in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_can_be_refused_before_tensorflow_is_imported_is(saved, tmp_path):
    (tmp_path / "file").touch()
    cases = [
        ["--model", str(saved), "--out", str(tmp_path)],
        ["--model", str(saved), "--out", str(tmp_path / "file")],
        ["--model", str(saved), "--out", str(tmp_path / "file" / "run")],
        ["--model", str(saved), "--sampler", "dimm"],
        ["--model", str(saved), "--prompt", "star " * 100],
        ["--model", str(saved), "--guidance", "nan"],
        ["--model", "minni"],
        ["--help"],
    ]
    code = (
        "import json, runpy, sys\n"
        "for arguments in json.loads(sys.argv[2]):\n"
        "    sys.argv[1:2] = [sys.argv[1]]\n"
        "    script, sys.argv = sys.argv[1], [sys.argv[1], *arguments]\n"
        "    try:\n"
        "        runpy.run_path(script, run_name='__main__')\n"
        "    except SystemExit as exit:\n"
        "        print('ended', exit.code, not {'tensorflow', 'keras'}.isdisjoint(sys.modules))\n"
        "    sys.argv = [script, script]\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, SCRIPT, json.dumps(cases)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(xray.__file__).parents[1])},
    )
    ends = [line for line in told.stdout.splitlines() if line.startswith("ended")]
    assert ends == ["ended 2 False"] * 7 + ["ended 0 False"]
    assert len(told.stderr.splitlines()) == 7
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


# --- what is there already -----------------------------------------------------------------


@pytest.mark.usefixtures("loaded")
def test_earlier_results_are_replaced_only_if_asked_and_only_by_a_run(saved, tmp_path):
    def go(*arguments):
        return run("--model", saved, "--out", tmp_path, "--steps", 2, *arguments)

    latents = ["--record", "sampler/*"]

    def content():
        return {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    assert go(*latents, "--svg").exit_code == 0
    (tmp_path / "notes.txt").write_text("mine")
    first = content()
    assert {"timeline.png", "timeline.svg"} <= {p.name for p in tmp_path.glob("figures/*")}

    again = go(*latents, "--seed", 8)
    assert again.exit_code == 2 and "--overwrite" in again.stderr
    refused = go("--seed", 8, "--overwrite", "--record", "nothing/at/all")
    assert refused.exit_code == 2
    assert content() == first

    # Fewer figures than the first time: none of the old ones may stay among them.
    assert go("--seed", 8, "--overwrite", "--record", "unet/out").exit_code == 0
    assert json.loads((tmp_path / "summary.json").read_text())["seeds"] == [8]
    assert xray.open(tmp_path / "trace.zarr").sites == ["unet/out", "sampler/out", "image"]
    assert not list(tmp_path.glob("figures/timeline.*"))
    assert (tmp_path / "notes.txt").read_text() == "mine"


# --- Ctrl-C --------------------------------------------------------------------------------


@pytest.mark.usefixtures("loaded")
def test_ctrl_c_keeps_the_complete_steps_and_says_so(monkeypatch, saved, tmp_path):
    call = program.Program.__call__

    def interrupted(self, *args, step=None, **kwargs):
        if step == 3:
            raise KeyboardInterrupt
        return call(self, *args, step=step, **kwargs)

    monkeypatch.setattr(program.Program, "__call__", interrupted)
    out = tmp_path / "run"
    result = run("--model", saved, "--record", "sampler/*", "--steps", 5, "--out", out)
    assert result.exit_code == 130
    assert result.stderr == f"interrupted; kept in {out}: trace.zarr (3 of 5 steps)\n"
    assert [p.name for p in out.iterdir()] == ["trace.zarr"]
    trace = xray.open(out / "trace.zarr")
    assert (trace.steps, trace.status) == ([0, 1, 2], "interrupted")
    assert np.isfinite(trace["sampler/latent"].values).all()


def test_ctrl_c_before_anything_leaves_nothing(monkeypatch, saved, tmp_path):
    def interrupted(self, name):
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "load", interrupted)
    result = run("--model", saved, "--out", tmp_path / "run")
    assert (result.exit_code, result.stderr) == (130, "interrupted; nothing was written\n")
    assert list(tmp_path.iterdir()) == []
