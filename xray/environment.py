"""What must hold of the Python environment before TensorFlow is imported."""

from __future__ import annotations

import importlib.metadata
import os
import sys

TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tf-nightly", "tf-nightly-cpu")
RECORDED = ("diffusion-xray", "keras", "keras-cv", "numpy", *TENSORFLOWS)


class EnvironmentProblem(RuntimeError):
    """The installed packages cannot work together; the message says what to type."""


def check_environment() -> None:
    """Refuse an environment in which TensorFlow or Keras would fail later, and less clearly.

    Raises:
        EnvironmentProblem: two distributions of TensorFlow, which overwrite each other's files;
            or Keras on another backend. Where only Keras' own configuration names another, it is
            told by $KERAS_BACKEND to use TensorFlow.
    """
    found = [name for name in TENSORFLOWS if name in versions()]
    if len(found) > 1:
        raise EnvironmentProblem(
            f"{' and '.join(found)} are installed at once and overwrite each other's files. "
            f"Keep one: pip uninstall -y {' '.join(found)} && pip install {found[-1]}"
        )
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if backend != "tensorflow":
        raise EnvironmentProblem(
            f"KERAS_BACKEND is {backend!r}; the networks here are TensorFlow: "
            "unset it or set it to 'tensorflow'"
        )
    os.environ["KERAS_BACKEND"] = backend
    keras = sys.modules.get("keras")
    if keras and keras.backend.backend() != backend:
        raise EnvironmentProblem(
            f"Keras was imported with the backend {keras.backend.backend()!r}; the networks here "
            "are TensorFlow: set KERAS_BACKEND=tensorflow before anything imports Keras"
        )


def versions() -> dict[str, str]:
    """Versions of the packages on which the bits of a run depend, those that are installed."""
    found = {}
    for name in RECORDED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
