"""The engine that asks servers, against a small server that speaks the same protocol over real sockets."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Iterator

import pytest
from conftest_models import TOKENIZER

from zerosearch.engines.base import GenerationRequest
from zerosearch.engines.served_engine import ServedEngine
from zerosearch.errors import ServerProblem
from zerosearch.prompts import Prompts
from zerosearch.retrievers.simulator import SimulatorRetriever
from zerosearch.schema import Question, SearchRequest

END = TOKENIZER.eos_token_id


class ToyServer(ThreadingHTTPServer):
    """Continues a prompt with its own last token, three times, then what ``after`` says; may refuse some calls."""

    daemon_threads = True

    def __init__(self, after: tuple[int, ...] = (END,)):
        super().__init__(("127.0.0.1", 0), Handler)
        self.after, self.asked, self.refuse, self.status = after, [], 0, 503
        self.answer: Any = None
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: ToyServer

    def do_POST(self) -> None:  # noqa: N802
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append((self.path, dict(self.headers), body))
            self.server.refuse -= 1
            refused = self.server.refuse >= 0
        ids = [body["prompt"][-1]] * 3 + list(self.server.after)
        choice = {"token_ids": ids[: body["max_tokens"]], "logprobs": {"token_logprobs": [-0.5] * len(ids[: body["max_tokens"]])}}
        answer = self.server.answer or {"choices": [choice], "usage": {"prompt_tokens_details": {"cached_tokens": 1}}}
        said = json.dumps({"error": "busy"} if refused else answer).encode()
        self.send_response(self.server.status if refused else 200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[ToyServer]:
    made = ToyServer()
    yield made
    made.shutdown()
    made.server_close()


def engine(*servers: ToyServer, **options: Any) -> ServedEngine:
    return ServedEngine([s.url for s in servers], "toy", TOKENIZER, [END], stop_strings=(), **options)


def test_ids_go_out_and_come_back_in_order(server: ToyServer) -> None:
    asked = [GenerationRequest((5, 10 + i), 2**64 - 1 - i, 8, 0.7) for i in range(30)]
    served = engine(server)
    made = served.generate(asked)
    assert [g.token_ids for g in made] == [(10 + i, 10 + i, 10 + i, END) for i in range(30)]
    assert all(g.stop_reason == "eos" and g.logprobs == (-0.5,) * 4 for g in made)
    assert (served.counts.prompt, served.counts.cached, served.counts.generated) == (30, 30, 120)
    path, _, body = server.asked[0]
    assert path == "/v1/completions" and body["top_p"] == 1.0 and body["temperature"] == 0.7
    assert {b["seed"] for *_, b in server.asked} == {r.seed % 2**63 for r in asked}


def test_a_short_budget_and_a_late_tag(server: ToyServer) -> None:
    assert engine(server).generate([GenerationRequest((7,), 0, 2)])[0].stop_reason == "length"
    tag = TOKENIZER("</search>", add_special_tokens=False).input_ids
    server.after = (*tag, 7, 7)  # found late: what follows was never the policy's
    found = ServedEngine([server.url], "toy", TOKENIZER, [END]).generate([GenerationRequest((7,), 0, 20)])[0]
    assert found.token_ids == (7, 7, 7, *tag) and found.stop_reason == "stop" and len(found.logprobs) == 3 + len(tag)


def test_replicas_are_chosen_by_seed(server: ToyServer) -> None:
    other = ToyServer()
    engine(server, other).generate([GenerationRequest((5,), i, 4) for i in range(10)])
    assert {b["seed"] % 2 for *_, b in server.asked} == {0} and {b["seed"] % 2 for *_, b in other.asked} == {1}
    other.shutdown()
    other.server_close()


def test_a_busy_server_is_asked_again_a_refusal_is_told(server: ToyServer) -> None:
    server.refuse = 2
    assert engine(server).generate([GenerationRequest((5,), 0, 4)])[0].token_ids == (5, 5, 5, END)
    assert len(server.asked) == 3
    server.refuse, server.status = 9, 400
    with pytest.raises(ServerProblem, match="found status 400.*busy"):
        engine(server).generate([GenerationRequest((5,), 0, 4)])
    assert len(server.asked) == 4
    server.refuse, server.answer = 0, {"choices": [{"text": "no ids"}]}
    with pytest.raises(ServerProblem, match="expected token ids and log-probs"):
        engine(server).generate([GenerationRequest((5,), 0, 4)])


def test_a_server_that_is_gone_costs_searches_not_the_run() -> None:
    gone = ToyServer()
    gone.shutdown()
    gone.server_close()
    simulator = SimulatorRetriever(engine(gone), Prompts.load("micro", TOKENIZER), k=2)
    found = simulator.search([SearchRequest("q", Question("nq/1", "nq", "who", ("x",), "train"))])
    assert found[0].error is not None and "is it running?" in found[0].error
