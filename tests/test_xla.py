"""Under XLA a run keeps the same promises; in one file, since compiling takes most of the time."""

from __future__ import annotations

import numpy as np
import pytest

import xray
from xray import edits
from xray.taps import EditError, edit

PROMPT = "a red star above a blue moon"
SKIP = "unet/up.1/skip.0"


def run(model, *edit, **kwargs):
    return model.generate(PROMPT, **{"steps": 3, "seed": 7, **kwargs}, edit=list(edit))


def equal(a, b, *sites):
    return all(np.array_equal(a[site].values, b[site].values) for site in sites)


@pytest.fixture(scope="module")
def xla_model(tiny, tokenizer):
    return xray.load(tiny, weights=None, tokenizer=tokenizer, jit=True)


@pytest.fixture(scope="module")
def nothing(xla_model):
    """The run that records no site."""
    return run(xla_model, record=[])


@pytest.fixture(scope="module")
def plain(model):
    """The same run of the same weights, not under XLA."""
    return run(model)


def test_recording_everything_changes_no_bit(xla_model, nothing, plain):
    everything = run(xla_model, record=["**"])
    assert equal(nothing, everything, "sampler/out", "image")
    # Every latent follows from the one before, so that the last being equal says it of all; those
    # of the run that records nothing are started from again.
    for step in everything.steps[1:]:
        latent = everything.sel("sampler/latent", step=step).values
        rest = run(xla_model, record=[], latent=latent, start_step=step)
        assert equal(nothing, rest, "sampler/out", "image")
    found, expected = (t["sampler/latent"].values for t in (everything, plain))
    assert np.abs(found - expected).max() <= 1e-4 * expected.std()


def test_an_edit_compiles_once_and_does_the_same(xla_model, nothing):
    one = run(xla_model, edit(SKIP, edits.scale, factor=1.0), record=[])
    assert equal(one, nothing, "sampler/out", "image")
    before = xla_model.unet.traces
    none = run(xla_model, edit(SKIP, edits.scale, factor=0.0), record=[])
    late = run(xla_model, edit(SKIP, edits.scale, factor=0.0, steps=[2], branch="cond"), record=[])
    assert xla_model.unet.traces == before
    assert not equal(none, nothing, "image") and not equal(late, none, "sampler/out")


def test_a_position_that_is_not_there_is_refused(xla_model):
    """XLA itself would take the last without a word."""
    off = edit("text/layer.0/out", edits.scale_tokens, tokens=[3, 20], factor=0.0)
    with pytest.raises(EditError, match="names token 3, 20; there are 0 … 19"):
        xla_model.plan(PROMPT, edit=off)


def test_a_trace_of_another_mode_is_not_replayed(xla_model, plain):
    with pytest.raises(ValueError, match="with mode .*False.* and this model has .*True"):
        xla_model.replay(plain)
