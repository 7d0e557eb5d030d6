"""A model with one network in memory at a time computes the same, and refuses what needs all."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import xray
from xray import architecture, memory
from xray.checkpoints import building, native, room
from xray.networks import variables
from xray.resources import shipped

RUN = {"prompt": "a red star above a blue moon", "steps": 2, "seed": 1}


@pytest.fixture(scope="module")
def low():
    return xray.load("mini", memory="low")


def held(low, mini):
    """The networks whose weights are there."""
    return [
        name
        for name, net in low.networks.items()
        if all(
            np.array_equal(v.numpy(), variables(name, mini.networks[name])[key].numpy())
            for key, v in variables(name, net).items()
        )
    ]


def test_a_run_has_the_same_bits(low, mini):
    sites = ["sampler/*", "**/out"]
    all_there = mini.generate(record=sites, **RUN)
    one_at_a_time = low.generate(record=sites, **RUN)
    assert one_at_a_time.attrs["memory"] == "low" and all_there.attrs["memory"] == "fast"
    assert all(row.equal for row in xray.diff(all_there, one_at_a_time).rows)
    assert low.replay(all_there).equal  # where weights lie is no part of what decides the bits


def test_only_the_network_that_ran_last_is_in_memory(low, mini):
    low.decode(np.zeros((1, 16, 16, 4), np.float32))
    assert held(low, mini) == ["decoder"]
    low.embed("a red star")
    assert held(low, mini) == ["text"]


def test_letting_go_that_is_interrupted_is_not_taken_for_done(low, monkeypatch):
    low.embed("a red star")
    text = low.text(np.ones((1, 24), np.int32))
    with monkeypatch.context() as patch:
        patch.setattr(architecture, "unwritten", interrupted)
        with pytest.raises(KeyboardInterrupt):
            low.decoder(np.zeros((1, 16, 16, 4), np.float32))
    read, assign = [], building.assign
    monkeypatch.setattr(building, "assign", lambda *a: read.append(list(a[0])) or assign(*a))
    np.testing.assert_array_equal(low.text(np.ones((1, 24), np.int32)), text)
    assert read == [["text"]]


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_parts_read_their_weights_again(low):
    latent = np.random.default_rng(0).standard_normal((1, 16, 16, 4), np.float32)
    before = low.decoder(latent)
    low.embed("a red star")
    np.testing.assert_array_equal(low.decoder(latent), before)


def test_weights_that_changed_on_disk_are_not_read_under_the_old_digest(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(shipped("weights") / "mini", folder)
    model = xray.load(folder, memory="low")
    model.embed("a red star")
    (folder / "weights.safetensors").touch()
    with pytest.raises(ValueError, match="weights.safetensors was changed or removed"):
        model.decode(np.zeros((1, 16, 16, 4), np.float32))


def test_what_needs_all_weights_is_refused(low, tmp_path):
    for act in (
        lambda: native.save(low, tmp_path / "saved"),
        lambda: xray.checkpoints.export_diffusers(low, tmp_path / "exported"),
        lambda: low.load_lora(tmp_path / "lora.safetensors"),
        lambda: low.load_textual_inversion(tmp_path / "word.safetensors"),
    ):
        with pytest.raises(ValueError, match='memory="fast"'):
            act()
    assert not list(tmp_path.iterdir())


def test_random_weights_cannot_be_read_again(tiny):
    with pytest.raises(ValueError, match="random"):
        xray.load(tiny, weights=None, memory="low")
    with pytest.raises(ValueError, match="'quick' is not one of auto, low, fast"):
        xray.load("mini", memory="quick")


# --- which of the two ------------------------------------------------------------------------


@pytest.fixture
def checkpoint():
    from xray.checkpoints import open_checkpoint

    return open_checkpoint("mini")


def test_auto_goes_by_the_whole_machine_and_says_why(checkpoint, monkeypatch, capsys):
    fast, low = room.needed(checkpoint, "float32")
    assert low < fast
    monkeypatch.setattr(memory, "available", lambda: 10 * fast)
    for total, mode in ((None, "fast"), (int(fast / 0.69), "fast"), (int(fast / 0.71), "low")):
        monkeypatch.setattr(memory, "total", lambda total=total: total)
        assert room.choose("auto", checkpoint, "float32") == mode
        assert room.choose("fast", checkpoint, "float32") == "fast"
        said = capsys.readouterr().err
        assert ("one network in memory at a time" in said) == (mode == "low")


def test_too_little_free_memory_is_refused_with_what_would_fit(checkpoint, monkeypatch):
    fast, low = room.needed(checkpoint, "float32")
    monkeypatch.setattr(memory, "available", lambda: (fast + low) // 2)
    with pytest.raises(ValueError, match='is free: memory="low" takes'):
        room.choose("fast", checkpoint, "float32")
    assert room.choose("low", checkpoint, "float32") == "low"
    monkeypatch.setattr(memory, "available", lambda: low // 2)
    with pytest.raises(ValueError, match="end other programs first"):
        room.choose("low", checkpoint, "float32")


def test_random_weights_that_have_no_room_are_refused_before_they_are_drawn(monkeypatch):
    monkeypatch.setattr(building, "_QuickNormal", None)
    monkeypatch.setattr(memory, "available", lambda: 4 * 10**9)
    # 1.07 billion numbers of four bytes, and what a run takes beside.
    with pytest.raises(
        ValueError, match=r'takes about 5\.96 GB .* 4 GB is free: dtype="float16" takes 3\.83'
    ):
        xray.load("sd-v1-4", weights=None)


def test_a_container_has_no_more_than_its_share(monkeypatch):
    machine = memory.total()
    assert machine is not None and machine > 10**9
    monkeypatch.setattr(memory, "_limits", lambda: [10**9, 2 * 10**9])
    assert memory.total() == 10**9
