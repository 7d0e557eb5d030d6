"""Where results go: never over something else, and no empty folder is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from xray.experiment import experiment, output_folder


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_run_without_out_gets_a_folder_of_its_own():
    for name in ("question", "question-2", "question-3"):
        with output_folder("question") as folder:
            assert folder == Path("runs", name)
            (folder / "result").touch()
    assert len(list(Path("runs").iterdir())) == 3


def test_overwrite_without_out_takes_the_first_folder():
    for _ in range(2):
        with output_folder("question", overwrite=True) as folder:
            (folder / "result").touch()
        assert folder == Path("runs/question")


def test_resume_without_out_goes_on_with_the_last_run():
    with output_folder("question", resume=True) as folder:
        assert folder == Path("runs/question")
        (folder / "result").touch()
    for name in ("question-2", "question-10", "question-of-mine", "questions-11"):
        Path("runs", name).mkdir()
    with output_folder("question", resume=True) as folder:
        assert folder == Path("runs/question-10")
    Path("a").mkdir()
    Path("a/result").touch()
    with output_folder("question", Path("a"), resume=True) as folder:
        assert folder == Path("a")


def test_nothing_is_left_of_a_run_that_wrote_nothing():
    with pytest.raises(ValueError), output_folder("question", Path("a/b/c")):
        raise ValueError
    assert not Path("a").exists()
    Path("a").mkdir()
    with pytest.raises(KeyboardInterrupt) as stop, output_folder("question", Path("a/b")):
        raise KeyboardInterrupt
    assert stop.value.__notes__ == ["nothing was written"]
    assert list(Path("a").iterdir()) == []


def test_what_is_there_is_kept_and_named():
    Path("a").mkdir()
    Path("a/mine").touch()
    with pytest.raises(ValueError, match="a exists and is not empty.*--overwrite"):
        output_folder("question", Path("a")).__enter__()
    with pytest.raises(NotADirectoryError):
        output_folder("question", Path("a/mine/b")).__enter__()
    with pytest.raises(FileExistsError):
        output_folder("question", Path("a/mine")).__enter__()
    with pytest.raises(KeyboardInterrupt) as stop:  # noqa: SIM117
        with output_folder("question", Path("a"), overwrite=True) as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt
    assert stop.value.__notes__ == ["kept in a: half, mine"]


def test_an_empty_folder_can_be_used():
    Path("a").mkdir()
    with output_folder("question", Path("a")) as folder:
        assert folder == Path("a")
    assert folder.exists()  # it was there before


def test_only_what_is_named_is_cleared():
    with experiment("question", Path("a")) as this:
        for name in ("image.png", "notes.txt"):
            (this.folder / name).touch()
        this.save_figures({"one": Figure(), "two": Figure()})
        (this.folder / "figures/mine.svg").touch()
        this.clear("image.png", "figures/*.png", "absent")
    left = sorted(str(p) for p in Path("a").rglob("*") if p.is_file())
    assert left == ["a/figures/mine.svg", "a/notes.txt"]


def test_finish_writes_the_summary_and_says_where_things_are(capsys):
    with experiment("question", Path("a")) as this:
        this.clock.lap("load")
        this.clock.adopt({"text": 0.25, "decode": 0.5})
        this.finish({"answer": 42})
    summary = json.loads(Path("a/summary.json").read_text())
    assert (summary["experiment"], summary["answer"]) == ("question", 42)
    seconds = summary["seconds"]
    assert list(seconds) == ["load", "text", "decode", "total"]
    assert seconds["total"] == pytest.approx(seconds["load"] + 0.75, abs=2e-3)
    assert summary["peak_memory"] > 20e6  # a Python process with matplotlib
    assert "a/summary.json" in capsys.readouterr().out.splitlines()


LOAD = """
from pathlib import Path
from xray import memory
from xray.experiment import Experiment

this = Experiment("question", Path())
memory.total = lambda: 10**8  # less than the miniature takes
this.load("mini")
this.load("mini", memory="fast")
"""


@pytest.mark.slow
def test_what_load_says_reaches_the_terminal_and_what_tensorflow_says_does_not():
    pty = pytest.importorskip("pty")
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-c", LOAD]
    with subprocess.Popen(command, stderr=theirs, env=environment) as process:
        os.close(theirs)
        said = b""
        try:
            while more := os.read(terminal, 4096):
                said += more
        except OSError:  # so Linux tells that nobody writes any more
            pass
    os.close(terminal)
    assert process.returncode == 0
    first, *bar = said.decode().splitlines()
    assert first.startswith("one network in memory at a time: mini takes")
    assert bar and all("reading weights" in line or line.startswith("\x1b[") for line in bar)
