"""`import xray` is light, and every public name is there when it is used."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

import xray

HEAVY = [
    "tensorflow",
    "keras",
    "keras_cv",
    "matplotlib",
    "xarray",
    "zarr",
    "sklearn",
    "PIL",
    "typer",
]


# One after the other in one process, so that each is allowed what the ones before it are.
STAGES = [
    ("xray; dir(xray); xray.__version__", [*HEAVY, "numpy"]),
    ("xray.environment, xray.resources, xray.checkpoints", HEAVY),
    ("xray.taps, xray.samplers, xray.tokenizer", ["tensorflow", "xarray", "zarr", "matplotlib"]),
    ("xray.tensor, xray.stats, xray.pictures", ["tensorflow", "zarr", "matplotlib"]),
    ("xray.trace, xray.recorder, xray.store", ["tensorflow", "matplotlib"]),
    ("xray.plots", ["tensorflow", "matplotlib.pyplot"]),
]


@pytest.fixture(scope="module")
def loaded():
    """The modules that Python has loaded after each stage."""
    told = "print(json.dumps(sorted(sys.modules)))"
    code = "\n".join(["import sys, json", *(f"import {stage}\n{told}" for stage, _ in STAGES)])
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not result.returncode, result.stderr
    return [set(json.loads(line)) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("stage", range(len(STAGES)), ids=[modules for modules, _ in STAGES])
def test_modules_import_only_what_they_stand_on(loaded, stage):
    assert "xray" in loaded[stage] and not loaded[stage] & set(STAGES[stage][1])


@pytest.mark.parametrize("name", xray.__all__)
def test_every_public_name_is_there(name):
    assert getattr(xray, name) is getattr(xray, name)
    assert name in dir(xray)


def test_public_names_are_documented():
    for name in xray.__all__:
        assert (getattr(xray, name).__doc__ or "").strip(), f"xray.{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'xray' has no attribute 'lod'"):
        _ = xray.lod


def test_the_version_is_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+", xray.__version__)
