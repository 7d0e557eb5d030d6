"""How much memory there is, and how much a process holds."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from xray import memory


def test_peak_memory_is_of_this_process_and_remembers():
    code = (
        "import numpy, xray.memory\n"
        "before = xray.memory.peak()\n"
        "numpy.ones(20_000_000)\n"  # 160 MB, gone at once
        "print(before, xray.memory.peak())"
    )
    parent = np.ones(30_000_000)  # not the child's
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, told.stdout.split())
    assert before < parent.nbytes / 2
    assert after - before == pytest.approx(160e6, rel=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at memory in /proc")
def test_own_memory_of_another_process_is_without_mapped_files(tmp_path):
    code = (
        "import mmap, pathlib, sys\n"
        "held = bytearray(b'x') * 50_000_000\n"
        "file = open(sys.argv[1], 'rb')\n"
        "mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n"
        "sum(mapped[k] for k in range(0, len(mapped), 4096))\n"  # now it is in memory
        "print('ready', flush=True)\n"
        "sys.stdin.read()"
    )
    (tmp_path / "file").write_bytes(b"x" * 80_000_000)
    command = [sys.executable, "-S", "-c", code, tmp_path / "file"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        own, held = memory.own(process.pid), memory.status(process.pid)["VmRSS"]
        process.stdin.close()
    assert 50e6 < own < 80e6
    assert held > own + 75e6


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is given back")
def test_what_tensorflow_keeps_of_freed_tensors_can_be_given_back():
    code = (
        "import tensorflow as tf\n"
        "from xray.memory import give_back, own\n"
        "before, kept, gone = own('self'), [], []\n"
        "for i in range(40):\n"
        "    (gone if i % 4 else kept).append(tf.random.stateless_normal([2_500_000], (0, i)))\n"
        "del gone\n"  # 300 of 400 MB, in between what stays
        "freed = own('self')\n"
        "give_back()\n"
        "print(freed - before, own('self') - before)\n"
        "for i, x in enumerate(kept):\n"
        "    tf.debugging.assert_equal(x, tf.random.stateless_normal([2_500_000], (0, 4 * i)))\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    freed, after = map(int, told.stdout.split())
    assert freed - after > 150e6  # not all: of a room's pages only as many as were asked for


def test_of_a_process_that_has_ended_nothing_is_held():
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    assert memory.own(process.pid) == 0


@pytest.fixture
def container(tmp_path, monkeypatch):
    """A group of 8 GB that holds 6 GB, 3 of them files, within one without limit."""
    held = {"anon": 3 * 10**9, "file": 3 * 10**9, "active_file": 10**9, "inactive_file": 2 * 10**9}
    for name, limit in (("inner", "8000000000"), ("outer", "max")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "memory.max").write_text(f"{limit}\n")
        (tmp_path / name / "memory.current").write_text("6000000000\n")
        stat = "".join(f"{kind} {size}\n" for kind, size in held.items())
        (tmp_path / name / "memory.stat").write_text(stat)
    monkeypatch.setattr(memory, "_groups", lambda: [tmp_path / "inner", tmp_path / "outer"])
    return tmp_path / "inner"


@pytest.mark.parametrize(
    ("of_machine", "available"), [(60 * 10**9, 5 * 10**9), (2 * 10**9, 2 * 10**9)]
)
def test_in_a_container_no_more_is_available_than_it_has_left(
    container, monkeypatch, of_machine, available
):
    told = {"MemAvailable": of_machine, "MemTotal": 64 * 10**9}
    monkeypatch.setattr(memory, "_sizes", lambda path: told)
    assert (memory.total(), memory.available()) == (8 * 10**9, available)


def test_a_container_that_is_over_its_limit_has_nothing_left(container):
    (container / "memory.current").write_text("12000000000\n")
    assert memory.available() == 0


def test_memory_that_is_available_is_less_than_there_is():
    if (found := memory.available()) is None:
        pytest.skip("the system does not say")
    assert 10e6 < found < 10e12
