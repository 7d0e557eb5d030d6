"""Statistics gathered by step are those of the whole; the summary is JSON that anyone reads."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import synthetic_run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xray import stats, summary
from xray.recorder import MemoryRecorder
from xray.store import Header, SiteSpec


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 7)),
        elements=st.floats(-1e3, 1e3, width=32) | st.sampled_from([math.nan, math.inf, -math.inf]),
    )
)
def test_statistics_by_step_add_up_to_those_of_the_whole(values):
    steps = len(values)
    spec = SiteSpec(("x",), values.shape[1:], values.dtype, per_step=True)
    recorder = MemoryRecorder(Header(range(steps), range(steps), {"a/b": spec}))
    for step in range(steps):
        recorder.write("a/b", values[step], step)
        recorder.complete(step)
    trace = recorder.close()
    assert [step for step, _ in summary.by_step(trace, "a/b")] == list(range(steps))
    expected = stats.summary(values)
    assert summary.overall(trace, "a/b") == pytest.approx(expected, rel=1e-5, abs=1e-3, nan_ok=True)


def test_a_summary_tells_what_was_recorded():
    trace = synthetic_run.record(MemoryRecorder(synthetic_run.header(3)))
    told = summary.of_trace(trace)
    assert told["prompt"] == ["a rötlicher star star"] and told["seeds"] == [7]
    assert [t["word"] for t in told["tokens"]["cond"][0]] == synthetic_run.WORDS
    assert list(told["sites"]) == trace.sites
    for site, row in told["sites"].items():
        tensor = trace[site]
        assert (row["dims"], row["shape"]) == (list(tensor.dims), list(tensor.shape))
        assert (row["dtype"], row["bytes"]) == (str(tensor.dtype), tensor.nbytes)
    assert told["bytes"] == sum(row["bytes"] for row in told["sites"].values())


def test_what_is_written_is_strict_json(tmp_path):
    path = tmp_path / "summary.json"
    summary.write(path, {"prompt": "rötlich", "std": [1.0, math.nan, math.inf], "n": {1: (2, 3)}})

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    read = json.loads(path.read_text("utf-8"), parse_constant=refuse)
    assert read == {"prompt": "rötlich", "std": [1.0, None, None], "n": {"1": [2, 3]}}
