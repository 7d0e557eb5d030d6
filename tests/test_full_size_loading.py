"""Loading full-size weights takes no more memory than they do."""

from __future__ import annotations

import subprocess
import sys

import full_size_loading
import pytest

pytestmark = pytest.mark.slow


@pytest.mark.skipif(sys.platform != "linux", reason="looks at memory in /proc")
def test_real_weights_are_never_twice_in_memory(tmp_path):
    write = [sys.executable, "-m", "xray.studies.random_weights", tmp_path / "model"]
    subprocess.run(write, check=True)
    for dtype in ("float32", "float16"):
        found = full_size_loading.measure(tmp_path / "model", dtype)
        assert found["peak"] - found["before"] < 1.15 * found["weights"], (dtype, found)
