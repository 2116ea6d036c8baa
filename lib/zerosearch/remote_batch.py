"""Jobs of one batch under way at once, in a thread with an event loop of its own, for callers who know no loops.

An event loop, because only there can a request be ended at its deadline whatever it is waiting for: an
address, a connection, headers that come byte by byte.  Called by ``remote``.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import CancelledError, Future
from typing import Awaitable, Callable, Generic, Iterator, Protocol, Sequence, TypeVar

import httpx

A = TypeVar("A")
A_in = TypeVar("A_in", contravariant=True)
Sleep = Callable[[float], Awaitable[None]]


class Keep(Protocol[A_in]):
    """Takes an answer in as it arrives; number: which job of the batch."""

    def __call__(self, number: int, answer: A_in) -> None: ...


class Halted(Exception):
    """A wait that ended because no further request may begin."""


class Pace:
    """When the next request may go: evenly spread, shared by threads and batches.  per_second: 0 for no limit."""

    def __init__(self, per_second: float):
        self._gap = 1.0 / per_second if per_second else 0.0
        self._next, self._lock = 0.0, threading.Lock()

    def turn(self) -> float:
        """Take the next place and return the seconds until it."""
        with self._lock:
            now = time.monotonic()
            mine = max(now, self._next)
            self._next = mine + self._gap
            return mine - now

    def pause(self, seconds: float) -> None:
        """Let nobody go before so many seconds have passed."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class Batch(threading.Thread, Generic[A]):
    """Jobs under way.

    jobs: coroutine functions of (client, sleep).  workers: jobs at once.  client: makes the HTTP client.
    futures: one per job; all are done when the thread has ended.
    """

    def __init__(
        self, jobs: Sequence[Callable[[httpx.AsyncClient, Sleep], Awaitable[A]]], workers: int,
        client: Callable[[], httpx.AsyncClient], keep: Keep[A] | None = None,
    ):
        super().__init__(name="remote calls", daemon=True)
        self.futures: list[Future[A]] = [Future() for _ in jobs]
        self._jobs, self._workers, self._client, self._keep = jobs, min(workers, len(jobs)), client, keep
        self._loop, self._halted = asyncio.new_event_loop(), asyncio.Event()
        self._error: Exception | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def run(self) -> None:
        """Do the jobs."""
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._all())
        except Exception as error:  # raised in the caller's thread, by the futures
            self._error = error
        for future in self.futures:
            if not future.done():
                future.set_exception(self._error or CancelledError())

    def finish(self) -> None:
        """Begin no further request and wait for those under way; an interrupt breaks them off."""
        self._tell(self._halted.set)
        try:
            if self.ident is not None:  # else it never began, and will not now
                self.join()
        except KeyboardInterrupt:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Break off the requests under way."""
        self._tell(lambda: [task.cancel() for task in self._tasks])

    def _tell(self, what: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # the loop is closed: everything has ended
            pass

    async def _all(self) -> None:
        numbers = iter(range(len(self._jobs)))
        async with self._client() as client:
            self._tasks = [asyncio.create_task(self._work(client, numbers)) for _ in range(self._workers)]
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self, client: httpx.AsyncClient, numbers: Iterator[int]) -> None:
        """Do jobs one after the other until there is none, or the batch is halted."""
        try:
            for number in numbers:
                answer = await self._jobs[number](client, self._sleep)
                if self._keep is not None:
                    self._keep(number, answer)
                self.futures[number].set_result(answer)
        except Halted:
            return
        except Exception as error:
            self._error = self._error or error
            self._halted.set()

    async def _sleep(self, seconds: float) -> None:
        """Wait so long; Halted once no further request may begin."""
        if seconds > 0 and not self._halted.is_set():
            try:
                await asyncio.wait_for(self._halted.wait(), seconds)
            except TimeoutError:
                return
        if self._halted.is_set():
            raise Halted
