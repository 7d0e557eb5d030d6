"""Which words a network hears: known errors give known rises."""

from types import SimpleNamespace

import numpy as np
import pytest

from xray.miniature.captions import WORDS, words_of
from xray.miniature.hearing import _ratio, heard
from xray.miniature.scenes import INVERSE, reworded, scene
from xray.samplers import NoiseSchedule
from xray.tokenizer import Tokenizer, train_merges

SCENES = [scene(k, objects=(2,)) for k in range(40)]
TIMESTEPS = (100.0, 901.0)


@pytest.fixture(scope="module")
def vocabulary():
    return Tokenizer(train_merges([s.caption for s in SCENES], 200), length=60)


def listener(vocabulary, surprising, usual=1.0):
    """A model of grey pictures whose error is as usual, half more with captions that surprise."""
    schedule = NoiseSchedule()
    known = {tuple(vocabulary.ids(caption)) for caption in surprising}

    def unet(x, embedding, context):
        alpha = schedule.alphas_cumprod[int(embedding[0, 0])]
        error = usual * np.array([1.5 if tuple(row) in known else 1.0 for row in context])
        return x / np.sqrt(1 - alpha) + np.sqrt(error)[:, None, None, None]

    return SimpleNamespace(
        tokenizer=vocabulary,
        schedule=schedule,
        architecture=SimpleNamespace(prediction="epsilon"),
        encode=lambda pictures: SimpleNamespace(values=np.zeros((len(pictures), 16, 16, 4))),
        text=lambda ids: ids,
        timestep_embedding=lambda t: np.array([t]),
        unet=unet,
    )


def test_only_what_is_heard_raises_the_error(vocabulary):
    surprising = [
        reworded(s, [5 + i, 2], same=False, role="relation") for i, s in enumerate(SCENES)
    ]
    model = listener(vocabulary, [c for c in surprising if c is not None])
    found = heard(model, SCENES, TIMESTEPS, seed=5)
    assert found["relation"].scenes == sum(c is not None for c in surprising)
    for role in found.keys() - {"relation"}:
        np.testing.assert_allclose(found[role].rise, 0, atol=1e-5)
    np.testing.assert_allclose(found["relation"].rise, 0.5, rtol=1e-4)
    np.testing.assert_allclose(found["relation"].error, 0, atol=1e-5)


def test_a_rise_by_the_same_share_everywhere_is_known_without_error(vocabulary):
    """However different pictures are: a plain one is predicted four times as well as another."""
    surprising = [reworded(s, [5 + i, 2], same=False, role="colour") for i, s in enumerate(SCENES)]
    model = listener(
        vocabulary, [c for c in surprising if c is not None], np.linspace(0.5, 2.0, len(SCENES))
    )
    found = heard(model, SCENES, TIMESTEPS, seed=5)["colour"]
    np.testing.assert_allclose(found.rise, 0.5, rtol=1e-4)
    np.testing.assert_allclose(found.error, 0, atol=1e-5)


def test_the_error_is_that_of_the_ratio():
    ratio, error = _ratio(np.array([[0.0, 2.0, 4.0]]), np.array([[2.0, 2.0, 2.0]]))
    np.testing.assert_allclose([ratio, error], [[1.0], [1 / np.sqrt(3)]])

    random = np.random.default_rng(0)
    below = random.uniform(1.0, 3.0, (2000, 100))
    ratio, error = _ratio(below * random.normal(0.5, 0.2, below.shape), below)
    assert error.mean() == pytest.approx(ratio.std(), rel=0.1)


def test_one_scene_has_a_rise_but_no_error():
    ratio, error = _ratio(np.array([[1.0], [3.0]]), np.array([[2.0], [2.0]]))
    assert ratio.tolist() == [0.5, 1.5] and np.isnan(error).all()


def test_one_word_is_changed_to_one_that_means_something_else():
    for s in SCENES:
        for role in WORDS:
            changed = reworded(s, [0], same=False, role=role)
            if changed is None:
                assert role not in {w.role for w in s.words} or role in ("fill", "background")
                continue
            before, after = words_of(s.caption), words_of(changed)
            (place,) = (
                k
                for k, (a, b) in enumerate(zip(before, after, strict=True))
                if a != b and a not in ("a", "an")
            )
            assert s.words[place].role == role
            assert after[place] not in WORDS[role].get(s.words[place].value, ())


def test_left_is_exchanged_for_right():
    s = next(s for s in SCENES if s.relation and s.relation[1] == "left of")
    assert INVERSE["left of"] == "right of"
    assert reworded(s, [0], same=False, role="relation") == s.caption.replace("left", "right")


def test_what_ships_hears_colours(mini):
    found = heard(mini, SCENES[:16], (500.0,), seed=0)["colour"]
    assert found.rise[0] > 3 * found.error[0]
