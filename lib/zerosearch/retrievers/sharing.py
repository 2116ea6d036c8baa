"""Identical searches of a group are sent to the simulator once.

The trajectories of a question often ask the same query.  Each search keeps its own draw of useful or
misleading; those of one step and question that then ask the same, word for word, share the passages.  The
shared search is keyed by (step, question, query, draw) and not by who came first, so that what is written
does not depend on the order in which trajectories arrive.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import Sequence

from zerosearch import seeds
from zerosearch.retrievers.base import Retriever, check_rows, served_model
from zerosearch.retrievers.simulator import SimulatorRetriever
from zerosearch.schema import Retrieval, SearchRequest

_Key = tuple[int, str, str, bool]  # step, question id, query, misleading


class SharedSimulator:
    """A retriever around a simulator; see the module's docstring.

    simulator: draws useful or misleading.  retriever: what is asked, None for the simulator itself (or the
    simulator inside a ``FailureLimit``).  n_sent, n_shared: searches since the start that the simulator
    answered, and that were given another's passages; the latter come back as ``cached``, without tokens.
    """

    def __init__(self, simulator: SimulatorRetriever, retriever: Retriever | None = None):
        self._simulator, self._retriever = simulator, retriever or simulator
        self.name, self.served_model = simulator.name, served_model(simulator)
        self.prompt_version, self.engine = simulator.prompt_version, simulator.engine
        self.n_sent = self.n_shared = 0
        self._lock = threading.Lock()
        self._answers: dict[_Key, Future[Retrieval]] = {}

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return one Retrieval per request, in order; a failure is not shared with later searches."""
        keys = [self._key(request) for request in requests]
        first, answers = self._claim(keys)
        asked = [_canonical(requests[row], keys[row]) for row in first]
        try:
            found = check_rows(asked, self._retriever.search(asked), self.name) if asked else []
        except BaseException as error:
            self._give_up([keys[row] for row in first], error)
            raise
        for row, one in zip(first, found, strict=True):
            answers[keys[row]].set_result(one)
        self._forget_failures([keys[row] for row, one in zip(first, found, strict=True) if one.error is not None])
        sent = dict(zip(first, found, strict=True))
        return [_own(r, sent.get(i)) or _shared(r, answers[keys[i]].result()) for i, r in enumerate(requests)]

    def _key(self, r: SearchRequest) -> _Key:
        return (r.step, r.question.id, r.query, self._simulator.draw_noisy(r))

    def _claim(self, keys: Sequence[_Key]) -> tuple[list[int], dict[_Key, Future[Retrieval]]]:
        """Return the rows that nobody has asked yet, and where their answers come; other steps are forgotten."""
        with self._lock:
            steps = {step for step, *_ in keys}
            self._answers = {k: a for k, a in self._answers.items() if k[0] in steps or not a.done()}
            first = []
            for row, key in enumerate(keys):
                if key not in self._answers:
                    self._answers[key] = Future()
                    first.append(row)
            self.n_sent += len(first)
            self.n_shared += len(keys) - len(first)
            return first, {key: self._answers[key] for key in keys}

    def _forget_failures(self, keys: Sequence[_Key]) -> None:
        with self._lock:
            for key in keys:
                self._answers.pop(key, None)

    def _give_up(self, keys: Sequence[_Key], error: BaseException) -> None:
        with self._lock:
            for key in keys:
                self._answers.pop(key).set_exception(error)


def _own(request: SearchRequest, sent: Retrieval | None) -> Retrieval | None:
    return None if sent is None else replace(sent, request=request)


def _shared(request: SearchRequest, sent: Retrieval) -> Retrieval:
    return replace(sent, request=request, cached=True, wall_seconds=0.0, n_prompt_tokens=0, n_generated_tokens=0)


def _canonical(request: SearchRequest, key: _Key) -> SearchRequest:
    """Return the request that stands for all with this key: its draws depend on the key alone."""
    return replace(
        request, sample=0, turn=seeds.derive_seed("shared search", key[2]) % 2**31,
        noise_probability=1.0 if key[3] else 0.0, context="",
    )
