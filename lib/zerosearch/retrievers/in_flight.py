"""Searches under way in threads of their own, so that nobody waits for a search but who asked for it.

Bounded: so many calls at a time, each with a deadline.  A call that misses it counts as failed, its thread
is left to itself and replaced; when it returns after all, its answer is dropped.  A retriever that raises
(``FailureLimit`` does) stops whoever waits here, with the same error.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Hashable, Sequence

from zerosearch.errors import RetrieverError
from zerosearch.retrievers.base import Retriever, check_rows, failure
from zerosearch.schema import Retrieval, SearchRequest

Asked = tuple[Hashable, SearchRequest]
_HASTE_SECONDS = 0.0002  # a thread that answers within it needs no others beside it: starting them costs more


@dataclass(eq=False, slots=True)
class _Call:
    """One call of the retriever.  started: seconds of the monotonic clock."""

    asked: Sequence[Asked]
    started: float
    late: bool = False


class SearchPool:
    """A retriever that is asked from ``threads`` threads, up to ``per_call`` searches in one call.

    Web engines wait for the network: many threads, one search per call.  What computes in this process
    (BM25, a simulator) is not made for several threads: one thread, and whatever waits in one call.
    deadline_seconds: of one call, from its start.  n_late: searches that missed it.
    """

    def __init__(self, retriever: Retriever, threads: int, per_call: int, deadline_seconds: float):
        self._retriever, self._threads, self._per_call = retriever, threads, per_call
        self._deadline = deadline_seconds
        self.n_late = 0
        lock = threading.RLock()
        self._work_there, self._news = threading.Condition(lock), threading.Condition(lock)
        self._waiting: deque[Asked] = deque()
        self._arrived: list[tuple[Hashable, Retrieval]] = []
        self._calls: set[_Call] = set()
        self._error: BaseException | None = None
        self._closed = self._settling = False
        self._n_workers = self._n_idle = 0

    def submit(self, handle: Hashable, request: SearchRequest) -> None:
        """Have a search carried out; ``ready`` returns it under its handle."""
        with self._work_there:
            self._waiting.append((handle, request))
            if not self._n_workers:
                self._start_worker()
            self._work_there.notify()

    def ready(self, timeout_seconds: float = 0.0) -> list[tuple[Hashable, Retrieval]]:
        """Return what has arrived or missed its deadline since the last call; wait a while if that is nothing.

        Raises what the retriever raised, and RetrieverError when as many calls hang as there are threads.
        """
        until = time.monotonic() + timeout_seconds
        with self._news:
            self._start_workers()
            self._drop_late()
            while not self._arrived and self._error is None and (left := until - time.monotonic()) > 0:
                self._news.wait(min(left, self._next_deadline()))
                self._drop_late()
            if self._error is not None:
                raise self._error
            arrived, self._arrived = self._arrived, []
            return arrived

    def settle(self, at_most_seconds: float) -> None:
        """Wait a moment for searches that are answered at once; return as soon as none is under way."""
        with self._news:
            self._settling = True
            self._wait_for_all(min(_HASTE_SECONDS, at_most_seconds))
            self._start_workers()
            self._wait_for_all(at_most_seconds - _HASTE_SECONDS)
            self._settling = False

    def close(self) -> None:
        """Drop what waits; threads end with their present call, whose answer nobody reads."""
        with self._work_there:
            self._closed = True
            self._waiting.clear()
            self._work_there.notify_all()

    def _wait_for_all(self, at_most_seconds: float) -> None:
        until = time.monotonic() + at_most_seconds
        while (self._calls or self._waiting) and self._error is None and (left := until - time.monotonic()) > 0:
            self._news.wait(left)

    def _start_workers(self) -> None:
        """Have a thread for whatever waits, as far as there may be threads."""
        for _ in range(min(len(self._waiting) - self._n_idle, self._threads - self._n_workers)):
            self._start_worker()

    def _start_worker(self) -> None:
        self._n_workers += 1
        threading.Thread(target=self._work, name=f"search-{self._retriever.name}", daemon=True).start()

    def _work(self) -> None:
        while (call := self._next_call()) is not None:
            requests = [request for _, request in call.asked]
            try:
                found = check_rows(requests, self._retriever.search(requests), self._retriever.name)
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                found, raised = [], error
            else:
                raised = None
            if not self._finish(call, found, raised):
                return

    def _next_call(self) -> _Call | None:
        with self._work_there:
            self._n_idle += 1
            while not self._waiting and not self._closed:
                self._work_there.wait()
            self._n_idle -= 1
            if self._closed:
                self._n_workers -= 1
                return None
            size = min(self._per_call, len(self._waiting))
            call = _Call([self._waiting.popleft() for _ in range(size)], time.monotonic())
            self._calls.add(call)
            return call

    def _finish(self, call: _Call, found: Sequence[Retrieval], raised: BaseException | None) -> bool:
        """Hand over what a call brought; say whether its thread is still needed."""
        with self._news:
            self._calls.discard(call)
            if call.late:  # already answered as failed, and replaced
                return False
            self._error = self._error or raised
            self._arrived += [(handle, one) for (handle, _), one in zip(call.asked, found)]
            if raised or not self._settling or not (self._calls or self._waiting):  # to be woken for each costs more
                self._news.notify()
            return True

    def _drop_late(self) -> None:
        now = time.monotonic()
        for call in [c for c in self._calls if not c.late and now - c.started > self._deadline]:
            call.late = True
            self.n_late += len(call.asked)
            reason = f"no answer within {self._deadline:g} s"
            self._arrived += [(handle, failure(r, self._retriever.name, reason)) for handle, r in call.asked]
            self._n_workers -= 1
            self._start_worker()
        hanging = sum(call.late for call in self._calls)
        if hanging > self._threads:
            self._error = self._error or RetrieverError(
                f"retriever {self._retriever.name!r}: expected answers within {self._deadline:g} s, found {hanging} "
                "searches that hang at the same time; mend the engine and start the same command again"
            )

    def _next_deadline(self) -> float:
        """Return the seconds until the next call misses its deadline, at least a little."""
        starts = [call.started for call in self._calls if not call.late]
        left = min(starts) + self._deadline - time.monotonic() if starts else self._deadline
        return max(left, 0.001)
