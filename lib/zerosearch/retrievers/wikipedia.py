"""A retriever behind HTTP that speaks Search-R1's protocol: one POST to ``/retrieve``.

    asked     {"queries": ["...", "..."], "topk": 5, "return_scores": true}      several queries
              {"query": "...", "topk": 5, "return_scores": true}                 one
    answered  {"result": [[{"document": {"id": "7", "contents": "\\"Title\\"\\ntext"}, "score": 1.5}, ...], ...]}

Servers differ, and every form met so far is read: documents without scores, documents as plain strings, with
``title`` and ``text``, or with ``content``; a single list where one query was asked.  Called by ``open_engine``.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from zerosearch.errors import ConfigError
from zerosearch.remote import Answer, Call, Remote, RemoteFailure, Service, read_json
from zerosearch.retrievers.base import check_passages_per_query, failure
from zerosearch.retrievers.corpus import passage_of
from zerosearch.schema import Passage, Retrieval, SearchRequest

PATH = "/retrieve"
BATCH = 8  # queries of one request
Found = list[tuple[Passage, ...]]
_MAYBE_ONE = frozenset({"server", "malformed", "too_large", "rejected"})  # one query of a batch may have caused it


class WikipediaRetriever:
    """Whatever stands behind an address that speaks the protocol.

    url: of the server, with or without ``/retrieve``.  k: passages per query, 1 to 20.  corpus: what is searched
    there; answers are recorded under this name, or under the address where it is empty.  batch: queries of one
    request; 1 asks in the single form.  per_second: requests, 0 for no limit.  workers: requests under way at
    once.  The other options are those of ``Service``.
    """

    name = "wikipedia"

    def __init__(
        self, url: str, k: int = 5, corpus: str = "", batch: int = BATCH, per_second: float = 0.0, workers: int = 4,
        **patience: Any,
    ):
        if not url:
            raise ConfigError(
                "retriever 'wikipedia': expected the address of a server, found none; start one with `python -m "
                "zerosearch.retrievers.server --corpus FILE` and name it with `--set "
                "01.retriever_url=http://127.0.0.1:8000`"
            )
        self.k, self.batch = check_passages_per_query(k), batch
        self._remote = Remote(Service(
            "wikipedia", url.rstrip("/").removesuffix(PATH), workers=workers, per_second=per_second, max_bytes=2**25,
            offers=f"a server that answers POST {PATH}", advice="check the address", **patience,
        ))
        self.identity = f"wikipedia corpus={corpus or self._remote.service.url} k={k}"

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return the passages of every request's query; RemoteRefused where there is no such server."""
        return self.search_each(requests, lambda row, retrieval: None)

    def search_each(
        self, requests: Sequence[SearchRequest], keep: Callable[[int, Retrieval], object]
    ) -> list[Retrieval]:
        """As ``search``; keep(row, retrieval) is called when an answer arrives.

        Where a batch fails in a way that one of its queries may have caused, its queries are asked one by one.
        """
        made = {row: Retrieval(r, (), self.name) for row, r in enumerate(requests) if not r.query.strip()}
        rows = [row for row in range(len(requests)) if row not in made]
        batches = [rows[start : start + self.batch] for start in range(0, len(rows), self.batch)]
        again = self._ask(requests, batches, made, keep, last=False)
        self._ask(requests, [[row] for row in again], made, keep, last=True)
        return [made[row] for row in range(len(requests))]

    def _ask(
        self, requests: Sequence[SearchRequest], batches: Sequence[Sequence[int]], made: dict[int, Retrieval],
        keep: Callable[[int, Retrieval], object], last: bool,
    ) -> list[int]:
        """Ask batches of rows, put what became of them into made, and return the rows to be asked one by one."""
        again: list[int] = []

        def take(number: int, answer: Answer[Found]) -> None:
            rows = batches[number]
            if answer.value is None and answer.failure is not None:
                if answer.failure.kind in _MAYBE_ONE and len(rows) > 1 and not last:
                    again.extend(rows)
                    return
                reason, seconds = str(answer.failure), answer.seconds / len(rows)
                made.update({row: failure(requests[row], self.name, reason, seconds) for row in rows})
                return
            for row, passages in zip(rows, answer.value or [], strict=True):
                made[row] = Retrieval(requests[row], passages, self.name, wall_seconds=answer.seconds / len(rows))
                keep(row, made[row])

        for _ in self._remote.ask_all([self._call([requests[row].query for row in rows]) for rows in batches], take):
            pass
        return again

    def _call(self, queries: Sequence[str]) -> Call[Found]:
        asked: dict[str, Any] = {"queries": list(queries)} if self.batch > 1 else {"query": queries[0]}
        body = {**asked, "topk": self.k, "return_scores": True}
        return Call(lambda content: read_reply(read_json(content), len(queries), self.k), PATH, body=body)


def read_reply(found: Any, n_queries: int, k: int) -> Found:
    """Return the passages of a reply, at most k for each query, in the order of the queries.

    Raises RemoteFailure ``malformed`` for anything but a list of documents per query.
    """
    result = found.get("result") if isinstance(found, dict) else None
    if not isinstance(result, list):
        raise RemoteFailure("malformed")
    if n_queries == 1 and result and not isinstance(result[0], list):
        result = [result]  # one query, its documents without a list around them
    if len(result) != n_queries or not all(isinstance(documents, list) for documents in result):
        raise RemoteFailure("malformed")
    return [tuple(_passage(entry, rank) for rank, entry in enumerate(documents[:k], 1)) for documents in result]


def _passage(entry: Any, rank: int) -> Passage:
    """Return the passage of a document, with or without a score beside it."""
    document = entry.get("document") if isinstance(entry, dict) and "document" in entry else entry
    if isinstance(document, str):
        document = {"contents": document}
    if not isinstance(document, Mapping):
        raise RemoteFailure("malformed")
    if not {"text", "contents"} & document.keys() and isinstance(document.get("content"), str):
        document = {**document, "text": document["content"]}
    try:
        return passage_of({**document, "metadata": None}, f"rank-{rank}")
    except ValueError:
        raise RemoteFailure("malformed") from None
