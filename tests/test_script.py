"""Scripts end with one line where we know what is wrong, and with a traceback where we do not."""

from __future__ import annotations

import contextlib
import os

import numpy as np
import pytest
import typer

from xray import page, stats
from xray.environment import EnvironmentProblem
from xray.script import one_line_errors, quiet_tensorflow, table
from xray.taps import observe
from xray.trace import TraceError, open


def ending(function, capsys):
    """Exit status and what was written to the error stream."""
    with pytest.raises(typer.Exit) as exit:
        one_line_errors(function)()
    return exit.value.exit_code, capsys.readouterr().err


def raising(error):
    def function():
        raise error

    return function


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no\nsuch  thing"),
        TypeError("no such thing"),
        EnvironmentProblem("no such thing"),
    ],
)
def test_what_we_refuse_is_one_line(error, capsys):
    assert ending(raising(error), capsys) == (2, "error: no such thing\n")


def test_what_the_package_refuses_is_one_line(capsys):
    status, said = ending(lambda: open("nowhere.zarr"), capsys)
    assert status == 2 and said.startswith("error: ") and "no such trace" in said
    assert ending(lambda: observe("**", mean="hat"), capsys)[0] == 2


def test_what_is_raised_on_the_way_out_is_ours_too(capsys):
    def helper():
        with contextlib.suppress(KeyError):
            try:
                int("seven")
            except ValueError as error:
                raise ValueError("no number") from error
            finally:
                len("cleaned up")

    def again():
        try:
            helper()
        except ValueError:
            raise

    for function in (helper, again):
        assert ending(function, capsys) == (2, "error: no number\n")


def test_what_the_system_refuses_names_the_file(tmp_path, capsys):
    place = tmp_path / "absent"
    assert ending(place.read_text, capsys) == (2, f"error: {place}: No such file or directory\n")


@pytest.mark.parametrize(
    "bug",
    [
        lambda: stats.histogram(np.ones(3), bins=-1),  # NumPy's, which we should have foreseen
        lambda: page.evenly(None, 3),  # len(None)
        lambda: int("seven"),
        raising(KeyError("seven")),
        raising(BrokenPipeError()),
    ],
)
def test_bugs_keep_their_traceback(bug):
    with pytest.raises((ValueError, TypeError, KeyError, BrokenPipeError)):
        one_line_errors(bug)()


def test_notes_follow_the_message(capsys):
    error = TraceError("the disk is full")
    error.add_note("kept in here: 3 steps")
    assert ending(raising(error), capsys) == (
        2, "error: the disk is full; kept in here: 3 steps\n",
    )  # fmt: skip
    assert ending(raising(KeyboardInterrupt()), capsys) == (130, "interrupted\n")


def test_start_up_lines_are_held_back_unless_they_are_needed(monkeypatch, capfd):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    with quiet_tensorflow():
        os.write(2, b"noise\n")
        assert os.environ["TF_CPP_MIN_LOG_LEVEL"]
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"

    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    with pytest.raises(ImportError), quiet_tensorflow():
        os.write(2, b"the reason\n")
        raise ImportError
    assert capfd.readouterr().err == "the reason\n"

    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with quiet_tensorflow():
        os.write(2, b"asked for\n")
    assert capfd.readouterr().err == "asked for\n"


def test_a_table_has_numbers_to_the_right_and_no_empty_columns():
    rows = [["sampler/latent", None, 0.0123456, 12], ["image", None, None, 3]]
    assert table(["site", "note", "mean", "n"], rows).splitlines() == [
        "site               mean   n",
        "sampler/latent  0.01235  12",
        "image                     3",
    ]
