"""The `xray` command: what it says of recordings, sites and experiments, and how it ends."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import synthetic_run
from loading import into
from typer.testing import CliRunner

import xray
from xray import checkpoints, cli
from xray.recorder import StoreRecorder
from xray.resources import shipped

WEIGHTS = "unet/mid/attn.0/cross/weights"


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def rows(text):
    """The lines of a table by their first word."""
    return {line.split()[0]: line for line in text.splitlines() if line.strip()}


def recorded(path, *, steps=5, sites=None, change=None, interrupt=False):
    """A synthetic run at `path`; `change` = (site, step) is where one number is another."""
    recorder = StoreRecorder(path, synthetic_run.header(steps, sites))
    for step in range(steps - interrupt):
        for site, spec in recorder.header.sites.items():
            if spec.per_step:
                array = synthetic_run.values(site, step).copy()
                if (site, step) == change:
                    array.flat[0] += 8
                recorder.write(site, array, step)
        recorder.complete(step)
    for site, spec in recorder.header.sites.items():
        if not spec.per_step:
            recorder.write(site, synthetic_run.values(site))
    recorder.close("interrupted" if interrupt else "complete", "a reason" if interrupt else "")
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("trace") / "run.zarr")


# --- the command itself --------------------------------------------------------------------


def test_it_starts_without_anything_heavy():
    heavy = {"tensorflow", "keras", "matplotlib", "xarray", "zarr", "numpy"}
    code = f"import sys, xray.cli; print(sorted({heavy} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_it_says_its_version_and_its_commands():
    assert run("--version").stdout == f"diffusion-xray {xray.__version__}\n"
    told = run("--help").stdout
    for command in ("show", "diff", "sites", "export", "experiments", "experiment"):
        assert command in told


# --- show ----------------------------------------------------------------------------------


def test_show_lists_the_sites_with_their_statistics(path):
    told = run("show", path)
    assert told.exit_code == 0
    lines = rows(told.stdout)
    assert "a rötlicher star star" in lines["prompt"] and "5 steps, 5 sites" in lines["recorded"]
    for site, tensor in ((s, xray.open(path)[s]) for s in synthetic_run.SITES):
        values = tensor.values.astype(np.float64)
        numbers = [f"{f(values):.4g}" for f in (np.min, np.max, np.mean, np.std)]
        assert " ".join(numbers) in " ".join(lines[site].split())
        assert str(tensor.dtype) in lines[site]
        for dim, length in zip(tensor.dims, tensor.shape, strict=True):
            assert f"{dim} {length}" in lines[site]
    assert " 655 kB" in lines["unet/up.1/skip.0"] or " MB" in lines["unet/up.1/skip.0"]


def test_show_of_a_pattern_lists_what_it_names(path):
    assert set(synthetic_run.SITES) & set(rows(run("show", path, "unet/**").stdout)) == {
        WEIGHTS, "unet/up.1/skip.0",
    }  # fmt: skip


def test_show_of_one_site_goes_through_its_steps(path):
    lines = rows(run("show", path, "sampler/latent").stdout)
    tensor = xray.open(path)["sampler/latent"]
    assert f"{tensor.normality()['ks']:.4g}" in run("show", path, "sampler/latent").stdout.split()
    for step in range(5):
        x = tensor.sel(step=step).values
        numbers = (981.5 - step * 245.125, x.min(), x.max(), x.mean(), x.std())
        assert lines[str(step)].split()[1:] == [f"{float(number):.4g}" for number in numbers]


def test_show_of_an_interrupted_run_says_so(tmp_path):
    told = run("show", recorded(tmp_path / "run.zarr", interrupt=True)).stdout
    lines = rows(told)
    assert "4 steps" in lines["recorded"] and "interrupted" in lines["recorded"]
    assert "a reason" in lines["reason"]


def test_show_counts_what_is_not_finite(tmp_path):
    header = synthetic_run.header(1, ["sampler/latent"])
    recorder = StoreRecorder(tmp_path / "run.zarr", header)
    values = synthetic_run.values("sampler/latent").copy()
    values.flat[:3] = np.nan, np.inf, np.nan
    recorder.write("sampler/latent", values, 0)
    recorder.complete(0)
    recorder.close()
    told = run("show", tmp_path / "run.zarr").stdout
    assert "not finite" in told and " 3 " in rows(told)["sampler/latent"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "nowhere.zarr"], "nowhere.zarr: no such trace"),
        (["show", "PATH", "sampler/latnt"], "nearest: sampler/latent"),
        (["show", "PATH", "--model", "minni"], "mini, sd-v1-4"),
        (["show", "PATH", "--model", "mini"], "--figures"),
        (["show", "PATH", "--figures", "PATH"], "not empty"),
        (["diff", "PATH", "nowhere.zarr"], "nowhere.zarr: no such trace"),
        (["sites", "minni"], "mini, sd-v1-4"),
        (["experiment", "record_generatio"], "record_generation"),
    ],
)
def test_errors_are_one_line(arguments, said, path):
    told = run(*(path if a == "PATH" else a for a in arguments))
    assert told.exit_code == 2 and said in told.stderr
    assert told.stderr.startswith("error: ") and told.stderr.count("\n") == 1


def test_show_draws_the_figures_where_it_is_told_and_nowhere_else(model, tmp_path):
    model.generate("a red star", steps=2, store=tmp_path / "run.zarr")
    before = sorted(tmp_path.rglob("*"))
    assert run("show", tmp_path / "run.zarr").exit_code == 0
    assert sorted(tmp_path.rglob("*")) == before
    told = run("show", tmp_path / "run.zarr", "sampler/latent", "--figures", tmp_path / "new")
    drawn = sorted(set(tmp_path.rglob("*")) - set(before))
    assert [p.name for p in drawn] == ["new", "statistics.png", "timeline.png"]
    assert {str(p) for p in drawn[1:]} <= set(told.stdout.splitlines())


def test_show_draws_again_if_asked_with_a_model_that_decodes(saved, spare, tmp_path):
    with into(spare):
        xray.load(saved).generate("a red star", steps=2, store=tmp_path / "run.zarr")
    asked = ["show", tmp_path / "run.zarr", "--figures", tmp_path / "new"]

    def drawn():
        return {p.name: p.read_bytes() for p in (tmp_path / "new").iterdir()}

    assert run(*asked).exit_code == 0
    before = drawn()
    again = run(*asked)
    assert again.exit_code == 2 and "--overwrite" in again.stderr and drawn() == before
    with into(spare):
        assert run(*asked, "--overwrite", "--model", saved).exit_code == 0
    assert drawn().keys() == before.keys()
    assert drawn()["timeline.png"] != before["timeline.png"]  # of decoded estimates


# --- diff ----------------------------------------------------------------------------------


def test_diff_of_equal_recordings_ends_with_0(path, tmp_path):
    told = run("diff", path, recorded(tmp_path / "same.zarr"))
    assert told.exit_code == 0
    lines = rows(told.stdout)
    assert all(lines[site].split()[1:] == ["0", "0", "equal"] for site in synthetic_run.SITES)
    assert "5 of 5 common sites are equal to the bit" in told.stdout


def test_diff_names_the_site_and_step_where_they_part(path, tmp_path):
    other = recorded(tmp_path / "other.zarr", change=("sampler/latent", 3))
    told = run("diff", path, other)
    assert told.exit_code == 1
    b = xray.open(other)["sampler/latent"].sel(step=3).values
    distance = np.sqrt(64 / b.size) / np.sqrt(np.mean(np.square(b, dtype=np.float64)))
    lines = rows(told.stdout)
    assert lines["sampler/latent"].split()[1:] == ["3", f"{distance:.4g}", "8", "differs"]
    assert lines[WEIGHTS].split()[-1] == "equal"
    assert "4 of 5 common sites are equal to the bit" in told.stdout

    by_step = run("diff", path, other, "--steps")
    assert by_step.exit_code == 1
    latent = [x.split() for x in by_step.stdout.splitlines() if x.startswith("sampler/latent")]
    assert [(row[1], row[-1]) for row in latent] == [
        ("0", "equal"), ("1", "equal"), ("2", "equal"), ("3", "differs"), ("4", "equal"),
    ]  # fmt: skip


def test_diff_says_what_only_one_of_them_has(path, tmp_path):
    fewer = recorded(tmp_path / "fewer.zarr", steps=3, sites=["sampler/latent", "image"])
    told = run("diff", fewer, path)
    assert told.exit_code == 1
    assert "only in B: steps 3 to 4" in told.stdout
    assert f"only in B: text/out, {WEIGHTS}, unet/up.1/skip.0" in told.stdout


def test_diff_names_the_steps_round_those_of_the_other():
    assert cli._runs([0, 1, 2, 6, 7, 9]) == "0 to 2, 6 to 7, 9"


def test_diff_says_which_shapes_differ(path, tmp_path):
    header = synthetic_run.header(5, ["sampler/latent", "image"])
    wide = dataclasses.replace(header.sites["sampler/latent"], shape=(1, 8, 16, 4))
    header = dataclasses.replace(header, sites={**header.sites, "sampler/latent": wide})
    recorder = StoreRecorder(tmp_path / "wide.zarr", header)
    for step in range(5):
        recorder.write("sampler/latent", np.ones(wide.shape, np.float32), step)
        recorder.complete(step)
    recorder.write("image", synthetic_run.values("image"))
    recorder.close()
    told = run("diff", path, tmp_path / "wide.zarr")
    assert told.exit_code == 1 and "1 of 1 common sites are equal" in told.stdout
    shapes = "image 1, y 8, x 8, channel 4 and image 1, y 8, x 16, channel 4"
    assert f"no distance, for the shapes differ: sampler/latent {shapes}" in told.stdout


# --- sites ---------------------------------------------------------------------------------


def test_sites_lists_shape_and_size_of_what_would_be_recorded(saved):
    told = run("sites", saved, "unet/down.0/attn.0/cross/*", "--width", 128)
    assert told.exit_code == 0
    lines = rows(told.stdout)
    weights = lines["unet/down.0/attn.0/cross/weights"]
    assert "branch 2, image 1, head 2, y 8, x 16, token 20" in weights
    assert "float16" in weights and "20.5 kB a step" in weights  # 2·2·8·16·20 numbers of 2 bytes
    assert "5 sites" in told.stdout and "sampler/latent" not in told.stdout


def test_sites_names_the_nearest_where_there_is_no_such(model, monkeypatch):
    monkeypatch.setattr(checkpoints, "outline", lambda name: model)
    told = run("sites", "mini", "unet/mid/attn.0/cross/weihgts")
    assert told.exit_code == 2 and told.stderr.count("\n") == 1
    assert f"names no site of mini; nearest: {WEIGHTS}" in told.stderr


def test_sites_marks_what_records_by_default(model, monkeypatch):
    monkeypatch.setattr(checkpoints, "outline", lambda name: model)
    told = run("sites", "mini").stdout
    marked = [line.split()[1] for line in told.splitlines() if line.startswith("*")]
    assert marked == [
        "sampler/latent", "sampler/noise_uncond", "sampler/noise_cond", "sampler/noise",
        "sampler/denoised", "sampler/added_noise", "sampler/out", "image",
    ]  # fmt: skip


# --- experiments ---------------------------------------------------------------------------


def test_every_shipped_script_is_listed_with_its_question():
    told = rows(run("experiments").stdout)
    names = {path.stem for path in shipped("experiments").glob("*.py")}
    assert "record_generation" in names and names <= set(told)
    assert all(told[name].endswith("?") for name in names)


def test_an_experiment_gets_its_arguments_and_its_exit_status_is_ours(monkeypatch, tmp_path):
    script = tmp_path / "why.py"
    script.write_text('"""Why?"""\nimport sys\nprint(sys.argv[1:], __name__)\nsys.exit(3)\n')
    monkeypatch.setattr(cli, "shipped_experiments", lambda: {"why": script})
    told = run("experiment", "why", "--help", "--seed", 7, "x")
    assert told.exit_code == 3
    assert told.stdout == "['--help', '--seed', '7', 'x'] __main__\n"
    assert run("experiments").stdout.split() == ["experiment", "question", "why", "Why?"]
