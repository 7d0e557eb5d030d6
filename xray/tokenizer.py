"""CLIP's byte-pair encoding, with every token knowing the word it comes from.

    tokenizer = Tokenizer.from_bpe("bpe_simple_vocab_16e6.txt.gz")
    tokenizer.ids("a red star")                         # int32 [77]: start, 3 words, end, padding
    [t.word for t in tokenizer.encode("stargazers")]    # ['stargazers', 'stargazers', 'stargazers']

The ids are those of transformers' `CLIPTokenizer`: text is NFC-normalised and lower-cased, HTML
entities stay as they are written. (OpenAI's own code and KerasCV unescape entities and do not
normalise; on plain text all three agree.)

Reference:
    Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", 2016 (BPE);
    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.
"""

from __future__ import annotations

import copy
import functools
import gzip
import heapq
import itertools
import json
import os
import unicodedata
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import regex

START = "<|startoftext|>"
END = "<|endoftext|>"
_END_OF_WORD = "</w>"
_CLIP_MERGES = 49152 - 256 - 2  # the published file lists more; CLIP stops here
_CLIP_BYTES = 10_000_000  # the published file unpacks to 3.2 million
_CACHED_WORDS = 16384

_SPECIAL = regex.compile(rf"({regex.escape(START)}|{regex.escape(END)})")
_PIECE = regex.compile(_SPECIAL.pattern + r"|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
# Letters, digits and combining marks written together are one word to a reader ("3d", "1984",
# "नमस्ते"), although the encoding splits them.
_IN_WORD = regex.compile(r"[\p{L}\p{N}\p{M}]+")


class Token(NamedTuple):
    """One token of a prompt.

    Attributes:
        id: Row of the token embedding.
        text: The vocabulary's entry, such as `"star</w>"`; `</w>` marks the end of a piece.
        word: The word of the lower-cased prompt that the token belongs to; `"<start>"`, `"<end>"`
            or `"<pad>"` for a special token.
        word_index: 0-based position of that word in the prompt; -1 for a special token.
        special: `"start"`, `"end"`, `"pad"`, or `""` for a token of the prompt.
    """

    id: int
    text: str
    word: str
    word_index: int
    special: str = ""


class MergeStep(NamedTuple):
    """A text on its way from bytes to tokens.

    Attributes:
        symbols: What it is made of now.
        rank: Position in `Tokenizer.merges` of the merge that led here, which joined its pair
            wherever it stood; None for the bytes at the beginning.
    """

    symbols: list[str]
    rank: int | None


class PromptTooLong(ValueError):
    """A prompt has more tokens than the text encoder reads.

    Attributes:
        excess: Number of tokens too many.
        lost: The words that do not fit, or of which a part does not.
    """

    def __init__(self, message: str, excess: int, lost: list[str]):
        super().__init__(message)
        self.excess = excess
        self.lost = lost


class Tokenizer:
    """Byte-pair encoding over the words of a prompt.

    The vocabulary follows from the merges as in CLIP: the alphabet, the alphabet at the end of a
    word, one entry per merge, start and end. Its order gives the ids.

    Args:
        merges: Pairs of symbols to join, in order of priority.
        length: Tokens the text encoder reads, start and end included.
        pad: Id that fills up to `length`; None for the end token, as Stable Diffusion 1.x does.
            2.x pads with 0, which is `!`; as in transformers, each `!` of a prompt is then 0 too.
        alphabet: Characters a prompt may use; None for every byte, as CLIP. A character outside
            it is an error when a prompt is encoded.
        added: Words with tokens of their own, and how many each has: see `adding`.

    Raises:
        ValueError: A merge joins symbols that nothing before it makes, or is listed twice; `length`
            has no room for start and end; `pad` is not an id; `alphabet` repeats a character or
            has one that is not a byte symbol; an added word cannot be one.

    Example:
        captions = ["a red star", "a red moon"]
        tokenizer = Tokenizer(train_merges(captions, 100), length=24)
        tokenizer.save("tokenizer.json")
    """

    def __init__(
        self,
        merges: Iterable[tuple[str, str]],
        length: int = 77,
        pad: int | None = None,
        alphabet: str | None = None,
        added: Mapping[str, int] | None = None,
    ):
        self.merges = [(first, second) for first, second in merges]
        self.alphabet = alphabet
        self.length = length
        self.vocabulary = _vocabulary(self.merges, alphabet)
        self._ids = {text: i for i, text in enumerate(self.vocabulary)}
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self.start = self._ids[START]
        self.end = self._ids[END]
        self.pad = self.end if pad is None else pad
        if length < 2:
            raise ValueError(f"length is {length}; start and end alone need 2")
        if not 0 <= self.pad < len(self.vocabulary):
            raise ValueError(f"pad is {pad}; ids go from 0 to {len(self.vocabulary) - 1}")
        # Per instance, so that the cached words go when the tokenizer goes.
        self._piece_ids = functools.lru_cache(_CACHED_WORDS)(self._encode_piece)
        self.added: dict[str, int] = {}
        special = {START: self.start, END: self.end, self.vocabulary[self.pad]: self.pad}
        self._written = {text: (id,) for text, id in special.items()}
        self._find_written = _finder(special, ())
        for text, count in (added or {}).items():
            self._add(text, count)

    @classmethod
    def from_bpe(
        cls, path: str | os.PathLike, length: int = 77, pad: int | None = None
    ) -> Tokenizer:
        """Reads CLIP's published `bpe_simple_vocab_16e6.txt.gz`: 49,408 tokens.

        Raises:
            FileNotFoundError: Nothing is there.
            ValueError: The file is not that vocabulary, or is cut short.
        """
        try:
            with gzip.open(path) as file:
                text = file.read(_CLIP_BYTES + 1).decode("utf-8")
        except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not CLIP's vocabulary, or damaged ({error})") from error
        if len(text) > _CLIP_BYTES:
            raise ValueError(
                f"{path}: not CLIP's vocabulary: it unpacks to more than {_CLIP_BYTES:,} bytes"
            )
        header, *lines = text.split("\n")
        merges = [tuple(line.split()) for line in lines[:_CLIP_MERGES] if line]
        if "#version" not in header or {len(merge) for merge in merges} != {2}:
            raise ValueError(f"{path}: not CLIP's vocabulary (a version line, then pairs)")
        if len(merges) < _CLIP_MERGES:
            raise ValueError(f"{path}: {len(merges)} merges of CLIP's {_CLIP_MERGES}; fetch again")
        return cls(merges, length, pad)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Tokenizer:
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: Nothing is there.
            ValueError: The file is not a tokenizer.
        """
        with open(path, encoding="utf-8") as file:
            try:
                saved = json.load(file)
                merges = [tuple(merge.split(" ")) for merge in saved["merges"]]
                added = saved.get("added")
                return cls(merges, saved["length"], saved["pad"], saved["alphabet"], added)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise ValueError(f"{path}: not a saved tokenizer ({error!r})") from error

    def save(self, path: str | os.PathLike) -> None:
        """Writes the tokenizer as JSON: merges (`"a b"`), length, pad, alphabet, added words."""
        saved = {
            "length": self.length,
            "pad": self.pad,
            "alphabet": self.alphabet,
            "added": self.added,
            "merges": [" ".join(merge) for merge in self.merges],
        }
        with open(path, "w", encoding="utf-8") as file:
            json.dump(saved, file, ensure_ascii=False, indent=1)
            file.write("\n")

    def adding(self, text: str, count: int = 1) -> Tokenizer:
        """This tokenizer with one more word, of `count` tokens of its own after all others.

        The word is found wherever it stands in a prompt, in capitals too; one that begins or ends
        with a letter or digit, not inside a longer word. Used for textual inversion.

        Args:
            text: The word, without spaces, such as `"<cat-toy>"`.
            count: Its number of tokens; all belong to the one word.

        Raises:
            ValueError: The word is empty, holds a space, is there already or means something else.

        Example:
            tokenizer.adding("<cat-toy>", 2).encode("a <cat-toy>")     # 3 tokens, 2 words
        """
        more = copy.copy(self)
        more.vocabulary, more.added = list(self.vocabulary), dict(self.added)
        more._written = dict(self._written)
        more._add(text, count)
        return more

    def _add(self, text: str, count: int) -> None:
        word = text.lower()
        if not word or regex.search(r"\s", word) or count < 1:
            raise ValueError(f"an added word is text without spaces with tokens, not {text!r}")
        names = [word, *(f"{word}_{i}" for i in range(1, count))]
        if not {*self.vocabulary, "<start>", "<end>", "<pad>"}.isdisjoint(names):
            raise ValueError(f"{text!r} already means something to this tokenizer; choose another")
        first = len(self.vocabulary)
        self.added[word] = count
        self.vocabulary += names
        self._written[word] = tuple(range(first, first + count))
        self._find_written = _finder([w for w in self._written if w not in self.added], self.added)

    def encode(self, text: str) -> list[Token]:
        """The tokens of `text` alone: no start, end or padding, and any number of them.

        `<|startoftext|>` and `<|endoftext|>` written in a prompt are those tokens, and added words
        theirs. Time grows with n log n of the longest word: a file pasted by mistake ends soon in
        an error.

        Raises:
            TypeError: `text` is not a string.
            ValueError: It holds half of a surrogate pair, or a character outside the alphabet.
        """
        if not isinstance(text, str):
            raise TypeError(f"a prompt is text (str), not {type(text).__name__}: {text!r:.80}")
        return [
            Token(id, self.vocabulary[id], word, index)
            for index, (word, pieces) in enumerate(_words(text, self._find_written))
            for piece in pieces
            for id in self._written.get(piece) or self._piece_ids(piece)
        ]

    def merge_steps(self, text: str) -> list[MergeStep]:
        """How `text` becomes tokens: its bytes, then what is left after each merge.

        The last step's symbols are the texts of `encode(text)`.

        Raises:
            TypeError, ValueError: As `encode`.

        Example:
            >>> [step.symbols for step in tokenizer.merge_steps("red")]
            [['r', 'e', 'd</w>'], ['re', 'd</w>'], ['red</w>']]
        """
        self.encode(text)  # which says what is wrong with it
        pieces = [
            [self.vocabulary[id] for id in self._written.get(piece, ())] or _symbols(piece)
            for _, pieces in _words(text, self._find_written)
            for piece in pieces
        ]
        steps = [MergeStep(list(itertools.chain(*pieces)), None)]
        while True:
            pairs = {pair for piece in pieces for pair in itertools.pairwise(piece)}
            ranks = [self._ranks[pair] for pair in pairs if pair in self._ranks]
            if not ranks:
                return steps
            rank = min(ranks)
            pieces = [_merge(piece, {self.merges[rank]: 0}) for piece in pieces]
            steps.append(MergeStep(list(itertools.chain(*pieces)), rank))

    def tokens(self, text: str, truncate: bool = False) -> list[Token]:
        """The `length` tokens that the text encoder reads: start, prompt, end, padding.

        Args:
            text: The prompt; may be empty.
            truncate: Cut a prompt that is too long, with a warning, where it would be an error.

        Raises:
            PromptTooLong: The prompt has more than `length - 2` tokens.
            TypeError, ValueError: As `encode`.
        """
        prompt = self.encode(text)
        room = self.length - 2
        if len(prompt) > room:
            excess = len(prompt) - room
            lost = _lost_words(prompt[room:])
            message = (
                f"the prompt has {len(prompt)} tokens, {excess} more than the {room} that the text "
                f"encoder reads; {_shortened(lost)} would be cut off"
            )
            if not truncate:
                message += ": shorten the prompt (in Python, truncate=True cuts it)"
                raise PromptTooLong(message, excess, lost)
            warnings.warn(message.replace("would be", "is"), stacklevel=2)
            prompt = prompt[:room]
        padding = self.length - 2 - len(prompt)
        return [
            self._special(self.start, "start"),
            *prompt,
            self._special(self.end, "end"),
            *[self._special(self.pad, "pad")] * padding,
        ]

    def ids(self, text: str, truncate: bool = False) -> np.ndarray:
        """The ids of `tokens(text)`.

        Returns:
            int32 array of shape [length].
        """
        return np.array([token.id for token in self.tokens(text, truncate)], np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` up to the first end token, pieces separated by single spaces.

        Bytes that are no UTF-8 by themselves (a part of a character) become U+FFFD.

        Raises:
            ValueError: An id is outside the vocabulary.
        """
        words = {id: text for text in self.added for id in self._written[text]}
        data = bytearray()
        for id in map(int, ids):
            if not 0 <= id < len(self.vocabulary):
                raise ValueError(f"id {id} is outside 0 … {len(self.vocabulary) - 1}")
            if id == self.end:
                break
            if id == self.start:
                continue
            if id in words:
                data += f"{words[id]} ".encode() * (id == self._written[words[id]][0])
                continue
            text = self.vocabulary[id]
            data += symbol_bytes(text)
            if text.endswith(_END_OF_WORD):
                data += b" "
        return data.decode("utf-8", errors="replace").strip()

    def _special(self, id: int, kind: str) -> Token:
        return Token(id, self.vocabulary[id], f"<{kind}>", -1, kind)

    def _encode_piece(self, piece: str) -> tuple[int, ...]:
        symbols = _symbols(piece)
        for symbol in symbols:
            if symbol not in self._ids:
                raise ValueError(
                    f"{piece!r:.80} holds a character that this model's vocabulary lacks; "
                    f"it has {self.alphabet!r}"
                )
        return tuple(self._ids[symbol] for symbol in _merge(symbols, self._ranks))


def symbol_bytes(symbol: str) -> bytes:
    """The bytes that a symbol of the vocabulary stands for, without the end-of-word mark.

    Example:
        >>> symbol_bytes("Ã©</w>").decode()
        'é'
    """
    table = _symbol_bytes()
    return bytes(table[shape] for shape in symbol.removesuffix(_END_OF_WORD))


def train_merges(texts: Iterable[str], count: int) -> list[tuple[str, str]]:
    """Learns byte-pair merges: again and again joins the most frequent pair of neighbours.

    Of equally frequent pairs the alphabetically first is joined, so that the same texts give the
    same merges anywhere.

    Args:
        texts: Captions to learn from.
        count: Merges wanted; fewer are returned once every word is a single token.

    Returns:
        Pairs in order of priority, as `Tokenizer` takes them.

    Raises:
        ValueError: `count` is negative.

    Example:
        train_merges(["stars", "star"], 2)    # [('s', 't'), ('st', 'a')]
    """
    if count < 0:
        raise ValueError(f"count is {count}; it cannot be negative")
    counts = Counter(
        piece
        for text in texts
        for _, pieces in _words(text)
        for piece in pieces
        if piece not in (START, END)
    )
    words = {piece: _symbols(piece) for piece in counts}
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for piece, symbols in words.items():
            for pair in itertools.pairwise(symbols):
                pairs[pair] += counts[piece]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {piece: _merge(symbols, {best: 0}) for piece, symbols in words.items()}
    return merges


def _finder(special: Iterable[str], added: Iterable[str]) -> regex.Pattern:
    """Finds what is written as it stands: special tokens exactly, added words in any case."""
    # The longest first: "<toy-2>" before "<toy". Not inside a word where the edge is a letter.
    words = [
        (r"(?<!\w)" * bool(regex.match(r"\w", word)))
        + f"(?i:{regex.escape(word)})"
        + (r"(?!\w)" * bool(regex.search(r"\w$", word)))
        for word in sorted(added, key=len, reverse=True)
    ]
    return regex.compile(f"({'|'.join([*map(regex.escape, special), *words])})")


def _words(text: str, written: regex.Pattern = _SPECIAL) -> Iterator[tuple[str, list[str]]]:
    """Splits a prompt into words, each with the pieces that are encoded one by one."""
    word, pieces, end = "", [], -1
    for piece, begin, stop in _pieces(text, written):
        if begin == end and _IN_WORD.fullmatch(piece) and _IN_WORD.fullmatch(pieces[-1]):
            word += piece
            pieces.append(piece)
        else:
            if pieces:
                yield word, pieces
            word, pieces = piece, [piece]
        end = stop
    if pieces:
        yield word, pieces


def _pieces(text: str, written: regex.Pattern) -> Iterator[tuple[str, int, int]]:
    """CLIP's pieces of a prompt, with where each begins and ends in the cleaned prompt."""
    offset = 0
    for i, part in enumerate(written.split(text)):
        if i % 2:  # what the pattern found
            yield part.lower(), offset, offset + len(part)
        else:
            # Character by character: str.lower() of the whole would turn a final Σ into ς.
            part = "".join(map(str.lower, unicodedata.normalize("NFC", part)))
            for match in _PIECE.finditer(part):
                found, begin = match.group(), offset + match.start()
                # "<|ENDOFTEXT|>" is not that token, but is still cut from what follows it.
                for piece in ("<|", found[2:-2], "|>") if found in (START, END) else (found,):
                    yield piece, begin, begin + len(piece)
                    begin += len(piece)
        offset += len(part)


def _symbols(piece: str) -> list[str]:
    """The bytes of a piece as printable symbols, the last with the end-of-word mark."""
    try:
        data = piece.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{piece!r:.80} is not valid text: it holds half of a surrogate pair"
        ) from error
    table = _byte_symbols()
    symbols = [table[byte] for byte in data]
    symbols[-1] += _END_OF_WORD
    return symbols


def _merge(symbols: Sequence[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Joins neighbours, lowest rank first and leftmost among equals, until no pair is listed.

    A heap over a linked list: n log n, where rescanning the word after each merge takes n².
    """
    symbols = list(symbols)
    following = list(range(1, len(symbols) + 1))
    previous = list(range(-1, len(symbols) - 1))
    heap = [
        (ranks[pair], i, pair)
        for i, pair in enumerate(itertools.pairwise(symbols))
        if pair in ranks
    ]
    heapq.heapify(heap)
    while heap:
        _, left, pair = heapq.heappop(heap)
        right = following[left]
        # An entry is stale when either half has since been joined with something else.
        if right == len(symbols) or (symbols[left], symbols[right]) != pair:
            continue
        symbols[left], symbols[right] = pair[0] + pair[1], ""
        following[left] = following[right]
        if following[left] < len(symbols):
            previous[following[left]] = left
        for first in (previous[left], left):
            if first >= 0 and following[first] < len(symbols):
                pair = (symbols[first], symbols[following[first]])
                if pair in ranks:
                    heapq.heappush(heap, (ranks[pair], first, pair))
    return [symbol for symbol in symbols if symbol]


def _vocabulary(merges: Sequence[tuple[str, str]], alphabet: str | None) -> list[str]:
    """CLIP's order: alphabet, alphabet at the end of a word, merges, start, end."""
    bytes_ = list(_byte_symbols().values())
    letters = bytes_ if alphabet is None else list(alphabet)
    if len(set(letters)) < len(letters) or not set(letters) <= set(bytes_):
        raise ValueError(f"alphabet {alphabet!r} repeats a character or has one that is no symbol")
    vocabulary = letters + [letter + _END_OF_WORD for letter in letters]
    known = set(vocabulary)
    for rank, (first, second) in enumerate(merges):
        if first not in known or second not in known or first + second in known:
            raise ValueError(
                f"merge {rank}, {first!r} + {second!r}: joins a symbol that is not made before it, "
                f"or makes one that is there already"
            )
        vocabulary.append(first + second)
        known.add(first + second)
    return [*vocabulary, START, END]


@functools.cache
def _byte_symbols() -> dict[int, str]:
    """GPT-2's printable symbol for each byte, in CLIP's order: itself where it has a shape."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    visible += range(ord("®"), ord("ÿ") + 1)
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {
        byte: chr(256 + i) for i, byte in enumerate(hidden)
    }


@functools.cache
def _symbol_bytes() -> dict[str, int]:
    return {symbol: byte for byte, symbol in _byte_symbols().items()}


def _lost_words(tokens: Sequence[Token]) -> list[str]:
    words = {token.word_index: token.word for token in tokens}
    return list(words.values())


def _shortened(words: Sequence[str], most: int = 60) -> str:
    text = " ".join(words)
    return repr(text if len(text) <= most else text[:most] + "…")
