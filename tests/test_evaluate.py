"""The evaluation: a perfect miniature reaches every figure, and each way to be worse is noticed."""

import dataclasses
import itertools
import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import xray
from xray.checkpoints import save
from xray.checkpoints.files import sha256
from xray.miniature import evaluate as module
from xray.miniature.captions import WORDS, plural, words_of
from xray.miniature.corpus import described, pictured
from xray.miniature.evaluate import (
    QUICK,
    Bench,
    Row,
    add_part,
    autoencoder_part,
    contact_sheet,
    diversity_part,
    follows,
    guidance_part,
    hearing_part,
    judge_part,
    known_parts,
    main,
    pictures_part,
    synonyms_part,
    write_report,
)
from xray.miniature.hearing import Heard
from xray.miniature.judge import main as train_judge
from xray.miniature.scenes import SIDE, held_out, image, scene
from xray.miniature.scoring import Seen, truth
from xray.tokenizer import Tokenizer, train_merges

SMALL = dataclasses.replace(QUICK, captions=30, curve=60)


class PerfectRenderer:
    """A model that draws what captions say, and its perfect judge, which reads the scene graph.

    It is told the scenes of an evaluation beforehand, which no model ever is.
    """

    def __init__(self):
        self.known, self.seen = {}, {}

    def learn(self, scenes):
        for s in scenes:
            self.known[s.caption] = image(s)
            self.seen[image(s).tobytes()] = truth(s)
        return scenes

    def generate(self, captions, *, seed, steps, record, progress, guidance=5.0):
        assert len(seed) == len(captions) and len(set(seed)) == len(seed)
        pictures = np.stack([self.picture(c, s, guidance) for c, s in zip(captions, seed)])
        return {"image": SimpleNamespace(values=pictures)}

    def picture(self, caption, seed, guidance):
        return self.known[caption]

    def judge(self, pictures):
        nothing = Seen((), "black")
        return [self.seen.get(p.tobytes(), nothing) for p in pictures]


class BlindWithoutGuidance(PerfectRenderer):
    def picture(self, caption, seed, guidance):
        perfect = super().picture(caption, seed, guidance)
        return np.zeros_like(perfect) if guidance == 1.0 else perfect


@pytest.fixture
def bench(tmp_path, monkeypatch):
    def make(model, sizes=SMALL):
        made = Bench(model, model.judge, sizes, tmp_path)
        chosen = made.scenes
        monkeypatch.setattr(made, "scenes", lambda *args: model.learn(chosen(*args)))
        return made

    return make


def by_name(rows):
    return {row.what: row for row in rows}


# ----------------------------------------------------------------------------------- the pictures


def test_a_perfect_renderer_is_always_right(bench):
    made = bench(PerfectRenderer())
    rows, details = pictures_part(made)
    assert {row.figure for row in rows} == {1.0}
    assert all(row.reached for row in rows if row.reach is not None)
    assert details["held_out"]["all right"] == (1.0, 30)
    shown = np.asarray(Image.open(made.out / "pictures.png").convert("L"))
    assert np.mean(shown < 250) > 0.1


def test_the_right_pictures_of_other_captions_are_wrong():
    model, scenes = PerfectRenderer(), [scene(k) for k in range(200)]
    pictures = np.stack([image(s) for s in model.learn(scenes)])
    assert follows(pictures, scenes, model.judge)["all right"] == (1.0, 200)
    found = follows(np.roll(pictures, 1, axis=0), scenes, model.judge)
    assert found["all right"][0] < 0.02 and found["things"][0] < 0.25


def test_each_caption_gets_its_own_picture_across_batches(bench):
    model = PerfectRenderer()
    made = bench(model)
    scenes = made.scenes(module.BATCH + 3, 0)
    assert np.array_equal(made.draw(scenes), np.stack([image(s) for s in scenes]))


def test_pictures_are_there_to_be_looked_at_with_their_captions():
    scenes = [scene(k) for k in range(8)]
    figure = contact_sheet([image(s) for s in scenes], [s.caption for s in scenes], "told")
    for axes, s in zip(figure.axes, scenes, strict=True):
        assert np.array_equal(axes.images[0].get_array(), image(s))
    texts = [" ".join(text.get_text().split()) for text in figure.texts]
    assert texts[-8:] == [s.caption for s in scenes] and "told" in texts


@pytest.mark.parametrize("described", [{}, {"0": 10}])
def test_captions_are_called_new_only_if_it_was_looked(bench, monkeypatch, described):
    told = []
    unseen = SimpleNamespace(savefig=lambda path: None)
    monkeypatch.setattr(module, "contact_sheet", lambda *given: told.append(given[2]) or unseen)
    sizes = dataclasses.replace(QUICK, captions=2, described=described)
    pictures_part(bench(PerfectRenderer(), sizes))
    assert ("no training scene had them" in told[0]) == bool(described)


def test_guidance_must_make_a_difference(bench):
    (default,) = (r for r in guidance_part(bench(BlindWithoutGuidance()))[0] if r.reach is not None)
    assert "default" in default.what and default.reached
    (default,) = (r for r in guidance_part(bench(PerfectRenderer()))[0] if r.reach is not None)
    assert not default.reached


# ----------------------------------------------------------------------------- scenes and captions


@pytest.mark.parametrize(("seen", "seed"), [("pictured", 0), ("described", 0), ("described", 2)])
def test_captions_of_training_are_avoided(bench, seen, seed):
    stream = {"pictured": pictured, "described": described}[seen]
    known = {s.caption for s in itertools.islice(stream(seed), 1500)}
    free, avoiding = (
        bench(PerfectRenderer(), dataclasses.replace(SMALL, **{seen: told})).scenes(150, 0)
        for told in ({}, {str(seed): 1500})
    )
    assert any(s.caption in known for s in free)
    assert not any(s.caption in known for s in avoiding)


def test_parts_and_splits_have_scenes_of_their_own(bench):
    made = bench(PerfectRenderer())
    a, b, held = made.scenes(20, 1), made.scenes(20, 2), made.scenes(20, 2, "held_out")
    assert not {image(s).tobytes() for s in a} & {image(s).tobytes() for s in b}
    assert all(held_out(s, stated=True) for s in held) and not any(held_out(s) for s in a)
    assert made.scenes(20, 1) == a


# -------------------------------------------------------------------------------- the other parts


class Autoencoder(PerfectRenderer):
    """Keeps all, or loses a known amount."""

    def __init__(self, lost=0):
        super().__init__()
        self.lost = lost

    def encode(self, pictures):
        return SimpleNamespace(values=pictures.astype(np.float32))

    def decoder(self, latents):
        sign = np.where(latents < 128, 1.0, -1.0)
        return (latents + self.lost * sign) / 127.5 - 1.0


def test_the_autoencoders_loss_is_measured(bench):
    psnr, _ = autoencoder_part(bench(Autoencoder(lost=8)))[0]
    assert psnr.figure == pytest.approx(20 * np.log10(255 / 8), abs=1e-3) and not psnr.reached
    psnr, ssim = autoencoder_part(bench(Autoencoder(lost=1)))[0]
    assert psnr.reached and ssim.reached and ssim.figure < 1.0


def test_the_judge_is_judged_on_both_kinds_of_picture(bench):
    rows = by_name(judge_part(bench(Autoencoder(lost=1)))[0])
    assert rows["judge on rendered scenes: captions all right"].figure == 1.0
    # This judge knows only the very pixels.
    assert rows["judge on autoencoder round trips: captions all right"].figure == 0.0


@pytest.fixture(scope="module")
def vocabulary():
    captions = [scene(k, split="any").caption for k in range(300)]
    return Tokenizer(train_merges(captions, 200), length=60)


class Text:
    """Embeds a caption as the sum of its words' vectors."""

    judge = None

    def __init__(self, tokenizer, meaning):
        self.tokenizer, self.meaning = tokenizer, meaning

    def embed(self, captions):
        out = np.zeros((len(captions), 60, 32), np.float32)
        for i, caption in enumerate(captions):
            end = [t.special for t in self.tokenizer.tokens(caption)].index("end")
            for word in words_of(caption):
                key = self.meaning.get(word, word)
                out[i, : end + 1] += np.random.default_rng([ord(c) for c in key]).standard_normal(
                    32
                )
        return SimpleNamespace(values=out)


def test_synonyms_are_told_from_other_words(tmp_path, vocabulary):
    kinds = [words for meanings in WORDS.values() for words in meanings.values()]
    same = {w: words[0] for words in kinds for w in words} | {"an": "a"}
    same |= {plural(w): first for w, first in same.items()}
    sizes = dataclasses.replace(QUICK, scenes=60)
    results = {}
    for name, meaning in (("knows", same), ("does not", {})):
        rows, _ = synonyms_part(Bench(Text(vocabulary, meaning), None, sizes, tmp_path))
        results[name] = by_name(rows)["synonyms: AUC, end token"]
    assert results["knows"].reached and not results["does not"].reached
    assert 0.3 < results["does not"].figure < 0.7


def test_diversity_is_measured_against_scenes_that_say_the_same(bench):
    class Varied(PerfectRenderer):
        def picture(self, caption, seed, guidance):
            return image(scene(1000 + seed, objects=(1,)))

    class Stubborn(PerfectRenderer):
        def picture(self, caption, seed, guidance):
            return image(scene(20))

    sizes = dataclasses.replace(QUICK, seeds=5)
    (varied,), (stubborn,) = (diversity_part(bench(m(), sizes))[0] for m in (Varied, Stubborn))
    assert varied.reached and stubborn.figure == pytest.approx(0.0, abs=1e-6)


# ------------------------------------------------------------------------------------- the report


OF = {"model": "mini", "digest": "0" * 64, "judge": "1" * 64, "seed": 0}


def test_the_report_has_targets_beside_figures(tmp_path):
    rows = [
        Row("pictures: things", 0.951, 1700, "%", 0.95),
        Row("autoencoder: PSNR", 32.96, 1000, "dB", 33.0),
        Row("pictures: sizes", 0.5, 10, "%"),
    ]
    parts = {"pictures": {"rows": [dataclasses.asdict(r) for r in rows], "details": None}}
    report = {**OF, "parts": parts}
    text = write_report(tmp_path, report)
    assert "| pictures: things | 95.1 % | ≥ 95.0 % | reached | 1700 |" in text
    assert "| autoencoder: PSNR | 32.96 dB | ≥ 33.00 dB | missed | 1000 |" in text
    assert "| pictures: sizes | 50.0 % |  |  | 10 |" in text
    assert (tmp_path / "evaluation.md").read_text() == text
    assert json.loads((tmp_path / "evaluation.json").read_text()) == report


def test_parts_are_kept_of_the_same_weights_only(tmp_path):
    parts = {"judge": {"rows": []}}
    assert known_parts(tmp_path, OF) == {}
    write_report(tmp_path, {**OF, "parts": parts})
    assert known_parts(tmp_path, OF) == parts
    assert known_parts(tmp_path, {**OF, "digest": "1" * 64}) == {}


def test_no_part_is_lost_that_two_processes_write_at_once(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")

    def slowly(*given):
        found = known_parts(*given)
        time.sleep(0.3)
        return found

    monkeypatch.setattr(module, "known_parts", slowly)
    names = ("judge", "autoencoder", "pictures")
    threads = [
        threading.Thread(target=add_part, args=(tmp_path, OF, name, {"rows": []})) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert known_parts(tmp_path, OF).keys() == set(names)


def test_a_report_that_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    write_report(tmp_path, {**OF, "parts": {}})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    write = Path.write_text

    def full(path, text):
        write(path, text[:20])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space"):
        write_report(tmp_path, {**OF, "parts": {"judge": {"rows": []}}})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_report_names_its_judge_whichever_parts_are_made(tmp_path, monkeypatch):
    judge, out = tmp_path / "judge.safetensors", tmp_path / "out"
    judge.write_bytes(b"some judge")
    monkeypatch.setattr(module, "load", lambda name: SimpleNamespace(name=name, digest="0" * 64))
    monkeypatch.setattr(module, "load_judge", lambda path: path)
    for part in ("judge", "synonyms"):
        monkeypatch.setitem(module.PARTS, part, lambda bench: ([], None))
        main(["--quick", "--judge", str(judge), "--out", str(out), "--parts", part])
    report = json.loads((out / "evaluation.json").read_text())
    assert report["judge"] == sha256(judge) and report["parts"].keys() == {"judge", "synonyms"}
    assert f"judge {sha256(judge)[:12]}" in (out / "evaluation.md").read_text()

    judge.write_bytes(b"another")
    main(["--quick", "--judge", str(judge), "--out", str(out), "--parts", "synonyms"])
    report = json.loads((out / "evaluation.json").read_text())
    assert report["judge"] == sha256(judge) and report["parts"].keys() == {"synonyms"}


def test_a_rise_of_one_scene_has_no_error_in_the_table(bench, monkeypatch):
    found = {"fill": Heard(np.array([0.5, 0.25]), np.array([0.125, np.nan]), 1)}
    monkeypatch.setattr(module, "heard", lambda *given: found)
    monkeypatch.setattr(module, "TIMESTEPS", (100.0, 900.0))
    rows, details = hearing_part(bench(PerfectRenderer()))
    part = {"rows": [dataclasses.asdict(row) for row in rows], "details": details}
    text = write_report(bench(PerfectRenderer()).out, {**OF, "parts": {"hearing": part}})
    assert "| fill | 50.0 ± 12.5 % | 25.0 % |" in text
    json.loads(json.dumps(details), parse_constant=pytest.fail)  # nan is no JSON


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--captions", "0"], "--captions: 0: it must be a whole number of at least 1"),
        (["--pictured", "64"], "'64': write SEED=COUNT, such as 0=64"),
        (["--described", "0=-4"], "'0=-4': write SEED=COUNT, such as 0=64"),
        (["--pictured", "0=64", "00=32"], "--pictured: seed 0 is given twice"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(tmp_path, options, told, capsys):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "out"), *options])
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_whole_evaluation_of_an_untrained_miniature(tmp_path, tiny):
    captions = [scene(k, split="any").caption for k in range(2000)]
    tokenizer = Tokenizer(train_merges(captions, 360), length=24)
    sizes = dataclasses.replace(
        tiny, vocab_size=len(tokenizer.vocabulary), text_length=24, size=SIDE, prediction="v"
    )
    save(xray.load(sizes, weights=None, tokenizer=tokenizer), tmp_path / "model")
    chosen = ["--model", str(tmp_path / "model")]
    few = ["--minutes", "0.02", "--round-trips", "8", "--tests", "4"]
    train_judge([*chosen, "--out", str(tmp_path), *few])

    out, judge = tmp_path / "out", tmp_path / "judge.safetensors"
    common = [*chosen, "--judge", str(judge), "--out", str(out)]
    main([*common, "--quick", "--parts", "synonyms", "hearing", "attention"])
    main([*common, "--quick", "--parts", "judge", "autoencoder", "pictures"])
    main([*common, "--quick", "--parts", "guidance", "diversity"])
    report = json.loads((out / "evaluation.json").read_text())
    assert report["parts"].keys() == module.PARTS.keys()
    rows = {row["what"]: row for part in report["parts"].values() for row in part["rows"]}
    assert rows["pictures: all right"]["figure"] == 0.0  # it has learned nothing
    assert rows["attention of thing words: IoU"]["figure"] < 0.5
    table = (out / "evaluation.md").read_text()
    assert "| unet/mid/attn.0 |" in table and "timestep 900" in table
    assert "| colour | " in table and "±" in table and "all that no thing covers" in table
    assert {p.name for p in out.iterdir()} >= {"pictures.png", "guidance.png", "evaluation.md"}
