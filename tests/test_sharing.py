"""Shared searches: sent once, the same whoever came first, counted; failures are not shared with later ones."""

from __future__ import annotations

import pytest
from conftest_models import TOKENIZER, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from zerosearch.engines.base import EngineCounts
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import FailureLimit
from zerosearch.retrievers.sharing import SharedSimulator
from zerosearch.retrievers.simulator import SimulatorRetriever
from zerosearch.schema import Question, SearchRequest

ENGINE = TransformersEngine(tiny_model(), TOKENIZER, stop_strings=())


def simulator(engine: object = ENGINE) -> SimulatorRetriever:
    return SimulatorRetriever(engine, Prompts.load("micro", TOKENIZER), k=2, run_seed=5, max_new_tokens=8)


def asked(query: str, sample: int, noise: float = 0.0, step: int = 1, question: int = 0) -> SearchRequest:
    about = Question(f"nq/{question}", "nq", "who made it", ("Anka Falk",), "train")
    return SearchRequest(query, about, step, sample, 0, noise)


def test_a_group_that_asks_the_same_is_answered_once() -> None:
    shared = SharedSimulator(simulator())
    found = shared.search([asked("maker of it", s) for s in range(4)] + [asked("other", 0)])
    assert (shared.n_sent, shared.n_shared) == (2, 3)
    assert all(f.passages == found[0].passages for f in found[:4]) and [f.cached for f in found] == [False, True, True, True, False]
    assert [f.request.sample for f in found] == [0, 1, 2, 3, 0]
    assert found[0].n_generated_tokens > 0 == found[1].n_generated_tokens == found[1].n_prompt_tokens


def test_other_questions_steps_and_draws_are_not_shared() -> None:
    shared = SharedSimulator(simulator())
    shared.search([asked("q", 0), asked("q", 0, question=1), asked("q", 0, step=2), asked("q", 1, noise=1.0)])
    assert (shared.n_sent, shared.n_shared) == (4, 0)


@given(st.permutations(range(6)), st.integers(1, 6))
@settings(max_examples=10)
def test_passages_do_not_depend_on_who_comes_first(order: list[int], size: int) -> None:
    requests = [asked(f"query {i % 3}", i, noise=0.5) for i in range(6)]
    alone = SharedSimulator(simulator()).search(requests)
    shared, texts = SharedSimulator(simulator()), {}
    for start in range(0, 6, size):
        for found in shared.search([requests[i] for i in order[start : start + size]]):
            texts[found.request.sample] = ([p.text for p in found.passages], found.noisy)
    assert texts == {f.request.sample: ([p.text for p in f.passages], f.noisy) for f in alone}


class DownOnce:
    """An engine that cannot be reached the first time."""

    name, counts = "down", EngineCounts()

    def __init__(self) -> None:
        self.calls = 0

    def generate(self, requests):  # noqa: ANN001, ANN201
        self.calls += 1
        if self.calls == 1:
            raise OSError("connection refused")
        return ENGINE.generate(requests)


def test_a_failure_is_tried_again_by_the_next() -> None:
    shared = SharedSimulator(own := simulator(DownOnce()), FailureLimit(own))
    assert [f.error for f in shared.search([asked("q", 0), asked("q", 1)])] == ["OSError: connection refused"] * 2
    assert shared.search([asked("q", 2)])[0].error is None and shared.n_sent == 2


def test_answers_of_earlier_steps_are_forgotten() -> None:
    shared = SharedSimulator(simulator())
    for step in range(5):
        shared.search([asked("q", 0, step=step)])
    assert len(shared._answers) == 1


def test_what_the_simulator_raises_is_raised() -> None:
    class Broken:
        name, counts = "broken", EngineCounts()

        def generate(self, requests):  # noqa: ANN001, ANN201
            raise RuntimeError("broken weights")

    with pytest.raises(RuntimeError, match="broken weights"):
        SharedSimulator(simulator(Broken())).search([asked("q", 0)])
