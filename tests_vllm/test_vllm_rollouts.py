"""Whole trajectories on vLLM: what is recorded is what was sampled, and both loops agree."""

from __future__ import annotations

import pytest
from conftest import truth
from conftest_models import EchoRetriever

from zerosearch.prompts import Prompts
from zerosearch.rollout import RolloutRequest, RolloutSettings, rollout
from zerosearch.rollout_async import AsyncSettings, rollout_async
from zerosearch.schema import Question, Retrieval, SearchRequest, Trajectory

SETTINGS = RolloutSettings(max_searches=3, max_turn_tokens=32, max_observation_tokens=60, max_total_tokens=500, run_seed=1)


@pytest.fixture(scope="module")
def prompts(loaded) -> Prompts:  # noqa: ANN001
    return Prompts.load("micro", loaded[1])


class Searching(EchoRetriever):
    """Passages of random length, some failures."""

    def _one(self, request: SearchRequest) -> Retrieval:
        found = super()._one(request)
        return Retrieval(request, found.passages * (1 + len(request.query) % 3), self.name)


def requests_of(count: int) -> list[RolloutRequest]:
    questions = [Question(f"nq/{i}", "nq", f"who directed film {i}", (f"Anka {i}",), "train") for i in range(count // 4)]
    return [
        RolloutRequest(q, step=1, sample=s, forced_prefix="<think> I search" if s % 2 else "")
        for q in questions for s in range(4)
    ]


@pytest.fixture(scope="module")
def thousand(engine, prompts) -> list[Trajectory]:  # noqa: ANN001
    limits = AsyncSettings(max_open=128, search_threads=4, searches_per_call=3)
    return rollout_async(requests_of(1000), engine, Searching(), prompts, SETTINGS, limits)


def test_a_thousand_trajectories_hold_what_was_sampled(loaded, thousand) -> None:  # noqa: ANN001
    """Log-probs of every policy token equal those of a teacher-forced pass over the recorded ids."""
    model, worst, n_tokens = loaded[0], 0.0, 0
    assert len(thousand) == 1000 and sum(t.n_searches > 0 for t in thousand) > 300
    for t in thousand:
        logps = truth(model, t.prompt_ids + t.token_ids)
        for i, own in enumerate(t.loss_mask):
            if own:
                gap = abs(logps[len(t.prompt_ids) - 1 + i, t.token_ids[i]].item() - t.logprobs[i])
                worst, n_tokens = max(worst, gap), n_tokens + 1
    assert n_tokens > 10_000 and worst < 1e-4


def test_the_synchronous_loop_makes_the_same_trajectories(engine, prompts, thousand) -> None:  # noqa: ANN001
    made = rollout(requests_of(1000), engine, Searching(), prompts, SETTINGS)
    assert sum(a.token_ids == b.token_ids for a, b in zip(made, thousand, strict=True)) >= 990
