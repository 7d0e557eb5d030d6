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


def loaded_by(code):
    """The modules that Python has loaded after `code`."""
    code += "\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not result.returncode, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_importing_it_imports_nothing_heavy():
    loaded = loaded_by("import xray; dir(xray); xray.__version__")
    assert not loaded & {*HEAVY, "numpy"}


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("taps samplers tokenizer", ["tensorflow", "xarray", "zarr", "matplotlib"]),
        ("tensor stats pictures", ["tensorflow", "zarr", "matplotlib"]),
        ("trace recorder store", ["tensorflow", "matplotlib"]),
        ("environment resources checkpoints", HEAVY),
    ],
)
def test_modules_import_only_what_they_stand_on(modules, absent):
    loaded = loaded_by("\n".join(f"import xray.{module}" for module in modules.split()))
    assert not loaded & set(absent)


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
