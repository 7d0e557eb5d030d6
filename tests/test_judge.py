"""The judge: it can say everything a scene can be, learns it, and is not fooled by captions."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from xray.miniature import judge as module
from xray.miniature.judge import (
    Judge,
    accuracy,
    build_network,
    load_judge,
    read,
    targets,
    train_judge,
    variables,
)
from xray.miniature.scenes import image, scene
from xray.miniature.scoring import score, shares, statement, truth


def perfect_outputs(wanted):
    """What a network that has learned its targets by heart puts out."""
    cells = np.zeros((*wanted.present.shape, sum(module._CHANNELS.values())), np.float32)
    parts = module._split(cells)  # views
    p = np.clip(wanted.present, 1e-6, 1 - 1e-6)
    parts["present"][..., 0] = np.log(p / (1 - p))
    for role in ("thing", "colour", "fill"):
        np.put_along_axis(parts[role], getattr(wanted, role)[..., None], 5.0, axis=-1)
    parts["offset"][:] = wanted.offset
    return cells, np.eye(len(module._NAMES["background"]))[wanted.background]


@given(st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_all_that_a_scene_can_be_can_be_said(seed):
    what = truth(scene(seed, split="any"))
    said = read(*perfect_outputs(targets(what)))
    assert said.background == what.background
    assert sorted(t[:4] for t in said.things) == sorted(t[:4] for t in what.things)
    for thing in said.things:
        distances = [np.subtract(thing.centre, t.centre) for t in what.things if t[:4] == thing[:4]]
        assert min(np.abs(d).max() for d in distances) < 1e-3


def test_one_thing_seen_in_two_sizes_is_one_thing():
    what = truth(scene(20))
    small, large = (
        what._replace(things=(what.things[0]._replace(size=s),)) for s in ("medium", "large")
    )
    cells, background = perfect_outputs(targets(small))
    again, _ = perfect_outputs(targets(large))
    said = read(np.maximum(cells, again - 0.5), background)
    assert [t.size for t in said.things] == ["medium"]


def test_it_learns_what_it_is_taught(tmp_path):
    from keras import optimizers

    scenes = [scene(k, split="any") for k in range(3)]
    pictures = np.stack([image(s) for s in scenes])
    network = build_network()
    wanted = module.Targets(*map(np.stack, zip(*(targets(truth(s)) for s in scenes), strict=True)))
    _overfit(network, pictures, wanted, optimizers.Adam(2e-3, global_clipnorm=1.0), 80)

    path = tmp_path / "judge.safetensors"
    save_file({k: v.numpy().astype(np.float16) for k, v in variables(network).items()}, path)
    assert path.stat().st_size < 2e6
    reloaded = load_judge(path)
    assert accuracy(reloaded, pictures, scenes) == {"captions": 1.0, "scenes": 1.0}
    assert accuracy(reloaded, pictures, scenes[1:] + scenes[:1])["captions"] == 0.0

    save_file({**load_file(path), "more": np.zeros(1, np.float16)}, path)
    with pytest.raises(ValueError, match="surplus.*more"):
        load_judge(path)


def _overfit(network, pictures, wanted, optimizer, steps):
    import tensorflow as tf

    values = [v.value for v in network.trainable_variables]
    optimizer.build(network.trainable_variables)
    pixels = tf.constant(module._pixels(pictures))

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            loss = module._loss(network(pixels), module.Targets(*map(tf.constant, wanted)))
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, values)]
        optimizer.apply(gradients, network.trainable_variables)

    for _ in range(steps):
        step()


def test_its_training_takes_rendered_scenes_and_round_trips(tmp_path):
    scenes = [scene(k, split="any") for k in range(9)]
    pictures = np.stack([image(s) for s in scenes])
    train_judge(tmp_path, scenes, pictures, minutes=0.02)
    assert len(load_judge(tmp_path / "judge.safetensors")(pictures)) == 9
    assert (tmp_path / "checkpoint.safetensors").exists()


def test_round_trips_are_kept_for_the_seed_and_model_that_they_are_of(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("xray.checkpoints.load", lambda name: SimpleNamespace(digest=name))
    monkeypatch.setattr(module, "round_trip", lambda _, pictures: made.append(1) or pictures)
    scenes, path = [scene(k, split="any") for k in range(3)], tmp_path / "round_trips.safetensors"
    for _ in range(2):
        pictures = module._round_trips(path, "a", scenes, 0)
        assert np.array_equal(pictures, [image(s) for s in scenes]) and made == [1]
    for others, told in (
        (("a", scenes, 1), "seed 0, not 1: delete it"),
        (("b", scenes, 0), "weights a, not b: delete it"),
        (("a", scenes[:2], 0), "scenes 3, not 2: delete it"),
    ):
        with pytest.raises(ValueError, match=told):
            module._round_trips(path, *others)
    save_file({"pictures": pictures}, path)  # as it was kept before
    with pytest.raises(ValueError, match="seed|weights|scenes untold"):
        module._round_trips(path, "a", scenes, 0)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--minutes=0", "--minutes: 0: it must be above 0"),
        ("--tests=0", "--tests: 0: it must be"),
        ("--seed=-1", "--seed: -1: a seed is a whole number from 0"),
        ("--round-trips=-5", "--round-trips: -5: it must be a whole number of at least 0"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path, option, told, capsys):
    with pytest.raises(SystemExit):
        module.main(["--out", str(tmp_path), option])
    assert told in capsys.readouterr().err


def test_it_is_as_large_as_it_says():
    assert f"{build_network().count_params():,} parameters" in build_network.__doc__


def test_disturbed_pictures_show_the_same():
    pictures = np.stack([image(scene(k)) for k in range(4)])
    disturbed = module._disturbed(pictures, np.random.default_rng(0))
    difference = disturbed - module._pixels(pictures)
    assert disturbed.dtype == np.float32 and np.abs(disturbed).max() <= 1.0
    assert 0.005 < np.abs(difference).mean() < 0.1


def test_other_pictures_are_refused():
    judge = Judge(build_network())
    with pytest.raises(ValueError, match="64, 64"):
        judge(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="float32"):
        judge(np.zeros((1, 128, 128, 3), np.float32))


def test_a_missing_judge_is_named(tmp_path):
    with pytest.raises(ValueError, match="nothing.safetensors.*train one"):
        load_judge(tmp_path / "nothing.safetensors")


# -------------------------------------------------------------------------- the one that is shipped


@pytest.fixture(scope="module")
def judged():
    """The shipped judge's view of scenes that it was not trained on."""
    scenes = [scene(k, split="any") for k in range(300)]
    return scenes, load_judge()(np.stack([image(s) for s in scenes]))


def test_the_shipped_judge_is_right_about_rendered_scenes(judged):
    scenes, seen = judged
    found = shares(score(statement(s), what) for s, what in zip(scenes, seen, strict=True))
    assert found["all right"][0] >= 0.98


def test_the_shipped_judge_is_wrong_on_shuffled_captions(judged):
    scenes, seen = judged
    shuffled = zip(scenes[1:] + scenes[:1], seen, strict=True)
    found = shares(score(statement(s), what) for s, what in shuffled)
    assert found["all right"][0] <= 0.02 and found["things"][0] <= 0.25
