"""A run of Stable Diffusion 1.4's sizes, recorded to disk, fits into half of a laptop's 8 GB."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from limits import memory_limit

import xray
from xray import memory
from xray.studies import random_weights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at memory in /proc"),
]
SCRIPT = Path(__file__).with_name("full_size_run.py")
JOIN = 'test -z "$1" || echo $$ > "$1"; shift; exec "$@"'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "model"
    random_weights.write_apart(folder)
    return folder


@pytest.mark.parametrize(("dtype", "most"), [("float32", 5.5e9), ("float16", 4e9)])
def test_a_recorded_run_at_512_stays_within(folder, tmp_path, dtype, most):
    """Where a control group can be made the process is ended beyond it; it is watched anyway."""
    run = [sys.executable, SCRIPT, folder, tmp_path / "run.zarr", dtype, "512"]
    with memory_limit(int(most)) as group:
        command = ["sh", "-c", JOIN, "sh", str(group or ""), *map(str, run)]
        with subprocess.Popen(command) as process:
            peak = 0
            while process.poll() is None:
                peak = max(peak, memory.own(process.pid))
                time.sleep(0.05)
    assert process.returncode == 0, f"ended with {process.returncode} at {peak / 1e9:.2f} GB"
    assert peak < most
    trace = xray.open(tmp_path / "run.zarr")
    assert trace.status == "complete" and len(trace.steps) == 2
    assert np.isfinite(trace["sampler/out"].values).all()
    if group is None:
        pytest.skip(f"no control group could be made; {peak / 1e9:.2f} GB were seen at most")
