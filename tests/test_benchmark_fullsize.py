"""The benchmark on systems of which the truth is known, and on the miniature."""

from __future__ import annotations

import sys
import time

import pytest
import running
from typer.testing import CliRunner

from xray.studies import benchmark_fullsize as study

FAKE = """{start}
import json, sys, time
phases, held = {phases}, []
for phase, seconds, more in phases:
    held.append(bytearray(b"x") * more)
    time.sleep(seconds)
    print(json.dumps(dict(phase=phase, seconds=seconds)), flush=True)
    if not sys.stdin.readline():
        sys.exit("nobody listens")
    open({log!r}, "a").write({name!r} + phase + " ")
{end}
"""
QUICK = [("import", 0.0, 0), ("load", 0.2, 60_000_000), ("step", 0.4, 0), ("step", 0.1, 0)]
SLOW = [("import", 0.0, 0), ("load", 0.1, 0), *[("step", 0.2, 0)] * 4, ("decode", 0.3, 0)]


def commands_of(log):
    """Commands of systems that only sleep; the log has the order in which they were let go on."""

    def make(**systems):
        return lambda name: [
            sys.executable,
            "-S",
            "-c",
            FAKE.format(name=name, log=str(log), **{"start": "", "end": "", **systems[name]}),
        ]

    make.log = lambda: log.read_text().split()
    return make


@pytest.fixture
def fakes(tmp_path):
    return commands_of(tmp_path / "log")


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What was found of two systems that were there at once, in which order, and in what time."""
    fakes = commands_of(tmp_path_factory.mktemp("together") / "log")
    start = time.perf_counter()
    commands = fakes(a={"phases": QUICK}, b={"phases": SLOW})
    found = study.measure(commands, [["a", "b"]])
    return found, fakes.log(), time.perf_counter() - start


def test_what_each_system_says_is_told_of_it(together):
    found, _, _ = together
    assert found["a"].turns == [(phase, seconds) for phase, seconds, _ in QUICK]
    assert found["a"].median("step") == 0.1  # the first compiles
    assert found["a"].until_first_step == pytest.approx(0.6)
    assert found["b"].seconds("step") == [0.2] * 3
    assert found["b"].seconds("decode") == [0.3]  # the only one
    assert study.ratios({"recording": found["b"], "ours": found["a"]})[0][1] == pytest.approx(2)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at memory in /proc")
def test_memory_is_that_of_the_system_while_it_works(together):
    found, _, elapsed = together
    assert 60e6 < found["a"].peak < 100e6 and found["b"].peak < 40e6
    assert found["a"].highest_with_files >= found["a"].peak
    # a waits while b loads and works, which is not in its time.
    slept = sum(seconds for _, seconds, _ in SLOW)
    assert found["a"].memory[-1][0] < elapsed - slept


def test_systems_take_turns_once_all_have_made_a_step(together):
    _, told, _ = together
    begun = ["aimport", "aload", "bimport", "bload"]
    alternating = ["astep", "bstep", "astep", "bstep", "bstep", "bstep", "bdecode"]
    assert [line for line in told if line in begun] == begun
    assert told[len(begun) :] == alternating


@pytest.mark.skipif(sys.platform == "win32", reason="Windows halts no process")
def test_who_waits_is_halted_with_all_its_threads(fakes, tmp_path):
    ticks = tmp_path / "ticks"
    ticking = f"""
import threading, time
def tick():
    while True:
        print(time.monotonic(), file=open({str(ticks)!r}, "a"))
        time.sleep(0.02)
threading.Thread(target=tick, daemon=True).start()
"""
    steps = {"phases": [("step", 0.1, 0)] * 3}
    waited = {"phases": [("step", 1.0, 0)] * 2}
    fakes_of = fakes(a={**steps, "start": ticking}, b=waited)
    study.measure(fakes_of, [["a", "b"]])
    times = [float(line) for line in ticks.read_text().split()]
    pauses = sorted(b - a for a, b in zip(times, times[1:], strict=False))
    assert pauses[-2] > 0.9 and pauses[-3] < 0.5, pauses  # both steps of b, and nothing else


def test_what_does_not_fit_together_runs_one_after_the_other(fakes):
    commands = fakes(a={"phases": QUICK}, b={"phases": SLOW})
    study.measure(commands, study.rounds(["a", "b"], available=study.EACH * 2 - 1))
    assert [line[0] for line in fakes.log()] == ["a"] * len(QUICK) + ["b"] * len(SLOW)


def test_what_fits_together_takes_turns():
    assert study.rounds(["a", "b"], available=study.EACH * 2) == [["a", "b"]]


def test_a_system_that_fails_says_why_and_the_others_are_ended(fakes):
    commands = fakes(a={"phases": SLOW}, b={"phases": QUICK, "end": "sys.exit('out of cheese')"})
    with pytest.raises(ValueError, match="b ended with status 1: out of cheese"):
        study.measure(commands, [["a", "b"]])


def test_a_system_that_is_killed_is_said_to_have_been(fakes):
    end = "import os; os.kill(os.getpid(), 9)"
    with pytest.raises(ValueError, match="status -9, killed, as the system does when memory"):
        study.measure(fakes(a={"phases": QUICK, "end": end}), [["a"]])


@pytest.mark.slow
def test_the_benchmark_on_the_miniature(tmp_path):
    import xray
    from xray.checkpoints import export_diffusers

    export_diffusers(xray.load("mini"), tmp_path / "mini")
    asked = ["--model", tmp_path / "mini", "--size", 128, "--steps", 3, "--out", tmp_path / "out"]
    systems = ["--system", "recording", "--system", "pooled", "--system", "ours"]
    systems += ["--system", "miniature"]
    result = CliRunner().invoke(running.app("benchmark_fullsize"), list(map(str, asked)) + systems)
    assert result.exit_code == 0, result.output
    assert "step: recording / not" in result.output
    assert "step: recording self-attention / not" in result.output
    summary = running.summary(tmp_path / "out")
    assert summary["systems"].keys() == {"recording", "pooled", "ours", "miniature"}
    assert (len(summary["rounds"]) > 1) == ("one after the other" in result.output)
    for found in summary["systems"].values():
        assert len(found["step_seconds_each"]) == 3
        assert found["step_seconds"] < found["first_step_seconds"]
        assert 0.2e9 < found["peak_memory"] < found["peak_memory_with_files"] < 3e9
    assert not list((tmp_path / "out").glob("tmp*")), "a recording was left"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            ["--system", "comfy"],
            "'comfy' is not one of recording, pooled, ours, miniature,",
        ),
        (["--size", "500"], "multiples of 64, got 500"),
        (["--record", "unets/**"], "names no site"),
        (["--model", "no/such"], "'no/such' does not exist"),
    ],
)
def test_bad_options_are_told_before_anything_starts(asked, told, tmp_path):
    out = ["--out", str(tmp_path / "out")]
    result = CliRunner().invoke(running.app("benchmark_fullsize"), [*asked, *out])
    assert result.exit_code == 2 and told in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--size=128", "--steps=3"])
def test_quick_says_its_own_size_and_steps(option):
    refused = CliRunner().invoke(running.app("benchmark_fullsize"), ["--quick", option])
    assert refused.exit_code == 2 and "leave these out" in refused.stderr
