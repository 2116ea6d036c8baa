"""Record and replay: nothing is asked twice, nothing is lost, nothing is replayed for another engine."""

from __future__ import annotations

import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zerosearch import artifacts
from zerosearch.errors import BadInput, DiskProblem, MissingInput
from zerosearch.ledger import Ledger
from zerosearch.retrievers import cache as commands
from zerosearch.retrievers import EngineOptions, open_engine, recorded
from zerosearch.retrievers.answer_files import export, import_file
from zerosearch.retrievers.answers import Answer, Answers, key_of, normalised
from zerosearch.retrievers.base import failure
from zerosearch.retrievers.cache import NotRecorded, ReplayCache
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest


class LocalEngine:
    """An engine that counts what it is asked; ``flaky`` fails the first time, ``broken`` always."""

    name = "local"

    def __init__(self, identity: str = "local k=2", stop_after: int = 10**9):
        self.identity, self.asked, self.stop_after = identity, [], stop_after

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        return [self.answer(request) for request in requests]

    def answer(self, request: SearchRequest) -> Retrieval:
        if len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        known = request.query in self.asked
        self.asked.append(request.query)
        if request.query == "broken" or (request.query == "flaky" and not known):
            return failure(request, self.name, "timeout")
        passage = Passage(f"{request.query}-1", "Título", f"about {request.query}\u2028", {"rank": 1})
        return Retrieval(request, (passage,), self.name, wall_seconds=0.5)


class PayingEngine(LocalEngine):
    """The same from afar: answers come one by one, and each of them is billed."""

    name = "serpapi"

    def __init__(self, identity: str = "serpapi k=2", stop_after: int = 10**9):
        super().__init__(identity, stop_after)

    def search_each(
        self, requests: Sequence[SearchRequest], keep: Callable[[int, Retrieval], object]
    ) -> list[Retrieval]:
        made = []
        for row, request in enumerate(requests):
            made.append(self.answer(request))
            keep(row, made[-1])
        return made


ENGINES = pytest.mark.parametrize("engine_class", [LocalEngine, PayingEngine])


def ask(query: str, i: int = 0) -> SearchRequest:
    return SearchRequest(query, Question(f"nq/{i}", "nq", f"question {i}", (f"golden {i}",)), sample=i)


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start Python with this file's names."""
    environment = {**os.environ, "PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", f"import sys, os, time\nfrom test_replay_cache import *\n{code}"]
    return subprocess.Popen([*command, *map(str, arguments)], env=environment, stdout=subprocess.PIPE, text=True)


@ENGINES
def test_the_second_time_is_replayed(tmp_path: Path, engine_class: type[LocalEngine]) -> None:
    engine = engine_class()
    cache = ReplayCache(engine, tmp_path / "deep" / "record")
    first, second = (cache.search([ask("amber", i), ask("birch", i)]) for i in (1, 2))
    assert engine.asked == ["amber", "birch"] and (cache.n_fresh, cache.n_cached) == (2, 2)
    assert [r.cached for r in first] == [False] * 2 and [r.cached for r in second] == [True] * 2
    assert [r.passages for r in first] == [r.passages for r in second]
    assert [r.request.question.id for r in second] == ["nq/2"] * 2 and second[0].source == engine.name
    assert (first[0].wall_seconds, second[0].wall_seconds) == (0.5, 0.0)
    assert cache.n_paid == (2 if engine_class is PayingEngine else 0)
    assert cache.counts() == f"{engine.name}: 2 fresh, 2 cached, {cache.n_paid} paid"


def test_another_process_replays_too(tmp_path: Path) -> None:
    ReplayCache(PayingEngine(), tmp_path / "record").search([ask("amber")])
    later = PayingEngine()
    found = ReplayCache(later, tmp_path / "record").search([ask("amber", 3)])[0]
    assert later.asked == [] and found.cached
    assert found.passages == (Passage("amber-1", "Título", "about amber\u2028", {"rank": 1}),)


def test_answers_are_on_disk_before_they_are_used(tmp_path: Path) -> None:
    """An engine that is cut off in the middle of a batch has lost nothing that was paid before."""
    cache = ReplayCache(PayingEngine(stop_after=3), tmp_path / "record")
    with pytest.raises(KeyboardInterrupt):
        cache.search([ask(query) for query in "abcde"])
    assert [answer.query for answer in Answers(tmp_path / "record")] == ["a", "b", "c"]
    again = PayingEngine()
    assert len(ReplayCache(again, tmp_path / "record").search([ask(query) for query in "abcde"])) == 5
    assert again.asked == ["d", "e"]


def test_between_searches_all_answers_are_in_one_file(tmp_path: Path) -> None:
    """A kernel that is ended with the record open leaves no log beside it, and the file can be copied."""
    cache = ReplayCache(PayingEngine(), tmp_path / "record")
    for queries in ("ab", "bc"):
        cache.search([ask(query) for query in queries])
        assert len(cache) == ord(queries[1]) - 96
        (file,) = (tmp_path / "record").iterdir()
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    assert list(Answers(tmp_path / "copy")) == list(cache.answers)


def test_a_killed_process_keeps_what_it_paid_for(tmp_path: Path) -> None:
    code = (
        "class Dying(PayingEngine):\n"
        "    def answer(self, request):\n"
        "        if request.query == 'c': os._exit(9)\n"
        "        return super().answer(request)\n"
        "ReplayCache(Dying(), sys.argv[1]).search([ask(q) for q in 'abc'])"
    )
    assert python(code, tmp_path / "record").wait() == 9
    engine = PayingEngine()
    ReplayCache(engine, tmp_path / "record").search([ask(q) for q in "abc"])
    assert engine.asked == ["c"]


@ENGINES
def test_a_query_that_repeats_in_a_batch_is_asked_once(tmp_path: Path, engine_class: type[LocalEngine]) -> None:
    engine = engine_class()
    cache = ReplayCache(engine, tmp_path / "record", write_every=1)
    same = ask("amber", 0)
    found = cache.search([same, ask("birch", 1), ask("amber", 2), same])
    assert engine.asked == ["amber", "birch"]
    assert [r.cached for r in found] == [False, False, True, True]
    assert [r.request.question.id for r in found] == ["nq/0", "nq/1", "nq/2", "nq/0"]


@ENGINES
def test_failures_are_returned_and_asked_again(tmp_path: Path, engine_class: type[LocalEngine]) -> None:
    cache = ReplayCache(engine_class(), tmp_path / "record")
    first = cache.search([ask("flaky", 0), ask("broken", 1), ask("flaky", 2)])
    assert [r.error for r in first] == ["timeout"] * 3 and not any(r.cached for r in first)
    assert [r.request.question.id for r in first] == ["nq/0", "nq/1", "nq/2"] and cache.n_paid == 0
    second = cache.search([ask("flaky", 3), ask("broken", 4)])
    assert [r.error for r in second] == [None, "timeout"] and len(cache) == 1


def test_engines_do_not_answer_for_each_other(tmp_path: Path) -> None:
    ReplayCache(PayingEngine("serpapi k=2"), tmp_path / "record").search([ask("amber")])
    other = PayingEngine("serpapi k=3")
    assert not ReplayCache(other, tmp_path / "record").search([ask("amber")])[0].cached and other.asked == ["amber"]


def test_bm25_through_the_door(tmp_path: Path) -> None:
    passages = [Passage("a", "", "amber"), Passage("b", "", "amber birch")]
    found = [open_engine("bm25", passages, 2, tmp_path / "bm25").search([ask("amber")])[0] for _ in range(2)]
    assert [r.cached for r in found] == [False, True] and found[0].passages == found[1].passages == tuple(passages)
    other = open_engine("bm25", passages[:1], 2, tmp_path / "bm25").search([ask("amber")])[0]
    assert not other.cached and len(other.passages) == 1  # another corpus is another engine


@given(st.lists(st.tuples(st.text(max_size=4), st.integers(0, 9)), max_size=12), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=10, deadline=None)
def test_rows_stay_together_and_each_query_is_asked_once(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]], size: int, write_every: int
) -> None:
    engine = LocalEngine()
    cache = ReplayCache(engine, tmp_path_factory.mktemp("cache"), write_every=write_every)
    requests = [ask(query, i) for query, i in rows]
    found = [r for s in range(0, len(requests), size) for r in cache.search(requests[s : s + size])]
    for request, retrieval in zip(requests, found, strict=True):
        assert retrieval.request is request
        assert retrieval.passages[0].id == f"{normalised(request.query, engine.identity)}-1"
    different = {normalised(query, engine.identity) for query, _ in rows}
    assert sorted(engine.asked) == sorted(different)
    assert (cache.n_fresh, cache.n_cached) == (len(engine.asked), len(rows) - len(engine.asked))


# -- which queries are the same -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "same"),
    [
        ("  who   wrote\tit \n", "who wrote it"), ("Cafe\u0301", "Caf\u00e9"), ("a\u00a0b", "a b"),
        ("\ud800 x", "\ud800 x"),
    ],
)
def test_blanks_and_composition_make_no_difference(tmp_path: Path, query: str, same: str) -> None:
    engine = PayingEngine()
    found = ReplayCache(engine, tmp_path).search([ask(query), ask(same)])
    assert engine.asked == [same] and [r.cached for r in found] == [False, True] and found[0].request.query == query


def test_case_makes_a_difference_where_the_engine_makes_one() -> None:
    assert normalised("Who wrote IT", "bm25 k1=0.9") == "who wrote it"
    assert normalised("Who wrote IT", "serpapi k=5") == "Who wrote IT"
    assert key_of("bm25 k1=0.9", "AMBER") == key_of("bm25 k1=0.9", "amber")
    assert key_of("serpapi", "AMBER") != key_of("serpapi", "amber") != key_of("wikipedia", "amber")


# -- replay ---------------------------------------------------------------------------------------------


def test_replay_asks_nobody_and_refuses_what_is_not_there(tmp_path: Path) -> None:
    ReplayCache(PayingEngine(), tmp_path).search([ask("amber"), ask("birch")])
    engine = PayingEngine(stop_after=0)
    cache = ReplayCache(engine, tmp_path, mode="replay")
    assert [r.cached for r in cache.search([ask("birch"), ask("amber")])] == [True, True]
    wanted = r"serpapi: expected a recorded answer to 'cedar' and 1 more \(mode: replay\).*retriever_mode=live.*import"
    with pytest.raises(NotRecorded, match=wanted):
        cache.search([ask("amber"), ask("cedar"), ask("dolm"), ask("cedar")])


def test_the_door_replays_remote_engines_without_key_and_network(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SERPAPI_API_KEY", raising=False)
    replay = EngineOptions(corpus="wiki-18", mode="replay")
    for name, identity in (
        ("serpapi", "serpapi k=3 gl=us hl=en num=10"), ("wikipedia", "wikipedia corpus=wiki-18 k=3"),
    ):
        answer = Answer(identity, "amber", (Passage("1", "", "amber"),))
        Answers(artifacts.answers_dir()).add([answer])
        engine = open_engine(name, (), 3, options=replay)
        assert engine.search([ask("amber")])[0].passages == answer.passages
        with pytest.raises(NotRecorded, match="'birch'"):
            engine.search([ask("birch")])


# -- threads and processes --------------------------------------------------------------------------------


class SlowEngine(PayingEngine):
    """Takes its time with every answer."""

    def answer(self, request: SearchRequest) -> Retrieval:
        time.sleep(0.03)
        return super().answer(request)


def test_threads_share_what_is_being_asked(tmp_path: Path) -> None:
    engine = SlowEngine()
    cache = ReplayCache(engine, tmp_path)
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(lambda i: cache.search([ask(q, i) for q in "abcdef"]), range(4)))
    assert sorted(engine.asked) == list("abcdef") and (cache.n_fresh, cache.n_cached, cache.n_paid) == (6, 18, 6)
    assert all([r.passages[0].id for r in batch] == [f"{q}-1" for q in "abcdef"] for batch in batches)


def test_processes_share_what_is_being_asked(tmp_path: Path) -> None:
    code = (
        "engine = SlowEngine(); cache = ReplayCache(engine, sys.argv[1])\n"
        "cache.search([ask(q) for q in sys.argv[2]])\n"
        "print(json.dumps([engine.asked, cache.n_fresh, cache.n_cached]))"
    )
    running = [python(code, tmp_path, queries) for queries in ("abcdef", "fedcba", "cdabef")]
    made = [json.loads(process.communicate()[0]) for process in running]
    assert sorted(query for asked, _, _ in made for query in asked) == list("abcdef")
    assert sum(fresh for _, fresh, _ in made) == 6 and sum(cached for _, _, cached in made) == 12


def test_a_claim_of_a_process_that_was_killed_is_void(tmp_path: Path) -> None:
    code = "Answers(sys.argv[1]).claim([key_of('serpapi k=2', 'amber')]); print('claimed', flush=True); time.sleep(60)"
    process = python(code, tmp_path)
    assert process.stdout is not None and process.stdout.readline() == "claimed\n"
    answers, key = Answers(tmp_path), key_of("serpapi k=2", "amber")
    assert answers.claim([key]) == []  # it lives
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert answers.claim([key]) == [key]
    assert answers.claim([key]) == []  # another thread of this process has it now
    answers.release([key])
    assert not ReplayCache(PayingEngine(), tmp_path).search([ask("amber")])[0].cached


def test_a_failure_of_one_is_asked_again_by_who_waited(tmp_path: Path) -> None:
    """Two threads want a query that fails the first time: the second asks for itself."""
    engine, started = PayingEngine(), threading.Barrier(2)
    cache = ReplayCache(engine, tmp_path)

    def search(i: int) -> Retrieval:
        started.wait()
        return cache.search([ask("flaky", i)])[0]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(search, range(2)))
    assert sorted(str(r.error) for r in found) == ["None", "timeout"] and engine.asked == ["flaky"] * 2


# -- what is paid -----------------------------------------------------------------------------------------


def paid(ledger: Ledger) -> list[str]:
    events = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert all(event["paid"] == 1 and event["fresh"] == event["cached"] == 0 for event in events)
    return [event["unit"] for event in events]


def test_the_ledger_is_told_of_every_paid_answer(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", "01")
    cache = recorded(PayingEngine(), tmp_path / "record", ledger=ledger)
    cache.search([ask(query) for query in ("amber", "broken", "amber", "birch")])
    expected = [f"answer {key_of('serpapi k=2', query)[:32]}" for query in ("amber", "birch")]
    assert paid(ledger) == expected and cache.answers.untold(str(ledger.path)) == []
    recorded(PayingEngine(), tmp_path / "record", ledger=ledger).search([ask("amber")])
    assert paid(ledger) == expected
    recorded(LocalEngine(), tmp_path / "record", ledger=ledger).search([ask("amber")])
    assert paid(ledger) == expected  # nobody bills for it


@pytest.mark.parametrize("moment", ["before the event", "after the event"])
def test_killed_between_answer_and_ledger_it_is_told_once(tmp_path: Path, moment: str) -> None:
    code = (
        "ledger = Ledger(Path(sys.argv[1]) / 'ledger.jsonl', '01')\n"
        "event = ledger.event\n"
        "def dying(*args, **fields):\n"
        "    if sys.argv[2] == 'after the event': event(*args, **fields)\n"
        "    os._exit(9)\n"
        "ledger.event = dying\n"
        "recorded(PayingEngine(), Path(sys.argv[1]) / 'record', ledger=ledger).search([ask('amber')])"
    )
    assert python(code, tmp_path, moment).wait() == 9
    ledger, engine = Ledger(tmp_path / "ledger.jsonl", "01"), PayingEngine()
    cache = recorded(engine, tmp_path / "record", ledger=ledger)
    assert len(paid(ledger)) == 1 and cache.search([ask("amber")])[0].cached and engine.asked == []
    recorded(engine, tmp_path / "record", ledger=ledger)
    assert len(paid(ledger)) == 1


# -- damage -------------------------------------------------------------------------------------------------


def spoil(folder: Path, query: str, value: bytes, mode: int = 1) -> None:
    """Overwrite the stored answer to a query."""
    with sqlite3.connect(folder / "cache.db") as database:
        rows = database.execute("SELECT rowid, value FROM Cache").fetchall()
        (row,) = [row for row, found in rows if json.loads(zlib.decompress(found)).get("query") == query]
        database.execute("UPDATE Cache SET value = ?, mode = ? WHERE rowid = ?", (value, mode, row))
    database.close()


@pytest.mark.parametrize(
    ("value", "mode"),
    [(b"oops", 1), (b"", 1), (zlib.compress(b'{"engine": "x"}'), 1),
     (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x09touch OWN\x85R.", 4)],
)
def test_a_damaged_answer_is_named_and_can_be_taken_out(tmp_path: Path, value: bytes, mode: int) -> None:
    ReplayCache(PayingEngine(), tmp_path).search([ask("amber"), ask("birch")])
    spoil(tmp_path, "birch", value, mode)
    cache = ReplayCache(PayingEngine(), tmp_path)
    assert cache.search([ask("amber")])[0].cached
    with pytest.raises(BadInput, match=r"cache.db: expected recorded answers, found damage.*cache check"):
        cache.search([ask("birch")])
    assert commands.main(["check", str(tmp_path)]) == 0 and not Path("OWN").exists()
    engine = PayingEngine()
    assert [r.cached for r in ReplayCache(engine, tmp_path).search([ask("amber"), ask("birch")])] == [True, False]


def test_a_database_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache.db").write_bytes(b"oops" * 4096)
    with pytest.raises(BadInput, match=r"cache.db: expected recorded answers, found damage.*restore"):
        ReplayCache(PayingEngine(), tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskProblem, match="expected a folder"):
        Answers(tmp_path / "file")


# -- one file for reviewers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.jsonl.gz"])
def test_exported_and_imported_again(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    cache = ReplayCache(PayingEngine(), tmp_path / "record")
    cache.search([ask(query) for query in ("birch", "amber", "\ud800")])
    file = tmp_path / name
    assert commands.main(["export", str(tmp_path / "record"), str(file)]) == 0
    assert commands.main(["import", str(file), str(tmp_path / "other")]) == 0
    shown = capsys.readouterr().out
    assert f"3 answers written to {file}" in shown and "3 of them new" in shown
    assert list(Answers(tmp_path / "other")) == list(cache.answers)
    engine = PayingEngine(stop_after=0)
    assert ReplayCache(engine, tmp_path / "other").search([ask("amber")])[0].cached
    again = tmp_path / f"again-{name}"
    assert export(Answers(tmp_path / "other"), again) == 3 and again.read_bytes() == file.read_bytes()
    assert import_file(file, Answers(tmp_path / "record")) == (0, 3)  # those already there stay


def test_the_folder_of_all_runs_is_meant_where_none_is_named(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(["show"]) == 2 and "expected a folder, found none" in capsys.readouterr().err
    answer = Answer("serpapi k=5", "amber", (Passage("1", "", "x"),), paid=True)
    export([answer], tmp_path / "a.jsonl")
    assert commands.main(["import", str(tmp_path / "a.jsonl")]) == 0
    assert list(Answers(artifacts.answers_dir())) == [answer]
    capsys.readouterr()
    assert commands.main(["show"]) == 0 and capsys.readouterr().out == "       1  serpapi k=5 (paid)\n"


def test_a_file_that_is_not_whole_adds_nothing(tmp_path: Path) -> None:
    answers = [Answer("serpapi k=5", query, (Passage("1", "", "x"),)) for query in "abc"]
    export(answers, tmp_path / "a.jsonl")
    export(answers, tmp_path / "a.jsonl.gz")
    whole, zipped = (tmp_path / "a.jsonl").read_bytes(), (tmp_path / "a.jsonl.gz").read_bytes()
    lines = whole.splitlines(keepends=True)
    damaged = {
        "short.jsonl": whole[:-1], "shorter.jsonl": b"".join(lines[:-1]),
        "other.jsonl": whole.replace(b'"x"', b'"y"', 1),
        "torn.jsonl": whole[:-20], "newer.jsonl": whole.replace(b'"version": 1', b'"version": 2'),
        "list.jsonl": b"[1]\n", "text.jsonl": b"oops\n", "short.jsonl.gz": zipped[:-9], "none.jsonl.gz": whole,
        "long.jsonl": b'{"a": "' + b"x" * 2**24 + b'"}\n',
    }
    store = Answers(tmp_path / "record")
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match=name):
            import_file(tmp_path / name, store)
    with pytest.raises(MissingInput, match="found none at"):
        import_file(tmp_path / "absent.jsonl", store)
    assert len(store) == 0


# -- records of earlier versions --------------------------------------------------------------------------------


def old_record(path: Path, queries: Sequence[str]) -> bytes:
    rows = [
        {"key": "0" * 64, "engine": "serpapi k=2", "query": query,
         "passages": [{"id": f"{query}-1", "title": "", "text": "old", "metadata": {}}]} for query in queries
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.read_bytes()


@pytest.mark.parametrize("cut", [0, 1, 20])
def test_an_earlier_record_is_taken_over_and_its_torn_last_line_dropped(tmp_path: Path, cut: int) -> None:
    whole = old_record(tmp_path / "serpapi.jsonl", [" amber ", "birch"])
    if cut:
        (tmp_path / "serpapi.jsonl").write_bytes(whole[:-cut])
    engine = PayingEngine()
    found = ReplayCache(engine, tmp_path / "serpapi").search([ask("amber"), ask("birch")])
    assert [r.cached for r in found] == [True, not cut] and found[0].passages[0].text == "old"
    assert engine.asked == (["birch"] if cut else [])
    assert len(ReplayCache(engine, tmp_path / "serpapi")) == 2 and not (tmp_path / "serpapi.jsonl").exists()


def test_a_damaged_line_of_an_earlier_record_is_named(tmp_path: Path) -> None:
    lines = old_record(tmp_path / "record.jsonl", ["amber", "birch"]).splitlines(keepends=True)
    (tmp_path / "record.jsonl").write_bytes(lines[0] + b"{oops}\n" + lines[1])
    with pytest.raises(BadInput, match=r"record.jsonl:2: expected a recorded answer.*asked again"):
        ReplayCache(PayingEngine(), tmp_path / "record")
    assert len(Answers(tmp_path / "record")) == 0 and (tmp_path / "record.jsonl").is_file()


def test_a_zip_bomb_is_read_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(b"0" * (2**24 + 10)))
    with pytest.raises(BadInput, match="found a longer one"):
        import_file(tmp_path / "bomb.jsonl.gz", Answers(tmp_path / "record"))
