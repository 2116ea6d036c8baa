"""Building the index of a large corpus on the disk: the memory needed grows with the vocabulary alone.

The library builds in memory, more than 2 GB for a million passages of a hundred words; what comes out here
is the same, number for number.  Blocks of passages are turned into entries (word, passage, count) sorted by
word; when all words are counted, the entries of every block are put where they belong.  Called by ``bm25``.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterable, Iterator

import bm25s
import numpy as np

from zerosearch.errors import BadInput
from zerosearch.retrievers.bm25_index import Index, Words

BLOCK_WORDS = 2_000_000  # words of a block: about 150 MB while it is at work
_REMEMBERED = 2**20  # words whose number is remembered beside the vocabulary


@dataclass
class _Counted:
    """What the first pass found: numbers of the words, passages with each word, words of each passage."""

    words: Words
    vocabulary: dict[str, int] = field(default_factory=dict)
    frequencies: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    lengths: array[int] = field(default_factory=lambda: array("q"))
    n_blocks: int = 0
    _known: dict[str, int] = field(default_factory=dict)  # words as they stand -> their stems' numbers

    def numbers(self, text: str) -> Iterable[int]:
        """Return the numbers of a text's words; new words get the next ones."""
        found, known, vocabulary = self.words.split(text), self._known, self.vocabulary
        if len(known) > _REMEMBERED:
            known.clear()
        if unknown := [word for word in found if word not in known]:
            numbers = [vocabulary.setdefault(stem, len(vocabulary)) for stem in self.words.stems(unknown)]
            known.update(zip(unknown, numbers, strict=True))
        return map(known.__getitem__, found)


def build(
    texts: Iterable[str], folder: Path, k1: float, b: float, words: Words, block_words: int = BLOCK_WORDS
) -> Index:
    """Return the index of some texts; its arrays lie in files of the folder, which must stay until it is saved.

    words: turns a text into its words.  block_words: at least so many words are sorted at a time.

    Raises BadInput for texts without a single word.
    """
    counted = _Counted(words)
    for numbers, lengths in _blocks(texts, counted, block_words):
        _sort_block(counted, numbers, lengths, folder)
    if not counted.vocabulary:
        raise BadInput("corpus: expected passages with words in them, found none; check the passages file")
    made = bm25s.BM25(k1=k1, b=b, backend="numpy")
    made.scores = _placed(counted, folder, k1, b)
    made.vocab_dict, made.nonoccurrence_array = counted.vocabulary, None  # what its own builder sets
    return Index(made)


def _blocks(
    texts: Iterable[str], counted: _Counted, block_words: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (word numbers of a block of passages in a row, words of each of these passages)."""
    numbers, lengths = array("i"), array("q")
    for text in texts:
        before = len(numbers)
        numbers.extend(counted.numbers(text))
        lengths.append(len(numbers) - before)
        if len(numbers) >= block_words:
            yield np.array(numbers), np.array(lengths)
            numbers, lengths = array("i"), array("q")
    if lengths:
        yield np.array(numbers), np.array(lengths)


def _sort_block(counted: _Counted, numbers: np.ndarray, lengths: np.ndarray, folder: Path) -> None:
    """Write the entries of a block, sorted by word and passage: (word, passage, count), each (E,) int32."""
    n_before, n_here = len(counted.lengths), len(lengths)
    passages = np.repeat(np.arange(n_here, dtype=np.int64), lengths)
    entries, counts = np.unique(numbers * np.int64(n_here) + passages, return_counts=True)
    words, places = np.divmod(entries, n_here)
    np.save(_block(folder, counted.n_blocks), np.stack([words, places + n_before, counts]).astype(np.int32))
    frequencies = np.bincount(words, minlength=len(counted.vocabulary))
    frequencies[: len(counted.frequencies)] += counted.frequencies
    counted.frequencies = frequencies
    counted.lengths.extend(lengths.tolist())
    counted.n_blocks += 1


def _placed(counted: _Counted, folder: Path, k1: float, b: float) -> dict[str, np.ndarray | int]:
    """Return the library's arrays: per word its passages, ascending, and what it adds to their scores."""
    starts = np.concatenate([[0], np.cumsum(counted.frequencies)])
    lengths = np.array(counted.lengths)
    long = k1 * ((1 - b) + b * lengths / lengths.mean())  # (P,) float64: the part of the formula for length
    idf = _idf(counted.frequencies, len(lengths))
    shape = (int(starts[-1]),)
    places = np.lib.format.open_memmap(folder / "places.npy", mode="w+", dtype=np.int32, shape=shape)
    scores = np.lib.format.open_memmap(folder / "scores.npy", mode="w+", dtype=np.float32, shape=shape)
    free = starts[:-1].copy()  # where the next entry of each word goes
    for number in range(counted.n_blocks):
        words, passages, counts = np.load(_block(folder, number))
        here, first, n_entries = np.unique(words, return_index=True, return_counts=True)
        at = free[words] + np.arange(len(words)) - np.repeat(first, n_entries)
        places[at] = passages
        tf = counts.astype(np.float32)
        scores[at] = idf[words] * (tf / (long[passages] + tf))
        free[here] += n_entries
        _block(folder, number).unlink()
    return {"data": scores, "indices": places, "indptr": starts, "num_docs": len(lengths)}


def _idf(frequencies: np.ndarray, n_passages: int) -> np.ndarray:
    """Return (W,) float32: Lucene's inverse document frequency of words that stand in so many passages."""
    different, which = np.unique(frequencies, return_inverse=True)
    values = [math.log(1 + (n_passages - n + 0.5) / (n + 0.5)) for n in different.tolist()]
    return np.array(values, dtype=np.float32)[which]


def _block(folder: Path, number: int) -> Path:
    return folder / f"block-{number:05d}.npy"
