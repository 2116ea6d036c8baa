"""The one way a remote call is made: deadlines, bounded retries, a shared pace, typed failures (rule 10).

    Service   where the calls go, which variable holds the key, how patient we are
    Call      one GET with parameters or POST with JSON, and how its reply is read
    Remote    makes calls, so many at a time, and gives their answers back in the order of the calls
    Purse     allows each request before it is sent, and is told what became of it

Every failure is one of FAILURES; what cannot be mended by another attempt or another call (key, credit,
address) is raised as RemoteRefused and ends the work.  ``keep`` gets an answer when it arrives, before
anybody uses it: that is the place to write a paid one to the disk.  The key is read from the environment
when a request is sent; it stands in no object, message, log line or address that is kept.

Called by whatever talks to a server: engines on the web, judges, served models.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import ssl
import time
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Callable, Generic, Iterator, Mapping, Protocol, Sequence, TypeVar

import httpx
from tenacity import (
    AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_before_delay, wait_random_exponential,
)

from zerosearch.errors import ConfigError
from zerosearch.remote_batch import Batch, Keep, Pace, Sleep
from zerosearch.remote_failures import (
    CREDIT, FAILURES, KEY, RemoteFailure, RemoteRefused, kind_of, seconds_to_wait,
)

__all__ = [
    "FAILURES", "Answer", "Call", "Purse", "Remote", "RemoteFailure", "RemoteRefused", "Service", "read_json",
]

T = TypeVar("T")
_LOOK = 0.02  # seconds between two looks into a purse that waits for other requests to end


@dataclass(frozen=True, slots=True)
class Service:
    """Where calls go and how patient we are.

    name: for messages, e.g. ``judge``.  url: what all addresses begin with, e.g. ``http://localhost:8000/v1``.
    key_variable: environment variable with the key, empty for none; key_parameter: the parameter of the
    address that takes it, empty for a bearer header.  timeout_seconds: of one attempt as a whole.
    attempts, deadline_seconds: of one call with its retries.  wait_seconds: largest first wait, doubled each
    time.  workers: calls under way at once.  per_second: attempts per second of all together, 0 for no limit.
    max_bytes: of a reply.  offers, advice: what is expected at the address, and what to check where it is not.
    """

    name: str
    url: str
    key_variable: str = ""
    key_parameter: str = ""
    timeout_seconds: float = 60.0
    attempts: int = 5
    deadline_seconds: float = 240.0
    wait_seconds: float = 1.0
    workers: int = 4
    per_second: float = 0.0
    max_bytes: int = 2**20
    offers: str = "an answer"
    advice: str = "check address"

    def __post_init__(self) -> None:
        if not _usable(self.url):
            raise ConfigError(
                f"{self.name}: expected an address such as http://localhost:8000/v1, found {_shown(self.url)!r}; no "
                "name, password or parameter may stand in it, and a key belongs into an environment variable"
            )

    @property
    def place(self) -> str:
        """Return name and address for messages."""
        return f"{self.name} at {self.url}"


def _usable(url: str) -> bool:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parts.scheme in ("http", "https") and bool(parts.host) and not (parts.userinfo or parts.query)


def _shown(url: str) -> str:
    """Return an address that was refused without what could be a secret in it."""
    return re.sub(r"//.*@", "//...@", re.sub(r"[?].*", "?...", url, flags=re.DOTALL), flags=re.DOTALL)


def _no_explanation(status: int, content: bytes) -> RemoteFailure | None:
    return None


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request.

    read: returns the value of a reply with HTTP 200; raises RemoteFailure, mostly ``malformed``.  path: behind
    the service's url.  params: of the address.  body: sent as JSON by POST; without one the request is a GET.
    explain: makes a failure of another status and its content, None where the status says it all.
    """

    read: Callable[[bytes], T]
    path: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    explain: Callable[[int, bytes], RemoteFailure | None] = _no_explanation


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What became of a call: a value, or the failure of its last attempt.

    attempts: requests sent.  seconds: from the first request on, waits between attempts included.
    """

    value: T | None
    failure: RemoteFailure | None = None
    attempts: int = 1
    seconds: float = 0.0


@cache
def _certificates() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # reading them takes longer than a request


class Purse(Protocol):
    """Pays for requests, one attempt at a time.  Called by several threads."""

    def reserve(self, call: Call[Any]) -> bool:
        """Set aside what a request can cost at most; False: ask again when one under way has ended.

        Raises a WorkbookError, which ends the work, where waiting cannot help.
        """
        ...

    def settle(self, call: Call[Any], ended: object) -> None:
        """Take what the request did cost; ended: the value of the call, or the RemoteFailure of the request."""
        ...


def read_json(content: bytes) -> Any:
    """Return the JSON of a reply; RemoteFailure ``malformed`` where there is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise RemoteFailure("malformed") from None


class _WithoutParameters(logging.Filter):
    """Takes the parameters out of the addresses that httpx logs: a key may be among them."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(a.copy_with(query=None) if isinstance(a, httpx.URL) else a for a in record.args)
        return True


logging.getLogger("httpx").addFilter(_WithoutParameters())


class Remote:
    """Makes calls to one service.  May be used by several threads; they share the pace.

    purse: asked before every request, None for a service that costs nothing.
    """

    def __init__(self, service: Service, purse: Purse | None = None):
        self.service, self.purse = service, purse
        self._pace = Pace(service.per_second)

    def ask(self, call: Call[T]) -> Answer[T]:
        """Return the answer to one call; RemoteRefused where none can succeed."""
        [answer] = self.ask_all([call])
        return answer

    def ask_all(self, calls: Sequence[Call[T]], keep: Keep[Answer[T]] | None = None) -> Iterator[Answer[T]]:
        """Yield one Answer per call, in the order of the calls, each as soon as it and those before it are there.

        keep(number, answer): called with every answer when it arrives, by one thread at a time, before it is
        yielded.  RemoteRefused, or an error of ``keep``, is raised when calls under way have ended and were
        kept; a caller who stops asking waits for these too.  An interrupt breaks them off at once.
        """
        if not calls:
            return
        jobs = [partial(self._answer, call=call) for call in calls]
        batch = Batch(jobs, self.service.workers, self._client, keep)
        try:
            batch.start()  # inside: an interrupt may come before this returns
            for future in batch.futures:
                yield future.result()
        except KeyboardInterrupt:
            batch.cancel()
            raise
        finally:
            batch.finish()

    def _client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=self.service.workers)
        return httpx.AsyncClient(verify=_certificates(), timeout=None, limits=limits)  # attempts have a deadline

    async def _answer(self, client: httpx.AsyncClient, sleep: Sleep, call: Call[T]) -> Answer[T]:
        """Return what became of a call after all its attempts; RemoteRefused where no call can succeed."""
        s, started = self.service, time.monotonic()

        async def wait(seconds: float) -> None:
            await sleep(seconds)
            await sleep(self._pace.turn())

        retrying = AsyncRetrying(
            stop=stop_after_attempt(s.attempts) | stop_before_delay(s.deadline_seconds), wait=self._wait, sleep=wait,
            retry=retry_if_exception(lambda e: isinstance(e, RemoteFailure) and e.may_pass), reraise=True,
        )
        await wait(0.0)
        value, failure = None, None
        try:
            value = await retrying(self._attempt, client, call, sleep, time.monotonic() + s.deadline_seconds)
        except RemoteFailure as error:
            failure = RemoteFailure(error.kind, error.status, self._without_key(error.detail))
        if failure is not None and failure.kind == "refused":
            raise self._refusal(failure)
        return Answer(value, failure, retrying.statistics["attempt_number"], time.monotonic() - started)

    def _wait(self, state: RetryCallState) -> float:
        """Return the seconds before the next attempt: the back-off, or what the server asks for."""
        error = state.outcome.exception() if state.outcome else None
        asked_for = error.retry_after if isinstance(error, RemoteFailure) else 0.0
        if asked_for:  # the limit is the account's: all wait
            self._pace.pause(min(asked_for, self.service.deadline_seconds))
        back_off = wait_random_exponential(multiplier=self.service.wait_seconds, max=60.0)(state)
        return max(asked_for, back_off)

    async def _attempt(self, client: httpx.AsyncClient, call: Call[T], sleep: Sleep, ends: float) -> T:
        """Return the value of one request's reply, paid for; ends: when all attempts of this call must be over."""
        if self.purse is None:
            return await self._sent(client, call, ends)
        while not self.purse.reserve(call):
            await sleep(_LOOK)
        ended: object = RemoteFailure("connection")  # of a request that is broken off
        try:
            ended = value = await self._sent(client, call, ends)
            return value
        except RemoteFailure as failure:
            ended = failure
            raise
        except RemoteRefused:
            ended = RemoteFailure("refused", sent=False)
            raise
        finally:
            self.purse.settle(call, ended)

    async def _sent(self, client: httpx.AsyncClient, call: Call[T], ends: float) -> T:
        began = False
        try:
            request = self._request(call)
            async with asyncio.timeout(min(self.service.timeout_seconds, ends - time.monotonic())):
                async with client.stream(**request) as reply:
                    began = True
                    content = await self._content(reply)
        except TimeoutError:
            raise RemoteFailure("deadline" if began else "timeout") from None
        except httpx.TransportError as error:
            raise RemoteFailure("connection", sent=not isinstance(error, httpx.ConnectError)) from None
        except httpx.HTTPError:  # e.g. a broken compression
            raise RemoteFailure("malformed") from None
        except (ValueError, httpx.InvalidURL):  # e.g. half a character, or longer than an address may be
            raise RemoteFailure("rejected", detail="cannot be put into a request", sent=False) from None
        if reply.status_code != 200:
            raise _failure(reply, content, call)
        return call.read(content)

    def _request(self, call: Call[Any]) -> dict[str, Any]:
        """Return the request with its key; it lives for one attempt."""
        s, key, params = self.service, self._key(), dict(call.params)
        headers = {"Authorization": f"Bearer {key}"} if key and not s.key_parameter else {}
        if key and s.key_parameter:
            params[s.key_parameter] = key
        method, body = ("GET", {}) if call.body is None else ("POST", {"json": call.body})
        url = f"{s.url.rstrip('/')}{call.path}"
        return {"method": method, "url": url, "params": params, "headers": headers, **body}

    def _key(self) -> str:
        key = os.environ.get(self.service.key_variable, "") if self.service.key_variable else ""
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise RemoteRefused(
                f"{self.service.place}: expected a key of plain letters, digits and signs in the environment variable "
                f"{self.service.key_variable}, found others, e.g. a blank or a line break; set it again"
            )
        return key

    async def _content(self, reply: httpx.Response) -> bytes:
        content = bytearray()
        async for part in reply.aiter_bytes():
            content += part
            if len(content) > self.service.max_bytes:
                raise RemoteFailure("too_large")
        return bytes(content)

    def _without_key(self, text: str) -> str:
        key = self._key()
        return text.replace(key, "***") if key else text  # servers quote keys

    def _refusal(self, failure: RemoteFailure) -> RemoteRefused:
        s = self.service
        found = ": ".join([*([f"HTTP {failure.status}"] if failure.status else []), *filter(None, [failure.detail])])
        if failure.status in KEY and s.key_variable:
            state = "one that is refused" if os.environ.get(s.key_variable) else "none"
            return RemoteRefused(
                f"{s.place}: expected a key in the environment variable {s.key_variable}, found {state} ({found}); set "
                f"it with `export {s.key_variable}=...` and start again"
            )
        advice = "mend the account and start again" if failure.status == CREDIT or failure.detail else s.advice
        return RemoteRefused(f"{s.place}: expected {s.offers}, found {found}; {advice}")


def _failure(reply: httpx.Response, content: bytes, call: Call[Any]) -> RemoteFailure:
    """Return the failure of a reply that is no success."""
    made = call.explain(reply.status_code, content) or RemoteFailure(kind_of(reply.status_code))
    wait = seconds_to_wait(reply.headers.get("retry-after", ""))
    return RemoteFailure(made.kind, reply.status_code, made.detail, wait)
