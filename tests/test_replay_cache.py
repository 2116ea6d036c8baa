"""Record and replay: nothing is asked twice, nothing is lost, nothing is replayed for another engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zerosearch.errors import BadInput
from zerosearch.retrievers import open_engine
from zerosearch.retrievers.base import failure
from zerosearch.retrievers.cache import ReplayCache
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest


class PayingEngine:
    """An engine that counts what it is asked; ``flaky`` fails the first time, ``broken`` always."""

    name = "serpapi"

    def __init__(self, identity: str = "serpapi k=2", stop_after: int = 10**9):
        self.identity, self.asked, self.stop_after = identity, [], stop_after

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        found = []
        for request in requests:
            if len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            known = request.query in self.asked
            self.asked.append(request.query)
            if request.query == "broken" or (request.query == "flaky" and not known):
                found.append(failure(request, self.name, "timeout"))
            else:
                passage = Passage(f"{request.query}-1", "Título", f"about {request.query}\u2028", {"rank": 1})
                found.append(Retrieval(request, (passage,), self.name, wall_seconds=0.5))
        return found


def ask(query: str, i: int = 0) -> SearchRequest:
    return SearchRequest(query, Question(f"nq/{i}", "nq", f"question {i}", (f"golden {i}",)), sample=i)


def test_the_second_time_is_replayed(tmp_path: Path) -> None:
    engine = PayingEngine()
    cache = ReplayCache(engine, tmp_path / "deep" / "record.jsonl")
    first, second = (cache.search([ask("amber", i), ask("birch", i)]) for i in (1, 2))
    assert engine.asked == ["amber", "birch"] and (cache.n_fresh, cache.n_cached) == (2, 2)
    assert [r.cached for r in first] == [False] * 2 and [r.cached for r in second] == [True] * 2
    assert [r.passages for r in first] == [r.passages for r in second]
    assert [r.request.question.id for r in second] == ["nq/2"] * 2 and second[0].source == "serpapi"
    assert (first[0].wall_seconds, second[0].wall_seconds) == (0.5, 0.0)


def test_another_process_replays_too(tmp_path: Path) -> None:
    ReplayCache(PayingEngine(), tmp_path / "record.jsonl").search([ask("amber")])
    later = PayingEngine()
    found = ReplayCache(later, tmp_path / "record.jsonl").search([ask("amber", 3)])[0]
    assert later.asked == [] and found.cached
    assert found.passages == (Passage("amber-1", "Título", "about amber\u2028", {"rank": 1}),)


def test_answers_are_on_disk_before_they_are_used(tmp_path: Path) -> None:
    """An engine that is cut off in the middle of a batch has lost nothing that was paid before."""
    cache = ReplayCache(PayingEngine(stop_after=3), tmp_path / "record.jsonl", write_every=1)
    with pytest.raises(KeyboardInterrupt):
        cache.search([ask(query) for query in "abcde"])
    lines = (tmp_path / "record.jsonl").read_text().splitlines()
    assert [json.loads(line)["query"] for line in lines] == ["a", "b", "c"]
    again = PayingEngine()
    assert len(ReplayCache(again, tmp_path / "record.jsonl").search([ask(query) for query in "abcde"])) == 5
    assert again.asked == ["d", "e"]


def test_a_killed_process_keeps_what_it_paid_for(tmp_path: Path) -> None:
    code = (
        "import os,sys\nfrom test_replay_cache import *\n"
        "class Dying(PayingEngine):\n"
        "    def search(self, requests):\n"
        "        if requests[0].query == 'c': os._exit(9)\n"
        "        return super().search(requests)\n"
        "ReplayCache(Dying(), sys.argv[1], write_every=1).search([ask(q) for q in 'abc'])"
    )
    paths = ":".join([str(Path(__file__).parent), *sys.path])
    path = tmp_path / "record.jsonl"
    done = subprocess.run([sys.executable, "-c", code, str(path)], env={"PYTHONPATH": paths, "PATH": "/usr/bin:/bin"})
    engine = PayingEngine()
    ReplayCache(engine, path).search([ask(q) for q in "abc"])
    assert done.returncode == 9 and engine.asked == ["c"]


def test_a_query_that_repeats_in_a_batch_is_asked_once(tmp_path: Path) -> None:
    engine = PayingEngine()
    cache = ReplayCache(engine, tmp_path / "record.jsonl", write_every=1)
    same = ask("amber", 0)
    found = cache.search([same, ask("birch", 1), ask("amber", 2), same])
    assert engine.asked == ["amber", "birch"]
    assert [r.cached for r in found] == [False, False, True, True]
    assert [r.request.question.id for r in found] == ["nq/0", "nq/1", "nq/2", "nq/0"]


def test_failures_are_returned_and_asked_again(tmp_path: Path) -> None:
    engine = PayingEngine()
    cache = ReplayCache(engine, tmp_path / "record.jsonl")
    first = cache.search([ask("flaky", 0), ask("broken", 1), ask("flaky", 2)])
    assert [r.error for r in first] == ["timeout"] * 3 and not any(r.cached for r in first)
    assert [r.request.question.id for r in first] == ["nq/0", "nq/1", "nq/2"]
    second = cache.search([ask("flaky", 3), ask("broken", 4)])
    assert [r.error for r in second] == [None, "timeout"] and len(cache) == 1


@pytest.mark.parametrize("cut", [1, 20, -1])
def test_a_torn_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "record.jsonl"
    ReplayCache(PayingEngine(), path).search([ask("amber"), ask("birch")])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[: first + cut] if cut > 0 else whole[:cut])  # -1: only the newline is missing
    engine = PayingEngine()
    cache = ReplayCache(engine, path)
    assert len(cache) == 1 and [r.cached for r in cache.search([ask("amber"), ask("birch")])] == [True, False]
    assert engine.asked == ["birch"] and path.read_bytes() == whole


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    ReplayCache(PayingEngine(), path).search([ask("amber"), ask("birch")])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{oops}\n" + lines[1])
    with pytest.raises(BadInput, match=r"record.jsonl:2: expected a recorded answer.*asked again"):
        ReplayCache(PayingEngine(), path)


def test_engines_do_not_answer_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    ReplayCache(PayingEngine("serpapi k=2"), path).search([ask("amber")])
    other = PayingEngine("serpapi k=3")
    assert not ReplayCache(other, path).search([ask("amber")])[0].cached and other.asked == ["amber"]


def test_two_open_caches_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    one, two = ReplayCache(PayingEngine(), path), ReplayCache(PayingEngine(), path)
    one.search([ask("amber")])
    two.search([ask("birch")])
    assert len(two) == 2 and two.search([ask("amber")])[0].cached
    assert len(path.read_text().splitlines()) == 2


def test_bm25_through_the_door(tmp_path: Path) -> None:
    passages = [Passage("a", "", "amber"), Passage("b", "", "amber birch")]
    found = [open_engine("bm25", passages, 2, tmp_path / "bm25.jsonl").search([ask("amber")])[0] for _ in range(2)]
    assert [r.cached for r in found] == [False, True] and found[0].passages == found[1].passages == tuple(passages)
    other = open_engine("bm25", passages[:1], 2, tmp_path / "bm25.jsonl").search([ask("amber")])[0]
    assert not other.cached and len(other.passages) == 1  # another corpus is another engine


@given(st.lists(st.tuples(st.text(max_size=4), st.integers(0, 9)), max_size=12), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_rows_stay_together_and_each_query_is_asked_once(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]], size: int, write_every: int
) -> None:
    engine = PayingEngine()
    cache = ReplayCache(engine, tmp_path_factory.mktemp("cache") / "record.jsonl", write_every)
    requests = [ask(query, i) for query, i in rows]
    found = [r for s in range(0, len(requests), size) for r in cache.search(requests[s : s + size])]
    for request, retrieval in zip(requests, found, strict=True):
        assert retrieval.request is request and retrieval.passages[0].id == f"{request.query}-1"
    assert sorted(engine.asked) == sorted({query for query, _ in rows})
    assert (cache.n_fresh, cache.n_cached) == (len(engine.asked), len(rows) - len(engine.asked))
