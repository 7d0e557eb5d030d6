"""`experiments/pipeline_map.py`: tables that add up, figures to scale, and no weights."""

from __future__ import annotations

import csv
import runpy

import numpy as np
import pytest
from running import run, summary
from typer.testing import CliRunner

from xray import script
from xray.experiment import Experiment
from xray.networks import variables
from xray.resources import shipped
from xray.studies import pipeline_map as study
from xray.studies import pipeline_map_figures as drawn


@pytest.fixture(scope="module")
def parts(model):
    return study.measure(model, width=128, height=64)


@pytest.fixture(scope="module")
def timed(parts):
    return study.timed(parts, repeats=1)


def test_the_table_adds_up(parts, model):
    rows = [dict(zip(study.HEADER, row, strict=True)) for row in study.table(parts)]
    for name, part in parts.items():
        whole, *blocks = (row for row in rows if row["part"] == study.NAMES[name])
        assert whole["block"] == "" and len(blocks) == len(part.net.blocks)
        for column in ("parameters", "multiply_adds"):
            assert whole[column] == sum(block[column] for block in blocks)
        assert whole["peak_bytes"] == max(block["peak_bytes"] for block in blocks)
        assert whole["output"] == blocks[-1]["output"]
        sizes = [v.shape for v in variables(name, model.networks[name]).values()]
        assert whole["parameters"] == sum(map(np.prod, sizes))
        assert all(row["seconds"] is None for row in (whole, *blocks))
    assert [row["output"] for row in rows if not row["block"]] == [
        "20×16", "8×16×4", "64×128×3", "8×16×4"
    ]  # fmt: skip
    assert len(study.table(parts, blocks=False)) == 4


def test_units_for_reading():
    row = ["U-Net", "unet/out", "other", "8×8×4", 1_500_000, 2_000_000_000, 3_000_000, 0.004]
    assert study.for_reading(row) == ["unet/out", "other", "8×8×4", 1.5, 2.0, 3.0, 4.0]
    row = ["tokenizer", "", "", "77", 0, 0, None, None]
    assert study.for_reading(row) == ["tokenizer", "", "77", 0.0, 0.0, None, None]
    assert [drawn._short(n) for n in (859_520_964, 1.257e12, 648_448, 12)] == [
        "860 M", "1.26 T", "648 k", "12"
    ]  # fmt: skip


def test_the_map_is_to_scale(parts):
    figure = drawn.map_figure(parts, "tiny")
    drawn_blocks = {patch.get_gid(): patch for patch in figure.axes[0].patches}
    scale = drawn._inches_a_channel(parts)
    for name, part in parts.items():
        grids = [block for block in part.net.blocks if len(block.shape) > 1]
        most = max(block.shape[0] for block in grids)
        for block in grids:
            patch = drawn_blocks[block.name]
            width = max(drawn.LEAST, scale * block.shape[-1])
            assert patch.get_width() == pytest.approx(width)
            tall = drawn.HIGHEST[name] * block.shape[0] / most
            assert patch.get_height() == pytest.approx(max(drawn.LEAST, tall))
            x = patch.get_x()
            assert x >= drawn.MARGIN and x + patch.get_width() <= drawn.WIDTH - drawn.MARGIN / 2
    unet = [drawn_blocks[b.name] for b in parts["unet"].net.blocks if len(b.shape) > 1]
    for before, after in zip(unet, unet[1:], strict=False):
        assert after.get_x() >= before.get_x() + before.get_width()
    finest, deepest = drawn_blocks["unet/conv_in"], drawn_blocks["unet/mid/res.0"]
    assert deepest.get_y() + deepest.get_height() < finest.get_y()
    staples = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    ends = {tuple(np.round(line.get_xdata()[[0, 3]], 6)) for line in staples}
    for source, target, _ in parts["unet"].net.skips:
        middles = [
            round(drawn_blocks[n].get_x() + drawn_blocks[n].get_width() / 2, 6)
            for n in (source, target)
        ]
        assert tuple(middles) in ends


def test_costs_has_a_bar_for_each_block(timed, parts):
    figure = drawn.costs_figure(timed, "tiny")
    blocks = [block for part in timed.values() for block in part.net.blocks]
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes]
    assert heights[0] == pytest.approx([block.parameters / 1e6 for block in blocks])
    assert heights[1] == pytest.approx([block.multiply_adds / 1e6 for block in blocks])
    assert heights[2] == pytest.approx([block.peak_bytes / 1e6 for block in blocks])
    seconds = [s for part in timed.values() for s in part.block_seconds]
    assert heights[3] == pytest.approx([1e3 * s for s in seconds])
    assert len(drawn.costs_figure(parts, "tiny").axes) == 3


def test_the_script_writes_the_table_and_the_figures(monkeypatch, tmp_path, model):
    asked = ["--width", 128, "--height", 64, "--repeats", 1, "--out", tmp_path / "run"]
    result = run(monkeypatch, model, "pipeline_map", *asked)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in tmp_path.glob("run/figures/*")) == ["costs.png", "map.png"]
    with (tmp_path / "run" / "blocks.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["part"] == "tokenizer" and rows[0]["output"] == "20"
    blocks = [row for row in rows if row["block"]]
    assert sum(int(row["parameters"]) for row in blocks) == model.parameters
    assert all(float(row["seconds"]) > 0 for row in rows)
    told = summary(tmp_path / "run")
    assert told["parameters"] == model.parameters
    unet = told["parts"]["U-Net"]
    assert unet["multiply_adds"] == sum(
        int(row["multiply_adds"]) for row in blocks if row["part"] == "U-Net"
    )
    assert "time, ms" in result.stdout and "unet/mid/attn.0" in result.stdout


def test_where_nothing_is_timed_no_weights_are_asked_for(monkeypatch, tmp_path, model):
    """And convolutions are by definition."""
    asked = []
    monkeypatch.setattr(
        Experiment, "load", lambda self, *name, **how: asked.append((*name, how)) or model
    )
    app = script.app(runpy.run_path(str(shipped("experiments") / "pipeline_map.py"))["main"])
    assert "--download" not in CliRunner().invoke(app, ["--help"]).stdout
    arguments = ["--model", "sd-v1-4", "--repeats", "0", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and "time, ms" not in result.stdout
    with (tmp_path / "run" / "blocks.csv").open(encoding="utf-8") as file:
        assert {row["seconds"] for row in csv.DictReader(file)} == {""}
    assert asked == [("sd-v1-4", {"weights": None, "exact": True})]
