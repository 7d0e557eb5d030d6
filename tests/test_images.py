"""Pictures to put in: every kind of file comes out as people see it, or is refused in one line."""

from __future__ import annotations

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from xray.images import ImageError, caption, check_image, load_image

RED, GREEN, BLUE = (220, 30, 20), (30, 160, 60), (20, 40, 200)


def halves(left=RED, right=BLUE, size=(64, 32)):
    """A picture (width, height) of two colours side by side."""
    pixels = np.empty((size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2], pixels[:, size[0] // 2 :] = left, right
    return Image.fromarray(pixels)


def saved(picture, path, **settings):
    picture.save(path, **settings)
    return path


def assert_halves(pixels, left=RED, right=BLUE, tolerance=8):
    """Away from the seam, each half is of its colour."""
    width = pixels.shape[1]
    for part, colour in (
        (pixels[:, : width // 2 - 4], left),
        (pixels[:, width // 2 + 4 :], right),
    ):
        assert np.abs(part.astype(int) - colour).max() <= tolerance


def png_header(width, height):
    """A PNG that ends after saying how large it is."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT"


# --- sizes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (64, 192)])
@pytest.mark.parametrize("source", ["china", "flower", "scene:7"])
def test_every_source_comes_in_the_size_asked_for(source, size):
    pixels = load_image(source, *size)
    assert (pixels.shape, pixels.dtype) == ((size[1], size[0], 3), np.uint8)
    assert pixels.std() > 10


def test_a_picture_of_the_right_size_stays_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    path = saved(Image.fromarray(pixels), tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(path, 128, 64), pixels)
    np.testing.assert_array_equal(load_image(str(path), 128, 64), pixels)


def test_it_is_cut_about_the_middle_not_squeezed(tmp_path):
    pixels = np.zeros((90, 300, 3), np.uint8)
    pixels[:, 105:195] = 255  # the middle 90 columns
    path = saved(Image.fromarray(pixels), tmp_path / "a.png")
    assert load_image(path, 64, 64).min() > 200


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (7, 3)])
def test_small_and_narrow_pictures_are_enlarged(tmp_path, size):
    path = saved(Image.new("RGB", size, GREEN), tmp_path / "a.png")
    assert (load_image(path, 128, 64) == GREEN).all()


def test_scenes_are_drawn_at_the_size_asked_for():
    from xray.miniature.scenes import image, scene

    np.testing.assert_array_equal(load_image("scene:7", 256, 256), image(scene(7), 256))
    assert not np.array_equal(load_image("scene:7", 64, 64), load_image("scene:8", 64, 64))


def test_only_scenes_have_a_caption():
    from xray.miniature.scenes import scene

    assert caption("scene:7") == scene(7).caption
    assert caption("china") == caption("scene:x") == ""


def test_the_result_is_the_callers_own():
    load_image("scene:1", 64, 64)[:] = 0
    assert load_image("scene:1", 64, 64).any()


# --- kinds of files --------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tif", "gif", "ppm"])
def test_common_formats(tmp_path, ending):
    path = saved(halves(), tmp_path / f"a.{ending}")
    assert_halves(load_image(path, 128, 64), tolerance=20)


# How to undo each of EXIF's orientations: what Pillow must do to the upright picture so that the
# file with this orientation shows it.
TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", [1, *TURNED])
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_it_is_turned_as_its_exif_data_say(tmp_path, orientation, ending):
    upright = np.array(halves())
    upright[:8] = GREEN  # a stripe on top
    stored = Image.fromarray(upright)
    if orientation in TURNED:
        stored = stored.transpose(TURNED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings = {"quality": 100, "subsampling": 0} if ending == "jpg" else {}
    path = saved(stored, tmp_path / f"a.{ending}", exif=exif, **settings)
    shown = load_image(path, 64, 32)
    assert np.abs(shown.astype(int) - upright).mean() < 3


def test_cmyk(tmp_path):
    path = saved(halves().convert("CMYK"), tmp_path / "a.jpg", quality=95)
    assert Image.open(path).mode == "CMYK"
    assert_halves(load_image(path, 128, 64), tolerance=20)


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("brightest", [65535, 32768, 600])
def test_16_bits_keep_their_brightness(tmp_path, ending, brightest):
    values = np.full((64, 64), brightest // 2, np.uint16)
    values[:, 32:] = brightest
    pixels = load_image(saved(Image.fromarray(values), tmp_path / f"a.{ending}"), 64, 64)
    np.testing.assert_array_equal(
        pixels, np.rint(values / 257).astype(np.uint8)[..., None] + [0] * 3
    )


def test_32_bits_and_floats(tmp_path):
    ramp = np.tile(np.linspace(0, 1, 64), (64, 1))
    expected = np.repeat(np.rint(255 * ramp).astype(np.uint8)[..., None], 3, axis=-1)
    for name, values in {
        "float": ramp.astype(np.float32),
        "of 8 bits": np.rint(ramp * 255).astype(np.int32),
        "of 16 bits": np.rint(ramp * 65535).astype(np.int32),
    }.items():
        path = saved(Image.fromarray(values), tmp_path / f"{name}.tif")
        assert np.abs(load_image(path, 64, 64) - expected.astype(int)).max() <= 1, name


@pytest.mark.parametrize("values", [[-1.0, 1.0], [0.0, 900.0], [0.0, np.nan]])
def test_floats_of_no_known_scale_are_refused(tmp_path, values):
    path = saved(Image.fromarray(np.float32([values])), tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif.*grey levels.*8 or 16 bits"):
        load_image(path, 64, 64)


def see_through(mode):
    """Red, of which the right half is not there."""
    picture = halves(RED, (0, 0, 0)).convert("RGBA")
    alpha = np.array(picture)
    alpha[:, 32:, 3] = 0
    picture = Image.fromarray(alpha)
    if mode == "P":
        return picture.quantize(4)
    return picture.convert(mode)


@pytest.mark.parametrize(
    ("mode", "left"), [("RGBA", RED), ("LA", (86, 86, 86)), ("P", RED)], ids=["RGBA", "LA", "P"]
)
def test_transparency_lies_on_white(tmp_path, mode, left):
    path = saved(see_through(mode), tmp_path / "a.png")
    assert_halves(load_image(path, 64, 32), left, (255, 255, 255))


def test_a_colour_that_stands_for_transparency(tmp_path):
    for ending in ("png", "gif"):
        picture = halves(RED, BLUE) if ending == "png" else halves(RED, BLUE).quantize(2)
        what = BLUE if ending == "png" else picture.getpixel((60, 10))
        path = saved(picture, tmp_path / f"a.{ending}", transparency=what)
        assert_halves(load_image(path, 64, 32), RED, (255, 255, 255))


def test_half_transparency_is_mixed_with_white(tmp_path):
    path = saved(Image.new("RGBA", (8, 8), (0, 0, 0, 128)), tmp_path / "a.png")
    assert (load_image(path, 64, 64) == 127).all()


def test_palettes_and_single_bits(tmp_path):
    path = saved(halves().quantize(2), tmp_path / "palette.png")
    assert Image.open(path).mode == "P"
    assert_halves(load_image(path, 64, 32))
    path = saved(halves((255,) * 3, (0,) * 3).convert("1"), tmp_path / "bits.png")
    assert Image.open(path).mode == "1"
    assert_halves(load_image(path, 64, 32), (255,) * 3, (0,) * 3)


def test_of_a_camera_s_file_with_previews_the_picture_itself_is_taken(tmp_path):
    path = tmp_path / "a.mpo"
    halves().save(path, save_all=True, append_images=[Image.new("RGB", (64, 32), GREEN)])
    with Image.open(path) as file:
        assert (file.format, file.n_frames) == ("MPO", 2)
    assert_halves(load_image(path, 64, 32), tolerance=20)


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
def test_animations_and_pages_are_refused(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    frames = [Image.new("RGB", (8, 8), colour) for colour in (GREEN, BLUE)]
    halves(size=(8, 8)).save(path, save_all=True, append_images=frames)
    for look in (check_image, lambda p: load_image(p, 64, 64)):
        with pytest.raises(ImageError, match=rf"a\.{ending} holds 3 pictures.*save one of them"):
            look(path)


@pytest.mark.parametrize("size", [(10_001, 10_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_huge_pictures_are_refused_before_decoding(tmp_path, size):
    path = tmp_path / "a.png"
    path.write_bytes(png_header(*size))  # decoding would complain of the missing rest
    for look in (check_image, lambda p: load_image(p, 64, 64)):
        with pytest.raises(ImageError, match=r"a\.png has .*pixels; make it smaller.*100 million"):
            look(path)


def test_large_pictures_below_the_limit_pass_without_a_warning(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_header(10_000, 10_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_image(path)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp", "gif", "bmp"])
def test_a_truncated_file_is_refused(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = saved(Image.fromarray(noise), tmp_path / f"a.{ending}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ImageError, match=rf"a\.{ending}"):
        load_image(path, 64, 64)


@pytest.mark.filterwarnings("ignore")
def test_damage_anywhere_is_our_error_or_a_picture(tmp_path):
    """Whatever a decoder raises on a damaged file, it comes out as one kind."""
    random = np.random.default_rng(1)
    noise = random.integers(0, 256, (16, 16, 3), np.uint8)
    for ending in ("png", "jpg", "tif", "webp", "gif", "bmp"):
        path = saved(Image.fromarray(noise), tmp_path / f"a.{ending}")
        whole = path.read_bytes()
        for _ in range(30):
            broken = bytearray(whole)
            for at in random.integers(0, len(broken), 4):
                broken[at] = random.integers(256)
            path.write_bytes(broken)
            try:
                assert load_image(path, 8, 8).shape == (8, 8, 3)
            except ImageError as error:
                assert str(path) in str(error)


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture\n" * 100)
    (tmp_path / "empty.png").touch()
    for name in ("notes.txt", "empty.png"):
        for look in (check_image, lambda p: load_image(p, 64, 64)):
            with pytest.raises(ImageError, match=f"{name} is no picture.*PNG or JPEG"):
                look(tmp_path / name)


def test_what_is_not_there_is_refused(tmp_path):
    for source in (tmp_path / "a.png", tmp_path, "scene:", "scene:x", "scene:-1", "China", ""):
        for look in (check_image, lambda s: load_image(s, 64, 64)):
            with pytest.raises(
                FileNotFoundError, match="no picture at .*china, flower.*scene:SEED"
            ):
                look(source)


def test_what_is_at_hand_needs_no_check():
    for source in ("china", "flower", "scene:7"):
        check_image(source)
