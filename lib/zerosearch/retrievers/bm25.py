"""The real engine of the laptop: BM25 over all passages, in this process, by the bm25s library.

Deterministic: the same passages and query give the same passages in the same order in every process;
equal scores are ordered by the passages' place in the corpus.  A passage that shares no word with the
query is never returned, so a query may get fewer than K passages, or none.

A small corpus is indexed in memory whenever it is opened.  The index of a larger one is built once per
corpus and parameters, saved among the caches and memory-mapped by every later stage and run.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import Sequence

import numpy as np
from filelock import FileLock

from zerosearch import artifacts, files
from zerosearch.errors import BadInput, MissingInput
from zerosearch.questions import load_corpus, write_corpus
from zerosearch.retrievers.base import check_passages_per_query
from zerosearch.retrievers.bm25_build import build
from zerosearch.retrievers.bm25_index import Index, Words
from zerosearch.retrievers.corpus import digest_of
from zerosearch.schema import Passage, Retrieval, SearchRequest

K1, B = 0.9, 0.4  # the values usual for short Wikipedia passages
SAVED_FROM = 10_000  # passages from which an index is worth a place on the disk
_CORPUS, _SETTINGS = "passages.jsonl", "settings.json"
_SETTINGS_KEYS = {"n_passages": int, "k1": float, "b": float}
_FORMAT = 1  # of saved indexes; another one is built again


class BM25Retriever:
    """BM25 over the titles and texts of some passages.

    passages: the corpus, at least one.  k: passages per query, 1 to 20.  k1, b: BM25's parameters.
    stem: whether English endings are cut off words.  index: of these passages with these parameters; None to
    build it in memory.
    """

    def __init__(
        self, passages: Sequence[Passage], k: int = 5, k1: float = K1, b: float = B, stem: bool = True,
        index: Index | None = None,
    ):
        # A list could be changed under the index; what lies on the disk stays there.
        self.passages = tuple(passages) if isinstance(passages, list) else passages
        self.name = "bm25" if stem else "bm25_plain"
        self.k, self.stem, self.words = check_passages_per_query(k), stem, Words(stem)
        self.index = index or self._indexed(k1, b)
        if self.index.n_passages != len(self.passages):
            raise ValueError(f"BM25 index: expected {len(self.passages)} passages, found {self.index.n_passages}")

    @classmethod
    def open(
        cls, passages: Sequence[Passage], k: int = 5, k1: float = K1, b: float = B, stem: bool = True,
        cache: Path | None = None,
    ) -> BM25Retriever:
        """Return the retriever, its index from the disk where the corpus is large enough for that.

        cache: folder of caches, ``artifacts.cache_dir()`` if None.  An index that is not there or damaged is
        built; processes that want the same one wait for the first.
        """
        if len(passages) < SAVED_FROM:
            return cls(passages, k, k1, b, stem)
        return cls(passages, k, k1, b, stem, _saved_index(passages, k1, b, stem, cache or artifacts.cache_dir()))

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return the K best passages for every request's query; never fails."""
        started = time.perf_counter()
        ranked = self.rank([r.query for r in requests])
        found = [tuple(self.passages[i] for i in best) for best in ranked]
        seconds = (time.perf_counter() - started) / max(len(requests), 1)
        return [
            Retrieval(request, passages, self.name, wall_seconds=seconds)
            for request, passages in zip(requests, found, strict=True)
        ]

    def rank(self, queries: Sequence[str], depth: int | None = None) -> list[list[int]]:
        """Return, for each query, the corpus indices of its best passages, best first.

        depth: how many at most, k if None; more than are ever shown serve to look further down.
        """
        return self.index.rank([self.words(query) for query in queries], depth or self.k)

    def scores(self, query: str, places: Sequence[int]) -> list[float]:
        """Return the scores of some passages for a query."""
        return self.index.scores_of(self.words(query), places)

    @cached_property
    def identity(self) -> str:
        """Engine, parameters and a digest of the corpus: what besides the query decides the answer."""
        plain = "" if self.stem else " unstemmed"
        return f"bm25 k1={self.index.k1} b={self.index.b}{plain} k={self.k} corpus={digest_of(self.passages)}"

    def save(self, folder: Path | str) -> Path:
        """Write index and passages into a folder, whole or not at all, and return it."""

        def write(temporary: Path) -> None:
            self.index.save(temporary)
            write_corpus(temporary / _CORPUS, self.passages)
            files.write_json(temporary / _SETTINGS, {"k": self.k, "stem": self.stem})

        return files.save_folder(Path(folder), write)

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
        saved = files.read_json(folder / _SETTINGS)
        return cls(load_corpus(folder / _CORPUS), k or saved["k"], stem=saved["stem"], index=Index.load(folder))

    def _indexed(self, k1: float, b: float) -> Index:
        vocabulary: dict[str, int] = {}
        documents = [
            [vocabulary.setdefault(word, len(vocabulary)) for word in self.words(_text(p))] for p in self.passages
        ]
        if not vocabulary:
            raise BadInput("corpus: expected passages with words in them, found none; check the passages file")
        return Index.of(documents, vocabulary, k1, b)


def _text(passage: Passage) -> str:
    return f"{passage.title} {passage.text}"


def _saved_index(passages: Sequence[Passage], k1: float, b: float, stem: bool, cache: Path) -> Index:
    """Return the index of a corpus from the caches, where it is put if it is not there."""
    folder = cache / f"bm25-{digest_of(passages)}-k1_{k1:g}-b_{b:g}{'' if stem else '-unstemmed'}-{_FORMAT}"
    with files.disk_problems(cache):
        cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        index = _whole(folder, len(passages))
        if index is None:
            for left in cache.glob(f".{folder.name}.*.part"):  # of a process that was killed at it
                shutil.rmtree(left, ignore_errors=True)
            files.save_folder(folder, lambda temporary: _write_index(passages, k1, b, stem, temporary))
            index = Index.load(folder)
    return index


def _write_index(passages: Sequence[Passage], k1: float, b: float, stem: bool, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as blocks:
        build(map(_text, passages), Path(blocks), k1, b, Words(stem)).save(folder)
    files.write_json(folder / _SETTINGS, {"n_passages": len(passages), "k1": k1, "b": b})


def _whole(folder: Path, n_passages: int) -> Index | None:
    """Return the index of a folder, None where there is none or a damaged one."""
    about = files.find_object(folder / _SETTINGS, _SETTINGS_KEYS)
    if about is None or about["n_passages"] != n_passages:
        return None
    try:
        index = Index.load(folder)
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):  # absent, cut short, of another form
        return None
    return index if index.n_passages == n_passages and index.is_whole() else None
