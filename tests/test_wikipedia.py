"""Search-R1's protocol: our client and our server, together and each against hand-written messages."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Iterator

import httpx
import pytest
from local_server import Asked, LocalServer, Reply

from zerosearch.errors import ConfigError
from zerosearch.questions import write_corpus
from zerosearch.remote import RemoteFailure, RemoteRefused
from zerosearch.retrievers import EngineOptions, open_engine, server as server_module
from zerosearch.retrievers.bm25 import BM25Retriever
from zerosearch.retrievers.wikipedia import WikipediaRetriever, read_reply
from zerosearch.schema import Passage, Question, SearchRequest

CORPUS = [
    Passage("a", "Silver Harbor", "A film directed by Falk."), Passage("b", "", "amber\nbirch"),
    Passage("c", 'The "Amber" Room', "A room made of amber."), Passage("d", "Birch", "A tree."),
]


def ask(query: str) -> SearchRequest:
    return SearchRequest(query, Question("nq/1", "nq", "question", ("golden",)))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def start(folder: Path, *options: object) -> tuple[subprocess.Popen[str], str]:
    """Start our server over CORPUS; return the process and its address."""
    corpus = write_corpus(folder / "corpus.jsonl", CORPUS)
    command = [sys.executable, "-m", "zerosearch.retrievers.server", "--corpus", corpus, "--port", 0,
               "--cache", folder / "cache", *options]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("listening on "):
            return process, line.split()[-1]
    raise AssertionError(process.communicate())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of our server."""
    process, url = start(tmp_path_factory.mktemp("server"), "--topk", 2)
    yield url
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


# -- our server, hand-written requests ------------------------------------------------------------------


def post(url: str, content: Any) -> tuple[int, Any]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    reply = httpx.post(f"{url}/retrieve", content=body, timeout=20, headers={"Content-Type": "application/json"})
    return reply.status_code, reply.json()


def test_a_published_request_gets_a_published_reply(running: str) -> None:
    status, found = post(running, {"queries": ["amber room", "who directed it"], "topk": 3, "return_scores": True})
    assert status == 200 and set(found) == {"result"} and [len(documents) for documents in found["result"]] == [2, 1]
    first = found["result"][0]
    assert set(first[0]) == {"document", "score"} and set(first[0]["document"]) == {"id", "contents"}
    assert first[0]["document"] == {"id": "c", "contents": '"The "Amber" Room"\nA room made of amber.'}
    assert first[1]["document"] == {"id": "b", "contents": '""\namber\nbirch'}
    assert first[0]["score"] > first[1]["score"] > 0
    assert found["result"][1][0]["document"]["id"] == "a"


def test_scores_are_bm25s(running: str) -> None:
    _, found = post(running, {"queries": ["amber amber room"], "topk": 4, "return_scores": True})
    index = BM25Retriever(CORPUS, 4).index
    for entry, place in zip(found["result"][0], index.rank([["amber", "amber", "room"]], 4)[0], strict=True):
        by_hand = sum(float(index.table[index.vocabulary[w], place]) for w in ("amber", "amber", "room"))
        assert entry["score"] == pytest.approx(by_hand, rel=1e-6)


def test_without_scores_documents_stand_alone(running: str) -> None:
    status, found = post(running, {"queries": ["amber", "nothing here"]})
    assert status == 200 and [[d["id"] for d in documents] for documents in found["result"]] == [["c", "b"], []]


def test_the_single_form(running: str) -> None:
    expected = post(running, {"queries": ["amber"], "topk": 1})
    assert post(running, {"query": "amber", "topk": 1}) == post(running, {"queries": "amber", "topk": 1}) == expected
    assert post(running, {"queries": []}) == (200, {"result": []})


def test_health(running: str) -> None:
    found = httpx.get(f"{running}/health", timeout=20)
    assert found.status_code == 200
    assert found.json() == {"status": "ok", "passages": 4, "engine": BM25Retriever(CORPUS, 2).identity}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{oops", "a JSON object"), (b"[1]", "a JSON object"), (b"", "a JSON object"),
        (b"[" * 100_000, "a JSON object"), ({}, "queries"), ({"queries": [1]}, "queries"),
        ({"queries": {"a": 1}}, "queries"), ({"queries": None}, "queries"),
        ({"queries": ["a"], "topk": 0}, "topk"), ({"queries": ["a"], "topk": "3"}, "topk"),
        ({"queries": ["a"], "topk": True}, "topk"), ({"queries": ["a"], "topk": 101}, "topk"),
        ({"queries": ["a"] * 1001}, "at most 1000 queries"), ({"queries": ["a" * 10_001]}, "10000 characters"),
        (b'{"queries": ["\xff"]}', "a JSON object"),
    ],
)
def test_what_cannot_be_answered_is_told_as_json(running: str, content: Any, told: str) -> None:
    status, found = post(running, content)
    assert status == 400 and set(found) == {"error"} and told in found["error"]


def test_too_large_a_request_is_refused_and_the_server_lives_on(running: str) -> None:
    status, found = post(running, {"queries": ["amber"], "padding": "x" * 2**20})
    assert status == 413 and "at most 1048576 bytes" in found["error"]

    def drip() -> Iterator[bytes]:  # without a length: too large only when it has come
        yield from (b"x" * 2**16 for _ in range(40))

    try:
        assert httpx.post(f"{running}/retrieve", content=drip(), timeout=20).status_code == 413
    except httpx.TransportError:
        pass  # closed while we were still sending
    assert post(running, {"queries": ["amber"]})[0] == 200


def test_other_paths_and_methods(running: str) -> None:
    expected = (("GET", "/", 404), ("GET", "/retrieve", 405), ("POST", "/health", 405), ("PUT", "/retrieve", 405))
    for method, path, status in expected:
        found = httpx.request(method, f"{running}{path}", timeout=20)
        assert found.status_code == status and set(found.json()) == {"error"}, path


def test_broken_connections_do_no_harm(running: str) -> None:
    address = ("127.0.0.1", httpx.URL(running).port or 0)
    begun = b"POST /retrieve HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"
    for sent in (b"", begun, b"\x00\xff\r\n\r\n", b"POST /retrieve\r\n"):
        with socket.create_connection(address, 10) as connection:
            connection.sendall(sent)
    assert post(running, {"queries": ["amber"]})[0] == 200


def test_it_ends_when_it_is_asked_to_and_listens_here_only(tmp_path: Path) -> None:
    process, url = start(tmp_path)
    assert url.startswith("http://127.0.0.1:") and post(url, {"queries": ["amber"]})[0] == 200
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_a_request_under_way_is_answered_before_the_end(tmp_path: Path) -> None:
    process, url = start(tmp_path)
    body = json.dumps({"queries": ["amber"]}).encode()
    with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), 20) as connection:
        head = f"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        connection.sendall(head + body[:5])
        assert post(url, {"queries": ["amber"]})[0] == 200  # the beginning of the first has been read by now
        process.send_signal(signal.SIGTERM)
        with pytest.raises(httpx.TransportError):  # nothing new is taken
            while True:
                post(url, {"queries": ["amber"]})
        connection.sendall(body[5:])
        assert connection.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
    assert process.communicate(timeout=20) == ("stopped\n", "") and process.returncode == 0


def test_a_port_that_is_taken_and_a_corpus_that_is_not_there(
    tmp_path: Path, running: str, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", CORPUS)
    port = str(httpx.URL(running).port)
    assert server_module.main(["--corpus", str(corpus), "--port", port, "--cache", str(tmp_path)]) == 2
    assert "choose another with --port" in capsys.readouterr().err
    assert server_module.main(["--corpus", str(tmp_path / "none")]) == 2
    assert "expected a file of JSON lines, found none" in capsys.readouterr().err


# -- our client and our server ----------------------------------------------------------------------------


def test_client_and_server_understand_each_other(running: str) -> None:
    """What comes through the wire is what the engine finds, titles with quotes and texts with line breaks too."""
    queries = ["amber room", "who directed it", "nothing here", "birch", "", "AMBER"]
    here = BM25Retriever(CORPUS, 3).search([ask(q) for q in queries])
    for batch in (1, 4, 8):
        client = WikipediaRetriever(running, 3, batch=batch)
        there = client.search([ask(q) for q in queries])
        assert [r.passages for r in there] == [r.passages for r in here], batch
        assert [r.request.query for r in there] == queries and {r.source for r in there} == {"wikipedia"}


def test_through_the_door_and_on_record(running: str, outputs: Path) -> None:
    for cached in (False, True):
        engine = open_engine("wikipedia", (), 3, options=EngineOptions(url=f"{running}/retrieve", corpus="four"))
        found = engine.search([ask("amber")])[0]
        assert found.cached == cached and found.passages[0].id == "c"
    assert engine.identity == "wikipedia corpus=four k=3"


# -- our client, hand-written servers ---------------------------------------------------------------------


DOCUMENT = {"id": "7", "contents": '"Amber"\nAmber is resin.'}
AMBER = Passage("7", "Amber", "Amber is resin.")


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ([[{"document": DOCUMENT, "score": 1.5}]], AMBER), ([[{"document": DOCUMENT, "score": "1.5"}]], AMBER),
        ([[DOCUMENT]], AMBER), ([DOCUMENT], AMBER), ([{"document": DOCUMENT, "score": 2}], AMBER),
        ([['"Amber"\nAmber is resin.']], Passage("rank-1", "Amber", "Amber is resin.")),
        ([["Amber is resin."]], Passage("rank-1", "", "Amber is resin.")),
        ([[{"id": 7, "title": "Amber", "text": "Amber is resin."}]], AMBER),
        ([[{"document": {"title": "Amber", "content": "Amber is resin."}, "score": 1}]],
         Passage("rank-1", "Amber", "Amber is resin.")),
        ([[{"document": {**DOCUMENT, "title": "\"Amber\"", "text": "Amber is resin."}}]],
         Passage("7", '"Amber"', "Amber is resin.")),
    ],
)
def test_every_published_shape_is_read(result: Any, expected: Passage) -> None:
    assert read_reply({"result": result}, 1, 5) == [(expected,)]


def test_no_more_than_k_and_in_the_order_of_the_server() -> None:
    documents = [{"document": {"id": str(i), "contents": "x"}, "score": -i} for i in (3, 1, 2)]
    assert [p.id for p in read_reply({"result": [documents]}, 1, 2)[0]] == ["3", "1"]
    assert read_reply({"result": []}, 0, 2) == [] and read_reply({"result": [[], []]}, 2, 2) == [(), ()]
    assert read_reply({"result": [[]]}, 1, 2) == [()]


@pytest.mark.parametrize(
    "found", [None, [], "x", {}, {"result": None}, {"result": {}}, {"result": [[], []]}, {"result": []},
              {"result": [[7]]}, {"result": [[{}]]}, {"result": [[{"document": None}]]},
              {"result": [[{"document": {"id": 1}}]]}, {"result": [{"contents": 3}]}, {"result": [None]},
              {"detail": "Not Found"}],
)
def test_other_shapes_are_malformed(found: Any) -> None:
    with pytest.raises(RemoteFailure, match="malformed"):
        read_reply(found, 1, 3)


def test_the_published_request_is_sent() -> None:
    with LocalServer(lambda asked: Reply({"result": [[DOCUMENT]] * len(asked.body.get("queries", "q"))})) as made:
        WikipediaRetriever(made.url, 3).search([ask("amber"), ask("birch")])
        WikipediaRetriever(f"{made.url}/retrieve/", 3, batch=1).search([ask("amber")])
        sent = [(a.method, a.path, a.body) for a in made.asked]
    assert sent == [
        ("POST", "/retrieve", {"queries": ["amber", "birch"], "topk": 3, "return_scores": True}),
        ("POST", "/retrieve", {"query": "amber", "topk": 3, "return_scores": True}),
    ]


def test_one_query_that_breaks_a_batch_costs_only_itself() -> None:
    kept, lock = [], threading.Lock()

    def reply(asked: Asked) -> Reply:
        queries = asked.body["queries"]
        return Reply({"error": "x"}, 422) if "bad" in queries else Reply({"result": [[DOCUMENT]] * len(queries)})

    def keep(row: int, found: Any) -> None:
        with lock:
            kept.append(row)

    with LocalServer(reply) as made:
        client = WikipediaRetriever(made.url, 3, batch=3, attempts=1)
        found = client.search_each([ask(q) for q in ("a", "bad", "c", "d", " ")], keep)
        assert len(made.asked) == 5
    assert [r.error for r in found] == [None, "rejected (HTTP 422)", None, None, None]
    assert [len(r.passages) for r in found] == [1, 0, 1, 1, 0] and sorted(kept) == [0, 2, 3]


def test_no_server_no_address() -> None:
    with LocalServer(lambda asked: Reply({"detail": "Not Found"}, 404)) as made:
        with pytest.raises(RemoteRefused, match="expected a server that answers POST /retrieve"):
            WikipediaRetriever(made.url, 3).search([ask("amber")])
        url = made.url
    assert WikipediaRetriever(url, 3, attempts=1).search([ask("amber")])[0].error == "connection"
    with pytest.raises(ConfigError, match="python -m zerosearch.retrievers.server --corpus FILE"):
        open_engine("wikipedia", (), 3)
    with pytest.raises(ConfigError, match="expected an address"):
        WikipediaRetriever("localhost:8000", 3)


def test_the_identity_names_what_is_searched() -> None:
    here, there = (WikipediaRetriever(f"http://{host}:8000", 5, "wiki-18") for host in ("here", "there"))
    assert here.identity == there.identity == "wikipedia corpus=wiki-18 k=5"
    assert WikipediaRetriever("http://here:8000/retrieve", 5).identity == "wikipedia corpus=http://here:8000 k=5"
