"""Record and replay: what an engine answered once is on disk and never asked, or paid for, again.

The record is an append-only file of JSON lines, each addressed by a hash of the engine's identity and
the query.  An answer is flushed to the disk before it is used (rule 10).  A line that was cut off by
a crash is the last one; it is dropped and its query asked again.  Several processes may share a file.
Failures are returned and not recorded.  Simulators are not replayed: they depend on more than the query.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Sequence

from zerosearch.appended import AppendedLines
from zerosearch.retrievers.base import ReplayableRetriever, check_rows
from zerosearch.schema import Passage, Retrieval, SearchRequest


class ReplayCache:
    """A retriever that answers from its record, and asks the wrapped engine for what is not there.

    retriever: the engine.  path: the record, made when the first answer arrives.  write_every: queries
    handed to the engine at a time, after which their answers are written; 1 for an engine that bills.
    n_fresh, n_cached: searches since the start that were asked and that were replayed.
    """

    def __init__(self, retriever: ReplayableRetriever, path: Path | str, write_every: int = 64):
        self._retriever, self.name, self.write_every = retriever, retriever.name, write_every
        self.path, self.identity = Path(path), retriever.identity
        self.n_fresh = self.n_cached = 0
        self._answers: dict[str, tuple[Passage, ...]] = {}
        self._threads = threading.Lock()
        self._record = AppendedLines(self.path, self._take, "a recorded answer", "its query will be asked again")

    def __len__(self) -> int:
        """Return the number of answers in memory (those of other engines in the same file included)."""
        return len(self._answers)

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return one Retrieval per request, in order; ``cached`` says which were replayed.

        A query that occurs several times in a batch is asked once; its other rows are replayed.
        """
        with self._threads:
            keys = [self._key(r.query) for r in requests]
            first = {key: row for row, key in reversed([*enumerate(keys)]) if key not in self._answers}
            asked = self._ask([requests[row] for row in sorted(first.values())]) if first else {}
            found = [
                self._one(request, key, asked.get(key), first.get(key) == row)
                for row, (request, key) in enumerate(zip(requests, keys, strict=True))
            ]
        self.n_cached += sum(r.cached for r in found)
        self.n_fresh += sum(not r.cached for r in found)
        return found

    def _one(self, request: SearchRequest, key: str, made: Retrieval | None, is_first: bool) -> Retrieval:
        if made is not None and (is_first or made.error is not None):
            return replace(made, request=request)
        return Retrieval(request, self._answers[key], self.name, cached=True)

    def _ask(self, requests: Sequence[SearchRequest]) -> dict[str, Retrieval]:
        """Return the engine's answers by key, all of them recorded by then."""
        made: dict[str, Retrieval] = {}
        for start in range(0, len(requests), self.write_every):
            batch = requests[start : start + self.write_every]
            found = check_rows(batch, self._retriever.search(batch), self.name)
            self._record.append([self._line(r) for r in found if r.error is None])
            made.update((self._key(r.request.query), r) for r in found)
        return made

    def _key(self, query: str) -> str:
        return hashlib.sha256(f"{self.identity}\n{query}".encode("utf-8", "surrogatepass")).hexdigest()

    def _line(self, found: Retrieval) -> dict[str, object]:
        query = found.request.query
        passages = [asdict(p) for p in found.passages]
        return {"key": self._key(query), "engine": self.identity, "query": query, "passages": passages}

    def _take(self, row: dict[str, Any]) -> None:
        self._answers[row["key"]] = tuple(Passage(**p) for p in row["passages"])
