"""Films: what was written is what a decoder finds, and nothing half-written is ever left."""

from __future__ import annotations

import errno
import weakref
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xray import video

RED, GREEN, BLUE, BROWN = (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 100, 30)
WRITERS = {"mp4": video.write_mp4, "gif": video.write_gif}


def plain(colour, width=64, height=48):
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3)).copy()


def moving(count, width=64, height=48):
    """A white bar that goes from left to right."""
    for index in range(count):
        pixels = np.zeros((height, width, 3), np.uint8)
        at = index * (width - 8) // max(count - 1, 1)
        pixels[:, at : at + 8] = 255
        yield pixels


@pytest.fixture(params=WRITERS)
def kind(request):
    return request.param


@pytest.fixture
def write(kind):
    return WRITERS[kind]


# --- decoded again -------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [12, 25, 23.976, 7.5, Fraction(30000, 1001)])
def test_an_mp4_has_the_frames_the_rate_and_the_size_it_was_given(tmp_path, fps):
    assert video.write_mp4(tmp_path / "a.mp4", moving(30), fps=fps) == 30
    film = video.probe(tmp_path / "a.mp4")
    assert (film.frames, film.width, film.height) == (30, 64, 48)
    assert film.fps == pytest.approx(float(fps), rel=1e-6)
    assert film.seconds == pytest.approx(30 / float(fps), rel=1e-3)


def test_every_frame_of_an_mp4_stays_equally_long(tmp_path):
    video.write_mp4(tmp_path / "a.mp4", moving(40), fps=23.976)
    with av.open(str(tmp_path / "a.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(np.diff(times), 1001 / 24000, atol=1e-6)


def test_an_mp4_is_of_the_kind_that_browsers_play(tmp_path):
    video.write_mp4(tmp_path / "a.mp4", moving(3), fps=12)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.codec_context.colorspace == av.video.reformatter.Colorspace.ITU709
        assert [s.type for s in container.streams] == ["video"]
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays while it loads


def test_frames_come_back_in_order_and_in_their_colours(kind, write, tmp_path):
    colours = [RED, GREEN, BLUE, BROWN, (10, 20, 30), (255, 255, 255), (0, 0, 0)]
    write(tmp_path / f"a.{kind}", map(plain, colours), fps=12)
    found = [frame.reshape(-1, 3) for frame in video.read(tmp_path / f"a.{kind}")]
    for colour, pixels in zip(colours, found, strict=True):
        np.testing.assert_allclose(pixels, np.tile(colour, (len(pixels), 1)), atol=4)


def test_a_moving_thing_is_where_it_was_in_every_frame(kind, write, tmp_path):
    write(tmp_path / f"a.{kind}", moving(20), fps=12)
    for sent, found in zip(moving(20), video.read(tmp_path / f"a.{kind}"), strict=True):
        assert np.abs(sent.astype(float) - found).mean() < 3


@settings(max_examples=30)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    kind=st.sampled_from(["mp4", "gif"]),
)
def test_any_size_can_be_written_and_an_mp4_becomes_even(width, height, kind, tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / f"a.{kind}"
    WRITERS[kind](path, moving(3, width, height), fps=12)
    even = kind == "mp4"
    film = video.probe(path)
    assert film.width == width + (even and width % 2)
    assert film.height == height + (even and height % 2)


def test_an_odd_side_repeats_its_last_line(tmp_path):
    pixels = np.zeros((33, 31, 3), np.uint8)
    pixels[-1], pixels[:, -1] = 255, 255
    video.write_mp4(tmp_path / "a.mp4", [pixels], fps=1)
    (found,) = video.read(tmp_path / "a.mp4")
    assert found.shape == (34, 32, 3)
    assert found[-2:].mean() > 240 and found[:, -2:].mean() > 240 and found[:30, :28].mean() < 15


def test_pil_images_of_any_mode_are_taken(kind, write, tmp_path):
    frames = [Image.new("RGB", (32, 32), RED), Image.new("L", (32, 32), 128)]
    assert write(tmp_path / f"a.{kind}", frames, fps=2) == 2
    first, second = video.read(tmp_path / f"a.{kind}")
    np.testing.assert_allclose(first[5, 5], RED, atol=3)
    np.testing.assert_allclose(second[5, 5], (128, 128, 128), atol=3)


def test_the_seam_says_how_far_the_end_is_from_the_beginning(kind, write, tmp_path):
    path = tmp_path / f"a.{kind}"
    write(path, [plain(RED), plain(GREEN), plain(RED)], fps=12)
    assert video.probe(path).seam < 2
    write(path, [plain(RED), plain(GREEN), plain(BLUE)], fps=12)
    assert video.probe(path).seam == pytest.approx(2 / 3 * 255, abs=2)


# --- GIF's own ways ------------------------------------------------------------------------


def durations(path):
    with Image.open(path) as film:
        for index in range(film.n_frames):
            film.seek(index)
            yield film.info["duration"]


def test_a_gif_keeps_time_where_its_clock_does_not_divide_the_rate(tmp_path):
    video.write_gif(tmp_path / "a.gif", moving(48), fps=12)
    stays = list(durations(tmp_path / "a.gif"))
    assert set(stays) == {80, 90} and sum(stays) == 4000
    passed = np.cumsum(stays)
    np.testing.assert_allclose(passed, 1000 / 12 * np.arange(1, 49), atol=5)


def test_a_gif_repeats_for_ever_and_holds_equal_frames_once(tmp_path):
    colours = [RED, RED, RED, GREEN, BLUE, BLUE, RED]
    assert video.write_gif(tmp_path / "a.gif", map(plain, colours), fps=10) == 7
    assert list(durations(tmp_path / "a.gif")) == [300, 100, 200, 100]
    with Image.open(tmp_path / "a.gif") as film:
        assert film.info["loop"] == 0
    film = video.probe(tmp_path / "a.gif")
    assert (film.frames, film.seconds) == (4, pytest.approx(0.7))


def test_each_frame_of_a_gif_has_colours_of_its_own(tmp_path):
    ramps = []
    for channel in range(3):
        ramps.append(np.zeros((16, 240, 3), np.uint8))
        ramps[-1][..., channel] = np.arange(240)
    video.write_gif(tmp_path / "a.gif", ramps, fps=10)
    for sent, found in zip(ramps, video.read(tmp_path / "a.gif"), strict=True):
        np.testing.assert_allclose(found, sent, atol=2)


def test_fewer_colours_make_a_smaller_gif_that_is_still_the_picture(tmp_path):
    ramp = np.zeros((64, 128, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(128), np.arange(64)[:, None]
    sizes = []
    for colours in (256, 32):
        path = tmp_path / f"{colours}.gif"
        video.write_gif(path, [ramp], fps=10, colours=colours)
        (found,) = video.read(path)
        assert len(np.unique(found.reshape(-1, 3), axis=0)) <= colours
        assert np.abs(found.astype(float) - ramp).mean() < 9
        sizes.append(path.stat().st_size)
    assert sizes[1] < 0.6 * sizes[0]
    for colours in (1, 257):
        with pytest.raises(ValueError, match=f"2 … 256 colours, got {colours}"):
            video.write_gif(tmp_path / "a.gif", [ramp], fps=10, colours=colours)


def test_a_gif_faster_than_players_show_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at most 50 frames per second, got 60"):
        video.write_gif(tmp_path / "a.gif", moving(3), fps=60)


# --- one at a time -------------------------------------------------------------------------


def test_frames_are_never_all_in_memory(kind, write, tmp_path):
    alive, most = set(), 0

    def watched():
        nonlocal most
        for index, pixels in enumerate(moving(60)):
            alive.add(index)
            weakref.finalize(pixels, alive.discard, index)
            yield pixels
            del pixels
            most = max(most, len(alive))

    assert write(tmp_path / f"a.{kind}", watched(), fps=12) == 60
    assert most <= 5


def test_reading_takes_one_frame_at_a_time(tmp_path):
    video.write_mp4(tmp_path / "a.mp4", moving(30), fps=12)
    frames = video.read(tmp_path / "a.mp4")
    assert next(frames).shape == (48, 64, 3)
    frames.close()


def test_what_comes_before_the_damage_is_read(tmp_path):
    video.write_mp4(tmp_path / "a.mp4", moving(30), fps=12)
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(content[:-300])  # its last frames
    frames = video.read(tmp_path / "a.mp4")
    assert next(frames).shape == (48, 64, 3)
    with pytest.raises(ValueError, match="cannot be read as a film"):
        list(frames)


# --- what is refused, and what is left -----------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([], "at least one frame"),
        ([plain(RED), plain(RED, width=66)], "frame 1 is 66×48, and those before it 64×48"),
        ([np.zeros((4, 4), np.uint8)], r"frame 0 is not a picture: .* uint8 \(4, 4\)"),
        ([plain(RED) / 255.0], "frame 0 is not a picture: .* float64"),
    ],
)
def test_what_makes_no_film_is_refused_and_leaves_nothing(kind, write, frames, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        write(tmp_path / f"a.{kind}", frames, fps=12)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1000, "12", None, True])
def test_a_rate_that_is_none_is_refused(write, fps, tmp_path):
    with pytest.raises(ValueError, match="fps must be 0.1 … 240, got"):
        write(tmp_path / "a", moving(2), fps=fps)


def test_an_error_while_frames_are_made_keeps_the_film_that_was_there(kind, write, tmp_path):
    path = tmp_path / f"a.{kind}"
    write(path, moving(3), fps=12)
    before = path.read_bytes()

    def broken(error):
        yield from moving(20)
        raise error

    for error in (KeyboardInterrupt(), RuntimeError("no more"), OSError(5, "no", "frame.png")):
        with pytest.raises(type(error)) as raised:
            write(path, broken(error), fps=12)
        assert raised.value is error  # of a frame, and not of the film
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_is_an_error_that_names_the_film_wherever_it_strikes(kind, write, tmp_path):
    def noise():
        random = np.random.default_rng(0)
        for _ in range(8):
            yield random.integers(0, 256, (48, 64, 3), np.uint8)

    resource = pytest.importorskip("resource")
    path = tmp_path / f"a.{kind}"
    write(path, noise(), fps=12)
    size = path.stat().st_size
    path.unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 100, size // 2, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(OSError) as error:
                write(path, noise(), fps=12)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(path))
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(write, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere to write a.mp4 to"):
        write(tmp_path / "nowhere" / "a.mp4", moving(2), fps=12)


def test_what_is_no_film_cannot_be_read(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"not a film at all" * 100)
    for use in (video.probe, lambda path: next(video.read(path))):
        with pytest.raises(ValueError, match="a.mp4 cannot be read as a film"):
            use(tmp_path / "a.mp4")
        with pytest.raises(FileNotFoundError, match="no film at"):
            use(tmp_path / "b.mp4")


def test_a_film_cut_short_is_an_error_and_not_a_shorter_film(tmp_path):
    video.write_mp4(tmp_path / "a.mp4", moving(60), fps=12)
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(ValueError, match="cannot be read as a film"):
        video.probe(tmp_path / "a.mp4")
