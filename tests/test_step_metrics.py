"""step_metrics.py: the numbers of one step, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from training_toys import ScriptedRetriever, toy_question, toy_trajectory

from zerosearch.schema import Passage, Retrieval, ScoredTrajectory, SearchRequest, Trajectory, Turn
from zerosearch.training.objective import LossTerms
from zerosearch.training.step_metrics import (
    StepSeconds,
    TimedRetriever,
    message_metrics,
    rollout_metrics,
    seconds_metrics,
    update_metrics,
)


def searched(trajectory: Trajectory, *noisy: bool | None) -> Trajectory:
    request = SearchRequest("director of film", trajectory.question)
    found = (Passage("p", "", "text"),)
    turns = tuple(Turn("", "search", "q", Retrieval(request, found, "simulator", noisy=n), "obs") for n in noisy)
    return replace(trajectory, turns=turns)


def scored(trajectory: Trajectory, reward: float) -> ScoredTrajectory:
    return ScoredTrajectory(trajectory, reward, em=float(reward == 1.0), cover_em=float(reward == 1.0), f1=reward)


def test_rollout_metrics_by_hand() -> None:
    base = toy_trajectory([5], [8, 9, 10], [1, 0, 1])
    rows = [
        scored(searched(base, True, False), 1.0),
        scored(searched(replace(base, stop_reason="max_searches"), False), 0.0),
        scored(base, 0.5),
        scored(replace(base, stop_reason="no_action"), 0.5),
    ]
    found = rollout_metrics(rows, np.array([0.7, -0.7, 0.0, 0.0]), np.array([0, 0, 1, 1]), noise_planned=0.25)
    assert found["reward_mean"] == 0.5 and found["f1"] == 0.5 and found["em"] == 0.25
    assert found["reward_std"] == pytest.approx(np.std([1.0, 0.0, 0.5, 0.5]))
    assert found["searches_mean"] == 0.75
    assert found["noise_planned"] == 0.25 and found["noise_realised"] == pytest.approx(1 / 3)
    assert found["groups_with_spread"] == 0.5  # the second group's rewards are equal
    assert found["tokens_mean"] == 3.0 and found["policy_tokens_mean"] == 2.0
    assert found["stop_answer"] == 0.5 and found["stop_max_searches"] == found["stop_no_action"] == 0.25
    assert sum(v for k, v in found.items() if k.startswith("stop_")) == pytest.approx(1.0)
    assert found["advantage_mean"] == pytest.approx(0.0)


def test_failed_rollouts_count_in_stop_reasons_but_not_in_means() -> None:
    base = toy_trajectory([5], [8], [1])
    rows = [scored(base, 1.0), scored(replace(base, stop_reason="retriever_error", error="down"), 0.0)]
    found = rollout_metrics(rows, np.zeros(2), np.zeros(2), 0.0)
    assert found["reward_mean"] == 1.0 and found["stop_retriever_error"] == 0.5
    assert found["noise_realised"] is None  # nothing was searched
    lost = rollout_metrics(rows[1:], np.zeros(1), np.zeros(1), 0.0)
    assert lost["reward_mean"] == 0.0 and lost["stop_retriever_error"] == 1.0


def message(text: str, action: str, *passages: str, error: str | None = None) -> Turn:
    request = SearchRequest("q", toy_question())
    found = tuple(Passage(f"p{i}", "", text) for i, text in enumerate(passages))
    searched = action == "search" and (passages or error)
    return Turn(text, action, "q", Retrieval(request, found, "bm25", error=error) if searched else None)  # type: ignore[arg-type]


def test_message_metrics_by_hand() -> None:
    base = toy_trajectory([5], [8], [1])
    trajectories = [
        replace(base, turns=(message("", "search", "text", ""), message("", "answer"))),
        replace(base, turns=(message("", "search", "", " "), message("so then and", "none")), stop_reason="length"),
        replace(base, turns=(message("<search> </search>", "none"),), stop_reason="no_action"),
        replace(base, turns=(message("", "search", "text"),), stop_reason="length"),  # no room for the passages
        replace(base, turns=(message("", "search", error="down"),), stop_reason="retriever_error"),
    ]
    found = message_metrics(trajectories)
    assert found["valid_action_rate"] == 5 / 7  # of seven messages one was cut off and one is an empty search
    assert found["eos_rate"] == 6 / 7  # only one ran out of tokens itself
    assert found["empty_search_rate"] == 2 / 4  # blank passages and a blank query; a failed search does not count


def test_message_metrics_without_messages_or_searches() -> None:
    base = toy_trajectory([5], [8], [1], stop="length")
    assert set(message_metrics([base]).values()) == {None}  # the prompt left no room
    found = message_metrics([replace(base, turns=(message("", "answer"),), stop_reason="answer")])
    assert found == {"valid_action_rate": 1.0, "eos_rate": 1.0, "empty_search_rate": None}


def test_a_real_engine_has_no_noise() -> None:
    row = scored(searched(toy_trajectory([5], [8], [1]), None, None), 1.0)
    assert rollout_metrics([row], np.zeros(1), np.zeros(1), 0.0)["noise_realised"] == 0.0


def test_update_metrics_are_token_means() -> None:
    # weights 1, 1, 0 and 2: effective (1 + 1 + 0 + 2)^2 / (4 * (1 + 1 + 0 + 4)) = 2/3; a quarter is dropped
    terms = [
        LossTerms(n_tokens=3, kl_sum=0.3, n_clipped=1, gap_sum=0.03, gaps=(0.0, 0.01, 0.02), weight_sum=2.0,
                  weight_square_sum=2.0, n_dropped=1),
        LossTerms(1, 0.5, 0, 0.01, (0.01,), 2.0, 4.0),
    ]
    found = update_metrics(terms, entropy_sum=2.0, with_kl=True)
    assert found == pytest.approx({
        "kl": 0.2, "entropy": 0.5, "clip_share": 0.25, "logprob_gap": 0.01, "logprob_gap_p50": 0.01,
        "logprob_gap_p99": 0.0197, "effective_share": 2 / 3, "dropped_share": 0.25,
    })
    assert update_metrics(terms, 2.0, with_kl=False)["kl"] is None
    nothing = update_metrics([], 0.0, with_kl=True)  # no token was trained: no entropy, which is not an entropy of 0
    assert set(nothing) == set(found) and set(nothing.values()) == {None}


def test_timed_retriever_keeps_and_forgets() -> None:
    timed = TimedRetriever(ScriptedRetriever("bm25"))
    requests = [SearchRequest(f"query {i}", toy_question(i)) for i in range(3)]
    found = timed.search(requests)
    assert [r.request for r in found] == requests and timed.name == "bm25"
    kept, seconds = timed.drain()
    assert kept == found and seconds >= 0.0
    assert timed.drain() == ([], 0.0)


def test_seconds_have_their_columns() -> None:
    found = seconds_metrics(StepSeconds(1.23456, 0.5, 2.0, 3.9))
    assert found == {"seconds_rollout": 1.235, "seconds_simulator": 0.5, "seconds_training": 2.0, "seconds_total": 3.9}
