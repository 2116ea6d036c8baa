"""Simulators on a server: a real micro model behind the OpenAI protocol writes what it writes in this process."""

from __future__ import annotations

from typing import Any, Iterator

import pytest
from local_server import LocalServer, Reply
from model_server import ModelServer, chat_reply
from test_arm_training import PAIRS
from training_toys import toy_question

from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import ConfigError, RetrieverError
from zerosearch.microworld import models
from zerosearch.prompts import Prompts
from zerosearch.remote import RemoteRefused
from zerosearch.retrievers.base import FailureLimit
from zerosearch.retrievers.prompted import PromptedSimulatorRetriever
from zerosearch.retrievers.simulator import SimulatorRetriever
from zerosearch.retrievers.writers import ServedWriter
from zerosearch.schema import SearchRequest
from zerosearch.training import policy_rl
from zerosearch.training.arm_setup import Served, open_retriever, shown_examples
from zerosearch.training.arms import get_arm

NAME = "micro/simulator-small"
REQUESTS = [SearchRequest(f"director of Silver {i}", toy_question(i), 1, i, noise_probability=0.5) for i in range(6)]


@pytest.fixture(scope="module")
def micro() -> Iterator[ModelServer]:
    with pytest.MonkeyPatch.context() as patch, ModelServer(NAME) as server:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield server


@pytest.fixture
def anything(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    """A chat server that the test tells what to say."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with LocalServer(lambda asked: chat_reply("Doc 1: one\nDoc 2: two")) as server:
        yield server


def served(server: LocalServer, **options: Any) -> Served:
    return Served(f"{server.url}/v1", NAME, **{"protocol": "completions", "workers": 4, **options})


def opened(arm: str, where: Served, **options: Any) -> FailureLimit:
    tokenizer = models.load_tokenizer(NAME)
    policy: Any = (None, Prompts.load("micro", tokenizer))  # only its tokenizer is asked for
    return open_retriever(get_arm(arm), k=3, seed=5, served=where, policy=policy, max_new_tokens=60, **options)


@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize("shown", [False, True], ids=["instruction", "examples"])
def test_a_served_simulator_writes_what_it_writes_in_this_process(micro: ModelServer, shown: bool, k: int) -> None:
    """Greedy: the same noise draws, prompts, passages, ids and token counts, one by one."""
    model, tokenizer = models.load(NAME)
    prompts = Prompts.load("micro", tokenizer)
    options = {"k": k, "run_seed": 5, "temperature": 0.0, "max_new_tokens": 40}

    def searched(engine: Any) -> list[tuple[object, ...]]:
        make = [PromptedSimulatorRetriever(engine, prompts, shown_examples(PAIRS), **options)] if shown else []
        found = (*make, SimulatorRetriever(engine, prompts, **options))[0].search(REQUESTS)
        return [(r.request, r.passages, r.noisy, r.n_prompt_tokens, r.n_generated_tokens, r.error) for r in found]

    here = searched(TransformersEngine(model, tokenizer, stop_strings=()))
    assert searched(ServedWriter(served(micro).chat())) == here
    assert {row[2] for row in here} == {True, False} and any(row[1] for row in here)


@pytest.mark.parametrize("arm", ["zerosearch", "untuned", "prompted"])
def test_the_arms_that_search_a_simulator_can_search_a_served_one(micro: ModelServer, arm: str) -> None:
    micro.asked.clear()
    retriever = opened(arm, served(micro), pairs=PAIRS)
    found = retriever.search(REQUESTS)
    assert all(r.error is None and r.n_generated_tokens > 0 for r in found)
    assert retriever.name == get_arm(arm).retriever == found[0].source
    assert retriever.prompt_version == Prompts.load("micro", models.load_tokenizer(NAME)).simulator_version
    texts = sorted(asked.body["prompt"] for asked in micro.asked)
    simulator: Any = retriever._retriever
    assert texts == sorted(simulator.prompt(f.request, not f.noisy) for f in found)
    assert len({asked.body["seed"] for asked in micro.asked}) == len(REQUESTS)
    assert {(a.body["model"], a.body["temperature"], a.body["max_tokens"]) for a in micro.asked} == {(NAME, 0.8, 60)}
    tokens = policy_rl.retrieval_events(found, retriever.served_model)[1]
    assert (tokens["model"], tokens["unit"], tokens["role"]) == (NAME, "paid", "simulator")
    assert tokens["prompt"] == sum(r.n_prompt_tokens for r in found)


def test_a_published_simulator_is_asked_in_the_published_words(anything: LocalServer) -> None:
    where = Served(f"{anything.url}/v1", "a-published-simulator")
    found = opened("zerosearch", where).search(REQUESTS[:1])[0]
    [message] = anything.asked[0].body["messages"]
    question, kind = REQUESTS[0].question, "noisy" if found.noisy else "useful"
    assert message == {"role": "user", "content": (
        f"You are the Google search engine.\nGiven a query, you need to generate three {kind} documents for the query."
        f'\n\nThe user is trying to answer the question: "{question.question}" whose answer is '
        f"{question.golden_answers[0]}.\nEach document should contain about 30 words, and these documents should "
        f"contain {kind} information.\n\nQuery: director of Silver 0\n{kind.capitalize()} Output:\n"
    )}
    assert [p.text for p in found.passages] == ["one", "two"] and found.n_generated_tokens == 3


def test_a_failed_request_is_a_failed_search_of_its_row_alone(anything: LocalServer) -> None:
    anything.reply = lambda asked: (
        Reply({"error": {"message": "too long"}}, status=400) if "Silver 1" in str(asked.body) else chat_reply("one")
    )
    retriever = opened("zerosearch", served(anything, protocol="chat"))
    found = retriever.search(REQUESTS)
    failed = [r for r in found if "Silver 1" in r.request.query]
    assert [r.error for r in failed] == ["rejected (HTTP 400): too long"]
    assert [r for r in found if r.error] == failed and all(r.passages == () for r in failed)


def test_training_stops_when_the_server_fails_too_often_or_refuses(anything: LocalServer) -> None:
    anything.reply = lambda asked: Reply(status=400)
    with pytest.raises(RetrieverError, match="at most 10% failed searches, found 60 of 60, 60 of them with 'rejected"):
        opened("zerosearch", served(anything)).search(REQUESTS * 10)
    anything.reply = lambda asked: Reply(status=401)
    with pytest.raises(RemoteRefused, match="variable SIMULATOR_API_KEY, found none"):
        opened("zerosearch", served(anything)).search(REQUESTS)


def test_a_missing_name_and_a_wrong_address_are_named_before_anything_is_asked() -> None:
    with pytest.raises(ConfigError, match="name of the model that is served there.*--set 03.simulator_name"):
        Served("http://localhost:6001/v1", "")
    with pytest.raises(ConfigError, match="simulator: expected an address such as"):
        Served("localhost:6001", "x")
