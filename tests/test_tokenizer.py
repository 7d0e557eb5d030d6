"""Prompts to tokens: CLIP's ids, the words they belong to, and errors that say what to do."""

import gzip
import html
import itertools
import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from xray.tokenizer import PromptTooLong, Tokenizer, symbol_bytes, train_merges

PUBLISHED = Path(__file__).parents[2] / "shared" / "clip" / "bpe_simple_vocab_16e6.txt.gz"
needs_clip = pytest.mark.skipif(not PUBLISHED.exists(), reason=f"no CLIP vocabulary: {PUBLISHED}")

CAPTIONS = [
    "a red star above a blue moon",
    "two stars and a small blue star",
    "a moon, a star: the stars' moonlight",
]


@pytest.fixture(scope="module")
def clip():
    return Tokenizer.from_bpe(PUBLISHED)


@pytest.fixture(scope="module")
def small():
    return Tokenizer(train_merges(CAPTIONS, 60), length=16)


def textbook_bpe(symbols, merges):
    """Sennrich et al. (2016), algorithm 1: apply every merge in turn to the whole word."""
    for first, second in merges:
        joined, i = [], 0
        while i < len(symbols):
            pair = symbols[i : i + 2] == [first, second]
            joined.append(first + second if pair else symbols[i])
            i += 2 if pair else 1
        symbols = joined
    return symbols


# Ids


@needs_clip
def test_known_prompts_have_clips_ids(clip):
    # Computed with transformers' CLIPTokenizer.
    assert clip.ids("a photo of a cat").tolist()[:7] == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert clip.ids("hello world!").tolist()[:5] == [49406, 3306, 1002, 256, 49407]
    assert len(clip.vocabulary) == len(set(clip.vocabulary)) == 49408


@needs_clip
def test_plain_prompts_agree_with_kerascv(clip):
    from keras_cv.models.stable_diffusion import SimpleTokenizer

    theirs = SimpleTokenizer(bpe_path=str(PUBLISHED))
    rng = np.random.default_rng(0)
    alphabet = list("abcdefgHIJKLMNOPQRSTUVWXYZ 0123456789  .,!?'-_\n\tàÉßçøжЖ日本語🌟")
    prompts = ["", " ", "I've 42 o'clocks", "x" * 500, *CAPTIONS]
    prompts += ["".join(rng.choice(alphabet, rng.integers(1, 60))) for _ in range(1000)]
    prompts += [" ".join(rng.choice(clip.vocabulary[512:30000], 8)) for _ in range(1000)]
    # KerasCV unescapes HTML entities, which transformers and we leave as written.
    prompts = [prompt for prompt in prompts if html.unescape(prompt) == prompt]
    for prompt in prompts:
        ours = [token.id for token in clip.encode(prompt)]
        assert [clip.start, *ours, clip.end] == theirs.encode(prompt), prompt


@needs_clip
@pytest.mark.parametrize(
    ("one", "same"),
    [
        ("A Red STAR", "a red star"),
        ("  a\t\nred\u3000star ", "a red star"),
        ("cafe\N{COMBINING ACUTE ACCENT}", "café"),
        ("ΟΔΟΣ", "οδοσ"),  # not "οδος": case is folded letter by letter
    ],
)
def test_spelling_variants_that_clip_does_not_tell_apart(clip, one, same):
    assert clip.ids(one).tolist() == clip.ids(same).tolist()


@needs_clip
def test_html_entities_stay_as_written(clip):
    assert [token.word for token in clip.encode("cats &amp; dogs")] == [
        "cats", "&", "amp", ";", "dogs",
    ]  # fmt: skip


@needs_clip
def test_a_written_special_token_is_that_token(clip):
    ids = [token.id for token in clip.encode("a<|endoftext|> cat")]
    assert ids == [320, 49407, 2368]


@given(word=st.text("starmoonblue", min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
def test_merging_is_that_of_the_textbook(word):
    # The heap joins one pair at a time; the algorithm as published, every such pair at once.
    merges = train_merges(CAPTIONS, 60)
    expected = textbook_bpe([*word[:-1], word[-1] + "</w>"], merges)
    assert [token.text for token in Tokenizer(merges).encode(word)] == expected


@needs_clip
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(max_examples=200, deadline=None)
def test_every_text_can_be_encoded_and_no_letter_is_lost(clip, text):
    assume("<|" not in text)
    encoded = clip.encode(text)
    words = {token.word_index: token.word for token in encoded}
    decoded = clip.decode(token.id for token in encoded)
    assert "".join(decoded.split()) == "".join("".join(words.values()).split())


@needs_clip
def test_a_special_token_in_capitals_is_only_text(clip):
    words = {token.word_index: token.word for token in clip.encode("<|ENDOFTEXT|>'s")}
    assert list(words.values()) == ["<|", "endoftext", "|>", "'s"]


# Added words


def test_an_added_word_has_the_tokens_after_all_others(small):
    base = len(small.vocabulary)
    more = small.adding("<S*>", 2).adding("<toy>")
    tokens = more.encode("a <s*> star<toy> <S*>")
    assert [t.id for t in tokens if t.id >= base] == [base, base + 1, base + 2, base, base + 1]
    words = {t.word_index: t.word for t in tokens}
    assert list(words.values()) == ["a", "<s*>", "star", "<toy>", "<s*>"]
    assert [t.text for t in tokens if t.word_index == 1] == ["<s*>", "<s*>_1"]
    assert not any(t.special for t in tokens)
    assert more.decode(t.id for t in tokens) == "a <s*> star <toy> <s*>"
    assert len(small.vocabulary) == base and small.encode("<s*>")[0].text == "<</w>"


def test_the_longest_added_word_is_found_and_plain_ones_only_whole(small):
    more = small.adding("toy", 1).adding("toy-2", 1).adding("toy-2b", 1)
    found = [t.text for t in more.encode("Toy-2b toy-2 toy's toystar atoy") if t.text in more.added]
    assert found == ["toy-2b", "toy-2", "toy"]


@pytest.mark.parametrize("word", ["", "a b", "<end>", "<|endoftext|>", "<There>"])
def test_a_word_that_cannot_be_added_is_refused(small, word):
    with pytest.raises(ValueError, match="added word|already means"):
        small.adding("<there>").adding(word)


def test_a_word_may_not_be_called_as_a_token_is(small):
    token = next(text for text in small.vocabulary if "</w>" not in text and len(text) > 1)
    with pytest.raises(ValueError, match="already means something"):
        small.adding(token)
    with pytest.raises(ValueError, match="already means something"):
        small.adding("<toy>", 2).adding("<toy>_1")


def test_added_words_are_saved(small, tmp_path):
    more = small.adding("<toy>", 3)
    more.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.tokens("a <toy>") == more.tokens("a <toy>")
    assert len(loaded.encode("a <toy>")) == 4


@given(text=st.text("starmoonblue 3'é", max_size=30))
@settings(max_examples=200, deadline=None)
def test_merge_steps_lead_from_the_bytes_to_the_tokens(small, text):
    first, *others = small.merge_steps(text)
    assert first.rank is None and all(len(symbol_bytes(s)) == 1 for s in first.symbols)
    last = (others or [first])[-1]
    assert last.symbols == [token.text for token in small.encode(text)]
    written = b"".join(map(symbol_bytes, first.symbols))
    ranks = [step.rank for step in others]
    assert ranks == sorted(set(ranks))
    for before, step in itertools.pairwise([first, *others]):
        assert b"".join(map(symbol_bytes, step.symbols)) == written
        pair = small.merges[step.rank]
        assert pair in itertools.pairwise(before.symbols)
        assert pair not in itertools.pairwise(step.symbols)


def test_one_merge_joins_its_pair_in_all_words():
    tokenizer = Tokenizer([("s", "t"), ("a", "r</w>"), ("st", "ar</w>")])
    steps = tokenizer.merge_steps("star, star")
    assert [(step.rank, step.symbols) for step in steps] == [
        (None, ["s", "t", "a", "r</w>", ",</w>", "s", "t", "a", "r</w>"]),
        (0, ["st", "a", "r</w>", ",</w>", "st", "a", "r</w>"]),
        (1, ["st", "ar</w>", ",</w>", "st", "ar</w>"]),
        (2, ["star</w>", ",</w>", "star</w>"]),
    ]
    assert [step.symbols for step in tokenizer.merge_steps("")] == [[]]
    with pytest.raises(ValueError, match="surrogate"):
        tokenizer.merge_steps("\ud83c")


# Start, end, padding


@pytest.mark.parametrize("prompt", ["", "a star", "a red star above a blue moon"])
def test_a_prompt_is_framed_and_padded(small, prompt):
    tokens = small.tokens(prompt)
    ids = small.ids(prompt)
    inner = len(small.encode(prompt))
    assert ids.dtype == np.int32
    assert ids.shape == (16,)
    assert [token.id for token in tokens] == ids.tolist()
    kinds = ["start"] + [""] * inner + ["end"] + ["pad"] * (14 - inner)
    assert [token.special for token in tokens] == kinds
    assert [token.word for token in tokens if token.special] == [f"<{k}>" for k in kinds if k]
    assert set(ids[inner + 1 :]) == {small.end}


@needs_clip
def test_stable_diffusion_2_pads_with_its_own_token():
    ids = Tokenizer.from_bpe(PUBLISHED, pad=0).ids("a cat")
    assert ids.tolist() == [49406, 320, 2368, 49407] + [0] * 73


def test_a_prompt_that_just_fits_has_no_padding(small):
    tokens = small.tokens("star " * 14)
    assert [token.special for token in tokens] == ["start", *[""] * 14, "end"]


# Words


@needs_clip
def test_a_word_of_several_tokens_is_one_word(clip):
    tokens = clip.encode("two stargazers")
    assert len(tokens) > 2
    assert [token.word for token in tokens] == ["two"] + ["stargazers"] * (len(tokens) - 1)
    assert [token.word_index for token in tokens] == [0] + [1] * (len(tokens) - 1)


def test_equal_words_side_by_side_are_two_words(small):
    assert [token.word_index for token in small.encode("star star")] == [0, 1]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a 3d render of 1984", ["a", "3d", "render", "of", "1984"]),
        ("blue-green, ok!!", ["blue", "-", "green", ",", "ok", "!!"]),
        ("the moon's", ["the", "moon", "'s"]),
        ("नमस्ते café", ["नमस्ते", "café"]),
        ("日本 🌟", ["日本", "🌟"]),
        ("1 2", ["1", "2"]),
        (" \n ", []),
    ],
)
def test_words_are_those_a_reader_sees(small, prompt, words):
    found = {token.word_index: token.word for token in small.encode(prompt)}
    assert list(found) == list(range(len(words)))
    assert list(found.values()) == words


# Too long


def test_an_over_long_prompt_is_an_error_with_the_count_and_the_words(small):
    with pytest.raises(
        PromptTooLong, match=r"17 tokens, 3 more than the 14.*'blue moon stars'"
    ) as e:
        small.tokens("star " * 14 + "blue moon stars")
    assert "shorten the prompt (in Python, truncate=True cuts it)" in str(e.value)
    assert e.value.excess == 3
    assert e.value.lost == ["blue", "moon", "stars"]


def test_truncation_cuts_and_warns(small):
    with pytest.warns(UserWarning, match=r"1 more than the 14.*'moon' is cut off"):
        ids = small.ids("star " * 14 + "moon", truncate=True)
    assert ids.tolist() == small.ids("star " * 14).tolist()


@needs_clip
@pytest.mark.parametrize("unit", ["a", "qx", "!", "字", "9"])
def test_a_word_of_100_000_characters_fails_soon(clip, unit):
    # Rescanning the word after every merge, as usual, takes minutes here.
    start = time.process_time()
    with pytest.raises(PromptTooLong):
        clip.tokens(unit * (100_000 // len(unit)))
    assert time.process_time() - start < 10


# Other bad input


@pytest.mark.parametrize("bad", [None, 3, b"a star", ["a star"]])
def test_a_prompt_must_be_text(small, bad):
    with pytest.raises(TypeError, match=f"not {type(bad).__name__}"):
        small.tokens(bad)


def test_half_a_surrogate_pair_is_refused(small):
    with pytest.raises(ValueError, match="surrogate"):
        small.tokens("a star \ud83c")


def test_a_character_outside_the_alphabet_is_named():
    tokenizer = Tokenizer([], alphabet="abc")
    assert tokenizer.vocabulary == [
        "a", "b", "c", "a</w>", "b</w>", "c</w>", "<|startoftext|>", "<|endoftext|>",
    ]  # fmt: skip
    assert tokenizer.decode(tokenizer.ids("CAB")) == "cab"
    with pytest.raises(ValueError, match=r"'cd'.*'abc'"):
        tokenizer.ids("ab cd")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"merges": [("st", "ar")]}, "merge 0, 'st'"),
        ({"merges": [("s", "t"), ("s", "t")]}, "merge 1"),
        ({"merges": [], "length": 1}, "length is 1"),
        ({"merges": [], "pad": 514}, "pad is 514.*0 to 513"),
        ({"merges": [], "alphabet": "abca"}, "alphabet 'abca'"),
        ({"merges": [], "alphabet": "a b"}, "alphabet 'a b'"),
    ],
)
def test_an_inconsistent_vocabulary_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer(**arguments)


def test_ids_outside_the_vocabulary_are_refused(small):
    for bad in (-1, len(small.vocabulary)):
        with pytest.raises(ValueError, match=str(bad)):
            small.decode([bad])


# Training and files


def test_trained_merges_shorten_what_they_were_trained_on(small):
    assert [token.text for token in small.encode("star moon stars")] == [
        "star</w>", "moon</w>", "stars</w>",
    ]  # fmt: skip


def test_training_counts_pairs_and_breaks_ties_alphabetically():
    assert train_merges(["ab ab cd", "cd ef"], 9) == [
        ("a", "b</w>"),
        ("c", "d</w>"),
        ("e", "f</w>"),
    ]
    assert train_merges(["stars", "star"], 2) == [("s", "t"), ("st", "a")]
    assert train_merges(reversed(CAPTIONS), 60) == train_merges(CAPTIONS, 60)
    assert train_merges([], 5) == []
    with pytest.raises(ValueError, match="-1"):
        train_merges(CAPTIONS, -1)


@pytest.mark.parametrize("alphabet", [None, "abcdefghijklmnopqrstuvwxyz',:"])
def test_a_saved_tokenizer_comes_back(tmp_path, alphabet):
    saved = Tokenizer(train_merges(CAPTIONS, 40), length=24, pad=3, alphabet=alphabet)
    saved.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.vocabulary == saved.vocabulary
    for caption in CAPTIONS:
        assert loaded.tokens(caption) == saved.tokens(caption)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "<html>404</html>",
        "[]",
        "[" * 100_000,
        "{}",
        json.dumps({"merges": ["abc"], "length": 24, "pad": None, "alphabet": None}),
        json.dumps({"merges": [], "length": "24", "pad": None, "alphabet": None}),
    ],
)
def test_a_foreign_file_is_not_a_tokenizer(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a saved tokenizer"):
        Tokenizer.load(path)


@needs_clip
def test_a_damaged_vocabulary_is_refused(tmp_path):
    path = tmp_path / "bpe.txt.gz"
    whole = PUBLISHED.read_bytes()
    for damaged in (
        b"",
        b"<html>404</html>",
        whole[:100_000],
        whole[:50] + b"\0" * 50 + whole[100:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"bpe\.txt\.gz"):
            Tokenizer.from_bpe(path)
    with pytest.raises(FileNotFoundError):
        Tokenizer.from_bpe(tmp_path / "none.gz")


def test_a_vocabulary_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "bpe.txt.gz"
    path.write_bytes(b"".join(gzip.compress(bytes(1_000_000)) for _ in range(50)))
    read = []
    original = gzip.GzipFile.read
    monkeypatch.setattr(
        gzip.GzipFile, "read", lambda *args: read.append(original(*args)) or read[-1]
    )
    with pytest.raises(ValueError, match="it unpacks to more than 10,000,000 bytes"):
        Tokenizer.from_bpe(path)
    assert sum(map(len, read)) < 11_000_000
