"""The client of the OpenAI protocol against a real server on this machine."""

from __future__ import annotations

from typing import Any, Iterator

import pytest
from local_server import Asked, LocalServer, Reply as Sent
from model_server import chat_reply, text_reply

from zerosearch.chat import Chat, Prompt, Reply, model_service
from zerosearch.remote import RemoteRefused


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with LocalServer(lambda asked: chat_reply("yes", 12, 4)) as made:
        yield made


def chat(server: LocalServer, **options: Any) -> Chat:
    patience = {"attempts": 1, "wait_seconds": 0.0, "workers": 2}
    return Chat(model_service("writer", f"{server.url}/v1", "some-model", **patience), "some-model", **options)


def test_a_chat_sends_system_and_user_and_reads_text_and_tokens(server: LocalServer) -> None:
    [answer] = chat(server).ask_all([Prompt("say yes", "be short", 7, 0.5, seed=3)])
    assert answer.value == Reply("yes", True, 12, 4, counted=True)
    assert server.asked[0].path == "/v1/chat/completions"
    assert server.asked[0].body == {
        "model": "some-model", "temperature": 0.5, "max_tokens": 7, "seed": 3,
        "messages": [{"role": "system", "content": "be short"}, {"role": "user", "content": "say yes"}],
    }


def test_a_completion_goes_on_from_the_bare_text(server: LocalServer) -> None:
    server.reply = lambda asked: text_reply(" and so on", 2, 9, finish="length")
    [answer] = chat(server, protocol="completions").ask_all([Prompt("once", max_tokens=9)])
    assert answer.value == Reply(" and so on", False, 2, 9, counted=True)
    assert server.asked[0].path == "/v1/completions"
    assert server.asked[0].body == {"model": "some-model", "prompt": "once", "temperature": 0.0, "max_tokens": 9}
    with pytest.raises(ValueError, match="without a system message"):
        list(chat(server, protocol="completions").ask_all([Prompt("once", "be short")]))


def test_replies_come_in_the_order_of_the_prompts(server: LocalServer) -> None:
    def reply(asked: Asked) -> Sent:
        return chat_reply(asked.body["messages"][0]["content"].upper())

    server.reply = reply
    answers = chat(server).ask_all([Prompt(word) for word in "abcdefgh"])
    assert [a.value.text for a in answers if a.value] == list("ABCDEFGH")


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": 3}, {"prompt_tokens": -1, "completion_tokens": 2}, [1, 2],
              {"prompt_tokens": "3", "completion_tokens": 2}, {"prompt_tokens": True, "completion_tokens": 2}],
)
def test_a_server_that_does_not_count_is_not_believed(server: LocalServer, usage: Any) -> None:
    server.reply = lambda asked: Sent({"choices": [{"message": {"content": "yes"}}], "usage": usage})
    [answer] = chat(server).ask_all([Prompt("x")])
    assert answer.value == Reply("yes", True, 0, 0, counted=False)


@pytest.mark.parametrize(
    "content",
    ["", "no JSON", [], {}, {"choices": []}, {"choices": [{"message": {"content": None}}]}, {"choices": ["x"]},
     {"choices": [{"text": "a completion"}]}, {"choices": [{"message": {"content": ["parts"]}}]}, "[" * 9_000, 3],
    ids=str,
)
def test_replies_that_are_no_chat_are_malformed(server: LocalServer, content: Any) -> None:
    server.reply = lambda asked: Sent(content)
    [answer] = chat(server).ask_all([Prompt("x")])
    assert answer.failure is not None and answer.failure.kind == "malformed"


@pytest.mark.parametrize("code", [{"code": "insufficient_quota"}, {"type": "insufficient_quota", "code": None}])
def test_no_credit_ends_the_work_though_it_is_called_busy(server: LocalServer, code: dict[str, Any]) -> None:
    server.reply = lambda asked: Sent({"error": {"message": "You exceeded\nyour quota.", **code}}, status=429)
    with pytest.raises(RemoteRefused, match="found HTTP 429: You exceeded your quota.; mend the account"):
        list(chat(server).ask_all([Prompt("x")]))


@pytest.mark.parametrize(
    ("status", "content", "kind", "detail"),
    [
        (429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, "busy", ""),
        (400, {"error": {"message": "too many tokens", "code": ["odd"]}}, "rejected", "too many tokens"),
        (400, {"error": "text"}, "rejected", ""), (422, {"detail": "x"}, "rejected", ""), (500, "oops", "server", ""),
    ],
)
def test_errors_are_explained_where_the_server_does(
    server: LocalServer, status: int, content: Any, kind: str, detail: str
) -> None:
    server.reply = lambda asked: Sent(content, status=status)
    [answer] = chat(server).ask_all([Prompt("x")])
    assert answer.failure is not None
    assert (answer.failure.kind, answer.failure.status, answer.failure.detail) == (kind, status, detail)


def test_a_model_that_is_not_there_is_named(server: LocalServer) -> None:
    server.reply = lambda asked: Sent(status=404)
    with pytest.raises(RemoteRefused, match="endpoint with the model 'some-model', found HTTP 404; check address"):
        list(chat(server).ask_all([Prompt("x")]))
