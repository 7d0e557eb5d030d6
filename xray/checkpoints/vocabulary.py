"""A tokenizer's folder as transformers writes it, in and out.

    tokenizer = open_vocabulary("stable-diffusion-v1-5/tokenizer", length=77)
    save_vocabulary(tokenizer, "my_model/tokenizer")

Three layouts are met: ``vocab.json`` with ``merges.txt``; both in one ``tokenizer.json``, all that
transformers 5 writes; and this project's own ``tokenizer.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from xray.checkpoints import registry
from xray.checkpoints.files import read_json, read_text
from xray.tokenizer import END, START, Tokenizer

CLIPS, CLIPS_TOKENS = "bpe_simple_vocab_16e6.txt.gz", 49408


def fetched_clips(tokens: int, length: int, pad: int | None) -> Tokenizer | None:
    """CLIP's tokenizer, if it has been fetched with some weights and is this model's.

    Args:
        tokens: embeddings that the model has; other than CLIP's are of another vocabulary.
        length, pad: as `Tokenizer` takes them.
    """
    path = registry.cache() / CLIPS
    here = tokens == CLIPS_TOKENS and path.is_file()
    return Tokenizer.from_bpe(path, length, pad) if here else None


def open_vocabulary(folder: Path, length: int) -> Tokenizer:
    """The tokenizer of a folder.

    Args:
        folder: of a diffusers model, ``tokenizer/``.
        length: tokens that the text encoder reads.

    Raises:
        ValueError: no vocabulary is there, or it is not built as CLIP's.
    """
    vocabulary, merges = _read(folder)
    clips = Tokenizer([]).vocabulary[:256]
    ordered = sorted(vocabulary, key=vocabulary.get)
    letters = ordered[: next((i for i, text in enumerate(ordered) if "</w>" in text), 0)]
    try:
        tokenizer = Tokenizer(
            merges,
            length,
            vocabulary[_pad_token(folder)],
            None if letters == clips else "".join(letters),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: the vocabulary is not one of CLIP's kind ({error})") from error
    if tokenizer.vocabulary != ordered or sorted(vocabulary.values()) != [*range(len(ordered))]:
        raise ValueError(
            f"{folder}: the vocabulary does not follow from the merges as CLIP's does, so that ids "
            "would be others than the text encoder learned"
        )
    try:
        for word, count in _added_words(folder, len(ordered)).items():
            tokenizer = tokenizer.adding(word, count)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{folder}: its added tokens are damaged ({error!r})") from error
    return tokenizer


def save_vocabulary(tokenizer: Tokenizer, folder: Path) -> None:
    """Write a tokenizer as transformers' `CLIPTokenizer` reads it."""
    folder.mkdir(parents=True)
    ids = {text: id for id, text in enumerate(tokenizer.vocabulary)}
    own = len(ids) - sum(tokenizer.added.values())
    added = {text: ids.pop(text) for text in tokenizer.vocabulary[own:]}
    merges = ["#version: 0.2", *(" ".join(pair) for pair in tokenizer.merges)]
    special = {
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": tokenizer.vocabulary[tokenizer.pad],
    }
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": tokenizer.length,
        "do_lower_case": True,
        "errors": "replace",
        **special,
    }
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", "utf-8")
    if added:
        (folder / "added_tokens.json").write_text(json.dumps(added, indent=2) + "\n", "utf-8")


def _read(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary with its ids, and the merges in order."""
    if (folder / "merges.txt").is_file() and (folder / "vocab.json").is_file():
        vocabulary = read_json(folder / "vocab.json")
        # Split at line feeds only: a symbol may be another of Unicode's ends of line.
        lines = read_text(folder / "merges.txt").split("\n")
        pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    elif (folder / "tokenizer.json").is_file():
        model = read_json(folder / "tokenizer.json").get("model")
        if not isinstance(model, dict) or model.get("type") != "BPE":
            raise ValueError(f"{folder / 'tokenizer.json'} is no byte-pair encoding")
        vocabulary, pairs = model.get("vocab"), model.get("merges")
        pairs = pairs if isinstance(pairs, list) else []
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in pairs]
    else:
        raise ValueError(f"{folder} has neither vocab.json with merges.txt nor tokenizer.json")
    sound = isinstance(vocabulary, dict) and all(isinstance(id, int) for id in vocabulary.values())
    if not sound or not all(
        isinstance(p, list) and list(map(type, p)) == [str, str] for p in pairs
    ):
        raise ValueError(
            f"{folder}: the vocabulary is damaged: it is no table of ids with pairs to merge"
        )
    return vocabulary, [tuple(pair) for pair in pairs]


def _added_words(folder: Path, first: int) -> dict[str, int]:
    """Words of textual inversion, and how many tokens each has; `first` is the first one's id.

    diffusers calls the tokens of one word ``<toy>``, ``<toy>_1``, ``<toy>_2``. They stand in one of
    three files, by the release of transformers.
    """
    tokens: dict[int, str] = {}
    if (folder / "added_tokens.json").is_file():
        tokens |= {id: text for text, id in read_json(folder / "added_tokens.json").items()}
    if (folder / "tokenizer_config.json").is_file():
        decoder = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
        tokens |= {int(id): token["content"] for id, token in decoder.items()}
    if (folder / "tokenizer.json").is_file():
        listed = read_json(folder / "tokenizer.json").get("added_tokens") or ()
        tokens |= {token["id"]: token["content"] for token in listed}
    words: dict[str, int] = {}
    last = ""
    for id in range(first, first + len(tokens)):
        text = tokens.get(id)
        if text is None:
            break
        if words and text == f"{last}_{words[last]}":
            words[last] += 1
        else:
            last, words[text] = text, 1
    return words


def _pad_token(folder: Path) -> str:
    """What fills a prompt up: the end token in 1.x, ``!`` in 2.x.

    Where two files speak of it, transformers believes the older one, unless the newer also lists
    the tokens that were added.
    """
    config, special = (
        read_json(folder / name) if (folder / name).is_file() else {}
        for name in ("tokenizer_config.json", "special_tokens_map.json")
    )
    told: dict[str, Any] = config if "added_tokens_decoder" in config else {**config, **special}
    token = told.get("pad_token") or END
    return token["content"] if isinstance(token, dict) else token
