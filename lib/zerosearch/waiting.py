"""Who waits for whom: the same trajectories by both loops, with searches as slow as real engines' are.

Latencies are log-normal draws keyed by (seed, step, question, sample, turn), so both loops wait for the same
ones.  Called by notebook 03 and by the benchmark of rollouts.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Sequence

import numpy as np
import pandas as pd

from zerosearch import seeds
from zerosearch.engines.base import Engine
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import Retriever
from zerosearch.rollout import RolloutRequest, RolloutSettings, rollout
from zerosearch.rollout_async import AsyncSettings, rollout_async
from zerosearch.schema import Retrieval, SearchRequest
from zerosearch.timeline import TimedEngine, Timeline

SPREAD = 0.6  # standard deviation of the logarithm: one search in twenty takes 2.7 medians
LOOPS = ("turn-synchronous", "asynchronous")


class Remembered:
    """A retriever that gives every search the passages it got before: repeating it costs no time.

    Keyed by the search's own record, (step, question, sample, turn) and query; safe in one thread at a time.
    """

    def __init__(self, retriever: Retriever):
        self._retriever, self.name = retriever, retriever.name
        self._found: dict[tuple[int, str, int, int, str], Retrieval] = {}

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return what is remembered; what is not is asked for first."""
        keys = [(r.step, r.question.id, r.sample, r.turn, r.query) for r in requests]
        new = [row for row, key in enumerate(keys) if key not in self._found]
        asked = self._retriever.search([requests[row] for row in new]) if new else []
        self._found |= {keys[row]: one for row, one in zip(new, asked, strict=True)}
        return [replace(self._found[key], request=r) for key, r in zip(keys, requests, strict=True)]


class DelayedRetriever:
    """A retriever whose answers come late, from up to ``threads`` threads at a time in one call.

    retriever: what answers, one search at a time.  median_seconds: of the latency; 0 for none.  timeline, rows:
    notes the searches of the trajectories whose (question id, sample) stand in rows.
    """

    def __init__(
        self, retriever: Retriever, median_seconds: float, seed: int, threads: int = 1,
        timeline: Timeline | None = None, rows: Sequence[tuple[str, int]] = (),
    ):
        self._retriever, self._median, self._seed, self._threads = retriever, median_seconds, seed, threads
        self._timeline, self._rows = timeline, {place: row for row, place in enumerate(rows)}
        self._lock, self.name = threading.Lock(), retriever.name

    def latency_seconds(self, r: SearchRequest) -> float:
        """Return this search's own latency."""
        draw = seeds.generator(self._seed, "latency", r.step, r.question.id, r.sample, r.turn).standard_normal()
        return self._median * float(np.exp(SPREAD * draw))

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return what the retriever returns, in order, after each search's latency."""
        if len(requests) == 1:
            return [self._one(requests[0])]
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(self._one, requests))

    def _one(self, request: SearchRequest) -> Retrieval:
        self._note(request, "search")
        time.sleep(self.latency_seconds(request))
        with self._lock:  # what answers need not be made for several threads
            found = self._retriever.search([request])[0]
        self._note(request, None)
        return found

    def _note(self, request: SearchRequest, doing: str | None) -> None:
        if self._timeline is not None:
            self._timeline.now(self._rows[request.question.id, request.sample], doing)


def compare_loops(
    requests: Sequence[RolloutRequest], engine: Engine, retriever: Retriever, prompts: Prompts,
    settings: RolloutSettings, median_seconds: float = 0.2, seed: int = 0, threads: int = 10,
) -> pd.DataFrame:
    """Return the spans of the same trajectories by both loops: those of ``Timeline.table``, and the loop.

    The passages are those of a rollout before, so that a search takes its latency and nothing else.
    threads: searches at a time of the turn-synchronous loop, ten as in the published code.
    """
    retriever = Remembered(retriever)
    rollout(requests, engine, retriever, prompts, settings)
    rows = [(r.question.id, r.sample) for r in requests]
    one, other = Timeline(), Timeline()
    slow = DelayedRetriever(retriever, median_seconds, seed, threads, one, rows)
    rollout(requests, TimedEngine(engine, one), slow, prompts, settings)
    each_its_own = AsyncSettings(search_threads=len(requests), searches_per_call=1)
    slow = DelayedRetriever(retriever, median_seconds, seed, timeline=other, rows=rows)
    rollout_async(requests, engine, slow, prompts, settings, each_its_own, timeline=other)
    tables = [t.table().assign(loop=loop) for t, loop in zip((one, other), LOOPS, strict=True)]
    return pd.concat(tables, ignore_index=True)
