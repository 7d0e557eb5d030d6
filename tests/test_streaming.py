"""A real generation that streams to disk: what a kill leaves, and how much memory it takes."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray

import xray

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc"),
]
SCRIPT = Path(__file__).with_name("streamed_run.py")
STEPS = 40


def start(store: Path, steps: int) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), str(store), str(steps)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody kills."""
    store = tmp_path_factory.mktemp("whole") / "trace.zarr"
    assert start(store, STEPS).wait() == 0
    return xray.open(store)


@pytest.mark.parametrize("kill", range(5))
def test_a_killed_generation_keeps_every_complete_step(kill, whole, tmp_path):
    store = tmp_path / "trace.zarr"
    process = start(store, STEPS)
    wanted = f"step {1 + kill * STEPS // 8}"  # up to half way: a busy machine may kill later
    reported = 0
    for line in process.stdout:
        reported = int(line.removeprefix("step "))
        if line.strip() == wanted:
            break
    time.sleep(random.Random(kill).random() * 0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()

    xarray.open_datatree(store, engine="zarr").close()
    trace = xray.open(store)
    assert trace.status == "running"
    # The step being written when the next began may be unfinished: the writer has one in hand.
    assert len(trace.steps) >= reported - 1
    for site in ("sampler/latent", "sampler/noise", "unet/mid/attn.0/cross/weights"):
        kept = trace[site].values
        np.testing.assert_array_equal(kept, whole[site].values[: len(kept)])


def test_memory_does_not_grow_with_the_number_of_steps(tmp_path):
    peaks = {}
    for steps in (50, 500):
        process = start(tmp_path / f"{steps}.zarr", steps)
        peaks[steps] = int(process.communicate()[0].splitlines()[-1])
        assert process.returncode == 0
    trace = xray.open(tmp_path / "500.zarr")
    recorded = sum(s.nbytes for s in trace.specs.values()) / 1024
    # Nine times as many steps would be 450 × `recorded` if they were held.
    assert peaks[500] - peaks[50] < 100 * recorded
    assert peaks[500] < 1.05 * peaks[50]
