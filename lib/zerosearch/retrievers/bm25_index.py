"""The inverted index behind BM25: per word the passages it stands in, with the score it adds to each.

The arrays are those of the bm25s library, which builds small indexes and loads all of them, memory-mapped.
Ranking is exact: scores are float32 sums in the order of the vocabulary, the best first, equal ones in the
order of the corpus; a passage that shares no word with the query is not ranked.  Called by ``bm25``.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Sequence

import bm25s
import numpy as np
import scipy.sparse as sp
import Stemmer

_WORD = re.compile(r"\w+")
_DENSE = 4096  # passages up to which a batch of queries is scored against all of them at once
_CHUNK = 64  # queries of such a batch: bounds memory to 64 x 4096 x 4 bytes
_LOOKUP = 16  # looking a passage up takes so many times as long as adding to it in passing
_FEW = 3  # times the passages that are wanted: not worth another look at who can be left out
_SLACK = 1e-4  # far above what the order of a float32 sum can change, relative
_HIGHEST = "highest.npy"


class Words:
    """Turns texts into words in lower case; no stop words are taken out: a film may be called *It*.

    stem: cut English endings off, so that *directed* finds *directing*.
    """

    def __init__(self, stem: bool = True) -> None:
        self._stemmer = Stemmer.Stemmer("english") if stem else None

    def __call__(self, text: str) -> list[str]:
        """Return a text's words, in order."""
        return self.stems(self.split(text))

    def split(self, text: str) -> list[str]:
        """Return a text's words as they stand, in order."""
        return _WORD.findall(text.lower())

    def stems(self, words: list[str]) -> list[str]:
        """Return what counts as one word with each of some words."""
        return words if self._stemmer is None else self._stemmer.stemWords(words)


class Index:
    """An index in memory or on the disk.

    vocabulary: word -> its number.  starts (W + 1,) int64: where the entries of each word begin.
    places (N,) int32: passages, ascending per word.  scores (N,) float32.  highest (W,) float32: the
    greatest score of each word.  n_passages: P.
    """

    def __init__(self, made: bm25s.BM25, highest: np.ndarray | None = None):
        arrays = made.scores
        self.k1, self.b, self.n_passages = made.k1, made.b, int(arrays["num_docs"])
        # Plain views: the class of memory-mapped arrays costs more than the small work done on each piece.
        self.starts, self.places, self.scores = (
            np.asarray(arrays[name]).view(np.ndarray) for name in ("indptr", "indices", "data")
        )
        n_words = len(self.starts) - 1
        self.vocabulary = {word: i for word, i in made.vocab_dict.items() if i < n_words}
        self.highest = np.maximum.reduceat(self.scores, self.starts[:-1]) if highest is None else highest
        self._made = made

    @classmethod
    def of(cls, documents: Sequence[Sequence[int]], vocabulary: dict[str, int], k1: float, b: float) -> Index:
        """Return the index, in memory, of passages given as word numbers; at least one word."""
        made = bm25s.BM25(k1=k1, b=b, backend="numpy")
        made.index((documents, vocabulary), show_progress=False)
        return cls(made)

    @classmethod
    def load(cls, folder: Path) -> Index:
        """Return the index that a folder holds; its arrays stay on the disk."""
        made = bm25s.BM25.load(str(folder), show_progress=False, mmap=True)
        return cls(made, np.load(folder / _HIGHEST))

    def save(self, folder: Path) -> None:
        """Write the index into an existing folder."""
        self._made.save(str(folder), show_progress=False)
        np.save(folder / _HIGHEST, self.highest)

    def is_whole(self) -> bool:
        """Say whether the arrays fit together."""
        n_words, n_entries = len(self.starts) - 1, int(self.starts[-1])
        fitting = len(self.places) == len(self.scores) == n_entries and len(self.highest) == n_words
        return fitting and len(self.vocabulary) == n_words

    def rank(self, queries: Sequence[Sequence[str]], depth: int) -> list[list[int]]:
        """Return, for each query's words, at most ``depth`` passages, best first."""
        asked = [[self.vocabulary[w] for w in words if w in self.vocabulary] for words in queries]
        if self.n_passages > _DENSE:
            return [self._best_of(ids, depth) for ids in asked]
        chunks = (asked[i : i + _CHUNK] for i in range(0, len(asked), _CHUNK))
        return [best for chunk in chunks for best in self._best_of_all(chunk, depth)]

    def scores_of(self, words: Sequence[str], places: Sequence[int]) -> list[float]:
        """Return the scores of some passages, in any order, for a query's words."""
        ids = np.array([self.vocabulary[w] for w in words if w in self.vocabulary], dtype=np.int64)
        numbers, counts = np.unique(ids, return_counts=True)
        order = np.argsort(places)
        totals = np.zeros(len(places), dtype=np.float32)
        totals[order] = self._totals(numbers, counts.astype(np.float32), np.asarray(places, dtype=np.int32)[order])
        return totals.tolist()

    # -- few passages: a batch of queries times the whole table -----------------------------------

    @cached_property
    def table(self) -> sp.csr_matrix:
        """Return (W, P) float32: one row per word, one column per passage."""
        shape = (len(self.starts) - 1, self.n_passages)
        return sp.csr_matrix((self.scores, self.places, self.starts), shape=shape)

    def _best_of_all(self, queries: Sequence[Sequence[int]], depth: int) -> list[list[int]]:
        lengths = [len(ids) for ids in queries]
        columns = np.fromiter((i for ids in queries for i in ids), dtype=np.int64, count=sum(lengths))
        counts = np.ones(len(columns), dtype=np.float32)
        shape = (len(queries), self.table.shape[0])
        asked = sp.csr_matrix((counts, columns, np.concatenate([[0], np.cumsum(lengths)])), shape=shape)
        asked.sum_duplicates()  # sorts too: sums are always taken in the order of the vocabulary
        return _best((asked @ self.table).toarray(), depth)

    # -- many passages: one query, and only passages that can still be among the best --------------

    def _best_of(self, ids: Sequence[int], depth: int) -> list[int]:
        words, counts = np.unique(np.asarray(ids, dtype=np.int64), return_counts=True)
        if not len(words):
            return []
        weights = counts.astype(np.float32)
        places = np.sort(self._candidates(words, weights, depth))
        totals = self._totals(words, weights, places)
        return places[np.lexsort((places, -totals))][:depth].tolist()

    def _candidates(self, words: np.ndarray, weights: np.ndarray, depth: int) -> np.ndarray:
        """Return passages among which the ``depth`` best are, each once.

        The words that can add most come first.  Once all that is left to add is less than what the last
        of the best has by now, no passage that has not come up can overtake it; those that have come up
        are left out as soon as they cannot either.
        """
        bounds = weights * self.highest[words]
        order = np.argsort(-bounds, kind="stable")
        to_come = np.append(bounds[order][::-1].cumsum()[::-1], 0.0)
        sums = np.zeros(self.n_passages, dtype=np.float32)
        left, closed = np.zeros(0, dtype=self.places.dtype), False  # who can be among the best; nobody else can
        for turn, at in enumerate(order, 1):
            places, scores = self._entries(words[at])
            if closed and len(left) * _LOOKUP < len(places):
                where, here = _found_at(places, left)
                sums[left[here]] += weights[at] * scores[where[here]]
            else:
                left = left if closed else np.concatenate([left, places[sums[places] == 0]])
                sums[places] += weights[at] * scores
            rest = to_come[turn]
            if len(left) >= depth and rest < to_come[0] - rest:
                have = sums[left]
                last = np.partition(have, len(left) - depth)[len(left) - depth] * (1.0 - _SLACK)
                if rest < last:
                    left, closed = left[have + rest >= last], True
            if closed and len(left) <= _FEW * depth:
                break
        return left

    def _totals(self, words: np.ndarray, weights: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return the exact scores of some passages (ascending), float32."""
        totals = np.zeros(len(places), dtype=np.float32)
        for word, weight in zip(words, weights, strict=True):
            found, scores = self._entries(word)
            where, here = _found_at(found, places)
            totals[here] += weight * scores[where[here]]
        return totals

    def _entries(self, word: int) -> tuple[np.ndarray, np.ndarray]:
        entries = slice(int(self.starts[word]), int(self.starts[word + 1]))
        return self.places[entries], self.scores[entries]


def _found_at(places: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where in places (ascending, at least one) the wanted ones are: (positions, True where it is there)."""
    where = np.searchsorted(places, wanted)
    where[where == len(places)] = 0  # beyond the last: compared with the first, which it is not
    return where, places[where] == wanted


def _best(scores: np.ndarray, k: int) -> list[list[int]]:
    """Return per row the indices of the k highest positive scores, best first, ties in index order.

    scores (N, P) float32.
    """
    k = min(k, scores.shape[1])
    lowest = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]  # (N, 1) the k-th best score of each row
    rows, columns = np.nonzero((scores >= lowest) & (scores > 0))
    order = np.lexsort((columns, -scores[rows, columns], rows))
    rows, columns = rows[order], columns[order]
    ends = np.cumsum(np.bincount(rows, minlength=len(scores)))
    return [columns[start:end][:k].tolist() for start, end in zip([0, *ends[:-1]], ends, strict=True)]
