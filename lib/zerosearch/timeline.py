"""Who did what when during a rollout: recorded spans, for the figure that shows who waits for whom."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Iterable, Sequence

import pandas as pd

from zerosearch.engines.base import Engine, Generation, GenerationRequest

COLUMNS = ("trajectory", "doing", "start", "end")


@dataclass
class Timeline:
    """Spans of trajectories: (trajectory, ``write`` or ``search``, start, end), seconds since the first one.

    What lies between two spans of a trajectory is waiting.  Safe to use from several threads.
    """

    spans: list[tuple[int, str, float, float]] = field(default_factory=list)
    _since: dict[int, tuple[str, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self, trajectory: int, doing: str | None) -> None:
        """Note that a trajectory begins to do something (or still does), or has ended (None) what it did."""
        at = time.perf_counter()
        with self._lock:
            if doing is not None and self._since.get(trajectory, ("", 0.0))[0] == doing:
                return
            if (before := self._since.pop(trajectory, None)) is not None:
                self.spans.append((trajectory, *before, at))
            if doing is not None:
                self._since[trajectory] = (doing, at)

    def all_now(self, trajectories: Iterable[int], doing: str | None) -> None:
        """Note the same for several trajectories."""
        for trajectory in trajectories:
            self.now(trajectory, doing)

    def table(self) -> pd.DataFrame:
        """Return one row per span, in the order of their starts."""
        table = pd.DataFrame(self.spans, columns=list(COLUMNS)).sort_values("start", ignore_index=True)
        table[["start", "end"]] -= table["start"].min()
        return table


class TimedEngine:
    """An engine that notes which trajectories wrote, for a turn-synchronous rollout (which keys its requests)."""

    def __init__(self, engine: Engine, timeline: Timeline):
        self._engine, self._timeline = engine, timeline
        self.name, self.tokenizer, self.counts = engine.name, engine.tokenizer, engine.counts

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """As the engine inside."""
        rows = [request.key for request in requests]
        self._timeline.all_now(rows, "write")
        try:
            return self._engine.generate(requests)
        finally:
            self._timeline.all_now(rows, None)

    def release(self) -> None:
        """As the engine inside."""
        self._engine.release()
