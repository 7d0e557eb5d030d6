"""The store on disk: what plain xarray sees, what is refused, what a killed process leaves."""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import synthetic_run
import xarray
import zarr
from kill_writer import STEPS
from synthetic_run import SITES, header, record, values

import xray.direct
import xray.store
import xray.trace
from xray.recorder import StoreRecorder
from xray.store import (
    Header,
    SiteSpec,
    StoreWriter,
    TraceError,
    check_output,
    check_room,
    estimate,
    read_root,
)

# --- the layout ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "run.zarr"
    record(StoreRecorder(path, header()))
    return path


@pytest.mark.filterwarnings("error")
def test_plain_xarray_opens_the_whole_tree(recorded):
    tree = xarray.open_datatree(recorded, engine="zarr")
    assert tree.attrs["status"] == "complete"
    assert tree["complete"].values.all()
    for site, spec in SITES.items():
        value = tree[site]["value"]
        if spec.per_step:
            assert value.dims == ("step", *spec.dims)
            np.testing.assert_array_equal(value.sel(step=3), values(site, 3))
        else:
            assert value.dims == spec.dims
            np.testing.assert_array_equal(value, values(site))
        assert value.dtype == spec.dtype


def test_large_chunks_are_whole_and_leave_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(xray.direct, "LARGE", 1000)
    monkeypatch.setattr(xray.direct, "PIECE", mmap.PAGESIZE)
    trace = record(StoreRecorder(tmp_path / "run.zarr", header(steps=2)))
    synthetic_run.assert_holds_run(trace, 2)
    assert not list(tmp_path.rglob("*partial*"))


@pytest.mark.filterwarnings("error")
def test_plain_xarray_opens_one_site_with_its_coordinates(recorded):
    dataset = xarray.open_zarr(recorded, group="unet/mid/attn.0/cross/weights", chunks=None)
    assert list(dataset.data_vars) == ["value"]
    assert set(dataset.coords) == {"step", "timestep", "branch", "token", "word", "word_index"}
    assert dataset["word"].values.tolist() == synthetic_run.WORDS
    np.testing.assert_array_equal(
        dataset["value"].sel(branch="cond", step=2),
        values("unet/mid/attn.0/cross/weights", 2)[1],
    )


def test_consolidated_metadata_is_what_zarr_itself_would_write(recorded, tmp_path):
    copy = shutil.copytree(recorded, tmp_path / "copy.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that consolidation is not in the standard yet
        zarr.consolidate_metadata(copy)
    ours, theirs = (json.loads((path / "zarr.json").read_bytes()) for path in (recorded, copy))
    assert json.dumps(ours) == json.dumps(theirs)  # in the same order, which Zarr relies on


def test_nothing_in_a_store_would_need_pickle(recorded):
    root = read_root(recorded)
    arrays = [n for n in root["consolidated_metadata"]["metadata"].values() if "codecs" in n]
    assert {array["data_type"] for array in arrays} <= {
        "bool", "uint8", "int64", "float16", "float32", "float64", "string",
    }  # fmt: skip
    assert {c["name"] for a in arrays for c in a["codecs"]} == {"bytes", "vlen-utf8", "zstd"}


def test_until_it_is_written_a_float_reads_nan_and_an_integer_zero(tmp_path):
    StoreWriter(tmp_path / "run.zarr", header(steps=3))
    tree = xarray.open_datatree(tmp_path / "run.zarr", engine="zarr")
    assert tree.attrs["status"] == "running"
    assert not tree["complete"].values.any()
    assert tree["sampler/latent"]["value"].shape == (3, 1, 8, 8, 4)
    assert np.isnan(tree["sampler/latent"]["value"]).all()
    assert (tree["image"]["value"] == 0).all()


def test_many_sites_are_created_in_little_time(tmp_path):
    spec = SITES["unet/mid/attn.0/cross/weights"]
    sites = {f"unet/down.{i}/attn.0/cross/weights": spec for i in range(200)}
    began = time.process_time()
    StoreWriter(tmp_path / "run.zarr", Header(range(50), range(50), sites))
    assert time.process_time() - began < 4  # 0.6 s; 8 s by Zarr's own creation on disk


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dims": ("y", "x")}, "one for each length"),
        ({"dims": ("y", "y", "x")}, "distinct"),
        ({"dims": ("step", "y", "x")}, "without 'step'"),
        ({"shape": (2, 0, 4)}, "at least 1"),
        ({"dtype": "complex64"}, "complex64"),
        ({"dtype": object}, "object"),
        ({"coords": {"word": ("x", ["a", "b"])}}, "'word'"),
        ({"coords": {"word": ("token", ["a", "b", "c", "d"])}}, "'token'"),
        ({"coords": {"word": (("image", "x"), [["a", "b"]])}}, "'image', 'x'"),
    ],
)
def test_a_spec_that_cannot_be_stored_is_refused(change, message):
    spec = {"dims": ("image", "y", "x"), "shape": (2, 3, 4), "dtype": "float32", "per_step": True}
    SiteSpec(**spec)
    with pytest.raises(ValueError, match=message):
        SiteSpec(**spec | change)


@pytest.mark.parametrize("site", ["../escape", "/absolute", "a//b", "a/../b", "", "step", "a b"])
def test_a_name_that_is_no_site_is_refused(site):
    with pytest.raises(ValueError, match="cannot be the name of a site"):
        Header([0], [1.0], {site: SITES["image"]})


def test_a_site_below_another_is_refused():
    with pytest.raises(ValueError, match="'unet' is a prefix of site 'unet/out'"):
        Header([0], [1.0], {"unet": SITES["image"], "unet/out": SITES["image"]})


@pytest.mark.parametrize(("steps", "timesteps"), [([], []), ([0, 1], [5.0]), ([1, 1], [5.0, 4.0])])
def test_steps_must_be_distinct_and_have_a_timestep_each(steps, timesteps):
    with pytest.raises(ValueError, match="one timestep for each"):
        Header(steps, timesteps, {})


def test_attributes_must_be_json_and_numpy_numbers_become_json():
    attrs = {"seeds": np.arange(2), "guidance": np.float32(7.5), "size": (64, 128)}
    assert Header([0], [1.0], {}, attrs).attrs == {
        "seeds": [0, 1], "guidance": 7.5, "size": [64, 128],
    }  # fmt: skip
    with pytest.raises(TypeError, match=r"'edit'.*builtin_function"):
        Header([0], [1.0], {}, {"edit": print})


def test_estimate_is_the_size_of_what_is_recorded(tmp_path):
    trace = record(StoreRecorder(tmp_path / "run.zarr", header(steps=3)))
    assert estimate(header(steps=3)) == sum(trace[site].nbytes for site in trace.sites)


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_recording_without_room_is_refused_with_numbers(on_disk, tmp_path, monkeypatch):
    need = estimate(header())
    usage = shutil.disk_usage(tmp_path)
    path = tmp_path / "run.zarr" if on_disk else None

    def available(size):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=size))
        monkeypatch.setattr(xray.store.memory, "available", lambda: size)

    available(int(need / 0.9) + 1)
    check_room(header(), path)
    available(int(need / 0.9) - 1)
    with pytest.raises(TraceError) as error:
        check_room(header(), path)
    message = str(error.value)
    assert "needs 5.32 MB" in message and "5.91 MB of" in message
    assert message.index("unet/up.1/skip.0 (5.24 MB)") < message.index("cross/weights (61.4 kB)")
    assert ("store=" in message) != on_disk


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="only Linux says what is available")
def test_more_than_this_machine_has_is_refused():
    huge = dataclasses.replace(SITES["sampler/latent"], shape=(1, 10**6, 10**6, 1))
    with pytest.raises(TraceError, match=r"4 TB .* of memory"):
        check_room(Header([0], [1.0], {"sampler/latent": huge}), None)


def test_an_output_that_cannot_be_used_is_refused(tmp_path, recorded):
    check_output(tmp_path / "new.zarr")
    with pytest.raises(TraceError, match=r"missing is not an existing folder"):
        check_output(tmp_path / "missing" / "new.zarr")
    with pytest.raises(TraceError, match="exists already"):
        check_output(recorded)
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match="file is not an existing folder"):
        check_output(tmp_path / "file" / "new.zarr")
    if os.path.exists("/proc/self"):
        with pytest.raises(TraceError, match=r"cannot be written: .*: /proc"):
            check_output("/proc/self/new.zarr")


def test_only_a_trace_is_ever_overwritten(tmp_path):
    path = tmp_path / "run.zarr"
    record(StoreRecorder(path, header(steps=4)))
    record(StoreRecorder(path, header(steps=2), overwrite=True))
    assert xray.trace.open(path).steps == [0, 1]
    diary = tmp_path / "diary"
    diary.mkdir()
    (diary / "monday.txt").write_text("precious")
    with pytest.raises(TraceError, match="diary is not a trace"):
        StoreRecorder(diary, header(), overwrite=True)
    assert (diary / "monday.txt").read_text() == "precious"


def test_of_two_runs_that_begin_at_once_in_one_place_the_second_is_refused(tmp_path, monkeypatch):
    path, skeleton = tmp_path / "run.zarr", xray.store._skeleton

    def meanwhile(one):
        monkeypatch.setattr(xray.store, "_skeleton", skeleton)
        record(StoreRecorder(path, header(steps=2)))
        return skeleton(one)

    monkeypatch.setattr(xray.store, "_skeleton", meanwhile)
    with pytest.raises(TraceError, match=r"run.zarr exists by now: another run .* another place"):
        StoreRecorder(path, header())
    assert xray.trace.open(path).status == "complete"
    assert [file.name for file in tmp_path.iterdir()] == ["run.zarr"]


# --- what a killed process leaves ----------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork, no SIGKILL")
def test_no_complete_step_is_lost_when_the_process_is_killed(tmp_path):
    """Fifty SIGKILLs spread over the writing, from before its first file to after its last."""
    with subprocess.Popen(
        [sys.executable, "-c", "import kill_writer; kill_writer.main()"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:

        def killed_run(path: Path, seconds: float) -> int:
            """Run until killed; how many steps it had reported complete."""
            server.stdin.write(f"{path} {seconds}\n")
            server.stdin.flush()
            reported = 0
            for line in server.stdout:
                kind, _, count = line.strip().partition(" ")
                if kind != "complete":
                    assert kind == "ended", line
                    return reported
                reported = int(count)
            raise AssertionError("the child ended without a word")

        killed_run(tmp_path / "warm.zarr", float("inf"))
        began = time.perf_counter()
        assert killed_run(tmp_path / "whole.zarr", float("inf")) == STEPS
        whole = time.perf_counter() - began

        counts = []
        for number, seconds in enumerate(np.linspace(0, whole, 50)):
            path = tmp_path / f"{number}.zarr"
            reported = killed_run(path, seconds)
            if not path.exists():
                assert reported == 0
                continue
            counts.append(assert_whole(path, reported))
            shutil.rmtree(path)
        server.stdin.close()
    assert len(set(counts)) >= 6, f"the kills did not spread over the writing: {counts}"


def assert_whole(path: Path, reported: int) -> int:
    """The store opens plainly and holds every step that counts; returns how many those are."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = xarray.open_datatree(path, engine="zarr")
    complete = tree["complete"].values
    count = int(complete.sum())
    assert count >= reported
    assert complete[:count].all()
    for site, spec in SITES.items():
        if spec.per_step:
            value = tree[site]["value"]
            assert value.shape == (STEPS, *spec.shape)
            for step, found in enumerate(value[:count].values):  # read at once
                np.testing.assert_array_equal(found, values(site, step))
    trace = xray.trace.open(path)
    assert trace.steps == list(range(count))
    assert ("text/out" in trace) >= (count > 0)
    if "text/out" in trace:
        np.testing.assert_array_equal(trace["text/out"].values, values("text/out"))
    return count
