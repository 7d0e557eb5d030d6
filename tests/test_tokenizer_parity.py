"""The ids are those of transformers' CLIPTokenizer, on strings of every kind that people paste.

The other implementation is Rust (Hugging Face's `tokenizers`), with its own tables of Unicode.
"""

from __future__ import annotations

import random
import re
import time
import unicodedata
from pathlib import Path

import pytest

from xray.checkpoints.vocabulary import open_vocabulary, save_vocabulary
from xray.tokenizer import Tokenizer

PUBLISHED = Path(__file__).parents[2] / "shared" / "clip" / "bpe_simple_vocab_16e6.txt.gz"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PUBLISHED.exists(), reason=f"no CLIP vocabulary: {PUBLISHED}"),
]


@pytest.fixture(scope="module")
def clip():
    return Tokenizer.from_bpe(PUBLISHED)


@pytest.fixture(scope="module")
def reference(clip):
    """transformers' tokenizer as Stable Diffusion configures it: `reference(pad_token)`."""
    transformers = pytest.importorskip("transformers", reason="needs diffusion-xray[parity]")
    vocabulary = {text: i for i, text in enumerate(clip.vocabulary)}
    return lambda pad: transformers.CLIPTokenizer(vocabulary, clip.merges, pad_token=pad)


# --- strings -----------------------------------------------------------------------------------


def characters(*ranges):
    """Assigned characters of these ranges, of Unicode 3.2 (or old emoji).

    Ten years of additions are normalised and classified by one table and not yet by another.
    """
    old = unicodedata.ucd_3_2_0.category
    emoji = range(0x1F300, 0x1F650)
    return [
        chr(c)
        for r in ranges
        for c in r
        if old(chr(c)) not in ("Cn", "Cs") or c in emoji or c == 0x200D
    ]


ASCII = characters(range(0x20, 0x7F))
ACCENTED = characters(range(0xC0, 0x250), range(0x1E00, 0x1F00))
MARKS = characters(range(0x300, 0x345))
SCRIPTS = characters(range(0x370, 0x600), range(0x600, 0x1000), range(0x1000, 0x1800))
CJK = characters(range(0x3000, 0x3100), range(0x4E00, 0x9F00), range(0xAC00, 0xD7A4))
SYMBOLS = characters(range(0x2000, 0x2800), range(0xFF01, 0xFFF0), range(0x1D400, 0x1D7FF))
EMOJI = characters(range(0x1F300, 0x1F650)) + ["\u200d", "\ufe0f", "\U0001f3fd", "\u2764"]
CONTROL = [chr(c) for c in (*range(0x20), *range(0x7F, 0xA0), 0xAD, 0x200B, 0x2028, 0xFEFF)]
CONTRACTIONS = ["'s", "'t", "'RE", "'Ve", "'m", "'ll", "'d", "'", "\u2019s", "'sS"]
ENTITIES = ["&amp;", "&lt;b&gt;", "&#39;", "&#x1F600;", "&quot", "&nbsp;", "&amp;amp;", "&eacute;"]
SPECIAL = ["<|endoftext|>", "<|startoftext|>", "<|ENDOFTEXT|>", "<|endoftext |>", "<|"]


def strings(count, vocabulary, seed=0):
    """Deterministic strings, an equal number of each kind."""
    r = random.Random(seed)
    words = [text.removesuffix("</w>") for text in vocabulary[512:-2]]
    words = [word for word in words if word.isascii()]

    def of(alphabet, most):
        return "".join(r.choices(alphabet, k=r.randrange(most)))

    def english():
        chosen = [r.choice((str, str.upper, str.title))(w) for w in r.choices(words, k=12)]
        marks = r.choices(["", "", ",", ".", "!!", ":", "(", ")", "-", *CONTRACTIONS], k=12)
        return " ".join(map("".join, zip(chosen, marks, strict=True)))

    letters = ACCENTED + ASCII + MARKS

    def accented():
        text = of(letters, 40)
        return unicodedata.normalize(r.choice(("NFC", "NFD", "NFKD")), text)

    def mixed(alphabet, most):
        return lambda: of(alphabet, most)

    def listed(parts, between):
        return lambda: between.join(r.choices(parts, k=8))

    kinds = [
        english,
        accented,
        mixed(SCRIPTS + [" "] * 300, 40),
        mixed(CJK + ["。", "、", " ", "a", "1"] * 300, 40),
        mixed(EMOJI + [" ", "a"] * 40, 20),
        mixed(CONTROL + ASCII, 40),
        mixed(SYMBOLS + ASCII, 40),
        mixed(ACCENTED + SCRIPTS + CJK + EMOJI + CONTROL + SYMBOLS + ASCII + MARKS, 60),
        listed(ENTITIES + words[:500] + ["a&b", "&", ";"], " "),
        listed(SPECIAL + CONTRACTIONS + words[:99] + [" "], ""),
    ]
    made = [kinds[i % len(kinds)]() for i in range(count - 12)]
    made += ["", " ", "\n\t ", "\0", "a" * 3000, "é" * 1000, "字" * 1000, "9" * 1000, "!" * 2000]
    made += ["".join(r.choices("etaoin", k=2000)), "don't" * 300, "ΟΔΟΣ İstanbul ǅ ﬁ ß ẞ"]
    return made


# --- the comparison ----------------------------------------------------------------------------


def test_20000_strings_have_the_ids_of_transformers(clip, reference):
    made = strings(24_000, clip.vocabulary)
    assert len(set(made)) > 20_000
    expected = reference("<|endoftext|>")(made, add_special_tokens=False).input_ids
    different = [
        (text, ids, theirs)
        for text, theirs in zip(made, expected, strict=True)
        if (ids := [token.id for token in clip.encode(text)]) != theirs
    ]
    assert not different, f"{len(different)} of {len(made)}, such as {different[0]}"


@pytest.mark.parametrize(
    ("version", "pad", "text"), [("1.x", None, "<|endoftext|>"), ("2.x", 0, "!")]
)
def test_framing_and_padding_are_those_of_each_version(reference, version, pad, text):
    ours = Tokenizer.from_bpe(PUBLISHED, pad=pad)
    made = [s for s in strings(400, ours.vocabulary, seed=1) if len(ours.encode(s)) <= 75]
    theirs = reference(text)(made, padding="max_length", max_length=77, truncation=True).input_ids
    assert len(made) > 100
    for prompt, ids in zip(made, theirs, strict=True):
        assert ours.ids(prompt).tolist() == ids, (version, prompt)


def test_a_prompt_is_read_faster_than_anyone_notices(clip):
    prompts = [s for s in strings(5000, clip.vocabulary, seed=2)[:-12] if s]
    start = time.process_time()
    count = sum(len(clip.encode(prompt)) for prompt in prompts)
    seconds = time.process_time() - start
    print(f"{len(prompts) / seconds:.0f} prompts, {count / seconds:.0f} tokens a second")
    assert seconds / len(prompts) < 0.005


@pytest.mark.parametrize("pad", [None, 0])
def test_added_words_are_written_and_read_as_by_transformers(reference, tmp_path, pad):
    transformers = pytest.importorskip("transformers")
    ours = Tokenizer.from_bpe(PUBLISHED, pad=pad).adding("<Toy>", 2).adding("<S*>")
    save_vocabulary(ours, tmp_path / "written")
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path / "written")
    theirs.save_pretrained(tmp_path / "again")
    for prompt in ("a <toy> star!", "<S*><TOY>", "x<toy>'s <s*>, <toy"):
        # diffusers writes a word of several tokens out before it asks for the ids.
        written_out = re.sub("(?i)<toy>", "<toy> <toy>_1", prompt)
        expected = theirs(written_out, padding="max_length", max_length=77).input_ids
        for folder in ("written", "again"):
            tokenizer = open_vocabulary(tmp_path / folder, 77)
            assert tokenizer.added == {"<toy>": 2, "<s*>": 1}
            assert tokenizer.ids(prompt).tolist() == expected == ours.ids(prompt).tolist()
