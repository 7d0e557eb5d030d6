"""Two TensorFlow distributions, or another backend, are refused before they do harm."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from xray import environment
from xray.environment import EnvironmentProblem, check_environment, versions


@pytest.fixture
def installed(monkeypatch):
    """Pretend that exactly these packages are installed, all of version 1.0."""

    def pretend(*names):
        def version(name):
            if name in names:
                return "1.0"
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(environment.importlib.metadata, "version", version)

    return pretend


@pytest.mark.parametrize(
    "names", [("tensorflow-cpu",), ("tensorflow",), (), ("tensorflow-cpu", "keras", "numpy")]
)
def test_one_tensorflow_is_well(installed, names):
    installed(*names)
    check_environment()


@pytest.mark.parametrize(
    "names", [("tensorflow", "tensorflow-cpu"), ("tensorflow-cpu", "tf-nightly-cpu")]
)
def test_two_at_once_are_an_error_that_says_what_to_type(installed, names):
    installed(*names)
    with pytest.raises(EnvironmentProblem) as raised:
        check_environment()
    first, second = names
    message = str(raised.value)
    assert f"{first} and {second} are installed at once" in message
    # Both have to go: what is left of the one that is kept would be broken.
    assert f"pip uninstall -y {first} {second} && pip install {second}" in message


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(EnvironmentProblem, match="KERAS_BACKEND is 'jax'.* unset it"):
        check_environment()
    for backend in ("tensorflow", ""):
        monkeypatch.setenv("KERAS_BACKEND", backend)
        check_environment()
        assert os.environ["KERAS_BACKEND"] == "tensorflow"  # over what keras.json may say


def test_keras_that_is_here_already_on_another_backend_is_refused(monkeypatch):
    jax = SimpleNamespace(backend=SimpleNamespace(backend=lambda: "jax"))
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setitem(sys.modules, "keras", jax)
    with pytest.raises(EnvironmentProblem, match="imported with the backend 'jax'.*before"):
        check_environment()


def test_versions_are_of_what_is_installed(installed):
    assert versions()["numpy"] == importlib.metadata.version("numpy")
    installed("keras", "numpy")
    assert versions() == {"keras": "1.0", "numpy": "1.0"}


def test_it_is_noticed_before_tensorflow_is_imported():
    """Importing the wrong mixture is what fails later and less clearly."""
    code = (
        "import sys, importlib.metadata as m; real = m.version\n"
        "m.version = lambda n: '1.0' if n.startswith('tensorflow') else real(n)\n"
        "import xray\n"
        "try: xray.load('mini')\n"
        "except RuntimeError as e: print(type(e).__name__, 'tensorflow' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["EnvironmentProblem", "False"], result.stderr
