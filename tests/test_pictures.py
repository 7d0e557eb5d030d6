"""Pictures of tensors, pixel by pixel, and how a tensor shows itself."""

import base64
import io
import re

import hypothesis.extra.numpy as hnp
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray import card, pictures
from xray.tensor import DebugTensor, fit_rgb_matrix

MATRIX = np.array([[0.3, 0.2, 0.1], [0.1, -0.3, 0.2], [0, 0.1, -0.3], [-0.2, 0, 0], [0.1, 0, -0.1]])
MAGENTA = [255, 0, 255]


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def maps(values, *outer, **attrs):
    return DebugTensor(np.asarray(values), (*outer, "y", "x", "channel"), **attrs)


def pixels(image):
    return np.asarray(image)


# -------------------------------------------------------------------------------------------- rgb


@given(st.lists(st.floats(-2, 2, width=32), min_size=4, max_size=4))
def test_a_constant_latent_has_the_colour_of_the_formula(channels):
    latent = np.broadcast_to(np.float32(channels), (3, 5, 4))
    colour = np.clip(np.float32(channels).astype(float) @ MATRIX[:4] + MATRIX[4], -1, 1)
    shown = pixels(maps(latent).image("rgb", matrix=MATRIX, scale=1))
    assert shown.shape == (3, 5, 3)
    assert np.all(np.abs(shown - (colour + 1) * 127.5) <= 0.5 + 1e-9)


def test_a_tensor_uses_its_own_matrix_after_selection_and_arithmetic():
    latent = maps(random(2, 6, 6, 4), "step", rgb_matrix=MATRIX)
    shown = (latent.isel(step=1) * 0.5).image("rgb")
    plain = maps(latent.values[1] * np.float32(0.5)).image("rgb", matrix=MATRIX.astype(np.float32))
    np.testing.assert_array_equal(pixels(shown), pixels(plain))


def test_three_channels_are_colours_already():
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), np.uint8)
    np.testing.assert_array_equal(pixels(maps(image, "image").image("rgb", scale=1)), image[0])
    decoded = image.astype(np.float32) / 127.5 - 1
    np.testing.assert_array_equal(pixels(maps(decoded, "image").image("rgb", scale=1)), image[0])


def test_without_a_matrix_that_fits_rgb_says_what_to_do():
    with pytest.raises(ValueError, match="no rgb_matrix.*fit_rgb_matrix"):
        maps(random(4, 4, 4)).image("rgb")
    with pytest.raises(ValueError, match=r"8 channels.*\(9, 3\), not \(5, 3\).*'pca'"):
        maps(random(4, 4, 8), rgb_matrix=MATRIX).image("rgb")


def test_fitting_finds_the_matrix_pictures_were_made_with():
    latents = random(3, 6, 5, 4) * 0.5
    blocks = latents @ MATRIX[:4] + MATRIX[4]
    images = blocks.repeat(8, axis=1).repeat(8, axis=2)
    images += np.tile([[0.1, -0.1], [-0.1, 0.1]], (24, 20))[..., None]  # gone in a block's mean
    found = fit_rgb_matrix(latents, images)
    assert found.shape == (5, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, MATRIX, atol=1e-6)


def test_fitting_takes_uint8_pictures_as_minus_one_to_one():
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    latents = random(2, 4, 4, 4)
    np.testing.assert_allclose(
        fit_rgb_matrix(latents, images), fit_rgb_matrix(latents, images / 127.5 - 1), atol=1e-6
    )


@pytest.mark.parametrize("shape", [(2, 32, 33, 3), (1, 32, 32, 3), (2, 32, 32, 4), (2, 32, 64, 3)])
def test_fitting_refuses_pictures_that_do_not_belong(shape):
    with pytest.raises(ValueError, match="whole blocks"):
        fit_rgb_matrix(np.zeros((2, 4, 4, 4)), np.zeros(shape))


# -------------------------------------------------------------------------------------------- pca


def test_pca_shows_the_direction_of_most_variance_in_red():
    strong, weak = random(8, 8) * 5, random(8, 8, seed=1)
    values = strong[..., None] * np.eye(6)[2] + weak[..., None] * np.eye(6)[4]
    shown = pixels(maps(values).image("pca", scale=1)).astype(float)
    assert abs(np.corrcoef(shown[..., 0].ravel(), strong.ravel())[0, 1]) > 0.99
    assert abs(np.corrcoef(shown[..., 1].ravel(), weak.ravel())[0, 1]) > 0.95
    assert np.ptp(shown[..., 0]) > 2 * np.ptp(shown[..., 1])  # one scale for all
    assert np.all(shown[..., 2] == 128)  # there is no third


@given(st.integers(0, 99))
def test_pca_does_not_depend_on_sign_or_offset(seed):
    values = random(4, 6, 5, seed=seed).astype(np.float64)
    shown = pixels(maps(values).image("pca")).astype(int)
    for same in (values + 3, -values):
        again = pixels(maps(same).image("pca"))
        assert np.abs(shown - again).max() <= 1


def test_pca_of_few_positions_and_of_many_agree():
    values = random(3, 3, 9)
    wide = np.concatenate([values, np.zeros((3, 3, 20), np.float32)], axis=-1)
    few, many = (pixels(maps(each).image("pca")).astype(int) for each in (wide, values))
    assert np.abs(few - many).max() <= 1


# --------------------------------------------------------------------------------------- channels


def test_latents_are_coloured_by_the_matrix_or_without_one_by_components():
    latent = np.random.default_rng(3).standard_normal((6, 5, 4), np.float32)
    matrix = np.random.default_rng(4).standard_normal((5, 3))
    found = pictures.latent_colours(latent, matrix)
    np.testing.assert_array_equal(found, pictures.rgb(latent, matrix))
    np.testing.assert_array_equal(pictures.latent_colours(latent, None), pictures.pca(latent))


def test_pca_leaves_what_it_was_given_as_it_was():
    values = np.random.default_rng(3).standard_normal((6, 5, 4)) + 2
    before = values.copy()
    pictures.pca(values)
    np.testing.assert_array_equal(values, before)


@given(hnp.arrays(np.float32, (2, 2, 4), elements=st.floats(-9, 9, width=32)))
def test_channel_maps_share_a_symmetric_scale(values):
    values[0, 0, 0] = -10
    shown = pixels(maps(values).image("channels", scale=1))
    assert shown.shape == (5, 5, 3)
    assert np.all(shown[2] == 255) and np.all(shown[:, 2] == 255)  # the lines between
    for channel, (top, left) in enumerate([(0, 0), (0, 3), (3, 0), (3, 3)]):
        grey = shown[top : top + 2, left : left + 2]
        assert np.all(grey == grey[..., :1])
        assert np.all(np.abs(grey[..., 0] - (values[..., channel] / 10 + 1) * 127.5) <= 0.501)


def test_weights_go_from_black_to_white():
    weights = DebugTensor(np.array([[0, 0.25], [0.5, 0.1]], np.float16), ("y", "x"))
    assert pixels(weights.image("channels", scale=1))[..., 0].tolist() == [[0, 128], [255, 51]]
    flags = DebugTensor(np.array([[True, False]]), ("y", "x"))
    assert pixels(flags.image("channels", scale=1))[..., 0].tolist() == [[255, 0]]


def test_one_outlier_does_not_grey_out_the_rest_nor_rounding_fill_the_scale():
    values = random(1000)
    values[0] = 15
    assert np.ptp(pictures.grey(values[None])[0, 1:].astype(int)) == 255
    values[0] = 1e4  # a tenth of it is the least that is shown as white
    assert np.ptp(pictures.grey(values[None])[0, 1:].astype(int)) <= 1


def test_what_is_missing_is_magenta_in_every_kind():
    values = random(4, 4, 4)
    values[1, 2] = np.nan
    tensor = maps(values, rgb_matrix=MATRIX)
    for kind in ("rgb", "pca"):
        shown = pixels(tensor.image(kind, scale=1))
        assert shown[1, 2].tolist() == MAGENTA
        assert np.count_nonzero((shown == MAGENTA).all(-1)) == 1
    shown = pixels(tensor.image("channels", scale=1))
    assert np.count_nonzero((shown == MAGENTA).all(-1)) == 4


# ----------------------------------------------------------------------------------------- layout


@pytest.mark.parametrize("kind", ["rgb", "pca", "channels"])
def test_the_last_other_dimension_goes_across_and_the_rest_down(kind):
    values = random(2, 1, 3, 4, 4, 4)
    tensor = maps(values, "step", "image", "head", rgb_matrix=MATRIX)
    shown = pixels(tensor.image(kind, scale=1))
    side = 9 if kind == "channels" else 4
    assert shown.shape == (2 * side + 2, 3 * side + 4, 3)
    if kind == "rgb":
        for step, head in np.ndindex(2, 3):
            top, left = step * 6, head * 6
            alone = pixels(tensor.isel(step=step, head=head).image(kind, scale=1))
            np.testing.assert_array_equal(shown[top : top + 4, left : left + 4], alone)
        assert np.all(shown[4:6] == 255)


def test_a_dimension_of_one_does_not_take_the_place_across():
    tensor = maps(random(3, 1, 4, 4, 4), "head", "image", rgb_matrix=MATRIX)
    assert tensor.image("rgb", scale=1).size == (3 * 4 + 4, 4)


def test_the_order_of_dims_does_not_matter():
    tensor = maps(random(4, 6, 4), rgb_matrix=MATRIX)
    for kind in ("rgb", "pca", "channels"):
        np.testing.assert_array_equal(
            pixels(tensor.transpose("channel", "x", "y").image(kind)), pixels(tensor.image(kind))
        )


@pytest.mark.parametrize(
    ("shape", "size"), [((16, 16), (128, 128)), ((12, 16), (176, 132)), ((200, 300), (300, 200))]
)
def test_small_pictures_are_enlarged_by_whole_pixels(shape, size):
    tensor = DebugTensor(random(*shape), ("y", "x"))
    image = tensor.image("channels")
    assert image.size == size
    factor = size[0] // shape[1]
    small = pixels(tensor.image("channels", scale=1))
    np.testing.assert_array_equal(pixels(image), small.repeat(factor, 0).repeat(factor, 1))


def test_what_cannot_be_drawn_is_refused():
    tensor = maps(random(4, 4, 4))
    with pytest.raises(ValueError, match="'heat'.*'channels'"):
        tensor.image("heat")
    with pytest.raises(ValueError, match="at least 1, not 0"):
        tensor.image("channels", scale=0)
    with pytest.raises(ValueError, match="no dimension 'y', 'x'"):
        DebugTensor(random(3, 4), ("token", "channel")).image("channels")
    with pytest.raises(ValueError, match="no dimension 'channel'"):
        DebugTensor(random(3, 4), ("y", "x")).image("pca")
    with pytest.raises(ValueError, match="nothing to draw"):
        maps(np.zeros((0, 4, 4))).image("channels")
    many = np.broadcast_to(np.float32(0), (64, 64, 64, 64))
    with pytest.raises(ValueError, match="too large to look at"):
        pictures.lay_out(np.broadcast_to(np.uint8(0), (200, 200, 64, 64, 3)))
    assert DebugTensor(many, ("key_y", "key_x", "y", "x"))._repr_html_().startswith("<div")


# --------------------------------------------------------------------------- one line, and a card


def test_repr_is_one_line_with_everything_asked_for():
    values = np.array([[[0, 1], [2, np.nan]]], np.float32)
    tensor = DebugTensor(values, ("step", "y", "x"), {"step": [12]}, site="sampler/latent")
    assert repr(tensor) == (
        "DebugTensor sampler/latent (step 1, y 2, x 2) float32 [0, 2] mean 1 std 0.816 nan 1 16 B"
    )
    assert repr(tensor[0] + np.inf) == (
        "DebugTensor sampler/latent step=12 (y 2, x 2) float32 [nan, nan] mean nan std nan "
        "nan 1 inf 3 16 B"
    )


STRANGE = [
    np.float32(3),
    np.zeros((0, 4, 4, 3)),
    np.full((2, 4, 4, 4), np.nan, np.float32),
    np.full((2, 4, 4, 4), np.inf, np.float16),
    np.array([[True, False]]),
    np.arange(7),
    np.zeros((1, 1, 5, 1)),
    np.broadcast_to(np.float64(1e300), (4, 4, 4, 4)),
    np.broadcast_to(np.float32(1), (1000, 1, 512, 512, 4)),  # 4 GB, if it were stored
]


def shown(values, dims):
    """Whether a tensor shows itself in a notebook with a picture."""
    tensor = DebugTensor(values, dims, prompt="<b>&", model="two\nlines", rgb_matrix=MATRIX)
    assert repr(tensor).startswith("DebugTensor (") and "\n" not in repr(tensor)
    page = tensor._repr_html_()
    assert page.startswith("<div") and "<b>" not in page and "&lt;b&gt;&amp;" in page
    encoded = re.search("base64,([^']+)'", page)
    if encoded:
        picture = PIL.Image.open(io.BytesIO(base64.b64decode(encoded[1])))
        assert min(picture.size) >= 16 and max(picture.size) <= 512
    return encoded is not None


@pytest.mark.parametrize("values", STRANGE, ids=lambda values: str(np.shape(values)))
def test_strange_tensors_show_themselves(values):
    dims = ("step", "image", "y", "x", "channel")[-np.ndim(values) or 5 :]
    assert shown(values, dims) == (np.size(values) > 1)


@settings(max_examples=20)
@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.int64, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0),
    ),
    st.permutations(["step", "y", "x", "channel", "token"]),
)
def test_any_small_tensor_shows_itself(values, dims):
    assert shown(values, dims[: values.ndim]) or values.size <= 1


def test_a_failure_to_show_is_shown(monkeypatch):
    def fail(tensor):
        raise RuntimeError("no <ink>")

    monkeypatch.setattr(card, "thumbnail", fail)
    page = DebugTensor(random(2, 2), ("y", "x"), site="unet/out")._repr_html_()
    assert page.startswith("<pre>DebugTensor unet/out") and "no &lt;ink&gt;" in page


def test_showing_100_mb_looks_at_a_part_and_says_so():
    tensor = maps(np.zeros((25, 64, 64, 256), np.float32), "step", site="unet/up.3/res.0/out")
    line, page = repr(tensor), tensor._repr_html_()
    assert "(sampled 204800 of 26214400)" in line and "204800 of 26214400" in page
    assert "sampled" not in repr(tensor.isel(step=0, y=0))
