"""Loading full-size weights takes no more memory than they do."""

from __future__ import annotations

import sys

import full_size_loading
import pytest

from xray.studies import random_weights

pytestmark = pytest.mark.slow


@pytest.mark.skipif(sys.platform != "linux", reason="looks at memory in /proc")
def test_real_weights_are_never_twice_in_memory(tmp_path):
    random_weights.write_apart(tmp_path / "model")
    for dtype in ("float32", "float16"):
        found = full_size_loading.measure(tmp_path / "model", dtype)
        assert found["peak"] - found["before"] < 1.15 * found["weights"], (dtype, found)
