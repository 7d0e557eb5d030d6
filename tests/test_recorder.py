"""Recorders: what counts as recorded, and how a run ends that does not come to its end."""

from __future__ import annotations

import errno
import itertools
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
import xarray
from synthetic_run import SITES, assert_holds_run, header, record, values, write_step

import xray.trace
from xray.recorder import MemoryRecorder, StoreRecorder
from xray.store import Header, SiteSpec, StoreWriter, TraceError


@pytest.fixture(params=["memory", "store"])
def recorder(request, tmp_path):
    if request.param == "memory":
        return MemoryRecorder(header())
    return StoreRecorder(tmp_path / "run.zarr", header())


def test_a_whole_run_is_recorded_to_the_bit(recorder):
    trace = record(recorder)
    assert trace.status == "complete"
    assert trace.sites == list(SITES)
    assert_holds_run(trace, 5)


def test_an_interrupted_run_keeps_its_complete_steps_and_says_why(recorder):
    for step in range(3):
        write_step(recorder, step)
        recorder.complete(step)
    recorder.write("sampler/latent", values("sampler/latent", 3), 3)
    trace = recorder.close("interrupted", "Ctrl-C")
    assert (trace.status, trace.reason) == ("interrupted", "Ctrl-C")
    assert "image" not in trace
    assert_holds_run(trace, 3)


def test_a_run_that_ends_before_its_first_step_keeps_what_has_no_step(recorder):
    recorder.write("text/out", values("text/out"))
    trace = recorder.close("failed", "the U-Net raised")
    assert trace.steps == []
    np.testing.assert_array_equal(trace["text/out"].values, values("text/out"))
    assert trace["sampler/latent"].shape == (0, 1, 8, 8, 4)


def test_attributes_known_only_at_the_end_are_kept(recorder):
    trace = recorder.close("interrupted", attrs={"seconds": {"text": np.float32(0.5)}})
    assert trace.attrs["seconds"] == {"text": 0.5}
    assert trace.attrs["prompt"] == ["a rötlicher star star"]


def test_closing_twice_changes_nothing(recorder):
    trace = record(recorder)
    assert recorder.close("failed", "too late") is trace
    assert trace.status == "complete"


@pytest.mark.parametrize(
    ("site", "array", "step", "message"),
    [
        ("unet/out", values("sampler/latent"), 0, "'unet/out' is not in the header"),
        ("sampler/latent", values("sampler/latent")[0], 0, r"got float32 \(8, 8, 4\)"),
        ("sampler/latent", values("sampler/latent").astype("f8"), 0, "expected float32 .* float64"),
        ("sampler/latent", values("sampler/latent"), 1, "step 0 is to be written next, got 1"),
        ("sampler/latent", values("sampler/latent"), None, "step 0 is to be written next"),
        ("image", values("image"), 0, "step None is to be written next, got 0"),
    ],
)
def test_what_the_header_does_not_announce_is_refused(recorder, site, array, step, message):
    with pytest.raises(ValueError, match=message):
        recorder.write(site, array, step)


def test_a_step_without_one_of_its_sites_does_not_count(recorder):
    recorder.write("sampler/latent", values("sampler/latent"), 0)
    with pytest.raises(ValueError, match=r"not complete without unet/mid/attn.0/.*, unet/up.1/"):
        recorder.complete(0)
    assert recorder.close("failed").steps == []


def test_steps_are_completed_in_order_and_written_once(recorder):
    write_step(recorder, 0)
    with pytest.raises(ValueError, match="0 is next"):
        recorder.complete(1)
    with pytest.raises(ValueError, match="written already at 0"):
        recorder.write("sampler/latent", values("sampler/latent"), 0)
    with pytest.raises(ValueError, match="text/out is written already"):
        recorder.write("text/out", values("text/out"))


def test_the_next_step_waits_rather_than_queueing_a_second(tmp_path, monkeypatch):
    go, entered = threading.Semaphore(0), threading.Semaphore(0)
    complete = StoreWriter.complete

    def slow(self, step):
        entered.release()
        assert go.acquire(timeout=20)
        complete(self, step)

    monkeypatch.setattr(StoreWriter, "complete", slow)
    recorder = StoreRecorder(tmp_path / "run.zarr", header())
    write_step(recorder, 0)
    recorder.complete(0)  # returns although the writer has not finished
    assert entered.acquire(timeout=20)
    assert recorder.completed == 0
    write_step(recorder, 1)
    second = threading.Thread(target=recorder.complete, args=(1,))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    go.release()
    second.join(20)
    assert not second.is_alive()
    assert recorder.completed == 1
    go.release()
    assert recorder.close("interrupted").steps == [0, 1]


def test_a_step_that_waits_to_be_stored_when_the_run_is_interrupted_is_kept(tmp_path, monkeypatch):
    recorder = StoreRecorder(tmp_path / "run.zarr", header())
    write_step(recorder, 0)
    recorder.complete(0)
    write_step(recorder, 1)
    with monkeypatch.context() as patch:
        patch.setattr(recorder, "_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            recorder.complete(1)
    assert_holds_run(recorder.close("interrupted"), 2)


def interrupted():
    raise KeyboardInterrupt


def test_memory_does_not_grow_with_the_number_of_steps(tmp_path):
    spec = SiteSpec(("y", "x"), (512, 256), "float16", per_step=True)
    number = itertools.count()

    def peak(steps: int) -> int:
        head = Header(range(steps), range(steps), {"unet/out": spec})
        recorder = StoreRecorder(tmp_path / f"{next(number)}.zarr", head)
        tracemalloc.start()
        for step in range(steps):
            recorder.write("unet/out", np.full(spec.shape, step, spec.dtype), step)
            recorder.complete(step)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        recorder.close()
        return peak

    peak(5)  # imports and caches
    # How many arrays are under way at once varies from run to run; what grows does so in every run.
    short = max(peak(50) for _ in range(3))
    assert short >= 2 * spec.nbytes, "the measure must see the arrays"
    assert min(peak(300) for _ in range(3)) < short + spec.nbytes


# --- a full disk ---------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    if sys.platform != "linux":
        pytest.skip("tmpfs is Linux")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    "sites",
    [
        ["text/out", "sampler/latent", "unet/up.1/skip.0"],  # stops in the middle of a large chunk
        ["text/out", "sampler/latent"],  # fills the disk to its last page
    ],
)
def test_a_full_disk_ends_the_run_with_one_error_and_loses_no_complete_step(small_disk, sites):
    path = small_disk / "run.zarr"
    recorder = StoreRecorder(path, header(2000, sites))
    with pytest.raises(TraceError) as error:
        for step in range(2000):
            write_step(recorder, step)
            recorder.complete(step)
    completed = recorder.completed
    message = str(error.value)
    assert f"{path}: the disk is full" in message
    assert f"{completed} of 2000 steps are recorded" in message
    assert "the rest needs" in message and "is free. Record fewer sites" in message

    trace = recorder.close("failed", "whatever the caller makes of it")
    assert (trace.status, trace.reason) == ("failed", message)
    assert completed > 1
    assert_holds_run(trace, completed)
    tree = xarray.open_datatree(path, engine="zarr")
    assert tree["complete"].values.sum() == completed
    assert tree.attrs["reason"] == message


def test_a_disk_full_at_the_last_step_is_told_by_close(small_disk):
    """No further write or complete would tell it."""
    sites = ["sampler/latent", "unet/up.1/skip.0"]
    recorder = StoreRecorder(small_disk / "run.zarr", header(4, sites))
    for step in range(4):
        write_step(recorder, step)
        if step < 3:
            recorder.complete(step)
    deadline = time.monotonic() + 60
    while recorder.completed < 3:
        assert time.monotonic() < deadline, "the third step is never written"
        time.sleep(0.01)
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    recorder.complete(3)
    with pytest.raises(TraceError, match="3 of 4 steps are recorded"):
        recorder.close()
    trace = xray.trace.open(small_disk / "run.zarr")
    assert trace.status == "failed"
    assert_holds_run(trace, 3)
    assert recorder.close("failed").steps == trace.steps


def test_a_disk_too_small_for_the_empty_store_leaves_nothing_behind(small_disk):
    (small_disk / "filler").write_bytes(bytes(4_150_000))
    with pytest.raises(TraceError, match=r"the disk is full. 0 of 5 steps"):
        StoreRecorder(small_disk / "run.zarr", header())
    assert [file.name for file in small_disk.iterdir()] == ["filler"]


def test_an_error_of_the_writer_surfaces_once_and_ends_the_recording(tmp_path, monkeypatch):
    recorder = StoreRecorder(tmp_path / "run.zarr", header())
    write = StoreWriter.write

    def broken(self, site, array, step=None):
        if step == 1:
            raise self._error(OSError(errno.EIO, "Input/output error"))
        write(self, site, array, step)

    monkeypatch.setattr(StoreWriter, "write", broken)
    with pytest.raises(TraceError, match=r"run.zarr cannot be written.*Input/output error"):
        for step in range(4):
            write_step(recorder, step)
            recorder.complete(step)
    with pytest.raises(TraceError, match="Input/output error"):
        recorder.write("image", values("image"))
    trace = recorder.close("failed", "")
    assert trace.status == "failed" and "Input/output error" in trace.reason
    assert_holds_run(trace, 1)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_evaluations_of_a_step_are_written_one_by_one(tmp_path, kind):
    dims, coords = ("evaluation", "x"), {"evaluation": ("evaluation", [0, 1])}
    spec = SiteSpec(dims, (2, 3), "float16", per_step=True, coords=coords)
    header = Header(range(2), [9.0, 1.0], {"sampler/latent": spec}, {})
    recorder = MemoryRecorder(header) if kind == "memory" else StoreRecorder(tmp_path / "r", header)
    one = np.ones(3, np.float16)
    recorder.write("sampler/latent", one, 0, 0)
    recorder.write("sampler/latent", 2 * one, 0, 1)
    with pytest.raises(ValueError, match="sampler/latent is written already at 0"):
        recorder.write("sampler/latent", one, 0, 1)
    recorder.complete(0)
    recorder.write("sampler/latent", 3 * one, 1, 0)
    with pytest.raises(ValueError, match=r"expected float16 \(3,\), got float16 \(2, 3\)"):
        recorder.write("sampler/latent", np.ones((2, 3), np.float16), 1, 1)
    recorder.complete(1)
    trace = recorder.close()
    expected = np.array([[1, 2], [3, np.nan]], np.float16)[..., None] * one
    np.testing.assert_array_equal(trace["sampler/latent"].values, expected, strict=True)
    np.testing.assert_array_equal(trace.sel("sampler/latent", step=0, evaluation=1).values, 2 * one)
