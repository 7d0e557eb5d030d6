"""Run an experiment's script as the command line would, with a model that is loaded already."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

from typer.testing import CliRunner

from xray import script
from xray.experiment import Experiment
from xray.resources import shipped


def app(name: str):
    """The command that ``python experiments/NAME.py`` is."""
    return script.app(runpy.run_path(str(shipped("experiments") / f"{name}.py"))["main"])


def run(monkeypatch, model, name: str, *arguments):
    """What typing ``python experiments/NAME.py ARGUMENTS`` gives: exit code and output.

    And, as `headings`, all that each figure says above and beside its axes.
    """
    drawn, save = {}, Experiment.save_figures

    def keep(self, figures):
        drawn.update(figures)
        return save(self, figures)

    monkeypatch.setattr(Experiment, "load", lambda self, which, **asked: model)
    monkeypatch.setattr(Experiment, "save_figures", keep)
    result = CliRunner().invoke(app(name), [str(argument) for argument in arguments])
    result.headings = [" ".join(t.get_text() for t in each.texts) for each in drawn.values()]
    return result


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text("utf-8"))
