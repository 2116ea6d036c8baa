"""The real engine of the laptop: BM25 over all passages, in this process, by the bm25s library.

Deterministic: the same passages and query give the same passages in the same order in every process;
equal scores are ordered by the passages' place in the corpus.  A passage that shares no word with the
query is never returned, so a query may get fewer than K passages, or none.  No stop words are taken
out: a film may be called *It*.
"""

from __future__ import annotations

import hashlib
import re
import time
from functools import cached_property
from pathlib import Path
from typing import Sequence

import bm25s
import numpy as np
import scipy.sparse as sp
import Stemmer

from zerosearch import files
from zerosearch.errors import BadInput, MissingInput
from zerosearch.questions import load_corpus, write_corpus
from zerosearch.retrievers.base import check_passages_per_query
from zerosearch.schema import Passage, Retrieval, SearchRequest

K1, B = 0.9, 0.4  # the values usual for short Wikipedia passages
_WORD = re.compile(r"\w+")
_CHUNK = 64  # queries scored at once: bounds memory to 64 x passages x 4 bytes
_CORPUS, _SETTINGS = "passages.jsonl", "settings.json"


class BM25Retriever:
    """BM25 over the titles and texts of some passages.

    passages: the corpus, at least one.  k: passages per query, 1 to 20.  k1, b: BM25's parameters.
    """

    name = "bm25"

    def __init__(self, passages: Sequence[Passage], k: int = 5, k1: float = K1, b: float = B):
        self._set_up(passages, k)
        self._stemmer = Stemmer.Stemmer("english")
        vocabulary: dict[str, int] = {}
        documents = [
            [vocabulary.setdefault(word, len(vocabulary)) for word in self._words(f"{p.title} {p.text}")]
            for p in self.passages
        ]
        if not vocabulary:
            raise BadInput("corpus: expected passages with words in them, found none; check the passages file")
        self._index = bm25s.BM25(k1=k1, b=b, backend="numpy")
        self._index.index((documents, vocabulary), show_progress=False)
        self._take_index()

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return the K best passages for every request's query; never fails."""
        started = time.perf_counter()
        ranked = self.rank([r.query for r in requests])
        seconds = (time.perf_counter() - started) / max(len(requests), 1)
        return [
            Retrieval(request, tuple(self.passages[i] for i in best), self.name, wall_seconds=seconds)
            for request, best in zip(requests, ranked, strict=True)
        ]

    def rank(self, queries: Sequence[str], depth: int | None = None) -> list[list[int]]:
        """Return, for each query, the corpus indices of its best passages, best first.

        depth: how many at most, k if None; more than are ever shown serve to look further down.
        """
        depth = depth or self.k
        return [best for i in range(0, len(queries), _CHUNK) for best in self._rank(queries[i : i + _CHUNK], depth)]

    @cached_property
    def identity(self) -> str:
        """Engine, parameters and a digest of the corpus: what besides the query decides the answer."""
        digest = hashlib.sha256()
        for p in self.passages:
            digest.update("\x1f".join((p.id, p.title, p.text, "\n")).encode())
        return f"bm25 k1={self._index.k1} b={self._index.b} k={self.k} corpus={digest.hexdigest()[:16]}"

    def save(self, folder: Path | str) -> Path:
        """Write index and passages into a folder, whole or not at all, and return it."""
        return files.save_folder(Path(folder), self._write)

    @classmethod
    def load(cls, folder: Path | str, k: int | None = None) -> BM25Retriever:
        """Return the retriever that ``save`` wrote; k: None for the saved one.

        Raises MissingInput when there is none.
        """
        folder = Path(folder)
        if not (folder / _SETTINGS).is_file():
            raise MissingInput(
                f"BM25 index: expected {folder / _SETTINGS}, found nothing there; build it from passages with "
                "BM25Retriever(load_corpus(FILE)).save(FOLDER)"
            )
        made = cls.__new__(cls)
        made._set_up(load_corpus(folder / _CORPUS), k or files.read_json(folder / _SETTINGS)["k"])
        made._stemmer = Stemmer.Stemmer("english")
        made._index = bm25s.BM25.load(str(folder), show_progress=False)
        made._take_index()
        return made

    def _set_up(self, passages: Sequence[Passage], k: int) -> None:
        self.passages, self.k = tuple(passages), check_passages_per_query(k)

    def _words(self, text: str) -> list[str]:
        return self._stemmer.stemWords(_WORD.findall(text.lower()))

    def _take_index(self) -> None:
        """Turn bm25s' score table round: one row per word, one column per passage."""
        table, n_words = self._index.scores, len(self._index.scores["indptr"]) - 1
        shape = (len(self.passages), n_words)
        by_word = sp.csc_matrix((table["data"], table["indices"], table["indptr"]), shape=shape)
        self._scores = by_word.T.tocsr()
        self._vocabulary = {word: i for word, i in self._index.vocab_dict.items() if i < n_words}

    def _rank(self, queries: Sequence[str], depth: int) -> list[list[int]]:
        words = [[self._vocabulary[w] for w in self._words(q) if w in self._vocabulary] for q in queries]
        lengths = [len(ids) for ids in words]
        columns = np.fromiter((i for ids in words for i in ids), dtype=np.int64, count=sum(lengths))
        counts = np.ones(len(columns), dtype=np.float32)
        shape = (len(queries), self._scores.shape[0])
        asked = sp.csr_matrix((counts, columns, np.concatenate([[0], np.cumsum(lengths)])), shape=shape)
        asked.sum_duplicates()  # sorts too: sums are always taken in the order of the vocabulary
        return _best((asked @ self._scores).toarray(), depth)

    def _write(self, folder: Path) -> None:
        self._index.save(str(folder), show_progress=False)
        write_corpus(folder / _CORPUS, self.passages)
        files.write_json(folder / _SETTINGS, {"k": self.k})


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
