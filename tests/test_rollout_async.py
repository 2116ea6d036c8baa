"""The asynchronous loop: same records as the turn-synchronous one, nobody waits for another's search."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Sequence

import pytest
from conftest_models import TOKENIZER, EchoRetriever, ScriptedEngine, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from zerosearch.engines.base import Batched, Generation, GenerationRequest
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import ConfigError, RetrieverError
from zerosearch.interrupts import Stopped
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import FailureLimit
from zerosearch.rollout import RolloutRequest, RolloutSettings, rollout
from zerosearch.rollout_async import AsyncSettings, rollout_async
from zerosearch.schema import Question, Retrieval, SearchRequest
from zerosearch.waiting import LOOPS, DelayedRetriever, Remembered, compare_loops

PROMPTS = Prompts.load("micro", TOKENIZER)
SETTINGS = RolloutSettings(max_searches=2, max_turn_tokens=24, max_observation_tokens=40, max_total_tokens=400, run_seed=3)
ONE_BY_ONE = AsyncSettings(search_threads=4, searches_per_call=1, search_deadline_seconds=20.0)


def question(i: int, text: str = "") -> Question:
    return Question(f"nq/{i}", "nq", text or f"who made film {i}", (f"gold {i}",), "train")


def asks(wanted: Sequence[int]) -> list[RolloutRequest]:
    """Return one request per number of searches that its policy will make."""
    return [RolloutRequest(question(i, f"search {n}")) for i, n in enumerate(wanted)]


def searches_as_told(prompt: str) -> str:
    wanted = int(prompt.split("\n")[0][-1])
    done = prompt.count("</information>")
    return f"<search> q{done}</search>" if done < wanted else "<answer> x</answer>"


class SlowRetriever(EchoRetriever):
    """Answers when it is allowed to: gates[question id] is waited for."""

    def __init__(self, gates: dict[str, threading.Event]):
        super().__init__()
        self.gates = gates

    def _one(self, request: SearchRequest) -> Retrieval:
        if (gate := self.gates.get(request.question.id)) is not None:
            assert gate.wait(20.0)
        return super()._one(request)


class Writer(ScriptedEngine):
    """A scripted engine that remembers which conversations wrote, in order."""

    def __init__(self, script, on_write=lambda key: None):  # noqa: ANN001
        super().__init__(script)
        self.keys: list[object] = []
        self.on_write = on_write

    def _one(self, request: GenerationRequest) -> Generation:
        self.keys.append(request.key)
        self.on_write(request.key)
        return super()._one(request)


@given(st.lists(st.integers(0, 2), min_size=0, max_size=12), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=40)
def test_records_equal_those_of_the_synchronous_loop(wanted: list[int], n_open: int, threads: int, per_call: int) -> None:
    requests = asks(wanted)
    one = rollout(requests, ScriptedEngine(searches_as_told), EchoRetriever(), PROMPTS, SETTINGS)
    limits = AsyncSettings(n_open, threads, per_call, 20.0)
    assert rollout_async(requests, ScriptedEngine(searches_as_told), EchoRetriever(), PROMPTS, SETTINGS, limits) == one


def test_a_real_model_draws_the_same_in_both_loops() -> None:
    requests = [RolloutRequest(question(i // 4), sample=i % 4, forced_prefix="<search> x</search>") for i in range(16)]
    engine = TransformersEngine(tiny_model(), TOKENIZER)
    one = rollout(requests, engine, EchoRetriever(), PROMPTS, SETTINGS)
    for limits in (AsyncSettings(), AsyncSettings(max_open=3), ONE_BY_ONE):
        other = rollout_async(requests, engine, EchoRetriever(), PROMPTS, SETTINGS, limits)
        assert [t.token_ids for t in other] == [t.token_ids for t in one]
        for a, b in zip(one, other, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5) and a.turns == b.turns


def test_nobody_waits_for_the_search_of_another() -> None:
    """Trajectory 0 gets its passages only after trajectory 1 has finished."""
    gate = threading.Event()
    engine = Writer(searches_as_told, lambda key: gate.set() if engine.keys.count(1) == 2 else None)
    made = rollout_async(asks([1, 1]), engine, SlowRetriever({"nq/0": gate}), PROMPTS, SETTINGS, ONE_BY_ONE)
    assert [t.stop_reason for t in made] == ["answer", "answer"] and engine.keys == [0, 1, 1, 0]


def test_a_search_past_its_deadline_costs_its_own_trajectory_alone() -> None:
    gate = threading.Event()
    limits = replace(ONE_BY_ONE, search_deadline_seconds=1.0)
    made = rollout_async(asks([1, 1, 2]), ScriptedEngine(searches_as_told), SlowRetriever({"nq/1": gate}), PROMPTS, SETTINGS, limits)
    gate.set()
    assert [t.stop_reason for t in made] == ["answer", "retriever_error", "answer"]
    assert made[1].error == "no answer within 1 s" and made[2].n_searches == 2


def test_a_retriever_that_always_hangs_stops_the_run_with_the_reason() -> None:
    gate = threading.Event()
    retriever = SlowRetriever({f"nq/{i}": gate for i in range(9)})
    limits = AsyncSettings(search_threads=2, searches_per_call=1, search_deadline_seconds=0.1)
    with pytest.raises(RetrieverError, match="hang at the same time"):
        rollout_async(asks([1] * 9), ScriptedEngine(searches_as_told), retriever, PROMPTS, SETTINGS, limits)
    gate.set()


def test_what_the_retriever_raises_ends_the_rollout() -> None:
    engine = ScriptedEngine(lambda p: "<search> q</search>")
    failing = FailureLimit(EchoRetriever(fail_on="q"), max_share=0.5, after=2)
    with pytest.raises(RetrieverError, match="at most 50% failed searches"):
        rollout_async(asks([1] * 8), engine, failing, PROMPTS, SETTINGS, ONE_BY_ONE)


def test_cancelling_gives_everything_up() -> None:
    """While one search hangs for ever: the event is set by another trajectory's message."""
    cancel, gate = threading.Event(), threading.Event()
    engine = Writer(searches_as_told, lambda key: cancel.set() if engine.keys.count(1) == 2 else None)
    stepped = Batched(engine)
    with pytest.raises(Stopped, match="1 of 2 trajectories finished"):
        rollout_async(
            asks([1, 1]), stepped, SlowRetriever({"nq/0": gate}), PROMPTS, SETTINGS, ONE_BY_ONE, cancel=cancel
        )
    gate.set()
    assert stepped.step() == []


def test_no_thread_is_left_over() -> None:
    before = set(threading.enumerate())
    rollout_async(asks([2] * 6), ScriptedEngine(searches_as_told), EchoRetriever(), PROMPTS, SETTINGS, ONE_BY_ONE)
    for thread in [t for t in threading.enumerate() if t.name == "search-echo"]:
        thread.join(timeout=10.0)
    assert set(threading.enumerate()) <= before


def test_progress_limits_and_missing_retriever() -> None:
    told: list[tuple[int, int]] = []
    rollout_async(asks([0, 1, 2]), ScriptedEngine(searches_as_told), EchoRetriever(), PROMPTS, SETTINGS, on_progress=lambda *a: told.append(a))
    assert told[-1] == (3, 3) and told == sorted(told)
    with pytest.raises(ValueError, match="there is no retriever"):
        rollout_async(asks([1]), ScriptedEngine(searches_as_told), None, PROMPTS, SETTINGS)
    with pytest.raises(ConfigError, match="above 0"):
        AsyncSettings(search_threads=0)


def test_at_most_so_many_trajectories_are_open() -> None:
    engine = ScriptedEngine(searches_as_told)
    rollout_async(asks([1] * 10), engine, EchoRetriever(), PROMPTS, SETTINGS, AsyncSettings(max_open=3))
    assert max(engine.batches) <= 3 and sum(engine.batches) == 20


def test_the_timelines_of_both_loops_hold_every_message_and_search() -> None:
    table = compare_loops(asks([0, 1, 2]), ScriptedEngine(searches_as_told), EchoRetriever(), PROMPTS, SETTINGS, 0.001)
    for loop in LOOPS:
        spans = table[table["loop"] == loop]
        counts = spans.groupby(["trajectory", "doing"]).size().to_dict()
        assert counts == {(0, "write"): 1, (1, "write"): 2, (1, "search"): 1, (2, "write"): 3, (2, "search"): 2}
        assert (spans["end"] >= spans["start"]).all() and spans["start"].min() == 0.0


def test_latencies_are_keyed_draws_around_their_median() -> None:
    slow = DelayedRetriever(EchoRetriever(), 0.3, seed=4)
    drawn = [slow.latency_seconds(SearchRequest("q", question(i))) for i in range(400)]
    assert drawn[7] == slow.latency_seconds(SearchRequest("other words", question(7))) and len(set(drawn)) == 400
    assert 0.27 < sorted(drawn)[200] < 0.33 and DelayedRetriever(EchoRetriever(), 0.0, 4).latency_seconds(SearchRequest("q", question(1))) == 0.0


def test_remembered_passages_are_asked_for_once_and_go_to_their_own_request() -> None:
    asked: list[str] = []

    class Counted(EchoRetriever):
        def search(self, requests):  # noqa: ANN001, ANN202
            asked.extend(r.query for r in requests)
            return super().search(requests)

    remembered = Remembered(Counted())
    one, two = SearchRequest("a", question(1)), SearchRequest("b", question(1), turn=1)
    first = remembered.search([one, two])
    assert remembered.search([two, one]) == first[::-1] and asked == ["a", "b"]
    assert remembered.search([SearchRequest("a", question(1), sample=1)])[0].request.sample == 1 and asked == ["a", "b", "a"]
