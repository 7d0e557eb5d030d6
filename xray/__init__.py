"""diffusion-xray: see what happens inside Stable Diffusion, on a CPU laptop.

    import xray

    model = xray.load("mini")
    trace = model.generate("a red star above a blue moon", seed=7, record=["sampler/*"])
    trace.image
    trace["sampler/latent"].sel(step=12).image("rgb")

Importing it loads nothing heavy: each name below is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Where each public name lives. Submodules stand for themselves.
_NAMES = {
    "load": "xray.checkpoints",
    "from_keras_cv": "xray.checkpoints",
    "Architecture": "xray.architecture",
    "DebugTensor": "xray.tensor",
    "Generator": "xray.generator",
    "Trace": "xray.trace",
    "TraceError": "xray.store",
    "open": "xray.trace",
    "diff": "xray.trace",
    "edit": "xray.taps",
    "observe": "xray.taps",
    "EditError": "xray.taps",
    "SiteError": "xray.taps",
    "PromptTooLong": "xray.tokenizer",
}
_MODULES = ("edits", "plots", "samplers", "wordmaps")

if TYPE_CHECKING:
    from xray import edits, plots, samplers, wordmaps
    from xray.architecture import Architecture
    from xray.checkpoints import from_keras_cv, load
    from xray.generator import Generator
    from xray.store import TraceError
    from xray.taps import EditError, SiteError, edit, observe
    from xray.tensor import DebugTensor
    from xray.tokenizer import PromptTooLong
    from xray.trace import Trace, diff, open

__all__ = [*_NAMES, *_MODULES]


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"xray.{name}")
    raise AttributeError(f"module 'xray' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
