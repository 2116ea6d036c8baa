"""The multi-turn loop, one trajectory at a time: each goes on as soon as its own passages are there.

Same records and rules as ``rollout``, from the same ``Conversation``; what differs is who waits.  There all
trajectories write one message, then all searches are answered, so everybody waits for the slowest message
and for the slowest search.  Here the engine takes messages on and hands them back one by one, and searches
are under way meanwhile.  Draws are keyed by (run seed, step, question, sample, turn) in both loops.  The
arithmetic of a batch depends on who is in it (about 1e-5), so a draw that falls on an edge may differ.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Callable, Sequence

from zerosearch.engines.base import Engine, Generation, SteppingEngine, stepping
from zerosearch.errors import ConfigError
from zerosearch.interrupts import Stopped
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import NoRetriever, Retriever
from zerosearch.retrievers.in_flight import SearchPool
from zerosearch.rollout import Conversation, RolloutRequest, RolloutSettings, rollout
from zerosearch.schema import Retrieval, Trajectory
from zerosearch.timeline import Timeline

_GRACE_SECONDS = 0.001  # for searches that are answered at once: their trajectories join the next step
_PATIENCE_SECONDS = 0.1  # longest wait for a search before cancellation is looked at


@dataclass(frozen=True, slots=True)
class AsyncSettings:
    """How much is under way at once; changes speed, no draw.

    max_open: trajectories.  search_threads: calls of the retriever; more than one only for a retriever that
    may be called from several threads (web engines, servers).  searches_per_call: most searches handed over
    in one call.  search_deadline_seconds: after which a search counts as failed and its trajectory ends.
    """

    max_open: int = 256
    search_threads: int = 1
    searches_per_call: int = 256
    search_deadline_seconds: float = 600.0

    def __post_init__(self) -> None:
        least = min(self.max_open, self.search_threads, self.searches_per_call, self.search_deadline_seconds)
        if least <= 0:
            raise ConfigError(f"asynchronous rollouts: expected numbers above 0, found {self}; raise them")


def roll_out(
    requests: Sequence[RolloutRequest], engine: Engine, retriever: Retriever | None, prompts: Prompts,
    settings: RolloutSettings, on_progress: Callable[[int, int], None] | None = None,
) -> list[Trajectory]:
    """Return one trajectory per request by the loop that suits the engine: asynchronous if it can be stepped."""
    loop = rollout_async if hasattr(engine, "step") else rollout
    return loop(requests, engine, retriever, prompts, settings, on_progress=on_progress)


def rollout_async(
    requests: Sequence[RolloutRequest], engine: Engine, retriever: Retriever | None, prompts: Prompts,
    settings: RolloutSettings, asynchronous: AsyncSettings = AsyncSettings(),
    on_progress: Callable[[int, int], None] | None = None, *, timeline: Timeline | None = None,
    cancel: threading.Event | None = None,
) -> list[Trajectory]:
    """Return one finished trajectory per request, in the order of the requests.

    engine: one that can be stepped; any other is stepped in batches.  retriever may be None when no request
    may search.  on_progress(done, total) is called whenever trajectories have finished.  timeline: is told
    who wrote and who searched when.  cancel: once set, everything under way is given up and Stopped raised.
    """
    work = _Scheduler(requests, stepping(engine), retriever, prompts, settings, asynchronous, timeline)
    try:
        while work.goes_on():
            if cancel is not None and cancel.is_set():
                raise Stopped(f"rollout cancelled, {work.n_done} of {len(requests)} trajectories finished")
            before = work.n_done
            work.advance()
            if on_progress and work.n_done > before:
                on_progress(work.n_done, len(requests))
    finally:
        work.close()
    return work.trajectories()


class _Scheduler:
    """Trajectories under way: some wait for the engine, some for their passages, some to begin."""

    def __init__(
        self, requests: Sequence[RolloutRequest], engine: SteppingEngine, retriever: Retriever | None,
        prompts: Prompts, settings: RolloutSettings, asynchronous: AsyncSettings, timeline: Timeline | None,
    ):
        self.requests, self.engine, self.prompts, self.settings = requests, engine, prompts, settings
        self.may_search, self.limits, self.timeline = retriever is not None, asynchronous, timeline
        self.pool = SearchPool(
            retriever or NoRetriever(), asynchronous.search_threads, asynchronous.searches_per_call,
            asynchronous.search_deadline_seconds,
        )
        self.to_begin = deque(range(len(requests)))
        self.writing: dict[int, Conversation] = {}
        self.searching: dict[int, Conversation] = {}
        self.done: dict[int, Trajectory] = {}

    @property
    def n_done(self) -> int:
        return len(self.done)

    def goes_on(self) -> bool:
        return len(self.done) < len(self.requests)

    def advance(self) -> None:
        """Begin what may begin, let the engine work for a moment, take in what has arrived."""
        while self.to_begin and len(self.writing) + len(self.searching) < self.limits.max_open:
            index = self.to_begin.popleft()
            self._go_on(index, Conversation(self.requests[index], self.prompts, self.settings, index))
        searching = len(self.searching)
        for index, made in self.engine.step() if self.writing else ():
            self._take_message(index, made)
        if len(self.searching) > searching:
            self.pool.settle(_GRACE_SECONDS)
        for index, found in self.pool.ready(0.0 if self.writing or not self.searching else _PATIENCE_SECONDS):
            self._take_passages(index, found)

    def _go_on(self, index: int, conversation: Conversation) -> None:
        """Ask for the next message, or end a trajectory that has no room for one."""
        if conversation.stop_reason is None and conversation.room <= 0:
            conversation.stop_reason = "length"
        if conversation.stop_reason is not None:
            self.done[index] = conversation.finish()
            return
        self.writing[index] = conversation
        self._note(index, "write")
        self.engine.add(index, conversation.generation_request())

    def _take_message(self, index: int, made: Generation) -> None:
        conversation = self.writing.pop(index)
        self._note(index, None)
        search = conversation.take_message(made)
        if search is None:
            self._go_on(index, conversation)
            return
        if not self.may_search:
            raise ValueError("a trajectory asked for a search, but there is no retriever; set max_searches to 0")
        self.searching[index] = conversation
        self._note(index, "search")
        self.pool.submit(index, search)

    def _take_passages(self, index: int, found: Retrieval) -> None:
        conversation = self.searching.pop(index)
        self._note(index, None)
        conversation.take_retrieval(found, self.prompts)
        self._go_on(index, conversation)

    def _note(self, index: int, doing: str | None) -> None:
        if self.timeline is not None:
            self.timeline.now(index, doing)

    def close(self) -> None:
        """Give up whatever is still under way, and let the engine forget the conversations."""
        self.pool.close()
        self.engine.abort(list(self.writing))
        self.engine.release()

    def trajectories(self) -> list[Trajectory]:
        """Return what was made, in the order of the requests."""
        return [self.done[index] for index in range(len(self.requests))]
