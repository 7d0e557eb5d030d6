"""Reading: a trace in memory and on disk is the same trace; a damaged one says so."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_run import SITES, header, record, values, write_step

import xray.trace
from xray.recorder import MemoryRecorder, StoreRecorder
from xray.store import Header, SiteSpec
from xray.tensor import DebugTensor
from xray.trace import TraceError, UnknownSite, diff

WEIGHTS = "unet/mid/attn.0/cross/weights"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "run.zarr"
    record(StoreRecorder(path, header()))
    return path


@pytest.fixture(scope="module", params=["memory", "disk"])
def trace(request, path):
    return record(MemoryRecorder(header())) if request.param == "memory" else xray.trace.open(path)


@pytest.fixture
def copy(path, tmp_path):
    """A trace on disk that a test may damage."""
    return shutil.copytree(path, tmp_path / "copy.zarr")


# --- what a trace gives --------------------------------------------------------------------


def test_a_site_is_a_debug_tensor_that_knows_where_it_is_from(trace):
    tensor = trace[WEIGHTS]
    assert isinstance(tensor, DebugTensor)
    assert tensor.dims == ("step", "branch", "image", "head", "y", "x", "token")
    assert (tensor.site, tensor.model, tensor.prompt) == (
        WEIGHTS, "synthetic", "a rötlicher star star",
    )  # fmt: skip
    assert tensor.dtype == np.float16
    assert trace["sampler/latent"].rgb_matrix.shape == (5, 3)
    one = tensor.sel(step=3, branch="cond").word("star", occurrence=1)
    np.testing.assert_array_equal(one.values, values(WEIGHTS, 3)[1, ..., 4])


def test_a_trace_lists_itself(trace):
    assert trace.sites == list(SITES)
    assert trace.steps == [0, 1, 2, 3, 4]
    assert trace.timesteps[1:3] == [736.375, 491.25]
    assert trace.nbytes == sum(trace[site].nbytes for site in trace.sites)
    assert (trace.status, trace.reason) == ("complete", "")
    for part in ("a rötlicher star star", "synthetic", "5 steps", "5 sites", "5.32 MB", "complete"):
        assert part in repr(trace)


def test_at_gives_every_per_step_site_of_one_step(trace):
    tensors = trace.at(2)
    assert list(tensors) == ["sampler/latent", WEIGHTS, "unet/up.1/skip.0"]
    for site, tensor in tensors.items():
        np.testing.assert_array_equal(tensor.values, values(site, 2), strict=True)


def test_a_second_label_selects_within_the_step(trace):
    part = trace.sel(WEIGHTS, step=4, branch="cond")
    np.testing.assert_array_equal(part.values, values(WEIGHTS, 4)[1], strict=True)


def test_image_and_words(trace):
    assert len(trace.images) == 1
    np.testing.assert_array_equal(np.asarray(trace.image), values("image")[0])
    assert trace.words == [
        {"word": "a", "tokens": [1], "index": 0},
        {"word": "rötlicher", "tokens": [2], "index": 1},
        {"word": "star", "tokens": [3], "index": 2},
        {"word": "star", "tokens": [4], "index": 3},
    ]


def test_words_of_several_tokens_are_one_entry():
    tokens = [("<start>", -1), ("purple", 0), ("purple", 0), ("sky", 1), ("<end>", -1)]
    described = [{"text": "", "word": word, "word_index": index} for word, index in tokens]
    attrs = {"tokens": {"cond": [described]}}
    trace = MemoryRecorder(Header([0], [1.0], {}, attrs)).close("interrupted")
    assert trace.words == [
        {"word": "purple", "tokens": [1, 2], "index": 0},
        {"word": "sky", "tokens": [3], "index": 1},
    ]


def test_replay_asks_the_model(trace):
    class Model:
        def replay(self, trace):
            return "again", trace

    assert trace.replay(Model()) == ("again", trace)


def test_what_is_not_there_is_said_with_what_is(trace):
    with pytest.raises(UnknownSite, match=r"no site 'sampler/latents'.*nearest: sampler/latent"):
        trace["sampler/latents"]
    with pytest.raises(KeyError):
        trace["sampler/latents"]
    with pytest.raises(TraceError, match="step 7 is not in this trace; complete steps: 0 to 4"):
        trace.at(7)
    with pytest.raises(TraceError, match="image is recorded once"):
        trace.sel("image", step=0)


# --- round trips ---------------------------------------------------------------------------


def test_disk_and_memory_hold_the_same(path):
    disk, memory = xray.trace.open(path), record(MemoryRecorder(header()))
    assert disk.attrs == memory.attrs
    assert (disk.steps, disk.timesteps) == (memory.steps, memory.timesteps)
    for site in disk.sites:
        assert_same(disk.lazy(site), memory.lazy(site))


def assert_same(a: xarray.DataArray, b: xarray.DataArray) -> None:
    assert a.identical(b)
    assert a.dtype == b.dtype
    assert {n: c.dtype for n, c in a.coords.items()} == {n: c.dtype for n, c in b.coords.items()}


@st.composite
def recordings(draw):
    """A header of one site of any shape, and what is recorded there."""
    steps = draw(st.integers(1, 3))
    shape = draw(st.lists(st.integers(1, 3), max_size=3))
    dims = ["y", "x", "token"][: len(shape)]
    dtype = np.dtype(draw(st.sampled_from(["bool", "uint8", "int64", "f2", "f4", "f8"])))
    bits = draw(st.binary(min_size=8 * 81, max_size=8 * 81))
    count = steps * int(np.prod(shape))
    if dtype.kind == "b":
        array = np.frombuffer(bits, "uint8")[:count] > 127
    else:
        array = np.frombuffer(bits, dtype)[:count]  # with NaN, infinities and -0.0
    coords = {}
    if "token" in dims:
        words = st.lists(st.text(max_size=8), min_size=shape[2], max_size=shape[2])
        # NumPy's own strings end before their last NUL, wherever they are kept
        coords["word"] = ("token", [word.rstrip("\0") for word in draw(words)])
    per_step = draw(st.booleans())
    spec = SiteSpec(dims, shape, dtype, per_step, coords)
    first = draw(st.integers(0, 10))
    timesteps = draw(st.lists(st.floats(0, 1e4), min_size=steps, max_size=steps))
    head = Header(range(first, first + steps), timesteps, {"a/b.0": spec})
    return head, array.reshape(steps, *shape)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recordings())
def test_any_recording_reads_back_to_the_bit(tmp_path_factory, recording):
    head, arrays = recording
    path = tmp_path_factory.mktemp("any") / "run.zarr"
    traces = []
    for recorder in (MemoryRecorder(head), StoreRecorder(path, head)):
        for step, array in enumerate(arrays):
            if head.sites["a/b.0"].per_step:
                recorder.write("a/b.0", array, step)
            recorder.complete(step)
        if not head.sites["a/b.0"].per_step:
            recorder.write("a/b.0", arrays[0])
        traces.append(recorder.close())
    memory, disk = (trace.lazy("a/b.0") for trace in traces)
    assert_same(disk, memory)
    assert traces[0].steps == traces[1].steps == head.steps
    expected = arrays if head.sites["a/b.0"].per_step else arrays[0]
    assert disk.values.tobytes() == expected.tobytes()


def test_save_writes_the_complete_steps_and_everything_else(trace, tmp_path):
    trace.save(tmp_path / "saved.zarr")
    saved = xray.trace.open(tmp_path / "saved.zarr")
    assert saved.attrs == trace.attrs
    assert saved.timesteps == trace.timesteps
    for site in trace.sites:
        assert_same(saved.lazy(site), trace.lazy(site).load())
    with pytest.raises(TraceError, match="exists already"):
        trace.save(tmp_path / "saved.zarr")


def test_save_of_an_interrupted_run_is_an_interrupted_run(tmp_path):
    recorder = MemoryRecorder(header())
    write_step(recorder, 0)
    recorder.complete(0)
    recorder.close("interrupted", "Ctrl-C").save(tmp_path / "saved.zarr")
    saved = xray.trace.open(tmp_path / "saved.zarr")
    assert (saved.steps, saved.status, saved.reason) == ([0], "interrupted", "Ctrl-C")
    assert "image" not in saved
    with pytest.raises(UnknownSite, match="the run is interrupted"):
        saved.image  # noqa: B018


def test_a_save_that_fails_leaves_nothing(copy, tmp_path):
    trace = xray.trace.open(copy)
    chunk(copy, WEIGHTS, 2).write_bytes(b"short")
    with pytest.raises(TraceError, match="damaged"):
        trace.save(tmp_path / "saved.zarr")
    assert not (tmp_path / "saved.zarr").exists()


# --- reading from disk ---------------------------------------------------------------------


def chunk(path, site, step):
    """The file of one step of a site."""
    (file,) = path.joinpath(site, "value").glob(f"c.{step}.*")
    return file


def test_one_step_is_read_without_the_others(copy):
    trace = xray.trace.open(copy)
    assert trace.lazy(WEIGHTS).shape == (5, *SITES[WEIGHTS].shape)
    chunk(copy, WEIGHTS, 0).write_bytes(b"short")
    np.testing.assert_array_equal(trace.sel(WEIGHTS, step=3).values, values(WEIGHTS, 3))
    np.testing.assert_array_equal(trace.lazy(WEIGHTS).sel(step=3).values, values(WEIGHTS, 3))
    with pytest.raises(TraceError):
        trace[WEIGHTS]


def test_a_trace_of_the_first_format_with_its_chunks_in_folders_is_read(copy, trace):
    for array in [file.parent for file in copy.rglob("zarr.json") if file.parent != copy]:
        metadata = (array / "zarr.json").read_text()
        (array / "zarr.json").write_text(metadata.replace('"separator": "."', '"separator": "/"'))
        for file in array.glob("c.*"):
            chunk = array.joinpath(*file.name.split("."))
            file.rename(array / "moving")
            chunk.parent.mkdir(parents=True, exist_ok=True)
            (array / "moving").rename(chunk)
    root = (copy / "zarr.json").read_text().replace('"separator": "."', '"separator": "/"')
    (copy / "zarr.json").write_text(root)
    edit(copy, "xray_format", 1)
    first = xray.trace.open(copy)
    for site in trace.sites:
        np.testing.assert_array_equal(first[site].values, trace[site].values)


def test_a_trace_can_be_read_while_it_is_written(tmp_path):
    recorder = StoreRecorder(tmp_path / "run.zarr", header())
    for step in range(3):
        write_step(recorder, step)
        recorder.complete(step)
    assert recorder.completed >= 2  # complete(2) waited for step 1
    trace = xray.trace.open(tmp_path / "run.zarr")
    assert trace.status == "running"
    assert trace.steps[:2] == [0, 1]
    np.testing.assert_array_equal(trace.sel(WEIGHTS, step=1).values, values(WEIGHTS, 1))
    recorder.close("interrupted")


@pytest.mark.filterwarnings("error")
def test_nothing_is_unpickled(path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a trace must not be unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    trace = xray.trace.open(path)
    for site in trace.sites:
        assert trace[site].size


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: shutil.rmtree(p), "no such trace"),
        (lambda p: (shutil.rmtree(p), p.write_text("x")), "a trace is a folder"),
        (lambda p: (shutil.rmtree(p), p.mkdir()), "holds no zarr.json"),
        (lambda p: cut(p / "zarr.json"), "is damaged: zarr.json is not whole"),
        (lambda p: (p / "zarr.json").write_text("[]"), "something else wrote"),
        (lambda p: edit(p, "xray_format", None), "something else wrote"),
        (lambda p: edit(p, "xray_format", 3), "format 3 and this version reads up to 2; upgrade"),
        (lambda p: edit(p, "sites", ["unet/gone"]), "is damaged: .*unet/gone"),
        (lambda p: shutil.rmtree(p / "complete"), "is damaged"),
        (lambda p: cut(p / "complete/c.0"), "is damaged"),
        (lambda p: cut(p / "timestep/zarr.json"), "is damaged"),
        (lambda p: (p / "complete/c.0").unlink(), "is damaged: complete/c.0 is missing"),
        (lambda p: (p / "step/c.0").unlink(), "is damaged: step/c.0 is missing"),
        (lambda p: (p / "timestep/c.0").unlink(), "is damaged: timestep/c.0 is missing"),
        (lambda p: forget_last_step(p), "is damaged: 4 of 5 steps of a complete run"),
    ],
)
def test_what_is_no_whole_trace_is_refused_when_opened(copy, damage, message):
    damage(copy)
    with pytest.raises(TraceError, match=message) as error:
        xray.trace.open(copy)
    assert str(copy) in str(error.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: cut(chunk(p, "sampler/latent", 2)),  # compressed
        lambda p: chunk(p, "sampler/latent", 2).unlink(),
        lambda p: cut(p / "sampler/latent/value/zarr.json"),
        lambda p: cut(p / "sampler/latent/timestep/c.0"),
        lambda p: (p / "sampler/latent/timestep/c.0").unlink(),
        lambda p: (p / "sampler/latent/step/c.0").unlink(),
        lambda p: shutil.rmtree(p / "sampler/latent"),
    ],
)
def test_a_damaged_site_is_refused_when_read_and_the_others_are_not(copy, damage):
    damage(copy)
    trace = xray.trace.open(copy)
    with pytest.raises(TraceError, match=r"copy.zarr is damaged: .*sampler/latent"):
        trace["sampler/latent"]
    np.testing.assert_array_equal(trace.sel(WEIGHTS, step=2).values, values(WEIGHTS, 2))


def test_a_lost_picture_of_a_complete_run_is_damage_and_of_another_is_not(copy):
    (copy / "image/value/c.0.0.0.0").unlink()
    with pytest.raises(TraceError, match="is damaged: image/value/c.0.0.0.0 is missing"):
        _ = xray.trace.open(copy).image
    edit(copy, "status", "interrupted")
    with pytest.raises(UnknownSite, match=r"no site 'image'.*interrupted"):
        _ = xray.trace.open(copy).image


def test_a_trace_does_not_read_what_was_put_in_its_place(tmp_path):
    path = tmp_path / "run.zarr"
    before = record(StoreRecorder(path, header()))
    before["sampler/latent"]
    after = record(StoreRecorder(path, header(), overwrite=True))
    for read in (lambda: before["sampler/latent"], lambda: diff(before, after)):
        with pytest.raises(TraceError, match="run.zarr was removed or replaced .* open it again"):
            read()
    assert after["sampler/latent"].size
    shutil.rmtree(path)
    with pytest.raises(TraceError, match="was removed or replaced"):
        after["sampler/latent"]


def test_a_trace_of_nothing_says_so():
    empty = MemoryRecorder(Header([0], [1.0], {})).close("interrupted")
    with pytest.raises(UnknownSite, match="it has: none"):
        _ = empty.image


def forget_last_step(path):
    complete = zarr.open_array(path / "complete", mode="r+", zarr_format=3)
    complete[-1] = False


def cut(file):
    os.truncate(file, file.stat().st_size // 2)


def edit(path, name, value):
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"][name] = value
    (path / "zarr.json").write_text(json.dumps(root))


def test_a_store_of_someone_else_is_refused(tmp_path):
    dataset = xarray.Dataset({"t": ("x", np.arange(3.0))})
    dataset.to_zarr(tmp_path / "three.zarr", zarr_format=3, consolidated=False)
    dataset.to_zarr(tmp_path / "two.zarr", zarr_format=2, consolidated=False)
    with pytest.raises(TraceError, match="not a trace: something else wrote"):
        xray.trace.open(tmp_path / "three.zarr")
    with pytest.raises(TraceError, match=r"not a trace: the folder holds no zarr.json"):
        xray.trace.open(tmp_path / "two.zarr")


# --- diff ----------------------------------------------------------------------------------


def test_a_trace_does_not_differ_from_itself(trace, path):
    difference = diff(trace, xray.trace.open(path))
    assert len(difference.rows) == 3 * 5 + 2
    assert all(row.equal and row.max_abs == 0 == row.relative_rms for row in difference.rows)
    assert difference[1:] == ([], [], [])


def test_diff_finds_the_step_and_site_where_two_runs_part(trace):
    recorder = MemoryRecorder(header(4))
    for step in range(4):
        for site, spec in SITES.items():
            if spec.per_step:
                array = values(site, step)
                if (site, step) == ("sampler/latent", 2):
                    array = array + 0.5
                recorder.write(site, array, step)
        recorder.complete(step)
    other = recorder.close("interrupted")
    difference = diff(other, trace)
    assert {row.step for row in difference.rows} == {0, 1, 2, 3}
    (row,) = [row for row in difference.rows if not row.equal]
    assert (row.site, row.step, row.max_abs) == ("sampler/latent", 2, 0.5)
    reference = values("sampler/latent", 2).astype(float)
    assert row.relative_rms == pytest.approx(0.5 / np.sqrt(np.mean(reference**2)))
    assert difference.only_b == ["text/out", "image"]
    assert difference.only_a == []


def test_diff_names_sites_of_other_shape(trace):
    sites = {"image": dataclasses.replace(SITES["image"], shape=(1, 32, 32, 3))}
    recorder = MemoryRecorder(Header([0], [1.0], sites))
    recorder.write("image", np.zeros((1, 32, 32, 3), np.uint8))
    difference = diff(recorder.close(), trace)
    assert difference.mismatched == ["image"]
    assert difference.rows == []
