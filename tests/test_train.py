"""Training the miniature, in two minutes: that it resumes, and that what it exports opens."""

import contextlib
import itertools
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file

import xray
from xray.miniature import train, training
from xray.miniature.corpus import pictured
from xray.miniature.meaning import ANSWERS, meaning
from xray.miniature.training import CHECKPOINT, LONGEST_STEP, averages, fit, progress

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("training")
    train.main(["--quick", "--out", str(out)])
    return out


def test_the_export_opens_and_draws(out):
    model = xray.load(out / "mini")
    assert model.generate("a red star", steps=2, record=[]).image.size == (128, 128)
    assert model.parameters < 10_000_000


def test_latents_have_unit_variance_under_the_exported_scaling_factor(out):
    model = xray.load(out / "mini")
    pictures = [
        np.asarray(train.image(s)) for s in itertools.islice(pictured(), train.QUICK.scenes)
    ]
    assert model.encode(np.stack(pictures)).values.std() == pytest.approx(1.0, abs=0.02)


def test_scenes_stay_those_of_the_seed_that_they_began_with(out, tmp_path):
    """Another seed then gives other noise, to weights that have seen this seed's."""
    for name in ("tokenizer.json", "autoencoder"):
        (shutil.copytree if (out / name).is_dir() else shutil.copy)(out / name, tmp_path / name)
    for scenes, seed in (("8", "3"), ("24", "4")):
        begin = ["--quick", "--out", str(tmp_path), "--stage", "latents"]
        train.main([*begin, "--scenes", scenes, "--seed", seed])
    tokenizer = xray.load(out / "mini").tokenizer
    encoded = load_file(tmp_path / "latents.safetensors")
    shown = list(itertools.islice(pictured(3), 24))
    np.testing.assert_array_equal(encoded["ids"], [tokenizer.ids(s.caption) for s in shown])
    np.testing.assert_array_equal(encoded["truth"], [meaning(s) for s in shown])

    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "chances", lambda n, seed: drawn.append(seed) or np.full(n, 1 / n))
        begin = ["--quick", "--out", str(tmp_path), "--stage", "diffusion"]
        train.main([*begin, "--minutes", "1e-9", "--seed", "4"])
    assert drawn == [3]


def test_a_second_call_goes_on_where_the_first_stopped(out):
    before = progress(out / "diffusion")
    train.main(["--quick", "--out", str(out), "--stage", "diffusion", "--minutes", "0.5"])
    after = progress(out / "diffusion")
    assert after["steps"] > before["steps"] and after["seconds"] > before["seconds"]
    # The budget is of the whole, not of the second call; one step may go over.
    assert 30 <= after["seconds"] <= 30 + LONGEST_STEP


def test_what_goes_on_has_all_that_was_there(tmp_path, monkeypatch):
    """Weights, the optimizer's memory, the average; and no step twice in the loss curve."""
    unseen = SimpleNamespace(savefig=lambda path: None)  # it is saved at every step here
    monkeypatch.setattr(training, "loss_figure", lambda curve: unseen)

    def once(folder, steps):
        weight = keras.Variable(np.eye(16, dtype=np.float32), name="kernel")
        ends = iter(range(steps))

        def batches(start):
            for step in itertools.count(start):
                if next(ends, None) is None:
                    raise KeyboardInterrupt
                yield (np.random.default_rng(step).standard_normal((4, 16)).astype(np.float32),)

        def loss(x):
            return tf.reduce_mean((x @ weight.value - 1.0) ** 2)

        with contextlib.suppress(KeyboardInterrupt):
            asked = {"minutes": 1e9, "checkpoint_minutes": 0, "learning_rate": 1e-2}
            fit(folder, {"kernel": weight}, loss, batches, **asked)

    for steps in (60, 70):
        once(tmp_path / "parts", steps)
    with (tmp_path / "parts" / "loss.csv").open("a") as curve:
        curve.write("1000000,1.0,0.5\n")  # as a run leaves it that is killed before it could save
    once(tmp_path / "parts", 30)
    once(tmp_path / "whole", 160)
    parts, whole = (load_file(tmp_path / name / CHECKPOINT) for name in ("parts", "whole"))
    assert progress(tmp_path / "parts")["steps"] == progress(tmp_path / "whole")["steps"] > 150
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value)
    samples = np.loadtxt(tmp_path / "parts" / "loss.csv", delimiter=",", ndmin=2)[:, 0]
    assert (np.diff(samples) > 0).all() and samples[-1] < 1000000


def test_the_seed_fixes_the_weights_that_a_stage_begins_with(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(train, "fit", lambda folder, net, *args, **kwargs: begun.append(net))
    for seed in ("0", "0", "1"):
        train.main(["--quick", "--out", str(tmp_path), "--stage", "autoencoder", "--seed", seed])
    largest = max(begun[0], key=lambda name: np.prod(begun[0][name].shape))
    first, again, other = (np.asarray(net[largest]) for net in begun)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_start_from_an_exported_model_keeps_its_words_and_begins_at_its_weights(out, tmp_path):
    begin = ["--quick", "--out", str(tmp_path), "--start", str(out / "mini")]
    train.main([*begin, "--stage", "tokenizer"])
    assert (tmp_path / "tokenizer.json").read_bytes() == (out / "tokenizer.json").read_bytes()
    train.main([*begin, "--stage", "autoencoder", "--minutes", "1e-9"])  # one step
    assert progress(tmp_path / "autoencoder")["steps"] == 1
    before = averages(out / "autoencoder")
    for name, value in averages(tmp_path / "autoencoder").items():
        np.testing.assert_allclose(value, before[name], atol=2e-3, rtol=2e-3)


def test_the_text_encoder_learns_what_captions_say_before_it_meets_the_unet(out, tmp_path):
    curve = out / "text" / "loss.csv"
    # A row is 50 steps of one call: on a busy machine each call has to be longer than the last.
    while not curve.exists() or len(curve.read_text().splitlines()) < 3:
        minutes = str(2 * progress(out / "text")["seconds"] / 60)
        train.main(["--quick", "--out", str(out), "--stage", "text", "--minutes", minutes])
    losses = np.loadtxt(curve, delimiter=",", ndmin=2)[:, 2]
    assert losses[-1] < 0.8 * losses[0]

    for name in ("tokenizer.json", "latents.safetensors"):
        shutil.copy(out / name, tmp_path / name)
    shutil.copytree(out / "text", tmp_path / "text")
    begin = ["--quick", "--out", str(tmp_path), "--stage", "diffusion"]
    train.main([*begin, "--minutes", "1e-9"])  # one step
    taught, begun = averages(out / "text"), averages(tmp_path / "diffusion")
    for name in begun.keys() & taught.keys():
        np.testing.assert_allclose(begun[name], taught[name], atol=2e-3, rtol=2e-3)
    assert any(name.startswith("text/") for name in begun.keys() & taught.keys())


def test_diffusion_goes_on_asking_what_captions_say(out, monkeypatch):
    """Each caption with its own answers, the empty one with "it does not say" throughout."""
    got = {}
    monkeypatch.setattr(train, "fit", lambda folder, net, loss, batches, **_: got.update(locals()))
    train.main(["--quick", "--out", str(out), "--stage", "diffusion"])
    encoded = load_file(out / "latents.safetensors")
    empty = xray.load(out / "mini").tokenizer.ids("")
    said = {tuple(ids): truth for ids, truth in zip(encoded["ids"], encoded["truth"], strict=True)}
    said[tuple(empty)] = np.zeros(len(ANSWERS))
    batches = list(itertools.islice(got["batches"](0), 20))
    for *_, tokens, truth in batches:
        np.testing.assert_array_equal(truth, [said[tuple(ids)] for ids in tokens])
    assert 0.02 < np.mean([(tokens == empty).all(1) for *_, tokens, _ in batches]) < 0.3

    # A layer that knows nothing gives each of n answers a chance of 1 / n.
    for name in ("answer/kernel", "answer/bias"):
        got["net"][name].assign(np.zeros(got["net"][name].shape))
    asked = float(got["loss"](*batches[0]))
    monkeypatch.setattr(train, "ASKED_SHARE", 0.0)
    unasked = float(got["loss"](*batches[0]))
    assert asked - unasked == pytest.approx(0.05 * np.log(ANSWERS).sum(), rel=1e-4)


@pytest.mark.parametrize("rate", ["0", "-0.5", "nan"])
def test_a_learning_rate_is_above_zero(out, rate, capsys):
    with pytest.raises(SystemExit):
        train.main(["--out", str(out), "--learning-rate", rate])
    assert "it must be above 0" in capsys.readouterr().err


def test_a_start_must_be_a_saved_model(tmp_path, capsys):
    with pytest.raises(SystemExit):
        train.main(["--out", str(tmp_path), "--start", str(tmp_path)])
    assert "no weights.safetensors in it" in capsys.readouterr().err


def test_minutes_belong_to_a_stage(out, capsys):
    with pytest.raises(SystemExit):
        train.main(["--out", str(out), "--minutes", "3"])
    assert "--minutes goes with --stage" in capsys.readouterr().err
