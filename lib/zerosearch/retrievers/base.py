"""What a retriever is, and what holds for every one of them.

A retriever answers SearchRequests with Retrievals: as many, in the same order, each carrying its own
request (rule 1: a query travels with its row, nothing is looked up by position).  A search that fails
comes back as ``Retrieval(error=...)`` and is never raised, so that one bad answer costs one trajectory
and not a batch; ``FailureLimit`` stops a run in which failing has become the rule (rule 10).

This module talks to no engine.  Called by rollout, evaluation, labels and the retrievers beside it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Callable, Protocol, Sequence, runtime_checkable

from zerosearch.errors import RetrieverError
from zerosearch.schema import Retrieval, SearchRequest

MAX_PASSAGES = 20  # K, passages per query
PAID_ENGINES = frozenset({"serpapi", "google", "serper"})  # engines that bill every fresh answer


class Retriever(Protocol):
    """Anything that turns queries into passages: local index, web engine, simulator, cache.

    name: short name that goes into every Retrieval and into the ledger, e.g. ``bm25``.
    """

    name: str

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return one Retrieval per request, in order; failures as ``Retrieval(error=...)``."""
        ...


class ReplayableRetriever(Retriever, Protocol):
    """A retriever whose answer depends on nothing but the query: only such a one may be replayed.

    identity: names everything else that decides the answer (engine, K, corpus, options), so that an
    answer is never replayed for another engine or another corpus.
    """

    @property
    def identity(self) -> str:
        """Return the text that, together with the query, determines the passages."""
        ...


@runtime_checkable
class RemoteRetriever(ReplayableRetriever, Protocol):
    """A retriever whose answers come from afar, one by one: each can be kept as soon as it is there."""

    def search_each(
        self, requests: Sequence[SearchRequest], keep: Callable[[int, Retrieval], object]
    ) -> list[Retrieval]:
        """As ``search``; keep(row, retrieval) is called with every retrieval when it arrives, before it is used."""
        ...


def served_model(retriever: Retriever) -> str:
    """Return the model on a server that writes this retriever's passages; empty where none does."""
    return getattr(retriever, "served_model", "")


def writing_engine(retriever: Retriever) -> object | None:
    """Return what writes this retriever's passages, an engine of this process or another writer; None without one."""
    return getattr(retriever, "engine", None)


class NoRetriever:
    """Stands where a retriever is asked for and no search may be made."""

    name = "none"

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return nothing for no requests; ValueError for any other call."""
        if requests:
            raise ValueError(f"retriever 'none': expected no search, found {requests[0].query!r}")
        return []


def check_passages_per_query(k: int) -> int:
    """Return k if it is a possible number of passages per query (1 to 20), else raise ValueError."""
    if not 1 <= k <= MAX_PASSAGES:
        raise ValueError(f"passages per query: expected 1 to {MAX_PASSAGES}, found {k}")
    return k


def failure(request: SearchRequest, source: str, reason: str, wall_seconds: float = 0.0) -> Retrieval:
    """Return the Retrieval of a search that failed for good; reason: why, for people."""
    return Retrieval(request, (), source, wall_seconds=wall_seconds, error=reason or "unknown failure")


def check_rows(requests: Sequence[SearchRequest], retrievals: Sequence[Retrieval], name: str) -> list[Retrieval]:
    """Return the retrievals as a list if each one belongs to the request at its place.

    Raises ValueError otherwise: a retriever that mixes up rows is broken, and training on its answers
    would be training on other questions' passages.
    """
    if len(requests) != len(retrievals):
        raise ValueError(f"retriever {name!r}: expected {len(requests)} retrievals, found {len(retrievals)}")
    for row, (asked, found) in enumerate(zip(requests, retrievals, strict=True)):
        if found.request is not asked and found.request != asked:
            raise ValueError(
                f"retriever {name!r}: expected row {row} to answer {asked.query!r} of {asked.question.id}, "
                f"found the answer to {found.request.query!r} of {found.request.question.id}"
            )
    return list(retrievals)


def count_queries(retrievals: Sequence[Retrieval]) -> list[dict[str, Any]]:
    """Return the fields of the ledger's ``queries`` event, one dict per engine in these retrievals.

    engine, fresh, cached, paid (counts).  Failed searches count as fresh: they were tried.  paid is 0: a paid
    answer is written into the ledger when it arrives (``cache``), not when its batch is over.
    """
    counts = []
    for source in sorted({r.source for r in retrievals}):
        mine = [r for r in retrievals if r.source == source]
        cached = sum(r.cached for r in mine)
        counts.append({"engine": source, "fresh": len(mine) - cached, "cached": cached, "paid": 0})
    return counts


class FailureLimit:
    """A retriever that stops the run when the wrapped one fails too often.

    max_share: largest share of failed searches that is put up with, in [0, 1].  after: number of
    searches before which the share says nothing yet.  n_searches, n_failures, reasons: running totals.
    """

    def __init__(self, retriever: Retriever, max_share: float = 0.1, after: int = 50):
        if not 0.0 <= max_share <= 1.0:
            raise ValueError(f"max_share: expected a share in [0, 1], found {max_share}")
        self._retriever, self.name, self.served_model = retriever, retriever.name, served_model(retriever)
        self.engine = writing_engine(retriever)
        self.identity: str = getattr(retriever, "identity", retriever.name)
        self.prompt_version: str = getattr(retriever, "prompt_version", "")
        self.max_share, self.after = max_share, after
        self.n_searches, self.reasons = 0, Counter[str]()

    @property
    def n_failures(self) -> int:
        """Number of failed searches so far."""
        return self.reasons.total()

    def counts(self) -> str:
        """Return what was asked, replayed, billed and lost so far, for people."""
        asked = self._retriever.counts() if hasattr(self._retriever, "counts") else f"{self.n_searches:,} searches"
        reasons = "".join(f"; {n:,} {why}" for why, n in self.reasons.most_common())
        return f"{asked}, {self.n_failures:,} failed{reasons}"

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return what the wrapped retriever returns; RetrieverError once the limit is passed."""
        found = check_rows(requests, self._retriever.search(requests), self.name)
        self.n_searches += len(found)
        self.reasons.update(r.error for r in found if r.error is not None)
        if self.n_searches >= self.after and self.n_failures > self.max_share * self.n_searches:
            reason, times = self.reasons.most_common(1)[0]
            raise RetrieverError(
                f"retriever {self.name!r}: expected at most {self.max_share:.0%} failed searches, found "
                f"{self.n_failures} of {self.n_searches}, {times} of them with {reason!r}; mend the engine and "
                "start the same command again: recorded answers are replayed"
            )
        return found
