"""What a user of `DebugTensor` relies on: arithmetic by position, honest labels, nothing lost."""

import errno
import operator
import tempfile
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from xray.tensor import DebugTensor

DIMS = ("step", "y", "x", "channel")
OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.lt, operator.eq]
floats = st.floats(-1e3, 1e3, width=32)


def labelled(values, dims=None, **attrs):
    """A tensor with the coordinate 0, 10, 20, … along every dimension."""
    values = np.asarray(values)
    dims = DIMS[: values.ndim] if dims is None else dims
    coords = {dim: 10 * np.arange(size) for dim, size in zip(dims, values.shape, strict=True)}
    return DebugTensor(values, dims, coords, **attrs)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@st.composite
def arrays(draw, min_dims=1, dtype=np.float32, elements=floats):
    shape = draw(hnp.array_shapes(min_dims=min_dims, max_dims=4, min_side=1, max_side=5))
    return draw(hnp.arrays(dtype, shape, elements=elements))


# -------------------------------------------------------------------- operators, by position


@given(arrays(), st.data())
def test_operators_equal_numpys_on_any_two_slices(values, data):
    length = data.draw(st.integers(0, len(values)))
    first, second = (data.draw(st.integers(0, len(values) - length)) for _ in range(2))
    function = data.draw(st.sampled_from(OPERATORS))
    tensor = labelled(values)
    a, b = (slice(start, start + length) for start in (first, second))
    with np.errstate(all="ignore"):
        result, expected = function(tensor[a], tensor[b]), function(values[a], values[b])
    assert isinstance(result, DebugTensor)
    assert result.dims == tensor.dims and result.dtype == expected.dtype
    np.testing.assert_array_equal(result.values, expected)


@given(arrays())
def test_successive_differences_keep_all_but_one(values):
    tensor = labelled(values)
    difference = tensor[1:] - tensor[:-1]
    assert len(difference) == len(values) - 1
    np.testing.assert_array_equal(difference.values, np.diff(values, axis=0))


@given(arrays(), st.data())
def test_indexing_equals_numpys_and_labels_follow(values, data):
    key = data.draw(hnp.basic_indices(values.shape, allow_newaxis=False))
    tensor = labelled(values)
    part = tensor[key]
    np.testing.assert_array_equal(part.values, values[key])
    # By the labels that came along, also the single ones, the same part is found again.
    labels = {dim: part.coords[dim].values for dim in tensor.dims}
    np.testing.assert_array_equal(tensor.sel(**labels).values, values[key])


def test_a_coordinate_that_differs_is_dropped_and_the_others_stay():
    tensor = labelled(random(3, 2, 2))
    difference = tensor[1:] - tensor[:-1]
    assert set(difference.coords) == {"y", "x"}
    assert set((tensor[0] - tensor[1]).coords) == {"y", "x"}  # single labels, 0 and 10
    assert set((tensor - tensor).coords) == {"step", "y", "x"}


def test_a_coordinate_only_one_operand_has_stays():
    tensor = labelled(random(3, 2))
    assert set((tensor * DebugTensor(random(3, 2), DIMS[:2])).coords) == {"step", "y"}
    # … unless the other operand outgrows it.
    row = labelled(random(1, 2))
    assert set((row * DebugTensor(random(3, 2), DIMS[:2])).coords) == {"y"}


def test_origin_is_kept_where_operands_agree():
    a = labelled(random(2, 2), site="sampler/latent", prompt="a star", rgb_matrix=np.eye(5, 3))
    b = labelled(random(2, 2), site="sampler/noise", prompt="a star", rgb_matrix=np.eye(5, 3))
    result = np.exp(a - b)
    assert (result.site, result.prompt) == ("", "a star")
    np.testing.assert_array_equal(result.rgb_matrix, np.eye(5, 3))
    assert (a.isel(step=0) * 2).site == "sampler/latent"
    assert a.mean("y").site == "sampler/latent"


@pytest.mark.parametrize("dims", [("y", "step"), ("step", "x")])
def test_different_dims_are_an_error_that_names_both(dims):
    a, b = DebugTensor(random(2, 2), ("step", "y")), DebugTensor(random(2, 2), dims)
    for combine in (operator.add, DebugTensor.diff, DebugTensor.cosine):
        with pytest.raises(ValueError, match=rf"\('step', 'y'\).*\('{dims[0]}', '{dims[1]}'\)"):
            combine(a, b)


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 3, 4), (5,), (3, 3)])
def test_a_plain_array_may_not_enlarge_or_misfit_the_tensor(shape):
    with pytest.raises(ValueError, match="do not fit"):
        DebugTensor(random(3, 4), ("y", "x")) + np.ones(shape)


@given(arrays())
def test_plain_arrays_and_numbers_broadcast_from_either_side(values):
    tensor = labelled(values)
    plane = np.arange(values.shape[-1], dtype=np.float32)
    for result, expected in [
        (tensor - plane, values - plane),
        (plane - tensor, plane - values),
        (2 * tensor, 2 * values),
        (np.float32(1) - tensor, 1 - values),
        (-abs(tensor), -abs(values)),
    ]:
        assert isinstance(result, DebugTensor) and set(result.coords) == set(tensor.dims)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result.values, expected)


def test_ufuncs_with_two_results_give_two_tensors():
    fraction, whole = np.modf(labelled([1.25, -2.5]))
    assert isinstance(fraction, DebugTensor) and isinstance(whole, DebugTensor)
    assert fraction.values.tolist() == [0.25, -0.5] and whole.values.tolist() == [1, -2]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.mean(x, axis=0),
        lambda x: np.max(x, axis=1),
        lambda x: np.concatenate([x, x]),
        lambda x: np.where(x > 0, x, 0),
        lambda x: np.add.reduce(x),
        lambda x: np.multiply.accumulate(x),
        lambda x: np.linalg.norm(x),
        lambda x: x @ np.asarray(x).T,
        lambda x: np.add(x, 1, out=np.empty((3, 4), np.float32)),
    ],
)
def test_every_other_numpy_function_sees_and_returns_plain_arrays(function):
    values = random(3, 4)
    result = function(labelled(values))
    assert isinstance(result, np.ndarray | np.floating)
    np.testing.assert_array_equal(result, function(values))


def test_adding_into_a_plain_array_works():
    total = np.zeros((3, 4), np.float32)
    total += labelled(random(3, 4))
    np.testing.assert_array_equal(total, random(3, 4))


def test_a_dataarray_is_taken_by_position_too():
    tensor = labelled(random(3))
    shifted = xr.DataArray(random(3), dims="step", coords={"step": [10, 20, 30]})
    result = tensor + shifted
    np.testing.assert_array_equal(result.values, 2 * tensor.values)
    assert not set(result.coords)
    with pytest.raises(ValueError, match="'step'.*'y'"):
        tensor + shifted.rename(step="y")


def test_truth_and_numbers_work_for_one_value_and_not_for_many():
    tensor = labelled([1.5, 0.0])
    assert float(tensor[0]) == 1.5 and int(tensor[0]) == 1 and not tensor[1]
    with pytest.raises(ValueError, match="ambiguous"):
        bool(tensor == tensor)
    with pytest.raises(TypeError, match="no length"):
        len(tensor[0])


# ---------------------------------------------------------------------------- the read-only buffer


def test_nothing_writes_through_a_tensor():
    tensor = labelled(random(3, 4))
    for write in [
        lambda: tensor.values.__setitem__(0, 1),
        lambda: np.asarray(tensor).__setitem__(0, 1),
        lambda: tensor[1:].values.__setitem__(0, 1),
        lambda: tensor.isel(step=[0, 1]).values.__setitem__(0, 1),
        lambda: tensor.to_xarray().__setitem__(0, 1),
        lambda: np.add.at(tensor, 0, 1),
    ]:
        with pytest.raises(ValueError, match="read-only|is a view"):
            write()
    with pytest.raises(TypeError, match="read-only.*x = x"):
        tensor += 1
    np.testing.assert_array_equal(tensor.values, random(3, 4))


def test_wrapping_copies_nothing_and_leaves_the_callers_array_writeable():
    values = random(3, 4)
    tensor = labelled(values)
    assert np.shares_memory(tensor.values, values) and np.shares_memory(np.asarray(tensor), values)
    assert np.array(tensor).flags.writeable  # a copy, as np.array always makes
    values[0] = 1


def test_changing_what_a_tensor_hands_out_does_not_change_it():
    source = xr.DataArray(random(2), dims="step", coords={"step": [0, 1]})
    tensor = DebugTensor(source, site="sampler/latent")
    tensor.to_xarray().attrs["site"] = "elsewhere"
    tensor.coords["step"] = [5, 6]
    assert tensor.site == "sampler/latent" and "site" not in source.attrs
    assert tensor.coords["step"].values.tolist() == [0, 1]


@pytest.mark.parametrize("values", [np.zeros(2, complex), np.array(["a"]), np.array([None])])
def test_what_is_no_real_number_is_refused(values):
    with pytest.raises(TypeError, match="real numbers, not"):
        DebugTensor(values, ("x",))


@pytest.mark.parametrize("dims", [None, (), ("y",), ("y", "y"), ("y", "x", "z")])
def test_dims_must_name_every_dimension_once(dims):
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        DebugTensor(np.zeros((2, 3)), dims)


# -------------------------------------------------------------------------------------- selection


def test_sel_by_label_by_slice_of_labels_and_by_second_coordinate():
    values = random(4, 2)
    steps = {"step": [3, 4, 5, 6], "timestep": ("step", [900.5, 600.0, 300.0, 1.0])}
    tensor = DebugTensor(values, ("step", "x"), steps)
    np.testing.assert_array_equal(tensor.sel(step=5).values, values[2])
    np.testing.assert_array_equal(tensor.sel(step=slice(4, 6)).values, values[1:])
    np.testing.assert_array_equal(tensor.sel(step=[6, 3]).values, values[[3, 0]])
    np.testing.assert_array_equal(tensor.sel(timestep=900.5).values, values[0])
    np.testing.assert_array_equal(tensor.isel(step=-1, x=[1]).values, values[-1, [1]])


def test_sel_says_which_labels_there_are():
    tensor = labelled(random(3, 2), site="sampler/latent")
    with pytest.raises(KeyError, match="no step 7 in sampler/latent; there are 0, 10, 20"):
        tensor.sel(step=7)
    with pytest.raises(ValueError, match="no coordinate 'branch'.*step, y"):
        tensor.sel(branch="cond")


def test_a_coordinate_beside_a_dimension_takes_one_label():
    values = xr.DataArray(random(2, 3), dims=("step", "y"))
    tensor = DebugTensor(values.assign_coords(timestep=("step", [900.0, 500.0])))
    for several in ([900.0, -5.0], [900.0, 500.0, 1.0], slice(900, 500)):
        with pytest.raises(ValueError, match=r"timestep takes one label here.*\(step, y\)"):
            tensor.sel(timestep=several)


def test_sel_does_not_take_a_position_for_a_label_that_was_dropped():
    tensor = labelled(random(3, 2))
    with pytest.raises(ValueError, match=r"isel\(step=position\)"):
        (tensor[1:] - tensor[:-1]).sel(step=1)


@pytest.mark.parametrize("key", [[0, 1], None, True, np.array([0]), "step", 1.0])
def test_only_positions_index(key):
    with pytest.raises(TypeError, match="is no position"):
        labelled(random(3, 2))[key]


WORDS = ["<start>", "a", "red", "star", "star", "above", "a", "con", "con", "<end>"]
INDEX = [-1, 0, 1, 2, 3, 4, 5, 6, 6, -1]  # "a red star star above a con", the last of two tokens


def attention(index=True, dtype=np.float32):
    coords = {"token": np.arange(10), "word": ("token", WORDS)}
    coords |= {"word_index": ("token", INDEX)} if index else {}
    weights = np.arange(40, dtype=dtype).reshape(2, 2, 10)
    return weights, DebugTensor(weights, ("head", "y", "token"), coords)


def test_a_word_is_the_sum_of_its_tokens():
    weights, tensor = attention()
    word = tensor.word("CON")
    assert word.dims == ("head", "y")
    np.testing.assert_array_equal(word.values, weights[..., 7] + weights[..., 8])
    np.testing.assert_array_equal(tensor.word("red").values, weights[..., 2])
    np.testing.assert_array_equal(tensor.sel(word="red").values, weights[..., 2])


def test_equal_words_are_two_places_even_side_by_side():
    weights, tensor = attention()
    for occurrence, token in enumerate([3, 4]):
        part = tensor.word("star", occurrence=occurrence)
        np.testing.assert_array_equal(part.values, weights[..., token])
    np.testing.assert_array_equal(tensor.word("a", 1).values, weights[..., 6])


def test_an_ambiguous_word_lists_its_occurrences():
    _, tensor = attention()
    message = "'a' occurs 2 times.*occurrence=0: token 1; occurrence=1: token 6"
    with pytest.raises(ValueError, match=message):
        tensor.word("a")
    with pytest.raises(ValueError, match="there is no occurrence 2"):
        tensor.word("a", occurrence=2)
    with pytest.raises(ValueError, match="there is no occurrence -1"):
        tensor.word("a", occurrence=-1)
    for repeated in ("a", "con"):
        with pytest.raises(ValueError, match=r"occurs 2 times.*use \.word"):
            tensor.sel(word=repeated)
    with pytest.raises(KeyError, match="no word 'moon'.*red, star, above"):
        tensor.word("moon")


def test_without_word_index_adjacent_tokens_of_a_word_are_one_occurrence():
    weights, tensor = attention(index=False)
    np.testing.assert_array_equal(tensor.word("star").values, weights[..., 3:5].sum(-1))


def test_half_precision_weights_are_summed_in_single():
    _, tensor = attention(dtype=np.float16)
    assert tensor.word("con").dtype == np.float32


def test_a_broken_weight_of_a_word_stays_visible():
    weights, tensor = attention()
    broken = DebugTensor(np.where(weights == 7, np.nan, weights), tensor.dims, tensor.coords)
    assert np.isnan(broken.word("con").values[0, 0])


def test_word_needs_words():
    with pytest.raises(ValueError, match="no coordinate 'word'"):
        labelled(random(2, 2)).word("star")
    with pytest.raises(ValueError, match="no coordinate 'word' along its tokens"):
        attention()[1].word("red").word("red")


@given(arrays(min_dims=3), st.data())
def test_a_tile_is_the_rectangle_and_remembers_where_it_was(values, data):
    y, x = (data.draw(st.integers(0, size - 1)) for size in values.shape[1:3])
    h = data.draw(st.integers(1, values.shape[1] - y))
    w = data.draw(st.integers(1, values.shape[2] - x))
    tile = labelled(values).tile((y, x), (h, w))
    np.testing.assert_array_equal(tile.values, values[:, y : y + h, x : x + w])
    assert tile.coords["y"].values[0] == 10 * y
    with pytest.raises(ValueError, match="does not lie within"):
        labelled(values).tile((y, x), (h, values.shape[2] - x + 1))


@pytest.mark.parametrize("dims", [("y", "x", "channel"), ("channel", "x", "y")])
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_mask_puts_nan_outside_whatever_the_order_of_dims(dims, factor):
    values = random(4, 8, 3)
    mask = random(4, 8, seed=1) > 0
    tensor = DebugTensor(values, ("y", "x", "channel")).transpose(*dims)
    large = mask.repeat(factor, 0).repeat(factor, 1)
    masked = tensor.mask(large).transpose("y", "x", "channel")
    np.testing.assert_array_equal(masked.values, np.where(mask[..., None], values, np.nan))
    assert masked.dtype == np.float32
    inside = values[mask]
    assert masked.mean() == pytest.approx(inside.mean(), abs=1e-6)


def test_a_mask_shrinks_by_majority_and_grows_by_repeating():
    tensor = DebugTensor(np.ones((2, 2), np.float16), ("y", "x"))
    quarters = np.array([[1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 0, 0], [1, 1, 0, 0]], bool)
    expected = [[True, False], [True, False]]  # half of a block counts, a quarter does not
    assert np.isfinite(tensor.mask(quarters).values).tolist() == expected
    halves = np.array([[True], [False]])
    assert np.isfinite(tensor.mask(halves).values).tolist() == [[True, True], [False, False]]
    with pytest.raises(ValueError, match="a mask of 3×2 does not fit 2×2"):
        tensor.mask(np.ones((3, 2), bool))
    with pytest.raises(TypeError, match="bool mask"):
        tensor.mask(np.ones((2, 2)))
    with pytest.raises(TypeError, match="no NaN"):
        DebugTensor(np.ones((2, 2), int), ("y", "x")).mask(np.ones((2, 2), bool))


def test_a_mask_may_be_a_comparison():
    tensor = DebugTensor(random(4, 6), ("y", "x"))
    masked = tensor.mask((tensor > 0).transpose("x", "y"))
    assert masked.min() > 0


# ------------------------------------------------------------------------------------- statistics


@given(arrays(), st.data())
def test_reductions_equal_numpys_along_named_dims(values, data):
    tensor = labelled(values)
    dims = data.draw(st.lists(st.sampled_from(tensor.dims), unique=True))
    assume(len(dims) < values.ndim)
    axis = tuple(tensor.dims.index(dim) for dim in dims)
    exact = values.astype(np.float64)
    for name, function in {
        "mean": np.mean,
        "std": np.std,
        "sum": np.sum,
        "min": np.min,
        "max": np.max,
        "norm": lambda v, axis: np.sqrt(np.sum(v**2, axis=axis)),
    }.items():
        result = getattr(tensor, name)(dims)
        assert isinstance(result, DebugTensor) and result.dtype == np.float32
        assert result.dims == tuple(dim for dim in tensor.dims if dim not in dims)
        np.testing.assert_allclose(result.values, function(exact, axis=axis), 1e-6, 1e-6)
        everything = getattr(tensor, name)()
        assert isinstance(everything, float)
        np.testing.assert_allclose(everything, function(exact, axis=None), 1e-6, 1e-6)


def test_reductions_leave_nan_out_and_do_not_overflow():
    half = DebugTensor(np.full((1000, 2), 1000, np.float16), ("step", "x"))
    assert half.sum() == 2e6 and half.norm() == pytest.approx(1000 * 2000**0.5)
    values = np.linspace(-1, 1, 4096) / 3000 + 1 / 4096
    for scale in (1, 2**20):  # whose squares are nothing, and infinite, in half precision
        half = DebugTensor((values * scale).astype(np.float16), ("x",))
        expected = half.values.astype(np.float64).std()
        assert half.std() == pytest.approx(expected) == half.describe()["std"]
    gaps = DebugTensor([[1.0, np.nan], [3.0, np.nan]], ("step", "x"))
    assert gaps.mean() == 2 and gaps.max() == 3
    np.testing.assert_array_equal(gaps.mean("step").values, [2, np.nan])
    with pytest.raises(ValueError, match="no dimension 'head'; it has step, x"):
        gaps.mean("head")


def test_describe_counts_what_is_not_a_number_and_describes_the_rest():
    values = np.array([[1, 2, np.nan], [3, np.inf, -np.inf]], np.float32)
    facts = DebugTensor(values, ("y", "x"), site="unet/out").describe()
    assert (facts["nan"], facts["inf"]) == (1, 2)
    assert (facts["min"], facts["max"], facts["mean"]) == (1, 3, 2)
    assert facts["std"] == pytest.approx(np.std([1, 2, 3]))
    assert facts["normality"]["mean"] == 2
    assert (facts["site"], facts["shape"], facts["nbytes"]) == ("unet/out", (2, 3), 24)
    assert (facts["dims"], facts["dtype"]) == (("y", "x"), "float32")


@pytest.mark.parametrize("values", [np.full((2, 2), np.nan), np.zeros((0, 3))])
def test_describe_of_nothing_is_nan_not_an_error(values):
    facts = DebugTensor(values, ("y", "x")).describe()
    assert facts["nan"] == values.size
    assert all(np.isnan(facts[name]) for name in ("min", "max", "mean", "std"))
    assert np.isnan(facts["normality"]["ks"])


def test_histogram_ignores_nan_and_bins_half_precision_finely():
    values = np.linspace(0, 1, 1001).astype(np.float16)
    values[:10] = np.nan
    counts, edges = DebugTensor(values, ("x",)).histogram(bins=10, range=(0, 1))
    assert counts.sum() == 991 and len(edges) == 11 and edges[1] == pytest.approx(0.1, abs=1e-9)


@given(arrays(), st.floats(-4, 4).filter(lambda x: abs(x) > 1e-3))
def test_cosine_ignores_positive_scale_and_flips_with_sign(values, factor):
    assume(np.abs(values).max() > 1e-3)
    tensor = labelled(values)
    assert tensor.cosine(tensor * factor) == pytest.approx(np.sign(factor), abs=1e-5)


def test_cosine_along_a_dim_keeps_the_others_and_their_shared_labels():
    a, b = labelled(random(3, 4)), labelled(random(3, 4, seed=1))
    result = a.cosine(b, "y")
    expected = [
        np.dot(p, q) / np.linalg.norm(p) / np.linalg.norm(q) for p, q in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(result.values, expected, rtol=1e-6)
    assert set(result.coords) == {"step"}
    shifted = DebugTensor(b.values, b.dims, {"step": [7, 8, 9]})
    assert set(a.cosine(shifted, "y").coords) == set()


def test_diff_is_measured_against_the_other():
    b = np.array([0, 0, 3, 4], np.float32)
    result = labelled(b + np.float32([0, 0, 0, 0.5])).diff(labelled(b))
    assert result["max_abs"] == 0.5 and result["rms"] == 0.25
    assert result["relative_rms"] == pytest.approx(0.25 / 2.5)
    assert result["max_over_std"] == pytest.approx(0.5 / np.std(b))
    assert result["cosine"] == pytest.approx((9 + 18) / (5 * np.hypot(3, 4.5)))
    assert result["equal"] is False


@given(arrays(elements=st.floats(width=32)))
def test_a_tensor_equals_itself_whatever_it_holds(values):
    result = labelled(values).diff(values.copy())
    assert result["equal"] and result["max_abs"] == 0 and result["rms"] == 0


def test_equal_means_bits():
    zero = DebugTensor(np.zeros(2, np.float32), ("x",))
    assert not zero.diff(-zero)["equal"] and zero.diff(-zero)["max_abs"] == 0
    assert not zero.diff(np.zeros(2))["equal"]  # another type
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        zero.diff(np.zeros(3))


def test_nan_on_one_side_only_is_not_hidden():
    a, b = labelled([1.0, np.nan]), labelled([1.0, 2.0])
    for result in (a.diff(b), b.diff(a)):
        assert np.isnan(result["max_abs"]) and np.isnan(result["rms"]) and not result["equal"]
        assert np.isnan(result["cosine"])


# ------------------------------------------------------------------------------ saving and loading


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([np.float16, np.float32, np.float64, np.int32, np.uint8, np.bool_]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))
    )
)
def test_saving_and_loading_keeps_every_bit(values):
    tensor = labelled(values, site="unet/out", prompt=["a", "b"], rgb_matrix=random(5, 3))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tensor.zarr"
        tensor.save(path)
        loaded = DebugTensor.load(path)
    assert loaded.diff(tensor)["equal"]
    xr.testing.assert_identical(loaded.to_xarray(), tensor.to_xarray().rename("value"))
    np.testing.assert_array_equal(loaded.rgb_matrix, random(5, 3))


@pytest.mark.filterwarnings("error")
def test_plain_xarray_opens_what_is_saved_without_a_warning(tmp_path):
    weights, tensor = attention()
    tensor.save(tmp_path / "t.zarr")
    with xr.open_zarr(tmp_path / "t.zarr") as opened:
        np.testing.assert_array_equal(opened["value"], weights)
        assert opened["value"].dims == tensor.dims
        assert opened["word"].values.tolist() == WORDS
    loaded = DebugTensor.load(tmp_path / "t.zarr")
    np.testing.assert_array_equal(loaded.word("con").values, tensor.word("con").values)


def test_how_another_store_packed_the_values_does_not_matter(tmp_path):
    packed = {"value": {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -1}}
    source = xr.Dataset({"value": (("step", "x"), random(6, 4))})
    source.to_zarr(tmp_path / "old.zarr", zarr_format=2, encoding=packed)
    with xr.open_zarr(tmp_path / "old.zarr") as opened:
        tensor = DebugTensor.from_xarray(opened["value"])
    tensor.save(tmp_path / "new.zarr")
    assert DebugTensor.load(tmp_path / "new.zarr").diff(tensor)["equal"]


def test_saving_never_overwrites(tmp_path):
    (tmp_path / "t.zarr").write_text("precious")
    with pytest.raises(FileExistsError, match="t.zarr exists"):
        labelled(random(2)).save(tmp_path / "t.zarr")
    assert (tmp_path / "t.zarr").read_text() == "precious"


def test_a_save_that_fails_leaves_nothing_and_can_be_tried_again(tmp_path, monkeypatch):
    tensor, path = labelled(random(2, 3)), tmp_path / "t.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(xr.Dataset, "to_zarr", half_written)
        with pytest.raises(OSError, match="No space left"):
            tensor.save(path)
    assert not list(tmp_path.iterdir())
    tensor.save(path)
    assert DebugTensor.load(path).diff(tensor)["equal"]


def half_written(self, store, **kwargs):
    (store / "value").mkdir(parents=True)
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("values", [np.full((2, 3), np.nan, np.float32), random(2, 3)])
def test_a_saved_tensor_that_lost_a_file_is_damaged_and_not_nan(tmp_path, values):
    tensor, path = labelled(values), tmp_path / "t.zarr"
    tensor.save(path)
    assert DebugTensor.load(path).diff(tensor)["equal"]
    chunk = next(file for file in (path / "value" / "c").rglob("*") if file.is_file())
    chunk.unlink()
    with pytest.raises(ValueError, match=r"t.zarr is damaged: 1 of 1 chunks of value are missing"):
        DebugTensor.load(path)


def test_loading_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing at"):
        DebugTensor.load(tmp_path / "missing.zarr")
    (tmp_path / "text.zarr").write_text("hello")
    xr.Dataset({"value": ("x", [1.0])}).to_zarr(
        tmp_path / "foreign.zarr", zarr_format=3, consolidated=False
    )
    for foreign in ("text.zarr", "foreign.zarr"):
        with pytest.raises(ValueError, match="is not a saved DebugTensor"):
            DebugTensor.load(tmp_path / foreign)
    labelled(random(2)).save(tmp_path / "newer.zarr")
    metadata = tmp_path / "newer.zarr" / "zarr.json"
    text = metadata.read_text()
    metadata.write_text(text.replace('"xray_tensor": 1', '"xray_tensor": 2'))
    with pytest.raises(ValueError, match="format 2.*upgrade"):
        DebugTensor.load(tmp_path / "newer.zarr")
    metadata.write_text(text)
    (chunk,) = (tmp_path / "newer.zarr" / "value" / "c").rglob("0")
    chunk.write_bytes(chunk.read_bytes()[:5])
    with pytest.raises(ValueError, match="is damaged"):
        DebugTensor.load(tmp_path / "newer.zarr")


def test_xarray_and_back_is_the_same():
    tensor = labelled(random(2, 3), site="unet/out", model="mini", prompt="a star")
    again = DebugTensor.from_xarray(tensor.to_xarray())
    xr.testing.assert_identical(again.to_xarray(), tensor.to_xarray())
    assert (again.site, again.model, again.prompt) == ("unet/out", "mini", "a star")
