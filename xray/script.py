"""The shape that all experiments and the `xray` command share.

    def main(model: options.Model = "mini", out: options.Out = None) -> None:
        with experiment("my_experiment", out) as this:
            ...

    if __name__ == "__main__":
        script.run(main)

The module's docstring, which opens with the question that the experiment asks, becomes its
``--help``; one whose `main` has a ``model`` gets ``--download`` too. Expected errors end as one
line on the error stream and exit status 2; Ctrl-C says what was kept and ends with 130; a traceback
means a bug.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import importlib
import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import typer

from xray.environment import EnvironmentProblem, check_environment

# ------------------------------------------------------------------------------------ commands


def app(main: Callable[..., None]) -> typer.Typer:
    """The Typer application of a script whose options are the parameters of `main`."""
    made = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    if "model" in inspect.signature(main).parameters:
        main = _with_model(main)
    command(made, help=inspect.unwrap(main).__globals__["__doc__"])(main)
    return made


def _with_model(main: Callable[..., None]) -> Callable[..., None]:
    """`main` with one option more: whether to fetch weights of the model that are not here.

    What is wrong with the others and can be told without the model is told first.
    """
    from xray import options

    @functools.wraps(main)
    def wrapped(*args: Any, download: bool, **kwargs: Any) -> None:
        from xray.checkpoints.fetching import ensure

        options.check_sampling(kwargs)
        ensure(kwargs["model"], download=download)
        options.check_prompts(kwargs)
        main(*args, **kwargs)

    signature = inspect.signature(main)
    option = inspect.Parameter(
        "download",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=options.Download,
    )
    wrapped.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])
    return wrapped


def command(
    app: typer.Typer, *, help: str | None = None, **settings: Any
) -> Callable[[Callable], Callable]:
    """Make a function a command of `app`: help from its docstring, errors in one line."""

    def register(function: Callable) -> Callable:
        paragraphs = (help or function.__doc__).split("\n\n")
        # Typer keeps the line breaks of all paragraphs but the first.
        unwrapped = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        return app.command(help=unwrapped, **settings)(one_line_errors(function))

    return register


def run(main: Callable[..., None]) -> None:
    """Run a script with the options of the command line."""
    app(main)()


# The options that the running command was given, with those that it fills in itself.
asked: ContextVar[Mapping[str, Any]] = ContextVar("asked", default={})  # noqa: B039


def one_line_errors(function: Callable) -> Callable:
    """`function`, whose expected errors end the process with one line in place of a traceback."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        before = asked.set(kwargs)
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt as stop:
            _say("interrupted", stop)
            raise typer.Exit(130) from None
        except Exception as error:
            if not _is_answer(error, inspect.unwrap(function).__globals__["__name__"]):
                raise
            _say(f"error: {_message(error)}", error)
            raise typer.Exit(2) from None
        finally:
            asked.reset(before)

    return wrapped


def _is_answer(error: Exception, script: str) -> bool:
    """Whether the error is our answer to what we were given, and not a bug.

    It is if the system refused a file, or if this package or the script raised it, in so many
    words. What Python, NumPy or TensorFlow raise because we called them wrongly is a bug.
    """
    if isinstance(error, BrokenPipeError):
        return False  # the reader of our output has left; Typer ends quietly
    if isinstance(error, OSError):
        return True
    *_, last = _tracebacks(error.__traceback__)
    module = last.tb_frame.f_globals.get("__name__", "")
    expected = isinstance(error, (ValueError, TypeError, FloatingPointError, EnvironmentProblem))
    ours = module.split(".")[0] == "xray" or module == script
    return expected and ours and _says_raise(last)


def _says_raise(traceback: TracebackType) -> bool:
    """Whether a ``raise`` stands there: what is written in C, such as `len`, leaves no frame."""
    code = traceback.tb_frame.f_code.co_code
    return code[traceback.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _tracebacks(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _say(message: str, error: BaseException) -> None:
    parts = [message, *getattr(error, "__notes__", ())]
    typer.echo(" ".join("; ".join(parts).split()), err=True)


# ------------------------------------------------------------------------------------ TensorFlow


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Import TensorFlow inside, and its start-up lines do not reach the terminal.

    Some of them are written before TensorFlow reads its log level, straight to file descriptor 2.
    On an error they are shown after all. Whoever sets TF_CPP_MIN_LOG_LEVEL sees what they ask for.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # what goes wrong comes as an exception too
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def start_tensorflow() -> None:
    """Import TensorFlow and have it set up its devices, while `quiet_tensorflow`.

    What is said after that, such as by `xray.load`, is for the terminal.

    Raises:
        EnvironmentProblem: as `check_environment`.
    """
    check_environment()
    with quiet_tensorflow():
        importlib.import_module("keras_cv.src.backend")
        importlib.import_module("tensorflow").constant(0)  # devices are set up for the first tensor


# ----------------------------------------------------------------------------------------- tables


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns of plain text, numbers to the right, empty columns left out; for eyes and for grep.

    Example:
        >>> print(table(["site", "mean"], [["sampler/latent", 0.0123456], ["image", None]]))
        site               mean
        sampler/latent  0.01235
        image
    """
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    columns = []
    for i, column in enumerate(zip(*cells, strict=True)):
        if any(column[1:]):
            width = max(map(len, column))
            right = any(isinstance(row[i], (int, float)) for row in rows)
            columns.append([c.rjust(width) if right else c.ljust(width) for c in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
