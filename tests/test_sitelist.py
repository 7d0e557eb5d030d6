"""What is said of a recording beforehand is what is then recorded."""

from __future__ import annotations

import pytest

from xray import sitelist
from xray.checkpoints import outline, save
from xray.pixels import pixels_of
from xray.taps import SiteError

ASKED = {"steps": 1, "width": 128, "height": 64, "eta": 0.5, "record": ["**"]}


@pytest.fixture(scope="module")
def trace(model):
    return model.generate("a red star", **ASKED)


def layout(spec):
    return spec.dims, spec.shape, spec.dtype, spec.per_step


def test_the_list_of_sites_is_what_a_run_records(model, trace):
    listed = sitelist.sites_of(model, width=128, height=64)
    recorded = {site: layout(spec) for site, spec in trace.specs.items()}
    in_a_run = {s: layout(spec) for s, spec in listed.items() if not s.startswith("encoder/")}
    assert in_a_run == recorded
    _, encoder = model.encoder.record("**", pixels_of(trace.image))
    shapes = {s: spec.shape for s, spec in listed.items() if s.startswith("encoder/")}
    assert shapes == {s: x.shape for s, x in encoder.items()}


def test_a_model_without_weights_has_the_same_sites(model, tmp_path):
    save(model, tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    listed, expected = (sitelist.sites_of(m) for m in (outline(tmp_path), model))
    assert {s: layout(spec) for s, spec in listed.items()} == {
        s: layout(spec) for s, spec in expected.items()
    }


def test_a_plan_is_the_recording_to_the_byte(model, trace):
    plan = model.plan("a red star", **ASKED)
    planned = {s: layout(spec) for s, spec in plan.header.sites.items()}
    assert planned == {s: layout(spec) for s, spec in trace.specs.items()}
    assert plan.nbytes == trace.nbytes
    assert plan.header.steps == trace.steps and plan.header.timesteps == trace.timesteps


def test_by_default_is_what_a_run_records_when_not_told(model):
    size = {"width": 128, "height": 64}
    plan = model.plan("a red star", steps=1, eta=0.5, **size)
    listed = [s for s in sitelist.sites_of(model, **size) if sitelist.by_default(s)]
    assert "sampler/added_noise" in listed and listed == list(plan.header.sites)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"record": ["sampler/latnt"]}, SiteError, "sampler/latent"),
        ({"steps": 0}, ValueError, "steps"),
        ({"width": 100}, ValueError, "width"),
        ({"sampler": "dim"}, ValueError, "ddim"),
    ],
)
def test_a_plan_refuses_what_a_run_refuses(model, wrong, error, said):
    for does in (model.generate, model.plan):
        with pytest.raises(error, match=said):
            does("a red star", **(ASKED | wrong))


def test_sizes_that_the_network_cannot_take_are_refused(model):
    with pytest.raises(ValueError, match="height must be a multiple of 64, got 96"):
        sitelist.sites_of(model, height=96)
