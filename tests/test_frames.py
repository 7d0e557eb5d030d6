"""Frames on disk: whole or not there, and never those of two films together."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import xray
from xray.frames import Frames

SETTINGS = {"prompt": ("a red star",), "steps": 25, "guidance": 5.0, "width": None}


def picture(value):
    return Image.fromarray(np.full((16, 24, 3), value, np.uint8))


@pytest.fixture
def frames(tmp_path):
    return Frames(tmp_path / "film" / "frames", SETTINGS)


def test_what_is_kept_comes_back_to_the_bit(frames):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    latent = np.random.default_rng(0).standard_normal((2, 3, 4), np.float32)
    frames.keep(3, Image.fromarray(pixels), latent=latent)
    np.testing.assert_array_equal(np.asarray(frames.picture(3)), pixels)
    np.testing.assert_array_equal(frames.array(3, "latent"), latent)
    assert frames.array(3, "latent").dtype == np.float32
    assert Image.open(frames.folder / "0003.png").size == (24, 16)


def test_missing_are_those_that_are_not_there(frames):
    for index in (0, 2, 7):
        frames.keep(index, picture(index))
    assert frames.missing(6) == [1, 3, 4, 5]


def test_the_same_settings_go_on_and_others_are_refused_by_name(frames):
    frames.keep(0, picture(9))
    again = Frames(frames.folder, {**SETTINGS, "prompt": ["a red star"]}, resume=True)
    assert again.missing(2) == [1]
    for change, said in [
        ({"steps": 30}, "made with steps 25, not 30"),
        ({"prompt": ["a fish"]}, r"made with prompt \['a red star'\], not \['a fish'\]"),
        ({"width": 64}, "made with width None, not 64"),
        ({"word": "star"}, "made with word None, not 'star'"),
    ]:
        with pytest.raises(ValueError, match=said):
            Frames(frames.folder, SETTINGS | change, resume=True)
    fewer = {name: value for name, value in SETTINGS.items() if name != "guidance"}
    with pytest.raises(ValueError, match="made with guidance 5.0, not None"):
        Frames(frames.folder, fewer, resume=True)
    assert again.missing(2) == [1]  # and nothing was lost by asking


def test_an_earlier_film_is_not_taken_over_unasked(frames):
    with pytest.raises(ValueError, match="holds the frames of an earlier film"):
        Frames(frames.folder, SETTINGS)


@pytest.mark.parametrize("resume", [False, True])
def test_frames_of_which_nobody_knows_the_settings_are_not_taken_over(frames, resume):
    frames.keep(0, picture(9))
    (frames.folder / "settings.json").unlink()
    with pytest.raises(ValueError, match="pictures without the settings.json"):
        Frames(frames.folder, SETTINGS, resume=resume)
    assert not (frames.folder / "settings.json").exists()


def test_to_resume_where_nothing_is_begins(tmp_path):
    assert Frames(tmp_path / "new", SETTINGS, resume=True).missing(2) == [0, 1]


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_damaged_settings_are_named(frames, text):
    (frames.folder / "settings.json").write_text(text)
    with pytest.raises(ValueError, match="settings.json is damaged"):
        Frames(frames.folder, SETTINGS, resume=True)


def test_a_damaged_frame_is_named_and_said_how_to_mend(frames):
    frames.keep(4, picture(1), latent=np.zeros(3))
    for name, use in [
        ("0004.png", lambda: frames.picture(4)),
        ("0004.npz", lambda: frames.array(4, "latent")),
    ]:
        path = frames.folder / name
        path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(ValueError, match=f"{name} cannot be read .* remove it"):
            use()
        path.unlink()
        assert frames.missing(5)[-1] == 4
        frames.keep(4, picture(1), latent=np.zeros(3))
        assert 4 not in frames.missing(5)


def test_nothing_is_ever_unpickled(frames):
    frames.keep(0, picture(1))
    np.savez(frames.folder / "0000.npz", latent=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="0000.npz cannot be read"):
        frames.array(0, "latent")


def test_a_full_disk_leaves_no_half_frame(frames):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError):
            frames.keep(0, Image.fromarray(pixels), latent=np.zeros(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert frames.missing(1) == [0]
    assert not list(frames.folder.glob(".*"))


def test_a_kill_in_the_middle_leaves_whole_frames_only(frames):
    code = (
        "import sys, numpy as np\n"
        "from PIL import Image\n"
        "from xray.frames import Frames\n"
        f"frames = Frames(sys.argv[1], {SETTINGS!r}, resume=True)\n"
        "pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)\n"
        "for index in range(10_000):\n"
        "    frames.keep(index, Image.fromarray(pixels), latent=pixels)\n"
        "    print(index, flush=True)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, frames.folder],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(Path(xray.__file__).parents[1])},
    )
    said = [int(writer.stdout.readline()) for _ in range(20)][-1]
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    again = Frames(frames.folder, SETTINGS, resume=True)
    there = again.missing(10_000)[0]
    assert there > said
    for index in range(there):
        assert again.picture(index).size == (256, 256)
        assert again.array(index, "latent").shape == (256, 256, 3)
