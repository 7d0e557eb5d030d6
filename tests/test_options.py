"""What is wrong with an experiment's options is told in one line, before its model is opened."""

from __future__ import annotations

from pathlib import Path

import pytest
import running
from typer.main import get_command
from typer.testing import CliRunner

from xray.experiment import Experiment
from xray.resources import shipped

LONG = "star " * 100
ONE = ["--prompt", "a star"]


@pytest.fixture
def refused(monkeypatch, tmp_path):
    """Run a script that must not come to open its model; what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Experiment, "load", lambda *_, **__: pytest.fail("the model was opened"))

    def run(name, *arguments):
        told = CliRunner().invoke(running.app(name), [str(argument) for argument in arguments])
        assert told.exit_code == 2, told.output
        assert not Path("runs").exists()
        return told.stderr

    return run


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("denoising_steps", ["--prompt", ""], "the prompt is empty"),
        ("denoising_steps", ["--prompt", LONG], "100 tokens, 78 more than the 22"),
        ("denoising_steps", ["--prompt", "a star \udce9"], "half of a surrogate pair"),
        ("denoising_steps", ["--negative", LONG], "100 tokens"),
        *(
            (name, ["--negative", "fog", "--guidance", 1], "'fog' does nothing at guidance 1")
            for name in (
                "denoising_steps",
                "latent_walk",
                "record_generation",
                "samplers",
                "stabilizing_noise",
                "text_interpolation",
            )
        ),
        ("samplers", ["--negative", "fog"], "give another --guidance"),
        ("guidance", ["--guidance", 1], "at --guidance 1 there is no push"),
        ("denoising_steps", ["--guidance", "nan"], "guidance must be a number, got nan"),
        ("denoising_steps", ["--guidance", "inf"], "guidance must be a number, got inf"),
        ("denoising_steps", ["--steps", 0], "--steps"),
        ("denoising_steps", ["--seed", -1], "--seed"),
        ("denoising_steps", ["--width", 100], "multiples of 64, got 100"),
        ("denoising_steps", ["--sampler", "dim"], "sampler 'dim' is not one of ddim"),
        ("denoising_steps", ["--model", "minni"], "mini, sd-v1-4"),
        ("record_generation", ["--eta", 0.5, "--sampler", "heun"], "heun puts no noise back"),
        ("record_generation", ["--eta", "nan"], "--eta"),
        ("record_generation", ["--spacing", "karras"], "for samplers of noise levels"),
        ("record_generation", ["--record", "smapler/*"], "'smapler/*' names no site"),
        ("guidance", ["--negative", "grass", "--negative", LONG], "100 tokens"),
        ("guidance", ["--scale", 3, "--scale", "nan"], "scale must be a number, got nan"),
        ("guidance", ["--interval", 5, 2], "5 to 2"),
        ("image_to_image", ["--strength", 0], "strength must be above 0 and at most 1, got 0"),
        ("image_to_image", ["--other", " "], "the prompt is empty"),
        ("image_to_image", ["--paint", "0.5,0,0.5,1"], "0.5,0,0.5,1 is no box"),
        ("image_to_image", ["--paint", "nowhere.png"], "no picture at nowhere.png"),
        ("image_to_image", ["--picture", "nowhere.png"], "no picture at nowhere.png"),
        ("text_interpolation", ["--other", LONG], "100 tokens"),
        ("text_interpolation", ["--frames", 2], "--frames"),
        ("text_encoder", ["--other", LONG], "100 tokens"),
        ("forward_process", ["--prompt", LONG], "100 tokens"),
        ("latent_walk", ["--prompt", "a star", "--prompt", LONG], "100 tokens"),
        ("latent_walk", ["--prompt", "a star", "--prompt", ""], "a prompt is empty"),
        ("latent_walk", [*ONE, "--noise", "seeds"], "one prompt and one seed are no walk"),
        ("latent_walk", [*ONE, "--noise", "random", "--loop"], "does not come back"),
        ("latent_walk", ["--frames", 2], "frames, got 2"),
        ("latent_walk", ["--fps", 60], "fps"),
        ("latent_walk", ["--hold", "inf"], "hold must be a number, got inf"),
        ("latent_walk", ["--angle", "nan"], "angle must be above 0 and at most 90, got nan"),
        ("latent_walk", ["--angle", 120], "angle must be above 0 and at most 90, got 120"),
        ("latent_walk", ["--inset", "tree"], "no word 'tree' in the prompts"),
        ("latent_walk", ["--noise", "spiral"], "not one of seeds, circle, random"),
        ("latent_walk", ["--easing", "bouncy"], "not one of linear, smooth"),
        ("noise_corruption", ["--amplitude", 0], "amplitude must be above 0, got 0"),
        ("noise_corruption", ["--share", 2], "share must be above 0 and at most 1, got 2"),
        ("embedding_similarity", ["--vector", "mean"], "not one of pooled, whole"),
        ("embedding_similarity", ["--prompts", "nowhere.txt"], "neither a set of prompts"),
        ("embedding_similarity", ["--seed", 2**32], "--seed"),
        ("samplers", ["--sampler", "ddim", "--sampler", "dim"], "sampler 'dim' is not one of ddim"),
        ("samplers", ["--spacing", "karras"], "not one that every sampler takes"),
        ("samplers", ["--reference", 16], "must have more than those compared"),
        ("samplers", ["--prompt", LONG], "100 tokens"),
        ("stabilizing_noise", ["--eta", 2], "--eta"),
        ("stabilizing_noise", ["--spacing", "karras"], "not one that every sampler takes"),
        ("stabilizing_noise", ["--picture", "nowhere.png"], "no picture at nowhere.png"),
        ("latent_interpolation", ["--words", LONG], "100 tokens"),
        ("latent_interpolation", ["--other-words", LONG], "100 tokens"),
        ("latent_interpolation", ["--frames", 2], "--frames"),
        ("latent_interpolation", ["--other-picture", "nowhere.png"], "no picture at nowhere.png"),
        ("tokenizer", ["--phrase", "a word"], "'a word' has no {}"),
        ("tokenizer", ["--phrase", LONG + "{}"], "tokens, "),
        ("tokenizer", ["--spelling", "colour"], "'colour' is no WORD=VARIANT"),
        ("tokenizer", ["--spelling", "colour="], "'colour=' is no WORD=VARIANT"),
        ("tokenizer", ["--word", ""], "'' has 0 bytes"),
        ("tokenizer", ["--word", "x" * 60], "has 60 bytes to join; words of 1 … 48"),
        ("pipeline_map", ["--model", "minni"], "mini, sd-v1-4"),
        ("pipeline_map", ["--width", 100], "multiples of 64"),
        ("pipeline_map", ["--repeats", -1], "--repeats"),
    ],
)
def test_it_is_refused(refused, name, arguments, said):
    assert said in refused(name, *arguments)


@pytest.mark.parametrize("name", [path.stem for path in shipped("experiments").glob("*.py")])
def test_every_experiment_has_what_all_have(name):
    taken = {each for option in get_command(running.app(name)).params for each in option.opts}
    assert {"--model", "--out", "--overwrite", "--svg"} <= taken


def test_results_are_not_lost_to_a_run_that_is_refused_for_them(refused, tmp_path):
    (tmp_path / "mine").touch()
    for name in (path.stem for path in shipped("experiments").glob("*.py")):
        assert "not empty" in refused(name, "--out", tmp_path)


def test_a_model_without_a_vocabulary_is_refused_for_what_reads_prompts(
    refused, model, monkeypatch
):
    from xray.checkpoints import save

    monkeypatch.setattr(model, "tokenizer", None)
    save(model, "silent")
    for name in ("denoising_steps", "tokenizer"):
        assert "silent comes without a vocabulary" in refused(name, "--model", "silent")


def test_an_empty_text_is_a_text_where_it_means_something(monkeypatch, tmp_path):
    """Guidance starts from it, and it can be compared with others."""
    opened = []
    monkeypatch.setattr(Experiment, "load", lambda self, model: opened.append(self.name) or 1 / 0)
    for name, option in (
        ("denoising_steps", "--negative"),
        ("text_encoder", "--prompt"),
        ("text_interpolation", "--other"),
    ):
        arguments = [option, "", "--out", str(tmp_path / name)]
        assert isinstance(
            CliRunner().invoke(running.app(name), arguments).exception, ZeroDivisionError
        )
    assert opened == ["denoising_steps", "text_encoder", "text_interpolation"]
