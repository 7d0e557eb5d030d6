"""A figure's heading says how its pictures were made, also what they were to keep away from."""

from __future__ import annotations

import pytest
from running import run

from xray.experiment import Experiment


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("samplers", ["--sampler", "ddim", "--steps", 1, "--reference", 2], []),
        ("stabilizing_noise", ["--images", 1, "--picture", "scene:1", "--steps", 1], ["steps 1"]),
        ("denoising_steps", ["--images", 1, "--steps", 2], ["ddim, steps 2"]),
        (
            "text_interpolation",
            ["--other", "a fish", "--frames", 3, "--steps", 1],
            ["ddim, steps 1", "seed 7"],
        ),
    ],
)
def test_headings_name_the_negative_prompt(name, arguments, said, model, monkeypatch, tmp_path):
    drawn = {}
    monkeypatch.setattr(Experiment, "save_figures", lambda self, figures: drawn.update(figures))
    arguments = [*arguments, "--negative", "fog", "--guidance", 3, "--out", tmp_path]
    result = run(monkeypatch, model, name, *arguments)
    assert result.exit_code == 0, result.output
    for stem, figure in drawn.items():
        told = " ".join(text.get_text() for text in figure.texts)
        for part in ("negative prompt “fog”", "guidance 3", *said):
            assert part in told, (stem, told)
    assert drawn
