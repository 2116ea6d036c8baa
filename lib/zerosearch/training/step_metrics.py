"""What is measured at every optimiser step: one flat row of numbers for ``metrics.jsonl``.

Rewards enter the loss; everything else here is only reported.  ``advantage_mean`` is a sanity check
(close to 0 with any baseline), not a sign of progress.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Sequence

import numpy as np

from zerosearch.retrievers.base import Retriever, served_model, writing_engine
from zerosearch.schema import STOP_REASONS, Retrieval, ScoredTrajectory, SearchRequest, Trajectory
from zerosearch.training.objective import LossTerms

_EMPTY_SEARCH = re.compile(r"<search>\s*</search>")

# Column of metrics.jsonl -> meaning, unit, and what a healthy run shows.
METRICS: dict[str, str] = {
    "step": "optimiser step, from 1",
    "reward_mean": "mean reward of the step's trajectories, 0 to 1; rises",
    "reward_std": "standard deviation of the rewards; above 0, or nothing can be learned",
    "f1": "mean F1 of the answers, 0 to 1; equals reward_mean when F1 is the reward",
    "em": "share of exact answers, 0 to 1; stays at or below f1",
    "searches_mean": "searches per trajectory; rises from the base's habit to what the questions need",
    "noise_planned": "the curriculum's noise probability at this step, 0 to 1",
    "noise_realised": "share of searches answered misleadingly; near noise_planned, empty without searches",
    "advantage_mean": "mean advantage; a check, 0 within rounding with any baseline",
    "groups_with_spread": "share of groups whose rewards differ, 0 to 1; only these teach",
    "tokens_mean": "tokens per trajectory after the prompt; no sudden jumps",
    "policy_tokens_mean": "tokens per trajectory that the policy wrote, the trained ones",
    "valid_action_rate": "share of the policy's messages that are a search or an answer with content, 0 to 1; near 1",
    "eos_rate": "share of its messages that it ended itself (end token or closing tag), not the budget, 0 to 1; near 1",
    "empty_search_rate": "share of searches without a query, or without a passage that says anything; near 0",
    "stop_answer": "share of trajectories that ended with an answer, 0 to 1; near 1",
    "stop_max_searches": "share that asked for one search more than allowed; low",
    "stop_length": "share that ran out of tokens; low",
    "stop_no_action": "share that ended with neither search nor answer; low",
    "stop_retriever_error": "share whose search failed for good; 0, these are masked from the loss",
    "loss": "loss of the update; its sign and size say little, a jump says much",
    "grad_norm": "norm of the gradient before clipping; finite, mostly below a few units",
    "learning_rate": "learning rate of the update; constant after the first steps",
    "kl": "KL to the base, nats per token; grows slowly, empty when its weight is 0",
    "entropy": "entropy of the policy, nats per token; falls, but not to 0 within a few steps",
    "clip_share": "share of tokens cut by the clip, 0 to 1; 0 when the update is on-policy",
    "logprob_gap": "mean difference between sampler and trainer, nats per token; below 0.001",
    "logprob_gap_p50": "its median over the tokens, nats",
    "logprob_gap_p99": "its 99th percentile, nats; where it grows, set `correction`",
    "effective_share": "effective sample size of the importance weights over the tokens, 0 to 1; near 1",
    "dropped_share": "share of tokens that the correction `sequence` dropped, 0 to 1; near 0",
    "kl_reward": "what the KL adds to a trajectory's reward, mean; below 0 and small, empty unless it stands there",
    "value_mean": "mean of the critic over the tokens, in reward units; follows reward_mean, empty without a critic",
    "value_loss": "loss of the critic; falls while the policy is steady, empty without a critic",
    "explained_variance": "share of the returns' variance that the critic foresaw, at most 1; rises from 0",
    "seconds_rollout": "wall seconds in which the policy wrote",
    "seconds_simulator": "wall seconds in which the retriever answered",
    "seconds_training": "wall seconds of the update",
    "seconds_total": "wall seconds of the whole step",
}

UPDATE_COLUMNS = (  # measured by the update
    "kl", "entropy", "clip_share", "logprob_gap", "logprob_gap_p50", "logprob_gap_p99", "effective_share",
    "dropped_share",
)
OF_SOME_ALGORITHMS = ("kl_reward", "value_mean", "value_loss", "explained_variance")  # empty in the others' rows


@dataclass(frozen=True, slots=True)
class StepSeconds:
    """Wall seconds of one step.  rollout: the policy writing; simulator: the retriever answering."""

    rollout: float
    simulator: float
    training: float
    total: float


class TimedRetriever:
    """A retriever that also keeps what it returned and how long it took, since the last ``drain``."""

    def __init__(self, retriever: Retriever):
        self._retriever = retriever
        self.name, self.served_model, self.engine = retriever.name, served_model(retriever), writing_engine(retriever)
        self._kept: list[Retrieval] = []
        self._seconds = 0.0

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return what the wrapped retriever returns: same length, same order."""
        started = time.perf_counter()
        try:
            retrievals = self._retriever.search(requests)
        finally:
            self._seconds += time.perf_counter() - started
        self._kept.extend(retrievals)
        return retrievals

    def drain(self) -> tuple[list[Retrieval], float]:
        """Return (retrievals, wall seconds) since the last call, and forget them."""
        kept, seconds = self._kept, self._seconds
        self._kept, self._seconds = [], 0.0
        return kept, seconds


def rollout_metrics(
    scored: Sequence[ScoredTrajectory], advantages: np.ndarray, groups: np.ndarray, noise_planned: float
) -> dict[str, float | None]:
    """Return what the trajectories of one step say, before any update.

    advantages, groups (B,).  Means are over the trajectories whose retriever did not fail (all of
    them when every one failed).  noise_realised: misleading answers per search; None without one.
    """
    failed = [s.trajectory.stop_reason == "retriever_error" for s in scored]
    kept = [i for i, lost in enumerate(failed) if not lost or all(failed)]
    rewards = np.array([scored[i].reward for i in kept])
    trajectories = [scored[i].trajectory for i in kept]
    retrievals = [t.retrieval for s in scored for t in s.trajectory.turns if t.retrieval is not None]
    reasons = [s.trajectory.stop_reason for s in scored]
    group_ids = np.asarray(groups)[kept]
    spread = [np.ptp(rewards[group_ids == group]) > 0 for group in np.unique(group_ids)]
    return {
        "reward_mean": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "f1": float(np.mean([scored[i].f1 for i in kept])),
        "em": float(np.mean([scored[i].em for i in kept])),
        "searches_mean": float(np.mean([t.n_searches for t in trajectories])),
        "noise_planned": noise_planned,
        "noise_realised": float(np.mean([r.noisy is True for r in retrievals])) if retrievals else None,
        "advantage_mean": float(np.mean(np.asarray(advantages)[kept])),
        "groups_with_spread": float(np.mean(spread)),
        "tokens_mean": float(np.mean([len(t.token_ids) for t in trajectories])),
        "policy_tokens_mean": float(np.mean([sum(t.loss_mask) for t in trajectories])),
        **message_metrics(trajectories),
        **{f"stop_{reason}": reasons.count(reason) / len(reasons) for reason in STOP_REASONS},
    }


def message_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float | None]:
    """Return how well formed the policy's messages and their searches are; None where there were none.

    A message is cut off where its trajectory ran out of tokens before it had become a search or an answer; any
    other was ended by the policy.  A search is empty when nothing stands between its tags (such a message is no
    action), or when no passage that came back has a text.  Searches that failed are not counted.
    """
    turns = [turn for t in trajectories for turn in t.turns]
    cut = sum(t.stop_reason == "length" and t.turns[-1].action == "none" for t in trajectories if t.turns)
    found = [turn.retrieval for turn in turns if turn.retrieval is not None and turn.retrieval.error is None]
    unasked = sum(turn.action == "none" and _EMPTY_SEARCH.search(turn.text) is not None for turn in turns)
    empty = unasked + sum(not any(p.text.strip() for p in retrieval.passages) for retrieval in found)
    return {
        "valid_action_rate": _share(sum(turn.action != "none" for turn in turns), len(turns)),
        "eos_rate": _share(len(turns) - cut, len(turns)),
        "empty_search_rate": _share(empty, unasked + len(found)),
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def update_metrics(terms: Sequence[LossTerms], entropy_sum: float, with_kl: bool) -> dict[str, float | None]:
    """Return token means over the micro-batches of one update: None without a token; kl also without a reference.

    logprob_gap: mean |log-prob in training - log-prob when sampled|; above about 1e-3 the sampler
    and the trainer no longer agree on the policy.  effective_share: (sum w)^2 / (n * sum w^2) of the importance
    weights, the plain ratios where nothing is corrected.
    """
    n_tokens = sum(t.n_tokens for t in terms)
    if not n_tokens:
        return dict.fromkeys(UPDATE_COLUMNS)
    share = 1.0 / n_tokens
    gaps = np.concatenate([np.asarray(t.gaps) for t in terms])
    squares = n_tokens * sum(t.weight_square_sum for t in terms)
    return {
        "kl": share * sum(t.kl_sum for t in terms) if with_kl else None,
        "entropy": share * entropy_sum,
        "clip_share": share * sum(t.n_clipped for t in terms),
        "logprob_gap": share * sum(t.gap_sum for t in terms),
        "logprob_gap_p50": float(np.percentile(gaps, 50)) if len(gaps) else 0.0,
        "logprob_gap_p99": float(np.percentile(gaps, 99)) if len(gaps) else 0.0,
        "effective_share": sum(t.weight_sum for t in terms) ** 2 / squares if squares else 0.0,
        "dropped_share": share * sum(t.n_dropped for t in terms),
    }


def seconds_metrics(seconds: StepSeconds) -> dict[str, float]:
    """Return the four times of a step under their column names, rounded to milliseconds."""
    names = ("rollout", "simulator", "training", "total")
    return {f"seconds_{name}": round(getattr(seconds, name), 3) for name in names}
