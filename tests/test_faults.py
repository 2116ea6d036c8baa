"""The fault run: whatever the server does, every question ends, nothing paid is lost, nothing is paid twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable

import pytest
from fault_server import FAULTS, FaultServer

from zerosearch.errors import RetrieverError
from zerosearch.ledger import Ledger
from zerosearch.remote import FAILURES
from zerosearch.retrievers import recorded
from zerosearch.retrievers.answers import key_of
from zerosearch.retrievers.base import FailureLimit, ReplayableRetriever
from zerosearch.retrievers.cache import ReplayCache
from zerosearch.retrievers.serpapi import SerpApiRetriever
from zerosearch.retrievers.wikipedia import WikipediaRetriever
from zerosearch.schema import Question, Retrieval, SearchRequest

# An honest answer takes a few milliseconds: a second and a half is enough on a busy machine, too.
PATIENCE: dict[str, Any] = {
    "timeout_seconds": 1.5, "attempts": 4, "deadline_seconds": 10.0, "wait_seconds": 0.01, "workers": 8,
}
ENGINES: dict[str, Callable[..., ReplayableRetriever]] = {
    "serpapi": lambda url, **patience: SerpApiRetriever(3, url=url, **patience),
    "wikipedia": lambda url, **patience: WikipediaRetriever(url, 3, "faulty", batch=2, **patience),
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SERPAPI_API_KEY", "canary4711key")


def requests(n: int) -> list[SearchRequest]:
    return [SearchRequest(f"query {i}", Question(f"nq/{i}", "nq", f"question {i}", ("golden",))) for i in range(n)]


def opened(name: str, url: str, folder: Path, **patience: Any) -> ReplayCache:
    """Return an engine with its record and its ledger in a folder."""
    engine = ENGINES[name](url, **(PATIENCE | patience))
    return recorded(engine, folder / "record", ledger=Ledger(folder / "ledger.jsonl", "01"))


def paid_in_ledger(folder: Path) -> list[str]:
    path = folder / "ledger.jsonl"
    events = map(json.loads, path.read_text().splitlines() if path.exists() else [])
    return [event["unit"] for event in events if event["paid"]]


def check(found: list[Retrieval], asked: list[SearchRequest]) -> Counter[str]:
    """Every question ended: with its own answer, or with a typed failure; return these by kind."""
    assert [r.request for r in found] == asked
    for r in found:
        assert (r.error is None) or (not r.passages and r.error.partition(" ")[0] in FAILURES), r.error
        assert all(r.request.query in p.text for p in r.passages)
    return Counter(r.error.partition(" ")[0] for r in found if r.error)


def check_bill(server: FaultServer, engine: ReplayCache, folder: Path) -> None:
    """What was billed, what is on record and what stands in the ledger: the same, each once."""
    assert set(server.sent.values()) <= {1}
    on_record = [answer.query for answer in engine.answers]
    assert sorted(on_record) == sorted(server.billed)
    expected = [f"answer {key_of(engine.identity, query)[:32]}" for query in server.billed] if engine.bills else []
    assert sorted(paid_in_ledger(folder)) == sorted(expected)


@pytest.mark.parametrize(("name", "rate"), [("serpapi", 0.25), ("serpapi", 0.5), ("wikipedia", 0.5)])
def test_every_question_ends_and_the_bill_is_right(tmp_path: Path, name: str, rate: float) -> None:
    """Then the same questions again: what was answered is replayed, and only failures are asked for."""
    asked = requests(48)
    with FaultServer(rate) as server:
        engine = opened(name, server.url, tmp_path)
        found = engine.search(asked)
        failed = check(found, asked)
        check_bill(server, engine, tmp_path)
        assert len(engine) == len(asked) - failed.total() == engine.n_fresh - failed.total()
        assert max(server.came.values()) <= PATIENCE["attempts"] and set(server.faults) <= set(FAULTS)
        server.rate = 0.0
        again = engine.search(asked)
        assert check(again, asked) == Counter()
        assert [r.cached for r in again] == [r.error is None for r in found]
        check_bill(server, engine, tmp_path)
    assert server.faults.total() > rate * len(server.came) / 2 and len(engine) == len(asked)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_alone(tmp_path: Path, fault: str) -> None:
    """A server that never does anything else: a typed failure after all attempts, or an answer without passages."""
    with FaultServer(1.0, faults=(fault,)) as server:
        engine = opened("serpapi", server.url, tmp_path, **({} if fault == "nothing" else {"timeout_seconds": 0.3}))
        asked = requests(3)
        failed = check(engine.search(asked), asked)
        check_bill(server, engine, tmp_path)
        attempts = set(server.came.values())
    kinds = {
        "hang": "timeout", "trickle": "deadline", "reset": "connection", "truncated": "malformed", "shape": "malformed",
    }
    assert failed == ({} if fault == "nothing" else {kinds.get(fault, fault): 3})
    expected = 1 if fault == "nothing" else PATIENCE["attempts"]
    hasty = fault in ("hang", "trickle")  # a request may be given up before a busy machine has seen it
    assert attempts == {expected} or (hasty and max(attempts) <= expected)


def test_the_run_stops_when_failures_pass_the_limit(tmp_path: Path) -> None:
    with FaultServer(1.0, faults=("server",)) as server:
        limit = FailureLimit(opened("serpapi", server.url, tmp_path), max_share=0.2, after=10)
        with pytest.raises(RetrieverError, match="at most 20% failed searches, found 12 of 12, 12 of them with"):
            limit.search(requests(12))
        assert limit.counts() == "serpapi: 12 fresh, 0 cached, 0 paid, 12 failed; 12 server (HTTP 500)"


def start(url: str, folder: Path, n: int) -> subprocess.Popen[str]:
    """Start a process that searches for n questions, eight at a time."""
    code = (
        "import sys; from pathlib import Path; from test_faults import *\n"
        "engine = opened('serpapi', sys.argv[1], Path(sys.argv[2]))\n"
        "asked = requests(int(sys.argv[3]))\n"
        "for start in range(0, len(asked), 8): engine.search(asked[start : start + 8])\n"
    )
    environment = {**os.environ, "PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])}
    return subprocess.Popen([sys.executable, "-c", code, url, str(folder), str(n)], env=environment, text=True)


def test_killed_in_the_middle_and_started_again_nothing_is_billed_twice(tmp_path: Path) -> None:
    """What had arrived is never asked for again; only what the wire held at that moment may come twice."""
    n = 64
    with FaultServer(0.3, faults=("busy", "server", "truncated", "shape", "reset", "nothing")) as server:
        process = start(server.url, tmp_path, n)
        while server.sent.total() < n // 2 and process.poll() is None:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -9
        kept = {answer.query for answer in opened("serpapi", server.url, tmp_path).answers}
        asked_before = Counter(server.came)
        assert start(server.url, tmp_path, n).wait() == 0
        assert all(server.came[query] == asked_before[query] for query in kept) and len(kept) >= n // 2 - 8
        twice = {query for query, times in server.sent.items() if times > 1}
        assert len(twice) <= PATIENCE["workers"] and not twice & kept and set(server.billed.values()) == {1}
        engine, server.rate = opened("serpapi", server.url, tmp_path), 0.0
        assert check(engine.search(requests(n)), requests(n)) == Counter()
        expected = sorted(f"answer {key_of(engine.identity, query)[:32]}" for query in server.billed)
        assert sorted(paid_in_ledger(tmp_path)) == expected
        assert len(server.billed) == len(engine) == n
