"""Dense retrieval: passages and queries as vectors of an E5 encoder, the nearest passages by inner product.

An optional extra (``dense``: sentence-transformers and faiss).  The index is built once per corpus and encoder,
saved among the caches and memory-mapped.  It holds one float32 vector per passage, 3 kB with 768 dimensions:
64 GB for the 21 million passages of Wikipedia.  A query is encoded by itself: its vector, and so the ranking,
does not depend on which others are asked beside it.  Called by ``open_engine``.
"""

from __future__ import annotations

import hashlib
import time
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Iterator, Sequence

import numpy as np
from filelock import FileLock

from zerosearch import artifacts, files
from zerosearch.errors import MissingInput, NotReady
from zerosearch.retrievers import DENSE_INSTALL
from zerosearch.retrievers.base import check_passages_per_query
from zerosearch.retrievers.corpus import digest_of
from zerosearch.schema import Passage, Retrieval, SearchRequest

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ENCODER = "intfloat/e5-base-v2"
QUERY, PASSAGE = "query: ", "passage: "  # what E5 was trained to see before either
_INDEX, _ABOUT = "index.faiss", "about.json"
_BLOCK = 4096  # passages encoded between two looks at the file


class DenseRetriever:
    """The k passages (1 to 20) whose vectors are nearest to the query's.

    encoder: folder or hub id of a sentence-transformers model of the E5 family.  cache: folder of caches,
    ``artifacts.cache_dir()`` if None.  Nothing is loaded or built before the first search.
    """

    name = "dense"

    def __init__(self, passages: Sequence[Passage], k: int = 5, encoder: str = ENCODER, cache: Path | None = None):
        self.passages, self.k, self.encoder = passages, check_passages_per_query(k), encoder
        self._cache = cache

    @cached_property
    def identity(self) -> str:
        """Engine, encoder and a digest of the corpus: what besides the query decides the answer."""
        return f"dense {self._encoder_name} k={self.k} corpus={digest_of(self.passages)}"

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return the nearest passages for every request's query.

        Raises NotReady without the extra, MissingInput without the encoder.
        """
        if not requests:
            return []
        index, model = self._index, self._model  # what is built now is no part of the searches' time
        started = time.perf_counter()
        vectors = _encoded(model, [QUERY + r.query for r in requests], batch_size=1)
        scores, places = index.search(vectors, min(self.k, len(self.passages)))
        found = [self._best(*row) for row in zip(scores, places, strict=True)]
        seconds = (time.perf_counter() - started) / len(requests)
        return [
            Retrieval(request, passages, self.name, wall_seconds=seconds)
            for request, passages in zip(requests, found, strict=True)
        ]

    def _best(self, scores: np.ndarray, places: np.ndarray) -> tuple[Passage, ...]:
        order = np.lexsort((places, -scores))  # equal scores in the order of the corpus
        return tuple(self.passages[int(places[i])] for i in order)

    @cached_property
    def _encoder_name(self) -> str:
        """Return the encoder's name; a folder's with the hash of its files."""
        folder = Path(self.encoder).expanduser()
        return f"{folder.name}@{files.sha256(folder)[:12]}" if folder.is_dir() else self.encoder

    @cached_property
    def _model(self) -> SentenceTransformer:
        transformers = _imported("sentence_transformers")
        try:
            return transformers.SentenceTransformer(self.encoder)
        except (OSError, ValueError) as error:
            found = str(error).partition("\n")[0][:200]
            raise MissingInput(
                f"retriever 'dense': expected the encoder {self.encoder!r} in a folder or in the local hub cache, "
                f"found none ({found}); download it with `hf download {self.encoder}`, or name a folder with --set "
                "01.retriever_url=FOLDER (04 for the evaluation)"
            ) from error

    @cached_property
    def _index(self) -> Any:
        """Return the index from the caches, where it is put if it is not there."""
        faiss, cache = _imported("faiss"), self._cache or artifacts.cache_dir()
        digest = hashlib.sha256(f"{self._encoder_name}\n{digest_of(self.passages)}".encode()).hexdigest()[:16]
        folder = cache / f"dense-{digest}"
        with files.disk_problems(cache):
            cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            index = self._saved(faiss, folder)
            if index is None:
                files.save_folder(folder, lambda temporary: self._build(faiss, temporary))
                index = self._saved(faiss, folder)
        return index

    def _saved(self, faiss: ModuleType, folder: Path) -> Any:
        """Return the index of a folder, None where there is none or a damaged one."""
        about = files.find_object(folder / _ABOUT, {"n": int})
        if about is None or about["n"] != len(self.passages):
            return None
        try:
            return faiss.read_index(str(folder / _INDEX), faiss.IO_FLAG_MMAP)
        except RuntimeError:  # absent, cut short or of another kind
            return None

    def _build(self, faiss: ModuleType, folder: Path) -> None:
        index = None
        for block in _blocks(self.passages):
            vectors = _encoded(self._model, [f"{PASSAGE}{p.title} {p.text}" for p in block])
            index = index or faiss.IndexFlatIP(vectors.shape[1])
            index.add(vectors)
        faiss.write_index(index, str(folder / _INDEX))
        files.write_json(folder / _ABOUT, {"n": len(self.passages), "encoder": self._encoder_name})


def _encoded(model: SentenceTransformer, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
    """Return (N, D) float32: the texts' vectors, of length 1."""
    made = model.encode(
        list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
    )
    return np.ascontiguousarray(made, dtype=np.float32)


def _blocks(passages: Sequence[Passage]) -> Iterator[list[Passage]]:
    block: list[Passage] = []
    for passage in passages:
        block.append(passage)
        if len(block) == _BLOCK:
            yield block
            block = []
    if block:
        yield block


def _imported(name: str) -> Any:
    """Return a module of the extra; NotReady with the command that installs it where it is absent."""
    try:
        return __import__(name)
    except ImportError as error:
        raise NotReady(
            f"retriever 'dense': expected the extra 'dense' (sentence-transformers and faiss), found {error}; install "
            f"it with `{DENSE_INSTALL}`"
        ) from error
